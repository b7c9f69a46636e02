"""Convolutional networks: the small one for digits / MNIST, and VGG in the shapes that published code gives it.

`cnn`: 3x3x16, ReLU, 3x3x32, ReLU, max pool 2, dense 64, ReLU, dense C; with `width` w: channels w and 2w, dense 4w.
From 28x28 on there is another max pool after the first convolution. `cnn_bn` has batch norm after each convolution,
which then has no bias: the smallest network on which modes of batch norm can be studied.

`vgg11`, `vgg16`: configurations A and D of Simonyan and Zisserman 2015, without batch norm. The five poolings bring
32x32 down to 1x1; instead of the three dense layers of the ImageNet form there is dropout 0.5, a dense layer as wide as
the last convolution, ReLU, dropout 0.5 and the head. `width` = channels of the first convolution, 64.

Two published forms of configuration D, with 13 convolutions without bias and two hidden dense layers without dropout;
at width 64 for 10 classes:

    vgg16_imagenet   mean to 7x7, 25088 - 4096 - 4096 - C, no batch norm   134,297,290   conformal unlearning reference
    vgg16_bn         batch norm, mean to 2x2, 2048 - 256 - 256 - C          15,311,818   SalUn

They are initialised as PyTorch's layers by default, as in the code of the first; SalUn's code initialises convolutions
from a normal distribution of variance 2 / fan_out, dense layers from normal(0, 0.01) and biases with 0.
"""

import flax.linen as nn
import jax

from jaxunlearn import errors
from jaxunlearn.models.layers import blocks, options


class Cnn(nn.Module):
    """Two convolutions and two dense layers.

    Attributes:
      is_normalised: batch norm after every convolution, which then has no bias.
    """

    num_classes: int
    width: int = 16
    conv: str = "native"
    dtype: str = "float32"
    is_normalised: bool = False

    @property
    def feature_paths(self) -> tuple[str, ...]:
        """Returns the paths of both convolutions and of the hidden layer."""
        return ("Conv_0", "Conv_1", "Dense_0")

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """Maps inputs [B, H, W, C] float32, mask [B] bool (False = padding), to logits [B, classes] float32."""
        maps = blocks.pictures(inputs, mask)
        is_large = min(maps.shape[1:3]) >= 28
        for channels in (self.width, 2 * self.width):
            maps = blocks.Conv(channels, use_bias=not self.is_normalised, conv=self.conv, dtype=self.dtype)(maps)
            if self.is_normalised:
                maps = blocks.BatchNorm(self.dtype)(maps, train, mask)
            maps = nn.relu(maps)
            if is_large and channels == self.width:
                maps = blocks.max_pool(maps)
        rows = blocks.features(blocks.max_pool(maps), None)
        rows = nn.relu(blocks.Dense(4 * self.width, self.dtype)(rows))
        return blocks.Dense(self.num_classes)(rows)


class SimpleCnn(nn.Module):
    """Two valid convolutions, of which only the first has a ReLU, a max pool, and two dense layers.

    Source: SimpleCNN of Unlearning-Leaks; 1,626,442 parameters at width 32 on 32x32x3 with 10 classes.
    """

    num_classes: int
    width: int = 32
    conv: str = "native"
    dtype: str = "float32"

    @property
    def feature_paths(self) -> tuple[str, ...]:
        """Returns the paths of both convolutions and of the hidden layer."""
        return ("Conv_0", "Conv_1", "Dense_0")

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """Maps inputs [B, H, W, C] float32, mask [B] bool, to logits [B, classes] float32; training draws "dropout"."""
        maps = blocks.pictures(inputs, mask)
        maps = nn.relu(blocks.Conv(self.width, padding=0, conv=self.conv, dtype=self.dtype)(maps))
        maps = blocks.Conv(2 * self.width, padding=0, conv=self.conv, dtype=self.dtype)(maps)
        maps = nn.Dropout(0.25, broadcast_dims=(1, 2), deterministic=not train)(blocks.max_pool(maps))  # whole channels
        rows = nn.relu(blocks.Dense(4 * self.width, self.dtype)(blocks.features(maps, None)))
        rows = nn.Dropout(0.5, deterministic=not train)(rows)
        return blocks.Dense(self.num_classes)(rows)


class Vgg(nn.Module):
    """Blocks of 3x3 convolutions, each followed by a max pool; hidden dense layers and a head.

    Attributes:
      depths: convolutions per block; the channels double from block to block, up to 8 times `width`.
      hidden: widths of the hidden dense layers in units of `width`.
      pool: the last maps are averaged to pool x pool; 0 = not averaged.
      is_normalised: batch norm after every convolution.
      use_bias: of the convolutions.
      dropout: before every dense layer.
    """

    num_classes: int
    depths: tuple[int, ...]
    width: int = 64
    conv: str = "native"
    dtype: str = "float32"
    hidden: tuple[int, ...] = (8,)
    pool: int = 0
    is_normalised: bool = False
    use_bias: bool = True
    dropout: float = 0.5

    @property
    def feature_paths(self) -> tuple[str, ...]:
        """Returns the paths of the last convolutions of the last three blocks."""
        return tuple(f"Conv_{sum(self.depths[: block + 1]) - 1}" for block in range(len(self.depths)))[-3:]

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """Maps inputs [B, H, W, C] float32, mask [B] bool, to logits [B, classes] float32; training draws "dropout".

        Raises:
          ShapeError: pictures too small for the poolings.
        """
        maps = blocks.pictures(inputs, mask)
        least = 2 ** len(self.depths)
        if min(maps.shape[1:3]) < least:
            raise errors.ShapeError(
                f"VGG halves the picture {len(self.depths)} times and needs at least {least}x{least} pixels, not "
                f"{maps.shape[1]}x{maps.shape[2]}. Choose the architecture 'cnn' (model.name = 'cnn') for small "
                "pictures."
            )
        for block, depth in enumerate(self.depths):
            for _ in range(depth):
                channels = self.width * min(2**block, 8)
                maps = blocks.Conv(channels, use_bias=self.use_bias, conv=self.conv, dtype=self.dtype)(maps)
                if self.is_normalised:
                    maps = blocks.BatchNorm(self.dtype)(maps, train, mask)
                maps = nn.relu(maps)
            maps = blocks.max_pool(maps)
        if self.pool:
            maps = blocks.adaptive_avg_pool(maps, self.pool)
        rows = blocks.features(maps, None)
        for units in self.hidden:
            rows = nn.Dropout(self.dropout, deterministic=not train)(rows)
            rows = nn.relu(blocks.Dense(units * self.width, self.dtype)(rows))
        rows = nn.Dropout(self.dropout, deterministic=not train)(rows)
        return blocks.Dense(self.num_classes)(rows)


def cnn(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
        width: int = 0) -> nn.Module:  # fmt: skip
    """Builds the digits / MNIST network.

    Args:
      num_classes: number of logits.
      conv: form of the convolutions, one of `FORMS`.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: channels of the first convolution; 0 = 16.
    """
    options.reject_unused_options("cnn", hidden=hidden)
    return Cnn(num_classes, width or 16, conv, dtype)


def scnn(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
         width: int = 0) -> nn.Module:  # fmt: skip
    """Builds the small network of Unlearning-Leaks.

    Args:
      num_classes: number of logits.
      conv: form of the convolutions, one of `FORMS`.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: channels of the first convolution; 0 = 32.
    """
    options.reject_unused_options("scnn", hidden=hidden)
    return SimpleCnn(num_classes, width or 32, conv, dtype)


def cnn_bn(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
           width: int = 0) -> nn.Module:  # fmt: skip
    """Builds the digits / MNIST network with batch norm.

    Args:
      num_classes: number of logits.
      conv: form of the convolutions, one of `FORMS`.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: channels of the first convolution; 0 = 16.
    """
    options.reject_unused_options("cnn_bn", hidden=hidden)
    return Cnn(num_classes, width or 16, conv, dtype, True)


def vgg11(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
          width: int = 0) -> nn.Module:  # fmt: skip
    """Builds VGG with 8 convolutions.

    Args:
      num_classes: number of logits.
      conv: form of the convolutions, one of `FORMS`.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: channels of the first convolution; 0 = 64.
    """
    options.reject_unused_options("vgg11", hidden=hidden)
    return Vgg(num_classes, (1, 1, 2, 2, 2), width or 64, conv, dtype)


def vgg16(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
          width: int = 0) -> nn.Module:  # fmt: skip
    """Builds VGG with 13 convolutions.

    Args:
      num_classes: number of logits.
      conv: form of the convolutions, one of `FORMS`.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: channels of the first convolution; 0 = 64.
    """
    options.reject_unused_options("vgg16", hidden=hidden)
    return Vgg(num_classes, (2, 2, 3, 3, 3), width or 64, conv, dtype)


def vgg16_imagenet(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
                   width: int = 0) -> nn.Module:  # fmt: skip
    """Builds VGG-16 with the dense layers of ImageNet, without batch norm.

    Args:
      num_classes: number of logits.
      conv: form of the convolutions, one of `FORMS`.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: channels of the first convolution; 0 = 64.
    """
    options.reject_unused_options("vgg16_imagenet", hidden=hidden)
    return Vgg(num_classes, (2, 2, 3, 3, 3), width or 64, conv, dtype, (64, 64), 7, use_bias=False, dropout=0.0)


def vgg16_bn(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
             width: int = 0) -> nn.Module:  # fmt: skip
    """Builds VGG-16 with batch norm and two small dense layers.

    Args:
      num_classes: number of logits.
      conv: form of the convolutions, one of `FORMS`.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: channels of the first convolution; 0 = 64.
    """
    options.reject_unused_options("vgg16_bn", hidden=hidden)
    return Vgg(num_classes, (2, 2, 3, 3, 3), width or 64, conv, dtype, (4, 4), 2, True, False, 0.0)
