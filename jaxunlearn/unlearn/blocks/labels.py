"""Labels that replace the true ones of samples to be forgotten: functions for `StreamSpec.labels`.

Draws are keyed by (member, row), so that a row keeps its label over epochs (or, with `fresh_labels`, gets a new one
every epoch) whatever batch it comes in. Rows to be retained keep their own labels. Of texts, every next token is drawn
for itself, and where there is none (-1) there still is none.
"""

import jax
import jax.numpy as jnp

from jaxunlearn import keys
from jaxunlearn.unlearn.base.method import Samples


def _words(key: jax.Array, samples: Samples, bound: int) -> jax.Array:
    """Int32 uniform in 0..bound-1, shaped like the labels; draws of its own for every row of the data set."""
    shape = samples.labels.shape[1:]
    return jax.vmap(lambda row: jax.random.randint(keys.at(key, row), shape, 0, bound))(samples.rows)


def _replaced(samples: Samples, drawn: jax.Array) -> jax.Array:
    """Labels of forget rows replaced by those drawn, where there is a label."""
    is_forget = samples.is_forget.reshape(-1, *[1] * (samples.labels.ndim - 1))
    return jnp.where(is_forget & (samples.labels >= 0), drawn, samples.labels)


def wrong(key: jax.Array, samples: Samples, num_classes: int) -> jax.Array:
    """Forget rows: uniform over the other C - 1 classes. The rule of random labels and amnesiac unlearning."""
    drawn = (samples.labels + 1 + _words(key, samples, max(num_classes - 1, 1))) % num_classes
    return _replaced(samples, drawn)


def uniform(key: jax.Array, samples: Samples, num_classes: int) -> jax.Array:
    """Forget rows: uniform over all C classes, the true one included. The rule of label poisoning."""
    return _replaced(samples, _words(key, samples, num_classes))


def extra(key: jax.Array, samples: Samples, num_classes: int) -> jax.Array:
    """Every row: the last class (of a widened network)."""
    del key
    return jnp.full_like(samples.labels, num_classes - 1)
