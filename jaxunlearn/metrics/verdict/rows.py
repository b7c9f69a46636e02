"""Computes p-values of single rows: answered higher or lower than if never seen; lower than after training.

Every p-value is a rank among rows for which the null is true; the models only determine which rows are compared.
"""

from typing import NamedTuple

import numpy as np

from jaxunlearn.metrics.inference import decision
from jaxunlearn.metrics.verdict import out_model
from jaxunlearn.metrics.verdict.out_model import Moments, OutModel, mid_rank, robust

FORGOTTEN, CANNOT_TELL, NOT_FORGOTTEN, SUPPRESSED = 0, 1, 2, 3
NEAR_OUT = (40, 150)
NEAR_IN = (20, 150)
CHUNK = 4_000_000  # entries of a matrix of distances at a time


class Signal(NamedTuple):
    """One signal (raw or soft log-odds) of a request, and its OUT model.

    Attributes:
      answers, population: [N], [P] of the audited model.
      moments, population_moments: of the shadows, per row.
      model: OUT model, fitted on the population.
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
      p_high: [F] small = answered higher than by models that never saw the row.
      p_low: [F] small = answered clearly lower than by such models.
      p_in: [F] small = answered lower than similar retained rows.
      z: [F] standardised soft answers.
      centre, deviation: [F] of the answers of models that never saw the row.
      trace: [F] >= 0, effect of training on such a row.
      nearer: [F] bool, closer to never seen than to trained.
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
    """Fits the OUT model and standardises the answers.

    Args:
      answers: [N] of the audited model.
      shadows: [S, N] of the shadows.
      population: [P] of the audited model.
      population_shadows: [S, P] of the shadows.
      unseen: [S, N] bool, rows that a shadow did not see; None = all.
    """
    model = out_model.fit(population, population_shadows)
    row_moments, population_moments = out_model.moments(shadows, unseen), out_model.moments(population_shadows)
    return Signal(
        answers, population, row_moments, population_moments, model,
        model.standardised(answers, row_moments), model.standardised(population, population_moments),
    )  # fmt: skip


def nearest(distances: np.ndarray, k: int) -> np.ndarray:
    """Returns [n, m] bool: the k smallest distances of each row of [n, m]; of equal ones those of lower index."""
    count = distances.shape[1]
    if k >= count:
        return np.ones(distances.shape, bool)
    kth = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
    is_below, is_tied = distances < kth, distances == kth
    open_slots = k - is_below.sum(1, keepdims=True)
    return is_below | (is_tied & (np.cumsum(is_tied, 1) <= open_slots))


def chunks(rows: int, columns: int) -> list[slice]:
    """Returns slices of [rows, columns] matrices that fit into memory."""
    step = max(CHUNK // max(columns, 1), 1)
    return [slice(start, start + step) for start in range(0, rows, step)]


def p_high(z: np.ndarray, population_z: np.ndarray) -> np.ndarray:
    """Returns the [n] p-values (1 + #{population z >= z}) / (P + 1).

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.verdict import rows
      >>> rows.p_high(np.array([3.0, 9.0]), population_z=np.arange(4.0)).tolist()
      [0.4, 0.2]
    """
    ordered = np.sort(population_z)
    return (1 + len(ordered) - np.searchsorted(ordered, z, "left")) / (len(ordered) + 1)


def p_low(raw: Signal, z: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Returns the [n] p-values of "not lower than models that never saw it", with a margin of one deviation.

    Args:
      raw: the signal of raw log-odds: soft ones saturate, so a logit of -40 does not stand out in them.
      z: [n] standardised raw answers.
      mean: [n] the shadows' raw means.

    Returns:
      The larger of the rank among the whole population and the rank among its rows of similar difficulty.
    """
    limit = z + robust(raw.population_z)
    ordered = np.sort(raw.population_z)
    p_of_all = (1 + np.searchsorted(ordered, limit, "right")) / (len(ordered) + 1)
    means = raw.population_moments.mean
    ranks, population_ranks = mid_rank(mean, means), mid_rank(means, means)
    k = min(len(means), int(np.clip(len(means) // 4, *NEAR_OUT)))
    p_of_neighbours = np.empty(len(z))
    for chunk in chunks(len(z), len(means)):
        neighbours = nearest(np.abs(ranks[chunk, None] - population_ranks), k)
        hits = (neighbours & (raw.population_z <= limit[chunk, None])).sum(1)
        p_of_neighbours[chunk] = (1 + hits) / (k + 1)
    return np.maximum(p_of_all, p_of_neighbours)


class Likeness(NamedTuple):
    """Criteria of similarity between retained and requested rows.

    Attributes:
      requested: [N] bool.
      mean: [N] the shadows' soft mean: how hard a row is.
      original: [N] soft answers of the original: how well a row was remembered; None.
      is_contaminated: whether shadows saw retained rows; then only the original is compared.
    """

    requested: np.ndarray
    mean: np.ndarray
    original: np.ndarray | None
    is_contaminated: bool

    def coordinates(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns ([F], [R]) ranks among the retained rows, for each criterion."""
        criteria = [self.mean] if self.original is None or not self.is_contaminated else []
        criteria += [] if self.original is None else [self.original]
        requested = self.requested
        return [
            (mid_rank(values[requested], values[~requested]), mid_rank(values[~requested], values[~requested]))
            for values in criteria
        ]


def number_of_neighbours(retained: int) -> int:
    """Returns the number of retained rows that each requested row is compared with."""
    low, high = NEAR_IN
    return min(high, max(low, retained // 3), retained)


def like_retained(likeness: Likeness) -> np.ndarray:
    """Returns [F, k] indices, ascending, of the retained rows most similar to each requested one; ties: lower index."""
    requested = likeness.requested
    count, retained = int(requested.sum()), int((~requested).sum())
    k = number_of_neighbours(retained)
    coordinates = likeness.coordinates()
    index = np.empty((count, k), np.int64)
    for chunk in chunks(count, retained):
        distances = np.asarray(sum((ranks[chunk, None] - retained_ranks) ** 2 for ranks, retained_ranks in coordinates))
        index[chunk] = np.nonzero(nearest(distances, k))[1].reshape(-1, k)
    return index


def compare_with_trained(
    answers: np.ndarray, centre: np.ndarray, like_answers: np.ndarray, max_trace_left: float
) -> tuple[np.ndarray, np.ndarray]:
    """Compares requested rows with the most similar retained rows.

    Args:
      answers: [F] soft answers of the audited model to requested rows.
      centre: [F] expected answers of models that never saw them.
      like_answers: [F, k] soft answers of the audited model to the most similar retained rows.
      max_trace_left: 1 = tests against the whole trace; 0.5 = against half of it (strict).

    Returns:
      ([F] p_in, [F] trace).
    """
    trace = np.maximum(np.median(like_answers, 1) - centre, 0)
    limit = answers + (1 - max_trace_left) * trace
    return (1 + (like_answers <= limit[:, None]).sum(1)) / (like_answers.shape[1] + 1), trace


def tests(raw: Signal, smooth: Signal, likeness: Likeness, max_trace_left: float) -> RowTests:
    """Tests the requested rows; without retained rows p_in is 1 and the trace NaN.

    Args:
      raw: signal of raw log-odds.
      smooth: signal of soft log-odds.
      likeness: criteria for similar retained rows.
      max_trace_left: see `compare_with_trained`.
    """
    requested = likeness.requested
    centre, deviation = (
        smooth.model.centre(smooth.moments)[requested],
        smooth.model.deviation(smooth.moments)[requested],
    )
    answers = smooth.answers[requested]
    if requested.all():
        p_in, trace = np.ones(len(answers)), np.full(len(answers), np.nan)
    else:
        like_answers = smooth.answers[~requested][like_retained(likeness)]
        p_in, trace = compare_with_trained(answers, centre, like_answers, max_trace_left)
    return RowTests(
        p_high(smooth.z[requested], smooth.population_z), p_low(raw, raw.z[requested], raw.moments.mean[requested]),
        p_in, smooth.z[requested], centre, deviation, trace, answers < centre + trace / 2,
    )  # fmt: skip


def decide(tests: RowTests, fdr: float) -> np.ndarray:
    """Returns [F] codes: NOT FORGOTTEN, SUPPRESSED, FORGOTTEN in this order of precedence, or CANNOT TELL.

    Setting a p-value to 1 keeps it valid, so the false discovery rate holds for each of the three verdicts.
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


def selection_rank(requested: np.ndarray, mean: np.ndarray, original: np.ndarray) -> float:
    """Returns the mean rank of requested rows, by the original's answers, among retained rows of similar difficulty."""
    like_answers = original[~requested][like_retained(Likeness(requested, mean, None, False))]
    answers = original[requested][:, None]
    doubled_ranks = (like_answers < answers).sum(1) + (like_answers <= answers).sum(1)
    return float(np.mean(doubled_ranks / (2 * like_answers.shape[1])))
