"""Pieces of objectives: weighted means over the rows of one batch, finite for empty batches.

Every function takes logits [B, C] float32 and the batch's `Samples` (labels, weights 0 = padding) and returns a float32
scalar; `where` narrows the rows further (forget rows of a mixed batch). Of texts, logits are [B, T, V] and labels the
next tokens [B, T] (-1 = none): means are over the tokens that count, of all rows together. An empty choice gives loss 0
and gradient 0: published code gets NaN as the loss and the same gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxunlearn.population import task
from jaxunlearn.unlearn.base.method import Objective, Samples

Tree = Any


def mean(values: jax.Array, batch: Samples, where: jax.Array | None = None) -> jax.Array:
    """Mean over the unpadded rows (of `where` [B] bool); 0 if there is none, never 0/0.

    Args:
      values: [B], or [B, T] of texts.
      batch: of the same rows.
      where: [B] bool, or None for all.
    """
    weights = batch.weights if where is None else jnp.where(where, batch.weights, 0.0)
    return task.weighted_mean(values, weights if values.ndim == 1 else task.answer_weights(batch.labels, weights))


def cross_entropy(logits: jax.Array, batch: Samples, where: jax.Array | None = None) -> jax.Array:
    """Mean cross entropy, natural log."""
    return mean(task.cross_entropy(logits, batch.labels), batch, where)


def row_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """[B] cross entropies; of texts, means over a row's tokens, 0 where it has none to learn."""
    values = task.cross_entropy(logits, labels)
    if labels.ndim == 1:
        return values
    is_token = labels >= 0
    return jnp.sum(jnp.where(is_token, values, 0.0), -1) / jnp.maximum(jnp.sum(is_token, -1), 1)


def row_weights(batch: Samples) -> jax.Array:
    """[B] weights of rows, 0 for texts without anything to learn."""
    return batch.weights if batch.labels.ndim == 1 else batch.weights * jnp.any(batch.labels >= 0, -1)


def cross_entropy_on(stream: str, sign: float = 1.0) -> Objective:
    """The objective that is the mean cross entropy on one stream, with the labels it shows; -1 = its ascent."""
    return lambda outputs, batches, context: sign * cross_entropy(outputs[stream], batches[stream])


def divergence(student: jax.Array, teacher: jax.Array, temperature: float | jax.Array = 1.0) -> jax.Array:
    """[B] or [B, T] KL(teacher || student) of softmax(logits / temperature), without the factor temperature^2."""
    log_student = jax.nn.log_softmax(student / temperature)
    log_teacher = jax.nn.log_softmax(teacher / temperature)
    return jnp.sum(jnp.exp(log_teacher) * (log_teacher - log_student), -1)


def l1_norm(params: Tree) -> jax.Array:
    """Sum of absolute values of all parameters, BatchNorm and biases included."""
    return sum((jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(params)), start=jnp.float32(0.0))


def distance_squared(params: Tree, reference: Tree) -> jax.Array:
    """Sum of squared differences of all parameters."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(reference), strict=True)
    return sum((jnp.sum(jnp.square(a - b)) for a, b in pairs), start=jnp.float32(0.0))
