"""Fine-tuning, ascent, NegGrad+, L1 and pruning against the published implementations."""

import dataclasses
import functools
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest

from jaxunlearn import trees
from jaxunlearn.models import blocks
from jaxunlearn.population import Clock
from jaxunlearn.unlearn import descent, network, running, schedules, transforms
from jaxunlearn.unlearn.method import Estimate, Method, Now, Samples

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
OUR = {"fc1": "Dense_0", "fc2": "Dense_1"}
NOW = Now(None, None, None, {}, {}, {}, None, None)


@functools.cache
def golden(topic, name):
    with np.load(GOLDEN / topic / f"{name}.npz") as file:
        return dict(file)


def plain_batch(labels):
    return Samples(None, labels, np.ones(len(labels), np.float32), None, None)


def batches(file, name):
    count = int(file[f"{name}_n"])
    return tuple(np.concatenate([file[f"{name}{i}_{part}"] for i in range(count)]) for part in "xy")


def tiny(start, x, norm=False, activation="relu"):
    hidden, classes = (start["params"][layer]["bias"].shape[0] for layer in ("Dense_0", "Dense_1"))
    return nets.network(nets.Tiny(classes, hidden, norm, activation), x.shape[1:])


def masked(method, mask):
    """The method with `mask` given: masked-out parameters do not move."""
    phases = tuple(
        dataclasses.replace(
            phase,
            transform=transforms.protected(phase.transform),
            estimates={"mask": Estimate(lambda one: (mask, one.statistics))},
        )
        for phase in method.phases
    )
    return dataclasses.replace(method, phases=phases)


def perhaps_masked(method, mask, is_masked):
    """The mask where `is_masked` is 1, no mask where it is 0; may be traced."""
    return masked(method, jax.tree.map(lambda leaf: jnp.maximum(leaf, 1.0 - is_masked), mask))


def concatenated(*methods):
    return Method(tuple(phase for method in methods for phase in method.phases), methods[0].bn)


def outcomes(prepared):
    """Variables of all members."""
    *_, last = running.run(prepared)
    return [trees.take(last.outcome.variables, member) for member in range(len(prepared.numbers))]


# The IAM seed


@pytest.mark.parametrize("kind, activation", [("mlp", "tanh"), ("bn", "relu")])
def test_finetune_equals_the_iam_seed(kind, activation):
    file, names = golden("iam_methods", f"finetune_{kind}"), nets.LAYERS[f"iam_{kind}"]
    start, (x, y) = nets.variables(file, "init", names), batches(file, "retain")
    net = tiny(start, x, kind == "bn", activation)
    method = descent.finetune(float(file["lr"]), int(file["epochs"]), batch=len(file["retain0_x"]))
    found = nets.outcome(nets.setup(net, nets.in_order(method), start, (x, y), (x[:1], y[:1]), bn="faithful"))
    nets.assert_close(found, nets.variables(file, "after", names), 1e-6)


class Given:
    """A module whose random start is a given one."""

    def __init__(self, module, start):
        self.module, self.start, self.num_classes = module, start, module.num_classes

    def init(self, *args, **kwargs):
        return self.start

    def apply(self, *args, **kwargs):
        return self.module.apply(*args, **kwargs)


@pytest.mark.parametrize("compat, tag", [("faithful", "after"), ("corrected", "corrected_after")])
def test_ascent_equals_the_iam_seed(compat, tag):
    file, names = golden("iam_methods", "ascent_mlp"), nets.LAYERS["iam_mlp"]
    start, (x, y) = nets.variables(file, "init", names), batches(file, "forget")
    net = tiny(start, x, activation="tanh")
    net = net._replace(module=Given(net.module, nets.variables(file, "fresh", names)))
    method = descent.ascent(
        lr=float(file["lr"]), epochs=int(file["epochs"]), batch=len(file["forget0_x"]), compat=compat
    )
    found = nets.outcome(nets.setup(net, nets.in_order(method), start, (x[:2], y[:2]), (x, y)))
    nets.assert_close(found, nets.variables(file, tag, names), 1e-6)
    if compat == "faithful":
        alone = nets.in_order(dataclasses.replace(method, phases=method.phases[:1]))
        found = nets.outcome(nets.setup(net, alone, start, (x[:2], y[:2]), (x, y)))
        nets.assert_close(found, nets.variables(file, "fresh_after", names), 1e-6)


# Conformal unlearning, and the OPTML code it builds on


def conformal(file, prefix, kind, build, wanted, bn, hyper=None):
    """Compares all members of a method on the network of a file with the parameters named in `wanted`."""
    names = {key: flax for key, flax in nets.LAYERS["conformal"].items() if kind == "bn" or key != "bn"}
    start = nets.variables(file, f"{prefix}init", names)
    retain, forget = ((file[f"x_{part}"], file[f"y_{part}"]) for part in ("retain", "forget"))
    prepared = nets.setup(
        tiny(start, retain[0], kind == "bn"), lambda chosen: nets.in_order(build(**chosen)), start, retain, forget,
        bn=bn, batch=int(file["batch_size"]), members=len(wanted), hyper=hyper,
    )  # fmt: skip
    for found, tag in zip(outcomes(prepared), wanted, strict=True):
        nets.assert_close(found, nets.variables(file, tag, names), 1e-5)


@pytest.mark.parametrize("kind, bn", [("mlp", "faithful"), ("bn", "first_epoch")])
@pytest.mark.parametrize("name", ["finetune", "GA", "ga_plus"])
def test_conformal_methods_equal_the_published_code(kind, bn, name):
    file = golden("conformal", "sgd_methods")
    lr, epochs = file[f"{kind}_{name}_lr_epochs"]
    also = {"lr": float(lr), "epochs": int(epochs), "momentum": 0.9, "weight_decay": 5e-4}
    build = {
        "finetune": functools.partial(descent.finetune, **also),
        "GA": functools.partial(descent.ascent, schedule="constant", **also),
        "ga_plus": functools.partial(descent.negrad_plus, form="mixed", schedule="cosine", **also),
    }[name]
    conformal(file, f"{kind}_", kind, build, [f"{kind}_{name}_final"], bn)


@pytest.mark.parametrize("names", [("FT", "FT_mask"), ("FT_l1",), ("GA", "GA_mask"), ("retrain",)])
def test_optml_methods_equal_the_published_code(names):
    file = golden("conformal", "optml_methods")
    lr, epochs, alpha, without = file[f"{names[0]}_hyper_lr_epochs_alpha_nol1"]
    lr, epochs = float(lr), int(epochs)
    method = {
        "FT": lambda: descent.finetune(lr, epochs, schedule="constant"),
        "FT_l1": lambda: descent.l1_sparse(lr, epochs, float(alpha), int(without)),
        "GA": lambda: descent.ascent(lr, epochs, 0.9, 5e-4, schedule="constant"),
        "retrain": lambda: descent.finetune(lr, epochs, schedule="milestones", milestones=(1, 2), factor=0.1),
    }[names[0]]()
    mask = nets.variables(file, "mask", OUR)["params"]
    hyper = {"is_masked": np.float32([name.endswith("_mask") for name in names])} if len(names) > 1 else None
    build = functools.partial(perhaps_masked, method, mask) if hyper else lambda: method
    conformal(file, "", "mlp", build, [f"{name}_final" for name in names], "faithful", hyper)


# Over-Unlearning and Replay


def negrad(is_masked, **chosen):
    return perhaps_masked(descent.negrad_plus(lr=0.05, epochs=2, **chosen), our_mask(), is_masked)


def climbing(is_masked, **chosen):
    return perhaps_masked(descent.ascent(lr=0.05, epochs=2, schedule="constant", **chosen), our_mask(), is_masked)


def fitted(epochs, lr=0.05, **also):
    return descent.finetune(lr, epochs, **{"schedule": "constant", **also})


def our_mask():
    return nets.variables(golden("our", "descent"), "mask", OUR, "__")["params"]


# builder -> file's name -> the hyperparameters in which its members differ
OURS = {
    negrad: {
        "negrad_v1": {"is_masked": 0.0, "l1": 0.0, "l2": 0.0},
        "negrad_v1_masked": {"is_masked": 1.0, "l1": 0.0, "l2": 0.0},
        "negrad_v1_l2": {"is_masked": 0.0, "l1": 0.0, "l2": 0.1},
        "negrad_v1_l1": {"is_masked": 0.0, "l1": 1e-3, "l2": 0.0},
        "negrad_v2": {"is_masked": 0.0, "l1": 0.0, "l2": 0.1 * 0.95},
    },
    climbing: {
        "ascent_v1": {"is_masked": 0.0, "l2": 0.0},
        "ascent_v1_masked": {"is_masked": 1.0, "l2": 0.0},
        "ascent_v1_l2": {"is_masked": 0.0, "l2": 0.1},
    },
    functools.partial(fitted, 5, schedule="overshooting", milestones=(3,)): {
        "fit_v1_milestone3": {"factor": 0.8, "l1": 0.0},
        "fit_v2_milestone3_l1": {"factor": 0.2, "l1": 5e-5},
    },
    functools.partial(fitted, 3): {
        "fit_v1_const": {"l1": 0.0}, "finetune_v2": {"l1": 0.0}, "replay_v2_stage": {"l1": 5e-5},
    },
    functools.partial(fitted, 3, lr=0.005, weight_decay=1e-4, optimizer="adamw"): {
        "replay_v2_stage_adamw": {"l1": 5e-5},
    },
    lambda l1: concatenated(*(fitted(e, 0.05 * part, l1=l1) for e, part in ((3, 1.0), (2, 0.5), (1, 0.2)))): {
        "replay_v2_full": {"l1": 5e-5},
    },
    functools.partial(descent.ft_prune, 0.05, 3): {"ft_prune": {"alpha": 5e-5}},
    functools.partial(descent.ft_prune, 0.05, 3, warmup=6): {"ft_prune_samplewise": {"alpha": 5e-5}},
}  # fmt: skip


def as_ours(method):
    """The method on unshuffled batches of OUR's sizes."""
    file = golden("our", "descent")
    sizes = {"retain": int(file["retain_batch"]), "forget": int(file["forget_batch"])}
    return dataclasses.replace(method, phases=tuple(
        dataclasses.replace(phase, reads={name: one._replace(batch=sizes[name]) for name, one in phase.reads.items()})
        for phase in nets.in_order(method).phases
    ))  # fmt: skip


@pytest.mark.parametrize("build", OURS, ids=["+".join(tags) for tags in OURS.values()])
def test_over_unlearning_and_replay_methods_equal_the_published_code(build):
    file, members = golden("our", "descent"), OURS[build]
    start = nets.variables(file, "init", OUR, "__")
    retain, forget = ((file[f"X_{part}"], file[f"y_{part}"]) for part in ("retain", "forget"))
    hyper = {name: np.float32([one[name] for one in members.values()]) for name in next(iter(members.values()))}
    prepared = nets.setup(
        tiny(start, retain[0], activation="tanh"), lambda chosen: as_ours(build(**chosen)), start, retain, forget,
        hyper=hyper, members=len(members),
    )  # fmt: skip
    for tag, found in zip(members, outcomes(prepared), strict=True):
        nets.assert_close(found, nets.variables(file, tag, OUR, "__"), 5e-6)
        if tag.endswith("_masked"):
            for new, old, may in zip(
                *map(jax.tree.leaves, (found["params"], start["params"], our_mask())), strict=True
            ):
                np.testing.assert_array_equal(new[may == 0], old[may == 0])


def rates(schedule, epochs, length):
    """[epochs * length] factors of a schedule, step by step."""
    steps = np.arange(epochs * length)
    epoch, place = np.divmod(steps, length)
    clocks = Clock(np.int32(epoch), np.float32(place / length), np.int32(steps), np.full(len(steps), length))
    return np.asarray(jax.jit(jax.vmap(lambda clock: jnp.float32(schedule(clock))))(clocks), np.float64)


def test_rates_equal_the_published_ones():
    file = golden("our", "schedules")
    base, marks, length = float(file["base_lr"]), tuple(map(int, file["milestones"])), int(file["steps_per_epoch"])
    for factor, names in {0.2: ("shadow_train_gamma0p2_epochs_from_0", "fit_one_cycle_gamma0p2"),
                          0.8: ("fit_one_cycle_gamma0p8",)}.items():  # fmt: skip
        found = base * rates(descent.rate("overshooting", 12, marks, factor), 12, length)
        for name in names:
            np.testing.assert_allclose(found, file[name], rtol=0, atol=1e-7, err_msg=name)
    marks = tuple(int(mark) - 1 for mark in file["dfme_steps"])  # that schedule steps ahead of the epoch
    found = 0.02 * rates(descent.rate("milestones", 0, marks, 0.3), 1117, 1)
    np.testing.assert_allclose(found, file["dfme_student_lr_by_epoch"], rtol=1e-5)
    file = golden("our", "descent")
    for tag, factor in (("fit_v1_milestone3", 0.8), ("fit_v2_milestone3_l1", 0.2)):
        found = 0.05 * rates(descent.rate("overshooting", 5, (3,), factor), 5, 3)
        np.testing.assert_allclose(found, file[f"{tag}_lrs"], rtol=0, atol=1e-7)
    for tag in ("fit_v1_const", "replay_v2_stage"):
        np.testing.assert_allclose(0.05 * rates(descent.rate("constant", 3), 3, 3), file[f"{tag}_lrs"], rtol=1e-6)


# Forget precision


class Residual(nn.Module):
    """Two convolutions with a strided shortcut, means over the picture, a dense layer."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        maps = nn.relu(blocks.BatchNorm(name="bn1")(blocks.Conv(4, use_bias=False, name="conv1")(inputs), train, mask))
        far = blocks.Conv(6, stride=2, use_bias=False, name="conv2")(maps)
        near = blocks.Conv(6, kernel=1, stride=2, padding=0, use_bias=False, name="shortcut0")(maps)
        far = blocks.BatchNorm(name="bn2")(far, train, mask)
        near = blocks.BatchNorm(name="shortcut1")(near, train, mask)
        return blocks.Dense(self.num_classes, name="linear")(nn.relu(far + near).mean((1, 2)))


LAYERS = {"conv1": "conv1", "bn1": "bn1", "conv2": "conv2", "bn2": "bn2", "shortcut.0": "shortcut0",
          "shortcut.1": "shortcut1", "linear": "linear"}  # fmt: skip


def residual_variables(file, prefix):
    norms = {torch: f"BatchNorm_{flax}" for torch, flax in LAYERS.items() if flax in ("bn1", "bn2", "shortcut1")}
    found = nets.variables(file, prefix, {**LAYERS, **norms}, "__")
    return {
        part: {name.removeprefix("BatchNorm_"): leaf for name, leaf in tree.items()} for part, tree in found.items()
    }


@pytest.mark.parametrize("name, schedule", [("finetune", "constant"), ("finetune_ms", "milestones")])
def test_finetune_equals_forget_precision_step_by_step(name, schedule):
    file = golden("forget_precision", "method_train_steps")
    x, y, rate, wanted = (file[f"{name}__{part}_s0"] for part in ("x", "y", "lr", "loss"))
    x, length = jnp.asarray(x.transpose(0, 1, 3, 4, 2)), 32 // x.shape[1]
    epochs = len(x) // length
    found = rate[0] * rates(descent.rate(schedule, epochs, (1, 3), 0.1), epochs, length)
    np.testing.assert_allclose(found, rate, rtol=1e-6)
    # The file's batches are other ones in every epoch, so the phase is stepped by hand.
    (phase,) = descent.finetune(
        float(rate[0]), epochs, schedule=schedule, milestones=(1, 3), factor=0.1, nesterov=True
    ).phases
    net, ((move,)) = nets.network(Residual(), x.shape[2:]), phase.moves

    @jax.jit
    def step(variables, optimizer, x, y, clock):
        def objective(params):
            rest = {"batch_stats": variables["batch_stats"]}
            logits, moved = network.forward(net, params, rest, x, mode="train")
            return move.objective({"retain": logits}, {"retain": plain_batch(y)}, NOW), moved

        (loss, moved), gradients = jax.value_and_grad(objective, has_aux=True)(variables["params"])
        updates, optimizer = phase.transform.update(
            gradients, optimizer, variables["params"], clock=clock, reference_params=None
        )
        return {"params": optax.apply_updates(variables["params"], updates), **moved}, optimizer, loss

    variables = residual_variables(file, f"{name}__p0")
    optimizer, found = phase.transform.init(variables["params"]), []
    for number in range(len(x)):
        clock = Clock(jnp.int32(number // length), jnp.float32(number % length / length), jnp.int32(number), length)
        variables, optimizer, loss = step(variables, optimizer, x[number], jnp.asarray(y[number]), clock)
        found.append(loss)
        if number == 0:
            nets.assert_close(variables, residual_variables(file, f"{name}__p1_s0"), 1e-5)
    nets.assert_close(variables, residual_variables(file, f"{name}__pF_s0"), 1e-5)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_rates_and_ascent_of_forget_precision():
    file = golden("forget_precision", "schedules_losses_misc")
    for name, base, schedule in (
        ("lr_retrain_multistep", 0.1, descent.rate("milestones", 100, (35, 70, 90), 0.1)),
        ("lr_train_cfg_cosine", 0.1, descent.rate("cosine", 200)),
        ("lr_poison_full_cosine", 2e-3, descent.rate("cosine", 5)),
        ("lr_poly_power0.9", 0.01, schedules.polynomial(10, 0.9)),
        ("lr_poly_power2", 0.01, schedules.polynomial(10, 2.0)),
    ):
        wanted = file[name][:11] if "poly" in name else file[name]  # past its end the published power rises again
        found = base * rates(schedule, len(wanted), 1)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6, err_msg=name)
    logits, batch = jnp.asarray(file["ascent__logits"]), {"forget": plain_batch(jnp.asarray(file["ascent__y"]))}
    loss, gradient = jax.value_and_grad(lambda z: descent.forget_ascent({"forget": z}, batch, NOW))(logits)
    np.testing.assert_allclose(loss, file["ascent__loss"], atol=1e-6)
    np.testing.assert_allclose(gradient, file["ascent__grad"], atol=1e-6)
