"""Properties of the attack on posterior pairs: classifiers, plans, solver, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import errors
from jaxunlearn.attacks.leaks import classifiers, defences, features, logistic, plan
from jaxunlearn.metrics import roc


def records(count=400, seed=0, signal=0.05):
    """Posterior pairs of deleted records (they move) and of others (they hardly do), with the truth."""
    draw = np.random.default_rng(seed)
    original = draw.dirichlet(np.ones(4), count)
    deleted = np.arange(count) % 2 == 0
    moved = original + np.where(deleted, signal, 0.002)[:, None] * draw.normal(size=(count, 4))
    moved = np.clip(moved, 1e-6, None)
    return original, moved / moved.sum(1, keepdims=True), deleted


def attack(kind, names=tuple(features.FEATURES), **more):
    tables = [{name: features.compute(*records(seed=seed)[:2], name) for name in names} for seed in (1, 2)]
    return classifiers.run(kind, tables[0], records(seed=1)[2], tables[1], **more), records(seed=2)[2]


@pytest.mark.parametrize("kind", list(classifiers.ATTACKS))
def test_every_attack_finds_a_pair_that_gives_itself_away_and_nothing_in_the_original_alone(kind):
    actual, deleted = attack(kind)
    assert roc.auc(actual["l2_distance"].target.score, deleted) > 0.9
    assert 0.4 < roc.auc(actual["basic_mia"].target.score, deleted) < 0.6
    for answers in actual.values():
        for side in answers:
            assert side.probability.min() >= 0 and side.probability.max() <= 1


@pytest.mark.parametrize("kind", ["rf", "mlp"])
def test_seeds_decide_what_is_random(kind):
    first, second, other = (attack(kind, ("direct_diff",), seed=seed)[0]["direct_diff"].target for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.probability, second.probability)
    assert (first.probability != other.probability).any()


def test_attacks_of_a_population_do_not_see_each_other():
    alike = (
        "direct_diff",
        "basic_mia",
        "sorted_diff",
    )  # of one width: zeros beside a feature change the initial weights
    together, alone = attack("mlp", alike)[0], attack("mlp", ("sorted_diff",))[0]
    actual, expected = (attacks["sorted_diff"].target.probability for attacks in (together, alone))
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_attacks_refuse_what_they_cannot_use():
    values = {"direct_diff": np.zeros((4, 2))}
    with pytest.raises(errors.DataError, match="4 deleted and 0 other"):
        classifiers.run("dt", values, np.ones(4, bool), values)
    with pytest.raises(errors.ConfigError, match="'threshold' supports the features l2_distance, basic_mia"):
        classifiers.run("threshold", values, np.arange(4) > 1, values)
    with pytest.raises(errors.ConfigError, match="unknown attack 'tree'"):
        classifiers.run("tree", values, np.arange(4) > 1, values)


def test_top_k_of_more_classes_than_there_are():
    with pytest.raises(errors.ConfigError, match="top_k = 4: a posterior over 3 classes"):
        defences.publish(np.full((2, 3), 1 / 3), "top_k", top_k=4)
    same = np.random.default_rng(0).dirichlet(np.ones(3), 5)
    np.testing.assert_array_equal(defences.publish(same, "top_k", top_k=3), same)


def test_temperature_is_the_softmax_of_divided_logits():
    values = np.random.default_rng(0).normal(size=(6, 5)) * 3
    expected = np.asarray(jax.nn.softmax(values / 4.0, axis=-1))
    published = defences.publish(np.asarray(jax.nn.softmax(values, axis=-1)), "temperature", temperature=4.0)
    np.testing.assert_allclose(published, expected, atol=1e-6)
    certain = defences.publish(np.asarray([[1.0, 0.0, 0.0]]), "temperature", temperature=2.0)
    np.testing.assert_array_equal(certain, [[1.0, 0.0, 0.0]])


def test_ties_are_broken_by_the_order_of_the_classes():
    even = np.asarray([[0.4, 0.4, 0.2]])
    np.testing.assert_array_equal(defences.publish(even, "label"), [[0, 1, 0]])
    np.testing.assert_array_equal(features.compute(even, np.asarray([[0.5, 0.3, 0.2]]), "sorted_diff").round(6),
                                  [[0.0, -0.1, 0.1]])  # fmt: skip


# ---- plans ----------------------------------------------------------------------------------------------------------


def drawn(case="in_out", online=False, **sizes):
    sizes = plan.Sizes(**{"sets": 3, "set_size": 40, "deletions": 5, **sizes})
    pool = plan.pools(400)[0]
    plan.check(sizes, pool, case, online)
    return pool, plan.draw(pool, sizes, np.random.RandomState(1), np.random.RandomState(2), case=case, online=online)


@pytest.mark.parametrize("case, group, width", [("in_out", 1, 1), ("in_out", 4, 4), ("in_in", 4, 1),
                                                ("multi_version", 4, 1)])  # fmt: skip
def test_who_is_evaluated(case, group, width):
    pool, side = drawn(case, group=group)
    assert side.positive.shape == side.negative.shape == (3, 5, width)
    assert np.isin(side.negative, pool.negative).all()
    member, source = plan.membership(side, 0, 400)
    for i in range(3):
        for j in range(5):
            after = member[3 + 5 * i + j]
            assert member[i, side.positive[i, j]].all() and source[3 + 5 * i + j] == i
            assert after[side.positive[i, j]].all() == (case == "in_in")
            assert not member[i, side.negative[i, j]].any() and not after[side.negative[i, j]].any()
            assert after.sum() == 40 - group


def test_online_learning_replaces_what_it_deletes():
    pool, side = drawn(online=True, group=2)
    member, _ = plan.membership(side, 0, 400)
    assert (member.sum(1) == 40).all() and np.isin(side.added, pool.replace).all()
    assert member[3, side.added[0, 0]].all() and not member[3, side.deleted[0, 0]].any()


def test_shards_lose_only_the_deleted_record():
    _, side = drawn(shards=4)
    member, source = plan.membership(side, 4, 400)
    assert member.shape == (3 * 4 + 3 * 5, 400) and (member[:12].sum(1) == 10).all()
    for row in range(12, 27):
        changed = np.flatnonzero(member[source[row]] ^ member[row])
        np.testing.assert_array_equal(changed, side.deleted.reshape(-1)[row - 12 : row - 11])


@pytest.mark.parametrize("sizes, online, message", [
    ({"set_size": 161}, False, "set_size = 161, but the shadow side has 160 records"),
    ({"group": 40}, False, "group = 40 records are deleted together from sets of set_size = 40"),
    ({"shards": 7}, False, "does not split into 7 equal shards"),
    ({"shards": 40}, False, "does not split into 40 equal shards of at least 2"),
    ({"shards": 4, "group": 2}, False, "group = 2: SISA deletes one record"),
    ({"shards": 4}, True, "update = online: SISA deletes one record"),
    ({"shards": 4, "deletions": 35}, False, "34 records never used for training, but 35 are needed"),
    ({"group": 7}, True, "online learning adds 7 records per model, but the shadow side has 6"),
])  # fmt: skip
def test_impossible_plans_are_refused(sizes, online, message):
    with pytest.raises(errors.ConfigError, match=message):
        drawn(online=online, **sizes)


# ---- exact logistic regression --------------------------------------------------------------------------------------


def test_records_of_weight_zero_are_not_there():
    draw = np.random.default_rng(0)
    inputs, labels = draw.normal(size=(60, 5)).astype(np.float32), draw.integers(0, 3, 60)
    weights = np.ones(60, np.float32)
    weights[[4, 30]] = 0
    rows = np.flatnonzero(weights)
    poisoned = inputs.copy()
    poisoned[[4, 30]] = np.nan
    whole = logistic.fit(jnp.asarray(poisoned), jnp.asarray(labels), jnp.asarray(weights), 3)
    alone = logistic.fit(jnp.asarray(inputs[rows]), jnp.asarray(labels[rows]), jnp.ones(58), 3)
    for leaf, other in zip(whole, alone, strict=True):
        np.testing.assert_allclose(np.asarray(leaf), np.asarray(other), atol=2e-5)


def test_absent_classes_constant_features_and_separable_classes():
    inputs = np.column_stack([np.linspace(-5, 5, 40), np.full(40, 7.0)]).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int32)  # of three classes the last is never seen
    answers = jax.nn.softmax(logistic.logits(
        logistic.fit(jnp.asarray(inputs), jnp.asarray(labels), jnp.ones(40), 3), jnp.asarray(inputs)))  # fmt: skip
    answers = np.asarray(answers)
    assert np.isfinite(answers).all() and (answers[:, 2] == 0).all()
    assert (answers.argmax(1) == labels).all()
    one_class = logistic.fit(jnp.asarray(inputs), jnp.zeros(40, jnp.int32), jnp.ones(40), 2)
    np.testing.assert_array_equal(np.asarray(jax.nn.softmax(logistic.logits(one_class, inputs)))[:, 1], 0)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-5), ("float64", 1e-8)])
def test_many_features_are_solved_to_the_same_optimum_without_a_matrix(dtype, tolerance, monkeypatch):
    draw = np.random.default_rng(0)
    inputs = (draw.random((150, 40)) < 0.15) * 1.0
    labels = (inputs[:, :5] @ np.arange(1, 6) + draw.normal(size=150)).clip(0, 2.99).astype(int)
    weights = (np.arange(150) % 7 > 0) * 1.0
    with jax.enable_x64(dtype == "float64"):
        problem = jnp.asarray(inputs, dtype), jnp.asarray(labels), jnp.asarray(weights, dtype), 3
        direct = logistic.fit(*problem)
        monkeypatch.setattr(logistic, "DIRECT", 10)
        matrix_free = logistic.fit(*problem)
        answers = [np.asarray(jax.nn.softmax(logistic.logits(model, problem[0]))) for model in (direct, matrix_free)]
    np.testing.assert_allclose(*answers, rtol=0, atol=tolerance)
    assert np.ptp(answers[0][:, 0]) > 0.5
