"""Properties that hold for any input: ranges, monotonicity, invariances, and kernels against naive references."""

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxunlearn import errors
from jaxunlearn.scores import signals
from jaxunlearn.scores.families import emia, iam, lira, rmia

S, N, P = 3, 6, 7
few = settings(deadline=None, max_examples=25, derandomize=True)


def floats(*shape, low=-8.0, high=8.0):
    return hnp.arrays(np.float32, shape, elements=st.floats(low, high, width=32, allow_subnormal=False))


def probabilities(*shape):
    return floats(*shape, low=0.0, high=1.0)


@pytest.mark.parametrize("family", iam.FAMILIES)
@few
@given(o=probabilities(N), u=probabilities(N), s=probabilities(S, N), spread=st.sampled_from(iam.STDS))
def test_iam_lies_between_0_and_1_even_where_nothing_varies(family, o, u, s, spread):
    for shadows in (s, np.broadcast_to(s[:1], s.shape)):
        actual = np.asarray(iam.interpolate(o, u, shadows, interpolation_steps=4, family=family, std=spread))
        assert np.isfinite(actual).all() and actual.min() >= 0 and actual.max() <= 1


@pytest.mark.parametrize("family", ["gumbel", "norm", "ecdf", "kde"])
@few
@given(o=floats(N), u=floats(N), s=floats(S, N), more=floats(N, low=0.0), spread=st.sampled_from(iam.STDS))
def test_iam_does_not_fall_when_the_unlearned_signal_rises(family, o, u, s, more, spread):
    how = {"interpolation_steps": 4, "family": family, "std": spread}
    risen = np.asarray(iam.interpolate(o, u + more, s, **how)) - np.asarray(iam.interpolate(o, u, s, **how))
    assert risen.min() >= -2e-6


@pytest.mark.parametrize("family", ["gumbel", "norm"])
@few
@given(seed=st.integers(0, 10**6), slope=st.floats(0.125, 8, width=32), shift=st.floats(-5, 5, width=32),
       spread=st.sampled_from(iam.STDS))  # fmt: skip
def test_iam_does_not_depend_on_unit_and_zero_of_the_signal(family, seed, slope, shift, spread):
    draw = np.random.default_rng(seed)
    o, u, s = draw.normal(size=N), draw.normal(size=N), draw.normal(size=(S, N))
    how = {"interpolation_steps": 4, "family": family, "std": spread}
    actual = iam.interpolate(*(slope * x + shift for x in (o, u, s)), **how)
    np.testing.assert_allclose(actual, iam.interpolate(o, u, s, **how), atol=1e-4)


@pytest.mark.parametrize("spread", iam.STDS)
@pytest.mark.parametrize("family", iam.FAMILIES)
def test_iam_is_the_published_loop_over_levels(family, spread):
    draw = np.random.default_rng(0)
    o, u, s = (draw.uniform(size=shape).astype(np.float32) for shape in (N, N, (S, N)))
    for levels in (2, 11):
        actual = iam.interpolate(o, u, s, interpolation_steps=levels, family=family, std=spread)
        np.testing.assert_allclose(actual, naive.iam(o, u, s, levels, family, spread), atol=2e-6)


@pytest.mark.parametrize("variance", ["global", "per_sample"])
@few
@given(u=floats(N), o=floats(N), s=floats(S, N))
def test_lira_lies_where_it_says(variance, u, o, s):
    offline = np.asarray(lira.offline(u, s, variance=variance))
    changed = np.asarray(lira.update(u, o, s, variance=variance))
    assert 0 <= offline.min() and offline.max() <= 1 and np.abs(changed).max() <= 1
    assert np.isfinite(lira.online(u, o, s, variance=variance)).all()


@few
@given(u=floats(N), more=floats(N, low=0.0), s=floats(S, N))
def test_offline_lira_does_not_fall_when_the_logit_rises(u, more, s):
    assert (np.asarray(lira.offline(u + more, s)) >= np.asarray(lira.offline(u, s)) - 1e-6).all()


@pytest.mark.parametrize("variance, per_sample", [("global", False), ("per_sample", True), ("auto", False)])
def test_standard_lira_is_the_loop_over_samples(variance, per_sample):
    draw = np.random.default_rng(0)
    u, reference = draw.normal(size=N), draw.normal(size=(20, N))
    member = np.stack([draw.permutation(20) < 9 for _ in range(N)], 1)
    actual = lira.standard(*(jnp.asarray(x, jnp.float32) for x in (u, reference)), member, variance=variance)
    np.testing.assert_allclose(actual, naive.lira_standard(u, reference, member, per_sample), rtol=1e-4, atol=1e-5)


def test_lira_has_one_deviation_below_128_models_and_one_per_sample_from_there_on():
    values = np.random.default_rng(0).normal(size=(129, N)).astype(np.float32)
    assert lira.deviation(values[:127]).shape == () and lira.deviation(values[:128]).shape == (N,)
    np.testing.assert_allclose(lira.deviation(values[:127]), values[:127].std(), rtol=1e-5)
    np.testing.assert_allclose(lira.deviation(values), values.std(0), rtol=1e-5)
    assert lira.deviation(np.ones((128, N), np.float32)).min() == np.float32(lira.FLOOR)


@few
@given(ratio=floats(N), population=floats(P), gamma=st.sampled_from([0.5, 1.0, 2.0]))
def test_dominated_counts_every_pair(ratio, population, gamma):
    ratio = np.where(np.abs(ratio) < 1e-20, np.float32(0), ratio)  # below 1e-30 a ratio counts as 1e-30
    actual = np.asarray(rmia.dominated(ratio, population, gamma))
    away = np.where(np.abs(population) < 1e-30, np.where(population < 0, -1e-30, 1e-30), population)
    products = ratio[:, None].astype(np.float64) / away
    assert np.abs(actual * P - np.round(actual * P)).max() < 1e-5 and actual.min() >= 0 and actual.max() <= 1
    # A product within rounding of gamma may count or not.
    low, high = (np.mean(products > gamma * (1 + sign * 1e-5), 1) for sign in (1, -1))
    assert (low - 1e-6 <= actual).all() and (actual <= high + 1e-6).all()


@pytest.mark.parametrize("models", [1, 4, 5, 13, 32])
def test_the_trimmed_mean_is_scipys(models):
    import scipy.stats

    values = np.random.default_rng(models).normal(size=(models, N)).astype(np.float32)
    for trim in (0.2, 0.4):
        actual = jax.jit(rmia.trimmed_mean, static_argnums=1)(values, trim)
        np.testing.assert_allclose(actual, scipy.stats.trim_mean(values, trim, axis=0), atol=1e-6)


@few
@given(u=floats(N), o=floats(N), s=floats(S, N), population=floats(P), inside=floats(P), population_s=floats(S, P))
def test_rmia_is_a_fraction_of_the_population(u, o, s, population, inside, population_s):
    for actual in (rmia.offline(u, s, population, population_s, 0.33),
                  rmia.online(u, o, s, population, inside, population_s)):  # fmt: skip
        counts = np.asarray(actual) * P
        assert np.abs(counts - np.round(counts)).max() < 1e-5 and counts.min() >= 0 and counts.max() <= P + 1e-5


@few
@given(u=floats(N, low=-80.0, high=80.0), s=floats(S, N, low=-80.0, high=80.0), population=floats(P), more=floats(N))
def test_emia_is_a_quantile(u, s, population, more):
    actual = np.asarray(emia.reference(u, s))
    assert np.isfinite(actual).all() and actual.min() >= 0 and actual.max() <= 1
    assert (np.asarray(emia.reference(u + np.abs(more), s)) >= actual - 1e-6).all()
    others = np.asarray(emia.population(u, population)) * P
    assert np.abs(others - np.round(others)).max() < 1e-5 and others.min() >= 0 and others.max() <= P


def test_equal_knots_count_with_their_last_value_in_emia():
    shadows = np.float32([[1.0], [1.0], [2.0]])
    # The loss falls as the logit rises: at the knot of the two equal shadows 3 of 4 steps have been climbed.
    np.testing.assert_allclose(emia.reference(np.float32([1.0]), shadows), [1 - 3 / 4], atol=1e-6)
    np.testing.assert_allclose(emia.reference(np.float32([2.0]), shadows), [1 - 1 / 4], atol=1e-6)
    np.testing.assert_allclose(emia.reference(np.float32([-2000.0]), shadows), [0.0], atol=1e-6)


@few
@given(logits=floats(N, 4, low=-80.0, high=80.0), labels=hnp.arrays(np.int32, N, elements=st.integers(0, 3)))
def test_signals_follow_float64_where_softmax_saturates(logits, labels):
    odds = signals.log_odds(logits, labels)
    np.testing.assert_allclose(odds, naive.log_odds(logits, labels), rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(signals.carlini_logit(logits, labels), naive.carlini(logits, labels), atol=5e-5)
    np.testing.assert_allclose(signals.log_odds_cross_entropy(odds), -naive.minus_loss(logits, labels),
                               rtol=1e-4, atol=2e-5)  # fmt: skip
    np.testing.assert_allclose(signals.log_odds_confidence(odds), naive.confidence(logits, labels), atol=1e-5)
    np.testing.assert_array_equal(signals.true_logit(logits, labels), naive.true_logit(logits, labels))
    for name, signal in signals.RMIA_SIGNALS.items():
        actual = np.asarray(signal(logits, labels, 2.0))
        assert np.isfinite(actual).all() and (name == "carlini_logit" or (actual.min() >= 0 and actual.max() <= 1))


@few
@given(logits=floats(N, 4, low=-2.0, high=80.0), labels=hnp.arrays(np.int32, N, elements=st.integers(0, 3)))
def test_taylor_signals_are_the_published_ones_where_those_are_probabilities(logits, labels):
    # With a temperature of 5 and a margin of 0.6 nothing lies below -1, where the published polynomial turns negative.
    actual = signals.taylor_soft_margin(logits, labels, 5.0)
    published = signals.published_taylor_soft_margin(logits, labels, 5.0)
    np.testing.assert_allclose(actual, published, rtol=3e-7)  # two programs round once apart


@pytest.mark.parametrize("name", ["taylor", "taylor_soft_margin"])
def test_taylor_signals_rise_with_the_true_logit(name):
    true = np.float32([-3e38, -1e30, -1e15, -1e6, -50, -5, -2, -1.596, -1.1, -0.9, 0, 1, 5, 50, 1e6, 1e30, 3e38])
    logits = np.stack([true, np.full_like(true, 2.0), np.full_like(true, -4.0)], 1)
    actual = np.asarray(signals.RMIA_SIGNALS[name](logits, np.zeros(len(true), np.int32), 1.0))
    assert (
        (np.diff(actual) >= 0).all() and (np.diff(actual)[4:13] > 0).all() and actual.min() >= 0 and actual.max() <= 1
    )


@few
@given(odds=floats(N, low=-100.0, high=100.0), e1=st.sampled_from([1e-3, 1e-2, 1e-1]))
def test_the_log_log_signal_rises_from_0_to_1(odds, e1):
    odds = np.sort(odds)
    actual = np.asarray(signals.log_log_normalised(odds, e1, 1e-5))
    assert actual.min() >= -1e-5 and actual.max() <= 1 + 1e-5 and np.diff(actual).min() >= -1e-6


@pytest.mark.parametrize("e1, e2", [(0.0, 1e-5), (-1.0, 1e-5), (1e-2, 0.0), (1e-2, 0.02)])
def test_log_log_constants_without_a_signal_are_refused(e1, e2):
    with pytest.raises(errors.ConfigError, match=r"e1 > 0 and 0 < e2 < exp\(e1\) - 1"):
        signals.check_log_log(e1, e2)
