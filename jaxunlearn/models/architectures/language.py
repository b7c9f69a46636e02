"""Language models: decoder-only transformers that predict the next token at every position.

    name          positions   norms and activation             follows
    lm            learned     LayerNorm, GELU, biases          GPT-2
    lm_rotary     rotary      RMSNorm, gated SiLU, no biases   LLaMA

Tokens -> embedding (+ learned positions) -> layers of x + attention(norm x), x + mlp(norm x) -> norm -> logits by the
same embedding (tied). A position attends to itself and to earlier ones; padding (-1) is at the end of a text, so that
no token attends to it. `width` is the width of the tokens, 64; `hidden` = (layers, heads), (2, 4): the hidden layer of
the mlp is 4 times as wide as the tokens, 8/3 times if gated. From `SCANNED` layers on, the parameters of the layers are
stacked and the program contains one layer in a `scan`, which compiles as fast as a single layer.

Weights are initialised from normal(0, 0.02), those that write into the residual stream divided by sqrt(2 * layers), as
in GPT-2.
Source: Radford et al., "Language models are unsupervised multitask learners", 2019; Touvron et al., "LLaMA", 2023; Su
et al., "RoFormer", 2021.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxunlearn import errors
from jaxunlearn.models.layers import options

WIDTH, LAYERS, HEADS = 64, 2, 4
SCANNED = 9  # layers; fewer are unrolled, so that XLA can fuse across them
BASE = 10_000.0  # of rotary positions


class Block(nn.Module):
    """One layer on the residual stream [B, T, D].

    Attributes:
      heads: of the attention; layers: of the whole network, for the scale of the initial weights.
      is_rotary: rotary positions, RMSNorm, a gated mlp and no biases; else LayerNorm, GELU and biases.
    """

    heads: int
    layers: int
    is_rotary: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, stream: jax.Array) -> jax.Array:
        """Maps the stream [B, T, D] to [B, T, D]."""
        stream = stream + self._attention(_norm(self.is_rotary, self.dtype, "norm_attention")(stream))
        return stream + self._mlp(_norm(self.is_rotary, self.dtype, "norm_mlp")(stream))

    def _dense(self, features: int, name: str, is_last: bool = False) -> nn.Dense:
        std = 0.02 / (2 * self.layers) ** 0.5 if is_last else 0.02
        start = nn.initializers.normal(std)
        return nn.Dense(features, not self.is_rotary, self.dtype, kernel_init=start, name=name)

    def _attention(self, inner: jax.Array) -> jax.Array:
        batch, length, width = inner.shape
        projections = self._dense(3 * width, "query_key_value")(inner).reshape(batch, length, 3, self.heads, -1)
        query, key, value = jnp.moveaxis(projections, 2, 0)
        if self.is_rotary:
            query, key = rotated(query), rotated(key)
        # Products of many terms and the softmax stay in float32 under bfloat16.
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        is_visible = jnp.tril(jnp.ones((length, length), bool))
        scores = jnp.where(is_visible, scores * (width // self.heads) ** -0.5, -jnp.inf)
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        values = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(batch, length, width)
        return self._dense(width, "mixed", is_last=True)(values)

    def _mlp(self, inner: jax.Array) -> jax.Array:
        width = inner.shape[-1]
        if self.is_rotary:
            gated = 8 * width // 3
            inner = nn.silu(self._dense(gated, "mlp_gate")(inner)) * self._dense(gated, "mlp_in")(inner)
        else:
            inner = nn.gelu(self._dense(4 * width, "mlp_in")(inner), approximate=False)
        return self._dense(width, "mlp_out", is_last=True)(inner)


def rotated(heads: jax.Array) -> jax.Array:
    """Rotates queries or keys [B, T, H, d] by their position: pairs (i, i + d/2) by t / BASE^(2i/d)."""
    length, size = heads.shape[1], heads.shape[-1]
    rates = BASE ** (-jnp.arange(0, size, 2) / size)
    angles = jnp.arange(length)[:, None] * rates
    cosine, sine = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
    first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
    rotation = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)
    return rotation.astype(heads.dtype)


def _norm(is_rotary: bool, dtype: str, name: str) -> nn.Module:
    if is_rotary:
        return nn.RMSNorm(epsilon=1e-5, dtype=dtype, name=name)
    return nn.LayerNorm(epsilon=1e-5, dtype=dtype, use_fast_variance=False, name=name)


class _Hidden(nn.Module):
    """Gives the output of one of the stacked layers its own path, at which methods find it."""

    @nn.compact
    def __call__(self, stream: jax.Array) -> jax.Array:
        return stream


class LanguageModel(nn.Module):
    """A decoder-only transformer with a tied embedding.

    Attributes:
      num_classes: V, size of the vocabulary.
      width, layers, heads: width of the tokens, number of layers, heads per layer.
      is_rotary: see `Block`.
      is_scanned: the layers' parameters are stacked, and the program holds one layer.
    """

    num_classes: int
    width: int = WIDTH
    layers: int = LAYERS
    heads: int = HEADS
    is_rotary: bool = False
    is_scanned: bool = False
    dtype: str = "float32"

    @property
    def is_tied(self) -> bool:
        """Returns whether the logits are products with the embedding, so that there is no separate head."""
        return True

    @property
    def feature_paths(self) -> tuple[str, ...]:
        """Returns the paths of the residual stream after every layer."""
        return tuple(f"layer_{index}" for index in range(self.layers))

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """Maps tokens [B, T] (-1 = padding at the end) to logits [B, T, V] float32 of the next tokens.

        With learned positions, T must be that of the initialisation.
        """
        del train, mask  # no dropout, no batch statistics
        tokens = jnp.maximum(inputs.astype(jnp.int32), 0)
        start = nn.initializers.normal(0.02)
        embed = nn.Embed(self.num_classes, self.width, dtype=self.dtype, embedding_init=start, name="tokens")
        stream = embed(tokens)
        if not self.is_rotary:
            positions = self.param("positions", start, (tokens.shape[1], self.width), jnp.float32)
            stream = stream + positions.astype(self.dtype)
        stream = self._layers(stream)
        stream = _norm(self.is_rotary, "float32", "norm")(stream)
        return jnp.dot(stream, embed.embedding.T.astype(jnp.float32))

    def _layers(self, stream: jax.Array) -> jax.Array:
        options_of_block: dict[str, Any] = {"heads": self.heads, "layers": self.layers, "is_rotary": self.is_rotary,
                                 "dtype": self.dtype}  # fmt: skip
        if not self.is_scanned:
            for index in range(self.layers):
                stream = Block(**options_of_block, name=f"layer_{index}")(stream)
            return stream

        def apply_block(block: Block, carry: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            after = block(carry)
            return after, after

        scan = nn.scan(apply_block, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.layers)
        stream, outputs = scan(Block(**options_of_block, name="layers"), stream, None)
        for index in range(self.layers):
            _Hidden(name=f"layer_{index}")(outputs[index])
        return stream


def _build(
    name: str, num_classes: int, dtype: str, hidden: tuple[int, ...], width: int, is_rotary: bool
) -> LanguageModel:  # fmt: skip
    if hidden and len(hidden) != 2:
        raise errors.ConfigError(f"model.hidden = {tuple(hidden)!r}: {name!r} takes two numbers, (layers, heads).")
    layers, heads = options.widths(hidden) or (LAYERS, HEADS)
    width = width or WIDTH
    divisor = 2 * heads if is_rotary else heads
    if width % divisor:
        raise errors.ConfigError(
            f"model.width = {width} is not a multiple of {divisor}, which {name!r} with {heads} heads needs."
        )
    return LanguageModel(num_classes, width, layers, heads, is_rotary, layers >= SCANNED, dtype)


def lm(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
       width: int = 0) -> nn.Module:  # fmt: skip
    """Builds the transformer with learned positions.

    Args:
      num_classes: number of logits.
      conv: not used: there is no convolution.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: (layers, heads); () = (2, 4).
      width: of the tokens, a multiple of the heads; 0 = 64.

    Raises:
      ConfigError: `hidden` is not two numbers; a width that the heads do not divide.
    """
    del conv  # it has no convolution
    return _build("lm", num_classes, dtype, hidden, width, is_rotary=False)


def lm_rotary(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
              width: int = 0) -> nn.Module:  # fmt: skip
    """Builds the transformer with rotary positions.

    Args:
      num_classes: number of logits.
      conv: not used: there is no convolution.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: (layers, heads); () = (2, 4).
      width: of the tokens, a multiple of twice the heads; 0 = 64.

    Raises:
      ConfigError: `hidden` is not two numbers; a width that the heads do not divide into even parts.
    """
    del conv  # it has no convolution
    return _build("lm_rotary", num_classes, dtype, hidden, width, is_rotary=True)
