"""Layers that initialise, normalise and pool as PyTorch's do, written for padded batches.

Published recipes were tuned in PyTorch, and three of its conventions affect their results: weights *and biases* are
initialised uniformly in +-1/sqrt(fan_in), batch norm stores the unbiased running variance (factor n / (n - 1)), and
padding is explicit. A batch may contain padded rows, marked by `mask` [B] bool (False = padding): they are excluded
from batch statistics by `where`, never by a product, so that not even NaN in them reaches another row.

Parameters are float32 always; `dtype` is the type of the arithmetic and of the output.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import errors
from jaxunlearn.models.layers import conv as convolution
from jaxunlearn.models.layers import conv_implementations

# Uniform in +-1/sqrt(fan_in): the variance of a uniform of half-width a is a^2/3.
kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def bias_init(fan_in: int) -> nn.initializers.Initializer:
    """Returns PyTorch's initializer of the biases of dense and convolution layers: uniform in +-1/sqrt(fan_in)."""
    bound = fan_in**-0.5

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


class Dense(nn.Module):
    """A dense layer on the last axis: [..., F] -> [..., features].

    Source: PyTorch `nn.Linear`, including its initial values.
    """

    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps inputs [..., F] to [..., features] of `dtype`."""
        fan_in = inputs.shape[-1]
        kernel = self.param("kernel", kernel_init, (fan_in, self.features), jnp.float32)
        bias = self.param("bias", bias_init(fan_in), (self.features,), jnp.float32)
        outputs = jnp.dot(inputs.astype(self.dtype), kernel.astype(self.dtype))
        return outputs + bias.astype(self.dtype)


class Conv(nn.Module):
    """A square 2-D convolution, [B, H, W, C] -> [B, oh, ow, features], with equal padding on all sides.

    Source: PyTorch `nn.Conv2d(kernel_size=kernel, stride=stride, padding=padding)`, including its initial values.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    use_bias: bool = True
    conv: str = "native"
    dtype: str = "float32"
    kernel_init: nn.initializers.Initializer = kernel_init

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps inputs [B, H, W, C] to [B, oh, ow, features] of `dtype`."""
        channels = inputs.shape[-1]
        shape = (self.kernel, self.kernel, channels, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        padding: conv_implementations.Padding = ((self.padding, self.padding), (self.padding, self.padding))
        outputs = convolution.conv(
            inputs.astype(self.dtype), kernel.astype(self.dtype), self.stride, padding, self.conv
        )
        if self.use_bias:
            fan_in = self.kernel * self.kernel * channels
            bias = self.param("bias", bias_init(fan_in), (self.features,), jnp.float32)
            outputs = outputs + bias.astype(self.dtype)
        return outputs


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, without the rows that `mask` marks as padding.

    y = scale * (x - mean) / sqrt(var + 1e-5) + bias. In training, mean and (biased) variance are those of the batch,
    and the running ones move by running = 0.9 * running + 0.1 * batch, with the variance times n / (n - 1) for n
    unmasked elements per channel. Statistics are float32 whatever the dtype of the inputs. A fully masked batch leaves
    the running statistics unchanged, and a single element has variance 0; both give finite outputs.

    Without `is_affine` there is no scale and no bias.

    The statistics are in the collection `batch_stats` (`mean`, `var`). If that collection is not mutable, training mode
    normalises by the batch without updating them, e.g. for a second forward pass in the same step.

    Source: PyTorch `nn.BatchNorm2d(eps=1e-5, momentum=0.1)`.
    """

    dtype: str = "float32"
    momentum: float = 0.9
    epsilon: float = 1e-5
    is_affine: bool = True

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """Normalises.

        Args:
          inputs: [B, ..., C] float32 or bfloat16.
          train: normalise by the batch and update the running statistics, or normalise by the running statistics.
          mask: [B] bool, False = padding; None = no padding.

        Returns:
          [B, ..., C] of `dtype`; padded rows hold arbitrary finite numbers.
        """
        channels = inputs.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        scale, bias = jnp.ones(channels, jnp.float32), jnp.zeros(channels, jnp.float32)
        if self.is_affine:
            scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
            bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        if not train:
            values = hide(inputs.astype(jnp.float32), mask)
            factor = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
            return ((values - running_mean.value) * factor + bias).astype(self.dtype)
        outputs, mean, var, count = _normalised_by_batch(inputs, scale, bias, mask, self.epsilon, self.dtype)
        if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
            unbiased = var * count / jnp.maximum(count - 1, 1)
            for variable, batch in ((running_mean, mean), (running_var, unbiased)):
                running = self.momentum * variable.value + (1 - self.momentum) * batch
                variable.value = jnp.where(count > 0, running, variable.value)
        return outputs


_Normalised = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _normalised_by_batch(
    inputs: jax.Array, scale: jax.Array, bias: jax.Array, mask: jax.Array | None, epsilon: float, dtype: str
) -> _Normalised:
    """Returns outputs [B, ..., C] of `dtype`, and mean [C], biased variance [C] and element count [] of unmasked rows.

    The gradient is a custom VJP because batch norm is bound by memory: automatic differentiation of the two-pass
    moments reads the activations in four sums, the closed form in one pass that gives both sums it needs. Gradients of
    gradients and `jax.jvp` of a gradient work; plain forward mode does not.

    Args:
      inputs: [B, ..., C].
      scale: [C] float32.
      bias: [C] float32.
      mask: [B] bool, False = padding; None = no padding.
      epsilon: added to the variance.
      dtype: of the outputs.
    """
    return _normalise_forward(inputs, scale, bias, mask, epsilon, dtype)[0]


def _normalise_forward(
    inputs: jax.Array, scale: jax.Array, bias: jax.Array, mask: jax.Array | None, epsilon: float, dtype: str
) -> tuple[_Normalised, tuple]:
    values = hide(inputs.astype(jnp.float32), mask)
    mean, var, count = _moments(values, mask)
    # Zero except for the rounding of the mean, which matters where a small batch hardly varies.
    drift = jnp.sum(hide(values - mean, mask), tuple(range(values.ndim - 1))) / jnp.maximum(count, 1)
    inverse = jax.lax.rsqrt(var + epsilon)
    outputs = ((values - mean) * (scale * inverse) + bias).astype(dtype)
    return (outputs, mean, var, count), (inputs, scale, bias, mask, mean, inverse, count, drift)


def _normalise_backward(epsilon: float, dtype: str, residuals: tuple, cotangents: _Normalised) -> tuple:
    inputs, scale, bias, mask, mean, inverse, count, drift = residuals
    axes = tuple(range(inputs.ndim - 1))
    rows = cotangents[0].astype(jnp.float32)
    centred = hide(inputs.astype(jnp.float32), mask) - mean
    to_bias, to_factor = jnp.sum(rows, axes), jnp.sum(rows * centred, axes)
    # Differences first, factors last: in a batch of one element they cancel to zero and not to the rounding of 1 / sqrt
    # (epsilon) times the gradient.
    divisor = jnp.maximum(count, 1)
    centred = centred - drift
    through_outputs = (scale * inverse) * (rows - to_bias / divisor - centred * (to_factor * inverse**2 / divisor))
    through_moments = (cotangents[1] + 2 * cotangents[2] * centred) / divisor
    to_inputs = hide(through_outputs + through_moments, mask).astype(inputs.dtype)
    return to_inputs, (to_factor * inverse).astype(scale.dtype), to_bias.astype(bias.dtype), None


_normalised_by_batch.defvjp(_normalise_forward, _normalise_backward)


def _moments(values: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns mean [C], biased variance [C] and number of elements [] of unmasked rows; `values` are 0 in masked ones.

    Computed in two passes, since E[x^2] - E[x]^2 loses all digits where the mean is large relative to the deviation.
    """
    axes = tuple(range(values.ndim - 1))
    per_row = values[0, ..., 0].size
    rows = jnp.asarray(values.shape[0], jnp.float32) if mask is None else jnp.sum(mask, dtype=jnp.float32)
    count = rows * per_row
    divisor = jnp.maximum(count, 1)
    mean = jnp.sum(values, axes) / divisor
    var = jnp.sum(hide(jnp.square(values - mean), mask), axes) / divisor
    return mean, var, count


def hide(inputs: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Sets the rows that `mask` [B] marks as padding to zero; inputs [B, ...] of any shape and dtype.

    Every model applies this to its inputs: in the gradient, the zero cotangent of a padded row is multiplied with its
    activations, and 0 * NaN is NaN.
    """
    if mask is None:
        return inputs
    rows = mask.reshape(mask.shape + (1,) * (inputs.ndim - 1))
    return jnp.where(rows, inputs, jnp.zeros((), inputs.dtype))


def pictures(inputs: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Returns checked inputs [B, H, W, C] of a convolutional model, with padded rows set to zero.

    Raises:
      ShapeError: inputs of another rank.
    """
    if inputs.ndim != 4:
        raise errors.ShapeError(
            f"this architecture takes pictures [B, H, W, C], but its inputs have shape {tuple(inputs.shape)}. "
            "Give pictures a channel axis, or choose the architecture 'mlp' (model.name = 'mlp') for plain features."
        )
    return hide(inputs, mask)


def features(inputs: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Returns inputs [B, ...] as rows of features [B, F], with padded rows set to zero."""
    return hide(inputs.reshape(inputs.shape[0], -1), mask)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(inputs: jax.Array, size: int = 2) -> jax.Array:
    """Returns the maximum of each size x size window: [B, H, W, C] -> [B, H // size, W // size, C].

    As in PyTorch, the gradient goes to the first of several equal values in row order, and an odd last row or column is
    dropped. Written as comparisons of shifted slices, because the scatter in the gradient of XLA's own windowed maximum
    took 38 % of a digits CNN's training step on a CPU.
    """
    return functools.reduce(jnp.maximum, _windows(inputs, size))


def _windows(inputs: jax.Array, size: int) -> list[jax.Array]:
    """Returns the size * size slices [B, H // size, W // size, C] whose entries form the windows, in row order."""
    height, width = inputs.shape[1] // size * size, inputs.shape[2] // size * size
    return [inputs[:, i:height:size, j:width:size] for i in range(size) for j in range(size)]


def _max_pool_forward(inputs: jax.Array, size: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    outputs = max_pool(inputs, size)
    return outputs, (inputs, outputs)


def _max_pool_backward(size: int, residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array]:
    inputs, outputs = residuals
    is_taken = jnp.zeros(outputs.shape, bool)
    gradients = []
    for window in _windows(inputs, size):
        is_first = (window == outputs) & ~is_taken
        is_taken |= is_first
        gradients.append(jnp.where(is_first, cotangent, 0))
    batch, height, width, channels = outputs.shape
    stacked = jnp.stack(gradients, axis=3).reshape(batch, height, width, size, size, channels)
    stacked = stacked.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * size, width * size, channels)
    border = ((0, 0), (0, inputs.shape[1] - height * size), (0, inputs.shape[2] - width * size), (0, 0))
    return (jnp.pad(stacked, border),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def adaptive_avg_pool(inputs: jax.Array, size: int) -> jax.Array:
    """Averages a picture over size x size even windows: [B, H, W, C] -> [B, size, size, C].

    Window i of an axis of n pixels goes from floor(i n / size) to ceil((i + 1) n / size), so that windows overlap if
    size does not divide n, and repeat pixels if n is smaller. Written as a product with a constant matrix per axis.

    Source: PyTorch `nn.AdaptiveAvgPool2d`.
    """
    if inputs.shape[1:3] == (size, size):
        return inputs
    rows, columns = (jnp.asarray(_even_windows(length, size), inputs.dtype) for length in inputs.shape[1:3])
    return jnp.einsum("bhwc,ih,jw->bijc", inputs, rows, columns)


def _even_windows(length: int, size: int) -> np.ndarray:
    """Returns [size, length] float64 whose row i averages window i."""
    weights = np.zeros((size, length))
    for i in range(size):
        first, last = i * length // size, -(-(i + 1) * length // size)
        weights[i, first:last] = 1 / (last - first)
    return weights


def global_avg_pool(inputs: jax.Array) -> jax.Array:
    """Returns the mean over the picture in float32: [B, H, W, C] -> [B, C]."""
    return jnp.mean(inputs, axis=(1, 2), dtype=jnp.float32)
