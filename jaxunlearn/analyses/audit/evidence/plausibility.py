"""Plausibility checks of a user's arrays: copies among the models, labels that fit none of them, rows in another order.

They decide nothing about samples: they warn of arrays that make results doubtful, or refuse verdicts that would rest on
arrays that do not belong together.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import scores
from jaxunlearn.records import Evidence
from jaxunlearn.report import number_format

# Outputs that differ by less than this, relative to 1 + |log-odds|, on every sample belong to one model (float16).
ROUNDING = 1e-3
# With fewer samples an accuracy says nothing about the labels.
FEWEST = 20
# Accuracies in standard errors: of arrays that fit the labels for certain; of those that fit them as little as if the
# labels were shuffled; how far the latter must be below half of what the former are above it.
CERTAIN, SHUFFLED, APART = 4, 3, 3
MAX_NAMED = 5  # shadow models
FEWEST_ALIKE, TIMES_ALIKE = 5, 5  # texts of exactly one loss; times as many as under any OUT model
LABELS_OF = {
    "unlearned": "labels", "original": "labels", "shadows": "labels", "reference": "labels",
    "population_unlearned": "population_labels", "population_original": "population_labels",
    "population_in": "population_labels", "population_shadows": "population_labels",
    "shadow_train_logits": "shadow_train_labels", "retrained": "labels", "population_retrained": "population_labels",
}  # fmt: skip
# Whose fit to the labels shows how well an array of the same rows must at least fit them. Shadows know no more of the
# audited rows than of the population.
UNSEEN = ("population_original", "population_unlearned", "population_shadows")
COMPARED = {
    "original": ("shadows", "unlearned"),
    "retrained": ("shadows", "original", "unlearned"),
    "unlearned": ("shadows", "original"),
    "shadows": ("population_shadows",),
    **{name: tuple(other for other in UNSEEN if other != name) for name in UNSEEN[:2]},
    "population_retrained": UNSEEN,
    "population_shadows": ("shadows", *UNSEEN[:2]),
}


class Accuracy(NamedTuple):
    """Accuracy of the models of one array.

    Attributes:
      by_model: [M, 3] accuracy of every model on all, on retained and on forgotten samples; NaN where unknown.
      shuffled: accuracy under shuffled labels, mean over models.
      samples: per model.
      excess, error: [M] accuracy above that on shuffled labels, and the standard error of the latter; on retained
        samples if there are enough, since those that were forgotten may be answered in any way.
      spread: [M] standard error of the accuracy itself, likewise.
    """

    by_model: np.ndarray
    shuffled: float
    samples: int
    excess: np.ndarray
    error: np.ndarray
    spread: np.ndarray


def max_relative_difference(first: scores.Signals, second: scores.Signals) -> float:
    """Computes the largest difference of two models' log-odds and true logits, relative to 1 + |value|; broadcasts."""
    pairs = ((first.log_odds, second.log_odds), (first.true_logit, second.true_logit))
    return max(float((np.abs(a - b) / (1 + np.abs(b))).max()) for a, b in pairs)


def distinct_models(*signals: scores.Signals | None) -> np.ndarray:
    """Returns [S'] indices of the models that are no copy of an earlier one, by signals [S, n] on several sets."""
    subsets = [subset for subset in signals if subset is not None]
    kept_ids: list[int] = []
    for model in range(len(subsets[0].log_odds)):
        copies = [
            earlier for earlier in kept_ids
            if all(
                max_relative_difference(_model(subset, model), _model(subset, earlier)) < ROUNDING
                for subset in subsets
            )
        ]  # fmt: skip
        kept_ids += [] if copies else [model]
    return np.array(kept_ids)


def unchanged_warning(unlearned: scores.Signals, original: scores.Signals | None) -> str:
    """Returns a warning if a model answers as before unlearning; else an empty text."""
    if original is None or (difference := max_relative_difference(unlearned, original)) >= ROUNDING:
        return ""
    return (
        f"The unlearned model answers like the original (log-odds differ by at most {difference:.1g}): nothing was "
        "unlearned."
    )


def copies_warning(count: int, num_distinct: int, kind: str = "shadow") -> str:
    """Returns a warning if shadows, or OUT models, are copies of each other; else an empty text."""
    if num_distinct == count:
        return ""
    remainder = "one model" if num_distinct == 1 else f"{num_distinct} different models"
    return f"The {count} {kind} models are copies of {remainder}: copies add nothing and are left out."


def seen_shadow_warning(audit_signals: scores.AuditSignals, kind: str = "shadow") -> str:
    """Returns a warning if a shadow, or OUT model, is the original or the audited model; else an empty text."""
    for name in ("original", "unlearned"):
        model = getattr(audit_signals, name)
        for index in range(
            0 if model is None or audit_signals.shadows is None else len(audit_signals.shadows.log_odds)
        ):
            if max_relative_difference(_model(audit_signals.shadows, index), model) < ROUNDING:
                return (
                    f"{kind[0].upper()}{kind[1:]} model {index} answers like `{name}`, but {kind} models "
                    "must never have seen the audited samples: the null is not that of unseen samples."
                )
    return ""


def find_replaced(requested: np.ndarray, out_models: np.ndarray) -> np.ndarray:
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
    num_replaced = int(find_replaced(audited[forgotten], out_models[:, forgotten]).sum())
    if not num_replaced:
        return ""
    return (
        f"{num_replaced} of the {int(forgotten.sum())} requested texts have exactly the same loss, which OUT models do "
        "not give them. No model answers different texts alike: these answers were replaced."
    )


def accuracies(evidence: Evidence, further: Mapping[str, Any] | None = None) -> dict[str, Accuracy]:
    """Computes the accuracy of each array of logits on its labels, model by model; `further`: arrays by name."""
    forgotten = None if evidence.forgotten is None else np.asarray(evidence.forgotten, bool)
    logits = {name: (further or {}).get(name, getattr(evidence, name, None)) for name in LABELS_OF}
    return {
        name: _accuracy(logits[name], getattr(evidence, labels), forgotten if labels == "labels" else None)
        for name, labels in LABELS_OF.items()
        if logits[name] is not None
    }


def doubtful_labels(by_array: dict[str, Accuracy]) -> dict[str, str]:
    """Returns labels -> a warning, for all on which no model is more accurate than on shuffled labels."""
    sentences = {}
    for labels in dict.fromkeys(LABELS_OF.values()):
        groups = [by_array[name] for name in by_array if LABELS_OF[name] == labels and by_array[name].samples >= FEWEST]
        if not groups or any(_fits(accuracy) for accuracy in groups):
            continue
        best = max(groups, key=lambda accuracy: accuracy.by_model[:, 0].mean())
        best_rate, shuffled_rate = number_format.rate(best.by_model[:, 0].mean()), number_format.rate(best.shuffled)
        sentences[labels] = (
            f"`{labels}` fit no model: accuracy {best_rate} at best, and labels in any order would give "
            f"{shuffled_rate}. Are they those of these samples, in this order? Scores read the logit of the true class."
        )
    return sentences


def is_certain(labels: str, by_array: dict[str, Accuracy]) -> bool:
    """Returns whether labels that fit no model should fit some: the original, or shadows that fit other labels."""
    if labels == "labels" and "original" in by_array:
        return True  # it was trained on these samples
    pair = ("shadows", "population_shadows") if labels == "labels" else ("population_shadows", "shadows")
    if labels not in ("labels", "population_labels") or not all(name in by_array for name in pair):
        return False
    accuracy, other = (by_array[name] for name in pair)
    return bool(_is_far_below(accuracy, *_certain_fit(other, len(accuracy.excess))).mean() > 0.5)


def _fits(accuracy: Accuracy) -> bool:
    error = np.sqrt(accuracy.shuffled * (1 - accuracy.shuffled) / accuracy.samples)
    return bool(accuracy.by_model[:, 0].mean() > accuracy.shuffled + 2 * error)


def misplaced(by_array: dict[str, Accuracy]) -> list[str]:
    """Returns a reason against any verdict for every array whose rows seem to be in another order than the labels.

    Such an array fits the labels no better than if they were shuffled, although others that know as much of these rows
    clearly do. A model that was driven away from the labels fits them worse than that, and is not meant.
    """
    sentences: list[str] = []
    for name, compared in COMPARED.items():
        accuracy = by_array.get(name)
        if accuracy is None or accuracy.samples < FEWEST:
            continue
        others = [by_array[other] for other in compared if other in by_array and by_array[other].samples >= FEWEST]
        is_misplaced = np.zeros(len(accuracy.excess), bool)
        for other in others:
            is_misplaced |= _is_shuffled(accuracy, *_certain_fit(other, len(accuracy.excess)))
        if name == "population_unlearned" and sentences and sentences[-1].startswith("`unlearned`"):
            continue  # a model that was destroyed answers nothing right: that is said already
        if is_misplaced.any():
            sentences.append(_sentence_of_order(name, np.flatnonzero(is_misplaced), by_array))
    return sentences


def _certain_fit(accuracy: Accuracy, num_models: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns [num_models] accuracy above shuffled labels and its error: of the same model where there are as many."""
    is_certain = accuracy.excess > CERTAIN * accuracy.error
    if len(accuracy.excess) == num_models and num_models > 1:
        return np.where(is_certain, accuracy.excess, 0.0), accuracy.spread
    mean = float(accuracy.excess.mean()) if is_certain.mean() > 0.5 else 0.0
    return np.full(num_models, mean), np.full(num_models, float(accuracy.spread.mean()))


def _is_shuffled(accuracy: Accuracy, expected: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Returns [M] bool: models that fit the labels as if shuffled, and far worse than half of what is expected."""
    is_random = np.abs(accuracy.excess) <= SHUFFLED * accuracy.error
    return is_random & _is_far_below(accuracy, expected, error)


def _is_far_below(accuracy: Accuracy, expected: np.ndarray, error: np.ndarray) -> np.ndarray:
    total_error = np.sqrt(accuracy.spread**2 + (error / 2) ** 2)
    return (expected > 0) & (accuracy.excess + APART * total_error < expected / 2)


def _sentence_of_order(name: str, models: np.ndarray, by_array: dict[str, Accuracy]) -> str:
    """Returns the sentence that an array fits its labels as little as shuffled ones, and what to do."""
    accuracy, labels = by_array[name], LABELS_OF[name]
    rates = f"accuracy {number_format.rate(accuracy.by_model[models, 0].mean())}"
    which = f"`{name}`"
    if len(accuracy.excess) > 1 and len(models) < len(accuracy.excess):
        listed = ", ".join(map(str, models[:MAX_NAMED])) + (" ..." if len(models) > MAX_NAMED else "")
        which = f"`{name}` (model {listed})" if len(models) == 1 else f"`{name}` (models {listed})"
    sentence = (
        f"{which} fits `{labels}` no better than labels in any order ({rates}, shuffled "
        f"{number_format.rate(accuracy.shuffled)}), though other models do. "
    )
    if name.endswith("unlearned"):
        return sentence + (
            "Either the unlearned model was destroyed, or its rows are in another order: in both cases its answers "
            f"say nothing about forgetting. Give its answers to the rows of `{labels}`, in their order."
        )
    others = " Leave out models that learned nothing." if name.endswith("shadows") else ""
    return sentence + f"Its rows are not those of `{labels}`, or in another order: give all in one order.{others}"


def _model(signals: Any, index: int) -> scores.Signals:
    return scores.Signals(*(field[index] for field in signals))


def _accuracy(logits: Any, labels: Any, forgotten: np.ndarray | None) -> Accuracy:
    models = logits if np.ndim(logits) == 3 else logits[None]
    count, classes = models.shape[1:]
    by_model = np.full((len(models), 3), np.nan)
    shuffled, excess, error, spread = np.empty((4, len(models)))
    judged = np.ones(count, bool)
    if forgotten is not None and (~forgotten).sum() >= FEWEST:
        judged = ~forgotten
    for index, values in enumerate(models):  # one at a time: they may be a memory map
        model_labels = np.asarray(labels[index] if np.ndim(labels) == 2 else labels)
        predicted = np.asarray(values).argmax(-1)
        is_correct = predicted == model_labels
        by_model[index, 0] = is_correct.mean()
        if forgotten is not None:
            by_model[index, 1:] = is_correct[~forgotten].mean(), is_correct[forgotten].mean()
        shuffled[index] = _of_shuffled(predicted, model_labels, classes)[0]
        rate, error[index] = _of_shuffled(predicted[judged], model_labels[judged], classes)
        accuracy = is_correct[judged].mean()
        excess[index] = accuracy - rate
        spread[index] = np.sqrt(accuracy * (1 - accuracy) / judged.sum())
    return Accuracy(by_model, float(shuffled.mean()), count, excess, error, spread)


def _of_shuffled(predicted: np.ndarray, labels: np.ndarray, classes: int) -> tuple[float, float]:
    """Returns mean and standard deviation of the accuracy over all orders of the labels."""
    count = len(labels)
    first, second = (np.bincount(array, minlength=classes) / count for array in (predicted, labels))
    mean = float(first @ second)
    variance = float(mean - first @ second**2 - first**2 @ second + mean**2)
    return mean, float(np.sqrt(max(variance, 0.0) / max(count - 1, 1)))
