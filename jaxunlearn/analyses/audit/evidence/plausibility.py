"""Do the arrays of an audit belong together? Copies among the models, labels that fit none of them.

Nothing here decides anything about samples: it says, before the numbers, what would make them worthless.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import scores
from jaxunlearn.records import Evidence
from jaxunlearn.report import number_format

# Answers that differ by less, relative to 1 + |log-odds|, on every sample are one model's: float16 rounds this far.
ROUNDING = 1e-3
# Below so many samples an accuracy says nothing about the labels.
FEWEST = 20
FEWEST_ALIKE, TIMES_ALIKE = 5, 5  # texts of exactly one loss; times as many as under any OUT model
LABELS_OF = {
    "unlearned": "labels", "original": "labels", "shadows": "labels", "reference": "labels",
    "population_unlearned": "population_labels", "population_original": "population_labels",
    "population_in": "population_labels", "population_shadows": "population_labels",
    "shadow_train_logits": "shadow_train_labels",
}  # fmt: skip


class Accuracy(NamedTuple):
    """How well the models of one array answer.

    Attributes:
      each: [M, 3] accuracy of every model on all, on retained and on forgotten samples; NaN where unknown.
      shuffled: the accuracy, mean over models, if the labels were in any order.
      samples: per model.
    """

    each: np.ndarray
    shuffled: float
    samples: int


def apart(first: scores.Signals, second: scores.Signals) -> float:
    """Largest difference of two models' log-odds and true logits, relative to 1 + |value|; arrays broadcast."""
    pairs = ((first.log_odds, second.log_odds), (first.true_logit, second.true_logit))
    return max(float((np.abs(a - b) / (1 + np.abs(b))).max()) for a, b in pairs)


def distinct(*parts: scores.Signals | None) -> np.ndarray:
    """[S'] numbers of the models that are no copy of an earlier one, by their answers [S, n] on every part."""
    there = [part for part in parts if part is not None]
    kept: list[int] = []
    for number in range(len(there[0].log_odds)):
        copies = [
            other for other in kept
            if all(apart(_model(part, number), _model(part, other)) < ROUNDING for part in there)
        ]  # fmt: skip
        kept += [] if copies else [number]
    return np.array(kept)


def unchanged(unlearned: scores.Signals, original: scores.Signals | None) -> str:
    """The sentence for a model that answers as before unlearning; empty where it does not."""
    if original is None or (difference := apart(unlearned, original)) >= ROUNDING:
        return ""
    return (
        f"The unlearned model answers as the original does (log-odds differ by {difference:.1g} at most): nothing was "
        "unlearned."
    )


def copied(given: int, kept: int, called: str = "shadow") -> str:
    """The sentence for shadows, or OUT models, that are copies of each other; empty where there are none."""
    if kept == given:
        return ""
    left = "one model" if kept == 1 else f"{kept} different models"
    return f"The {given} {called} models are copies of {left}: copies say nothing new and are left out."


def foreign(audit_signals: scores.AuditSignals, called: str = "shadow") -> str:
    """The sentence for a shadow, or OUT model, that is the original or the audited model; empty without one."""
    for name in ("original", "unlearned"):
        model = getattr(audit_signals, name)
        for number in range(
            0 if model is None or audit_signals.shadows is None else len(audit_signals.shadows.log_odds)
        ):
            if apart(_model(audit_signals.shadows, number), model) < ROUNDING:
                return (
                    f"{called[0].upper()}{called[1:]} model {number} answers as `{name}` does, but {called} models "
                    "must never have seen the audited samples: the null is not that of unseen samples."
                )
    return ""


def replaced(asked: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Finds requested texts with exactly the loss of many others, which no language model gives.

    Texts that are copies of each other, and losses of few digits, are as alike under the OUT models.

    Args:
      asked: [F] answers of the audited model to the requested texts.
      outside: [S, F] of OUT models.

    Returns:
      [F] bool.
    """

    def shared(values: np.ndarray) -> np.ndarray:
        """[F] how many of the texts have the value of each."""
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        return counts[place.ravel()]

    counts = shared(asked)
    usual = max(int(shared(one).max()) for one in outside)
    return (counts >= FEWEST_ALIKE) & (counts > TIMES_ALIKE * usual)


def same_losses(audit_signals: scores.AuditSignals, forgotten: np.ndarray | None) -> str:
    """The sentence for requested texts whose answers were replaced by one value; empty where there are none."""
    if forgotten is None or audit_signals.shadows is None or audit_signals.unlearned is None:
        return ""
    asked, outside = np.asarray(audit_signals.unlearned.log_odds), np.asarray(audit_signals.shadows.log_odds)
    number = int(replaced(asked[forgotten], outside[:, forgotten]).sum())
    if not number:
        return ""
    return (
        f"{number} of the {int(forgotten.sum())} requested texts have exactly the same loss, which OUT models do not "
        "give them. No model answers different texts alike: these answers were replaced."
    )


def accuracies(evidence: Evidence) -> dict[str, Accuracy]:
    """How well each array of logits fits its labels, model by model."""
    forgotten = None if evidence.forgotten is None else np.asarray(evidence.forgotten, bool)
    return {
        name: _accuracy(getattr(evidence, name), getattr(evidence, labels), forgotten if labels == "labels" else None)
        for name, labels in LABELS_OF.items()
        if getattr(evidence, name) is not None
    }


def doubtful_labels(found: dict[str, Accuracy]) -> list[str]:
    """A question for every array of labels that no model answers better than labels in any order."""
    said = []
    for labels in dict.fromkeys(LABELS_OF.values()):
        groups = [one for name, one in found.items() if LABELS_OF[name] == labels and one.samples >= FEWEST]
        if not groups or any(_fits(one) for one in groups):
            continue
        best = max(groups, key=lambda one: one.each[:, 0].mean())
        found_rate, any_order = number_format.rate(best.each[:, 0].mean()), number_format.rate(best.shuffled)
        said.append(
            f"`{labels}` fit no model: accuracy {found_rate} at best, and labels in any order would give {any_order}. "
            "Are they those of these samples, in this order? Scores read the logit of the true class."
        )
    return said


def _fits(one: Accuracy) -> bool:
    error = np.sqrt(one.shuffled * (1 - one.shuffled) / one.samples)
    return bool(one.each[:, 0].mean() > one.shuffled + 2 * error)


def _model(part: Any, number: int) -> scores.Signals:
    return scores.Signals(*(field[number] for field in part))


def _accuracy(logits: Any, labels: Any, forgotten: np.ndarray | None) -> Accuracy:
    models = logits if np.ndim(logits) == 3 else logits[None]
    count, classes = models.shape[1:]
    each = np.full((len(models), 3), np.nan)
    shuffled = np.empty(len(models))
    for number, values in enumerate(models):  # one at a time: they may be a memory map
        own = np.asarray(labels[number] if np.ndim(labels) == 2 else labels)
        predicted = np.asarray(values).argmax(-1)
        right = predicted == own
        each[number, 0] = right.mean()
        if forgotten is not None:
            each[number, 1:] = right[~forgotten].mean(), right[forgotten].mean()
        shares = [np.bincount(classes_of, minlength=classes) / count for classes_of in (predicted, own)]
        shuffled[number] = shares[0] @ shares[1]
    return Accuracy(each, float(shuffled.mean()), count)
