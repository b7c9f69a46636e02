"""Labels that replace the true ones of samples to be forgotten: functions for `Reads.labels`.

Draws are keyed by (member, row), so that a row keeps its label over epochs (or, with `fresh_labels`, gets a new one
every epoch) whatever batch it comes in. Rows to be retained keep their own labels.
"""

import jax
import jax.numpy as jnp

from jaxunlearn import keys
from jaxunlearn.unlearn.method import Samples


def _words(key: jax.Array, rows: jax.Array, bound: int) -> jax.Array:
    """[B] int32 uniform in 0..bound-1, one draw per row of the data set."""
    return jax.vmap(lambda row: jax.random.randint(keys.at(key, row), (), 0, bound))(rows)


def wrong(key: jax.Array, samples: Samples, num_classes: int) -> jax.Array:
    """Forget rows: uniform over the other C - 1 classes. The rule of random labels and amnesiac unlearning."""
    drawn = (samples.labels + 1 + _words(key, samples.rows, max(num_classes - 1, 1))) % num_classes
    return jnp.where(samples.is_forget, drawn, samples.labels)


def uniform(key: jax.Array, samples: Samples, num_classes: int) -> jax.Array:
    """Forget rows: uniform over all C classes, the true one included. The rule of label poisoning."""
    return jnp.where(samples.is_forget, _words(key, samples.rows, num_classes), samples.labels)


def extra(key: jax.Array, samples: Samples, num_classes: int) -> jax.Array:
    """Every row: the last class (of a widened network)."""
    del key
    return jnp.full_like(samples.labels, num_classes - 1)
