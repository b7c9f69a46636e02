"""Plausibility checks of a user's arrays: copies among the models, labels that fit none of them.

They decide nothing about samples; they warn of inputs that would make the results meaningless.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import scores
from jaxunlearn.records import Evidence
from jaxunlearn.report import number_format

# Outputs that differ by less than this, relative to 1 + |log-odds|, on every sample belong to one model (float16).
ROUNDING = 1e-3
# With fewer samples an accuracy says nothing about the labels.
FEWEST = 20
FEWEST_ALIKE, TIMES_ALIKE = 5, 5  # texts of exactly one loss; times as many as under any OUT model
LABELS_OF = {
    "unlearned": "labels", "original": "labels", "shadows": "labels", "reference": "labels",
    "population_unlearned": "population_labels", "population_original": "population_labels",
    "population_in": "population_labels", "population_shadows": "population_labels",
    "shadow_train_logits": "shadow_train_labels",
}  # fmt: skip


class Accuracy(NamedTuple):
    """Accuracy of the models of one array.

    Attributes:
      by_model: [M, 3] accuracy of every model on all, on retained and on forgotten samples; NaN where unknown.
      shuffled: accuracy under shuffled labels, mean over models.
      samples: per model.
    """

    by_model: np.ndarray
    shuffled: float
    samples: int


def apart(first: scores.Signals, second: scores.Signals) -> float:
    """Computes the largest difference of two models' log-odds and true logits, relative to 1 + |value|; broadcasts."""
    pairs = ((first.log_odds, second.log_odds), (first.true_logit, second.true_logit))
    return max(float((np.abs(a - b) / (1 + np.abs(b))).max()) for a, b in pairs)


def distinct(*signals: scores.Signals | None) -> np.ndarray:
    """Returns [S'] indices of the models that are no copy of an earlier one, by signals [S, n] on several sets."""
    subsets = [subset for subset in signals if subset is not None]
    kept_ids: list[int] = []
    for model in range(len(subsets[0].log_odds)):
        copies = [
            earlier for earlier in kept_ids
            if all(apart(_model(subset, model), _model(subset, earlier)) < ROUNDING for subset in subsets)
        ]  # fmt: skip
        kept_ids += [] if copies else [model]
    return np.array(kept_ids)


def unchanged(unlearned: scores.Signals, original: scores.Signals | None) -> str:
    """Returns a warning if a model answers as before unlearning; else an empty text."""
    if original is None or (difference := apart(unlearned, original)) >= ROUNDING:
        return ""
    return (
        f"The unlearned model answers like the original (log-odds differ by at most {difference:.1g}): nothing was "
        "unlearned."
    )


def copied(count: int, num_distinct: int, kind: str = "shadow") -> str:
    """Returns a warning if shadows, or OUT models, are copies of each other; else an empty text."""
    if num_distinct == count:
        return ""
    remainder = "one model" if num_distinct == 1 else f"{num_distinct} different models"
    return f"The {count} {kind} models are copies of {remainder}: copies add nothing and are left out."


def foreign(audit_signals: scores.AuditSignals, kind: str = "shadow") -> str:
    """Returns a warning if a shadow, or OUT model, is the original or the audited model; else an empty text."""
    for name in ("original", "unlearned"):
        model = getattr(audit_signals, name)
        for index in range(
            0 if model is None or audit_signals.shadows is None else len(audit_signals.shadows.log_odds)
        ):
            if apart(_model(audit_signals.shadows, index), model) < ROUNDING:
                return (
                    f"{kind[0].upper()}{kind[1:]} model {index} answers like `{name}`, but {kind} models "
                    "must never have seen the audited samples: the null is not that of unseen samples."
                )
    return ""


def replaced(requested: np.ndarray, out_models: np.ndarray) -> np.ndarray:
    """Finds requested texts with exactly the same loss as many others, which no language model produces.

    Duplicated texts, and losses with few digits, are equally alike under the OUT models.

    Args:
      requested: [F] answers of the audited model to the requested texts.
      out_models: [S, F] of OUT models.

    Returns:
      [F] bool.
    """

    def shared(values: np.ndarray) -> np.ndarray:
        """Returns [F] the number of texts with the same value as each."""
        _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
        return counts[index.ravel()]

    counts = shared(requested)
    usual_count = max(int(shared(losses).max()) for losses in out_models)
    return (counts >= FEWEST_ALIKE) & (counts > TIMES_ALIKE * usual_count)


def same_losses(audit_signals: scores.AuditSignals, forgotten: np.ndarray | None) -> str:
    """Returns a warning if the losses of requested texts were replaced by one value; else an empty text."""
    if forgotten is None or audit_signals.shadows is None or audit_signals.unlearned is None:
        return ""
    audited, out_models = np.asarray(audit_signals.unlearned.log_odds), np.asarray(audit_signals.shadows.log_odds)
    num_replaced = int(replaced(audited[forgotten], out_models[:, forgotten]).sum())
    if not num_replaced:
        return ""
    return (
        f"{num_replaced} of the {int(forgotten.sum())} requested texts have exactly the same loss, which OUT models do "
        "not give them. No model answers different texts alike: these answers were replaced."
    )


def accuracies(evidence: Evidence) -> dict[str, Accuracy]:
    """Computes the accuracy of each array of logits on its labels, model by model."""
    forgotten = None if evidence.forgotten is None else np.asarray(evidence.forgotten, bool)
    return {
        name: _accuracy(getattr(evidence, name), getattr(evidence, labels), forgotten if labels == "labels" else None)
        for name, labels in LABELS_OF.items()
        if getattr(evidence, name) is not None
    }


def doubtful_labels(by_array: dict[str, Accuracy]) -> list[str]:
    """Returns a warning for every array of labels on which no model is more accurate than on shuffled labels."""
    sentences = []
    for labels in dict.fromkeys(LABELS_OF.values()):
        groups = [by_array[name] for name in by_array if LABELS_OF[name] == labels and by_array[name].samples >= FEWEST]
        if not groups or any(_fits(accuracy) for accuracy in groups):
            continue
        best = max(groups, key=lambda accuracy: accuracy.by_model[:, 0].mean())
        best_rate, shuffled_rate = number_format.rate(best.by_model[:, 0].mean()), number_format.rate(best.shuffled)
        sentences.append(
            f"`{labels}` fit no model: accuracy {best_rate} at best, and labels in any order would give "
            f"{shuffled_rate}. Are they those of these samples, in this order? Scores read the logit of the true class."
        )
    return sentences


def _fits(accuracy: Accuracy) -> bool:
    error = np.sqrt(accuracy.shuffled * (1 - accuracy.shuffled) / accuracy.samples)
    return bool(accuracy.by_model[:, 0].mean() > accuracy.shuffled + 2 * error)


def _model(signals: Any, index: int) -> scores.Signals:
    return scores.Signals(*(field[index] for field in signals))


def _accuracy(logits: Any, labels: Any, forgotten: np.ndarray | None) -> Accuracy:
    models = logits if np.ndim(logits) == 3 else logits[None]
    count, classes = models.shape[1:]
    by_model = np.full((len(models), 3), np.nan)
    shuffled = np.empty(len(models))
    for index, values in enumerate(models):  # one at a time: they may be a memory map
        model_labels = np.asarray(labels[index] if np.ndim(labels) == 2 else labels)
        predicted = np.asarray(values).argmax(-1)
        is_correct = predicted == model_labels
        by_model[index, 0] = is_correct.mean()
        if forgotten is not None:
            by_model[index, 1:] = is_correct[~forgotten].mean(), is_correct[forgotten].mean()
        shares = [np.bincount(classes_of, minlength=classes) / count for classes_of in (predicted, model_labels)]
        shuffled[index] = shares[0] @ shares[1]
    return Accuracy(by_model, float(shuffled.mean()), count)
