"""How far apart two models' outputs are on the same samples: JS divergence, ZRF, activation distance. NumPy.

One pair of models per call, or M pairs: logits [N, C] give a number, logits [M, N, C] give [M] numbers. Either side of
M pairs may be one model [N, C], an untrained network for all of them for instance.
Source: Chundawat et al., Can bad teaching induce forgetting? (ZRF); Golatkar et al. (activation distance); SSD code.
"""

from typing import Any

import numpy as np
import scipy.special

from jaxunlearn import checks, errors

COMPAT = ("corrected", "faithful")
CHANGE_ENTRIES = 2**22  # logits compared at a time


def js_divergence(first_logits: np.ndarray, second_logits: np.ndarray, *, compat: str = "corrected") -> Any:
    """Jensen-Shannon divergence of two models' softmax; 0 = the same outputs, higher = farther apart. Symmetric.

    Args:
      first_logits: [N, C] or [M, N, C] float, C >= 2; computed in float64 (faithful: float32).
      second_logits: the same, of the other model.
      compat: with m = (p + q) / 2,
        "corrected": mean over samples of (KL(p || m) + KL(q || m)) / (2 log 2), in [0, 1], finite always;
        "faithful": mean over all N C entries of (m log(m / p) + m log(m / q)) / 2, the published code, which turns
        the arguments of KL round and divides by C as well. +inf where a probability is 0 for one model alone
        (float32: a logit 104 below the largest); an entry that is 0 for both adds nothing.

    Returns:
      float, or [M] float64.

    Raises:
      ConfigError: unknown compat. ShapeError: the two do not fit together. DataError: no sample, fewer than 2 classes,
      NaN or infinite logits.

    Source: SSD code, metrics.
    """
    checks.choice("compat", compat, COMPAT)
    pair = {"first_logits": first_logits, "second_logits": second_logits}
    # Half of the smallest float32 is 0, and p / m infinite: the corrected form has to be float64.
    p, q = _softmax(pair, np.float64 if compat == "corrected" else np.float32)
    m = (p + q) / 2
    if compat == "corrected":
        each = (_relative(p, m).sum(-1) + _relative(q, m).sum(-1)) / (2 * np.log(2))
        # Rounding may leave the range by a few units of the last place.
        return _number(np.clip(each, 0, 1).mean(-1, dtype=np.float64))
    return _number(((_relative(m, p) + _relative(m, q)) / 2).mean((-2, -1), dtype=np.float64))


def zrf(forget_logits: np.ndarray, untrained_logits: np.ndarray, *, compat: str = "corrected") -> Any:
    """Zero retrain forgetting: 1 - JS divergence from an untrained network on the forgotten samples.

    In [0, 1] ("faithful": at most 1, -inf for saturated probabilities); higher = looks more like a network that has
    learned nothing. The goal is the retrained model's value, which generalises to forgotten samples, not 1.

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
    """
    pair = {"forget_logits": forget_logits, "untrained_logits": untrained_logits}
    _check(pair)
    return 1 - js_divergence(forget_logits, untrained_logits, compat=compat)


def activation_distance(first_logits: np.ndarray, second_logits: np.ndarray) -> Any:
    """Mean over samples of the Euclidean distance of two models' softmax, in [0, sqrt 2].

    Between an unlearned and the retrained model lower = better forgotten; what two retrained models have between
    them is the floor.

    Args:
      first_logits: [N, C] or [M, N, C] float.
      second_logits: the same, of the other model.

    Returns:
      float, or [M] float64.

    Raises:
      ShapeError, DataError: as `js_divergence`.

    Source: Golatkar et al., Eternal sunshine of the spotless net; SSD code, metrics.
    """
    p, q = _softmax({"first_logits": first_logits, "second_logits": second_logits}, np.float32)
    return _number(np.sqrt(((p - q) ** 2).sum(-1)).mean(-1, dtype=np.float64))


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


def _softmax(pair: dict[str, Any], dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of both."""
    _check(pair)
    made = []
    for logits in pair.values():
        # Shifted before rounding, so that float64 logits beyond float32 stay finite.
        wide = np.asarray(logits, np.result_type(dtype, np.asarray(logits).dtype))
        exponentials = np.exp(wide - wide.max(-1, keepdims=True)).astype(dtype)
        made.append(exponentials / exponentials.sum(-1, keepdims=True))
    return made[0], made[1]


def _relative(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """First log(first / second) entry by entry: 0 where first = 0, +inf where only second = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(first > 0, first * (np.log(first) - np.log(second)), first.dtype.type(0))


def _number(values: np.ndarray) -> Any:
    return values if np.ndim(values) else float(values)


def largest_change(after: Any, before: Any) -> np.ndarray:
    """Returns [n] float64: the largest change of a log-probability of any class, row by row.

    Logits that differ by a constant per row are the same answers, so log-probabilities are compared.

    Args:
      after: [n, C] logits of one model; may be a memory map.
      before: [n, C] of the other.
    """
    count = len(after)
    changes = np.empty(count)
    step = max(1, CHANGE_ENTRIES // np.shape(after)[-1])
    for start in range(0, count, step):
        span = slice(start, min(start + step, count))
        both = [scipy.special.log_softmax(np.asarray(model[span], np.float64), axis=-1) for model in (after, before)]
        changes[span] = np.abs(both[0] - both[1]).max(-1)
    return changes
