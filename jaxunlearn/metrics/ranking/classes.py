"""Over- and under-unlearning per class, from membership scores of retained and forgotten samples.

One row per forgotten class (a run that forgets that class), one row pooled over all. Compare with the row of the
retrained model: forgotten samples that look more like members than after retraining were under-unlearned; retained
samples that look less like members were over-unlearned.
NumPy on the host. Source: IAM, section on over- and under-unlearning (Table 8).
"""

from typing import NamedTuple

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.metrics import roc

TAIL_FRACTION = 0.1
# The published cross entropy clamps logarithms here.
LOG_FLOOR = -100.0


class Moments(NamedTuple):
    """Membership of one kind of sample, each [R] per class or a scalar pooled, in [0, 1].

    Attributes:
      mean, std, maximum, minimum: over samples; the standard deviation is the population's.
      tail: mean of the worst tenth: the lowest of retained, the highest of forgotten samples.
    """

    mean: np.ndarray
    std: np.ndarray
    maximum: np.ndarray
    minimum: np.ndarray
    tail: np.ndarray


class Row(NamedTuple):
    """The report's row of one class ([R] arrays for all classes, or scalars for the pooled row).

    Attributes:
      auc: in [0, 1], higher = retained above forgotten.
      weighted_bce: binary cross entropy, members weighted by (forgotten / retained); >= 0, lower = scores near 1 for
        retained and near 0 for forgotten samples.
      retained, forgotten: Moments of each kind.
    """

    auc: np.ndarray
    weighted_bce: np.ndarray
    retained: Moments
    forgotten: Moments


class ClassMetrics(NamedTuple):
    """Rows of one method.

    Attributes:
      classes: Row of [R] arrays, one entry per forgotten class.
      pooled: Row of scalars over all samples of all classes ("overall").
      std: population standard deviation over classes of "weighted_bce", "retained" and "forgotten" means.
    """

    classes: Row
    pooled: Row
    std: dict[str, float]


class Gap(NamedTuple):
    """A method compared with retraining; 0 = as retraining, above 0 = the fault in question.

    Attributes:
      under: mean membership of forgotten samples above retraining's (under-unlearning).
      over: mean membership of retained samples below retraining's (over-unlearning).
      over_tail: the same for the retained samples that look least like members; it shows damage to few samples.
    """

    under: np.ndarray
    over: np.ndarray
    over_tail: np.ndarray


def moments(values: np.ndarray, lowest: bool, tail: str = "corrected") -> Moments:
    """Computes the moments of one kind of sample.

    Args:
      values: [n] membership, n >= 1.
      lowest: whether the worst tenth is the lowest (retained); else the highest (forgotten).
      tail: "corrected" takes at least one sample into the tail; "faithful" takes int(0.1 n), so that below 10 samples
        the tail of retained ones is NaN and the tail of forgotten ones is the mean of all (published).

    Raises:
      ConfigError: unknown tail. DataError: no sample.
    """
    checks.choice("tail", tail, ("corrected", "faithful"))
    values = np.sort(np.asarray(values, np.float64))
    if not len(values):
        raise errors.DataError("moments of no sample: a class needs retained and forgotten samples.")
    size = int(TAIL_FRACTION * len(values))
    if size:
        worst = values[:size] if lowest else values[-size:]
        end = worst.mean()
    elif tail == "corrected":
        end = values[0] if lowest else values[-1]
    else:
        end = np.nan if lowest else values.mean()
    statistics = (values.mean(), values.std(), values[-1], values[0], end)
    return Moments(*(np.asarray(statistic) for statistic in statistics))


def row(membership: np.ndarray, truth: np.ndarray, tail: str = "corrected") -> Row:
    """Computes the row of one class: membership [n] in [0, 1] (higher = member), truth [n] (True = retained).

    Raises:
      ShapeError, DataError: as `roc.check`; DataError for membership outside [0, 1]. ConfigError: unknown `tail` (see
        `moments`).
    """
    membership, truth = _check(membership, truth)
    return Row(
        auc=np.asarray(roc.auc(membership, truth)),
        weighted_bce=np.asarray(_weighted_bce(membership, truth)),
        retained=moments(membership[truth], True, tail),
        forgotten=moments(membership[~truth], False, tail),
    )


def report(membership: np.ndarray, truth: np.ndarray, tail: str = "corrected") -> ClassMetrics:
    """Computes the class report of one method.

    Args:
      membership: [R, N] membership scores in [0, 1] of R runs, each forgetting another class; higher = member.
      truth: [R, N] bool, True = retained, False = forgotten.
      tail: "corrected" | "faithful", see `moments`.

    Returns:
      Rows per class and pooled. A constant score has AUC 0.5.

    Raises:
      ShapeError: not two arrays [R, N]. DataError: membership outside [0, 1] or non-finite, or a run without retained
      or without forgotten samples. ConfigError: unknown tail.

    Source: IAM, Table 8. Differs from the published code in the tail of fewer than 10 samples (tail="faithful").

    Example:
      >>> from jaxunlearn.metrics.ranking import classes
      >>> report = classes.report([[0.75, 1.0, 0.5, 0.25]], [[True, True, False, False]])
      >>> float(report.pooled.auc), float(report.pooled.retained.mean), float(report.pooled.forgotten.tail)
      (1.0, 0.875, 0.5)
    """
    membership, truth = np.asarray(membership), np.asarray(truth)
    checks.shape("RN", membership=membership, truth=truth)
    rows = [row(run_membership, kinds, tail) for run_membership, kinds in zip(membership, truth, strict=True)]
    if not rows:
        raise errors.DataError("class report of no run: membership has shape (0, N).")
    classes = Row(
        auc=np.stack([entry.auc for entry in rows]),
        weighted_bce=np.stack([entry.weighted_bce for entry in rows]),
        retained=Moments(*map(np.stack, zip(*(entry.retained for entry in rows), strict=True))),
        forgotten=Moments(*map(np.stack, zip(*(entry.forgotten for entry in rows), strict=True))),
    )
    spread = {
        "weighted_bce": float(classes.weighted_bce.std()),
        "retained": float(classes.retained.mean.std()),
        "forgotten": float(classes.forgotten.mean.std()),
    }
    return ClassMetrics(classes, row(membership.ravel(), truth.ravel(), tail), spread)


def against_retrained(method: Row, retrained: Row) -> Gap:
    """Compares a method's row (one class, all classes as [R], or pooled) with the same row of the retrained model."""
    return Gap(
        under=method.forgotten.mean - retrained.forgotten.mean,
        over=retrained.retained.mean - method.retained.mean,
        over_tail=retrained.retained.tail - method.retained.tail,
    )


def _check(membership: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    checks.shape("N", membership=membership, truth=truth)
    membership, truth = roc.check(membership, truth)
    outside = np.flatnonzero((membership < 0) | (membership > 1))
    if len(outside):
        raise errors.DataError(
            f"membership must lie in [0, 1], but entry {int(outside[0])} is {membership[outside[0]]} "
            f"({len(outside)} out of range). Only scores with that range have a class report."
        )
    return membership.astype(np.float64), truth


def _weighted_bce(membership: np.ndarray, truth: np.ndarray) -> float:
    # Clamped before the logarithm, so that a membership of exactly 0 or 1 does not meet log(0).
    logs = np.log(np.maximum(np.where(truth, membership, 1 - membership), np.exp(LOG_FLOOR)))
    weight = np.where(truth, (~truth).sum() / truth.sum(), 1.0)
    return float(-(weight * logs).mean())
