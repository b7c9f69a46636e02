"""The vision transformer for small data sets: shifted patches, attention of each token to all tokens except itself.

Picture and its four shifts by one pixel (content right, left, down, up) -> patches of 4x4 -> norm -> dense -> class
token and learned positions -> dropout -> 4 times (x + attention(norm x), x + mlp(norm x)) -> norm -> head on the class
token. Attention: no bias in query, key and value, logits times exp(t) with one learned t per layer that starts at
log(1 / sqrt(head width)), and nothing on the diagonal. 4,376,568 parameters at 32x32x3 with 20 classes.

Source: Lee, Lee and Song, "Vision transformer for small-size datasets", 2021; OUR reference, version 2.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxunlearn import errors
from jaxunlearn.models.layers import blocks, options

MOVES = ((1, 1), (1, 0), (1, 2), (0, 1), (2, 1))  # unshifted; content right, left, down, up


class SmallDataVit(nn.Module):
    """The whole network.

    Attributes:
      width, depth, heads, head_width, hidden: width of the tokens, layers, heads per layer, widths of a head and of the
        MLP.
      patch: pixels per side; dropout: after the positions and within layers.
    """

    num_classes: int
    width: int = 512
    depth: int = 4
    heads: int = 6
    head_width: int = 64
    hidden: int = 256
    patch: int = 4
    dropout: float = 0.1
    dtype: str = "float32"

    @property
    def feature_paths(self) -> tuple[str, ...]:
        """Returns the paths that OUR reads: first hidden layer, attention of the fourth layer, last norm."""
        return ("mlp_in_0", f"query_key_value_{min(3, self.depth - 1)}", "norm")

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """Maps inputs [B, H, W, C] float32, mask [B] bool, to logits [B, classes] float32; training draws "dropout".

        Raises:
          ShapeError: height or width is not a multiple of the patch.
        """
        rows = self._norm("norm_patches", _patches(blocks.pictures(inputs, mask), self.patch))
        tokens = blocks.Dense(self.width, self.dtype, name="patches")(rows)
        first = self.param("class_token", nn.initializers.normal(1.0), (1, 1, self.width), jnp.float32)
        first = jnp.broadcast_to(first, (len(tokens), 1, self.width)).astype(tokens.dtype)
        tokens = jnp.concatenate([first, tokens], 1)
        positions = self.param("positions", nn.initializers.normal(1.0), (1, tokens.shape[1], self.width), jnp.float32)
        tokens = self._drop(tokens + positions.astype(tokens.dtype), train)
        for layer in range(self.depth):
            values = self._attention(layer, self._norm(f"norm_attention_{layer}", tokens))
            tokens = tokens + self._drop(blocks.Dense(self.width, self.dtype, name=f"mixed_{layer}")(values), train)
            inner = self._norm(f"norm_mlp_{layer}", tokens)
            inner = nn.gelu(blocks.Dense(self.hidden, self.dtype, name=f"mlp_in_{layer}")(inner), approximate=False)
            inner = blocks.Dense(self.width, self.dtype, name=f"mlp_out_{layer}")(self._drop(inner, train))
            tokens = tokens + self._drop(inner, train)
        last = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="norm")(tokens[:, 0].astype(jnp.float32))
        return blocks.Dense(self.num_classes, name="head")(last)

    def _norm(self, name: str, rows: jax.Array) -> jax.Array:
        return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, use_fast_variance=False, name=name)(rows)

    def _drop(self, rows: jax.Array, train: bool) -> jax.Array:
        return nn.Dropout(self.dropout, deterministic=not train)(rows)

    def _attention(self, layer: int, tokens: jax.Array) -> jax.Array:
        batch, length, _ = tokens.shape
        inner = self.heads * self.head_width
        projections = nn.Dense(
            3 * inner, use_bias=False, dtype=self.dtype, kernel_init=blocks.kernel_init, name=f"query_key_value_{layer}"
        )(tokens)
        query, key, value = jnp.moveaxis(projections.reshape(batch, length, 3, self.heads, -1), 2, 0)
        start = nn.initializers.constant(math.log(self.head_width**-0.5))
        scale = jnp.exp(self.param(f"temperature_{layer}", start, (), jnp.float32))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32) * scale
        scores = jnp.where(jnp.eye(length, dtype=bool), -jnp.finfo(jnp.float32).max, scores)
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        return jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(batch, length, inner)


def _patches(inputs: jax.Array, patch: int) -> jax.Array:
    """Cuts pictures [B, H, W, C] into [B, number of patches, patch * patch * 5 C], patches row by row."""
    batch, height, width, channels = inputs.shape
    if height % patch or width % patch:
        raise errors.ShapeError(
            f"the vision transformer cuts pictures into patches of {patch}x{patch}, but {height}x{width} is not a "
            "multiple of that. Pad or resize the pictures, or choose the architecture 'cnn' (model.name = 'cnn')."
        )
    padded = jnp.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = jnp.concatenate([padded[:, i : i + height, j : j + width] for i, j in MOVES], -1)
    grid = shifted.reshape(batch, height // patch, patch, width // patch, patch, 5 * channels)
    return jnp.swapaxes(grid, 2, 3).reshape(batch, -1, patch * patch * 5 * channels)


def vit_small_data(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
                   width: int = 0) -> nn.Module:  # fmt: skip
    """Builds the published network.

    Args:
      num_classes: number of logits.
      conv: not used: there is no convolution.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: of the tokens; 0 = 512.
    """
    options.reject_unused_options("vit_small_data", hidden=hidden)
    return SmallDataVit(num_classes, width or 512, dtype=dtype)
