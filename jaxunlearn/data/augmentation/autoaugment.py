"""AutoAugment for CIFAR-10 on bytes, inside the training step: every picture of a batch by its own operations.

    words -> rows of the tables, two per picture;   per slot:  one gather -> one lookup table -> one blend

Under `vmap` a branch per operation would compute all of them for every picture. Here a slot is the same for all:

    gather   shear, translate, rotate: the nearest pixel under an affine map, black outside
    lookup   invert, posterize, solarize (constant), autocontrast, equalize (from the picture's own histogram)
    blend    a + factor (picture - a): a = black for brightness, the mean luminance for contrast, the luminance for
             color, the smoothed picture for sharpness

An operation that is not of a kind has that kind's neutral entry: the identity map, the identity table, the factor 1.

Written for ONE member, undecorated, pure, the same under `jit` and `vmap`. Every operation gives Pillow's bytes exactly
(Pillow 13, which torchvision hands its pictures to), at all ten levels and both signs: positions are counted in 16.16
fixed point as Pillow does, luminance, mean and smoothing are whole numbers, the blend rounds in float32 as Pillow's
does, and autocontrast's float64 roundings are a table. torchvision's operations on *tensors* differ by a byte here and
there.

Source: Cubuk et al., "AutoAugment", 2019; torchvision's `AutoAugment(AutoAugmentPolicy.CIFAR10)`: nearest neighbour,
black, operation i of the chosen pair with its probability, signs of signed operations turned with p = 0.5.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.data.augmentation import autoaugment_tables

WORDS = 3


def transform(pictures: jax.Array, words: jax.Array) -> jax.Array:
    """Applies one pair of operations to every picture.

    Args:
      pictures: [B, H, W, 3] uint8.
      words: [B, WORDS] uint32, uniform; a picture's result is a function of it and of its words.

    Returns:
      [B, H, W, 3] uint8.
    """
    # A loop, because XLA would compute the first operation anew wherever the second one reads a pixel.
    return jax.lax.scan(lambda carry, rows: (apply(carry, rows), None), pictures, choose(words).T)[0]


def choose(words: jax.Array) -> jax.Array:
    """Draws the operations for every picture.

    Args:
      words: [B, WORDS] uint32: the first chooses the pair of operations; of each of the other two, 31 bits decide
        whether the operation is applied, and the last bit gives its sign.

    Returns:
      [B, 2] int32 rows of the tables in `autoaugment_tables`; 0 where an operation is not applied.
    """
    pairs = np.asarray(
        [[autoaugment_tables.row(name, level) for name, _, level in pair] for pair in autoaugment_tables.CIFAR10],
        np.int32,
    )
    limits = np.asarray([[int(p * 2**31) for _, p, _ in pair] for pair in autoaugment_tables.CIFAR10], np.uint32)
    # The remainder of a 32-bit number is uneven by 6e-9 at most.
    pair = (words[:, 0] % jnp.uint32(len(pairs))).astype(jnp.int32)
    is_applied = (words[:, 1:] >> 1) < jnp.asarray(limits)[pair]
    is_negative = (words[:, 1:] & 1).astype(jnp.int32)
    # Both signs stand in neighbouring rows, which are the same where an operation has no sign.
    return jnp.where(is_applied, jnp.asarray(pairs)[pair] + is_negative, 0)


def apply(pictures: jax.Array, rows: jax.Array) -> jax.Array:
    """Applies one operation to every picture.

    Args:
      pictures: [B, H, W, 3] uint8.
      rows: [B] int32, rows of the tables in `autoaugment_tables`.

    Returns:
      [B, H, W, 3] uint8.
    """
    height, width = pictures.shape[1:3]
    kinds = jnp.asarray(autoaugment_tables.kinds())[rows]
    moved = _moved(pictures, jnp.asarray(autoaugment_tables.affine(height, width))[rows])
    looked_up = _looked_up(moved, _tables(pictures, kinds, jnp.asarray(autoaugment_tables.lookups())[rows]))
    return _blended(_base(pictures, kinds), looked_up, jnp.asarray(autoaugment_tables.factors())[rows])


def _is(kinds: jax.Array, operation: str, axes: int) -> jax.Array:
    """Returns whether the operation of every picture is this one: [B, 1, ...] bool, `axes` axes after the first."""
    return (kinds == autoaugment_tables.OPERATIONS.index(operation)).reshape(-1, *(1,) * axes)


def _moved(pictures: jax.Array, affine: jax.Array) -> jax.Array:
    """Moves pixels: [B, H, W, 3] uint8 read where `affine` [B, 6] int32 points, black where that is outside."""
    batch, height, width, channels = pictures.shape
    x, y = jnp.arange(width, dtype=jnp.int32), jnp.arange(height, dtype=jnp.int32)[:, None]
    a, b, c, d, e, f = (affine[:, i, None, None] for i in range(6))
    column, row = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
    is_inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = jnp.where(is_inside, row * width + column, 0).reshape(batch, -1, 1)
    pixels = pictures.reshape(batch, height * width, channels)
    fetched = jnp.take_along_axis(pixels, source, axis=1, mode="promise_in_bounds").reshape(pictures.shape)
    return jnp.where(is_inside[..., None], fetched, jnp.uint8(0))


def _looked_up(pictures: jax.Array, tables: jax.Array) -> jax.Array:
    """Replaces every byte by the entry of its picture's and channel's table [B, 3, 256]: [B, H, W, 3] uint8."""
    batch, channels = tables.shape[:2]
    entries = pictures.astype(jnp.int32) + 256 * jnp.arange(channels, dtype=jnp.int32)
    flat = tables.reshape(batch, -1)
    values = jnp.take_along_axis(flat, entries.reshape(batch, -1), axis=1, mode="promise_in_bounds")
    return values.reshape(pictures.shape)


def _tables(pictures: jax.Array, kinds: jax.Array, constant: jax.Array) -> jax.Array:
    """Builds tables [B, 3, 256] uint8: `constant` [B, 256], or one made from the histogram of each channel."""
    counts = _histogram(pictures)
    cumulative = jnp.cumsum(counts, axis=-1)
    tables = jnp.where(_is(kinds, "equalize", 2), _equalize(counts, cumulative), constant[:, None, :])
    tables = jnp.where(_is(kinds, "autocontrast", 2), _autocontrast(cumulative), tables)
    # Scattered into place: XLA computes the producers of a gather anew for every pixel, but not those of a scatter,
    # and a table has a quarter of the entries of a 32x32 picture. Twice as fast on a CPU.
    entries = tables.reshape(-1)
    positions = jnp.arange(entries.size, dtype=jnp.int32)
    scattered = (
        jnp.zeros_like(entries)
        .at[positions]
        .set(entries, mode="promise_in_bounds", unique_indices=True, indices_are_sorted=True)
    )
    return scattered.reshape(tables.shape)


def _histogram(pictures: jax.Array) -> jax.Array:
    """Counts how often every byte occurs in every channel: [B, 3, 256] int32.

    Whole numbers are added, so that the order of a scatter does not matter.
    """
    batch, channels = pictures.shape[0], pictures.shape[-1]
    offsets = 256 * (channels * jnp.arange(batch)[:, None, None, None] + jnp.arange(channels))
    bins = (pictures.astype(jnp.int32) + offsets).reshape(-1)
    counts = jnp.zeros(batch * channels * 256, jnp.int32).at[bins].add(1, mode="promise_in_bounds")
    return counts.reshape(batch, channels, 256)


def _equalize(counts: jax.Array, cumulative: jax.Array) -> jax.Array:
    """Computes tables [..., 256] uint8: (step // 2 + pixels below the byte) // step, step = 1/255 of the pixels.

    The brightest bytes do not count towards the step. A channel too small or too uniform for one stays as it is.

    Args:
      counts: [..., 256] int32, a histogram.
      cumulative: its cumulative sum.
    """
    step = jnp.max(jnp.where(cumulative < cumulative[..., -1:], cumulative, 0), axis=-1, keepdims=True) // 255
    values = jax.lax.div(step // 2 + cumulative - counts, jnp.broadcast_to(jnp.maximum(step, 1), counts.shape))
    return jnp.where(step > 0, jnp.minimum(values, 255), jnp.arange(256)).astype(jnp.uint8)


def _autocontrast(cumulative: jax.Array) -> jax.Array:
    """Computes tables [..., 256] uint8: the lowest byte that occurs becomes 0, the highest 255.

    A channel of one value stays as it is.

    Args:
      cumulative: [..., 256] int32, cumulative sum of a histogram.
    """
    low, high = (
        jnp.sum(cumulative < bound, axis=-1, keepdims=True, dtype=jnp.int32) for bound in (1, cumulative[..., -1:])
    )
    spread = high - low
    values = jnp.arange(256, dtype=jnp.int32)
    above = jnp.clip(values - low, 0, spread)
    parts, starts, is_short = (jnp.asarray(table) for table in autoaugment_tables.shortfalls())
    g = parts[spread]
    part = _quotient(above * g, spread)
    is_whole = part * spread == above * g
    stretched = _quotient(255 * above, spread) - (is_whole & is_short[starts[spread] + low * (g + 1) + part])
    return jnp.where(spread > 0, stretched, values).astype(jnp.uint8)


def _quotient(numerator: jax.Array, divisor: jax.Array) -> jax.Array:
    """Divides a numerator below 2^16 by a divisor below 2^8, rounded down, int32; a divisor of 0 counts as 1.

    The half keeps a quotient at least 1/510 away from the next whole number, far more than float32 can err.
    """
    ratio = (numerator.astype(jnp.float32) + 0.5) / jnp.maximum(divisor, 1).astype(jnp.float32)
    return jnp.floor(ratio).astype(jnp.int32)


def _base(pictures: jax.Array, kinds: jax.Array) -> jax.Array:
    """Returns the pictures that the inputs are blended with, [B, H, W, 3] int32."""
    values = pictures.astype(jnp.int32)
    red, green, blue = (values[..., channel] for channel in range(3))
    luminance = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    pixels = luminance.shape[1] * luminance.shape[2]
    mean = (2 * jnp.sum(luminance, axis=(1, 2)) + pixels) // (2 * pixels)
    base = jnp.where(_is(kinds, "sharpness", 3), _smoothed(values), 0)
    base = jnp.where(_is(kinds, "color", 3), luminance[..., None], base)
    return jnp.where(_is(kinds, "contrast", 3), mean[:, None, None, None], base)


def _smoothed(values: jax.Array) -> jax.Array:
    """Averages 3x3 pixels, the middle one counted five times, rounded: [B, H, W, 3] int32; the border stays."""
    height, width = values.shape[1:3]
    if min(height, width) < 3:
        return values
    rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    weighted_sum = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * values[:, 1:-1, 1:-1]
    return values.at[:, 1:-1, 1:-1].set(jax.lax.div(2 * weighted_sum + 13, 26))


def _blended(base: jax.Array, pictures: jax.Array, factors: jax.Array) -> jax.Array:
    """Computes base [B, H, W, 3] int32 + (factors [B, 2] summed) * (pictures - base), clipped to uint8."""
    difference = (pictures.astype(jnp.int32) - base).astype(jnp.float32)
    coarse, fine = factors[:, 0, None, None, None], factors[:, 1, None, None, None]
    change = coarse * difference + fine * difference
    return jnp.clip(base.astype(jnp.float32) + change, 0, 255).astype(jnp.uint8)
