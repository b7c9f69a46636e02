"""Resets of weights against the published masks, and the four methods on small networks."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

from jaxunlearn import errors, keys
from jaxunlearn.models import blocks
from jaxunlearn.unlearn import network, pruning
from jaxunlearn.unlearn.method import Pools

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
    params, statistics = network.init(net, keys.root(1))
    return net, {"params": params, **statistics}


def kernels(file, prefix, names):
    """Tree {name: {"kernel": ...}}: rules P look at elements only, so that the order of axes does not matter."""
    return {name: {"kernel": file[f"{prefix}__{name}"]} for name in names if f"{prefix}__{name}" in file}


def pictures(rows, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    return (rng.normal(size=(rows, 5, 5, 2)) + y[:, None, None, None]).astype(np.float32), y.astype(np.int32)


@pytest.fixture(scope="module")
def residual():
    net = nets.network(Residual(3), (5, 5, 2))
    params, statistics = network.init(net, keys.root(1))
    return net, {"params": params, **statistics}


def test_quantile_masks_and_resets_equal_the_published_ones():
    file = dict(np.load(GOLDEN / "prune_masks.npz"))
    cases = sorted({name.split("__")[0] for name in file})
    assert {case.split("_")[1] for case in cases} == {"last", "complex", "all"}
    for case in cases:
        full, forget = (kernels(file, f"{case}__{part}", TENSORS) for part in ("full", "forget"))
        other = kernels(file, f"{case}__retain", TENSORS) or None
        chosen = {name: {"kernel": not case.endswith("last") or name == "linear.weight"} for name in full}
        mask = pruning.reset_mask_quantile(full, forget, float(file[f"{case}__quantile"]), other, chosen)
        noise = {name: {"kernel": file.get(f"{case}__noise__{name}", full[name]["kernel"])} for name in full}
        result = pruning.reset(full, mask, noise)
        for name in full:
            np.testing.assert_array_equal(mask[name]["kernel"], file[f"{case}__mask__{name}"] == 1, err_msg=case + name)
            np.testing.assert_array_equal(result[name]["kernel"], file[f"{case}__result__{name}"], err_msg=case + name)


@pytest.mark.parametrize("retain_mean", ["full", "subset"])
def test_activation_masks_equal_the_published_ones(retain_mean):
    file = dict(np.load(GOLDEN / "activation_reset.npz"))
    for case in sorted({name.split("__")[0] for name in file}):
        for name in TENSORS[:2]:
            forget, retain = (
                file[f"{case}__act_{part}__{name}"].transpose(0, 2, 3, 1).mean(0) for part in ("forget", "retain")
            )
            if retain_mean == "full":
                retain = retain * len(file[f"{case}__act_retain__{name}"]) / file[f"{case}__n_retain"]
            found = pruning.reset_mask_activation(
                jnp.asarray(forget), jnp.asarray(retain), float(file[f"{case}__toll"])
            )
            which = "reset_rows" if retain_mean == "full" else "reset_rows_corrected"
            np.testing.assert_array_equal(found, file[f"{case}__{which}__{name}"] == 1, err_msg=case + name)
            if retain_mean == "full":
                kernel, noise = (file[f"{case}__{part}__{name}"].transpose(2, 3, 1, 0) for part in ("w", "noise"))
                mask = {"kernel": jnp.broadcast_to(found, kernel.shape)}
                result = pruning.reset({"kernel": kernel}, mask, {"kernel": noise})["kernel"]
                np.testing.assert_array_equal(result, file[f"{case}__result__{name}"].transpose(2, 3, 1, 0))


def test_weights_are_kernels_and_nothing_else(residual):
    _, start = residual
    chosen = pruning.weights({**start["params"], "token": {"class_token": np.zeros((1, 1, 4))}})
    assert chosen["conv_shortcut"]["kernel"] and chosen["head"]["kernel"]
    assert not (chosen["head"]["bias"] or chosen["norm_0"]["scale"] or chosen["token"]["class_token"])


@pytest.mark.parametrize("quantile, wanted", [(0.0, 0), (1.0, 5), (0.5, 3)])
def test_quantile_ends_and_ties(quantile, wanted):
    before, after = jnp.zeros(6), jnp.asarray([3.0, 1.0, 2.0, 0.5, 5.0, 4.0])
    assert int(pruning.moved_least(before, after, quantile).sum()) == wanted
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
    found = nets.outcome(nets.setup(net, method, start, (x[:0], y[:0]), (x, y), batch=2))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    moved = any((a != b).any() for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(start), strict=True))
    # Without retained rows the second copy stays where it is, and nothing moved less than nothing.
    assert moved == (build is not pruning.prune_complex)


def reset_shares(net, start, method, retain, forget):
    """Path -> share of elements that differ from the original, without repair (epochs=0)."""
    found = nets.outcome(nets.setup(net, method, start, retain, forget, bn="frozen", batch=8))
    return {
        f"{layer}/{name}": float(np.mean(np.asarray(found["params"][layer][name]) != np.asarray(leaf)))
        for layer, leaves in start["params"].items()
        for name, leaf in leaves.items()
    }


def test_prune_resets_its_quantile_of_every_weight_and_nothing_else(dense):
    net, start = dense
    x, y = pictures(40)
    data = (x[8:], y[8:]), (x[:8], y[:8])
    shares = reset_shares(net, start, pruning.prune(epochs=0, quantile=0.3, overfit_epochs=2), *data)
    for name, share in shares.items():
        wanted = 0.3 if name.endswith("kernel") else 0.0
        assert abs(share - wanted) < 0.04, (name, share)
    last = reset_shares(net, start, pruning.prune_last_layer(epochs=0, quantile=0.3, overfit_epochs=2), *data)
    assert last == {name: shares[name] if name == "Dense_1/kernel" else 0.0 for name in shares}
    both = reset_shares(net, start, pruning.prune_complex(epochs=0, quantile=0.3, overfit_epochs=2), *data)
    assert 0 < both["Dense_0/kernel"] < shares["Dense_0/kernel"]


def test_activation_reset_compares_exact_means_over_all_retained_rows(residual):
    net, start = residual
    x, y = pictures(40)
    method = pruning.activation_reset(epochs=0, tolerance=0.5, fraction=1.0, reset_mlp=True)
    found = nets.outcome(nets.setup(net, method, start, (x[11:], y[11:]), (x[:11], y[:11]), bn="frozen", batch=8))
    assert (found["params"]["head"]["kernel"] != start["params"]["head"]["kernel"]).all()
    np.testing.assert_array_equal(found["params"]["head"]["bias"], start["params"]["head"]["bias"])
    outputs = jax.lax.conv_general_dilated(
        x, start["params"]["conv_stem"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    wanted = (outputs[:11].mean(0) > outputs[11:].mean(0)).sum((0, 1)) > 0.5 * 25
    new, old = (one["params"] for one in (found, start))
    differs = np.asarray(new["conv_stem"]["kernel"] != old["conv_stem"]["kernel"])
    np.testing.assert_array_equal(differs.any((0, 1, 2)), wanted)
    np.testing.assert_array_equal(differs.all((0, 1, 2)), wanted)  # a kernel goes as a whole
    np.testing.assert_array_equal(new["conv_shortcut"]["kernel"], old["conv_shortcut"]["kernel"])
    assert 0 < wanted.sum() < 4


def test_the_published_division_by_all_retained_rows_makes_the_rule_one_of_signs(residual):
    net, start = residual
    x, y = pictures(40)
    x[:11] = np.abs(x[:11])
    full = pruning.activation_reset(epochs=0, tolerance=0.5, fraction=0.04, retain_mean="full", reset_mlp=False)
    found = nets.outcome(nets.setup(net, full, start, (x[11:], y[11:]), (x[:11], y[:11]), bn="frozen", batch=8))
    outputs = jax.lax.conv_general_dilated(
        x, start["params"]["conv_stem"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    positive = (outputs[:11].mean(0) > 0).mean((0, 1))
    differs = (found["params"]["conv_stem"]["kernel"] != start["params"]["conv_stem"]["kernel"]).any((0, 1, 2))
    clear = (positive > 0.8) | (positive < 0.2)
    np.testing.assert_array_equal(differs[clear], positive[clear] > 0.5)


def test_networks_that_cannot_work_are_named():
    net = nets.network(nets.Tiny(3, 4), (2,))
    params, _ = network.init(net, keys.root(0))
    x, y = np.ones((4, 2), np.float32), np.zeros(4, np.int32)
    method = pruning.activation_reset(epochs=0, reset_mlp=False)
    with pytest.raises(errors.ConfigError, match="no convolution"):
        nets.outcome(nets.setup(net, method, {"params": params}, (x, y), (x, y)))
    with pytest.raises(errors.ConfigError, match="compat"):
        pruning.prune_complex(compat="publshed")


def test_subsets_are_distinct_retained_rows_and_repeat():
    def pools(retain):
        return Pools(np.arange(3), retain, np.arange(0), np.zeros(200, np.int32), 0, np.random.default_rng(5))

    retain = np.arange(50, 150)
    rows = pruning.subset(0.25)(pools(retain))
    assert len(set(rows)) == 25 and set(rows) <= set(retain)
    np.testing.assert_array_equal(rows, pruning.subset(0.25)(pools(retain)))
    assert len(pruning.subset(0.001)(pools(retain))) == 1
    assert len(pruning.subset(0.5)(pools(retain[:0]))) == 0
