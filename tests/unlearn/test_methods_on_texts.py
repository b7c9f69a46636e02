"""Every line of METHODS on texts: those that run train a small language model, the others refuse with one message."""

import functools
import types

import common_checks
import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

from jaxunlearn import errors, keys, trees, unlearn
from jaxunlearn.unlearn import registry
from jaxunlearn.unlearn.base import entries, network
from jaxunlearn.unlearn.base.method import Samples
from jaxunlearn.unlearn.blocks import labels, transforms
from jaxunlearn.unlearn.engine import running
from jaxunlearn.unlearn.methods import replay, teachers
from jaxunlearn.unlearn.methods.importance import dampening, fisher, influence

TEXTS = [name for name in common_checks.ALL if "classes" not in registry.METHODS[name].needs]
# What runs on texts, or does something to a random network, only with other hyperparameters.
GIVEN = {"fisher": {"kind": "empirical"}, "lfssd": {"alpha": 1.0}}
NEED_HEAD = ("fisher", "prune_last_layer")


@functools.cache
def built(name):
    return registry.METHODS[name].build(**{**common_checks.small_hyperparameters(name), **GIVEN.get(name, {})})


@functools.cache
def unlearned(name):
    """What a method makes of two members with other forget sets."""
    return common_checks.outcome(
        common_checks.make_job(built(name), common_checks.FORGET[:2], member_ids=[0, 1], net=common_checks.TOKENS)
    )


@pytest.mark.parametrize("name", TEXTS)
def test_methods_run_on_texts(name):
    actual = unlearned(name)
    np.testing.assert_array_equal(actual.diverged_at, running.NOT_DIVERGED)
    before = common_checks.originals(common_checks.TOKENS, 2)
    for number in range(2):
        pairs = zip(
            trees.named_leaves(trees.take(actual.variables, number)), trees.named_leaves(trees.take(before, number)),
            strict=True,
        )  # fmt: skip
        moved = {path: float(np.abs(a - b).max()) for (path, a), (_, b) in pairs}
        assert np.isfinite(list(moved.values())).all()
        assert max(moved.values()) > 0, "nothing was done"


@pytest.mark.parametrize("name", ["random_label", "bad_teacher", "salun", "influence"])
def test_a_member_alone_is_the_member_among_others(name):
    """Methods for both kinds of data; those for texts alone are in all checks of test_methods.py."""
    alone = common_checks.outcome(
        common_checks.make_job(built(name), [common_checks.FORGET[1]], "vmap", member_ids=[1], net=common_checks.TOKENS)
    )
    common_checks.assert_close(trees.take(unlearned(name).variables, slice(1, 2)), alone.variables)


@pytest.mark.parametrize("name", TEXTS)
def test_methods_trace_under_a_tied_embedding(name):
    """A head that is the embedding is no dense layer: methods that change the head refuse, all others run."""
    job = common_checks.make_job(built(name), common_checks.FORGET[:2], member_ids=[0, 1], net=common_checks.TIED)
    if name in NEED_HEAD:
        with pytest.raises(errors.ConfigError, match="does not end in one"):
            running.trace(job)
    else:
        running.trace(job)


@pytest.mark.parametrize("name", sorted(registry.METHODS))
def test_methods_refuse_the_other_kind_of_data(name):
    entry = registry.METHODS[name]
    for vocabulary, kind in ((0, "tokens"), (11, "classes")):
        if kind in entry.needs:
            with pytest.raises(
                errors.ConfigError, match=f"{name} is for .*need {'classes' if vocabulary else 'tokens'}"
            ):
                entries.check_fits(name, entry, vocabulary)
        else:
            entries.check_fits(name, entry, vocabulary)


def test_wrappers_refuse_texts_where_they_rest_on_classes():
    for name, fits in (
        ("ssd+conformal", False),
        ("ascent+orthogonal", False),
        ("ssd+our", True),
        ("npo+salient", True),
    ):
        assert entries.fits(unlearn.lookup(name), 11) is fits, name


@pytest.mark.parametrize("name", ["ascent+our", "amnesiac+our", "bad_teacher+our", "npo+salient", "ssd+salient"])
def test_wrappers_run_on_texts(name):
    entry = unlearn.lookup(name)
    values = {key: 1 for key in ("epochs", "our_epochs") if key in registry.hyperparameters(entry)}
    method = entry.build(**values)
    outcome = common_checks.outcome(
        common_checks.make_job(method, common_checks.FORGET[:1], member_ids=[0], net=common_checks.TOKENS)
    )
    np.testing.assert_array_equal(outcome.diverged_at, running.NOT_DIVERGED)
    before = common_checks.originals(common_checks.TOKENS, 1)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(outcome.variables), jax.tree.leaves(before), strict=True))


def test_the_fisher_information_of_every_answer_is_refused_on_texts():
    with pytest.raises(errors.ConfigError, match="kind=empirical"):
        running.trace(common_checks.make_job(registry.METHODS["fisher"].build(), net=common_checks.TOKENS))


def batch_of(is_forget):
    tokens, following = (jnp.asarray(array[:6]) for array in common_checks.texts())
    return Samples(tokens, following, jnp.ones(6), jnp.arange(6), jnp.asarray(is_forget))


@pytest.mark.parametrize("rule", [labels.wrong, labels.uniform])
def test_drawn_next_tokens(rule):
    """Every token of a text to forget is drawn for itself, where there is one; by row, whatever the batch."""
    batch = batch_of([True, True, True, False, False, False])
    drawn = np.asarray(rule(keys.root(1), batch, common_checks.VOCABULARY))
    old = np.asarray(batch.labels)
    np.testing.assert_array_equal(drawn < 0, old < 0)
    np.testing.assert_array_equal(drawn[3:], old[3:])
    is_token = old[:3] >= 0
    assert drawn.max() < common_checks.VOCABULARY and len(np.unique(drawn[:3][is_token])) > 3
    if rule is labels.wrong:
        assert (drawn[:3] != old[:3])[is_token].all()
    alone = rule(keys.root(1), jax.tree.map(lambda leaf: leaf[1:2], batch), common_checks.VOCABULARY)
    np.testing.assert_array_equal(alone[0], drawn[1])


def test_two_teachers_take_turns_over_texts():
    rng = np.random.default_rng(0)
    student, bad, good = jnp.asarray(
        rng.normal(size=(3, 6, common_checks.LENGTH, common_checks.VOCABULARY)).astype(np.float32)
    )
    batch = batch_of([True, False] * 3)
    mixed = teachers.two_teachers(student, bad, good, batch, per_class=False)
    parts = []
    for teacher, where in ((bad, batch.is_forget), (good, ~batch.is_forget)):
        chances = np.asarray(jax.nn.softmax(teacher))
        values = np.sum(chances * (np.log(chances) - np.asarray(jax.nn.log_softmax(student))), -1)
        parts.append(values[(np.asarray(batch.labels) >= 0) & np.asarray(where)[:, None]])
    np.testing.assert_allclose(mixed, np.concatenate(parts).mean(), rtol=1e-5)


def test_a_class_label_draws_as_it_did():
    """Draws for class labels are one number per row: that of a scalar draw."""
    rows = jnp.arange(6)
    batch = Samples(None, jnp.arange(6) % 4, jnp.ones(6), rows, jnp.ones(6, bool))
    expected = [int(jax.random.randint(keys.at(keys.root(1), row), (), 0, 4)) for row in range(6)]
    np.testing.assert_array_equal(labels.uniform(keys.root(1), batch, 4), expected)


def test_scrub_rewinds_on_texts():
    """Errors are those of tokens; held-out texts are chosen by group."""
    method = teachers.scrub(epochs=2, msteps=1, batch=8, rewind=True)
    outcome = common_checks.outcome(
        common_checks.make_job(method, common_checks.FORGET[:1], member_ids=[0], net=common_checks.TOKENS)
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outcome.variables))


def view(rows, compute):
    """Returns `compute` of one member's EstimateContext, on a stream "rows" of the shared texts."""
    reads = {"rows": unlearn.StreamSpec(lambda member_rows: rows, 4, shuffle=False)}
    estimate = unlearn.Estimate(lambda member: (compute(member), member.model_state), reads)
    phase = unlearn.Phase(transforms.one_shot(lambda params, **extras: params), estimates={"found": estimate})
    job = common_checks.make_job(
        unlearn.Method((phase,)), common_checks.FORGET[:1], member_ids=[0], net=common_checks.TOKENS
    )
    return nets.estimated(job)["found"], trees.take(job.originals, 0)["params"]


def row_gradients(params, rows, is_mean):
    """Gradients of every text's loss, summed or averaged over its tokens, one by one in numpy's way."""
    tokens, following = (jnp.asarray(array) for array in common_checks.texts())

    def loss(params, row):
        logits, _ = network.forward(common_checks.TOKENS, params, {}, tokens[row][None])
        values = -jax.nn.log_softmax(logits[0])[jnp.arange(common_checks.LENGTH), following[row]]
        is_token = following[row] >= 0
        total = jnp.sum(jnp.where(is_token, values, 0.0))
        return total / jnp.sum(is_token) if is_mean else total

    gradient = jax.jit(jax.grad(loss))
    return [gradient(params, row) for row in rows]


def test_the_empirical_fisher_information_of_texts_is_that_of_whole_texts():
    rows = np.array([3, 10, 11, 20, 40])
    actual, params = view(rows, lambda member: fisher.information(member, "rows", "empirical"))
    naive = jax.tree.map(lambda *leaves: sum(np.square(leaf) for leaf in leaves) / len(rows),
                         *row_gradients(params, rows, False))  # fmt: skip
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(naive), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


def test_importances_of_texts_are_by_batch():
    """Squares of gradients of means over all tokens of a batch."""
    rows = np.array([3, 10, 11, 20])
    (actual, _), params = view(rows, lambda member: dampening.importance(member, "rows"))
    counts = np.sum(common_checks.texts()[1][rows] >= 0, 1)
    sums = row_gradients(params, rows, False)
    naive = jax.tree.map(lambda *leaves: np.square(sum(leaves) / counts.sum()), *sums)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(naive), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-8)


def test_the_influence_step_of_texts_weighs_texts_alike():
    rows = np.array([3, 10, 11, 20])
    direction = row_gradients(trees.take(common_checks.originals(common_checks.TOKENS, 1), 0)["params"], [5], True)[0]

    def products(member):
        tokens, following = (jnp.asarray(array[rows]) for array in common_checks.texts())
        batch = Samples(tokens, following, jnp.ones(4), jnp.asarray(rows), jnp.ones(4, bool))
        return influence.row_products(member, batch, direction)[0]

    actual, params = view(rows, products)
    gradients = row_gradients(params, rows, True)
    expected = [sum(np.vdot(a, b) for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(direction), strict=True))
              for tree in gradients]  # fmt: skip
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-7)


def test_deltagrad_of_exact_steps_is_training_on_the_tokens_that_remain():
    method = registry.METHODS["deltagrad"].build(lr=0.1, epochs=2, period=1, batch=60, weight_decay=0.0)
    actual = common_checks.outcome(
        common_checks.make_job(method, [np.arange(0, 9)], member_ids=[0], net=common_checks.TOKENS)
    ).variables
    params = network.init(common_checks.TOKENS, keys.member(keys.stream(keys.root(5), "init"), 0))[0]
    kept = np.arange(9, 60)
    number = np.sum(common_checks.texts()[1][kept] >= 0)
    for _ in range(2):
        gradient = jax.tree.map(lambda *leaves: sum(leaves) / number, *row_gradients(params, kept, False))
        params = jax.tree.map(lambda leaf, slope: leaf - 0.1 * slope, params, gradient)
    for a, b in zip(jax.tree.leaves(trees.take(actual, 0)["params"]), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_deltagrad_counts_tokens():
    """What stays and what goes of a batch's mean is counted in tokens; a padded text counts for nothing."""
    batch = batch_of([True, False, True, False, False, True])
    batch = batch._replace(weights=batch.weights.at[5].set(0.0))
    params = {"w": jnp.zeros(3)}
    counts = jax.grad(lambda params: replay._row_counts({}, {"all": batch}, types.SimpleNamespace(params=params)))(
        params
    )
    tokens = np.sum(np.asarray(batch.labels) >= 0, 1)
    np.testing.assert_array_equal(counts["w"], [tokens[:5].sum(), tokens[0] + tokens[2], 0])
