"""The bootstrap table of audits of texts: AUC and TPR at FPR 0.1 and 0.01, corrected or exactly as published.

Corrected: every draw takes as many of each kind as there are (stratified, NumPy's new generator); the value is that of
the whole sample, [ ] the percentile interval. Published ("legacy"): every draw takes the size of the smaller kind from
each, by NumPy's legacy generator; the TPR is that of the ROC point whose FPR is nearest, on the curve without collinear
points; value and ± are mean and deviation over draws. NumPy on the host.

Source: the benchmark that IAM's language-model part builds on (reference: results_with_bootstrapping).
"""

from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import checks
from jaxunlearn.metrics import roc
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.records import Finding

RATES = {"tpr_at_fpr_1e-1": 0.1, "tpr_at_fpr_1e-2": 0.01}
COLUMNS = ("auc", *RATES)
MODES = ("corrected", "legacy")
PUBLISHED_SEED = 42


class Draws(NamedTuple):
    """Numbers of every draw: auc [B]; tpr [B, 2] at the FPRs of RATES."""

    auc: np.ndarray
    tpr: np.ndarray


def legacy_index(truth: np.ndarray, seed: int, iterations: int) -> np.ndarray:
    """[B, 2m] published draws: m members, then m others, with replacement, shuffled; m = size of the smaller kind."""
    generator = np.random.RandomState(seed)
    members, others = np.flatnonzero(truth), np.flatnonzero(~np.asarray(truth, bool))
    size = min(len(members), len(others))
    drawn = np.empty((iterations, 2 * size), np.int64)
    for line in drawn:
        line[:size] = generator.choice(members, size, replace=True)
        line[size:] = generator.choice(others, size, replace=True)
        generator.shuffle(line)
    return drawn


def legacy(scores: np.ndarray, truth: np.ndarray, index: np.ndarray) -> Draws:
    """Computes the published numbers of draws.

    Args:
      scores: [n] higher = member; NaN counts as 0 and infinities as the largest floats, as published.
      truth: [n] True = member.
      index: [B, 2m] positions of every draw; see `legacy_index`.
    """
    scores = np.nan_to_num(np.asarray(scores, np.float64))
    scores, truth = roc.check(scores, truth)
    ranked = roc.rank(scores, truth)
    weights = (np.bincount(line, minlength=len(truth)) for line in index)
    curves = [roc.count(ranked, one) for one in weights]
    tpr = np.array([_nearest(one) for one in curves])
    return Draws(np.array([roc.area(one) for one in curves]), tpr)


def _nearest(points: roc.Curve) -> list[float]:
    """TPR at the corner of a curve whose FPR is nearest to each of RATES; the first one at ties."""
    hits, misses = points.true_positives, points.false_positives
    moved = np.append(True, (np.diff(hits) != 0) | (np.diff(misses) != 0))  # thresholds of which nothing was drawn
    hits, misses = hits[moved], misses[moved]
    corner = np.concatenate([[True], (np.diff(hits, 2) != 0) | (np.diff(misses, 2) != 0), [True]])
    fpr, tpr = (misses / misses[-1])[corner], (hits / hits[-1])[corner]
    return [float(tpr[np.argmin(np.abs(fpr - rate))]) for rate in RATES.values()]


def corrected(scores: np.ndarray, truth: np.ndarray, *, seed: int, iterations: int) -> Draws:
    """Numbers of stratified draws; scores [n] and truth [n] as `roc.check` takes them. TPR is linear between points."""
    scores, truth = roc.check(scores, truth)
    ranked, generator = roc.rank(scores, truth), np.random.default_rng(seed)
    kinds = np.flatnonzero(truth), np.flatnonzero(~truth)
    lines = np.empty((iterations, len(COLUMNS)))
    for line in lines:
        rows = np.concatenate([generator.choice(kind, len(kind)) for kind in kinds])
        line[:] = _numbers(roc.count(ranked, np.bincount(rows, minlength=len(truth))))
    return Draws(lines[:, 0], lines[:, 1:])


def _numbers(points: roc.Curve) -> list[float]:
    return [roc.area(points), *(roc.member_rate(points, rate) for rate in RATES.values())]


def table(
    scores: dict[str, np.ndarray], truth: np.ndarray, *, mode: str = "corrected", seed: int = 0, iterations: int = 1000,
    confidence_level: float = 0.95,
) -> dict[str, dict[str, Finding]]:  # fmt: skip
    """Computes AUC and TPRs of several scores over the same draws.

    Args:
      scores: name -> [n], higher = member.
      truth: [n] True = member.
      mode: one of MODES.
      seed: of the draws.
      iterations: how many draws, at least 2.
      confidence_level: of the percentile intervals (corrected).

    Returns:
      name -> column of COLUMNS -> Finding; higher = separates better.

    Raises:
      ShapeError, DataError: as `roc.check`. ConfigError: mode, iterations or level out of range.
    """
    checks.choice("bootstrap", mode, MODES)
    checks.in_range("bootstrap draws", iterations, 2)
    truth = roc.both_kinds(np.asarray(truth))
    smaller = int(min(truth.sum(), (~truth).sum()))
    index = legacy_index(truth, seed, iterations) if mode == "legacy" else None
    found = {}
    for name, values in scores.items():
        given: dict[str, Any] = {"of": name, "against": "kept against forgotten", "confidence_level": confidence_level}
        if index is not None:
            draws = legacy(values, truth, index)
            columns = zip(COLUMNS, (draws.auc, *draws.tpr.T), strict=True)
            found[name] = {
                column: Finding(float(line.mean()), std=float(line.std()), metric=column, n=2 * smaller,
                                method="published bootstrap", **given)
                for column, line in columns
            }  # fmt: skip
            continue
        draws = corrected(values, truth, seed=seed, iterations=iterations)
        whole = _numbers(roc.curve(values, truth))
        found[name] = {}
        for column, value, line in zip(COLUMNS, whole, (draws.auc, *draws.tpr.T), strict=True):
            interval = intervals.resampled(value, line, confidence_level)
            if np.ptp(line) == 0:  # separated: every draw says the same, however few texts there are
                members = int(truth.sum())
                interval = (
                    intervals.delong(values, truth, confidence_level) if column == "auc" else
                    intervals.clopper_pearson(value * members, members, confidence_level)
                )  # fmt: skip
            found[name][column] = Finding(*interval, metric=column, n=len(truth), method="bootstrap over texts",
                                          **given)  # fmt: skip
    return found
