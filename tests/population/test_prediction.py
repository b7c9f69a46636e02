"""Answers of a population."""

import jax
import numpy as np
import problem
import pytest

from jaxunlearn import keys, population, records, settings, trees
from jaxunlearn.data.augmentation import augment as augmentation


@pytest.fixture(scope="module")
def trained():
    carry, _ = problem.fit(problem.make_job(range(5)))
    return problem.make_task(), population.variables(carry.state)


def answers(trained, rows, **kwargs):
    task, variables = trained
    mapping = kwargs.pop("mapping", population.make_mapping("map"))
    out = None
    for where, logits in population.predict(task, variables, problem.IMAGES, rows, mapping, **kwargs):
        out = np.full((logits.shape[0], len(rows), logits.shape[2]), np.nan, np.float32) if out is None else out
        out[:, where] = logits
    return out


def test_blocks_batches_and_mappings_do_not_change_the_answers(trained):
    rows = np.random.default_rng(0).permutation(600)[:301]
    expected = answers(trained, rows, batch=301, block=301, mapping=population.make_mapping("map", 1, 1))
    assert np.isfinite(expected).all()
    for batch, block, mapping in ((32, 64, population.make_mapping("vmap")), (7, 49, population.make_mapping("map"))):
        np.testing.assert_allclose(
            answers(trained, rows, batch=batch, block=block, mapping=mapping), expected, atol=2e-5
        )


def test_answers_equal_the_module_alone(trained):
    _, variables = trained
    rows = np.arange(50)
    expected = problem.Mlp(norm=True).apply(trees.take(variables, 3), problem.IMAGES[rows] / np.float32(16))
    np.testing.assert_allclose(answers(trained, rows)[3], expected, atol=2e-5)


def test_an_augmented_view_is_one_view_for_all_members_and_repeatable(trained):
    rows = np.arange(64)
    key = keys.root(3)
    clean, view = answers(trained, rows), answers(trained, rows, view_key=key, batch=16)
    np.testing.assert_array_equal(view, answers(trained, rows, view_key=key, batch=16))
    assert np.abs(view - clean).max() > 0.1
    # the toy view flips a row for all members or for none
    flipped = np.abs(view - clean).max(-1) > 1e-3
    assert (flipped == flipped[0]).all() and 16 < flipped[0].sum() < 48


@pytest.mark.parametrize("augment", ["flip_crop", "autoaugment"])
def test_the_view_of_a_row_does_not_depend_on_what_is_asked_with_it(augment):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (30, 8, 8, 3)).astype(np.uint8)
    dataset = records.Dataset(pictures, np.zeros(30, np.int32), np.arange(30), scale=255.0)
    module = problem.Mlp()
    task = population.supervised(module, module, augmentation.prepare(dataset, augment, 2), settings.TrainSettings(),
                                 jax.ShapeDtypeStruct((8, 8, 3), np.uint8))  # fmt: skip
    variables = population.variables(jax.vmap(task.init)(jax.random.split(keys.root(0), 2)))

    def view(rows, batch, block):
        out = population.predict(task, variables, pictures, rows, population.make_mapping("map", devices=1),
                                 batch=batch, block=block, view_key=keys.root(1))  # fmt: skip
        return np.concatenate([logits for _, logits in out], 1)

    expected = view(np.arange(30), 30, 30)
    assert np.abs(expected - view(np.arange(30), 8, 16)).max() < 2e-5
    rows = rng.permutation(30)[:11]
    np.testing.assert_allclose(view(rows, 4, 8), expected[:, rows], atol=2e-5)
