"""Predicts how a model that never saw a row answers it: the null of NOT FORGOTTEN and of SUPPRESSED.

Shadow models measure how hard a row is (their mean) and how much models differ on it (their variance). The population,
rows that neither the audited model nor any shadow saw, measures how the audited model relates to its shadows. One fit
serves all rows, so results for a row do not depend on which other rows are audited.
"""

from typing import NamedTuple

import numpy as np

CLIP = 50.0  # of log-odds
SOFT = 1e-3
ALIKE = 0.25  # slopes this close to 1 are set to 1
PRIOR = 4  # degrees of freedom of the typical variance, when averaged with a row's own
ROWS_PER_BIN, MOST_BINS = 30, 10


class Moments(NamedTuple):
    """Answers of the shadows that did not see a row.

    Attributes:
      mean, variance: [N] float64; the variance has n - 1 in its denominator and is 0 where n < 2.
      models: [N] float64, n.
    """

    mean: np.ndarray
    variance: np.ndarray
    models: np.ndarray


class OutModel(NamedTuple):
    """Maps the shadows' moments of a row to mean and standard deviation of a model that never saw it.

    Attributes:
      raw_slope: of the audited model's answers regressed on the shadows' mean, in [0.2, 5]; below 1 = the shadows are
        more certain than the model.
      slope, offset: as applied; slope is 1 if `raw_slope` is within 0.25 of 1.
      correlation: of the audited model's answers with the shadows' mean, over the population.
      knots, log_variance: [B] mean of the shadows, and log of their variance at it.
    """

    raw_slope: float
    slope: float
    offset: float
    correlation: float
    knots: np.ndarray
    log_variance: np.ndarray

    def centre(self, moments: Moments) -> np.ndarray:
        """Returns the [N] expected answer of a model that never saw the row."""
        return self.offset + self.slope * moments.mean

    def deviation(self, moments: Moments) -> np.ndarray:
        """Returns the [N] standard deviation of such an answer around `centre`, > 0."""
        freedom = np.maximum(moments.models - 1, 0)
        typical = np.exp(np.interp(moments.mean, self.knots, self.log_variance))
        shrunk = (PRIOR * typical + freedom * moments.variance) / (PRIOR + freedom)
        return self.slope * np.sqrt(shrunk * (1 + 1 / np.maximum(moments.models, 1)))

    def standardised(self, answers: np.ndarray, moments: Moments) -> np.ndarray:
        """Returns [N] (answer - centre) / deviation; HIGHER = higher than models that never saw the row."""
        return (answers - self.centre(moments)) / self.deviation(moments)


def log_odds(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns [..., N] float64 log-odds z_y - logsumexp(other z), clipped to +-50, from logits [..., N, C].

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.verdict import out_model
      >>> out_model.log_odds(np.array([[3.0, 1.0], [3.0, 1.0]]), np.array([0, 1])).tolist()
      [2.0, -2.0]
    """
    values = np.asarray(logits, np.float64)
    index = np.broadcast_to(np.asarray(labels)[..., None], (*values.shape[:-1], 1))
    true_logits = np.take_along_axis(values, index, -1)[..., 0]
    other_logits = values.copy()
    np.put_along_axis(other_logits, index, -np.inf, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.clip(true_logits - np.logaddexp.reduce(other_logits, -1), -CLIP, CLIP)


def soft(log_odds: np.ndarray) -> np.ndarray:
    """Returns log((p + e) / (1 - p + e)), e = 1e-3, p the probability of the true class.

    Beyond p = .999 log-odds carry no information about memory, and unbounded ones fill the null with outliers.
    """
    p = 1 / (1 + np.exp(-log_odds))
    return np.log((p + SOFT) / (1 - p + SOFT))


def mid_rank(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Returns the mid-rank of [n] values among a reference [k], in [0, 1]; NaN where the reference is empty."""
    ordered = np.sort(reference)
    doubled_ranks = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return doubled_ranks / (2 * len(ordered)) if len(ordered) else np.full(np.shape(values), np.nan)


def robust(values: np.ndarray) -> float:
    """Returns 1.4826 times the median absolute deviation, at least 1e-9."""
    return max(1.4826 * float(np.median(np.abs(values - np.median(values)))), 1e-9)


def moments(shadows: np.ndarray, unseen: np.ndarray | None = None) -> Moments:
    """Returns the moments of answers [S, N] over the shadows with `unseen` [S, N] True (None: over all)."""
    use = np.ones(shadows.shape, bool) if unseen is None else unseen
    count = use.sum(0)
    mean = np.where(use, shadows, 0).sum(0) / np.maximum(count, 1)
    variance = np.where(use, (shadows - mean) ** 2, 0).sum(0) / np.maximum(count - 1, 1)
    return Moments(mean, np.where(count < 2, 0.0, variance), count.astype(np.float64))


def fit(population: np.ndarray, population_shadows: np.ndarray) -> OutModel:
    """Fits the OUT model on rows that no model saw.

    Args:
      population: [P] answers of the audited model.
      population_shadows: [S, P] answers of the shadows.
    """
    shadows = moments(population_shadows)
    variance = shadows.variance if len(population_shadows) > 1 else (population - shadows.mean) ** 2 / 2
    bins = int(np.clip(len(population) // ROWS_PER_BIN, 1, MOST_BINS))
    edges = np.quantile(shadows.mean, np.linspace(0, 1, bins + 1))
    index = np.searchsorted(edges[1:-1], shadows.mean, "right")
    bin_masks = [index == number for number in range(bins) if (index == number).any()]
    knots = np.array([shadows.mean[rows].mean() for rows in bin_masks])
    floor = max(0.05 * float(variance.mean()), 1e-18)
    log_variance = np.log([max(float(variance[rows].mean()), floor) for rows in bin_masks])

    typical = np.exp(np.interp(shadows.mean, knots, log_variance))
    spread = float(shadows.mean.var())
    covariance = float(np.mean((population - population.mean()) * (shadows.mean - shadows.mean.mean())))
    noise = float(typical.mean()) / len(population_shadows)  # variance of the shadows' mean itself, subtracted
    divisor = max(spread - noise, spread / 4, 1e-18)
    raw_slope = float(np.clip(covariance / divisor, 0.2, 5))
    slope, offset = raw_slope, float(population.mean() - raw_slope * shadows.mean.mean())
    if abs(raw_slope - 1) <= ALIKE:
        slope, offset = 1.0, float(np.median(population - shadows.mean))
    norm = np.sqrt(spread * float(population.var()))
    correlation = covariance / norm if norm > 0 else 0.0
    return OutModel(raw_slope, slope, offset, correlation, knots, log_variance)
