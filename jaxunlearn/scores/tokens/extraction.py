"""Signals per token from the logits of a causal language model, all in one forward pass.

Logits at position j predict token j + 1, so T tokens have T - 1 predictions. A prediction counts where both tokens are
real (the published code looks at token j only, which counts a padding token as target in every row that is not the
longest of its batch: a text's loss then depends on the other rows; `pad_target` repeats that).

    signals = tokens.extract(model.apply, params, ids, mask)
    np.savez("tokens.npz", token_logp_target=signals.logp, mask=signals.mask, entropy=signals.entropy, ...)
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.records import Array


class TokenSignals(NamedTuple):
    """What scores read of the predictions of one model; every field [N, T - 1], 0 where `mask` is False.

    Attributes:
      logp: natural log-probability of the token that came.
      entropy: of the predicted distribution p, in nats; minus the mean of log p under p.
      model_std: standard deviation of log p under p (Min-K++ as published in its paper).
      vocab_mean, vocab_std: plain mean and unbiased deviation of log p over the vocabulary (Min-K++ as in released
        benchmark code).
      right: 1 where the token that came was the likeliest, else 0; no score reads it.
      mask: bool, whether the prediction counts.
    """

    logp: Array
    entropy: Array
    model_std: Array
    vocab_mean: Array
    vocab_std: Array
    right: Array
    mask: Array


_RECORDED = TokenSignals._fields[:-1]  # the mask follows from the tokens


@partial(jax.jit, static_argnames=("pad_target",))
def from_logits(logits: jax.Array, ids: jax.Array, mask: jax.Array, *, pad_target: bool = False) -> TokenSignals:
    """Computes the signals of a batch, position after position: beyond the logits, memory for one of them.

    Args:
      logits: [B, T, V] float of any width; arithmetic is float32.
      ids: [B, T] int token ids.
      mask: [B, T] 1 = real token; padding may stand on either side.
      pad_target: a prediction counts where its input is a real token, whatever its target is, as published.

    Returns:
      TokenSignals [B, T - 1]; a row depends on its own tokens only. Texts of one token or none have no prediction.

    Raises:
      ShapeError: arrays that do not fit together.
    """
    checks.shape("BTV BT BT", logits=logits, ids=ids, mask=mask)
    length = max(logits.shape[1] - 1, 0)
    real = mask.astype(bool)
    counts = real[:, :length] if pad_target else real[:, :length] & real[:, 1:]
    targets = ids[:, 1:]
    if not length:
        empty = jnp.zeros(counts.shape, jnp.float32)
        return TokenSignals(*(*[empty] * len(_RECORDED), counts))

    def position(j: jax.Array) -> tuple[jax.Array, ...]:
        read = jax.nn.log_softmax(logits[:, j].astype(jnp.float32), -1)
        p = jnp.exp(read)
        # p log p is 0 where a logit is -inf (tokens that a model cannot emit); such tokens are no part of the moments.
        known = jnp.isfinite(read)
        finite = jnp.where(known, read, 0.0)
        mean = jnp.sum(p * finite, -1)
        variance = jnp.sum(p * (finite - mean[:, None]) ** 2, -1)
        number = jnp.sum(known, -1)
        plain = jnp.sum(finite, -1) / number
        square = jnp.sum(jnp.where(known, (finite - plain[:, None]) ** 2, 0.0), -1) / jnp.maximum(number - 1, 1)
        logp = jnp.take_along_axis(read, targets[:, j, None], -1)[:, 0]
        hit = (jnp.argmax(read, -1) == targets[:, j]).astype(jnp.float32)
        return logp, -mean, jnp.sqrt(variance), plain, jnp.sqrt(square), hit

    fields = jax.lax.map(position, jnp.arange(length))
    signals = [jnp.where(counts, field.T, 0.0) for field in fields]
    return TokenSignals(*(*signals, counts))


def width(length: int) -> int:
    """How many numbers `recorded` makes of a text of so many tokens."""
    return len(_RECORDED) * (length - 1)


def recorded(logits: jax.Array, ids: jax.Array) -> jax.Array:
    """Signals of all predictions of a batch side by side, as a run folder keeps them.

    Args:
      logits: [B, T, V].
      ids: [B, T] int token ids, -1 = padding at the end.

    Returns:
      [B, 6 * (T - 1)] float32: logp, entropy, model_std, vocab_mean, vocab_std, right, each of T - 1 positions.
    """
    signals = from_logits(logits, ids, ids >= 0)
    return jnp.concatenate([getattr(signals, name) for name in _RECORDED], -1)


def unpacked(values: Array, mask: Array) -> TokenSignals:
    """The signals from what `recorded` made.

    Args:
      values: [..., N, 6 * (T - 1)].
      mask: [N, T - 1] bool, the predictions that count (a prompt's do not).
    """
    fields = np.split(np.asarray(values, np.float32), len(_RECORDED), axis=-1)
    return TokenSignals(*(*(np.where(mask, field, np.float32(0)) for field in fields), np.asarray(mask, bool)))


def extract(
    apply_fn: Callable[[Any, jax.Array, jax.Array], jax.Array],
    params: Any,
    ids: Any,
    mask: Any,
    *,
    batch: int = 8,
    pad_target: bool = False,
) -> TokenSignals:
    """Runs a model over all texts, batch after batch, and keeps the signals per token only.

    Args:
      apply_fn: (params, ids [B, T], mask [B, T]) -> logits [B, T, V]; traced. Models of one architecture share one
        program where the same function is given for all of them.
      params: whatever `apply_fn` takes.
      ids: [N, T] int token ids.
      mask: [N, T] 1 = real token.
      batch: texts per forward pass.
      pad_target: see `from_logits`.

    Returns:
      TokenSignals of NumPy arrays [N, T - 1].

    Raises:
      ShapeError, DataError: ids and mask that do not fit together, or are no whole numbers.

    Example:
      >>> import numpy as np
      >>> follows = np.log(np.array([[0.1, 0.9], [0.5, 0.5]], np.float32))  # of two tokens, each by the one before
      >>> found = extract(lambda table, ids, mask: table[ids], follows, np.array([[0, 1, 1]]), np.ones((1, 3), int))
      >>> np.exp(found.logp).round(2).tolist()
      [[0.8999999761581421, 0.5]]
    """
    ids, mask = np.asarray(ids), np.asarray(mask)
    sizes = checks.shape("NT NT", ids=ids, mask=mask)
    checks.in_range("batch", batch, 1)
    if ids.dtype.kind not in "iu":
        raise errors.DataError(f"ids have dtype {ids.dtype}, expected whole numbers: the tokenizer's ids.")
    if sizes["N"] == 0:
        raise errors.ShapeError(f"ids hold no text: they have shape {ids.shape}.")
    params = jax.tree.map(jnp.asarray, params)
    blocks = []
    for start in range(0, len(ids), batch):
        # The last batch is filled up with its own first text, so that one program serves all.
        rows = np.arange(start, start + batch)
        rows = np.where(rows < len(ids), rows, start)
        signals = _one_pass(apply_fn, params, ids[rows].astype(np.int32), mask[rows], pad_target)
        blocks.append(TokenSignals(*(np.asarray(field)[: len(ids) - start] for field in signals)))
    return jax.tree.map(lambda *fields: np.concatenate(fields), *blocks)


@partial(jax.jit, static_argnums=(0, 4))
def _one_pass(
    apply_fn: Callable[..., jax.Array], params: Any, ids: jax.Array, mask: jax.Array, pad_target: bool
) -> TokenSignals:
    return from_logits(apply_fn(params, ids, mask), ids, mask, pad_target=pad_target)
