"""Tiny networks of the golden files, as flax modules, with their parameters translated; and runs on given batches."""

import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxunlearn import keys, population, trees
from jaxunlearn.models.layers import blocks
from jaxunlearn.unlearn.base.method import StreamSpec
from jaxunlearn.unlearn.base.network import Network, forward
from jaxunlearn.unlearn.engine import running


class Tiny(nn.Module):
    """dense (- BatchNorm) - activation - dense; flattens its inputs."""

    num_classes: int
    hidden: int
    norm: bool = False
    activation: str = "relu"

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        rows = blocks.Dense(self.hidden)(inputs.reshape(len(inputs), -1))
        if self.norm:
            rows = blocks.BatchNorm()(rows, train, mask)
        rows = {"relu": nn.relu, "tanh": jnp.tanh}[self.activation](rows)
        return blocks.Dense(self.num_classes)(rows)


class Given:
    """A module whose random start is a given one."""

    def __init__(self, module, start):
        self.module, self.start, self.num_classes = module, start, module.num_classes

    def init(self, *args, **kwargs):
        return self.start

    def apply(self, *args, **kwargs):
        return self.module.apply(*args, **kwargs)


def plain(inputs, key, train):
    return inputs


def network(module, shape, dtype=jnp.float32):
    return Network(module, plain, jax.ShapeDtypeStruct(shape, dtype), module.num_classes)


class Tokens(nn.Module):
    """A language model: embedding - mean over what came so far - dense - tanh - dense (or the embedding again)."""

    num_classes: int
    width: int = 6
    is_tied: bool = False
    feature_paths: tuple[str, ...] = ("hidden",)

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        embed = nn.Embed(self.num_classes, self.width, name="embed")
        is_token = (inputs >= 0)[..., None]
        rows = jnp.where(is_token, embed(jnp.maximum(inputs, 0)), 0.0)
        so_far = jnp.cumsum(rows, 1) / jnp.maximum(jnp.cumsum(is_token, 1), 1)
        rows = jnp.tanh(blocks.Dense(self.width, name="hidden")(rows + so_far))
        return embed.attend(rows) if self.is_tied else blocks.Dense(self.num_classes, name="head")(rows)


# torch names of the files -> path in the flax tree; the same for every tiny dense network
LAYERS = {
    "iam_mlp": {"features.0": "Dense_0", "classifier": "Dense_1"},
    "iam_bn": {"fc1": "Dense_0", "bn1": "BatchNorm_0", "linear": "Dense_1"},
    "conformal": {"fc1": "Dense_0", "bn": "BatchNorm_0", "fc2": "Dense_1"},
}


def variables(file, prefix, names, separator="."):
    """Flax variables from the arrays `<prefix><separator><torch name>` of a golden file."""
    params, stats = {}, {}
    for torch, flax in names.items():

        def get(leaf, torch=torch):
            return np.asarray(file[f"{prefix}{separator}{torch}.{leaf}"], np.float32)

        if flax.startswith("BatchNorm"):
            params[flax] = {"scale": get("weight"), "bias": get("bias")}
            if f"{prefix}{separator}{torch}.running_mean" in file:
                stats[flax] = {"mean": get("running_mean"), "var": get("running_var")}
        else:
            kernel = get("weight")
            kernel = kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T
            params[flax] = {"kernel": kernel}
            if f"{prefix}{separator}{torch}.bias" in file:
                params[flax]["bias"] = get("bias")
    return {"params": params, **({"batch_stats": stats} if stats else {})}


def make_job(net, method, originals, retain, forget, *, validation=(), bn="auto", batch=64, mapping="map", hyper=None,
          numbers=None, members=1):  # fmt: skip
    """An UnlearningJob whose data is (retain rows, then forget rows, then validation rows); `method` is a Method or a
    builder.

    Args:
      originals: variables of ONE model, from which all members start.
      retain, forget, validation: (x, y) pairs of arrays.
    """
    parts = [part for part in (retain, forget, validation) if len(part)]
    x = np.concatenate([np.asarray(part[0], np.float32) for part in parts])
    y = np.concatenate([np.asarray(part[1], np.int32) for part in parts])
    r, f = len(retain[1]), len(forget[1])
    build = method if callable(method) else (lambda hyper: method)
    stacked = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], members, 0), originals)
    ids = np.arange(members, dtype=np.int32) if numbers is None else np.asarray(numbers, np.int32)
    return running.UnlearningJob(
        net, population.DeviceDataset(x, y), build, hyper or {}, stacked,
        [np.arange(r, r + f)] * members, [np.arange(r)] * members, np.arange(r + f, len(y)),
        ids, np.zeros(members, np.int32), keys.root(3), population.make_mapping(mapping, devices=1), bn, batch, False,
    )  # fmt: skip


def outcome(job):
    """Variables of member 0 after all phases."""
    *_, last = running.run(job)
    return trees.take(last.outcome.variables, 0)


def begun(job, saved_states=None, member=0):
    """A member before the first step of the first phase (behind it, if that is an edit): (variables, estimates)."""
    start = running.State(*trees.split_variables(job.originals), ())
    state, actual, _ = running._begin(job, 0, start, saved_states or {})
    return trees.take((population.variables(state), actual), member)


def estimated(job):
    """What the first phase estimates for member 0."""
    return begun(job)[1]


def after(event):
    """Variables of member 0 after the epoch that an event of `running.run` tells of."""
    state = event.checkpoint()["carry"].state
    return trees.take(population.variables(state), 0)


def accuracy(net, variables, x, y):
    """Part of the rows that are classified right, in evaluation mode."""
    logits, _ = forward(net, *trees.split_variables(variables), jnp.asarray(x))
    return float(np.mean(np.argmax(logits, -1) == y))


def assert_close(actual, expected, atol, collections=("params", "batch_stats")):
    for name in collections:
        if name not in expected or not expected[name]:
            continue
        for (path, a), (_, b) in zip(trees.named_leaves(actual[name]), trees.named_leaves(expected[name]), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=f"{name}/{path}")


def in_order(method, **also):
    """The method with every stream read in its own order."""

    def fixed(reads):
        return {name: spec._replace(shuffle=False, **also) for name, spec in reads.items()}

    phases = tuple(
        dataclasses.replace(
            phase, stream_specs=fixed(phase.stream_specs),
            estimates={
                name: estimate._replace(stream_specs=fixed(estimate.stream_specs))
                for name, estimate in phase.estimates.items()
            },
        )
        for phase in method.phases
    )  # fmt: skip
    return dataclasses.replace(method, phases=phases)


def by_step(phase, rows, batch):
    """A phase of one stream on given rows in their order, an epoch per step, so that `running.run` tells of every step.

    The stream accompanies one of a single row, for which nothing answers, and goes on at the next epoch where it was.
    The transform's clock still counts the epochs of the phase.
    """
    ((name, read),) = phase.stream_specs.items()
    steps = -(-len(rows) // batch)
    length = steps // phase.epochs
    inner = optax.with_extra_args_support(phase.transform)

    def update(updates, state, params=None, *, step_info, **extras):
        published = step_info._replace(epoch=step_info.epoch // length, length=length)
        return inner.update(updates, state, params, step_info=published, **extras)

    reads = {
        "step": StreamSpec(lambda member_rows: rows[:1], batch),
        name: read._replace(rows=lambda member_rows: rows, batch=batch, shuffle=False, continue_across_epochs=True),
    }
    moves = tuple(move._replace(streams=(name,)) for move in phase.gradient_steps)
    transform = optax.GradientTransformationExtraArgs(inner.init, update)
    return dataclasses.replace(phase, transform=transform, gradient_steps=moves, stream_specs=reads, epochs=steps)


def rounded_products(fn, *args):
    """(number of all products of matrices and convolutions in a function, how many a GPU may round to TF32)."""
    text = str(jax.make_jaxpr(fn)(*args))
    count = len(re.findall(r"= (?:dot_general|conv_general_dilated)\[", text))
    return count, count - text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)")
