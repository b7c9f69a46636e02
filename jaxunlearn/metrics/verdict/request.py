"""Tests a request as a whole, and each person's rows: the unit is a model, so rows may depend on each other.

The statistics of the audited model are compared with those of each shadow model against the other shadows.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxunlearn.metrics.verdict import rows
from jaxunlearn.metrics.verdict.out_model import mid_rank, robust, soft
from jaxunlearn.metrics.verdict.rows import Signal

NEIGHBOURS = 20
FEWEST_FOR_WIDTH = 5
LEAST_ERROR = np.array([0.5, 0.3, 0.3])  # of the statistics, times 1 / sqrt(rows)
MARGIN_HIGH, MARGIN_LOW, MARGIN_NARROW = 0.25, 1.5, float(np.log(2))
GROUP_LEVEL = 0.005
LEAST_LEFT = -0.5  # of the trace: models that never saw the rows have 0; what is certainly below this is no forgetting


class GroupTests(NamedTuple):
    """Tests of a group of rows as a whole.

    Attributes:
      p_high: small = answered higher than by models that never saw the rows; 1 if the rows are too easy to tell.
      p_low: small = answered far lower than by such models.
      p_narrow: small = answers vary far too little.
      p_in: small = less than half of the trace of training is left.
      mean, error: excess over such models and its standard error, in standard deviations.
      dose: expected excess if nothing had been forgotten, likewise.
      trace_left: (value, low, high) fraction of the effect of training that remains, 95 %; NaN if the dose is
        within the error.
      models: number of shadows; below 2 all p-values are 1.
    """

    p_high: float = 1.0
    p_low: float = 1.0
    p_narrow: float = 1.0
    p_in: float = 1.0
    mean: float = np.nan
    error: float = np.nan
    dose: float = np.nan
    trace_left: tuple[float, float, float] = (np.nan, np.nan, np.nan)
    models: int = 0

    @property
    def is_suppressed(self) -> bool:
        """Whether the answers are unlike those of any model that never saw the group."""
        return min(self.p_low, self.p_narrow) <= GROUP_LEVEL

    @property
    def is_too_low(self) -> bool:
        """Whether the share that is left is certainly far below that of models that never saw the group."""
        return bool(self.trace_left[2] < LEAST_LEFT)

    @property
    def is_detectable(self) -> bool:
        """Whether the group would stand out if nothing had been forgotten."""
        return bool(self.dose >= MARGIN_HIGH + 2 * self.error)


class StandardisedSignals(NamedTuple):
    """Standardised soft and raw signals of one model: the audited one, or a shadow against the other shadows.

    Attributes:
      z, raw_z: [F] of the requested rows.
      population_z, population_raw_z: [P] of the population.
    """

    z: np.ndarray
    raw_z: np.ndarray
    population_z: np.ndarray
    population_raw_z: np.ndarray


def standardised_shadows(raw: np.ndarray, population_raw: np.ndarray) -> list[StandardisedSignals]:
    """Returns the standardised signals of each shadow against the others, with OUT models fitted to those.

    Args:
      raw: [S, F] raw log-odds of shadows that saw none of the rows, S >= 2.
      population_raw: [S, P] likewise, of the population.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.verdict import request
      >>> raw = np.random.default_rng(0).normal(size=(3, 50))
      >>> [shadow.z.shape for shadow in request.standardised_shadows(raw[:, :10], raw[:, 10:])]
      [(10,), (10,), (10,)]
    """
    shadows = []
    for number in range(len(raw)):
        other_shadows = np.arange(len(raw)) != number
        signals = [
            rows.signal(change(raw[number]), change(raw[other_shadows]), change(population_raw[number]),
                        change(population_raw[other_shadows]))
            for change in (soft, np.asarray)
        ]  # fmt: skip
        shadows.append(
            StandardisedSignals(signals[0].z, signals[1].z, signals[0].population_z, signals[1].population_z)
        )
    return shadows


def like_rows(soft_signal: Signal, requested: np.ndarray) -> np.ndarray:
    """Returns [F, P] bool: the population rows whose difficulty for the shadows is closest to each requested row."""
    means = soft_signal.population_moments.mean
    ranks, population_ranks = mid_rank(soft_signal.moments.mean[requested], means), mid_rank(means, means)
    return np.concatenate([
        rows.nearest(np.abs(ranks[chunk, None] - population_ranks), min(NEIGHBOURS, len(population_ranks)))
        for chunk in rows.chunks(len(ranks), len(population_ranks))
    ])  # fmt: skip


def statistics(signals: StandardisedSignals, alike: np.ndarray) -> np.ndarray:
    """Returns [3]: excess, excess of the low side on raw log-odds, log ratio of deviations (NaN for few rows)."""
    scale, raw_scale = robust(signals.population_z), robust(signals.population_raw_z)
    z, population_z = signals.z / scale, signals.population_z / scale
    raw_z, population_raw_z = signals.raw_z / raw_scale, signals.population_raw_z / raw_scale
    weight = alike.sum(0) / alike.sum()  # all rows have the same number of neighbours
    excess = z.mean() - population_z @ weight
    low = np.minimum(raw_z, 0).mean() - np.minimum(population_raw_z, 0) @ weight
    width = np.nan
    if len(z) >= FEWEST_FOR_WIDTH:
        middle = _weighted_median(population_z, alike.sum(0))
        spreads = np.abs(z - np.median(z)).mean(), np.abs(population_z - middle) @ weight
        width = float(np.diff(np.log(np.maximum(spreads[::-1], 1e-300)))[0])
    return np.array([excess, low, width])


def _weighted_median(values: np.ndarray, counts: np.ndarray) -> float:
    """Returns the median of values [P], each repeated `counts` times."""
    order = np.argsort(values, kind="stable")
    ends = np.cumsum(counts[order])
    first, second = np.searchsorted(ends, [(ends[-1] + 1) // 2, ends[-1] // 2 + 1])
    return float((values[order][first] + values[order][second]) / 2)


def group_tests(
    audited: StandardisedSignals,
    shadows: list[StandardisedSignals],
    alike: np.ndarray,
    trace: np.ndarray,
    deviation: np.ndarray,
) -> GroupTests:
    """Tests a group of rows.

    Args:
      audited: signals of the audited model, of the group's rows only.
      shadows: likewise of each shadow, see `standardised_shadows`.
      alike: [F, P] see `like_rows`.
      trace: [F] of `rows.RowTests`.
      deviation: [F] of `rows.RowTests`.
    """
    count = len(shadows)
    if count < 2:
        return GroupTests(models=count)
    null = np.stack([statistics(shadow, alike) for shadow in shadows])
    floor = LEAST_ERROR / np.sqrt(len(audited.z))
    errors = np.maximum(null.std(0, ddof=1), floor) * np.sqrt(1 + 1 / count)
    excess = statistics(audited, alike) - null.mean(0)
    dose = float((trace / deviation).mean() / robust(audited.population_z))
    t = stats.t(count - 1)
    tests = GroupTests(mean=float(excess[0]), error=float(errors[0]), dose=dose, models=count)
    narrow = t.cdf((excess[2] + MARGIN_NARROW) / errors[2])
    tests = tests._replace(p_low=float(t.cdf((excess[1] + MARGIN_LOW) / errors[1])),
                           p_narrow=1.0 if np.isnan(narrow) else float(narrow))  # fmt: skip
    if np.isnan(dose) or tests.is_detectable:
        tests = tests._replace(p_high=float(t.sf((excess[0] - MARGIN_HIGH) / errors[0])))
    if dose > errors[0]:
        half_width = t.ppf(0.975) * errors[0]
        share = excess[0] / dose, (excess[0] - half_width) / dose, (excess[0] + half_width) / dose
        tests = tests._replace(
            trace_left=(float(share[0]), float(share[1]), float(share[2])),
            p_in=float(t.cdf((excess[0] - dose / 2) / errors[0])),
        )
    return tests
