"""Tests whether p-values are uniform under the null: is a decision calibrated? NumPy and SciPy on the host.

Independent p-values have the classical Kolmogorov-Smirnov test. P-values of one forget set come from one model and are
correlated, which that test mistakes for a departure. With clusters the null distribution of the distance comes from
sign flips of entire clusters: if every cluster's p-values are marginally uniform, the deviation (the cluster's
distribution function - u) has mean zero for any dependence inside a cluster, and its sign may be flipped.
Source: Kolmogorov 1933; Wu 1986 and Liu 1988 (wild bootstrap), the Rademacher form by cluster.
"""

import itertools
from typing import NamedTuple

import numpy as np
import scipy.stats

from jaxunlearn import checks, errors
from jaxunlearn.metrics.inference import decision, intervals

# Points at which the clustered test compares distribution functions.
GRID = np.linspace(0, 1, 1001)[1:-1]
# Up to this many clusters all sign patterns are enumerated; above it they are drawn.
ENUMERATED = 12


class CalibrationTest(NamedTuple):
    """Departure of p-values from uniform.

    Attributes:
      distance: Kolmogorov-Smirnov distance from uniform in [0, 1], higher = farther.
      p_value: of the test that they are uniform; small = not uniform; NaN for one cluster.
      rate: fraction of p-values <= alpha with its interval; calibrated = alpha.
      method: of the p-value and of the interval.
    """

    distance: float
    p_value: float
    rate: intervals.Interval
    method: str


def calibration_test(
    p: np.ndarray,
    clusters: np.ndarray | None = None,
    *,
    alpha: float = 0.05,
    confidence_level: float = 0.95,
    iterations: int = 4000,
    seed: int = 0,
) -> CalibrationTest:
    """Tests p-values for uniformity.

    Args:
      p: [n] p-values, n >= 1. Conservative conformal p-values lie on a grid above uniform; test the randomised ones.
      clusters: [n] integers; samples of one cluster may depend on each other (a forget set judged by one model),
        clusters must be independent. None: all samples are independent. P-values ranked in one shared null are
        dependent across clusters too, noticeably unless n is small compared to the null; neither form accounts for it.
      alpha: level of the rejection rate, in [0, 1].
      confidence_level: of the rate's interval, in [0, 1].
      iterations: number of sign patterns drawn for more than 12 clusters.
      seed: of these draws.

    Returns:
      A `CalibrationTest`. Independent: Kolmogorov-Smirnov and Clopper-Pearson. Clusters: sign flips (the smallest
      possible p-value is 2 ** (1 - clusters), exact if deviations are symmetric, otherwise for many clusters) and
      Student's t over the clusters' rates, whose mean is the rate.

    Raises:
      ShapeError: not vectors of one length. DataError: p-values outside [0, 1], or none.
      ConfigError: alpha, level or iterations out of range.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.inference.calibration_test import calibration_test
      >>> result = calibration_test(np.linspace(0.005, 0.995, 100))
      >>> round(result.distance, 3), result.p_value > 0.99, result.rate.value
      (0.005, True, 0.05)
    """
    checks.in_range("alpha", alpha, 0, 1)
    checks.in_range("confidence_level", confidence_level, 0, 1)
    checks.in_range("iterations", iterations, 1)
    p = decision.check(p)
    if not len(p):
        raise errors.DataError("no p-values to test for uniformity.")
    test = scipy.stats.kstest(p, "uniform")
    if clusters is None:
        rate = intervals.clopper_pearson(int((p <= alpha).sum()), len(p), confidence_level)
        return CalibrationTest(float(test.statistic), float(test.pvalue), rate, "Kolmogorov-Smirnov, Clopper-Pearson")
    checks.shape("N", p=p, clusters=clusters)
    names, owner = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(owner)
    deviations = np.stack([_deviation(p[owner == cluster]) for cluster in range(len(names))])
    p_value = _sign_flips(deviations, iterations, seed) if len(names) > 1 else float("nan")
    rates = np.bincount(owner, p <= alpha) / sizes
    finding = intervals.mean(rates, metric="rejection rate", of="p-values", confidence_level=confidence_level)
    rate = intervals.Interval(finding.value, finding.low, finding.high)
    method = f"sign flips of {len(names)} clusters, t over clusters"
    return CalibrationTest(float(test.statistic), p_value, intervals.clip(rate), method)


def _deviation(p: np.ndarray) -> np.ndarray:
    """Computes [U] excess over the expected number of p-values <= u, on the grid."""
    return np.searchsorted(np.sort(p), GRID, "right") - len(p) * GRID


def _sign_flips(deviations: np.ndarray, iterations: int, seed: int) -> float:
    """Computes the p-value of the largest summed deviation of clusters [K, U] among those with flipped signs."""
    clusters = len(deviations)
    observed = np.abs(deviations.sum(0)).max()
    if clusters <= ENUMERATED:
        # A pattern and its negative give the same distance: the first sign is fixed.
        signs = np.array([(1.0, *rest) for rest in itertools.product((1.0, -1.0), repeat=clusters - 1)])
    else:
        signs = np.random.default_rng(seed).choice([1.0, -1.0], (iterations, clusters))
        signs[0] = 1.0
    flipped = np.abs(signs @ deviations).max(1)
    # Sums in another order differ in the last bits; the observed pattern has to count as one of the flips.
    return float((flipped >= observed * (1 - 1e-9)).mean())
