"""ScoreUI: does a membership score increase with the amount of training? NumPy and SciPy on the host.

Column b of B + 1 belongs to a model saved after b / B of its training, so every sample's true degree of membership
there is b / B. The predicted matrix is min-max normalised as a whole, then compared entry by entry.
Source: IAM, section on ScoreUI.
"""

from typing import NamedTuple

import numpy as np
import scipy.stats

from jaxunlearn import checks, errors
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.records import Finding

BINS = 20
# Added inside the logarithm of the published divergence, so that empty bins stay finite.
EMPTY_BIN = 1e-10


class Agreement(NamedTuple):
    """How well predicted degrees of membership follow the true ones; every field is NaN for a constant matrix.

    Attributes:
      mse: [...] mean squared error, lower = better.
      mse_per_column: [..., B + 1] the same for every b.
      kl: [...] published divergence of 20-bin density histograms (truth from predicted), lower = better.
      pearson, spearman: [...] correlations in [-1, 1], higher = better.
    """

    mse: np.ndarray
    mse_per_column: np.ndarray
    kl: np.ndarray
    pearson: np.ndarray
    spearman: np.ndarray


TITLES = {"mse": "ScoreUI MSE", "kl": "ScoreUI KL", "pearson": "ScoreUI Pearson", "spearman": "ScoreUI Spearman"}


def normalise(membership: np.ndarray) -> np.ndarray:
    """Scales the last two axes [N, B + 1] by minimum and maximum to float64 in [0, 1]; NaN for a constant matrix."""
    membership = np.asarray(membership, np.float64)
    low = membership.min((-2, -1), keepdims=True)
    width = membership.max((-2, -1), keepdims=True) - low
    return (membership - low) / np.where(width > 0, width, np.nan)


def degrees(columns: int) -> np.ndarray:
    """Returns the [B + 1] float32 true degrees of membership b / B of the columns.

    Single precision as published: degrees lie on the edges of the histogram, and rounding decides on which side.
    """
    return (np.arange(columns) / (columns - 1)).astype(np.float32)


def agreement(membership: np.ndarray, truth: np.ndarray | None = None) -> Agreement:
    """Compares membership scores of growing models with the true degree of membership.

    Args:
      membership: [..., N, B + 1] of N samples under B + 1 models in the order of training, higher = member. Along
        leading axes (shadow groups, starting models) each matrix is normalised by its own extremes.
      truth: [B + 1] true degrees; None = b / B.

    Returns:
      An Agreement with those leading axes. A constant matrix cannot be normalised: its numbers are NaN.

    Raises:
      ShapeError: fewer than two axes, no sample, or fewer than two columns. DataError: NaN or infinite entries.

    Source: IAM, section on ScoreUI.

    Example:
      >>> from jaxunlearn.metrics.ranking import correlation
      >>> agreement = correlation.agreement([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
      >>> float(agreement.mse), round(float(agreement.spearman), 6)
      (0.0, 1.0)
    """
    membership = check(membership)
    normalised = normalise(membership)
    truth = degrees(membership.shape[-1]) if truth is None else np.asarray(truth, np.float32)
    errors_squared = (normalised - truth) ** 2
    leading = membership.shape[:-2]
    statistics = [_shape_statistics(matrix, truth) for matrix in normalised.reshape(-1, *membership.shape[-2:])]
    kl, pearson, spearman = (np.array(column).reshape(leading) for column in zip(*statistics, strict=True))
    return Agreement(errors_squared.mean((-2, -1)), errors_squared.mean(-2), kl, pearson, spearman)


def table(
    membership: np.ndarray, confidence_level: float = 0.95, of: str = "", truth: np.ndarray | None = None
) -> dict[str, Finding]:  # fmt: skip
    """Computes the published ScoreUI row: means over starting models and shadow groups.

    Args:
      membership: [G, L, N, B + 1] of G shadow groups, L starting models.
      confidence_level: of the intervals, in [0, 1].
      of: whose scores these are.
      truth: [B + 1] true degrees; None = b / B.

    Returns:
      "mse", "kl" (lower = better), "pearson", "spearman" (higher = better) -> Finding: value is the mean over groups
      and starting models, std the population standard deviation over groups, the interval Student's t over
      starting models (independent trainings; groups judge the same ones), NaN for one.

    Raises:
      ShapeError: not four axes. DataError: NaN or infinite entries. ConfigError: the level.
    """
    checks.in_range("confidence_level", confidence_level, 0, 1)
    groups, starts, samples, columns = np.shape(check(membership, "membership [G, L, N, B + 1]", 4))
    metrics = agreement(membership, truth)._asdict()
    findings = {}
    for name, title in TITLES.items():
        values = metrics[name]
        finding = intervals.mean(
            values.mean(0), metric=title, of=of, against="true degree of membership", confidence_level=confidence_level
        )
        findings[name] = finding.replace(  # type: ignore[attr-defined]
            std=intervals.std(values.mean(1)),
            n=starts * samples * columns,
            method=f"t over {finding.n} starting models",
        )
    return findings


def check(membership: np.ndarray, name: str = "membership", axes: int | None = None) -> np.ndarray:
    """Returns membership as a finite array [..., N >= 1, B + 1 >= 2], with `axes` axes if given; raises otherwise."""
    membership = np.asarray(membership)
    shape = membership.shape
    if len(shape) < 2 or (axes and len(shape) != axes) or min(shape, default=0) < 1 or shape[-1] < 2:
        expected = f"{axes} axes" if axes else "at least the axes [N, B + 1]"
        raise errors.ShapeError(f"{name} has shape {shape}, expected {expected}, no empty one and B >= 1.")
    checks.finite("membership", membership)
    return membership


def _shape_statistics(normalised: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Computes KL, Pearson and Spearman of one normalised matrix [N, B + 1] against the true degrees [B + 1]."""
    if np.isnan(normalised).any():
        return float("nan"), float("nan"), float("nan")
    truth = np.broadcast_to(truth, normalised.shape).ravel()
    predicted = normalised.ravel()
    true_density, edges = np.histogram(truth, BINS, density=True)
    density, _ = np.histogram(predicted, edges, density=True)
    kl = np.sum(true_density * np.log((true_density + EMPTY_BIN) / (density + EMPTY_BIN)))
    ranks = [scipy.stats.rankdata(np.asarray(values, np.float64)) for values in (truth, predicted)]
    return float(kl), float(np.corrcoef(truth, predicted)[0, 1]), float(np.corrcoef(*ranks)[0, 1])
