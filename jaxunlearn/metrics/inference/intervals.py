"""Intervals of reported numbers. NumPy and SciPy on the host: tiny inputs, special functions.

Choose by what is independent: models -> `mean`; forget sets, for one statistic of all samples -> `jackknife` (samples
that share a model are dependent, so the forget set is the unit); samples -> `delong` (AUC), `clopper_pearson` (counts),
`bootstrap` (anything else).
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import scipy.stats

from jaxunlearn import checks
from jaxunlearn.metrics import roc
from jaxunlearn.records import Finding


class Interval(NamedTuple):
    """A number and its two-sided interval; low = high = NaN if undefined."""

    value: float
    low: float
    high: float


class Placements(NamedTuple):
    """DeLong's structural components: the AUC is the mean of either.

    Attributes:
      positive: [P] for every member, the fraction of non-members below it (ties half).
      negative: [Q] for every non-member, the fraction of members above it (ties half).
    """

    positive: np.ndarray
    negative: np.ndarray


def mean(values: np.ndarray, *, metric: str, of: str, against: str = "", confidence_level: float = 0.95) -> Finding:
    """Computes the mean over independent models with Student's t interval.

    Args:
      values: [n] one number per model; non-finite ones (diverged models) are left out and not counted.
      metric: its name.
      of: what was measured.
      against: what it was measured on.
      confidence_level: of the interval.

    Returns:
      A Finding; low = high = NaN for n < 2, value NaN for n = 0.

    Example:
      >>> from jaxunlearn.metrics.inference import intervals
      >>> finding = intervals.mean([0.5, 0.75, 1.0], metric="UA", of="retrain")
      >>> finding.value, round(finding.low, 2), finding.n
      (0.75, 0.13, 3)
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    n = len(values)
    if n == 0:
        return Finding(float("nan"), metric=metric, n=0, confidence_level=confidence_level, of=of, against=against)
    center = float(values.mean())
    if n == 1:
        return Finding(center, metric=metric, n=1, confidence_level=confidence_level, of=of, against=against)
    half_width = float(scipy.stats.t.ppf((1 + confidence_level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Finding(
        center,
        center - half_width,
        center + half_width,
        metric=metric,
        n=n,
        confidence_level=confidence_level,
        of=of,
        against=against,
    )


def std(values: np.ndarray) -> float:
    """Computes the population standard deviation over repetitions: NaN for one, exactly 0 if all values are equal."""
    if len(values) < 2:
        return float("nan")
    return float(np.std(values)) if np.ptp(values) > 0 else 0.0


def with_half_width(finding: Finding) -> Finding:
    """Returns the finding for a table whose ± is half the width of the interval."""
    return dataclasses.replace(finding, low=float("nan"), high=float("nan"), std=(finding.high - finding.low) / 2)


def clip(interval: Interval, low: float = 0.0, high: float = 1.0) -> Interval:
    """Returns the interval with its ends clipped to [low, high]; the value is unchanged."""
    return Interval(interval.value, float(np.clip(interval.low, low, high)), float(np.clip(interval.high, low, high)))


def clopper_pearson(successes: float, n: float, confidence_level: float = 0.95) -> Interval:
    """Computes the exact interval of a proportion in [0, 1], which covers it with at least `confidence_level`.

    Args:
      successes: in [0, n]; may be fractional (a rate interpolated between two counts).
      n: independent trials, > 0.
      confidence_level: of the interval, in [0, 1].

    Raises:
      ConfigError: a count or the level out of range.

    Source: Clopper and Pearson 1934.

    Example:
      >>> from jaxunlearn.metrics.inference import intervals
      >>> interval = intervals.clopper_pearson(10, 10)
      >>> interval.value, round(interval.low, 3), interval.high
      (1.0, 0.692, 1.0)
    """
    checks.in_range("confidence_level", confidence_level, 0, 1)
    checks.in_range("n", n, np.finfo(np.float64).tiny)
    checks.in_range("successes", successes, 0, n)
    tail = (1 - confidence_level) / 2
    low = scipy.stats.beta.ppf(tail, successes, n - successes + 1) if successes > 0 else 0.0
    high = scipy.stats.beta.ppf(1 - tail, successes + 1, n - successes) if successes < n else 1.0
    return Interval(float(successes / n), float(low), float(high))


def placements(scores: np.ndarray, truth: np.ndarray) -> Placements:
    """Computes the structural components of the AUC; scores [n] and truth [n] as `roc.check` returns them."""
    members, non_members = np.sort(scores[truth]), np.sort(scores[~truth])

    def fraction_below(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
        doubled_ranks = np.searchsorted(reference, values, "left") + np.searchsorted(reference, values, "right")
        return doubled_ranks / (2 * len(reference))

    return Placements(fraction_below(scores[truth], non_members), 1 - fraction_below(scores[~truth], members))


def delong_from(components: Placements, confidence_level: float = 0.95) -> Interval:
    """Computes the normal interval of the mean of placements: an AUC, a mean of AUCs, or a difference of AUCs."""
    value = float(components.positive.mean())
    if min(len(components.positive), len(components.negative)) < 2:
        return Interval(value, float("nan"), float("nan"))
    variance = sum(values.var(ddof=1) / len(values) for values in components)
    half_width = float(scipy.stats.norm.ppf((1 + confidence_level) / 2) * np.sqrt(variance))
    return Interval(value, value - half_width, value + half_width)


def delong(scores: np.ndarray, truth: np.ndarray, confidence_level: float = 0.95) -> Interval:
    """Computes the AUC with DeLong's interval, for independent samples.

    At an AUC of exactly 0 or 1 the estimated variance is 0; there the interval is Clopper and Pearson's for
    min(P, Q) disjoint pairs of a member and a non-member, which are independent trials with the same probability.

    Args:
      scores: [n] higher = member.
      truth: [n] True = member.
      confidence_level: of the interval, in [0, 1].

    Returns:
      The AUC and its interval within [0, 1]; NaN ends if a kind has only one sample and the AUC is neither 0 nor 1.

    Raises:
      ShapeError, DataError: as `roc.check`. ConfigError: the level.

    Source: DeLong, DeLong and Clarke-Pearson 1988.

    Example:
      >>> from jaxunlearn.metrics.inference import intervals
      >>> interval = intervals.delong([0.9, 0.8, 0.4, 0.1], [1, 0, 1, 0])
      >>> interval.value, interval.low, interval.high
      (0.75, 0.057..., 1.0)
    """
    checks.in_range("confidence_level", confidence_level, 0, 1)
    components = placements(*roc.check(scores, truth))
    return proportion_delong(components, confidence_level)


def proportion_delong(components: Placements, confidence_level: float = 0.95) -> Interval:
    """Computes `delong` from placements: clipped to [0, 1]; Clopper-Pearson if the samples are separated."""
    value = float(components.positive.mean())
    if value in (0.0, 1.0):
        pairs = min(len(components.positive), len(components.negative))
        return clopper_pearson(value * pairs, pairs, confidence_level)
    return clip(delong_from(components, confidence_level))


def jackknife(value: float, deleted: np.ndarray, confidence_level: float = 0.95) -> Interval:
    """Computes the delete-one jackknife interval over independent units with Student's t.

    Standard error: sqrt((R - 1) / R * sum of squared deviations of the deleted values from their mean).

    Args:
      value: the statistic of all R units.
      deleted: [R] the statistic without each unit.
      confidence_level: of the interval, in [0, 1].

    Returns:
      The value and its interval with R - 1 degrees of freedom, not clipped; NaN ends for R < 2 or undefined values.

    Raises:
      ConfigError: the level.

    Source: Tukey 1958; Efron and Stein 1981.

    Example:
      >>> from jaxunlearn.metrics.inference import intervals
      >>> interval = intervals.jackknife(2.0, deleted=[2.5, 2.0, 1.5])
      >>> round(interval.low, 2), round(interval.high, 2)
      (-0.48, 4.48)
    """
    checks.in_range("confidence_level", confidence_level, 0, 1)
    deleted = np.asarray(deleted, np.float64)
    units = len(deleted)
    if units < 2 or not np.isfinite(deleted).all():
        return Interval(float(value), float("nan"), float("nan"))
    error = np.sqrt((units - 1) / units * np.sum((deleted - deleted.mean()) ** 2))
    half_width = scipy.stats.t.ppf((1 + confidence_level) / 2, units - 1) * error
    return Interval(float(value), float(value - half_width), float(value + half_width))


def jackknife_within(value: float, deleted: np.ndarray, confidence_level: float, ends: tuple[float, float]) -> Interval:
    """Returns the jackknife interval clipped to a statistic's range; not of width 0 if all units agree.

    Units that agree have no variance. If they agree on an end of the range [0, 1], the interval is Clopper and
    Pearson's for one trial per unit; otherwise its ends are NaN.

    Args:
      value: the statistic of all R units.
      deleted: [R] the statistic without each unit.
      confidence_level: of the interval.
      ends: smallest and largest possible value.
    """
    interval = clip(jackknife(value, deleted, confidence_level), *ends)
    if not len(deleted) or interval.low < interval.high or np.isnan(interval.low):
        return interval
    if ends == (0.0, 1.0) and value in ends:
        return clopper_pearson(value * len(deleted), len(deleted), confidence_level)
    return Interval(value, float("nan"), float("nan"))


def resampled(
    value: float, draws: np.ndarray | list[float], confidence_level: float = 0.95, kind: str = "percentile"
) -> Interval:
    """Computes an interval from the values of resampled samples.

    Args:
      value: the statistic of the samples themselves.
      draws: [iterations] the statistic of resampled samples.
      confidence_level: of the interval, in [0, 1].
      kind: "percentile" takes the outer quantiles of `draws`; "basic" reflects them at the value, for statistics whose
        bias resampling doubles (a maximum over thresholds).

    Raises:
      ConfigError: level or kind.

    Source: Efron and Tibshirani, An introduction to the bootstrap, chapter 13; Davison and Hinkley, section 5.2.
    """
    checks.in_range("confidence_level", confidence_level, 0, 1)
    checks.choice("bootstrap kind", kind, ("percentile", "basic"))
    low, high = np.quantile(draws, [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
    if kind == "basic":
        low, high = 2 * value - high, 2 * value - low
    return Interval(float(value), float(low), float(high))
