"""The forms of the 2-D convolution: each computes the same product and its two gradients in its own way.

`conv.py` is the interface and explains when to use which. Every form is a function `(x, w, geometry) -> y` with
x [B, H, W, C], w [kh, kw, C, O], y [B, oh, ow, O], all of one dtype, and its own gradient. The two gradients of a
convolution are products of the same kind: `data(dy, w) -> dx` and `weight(x, dy) -> dw`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

Padding = tuple[tuple[int, int], tuple[int, int]]
Product = Callable[[jax.Array, jax.Array], jax.Array]

LAYOUT = ("NHWC", "HWIO", "NHWC")
# Launches and compile time grow with every unrolled member; above these counts one grouped call is better.
_UNROLLED_MEMBERS = 8
_GROUPED_MEMBERS = 64


class Geometry(NamedTuple):
    """Static properties of one convolution; the sizes of x and w determine the shapes of their gradients."""

    stride: tuple[int, int]
    padding: Padding
    size: tuple[int, int]  # H, W of the input
    kernel: tuple[int, int]

    @property
    def output(self) -> tuple[int, int]:
        """Height and width of the output."""
        height, width = (
            (n + sum(pad) - k) // s + 1
            for n, pad, k, s in zip(self.size, self.padding, self.kernel, self.stride, strict=True)
        )
        return height, width


class Limits(NamedTuple):
    """Maximum number of members for which each of the three products is computed member by member under `vmap`."""

    forward: int
    data: int
    weight: int


_UNROLLED = Limits(_UNROLLED_MEMBERS, _UNROLLED_MEMBERS, _UNROLLED_MEMBERS)
_GROUPED = Limits(0, 0, _GROUPED_MEMBERS)


# ---------------------------------------------------------------------------------------------------------------------
# native: the product and its two transposes


def _native(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    return lax.conv_general_dilated(x, w, geometry.stride, geometry.padding, dimension_numbers=LAYOUT)


def _native_data(dy: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    shape = jax.ShapeDtypeStruct((dy.shape[0], *geometry.size, w.shape[2]), dy.dtype)
    return jax.linear_transpose(lambda x: _native(x, w, geometry), shape)(dy)[0]


def _native_weight(x: jax.Array, dy: jax.Array, geometry: Geometry) -> jax.Array:
    shape = jax.ShapeDtypeStruct((*geometry.kernel, x.shape[3], dy.shape[3]), x.dtype)
    return jax.linear_transpose(lambda w: _native(x, w, geometry), shape)(dy)[0]


# ---------------------------------------------------------------------------------------------------------------------
# canonical: both gradients as convolutions labelled NHWC / HWIO / NHWC, with explicit transposes.


def _canonical_data(dy: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """Convolves dy, spread by the stride, with the flipped kernel whose channel axes are swapped."""
    padding = []
    for n, (low, _), k, s, out in zip(
        geometry.size, geometry.padding, geometry.kernel, geometry.stride, geometry.output, strict=True
    ):
        first = k - 1 - low
        padding.append((first, n + k - 1 - ((out - 1) * s + 1) - first))
    sh, sw = geometry.stride
    if (sh, sw) != (1, 1):
        dy = lax.pad(dy, jnp.zeros((), dy.dtype), ((0, 0, 0), (0, 0, sh - 1), (0, 0, sw - 1), (0, 0, 0)))
    flipped = jnp.swapaxes(w[::-1, ::-1], 2, 3)
    return lax.conv_general_dilated(dy, flipped, (1, 1), padding, dimension_numbers=LAYOUT)


def _canonical_weight(x: jax.Array, dy: jax.Array, geometry: Geometry) -> jax.Array:
    """Convolves x, channels as its batch, with dy as a kernel that reduces over the real batch."""
    padding = [
        (low, k - 1 + (out - 1) * s + 1 - n - low)  # a negative end crops rows outside all windows
        for n, (low, _), k, s, out in zip(
            geometry.size, geometry.padding, geometry.kernel, geometry.stride, geometry.output, strict=True
        )
    ]
    dw = lax.conv_general_dilated(
        jnp.transpose(x, (3, 1, 2, 0)),
        jnp.transpose(dy, (1, 2, 0, 3)),
        (1, 1),
        padding,
        rhs_dilation=geometry.stride,
        dimension_numbers=LAYOUT,
    )
    return jnp.transpose(dw, (1, 2, 0, 3))


# ---------------------------------------------------------------------------------------------------------------------
# im2col: patches [B, oh, ow, kh * kw * C] times the kernel as a matrix. Under vmap: one batched matmul.


def _im2col(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    matrix = w.reshape(-1, w.shape[-1])
    return _dot(_patches(x, geometry), matrix, ((3,), (0,))).astype(x.dtype)


def _patches(x: jax.Array, geometry: Geometry) -> jax.Array:
    slices = _slices(x, geometry)
    return slices[0] if len(slices) == 1 else jnp.concatenate(slices, axis=-1)


def _slices(x: jax.Array, geometry: Geometry) -> list[jax.Array]:
    """Returns, for each position of the kernel in row order, its slice [B, oh, ow, C] of the padded picture."""
    x = jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    (oh, ow), (sh, sw) = geometry.output, geometry.stride
    batch, _, _, channels = x.shape
    # Shifted slices, not `conv_general_dilated_patches`: that one is itself a convolution, 15 times slower on a CPU.
    return [
        lax.slice(x, (0, i, j, 0), (batch, i + (oh - 1) * sh + 1, j + (ow - 1) * sw + 1, channels), (1, sh, sw, 1))
        for i in range(geometry.kernel[0])
        for j in range(geometry.kernel[1])
    ]


def _im2col_data(dy: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """Adds each window position's share of dy at its position; a flipped-kernel im2col would be slower."""
    kh, kw, channels, outputs = w.shape
    # float32 until the sum is complete: with bfloat16 operands the shares must not be rounded individually.
    shares = _dot(dy, w.reshape(-1, outputs), ((3,), (1,)))
    (oh, ow), (sh, sw) = geometry.output, geometry.stride
    zero = jnp.zeros((), shares.dtype)
    total = None
    for position in range(kh * kw):
        share = shares[..., position * channels : (position + 1) * channels]
        edges = [
            (shift - low, n - (shift - low) - ((out - 1) * s + 1), s - 1)
            for shift, (low, _), n, out, s in zip(
                divmod(position, kw), geometry.padding, geometry.size, (oh, ow), (sh, sw), strict=True
            )
        ]
        padded_share = lax.pad(share, zero, ((0, 0, 0), edges[0], edges[1], (0, 0, 0)))
        total = padded_share if total is None else total + padded_share
    assert total is not None
    return total.astype(dy.dtype)


def _im2col_weight(x: jax.Array, dy: jax.Array, geometry: Geometry) -> jax.Array:
    dw = _dot(_patches(x, geometry), dy, ((0, 1, 2), (0, 1, 2)))
    return dw.reshape(*geometry.kernel, x.shape[3], dy.shape[3]).astype(x.dtype)


# ---------------------------------------------------------------------------------------------------------------------
# shift: a sum of shifted pictures, each times one row of the kernel, which the compiler fuses into one pass. With one
# to three input channels a matrix product would be too small.


def _shift(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    rows = w.astype(jnp.promote_types(w.dtype, jnp.float32)).reshape(-1, w.shape[2], w.shape[3])
    total = jnp.zeros((), rows.dtype)
    for window, row in zip(_slices(x, geometry), rows, strict=True):
        for channel in range(w.shape[2]):
            total = total + window[..., channel : channel + 1] * row[channel]
    return total.astype(x.dtype)


def _shift_weight(x: jax.Array, dy: jax.Array, geometry: Geometry) -> jax.Array:
    """Computes the im2col product with patches stacked by position, which copies whole pictures, not single pixels."""
    stacked = jnp.stack([jnp.moveaxis(window, 3, 0) for window in _slices(x, geometry)])
    dw = _dot(stacked.reshape(-1, dy[..., 0].size), dy.reshape(-1, dy.shape[3]), ((1,), (0,)))
    return dw.reshape(*geometry.kernel, x.shape[3], dy.shape[3]).astype(x.dtype)


def _dot(a: jax.Array, b: jax.Array, contract: tuple[tuple[int, ...], tuple[int, ...]]) -> jax.Array:
    kind = jnp.promote_types(a.dtype, jnp.float32)
    return lax.dot_general(a, b, (contract, ((), ())), preferred_element_type=kind)


# ---------------------------------------------------------------------------------------------------------------------
# canonical, im2col, shift: a product with its own two gradients


def _with_gradients(
    product: Callable[..., jax.Array], data: Callable[..., jax.Array], weight: Callable[..., jax.Array]
) -> Callable[[jax.Array, jax.Array, Geometry], jax.Array]:
    """Returns `product` with the two given gradients, for which only x and w are stored.

    Neither the gradients nor the product inside the gradient pass are custom VJPs again, so that the jvp of a gradient
    works and stays in the fast layout. (The gradient of a gradient works too, but XLA chooses its layouts.)
    """
    function = jax.custom_vjp(product, nondiff_argnums=(2,))

    def forward(x: jax.Array, w: jax.Array, geometry: Geometry) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return product(x, w, geometry), (x, w)

    def backward(
        geometry: Geometry, operands: tuple[jax.Array, jax.Array], dy: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        x, w = operands
        return data(dy, w, geometry), weight(x, dy, geometry)

    function.defvjp(forward, backward)
    return function


# ---------------------------------------------------------------------------------------------------------------------
# unrolled, grouped: native products whose batching rule is a loop over the members. A function with a custom batching
# rule has no transpose, so the three bilinear products define each other's gradients, to any order.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _forward(x: jax.Array, w: jax.Array, geometry: Geometry, limits: Limits) -> jax.Array:
    return _member_wise(lambda a, b: _native(a, b, geometry), limits.forward)(x, w)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _data(dy: jax.Array, w: jax.Array, geometry: Geometry, limits: Limits) -> jax.Array:
    return _member_wise(lambda a, b: _native_data(a, b, geometry), limits.data)(dy, w)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _weight(x: jax.Array, dy: jax.Array, geometry: Geometry, limits: Limits) -> jax.Array:
    return _member_wise(lambda a, b: _native_weight(a, b, geometry), limits.weight)(x, dy)


_Static = tuple[Geometry, Limits]
_Pair = tuple[jax.Array, jax.Array]


def _define_product(function: Any, gradients: Callable[[_Pair, jax.Array, _Static], _Pair]) -> None:
    function.defvjp(
        lambda a, b, geometry, limits: (function(a, b, geometry, limits), (a, b)),
        lambda geometry, limits, operands, cotangent: gradients(operands, cotangent, (geometry, limits)),
    )


_define_product(
    _forward, lambda operands, dy, static: (_data(dy, operands[1], *static), _weight(operands[0], dy, *static))
)
_define_product(
    _data, lambda operands, dx, static: (_forward(dx, operands[1], *static), _weight(dx, operands[0], *static))
)
_define_product(
    _weight, lambda operands, dw, static: (_data(operands[1], dw, *static), _forward(operands[0], dw, *static))
)


def _member_wise(product: Product, limit: int) -> Product:
    """Returns `product(a, b)` which under `vmap` over both operands runs once per member, up to `limit` members."""
    mapped = custom_vmap(product)

    def rule(size: int, batched: list[bool], a: jax.Array, b: jax.Array) -> tuple[jax.Array, bool]:
        if all(batched) and size <= limit:
            return jnp.stack([mapped(a[i], b[i]) for i in range(size)]), True
        # An operand shared by all members needs no loop: its batching folds the members into an ordinary axis.
        axes = tuple(0 if is_batched else None for is_batched in batched)
        return jax.vmap(product, in_axes=axes)(a, b), True

    mapped.def_vmap(rule)
    return mapped


FORMS: dict[str, Callable[[jax.Array, jax.Array, Geometry], jax.Array]] = {
    "native": _native,
    "canonical": _with_gradients(_native, _canonical_data, _canonical_weight),
    "im2col": _with_gradients(_im2col, _im2col_data, _im2col_weight),
    "shift": _with_gradients(_shift, _im2col_data, _shift_weight),
    "unrolled": lambda x, w, geometry: _forward(x, w, geometry, _UNROLLED),
    "grouped": lambda x, w, geometry: _forward(x, w, geometry, _GROUPED),
}
