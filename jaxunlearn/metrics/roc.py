"""ROC curve summaries with NumPy on the host: one sort, integer counts, exact rates.

Positive = member (retained), negative = forgotten; scores: higher = member. TPR at a low FPR means "retained samples
recognised while few forgotten samples pass for members", TNR at a low FNR "forgotten samples recognised while few
retained samples are missed". Compare every value with that of a retrained model, not with 0.5 or 1.

    rank (one argsort) -> count (cumulative sums, optional multiplicities) -> Curve -> numbers

A curve is made of counts along a fixed order, so leaving samples out or resampling them needs no further sort.
Source: Inexact unlearning needs more careful evaluations (IAM), section on metrics.
"""

from typing import NamedTuple

import numpy as np
import scipy.stats

from jaxunlearn import checks, errors

LEVELS = (1e-2, 1e-3)
INTERPOLATIONS = ("linear", "step")


class RankedScores(NamedTuple):
    """Samples sorted once, highest score first.

    Attributes:
      order: [n] int, indices of the samples, highest score first.
      positive: [n] bool, truth along `order`.
      ends: [T] int, last index of every run of equal scores: thresholds cut only there.
      thresholds: [T] the scores at `ends`, descending.
    """

    order: np.ndarray
    positive: np.ndarray
    ends: np.ndarray
    thresholds: np.ndarray


class Curve(NamedTuple):
    """A ROC curve as counts at falling thresholds; a sample is called a member when its score >= threshold.

    Attributes:
      true_positives, false_positives: [T + 1] int64, from 0 (no sample called a member) to all.
      thresholds: [T + 1] float64 descending, the first one infinite.
    """

    true_positives: np.ndarray
    false_positives: np.ndarray
    thresholds: np.ndarray

    @property
    def tpr(self) -> np.ndarray:
        """[T + 1] true positive rate, ascending."""
        return self.true_positives / self.true_positives[-1]

    @property
    def fpr(self) -> np.ndarray:
        """[T + 1] false positive rate, ascending."""
        return self.false_positives / self.false_positives[-1]

    @property
    def tnr(self) -> np.ndarray:
        """[T + 1] true negative rate, descending."""
        return (self.false_positives[-1] - self.false_positives) / self.false_positives[-1]

    @property
    def fnr(self) -> np.ndarray:
        """[T + 1] false negative rate, descending; divided from counts, because 1 - tpr misses levels by rounding."""
        return (self.true_positives[-1] - self.true_positives) / self.true_positives[-1]


class Summary(NamedTuple):
    """Every ROC number of one sort.

    Attributes:
      auc, balanced_accuracy: in [0, 1], higher = the score separates members better.
      error_rates: the L false rates at which the curve is read.
      tpr_at_fpr, tnr_at_fnr: [L] float64 in [0, 1], higher = separates better.
      positives, negatives: number of samples of each kind.
    """

    auc: float
    balanced_accuracy: float
    error_rates: tuple[float, ...]
    tpr_at_fpr: np.ndarray
    tnr_at_fnr: np.ndarray
    positives: int
    negatives: int


def check(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores and truth as arrays that have a ROC curve; every public function checks its input here.

    Args:
      scores: [n] numbers, higher = member.
      truth: [n] bool or 0/1, True = member.

    Returns:
      scores in their own precision (at least float32), truth as bool.

    Raises:
      ShapeError: not two vectors of one length.
      DataError: a score is NaN or infinite, truth is not 0/1, or holds only one of the two kinds.
    """
    scores, truth = np.asarray(scores), np.asarray(truth)
    checks.shape("N", scores=scores, truth=truth)
    return finite_scores(scores), both_kinds(truth)


def finite_scores(scores: np.ndarray) -> np.ndarray:
    """Returns scores of any shape as float32 or float64; raises a DataError if one is NaN or infinite."""
    scores = np.asarray(scores)
    scores = scores.astype(np.float64 if scores.dtype in (np.float64, np.int64) else np.float32, copy=False)
    checks.finite("scores", scores)
    return scores


def both_kinds(truth: np.ndarray) -> np.ndarray:
    """Returns truth of any shape as bool; raises a DataError unless it is 0/1 and holds members and non-members."""
    truth = np.asarray(truth)
    if truth.dtype != bool and not np.isin(truth, (0, 1)).all():
        raise errors.DataError(
            f"truth contains {np.unique(truth)[:5].tolist()}, expected only True/1 (member) and False/0 (forgotten)."
        )
    truth = truth.astype(bool)
    if truth.all() or not truth.any():
        kind = "no sample at all" if not truth.size else "only members" if truth.all() else "no member"
        raise errors.DataError(
            f"truth contains {kind} ({truth.size} samples); a ROC curve needs members (True) and forgotten (False)."
        )
    return truth


def rank(scores: np.ndarray, truth: np.ndarray) -> RankedScores:
    """Sorts samples once, highest score first; scores [n] and truth [n] as `check` returns them."""
    order = np.argsort(scores)[::-1]
    falling = scores[order]
    ends = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(falling) - 1)
    return RankedScores(order, truth[order], ends, falling[ends].astype(np.float64))


def count(ranked: RankedScores, weights: np.ndarray | None = None) -> Curve:
    """Computes the curve of ranked samples.

    Args:
      ranked: from `rank`.
      weights: [n] whole numbers in the original order of the samples: how often each one counts (0 leaves it out).

    Returns:
      A Curve; points repeat if all samples of a threshold are left out, which changes no number read from the curve.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics import roc
      >>> ranked = roc.rank(*roc.check([0.9, 0.8, 0.4, 0.1], [1, 0, 1, 0]))
      >>> roc.area(roc.count(ranked)), roc.area(roc.count(ranked, np.array([1, 0, 1, 1])))
      (0.75, 1.0)
    """
    if weights is None:
        totals = ranked.ends + 1
        members = np.cumsum(ranked.positive, dtype=np.int64)[ranked.ends]
    else:
        sorted_weights = weights[ranked.order]
        totals = np.cumsum(sorted_weights, dtype=np.int64)[ranked.ends]
        members = np.cumsum(sorted_weights * ranked.positive, dtype=np.int64)[ranked.ends]
    start = np.zeros(1, np.int64)
    return Curve(
        true_positives=np.concatenate([start, members]),
        false_positives=np.concatenate([start, totals - members]),
        thresholds=np.concatenate([[np.inf], ranked.thresholds]),
    )


def curve(scores: np.ndarray, truth: np.ndarray) -> Curve:
    """Computes the ROC curve of scores [n] (higher = member) against truth [n]; raises as `check` does.

    Example:
      >>> from jaxunlearn.metrics import roc
      >>> points = roc.curve([0.9, 0.8, 0.4, 0.1], [1, 0, 1, 0])
      >>> points.tpr.tolist(), points.fpr.tolist()
      ([0.0, 0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.5, 0.5, 1.0])
    """
    return count(rank(*check(scores, truth)))


def area(points: Curve) -> float:
    """Computes the trapezoid area in [0, 1] under a curve; equal scores count half. Exact in integers, one division."""
    doubled_area = np.sum(np.diff(points.false_positives) * (points.true_positives[1:] + points.true_positives[:-1]))
    return float(doubled_area / (2 * int(points.true_positives[-1]) * int(points.false_positives[-1])))


def best_balanced(points: Curve) -> float:
    """Returns the largest balanced accuracy on a curve, in [0.5, 1]."""
    return float(np.max(1 - (points.fpr + points.fnr) / 2))


def read(rates: np.ndarray, values: np.ndarray, error_rate: float, interpolation: str = "linear") -> float:
    """Reads `values` at the point where `rates` reach `error_rate`; of repeated rates the last one counts.

    Args:
      rates: [T] a false rate along the curve, ascending.
      values: [T] the rate to read, at the same points.
      error_rate: in [0, 1].
      interpolation: "linear" or "step", see `tpr_at_fpr`.

    Raises:
      ConfigError: error_rate outside [0, 1], or an unknown interpolation.
    """
    checks.in_range("error_rate", error_rate, 0, 1)
    checks.choice("interpolation", interpolation, INTERPOLATIONS)
    if interpolation == "linear":
        return float(np.interp(error_rate, rates, values))
    return float(values[np.searchsorted(rates, error_rate, side="right") - 1])


def member_rate(points: Curve, error_rate: float, interpolation: str = "linear") -> float:
    """Returns the TPR of a curve where its FPR is `error_rate`; see `tpr_at_fpr`."""
    return read(points.fpr, points.tpr, error_rate, interpolation)


def forgotten_rate(points: Curve, error_rate: float, interpolation: str = "linear") -> float:
    """Returns the TNR of a curve where its FNR is `error_rate`; see `tnr_at_fnr`."""
    # The published rate is 1 - TPR, whose rounding decides on which side of a level a point falls (1 - 0.99 > 0.01).
    # The linear form keeps that, to reproduce published numbers; the step form compares exact fractions.
    fnr = 1 - points.tpr if interpolation == "linear" else points.fnr
    return read(fnr[::-1], points.tnr[::-1], error_rate, interpolation)


def summarise(points: Curve, error_rates: tuple[float, ...] = LEVELS, interpolation: str = "linear") -> Summary:
    """Computes all numbers of a curve; see `summary`."""
    return Summary(
        auc=area(points),
        balanced_accuracy=best_balanced(points),
        error_rates=tuple(error_rates),
        tpr_at_fpr=np.array([member_rate(points, error_rate, interpolation) for error_rate in error_rates]),
        tnr_at_fnr=np.array([forgotten_rate(points, error_rate, interpolation) for error_rate in error_rates]),
        positives=int(points.true_positives[-1]),
        negatives=int(points.false_positives[-1]),
    )


def summary(
    scores: np.ndarray, truth: np.ndarray, error_rates: tuple[float, ...] = LEVELS, interpolation: str = "linear"
) -> Summary:
    """Computes AUC, balanced accuracy, TPR at low FPR and TNR at low FNR from one sort.

    Args:
      scores: [n] higher = member.
      truth: [n] True = member.
      error_rates: the false rates at which the curve is read, each in [0, 1].
      interpolation: see `tpr_at_fpr`.

    Raises:
      ShapeError, DataError: as `check`. ConfigError: an error rate out of range.

    Example:
      >>> from jaxunlearn.metrics import roc
      >>> summary = roc.summary([0.9, 0.8, 0.4, 0.1], [1, 0, 1, 0], error_rates=(0.5,))
      >>> summary.auc, summary.balanced_accuracy, summary.tpr_at_fpr.tolist()
      (0.75, 0.75, [1.0])
    """
    return summarise(curve(scores, truth), error_rates, interpolation)


def auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Computes the area under the ROC curve: P(random member scores above random non-member), ties counting half.

    Args:
      scores: [n] float, higher = member.
      truth: [n] bool, True = member.

    Returns:
      AUC in [0, 1], higher = separates members better, 0.5 for constant scores; NaN if one of the kinds is empty
      (call `check` first where that is an error).

    Example:
      >>> from jaxunlearn.metrics import roc
      >>> roc.auc([0.9, 0.8, 0.4, 0.1], [True, False, True, False])
      0.75
    """
    truth = np.asarray(truth, bool)
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return float("nan")
    # SciPy from 1.18 on ranks in the scores' own type, which in float32 counts to 16.8 million only.
    ranks = scipy.stats.rankdata(np.asarray(scores, np.float64))
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def balanced_accuracy(scores: np.ndarray, truth: np.ndarray) -> float:
    """Computes the largest value over thresholds of 1 - (FPR + FNR) / 2, in [0.5, 1]; higher = separates better.

    The threshold is chosen on the same samples: even random scores get more than 0.5, by about
    0.3 / sqrt(size of the rarer kind). Raises as `check` does. Source: IAM ("acc").

    Example:
      >>> from jaxunlearn.metrics import roc
      >>> roc.balanced_accuracy([0.9, 0.8, 0.4, 0.1], [1, 0, 1, 0])
      0.75
    """
    return best_balanced(curve(scores, truth))


def tpr_at_fpr(scores: np.ndarray, truth: np.ndarray, error_rate: float, interpolation: str = "linear") -> float:
    """Computes the TPR where the FPR is `error_rate`, in [0, 1]; higher = separates members better.

    Args:
      scores: [n] higher = member.
      truth: [n] True = member.
      error_rate: the false positive rate, in [0, 1].
      interpolation: "linear" between the points of the raw curve (published); "step": the last point whose FPR is
        not above `error_rate`, a rate that some threshold attains.

    Raises:
      ShapeError, DataError: as `check`. ConfigError: error_rate or interpolation.

    Source: IAM; Carlini et al., Membership inference attacks from first principles ("step").

    Example:
      >>> from jaxunlearn.metrics import roc
      >>> roc.tpr_at_fpr([0.9, 0.8, 0.4, 0.1], [1, 0, 1, 0], error_rate=0.01, interpolation="step")
      0.5
    """
    return member_rate(curve(scores, truth), error_rate, interpolation)


def tnr_at_fnr(scores: np.ndarray, truth: np.ndarray, error_rate: float, interpolation: str = "linear") -> float:
    """Computes the TNR where the FNR is `error_rate`, in [0, 1]; higher = separates members better.

    At a repeated FNR the largest TNR counts. Differs from the published code, which sorts the FNR unstably before
    interpolating, so that among equal FNR an arbitrary TNR is taken (often 0). The linear form keeps the published
    rounding, FNR = 1 - TPR: a point exactly on the level may count as just above it. The step form is exact.

    Args:
      scores: [n] higher = member.
      truth: [n] True = member.
      error_rate: the false negative rate, in [0, 1].
      interpolation: see `tpr_at_fpr`.

    Raises:
      As `tpr_at_fpr`.

    Example:
      >>> from jaxunlearn.metrics import roc
      >>> roc.tnr_at_fnr([0.9, 0.8, 0.4, 0.1], [1, 0, 1, 0], error_rate=0.01, interpolation="step")
      0.5
    """
    return forgotten_rate(curve(scores, truth), error_rate, interpolation)
