"""Decisions per sample: control of the false discovery rate of p-values [n].

NumPy on the host. Source: Benjamini and Hochberg 1995; Bates, Candes, Lei, Romano and Sesia, Testing for outliers with
conformal p-values (that p-values sharing one null may go into Benjamini-Hochberg).
"""

from typing import NamedTuple

import numpy as np

from jaxunlearn import checks, errors


class Rejections(NamedTuple):
    """Result of a multiple test.

    Attributes:
      rejected: [n] bool.
      adjusted: [n] float64, the smallest level at which each null would be rejected.
    """

    rejected: np.ndarray
    adjusted: np.ndarray


def benjamini_hochberg(p: np.ndarray, fdr: float = 0.05) -> Rejections:
    """Performs the Benjamini-Hochberg test: an expected share of at most `fdr` of the rejected nulls is true.

    Holds for independent p-values, and for conservative conformal ones sharing a null (positively dependent).

    Args:
      p: [n] p-values in [0, 1].
      fdr: bound on the false discovery rate, in [0, 1].

    Returns:
      Rejections: adjusted = min over larger ranks of n p / rank, rejected where it is at most `fdr`.

    Raises:
      ShapeError: not a vector. DataError: p-values outside [0, 1] or NaN. ConfigError: fdr.

    Source: Benjamini and Hochberg 1995.

    Example:
      >>> from jaxunlearn.metrics.inference import decision
      >>> decision.benjamini_hochberg([0.01, 0.5, 0.02], fdr=0.05).rejected.tolist()
      [True, False, True]
    """
    checks.in_range("fdr", fdr, 0, 1)
    p = check(p)
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return Rejections(adjusted <= fdr, adjusted)


def check(p: np.ndarray) -> np.ndarray:
    """Returns p-values as float64 [n], checked to lie in [0, 1]; raises ShapeError or DataError."""
    p = np.asarray(p, np.float64)
    checks.shape("N", p=p)
    outside = np.flatnonzero(~((p >= 0) & (p <= 1)))
    if len(outside):
        raise errors.DataError(
            f"p-values must lie in [0, 1], but entry {int(outside[0])} is {p[outside[0]]} ({len(outside)} out of "
            "range). Give p-values, not scores."
        )
    return p


def positive_predictive_value(true_rate: np.ndarray, false_rate: np.ndarray, prior: float) -> np.ndarray:
    """Returns the share of flagged samples that are members; NaN where nothing is flagged.

    Args:
      true_rate: [...] share of members that are flagged.
      false_rate: [...] share of non-members that are flagged.
      prior: share of members among all samples, in [0, 1].

    Source: Jayaraman et al. 2021, "Revisiting membership inference under realistic assumptions", section 3.
    """
    true_positives = prior * np.asarray(true_rate, np.float64)
    positives = true_positives + (1 - prior) * np.asarray(false_rate, np.float64)
    return np.divide(true_positives, positives, out=np.full(np.shape(positives), np.nan), where=positives > 0)
