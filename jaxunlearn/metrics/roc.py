"""ROC curve summaries with NumPy on the host: one sort, integer counts, exact rates.

Positive = member (retained), negative = forgotten; scores: higher = member. TPR at a low FPR reads "retained samples
recognised while few forgotten samples pass for members", TNR at a low FNR "forgotten samples recognised while few
retained samples are missed". Compare every number with the one a retrained model gets, not with 0.5 or 1.

    rank (one argsort) -> count (cumulative sums, optional multiplicities) -> Curve -> numbers

Because a curve is made from counts along a fixed order, leaving samples out or resampling them needs no further sort.
Source: Inexact unlearning needs more careful evaluations (IAM), section on metrics.
"""

from typing import NamedTuple

import numpy as np
import scipy.stats

from jaxunlearn import checks, errors

LEVELS = (1e-2, 1e-3)
INTERPOLATIONS = ("linear", "step")


class Ranked(NamedTuple):
    """Samples sorted once, highest score first.

    Attributes:
      order: [n] int positions in the given order; `positive`: [n] bool truth along it.
      ends: [T] int last place of every run of equal scores: only there may a threshold cut.
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
      error_rates: the false rates read at; `tpr_at_fpr`, `tnr_at_fnr`: [L] float64 in [0, 1], higher = separates
        better.
      positives, negatives: how many samples of each kind.
    """

    auc: float
    balanced_accuracy: float
    error_rates: tuple[float, ...]
    tpr_at_fpr: np.ndarray
    tnr_at_fnr: np.ndarray
    positives: int
    negatives: int


def check(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The public border: scores [n] and truth [n] as arrays a ROC curve can be made of.

    Args:
      scores: [n] numbers, higher = member.
      truth: [n] bool or 0/1, True = member.

    Returns:
      scores as given dtype (at least float32), truth as bool.

    Raises:
      ShapeError: not two vectors of one length.
      DataError: a score is NaN or infinite, truth is not 0/1, or holds only one of the two kinds.
    """
    scores, truth = np.asarray(scores), np.asarray(truth)
    checks.shape("N", scores=scores, truth=truth)
    return finite_scores(scores), both_kinds(truth)


def finite_scores(scores: np.ndarray) -> np.ndarray:
    """Scores of any shape as float32 or float64; raises a DataError where one is NaN or infinite."""
    scores = np.asarray(scores)
    scores = scores.astype(np.float64 if scores.dtype in (np.float64, np.int64) else np.float32, copy=False)
    checks.finite("scores", scores)
    return scores


def both_kinds(truth: np.ndarray) -> np.ndarray:
    """Truth of any shape as bool; raises a DataError unless it is 0/1 and holds members and non-members."""
    truth = np.asarray(truth)
    if truth.dtype != bool and not np.isin(truth, (0, 1)).all():
        raise errors.DataError(
            f"truth holds {np.unique(truth)[:5].tolist()}, expected only True/1 (member) and False/0 (forgotten)."
        )
    truth = truth.astype(bool)
    if truth.all() or not truth.any():
        kind = "no sample at all" if not truth.size else "only members" if truth.all() else "no member"
        raise errors.DataError(
            f"truth holds {kind} ({truth.size} samples); a ROC curve needs both members (True) and forgotten (False)."
        )
    return truth


def rank(scores: np.ndarray, truth: np.ndarray) -> Ranked:
    """Sorts samples once, highest score first; scores [n] and truth [n] as `check` returns them."""
    order = np.argsort(scores)[::-1]
    falling = scores[order]
    ends = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(falling) - 1)
    return Ranked(order, truth[order], ends, falling[ends].astype(np.float64))


def count(ranked: Ranked, weights: np.ndarray | None = None) -> Curve:
    """The curve of ranked samples.

    Args:
      ranked: from `rank`.
      weights: [n] whole numbers in the order the samples were given, how often each counts (0 leaves it out).

    Returns:
      A Curve; points repeat where all samples of a threshold are left out, which changes no number read from it.
    """
    if weights is None:
        every = ranked.ends + 1
        members = np.cumsum(ranked.positive, dtype=np.int64)[ranked.ends]
    else:
        sorted_weights = weights[ranked.order]
        every = np.cumsum(sorted_weights, dtype=np.int64)[ranked.ends]
        members = np.cumsum(sorted_weights * ranked.positive, dtype=np.int64)[ranked.ends]
    start = np.zeros(1, np.int64)
    return Curve(
        true_positives=np.concatenate([start, members]),
        false_positives=np.concatenate([start, every - members]),
        thresholds=np.concatenate([[np.inf], ranked.thresholds]),
    )


def curve(scores: np.ndarray, truth: np.ndarray) -> Curve:
    """The ROC curve of scores [n] (higher = member) against truth [n]; raises as `check` does."""
    return count(rank(*check(scores, truth)))


def area(points: Curve) -> float:
    """Trapezoid area in [0, 1] under a curve: equal scores count half. Exact in integers before one division."""
    twice = np.sum(np.diff(points.false_positives) * (points.true_positives[1:] + points.true_positives[:-1]))
    return float(twice / (2 * int(points.true_positives[-1]) * int(points.false_positives[-1])))


def best_balanced(points: Curve) -> float:
    """Largest balanced accuracy on a curve, in [0.5, 1]."""
    return float(np.max(1 - (points.fpr + points.fnr) / 2))


def read(rising: np.ndarray, values: np.ndarray, error_rate: float, interpolation: str = "linear") -> float:
    """Reads `values` where `rising` (a false rate, ascending) meets a level; at a repeated rate the last value counts.

    Raises:
      ConfigError: level outside [0, 1], or an unknown interpolation.
    """
    checks.in_range("error_rate", error_rate, 0, 1)
    checks.choice("interpolation", interpolation, INTERPOLATIONS)
    if interpolation == "linear":
        return float(np.interp(error_rate, rising, values))
    return float(values[np.searchsorted(rising, error_rate, side="right") - 1])


def member_rate(points: Curve, error_rate: float, interpolation: str = "linear") -> float:
    """TPR of a curve where its FPR is `error_rate`; see `tpr_at_fpr`."""
    return read(points.fpr, points.tpr, error_rate, interpolation)


def forgotten_rate(points: Curve, error_rate: float, interpolation: str = "linear") -> float:
    """TNR of a curve where its FNR is `error_rate`; see `tnr_at_fnr`."""
    # The published rate is 1 - TPR, whose rounding decides on which side of a level a point falls (1 - 0.99 > 0.01).
    # The linear form keeps that, so that published numbers come out; the step form compares exact fractions.
    fnr = 1 - points.tpr if interpolation == "linear" else points.fnr
    return read(fnr[::-1], points.tnr[::-1], error_rate, interpolation)


def summarise(points: Curve, error_rates: tuple[float, ...] = LEVELS, interpolation: str = "linear") -> Summary:
    """All numbers of a curve; see `summary`."""
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
    """AUC, balanced accuracy, TPR at low FPR and TNR at low FNR from one sort.

    Args:
      scores: [n] higher = member.
      truth: [n] True = member.
      error_rates: the false rates to read at, each in [0, 1].
      interpolation: see `tpr_at_fpr`.

    Raises:
      ShapeError, DataError: as `check`. ConfigError: a level out of range.
    """
    return summarise(curve(scores, truth), error_rates, interpolation)


def auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a random member scores above a random non-member, ties counting half.

    Args:
      scores: [n] float, higher = member.
      truth: [n] bool, True = member.

    Returns:
      AUC in [0, 1], higher = separates members better, 0.5 for constant scores; NaN when one of the classes is empty
      (call `check` first where that is an error).
    """
    truth = np.asarray(truth, bool)
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return float("nan")
    # SciPy from 1.18 on ranks in the scores' own type, which in float32 counts to 16.8 million only.
    ranks = scipy.stats.rankdata(np.asarray(scores, np.float64))
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def balanced_accuracy(scores: np.ndarray, truth: np.ndarray) -> float:
    """Largest value over thresholds of 1 - (FPR + FNR) / 2, in [0.5, 1]; higher = separates members better.

    A maximum over thresholds chosen on the same samples: even random scores get more than 0.5, by about
    0.3 / sqrt(number of the rarer kind). Raises as `check` does. Source: IAM ("acc").
    """
    return best_balanced(curve(scores, truth))


def tpr_at_fpr(scores: np.ndarray, truth: np.ndarray, error_rate: float, interpolation: str = "linear") -> float:
    """True positive rate where the false positive rate is `error_rate`, in [0, 1]; higher = separates members better.

    Args:
      scores: [n] higher = member.
      truth: [n] True = member.
      error_rate: the false positive rate, in [0, 1].
      interpolation: "linear" between the points of the raw curve (published); "step" is the last point whose FPR is
        not above the level, a rate that a threshold really reaches.

    Raises:
      ShapeError, DataError: as `check`. ConfigError: level or interpolation.

    Source: IAM; Carlini et al., Membership inference attacks from first principles ("step").
    """
    return member_rate(curve(scores, truth), error_rate, interpolation)


def tnr_at_fnr(scores: np.ndarray, truth: np.ndarray, error_rate: float, interpolation: str = "linear") -> float:
    """True negative rate where the false negative rate is `error_rate`, in [0, 1]; higher = separates members better.

    At a repeated FNR the largest TNR counts. Differs from the published code, which sorts the FNR unstably before
    interpolating, so that among equal FNR an arbitrary TNR is taken (often 0). The linear form keeps the published
    rounding, FNR = 1 - TPR: where a point lies exactly on the level it may count as just above it. The step form is
    exact. Arguments and errors as `tpr_at_fpr`.
    """
    return forgotten_rate(curve(scores, truth), error_rate, interpolation)
