"""The bootstrap table of audits of texts: AUC and TPR at FPR 0.1 and 0.01, corrected or exactly as published.

Corrected: every draw resamples each kind at its own size (stratified, NumPy's new generator); the value is that of the
original sample, [ ] the percentile interval. Published ("legacy"): every draw takes the size of the smaller kind from
each kind, by NumPy's legacy generator; the TPR is that of the ROC point with the nearest FPR, on the curve without
collinear points; value and ± are mean and standard deviation over draws. NumPy on the host.

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
    """Metrics of B draws: auc [B]; tpr [B, 2] at the FPRs of RATES."""

    auc: np.ndarray
    tpr: np.ndarray


def legacy_index(truth: np.ndarray, seed: int, iterations: int) -> np.ndarray:
    """Draws [B, 2m] indices as published: m members and m others with replacement; m = size of the smaller kind."""
    generator = np.random.RandomState(seed)
    members, non_members = np.flatnonzero(truth), np.flatnonzero(~np.asarray(truth, bool))
    size = min(len(members), len(non_members))
    index = np.empty((iterations, 2 * size), np.int64)
    for row in index:
        row[:size] = generator.choice(members, size, replace=True)
        row[size:] = generator.choice(non_members, size, replace=True)
        generator.shuffle(row)
    return index


def legacy(scores: np.ndarray, truth: np.ndarray, index: np.ndarray) -> Draws:
    """Computes the published metrics of draws.

    Args:
      scores: [n] higher = member; NaN counts as 0 and infinities as the largest floats, as published.
      truth: [n] True = member.
      index: [B, 2m] samples of every draw; see `legacy_index`.
    """
    scores = np.nan_to_num(np.asarray(scores, np.float64))
    scores, truth = roc.check(scores, truth)
    ranked = roc.rank(scores, truth)
    weights = (np.bincount(row, minlength=len(truth)) for row in index)
    curves = [roc.count(ranked, draw_weights) for draw_weights in weights]
    tpr = np.array([_nearest(curve) for curve in curves])
    return Draws(np.array([roc.area(curve) for curve in curves]), tpr)


def _nearest(points: roc.Curve) -> list[float]:
    """Returns the TPR at the corner of a curve whose FPR is nearest to each of RATES; the first one at ties."""
    hits, misses = points.true_positives, points.false_positives
    is_new = np.append(
        True, (np.diff(hits) != 0) | (np.diff(misses) != 0)
    )  # leaves out thresholds without a drawn sample
    hits, misses = hits[is_new], misses[is_new]
    corner = np.concatenate([[True], (np.diff(hits, 2) != 0) | (np.diff(misses, 2) != 0), [True]])
    fpr, tpr = (misses / misses[-1])[corner], (hits / hits[-1])[corner]
    return [float(tpr[np.argmin(np.abs(fpr - rate))]) for rate in RATES.values()]


def corrected(scores: np.ndarray, truth: np.ndarray, *, seed: int, iterations: int) -> Draws:
    """Computes the metrics of stratified draws; the TPR is linear between points of the curve.

    Args:
      scores: [n] higher = member.
      truth: [n] True = member.
      seed: of the draws.
      iterations: number of draws.
    """
    scores, truth = roc.check(scores, truth)
    ranked, generator = roc.rank(scores, truth), np.random.default_rng(seed)
    kinds = np.flatnonzero(truth), np.flatnonzero(~truth)
    values = np.empty((iterations, len(COLUMNS)))
    for row in values:
        rows = np.concatenate([generator.choice(kind, len(kind)) for kind in kinds])
        row[:] = _metric_values(roc.count(ranked, np.bincount(rows, minlength=len(truth))))
    return Draws(values[:, 0], values[:, 1:])


def _metric_values(points: roc.Curve) -> list[float]:
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
      iterations: number of draws, at least 2.
      confidence_level: of the percentile intervals (corrected).

    Returns:
      name -> column of COLUMNS -> Finding; higher = separates better.

    Raises:
      ShapeError, DataError: as `roc.check`. ConfigError: mode, iterations or level out of range.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.ranking import bootstrap
      >>> row = bootstrap.table({"loss": np.arange(8.0)}, np.arange(8) % 4 > 1, iterations=50)["loss"]
      >>> row["auc"].value, row["auc"].low < row["auc"].value < row["auc"].high
      (0.75, True)
    """
    checks.choice("bootstrap", mode, MODES)
    checks.in_range("bootstrap draws", iterations, 2)
    truth = roc.both_kinds(np.asarray(truth))
    smaller = int(min(truth.sum(), (~truth).sum()))
    index = legacy_index(truth, seed, iterations) if mode == "legacy" else None
    findings = {}
    for name, values in scores.items():
        settings: dict[str, Any] = {
            "of": name, "against": "kept against forgotten", "confidence_level": confidence_level
        }  # fmt: skip
        if index is not None:
            draws = legacy(values, truth, index)
            columns = zip(COLUMNS, (draws.auc, *draws.tpr.T), strict=True)
            findings[name] = {
                column: Finding(float(resamples.mean()), std=float(resamples.std()), metric=column, n=2 * smaller,
                                method="published bootstrap", **settings)
                for column, resamples in columns
            }  # fmt: skip
            continue
        draws = corrected(values, truth, seed=seed, iterations=iterations)
        estimates = _metric_values(roc.curve(values, truth))
        findings[name] = {}
        for column, value, resamples in zip(COLUMNS, estimates, (draws.auc, *draws.tpr.T), strict=True):
            interval = intervals.resampled(value, resamples, confidence_level)
            if np.ptp(resamples) == 0:  # separated: every draw gives the same value, for any number of texts
                members = int(truth.sum())
                interval = (
                    intervals.delong(values, truth, confidence_level) if column == "auc" else
                    intervals.clopper_pearson(value * members, members, confidence_level)
                )  # fmt: skip
            findings[name][column] = Finding(*interval, metric=column, n=len(truth), method="bootstrap over texts",
                                          **settings)  # fmt: skip
    return findings
