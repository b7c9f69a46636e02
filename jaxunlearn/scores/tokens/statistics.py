"""One pass over the tokens: from [N, T] arrays of the audited model to statistics per text.

Sums of the k least likely tokens need only the k-th smallest value. It is found by bisection on the bits of the floats,
32 counts per value and all values of a text at once, which vectorises; XLA's sort of rows is 2.6 times slower on a CPU
(10,000 x 512, four values of k: 0.25 s, one sort 0.65 s, one core of an AMD EPYC).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.records import Array
from jaxunlearn.scores.tokens.options import TokenOptions

ROWS = 128  # texts at a time inside a program
BLOCK_BYTES = 32 * 2**20  # of one array, at a time from a file
NO_SURP = -100.0  # SURP of a text without a token to count, as published
SMALLEST_STD = 1e-8  # of log p: a distribution on one token has deviation 0
DEFAULT = TokenOptions()


class TextSignals(NamedTuple):
    """Statistics per text of the audited model in addition to its loss; each [N] float32, or None.

    Attributes:
      min_k: mean of the k % smallest log-probabilities.
      min_k_pp: the same of (log p - mean) / deviation with moments under the model; `min_k_pp_vocab`: with plain
        moments over the vocabulary.
      surp: mean log-probability of those among the smallest whose prediction was sure.
      pac_distance: mean of the largest minus mean of the smallest log-probabilities; `pac_augmented`: its mean over
        edited copies of the text.
      deflated: compressed bytes per character.
      nll_lower: loss of the text in lower case.
      nll_recall, nll_recall_member: loss with a prefix of non-members, of members.
      nll_neighbours: mean loss of neighbours.
    """

    min_k: Array | None = None
    min_k_pp: Array | None = None
    min_k_pp_vocab: Array | None = None
    surp: Array | None = None
    pac_distance: Array | None = None
    pac_augmented: Array | None = None
    deflated: Array | None = None
    nll_lower: Array | None = None
    nll_recall: Array | None = None
    nll_recall_member: Array | None = None
    nll_neighbours: Array | None = None


@jax.jit
def nll(logp: Array, mask: Array, ignore_prefix: Array | None = None) -> jax.Array:
    """Computes the mean loss per text; LOWER = more like a member.

    Args:
      logp: [..., N, T] log-probabilities; values at masked places are ignored.
      mask: [N, T] 1 = counts.
      ignore_prefix: [N] predictions left out at the start of each row (a prompt).

    Returns:
      [..., N]; NaN for a text without a prediction that counts.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.scores import tokens
      >>> tokens.nll(np.array([[-1.0, -3.0, -5.0]]), np.array([[1, 1, 0]])).tolist()
      [2.0]
    """
    is_counted = jnp.asarray(mask, bool)
    if ignore_prefix is not None:
        is_counted = is_counted & (jnp.arange(is_counted.shape[-1]) >= jnp.asarray(ignore_prefix)[:, None])
    logp = jnp.asarray(logp)
    dtype = jnp.promote_types(logp.dtype, jnp.float32)
    return -jnp.sum(jnp.where(is_counted, logp.astype(dtype), 0.0), -1) / jnp.sum(is_counted, -1).astype(dtype)


def summarise(
    logp: Array,
    mask: Array,
    options: TokenOptions = DEFAULT,
    *,
    entropy: Array | None = None,
    model_std: Array | None = None,
    vocab_mean: Array | None = None,
    vocab_std: Array | None = None,
) -> tuple[jax.Array, TextSignals]:
    """Computes all statistics of the tokens of one model in one program.

    Args:
      logp: [N, T] float log-probabilities.
      mask: [N, T] 1 = counts.
      options: fractions of tokens.
      entropy: [N, T] as in `extraction.TokenSignals`; statistics that need a missing array are None.
      model_std: [N, T] as above.
      vocab_mean: [N, T] as above.
      vocab_std: [N, T] as above.

    Returns:
      (nll [N], TextSignals). A text depends on its own tokens only, not on T. Of n tokens that count, max(1, int(k n))
      are taken. A text without any has NaN everywhere. Faithful: int(k n), NaN where that is 0; see `TokenOptions`.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.scores import tokens
      >>> loss, signals = tokens.summarise(np.array([[-1.0, -3.0]]), np.array([[1, 1]]))
      >>> loss.tolist(), signals.min_k.tolist()
      ([2.0], [-3.0])
    """
    moments = (entropy, model_std, vocab_mean, vocab_std)
    available = {name: moment for name, moment in zip(_MOMENTS, moments, strict=True) if moment is not None}
    return _summarise(jnp.asarray(logp), jnp.asarray(mask, bool), available, options)


_MOMENTS = ("entropy", "model_std", "vocab_mean", "vocab_std")


@partial(jax.jit, static_argnames=("options",))
def _summarise(
    logp: jax.Array, mask: jax.Array, moments: dict[str, jax.Array], options: TokenOptions
) -> tuple[jax.Array, TextSignals]:
    count, length = logp.shape
    rows = min(ROWS, max(count, 1))
    blocks = -(-count // rows)

    def split(array: jax.Array) -> jax.Array:
        return jnp.pad(array, ((0, blocks * rows - count), (0, 0))).reshape(blocks, rows, length)

    chunks = jax.tree.map(split, (logp, mask, moments))
    out = jax.lax.map(lambda chunk: _block(chunk[0], chunk[1], chunk[2], options), chunks)
    return jax.tree.map(lambda leaf: leaf.reshape(-1)[:count], out)


def _block(
    logp: jax.Array, mask: jax.Array, moments: dict[str, jax.Array], options: TokenOptions
) -> tuple[jax.Array, TextSignals]:
    """Computes the statistics of a block of texts [B, T]."""
    logp = jnp.where(mask, logp.astype(jnp.float32), 0.0)
    num_tokens = jnp.sum(mask, -1)
    minimum = 0 if options.is_faithful else 1

    def token_count(fraction: float, is_per_cent: bool = True) -> jax.Array:
        """Returns [B] how many tokens a fraction of each text is, by Python's rounding."""
        share = fraction / 100 if is_per_cent else fraction
        table = np.array([min(n, max(minimum, int(share * n))) for n in range(logp.shape[1] + 1)], np.int32)
        return jnp.asarray(table)[num_tokens]

    def smallest(values: jax.Array, counts: jax.Array) -> jax.Array:
        return mean_of_smallest(jnp.where(mask, values, jnp.inf), counts)

    k, entropy = token_count(options.k), moments.get("entropy")
    signals = TextSignals(min_k=smallest(logp, k), pac_distance=_polarized(logp, mask, token_count, options))
    if entropy is not None:
        bound = kth_smallest(jnp.where(mask, logp, jnp.inf), token_count(options.surp_k))
        is_unlikely = mask & (logp <= bound[:, None]) & (token_count(options.surp_k) > 0)[:, None]
        is_counted = is_unlikely & (entropy < options.surp_entropy)
        total, hits = jnp.sum(jnp.where(is_counted, logp, 0.0), -1), jnp.sum(is_counted, -1)
        surp = jnp.where(hits > 0, total / jnp.maximum(hits, 1), NO_SURP)
        signals = signals._replace(surp=jnp.where(num_tokens > 0, surp, jnp.nan))
        if "model_std" in moments:
            standardised = (logp + entropy) / jnp.maximum(moments["model_std"], SMALLEST_STD)
            signals = signals._replace(min_k_pp=smallest(standardised, k))
    if "vocab_mean" in moments and "vocab_std" in moments:
        standardised = (logp - moments["vocab_mean"]) / jnp.maximum(moments["vocab_std"], SMALLEST_STD)
        signals = signals._replace(min_k_pp_vocab=smallest(standardised, k))
    return nll(logp, mask), signals


def _polarized(
    logp: jax.Array, mask: jax.Array, token_count: Callable[..., jax.Array], options: TokenOptions
) -> jax.Array:
    """Computes the mean of the largest minus the mean of the smallest log-probabilities [B] (PAC)."""
    low, high = token_count(options.pac_low, False), token_count(options.pac_high, False)
    bottom = mean_of_smallest(jnp.where(mask, logp, jnp.inf), low)
    if not options.is_faithful:
        return -mean_of_smallest(jnp.where(mask, -logp, jnp.inf), high) - bottom
    # As published, padding has log-probability 0, and the last 0 values of an array are the whole array.
    return -mean_of_smallest(-logp, jnp.where(high == 0, logp.shape[1], high)) - bottom


def mean_of_smallest(values: jax.Array, counts: jax.Array) -> jax.Array:
    """Computes the mean [B] of the counts[b] smallest of [B, T] float32 values; NaN where that is 0."""
    bound = kth_smallest(values, counts)
    is_below = values < bound[:, None]
    total = jnp.sum(jnp.where(is_below, values, 0.0), -1)
    remaining = counts - jnp.sum(is_below, -1)
    total = total + jnp.where(remaining > 0, remaining * jnp.where(remaining > 0, bound, 0.0), 0.0)
    return jnp.where(counts > 0, total / jnp.maximum(counts, 1), jnp.nan)


def kth_smallest(values: jax.Array, counts: jax.Array) -> jax.Array:
    """Returns the counts[b]-th smallest (from 1) of [B, T] float32 values without NaN; undefined where it is 0."""
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    ordered_bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # integers in the order of the floats

    def halve(step: jax.Array, low: jax.Array) -> jax.Array:
        middle = low + jnp.left_shift(jnp.int32(1), 31 - step)  # the first step wraps from the least number to 0
        below = jnp.sum(ordered_bits < middle[:, None], -1, dtype=jnp.int32)
        return jnp.where(below < counts, middle, low)

    low = jnp.full(values.shape[:1], jnp.iinfo(jnp.int32).min, jnp.int32)
    kth = jax.lax.fori_loop(0, 32, halve, low)
    return jax.lax.bitcast_convert_type(kth ^ ((kth >> 31) & 0x7FFFFFFF), jnp.float32)
