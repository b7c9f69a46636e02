"""Signals: one number per model and sample from its logits, safe where the softmax saturates.

Everything follows from the unclipped log-odds of the true class, c = z_y - logsumexp over the other classes: the
confidence is sigmoid(c), the cross entropy softplus(-c). Nothing is computed from float32 probabilities, which are
exactly 0 or 1 long before logits stop being informative. Input may be float16 or bfloat16; arithmetic is float32.

Functions of (logits [..., N, C], labels [N]) return [..., N] float32 and need C >= 2. `log_odds_*` functions take the
log-odds instead, so that one pass over the logits serves every score.

Source: IAM, section on signals (reference: feature_builder, rmia.convert_signals).
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from jaxunlearn import errors
from jaxunlearn.records import Array

# The published carlini logit adds the smallest float32 subnormal (1.4e-45) to both probabilities, hence this bound.
CARLINI_LIMIT = 103.27893
# Soft-margin signals subtract this from the true class (RMIA, appendix on signals).
MARGIN = 0.6
TINY = 1e-30
# Logits beyond this are scaled down before they are raised to the third power.
LARGEST = 1e10
# Log-odds from which 1 - p is 0 in float32, and from which exp(-c) is 0 in float64 (see `strict_confidence`).
SURE, VANISHED = 16.0, 700.0


@jax.jit
def log_odds(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Computes the unclipped log-odds of the true class, z_y - logsumexp over the others; higher = member.

    Args:
      logits: [..., N, C] float, C >= 2.
      labels: [N] int32.

    Returns:
      [..., N] float32, finite for finite logits.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.scores import signals
      >>> signals.log_odds(jnp.array([[3.0, 1.0]]), jnp.array([0])).tolist()
      [2.0]
    """
    logits = logits.astype(jnp.float32)
    hot = _hot(logits, labels)
    # The maximum over the OTHER classes keeps their sum exact where the true class towers above them.
    other_logits = jnp.where(hot, -jnp.inf, logits)
    top = jnp.max(other_logits, -1)
    return true_logit(logits, labels) - top - jnp.log(jnp.sum(jnp.exp(other_logits - top[..., None]), -1))


@jax.jit
def true_logit(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the raw logit of the true class (the signal of EMIA); higher = member."""
    index = jnp.broadcast_to(labels[..., None], (*logits.shape[:-1], 1))
    return jnp.take_along_axis(logits.astype(jnp.float32), index, -1)[..., 0]


@jax.jit
def carlini_logit(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Computes the log-odds of the true class clipped to +-103.279; higher = member.

    The clip is the bound of the published form, log(p + 1e-45) - log(1 - p + 1e-45), which XLA would flush to -inf.
    Source: Carlini et al., Membership Inference Attacks From First Principles, section IV; IAM, `carlini_logit`.
    """
    return log_odds_carlini(log_odds(logits, labels))


def log_odds_confidence(odds: Array) -> jax.Array:
    """Returns the confidence from log-odds."""
    return jax.nn.sigmoid(odds)


def log_odds_cross_entropy(odds: Array) -> jax.Array:
    """Returns the cross entropy from log-odds."""
    return jax.nn.softplus(-odds)


def strict_confidence(odds: Array) -> np.ndarray:
    """Computes the confidence from log-odds in float64, strictly increasing, so that it ranks as the log-odds do.

    It is within 1.2e-7 of the sigmoid. Where float32 would round to 1 (log-odds above 16), 1 - p falls as 1 / c instead
    of exp(-c), and so does p below -700: there the sigmoid is the same for all samples even in float64.
    """
    c = np.asarray(odds, np.float64)
    size = np.abs(c)
    edge = np.where(c > 0, SURE, VANISHED)
    tail = scipy.special.expit(-np.minimum(size, edge)) * np.minimum(1.0, edge / np.maximum(size, edge))
    return np.where(c > 0, 1.0 - tail, tail)


def strict_cross_entropy(odds: Array) -> np.ndarray:
    """Computes the cross entropy from log-odds in float64, strictly decreasing: above 700 as 1 / c, not exp(-c)."""
    c = np.asarray(odds, np.float64)
    return np.logaddexp(0.0, -np.minimum(c, VANISHED)) * np.minimum(1.0, VANISHED / np.maximum(c, VANISHED))


def log_odds_carlini(odds: Array) -> jax.Array:
    """Returns the clipped log-odds."""
    return jnp.clip(odds, -CARLINI_LIMIT, CARLINI_LIMIT)


def log_log(odds: Array, e1: Array | float, e2: Array | float) -> jax.Array:
    """Computes the log-log signal L(p) = -log(e1 - log(e2 + p)) of the confidence p, from log-odds; higher = member.

    Near p = 1 its slope is about 1 / e1, so 1 - p is computed from the log-odds, not by subtraction: the published
    float32 form is off by up to 1e-5 (normalised) there.

    Args:
      odds: [...] float32 log-odds.
      e1: > 0.
      e2: > 0 and below exp(e1) - 1 (see `check_log_log`).

    Returns:
      [...] float32. Source: IAM, section on the log-log signal.
    """
    near_one = jnp.log1p(e2 - jax.nn.sigmoid(-odds))
    near_zero = jnp.log(e2 + jax.nn.sigmoid(odds))
    return -jnp.log(e1 - jnp.where(odds > 0, near_one, near_zero))


def log_log_limits(e1: Array | float, e2: Array | float) -> tuple[jax.Array, jax.Array]:
    """Returns the log-log signal at p = 0 and at p = 1."""
    return -jnp.log(e1 - jnp.log(jnp.float32(e2))), -jnp.log(e1 - jnp.log1p(jnp.float32(e2)))


def log_log_normalised(odds: Array, e1: Array | float, e2: Array | float) -> jax.Array:
    """Computes the log-log signal scaled to [0, 1] by its values at p = 0 and p = 1."""
    low, high = log_log_limits(e1, e2)
    return (log_log(odds, e1, e2) - low) / (high - low)


def check_log_log(e1: float, e2: float) -> None:
    """Raises a ConfigError unless the log-log signal is defined up to p = 1: e1 > 0 and 0 < e2 < exp(e1) - 1."""
    if not (e1 > 0 and 0 < e2 < math.expm1(e1)):
        raise errors.ConfigError(
            f"e1 = {e1}, e2 = {e2}: the log-log signal needs e1 > 0 and 0 < e2 < exp(e1) - 1 = "
            f"{math.expm1(max(e1, 0)):.3g}; published: e1 = 0.01, e2 = 1e-5."
        )


@jax.jit
def softmax(logits: jax.Array, labels: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """Computes the RMIA signal "softmax": the confidence of logits / temperature, in [0, 1]."""
    return log_odds_confidence(log_odds(logits.astype(jnp.float32) / temperature, labels))


@jax.jit
def taylor(logits: jax.Array, labels: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """Computes the RMIA signal "taylor", a softmax with exp replaced by a cubic, in [0, 1]; ignores the temperature.

    Differs from the published code where a logit lies below -1 (see `_positive_taylor`); `published_taylor` does not.
    """
    del temperature
    return _taylor_share(logits.astype(jnp.float32), labels, 0.0)


@jax.jit
def published_taylor(logits: jax.Array, labels: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """Computes `taylor` with the published polynomial.

    It is not a probability: the polynomial is negative below -1.596, so values outside [0, 1] occur for ordinary
    logits, and where the true logit is low enough the sample scores as a member.
    """
    del temperature
    logits = logits.astype(jnp.float32)
    return _ratio(_taylor(true_logit(logits, labels)), jnp.sum(_taylor(logits), -1))


@jax.jit
def soft_margin(logits: jax.Array, labels: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """Computes the RMIA signal "soft_margin", a softmax with a margin of 0.6 off the true class; never overflows."""
    return log_odds_confidence(log_odds(logits.astype(jnp.float32) / temperature, labels) - MARGIN)


@jax.jit
def taylor_soft_margin(logits: jax.Array, labels: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """Computes the RMIA signal "tsm", the default: `taylor` of logits / temperature with a margin of 0.6.

    The margin is subtracted from the true class. Differs from the published code where a logit lies below -1;
    `published_taylor_soft_margin` does not.
    """
    return _taylor_share(logits.astype(jnp.float32) / temperature, labels, MARGIN)


@jax.jit
def published_taylor_soft_margin(
    logits: jax.Array, labels: jax.Array, temperature: jax.Array | float = 1.0
) -> jax.Array:
    """Computes `taylor_soft_margin` with the published polynomial; no probability (see `published_taylor`).

    The sum runs over the other classes, which avoids cancellation.
    """
    scaled = logits.astype(jnp.float32) / temperature
    true_value = _taylor(true_logit(scaled, labels) - MARGIN)
    other_sum = jnp.sum(jnp.where(_hot(scaled, labels), 0.0, _taylor(scaled)), -1)
    return _ratio(true_value, true_value + other_sum)


@jax.jit
def log_logit_scaling(logits: jax.Array, labels: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """Computes the RMIA signal "log-logit-scaling", the carlini logit; ignores the temperature."""
    del temperature
    return carlini_logit(logits, labels)


RMIA_SIGNALS: dict[str, Callable[..., jax.Array]] = {
    "softmax": softmax,
    "taylor": taylor,
    "soft_margin": soft_margin,
    "taylor_soft_margin": taylor_soft_margin,
    "carlini_logit": log_logit_scaling,
}
# What compat = "faithful" computes.
PUBLISHED_RMIA_SIGNALS = RMIA_SIGNALS | {
    "taylor": published_taylor,
    "taylor_soft_margin": published_taylor_soft_margin,
}


def _hot(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.arange(logits.shape[-1]) == labels[..., None]


def _taylor(u: jax.Array) -> jax.Array:
    return 1.0 + u * (1.0 + u * (0.5 + u / 6.0))


def _positive_taylor(u: jax.Array) -> jax.Array:
    """Computes the Taylor polynomial of exp down to -1; below, a decreasing tail of the same value and slope.

    The polynomial itself turns negative at -1.596 and falls as u^3, so that an impossible class would weigh as much as
    a certain one. The tail (1 / 3) / polynomial(1.5 (-1 - u)) stays positive and goes to 0.
    """
    tail = (1.0 / 3.0) / _taylor(1.5 * (-1.0 - jnp.minimum(u, -1.0)))
    return jnp.where(u > -1.0, _taylor(jnp.maximum(u, -1.0)), tail)


def _taylor_share(scaled: jax.Array, labels: jax.Array, margin: float) -> jax.Array:
    """Computes the true class's share [..., N] of the sum of `_positive_taylor` over classes, in [0, 1]."""
    # u^3 overflows beyond 1e12. Far out the polynomial is homogeneous: a smaller row has the same shares.
    largest = jnp.max(jnp.abs(scaled), -1, keepdims=True)
    scaled = scaled / jnp.maximum(largest / LARGEST, 1.0)
    true_value = _positive_taylor(true_logit(scaled, labels) - margin)
    return true_value / (true_value + jnp.sum(jnp.where(_hot(scaled, labels), 0.0, _positive_taylor(scaled)), -1))


@partial(jax.jit, inline=True)
def _ratio(value: jax.Array, total: jax.Array) -> jax.Array:
    # The polynomials can cancel to exactly 0, where the published form is infinite or NaN.
    return value / jnp.where(jnp.abs(total) < TINY, TINY, total)
