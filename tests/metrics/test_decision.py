import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from jaxunlearn import errors
from jaxunlearn.metrics.inference import decision

coarse = st.lists(st.integers(-4, 4), min_size=1, max_size=30).map(lambda values: np.array(values, np.float64))


@trials(max_examples=80, deadline=None)
@given(coarse, coarse, st.sampled_from(["greater", "less"]))
def test_conservative_p_values_equal_their_definition(statistic, null, side):
    result = decision.p_values(statistic, null, side=side)
    for value, p in zip(statistic, result, strict=True):
        extreme = null >= value if side == "greater" else null <= value
        assert p == pytest.approx((1 + extreme.sum()) / (len(null) + 1), abs=1e-12)


@trials(max_examples=80, deadline=None)
@given(coarse, coarse)
def test_randomised_p_values_lie_between_the_strict_and_the_conservative_ones(statistic, null):
    p = decision.p_values(statistic, null, seed=3)
    strict = np.array([(null > value).sum() for value in statistic]) / (len(null) + 1)
    assert (p > strict).all()
    assert (p <= decision.p_values(statistic, null)).all()


@trials(max_examples=60, deadline=None)
@given(coarse, coarse, st.randoms(use_true_random=False))
def test_p_values_fall_with_the_statistic_and_follow_permutations(statistic, null, random):
    p = decision.p_values(statistic, null)
    rising = np.argsort(statistic, kind="stable")
    assert (np.diff(p[rising]) <= 0).all()
    shuffled = np.array(random.sample(range(len(statistic)), len(statistic)))
    np.testing.assert_array_equal(decision.p_values(statistic[shuffled], null[::-1]), p[shuffled])
    mirrored = decision.p_values(-statistic, -null, side="less")
    np.testing.assert_array_equal(mirrored, p)


@pytest.mark.parametrize("decimals", [0, 6])
def test_randomised_p_values_are_exactly_uniform_under_the_null_with_and_without_ties(decimals):
    """One statistic against its own null of 9, repeated: independent draws, 10 ranks."""
    rng = np.random.default_rng(0)
    result = []
    for repetition in range(4000):
        values = np.round(rng.normal(size=10), decimals)
        result.append(decision.p_values(values[:1], values[1:], seed=repetition)[0])
    assert scipy.stats.kstest(result, "uniform").pvalue > 0.01


def test_conservative_p_values_never_reject_too_often():
    rng = np.random.default_rng(1)
    values = np.round(rng.normal(size=(4000, 10)), 1)
    result = np.array([decision.p_values(row[:1], row[1:])[0] for row in values])
    for level in (0.1, 0.2, 0.5):
        # Exactly at most the level; 4000 repetitions have a standard error of at most 0.008.
        assert np.mean(result <= level) <= level + 0.02


def test_calibration_by_group_is_the_calibration_of_each_group_alone():
    rng = np.random.default_rng(2)
    groups, null_groups = rng.integers(0, 3, 50), rng.integers(0, 3, 400)
    statistic, null = rng.normal(size=50) + groups, rng.normal(size=400) + null_groups
    p = decision.p_values(statistic, null, groups=groups, null_groups=null_groups)
    for group in range(3):
        single = decision.p_values(statistic[groups == group], null[null_groups == group])
        np.testing.assert_array_equal(p[groups == group], single)
    pooled = decision.p_values(statistic, null)
    assert pooled[groups == 2].mean() < 0.35 < p[groups == 2].mean()


def test_a_group_without_a_null_is_never_rejected():
    p = decision.p_values(np.array([9.0, 9.0]), np.zeros(99), groups=[0, 7], null_groups=np.zeros(99))
    np.testing.assert_allclose(p, [0.01, 1.0])
    seeded = decision.p_values(np.full(500, 9.0), np.zeros(5), seed=0, groups=np.full(500, 7), null_groups=np.zeros(5))
    assert scipy.stats.kstest(seeded, "uniform").pvalue > 0.001


def test_seeds_decide_ties():
    first, again, other = (decision.p_values(np.zeros(20), np.zeros(5), seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def naive_adjusted(p):
    n = len(p)
    rank = [sum(q <= value for q in p) for value in p]
    return np.array([min([1.0] + [n * p[j] / rank[j] for j in range(n) if p[j] >= p[i]]) for i in range(n)])


@trials(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=25), st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0]))
def test_benjamini_hochberg_equals_its_definition(ranks, level):
    p = np.array(ranks) / 20
    rejections = decision.benjamini_hochberg(p, level)
    np.testing.assert_allclose(rejections.adjusted, naive_adjusted(p), atol=1e-12)
    np.testing.assert_allclose(rejections.adjusted, scipy.stats.false_discovery_control(p), atol=1e-12)
    np.testing.assert_array_equal(rejections.rejected, rejections.adjusted <= level)


def test_benjamini_hochberg_of_conformal_p_values_controls_the_false_discovery_rate():
    """All samples share one null, as in an audit; a third of them are truly different."""
    rng = np.random.default_rng(3)
    different = np.arange(150) < 50
    fractions, power = [], []
    for _ in range(400):
        statistic = rng.normal(size=150) + 3.0 * different
        p = decision.p_values(statistic, rng.normal(size=1000))
        rejected = decision.benjamini_hochberg(p, 0.2).rejected
        fractions.append((rejected & ~different).sum() / max(rejected.sum(), 1))
        power.append((rejected & different).sum() / 50)
    # The bound is 0.2 * 2 / 3 = 0.133; the standard error of 400 repetitions is about 0.003.
    assert 0.09 < np.mean(fractions) < 0.145
    assert np.mean(power) > 0.7


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: decision.p_values(np.ones(2), np.empty(0)), errors.DataError, "null contains no values"),
        (lambda: decision.p_values(np.array([np.nan]), np.ones(2)), errors.DataError, "statistic contains 1"),
        (lambda: decision.p_values(np.ones(2), np.array([np.inf])), errors.DataError, "null contains 1"),
        (lambda: decision.p_values(np.ones(2), np.ones(2), side="both"), errors.ConfigError, "side 'both'"),
        (lambda: decision.p_values(np.ones(2), np.ones(2), groups=[0, 1]), errors.ConfigError, "null_groups is miss"),
        (
            lambda: decision.p_values(np.ones(2), np.ones(2), groups=[0], null_groups=[0, 1]),
            errors.ShapeError,
            "groups has shape",
        ),
        (lambda: decision.benjamini_hochberg(np.array([0.5, 1.5])), errors.DataError, "entry 1 is 1.5"),
        (lambda: decision.benjamini_hochberg(np.array([np.nan])), errors.DataError, "entry 0 is nan"),
        (lambda: decision.benjamini_hochberg(np.ones(2), 2.0), errors.ConfigError, "fdr = 2"),
    ],
)
def test_the_border_says_what_is_wrong(call, error, says):
    with pytest.raises(error, match=says):
        call()
