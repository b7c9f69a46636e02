"""Examines whether a user's arrays belong together and are what they are said to be, before anything is judged.

Doubts are printed first. A refusal is a reason against any verdict: what the verdicts would rest on is not there.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxunlearn import scores
from jaxunlearn.analyses.audit.evidence import plausibility, unseen
from jaxunlearn.analyses.audit.evidence.unseen import Answered, Rows
from jaxunlearn.records import Evidence

MAX_NAMED = 5  # shadow models


class Examined(NamedTuple):
    """Results of the examination.

    Attributes:
      accuracies: array -> accuracy of its models on their labels.
      doubts: warnings, reasons for a refusal among them.
      refusal: why there is no verdict; "" if there is one.
      distinct_ids: [S'] shadows that are no copies.
      twins: [N] bool, retained rows that all models answer as a requested row, or None if such rows mean nothing.
    """

    accuracies: dict[str, plausibility.Accuracy]
    doubts: tuple[str, ...]
    refusal: str
    distinct_ids: np.ndarray
    twins: np.ndarray | None


def examine(user_evidence: Evidence, values: Mapping[str, np.ndarray], signals: scores.AuditSignals) -> Examined:
    """Examines arrays from a user.

    Args:
      user_evidence: the arrays of the scores.
      values: all arrays by name, including those that only the audit reads.
      signals: of these arrays.
    """
    assert signals.unlearned is not None
    accuracies = plausibility.accuracies(user_evidence, values)
    reasons, warnings = _of_order(accuracies)
    warnings.append(plausibility.unchanged_warning(signals.unlearned, signals.original))
    reasons.append(plausibility.seen_shadow_warning(signals))
    distinct_ids, twins = np.arange(0), None
    if signals.shadows is not None:
        distinct_ids = plausibility.distinct_models(signals.shadows, signals.population_shadows, signals.shadow_train)
        warnings.append(plausibility.copies_warning(len(signals.shadows.log_odds), len(distinct_ids)))
    if signals.shadows is not None and signals.population_shadows is not None and not any(reasons):
        rows = Rows(np.asarray(signals.labels), np.asarray(user_evidence.population_labels), _requested(user_evidence))
        answered = _answered(signals)
        of_twins, twins = _twins(answered, rows)
        for more_reasons, more_warnings in (of_twins, _unlike(answered, rows, values.get("shadow_saw"))):
            reasons, warnings = reasons + more_reasons, warnings + more_warnings
    reasons, warnings = (list(filter(None, sentences)) for sentences in (reasons, warnings))
    return Examined(accuracies, (*reasons, *warnings), " ".join(reasons), distinct_ids, twins)


Sentences = tuple[list[str], list[str]]  # reasons against any verdict, and warnings


def _of_order(accuracies: dict[str, plausibility.Accuracy]) -> Sentences:
    """Asks whether labels and rows are in one order."""
    unfit = plausibility.doubtful_labels(accuracies)
    reasons = [sentence for labels, sentence in unfit.items() if plausibility.is_certain(labels, accuracies)]
    warnings = [sentence for sentence in unfit.values() if sentence not in reasons]
    return reasons or plausibility.misplaced(accuracies), warnings


def _requested(user_evidence: Evidence) -> np.ndarray:
    """Returns [N] bool: the requested rows, all of them where no request is given."""
    if user_evidence.forgotten is None:
        return np.ones(len(user_evidence.labels), bool)
    return np.asarray(user_evidence.forgotten, bool)


def _answered(signals: scores.AuditSignals) -> dict[str, Answered]:
    """Returns the log-odds of all models that answer both the audited rows and the population."""
    pairs = {
        name: (getattr(signals, name), getattr(signals, f"population_{name}"))
        for name in ("shadows", "unlearned", "original")
    }
    return {
        name: Answered(np.asarray(rows.log_odds), np.asarray(population.log_odds))
        for name, (rows, population) in pairs.items()
        if rows is not None and population is not None
    }


def _twins(answered: dict[str, Answered], rows: Rows) -> tuple[Sentences, np.ndarray | None]:
    """Asks whether rows stand in the arrays twice; returns the retained twins of requested rows, too."""
    numbers, population_numbers = unseen.twins(list(answered.values()), rows.labels, rows.population_labels)
    usual = unseen.COINCIDENCES * unseen.share_of_coincidences(population_numbers)
    usual_of_requested = usual + (unseen.SHARE_OF_COPIES if usual else 0)
    reasons, warnings, twins = [], [], None
    is_audited = np.isin(population_numbers, numbers)
    if is_audited.mean() > usual + unseen.SHARE_OF_TWINS:
        reasons.append(
            f"{is_audited.sum():,} of {len(is_audited):,} rows of the population are audited rows: every model answers "
            "them alike. The population must be rows that no model saw."
        )
    requested = numbers[rows.requested]
    has_twin = np.isin(requested, numbers[~rows.requested])
    if has_twin.any() and has_twin.mean() > usual_of_requested:
        twins = ~rows.requested & np.isin(numbers, requested)
        warnings.append(
            f"{has_twin.sum():,} of {len(requested):,} requested rows also stand among the retained rows: every model "
            "answers them alike. If a copy was kept in training, NOT FORGOTTEN is true of the model; if the rows were "
            "given twice, leave them out. Verdicts do not compare with these copies."
        )
    return (reasons, warnings), twins


def _unlike(answered: dict[str, Answered], rows: Rows, shadow_saw: np.ndarray | None) -> Sentences:
    """Asks whether shadows saw the audited rows, or any model the population."""
    reasons, warnings = [], []
    shadows = answered["shadows"]
    known = None if shadow_saw is None else np.asarray(shadow_saw, bool)
    flags = unseen.exposed(shadows, rows, known)
    if flags.any():
        names = ", ".join(map(str, np.flatnonzero(flags)[:MAX_NAMED])) + " ..." * bool(flags.sum() > MAX_NAMED)
        which = f"All {len(flags)} shadow models" if flags.all() else f"Shadow models {names}"
        exposed = (
            f"{which} answer requested and retained rows alike, and far better than the population, as if they had "
            "been trained on them."
        )
        remedy = "Give `shadow_saw` [s, n], which shadow was trained on which row (false: on none of the requested)"
        if known is None:
            reasons.append(f"{exposed} {remedy}, shadows that never saw them, or a population of the same kind.")
        else:
            warnings.append(f"{exposed} `shadow_saw` says that they were not.")
    audited = [answered[name] for name in ("original", "unlearned") if name in answered]
    if audited and unseen.shadows_saw_population(shadows, audited[0], rows):
        reasons.append(
            "The shadow models answer the population far better than the audited rows, and than the audited model "
            "does, as if they had been trained on it. The population must be rows that no model saw."
        )
    if any(unseen.audited_saw_population(shadows, model, rows) for model in audited):
        reasons.append(
            "The audited model answers the population as well as the rows that it was trained on, and far better than "
            "the shadow models do. Either it was trained on the population, which must be rows that no model saw, or "
            "the shadow models were not trained as it was."
        )
    return reasons, warnings
