"""Labels that replace the true ones of samples to be forgotten: functions for `StreamSpec.labels`.

Draws are keyed by (member, row), so that a row keeps its label over epochs (or, with `fresh_labels`, gets a new one
every epoch), whichever batch it is in. Retained rows keep their labels. Of texts, every next token is drawn separately;
positions without a next token (-1) stay without one.
"""

import jax
import jax.numpy as jnp

from jaxunlearn import keys
from jaxunlearn.unlearn.base.method import Samples


def _draw(key: jax.Array, samples: Samples, bound: int) -> jax.Array:
    """Draws int32 labels uniform in 0..bound-1, shaped like the labels; each row of the data set has its own draws."""
    shape = samples.labels.shape[1:]
    return jax.vmap(lambda row: jax.random.randint(keys.at(key, row), shape, 0, bound))(samples.rows)


def _replace(samples: Samples, draws: jax.Array) -> jax.Array:
    """Returns the labels, those of forget rows replaced by the draws where there is a label."""
    is_forget = samples.is_forget.reshape(-1, *[1] * (samples.labels.ndim - 1))
    return jnp.where(is_forget & (samples.labels >= 0), draws, samples.labels)


def wrong(key: jax.Array, samples: Samples, num_classes: int) -> jax.Array:
    """Draws labels of forget rows uniformly from the other C - 1 classes: random labels, amnesiac unlearning.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.unlearn import Samples, labels
      >>> samples = Samples(jnp.zeros((4, 2)), jnp.array([0, 1, 0, 1]), jnp.ones(4), jnp.arange(4),
      ...                   is_forget=jnp.array([True, True, False, False]))
      >>> labels.wrong(jax.random.key(0), samples, num_classes=2).tolist()
      [1, 0, 0, 1]
    """
    draws = (samples.labels + 1 + _draw(key, samples, max(num_classes - 1, 1))) % num_classes
    return _replace(samples, draws)


def uniform(key: jax.Array, samples: Samples, num_classes: int) -> jax.Array:
    """Draws labels of forget rows uniformly from all C classes, including the true one: label poisoning."""
    return _replace(samples, _draw(key, samples, num_classes))


def extra(key: jax.Array, samples: Samples, num_classes: int) -> jax.Array:
    """Returns the last class (of a widened network) as the label of all rows."""
    del key
    return jnp.full_like(samples.labels, num_classes - 1)
