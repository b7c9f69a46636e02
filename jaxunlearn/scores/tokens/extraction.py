"""Signals per token from the logits of a causal language model, all in one forward pass.

Logits at position j predict token j + 1, so T tokens have T - 1 predictions. A prediction counts where both tokens are
real (the published code looks at token j only, which counts a padding token as target in every row that is not the
longest of its batch: a text's loss then depends on the other rows; `pad_target` repeats that).

    signals = tokens.extract(lambda ids, mask: model.apply(params, ids, mask), ids, mask)
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
      mask: bool, whether the prediction counts.
    """

    logp: Array
    entropy: Array
    model_std: Array
    vocab_mean: Array
    vocab_std: Array
    mask: Array


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
        return TokenSignals(empty, empty, empty, empty, empty, counts)

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
        return logp, -mean, jnp.sqrt(variance), plain, jnp.sqrt(square)

    fields = jax.lax.map(position, jnp.arange(length))
    signals = [jnp.where(counts, field.T, 0.0) for field in fields]
    return TokenSignals(signals[0], signals[1], signals[2], signals[3], signals[4], counts)


def extract(
    apply_fn: Callable[[jax.Array, jax.Array], jax.Array],
    ids: Any,
    mask: Any,
    *,
    batch: int = 8,
    pad_target: bool = False,
) -> TokenSignals:
    """Runs a model over all texts, batch after batch, and keeps the signals per token only.

    Args:
      apply_fn: (ids [B, T], mask [B, T]) -> logits [B, T, V]; traced.
      ids: [N, T] int token ids.
      mask: [N, T] 1 = real token.
      batch: texts per forward pass.
      pad_target: see `from_logits`.

    Returns:
      TokenSignals of NumPy arrays [N, T - 1].

    Raises:
      ShapeError, DataError: ids and mask that do not fit together, or are no whole numbers.
    """
    ids, mask = np.asarray(ids), np.asarray(mask)
    sizes = checks.shape("NT NT", ids=ids, mask=mask)
    checks.in_range("batch", batch, 1)
    if ids.dtype.kind not in "iu":
        raise errors.DataError(f"ids have dtype {ids.dtype}, expected whole numbers: the tokenizer's ids.")
    if sizes["N"] == 0:
        raise errors.ShapeError(f"ids hold no text: they have shape {ids.shape}.")

    @jax.jit
    def one_pass(rows: jax.Array, real: jax.Array) -> TokenSignals:
        return from_logits(apply_fn(rows, real), rows, real, pad_target=pad_target)

    blocks = []
    for start in range(0, len(ids), batch):
        # The last batch is filled up with its own first text, so that one program serves all.
        rows = np.arange(start, start + batch)
        rows = np.where(rows < len(ids), rows, start)
        done = jax.tree.map(np.asarray, one_pass(ids[rows].astype(np.int32), mask[rows]))
        blocks.append(TokenSignals(*(field[: len(ids) - start] for field in done)))
    return jax.tree.map(lambda *fields: np.concatenate(fields), *blocks)
