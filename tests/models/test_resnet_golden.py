"""ResNet-18 compared with the published PyTorch network on the same parameters."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.models import build, describe
from jaxunlearn.settings import ModelSettings

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "forget_precision" / "resnet18_forward.npz"


def draw_variables(seed):
    """The variables of the file: standard normal numbers in the order of PyTorch's layers, scaled by kind of leaf."""
    draw = np.random.default_rng(seed)
    params, statistics = {}, {}

    def normal(*shape):
        return draw.standard_normal(shape).astype(np.float32)

    def conv_and_norm(block, name, inputs, outputs, kernel):
        block_params, block_statistics = (
            tree.setdefault(block, {}) if block else tree for tree in (params, statistics)
        )
        weights = normal(outputs, inputs, kernel, kernel) * np.float32(np.sqrt(2 / (inputs * kernel * kernel)))
        # PyTorch has [out, in, h, w].
        block_params[f"conv_{name}"] = {"kernel": weights.transpose(2, 3, 1, 0)}
        scale, bias, mean, var = (normal(outputs) for _ in range(4))
        tenth = np.float32(0.1)
        block_params[f"norm_{name}"] = {"scale": 1 + tenth * scale, "bias": tenth * bias}
        block_statistics[f"norm_{name}"] = {"mean": tenth * mean, "var": np.exp(tenth * var)}

    conv_and_norm("", "stem", 3, 64, 3)
    channels = 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for index in range(2):
            block = f"stage_{stage}_block_{index}"
            conv_and_norm(block, "0", channels, width, 3)
            conv_and_norm(block, "1", width, width, 3)
            if channels != width:
                conv_and_norm(block, "shortcut", channels, width, 1)
            channels = width
    params["head"] = {"kernel": (np.float32(0.05) * normal(10, 512)).T, "bias": np.float32(0.1) * normal(10)}
    return {"params": params, "batch_stats": statistics}


@functools.cache
def golden():
    with np.load(GOLDEN) as loaded:
        return dict(loaded)


def test_logits_and_running_statistics_are_those_of_the_published_network():
    file = golden()
    net, variables = build(ModelSettings(name="resnet18"), 10), draw_variables(int(file["seed"]))
    inputs = jnp.asarray(np.moveaxis(file["x"], 1, -1))
    assert jax.tree.map(jnp.shape, jax.eval_shape(net.init, jax.random.key(0), inputs)) == jax.tree.map(
        jnp.shape, variables
    )
    np.testing.assert_allclose(net.apply(variables, inputs), file["logits_eval"], rtol=1e-3, atol=2e-3)
    logits, moved = net.apply(variables, inputs, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(logits, file["logits_train"], rtol=1e-3, atol=2e-3)
    moved = moved["batch_stats"]
    # With the unbiased variance n / (n - 1): of the last maps, 4x4 of 4 pictures, that is 64 / 63.
    for ours, theirs in (
        (moved["norm_stem"], "bn1"),
        (moved["stage_3_block_1"]["norm_1"], "last"),
    ):
        np.testing.assert_allclose(ours["mean"], file[f"rm_after__{theirs}"], rtol=1e-3, atol=2e-3)
        np.testing.assert_allclose(ours["var"], file[f"rv_after__{theirs}"], rtol=1e-3, atol=2e-3)
    # Tight where the tolerance above would let the biased variance pass.
    last = moved["stage_3_block_1"]["norm_1"]["var"]
    before = variables["batch_stats"]["stage_3_block_1"]["norm_1"]["var"]
    wrong = 0.9 * before + (last - 0.9 * before) * 63 / 64
    assert np.abs(last - file["rv_after__last"]).max() < 0.1 * np.abs(wrong - file["rv_after__last"]).max()


def test_it_has_the_published_number_of_parameters():
    cost = describe(build(ModelSettings(name="resnet18"), 10), (32, 32, 3))
    assert cost.parameters == int(golden()["param_count"])
