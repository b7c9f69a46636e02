"""Distances between two models' outputs on the same samples: JS divergence, ZRF, activation distance. NumPy.

One pair of models per call, or M pairs: logits [N, C] give a number, logits [M, N, C] give [M] numbers. Either side of
M pairs may be one model [N, C], for example one untrained network.
Source: Chundawat et al., Can bad teaching induce forgetting? (ZRF); Golatkar et al. (activation distance); SSD code.
"""

from typing import Any

import numpy as np
import scipy.special

from jaxunlearn import checks, errors

COMPAT = ("corrected", "faithful")
CHANGE_ENTRIES = 2**22  # logits compared at a time
# Of the largest logit of a row: each logit is off by up to 2^-11 of itself, a log-probability by twice that.
FLOAT16_ERROR = 2.0**-10


def js_divergence(first_logits: np.ndarray, second_logits: np.ndarray, *, compat: str = "corrected") -> Any:
    """Computes the Jensen-Shannon divergence of two models' softmax; 0 = equal outputs, higher = farther apart.

    Args:
      first_logits: [N, C] or [M, N, C] float, C >= 2; computed in float64 (faithful: float32).
      second_logits: the same, of the other model.
      compat: with m = (p + q) / 2,
        "corrected": mean over samples of (KL(p || m) + KL(q || m)) / (2 log 2), in [0, 1], finite always;
        "faithful": mean over all N C entries of (m log(m / p) + m log(m / q)) / 2, the published code, which swaps
        the arguments of KL and divides by C as well. +inf where a probability is 0 for only one of the models
        (float32: a logit 104 below the largest); an entry that is 0 for both adds nothing.

    Returns:
      float, or [M] float64.

    Raises:
      ConfigError: unknown compat. ShapeError: the two do not fit together. DataError: no sample, fewer than 2 classes,
      NaN or infinite logits.

    Source: SSD code, metrics.

    Example:
      >>> from jaxunlearn.metrics import distances
      >>> distances.js_divergence([[0.0, 0.0]], [[0.0, 0.0]])
      0.0
    """
    checks.choice("compat", compat, COMPAT)
    pair = {"first_logits": first_logits, "second_logits": second_logits}
    # Half of the smallest float32 is 0, and p / m infinite: the corrected form has to be float64.
    p, q = _probabilities(pair, np.float64 if compat == "corrected" else np.float32)
    m = (p + q) / 2
    if compat == "corrected":
        divergences = (_relative(p, m).sum(-1) + _relative(q, m).sum(-1)) / (2 * np.log(2))
        # Rounding may leave the range by a few units of the last place.
        return _scalar_or_array(np.clip(divergences, 0, 1).mean(-1, dtype=np.float64))
    return _scalar_or_array(((_relative(m, p) + _relative(m, q)) / 2).mean((-2, -1), dtype=np.float64))


def zrf(forget_logits: np.ndarray, untrained_logits: np.ndarray, *, compat: str = "corrected") -> Any:
    """Computes zero retrain forgetting: 1 - JS divergence from an untrained network on the forgotten samples.

    In [0, 1] ("faithful": at most 1, -inf for saturated probabilities); higher = more like a network that has learned
    nothing. The goal is not 1 but the value of the retrained model, which generalises to forgotten samples.

    Args:
      forget_logits: [N, C] or [M, N, C] float of the audited model on forgotten samples.
      untrained_logits: [N, C] or [M, N, C] of a randomly initialised network on the same samples.
      compat: of the divergence, see `js_divergence`. "faithful" averages over classes too: the more classes, the
        nearer to 1, whatever the model does.

    Returns:
      float, or [M] float64.

    Raises:
      As `js_divergence`.

    Source: Chundawat et al., Can bad teaching induce forgetting?, section 4; SSD code.

    Example:
      >>> from jaxunlearn.metrics import distances
      >>> distances.zrf([[0.0, 0.0]], [[0.0, 0.0]])
      1.0
    """
    pair = {"forget_logits": forget_logits, "untrained_logits": untrained_logits}
    _check(pair)
    return 1 - js_divergence(forget_logits, untrained_logits, compat=compat)


def activation_distance(first_logits: np.ndarray, second_logits: np.ndarray) -> Any:
    """Computes the mean Euclidean distance between two models' softmax over samples, in [0, sqrt 2].

    Between an unlearned and the retrained model lower = better forgotten; the distance between two retrained models is
    the floor.

    Args:
      first_logits: [N, C] or [M, N, C] float.
      second_logits: the same, of the other model.

    Returns:
      float, or [M] float64.

    Raises:
      ShapeError, DataError: as `js_divergence`.

    Source: Golatkar et al., Eternal sunshine of the spotless net; SSD code, metrics.

    Example:
      >>> from jaxunlearn.metrics import distances
      >>> round(distances.activation_distance([[100.0, 0.0]], [[0.0, 100.0]]), 3)
      1.414
    """
    p, q = _probabilities({"first_logits": first_logits, "second_logits": second_logits}, np.float32)
    return _scalar_or_array(np.sqrt(((p - q) ** 2).sum(-1)).mean(-1, dtype=np.float64))


def _check(pair: dict[str, Any]) -> None:
    patterns = ["MNC" if np.ndim(logits) == 3 else "NC" for logits in pair.values()]
    sizes = checks.shape(" ".join(patterns), **pair)
    if sizes["C"] < 2 or not min(sizes.values()):
        raise errors.DataError(
            f"{' and '.join(pair)} have shapes {', '.join(str(np.shape(logits)) for logits in pair.values())}: "
            "distances need at least 1 sample and 2 classes."
        )
    for (name, logits), axes in zip(pair.items(), patterns, strict=True):
        checks.finite(name, logits, axes)


def _probabilities(pair: dict[str, Any], dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Returns the probabilities of both models."""
    _check(pair)
    first, second = (softmax(logits, dtype) for logits in pair.values())
    return first, second


def softmax(logits: Any, dtype: type = np.float64) -> np.ndarray:
    """Returns the probabilities [..., C] of logits on the host, in the given type.

    Example:
      >>> from jaxunlearn.metrics import distances
      >>> distances.softmax([1e4, 1e4]).tolist()
      [0.5, 0.5]
    """
    # Shifted before rounding, so that float64 logits beyond float32 stay finite.
    wide = np.asarray(logits, np.result_type(dtype, np.asarray(logits).dtype))
    exponentials = np.exp(wide - wide.max(-1, keepdims=True)).astype(dtype)
    return exponentials / exponentials.sum(-1, keepdims=True)


def _relative(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Computes first log(first / second) entry by entry: 0 where first = 0, +inf where only second = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(first > 0, first * (np.log(first) - np.log(second)), first.dtype.type(0))


def _scalar_or_array(values: np.ndarray) -> Any:
    return values if np.ndim(values) else float(values)


def largest_change(after: Any, before: Any) -> np.ndarray:
    """Returns [n] float64: per row, the largest change of the log-probability of any class.

    Logits that differ by a constant per row give the same predictions, so log-probabilities are compared. A change that
    storing logits in float16 explains counts as 0: otherwise an untouched model would look changed on every row.

    Args:
      after: [n, C] logits of one model; may be a memory map.
      before: [n, C] of the other.
    """
    count = len(after)
    changes = np.empty(count)
    step = max(1, CHANGE_ENTRIES // np.shape(after)[-1])
    for start in range(0, count, step):
        span = slice(start, min(start + step, count))
        log_probabilities = [
            scipy.special.log_softmax(np.asarray(model[span], np.float64), axis=-1) for model in (after, before)
        ]
        largest = np.abs(log_probabilities[0] - log_probabilities[1]).max(-1)
        magnitude = np.max([np.abs(np.asarray(model[span], np.float64)).max(-1) for model in (after, before)], 0)
        changes[span] = np.where(largest <= FLOAT16_ERROR * magnitude, 0.0, largest)
    return changes
