"""Threshold rules that tell two groups of models apart, per sample: jitted, counted without sorting, exact with ties.

    logits [S, N, C] --margins, losses--> [S, N] --gaussian_log_ratio--> scores [S, N] --rules--> error counts [S, T]

All pairs of scores of a sample are compared, in blocks of samples that stay in the cache: 25 million comparisons for
1,000 samples of 80 + 80 models take less time than sorting. `epsilon` and `epsilon_bounds` convert counts to epsilon.

Source: Forget with Precision, section on the metric.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Logits lie at most this far below the largest one of their row: masked classes (-inf) do not make margins infinite.
LARGEST_LOGIT = 1e6
# Standard deviation of a group of equal values, times max(1, |value|).
LEAST_SPREAD = 1e-6
_BLOCK = 16  # samples whose comparisons stay in the cache together


class Fit(NamedTuple):
    """A Gaussian per sample: mean and standard deviation (ddof 0) [S, 1] float32."""

    mean: jax.Array
    std: jax.Array


@jax.jit
def margins(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Computes the logit of the true class minus the largest other one ("hinge loss"); higher = surer and correct.

    Args:
      logits: [S, N, C] float, C >= 2; -inf counts as LARGEST_LOGIT below the largest logit of the row.
      labels: [S] int.

    Returns:
      [S, N] float32.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.epsilon import attack_rules
      >>> attack_rules.margins(np.array([[[3.0, 1.0, 0.0]]]), np.array([0])).tolist()
      [[2.0]]
    """
    values = _shifted(logits)
    is_true = jnp.arange(values.shape[-1]) == labels[:, None, None]
    return _true_logit(values, labels) - jnp.max(jnp.where(is_true, -jnp.inf, values), -1)


@jax.jit
def losses(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Computes cross entropies [S, N] float32 of logits [S, N, C] for labels [S]; higher = less confident in the label.

    In float32 the losses of confident models tie at a few values near 0, and rules depend on ties. So the sum runs over
    the classes in order, as published: exact losses change epsilon for 1 sample in 100 of the published models.
    """
    shifted = _shifted(logits)
    start = jnp.zeros(shifted.shape[:-1], jnp.float32)
    total = jax.lax.scan(lambda total, term: (total + term, None), start, jnp.moveaxis(jnp.exp(shifted), -1, 0))[0]
    return jnp.log(total) - _true_logit(shifted, labels)


def _shifted(logits: jax.Array) -> jax.Array:
    """Subtracts the largest logit of each row: float32 in [-LARGEST_LOGIT, 0]; differences are unchanged."""
    values = logits.astype(jnp.float32)
    largest = jnp.max(values, -1, keepdims=True)
    # The largest are 0 by definition: infinity minus infinity is not.
    return jnp.clip(jnp.where(values == largest, 0.0, values - largest), -LARGEST_LOGIT, 0.0)


def _true_logit(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.take_along_axis(logits, labels[:, None, None].astype(jnp.int32), -1)[..., 0]


@jax.jit
def fit(values: jax.Array) -> Fit:
    """Fits a Gaussian to each sample's values [S, N]; equal values get a standard deviation of LEAST_SPREAD."""
    mean = jnp.mean(values, -1, keepdims=True)
    std = jnp.sqrt(jnp.mean((values - mean) ** 2, -1, keepdims=True))
    # Compared value by value: the mean of equal float32 numbers need not equal them.
    is_constant = jnp.all(values == values[:, :1], -1, keepdims=True)
    mean = jnp.where(is_constant, values[:, :1], mean)
    floor = LEAST_SPREAD * jnp.maximum(1.0, jnp.abs(mean))
    return Fit(mean, jnp.where(is_constant, floor, jnp.maximum(std, jnp.finfo(jnp.float32).tiny)))


@jax.jit
def log_ratio(values: jax.Array, retrained: Fit, unlearned: Fit) -> jax.Array:
    """Computes the log of the unlearned over the retrained density at values [S, N]; higher = looks unlearned."""

    def log_density(gaussian: Fit) -> jax.Array:
        return -0.5 * ((values - gaussian.mean) / gaussian.std) ** 2 - jnp.log(gaussian.std)

    return log_density(unlearned) - log_density(retrained)


@jax.jit
def gaussian_log_ratio(retrained: jax.Array, unlearned: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes attack scores of both groups, fitted to the same values: [S, Nr], [S, Nu] -> the same shapes."""
    fits = fit(retrained), fit(unlearned)
    return log_ratio(retrained, *fits), log_ratio(unlearned, *fits)


def count_at_least(thresholds: jax.Array, *groups: jax.Array) -> tuple[jax.Array, ...]:
    """Counts, in each group of scores [S, N], those at or above thresholds [S, T]: [S, T] int32 per group."""

    def count_sample(row: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        cutoffs, *scores = row
        return tuple(jnp.sum(group[None] >= cutoffs[:, None], -1, dtype=jnp.int32) for group in scores)

    return jax.lax.map(count_sample, (thresholds, *groups), batch_size=_BLOCK)


def _median(scores: jax.Array, self_counts: jax.Array, is_log: bool) -> jax.Array:
    """Returns [S] numbers in the order of the medians of scores [S, N], or with `is_log` of exp(scores).

    The k-th largest score is the largest one with `self_counts` >= k, of `count_at_least` among the scores themselves;
    counting is faster here than sorting.
    """
    n = scores.shape[-1]
    middle = [jnp.max(jnp.where(self_counts >= k, scores, -jnp.inf), -1) for k in (n // 2 + 1, (n + 1) // 2)]
    # For even N the median is the mean of two ratios, not of their logarithms, and both may exceed float32.
    return jnp.logaddexp(*middle) if is_log else middle[0] + middle[1]


def errors_of(
    retrained: jax.Array, unlearned: jax.Array, sizes: tuple[int, int], is_retrained_positive: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Counts the misclassified retrained and unlearned models [S, T] of rules.

    Args:
      retrained: [S, T] int32, number of retrained models that a rule calls positive.
      unlearned: [S, T] int32, number of unlearned models that it calls positive.
      sizes: (Nr, Nu).
      is_retrained_positive: [S] bool, whether positive means retrained.
    """
    is_positive = is_retrained_positive[:, None]
    wrong = jnp.where(is_positive, sizes[0] - retrained, retrained)
    return wrong, jnp.where(is_positive, unlearned, sizes[1] - unlearned)


def rules(retrained: jax.Array, unlearned: jax.Array, is_log: bool) -> tuple[jax.Array, ...]:
    """Returns the threshold rules of scores [S, Nr] and [S, Nu], and their errors on the same models.

    Returns:
      (thresholds [S, T], wrong retrained [S, T], wrong unlearned [S, T], retrained_is_positive [S]).
    """
    sizes = retrained.shape[1], unlearned.shape[1]
    thresholds = jnp.concatenate([retrained, unlearned], -1)
    retrained_counts, unlearned_counts = count_at_least(thresholds, retrained, unlearned)
    is_positive = _median(retrained, retrained_counts[:, : sizes[0]], is_log) > _median(
        unlearned, unlearned_counts[:, sizes[0] :], is_log
    )
    return (thresholds, *errors_of(retrained_counts, unlearned_counts, sizes, is_positive), is_positive)


@partial(jax.jit, static_argnames="score")
def error_counts(retrained: jax.Array, unlearned: jax.Array, score: str) -> tuple[jax.Array, ...]:
    """Computes the errors of the rules on a statistic [S, Nr], [S, Nu]: the arrays of `epsilon.Counts`."""
    value = retrained[:, :1]
    is_same = jnp.all(retrained == value, -1) & jnp.all(unlearned == value, -1)
    is_log = score == "gaussian"
    first, second = gaussian_log_ratio(retrained, unlearned) if is_log else (retrained, unlearned)
    return (*rules(first, second, is_log)[1:], is_same)
