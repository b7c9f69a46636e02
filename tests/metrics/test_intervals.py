import numpy as np
import pytest
import scipy.stats

from jaxunlearn import errors
from jaxunlearn.metrics import roc
from jaxunlearn.metrics.inference import intervals


def normal_scores(rng, members, others, distance):
    truth = np.arange(members + others) < members
    return rng.normal(size=members + others) + distance * truth, truth


def naive_delong(scores, truth):
    """AUC and variance from the kernel matrix, as the formula is printed."""
    kernel = np.sign(scores[truth][:, None] - scores[~truth][None]) / 2 + 0.5
    variance = kernel.mean(1).var(ddof=1) / kernel.shape[0] + kernel.mean(0).var(ddof=1) / kernel.shape[1]
    return kernel.mean(), variance


@pytest.mark.parametrize("ties", [False, True])
def test_delong_equals_its_printed_formula(ties):
    scores, truth = normal_scores(np.random.default_rng(0), 60, 25, 0.7)
    scores = np.round(scores) if ties else scores
    value, variance = naive_delong(scores, truth)
    interval = intervals.delong(scores, truth, 0.9)
    assert interval.value == pytest.approx(value, abs=1e-12)
    assert interval.value == pytest.approx(roc.auc(scores, truth), abs=1e-12)
    half = scipy.stats.norm.ppf(0.95) * np.sqrt(variance)
    np.testing.assert_allclose([interval.low, interval.high], [value - half, value + half], atol=1e-12)


def test_delong_covers_the_true_auc():
    rng = np.random.default_rng(1)
    true = scipy.stats.norm.cdf(0.8 / np.sqrt(2))
    result = [intervals.delong(*normal_scores(rng, 200, 60, 0.8)) for _ in range(600)]
    coverage = np.mean([interval.low <= true <= interval.high for interval in result])
    # Nominal 0.95 with a standard error of 0.009 from 600 repetitions.
    assert 0.92 <= coverage <= 0.98


def test_delong_of_separated_samples_still_has_a_width():
    truth = np.arange(30) < 20
    interval = intervals.delong(truth.astype(float), truth)
    assert (interval.value, interval.high) == (1.0, 1.0)
    assert interval.low == pytest.approx(0.025 ** (1 / 10))
    assert intervals.delong(-truth.astype(float), truth).high == pytest.approx(1 - 0.025 ** (1 / 10))


def test_delong_of_a_single_forgotten_sample_has_no_interval():
    interval = intervals.delong(np.array([0.1, 0.9, 0.5]), np.array([1, 1, 0], bool))
    assert interval.value == 0.5
    assert np.isnan([interval.low, interval.high]).all()


@pytest.mark.parametrize("n", [5, 40])
def test_clopper_pearson_covers_every_proportion(n):
    ends = [intervals.clopper_pearson(k, n, 0.9) for k in range(n + 1)]
    for true in np.linspace(0.005, 0.995, 67):
        chance = scipy.stats.binom.pmf(np.arange(n + 1), n, true)
        covered = np.array([end.low <= true <= end.high for end in ends])
        assert chance[covered].sum() >= 0.9 - 1e-12


def test_clopper_pearson_equals_scipy_and_takes_fractions():
    for k, n in ((0, 10), (3, 10), (10, 10), (17, 400)):
        expected = scipy.stats.binomtest(k, n).proportion_ci(0.95)
        interval = intervals.clopper_pearson(k, n)
        np.testing.assert_allclose([interval.low, interval.high], [expected.low, expected.high], atol=1e-12)
    between = intervals.clopper_pearson(3.5, 10)
    assert intervals.clopper_pearson(3, 10).low < between.low < intervals.clopper_pearson(4, 10).low


def test_the_jackknife_of_a_mean_is_students_interval():
    values = np.random.default_rng(2).normal(size=9)
    deleted = np.array([np.delete(values, i).mean() for i in range(9)])
    interval, known = intervals.jackknife(values.mean(), deleted), intervals.mean(values, metric="m", of="o")
    np.testing.assert_allclose(interval, [known.value, known.low, known.high], atol=1e-12)


def test_the_jackknife_of_one_unit_or_an_undefined_deletion_has_no_interval():
    assert np.isnan(intervals.jackknife(0.5, np.array([0.4])).low)
    assert np.isnan(intervals.jackknife(0.5, np.array([0.4, np.nan, 0.6])).high)


def test_the_basic_bootstrap_reflects_the_percentile_one():
    drawn = np.random.default_rng(7).normal(1.0, 1.0, 500)
    outer, basic = (intervals.resampled(0.8, drawn, 0.9, kind) for kind in ("percentile", "basic"))
    np.testing.assert_allclose([basic.low + outer.high, basic.high + outer.low], 1.6)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: intervals.clopper_pearson(3, 2), "successes = 3"),
        (lambda: intervals.clopper_pearson(0, 0), "n = 0"),
        (lambda: intervals.clopper_pearson(1, 2, 1.2), "level = 1.2"),
        (lambda: intervals.jackknife(0.5, np.ones(3), -1), "level = -1"),
        (lambda: intervals.resampled(0.0, [0.0], kind="bca"), "bootstrap kind"),
    ],
)
def test_impossible_arguments_are_refused(call, says):
    with pytest.raises(errors.ConfigError, match=says):
        call()
