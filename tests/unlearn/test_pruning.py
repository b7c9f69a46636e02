"""Resets of weights against the published masks, and the four methods on small networks."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

from jaxunlearn import errors, keys, trees
from jaxunlearn.models.layers import blocks
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import MemberRows, Method, Phase, SavedState
from jaxunlearn.unlearn.blocks import transforms
from jaxunlearn.unlearn.methods import pruning

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "forget_precision"
TENSORS = ("conv1.weight", "layer.conv2.weight", "shortcut.0.weight", "linear.weight")
METHODS = (pruning.prune, pruning.prune_last_layer, pruning.prune_complex, pruning.activation_reset)


class Residual(nn.Module):
    """Stem, one residual block with a convolution as shortcut, BatchNorm, mean, dense head."""

    num_classes: int

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        maps = blocks.Conv(4, use_bias=False, name="conv_stem")(inputs)
        maps = nn.relu(blocks.BatchNorm(name="norm_stem")(maps, train, mask))
        short = blocks.Conv(6, 1, 1, 0, False, name="conv_shortcut")(maps)
        maps = blocks.BatchNorm(name="norm_0")(blocks.Conv(6, use_bias=False, name="conv_0")(maps), train, mask)
        return blocks.Dense(self.num_classes, name="head")(jnp.mean(nn.relu(maps + short), (1, 2)))


@pytest.fixture(scope="module")
def dense():
    net = nets.network(nets.Tiny(3, 40, True), (5, 5, 2))
    params, model_state = network.init(net, keys.root(1))
    return net, {"params": params, **model_state}


def pictures(rows, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    return (rng.normal(size=(rows, 5, 5, 2)) + y[:, None, None, None]).astype(np.float32), y.astype(np.int32)


@pytest.fixture(scope="module")
def residual():
    net = nets.network(Residual(3), (5, 5, 2))
    params, model_state = network.init(net, keys.root(1))
    return net, {"params": params, **model_state}


class Tensors(nn.Module):
    """Two convolutions, a third beside them, and a dense layer, of the shapes that the file of masks has."""

    num_classes: int
    shapes: tuple[tuple[int, ...], ...]  # in PyTorch's order

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        def conv(number, maps):
            outputs, _, size, _ = self.shapes[number]
            return blocks.Conv(outputs, size, 1, 0, False, name=f"conv_{number}")(maps)

        features = conv(1, conv(0, inputs)).mean((1, 2)) + conv(2, inputs).mean((1, 2))
        missing = self.shapes[3][1] - features.shape[1]
        return blocks.Dense(self.num_classes, name="head")(jnp.pad(features, ((0, 0), (0, missing))))


def tensors(file, cases, part):
    """Parameters of all cases, stacked; a tensor that a part does not have is that of the original model."""

    def one(case):
        tensors = {name: file.get(f"{case}__{part}__{name}", file[f"{case}__full__{name}"]) for name in TENSORS}
        names = {name.removesuffix(".weight"): f"conv_{number}" for number, name in enumerate(TENSORS[:3])}
        actual = nets.variables(
            {f"__{name}": leaf for name, leaf in tensors.items()}, "", {**names, "linear": "head"}, "__"
        )
        actual["params"]["head"]["bias"] = np.zeros(len(tensors["linear.weight"]), np.float32)
        return actual["params"]

    return trees.to_host(trees.stack([one(case) for case in cases]))


def groups(file, kind):
    """[(shapes, cases)] of the cases of a kind, by the shapes of their tensors."""
    actual = {}
    for case in sorted(name.split("__")[0] for name in file if name.endswith("__quantile")):
        if case.endswith(kind):
            actual.setdefault(tuple(file[f"{case}__full__{name}"].shape for name in TENSORS), []).append(case)
    return sorted(actual.items(), reverse=True)


def pruned(build, shapes, start, quantile, saved_states):
    """Parameters after the reset of `build` and its masks, of all cases as members, from given overfitted copies."""
    x, y = np.zeros((1, 5, 5, shapes[0][1]), np.float32), np.zeros(1, np.int32)
    job = nets.make_job(
        nets.network(Tensors(shapes[3][0], shapes), x.shape[1:]),
        lambda values: Method((build(**values).phases[-2],)), {"params": trees.take(start, 0)}, (x, y), (x, y),
        members=len(quantile), hyper={"quantile": quantile},
    )._replace(originals={"params": start})  # fmt: skip
    saved_states = {name: SavedState(copy, {}, ()) for name, copy in saved_states.items()}
    variables, estimates = nets.begun(job, saved_states, slice(None))
    return variables["params"], estimates["reset"]


BUILDERS = {"all": pruning.prune, "last": pruning.prune_last_layer, "complex": pruning.prune_complex}
COPIES = {"overfit": "forget", "overfit_retain": "retain"}


@pytest.mark.parametrize("group", [0, 1], ids=["larger", "smaller"])
@pytest.mark.parametrize("kind", BUILDERS)
def test_pruning_equals_the_published_one(kind, group, monkeypatch):
    file = dict(np.load(GOLDEN / "prune_masks.npz"))
    shapes, cases = groups(file, kind)[group]
    start, noise, masks, expected = (tensors(file, cases, part) for part in ("full", "noise", "mask", "result"))

    def own_noise(key, params):
        number = jnp.argmax(jnp.all(params["head"]["kernel"] == start["head"]["kernel"], (1, 2)))
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[number], noise)

    monkeypatch.setattr(pruning, "kaiming_noise", own_noise)
    copies = {
        name: tensors(file, cases, part) for name, part in COPIES.items() if f"{cases[0]}__{part}__{TENSORS[0]}" in file
    }
    assert ("overfit_retain" in copies) == (kind == "complex")
    quantile = np.asarray([file[f"{case}__quantile"] for case in cases])
    actual, reset = pruned(BUILDERS[kind], shapes, start, quantile, copies)
    for name in start:
        is_reset = masks[name]["kernel"] == 1
        np.testing.assert_array_equal(reset[name]["kernel"], is_reset)
        # An edit is applied as old + (new - old), which rounds; where nothing is reset, nothing moves.
        np.testing.assert_allclose(actual[name]["kernel"], expected[name]["kernel"], rtol=1e-7, atol=1e-7)
        np.testing.assert_array_equal(actual[name]["kernel"][~is_reset], start[name]["kernel"][~is_reset])


class Echo(nn.Module):
    """Convolutions by the unit matrix, whose outputs are the inputs: two maps, flattened and joined."""

    num_classes: int
    shapes: tuple[tuple[int, ...], ...]

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        first = np.prod(self.shapes[0])
        parts = inputs[:, :first], inputs[:, first:]
        means = [
            blocks.Conv(shape[-1], 1, 1, 0, False, name=f"conv_{number}")(part.reshape(-1, *shape)).mean((1, 2))
            for number, (part, shape) in enumerate(zip(parts, self.shapes, strict=True))
        ]
        return blocks.Dense(self.num_classes, name="head")(jnp.concatenate(means, -1))


def echo(forget, retain, unread):
    """Network, variables, (retained, forget) data whose activations are these maps; of some retained rows, NaN."""
    shapes = tuple(maps.shape[1:] for maps in forget)
    channels = [shape[-1] for shape in shapes]
    params = {f"conv_{number}": {"kernel": np.eye(size)[None, None]} for number, size in enumerate(channels)}
    params["head"] = {"kernel": np.zeros((sum(channels), 5)), "bias": np.zeros(5)}
    forget, retain = (
        np.concatenate([maps.reshape(len(maps), -1) for maps in stacks], 1) for stacks in (forget, retain)
    )
    retain = np.pad(retain, ((0, unread), (0, 0)), constant_values=np.nan)
    net = nets.network(Echo(5, shapes), forget.shape[1:])
    params = jax.tree.map(np.float32, params)
    return net, {"params": params}, (retain, np.zeros(len(retain))), (forget, np.zeros(len(forget)))


def excitement(file, case):
    """Means and masks of a case of the file, by the estimates of the method."""
    forget, retain = (
        [file[f"{case}__act_{part}__{name}"].transpose(0, 2, 3, 1) for name in TENSORS[:2]]
        for part in ("forget", "retain")
    )
    read = len(retain[0])
    options = {"tolerance": float(file[f"{case}__toll"]), "reset_mlp": bool(file[f"{case}__reset_mlp"])}

    def estimate(mean, compute=None):
        actual = pruning.activation_reset(epochs=0, retain_mean=mean, batch=5, **options).phases[0].estimates["reset"]
        reads = {
            **actual.stream_specs,
            "subset": actual.stream_specs["subset"]._replace(rows=lambda member_rows: member_rows.retain[:read]),
        }
        return actual._replace(compute=compute or actual.compute, stream_specs=reads)

    estimates = {
        "forget": estimate("subset", lambda member: pruning.mean_activations(member, "forget")),
        "subset": estimate("subset", lambda member: pruning.mean_activations(member, "subset")),
        "reset_rows": estimate("full"),
        "reset_rows_corrected": estimate("subset"),
    }
    method = Method((Phase(transforms.one_shot(lambda params, **extras: params), estimates=estimates, mode="eval"),))
    net, start, *data = echo(forget, retain, int(file[f"{case}__n_retain"]) - read)
    return nets.estimated(nets.make_job(net, method, start, *data))


def assert_reset(file, key, mask):
    """The weights of the file after the reset, by a mask that the package found."""
    old = file[key.format("w")]
    new = file[key.format("noise")] if key.format("noise") in file else np.full_like(old, np.nan)
    result = pruning.reset({"kernel": old}, {"kernel": mask}, {"kernel": new})["kernel"]
    np.testing.assert_array_equal(result, file[key.format("result")])


@pytest.mark.parametrize("case", [f"a0{number}" for number in range(1, 9)])
def test_activation_reset_equals_the_published_one(case):
    file = np.load(GOLDEN / "activation_reset.npz")
    actual = excitement(file, case)
    for number, name in enumerate(TENSORS[:2]):
        layer = f"conv_{number}"
        # The published mean over the retained rows is that of the few that it reads, divided by the number of all.
        share = len(file[f"{case}__act_retain__{name}"]) / file[f"{case}__n_retain"]
        for key, mean in (("forget_mean", actual["forget"]), ("retain_mean_ref", actual["subset"])):
            mean = mean[(layer,)].transpose(2, 0, 1) * (share if key == "retain_mean_ref" else 1.0)
            np.testing.assert_allclose(mean, file[f"{case}__{key}__{name}"], rtol=0, atol=1e-6)
        for key in ("reset_rows", "reset_rows_corrected"):
            mask, rows = actual[key][layer]["kernel"], file[f"{case}__{key}__{name}"] == 1
            np.testing.assert_array_equal(mask, np.broadcast_to(rows, mask.shape))
        rows = actual["reset_rows"][layer]["kernel"][0, 0, 0]
        assert_reset(file, f"{case}__{{}}__{name}", rows[:, None, None, None])
    is_reset = np.unique(actual["reset_rows"]["head"]["kernel"])
    assert len(is_reset) == 1
    assert_reset(file, f"{case}__{{}}__linear.weight", is_reset)


def test_weights_are_kernels_and_nothing_else(residual):
    _, start = residual
    flags = pruning.weights({**start["params"], "token": {"class_token": np.zeros((1, 1, 4))}})
    assert flags["conv_shortcut"]["kernel"] and flags["head"]["kernel"]
    assert not (flags["head"]["bias"] or flags["norm_0"]["scale"] or flags["token"]["class_token"])


@pytest.mark.parametrize("quantile, expected", [(0.0, 0), (1.0, 5), (0.5, 3)])
def test_quantile_ends_and_ties(quantile, expected):
    before, after = jnp.zeros(6), jnp.asarray([3.0, 1.0, 2.0, 0.5, 5.0, 4.0])
    assert int(pruning.moved_least(before, after, quantile).sum()) == expected
    assert int(pruning.moved_least(before, jnp.full(6, 0.1), quantile).sum()) == 0


def test_noise_has_the_kaiming_variance_and_a_key_per_tensor():
    params = {
        "a": {"kernel": jnp.zeros((3, 3, 16, 200)), "bias": jnp.ones(200)},
        "b": {"kernel": jnp.zeros((144, 200))},
    }
    noise = pruning.kaiming_noise(keys.root(0), params)
    for name in "ab":
        assert abs(float(noise[name]["kernel"].std()) / (2 / 144) ** 0.5 - 1) < 0.02
    assert not np.allclose(noise["a"]["kernel"].reshape(144, 200), noise["b"]["kernel"])
    assert float(jnp.abs(noise["a"]["bias"]).sum()) == 0


@pytest.mark.parametrize("build", METHODS)
def test_one_forget_row_and_no_retained_row_stay_finite(build, dense):
    net, start = dense
    x, y = pictures(1)
    method = build(epochs=1, **({} if build is pruning.activation_reset else {"overfit_epochs": 1}))
    actual = nets.outcome(nets.make_job(net, method, start, (x[:0], y[:0]), (x, y), batch=2))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(actual))
    moved = any((a != b).any() for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(start), strict=True))
    # Without retained rows the second copy stays where it is, and nothing moved less than nothing.
    assert moved == (build is not pruning.prune_complex)


def reset_shares(net, start, method, retain, forget):
    """Path -> share of elements that differ from the original, without repair (epochs=0)."""
    actual = nets.outcome(nets.make_job(net, method, start, retain, forget, bn="frozen", batch=8))
    return {
        f"{layer}/{name}": float(np.mean(np.asarray(actual["params"][layer][name]) != np.asarray(leaf)))
        for layer, leaves in start["params"].items()
        for name, leaf in leaves.items()
    }


def test_prune_resets_its_quantile_of_every_weight_and_nothing_else(dense):
    net, start = dense
    x, y = pictures(40)
    data = (x[8:], y[8:]), (x[:8], y[:8])
    shares = reset_shares(net, start, pruning.prune(epochs=0, quantile=0.3, overfit_epochs=2), *data)
    for name, share in shares.items():
        expected = 0.3 if name.endswith("kernel") else 0.0
        assert abs(share - expected) < 0.04, (name, share)
    last = reset_shares(net, start, pruning.prune_last_layer(epochs=0, quantile=0.3, overfit_epochs=2), *data)
    assert last == {name: shares[name] if name == "Dense_1/kernel" else 0.0 for name in shares}
    both = reset_shares(net, start, pruning.prune_complex(epochs=0, quantile=0.3, overfit_epochs=2), *data)
    assert 0 < both["Dense_0/kernel"] < shares["Dense_0/kernel"]


def test_activation_reset_compares_exact_means_over_all_retained_rows(residual):
    net, start = residual
    x, y = pictures(40)
    method = pruning.activation_reset(epochs=0, tolerance=0.5, fraction=1.0, reset_mlp=True)
    actual = nets.outcome(nets.make_job(net, method, start, (x[11:], y[11:]), (x[:11], y[:11]), bn="frozen", batch=8))
    assert (actual["params"]["head"]["kernel"] != start["params"]["head"]["kernel"]).all()
    np.testing.assert_array_equal(actual["params"]["head"]["bias"], start["params"]["head"]["bias"])
    outputs = jax.lax.conv_general_dilated(
        x, start["params"]["conv_stem"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    expected = (outputs[:11].mean(0) > outputs[11:].mean(0)).sum((0, 1)) > 0.5 * 25
    new, old = (variables["params"] for variables in (actual, start))
    differs = np.asarray(new["conv_stem"]["kernel"] != old["conv_stem"]["kernel"])
    np.testing.assert_array_equal(differs.any((0, 1, 2)), expected)
    np.testing.assert_array_equal(differs.all((0, 1, 2)), expected)  # a kernel goes as a whole
    np.testing.assert_array_equal(new["conv_shortcut"]["kernel"], old["conv_shortcut"]["kernel"])
    assert 0 < expected.sum() < 4


def test_the_published_division_by_all_retained_rows_makes_the_rule_one_of_signs(residual):
    net, start = residual
    x, y = pictures(40)
    x[:11] = np.abs(x[:11])
    full = pruning.activation_reset(epochs=0, tolerance=0.5, fraction=0.04, retain_mean="full", reset_mlp=False)
    actual = nets.outcome(nets.make_job(net, full, start, (x[11:], y[11:]), (x[:11], y[:11]), bn="frozen", batch=8))
    outputs = jax.lax.conv_general_dilated(
        x, start["params"]["conv_stem"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    positive = (outputs[:11].mean(0) > 0).mean((0, 1))
    differs = (actual["params"]["conv_stem"]["kernel"] != start["params"]["conv_stem"]["kernel"]).any((0, 1, 2))
    clear = (positive > 0.8) | (positive < 0.2)
    np.testing.assert_array_equal(differs[clear], positive[clear] > 0.5)


def test_networks_that_cannot_work_are_named():
    net = nets.network(nets.Tiny(3, 4), (2,))
    params, _ = network.init(net, keys.root(0))
    x, y = np.ones((4, 2), np.float32), np.zeros(4, np.int32)
    method = pruning.activation_reset(epochs=0, reset_mlp=False)
    with pytest.raises(errors.ConfigError, match="no convolution"):
        nets.outcome(nets.make_job(net, method, {"params": params}, (x, y), (x, y)))
    with pytest.raises(errors.ConfigError, match="compat"):
        pruning.prune_complex(compat="publshed")


def test_subsets_are_distinct_retained_rows_and_repeat():
    def member_rows(retain):
        return MemberRows(np.arange(3), retain, np.arange(0), np.zeros(200, np.int32), 0, np.random.default_rng(5))

    retain = np.arange(50, 150)
    rows = pruning.subset(0.25)(member_rows(retain))
    assert len(set(rows)) == 25 and set(rows) <= set(retain)
    np.testing.assert_array_equal(rows, pruning.subset(0.25)(member_rows(retain)))
    assert len(pruning.subset(0.001)(member_rows(retain))) == 1
    assert len(pruning.subset(0.5)(member_rows(retain[:0]))) == 0
