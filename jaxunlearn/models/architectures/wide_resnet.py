"""Wide residual networks WRN-28-2 and WRN-40-2 for small pictures, norms first.

Stem 3x3 with 16 channels, three groups of (depth - 4) / 6 blocks with widths 16 k, 32 k, 64 k at strides 1, 2, 2, then
norm, ReLU, global average pool, dense head:

    unequal   a = relu(bn(x)); conv 3x3 (relu(bn(conv 3x3, stride (a)))) + conv 1x1, stride (a)
    equal     conv 3x3 (relu(bn(conv 3x3 (relu(bn(x)))))) + x

A block is unequal where its channels change. Convolutions have no bias and start as normal(0, 2 / (k k channels out)).
1,478,446 parameters for WRN-28-2 with 94 classes.

Source: Zagoruyko and Komodakis, "Wide residual networks", 2016; OUR reference, version 1.
"""

import flax.linen as nn
import jax

from jaxunlearn.models.layers import blocks, options

STEM = 16
fan_out_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Block(nn.Module):
    """One residual block: two 3x3 convolutions with norms before them."""

    width: int
    stride: int
    conv: str = "native"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """Maps inputs [B, H, W, C] to [B, H / stride, W / stride, width]."""

        def convolve(maps: jax.Array, kernel: int, stride: int, name: str) -> jax.Array:
            return blocks.Conv(
                self.width, kernel, stride, kernel // 2, False, self.conv, self.dtype, fan_out_normal, name=name
            )(maps)

        def active(maps: jax.Array, name: str) -> jax.Array:
            return nn.relu(blocks.BatchNorm(self.dtype, name=name)(maps, train, mask))

        first = active(inputs, "norm_0")
        maps = active(convolve(first, 3, self.stride, "conv_0"), "norm_1")
        maps = convolve(maps, 3, 1, "conv_1")
        if inputs.shape[-1] == self.width:
            return maps + inputs
        return maps + convolve(first, 1, self.stride, "conv_shortcut")


class WideResNet(nn.Module):
    """Stem, three groups of blocks, norm, global average pool, dense head in float32.

    Attributes:
      depth: blocks per group.
      widen: k; the groups have 16 k, 32 k and 64 k channels.
      stem: channels of the stem, 16 in the published networks.
    """

    num_classes: int
    depth: int = 4
    widen: int = 2
    stem: int = STEM
    conv: str = "native"
    dtype: str = "float32"

    @property
    def feature_paths(self) -> tuple[str, ...]:
        """Returns the paths of the last blocks of the three groups."""
        return tuple(f"group_{group}_block_{self.depth - 1}" for group in range(3))

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """Maps inputs [B, H, W, C] float32, mask [B] bool (False = padding), to logits [B, classes] float32."""
        maps = blocks.Conv(
            self.stem, use_bias=False, conv=self.conv, dtype=self.dtype, kernel_init=fan_out_normal, name="conv_stem"
        )(blocks.pictures(inputs, mask))
        for group in range(3):
            for index in range(self.depth):
                stride = 2 if group > 0 and index == 0 else 1
                width = self.stem * self.widen * 2**group
                block = Block(width, stride, self.conv, self.dtype, name=f"group_{group}_block_{index}")
                maps = block(maps, train, mask)
        maps = nn.relu(blocks.BatchNorm(self.dtype, name="norm")(maps, train, mask))
        return blocks.Dense(self.num_classes, name="head")(blocks.global_avg_pool(maps))


def wrn28_2(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
            width: int = 0) -> nn.Module:  # fmt: skip
    """Builds WRN-28-2.

    Args:
      num_classes: number of logits.
      conv: form of the convolutions, one of `FORMS`.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: channels of the stem; 0 = 16.
    """
    options.reject_unused_options("wrn28_2", hidden=hidden)
    return WideResNet(num_classes, 4, 2, width or STEM, conv, dtype)


def wrn40_2(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
            width: int = 0) -> nn.Module:  # fmt: skip
    """Builds WRN-40-2.

    Args:
      num_classes: number of logits.
      conv: form of the convolutions, one of `FORMS`.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: channels of the stem; 0 = 16.
    """
    options.reject_unused_options("wrn40_2", hidden=hidden)
    return WideResNet(num_classes, 6, 2, width or STEM, conv, dtype)
