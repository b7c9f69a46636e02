import itertools

import numpy as np
import pytest
import scipy.stats

from jaxunlearn import errors
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.metrics.inference.calibration_test import GRID, calibration_test


def clustered(rng, clusters, size, shift=0.0):
    """Uniform p-values [K, n] (shift 0) that move together within a cluster."""
    common = rng.normal(size=(clusters, 1)) + 2 * rng.normal(size=(clusters, size))
    return scipy.stats.norm.cdf(common / np.sqrt(5) + shift)


def test_independent_p_values_get_the_classical_test_and_an_exact_rate():
    p = np.random.default_rng(0).random(500)
    test = calibration_test(p, alpha=0.1)
    expected = scipy.stats.kstest(p, "uniform")
    assert (test.distance, test.p_value) == (expected.statistic, expected.pvalue)
    assert test.rate == intervals.clopper_pearson(int((p <= 0.1).sum()), 500)


def test_the_clustered_test_is_calibrated_where_the_classical_one_is_not():
    rng = np.random.default_rng(1)
    owner = np.repeat(np.arange(8), 60)
    clusters, classical, covered = [], [], []
    for _ in range(300):
        p = clustered(rng, 8, 60).ravel()
        test = calibration_test(p, owner, alpha=0.1)
        clusters.append(test.p_value <= 0.1)
        covered.append(test.rate.low <= 0.1 <= test.rate.high)
        classical.append(calibration_test(p).p_value <= 0.1)
    # Nominal 0.1 and 0.95 with standard errors of 0.017 and 0.013.
    assert 0.04 <= np.mean(clusters) <= 0.15
    assert np.mean(covered) >= 0.88
    assert np.mean(classical) > 0.3


@pytest.mark.parametrize("count", [10, 20])
def test_the_clustered_test_sees_a_common_departure(count):
    p = clustered(np.random.default_rng(2), count, 60, shift=-0.8)
    test = calibration_test(p.ravel(), np.repeat(np.arange(count), 60))
    assert test.p_value < 0.02
    assert test.rate.low > 0.05


def test_the_clustered_p_value_equals_all_sign_patterns_by_hand():
    rng = np.random.default_rng(3)
    p, owner = rng.random(40) ** 1.3, rng.integers(0, 5, 40)
    sums = np.array([[(p[owner == k] <= u).sum() - (owner == k).sum() * u for u in GRID] for k in range(5)])
    distances = [np.abs(np.array(signs) @ sums).max() for signs in itertools.product((1, -1), repeat=5)]
    assert calibration_test(p, owner).p_value == pytest.approx(np.mean(np.array(distances) >= distances[0] - 1e-9))


def test_names_and_order_of_clusters_do_not_matter():
    rng = np.random.default_rng(4)
    p, owner = rng.random(60), rng.integers(0, 6, 60)
    shuffled = rng.permutation(60)
    first, other = calibration_test(p, owner), calibration_test(p[shuffled], 100 - 3 * owner[shuffled])
    assert other.p_value == first.p_value
    np.testing.assert_allclose(other.rate, first.rate)


def test_drawn_signs_repeat_by_seed():
    rng = np.random.default_rng(5)
    p, owner = rng.random(200), np.repeat(np.arange(20), 10)
    tests = [calibration_test(p, owner, seed=seed, iterations=300).p_value for seed in (0, 0, 1)]
    assert tests[0] == tests[1] != tests[2]


def test_one_cluster_says_nothing():
    test = calibration_test(np.linspace(0.01, 1, 30), np.zeros(30, int))
    assert np.isnan([test.p_value, test.rate.low, test.rate.high]).all()


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: calibration_test(np.array([0.5, -0.1])), errors.DataError, "entry 1 is -0.1"),
        (lambda: calibration_test(np.empty(0)), errors.DataError, "no p-values"),
        (lambda: calibration_test(np.ones(3), np.zeros(2)), errors.ShapeError, "clusters"),
        (lambda: calibration_test(np.ones(3), alpha=2.0), errors.ConfigError, "alpha = 2"),
    ],
)
def test_the_border_says_what_is_wrong(call, error, says):
    with pytest.raises(error, match=says):
        call()
