"""Streamed passes over a member's own rows, for estimates: one `lax.scan`, memory bounded by the batch.

    passes.fold(member, "forget", start, update)            update(total, samples, key) -> total
    passes.loss_gradient(member, samples, model_state)      gradient of one batch, used by most estimates

Every function runs inside a compiled program for ONE member.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxunlearn import keys
from jaxunlearn.population import streams
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import EstimateContext, Samples, StreamSpec
from jaxunlearn.unlearn.blocks import losses

Tree = Any


def samples_of(
    member: EstimateContext,
    stream_spec: StreamSpec,
    rows: jax.Array,
    weights: jax.Array,
    key: jax.Array,
    epoch: jax.Array | int = 0,
) -> Samples:
    """Returns a batch of rows as objectives and estimates see it: prepared inputs, replaced labels, flags.

    Args:
      member: the member.
      stream_spec: of the stream that the rows come from.
      rows: [B] int32 rows of the data set.
      weights: [B] float32, 0 = padding.
      key: for the augmentation.
      epoch: for `fresh_labels`.
    """
    inputs = member.network.prepare(member.data.inputs[rows], keys.stream(key, "augment"), member.augment)
    samples = Samples(inputs, member.data.labels[rows], weights, rows, member.forget[rows])
    return relabelled(member, stream_spec, samples, epoch)


def relabelled(
    member: EstimateContext, stream_spec: StreamSpec, samples: Samples, epoch: jax.Array | int = 0
) -> Samples:
    """Returns the batch with its labels replaced as `StreamSpec.labels` demands.

    Args:
      member: the member.
      stream_spec: of the stream that the rows come from.
      samples: the batch, with true labels.
      epoch: for `fresh_labels`.
    """
    if stream_spec.labels is None:
        return samples
    key = keys.at(member.labels_key, epoch + 1) if stream_spec.fresh_labels else member.labels_key
    return samples._replace(labels=stream_spec.labels(key, samples, member.network.num_classes))


def fold(member: EstimateContext, name: str, start: Tree, update: Callable[[Tree, Samples, jax.Array], Tree]) -> Tree:
    """Folds a function over the batches of one pass of a stream; empty batches do not change the total.

    Args:
      member: the member.
      name: of one of its streams.
      start: the first total.
      update: (total, samples, key) -> total.

    Example:
      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from jaxunlearn import keys, population, trees, unlearn
      >>> network = unlearn.Network(None, lambda inputs, key, is_train: inputs, None, num_classes=2)
      >>> data = population.DeviceDataset(jnp.arange(5.0), jnp.zeros(5, int))
      >>> stream = trees.take(population.from_rows([[np.array([1, 2, 4])]], batch=2), 0)  # of ONE member
      >>> member = unlearn.EstimateContext(
      ...     network, params={}, model_state={}, reference={}, saved_states={}, estimates={}, data=data,
      ...     streams={"forget": stream}, stream_specs={"forget": unlearn.StreamSpec("forget", batch=2)},
      ...     forget=jnp.zeros(5, bool), mode="eval", key=keys.root(0), labels_key=keys.root(1), augment=False)
      >>> total = unlearn.passes.fold(
      ...     member, "forget", 0.0, lambda total, samples, key: total + jnp.sum(samples.inputs * samples.weights))
      >>> float(total)
      7.0
    """
    stream, stream_spec = member.streams[name], member.stream_specs[name]
    steps = max(1, -(-stream.rows.shape[0] // stream_spec.batch))
    rows, weights = streams.epoch_batches(stream, keys.stream(member.key, name), stream_spec.batch, steps,
                                          shuffle=stream_spec.shuffle)  # fmt: skip

    def step(total: Tree, step_inputs: tuple) -> tuple[Tree, None]:
        index, batch_rows, weight = step_inputs
        key = keys.at(keys.stream(member.key, name), index)
        new = update(total, samples_of(member, stream_spec, batch_rows, weight, key), key)
        is_read = jnp.sum(weight) > 0
        return jax.tree.map(lambda a, b: jnp.where(is_read, a, b), new, total), None

    return jax.lax.scan(step, start, (jnp.arange(steps), rows, weights))[0]


def batches(member: EstimateContext, name: str) -> jax.Array:
    """Returns the number of batches of one pass of a stream, float32, at least 1 (including a short last one)."""
    stream, stream_spec = member.streams[name], member.stream_specs[name]
    return jnp.maximum(-(-jnp.asarray(stream.num_rows) // stream_spec.batch), 1).astype(jnp.float32)


def count(member: EstimateContext, name: str) -> jax.Array:
    """Returns the number of rows of a stream, float32, at least 1."""
    return jnp.maximum(jnp.sum(jnp.asarray(member.streams[name].weights) > 0), 1).astype(jnp.float32)


def zeros(member: EstimateContext) -> Tree:
    """Returns a tree of zeros shaped like the parameters."""
    return jax.tree.map(jnp.zeros_like, member.params)


def loss_gradient(
    member: EstimateContext,
    samples: Samples,
    model_state: Tree,
    key: jax.Array | None = None,
    loss: Callable[[jax.Array, Samples], jax.Array] = losses.cross_entropy,
) -> tuple[Tree, Tree]:
    """Returns the gradient of a loss of one batch at the member's parameters, and the model state afterwards.

    Args:
      member: the member; its `mode` is that of the forward pass.
      samples: the batch.
      model_state: flax collections before the batch.
      key: for dropout in mode "train"; None = a fixed one.
      loss: (logits, samples) -> scalar.
    """

    def objective(params: Tree) -> tuple[jax.Array, Tree]:
        logits, new_state = network.forward(
            member.network, params, model_state, samples.inputs, samples.weights, member.mode, key
        )
        return loss(logits, samples), new_state

    return jax.grad(objective, has_aux=True)(member.params)


def recalibrated(member: EstimateContext, name: str) -> Tree:
    """Estimates BatchNorm statistics anew: means of the batches' own statistics over one pass, weighted by rows.

    A running statistic moves by new = m * old + (1 - m) * batch; started from 0 and from 1 it gives m and the batch's.
    """
    net = member.network
    zero_state = jax.tree.map(jnp.zeros_like, member.model_state)

    def state_after(start: Tree, inputs: jax.Array, weights: jax.Array | None, key: jax.Array) -> Tree:
        return network.forward(net, member.params, start, inputs, weights, "train", key)[1]

    # The momentum m does not depend on the batch: two blank rows are enough to measure it.
    blank_rows = net.prepare(jnp.zeros((2, *net.example.shape), net.example.dtype), member.key, False)
    ends = (
        state_after(start, blank_rows, None, member.key)
        for start in (zero_state, jax.tree.map(jnp.ones_like, zero_state))
    )
    share = jax.tree.map(lambda low, high: jnp.maximum(1.0 - (high - low), 1e-6), *ends)

    def update(total: tuple[Tree, jax.Array], samples: Samples, key: jax.Array) -> tuple[Tree, jax.Array]:
        new_state = state_after(zero_state, samples.inputs, samples.weights, key)
        batch_state = jax.tree.map(jnp.divide, new_state, share)
        rows = jnp.sum(samples.weights > 0).astype(jnp.float32)
        return jax.tree.map(lambda a, b: a + rows * b, total[0], batch_state), total[1] + rows

    total, rows = fold(member, name, (zero_state, jnp.float32(0.0)), update)
    mean = jax.tree.map(lambda leaf: leaf / jnp.maximum(rows, 1.0), total)
    return jax.tree.map(lambda new, old: jnp.where(rows > 0, new, old), mean, member.model_state)


def moved(member: EstimateContext, name: str) -> Tree:
    """Returns the BatchNorm statistics after one pass in training mode, starting from the member's own."""

    def update(total: Tree, samples: Samples, key: jax.Array) -> Tree:
        return network.forward(member.network, member.params, total, samples.inputs, samples.weights, "train", key)[1]

    return fold(member, name, member.model_state, update)
