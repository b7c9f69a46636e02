"""Parameters and operations against the published counts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxunlearn.models import build, describe
from jaxunlearn.settings import ModelSettings

CIFAR = (32, 32, 3)


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("resnet18", 10, 11_173_962),
        ("resnet18", 100, 11_220_132),
        ("resnet34", 10, 21_282_122),
        ("resnet34", 100, 21_328_292),
        ("resnet50", 10, 23_520_842),
        ("resnet50", 100, 23_705_252),
    ],
)
def test_residual_networks_have_the_published_parameter_counts(name, classes, parameters):
    assert describe(build(ModelSettings(name=name), classes), CIFAR).parameters == parameters


def test_the_fast_network_has_the_published_convolutions_and_a_fifth_of_the_cost():
    """1,970,176 weights in convolutions and head as published, 24 biases of the whitening, 2,304 of batch norm."""
    cost = describe(build(ModelSettings(name="airbench"), 10), CIFAR)
    assert cost.parameters == 1_970_176 + 24 + 2304
    assert cost.forward_flops < 0.22 * describe(build(ModelSettings(name="resnet18"), 10), CIFAR).forward_flops


@pytest.mark.parametrize(
    ("name", "classes", "side", "parameters"),
    [
        ("vit_s16", 10, 32, 21_669_514),
        ("vit_s16", 200, 64, 21_742_664),
        ("vgg16_imagenet", 10, 32, 134_297_290),
        ("vgg16_imagenet", 10, 224, 134_297_290),
        # 14,710,464 of convolutions, 8,448 of batch norm, 592,906 of dense layers.
        ("vgg16_bn", 10, 32, 15_311_818),
    ],
)
def test_networks_of_conformal_unlearning_have_the_published_parameter_counts(name, classes, side, parameters):
    assert describe(build(ModelSettings(name=name), classes), (side, side, 3)).parameters == parameters


def test_published_vgg_convolutions_have_no_bias_and_the_large_transformer_reads_197_tokens():
    for name in ("vgg16_imagenet", "vgg16_bn"):
        variables = jax.eval_shape(build(ModelSettings(name=name), 10).init, jax.random.key(0), jnp.ones((1, *CIFAR)))
        layers = {layer: set(leaves) for layer, leaves in variables["params"].items() if layer.startswith("Conv")}
        assert len(layers) == 13 and set().union(*layers.values()) == {"kernel"}
        assert ("batch_stats" in variables) == (name == "vgg16_bn")
    params = jax.eval_shape(build(ModelSettings(name="vit_s16"), 10).init, jax.random.key(0), jnp.ones((1, *CIFAR)))
    assert params["params"]["positions"].shape == (1, 197, 384)


@pytest.mark.parametrize(
    ("name", "classes", "shape", "parameters"),
    [
        ("purchase", 100, (600,), 1_317_348),
        ("location", 30, (446,), 151_198),
        ("texas", 100, (6169,), 7_020_004),
        ("logistic", 10, (8, 8, 1), 650),
        ("cnn", 10, (8, 8, 1), 38_282),
        # 48 biases of convolutions less, 96 numbers of batch norm more.
        ("cnn_bn", 10, (8, 8, 1), 38_330),
        ("scnn", 10, (32, 32, 3), 1_626_442),
        ("wrn28_2", 94, (32, 32, 3), 1_478_446),
        ("vit_small_data", 20, (32, 32, 3), 4_376_568),
    ],
)
def test_dense_and_small_networks_have_the_expected_parameter_counts(name, classes, shape, parameters):
    assert describe(build(ModelSettings(name=name), classes), shape).parameters == parameters


@pytest.mark.parametrize(
    ("name", "classes", "shape", "million_multiply_adds", "activations"),
    [
        ("resnet18", 100, CIFAR, 555.5, 614_400),
        ("resnet34", 100, CIFAR, 1159.4, 1_024_000),
        ("resnet50", 100, CIFAR, 1298.0, 3_432_448),
        ("purchase", 100, (600,), 1.315, 0),
        ("location", 30, (446,), 0.151, 0),
    ],
)
@pytest.mark.parametrize("conv", ["native", "im2col"])
def test_operations_are_those_of_the_table_whatever_the_form(
    name, classes, shape, million_multiply_adds, activations, conv
):
    cost = describe(build(ModelSettings(name=name), classes, conv), shape)
    assert cost.forward_flops / 2e6 == pytest.approx(million_multiply_adds, rel=2e-3)
    assert cost.activations == activations


def test_the_largest_convolution_counts_its_window_channels_and_outputs():
    cost = describe(build(ModelSettings(name="cnn"), 10), (8, 8, 1))
    assert cost.largest_conv_flops == 2 * 9 * 16 * 32 * 64
    assert cost.activations == 64 * (16 + 32)
    assert cost.forward_flops == 2 * (9 * 16 * 64 + 9 * 16 * 32 * 64 + 512 * 64 + 64 * 10)


class Looped(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        kernel = self.param("kernel", nn.initializers.ones, (4, 4))
        return jax.lax.scan(lambda now, _: (jax.jit(jnp.dot)(now, kernel), None), inputs, None, length=5)[0]


def test_products_inside_loops_and_inner_programs_count_as_often_as_they_run():
    assert describe(Looped(), (4,)) == (16, 5 * 2 * 16, 0, 0)


class Grouped(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        return nn.Conv(6, (3, 3), feature_group_count=3)(inputs)


def test_grouped_convolutions_reduce_over_their_own_channels_only():
    assert describe(Grouped(), (8, 8, 3)).largest_conv_flops == 2 * 9 * 1 * 6 * 64
