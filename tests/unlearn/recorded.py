"""Whole runs that published code recorded, beside those of a method.

assert_steps     forget precision: every step, on the recorded batches
assert_epochs    conformal unlearning: the mode of every epoch, and the end
"""

import dataclasses
import functools
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax

from jaxunlearn import trees
from jaxunlearn.models.layers import blocks
from jaxunlearn.population import StepInfo
from jaxunlearn.unlearn.base.method import Method
from jaxunlearn.unlearn.engine import running

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
LAYERS = {
    "conv1": "Conv_0", "bn1": "BatchNorm_0", "conv2": "Conv_1", "bn2": "BatchNorm_1",
    "shortcut.0": "Conv_2", "shortcut.1": "BatchNorm_2", "linear": "Dense_0",
}  # fmt: skip


class Residual(nn.Module):
    """One residual block behind a first convolution."""

    num_classes: int

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        maps = nn.relu(blocks.BatchNorm()(blocks.Conv(4, use_bias=False)(inputs), train, mask))
        main = blocks.BatchNorm()(blocks.Conv(6, stride=2, use_bias=False)(maps), train, mask)
        short = blocks.Conv(6, kernel=1, stride=2, padding=0, use_bias=False)(maps)
        short = blocks.BatchNorm()(short, train, mask)
        return blocks.Dense(self.num_classes)(blocks.global_avg_pool(nn.relu(main + short)))


@functools.cache
def golden():
    """The arrays, pictures with channels last; `order`: retained rows, then those to forget, as in a setup."""
    with np.load(GOLDEN / "forget_precision" / "method_train_steps.npz") as loaded:
        file = dict(loaded)
    for name in [name for name, array in file.items() if array.shape[-3:] == (3, 6, 6)]:
        file[name] = np.moveaxis(file[name], -3, -1)
    forget = file["forget_indices"]
    return {**file, "order": np.append(np.setdiff1d(np.arange(len(file["y"])), forget), forget)}


def with_labels(phase, labels):
    """The phase with these labels [row of the setup] instead of random ones for the rows to forget."""

    def rule(key, samples, num_classes):
        return jnp.where(samples.is_forget, jnp.asarray(labels)[samples.rows], samples.labels)

    ((name, read),) = phase.stream_specs.items()
    return phase if read.labels is None else dataclasses.replace(phase, stream_specs={name: read._replace(labels=rule)})


def rows_of(file, pictures):
    """[steps * batch] rows of the setup that recorded pictures [steps, batch, ...] are."""
    x = file["X"][file["order"]]
    return np.asarray(
        [np.flatnonzero((x == picture).all((1, 2, 3)))[0] for picture in pictures.reshape(-1, *x.shape[1:])]
    )


def assert_reads(phase, rows, member_rows):
    """Every epoch of recorded rows is what the phase itself reads, in the phase's order unless it is shuffled."""
    ((_, read),) = phase.stream_specs.items()
    pool = np.concatenate([member_rows[name] for name in read.rows.split("+")])
    for epoch in rows.reshape(phase.epochs, -1):
        np.testing.assert_array_equal(np.sort(epoch) if read.shuffle else epoch, pool)


def rates(phase, length):
    """[epochs * length] rates of Nesterov SGD with momentum 0.9, from its first step at 0 along a gradient of 1."""
    zero, unit = jnp.zeros(()), jnp.ones(())
    transform = optax.with_extra_args_support(phase.transform)

    def moved(epoch):
        step_info = StepInfo(epoch, jnp.float32(0), epoch * length, length)
        return transform.update(unit, transform.init(zero), zero, step_info=step_info, reference_params=zero)[0]

    return np.repeat(jax.vmap(moved)(jnp.arange(phase.epochs)) / -1.9, length)


def assert_steps(name, method):
    """Runs a method step by step and compares rates, losses, parameters, statistics and accuracies with the file."""
    file, batch = golden(), int(golden()["batch_size"])
    arrays = file["X"], file["y"], file.get(f"{name}__label_draws", file["y"])
    x, y, labels = (array[file["order"]] for array in arrays)
    count = len(y) - len(file["forget_indices"])
    member_rows = {"retain": np.arange(count), "forget": np.arange(count, len(y))}
    data = [(x[rows], y[rows]) for rows in member_rows.values()]
    recorded = [rows_of(file, file[f"{name}__x_s{stage}"]) for stage in range(len(method.phases))]
    phases = tuple(
        nets.by_step(with_labels(phase, labels), rows, batch)
        for phase, rows in zip(method.phases, recorded, strict=True)
    )
    start, net = nets.variables(file, f"{name}__p0", LAYERS, "__"), nets.network(Residual(10), x.shape[1:])
    steps, outcome = [], None
    for event in running.run(nets.make_job(net, Method(phases, "faithful"), start, *data)):
        outcome = event.outcome
        steps += [] if outcome else [(event, nets.after(event))]
    for stage, phase in enumerate(method.phases):
        assert_reads(phase, recorded[stage], member_rows)
        events, states = zip(*(step for step in steps if step[0].phase == stage), strict=True)
        expected = {key: file[f"{name}__{key}_s{stage}"] for key in ("lr", "loss")}
        np.testing.assert_allclose(rates(phase, len(events) // phase.epochs), expected["lr"], rtol=1e-6)
        np.testing.assert_allclose([event.loss[0] for event in events], expected["loss"], rtol=0, atol=1e-5)
        for state, key in ((states[0], "p1"), (states[-1], "pF")):
            nets.assert_close(state, nets.variables(file, f"{name}__{key}_s{stage}", LAYERS, "__"), 1e-6)
    tests = (*data, (file["X_test"], file["y_test"]))
    actual = [nets.accuracy(net, trees.take(outcome.variables, 0), *pool) for pool in tests]
    np.testing.assert_allclose(actual, file[f"{name}__acc"], rtol=1e-6)


def conformal(kind):
    """(file, names, network, variables, {"retain": (x, y), "forget": ..., "test": ...}) of a network "mlp" or "bn"."""
    file = np.load(GOLDEN / "conformal" / "sgd_methods.npz")
    names = {torch: flax for torch, flax in nets.LAYERS["conformal"].items() if kind == "bn" or torch != "bn"}
    width, hidden, classes = (int(size) for size in file["dims"])
    net = nets.network(nets.Tiny(classes, hidden, kind == "bn"), (width,))
    data = {part: (file[f"x_{part}"], file[f"y_{part}"]) for part in ("retain", "forget", "test")}
    return file, names, net, nets.variables(file, f"{kind}_init", names), data


def assert_epochs(kind, name, method, trained_on=None):
    """Runs a method on batches in order and compares modes of epochs, variables and accuracies with the file."""
    file, names, net, start, data = conformal(kind)
    job = nets.make_job(
        net, method, start, data["retain"], data["forget"], bn="first_epoch", batch=int(file["batch_size"])
    )
    variables = [start, *(nets.after(event) for event in running.run(job) if event.outcome is None)]
    nets.assert_close(variables[-1], nets.variables(file, f"{kind}_{name}_final", names), 1e-5)
    parts = (trained_on or data["retain"], data["forget"], data["test"])
    actual = [nets.accuracy(net, variables[-1], *part) for part in parts]
    np.testing.assert_allclose(actual, file[f"{kind}_{name}_accs"], rtol=1e-6)
    if kind == "bn":
        means = [model["batch_stats"]["BatchNorm_0"]["mean"] for model in variables]
        in_training = [(new != old).any() for new, old in zip(means[1:], means[:-1], strict=True)]
        expected = file[f"bn_{name}_bn_train_mode_per_step"]
        np.testing.assert_array_equal(np.repeat(in_training, len(expected) // len(in_training)), expected)
