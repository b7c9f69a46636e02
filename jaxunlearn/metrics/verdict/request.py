"""Tests a request as a whole, and each person's rows: here the unit is a model, so rows may depend on each other.

The statistics of the audited model stand beside those of each shadow model, played against the other shadows.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxunlearn.metrics.verdict import rows
from jaxunlearn.metrics.verdict.out_model import place, robust, soft
from jaxunlearn.metrics.verdict.rows import Signal

NEIGHBOURS = 20
FEWEST_FOR_WIDTH = 5
LEAST_ERROR = np.array([0.5, 0.3, 0.3])  # of the statistics, times 1 / sqrt(rows)
MARGIN_HIGH, MARGIN_LOW, MARGIN_NARROW = 0.25, 1.5, float(np.log(2))
GROUP_LEVEL = 0.005


class GroupTests(NamedTuple):
    """Tests of a group of rows as a whole.

    Attributes:
      p_high: small = answered higher than by models that never saw them; 1 where the rows are too easy to tell.
      p_low: small = far lower than those; p_narrow: small = far too evenly.
      p_in: small = less than half of the trace of training is left.
      mean, error: excess over such models and its standard error, in deviations.
      dose: how far the group would stand out if nothing had been forgotten, likewise.
      kept: (value, low, high) share of the trace that is left, 95 %; NaN where the dose is within the error.
      models: how many shadows it rests on; below 2 all p-values are 1.
    """

    p_high: float = 1.0
    p_low: float = 1.0
    p_narrow: float = 1.0
    p_in: float = 1.0
    mean: float = np.nan
    error: float = np.nan
    dose: float = np.nan
    kept: tuple[float, float, float] = (np.nan, np.nan, np.nan)
    models: int = 0

    @property
    def is_suppressed(self) -> bool:
        """Whether the group is answered unlike by any model that never saw it."""
        return min(self.p_low, self.p_narrow) <= GROUP_LEVEL

    @property
    def can_be_told(self) -> bool:
        """Whether the group would stand out if nothing had been forgotten."""
        return bool(self.dose >= MARGIN_HIGH + 2 * self.error)


class Played(NamedTuple):
    """Both signals of a model, the audited one or a shadow against the others, and its standardised rows.

    Attributes:
      z, raw_z: [F]; population_z, population_raw_z: [P].
    """

    z: np.ndarray
    raw_z: np.ndarray
    population_z: np.ndarray
    population_raw_z: np.ndarray


def shadows_played(raw: np.ndarray, population_raw: np.ndarray) -> list[Played]:
    """Returns each shadow played against the others, OUT models fitted anew.

    Args:
      raw: [S, F] raw log-odds of shadows that saw none of the rows, S >= 2.
      population_raw: [S, P] likewise, of the population.
    """
    played = []
    for number in range(len(raw)):
        others = np.arange(len(raw)) != number
        both = [
            rows.signal(change(raw[number]), change(raw[others]), change(population_raw[number]),
                        change(population_raw[others]))
            for change in (soft, np.asarray)
        ]  # fmt: skip
        played.append(Played(both[0].z, both[1].z, both[0].population_z, both[1].population_z))
    return played


def like_rows(soft_signal: Signal, requested: np.ndarray) -> np.ndarray:
    """Returns [F, P] bool: the population rows that the shadows find as hard as each requested row."""
    means = soft_signal.population_moments.mean
    own, others = place(soft_signal.moments.mean[requested], means), place(means, means)
    return np.concatenate([
        rows.nearest(np.abs(own[chosen, None] - others), min(NEIGHBOURS, len(others)))
        for chosen in rows.chunks(len(own), len(others))
    ])  # fmt: skip


def statistics(played: Played, alike: np.ndarray) -> np.ndarray:
    """Returns the [3] excess, excess of the low side on raw log-odds, and log ratio of spreads (NaN for few rows)."""
    scale, raw_scale = robust(played.population_z), robust(played.population_raw_z)
    own, others = played.z / scale, played.population_z / scale
    raw_own, raw_others = played.raw_z / raw_scale, played.population_raw_z / raw_scale
    weight = alike.sum(0) / alike.sum()  # all rows have as many like them
    excess = own.mean() - others @ weight
    low = np.minimum(raw_own, 0).mean() - np.minimum(raw_others, 0) @ weight
    width = np.nan
    if len(own) >= FEWEST_FOR_WIDTH:
        middle = _weighted_median(others, alike.sum(0))
        spreads = np.abs(own - np.median(own)).mean(), np.abs(others - middle) @ weight
        width = float(np.diff(np.log(np.maximum(spreads[::-1], 1e-300)))[0])
    return np.array([excess, low, width])


def _weighted_median(values: np.ndarray, counts: np.ndarray) -> float:
    """Returns the median of values [P], each repeated `counts` times."""
    order = np.argsort(values, kind="stable")
    ends = np.cumsum(counts[order])
    first, second = np.searchsorted(ends, [(ends[-1] + 1) // 2, ends[-1] // 2 + 1])
    return float((values[order][first] + values[order][second]) / 2)


def group_tests(
    audited: Played, shadows: list[Played], alike: np.ndarray, trace: np.ndarray, deviation: np.ndarray
) -> GroupTests:
    """Returns the tests of a group of rows.

    Args:
      audited: the rows of the group only.
      shadows: likewise, see `shadows_played`.
      alike: [F, P] see `like_rows`.
      trace: [F] of `rows.RowTests`.
      deviation: [F] of `rows.RowTests`.
    """
    count = len(shadows)
    if count < 2:
        return GroupTests(models=count)
    null = np.stack([statistics(one, alike) for one in shadows])
    least = LEAST_ERROR / np.sqrt(len(audited.z))
    errors = np.maximum(null.std(0, ddof=1), least) * np.sqrt(1 + 1 / count)
    excess = statistics(audited, alike) - null.mean(0)
    dose = float((trace / deviation).mean() / robust(audited.population_z))
    t = stats.t(count - 1)
    found = GroupTests(mean=float(excess[0]), error=float(errors[0]), dose=dose, models=count)
    narrow = t.cdf((excess[2] + MARGIN_NARROW) / errors[2])
    found = found._replace(p_low=float(t.cdf((excess[1] + MARGIN_LOW) / errors[1])),
                           p_narrow=1.0 if np.isnan(narrow) else float(narrow))  # fmt: skip
    if np.isnan(dose) or found.can_be_told:
        found = found._replace(p_high=float(t.sf((excess[0] - MARGIN_HIGH) / errors[0])))
    if dose > errors[0]:
        half = t.ppf(0.975) * errors[0]
        kept = excess[0] / dose, (excess[0] - half) / dose, (excess[0] + half) / dose
        found = found._replace(
            kept=(float(kept[0]), float(kept[1]), float(kept[2])), p_in=float(t.cdf((excess[0] - dose / 2) / errors[0]))
        )
    return found
