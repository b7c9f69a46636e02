"""Terms of objectives: weighted means over the rows of one batch, finite for empty batches.

Every function takes logits [B, C] float32 and the batch's `Samples` (labels, weights 0 = padding) and returns a float32
scalar; `where` restricts the rows further (forget rows of a mixed batch). Of texts, logits are [B, T, V] and labels the
next tokens [B, T] (-1 = none): means are over all tokens with a next one, of all rows together. An empty selection
gives loss 0 and gradient 0: published code gets NaN as the loss and the same gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxunlearn.population import task
from jaxunlearn.unlearn.base.method import Objective, Samples

Tree = Any


def mean(values: jax.Array, batch: Samples, where: jax.Array | None = None) -> jax.Array:
    """Returns the mean over the unpadded rows (among `where`); 0 if there is none, never 0/0.

    Args:
      values: [B], or [B, T] of texts.
      batch: of the same rows.
      where: [B] bool, or None for all.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.unlearn import Samples, losses
      >>> batch = Samples(jnp.zeros((3, 2)), jnp.zeros(3, int), weights=jnp.array([1.0, 1.0, 0.0]), rows=jnp.arange(3),
      ...                 is_forget=jnp.array([True, False, True]))
      >>> float(losses.mean(jnp.array([2.0, 4.0, 9.0]), batch))
      3.0
      >>> float(losses.mean(jnp.array([2.0, 4.0, 9.0]), batch, where=batch.is_forget))
      2.0
    """
    weights = batch.weights if where is None else jnp.where(where, batch.weights, 0.0)
    return task.weighted_mean(values, weights if values.ndim == 1 else task.answer_weights(batch.labels, weights))


def cross_entropy(logits: jax.Array, batch: Samples, where: jax.Array | None = None) -> jax.Array:
    """Computes the mean cross entropy, natural log."""
    return mean(task.cross_entropy(logits, batch.labels), batch, where)


def row_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Computes [B] cross entropies; of texts, means over a row's tokens, 0 if it has none to learn."""
    values = task.cross_entropy(logits, labels)
    if labels.ndim == 1:
        return values
    is_token = labels >= 0
    return jnp.sum(jnp.where(is_token, values, 0.0), -1) / jnp.maximum(jnp.sum(is_token, -1), 1)


def row_weights(batch: Samples) -> jax.Array:
    """Returns [B] weights of rows, 0 for texts without tokens to learn."""
    return batch.weights if batch.labels.ndim == 1 else batch.weights * jnp.any(batch.labels >= 0, -1)


def cross_entropy_on(stream: str, sign: float = 1.0) -> Objective:
    """Returns the objective `sign` times mean cross entropy on one stream, with its labels; -1 = gradient ascent."""
    return lambda outputs, batches, context: sign * cross_entropy(outputs[stream], batches[stream])


def divergence(student: jax.Array, teacher: jax.Array, temperature: float | jax.Array = 1.0) -> jax.Array:
    """Computes KL(teacher || student) [B] or [B, T] of softmax(logits / temperature), without factor temperature^2.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.unlearn import losses
      >>> losses.divergence(student=jnp.zeros((1, 2)), teacher=jnp.array([[0.0, 2.0]])).round(3).tolist()
      [0.328...]
    """
    log_student = jax.nn.log_softmax(student / temperature)
    log_teacher = jax.nn.log_softmax(teacher / temperature)
    return jnp.sum(jnp.exp(log_teacher) * (log_teacher - log_student), -1)
