"""Streams: which rows each member reads, in which order.

A `Stream` is a table of row numbers per member, made from a membership matrix. Members of unequal size are padded to
the longest; padding repeats one of the member's OWN rows at weight 0, so that a row outside a membership is never even
read. The order of an epoch is a sort of threefry words keyed by (member, epoch, position): it does not depend on the
padding, the chunk or the other members.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import checks, errors


class Stream(NamedTuple):
    """Rows of M members, padded to a common length n.

    Attributes:
      rows: [M, n] int32 rows of the resident data set; the first `num_rows` of each line are the member's own.
      weights: [M, n] float32 sample weights, 0 in the padding.
      num_rows: [M] int32.
    """

    rows: jax.Array | np.ndarray
    weights: jax.Array | np.ndarray
    num_rows: jax.Array | np.ndarray


def from_membership(member: np.ndarray, length: int = 0) -> Stream:
    """A stream from a membership matrix.

    Args:
      member: [M, N] bool, or float weights >= 0; model i trains on the rows where member[i] > 0.
      length: pad to at least so many rows per member, so that several chunks share one compiled program.

    Raises:
      ShapeError: not a matrix. DataError: negative or non-finite weights, or a member without any row.
    """
    checks.shape("MN", member=member)
    weights = np.asarray(member, np.float32)
    checks.finite("member", weights, "MN")
    if (weights < 0).any():
        raise errors.DataError("member holds negative weights; a weight is 0 (not trained on) or positive.")
    count = (weights > 0).sum(1).astype(np.int32)
    if (count == 0).any():
        raise errors.DataError(f"member {int(np.argmin(count))} has no row to train on; every member needs at least 1.")
    rows = np.zeros((len(weights), max(length, count.max())), np.int32)
    padded = np.zeros(rows.shape, np.float32)
    for i, line in enumerate(weights):
        own = np.flatnonzero(line)
        rows[i, : len(own)] = own
        rows[i, len(own) :] = own[0]
        padded[i, : len(own)] = line[own]
    return Stream(rows, padded, count)


def steps_per_epoch(stream: Stream, batch: int) -> int:
    """Steps that the largest member needs for one pass; the last, incomplete batch is kept."""
    return -(-int(np.max(np.asarray(stream.num_rows))) // batch)


def model_steps(num_rows: np.ndarray, batch: int) -> int:
    """Steps of all members together in one epoch, from the [M] numbers of their rows."""
    return int(np.ceil(np.asarray(num_rows) / batch).sum())


def order(key: jax.Array, count: jax.Array, length: int) -> jax.Array:
    """One member's order of an epoch: [length] int32 whose first `count` entries permute 0..count-1.

    One stable sort of one threefry word per position (ties are rare and harmless). On a CPU core it takes 1.4 ms for
    8,000 rows and 2.8 ms for 16,000, once per member and epoch.
    """
    positions = jnp.arange(length, dtype=jnp.int32)
    words = jax.vmap(lambda i: jax.random.key_data(jax.random.fold_in(key, i))[0])(positions)
    words = jnp.where(positions < count, words, jnp.uint32(0xFFFFFFFF))
    return jax.lax.sort_key_val(words, positions)[1]


def epoch_batches(
    stream: Stream, key: jax.Array, batch: int, steps: int, cycle: bool = False
) -> tuple[jax.Array, jax.Array]:
    """One member's batches of one epoch.

    Args:
      stream: of ONE member (leaves without the model axis).
      key: the member's key for this epoch.
      batch: rows per step.
      steps: steps of the epoch; steps * batch may be more than the member has.
      cycle: what follows the last own row: padding of weight 0, or the same order again (streams that accompany a
        longer one).

    Returns:
      rows [steps, batch] int32 and weights [steps, batch] float32.
    """
    length = stream.rows.shape[0]
    shuffled = order(key, jnp.asarray(stream.num_rows), length)
    places = jnp.arange(steps * batch, dtype=jnp.int32)
    if cycle:
        chosen = shuffled[places % stream.num_rows]
        inside = jnp.full(places.shape, stream.num_rows > 0)
    else:
        chosen = shuffled[jnp.minimum(places, length - 1)]
        inside = places < stream.num_rows
    rows = jnp.asarray(stream.rows)[chosen]
    weights = jnp.where(inside, jnp.asarray(stream.weights)[chosen], 0.0)
    return rows.reshape(steps, batch), weights.reshape(steps, batch)
