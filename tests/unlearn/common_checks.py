"""Shared by the tests of methods: a small network with BatchNorm, three forget sets of digits, quick runs.

Methods for texts run on as many random texts with the same forget rows, under a small language model.
"""

import functools
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import nets
import numpy as np
from sklearn.datasets import load_digits

from jaxunlearn import keys, population, records, trees
from jaxunlearn.models.layers import blocks
from jaxunlearn.unlearn import registry
from jaxunlearn.unlearn.base import network as networks
from jaxunlearn.unlearn.engine import running

IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = (IMAGES.reshape(-1, 8, 8, 1) / 16).astype(np.float32)[:80]
LABELS = LABELS.astype(np.int32)[:80] % 4
VALIDATION = np.arange(60, 80)
# Small enough for every method to run in a second or two; other hyperparameters keep their defaults.
SMALL = {
    "epochs": 2, "batch": 16, "overfit_epochs": 2, "perturbations": 24, "samples": 6, "steps": 3, "iterations": 6,
    "noise_steps": 2, "shards": 2, "slices": 2, "max_samples": 12, "n_iters": 6, "tokens": 3,
}  # fmt: skip
ALL = sorted(registry.METHODS)


class Net(nn.Module):
    """A convolution or a dense layer, BatchNorm, a dense head.

    No layer before BatchNorm has a bias: its gradient would be pure rounding error, which Adam turns into full steps.
    """

    num_classes: int = 4
    is_convolved: bool = False

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        if self.is_convolved:
            rows = blocks.Conv(3, stride=2, use_bias=False, conv="cpu")(blocks.pictures(inputs, mask))
        else:
            rows = jnp.tanh(blocks.Dense(6)(inputs.reshape(len(inputs), -1)))
        rows = nn.relu(blocks.BatchNorm()(rows, train, mask))
        return blocks.Dense(self.num_classes)(rows.reshape(len(rows), -1))


CONVOLVED = nets.network(Net(is_convolved=True), (8, 8, 1))
DENSE = nets.network(Net(), (8, 8, 1))
VOCABULARY, LENGTH = 11, 7
TOKENS = nets.network(nets.Tokens(VOCABULARY), (LENGTH,), jnp.int32)
TIED = nets.network(nets.Tokens(VOCABULARY, is_tied=True), (LENGTH,), jnp.int32)
# Methods that need convolutions; for the others a dense network compiles twice as fast.
NEED_CONVOLUTIONS = ("activation_reset",)
FORGET = [np.arange(0, 9), np.arange(9, 14), np.arange(14, 26)]


def texts(count=80):
    """Returns random texts, prompts of 1 to 3 tokens, up to 2 of padding: (inputs [N, T], next tokens [N, T])."""
    rng = np.random.default_rng(7)
    tokens = rng.integers(0, VOCABULARY, (count, LENGTH)).astype(np.int32)
    tokens[np.arange(LENGTH) >= rng.integers(LENGTH - 2, LENGTH + 1, (count, 1))] = -1
    prompts = rng.integers(1, 4, count).astype(np.int32)
    dataset = records.Dataset(tokens, LABELS[:count], np.arange(count), vocabulary=VOCABULARY, prompts=prompts)
    return tokens, records.next_tokens(dataset)


@functools.cache
def originals(net, count):
    """Returns random networks with shifted running statistics."""

    def draw(seed):
        params, model_state = networks.init(net, keys.root(seed))
        return {"params": params, **jax.tree.map(lambda leaf: leaf + 0.1 * (seed + 1), model_state)}

    return trees.to_host(jax.jit(jax.vmap(draw))(jnp.arange(count)))


def small_hyperparameters(name):
    """Returns the hyperparameters of an entry of the registry, with the small values."""
    entry = registry.METHODS[name]
    changes = {key: value for key, value in SMALL.items() if key in inspect.signature(entry.build).parameters}
    return {**registry.hyperparameters(entry), **changes}


def build(name):
    return registry.METHODS[name].build(**small_hyperparameters(name))


def network_of(name):
    if name and "tokens" in registry.METHODS[name].needs:
        return TOKENS
    return CONVOLVED if name in NEED_CONVOLUTIONS else DENSE


def make_job(method, forget=FORGET, mapping="map", member_ids=None, retain=None, name="", net=None):
    net = net or network_of(name)
    data = texts() if isinstance(net.module, nets.Tokens) else (IMAGES, LABELS)
    member_ids = np.arange(len(forget)) if member_ids is None else np.asarray(member_ids)
    retain = [np.setdiff1d(np.arange(60), rows) for rows in forget] if retain is None else retain
    submodels = method.ensemble
    submodel = np.tile(np.arange(submodels), len(member_ids)).astype(np.int32)
    return running.UnlearningJob(
        net, population.DeviceDataset(*data), lambda hyper: method, {},
        trees.take(originals(net, 3), np.repeat(member_ids, submodels)),
        [rows for rows in forget for _ in range(submodels)],
        [rows for rows in retain for _ in range(submodels)], VALIDATION,
        np.repeat(member_ids * submodels, submodels).astype(np.int32) + submodel,
        submodel, keys.root(5),
        population.make_mapping(mapping, devices=1), "auto", 16, False,
    )  # fmt: skip


def outcome(job):
    *_, final_event = running.run(job)
    return final_event.outcome


def assert_close(actual, expected, tolerance=2e-4):
    for (path, a), (_, b) in zip(trees.named_leaves(actual), trees.named_leaves(expected), strict=True):
        scale = max(float(np.abs(b).max()), 0.1)
        assert float(np.abs(a - b).max()) / scale < tolerance, path


def members(variables, method, number):
    return trees.take(variables, slice(number * method.ensemble, (number + 1) * method.ensemble))
