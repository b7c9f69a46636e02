"""EMIA: is the unlearned model's loss below what shadows (EMIA-R) or other samples (EMIA-P) lead us to expect?

Works on the raw true-class logit g with the loss log(1 + exp(-g)), as published (not on the log-odds).

Source: Ye et al., Enhanced Membership Inference Attacks against Machine Learning Models; IAM, section on EMIA.
"""

import jax
import jax.numpy as jnp

UPPER = 1000.0  # the published last knot


@jax.jit
def reference(unlearned: jax.Array, shadows: jax.Array) -> jax.Array:
    """EMIA-R membership in [0, 1]: one minus the interpolated quantile of the sample's loss among the shadows' losses.

    Knots are 0, the S losses and 1000 with values 0, 1/(S+1), ..., 1; at equal knots the last value counts. No sort is
    needed: only the nearest knot on each side and the count below matter.

    Args:
      unlearned: [N] float32 raw true-class logits of the audited model.
      shadows: [S, N] float32.

    Returns:
      [N] float32; higher = loss lower than OUT models have.
    """
    loss, losses = jax.nn.softplus(-unlearned), jax.nn.softplus(-shadows)
    below = losses <= loss
    rank = jnp.sum(below, 0)
    left = jnp.max(jnp.where(below, losses, 0.0), 0)
    right = jnp.min(jnp.where(below, UPPER, losses), 0)
    inside = jnp.clip((loss - left) / jnp.maximum(right - left, 1e-30), 0.0, 1.0)
    # Counted from above: one minus a quotient may come out a rounding below 0.
    knots = losses.shape[0] + 1
    return jnp.where(loss >= UPPER, 0.0, (knots - rank - inside) / knots)


@jax.jit
def population(unlearned: jax.Array, others: jax.Array) -> jax.Array:
    """EMIA-P membership in [0, 1]: the fraction of population samples whose loss is NOT strictly below the sample's.

    Args:
      unlearned: [N] float32 raw true-class logits of the audited model.
      others: [P] float32 the same of population samples.

    Returns:
      [N] float32, multiples of 1 / P; higher = lower loss than most. Needs no shadow.
    """
    loss, losses = jax.nn.softplus(-unlearned), jnp.sort(jax.nn.softplus(-others))
    below = jnp.searchsorted(losses, loss, side="left", method="scan_unrolled")
    return (others.shape[0] - below) / others.shape[0]
