"""EMIA: is the unlearned model's loss below what shadows (EMIA-R) or other samples (EMIA-P) lead us to expect?

It uses the raw true-class logit g with the loss log(1 + exp(-g)), as published, not the log-odds.

Source: Ye et al., Enhanced Membership Inference Attacks against Machine Learning Models; IAM, section on EMIA.
"""

import jax
import jax.numpy as jnp

UPPER = 1000.0  # the published last knot


@jax.jit
def reference(unlearned: jax.Array, shadows: jax.Array) -> jax.Array:
    """Computes EMIA-R membership in [0, 1]: one minus the quantile of the loss among the shadows' losses.

    The quantile is interpolated between knots 0, the S losses and 1000 with values 0, 1/(S+1), ..., 1; at equal knots
    the last value counts. No sort is needed: only the nearest knot on each side and the count below matter.

    Args:
      unlearned: [N] float32 raw true-class logits of the audited model.
      shadows: [S, N] float32.

    Returns:
      [N] float32; higher = lower loss than OUT models have.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.scores.families import emia
      >>> emia.reference(np.array([0.0, -2000.0]), np.array([[0.0, 0.0]])).tolist()
      [0.5, 0.0]
    """
    loss, losses = jax.nn.softplus(-unlearned), jax.nn.softplus(-shadows)
    below = losses <= loss
    rank = jnp.sum(below, 0)
    left = jnp.max(jnp.where(below, losses, 0.0), 0)
    right = jnp.min(jnp.where(below, UPPER, losses), 0)
    inside = jnp.clip((loss - left) / jnp.maximum(right - left, 1e-30), 0.0, 1.0)
    # Counted from above: one minus a quotient could round to a number below 0.
    knots = losses.shape[0] + 1
    return jnp.where(loss >= UPPER, 0.0, (knots - rank - inside) / knots)


@jax.jit
def population(unlearned: jax.Array, population_logits: jax.Array) -> jax.Array:
    """Computes EMIA-P membership in [0, 1]: the fraction of population losses that are NOT strictly lower.

    Args:
      unlearned: [N] float32 raw true-class logits of the audited model.
      population_logits: [P] float32 the same of population samples.

    Returns:
      [N] float32, multiples of 1 / P; higher = lower loss than most. Needs no shadow.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.scores.families import emia
      >>> emia.population(np.array([1.5, -3.0]), np.array([-2.0, 0.0, 1.0, 2.0])).tolist()
      [0.75, 0.0]
    """
    loss, losses = jax.nn.softplus(-unlearned), jnp.sort(jax.nn.softplus(-population_logits))
    below = jnp.searchsorted(losses, loss, side="left", method="scan_unrolled")
    return (population_logits.shape[0] - below) / population_logits.shape[0]
