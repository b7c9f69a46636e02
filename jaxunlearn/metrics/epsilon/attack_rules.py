"""Threshold rules that tell two groups of models apart, per sample: jitted, counted without sorting, exact with ties.

    logits [S, N, C] --margins, losses--> [S, N] --gaussian_log_ratio--> scores [S, N] --rules--> error counts [S, T]

Everything compares all pairs of scores of a sample, in blocks of samples that stay in the cache: 25 million comparisons
for 1,000 samples of 80 + 80 models take less time than sorting. `epsilon` and `epsilon_bounds` make numbers of the
counts.

Source: Forget with Precision, section on the metric.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

# A logit further than this below the largest one of its row counts as so far below: masked classes (-inf) do not make
# margins infinite.
LARGEST_LOGIT = 1e6
# A group without spread gets this one, times max(1, |its value|).
LEAST_SPREAD = 1e-6
_BLOCK = 16  # samples whose comparisons stay in the cache together


class Fit(NamedTuple):
    """A Gaussian per sample: mean and standard deviation (ddof 0) [S, 1] float32."""

    mean: jax.Array
    std: jax.Array


@jax.jit
def margins(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Logit of the true class minus the largest other one ("hinge loss"); higher = surer and right.

    Args:
      logits: [S, N, C] float, C >= 2; -inf counts as LARGEST_LOGIT below the largest logit of the row.
      labels: [S] int.

    Returns:
      [S, N] float32.
    """
    values = _shifted(logits)
    is_true = jnp.arange(values.shape[-1]) == labels[:, None, None]
    return _true_logit(values, labels) - jnp.max(jnp.where(is_true, -jnp.inf, values), -1)


@jax.jit
def losses(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """[S, N] float32 cross entropies of logits [S, N, C] under labels [S]; higher = less sure of the label.

    In float32 sure models tie at a few values near 0, and ties decide about rules, so the sum runs over the classes in
    order, as the published one does: exact losses give other values for 1 sample in 100 of the published models.
    """
    shifted = _shifted(logits)
    start = jnp.zeros(shifted.shape[:-1], jnp.float32)
    total = jax.lax.scan(lambda sum, one: (sum + one, None), start, jnp.moveaxis(jnp.exp(shifted), -1, 0))[0]
    return jnp.log(total) - _true_logit(shifted, labels)


def _shifted(logits: jax.Array) -> jax.Array:
    """Logits minus the largest one of their row, float32 in [-LARGEST_LOGIT, 0]: differences stay what they are."""
    values = logits.astype(jnp.float32)
    top = jnp.max(values, -1, keepdims=True)
    # The largest are 0 by definition: infinity minus infinity is not.
    return jnp.clip(jnp.where(values == top, 0.0, values - top), -LARGEST_LOGIT, 0.0)


def _true_logit(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.take_along_axis(logits, labels[:, None, None].astype(jnp.int32), -1)[..., 0]


@jax.jit
def fit(values: jax.Array) -> Fit:
    """The Gaussian of each sample's values [S, N]; one without spread gets the least one that still works."""
    mean = jnp.mean(values, -1, keepdims=True)
    spread = jnp.sqrt(jnp.mean((values - mean) ** 2, -1, keepdims=True))
    # By comparison: the mean of equal float32 numbers need not equal them.
    is_constant = jnp.all(values == values[:, :1], -1, keepdims=True)
    mean = jnp.where(is_constant, values[:, :1], mean)
    least = LEAST_SPREAD * jnp.maximum(1.0, jnp.abs(mean))
    return Fit(mean, jnp.where(is_constant, least, jnp.maximum(spread, jnp.finfo(jnp.float32).tiny)))


@jax.jit
def log_ratio(values: jax.Array, retrained: Fit, unlearned: Fit) -> jax.Array:
    """Log of the unlearned over the retrained density at values [S, N]; higher = looks unlearned."""

    def log_density(own: Fit) -> jax.Array:
        return -0.5 * ((values - own.mean) / own.std) ** 2 - jnp.log(own.std)

    return log_density(unlearned) - log_density(retrained)


@jax.jit
def gaussian_log_ratio(retrained: jax.Array, unlearned: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Attack scores of both groups, fitted to these very values: [S, Nr], [S, Nu] -> the same shapes."""
    fits = fit(retrained), fit(unlearned)
    return log_ratio(retrained, *fits), log_ratio(unlearned, *fits)


def above(thresholds: jax.Array, *groups: jax.Array) -> tuple[jax.Array, ...]:
    """For thresholds [S, T] and groups of scores [S, N]: how many scores of each are at least that, [S, T] int32."""

    def one(line: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        at, *scores = line
        return tuple(jnp.sum(group[None] >= at[:, None], -1, dtype=jnp.int32) for group in scores)

    return jax.lax.map(one, (thresholds, *groups), batch_size=_BLOCK)


def _median(scores: jax.Array, own_above: jax.Array, is_log: bool) -> jax.Array:
    """[S] numbers ordered as medians of scores [S, N] are (with `is_log`, of exp(scores)), from `above` of themselves.

    The k-th largest score is the largest one that at least k scores reach; counting is faster here than sorting.
    """
    n = scores.shape[-1]
    middle = [jnp.max(jnp.where(own_above >= k, scores, -jnp.inf), -1) for k in (n // 2 + 1, (n + 1) // 2)]
    # For even N the median is the mean of two ratios, not of their logarithms, and both may exceed float32.
    return jnp.logaddexp(*middle) if is_log else middle[0] + middle[1]


def errors_of(
    retrained: jax.Array, unlearned: jax.Array, sizes: tuple[int, int], is_retrained_positive: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Wrong retrained and wrong unlearned models [S, T] of rules, from how many of each group they call positive."""
    is_positive = is_retrained_positive[:, None]
    wrong = jnp.where(is_positive, sizes[0] - retrained, retrained)
    return wrong, jnp.where(is_positive, unlearned, sizes[1] - unlearned)


def rules(retrained: jax.Array, unlearned: jax.Array, is_log: bool) -> tuple[jax.Array, ...]:
    """The threshold rules of scores [S, Nr] and [S, Nu], and what they do to these very models.

    Returns:
      (thresholds [S, T], wrong retrained [S, T], wrong unlearned [S, T], retrained_is_positive [S]).
    """
    sizes = retrained.shape[1], unlearned.shape[1]
    thresholds = jnp.concatenate([retrained, unlearned], -1)
    over, over_too = above(thresholds, retrained, unlearned)
    is_positive = _median(retrained, over[:, : sizes[0]], is_log) > _median(unlearned, over_too[:, sizes[0] :], is_log)
    return (thresholds, *errors_of(over, over_too, sizes, is_positive), is_positive)


@partial(jax.jit, static_argnames="score")
def error_counts(retrained: jax.Array, unlearned: jax.Array, score: str) -> tuple[jax.Array, ...]:
    """Errors of the rules of a statistic [S, Nr], [S, Nu]: the arrays of `epsilon.Counts`, all but sizes."""
    value = retrained[:, :1]
    is_same = jnp.all(retrained == value, -1) & jnp.all(unlearned == value, -1)
    is_log = score == "gaussian"
    first, second = gaussian_log_ratio(retrained, unlearned) if is_log else (retrained, unlearned)
    return (*rules(first, second, is_log)[1:], is_same)
