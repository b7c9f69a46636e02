"""Compares methods with exact retraining: which is closest, and is any closer than the untouched original?

    gap = mean absolute difference to the retrained models over a few metrics      (`utility.gap`, lower = closer)

The smallest of many gaps is biased, because it is selected after looking. So a method is called the closest only if its
gap is below that of the original by an interval that holds simultaneously for all methods. Jackknife over forget sets,
and over originals if they vary independently.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from jaxunlearn.metrics import utility
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.metrics.populations import variance
from jaxunlearn.records import Design, Finding

# Gaps have an interval from this many forget sets on: accuracies come in steps, and two sets may agree by chance.
FEWEST_SETS = 3
# Methods that serve as yardsticks and are never called the closest: noise on the parameters, and retraining itself.
YARDSTICKS = ("random", "random_perturb", "retrain")

MetricValues = Mapping[str, np.ndarray]


class Closeness(NamedTuple):
    """Gaps of methods to exact retraining.

    Attributes:
      gaps: method -> gap, as a fraction, with its own interval; LOWER = closer to retraining.
      untouched: the gap of the original models (nothing unlearned); None if they were not measured.
      gap_to_original: method -> gap of the original minus that of the method; above 0 = closer to retraining than doing
        nothing. The intervals hold simultaneously for all methods. Empty without originals.
      gap_to_best: method -> its gap minus that of `best`; the intervals hold simultaneously for all pairs. Empty
        without `best`.
      best: method with the smallest gap among those whose gap_to_original is above 0 by its interval; "" if none is.
      metrics: the metrics of the gap.
    """

    gaps: dict[str, Finding]
    untouched: Finding | None
    gap_to_original: dict[str, Finding]
    gap_to_best: dict[str, Finding]
    best: str
    metrics: tuple[str, ...]


def is_candidate(method: str) -> bool:
    """Returns whether a method (`NAME`, or `NAME@setting` of a sweep) may be called the closest."""
    return method.partition("@")[0] not in YARDSTICKS


def compare(
    methods: Mapping[str, MetricValues],
    retrained: MetricValues,
    untouched: MetricValues | None,
    design: Design,
    metrics: Sequence[str] = utility.GAP,
    confidence_level: float = 0.95,
) -> Closeness:
    """Compares every method, and doing nothing, with exact retraining.

    Args:
      methods: method -> metric -> [M] values of its models; yardsticks are left out.
      retrained: metric -> [M] values of the retrained models.
      untouched: likewise of the original models, or None.
      design: of the models, the same for all.
      metrics: the metrics of the gap, chosen before looking at any value.
      confidence_level: of the intervals.

    Returns:
      See `Closeness`. Intervals are NaN with fewer than 3 forget sets shared by all compared models.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.populations import closeness
      >>> from jaxunlearn.records import Design
      >>> retrained = {"UA": np.array([0.20, 0.22, 0.21, 0.19])}
      >>> methods = {"salun": {"UA": retrained["UA"] + 0.02}, "finetune": {"UA": retrained["UA"] - 0.15}}
      >>> result = closeness.compare(methods, retrained, {"UA": np.zeros(4)}, Design("per_set", 4, 1), ("UA",))
      >>> result.best, round(result.gaps["salun"].value, 2)
      ('salun', 0.02)
    """
    names = tuple(metrics)
    units, models = _units(design), design.sets * design.repeats
    goal = _table(retrained, names, models)
    tables = {method: _table(values, names, models) for method, values in methods.items() if is_candidate(method)}
    original = None if untouched is None else _table(untouched, names, models)
    gaps = {
        method: _finding(_difference(table, goal, goal, units), confidence_level, "gap", method)
        for method, table in tables.items()
    }
    gap_to_original: dict[str, Finding] = {}
    if original is not None:
        joint_level = 1 - (1 - confidence_level) / max(len(tables), 1)
        gap_to_original = {
            method: _finding(
                _difference(original, table, goal, units), joint_level, "gain over doing nothing", method, "original"
            )
            for method, table in tables.items()
        }
    closer = [method for method, gain in gap_to_original.items() if gain.low > 0]
    best = min(closer, key=lambda method: gaps[method].value, default="")
    gap_to_best: dict[str, Finding] = {}
    if best:
        joint_level = 1 - (1 - confidence_level) / max(len(tables) * (len(tables) - 1) // 2, 1)
        gap_to_best = {
            method: _finding(_difference(table, tables[best], goal, units), joint_level, "gap difference", method, best)
            for method, table in tables.items()
            if method != best
        }
    original_gap = (
        None
        if original is None
        else _finding(_difference(original, goal, goal, units), confidence_level, "gap", "original")
    )
    return Closeness(gaps, original_gap, gap_to_original, gap_to_best, best, names)


def findings(closeness: Closeness) -> tuple[Finding, ...]:
    """Returns every finding of a comparison, for the files."""
    original_gap = () if closeness.untouched is None else (closeness.untouched,)
    return (
        *closeness.gaps.values(),
        *original_gap,
        *closeness.gap_to_original.values(),
        *closeness.gap_to_best.values(),
    )


def _table(values: MetricValues, metrics: Sequence[str], models: int) -> np.ndarray:
    """Returns [K, M] values of K metrics; NaN for missing metrics, e.g. of a method whose models all diverged."""
    return np.stack([np.asarray(values.get(name, np.full(models, np.nan)), np.float64) for name in metrics])


class _Units(NamedTuple):
    """Labels [M] whose levels are independent draws: forget sets, and originals if they vary independently."""

    labels: tuple[np.ndarray, ...]


def _units(design: Design) -> _Units:
    original, forget_set = variance.design_factors(design)
    varying = [labels for labels in (forget_set, original) if labels.max(initial=0) > 0]
    if len(varying) == 2 and np.array_equal(varying[0], varying[1]):
        varying = varying[:1]
    return _Units(tuple(varying or [np.arange(len(forget_set))]))


class _Estimate(NamedTuple):
    """A number with its standard error, degrees of freedom, and the number of levels of the first unit."""

    value: float
    error: float
    df: float
    n: int


def _difference(first: np.ndarray, second: np.ndarray, goal: np.ndarray, units: _Units) -> _Estimate:
    """Computes the gap of `first` minus the gap of `second`, over models that are finite in both and in the goal.

    The jackknife leaves out one level at a time. If forget sets and originals are crossed, their variances are added
    (slightly conservative: the shared variance is counted twice), with Satterthwaite's degrees of freedom.
    """
    mask = np.isfinite(first).all(0) & np.isfinite(second).all(0) & np.isfinite(goal).all(0)
    nan = float("nan")
    if not mask.any():
        return _Estimate(nan, nan, nan, 0)

    def gap_difference(sets: np.ndarray) -> float:
        means = [values[:, sets].mean(1) for values in (first, second, goal)]
        return float(np.abs(means[0] - means[2]).mean() - np.abs(means[1] - means[2]).mean())

    counts, variances = [], []
    for labels in units.labels:
        levels = np.unique(labels[mask])
        counts.append(len(levels))
        if len(levels) >= FEWEST_SETS:
            deleted = np.asarray([gap_difference(mask & (labels != level)) for level in levels])
            variances.append((len(levels) - 1) / len(levels) * float(np.square(deleted - deleted.mean()).sum()))
    if len(variances) < len(counts):
        return _Estimate(gap_difference(mask), nan, nan, counts[0])
    total = sum(variances)
    df = (
        total**2 / sum(component**2 / (count - 1) for component, count in zip(variances, counts, strict=True))
        if total
        else np.inf
    )
    return _Estimate(gap_difference(mask), float(np.sqrt(total)), float(df), counts[0])


def _finding(
    estimate: _Estimate, confidence_level: float, metric: str, of: str, against: str = "retrained models"
) -> Finding:  # fmt: skip
    half_width = (
        0.0
        if estimate.error == 0
        else float(scipy.stats.t.ppf((1 + confidence_level) / 2, estimate.df) * estimate.error)
    )
    interval = intervals.Interval(estimate.value, estimate.value - half_width, estimate.value + half_width)
    if metric == "gap":
        interval = intervals.clip(interval, 0.0, np.inf)
    method = "" if np.isnan(half_width) else f"jackknife over {estimate.n} forget sets"
    return Finding(
        *interval, metric=metric, n=estimate.n, confidence_level=confidence_level, of=of, against=against, method=method
    )
