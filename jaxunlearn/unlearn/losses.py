"""Pieces of objectives: weighted means over the rows of one batch, finite for empty batches.

Every function takes logits [B, C] float32 and the batch's `Samples` (labels, weights 0 = padding) and returns a float32
scalar; `where` narrows the rows further (forget rows of a mixed batch). An empty choice gives loss 0 and gradient 0:
published code gets NaN as the loss and the same gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxunlearn.unlearn.method import Objective, Samples

Tree = Any


def mean(values: jax.Array, batch: Samples, where: jax.Array | None = None) -> jax.Array:
    """Mean of [B] values over the unpadded rows (of `where` [B] bool); 0 if there is none, never 0/0."""
    weights = batch.weights if where is None else jnp.where(where, batch.weights, 0.0)
    total = jnp.sum(weights)
    return jnp.sum(jnp.where(weights > 0, values * weights, 0.0)) / jnp.where(total > 0, total, 1.0)


def cross_entropy(logits: jax.Array, batch: Samples, where: jax.Array | None = None) -> jax.Array:
    """Mean cross entropy, natural log."""
    return mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels), batch, where)


def cross_entropy_on(stream: str, sign: float = 1.0) -> Objective:
    """The objective that is the mean cross entropy on one stream, with the labels it shows; -1 = its ascent."""
    return lambda outputs, batches, now: sign * cross_entropy(outputs[stream], batches[stream])


def divergence(student: jax.Array, teacher: jax.Array, temperature: float | jax.Array = 1.0) -> jax.Array:
    """[B] KL(teacher || student) of softmax(logits / temperature), without the factor temperature^2."""
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
