"""A small real problem for the engine's tests: digits, a network with BatchNorm and one without."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from jaxunlearn import keys, population, settings
from jaxunlearn.models.layers import blocks

IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = IMAGES.reshape(-1, 8, 8, 1).astype(np.uint8)[:600]
LABELS = LABELS.astype(np.int32)[:600]


class Mlp(nn.Module):
    norm: bool = False

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        hidden = blocks.Dense(16)(inputs.reshape(len(inputs), -1))
        if self.norm:
            hidden = blocks.BatchNorm()(hidden, train, mask)
        return blocks.Dense(10)(nn.tanh(hidden))


def flip_prepare(inputs, key, train):
    if train:
        inputs = jnp.where(jax.random.bernoulli(key, 0.5), inputs[:, :, ::-1], inputs)
    return inputs.astype(jnp.float32) / 16


def plain_prepare(inputs, key, train):
    return inputs.astype(jnp.float32) / 16


def make_task(recipe=None, norm=True, prepare=flip_prepare, dtype=jnp.uint8):
    recipe = recipe or settings.TrainSettings(epochs=3, learning_rate=0.1)
    module = Mlp(norm=norm)
    return population.supervised(module, module, prepare, recipe, jax.ShapeDtypeStruct((8, 8, 1), dtype))


def memberships(count=40, seed=0, low=0.1, high=0.3):
    """[count, N] bool rows of unequal size; row i depends on i alone."""
    rows = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        rows.append(rng.random(len(LABELS)) < rng.uniform(low, high))
    return np.stack(rows)


def make_job(ids, task=None, member=None, batch=32, rate=0.1, held_out=None, positions=None):
    ids = np.asarray(ids, np.int32)
    table = memberships() if member is None else member
    stream = population.from_membership(table[ids if positions is None else positions])
    rates = np.broadcast_to(np.asarray(rate, np.float32), ids.shape).copy()
    constants = {"learning_rate": rates, "weight_decay": np.full(ids.shape, 5e-4, np.float32)}
    return population.TrainingJob(
        task=task or make_task(),
        streams={"train": stream},
        batches={"train": batch},
        member_ids=ids,
        key=keys.root(7),
        constants=constants,
        steps=population.steps_per_epoch(stream, batch),
        held_out=held_out,
    )


def fit(job, mapping=None, epochs=3, inputs=IMAGES, **kwargs):
    """The host carry after training, and the last report."""
    data = population.DeviceDataset(inputs, LABELS)
    *_, report = population.train(job, data, epochs, mapping or population.make_mapping("map"), **kwargs)
    return population.host(report), report


def largest_difference(actual, expected):
    """Largest difference of two trees, relative to each leaf's largest entry.

    A bias in front of BatchNorm has gradient 0: its rounding noise is measured against 0.1 and not against itself.
    """
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 0.1)) for a, b in pairs)


def assert_identical(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
