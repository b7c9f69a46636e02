"""Answers of a population."""

import numpy as np
import problem
import pytest

from jaxunlearn import keys, population, trees


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
    # the toy view flips whole batches: a batch is flipped for all members or for none
    flipped = np.abs(view - clean).reshape(5, 4, -1).max(-1) > 1e-3
    assert (flipped == flipped[0]).all()
