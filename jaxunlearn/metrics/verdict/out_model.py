"""Computes how a model that never saw a row answers it: the null of NOT FORGOTTEN and of SUPPRESSED.

Shadow models say how hard a row is (their mean) and how far models differ on it (their variance). The population, rows
that neither the audited model nor any shadow saw, says how the audited model stands to its shadows. One fit holds for
every row, so that no number of a row depends on which other rows are audited.
"""

from typing import NamedTuple

import numpy as np

CLIP = 50.0  # of log-odds
SOFT = 1e-3
ALIKE = 0.25  # slopes as near to 1 as that are taken for 1
PRIOR = 4  # degrees of freedom with which the typical variance counts beside a row's own
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
    """Maps the shadows' moments of a row to mean and deviation of a model that never saw it.

    Attributes:
      raw_slope: of the audited model's answers on the shadows' mean, in [0.2, 5]; below 1 = the shadows are more
        certain than the model.
      slope, offset: applied; slope 1 where `raw_slope` is within 0.25 of it.
      correlation: of the audited model's answers with the shadows' mean, over the population.
      knots, log_variance: [B] variance between shadows by their mean.
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
    """Returns [..., N] float64 log-odds z_y - logsumexp(other z), clipped to +-50, from logits [..., N, C]."""
    values = np.asarray(logits, np.float64)
    places = np.broadcast_to(np.asarray(labels)[..., None], (*values.shape[:-1], 1))
    own = np.take_along_axis(values, places, -1)[..., 0]
    others = values.copy()
    np.put_along_axis(others, places, -np.inf, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.clip(own - np.logaddexp.reduce(others, -1), -CLIP, CLIP)


def log_odds_of_probabilities(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns [..., N] float64 log-odds from probabilities [..., N, C], clipped to [1e-6, 1 - 1e-6] first."""
    values = np.asarray(probabilities, np.float64)
    places = np.broadcast_to(np.asarray(labels)[..., None], (*values.shape[:-1], 1))
    own = np.clip(np.take_along_axis(values, places, -1)[..., 0], 1e-6, 1 - 1e-6)
    return np.log(own) - np.log(1 - own)


def soft(log_odds: np.ndarray) -> np.ndarray:
    """Returns log((p + e) / (1 - p + e)), e = 1e-3, p the probability of the true class.

    Beyond p = .999 nothing is learned about memory, and unbounded log-odds fill the null with outliers.
    """
    p = 1 / (1 + np.exp(-log_odds))
    return np.log((p + SOFT) / (1 - p + SOFT))


def place(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Returns the mid-rank of [n] values among a reference [k], in [0, 1]; NaN where the reference is empty."""
    ordered = np.sort(reference)
    both = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return both / (2 * len(ordered)) if len(ordered) else np.full(np.shape(values), np.nan)


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
    seen = moments(population_shadows)
    variance = seen.variance if len(population_shadows) > 1 else (population - seen.mean) ** 2 / 2
    bins = int(np.clip(len(population) // ROWS_PER_BIN, 1, MOST_BINS))
    edges = np.quantile(seen.mean, np.linspace(0, 1, bins + 1))
    index = np.searchsorted(edges[1:-1], seen.mean, "right")
    filled = [index == number for number in range(bins) if (index == number).any()]
    knots = np.array([seen.mean[rows].mean() for rows in filled])
    least = max(0.05 * float(variance.mean()), 1e-18)
    log_variance = np.log([max(float(variance[rows].mean()), least) for rows in filled])

    typical = np.exp(np.interp(seen.mean, knots, log_variance))
    spread = float(seen.mean.var())
    covariance = float(np.mean((population - population.mean()) * (seen.mean - seen.mean.mean())))
    noise = float(typical.mean()) / len(population_shadows)  # of the shadows' mean itself: taken out
    divisor = max(spread - noise, spread / 4, 1e-18)
    raw_slope = float(np.clip(covariance / divisor, 0.2, 5))
    slope, offset = raw_slope, float(population.mean() - raw_slope * seen.mean.mean())
    if abs(raw_slope - 1) <= ALIKE:
        slope, offset = 1.0, float(np.median(population - seen.mean))
    norm = np.sqrt(spread * float(population.var()))
    correlation = covariance / norm if norm > 0 else 0.0
    return OutModel(raw_slope, slope, offset, correlation, knots, log_variance)
