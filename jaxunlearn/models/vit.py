"""A small vision transformer: patches of 4x4, width 192, 6 layers, 3 heads, 768 hidden units, 10 classes at 32x32.

Patches -> dense -> class token and learned positions -> 6 times (x + attention(norm x), x + mlp(norm x)) -> norm ->
head on the class token. Norms come first and have epsilon 1e-5; the activation is the exact GELU. Pictures below
16 pixels are cut into patches of 2x2. `width` scales the token width; it must be a multiple of 3 (the heads).

A convolution of kernel = stride = patch is a matrix product on the patches, so it is written as one: there is no
convolution here for a population to stumble over. Dense layers start as PyTorch's, positions and class token as
normal(0, 0.02).

Source: Dosovitskiy et al., "An image is worth 16x16 words", 2021, in the size of DeiT-Ti cut to 6 layers.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxunlearn import errors
from jaxunlearn.models import blocks, options

_HEADS = 3


class Layer(nn.Module):
    """One transformer layer on tokens [B, T, D], norms first."""

    heads: int
    hidden: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Tokens [B, T, D] to [B, T, D]; the residual stream keeps the dtype it has."""
        width = tokens.shape[-1]
        tokens = tokens + self._attention(_norm(self.dtype, "norm_attention")(tokens))
        inner = blocks.Dense(self.hidden, self.dtype, name="mlp_in")(_norm(self.dtype, "norm_mlp")(tokens))
        return tokens + blocks.Dense(width, self.dtype, name="mlp_out")(nn.gelu(inner, approximate=False))

    def _attention(self, tokens: jax.Array) -> jax.Array:
        batch, length, width = tokens.shape
        stacked = blocks.Dense(3 * width, self.dtype, name="query_key_value")(tokens)
        query, key, value = jnp.moveaxis(stacked.reshape(batch, length, 3, self.heads, -1), 2, 0)
        # Products of many terms and the softmax stay in float32 under bfloat16.
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores * (width // self.heads) ** -0.5, axis=-1).astype(self.dtype)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(batch, length, width)
        return blocks.Dense(width, self.dtype, name="mixed")(mixed)


class VisionTransformer(nn.Module):
    """Patches, class token, learned positions, transformer layers, head."""

    num_classes: int
    width: int = 192
    depth: int = 6
    heads: int = _HEADS
    dtype: str = "float32"

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """Inputs [B, H, W, C] float32, mask [B] bool (False = padding), to logits [B, classes] float32.

        Raises:
          ShapeError: height or width is not a multiple of the patch.
        """
        del train  # no dropout, no batch statistics
        patches = _patches(blocks.pictures(inputs, mask))
        tokens = blocks.Dense(self.width, self.dtype, name="patches")(patches)
        start = nn.initializers.normal(0.02)
        first = self.param("class_token", start, (1, 1, self.width), jnp.float32)
        first = jnp.broadcast_to(first, (tokens.shape[0], 1, self.width)).astype(tokens.dtype)
        tokens = jnp.concatenate([first, tokens], axis=1)
        positions = self.param("positions", start, (1, tokens.shape[1], self.width), jnp.float32)
        tokens = tokens + positions.astype(tokens.dtype)
        for index in range(self.depth):
            tokens = Layer(self.heads, 4 * self.width, self.dtype, name=f"layer_{index}")(tokens)
        return blocks.Dense(self.num_classes, name="head")(_norm("float32", "norm")(tokens[:, 0]))


def _norm(dtype: str, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, dtype=dtype, use_fast_variance=False, name=name)


def _patches(inputs: jax.Array) -> jax.Array:
    """[B, H, W, C] to [B, number of patches, patch * patch * C], patches row by row."""
    batch, height, width, channels = inputs.shape
    patch = 2 if min(height, width) < 16 else 4
    if height % patch or width % patch:
        raise errors.ShapeError(
            f"the vision transformer cuts pictures into patches of {patch}x{patch}, but {height}x{width} is not a "
            "multiple of that. Pad or resize the pictures, or choose model.name = 'cnn'."
        )
    cut = inputs.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return jnp.swapaxes(cut, 2, 3).reshape(batch, -1, patch * patch * channels)


def vit(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
        width: int = 0) -> nn.Module:  # fmt: skip
    """The small vision transformer; `width` = width of the tokens, 192.

    Raises:
      ConfigError: `width` is not a multiple of the 3 heads.
    """
    options.refuse("vit", hidden=hidden)
    if width % _HEADS:
        raise errors.ConfigError(f"model.width = {width}: the vision transformer has {_HEADS} heads and needs a "
                                 f"multiple of {_HEADS}, e.g. {width + _HEADS - width % _HEADS}.")  # fmt: skip
    return VisionTransformer(num_classes, width or 192, dtype=dtype)
