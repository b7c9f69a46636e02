"""Over-Unlearning and Replay, and its orthogonal form, against the published implementations; what wrappers promise."""

import dataclasses
import functools
from pathlib import Path

import common_checks
import flax.linen as nn
import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

from jaxunlearn import errors, trees
from jaxunlearn.models.architectures.small_data_vit import SmallDataVit
from jaxunlearn.models.layers import blocks
from jaxunlearn.unlearn import registry
from jaxunlearn.unlearn.base import network as networks
from jaxunlearn.unlearn.engine import running
from jaxunlearn.unlearn.wrappers import orthogonal, over_unlearning, wrappers

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "our"
DENSE = {"fc1": "Dense_0", "fc2": "Dense_1"}


@functools.cache
def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def with_labels(method, rule):
    """The method with `rule` (samples) -> labels in place of random ones, batches in their own order."""

    def given(phase):
        reads = {
            name: spec if spec.labels is None else spec._replace(labels=lambda key, samples, classes: rule(samples))
            for name, spec in phase.stream_specs.items()
        }
        return dataclasses.replace(phase, stream_specs=reads)

    return nets.in_order(dataclasses.replace(method, phases=tuple(map(given, method.phases))))


# Losses


@pytest.mark.parametrize("padding", [0, 5])
def test_orthogonality_losses_and_gradients_equal_the_published_ones(padding):
    file = golden("losses")
    features, reference = (
        jnp.pad(jnp.asarray(file[name], jnp.float32), ((0, padding), (0, 0)), constant_values=3.0)
        for name in ("feat", "feat_ref")
    )
    weights = jnp.arange(7 + padding) < 7
    for name, loss in (
        ("orth_gram", lambda rows: orthogonal.gram(rows, weights)),
        ("orth_pair", lambda rows: orthogonal.pair(rows, reference, weights)),
    ):
        value, gradient = jax.value_and_grad(loss)(features)
        np.testing.assert_allclose(value, file[name], rtol=1e-6)
        np.testing.assert_allclose(gradient[:7], file[f"{name}_grad"], rtol=0, atol=1e-7)
        assert not gradient[7:].any()
    actual = orthogonal.pair(features, reference, weights, 3)
    np.testing.assert_allclose(actual, file["orth_pair_chunk3"], rtol=1e-6)


def test_features_of_zeros_and_single_rows_have_finite_losses_and_gradients():
    rows = jnp.zeros((3, 4)).at[0, 0].set(1.0)
    for weights in (jnp.ones(3), jnp.zeros(3).at[1].set(1.0), jnp.zeros(3)):
        for loss in (orthogonal.gram, lambda features, weights: orthogonal.pair(features, features, weights)):
            value, gradient = jax.value_and_grad(loss)(rows, weights)
            assert np.isfinite(value) and np.isfinite(gradient).all() and not gradient[1:].any()
    assert orthogonal.gram(rows, jnp.zeros(3).at[0].set(1.0)) == 0


# Over-unlearning and Replay, version 1


def test_amnesiac_with_our_equals_the_published_phase_1_and_then_replay():
    file = golden("descent")
    net = nets.network(nets.Tiny(4, 5, activation="tanh"), (6,))
    retain, forget = ((file[f"X_{part}"], file[f"y_{part}"]) for part in ("retain", "forget"))
    relabelled = np.concatenate([retain[1], file["y_forget_relabel"]]).astype(np.int32)
    small = {"lr": 0.01, "batch": int(file["forget_batch"]), "our_batch": int(file["retain_batch"])}
    also = {"our_epochs": 3, "our_lr": 0.05, "our_momentum": 0.9, "our_warmup": False}
    method = with_labels(
        registry.lookup("amnesiac+our").build(**small, **also), lambda samples: jnp.asarray(relabelled)[samples.rows]
    )
    start = nets.variables(file, "init", DENSE, "__")
    (mid, whole) = (dataclasses.replace(method, phases=method.phases[:1]), method)
    actual = nets.outcome(nets.make_job(net, mid, start, retain, forget))
    nets.assert_close(actual, nets.variables(file, "amnesiac_our_phase1", DENSE, "__"), 5e-6)
    # Replay from the published start equals the published stage: the constant rate and L1.
    again = dataclasses.replace(whole, phases=whole.phases[1:])
    actual = nets.outcome(nets.make_job(net, again, start, retain, forget))
    nets.assert_close(actual, nets.variables(file, "replay_v2_stage", DENSE, "__"), 5e-6)


def test_the_warm_up_of_replay_is_the_published_one():
    file = golden("descent")
    net = nets.network(nets.Tiny(4, 5, activation="tanh"), (6,))
    retain, forget = ((file[f"X_{part}"], file[f"y_{part}"]) for part in ("retain", "forget"))
    method = over_unlearning.our(
        over_unlearning.pure_ascent(epochs=0), 0.05, 5, batch=int(file["retain_batch"]), milestones=(3,), factor=0.2
    )
    start = nets.variables(file, "init", DENSE, "__")
    actual = nets.outcome(nets.make_job(net, nets.in_order(method), start, retain, forget))
    nets.assert_close(actual, nets.variables(file, "fit_v2_milestone3_l1", DENSE, "__"), 5e-6)


# The orthogonal form, classes


class Stage(nn.Module):
    width: int

    @nn.compact
    def __call__(self, rows):
        return jnp.tanh(blocks.Dense(self.width)(rows))


class Staged(nn.Module):
    """Three stages with names, as the file's network."""

    num_classes: int = 5
    feature_paths = ("conv3_x", "conv4_x", "conv5_x")

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        rows = inputs
        for name, width in zip(self.feature_paths, (7, 5, 4), strict=True):
            rows = Stage(width, name=name)(rows)
        return blocks.Dense(self.num_classes, name="fc")(rows)


def staged(file, tag):
    """Flax variables of `Staged`."""

    def dense(name):
        return {"kernel": np.float32(file[f"{tag}__{name}.weight"].T), "bias": np.float32(file[f"{tag}__{name}.bias"])}

    stages = {name: {"Dense_0": dense(f"{name}.0")} for name in Staged.feature_paths}
    return {"params": {**stages, "fc": dense("fc")}}


CLASSWISE = {
    "orthogonality_mid": {},
    "orthogonality_final": {},
    "rl_our_final": {"orthogonal_gamma": 0.0},
    "orth_no_our_final": {"orthogonal_replay": False},
}


@pytest.mark.parametrize("tag", CLASSWISE)
def test_orthogonal_unlearning_of_a_class_equals_the_published_code(tag):
    file = golden("orth_classwise")
    retain = file["X_retain"], file["y_retain"]
    forget = file["X_forget"], np.full(len(file["X_forget"]), file["forget_class"])
    relabelled = np.concatenate([retain[1], file["relabel"]]).astype(np.int32)
    name = "amnesiac+orthogonal" + (wrappers.MID if tag.endswith("mid") else "")
    also = {} if tag.endswith("mid") else {"orthogonal_lr": float(file["lr_replay"]), "orthogonal_batch": 4}
    method = registry.lookup(name).build(lr=float(file["lr_unlearn"]), batch=128, **also, **CLASSWISE[tag])
    method = with_labels(method, lambda samples: jnp.asarray(relabelled)[samples.rows])
    net = nets.network(Staged(), (6,))
    actual = nets.outcome(nets.make_job(net, method, staged(file, "init"), retain, forget))
    nets.assert_close(actual, staged(file, tag), 5e-6)


# The orthogonal form, samples


VIT = SmallDataVit(4, width=6, heads=2, head_width=3, hidden=4, dropout=0.0)
VIT_NAMES = {"to_patch_embedding.to_patch_tokens.1": "norm_patches", "to_patch_embedding.to_patch_tokens.2": "patches",
             "mlp_head.0": "norm", "mlp_head.1": "head", "cls_token": "class_token",
             "pos_embedding": "positions"}  # fmt: skip
for layer in range(4):
    module_names = {
        "0.norm": "norm_attention", "0.fn.to_qkv": "query_key_value", "0.fn.temperature": "temperature",
        "0.fn.to_out.0": "mixed", "1.norm": "norm_mlp", "1.fn.net.0": "mlp_in", "1.fn.net.3": "mlp_out",
    }  # fmt: skip
    VIT_NAMES |= {f"transformer.layers.{layer}.{theirs}": f"{ours}_{layer}" for theirs, ours in module_names.items()}


def small_vit(file, tag):
    """Flax variables of `VIT` from the published names."""
    params = {}
    for name, array in file.items():
        if name.startswith(f"{tag}__"):
            path, array = name.removeprefix(f"{tag}__"), np.asarray(array, np.float32)
            module, _, leaf = path.rpartition(".")
            if leaf == "weight":
                params.setdefault(VIT_NAMES[module], {})["kernel" if array.ndim == 2 else "scale"] = array.T
            elif leaf == "bias":
                params.setdefault(VIT_NAMES[module], {})["bias"] = array
            else:
                params[VIT_NAMES[path]] = array
    return {"params": params}


def test_named_features_equal_the_published_hooks():
    file = golden("orth_samplewise")
    pictures = jnp.asarray(np.moveaxis(file["X_forget"], 1, -1), jnp.float32)
    net = nets.network(VIT, (8, 8, 3))
    logits, _, features = jax.jit(lambda params: networks.with_features(net, params, {}, pictures))(
        small_vit(file, "init")["params"]
    )
    np.testing.assert_allclose(logits, file["logits_init_forget"], rtol=0, atol=1e-5)
    for number, rows in enumerate(features):
        np.testing.assert_allclose(rows, file[f"act_f{number + 1}"], rtol=0, atol=1e-5)


REPLAYS = {
    "unlearned": {},
    "replay10": {"epochs": (3, 1, 2), "factors": (1.0, 0.5, 0.2)},
    "replay20": {"epochs": (3, 4, 3, 5), "factors": (1.0, 1.0, 1.0, 1e-4 / 4e-3)},
}


@pytest.mark.parametrize("tag", REPLAYS)
def test_orthogonal_unlearning_of_samples_equals_the_published_code(tag):
    file = golden("orth_samplewise")
    drawn = jnp.asarray(file["random_labels"])
    stages = REPLAYS[tag] or {"epochs": (), "factors": ()}
    also = {"lr": float(file["lr_replay"]), "l1_stages": 1, "optimizer": "adamw", "weight_decay": 1e-4, "batch": 4}
    method = registry.lookup("relabel+orthogonal").build(
        lr=float(file["lr_unlearn"]), epochs=6, batch=64, optimizer="adamw", weight_decay=1e-4, orthogonal_gamma=1.0,
        orthogonal_form="sample", orthogonal_weight=0.1,
        **{f"orthogonal_{name}": value for name, value in {**also, **stages}.items()},
    )  # fmt: skip
    phase = method.phases[0]
    (move,) = phase.gradient_steps

    def objective(outputs, batches, context):
        labels = drawn[context.step_info.epoch][batches["forget"].rows - len(file["y_retain"])]
        return move.objective(outputs, {"forget": batches["forget"]._replace(labels=labels)}, context)

    first = dataclasses.replace(phase, gradient_steps=(move._replace(objective=objective),))
    method = nets.in_order(dataclasses.replace(method, phases=(first, *method.phases[1:])))
    net = nets.network(VIT, (8, 8, 3))
    retain, forget = ((np.moveaxis(file[f"X_{part}"], 1, -1), file[f"y_{part}"]) for part in ("retain", "forget"))
    actual = nets.outcome(nets.make_job(net, method, small_vit(file, "init"), retain, forget))
    nets.assert_close(actual, small_vit(file, tag), 2e-5)


# What wrappers promise


class Named(common_checks.Net):
    """The shared network with names for its hidden features."""

    feature_paths = ("Dense_0", "BatchNorm_0")


NET = nets.network(Named(), (8, 8, 1))
WRAPPED = ("negrad_plus+our", "ssd+our", "bad_teacher+our", "amnesiac+orthogonal", "finetune+our+conformal",
           "negrad_plus+our+salient")  # fmt: skip
ROWS = [
    *common_checks.FORGET,
    common_checks.FORGET[0],
    np.arange(40, 45),
    common_checks.FORGET[2],
    np.array([7]),
    np.flatnonzero(common_checks.LABELS[:60] == 2),
]
NUMBERS = [0, 1, 2, 0, 1, 2, 0, 1]
SMALL = {"batch": 16, "epochs": 2, "our_epochs": 1, "orthogonal_epochs": (1, 1), "orthogonal_factors": (1.0, 0.5),
         "conformal_alpha": 0.2}  # fmt: skip


def chosen(name, **also):
    hyper = registry.hyperparameters(registry.lookup(name))
    return {**hyper, **{key: value for key, value in {**SMALL, **also}.items() if key in hyper}}


def job_of(name, rows=ROWS, member_ids=NUMBERS, mapping="vmap", **also):
    entry, values = registry.lookup(name), chosen(name, **also)
    build = registry.bind_hyperparameters(entry, values)
    hyper = {key: np.full(len(rows), values[key]) for key in registry.swept(entry, values) if key != "conformal_alpha"}
    job = common_checks.make_job(build({}), rows, mapping, member_ids)
    return job._replace(network=NET, build=build, hyper=hyper)


@pytest.mark.parametrize("name", WRAPPED)
def test_nothing_leaks_between_rows_and_a_population_equals_its_members(name):
    together = common_checks.outcome(job_of(name))
    np.testing.assert_array_equal(together.diverged_at, running.NOT_DIVERGED)
    for path, leaf in trees.named_leaves(together.variables):
        assert np.isfinite(leaf).all(), path
        np.testing.assert_array_equal(leaf[0], leaf[3])
        np.testing.assert_array_equal(leaf[2], leaf[5])
    alone = common_checks.outcome(job_of(name, [common_checks.FORGET[1]], [1], "map"))
    common_checks.assert_close(trees.take(together.variables, slice(1, 2)), alone.variables)


@pytest.mark.parametrize("name", ["negrad_plus", "random_label", "relabel", "bad_teacher"])
def test_over_unlearning_does_not_see_retained_rows(name):
    """Other pictures in their place change nothing before Replay, and something after it."""
    forget_rows = np.concatenate(common_checks.FORGET)
    changed_images = np.where(
        np.isin(np.arange(80), forget_rows)[:, None, None, None], common_checks.IMAGES, 1 - common_checks.IMAGES
    )
    for suffix, is_same in ((wrappers.MID, True), ("", False)):
        job = job_of(f"{name}+our{suffix}", common_checks.FORGET, [0, 1, 2])
        other = job._replace(data=job.data._replace(inputs=changed_images))
        retained = [np.arange(60, 80)] * 3
        actual = [common_checks.outcome(each._replace(retain=retained)).variables["params"] for each in (job, other)]
        pairs = list(zip(*map(jax.tree.leaves, actual), strict=True))
        assert all(np.array_equal(a, b) for a, b in pairs) == is_same


@pytest.mark.parametrize("name", ["amnesiac+orthogonal", "negrad_plus+our+conformal"])
def test_the_first_half_is_the_model_between_over_unlearning_and_replay(name):
    whole = job_of(name, common_checks.FORGET, [0, 1, 2], "map")
    between = [event for event in running.run(whole) if event.phase == 0][-1].checkpoint()["carry"].state.params
    half = common_checks.outcome(job_of(name + wrappers.MID, common_checks.FORGET, [0, 1, 2], "map")).variables[
        "params"
    ]
    for a, b in zip(*map(jax.tree.leaves, (between, half)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_method_can_be_followed_by_replay():
    for name in common_checks.ALL:
        known = registry.hyperparameters(registry.lookup(f"{name}+our"))
        values = {key: value for key, value in common_checks.SMALL.items() if key in known}
        method = registry.lookup(f"{name}+our").build(**values)
        assert method.phases[-1].stream_specs["retain"].rows == "retain" and method.mid == len(method.phases) - 1
        running.trace(common_checks.make_job(method, common_checks.FORGET[:1], name=name))


def test_features_and_labels_of_the_joint_form_reach_the_model():
    """Features that count pull the forget rows' hidden answers apart; without names there is a message."""
    forms = {
        "class": lambda after, before: orthogonal.gram(after, np.ones(len(after))),
        "sample": lambda after, before: orthogonal.pair(after, before, np.ones(len(after))),
    }
    for form, loss in forms.items():
        actual = []
        for gamma in (0.0, 5.0):
            job = job_of("amnesiac+orthogonal@mid", common_checks.FORGET[2:], [2], epochs=8, lr=0.02,
                             orthogonal_gamma=gamma, orthogonal_form=form, orthogonal_features=(1, 2))  # fmt: skip
            after, before = trees.take((common_checks.outcome(job).variables, job.originals), 0)
            rows = [
                networks.with_features(
                    NET, variables["params"], {"batch_stats": variables["batch_stats"]}, common_checks.IMAGES[14:26]
                )[2][0]
                for variables in (after, before)
            ]
            actual.append(float(loss(*rows)))
        assert actual[1] < 0.6 * actual[0], form


@pytest.mark.parametrize(
    "name, also, match",
    [
        ("ssd+orthogonal", {}, "no gradient steps"),
        ("scrub+our+orthogonal", {}, "one of them at most"),
        ("finetune+conformal+our", {}, "before other wrappers"),
        ("finetune+conformal@mid", {}, "only METHOD"),
        ("finetune+our@midway", {}, "must come at the end"),
        ("amnesiac+orthogonal", {"orthogonal_form": "clas"}, "Did you mean 'class'"),
        ("amnesiac+orthogonal", {"orthogonal_features": (0, 1)}, "expected numbers from 1"),
        ("amnesiac+orthogonal", {"orthogonal_epochs": (1,)}, "differ in number"),
    ],
)
def test_what_cannot_be_wrapped_is_named(name, also, match):
    with pytest.raises(errors.ConfigError, match=match):
        registry.lookup(name).build(**also)


def test_networks_without_named_features_and_numbers_beyond_them_are_named():
    with pytest.raises(errors.ConfigError, match="Net names no hidden features"):
        running.trace(
            job_of("amnesiac+orthogonal", common_checks.FORGET[:1], [0])._replace(network=common_checks.DENSE)
        )
    with pytest.raises(errors.ConfigError, match="requests feature 3, but the network names 2"):
        running.trace(job_of("amnesiac+orthogonal", common_checks.FORGET[:1], [0], orthogonal_features=(1, 3)))
    wrong = NET._replace(module=nets.Given(Named(), None))
    wrong.module.feature_paths = ("Dense_7",)
    with pytest.raises(errors.ConfigError, match="calls no module of that path"):
        variables = trees.take(common_checks.originals(common_checks.DENSE, 3), 0)
        networks.with_features(
            wrong, variables["params"], {"batch_stats": variables["batch_stats"]}, common_checks.IMAGES[:2]
        )


def test_hyperparameters_are_those_of_the_intensified_method_and_the_first_half_has_none_of_replay():
    whole, half = (registry.hyperparameters(registry.lookup(name), "cifar10") for name in ("ssd+our", "ssd+our@mid"))
    assert (whole["alpha"], whole["lam"], whole["our_epochs"]) == (0.005, 0.4, 5)
    assert set(half) == {name for name in whole if not name.startswith("our_")}
    assert (
        registry.hyperparameters(registry.lookup("finetune+our"), "cifar20")["epochs"] == 10
    )  # published for the method
    kept = set(registry.hyperparameters(registry.lookup("amnesiac+orthogonal@mid")))
    assert {"orthogonal_gamma", "orthogonal_form"} < kept and "orthogonal_lr" not in kept
