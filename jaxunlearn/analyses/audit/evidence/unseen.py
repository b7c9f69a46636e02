"""Checks what arrays of an audit are said to be: shadows that never saw the rows, a population that no model saw.

Models answer rows that they were trained on higher than others. A row that a user gives twice, or as a row of the
population although it is audited, gets the same answers from all models.
"""

from typing import NamedTuple

import numpy as np

from jaxunlearn.metrics.verdict.judge import FEWEST_POPULATION, FEWEST_RETAINED
from jaxunlearn.metrics.verdict.out_model import CLIP

FEWEST_REQUESTED = FEWEST_OF_CLASS = 10
LEAST, ERRORS = 0.05, 4  # probability, and standard errors, by which rows that were trained on are answered higher
ERRORS_OF_REQUESTED = 2.5  # requested rows are few; they count where retained rows are answered higher, too
REMEMBERED = 2  # standard errors by which a model answers its training rows higher, if it remembers anything
LEAST_OF_AUDITED = 0.25  # as LEAST, of an audited model on the population: shadows may be weaker for other reasons
COINCIDENCES = 3  # rows with a twin must be so many times as frequent as within the population
SHARE_OF_TWINS = 0.05  # of the population's rows, beyond which there is no verdict
SHARE_OF_COPIES = 0.1  # of the requested rows, where different rows do look alike: easy ones do so more often


class Answered(NamedTuple):
    """Log-odds of one model, or of S models, on the audited rows and on the population: [..., N] and [..., P]."""

    rows: np.ndarray
    population: np.ndarray


class Rows(NamedTuple):
    """Labels of the audited rows [N] and of the population [P], and which audited rows were requested [N] bool."""

    labels: np.ndarray
    population_labels: np.ndarray
    requested: np.ndarray


class Gain(NamedTuple):
    """By how much audited rows are answered better than the population rows of their class.

    Attributes:
      value: mean difference of the probability of the true class; error: its standard error; rows: their number.
    """

    value: float
    error: float
    rows: int

    @property
    def is_high(self) -> bool:
        """Whether the rows are answered far better than the population, as after training on them."""
        return self.value > LEAST + ERRORS * self.error

    @property
    def is_low(self) -> bool:
        """Whether the population is answered far better than the rows."""
        return -self.value > LEAST + ERRORS * self.error


def gain(answered: Answered, rows: Rows, mask: np.ndarray) -> Gain:
    """Computes the gain of the rows in `mask` [N], by the mean probability of one or several models.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.analyses.audit.evidence import unseen
      >>> rows = unseen.Rows(np.zeros(4, int), np.zeros(20, int), np.zeros(4, bool))
      >>> round(unseen.gain(unseen.Answered(np.full(4, 9.0), np.zeros(20)), rows, ~rows.requested).value, 2)
      0.5
    """
    probabilities, reference = (_probability(values) for values in answered)
    differences, residuals = [], []
    for label in np.unique(rows.labels[mask]):
        of_class = reference[rows.population_labels == label]
        if len(of_class) >= FEWEST_OF_CLASS:
            differences.append(probabilities[mask & (rows.labels == label)] - of_class.mean())
            residuals.append(of_class - of_class.mean())
    if not differences:
        return Gain(0.0, np.inf, 0)
    values, others = np.concatenate(differences), np.concatenate(residuals)
    # Rows that were learned by heart hardly vary, but it is how rows that were not vary that counts.
    error = np.sqrt(max(values.var(), others.var()) / len(values) + others.var() / len(others))
    return Gain(float(values.mean()), float(error), len(values))


def _probability(log_odds: np.ndarray) -> np.ndarray:
    """Returns [n] mean probability of the true class over the models."""
    return np.atleast_2d(1 / (1 + np.exp(-np.clip(np.asarray(log_odds, np.float64), -CLIP, CLIP)))).mean(0)


def exposed(shadows: Answered, rows: Rows, shadow_saw: np.ndarray | None = None) -> np.ndarray:
    """Returns [S] bool: shadows that answer requested rows as if they had been trained on them.

    They answer retained and requested rows far better than the population of the same class, the requested ones at
    least half as much as the retained. Requested rows that are only easy, and retained rows that a shadow was allowed
    to see, do not look like this; both together do. All shadows are flagged if their mean looks like this.

    Args:
      shadows: log-odds.
      rows: what they are.
      shadow_saw: [S, N] bool, rows that a shadow is known to have seen, which are left out; None.
    """
    count = len(shadows.rows)
    unseen = np.ones((count, len(rows.labels)), bool) if shadow_saw is None else ~shadow_saw
    if shadow_saw is None and _is_exposed(shadows, rows, unseen[0]):
        return np.ones(count, bool)
    return np.array([
        _is_exposed(Answered(shadows.rows[model], shadows.population[model]), rows, unseen[model])
        for model in range(count)
    ])  # fmt: skip


def _is_exposed(answered: Answered, rows: Rows, unseen: np.ndarray) -> bool:
    retained, requested = (gain(answered, rows, mask & unseen) for mask in (~rows.requested, rows.requested))
    if retained.rows < FEWEST_RETAINED or requested.rows < FEWEST_REQUESTED:
        return False
    is_alike = requested.value >= max(retained.value / 2, ERRORS_OF_REQUESTED * requested.error)
    return retained.is_high and is_alike


def shadows_saw_population(shadows: Answered, audited: Answered, rows: Rows) -> bool:
    """Returns whether shadows seem to be trained on the population.

    They answer it far better than the audited rows of the same class, and better than the audited model does.
    """
    retained = gain(shadows, rows, ~rows.requested)
    if retained.rows < FEWEST_RETAINED or len(rows.population_labels) < FEWEST_POPULATION:
        return False
    lead, error = _lead(shadows, audited)
    return retained.is_low and lead > LEAST + ERRORS * error


def audited_saw_population(shadows: Answered, audited: Answered, rows: Rows) -> bool:
    """Returns whether the audited model seems to be trained on the population.

    It answers it no worse than the rows that it was trained on, and far better than shadows do.
    """
    retained = gain(audited, rows, ~rows.requested)
    if retained.rows < FEWEST_RETAINED or len(rows.population_labels) < FEWEST_POPULATION:
        return False
    lead, error = _lead(audited, shadows)
    return retained.value < LEAST + REMEMBERED * retained.error and lead > LEAST_OF_AUDITED + ERRORS * error


def _lead(first: Answered, second: Answered) -> tuple[float, float]:
    """Returns how much better the first answers the population, and the standard error."""
    difference = _probability(first.population) - _probability(second.population)
    return float(difference.mean()), float(difference.std() / np.sqrt(len(difference)))


def twins(models: list[Answered], labels: np.ndarray, population_labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns [N] numbers of the audited rows and [P] of the population: equal where all models answer alike."""
    columns, population_columns = [labels.astype(np.float64)[None]], [population_labels.astype(np.float64)[None]]
    for answered in models:
        columns.append(np.atleast_2d(_rounded(answered.rows)))
        population_columns.append(np.atleast_2d(_rounded(answered.population)))
    table = np.concatenate([np.concatenate(columns), np.concatenate(population_columns)], axis=1).T
    _, numbers = np.unique(table, axis=0, return_inverse=True)
    return numbers.ravel()[: len(labels)], numbers.ravel()[len(labels) :]


def _rounded(values: np.ndarray) -> np.ndarray:
    """Rounds log-odds to a thousandth of 1 + |value|."""
    values = np.asarray(values, np.float64)
    return np.round(np.sign(values) * np.log1p(np.abs(values)), 3)


def share_of_coincidences(population_numbers: np.ndarray) -> float:
    """Returns the share of population rows with a twin in the population: how often different rows look alike."""
    _, index, counts = np.unique(population_numbers, return_inverse=True, return_counts=True)
    return float((counts[index] > 1).mean()) if len(counts) else 0.0
