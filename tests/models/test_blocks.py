"""The layers: how they start, and batch norm against NumPy and PyTorch, padded rows included."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.models.layers import blocks


def ramp(shape):
    index = np.arange(np.prod(shape))
    return (np.sin(index * 0.7) * 3 + index % 5).astype(np.float32).reshape(shape)


def fresh(channels, **options):
    norm = blocks.BatchNorm(**options)
    return norm, norm.init(jax.random.key(0), jnp.ones((2, channels)))


def trained(norm, variables, x, mask=None):
    y, moved = norm.apply(variables, jnp.asarray(x), True, mask, mutable=["batch_stats"])
    return np.asarray(y, np.float32), jax.tree.map(np.asarray, moved["batch_stats"])


def reference_batch_norm(x, scale, bias):
    """Batch norm of unmasked rows by loops over channels, in float64."""
    y, means, variances = np.zeros(x.shape), [], []
    for c in range(x.shape[-1]):
        values = x[..., c].astype(np.float64)
        mean, n = values.mean(), values.size
        var = ((values - mean) ** 2).sum() / n
        y[..., c] = scale[c] * (values - mean) / np.sqrt(var + 1e-5) + bias[c]
        means.append(0.1 * mean)
        variances.append(0.9 + 0.1 * var * n / max(n - 1, 1))
    return y, np.array(means), np.array(variances)


@pytest.mark.parametrize(("layer", "fan_in"), [("dense", 400), ("conv", 9 * 45)])
def test_weights_and_biases_start_uniform_within_one_over_root_fan_in(layer, fan_in):
    module, x = (
        (blocks.Dense(3000), jnp.ones((1, 400))) if layer == "dense" else (blocks.Conv(3000), jnp.ones((1, 3, 3, 45)))
    )
    params = module.init(jax.random.key(0), x)["params"]
    bound = fan_in**-0.5
    for leaf in (params["kernel"], params["bias"]):
        assert np.abs(leaf).max() <= bound and np.abs(leaf).max() > 0.99 * bound
        assert abs(float(leaf.mean())) < 0.05 * bound
        np.testing.assert_allclose(leaf.std(), bound / 3**0.5, rtol=0.03)
        assert leaf.dtype == jnp.float32


def test_convolution_without_bias_has_none_and_computes_in_bfloat16_on_request():
    layer = blocks.Conv(4, use_bias=False, dtype="bfloat16")
    variables = layer.init(jax.random.key(0), jnp.ones((1, 5, 5, 2)))
    assert set(variables["params"]) == {"kernel"} and variables["params"]["kernel"].dtype == jnp.float32
    assert layer.apply(variables, jnp.ones((1, 5, 5, 2))).dtype == jnp.bfloat16


def test_batch_norm_equals_pytorch():
    # torch 2.13, BatchNorm2d(2) in training mode on the same numbers, weight (1.5, .5), bias (.25, -.5)
    y = [-1.1854396, -0.378815, 2.1067264, 0.1171333, 2.139018, -1.1226516, -2.2579932, -1.1030538, -0.4506661,
         -0.1701697, 0.123735, -0.1862106, 1.8459802, -0.1875563, 0.7412069, -1.4188303, -2.4724112, -0.8990456,
         0.874257, 0.1953585, 0.7885398, -0.2659633, 0.7470472, -0.5801952]  # fmt: skip
    dx = [0.6118759, 0.1075821, -0.2083377, -0.1847734, -0.3649093, 0.0697452, 0.5461828, 0.1572544, -0.1221219,
          -0.1661646, -0.561801, 0.0049492, 0.6190563, 0.1735244, 0.1089511, -0.120997, -0.7355452, -0.037591,
          0.4615967, 0.1835095, 0.2909186, -0.0970361, -0.6458664, -0.0900027]  # fmt: skip
    x, norm = jnp.asarray(ramp((3, 2, 2, 2))), blocks.BatchNorm()
    stats = {"mean": jnp.zeros(2), "var": jnp.ones(2)}
    params = {"scale": jnp.array([1.5, 0.5]), "bias": jnp.array([0.25, -0.5])}

    def loss(params, x):
        out, moved = norm.apply({"params": params, "batch_stats": stats}, x, True, mutable=["batch_stats"])
        return jnp.sum(out * jnp.cos(jnp.arange(24.0)).reshape(x.shape)), (out, moved["batch_stats"])

    gradients, (out, moved) = jax.grad(loss, (0, 1), has_aux=True)(params, x)
    np.testing.assert_allclose(out.ravel(), y, atol=2e-6)
    np.testing.assert_allclose(gradients[1].ravel(), dx, atol=2e-6)
    np.testing.assert_allclose(gradients[0]["scale"], [-0.9914, 0.4350], atol=1e-4)
    np.testing.assert_allclose(gradients[0]["bias"], [-0.0028, -0.5381], atol=1e-4)
    np.testing.assert_allclose(moved["mean"], [0.2161, 0.2283], atol=1e-4)
    np.testing.assert_allclose(moved["var"], [1.4563, 1.6828], atol=1e-4)
    evaluated = norm.apply({"params": params, "batch_stats": moved}, x)
    expected = [-0.018612, 0.5423506, 6.141976, 1.5664563, 6.2024026, -0.9936303]
    np.testing.assert_allclose(evaluated.ravel()[:6], expected, atol=2e-5)


@pytest.mark.parametrize("shape", [(6, 3), (5, 4, 3, 3)])
@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_batch_norm_equals_its_reference_on_the_unmasked_rows_whatever_the_others_hold(shape, poison):
    norm, variables = fresh(3)
    x = ramp(shape)
    keep = np.arange(shape[0]) % 3 != 1
    variables = {**variables, "params": {"scale": jnp.array([1.0, 2, 3]), "bias": jnp.array([0.0, 1, -1])}}
    y, mean, var = reference_batch_norm(x[keep], [1, 2, 3], [0, 1, -1])
    dirty = np.where(keep.reshape(-1, *[1] * (len(shape) - 1)), x, np.float32(poison))
    actual, moved = trained(norm, variables, dirty, jnp.asarray(keep))
    np.testing.assert_allclose(actual[keep], y, atol=1e-5)
    np.testing.assert_allclose(moved["mean"], mean, atol=1e-6)
    np.testing.assert_allclose(moved["var"], var, rtol=1e-5)
    assert np.isfinite(actual).all()


def test_gradients_do_not_feel_masked_rows():
    norm, variables = fresh(3)
    keep = jnp.array([True, False, True, True])

    def loss(params, x):
        out, _ = norm.apply({**variables, "params": params}, x, True, keep, mutable=["batch_stats"])
        return jnp.sum(jnp.where(keep[:, None], jnp.sin(out), 0))

    clean = jnp.asarray(ramp((4, 3)))
    dirty = clean.at[1].set(jnp.nan)
    for actual, expected in zip(
        jax.tree.leaves(jax.grad(loss, (0, 1))(variables["params"], dirty)),
        jax.tree.leaves(jax.grad(loss, (0, 1))(variables["params"], clean)),
        strict=True,
    ):
        np.testing.assert_array_equal(actual, expected)


def test_no_rows_leave_the_statistics_alone_and_one_element_has_no_variance():
    norm, variables = fresh(3)
    x = np.full((2, 3), np.nan, np.float32)
    y, moved = trained(norm, variables, x, jnp.zeros(2, bool))
    assert np.isfinite(y).all()
    np.testing.assert_array_equal(moved["mean"], np.zeros(3))
    np.testing.assert_array_equal(moved["var"], np.ones(3))
    y, moved = trained(norm, variables, ramp((1, 3)))
    np.testing.assert_allclose(y, np.zeros((1, 3)), atol=1e-6)
    np.testing.assert_allclose(moved["var"], np.full(3, 0.9), rtol=1e-6)


def test_statistics_stay_float32_under_bfloat16_and_far_from_zero():
    norm, variables = fresh(2, dtype="bfloat16")
    x = ramp((64, 2)) + 1000
    y, moved = trained(norm, variables, x)
    np.testing.assert_allclose(moved["var"], reference_batch_norm(x, [1, 1], [0, 0])[2], rtol=1e-4)
    np.testing.assert_allclose(moved["mean"], x.mean(0) * 0.1, rtol=1e-6)
    np.testing.assert_allclose(y, reference_batch_norm(x, [1, 1], [0, 0])[0], atol=0.01)
    assert norm.apply(variables, jnp.asarray(x)).dtype == jnp.bfloat16


def test_training_mode_without_mutable_statistics_normalises_and_forgets():
    norm, variables = fresh(2)
    x = jnp.asarray(ramp((8, 2)))
    y = norm.apply(variables, x, True)
    np.testing.assert_array_equal(y, norm.apply(variables, x, True, mutable=["batch_stats"])[0])


def test_max_pool_gives_the_gradient_to_one_of_equal_values_and_drops_odd_edges():
    # torch 2.13: F.max_pool2d of the same 5x5 numbers
    pooled = blocks.max_pool(jnp.asarray(ramp((1, 5, 5, 1))))
    np.testing.assert_allclose(pooled.ravel(), [2.9327, 5.5896, 3.9645, 4.5638], atol=1e-4)
    gradient = jax.grad(lambda x: blocks.max_pool(x).sum())(jnp.ones((1, 4, 4, 1)))
    np.testing.assert_array_equal(np.sort(gradient.ravel()), [0.0] * 12 + [1.0] * 4)


@pytest.mark.parametrize("shape, size", [((3, 8, 8, 4), 2), ((2, 7, 9, 1), 2), ((2, 9, 6, 3), 3)])
def test_max_pool_and_its_gradient_equal_the_windowed_maximum(shape, size):
    rng = np.random.default_rng(0)
    for x in (rng.normal(size=shape), rng.integers(0, 3, shape)):  # the second has ties in almost every window
        x = jnp.asarray(x, jnp.float32)
        weights = jnp.asarray(rng.normal(size=blocks.max_pool(x, size).shape), jnp.float32)

        def windowed(x, size=size):
            return nn.max_pool(x, (size, size), strides=(size, size))

        np.testing.assert_array_equal(blocks.max_pool(x, size), windowed(x))
        ours = jax.grad(lambda x, w=weights: (blocks.max_pool(x, size) * w).sum())(x)
        np.testing.assert_array_equal(ours, jax.grad(lambda x, w=weights: (windowed(x) * w).sum())(x))


def test_average_pools():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    pooled = blocks.global_avg_pool(x.astype(jnp.bfloat16))
    assert pooled.dtype == jnp.float32
    np.testing.assert_allclose(pooled, [[7.5]])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (7, 7), (9, 20)])
def test_adaptive_means_are_those_of_even_windows(height, width):
    x = ramp((2, height, width, 3))
    expected = np.empty((2, 7, 7, 3))
    for i in range(7):
        for j in range(7):
            rows = slice(i * height // 7, -(-(i + 1) * height // 7))
            columns = slice(j * width // 7, -(-(j + 1) * width // 7))
            expected[:, i, j] = x[:, rows, columns].astype(np.float64).mean((1, 2))
    np.testing.assert_allclose(blocks.adaptive_avg_pool(jnp.asarray(x), 7), expected, rtol=1e-5, atol=1e-6)


def differentiated(inputs, scale, bias, mask, epsilon, dtype):
    """Normalisation by the batch as automatic differentiation sees it."""
    values = blocks.hide(inputs.astype(jnp.float32), mask)
    mean, var, count = blocks._moments(values, mask)
    return ((values - mean) * scale * jax.lax.rsqrt(var + epsilon) + bias).astype(dtype), mean, var, count


@pytest.mark.parametrize("keep", [None, [True, False, True, True, False, True], [False] * 6, [True] + [False] * 5])
def test_the_closed_gradient_of_batch_norm_is_that_of_automatic_differentiation(keep):
    """Through outputs, mean and variance alike, with padding, with a single element, and to second order."""
    mask = None if keep is None else jnp.asarray(keep)
    draw = np.random.default_rng(0)
    x, weights = (jnp.asarray(draw.normal(1.0, 2.0, size=(6, 2, 2, 3)), jnp.float32) for _ in range(2))
    scale, bias = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.3, 0.0, 1.0])

    def loss(function, x, scale, bias):
        y, mean, var, _ = function(x, scale, bias, mask, 1e-5, "float32")
        return jnp.sum(jnp.sin(y) * weights) + jnp.sum(jnp.cos(mean)) + jnp.sum(var * jnp.arange(1.0, 4.0))

    def directional(function, x, scale, bias):
        return sum(jnp.sum(leaf**2) for leaf in jax.grad(loss, (1, 2, 3))(function, x, scale, bias))

    for objective, tolerance in ((loss, 1e-5), (directional, 2e-4)):
        gradients = [jax.grad(objective, (1, 2, 3))(function, x, scale, bias) for function in
                     (blocks._normalised_by_batch, differentiated)]  # fmt: skip
        for actual, expected in zip(*gradients, strict=True):
            np.testing.assert_allclose(actual, expected, atol=tolerance * max(1.0, float(jnp.abs(expected).max())))
    tangents = (jnp.cos(x), scale * 2, bias + 1)
    along = [
        jax.jvp(jax.grad(lambda *a, function=function: loss(function, *a), (0, 1, 2)), (x, scale, bias), tangents)[1]
        for function in (blocks._normalised_by_batch, differentiated)
    ]
    for actual, expected in zip(*along, strict=True):
        np.testing.assert_allclose(actual, expected, atol=2e-4 * max(1.0, float(jnp.abs(expected).max())))


def test_the_closed_gradient_is_as_exact_as_automatic_differentiation_where_a_batch_hardly_varies():
    """Two rows 1e-3 apart around 3: the inverse deviation is 240, and the rounding of the mean counts."""
    with jax.enable_x64(True):
        draw = np.random.default_rng(0)
        x = 3 + 1e-3 * draw.normal(size=(2, 1, 1, 64)).astype(np.float32)
        weights = draw.normal(size=x.shape).astype(np.float32)
        scale, bias = np.ones(64, np.float32), np.zeros(64, np.float32)

        def gradient(function, dtype):
            def loss(x):
                return jnp.sum(function(x, scale, bias, None, 1e-5, "float32")[0] * weights)

            return np.asarray(jax.grad(loss)(jnp.asarray(x, dtype)), np.float64)

        def exact(x):
            mean = x.mean((0, 1, 2))
            return jnp.sum((x - mean) / jnp.sqrt(jnp.square(x - mean).mean((0, 1, 2)) + 1e-5) * weights)

        truth = np.asarray(jax.grad(exact)(jnp.asarray(x, jnp.float64)))
        errors = [np.abs(gradient(function, jnp.float32) - truth).max() for function in
                  (blocks._normalised_by_batch, differentiated)]  # fmt: skip
    assert errors[0] < 2 * errors[1] + 1e-6 * np.abs(truth).max()


def test_the_gradient_of_batch_norm_sums_over_the_activations_in_one_pass():
    """Sums over rows: mean, variance, and three of the gradient, which are independent of each other."""

    def sums(function):
        def loss(x, scale):
            return jnp.sum(jnp.sin(function(x, scale, scale, None, 1e-5, "float32")[0]))

        program = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(jnp.ones((8, 4, 4, 3)), jnp.ones(3)))
        return program.count("axes=(0, 1, 2)")

    assert sums(blocks._normalised_by_batch) == 5 < sums(differentiated)
