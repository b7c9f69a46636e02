"""Generators: networks that turn noise into inputs of another network, for attacks without data.

    latents [B, Z] -> pictures [B, H, W, C] or rows [B, F], before the tanh that maps them into (-1, 1)

Called as `module.apply(variables, latents, train=..., mutable=...)`; the tanh is applied by the caller, who estimates
gradients through it.

Source: OUR reference, data-free model extraction (GeneratorA).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxunlearn import errors
from jaxunlearn.models.layers import blocks

SLOPE = 0.2


class PictureGenerator(nn.Module):
    """A dense layer to a quarter of the size, two doublings, three convolutions.

    dense to H/4 x W/4 x 2w, BN, x2, conv 2w, BN, LeakyReLU, x2, conv w, BN, LeakyReLU, conv C, BN without affine.
    1,051,139 parameters for 32 x 32 x 3 from 100 latents.

    Attributes:
      shape: (H, W, C) of a picture; H and W are multiples of 4.
      width: w, published 64; conv: form of the convolutions.
    """

    shape: tuple[int, int, int]
    width: int = 64
    conv: str = "native"

    @nn.compact
    def __call__(self, latents: jax.Array, train: bool = False) -> jax.Array:
        """Maps latents [B, Z] to pictures [B, H, W, C] before the tanh."""
        height, width, channels = self.shape
        maps = blocks.Dense(height // 4 * (width // 4) * 2 * self.width)(latents)
        maps = maps.reshape(len(latents), height // 4, width // 4, 2 * self.width)
        maps = _upsample(blocks.BatchNorm()(maps, train))
        maps = _leaky(blocks.BatchNorm()(blocks.Conv(2 * self.width, conv=self.conv)(maps), train))
        maps = _leaky(blocks.BatchNorm()(blocks.Conv(self.width, conv=self.conv)(_upsample(maps)), train))
        maps = blocks.Conv(channels, conv=self.conv)(maps)
        return blocks.BatchNorm(is_affine=False)(maps, train)


class RowGenerator(nn.Module):
    """The generator of plain features: two hidden layers of width 2w.

    Attributes:
      features: F of a row; `width`: w.
    """

    features: int
    width: int = 64

    @nn.compact
    def __call__(self, latents: jax.Array, train: bool = False) -> jax.Array:
        """Maps latents [B, Z] to rows [B, F] before the tanh."""
        rows = latents
        for _ in range(2):
            rows = _leaky(blocks.BatchNorm()(blocks.Dense(2 * self.width)(rows), train))
        return blocks.BatchNorm(is_affine=False)(blocks.Dense(self.features)(rows), train)


def build(shape: tuple[int, ...], width: int = 64, conv: str = "native") -> nn.Module:
    """Builds the generator of inputs of a given shape.

    Args:
      shape: of one input, (H, W, C) or (F,).
      width: w of the module.
      conv: form of the convolutions, one of `conv.FORMS`. Changes speed only.

    Raises:
      ConfigError: pictures whose sides are not multiples of 4, or inputs of another rank.

    Example:
      >>> from jaxunlearn.models.architectures import generator
      >>> generator.build((8, 8, 1), width=4).shape
      (8, 8, 1)
    """
    if len(shape) == 1:
        return RowGenerator(shape[0], width)
    if len(shape) != 3 or shape[0] % 4 or shape[1] % 4:
        raise errors.ConfigError(
            f"inputs have shape {shape}; a generator makes rows (F,) or pictures (H, W, C) whose sides are multiples "
            "of 4. Resize or pad the pictures."
        )
    return PictureGenerator((shape[0], shape[1], shape[2]), width, conv)


def _upsample(maps: jax.Array) -> jax.Array:
    """Doubles height and width by nearest neighbours."""
    return jnp.repeat(jnp.repeat(maps, 2, axis=1), 2, axis=2)


def _leaky(maps: jax.Array) -> jax.Array:
    return jnp.where(maps >= 0, maps, SLOPE * maps)
