"""Fine-tuning, ascent, NegGrad+, L1 and pruning against the published implementations."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
import recorded

from jaxunlearn import trees
from jaxunlearn.population import StepInfo
from jaxunlearn.unlearn.base.method import Estimate, Method, Samples, StepContext
from jaxunlearn.unlearn.blocks import transforms
from jaxunlearn.unlearn.engine import running
from jaxunlearn.unlearn.methods import descent, sparsity

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
OUR = {"fc1": "Dense_0", "fc2": "Dense_1"}
NOW = StepContext(None, None, None, {}, {}, {}, None, None)


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
            estimates={"mask": Estimate(lambda member: (mask, member.model_state))},
        )
        for phase in method.phases
    )
    return dataclasses.replace(method, phases=phases)


def perhaps_masked(method, mask, is_masked):
    """The mask where `is_masked` is 1, no mask where it is 0; may be traced."""
    return masked(method, jax.tree.map(lambda leaf: jnp.maximum(leaf, 1.0 - is_masked), mask))


def concatenated(*methods):
    return Method(tuple(phase for method in methods for phase in method.phases), methods[0].bn)


def outcomes(job):
    """Variables of all members."""
    *_, last = running.run(job)
    return [trees.take(last.outcome.variables, member) for member in range(len(job.member_ids))]


# The IAM seed


def first_or_all(file, name, tag):
    """(x, y), epochs: arrays "...1" are those after one epoch of the first batch."""
    if tag.endswith("1"):
        return (file[f"{name}0_x"], file[f"{name}0_y"]), 1
    return batches(file, name), int(file["epochs"])


@pytest.mark.parametrize("tag", ["after", "after1"])
@pytest.mark.parametrize("kind, activation", [("mlp", "tanh"), ("bn", "relu")])
def test_finetune_equals_the_iam_seed(kind, activation, tag):
    file, names = golden("iam_methods", f"finetune_{kind}"), nets.LAYERS[f"iam_{kind}"]
    start, ((x, y), epochs) = nets.variables(file, "init", names), first_or_all(file, "retain", tag)
    net = tiny(start, x, kind == "bn", activation)
    method = descent.finetune(float(file["lr"]), epochs, batch=len(file["retain0_x"]))
    actual = nets.outcome(nets.make_job(net, nets.in_order(method), start, (x, y), (x[:1], y[:1]), bn="faithful"))
    nets.assert_close(actual, nets.variables(file, tag, names), 1e-6)


@pytest.mark.parametrize(
    "compat, tag", [("faithful", "after"), ("faithful", "after1"), ("corrected", "corrected_after")]
)
def test_ascent_equals_the_iam_seed(compat, tag):
    file, names = golden("iam_methods", "ascent_mlp"), nets.LAYERS["iam_mlp"]
    start, ((x, y), epochs) = nets.variables(file, "init", names), first_or_all(file, "forget", tag)
    net = tiny(start, x, activation="tanh")
    net = net._replace(module=nets.Given(net.module, nets.variables(file, "fresh", names)))
    method = descent.ascent(lr=float(file["lr"]), epochs=epochs, batch=len(file["forget0_x"]), compat=compat)
    *events, last = running.run(nets.make_job(net, nets.in_order(method), start, (x[:2], y[:2]), (x, y)))
    nets.assert_close(trees.take(last.outcome.variables, 0), nets.variables(file, tag, names), 1e-6)
    if compat == "faithful":
        nets.assert_close(nets.after(events[-1]), nets.variables(file, f"fresh_{tag}", names), 1e-6)


# Conformal unlearning, and the OPTML code it builds on


@pytest.mark.parametrize("kind", ["mlp", "bn"])
@pytest.mark.parametrize("name", ["finetune", "GA", "ga_plus"])
def test_conformal_methods_equal_the_published_code(kind, name):
    lr, epochs = golden("conformal", "sgd_methods")[f"{kind}_{name}_lr_epochs"]
    also = {"lr": float(lr), "epochs": int(epochs), "momentum": 0.9, "weight_decay": 5e-4}
    method = {
        "finetune": lambda: descent.finetune(**also),
        "GA": lambda: descent.ascent(schedule="constant", **also),
        "ga_plus": lambda: descent.negrad_plus(form="mixed", schedule="cosine", **also),
    }[name]()
    recorded.assert_epochs(kind, name, nets.in_order(method))


@pytest.mark.parametrize("names", [("FT", "FT_mask"), ("FT_l1",), ("GA", "GA_mask")])
def test_optml_methods_equal_the_published_code(names):
    file = golden("conformal", "optml_methods")
    lr, epochs, alpha, without = file[f"{names[0]}_hyper_lr_epochs_alpha_nol1"]
    lr, epochs = float(lr), int(epochs)
    method = {
        "FT": lambda: descent.finetune(lr, epochs, schedule="constant"),
        "FT_l1": lambda: sparsity.l1_sparse(lr, epochs, float(alpha), int(without)),
        "GA": lambda: descent.ascent(lr, epochs, 0.9, 5e-4, schedule="constant"),
    }[names[0]]()
    mask = nets.variables(file, "mask", OUR)["params"]
    hyper = {"is_masked": np.float32([name.endswith("_mask") for name in names])} if len(names) > 1 else None
    build = functools.partial(perhaps_masked, method, mask) if hyper else lambda: method
    start = nets.variables(file, "init", OUR)
    retain, forget = ((file[f"x_{part}"], file[f"y_{part}"]) for part in ("retain", "forget"))
    job = nets.make_job(
        tiny(start, retain[0]), lambda values: nets.in_order(build(**values)), start, retain, forget,
        batch=int(file["batch_size"]), members=len(names), hyper=hyper,
    )  # fmt: skip
    for actual, name in zip(outcomes(job), names, strict=True):
        nets.assert_close(actual, nets.variables(file, f"{name}_final", OUR), 1e-5)


# Over-Unlearning and Replay


def negrad(is_masked, **chosen):
    return perhaps_masked(descent.negrad_plus(lr=0.05, epochs=2, **chosen), our_mask(), is_masked)


def climbing(is_masked, **chosen):
    return perhaps_masked(descent.ascent(lr=0.05, epochs=2, schedule="constant", **chosen), our_mask(), is_masked)


def fitted(epochs, lr=0.05, **also):
    return descent.finetune(lr, epochs, **{"schedule": "constant", **also})


def our_mask():
    return nets.variables(golden("our", "descent"), "mask", OUR, "__")["params"]


# (The file's evaluate_init_* are no method's: the mean over batches of the loss of the original.)
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
    functools.partial(sparsity.ft_prune, 0.05, 3): {"ft_prune": {"alpha": 5e-5}},
    functools.partial(sparsity.ft_prune, 0.05, 3, warmup=6): {"ft_prune_samplewise": {"alpha": 5e-5}},
}  # fmt: skip


def as_ours(method):
    """The method on unshuffled batches of OUR's sizes."""
    file = golden("our", "descent")
    sizes = {"retain": int(file["retain_batch"]), "forget": int(file["forget_batch"])}
    return dataclasses.replace(method, phases=tuple(
        dataclasses.replace(phase, stream_specs={
            name: spec._replace(batch=sizes[name]) for name, spec in phase.stream_specs.items()
        })
        for phase in nets.in_order(method).phases
    ))  # fmt: skip


@pytest.mark.parametrize("build", OURS, ids=["+".join(tags) for tags in OURS.values()])
def test_over_unlearning_and_replay_methods_equal_the_published_code(build):
    file, members = golden("our", "descent"), OURS[build]
    start = nets.variables(file, "init", OUR, "__")
    retain, forget = ((file[f"X_{part}"], file[f"y_{part}"]) for part in ("retain", "forget"))
    hyper = {name: np.float32([values[name] for values in members.values()]) for name in next(iter(members.values()))}
    job = nets.make_job(
        tiny(start, retain[0], activation="tanh"), lambda values: as_ours(build(**values)), start, retain, forget,
        hyper=hyper, members=len(members),
    )  # fmt: skip
    for tag, actual in zip(members, outcomes(job), strict=True):
        nets.assert_close(actual, nets.variables(file, tag, OUR, "__"), 5e-6)
        if tag.endswith("_masked"):
            for new, old, may in zip(
                *map(jax.tree.leaves, (actual["params"], start["params"], our_mask())), strict=True
            ):
                np.testing.assert_array_equal(new[may == 0], old[may == 0])


def rates(schedule, epochs, length):
    """[epochs * length] factors of a schedule, step by step."""
    steps = np.arange(epochs * length)
    epoch, place = np.divmod(steps, length)
    clocks = StepInfo(np.int32(epoch), np.float32(place / length), np.int32(steps), np.full(len(steps), length))
    return np.asarray(jax.jit(jax.vmap(lambda step_info: jnp.float32(schedule(step_info))))(clocks), np.float64)


def test_rates_equal_the_published_ones():
    file = golden("our", "schedules")
    base, marks, length = float(file["base_lr"]), tuple(map(int, file["milestones"])), int(file["steps_per_epoch"])
    for factor, names in {0.2: ("shadow_train_gamma0p2_epochs_from_0", "fit_one_cycle_gamma0p2"),
                          0.8: ("fit_one_cycle_gamma0p8",)}.items():  # fmt: skip
        actual = base * rates(descent.make_schedule("overshooting", 12, marks, factor), 12, length)
        for name in names:
            np.testing.assert_allclose(actual, file[name], rtol=0, atol=1e-7, err_msg=name)
    marks = tuple(int(mark) - 1 for mark in file["dfme_steps"])  # that schedule steps ahead of the epoch
    actual = 0.02 * rates(descent.make_schedule("milestones", 0, marks, 0.3), 1117, 1)
    np.testing.assert_allclose(actual, file["dfme_student_lr_by_epoch"], rtol=1e-5)
    file = golden("our", "descent")
    for tag, factor in (("fit_v1_milestone3", 0.8), ("fit_v2_milestone3_l1", 0.2)):
        actual = 0.05 * rates(descent.make_schedule("overshooting", 5, (3,), factor), 5, 3)
        np.testing.assert_allclose(actual, file[f"{tag}_lrs"], rtol=0, atol=1e-7)
    for tag in ("fit_v1_const", "replay_v2_stage"):
        np.testing.assert_allclose(
            0.05 * rates(descent.make_schedule("constant", 3), 3, 3), file[f"{tag}_lrs"], rtol=1e-6
        )


# Forget precision


FINETUNINGS = {
    "finetune": lambda: descent.finetune(1e-3, 5, schedule="constant", nesterov=True),
    "finetune_ms": lambda: descent.finetune(
        0.05, 4, schedule="milestones", milestones=(1, 3), factor=0.1, nesterov=True
    ),
}


@pytest.mark.parametrize("name", FINETUNINGS)
def test_every_step_of_finetune_equals_forget_precision(name):
    recorded.assert_steps(name, FINETUNINGS[name]())


def test_rates_and_ascent_of_forget_precision():
    file = golden("forget_precision", "schedules_losses_misc")
    for name, base, schedule in (
        ("lr_retrain_multistep", 0.1, descent.make_schedule("milestones", 100, (35, 70, 90), 0.1)),
        ("lr_train_cfg_cosine", 0.1, descent.make_schedule("cosine", 200)),
        ("lr_poison_full_cosine", 2e-3, descent.make_schedule("cosine", 5)),
    ):
        actual = base * rates(schedule, len(file[name]), 1)
        np.testing.assert_allclose(actual, file[name], rtol=0, atol=1e-6, err_msg=name)
    logits, batch = jnp.asarray(file["ascent__logits"]), {"forget": plain_batch(jnp.asarray(file["ascent__y"]))}
    loss, gradient = jax.value_and_grad(lambda z: descent.forget_ascent({"forget": z}, batch, NOW))(logits)
    np.testing.assert_allclose(loss, file["ascent__loss"], atol=1e-6)
    np.testing.assert_allclose(gradient, file["ascent__grad"], atol=1e-6)
