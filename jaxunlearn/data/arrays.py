"""From raw arrays to a `Dataset`: types, axes, labels, constants of normalisation, and the cut into two pools.

    raw inputs, raw labels -> tidy_inputs, tidy_labels -> build(...) -> Dataset

Whole numbers from 0 to 255 are kept as uint8, whatever type they came in, because the data set lies on the device once
and is scaled inside the training step. Everything else becomes float32. Pictures are NHWC, grey ones with C = 1.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.data import permutation
from jaxunlearn.records import Dataset

Constants = tuple[tuple[float, ...], tuple[float, ...]]

# Rows per step of the statistics: 4,096 pictures of 32x32x3 are 100 MB in float64.
_CHUNK = 4096


def tidy_inputs(name: str, raw: np.ndarray) -> np.ndarray:
    """Inputs in their smallest honest type and in house order.

    Args:
      name: what to call the array in a message.
      raw: [N, F] features, [N, H, W] grey pictures or [N, H, W, C] pictures, of any real number type.

    Returns:
      [N, F] or [N, H, W, C], uint8 where every value is a whole number in 0 .. 255, else float32.

    Raises:
      DataError: not numbers, NaN or infinity, no rows, wrong number of axes, or channels before height and width.
    """
    raw = np.asarray(raw)
    if raw.dtype.kind not in "buif":
        raise errors.DataError(f"{name} has dtype {raw.dtype}, expected numbers (uint8 or float32).")
    if raw.ndim not in (2, 3, 4):
        raise errors.DataError(
            f"{name} has shape {raw.shape}, expected [N, F] features, [N, H, W] grey pictures or [N, H, W, C] pictures."
        )
    if 0 in raw.shape:
        raise errors.DataError(f"{name} has shape {raw.shape}: it holds no values.")
    if raw.ndim == 4 and raw.shape[1] in (1, 3) and raw.shape[3] not in (1, 2, 3, 4):
        raise errors.DataError(
            f"{name} has shape {raw.shape}, which looks like [N, C, H, W]; expected [N, H, W, C]. "
            "Save x.transpose(0, 2, 3, 1) instead."
        )
    checks.finite(name, raw)
    values = _compact(raw)
    checks.finite(name + " as float32", values)
    return values[..., None] if values.ndim == 3 else values


def _compact(raw: np.ndarray) -> np.ndarray:
    if raw.dtype == np.uint8:
        return np.ascontiguousarray(raw)
    if raw.dtype.kind == "b" or (raw.min() >= 0 and raw.max() <= 255):
        # The first row settles most float arrays without a pass over all of them.
        if raw.dtype.kind != "f" or np.array_equal(raw[0], np.floor(raw[0])):
            whole = raw.astype(np.uint8)
            if raw.dtype.kind != "f" or np.array_equal(whole, raw):
                return whole
    with np.errstate(over="ignore"):
        return raw.astype(np.float32)


def tidy_labels(name: str, raw: np.ndarray, num_rows: int) -> np.ndarray:
    """Labels as [N] int32; one-hot rows are turned into class numbers.

    Raises:
      DataError: not one whole number at least 0 per row of the inputs.
    """
    raw = np.asarray(raw)
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.ndim == 2 and raw.dtype.kind in "buif" and np.all((raw == 0) | (raw == 1)) and np.all(raw.sum(1) == 1):
        raw = raw.argmax(1)
    if raw.ndim != 1 or len(raw) != num_rows:
        raise errors.DataError(f"{name} has shape {raw.shape}, expected one label for each of {num_rows} rows.")
    if raw.dtype.kind not in "bui":
        raise errors.DataError(
            f"{name} has dtype {raw.dtype}, expected whole numbers (class indices from 0). "
            "Number the classes and save them as int32; names belong into class_names."
        )
    if raw.size and raw.min() < 0:
        row = int(np.flatnonzero(raw < 0)[0])
        raise errors.DataError(f"{name}: row {row} is {int(raw[row])}; class indices start at 0.")
    return raw.astype(np.int32)


def is_binary(inputs: np.ndarray) -> bool:
    """Whether inputs are uint8 and hold nothing but 0 and 1."""
    return inputs.dtype == np.uint8 and int(inputs.max()) <= 1


def scale_of(inputs: np.ndarray) -> float:
    """The divisor of raw inputs: 255 for 8-bit pictures, 1 for tabular, binary and float data."""
    return 255.0 if inputs.ndim == 4 and inputs.dtype == np.uint8 and not is_binary(inputs) else 1.0


def statistics(inputs: np.ndarray, scale: float) -> Constants:
    """Mean and population deviation over all rows, per channel or feature, of inputs / scale.

    Two passes in float64, so that a large offset does not cost digits. A constant channel or feature gets deviation 1:
    it is centred, not divided by zero.

    Args:
      inputs: [N, ..., C] uint8 or float32, usually the train pool.
      scale: divisor of the raw inputs.

    Returns:
      (mean, std): two tuples of C floats.
    """
    flat_axes = tuple(range(inputs.ndim - 1))
    chunks = [inputs[start : start + _CHUNK] for start in range(0, len(inputs), _CHUNK)]
    count = inputs.size // inputs.shape[-1]
    mean = sum(np.sum(chunk, axis=flat_axes, dtype=np.float64) for chunk in chunks) / count
    squares = sum(np.sum((chunk.astype(np.float64) - mean) ** 2, axis=flat_axes) for chunk in chunks)
    std = np.sqrt(squares / count) / scale
    # Compared on the values: the rounded mean of a constant can leave a deviation of 1e-17.
    constant = inputs.min(axis=flat_axes) == inputs.max(axis=flat_axes)
    std = np.where(constant | (std == 0), 1.0, std)
    return tuple((mean / scale).tolist()), tuple(std.tolist())


def cut(name: str, num_rows: int, held_out: float) -> tuple[np.ndarray, int]:
    """Cuts rows of a source without a test part: one fixed permutation, the first floor((1 - held_out) n) rows train.

    The permutation has seed 42 and is the published one, so that the pools of the tabular benchmarks are exactly those
    of the reference (80 % train).

    Returns:
      ([N] row numbers in pool order, number of train rows).

    Raises:
      DataError: a pool would be empty.
    """
    # Rounded first: (1 - .3) * 10 is 7.000000000000001 or 6.999999999999999 depending on the numbers.
    num_train = math.floor(round((1.0 - held_out) * num_rows, 6))
    if not 0 < num_train < num_rows:
        raise errors.DataError(
            f"data set {name!r} has {num_rows} row(s); with data.held_out = {held_out} one of the two pools is empty. "
            "Give more rows or another fraction."
        )
    return permutation.fixed(num_rows), num_train


def build(
    name: str,
    inputs: np.ndarray,
    labels: np.ndarray,
    num_train: int,
    *,
    ids: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    class_names: Sequence[str] = (),
    num_classes: int = 0,
    scale: float = 0.0,
    constants: Constants | None = None,
) -> Dataset:
    """A `Dataset` from rows in pool order.

    Args:
      name: the source's name.
      inputs: [N, ...], train pool first; tidied here.
      labels: [N] class indices, or one-hot rows.
      num_train: rows of the train pool.
      ids: [N] numbers in the source; None = the row number.
      groups: [N] second labelling, or None.
      class_names: may be empty; otherwise its length is the number of classes.
      num_classes: 0 = as many as class_names, else the largest label + 1.
      scale: 0 = by `scale_of`.
      constants: mean and std in scaled units; None = from the train pool, none for binary features.

    Raises:
      DataError: malformed arrays, or constants for another number of channels.
    """
    inputs = tidy_inputs(f"the inputs of data set {name!r}", inputs)
    labels = tidy_labels(f"the labels of data set {name!r}", labels, len(inputs))
    scale = scale or scale_of(inputs)
    if constants is None:
        plain = inputs.ndim == 2 and is_binary(inputs)
        constants = ((), ()) if plain else statistics(inputs[:num_train], scale)
    elif constants[0] and len(constants[0]) != inputs.shape[-1]:
        raise errors.DataError(
            f"data set {name!r} has {len(constants[0])} channel(s), but the inputs have shape {inputs.shape}. "
            "Check the file, or read it with --config.data.name=npz."
        )
    return Dataset(
        inputs=inputs,
        labels=labels,
        ids=np.arange(len(labels), dtype=np.int64) if ids is None else np.asarray(ids, np.int64),
        groups=None if groups is None else np.asarray(groups, np.int32),
        name=name,
        num_train=int(num_train),
        num_classes=num_classes or len(class_names) or int(labels.max()) + 1,
        class_names=tuple(str(one) for one in class_names),
        scale=float(scale),
        mean=constants[0],
        std=constants[1],
    )


def build_cut(name: str, inputs: np.ndarray, labels: np.ndarray, held_out: float, **facts: Any) -> Dataset:
    """`build` for a source without a test part: rows are put into pool order by `cut`, ids are the row numbers.

    A `groups` array among the facts is in source order and is reordered with the rows.
    """
    order, num_train = cut(name, len(inputs), held_out)
    labels = tidy_labels(f"the labels of data set {name!r}", labels, len(inputs))
    if facts.get("groups") is not None:
        facts = facts | {"groups": np.asarray(facts["groups"])[order]}
    return build(name, np.asarray(inputs)[order], labels[order], num_train, ids=order, **facts)
