"""Defences: what a model's owner publishes instead of the posterior, in the same way for both versions.

    top_k        the k largest entries stay, the rest of the mass is spread evenly over the others
    label        only the predicted class, as one-hot
    temperature  p ** (1 / T), normalised: softmax(z / T) of the logits z

Each version uses its own order. The attack sees published posteriors only; DP-SGD is a defence of the training.

Source: Unlearning-Leaks, section on defences. Differs from the published code: more than C entries to keep raise a
ConfigError (published: IndexError); the temperature is described in the paper, in the code only in a comment.
"""

from typing import Any

from jaxunlearn import checks, errors

Array = Any  # numpy.ndarray or jax.Array
DEFENCES = ("none", "top_k", "label", "temperature")


def publish(posterior: Array, defence: str, *, top_k: int = 3, temperature: float = 2.0) -> Array:
    """Returns the [N, C] posteriors that are published in place of the true ones.

    Args:
      posterior: [N, C] float, rows sum to 1; NumPy or JAX.
      defence: one of `DEFENCES`.
      top_k: entries that are kept, 1 to C.
      temperature: above 0; 1 changes nothing, higher flattens.

    Raises:
      ConfigError: unknown defence, or top_k outside 1 to C.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.leaks.defences import publish
      >>> publish(np.array([[0.7, 0.2, 0.1]]), "top_k", top_k=1).round(2)
      array([[0.7 , 0.15, 0.15]])
    """
    checks.choice("defence", defence, DEFENCES)
    xp = posterior.__array_namespace__()
    classes = posterior.shape[-1]
    if defence == "label":
        # The last index of the ascending stable order: the last of several largest entries.
        predicted = classes - 1 - xp.argmax(xp.flip(posterior, axis=-1), axis=-1)
        return (xp.arange(classes) == predicted[..., None]).astype(posterior.dtype)
    if defence == "temperature":
        checks.in_range("temperature", temperature, 1e-6)
        largest = xp.max(posterior, axis=-1, keepdims=True)
        powers = (posterior / largest) ** (1.0 / temperature)
        return powers / xp.sum(powers, axis=-1, keepdims=True)
    if defence == "top_k":
        check_top_k(top_k, classes)
        if top_k == classes:
            return posterior
        order = xp.argsort(posterior, axis=-1, stable=True)
        rank = xp.argsort(order, axis=-1, stable=True)
        is_top = rank >= classes - top_k
        remainder = (1.0 - xp.sum(xp.where(is_top, posterior, 0.0), axis=-1, keepdims=True)) / (classes - top_k)
        return xp.where(is_top, posterior, remainder)
    return posterior


def check_top_k(top_k: int, classes: int) -> None:
    """Raises a ConfigError unless 1 <= top_k <= classes."""
    if not 1 <= top_k <= classes:
        raise errors.ConfigError(
            f"top_k = {top_k}: a posterior over {classes} classes has 1 to {classes} entries that can be kept. "
            "To publish the predicted class alone, use defence = 'label'."
        )
