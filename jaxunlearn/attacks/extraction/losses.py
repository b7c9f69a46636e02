"""The disagreement of clone and victim, and an estimate of its gradient that needs only the victim's answers.

Source: OUR reference, `dfme_attack`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def recovered_logits(log_probabilities: jax.Array, correction: str = "mean") -> jax.Array:
    """Recovers logits [B, C] up to a constant per row from log-probabilities: "mean" centres them, "none" does not.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.extraction.losses import recovered_logits
      >>> recovered_logits(np.log(np.array([[0.5, 0.5]]))).tolist()
      [[0.0, 0.0]]
    """
    if correction == "none":
        return log_probabilities
    return log_probabilities - jnp.mean(log_probabilities, -1, keepdims=True)


def disagreement(logits: jax.Array, log_probabilities: jax.Array, loss: str, correction: str = "mean") -> jax.Array:
    """Computes how far a clone is from its victim, [B] per input; the generator looks for inputs where it is large.

    Args:
      logits: [B, C] of the clone.
      log_probabilities: [B, C] of the victim.
      loss: "l1", mean over classes of |clone's logits - victim's recovered logits|; or "kl", KL(victim || clone).
      correction: of the recovered logits.
    """
    if loss == "l1":
        return jnp.mean(jnp.abs(logits - recovered_logits(log_probabilities, correction)), -1)
    ratio = log_probabilities - jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_probabilities) * ratio, -1)


def directions(key: jax.Array, count: int, inputs: jax.Array) -> jax.Array:
    """Draws unit vectors uniformly, [B, count, ...] for inputs [B, ...]."""
    return normalised(jax.random.normal(key, (len(inputs), count, *inputs.shape[1:]), jnp.float32))


def normalised(raw: jax.Array) -> jax.Array:
    """Scales vectors [B, m, ...] to length 1."""
    axes = tuple(range(2, raw.ndim))
    return raw / jnp.sqrt(jnp.sum(raw**2, axes, keepdims=True))


def estimate(
    objective: Callable[[jax.Array], jax.Array], inputs: jax.Array, units: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array]:
    """Estimates the gradient of an objective by finite differences along random directions.

    g = d / (m epsilon) sum_j (f(x + epsilon u_j) - f(x)) u_j, all products in full float32: in TF32 or bfloat16 the
    differences are rounding errors.

    Args:
      objective: inputs [B, ...] -> [B], one number per input.
      inputs: [B, ...] float32, d numbers each.
      units: [B, m, ...] directions of length 1.
      epsilon: the step.

    Returns:
      (gradient [B, ...] of the sum of the objective, objective at the inputs [B]).
    """
    count, size = units.shape[1], inputs[0].size
    with jax.default_matmul_precision("highest"):
        value = objective(inputs)

        # One direction per input at a time: the victim always answers B inputs, whatever m is.
        def add(total: jax.Array, unit: jax.Array) -> tuple[jax.Array, None]:
            change = objective(inputs + epsilon * unit) - value
            return total + change.reshape(-1, *(1,) * (inputs.ndim - 1)) * unit, None

        total, _ = jax.lax.scan(add, jnp.zeros_like(inputs), jnp.moveaxis(units, 1, 0))
    return total * (size / (count * epsilon)), value


def published_factor(loss: str, batch: int, classes: int) -> float:
    """Returns the published scale of the gradient: "l1" divides by B C, "kl" by nothing."""
    return 1 / (batch * classes) if loss == "l1" else 1.0
