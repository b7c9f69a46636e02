"""Vision transformers: a small one for pictures of 32x32, and ViT-S/16 at 224x224.

    name      picture        patch   width   layers   heads   epsilon   parameters (10 classes)
    vit       unchanged      4       192     6        3       1e-5      2,693,578 at 32x32x3
    vit_s16   224x224        16      384     12       6       1e-6      21,669,514

Patches -> dense -> class token and learned positions -> 6 times (x + attention(norm x), x + mlp(norm x)) -> norm ->
head on the class token. Norms come first; the activation is the exact GELU, hidden layers are 4 times as wide as the
tokens. `vit` cuts pictures below 16 pixels into patches of 2x2. `vit_s16` first brings pictures of any other size to
224x224, bilinearly and inside the network, so that a data set stays small in memory; augmentation therefore happens
before, at the original size. `width` is the width of the tokens, a multiple of the heads.

A convolution of kernel = stride = patch is a matrix product on the patches and is written as one, which avoids slow
convolutions in a population. Dense layers are initialised as in PyTorch, positions and class token from
normal(0, 0.02).

Source: Dosovitskiy et al., "An image is worth 16x16 words", 2021; `vit` in the size of DeiT-Ti cut to 6 layers,
`vit_s16` in that of DeiT-S, which the conformal unlearning reference uses with ImageNet weights. Here it is initialised
at random.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxunlearn import errors
from jaxunlearn.models.layers import blocks, options


class Layer(nn.Module):
    """One transformer layer on tokens [B, T, D], norms first."""

    heads: int
    hidden: int
    dtype: str = "float32"
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens [B, T, D] to [B, T, D]; the residual stream keeps its dtype."""
        width = tokens.shape[-1]
        tokens = tokens + self._attention(_norm(self.dtype, self.epsilon, "norm_attention")(tokens))
        inner = _norm(self.dtype, self.epsilon, "norm_mlp")(tokens)
        inner = blocks.Dense(self.hidden, self.dtype, name="mlp_in")(inner)
        return tokens + blocks.Dense(width, self.dtype, name="mlp_out")(nn.gelu(inner, approximate=False))

    def _attention(self, tokens: jax.Array) -> jax.Array:
        batch, length, width = tokens.shape
        projections = blocks.Dense(3 * width, self.dtype, name="query_key_value")(tokens)
        query, key, value = jnp.moveaxis(projections.reshape(batch, length, 3, self.heads, -1), 2, 0)
        # Products of many terms and the softmax stay in float32 under bfloat16.
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores * (width // self.heads) ** -0.5, axis=-1).astype(self.dtype)
        values = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(batch, length, width)
        return blocks.Dense(width, self.dtype, name="mixed")(values)


class VisionTransformer(nn.Module):
    """Patches, class token, learned positions, transformer layers, head.

    Attributes:
      width, depth, heads: width of the tokens, number of layers, heads per layer.
      patch: pixels per side of a patch; 0 = 4, or 2 for pictures below 16 pixels.
      size: pixels per side to which pictures are resized; 0 = not resized.
      epsilon: of the norms.
    """

    num_classes: int
    width: int = 192
    depth: int = 6
    heads: int = 3
    dtype: str = "float32"
    patch: int = 0
    size: int = 0
    epsilon: float = 1e-5

    @property
    def feature_paths(self) -> tuple[str, ...]:
        """Returns the paths that OUR reads: first hidden layer, attention of the fourth layer, last norm."""
        return ("layer_0/mlp_in", f"layer_{min(3, self.depth - 1)}/query_key_value", "norm")

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """Maps inputs [B, H, W, C] float32, mask [B] bool (False = padding), to logits [B, classes] float32.

        Raises:
          ShapeError: height or width is not a multiple of the patch.
        """
        del train  # no dropout, no batch statistics
        patches = _patches(_resize(blocks.pictures(inputs, mask), self.size), self.patch)
        tokens = blocks.Dense(self.width, self.dtype, name="patches")(patches)
        start = nn.initializers.normal(0.02)
        first = self.param("class_token", start, (1, 1, self.width), jnp.float32)
        first = jnp.broadcast_to(first, (tokens.shape[0], 1, self.width)).astype(tokens.dtype)
        tokens = jnp.concatenate([first, tokens], axis=1)
        positions = self.param("positions", start, (1, tokens.shape[1], self.width), jnp.float32)
        tokens = tokens + positions.astype(tokens.dtype)
        for index in range(self.depth):
            layer = Layer(self.heads, 4 * self.width, self.dtype, self.epsilon, name=f"layer_{index}")
            tokens = layer(tokens)
        return blocks.Dense(self.num_classes, name="head")(_norm("float32", self.epsilon, "norm")(tokens[:, 0]))


def _norm(dtype: str, epsilon: float, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


def _resize(inputs: jax.Array, size: int) -> jax.Array:
    """Resizes pictures [B, H, W, C] to `size` pixels per side, bilinearly between pixel centres; 0 = unchanged."""
    if not size or inputs.shape[1:3] == (size, size):
        return inputs
    return jax.image.resize(inputs, (inputs.shape[0], size, size, inputs.shape[3]), "bilinear")


def _patches(inputs: jax.Array, patch: int) -> jax.Array:
    """Cuts pictures [B, H, W, C] into [B, number of patches, patch * patch * C], patches row by row."""
    batch, height, width, channels = inputs.shape
    patch = patch or (2 if min(height, width) < 16 else 4)
    if height % patch or width % patch:
        raise errors.ShapeError(
            f"the vision transformer cuts pictures into patches of {patch}x{patch}, but {height}x{width} is not a "
            "multiple of that. Pad or resize the pictures, or choose the architecture 'cnn' (model.name = 'cnn')."
        )
    grid = inputs.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return jnp.swapaxes(grid, 2, 3).reshape(batch, -1, patch * patch * channels)


def vit(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
        width: int = 0) -> nn.Module:  # fmt: skip
    """Builds the small vision transformer.

    Args:
      num_classes: number of logits.
      conv: not used: there is no convolution.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: of the tokens, a multiple of the 3 heads; 0 = 192.

    Raises:
      ConfigError: `width` is not a multiple of the 3 heads.
    """
    options.reject_unused_options("vit", hidden=hidden)
    _check_width(width, 3)
    return VisionTransformer(num_classes, width or 192, dtype=dtype)


def vit_s16(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
            width: int = 0) -> nn.Module:  # fmt: skip
    """Builds ViT-S/16 at 224x224, with 197 tokens.

    Args:
      num_classes: number of logits.
      conv: not used: there is no convolution.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: of the tokens, a multiple of the 6 heads; 0 = 384.

    Raises:
      ConfigError: `width` is not a multiple of the 6 heads.
    """
    options.reject_unused_options("vit_s16", hidden=hidden)
    _check_width(width, 6)
    return VisionTransformer(num_classes, width or 384, 12, 6, dtype, patch=16, size=224, epsilon=1e-6)


def _check_width(width: int, heads: int) -> None:
    if width % heads:
        raise errors.ConfigError(
            f"model.width = {width}: this vision transformer has {heads} heads and needs a multiple of {heads}, e.g. "
            f"{width + heads - width % heads}."
        )
