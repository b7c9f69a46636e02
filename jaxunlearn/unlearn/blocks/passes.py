"""Streamed passes over a member's own rows, for estimates: one `lax.scan`, memory bounded by the batch.

    passes.fold(member, "forget", start, update)            update(total, samples, key) -> total
    passes.loss_gradient(member, samples, statistics)       what most estimates are made of

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
    reads: StreamSpec,
    rows: jax.Array,
    weights: jax.Array,
    key: jax.Array,
    epoch: jax.Array | int = 0,
) -> Samples:
    """A batch of rows as objectives and estimates see it: prepared inputs, replaced labels, flags."""
    inputs = member.network.prepare(member.data.inputs[rows], keys.stream(key, "augment"), member.augment)
    found = Samples(inputs, member.data.labels[rows], weights, rows, member.forget[rows])
    return relabelled(member, reads, found, epoch)


def relabelled(member: EstimateContext, reads: StreamSpec, samples: Samples, epoch: jax.Array | int = 0) -> Samples:
    """The batch with its labels replaced where the stream says so."""
    if reads.labels is None:
        return samples
    draws = keys.at(member.labels_key, epoch + 1) if reads.fresh_labels else member.labels_key
    return samples._replace(labels=reads.labels(draws, samples, member.network.num_classes))


def fold(member: EstimateContext, name: str, start: Tree, update: Callable[[Tree, Samples, jax.Array], Tree]) -> Tree:
    """Folds `update(total, samples, key)` over the batches of one pass of a stream; empty batches leave the total."""
    stream, reads = member.streams[name], member.stream_specs[name]
    steps = max(1, -(-stream.rows.shape[0] // reads.batch))
    rows, weights = streams.epoch_batches(stream, keys.stream(member.key, name), reads.batch, steps,
                                          shuffle=reads.shuffle)  # fmt: skip

    def step(total: Tree, context: tuple) -> tuple[Tree, None]:
        number, chosen, weight = context
        key = keys.at(keys.stream(member.key, name), number)
        new = update(total, samples_of(member, reads, chosen, weight, key), key)
        is_read = jnp.sum(weight) > 0
        return jax.tree.map(lambda a, b: jnp.where(is_read, a, b), new, total), None

    return jax.lax.scan(step, start, (jnp.arange(steps), rows, weights))[0]


def batches(member: EstimateContext, name: str) -> jax.Array:
    """Number of batches of one pass of a stream, float32, at least 1 (a short last one counts)."""
    stream, reads = member.streams[name], member.stream_specs[name]
    return jnp.maximum(-(-jnp.asarray(stream.num_rows) // reads.batch), 1).astype(jnp.float32)


def count(member: EstimateContext, name: str) -> jax.Array:
    """Number of rows of a stream, float32, at least 1."""
    return jnp.maximum(jnp.sum(jnp.asarray(member.streams[name].weights) > 0), 1).astype(jnp.float32)


def zeros(member: EstimateContext) -> Tree:
    """A tree of zeros shaped like the parameters."""
    return jax.tree.map(jnp.zeros_like, member.params)


def loss_gradient(
    member: EstimateContext,
    samples: Samples,
    model_state: Tree,
    key: jax.Array | None = None,
    loss: Callable[[jax.Array, Samples], jax.Array] = losses.cross_entropy,
) -> tuple[Tree, Tree]:
    """Gradient of the batch-mean loss at the member's parameters, and the statistics afterwards."""

    def objective(params: Tree) -> tuple[jax.Array, Tree]:
        logits, moved = network.forward(
            member.network, params, model_state, samples.inputs, samples.weights, member.mode, key
        )
        return loss(logits, samples), moved

    return jax.grad(objective, has_aux=True)(member.params)


def recalibrated(member: EstimateContext, name: str) -> Tree:
    """Statistics estimated anew: means of the batches' own statistics over one pass, weighted by rows.

    A running statistic moves by new = m * old + (1 - m) * batch; started from 0 and from 1 it gives m and the batch's.
    """
    net = member.network
    blank = jax.tree.map(jnp.zeros_like, member.model_state)

    def after(start: Tree, inputs: jax.Array, weights: jax.Array | None, key: jax.Array) -> Tree:
        return network.forward(net, member.params, start, inputs, weights, "train", key)[1]

    # The momentum m does not depend on the batch: two blank rows tell it.
    two = net.prepare(jnp.zeros((2, *net.example.shape), net.example.dtype), member.key, False)
    ends = (after(start, two, None, member.key) for start in (blank, jax.tree.map(jnp.ones_like, blank)))
    share = jax.tree.map(lambda low, high: jnp.maximum(1.0 - (high - low), 1e-6), *ends)

    def update(total: tuple[Tree, jax.Array], samples: Samples, key: jax.Array) -> tuple[Tree, jax.Array]:
        moved = after(blank, samples.inputs, samples.weights, key)
        own = jax.tree.map(jnp.divide, moved, share)
        rows = jnp.sum(samples.weights > 0).astype(jnp.float32)
        return jax.tree.map(lambda a, b: a + rows * b, total[0], own), total[1] + rows

    summed, rows = fold(member, name, (blank, jnp.float32(0.0)), update)
    mean = jax.tree.map(lambda leaf: leaf / jnp.maximum(rows, 1.0), summed)
    return jax.tree.map(lambda new, old: jnp.where(rows > 0, new, old), mean, member.model_state)


def moved(member: EstimateContext, name: str) -> Tree:
    """Statistics after one pass in training mode, from the member's own."""

    def update(total: Tree, samples: Samples, key: jax.Array) -> Tree:
        return network.forward(member.network, member.params, total, samples.inputs, samples.weights, "train", key)[1]

    return fold(member, name, member.model_state, update)
