"""A network for small colour pictures that learns within few epochs, at a fifth of a ResNet-18's cost per sample.

    whitening 2x2 to 24 maps, GELU - three groups (conv 3x3, max pool 2, bn, GELU, conv 3x3, bn, GELU) - max pool - head

It follows the airbench94 network. Two of its ideas give most of the speed: the first layer whitens 2x2 patches and is
never trained, and every convolution starts as the identity on its first channels. The published code computes the
whitening from the training pictures. Here it is fixed, the same for every data set and member: the principal components
of 2x2 patches of natural pictures are very nearly the four Haar functions times luminance and two opponent colours, and
the table below holds their variances, measured on 20,000 normalised (JPEG re-encoded) CIFAR-10 pictures. A model then
depends only on its own rows, as membership audits require. Differences from the published network: this, PyTorch's
batch norm with a trainable scale, and no flip or crop at test time.

Parameters at width 64: 1,972,504 for 10 classes, 1,995,544 for 100.

Source: Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024 (arXiv 2404.00498), sections 3.1 to 3.3.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import errors
from jaxunlearn.models.layers import blocks, options
from jaxunlearn.models.layers import conv as convolution

_HAAR = np.asarray([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]) / 2
_COLOURS = np.asarray([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
# Variances along Haar function x colour; the published code adds 5e-4 to its eigenvalues.
_VARIANCES = np.asarray(
    [[10.1, 0.767, 0.171], [0.399, 0.0059, 0.0022], [0.343, 0.0040, 0.0017], [0.0545, 0.0002, 0.0001]]
)
_FLOOR = 5e-4


def whitening(channels: int) -> np.ndarray:
    """Returns filters that turn 2x2 patches of natural pictures into uncorrelated numbers of unit variance.

    Pictures that do not have three channels are whitened channel by channel with the variances of the luminance.

    Returns:
      [2, 2, channels, 8 * channels] float32: every component twice, with both signs.
    """
    is_colour = channels == 3
    colours = _COLOURS if is_colour else np.eye(channels)
    variances = _VARIANCES if is_colour else np.repeat(_VARIANCES[:, :1] / 3, channels, axis=1)
    scaled = np.einsum("ap,bc,ab->pcab", _HAAR, colours, 1 / np.sqrt(variances + _FLOOR))
    filters = scaled.reshape(2, 2, channels, 4 * channels)
    return np.concatenate([filters, -filters], axis=-1).astype(np.float32)


def identity_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Returns a kernel [k, k, C, O] whose first min(C, O) outputs copy the inputs; the rest starts as in PyTorch."""
    kernel = blocks.kernel_init(key, shape, dtype)
    middle, num_copies = shape[0] // 2, min(shape[2:])
    identity = jnp.zeros((*shape[:3], num_copies), dtype)
    identity = identity.at[middle, middle, :num_copies, :].set(jnp.eye(num_copies, dtype=dtype))
    return kernel.at[..., :num_copies].set(identity)


def _head_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -(3**0.5), 3**0.5)


class Airbench(nn.Module):
    """Three groups of two convolutions behind a fixed whitening layer.

    Attributes:
      width: channels of the first group; the other two have four times as many.
    """

    num_classes: int
    width: int = 64
    conv: str = "native"
    dtype: str = "float32"

    @property
    def feature_paths(self) -> tuple[str, ...]:
        """Returns the paths of the last norms of the three groups."""
        return tuple(f"group_{group}_norm_1" for group in range(3))

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """Classifies.

        Args:
          inputs: [B, H, W, C] float32, normalised; H = W >= 9.
          train: batch statistics (updated where `batch_stats` is mutable), or the running ones.
          mask: [B] bool, False = padding, which does not affect other rows.

        Returns:
          logits [B, classes] float32.

        Raises:
          ShapeError: pictures that are not square or too small.
        """
        maps = blocks.pictures(inputs, mask)
        height, width = maps.shape[1:3]
        if height != width or height < 9:
            raise errors.ShapeError(
                f"airbench takes square pictures of at least 9x9 pixels, not {height}x{width}. "
                "Choose the architecture 'cnn' (model.name = 'cnn') for others."
            )
        filters = jnp.asarray(whitening(maps.shape[-1]), self.dtype)
        bias = self.param("whitening_bias", nn.initializers.zeros, (filters.shape[-1],), jnp.float32)
        maps = convolution.conv(maps.astype(self.dtype), filters, 1, ((0, 0), (0, 0)), self.conv)
        maps = nn.gelu(maps + bias.astype(self.dtype), approximate=False)
        for group, channels in enumerate((self.width, 4 * self.width, 4 * self.width)):
            for index in range(2):
                maps = blocks.Conv(channels, use_bias=False, conv=self.conv, dtype=self.dtype,
                                   kernel_init=identity_init, name=f"group_{group}_conv_{index}")(maps)  # fmt: skip
                if index == 0:
                    maps = blocks.max_pool(maps)
                maps = blocks.BatchNorm(self.dtype, momentum=0.6, name=f"group_{group}_norm_{index}")(maps, train, mask)
                maps = nn.gelu(maps, approximate=False)
        rows = blocks.features(blocks.max_pool(maps, maps.shape[1]), None).astype(jnp.float32)
        head = self.param("head", _head_init, (rows.shape[-1], self.num_classes), jnp.float32)
        return rows @ head / 9


def airbench(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
             width: int = 0) -> nn.Module:  # fmt: skip
    """Builds the airbench94-like network.

    Args:
      num_classes: number of logits.
      conv: form of the convolutions, one of `FORMS`.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: channels of the first group; 0 = 64.
    """
    options.reject_unused_options("airbench", hidden=hidden)
    return Airbench(num_classes, width or 64, conv, dtype)
