"""The AutoAugment policy for CIFAR-10 and its operations as constant tables.

    policy (25 pairs) -> (operation, level 0..9, sign) -> one row of every table below

An operation is a row number, so that a batch of different operations is a gather from the tables and not a branch per
operation. Row 0 leaves a picture as it is; `row` numbers the others. NumPy only; nothing is computed at import.

Source: Cubuk, Zoph, Mane, Vasudevan and Le, "AutoAugment: learning augmentation strategies from data", 2019, with ten
levels per operation as torchvision's `AutoAugment(CIFAR10)` has them; the arithmetic is Pillow's.
"""

import functools
import math

import numpy as np

LEVELS = 10
# Those whose magnitude has a sign first; the others ignore it.
SIGNED = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast", "sharpness")
OPERATIONS = (*SIGNED, "posterize", "solarize", "autocontrast", "equalize", "invert")
ROWS = 1 + len(OPERATIONS) * LEVELS * 2

# (operation, probability, level); level 0 stands for none.
CIFAR10 = (
    (("invert", 0.1, 0), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 0)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
    (("color", 0.9, 9), ("equalize", 0.6, 0)),
    (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 0), ("invert", 0.1, 0)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
)


def row(operation: str, level: int = 0, is_negative: bool = False) -> int:
    """Returns the row of the tables that holds an operation of `OPERATIONS` at a level in [0, 10) and a sign."""
    return 1 + (OPERATIONS.index(operation) * LEVELS + level) * 2 + is_negative


def magnitude(operation: str, level: int, is_negative: bool = False, side: int = 32) -> float:
    """Computes the number that an operation is called with.

    Args:
      operation: shear (pixels per pixel), translate (pixels), rotate (degrees), brightness, color, contrast, sharpness
        (added to 1, the factor of the picture), posterize (bits kept), solarize (threshold), or one that takes none.
      level: in [0, 10).
      is_negative: turns the sign of a signed operation.
      side: pixels of the picture along the translation.

    Returns:
      The float that torchvision computes, steps of float32 `linspace` included: they decide some roundings.
    """
    ends = {"shear": (0.0, 0.3), "translate": (0.0, 150 / 331 * side), "rotate": (0.0, 30.0), "solarize": (255.0, 0.0)}
    if operation == "posterize":
        return 8 - round(level / ((LEVELS - 1) / 4))
    if operation not in (*SIGNED, "solarize"):
        return 0.0
    first, last = (np.float32(end) for end in ends.get(operation.split("_")[0], (0.0, 0.9)))
    step = np.float32((last - first) / np.float32(LEVELS - 1))
    # From the nearer end, as torch counts.
    low, high = first + step * np.float32(level), last - step * np.float32(LEVELS - 1 - level)
    value = float(low if level < LEVELS // 2 else high)
    return -value if is_negative and operation in SIGNED else value


def _every_row() -> list[tuple[int, str, int, bool]]:
    return [
        (row(operation, level, is_negative), operation, level, is_negative)
        for operation in OPERATIONS
        for level in range(LEVELS)
        for is_negative in (False, True)
    ]


@functools.cache
def affine(height: int, width: int) -> np.ndarray:
    """Returns the source position of every pixel as an affine map, in 1/65536 of a pixel as in Pillow.

    Returns:
      [ROWS, 6] int32 (a, b, c, d, e, f): the pixel in column x and row y is the old one in column
      (a x + b y + c) >> 16 and row (d x + e y + f) >> 16. Shears keep the top left corner, rotations the centre.
    """
    table = np.zeros((ROWS, 6))
    table[:] = 1, 0, 0, 0, 1, 0
    for index, operation, level, is_negative in _every_row():
        side = height if operation == "translate_y" else width
        value = magnitude(operation, level, is_negative, side)
        if operation == "shear_x":
            table[index, 1] = math.tan(math.atan(value))
        elif operation == "shear_y":
            table[index, 3] = math.tan(math.atan(value))
        elif operation == "translate_x":
            table[index, 2] = -int(value)
        elif operation == "translate_y":
            table[index, 5] = -int(value)
        elif operation == "rotate":
            angle = -math.radians(value)
            cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
            x, y = width / 2, height / 2
            table[index] = cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y
    # From the corner of a pixel to its centre.
    table[:, 2] += 0.5 * (table[:, 0] + table[:, 1])
    table[:, 5] += 0.5 * (table[:, 3] + table[:, 4])
    return np.floor(table * 65536 + 0.5).astype(np.int32)


@functools.cache
def factors() -> np.ndarray:
    """Returns [ROWS, 2] float32 whose sum is the weight of the picture in the blend; (1, 0) = no blend.

    The first part has 12 significant bits and the second the other 12, so that both have exact products with a
    difference of two bytes. A compiler that fuses a product into a sum then rounds as one that does not.
    """
    table = np.ones(ROWS, np.float32)
    for index, operation, level, is_negative in _every_row():
        if operation in ("brightness", "color", "contrast", "sharpness"):
            table[index] = 1.0 + magnitude(operation, level, is_negative)
    coarse = (table.view(np.uint32) & np.uint32(0xFFFFF000)).view(np.float32)
    return np.stack([coarse, table - coarse], axis=1)


@functools.cache
def lookups() -> np.ndarray:
    """Returns [ROWS, 256] uint8: new values of bytes under invert, posterize and solarize; other rows keep them."""
    values = np.arange(256)
    table = np.tile(values, (ROWS, 1))
    for index, operation, level, _ in _every_row():
        if operation == "invert":
            table[index] = 255 - values
        elif operation == "posterize":
            table[index] = values & -(2 ** (8 - int(magnitude(operation, level))))
        elif operation == "solarize":
            table[index] = np.where(values < magnitude(operation, level), values, 255 - values)
    return table.astype(np.uint8)


@functools.cache
def kinds() -> np.ndarray:
    """Returns [ROWS] int32: index of the row's operation in `OPERATIONS`; -1 for the row that does nothing."""
    return np.array([-1, *(OPERATIONS.index(operation) for _, operation, _, _ in _every_row())], np.int32)


@functools.cache
def shortfalls() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lists where Pillow's autocontrast falls one short of 255 (value - low) // (high - low).

    It truncates value * scale - low * scale in float64. Where the quotient is whole, the rounding of those products
    can bring the difference below it: for one pair of extremes in seven even the brightest pixel becomes 254. JAX has
    no float64 by default, so the whole quotients are listed: with s = high - low there are g + 1 of them, g = gcd(255,
    s), at value = low + t s / g.

    Returns:
      g [256] int32 by s (0 for s = 0), start [256] int32 by s, and is_short [n] bool at start + low (g + 1) + t.
    """
    divisors, starts, is_short = np.zeros(256, np.int32), np.zeros(256, np.int32), []
    count = 0
    for spread in range(1, 256):
        divisors[spread], starts[spread] = math.gcd(255, spread), count
        low = np.arange(256.0 - spread)[:, None]
        steps = np.arange(divisors[spread] + 1.0)
        scale = 255.0 / spread
        result = (low + steps * (spread // divisors[spread])) * scale + -low * scale
        is_short.append((result < steps * (255 // divisors[spread])).ravel())
        count += is_short[-1].size
    return divisors, starts, np.concatenate(is_short)
