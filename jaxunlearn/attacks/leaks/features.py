"""Features of a posterior pair: what an attacker computes from the answers of both versions to one record.

P = posterior of the original model, Q = of the unlearned one, pi = ascending order of P.

    direct_diff    P - Q              sorted_diff    P[pi] - Q[pi]           l2_distance  ||P - Q||
    direct_concat  [P, Q]             sorted_concat  [P[pi], Q[pi]]          basic_mia    P (the classical attack)

Differences suit models that generalise well, concatenations overfitted ones. Ties keep the order of the classes.
Computed in the type and with the library of the arguments: float64 NumPy stays float64, JAX arrays may be traced.

Source: Unlearning-Leaks, section on feature construction.
"""

from collections.abc import Callable
from typing import Any

from jaxunlearn import checks

Array = Any  # numpy.ndarray or jax.Array
CLASSICAL = "basic_mia"


def compute(original: Array, unlearned: Array, name: str) -> Array:
    """Computes one feature of N posterior pairs.

    Args:
      original: [N, C] float posteriors of the original models.
      unlearned: [N, C] posteriors of the unlearned models, of the same records.
      name: one of `FEATURES`.

    Returns:
      [N, C], [N, 2C] for concatenations, [N, 1] for l2_distance.

    Raises:
      ConfigError: unknown feature. ShapeError: posteriors of different shapes.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.leaks.features import compute
      >>> compute(np.array([[0.9, 0.1]]), np.array([[0.7, 0.3]]), "sorted_diff").round(2)
      array([[-0.2,  0.2]])
    """
    checks.choice("feature", name, FEATURES)
    checks.shape("NC", original=original, unlearned=unlearned)
    return FEATURES[name](original, unlearned)


def _sorted(original: Array, unlearned: Array) -> tuple[Array, Array]:
    """Sorts both posteriors in the ascending order of the original one."""
    xp = original.__array_namespace__()
    order = xp.argsort(original, axis=-1, stable=True)
    return xp.take_along_axis(original, order, axis=-1), xp.take_along_axis(unlearned, order, axis=-1)


def _direct_diff(original: Array, unlearned: Array) -> Array:
    return original - unlearned


def _sorted_diff(original: Array, unlearned: Array) -> Array:
    before, after = _sorted(original, unlearned)
    return before - after


def _direct_concat(original: Array, unlearned: Array) -> Array:
    return original.__array_namespace__().concatenate([original, unlearned], axis=-1)


def _sorted_concat(original: Array, unlearned: Array) -> Array:
    return original.__array_namespace__().concatenate(_sorted(original, unlearned), axis=-1)


def _l2_distance(original: Array, unlearned: Array) -> Array:
    xp = original.__array_namespace__()
    return xp.sqrt(xp.sum((original - unlearned) ** 2, axis=-1, keepdims=True))


def _basic_mia(original: Array, unlearned: Array) -> Array:
    del unlearned
    return original


FEATURES: dict[str, Callable[[Array, Array], Array]] = {
    "direct_diff": _direct_diff,
    "sorted_diff": _sorted_diff,
    "direct_concat": _direct_concat,
    "sorted_concat": _sorted_concat,
    "l2_distance": _l2_distance,
    CLASSICAL: _basic_mia,
}

# The statistic of the threshold attack: one number [N] per record from a feature [N, K], higher = deleted.
THRESHOLDS: dict[str, Callable[[Any], Any]] = {
    "l2_distance": lambda values: values[:, 0],
    CLASSICAL: lambda values: values.max(1),
}
