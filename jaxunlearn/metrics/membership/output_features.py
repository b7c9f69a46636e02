"""Features of a model's outputs that membership attacks read. NumPy on the host.

    logits [N, C], labels [N] --features--> correctness, confidence, entropy, modified entropy, probability

Features are float32 like the published ones, and computed from logits: a float32 probability of exactly 1 no longer
tells how far from 1 it was. Only the published form of the threshold attack starts from probabilities.
Source: Song and Mittal, Systematic evaluation of privacy risks of machine learning models (modified entropy); the
evaluation of the SalUn code (five features).
"""

from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.metrics.distances import softmax

COMPAT = ("corrected", "faithful")
# Published logarithms of a probability are floored here: log 1e-30 = -69.08.
LOG_FLOOR = 1e-30
Samples = tuple[np.ndarray, np.ndarray]


class Features(NamedTuple):
    """Inputs of the attacks, float32 (float64 from float64 probabilities).

    Attributes:
      correctness: [..., N] 1 where the most probable class is the label, else 0; higher = more like a member.
      confidence: [..., N] probability of the label in [0, 1]; higher = more like a member.
      entropy: [..., N] in nats, >= 0; LOWER = more like a member.
      modified_entropy: [..., N] >= 0, also grows where the model is sure of a wrong class; LOWER = more like a member.
      probability: [..., N, C] the whole softmax.
    """

    correctness: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray
    modified_entropy: np.ndarray
    probability: np.ndarray


def features(logits: np.ndarray, labels: np.ndarray, *, compat: str = "corrected", name: str = "") -> Features:
    """Computes the features of one model, or of M models at once.

    Args:
      logits: [N, C] or [M, N, C] float, C >= 2, N >= 1; float16 and bfloat16 are computed in float32.
      labels: [N] int.
      compat: of the modified entropy. "corrected": -(1 - p_y) log p_y - sum over c != y of p_c log(1 - p_c), with
        1 - p taken from the logits, so that it is exact up to rounding where p is nearly 1. "faithful": as in the SalUn
        code, whose values depend on which labels occur: for every class c of S, the set of labels in this call,
        -(1 - p_c) log p_c; for every other class -p_c log p_c. Logarithms are floored at 1e-30 in both.
      name: of these samples in error messages ("retain": retain_logits, retain_labels).

    Raises:
      ConfigError: unknown compat. ShapeError: arrays do not fit together. DataError: no sample, fewer than 2 classes,
      NaN or infinite logits, labels out of range.

    Source: SalUn code, evaluation with SVCs; Song and Mittal, section 3.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.membership import features
      >>> result = features(np.log([[0.75, 0.25], [0.5, 0.5]]), np.array([0, 1]))
      >>> result.correctness.tolist(), result.confidence.round(2).tolist(), result.entropy.round(1).tolist()[1] > 0.6
      ([1.0, 0.0], [0.75, 0.5], True)
    """
    checks.choice("compat", compat, COMPAT)
    logits, labels = _checked(f"{name}_logits" if name else "logits", logits, labels)
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    total = exponentials.sum(-1, keepdims=True)
    probability = exponentials / total
    predicted = probability.argmax(-1)[..., None]
    np.put_along_axis(exponentials, predicted, 0, -1)
    rest = 1 - probability
    np.put_along_axis(rest, predicted, exponentials.sum(-1, keepdims=True) / total, -1)
    return _features(probability, rest, labels, compat)


def probability_features(
    probability: np.ndarray, labels: np.ndarray, *, compat: str = "corrected", name: str = ""
) -> Features:
    """Computes `features` from softmax outputs, in their own precision; 1 - p is only as accurate as p.

    Args:
      probability: [N, C] or [M, N, C] float, rows sum to 1.
      labels: [N] int.
      compat: see `features`.
      name: see `features`.

    Raises:
      As `features`; DataError also if rows are not probabilities.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.membership import probability_features
      >>> probability_features(np.array([[0.75, 0.25]]), np.array([1])).confidence.tolist()
      [0.25]
    """
    checks.choice("compat", compat, COMPAT)
    dtype = np.float64 if np.asarray(probability).dtype == np.float64 else np.float32
    title = f"{name}_probabilities" if name else "probabilities"
    probability, labels = _checked(title, probability, labels, dtype)
    _check_probability(title, probability)
    return _features(probability, 1 - probability, labels, compat)


def entropies(logits: np.ndarray, *, name: str = "logits") -> np.ndarray:
    """Computes the entropy [..., N] float32 in nats of the softmax of logits [..., N, C]; LOWER = more like a member.

    Raises:
      ShapeError, DataError: as `features`.

    Example:
      >>> from jaxunlearn.metrics.membership import entropies
      >>> [round(float(value), 2) for value in entropies([[0.0, 0.0], [100.0, 0.0]])]
      [0.69, 0.0]
    """
    return _entropy(softmax(_checked_outputs(name, logits), np.float32))


def _checked(name: str, values: Any, labels: Any, dtype: type = np.float32) -> Samples:
    """Returns outputs as float arrays and labels, checked against each other."""
    labels_name = name.removesuffix("logits").removesuffix("probabilities") + "labels"
    axes = "MNC" if np.ndim(values) == 3 else "NC"
    sizes = checks.shape(f"{axes} N", **{name: values, labels_name: labels})
    values, labels = _checked_outputs(name, values, dtype), np.asarray(labels)
    checks.labels(labels_name, labels, sizes["C"])
    return values, labels


def _checked_outputs(name: str, values: Any, dtype: type = np.float32) -> np.ndarray:
    axes = "MNC" if np.ndim(values) == 3 else "NC"
    sizes = checks.shape(axes, **{name: values})
    if sizes["C"] < 2 or not np.size(values):
        raise errors.DataError(f"{name} has shape {np.shape(values)}: attacks need at least 1 sample and 2 classes.")
    with np.errstate(over="ignore"):
        values = np.asarray(values, dtype)
    checks.finite(name, values, axes)
    return values


def _entropy(probability: np.ndarray) -> np.ndarray:
    return -(probability * np.log(np.maximum(probability, probability.dtype.type(LOG_FLOOR)))).sum(-1)


def _check_probability(name: str, probability: np.ndarray) -> None:
    total = probability.sum(-1)
    if probability.min() < 0 or probability.max() > 1 + 1e-6 or np.abs(total - 1).max() > 1e-2:
        raise errors.DataError(
            f"{name} range from {probability.min():.4g} to {probability.max():.4g} and rows sum to "
            f"{total.min():.4g} to {total.max():.4g}; expected softmax outputs. Are these logits?"
        )


def _features(probability: np.ndarray, rest: np.ndarray, labels: np.ndarray, compat: str) -> Features:
    """Computes the features from probabilities [..., N, C] and their complements `rest`."""
    logs = -np.log(np.maximum(probability, probability.dtype.type(LOG_FLOOR)))
    if compat == "faithful":
        # The published floor applies only to p = 0.
        exact = -np.log(np.where(probability > 0, probability, probability.dtype.type(LOG_FLOOR)))
        occurs = np.isin(np.arange(probability.shape[-1]), labels)
        modified = (np.where(occurs, 1 - probability, probability) * exact).sum(-1)
    else:
        is_label = np.arange(probability.shape[-1]) == labels[:, None]
        rest_logs = -np.log(np.maximum(rest, rest.dtype.type(LOG_FLOOR)))
        modified = (np.where(is_label, rest, probability) * np.where(is_label, logs, rest_logs)).sum(-1)
    index = np.broadcast_to(labels[:, None], (*probability.shape[:-1], 1))
    return Features(
        correctness=(probability.argmax(-1) == labels).astype(probability.dtype),
        confidence=np.take_along_axis(probability, index, -1)[..., 0],
        entropy=_entropy(probability),
        modified_entropy=modified,
        probability=probability,
    )
