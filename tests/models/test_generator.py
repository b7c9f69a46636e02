"""Generators: as published, of any size, and errors."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import errors, trees
from jaxunlearn.models.architectures import generator

GOLDEN = Path(__file__).parents[1] / "golden" / "our" / "generator.npz"


def from_torch(golden, tag, width=4, side=2):
    """Our variables of the published generator; its dense layer gives [channels, height, width], ours channels last."""

    def get(name):
        return np.asarray(golden[f"{tag}__{name}"], np.float32)

    def channels_last(array):
        return np.moveaxis(array.reshape(2 * width, side, side, *array.shape[1:]), 0, 2).reshape(array.shape)

    params = {"Dense_0": {"kernel": channels_last(get("l1.0.weight")).T, "bias": channels_last(get("l1.0.bias"))}}
    stats = {}
    for index, name in enumerate(("conv_blocks0.0", "conv_blocks1.1", "conv_blocks2.1", "conv_blocks2.4")):
        if index < 3:
            params[f"BatchNorm_{index}"] = {"scale": get(f"{name}.weight"), "bias": get(f"{name}.bias")}
        stats[f"BatchNorm_{index}"] = {"mean": get(f"{name}.running_mean"), "var": get(f"{name}.running_var")}
    for index, name in enumerate(("conv_blocks1.0", "conv_blocks2.0", "conv_blocks2.3")):
        kernel = get(f"{name}.weight").transpose(2, 3, 1, 0)
        params[f"Conv_{index}"] = {"kernel": kernel, "bias": get(f"{name}.bias")}
    return {"params": params, "batch_stats": stats}


def test_pictures_are_as_published():
    golden = np.load(GOLDEN)
    module = generator.build((8, 8, 3), width=4)
    latents = jnp.asarray(golden["z"], jnp.float32)
    variables, published = from_torch(golden, "init"), from_torch(golden, "after_train_fwd")
    pictures, changed = module.apply(variables, latents, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(np.moveaxis(pictures, 3, 1), golden["pre_x_train"], atol=1e-5)
    for path, leaf in trees.named_leaves(changed["batch_stats"]):
        expected = dict(trees.named_leaves(published["batch_stats"]))[path]
        np.testing.assert_allclose(leaf, expected, atol=1e-6, err_msg=path)
    again = jnp.tanh(module.apply({**variables, **changed}, latents))
    np.testing.assert_allclose(np.moveaxis(again, 3, 1), golden["img_eval"], atol=1e-5)


def test_the_published_size():
    shapes = jax.eval_shape(generator.build((32, 32, 3)).init, jax.random.key(0), jnp.zeros((2, 100)))
    assert trees.count(shapes["params"]) == 1_051_139


@pytest.mark.parametrize("shape", [(8, 8, 1), (4, 12, 2), (5,)])
def test_inputs_of_any_size(shape):
    module = generator.build(shape, width=3)
    latents = jax.random.normal(jax.random.key(1), (6, 7))
    variables = module.init(jax.random.key(0), latents, train=True)
    outputs, _ = module.apply(variables, latents, train=True, mutable=["batch_stats"])
    assert outputs.shape == (6, *shape)
    # The last batch norm keeps values where the tanh is not flat.
    np.testing.assert_allclose(np.std(outputs, tuple(range(outputs.ndim - 1))), 1, atol=0.01)


@pytest.mark.parametrize("shape", [(10, 8, 1), (8, 6, 3), (8, 8), (1, 8, 8, 3)])
def test_inputs_that_cannot_be_made_are_refused(shape):
    with pytest.raises(errors.ConfigError, match="multiples of 4"):
        generator.build(shape)
