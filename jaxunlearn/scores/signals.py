"""Signals: one number per model and sample from its logits, safe where the softmax saturates.

Everything is computed from logits by log-sum-exp, never from probabilities: float32 softmax is exactly 0 or 1 long
before logits stop being informative. Input may be float16 or bfloat16; arithmetic is float32.
"""

import jax
import jax.numpy as jnp

# The published signal adds the smallest float32 subnormal (1.4e-45) to both probabilities, which bounds it by this.
CARLINI_LIMIT = 103.27893


@jax.jit
def confidence(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax probability of the true class, in [0, 1]; higher = more like a member.

    Args:
      logits: [..., N, C] float.
      labels: [N] int32.

    Returns:
      [..., N] float32.
    """
    return jnp.exp(-cross_entropy(logits, labels))


@jax.jit
def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross entropy of the true class, >= 0, finite for any finite logits; LOWER = more like a member.

    Args and shapes as `confidence`.
    """
    logits = logits.astype(jnp.float32)
    return jax.nn.logsumexp(logits, -1) - _true(logits, labels)


@jax.jit
def carlini_logit(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Log-odds of the true class, log p / (1 - p) = z_y - logsumexp over the others; higher = more like a member.

    Clipped to +-103.279, the bound of the published form (log(p + 1e-45) - log(1 - p + 1e-45)).
    Source: Carlini et al., Membership Inference Attacks From First Principles, section IV; IAM, `carlini_logit`.

    Args and shapes as `confidence`.
    """
    logits = logits.astype(jnp.float32)
    hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    others = jax.nn.logsumexp(jnp.where(hot, -jnp.inf, logits), -1)
    return jnp.clip(_true(logits, labels) - others, -CARLINI_LIMIT, CARLINI_LIMIT)


def _true(logits: jax.Array, labels: jax.Array) -> jax.Array:
    index = jnp.broadcast_to(labels[..., None], (*logits.shape[:-1], 1))
    return jnp.take_along_axis(logits, index, -1)[..., 0]
