"""Which method comes closest to exact retraining, and whether any is closer to it than the untouched original.

    gap = mean absolute difference to the retrained models over a few metrics      (`utility.gap`, lower = closer)

The smallest of many gaps is chosen after looking and flatters, so a method is named only where its gap is below that
of doing nothing by an interval that holds for all methods together. Jackknife over forget sets, and over originals
where they vary on their own.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from jaxunlearn.metrics import utility
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.metrics.populations import variance
from jaxunlearn.records import Design, Finding

# From this many forget sets on a gap has an interval: accuracies come in steps, and two sets may agree by chance.
FEWEST_SETS = 3
# Methods that are measured as yardsticks and never win: noise on the parameters, and the exact answer itself.
YARDSTICKS = ("random", "random_perturb", "retrain")

Numbers = Mapping[str, np.ndarray]


class Closeness(NamedTuple):
    """How close methods come to exact retraining.

    Attributes:
      gaps: method -> gap, as a fraction, with its own interval; LOWER = closer to retraining.
      untouched: the gap of the original models, which forgot nothing; None where they were not measured.
      gains: method -> gap of the original minus that of the method; above 0 = closer to retraining than doing nothing.
        The intervals hold for all methods together. Empty without originals.
      behind: method -> its gap minus that of `best`; the intervals hold for all pairs together. Empty without `best`.
      best: the method of the smallest gap among those whose gain is above 0 by its interval; "" where none is.
      metrics: what the gap is taken over.
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
    methods: Mapping[str, Numbers],
    retrained: Numbers,
    untouched: Numbers | None,
    design: Design,
    metrics: Sequence[str] = utility.GAP,
    confidence_level: float = 0.95,
) -> Closeness:
    """Compares every method, and doing nothing, with exact retraining.

    Args:
      methods: method -> metric -> [M] numbers of its models; yardsticks are left out.
      retrained: the same of the retrained models.
      untouched: of the original models, or None.
      design: of the models, the same for all.
      metrics: what the gap is taken over, chosen before any number is seen.
      confidence_level: of the intervals.

    Returns:
      See `Closeness`. Intervals are NaN for fewer than 3 forget sets that all compared models have.
    """
    names = tuple(metrics)
    units, models = _units(design), design.sets * design.repeats
    goal = _table(retrained, names, models)
    tables = {method: _table(numbers, names, models) for method, numbers in methods.items() if is_candidate(method)}
    start = None if untouched is None else _table(untouched, names, models)
    gaps = {
        method: _finding(_difference(table, goal, goal, units), confidence_level, "gap", method)
        for method, table in tables.items()
    }
    gains: dict[str, Finding] = {}
    if start is not None:
        each = 1 - (1 - confidence_level) / max(len(tables), 1)
        gains = {
            method: _finding(
                _difference(start, table, goal, units), each, "gain over doing nothing", method, "original"
            )
            for method, table in tables.items()
        }
    closer = [method for method, gain in gains.items() if gain.low > 0]
    best = min(closer, key=lambda method: gaps[method].value, default="")
    behind: dict[str, Finding] = {}
    if best:
        each = 1 - (1 - confidence_level) / max(len(tables) * (len(tables) - 1) // 2, 1)
        behind = {
            method: _finding(_difference(table, tables[best], goal, units), each, "gap difference", method, best)
            for method, table in tables.items()
            if method != best
        }
    known = (
        None if start is None else _finding(_difference(start, goal, goal, units), confidence_level, "gap", "original")
    )
    return Closeness(gaps, known, gains, behind, best, names)


def findings(found: Closeness) -> tuple[Finding, ...]:
    """Returns every number of a comparison, for the files."""
    start = () if found.untouched is None else (found.untouched,)
    return (*found.gaps.values(), *start, *found.gap_to_original.values(), *found.gap_to_best.values())


def _table(numbers: Numbers, metrics: Sequence[str], models: int) -> np.ndarray:
    """[K, M] of K metrics; NaN where one was not measured: nothing is, of a method whose models all diverged."""
    return np.stack([np.asarray(numbers.get(name, np.full(models, np.nan)), np.float64) for name in metrics])


class _Units(NamedTuple):
    """Labels [M] whose levels are independent draws: forget sets, and originals where these vary on their own."""

    labels: tuple[np.ndarray, ...]


def _units(design: Design) -> _Units:
    original, forget_set = variance.design_factors(design)
    varying = [one for one in (forget_set, original) if one.max(initial=0) > 0]
    if len(varying) == 2 and np.array_equal(varying[0], varying[1]):
        varying = varying[:1]
    return _Units(tuple(varying or [np.arange(len(forget_set))]))


class _Estimate(NamedTuple):
    """A number with its standard error, degrees of freedom, and how many levels of the first unit it rests on."""

    value: float
    error: float
    df: float
    n: int


def _difference(first: np.ndarray, second: np.ndarray, goal: np.ndarray, units: _Units) -> _Estimate:
    """Gap of `first` minus gap of `second` over the models that both and the goal have.

    The jackknife leaves out one level at a time. Where forget sets and originals vary crosswise their variances are
    added (a little too much: what both share is counted twice), with Satterthwaite's degrees of freedom.
    """
    kept = np.isfinite(first).all(0) & np.isfinite(second).all(0) & np.isfinite(goal).all(0)
    nothing = float("nan")
    if not kept.any():
        return _Estimate(nothing, nothing, nothing, 0)

    def apart(sets: np.ndarray) -> float:
        means = [one[:, sets].mean(1) for one in (first, second, goal)]
        return float(np.abs(means[0] - means[2]).mean() - np.abs(means[1] - means[2]).mean())

    counts, variances = [], []
    for label in units.labels:
        levels = np.unique(label[kept])
        counts.append(len(levels))
        if len(levels) >= FEWEST_SETS:
            deleted = np.asarray([apart(kept & (label != confidence_level)) for confidence_level in levels])
            variances.append((len(levels) - 1) / len(levels) * float(np.square(deleted - deleted.mean()).sum()))
    if len(variances) < len(counts):
        return _Estimate(apart(kept), nothing, nothing, counts[0])
    total = sum(variances)
    df = total**2 / sum(one**2 / (count - 1) for one, count in zip(variances, counts, strict=True)) if total else np.inf
    return _Estimate(apart(kept), float(np.sqrt(total)), float(df), counts[0])


def _finding(
    found: _Estimate, confidence_level: float, metric: str, of: str, against: str = "retrained models"
) -> Finding:  # fmt: skip
    half = 0.0 if found.error == 0 else float(scipy.stats.t.ppf((1 + confidence_level) / 2, found.df) * found.error)
    interval = intervals.Interval(found.value, found.value - half, found.value + half)
    if metric == "gap":
        interval = intervals.clip(interval, 0.0, np.inf)
    method = "" if np.isnan(half) else f"jackknife over {found.n} forget sets"
    return Finding(
        *interval, metric=metric, n=found.n, confidence_level=confidence_level, of=of, against=against, method=method
    )
