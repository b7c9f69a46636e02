"""Signals per token from the logits of a causal language model, all in one forward pass.

Logits at position j predict token j + 1, so T tokens have T - 1 predictions. A prediction counts if both tokens are
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
    """Signals per token of the predictions of one model; every field [N, T - 1], 0 where `mask` is False.

    Attributes:
      logp: natural log-probability of the actual token.
      entropy: of the predicted distribution p, in nats; minus the mean of log p under p.
      model_std: standard deviation of log p under p (Min-K++ as published in its paper).
      vocab_mean, vocab_std: plain mean and unbiased deviation of log p over the vocabulary (Min-K++ as in released
        benchmark code).
      right: 1 where the actual token was the likeliest, else 0; no score reads it.
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
    """Computes the signals of a batch, one position at a time, to save memory.

    Args:
      logits: [B, T, V] float of any width; arithmetic is float32.
      ids: [B, T] int token ids.
      mask: [B, T] 1 = real token; padding may stand on either side.
      pad_target: a prediction counts if its input is a real token, even if its target is padding, as published.

    Returns:
      TokenSignals [B, T - 1]; a row depends on its own tokens only. Texts of one token or none have no prediction.

    Raises:
      ShapeError: arrays that do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.scores import tokens
      >>> logits = jnp.log(jnp.array([[[0.25, 0.75], [0.5, 0.5]]]))
      >>> signals = tokens.from_logits(logits, jnp.array([[0, 1]]), jnp.array([[1, 1]]))
      >>> jnp.exp(signals.logp).tolist()
      [[0.75]]
    """
    checks.shape("BTV BT BT", logits=logits, ids=ids, mask=mask)
    length = max(logits.shape[1] - 1, 0)
    is_token = mask.astype(bool)
    counts = is_token[:, :length] if pad_target else is_token[:, :length] & is_token[:, 1:]
    targets = ids[:, 1:]
    if not length:
        empty = jnp.zeros(counts.shape, jnp.float32)
        return TokenSignals(*(*[empty] * len(_RECORDED), counts))

    def position(j: jax.Array) -> tuple[jax.Array, ...]:
        log_p = jax.nn.log_softmax(logits[:, j].astype(jnp.float32), -1)
        p = jnp.exp(log_p)
        # p log p is 0 where a logit is -inf (tokens that a model cannot emit); such tokens are left out of the moments.
        is_possible = jnp.isfinite(log_p)
        finite = jnp.where(is_possible, log_p, 0.0)
        mean = jnp.sum(p * finite, -1)
        variance = jnp.sum(p * (finite - mean[:, None]) ** 2, -1)
        count = jnp.sum(is_possible, -1)
        plain_mean = jnp.sum(finite, -1) / count
        squares = jnp.where(is_possible, (finite - plain_mean[:, None]) ** 2, 0.0)
        square = jnp.sum(squares, -1) / jnp.maximum(count - 1, 1)
        logp = jnp.take_along_axis(log_p, targets[:, j, None], -1)[:, 0]
        hit = (jnp.argmax(log_p, -1) == targets[:, j]).astype(jnp.float32)
        return logp, -mean, jnp.sqrt(variance), plain_mean, jnp.sqrt(square), hit

    fields = jax.lax.map(position, jnp.arange(length))
    signals = [jnp.where(counts, field.T, 0.0) for field in fields]
    return TokenSignals(*(*signals, counts))


def width(length: int) -> int:
    """Returns the number of values that `recorded` computes for a text of `length` tokens.

    Example:
      >>> from jaxunlearn.scores import tokens
      >>> tokens.width(3)
      12
    """
    return len(_RECORDED) * (length - 1)


def recorded(logits: jax.Array, ids: jax.Array) -> jax.Array:
    """Computes the signals of all predictions of a batch side by side, as a run folder stores them.

    Args:
      logits: [B, T, V].
      ids: [B, T] int token ids, -1 = padding at the end.

    Returns:
      [B, 6 * (T - 1)] float32: logp, entropy, model_std, vocab_mean, vocab_std, right, each of T - 1 positions.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.scores import tokens
      >>> tokens.recorded(jnp.zeros((1, 3, 2)), jnp.array([[0, 1, -1]])).shape
      (1, 12)
    """
    signals = from_logits(logits, ids, ids >= 0)
    return jnp.concatenate([getattr(signals, name) for name in _RECORDED], -1)


def unpacked(values: Array, mask: Array) -> TokenSignals:
    """Returns the signals from the array that `recorded` computed.

    Args:
      values: [..., N, 6 * (T - 1)].
      mask: [N, T - 1] bool, the predictions that count (a prompt's do not).

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.scores import tokens
      >>> tokens.unpacked(np.arange(6.0)[None], np.array([[True]])).entropy.tolist()
      [[1.0]]
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
    """Runs a model over all texts, batch after batch, and keeps only the signals per token.

    Args:
      apply_fn: (params, ids [B, T], mask [B, T]) -> logits [B, T, V]; traced. Models of one architecture share one
        program if all are given the same function.
      params: first argument of `apply_fn`.
      ids: [N, T] int token ids.
      mask: [N, T] 1 = real token.
      batch: texts per forward pass.
      pad_target: see `from_logits`.

    Returns:
      TokenSignals of NumPy arrays [N, T - 1].

    Raises:
      ShapeError, DataError: ids and mask of different shapes, or ids that are not integers.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.scores import tokens
      >>> bigrams = np.log(np.array([[0.25, 0.75], [0.5, 0.5]], np.float32))  # P(next token | token)
      >>> ids, mask = np.array([[0, 1, 1]]), np.ones((1, 3), int)
      >>> signals = tokens.extract(lambda params, ids, mask: params[ids], bigrams, ids, mask)
      >>> np.exp(signals.logp).round(2).tolist()
      [[0.75, 0.5]]
    """
    ids, mask = np.asarray(ids), np.asarray(mask)
    sizes = checks.shape("NT NT", ids=ids, mask=mask)
    checks.in_range("batch", batch, 1)
    if ids.dtype.kind not in "iu":
        raise errors.DataError(f"ids have dtype {ids.dtype}, expected whole numbers: the tokenizer's ids.")
    if sizes["N"] == 0:
        raise errors.ShapeError(f"ids contain no text: they have shape {ids.shape}.")
    params = jax.tree.map(jnp.asarray, params)
    blocks = []
    for start in range(0, len(ids), batch):
        # The last batch is padded with its first text, so that all batches have one shape.
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
