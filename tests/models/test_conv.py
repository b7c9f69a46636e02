"""Every form of the convolution against the native one: alone, in populations, in loops, and differentiated twice."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxunlearn import errors
from jaxunlearn.models.layers import conv as convolution
from jaxunlearn.models.layers import conv_implementations
from jaxunlearn.models.layers.conv import FORMS, conv

OTHERS = FORMS[1:]
HEIGHT, WIDTH = 7, 5
MEMBERS = 3


def pads(kind, kernel, stride):
    """PyTorch's padding k // 2 on all sides, or what "SAME" resolves to for a 7x5 picture."""
    if kind == "torch":
        return ((kernel // 2, kernel // 2),) * 2
    return tuple(lax.padtype_to_pads((HEIGHT, WIDTH), (kernel, kernel), (stride, stride), "SAME"))


def operands(kernel, channels, members=(), batch=2, outputs=4, dtype=jnp.float32):
    draw = np.random.default_rng(kernel * 100 + channels)
    x = draw.normal(size=(*members, batch, HEIGHT, WIDTH, channels))
    w = draw.normal(size=(*members, kernel, kernel, channels, outputs)) / (kernel * channels**0.5)
    return jnp.asarray(x, dtype), jnp.asarray(w, dtype)


def value_and_gradients(form, stride, padding, x, w):
    """y, dL/dx, dL/dw of one member for a loss with an uneven cotangent."""
    y, pull = jax.vjp(lambda x, w: conv(x, w, stride, padding, form), x, w)
    return (y, *pull(jnp.cos(3 * y)))


def assert_equal(actual, expected, tolerance=1e-5):
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape and a.dtype == e.dtype
        a, e = np.asarray(a, np.float32), np.asarray(e, np.float32)
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * max(1.0, np.abs(e).max()))


@pytest.mark.parametrize(("stride", "kernel", "channels"), list(itertools.product((1, 2), (1, 2, 3, 5), (1, 3, 16))))
def test_every_form_equals_native_in_value_and_both_gradients(stride, kernel, channels):
    x, w = operands(kernel, channels)
    for padding in {pads("torch", kernel, stride), pads("same", kernel, stride)}:
        run = jax.jit(lambda x, w: {form: value_and_gradients(form, stride, padding, x, w) for form in FORMS})  # noqa: B023
        results = run(x, w)
        for form in OTHERS:
            assert_equal(results[form], results["native"])


def vmapped(member):
    return jax.vmap(member)


def mapped(member):
    return lambda x, w: lax.map(lambda pair: member(*pair), (x, w))


def scanned(member):
    """Members one after another inside a scan whose body also carries something."""

    def run(x, w):
        def step(total, pair):
            results = member(*pair)
            return total + results[0].sum(), results

        return lax.scan(step, jnp.zeros(()), (x, w))[1]

    return run


@pytest.mark.parametrize(
    ("kernel", "stride", "channels", "kind"),
    [(1, 2, 16, "torch"), (2, 1, 3, "same"), (3, 1, 1, "torch"), (3, 2, 16, "torch"), (5, 2, 3, "same")],
)
def test_every_form_equals_native_under_vmap_map_and_scan(kernel, stride, channels, kind):
    x, w = operands(kernel, channels, members=(MEMBERS,))
    padding = pads(kind, kernel, stride)
    single = [value_and_gradients("native", stride, padding, x[i], w[i]) for i in range(MEMBERS)]
    expected = [jnp.stack(leaves) for leaves in zip(*single, strict=True)]

    def everything(x, w):
        return {
            (name, form): lift(functools.partial(value_and_gradients, form, stride, padding))(x, w)
            for name, lift in {"vmap": vmapped, "map": mapped, "scan": scanned}.items()
            for form in FORMS
        }

    for results in jax.jit(everything)(x, w).values():
        assert_equal(results, expected)


@pytest.mark.parametrize("form", ["unrolled", "grouped"])
def test_an_operand_shared_by_all_members_is_batched_without_a_loop(form):
    x, w = operands(3, 3, members=(MEMBERS,))
    for axes, args in {(None, 0): (x[0], w), (0, None): (x, w[0])}.items():
        expected, actual = (
            jax.vmap(functools.partial(value_and_gradients, name, 1, pads("torch", 3, 1)), in_axes=axes)(*args)
            for name in ("native", form)
        )
        assert_equal(actual, expected)


def grouped_calls(form, members):
    x, w = operands(3, 3, members=(members,))
    gradients = jax.vmap(lambda x, w: value_and_gradients(form, 1, ((1, 1), (1, 1)), x, w))
    text = jax.jit(gradients).lower(x, w).as_text()
    return text.count("stablehlo.convolution("), text.count(f"_group_count = {members} ")


def test_unrolled_issues_native_calls_per_member_and_grouped_only_the_weight_gradient():
    assert grouped_calls("unrolled", MEMBERS) == (3 * MEMBERS, 0)
    assert grouped_calls("unrolled", 9) == (3, 3)
    assert grouped_calls("grouped", 9) == (2 + 9, 2)
    assert grouped_calls("im2col", MEMBERS) == (0, 0)


@pytest.mark.parametrize("lift", [vmapped, mapped])
def test_gradients_of_gradients_agree_in_every_form(lift):
    x, w = operands(3, 3, members=(MEMBERS,))

    def loss(x, w, form):
        return jnp.sum(jnp.sin(conv(x, w, 2, ((1, 1), (1, 1)), form)) ** 2)

    def reverse_over_reverse(form, x, w):
        def slope(x, w):
            dx, dw = jax.grad(loss, (0, 1))(x, w, form)
            return jnp.sum(jnp.cos(dx)) + jnp.sum(jnp.sin(dw))

        return jax.grad(slope, (0, 1))(x, w)

    results = jax.jit(lambda x, w: {f: lift(functools.partial(reverse_over_reverse, f))(x, w) for f in FORMS})(x, w)
    for form in OTHERS:
        assert_equal(results[form], results["native"], 2e-5)


def test_forward_over_reverse_agrees_and_third_derivatives_of_unrolled_exist():
    x, w = operands(3, 3)

    def loss(w, form):
        return jnp.sum(jnp.sin(conv(x, w, 1, ((1, 1), (1, 1)), form)) ** 2)

    def product(form):
        return jax.jvp(lambda w: jax.grad(loss)(w, form), (w,), (jnp.cos(w),))[1]

    for form in ("canonical", "im2col", "cpu"):
        assert_equal([product(form)], [product("native")], 2e-5)

    def third(form):
        second = jax.grad(lambda w: jnp.sum(jax.grad(loss)(w, form) ** 2))
        return jax.grad(lambda w: jnp.sum(second(w) ** 2))(w)

    assert_equal([third("unrolled")], [third("native")], 1e-4)


@pytest.mark.parametrize("form", OTHERS)
def test_bfloat16_operands_keep_their_type_and_accumulate_in_float32(form):
    x, w = operands(3, 16, members=(2,), batch=8, dtype=jnp.bfloat16)
    run = jax.jit(jax.vmap(functools.partial(value_and_gradients, form, 1, ((1, 1), (1, 1)))))
    exact = jax.vmap(functools.partial(value_and_gradients, "native", 1, ((1, 1), (1, 1))))(
        x.astype(jnp.float32), w.astype(jnp.float32)
    )
    for actual, expected in zip(run(x, w), exact, strict=True):
        assert actual.dtype == jnp.bfloat16
        # One rounding of the result, and one of the cotangent: 2^-8 each.
        worst = np.abs(np.asarray(actual, np.float32) - expected).max() / np.abs(expected).max()
        assert worst < 0.012


def test_stride_two_pads_as_pytorch_does():
    def ramp(shape):
        index = np.arange(np.prod(shape))
        return jnp.asarray((np.sin(index * 0.7) * 3 + index % 5).reshape(shape), jnp.float32)

    # torch 2.13: F.conv2d(x, w, stride=2, padding=1) of the same numbers in its own layout
    expected = [-8.991778, 37.49756, 10.790033, 6.844948]
    for form in FORMS:
        y = conv(ramp((1, 4, 4, 1)), ramp((3, 3, 1, 1)), 2, ((1, 1), (1, 1)), form)
        np.testing.assert_allclose(y.ravel(), expected, rtol=1e-5)


def test_unequal_strides_and_paddings_per_axis():
    x, w = operands(3, 3)
    for form in OTHERS:
        actual, expected = (value_and_gradients(f, (2, 3), ((0, 2), (1, 0)), x, w) for f in (form, "native"))
        assert_equal(actual, expected)


def test_errors_name_the_form_the_channels_and_the_size():
    x, w = operands(3, 3)
    with pytest.raises(errors.ConfigError, match="unknown convolution form 'canonic'. Did you mean 'canonical'"):
        conv(x, w, 1, ((1, 1), (1, 1)), "canonic")
    with pytest.raises(errors.ShapeError, match="axis C is 2"):
        conv(x, w[:, :, :2], 1, ((1, 1), (1, 1)), "native")
    with pytest.raises(errors.ShapeError, match="does not fit a picture of 7x5"):
        conv(x, jnp.ones((8, 8, 3, 1)), 1, ((0, 0), (0, 0)), "native")


def test_the_cpu_policy_chooses_by_layer():
    def layer_form(form, channels, size, kernel=3, outputs=64):
        geometry = conv_implementations.Geometry((1, 1), ((1, 1), (1, 1)), (size, size), (kernel, kernel))
        return convolution._layer_form(form, channels, outputs, geometry)

    assert layer_form("cpu", 1, 28) == layer_form("cpu", 3, 32, outputs=16) == "shift"
    assert layer_form("cpu", 3, 32) == "im2col" and layer_form("cpu", 4, 32) == "canonical"
    assert layer_form("cpu", 64, 4) == "im2col" and layer_form("cpu", 64, 5) == "canonical"
    assert layer_form("cpu", 64, 32, kernel=1) == "im2col"
    assert layer_form("grouped", 64, 32) == "grouped"
    with pytest.raises(errors.ConfigError, match="unknown convolution form 'fast'"):
        conv(jnp.ones((1, 8, 8, 1)), jnp.ones((3, 3, 1, 1)), 1, ((1, 1), (1, 1)), "fast")
