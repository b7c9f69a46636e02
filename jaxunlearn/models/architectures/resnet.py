"""ResNet-18, -34 and -50 for small pictures, as in the IAM seed (`unlearning_lib/models/resnet.py`).

Stem 3x3 at stride 1, four stages of widths w, 2w, 4w, 8w at strides 1, 2, 2, 2, global average pool, dense head:

    basic       relu(bn(conv 3x3, stride)) - bn(conv 3x3)                                     + shortcut, relu
    bottleneck  relu(bn(conv 1x1)) - relu(bn(conv 3x3, stride)) - bn(conv 1x1 to 4 x width)   + shortcut, relu

The shortcut is the identity, or bn(conv 1x1, stride) where stride or channels change. Convolutions have no bias and
PyTorch's padding (1, 1), which at stride 2 is not "SAME". Parameters at width 64 for 10 / 100 classes: 11,173,962 /
11,220,132, 21,282,122 / 21,328,292 and 23,520,842 / 23,705,252. The seed's 4x4 average pool equals the global one at
32x32; the global one takes 64x64 as well.

Source: He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016, with the stem for CIFAR.
"""

import flax.linen as nn
import jax

from jaxunlearn.models.layers import blocks, options


class Block(nn.Module):
    """One residual block: two 3x3 convolutions, or 1x1 - 3x3 - 1x1 when `is_bottleneck`."""

    width: int
    stride: int
    is_bottleneck: bool
    conv: str = "native"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """Maps inputs [B, H, W, C] to [B, H / stride, W / stride, width or 4 x width]."""

        def layer(maps: jax.Array, channels: int, kernel: int, stride: int, name: str) -> jax.Array:
            maps = blocks.Conv(
                channels, kernel, stride, kernel // 2, False, self.conv, self.dtype, name=f"conv_{name}"
            )(maps)
            return blocks.BatchNorm(self.dtype, name=f"norm_{name}")(maps, train, mask)

        channels = 4 * self.width if self.is_bottleneck else self.width
        if self.is_bottleneck:
            maps = nn.relu(layer(inputs, self.width, 1, 1, "0"))
            maps = nn.relu(layer(maps, self.width, 3, self.stride, "1"))
            maps = layer(maps, channels, 1, 1, "2")
        else:
            maps = nn.relu(layer(inputs, channels, 3, self.stride, "0"))
            maps = layer(maps, channels, 3, 1, "1")
        if self.stride != 1 or inputs.shape[-1] != channels:
            inputs = layer(inputs, channels, 1, self.stride, "shortcut")
        return nn.relu(maps + inputs)


class ResNet(nn.Module):
    """Stem, four stages of residual blocks, global average pool, dense head in float32.

    Attributes:
      depths: blocks per stage.
      width: channels of the stem and of the first stage, 64 in the published networks.
    """

    num_classes: int
    depths: tuple[int, ...]
    is_bottleneck: bool = False
    width: int = 64
    conv: str = "native"
    dtype: str = "float32"

    @property
    def feature_paths(self) -> tuple[str, ...]:
        """Returns the paths of the last blocks of the last three stages."""
        return tuple(f"stage_{stage}_block_{depth - 1}" for stage, depth in enumerate(self.depths))[-3:]

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """Classifies.

        Args:
          inputs: [B, H, W, C] float32, normalised.
          train: batch statistics (updated where `batch_stats` is mutable), or the running ones.
          mask: [B] bool, False = padding, which does not affect other rows.

        Returns:
          logits [B, classes] float32.
        """
        maps = blocks.pictures(inputs, mask)
        maps = blocks.Conv(self.width, use_bias=False, conv=self.conv, dtype=self.dtype, name="conv_stem")(maps)
        maps = nn.relu(blocks.BatchNorm(self.dtype, name="norm_stem")(maps, train, mask))
        for stage, depth in enumerate(self.depths):
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                block = Block(
                    self.width * 2**stage, stride, self.is_bottleneck, self.conv, self.dtype,
                    name=f"stage_{stage}_block_{index}",
                )  # fmt: skip
                maps = block(maps, train, mask)
        return blocks.Dense(self.num_classes, name="head")(blocks.global_avg_pool(maps))


def resnet18(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
             width: int = 0) -> nn.Module:  # fmt: skip
    """Builds ResNet-18.

    Args:
      num_classes: number of logits.
      conv: form of the convolutions, one of `FORMS`.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: channels of the stem; 0 = 64.
    """
    options.reject_unused_options("resnet18", hidden=hidden)
    return ResNet(num_classes, (2, 2, 2, 2), False, width or 64, conv, dtype)


def resnet34(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
             width: int = 0) -> nn.Module:  # fmt: skip
    """Builds ResNet-34.

    Args:
      num_classes: number of logits.
      conv: form of the convolutions, one of `FORMS`.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: channels of the stem; 0 = 64.
    """
    options.reject_unused_options("resnet34", hidden=hidden)
    return ResNet(num_classes, (3, 4, 6, 3), False, width or 64, conv, dtype)


def resnet50(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
             width: int = 0) -> nn.Module:  # fmt: skip
    """Builds ResNet-50 (bottleneck blocks).

    Args:
      num_classes: number of logits.
      conv: form of the convolutions, one of `FORMS`.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: channels of the stem; 0 = 64.
    """
    options.reject_unused_options("resnet50", hidden=hidden)
    return ResNet(num_classes, (3, 4, 6, 3), True, width or 64, conv, dtype)
