"""Small convolutional networks: the digits / MNIST network, and VGG for pictures of 32x32.

`cnn`: 3x3x16, ReLU, 3x3x32, ReLU, max pool 2, dense 64, ReLU, dense C; with `width` w: channels w and 2w, dense 4w.
From 28x28 on there is a second max pool, after the first convolution.

`vgg11`, `vgg16`: configurations A and D of Simonyan and Zisserman 2015, without batch norm. The five poolings bring
32x32 down to 1x1; instead of the three dense layers of the ImageNet form there is dropout 0.5, a dense layer as wide as
the last convolution, ReLU, dropout 0.5 and the head. `width` = channels of the first convolution, 64.
"""

import flax.linen as nn
import jax

from jaxunlearn import errors
from jaxunlearn.models import blocks, options


class Cnn(nn.Module):
    """Two convolutions and two dense layers."""

    num_classes: int
    width: int = 16
    conv: str = "native"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """Inputs [B, H, W, C] float32, mask [B] bool (False = padding), to logits [B, classes] float32."""
        del train
        maps = blocks.pictures(inputs, mask)
        is_large = min(maps.shape[1:3]) >= 28
        maps = nn.relu(blocks.Conv(self.width, conv=self.conv, dtype=self.dtype)(maps))
        if is_large:
            maps = blocks.max_pool(maps)
        maps = nn.relu(blocks.Conv(2 * self.width, conv=self.conv, dtype=self.dtype)(maps))
        rows = blocks.features(blocks.max_pool(maps), None)
        rows = nn.relu(blocks.Dense(4 * self.width, self.dtype)(rows))
        return blocks.Dense(self.num_classes)(rows)


class Vgg(nn.Module):
    """Blocks of 3x3 convolutions, each followed by a max pool.

    Attributes:
      depths: convolutions per block; the channels double from block to block, up to 8 times `width`.
    """

    num_classes: int
    depths: tuple[int, ...]
    width: int = 64
    conv: str = "native"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """Inputs [B, H, W, C] float32, mask [B] bool, to logits [B, classes] float32; training draws "dropout".

        Raises:
          ShapeError: pictures that the poolings would shrink to nothing.
        """
        maps = blocks.pictures(inputs, mask)
        least = 2 ** len(self.depths)
        if min(maps.shape[1:3]) < least:
            raise errors.ShapeError(
                f"VGG halves the picture {len(self.depths)} times and needs at least {least}x{least} pixels, not "
                f"{maps.shape[1]}x{maps.shape[2]}. Choose model.name = 'cnn' for small pictures."
            )
        for block, depth in enumerate(self.depths):
            for _ in range(depth):
                channels = self.width * min(2**block, 8)
                maps = nn.relu(blocks.Conv(channels, conv=self.conv, dtype=self.dtype)(maps))
            maps = blocks.max_pool(maps)
        rows = nn.Dropout(0.5, deterministic=not train)(blocks.features(maps, None))
        rows = nn.relu(blocks.Dense(8 * self.width, self.dtype)(rows))
        rows = nn.Dropout(0.5, deterministic=not train)(rows)
        return blocks.Dense(self.num_classes)(rows)


def cnn(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
        width: int = 0) -> nn.Module:  # fmt: skip
    """The digits / MNIST network; `width` = channels of the first convolution."""
    options.refuse("cnn", hidden=hidden)
    return Cnn(num_classes, width or 16, conv, dtype)


def vgg11(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
          width: int = 0) -> nn.Module:  # fmt: skip
    """VGG with 8 convolutions; `width` = channels of the first."""
    options.refuse("vgg11", hidden=hidden)
    return Vgg(num_classes, (1, 1, 2, 2, 2), width or 64, conv, dtype)


def vgg16(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
          width: int = 0) -> nn.Module:  # fmt: skip
    """VGG with 13 convolutions; `width` = channels of the first."""
    options.refuse("vgg16", hidden=hidden)
    return Vgg(num_classes, (2, 2, 3, 3, 3), width or 64, conv, dtype)
