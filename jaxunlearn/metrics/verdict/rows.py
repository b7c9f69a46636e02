"""Computes the p-values of single rows: higher, or lower, than after never seeing them; lower than after training.

Every p-value is a rank among rows for which the null is true; the models only choose which rows are compared.
"""

from typing import NamedTuple

import numpy as np

from jaxunlearn.metrics.inference import decision
from jaxunlearn.metrics.verdict import out_model
from jaxunlearn.metrics.verdict.out_model import Moments, OutModel, place, robust

FORGOTTEN, CANNOT_TELL, NOT_FORGOTTEN, SUPPRESSED = 0, 1, 2, 3
NEAR_OUT = (40, 150)
NEAR_IN = (20, 150)
CHUNK = 4_000_000  # entries of a matrix of distances at a time


class Signal(NamedTuple):
    """One signal (raw or soft log-odds) of a request, and its OUT model.

    Attributes:
      answers: [N] of the audited model; population: [P] likewise.
      moments: of the shadows, per row; population_moments: likewise.
      model: fitted on the population.
      z, population_z: [N], [P] answers standardised by it.
    """

    answers: np.ndarray
    population: np.ndarray
    moments: Moments
    population_moments: Moments
    model: OutModel
    z: np.ndarray
    population_z: np.ndarray


class RowTests(NamedTuple):
    """Tests of the |F| requested rows, in their order.

    Attributes:
      p_high: [F] small = higher than models that never saw the row answer.
      p_low: [F] small = clearly lower than those answer.
      p_in: [F] small = lower than retained rows like it.
      z: [F] standardised soft answers.
      centre, deviation: [F] of models that never saw the row.
      trace: [F] >= 0, what training leaves on such a row.
      nearer: [F] bool, below the middle between never seen and trained.
    """

    p_high: np.ndarray
    p_low: np.ndarray
    p_in: np.ndarray
    z: np.ndarray
    centre: np.ndarray
    deviation: np.ndarray
    trace: np.ndarray
    nearer: np.ndarray


def signal(
    answers: np.ndarray, shadows: np.ndarray, population: np.ndarray, population_shadows: np.ndarray,
    unseen: np.ndarray | None = None,
) -> Signal:  # fmt: skip
    """Fits the OUT model and standardises; [N], [S, N], [P], [S, P] and [S, N] bool, see `Signal`."""
    model = out_model.fit(population, population_shadows)
    own, others = out_model.moments(shadows, unseen), out_model.moments(population_shadows)
    return Signal(
        answers, population, own, others, model,
        model.standardised(answers, own), model.standardised(population, others),
    )  # fmt: skip


def nearest(distances: np.ndarray, k: int) -> np.ndarray:
    """Returns [n, m] bool: the k smallest of each line of [n, m] distances; of equal ones those of lower index."""
    count = distances.shape[1]
    if k >= count:
        return np.ones(distances.shape, bool)
    kth = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
    is_below, is_tied = distances < kth, distances == kth
    room = k - is_below.sum(1, keepdims=True)
    return is_below | (is_tied & (np.cumsum(is_tied, 1) <= room))


def chunks(rows: int, columns: int) -> list[slice]:
    """Returns slices of [rows, columns] matrices that fit into memory."""
    step = max(CHUNK // max(columns, 1), 1)
    return [slice(start, start + step) for start in range(0, rows, step)]


def p_high(z: np.ndarray, population_z: np.ndarray) -> np.ndarray:
    """Returns the [n] p-values (1 + #{population z >= z}) / (P + 1)."""
    ordered = np.sort(population_z)
    return (1 + len(ordered) - np.searchsorted(ordered, z, "left")) / (len(ordered) + 1)


def p_low(raw: Signal, z: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Returns the [n] p-values of "not lower than models that never saw it", with a margin of one deviation.

    Args:
      raw: the signal of raw log-odds: a logit of -40 is invisible in the soft ones.
      z: [n] standardised raw answers.
      mean: [n] the shadows' raw means.

    The rank among the whole population and the one among its rows of like difficulty, whichever is larger.
    """
    limit = z + robust(raw.population_z)
    ordered = np.sort(raw.population_z)
    whole = (1 + np.searchsorted(ordered, limit, "right")) / (len(ordered) + 1)
    means = raw.population_moments.mean
    places, others = place(mean, means), place(means, means)
    k = min(len(means), int(np.clip(len(means) // 4, *NEAR_OUT)))
    near = np.empty(len(z))
    for rows in chunks(len(z), len(means)):
        chosen = nearest(np.abs(places[rows, None] - others), k)
        hits = (chosen & (raw.population_z <= limit[rows, None])).sum(1)
        near[rows] = (1 + hits) / (k + 1)
    return np.maximum(whole, near)


class Likeness(NamedTuple):
    """What says which retained rows are like a requested one.

    Attributes:
      requested: [N] bool.
      mean: [N] the shadows' soft mean: how hard a row is.
      original: [N] soft answers of the original: how it was remembered; None.
      is_contaminated: compares by the original alone, since shadows saw retained rows.
    """

    requested: np.ndarray
    mean: np.ndarray
    original: np.ndarray | None
    is_contaminated: bool

    def coordinates(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns ([F], [R]) places among the retained rows, by each thing that is compared."""
        by = [self.mean] if self.original is None or not self.is_contaminated else []
        by += [] if self.original is None else [self.original]
        asked = self.requested
        return [(place(values[asked], values[~asked]), place(values[~asked], values[~asked])) for values in by]


def number_of_neighbours(retained: int) -> int:
    """Returns how many retained rows a requested one is compared with."""
    low, high = NEAR_IN
    return min(high, max(low, retained // 3), retained)


def like_retained(likeness: Likeness) -> np.ndarray:
    """Returns [F, k] indices, ascending, of the retained rows most like each requested one; of ties lower indices."""
    asked = likeness.requested
    count, others = int(asked.sum()), int((~asked).sum())
    k = number_of_neighbours(others)
    coordinates = likeness.coordinates()
    found = np.empty((count, k), np.int64)
    for part in chunks(count, others):
        distances = np.asarray(sum((own[part, None] - other) ** 2 for own, other in coordinates))
        found[part] = np.nonzero(nearest(distances, k))[1].reshape(-1, k)
    return found


def trained(answers: np.ndarray, centre: np.ndarray, like: np.ndarray, keep: float) -> tuple[np.ndarray, np.ndarray]:
    """Compares requested rows with the retained rows that are most like them.

    Args:
      answers: [F] soft answers of the audited model to requested rows.
      centre: [F] what models that never saw them would answer.
      like: [F, k] soft answers of the audited model to the retained rows most like each.
      keep: 1 = tests against the whole trace; 0.5 = against half of it (strict).

    Returns:
      ([F] p_in, [F] trace).
    """
    trace = np.maximum(np.median(like, 1) - centre, 0)
    limit = answers + (1 - keep) * trace
    return (1 + (like <= limit[:, None]).sum(1)) / (like.shape[1] + 1), trace


def tests(raw: Signal, smooth: Signal, likeness: Likeness, keep: float) -> RowTests:
    """Returns the tests of the requested rows; without retained rows p_in is 1 and the trace NaN."""
    asked = likeness.requested
    centre, deviation = smooth.model.centre(smooth.moments)[asked], smooth.model.deviation(smooth.moments)[asked]
    answers = smooth.answers[asked]
    if asked.all():
        p_in, trace = np.ones(len(answers)), np.full(len(answers), np.nan)
    else:
        p_in, trace = trained(answers, centre, smooth.answers[~asked][like_retained(likeness)], keep)
    return RowTests(
        p_high(smooth.z[asked], smooth.population_z), p_low(raw, raw.z[asked], raw.moments.mean[asked]), p_in,
        smooth.z[asked], centre, deviation, trace, answers < centre + trace / 2,
    )  # fmt: skip


def decide(tests: RowTests, fdr: float) -> np.ndarray:
    """Returns [F] codes: NOT FORGOTTEN, SUPPRESSED, FORGOTTEN in this order of precedence, or CANNOT TELL.

    A p-value that is set to 1 stays valid, so each of the three families keeps its false discovery rate.
    """

    def rejected(p: np.ndarray) -> np.ndarray:
        return decision.benjamini_hochberg(p, fdr).rejected

    is_caught = rejected(tests.p_high)
    is_low = rejected(np.where(is_caught, 1.0, tests.p_low))
    is_forgotten = rejected(np.where(is_caught | is_low | ~tests.nearer, 1.0, tests.p_in))
    codes = np.full(len(is_caught), CANNOT_TELL)
    for flags, code in ((is_forgotten, FORGOTTEN), (is_low, SUPPRESSED), (is_caught, NOT_FORGOTTEN)):
        codes[flags] = code
    return codes


def chosen_place(requested: np.ndarray, mean: np.ndarray, original: np.ndarray) -> float:
    """Returns the mean place of requested rows, by the original's answers, among retained rows of like difficulty."""
    like = original[~requested][like_retained(Likeness(requested, mean, None, False))]
    own = original[requested][:, None]
    return float(np.mean(((like < own).sum(1) + (like <= own).sum(1)) / (2 * like.shape[1])))
