"""From raw arrays to a `Dataset`: types, axes, labels, constants of normalisation, and the cut into two pools.

    raw inputs, raw labels -> tidy_inputs, tidy_labels -> build(...) -> Dataset

Whole numbers from 0 to 255 are stored as uint8, whatever their type was, because the data set lies on the device once
and is scaled inside the training step. Everything else becomes float32. Pictures are NHWC, grey ones with C = 1.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.data.formats import published_permutations
from jaxunlearn.records import Dataset

Constants = tuple[tuple[float, ...], tuple[float, ...]]

RENUMBER = (
    "Number the classes from 0 and keep their own names: values, y = numpy.unique(y, return_inverse=True); "
    "numpy.savez(path, ..., y=y, class_names=values.astype(str))."
)

# Fields of a `Dataset` with one entry per row.
ROW_FIELDS = ("inputs", "labels", "ids", "groups", "names", "prompts", "texts")

# Rows per step of the statistics: 4,096 pictures of 32x32x3 are 100 MB in float64.
_CHUNK = 4096


def tidy_inputs(name: str, raw: np.ndarray) -> np.ndarray:
    """Converts inputs to uint8 if that loses nothing, else float32, and gives grey pictures a channel axis.

    Args:
      name: of the array, for messages.
      raw: [N, F] features, [N, H, W] grey pictures or [N, H, W, C] pictures, of any real number type.

    Returns:
      [N, F] or [N, H, W, C], uint8 where every value is a whole number in 0 .. 255, else float32.

    Raises:
      DataError: not numbers, NaN or infinity, no rows, wrong number of axes, or channels before height and width.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.data.formats import arrays
      >>> arrays.tidy_inputs("x", np.array([[0.0, 255.0], [3.0, 4.0]])).dtype.name
      'uint8'
    """
    raw = np.asarray(raw)
    if raw.dtype.kind not in "buif":
        raise errors.DataError(f"{name} has dtype {raw.dtype}, expected numbers (uint8 or float32).")
    if raw.ndim not in (2, 3, 4):
        raise errors.DataError(
            f"{name} has shape {raw.shape}, expected [N, F] features, [N, H, W] grey pictures or [N, H, W, C] pictures."
        )
    if 0 in raw.shape:
        raise errors.DataError(f"{name} has shape {raw.shape}: it contains no values.")
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
            as_bytes = raw.astype(np.uint8)
            if raw.dtype.kind != "f" or np.array_equal(as_bytes, raw):
                return as_bytes
    with np.errstate(over="ignore"):
        return raw.astype(np.float32, copy=False)


def tidy_labels(name: str, raw: np.ndarray, num_rows: int) -> np.ndarray:
    """Converts labels to [N] int32; one-hot rows become class numbers.

    Raises:
      DataError: not one whole number per row of the inputs, or one below 0 or above the largest int32.
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
            "Number the classes and save them as int32; names belong in class_names."
        )
    if raw.size and raw.min() < 0:
        row = int(np.flatnonzero(raw < 0)[0])
        raise errors.DataError(f"{name}: row {row} is {int(raw[row])}; class indices start at 0.")
    if raw.size and raw.max() > np.iinfo(np.int32).max:
        raise errors.DataError(
            f"{name}: row {int(raw.argmax())} is {int(raw.max())}, which is not a class index. {RENUMBER}"
        )
    return raw.astype(np.int32)


def is_binary(inputs: np.ndarray) -> bool:
    """Returns whether inputs are uint8 and hold nothing but 0 and 1."""
    return inputs.dtype == np.uint8 and int(inputs.max()) <= 1


def scale_of(inputs: np.ndarray) -> float:
    """Returns the divisor of raw inputs: 255 for 8-bit pictures, 1 for tabular, binary and float data."""
    return 255.0 if inputs.ndim == 4 and inputs.dtype == np.uint8 and not is_binary(inputs) else 1.0


def statistics(inputs: np.ndarray, scale: float) -> Constants:
    """Computes mean and population deviation of inputs / scale over all rows, per channel or feature.

    Two passes in float64, so that a large offset does not cost precision. A constant channel or feature gets deviation
    1: it is centred, not divided by zero.

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
    """Cuts rows of a source without test rows: one fixed permutation, the first floor((1 - held_out) n) rows train.

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
    return published_permutations.fixed(num_rows), num_train


def build(
    name: str,
    inputs: np.ndarray,
    labels: np.ndarray,
    num_train: int,
    *,
    ids: np.ndarray | None = None,
    names: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    class_names: Sequence[str] = (),
    group_names: Sequence[str] = (),
    num_classes: int = 0,
    scale: float = 0.0,
    constants: Constants | None = None,
    notes: Sequence[str] = (),
) -> Dataset:
    """Builds a `Dataset` from rows in pool order.

    Args:
      name: the source's name.
      inputs: [N, ...], train pool first; tidied here.
      labels: [N] class indices, or one-hot rows.
      num_train: rows of the train pool.
      ids: [N] numbers in the source; None = the row number.
      names: [N] the source's names of its rows, or None.
      groups: [N] second labelling, or None.
      class_names: may be empty; otherwise its length is the number of classes.
      group_names: names of the values of `groups`; may be empty.
      num_classes: 0 = the number of class_names, else the largest label + 1.
      scale: 0 = by `scale_of`.
      constants: mean and std in scaled units; None = from the train pool, none for binary features.
      notes: sentences about the source that a user must know.

    Raises:
      DataError: malformed arrays, labels that leave most classes empty, or constants for another number of channels.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.data.formats import arrays
      >>> rows = np.array([[0.5, 2.0], [1.5, 0.0], [0.0, 1.0]], np.float32)
      >>> dataset = arrays.build("mine", rows, np.array([0, 1, 0]), num_train=2)
      >>> dataset.num_classes, dataset.mean
      (2, (1.0, 1.0))
    """
    inputs, labels = _tidy(name, inputs, labels)
    num_classes = class_count(f"the labels of data set {name!r}", labels, num_classes or len(class_names))
    scale = scale or scale_of(inputs)
    is_unscaled = inputs.ndim == 2 and is_binary(inputs)
    is_pool_scaled = constants is None and not is_unscaled
    if constants is None:
        constants = ((), ()) if is_unscaled else statistics(inputs[:num_train], scale)
    elif constants[0] and len(constants[0]) != inputs.shape[-1]:
        raise errors.DataError(
            f"data set {name!r} has {len(constants[0])} channel(s), but the inputs have shape {inputs.shape}. "
            "Check the file, or read it with --config.data.name=npz."
        )
    return Dataset(
        inputs=inputs,
        labels=labels,
        ids=np.arange(len(labels), dtype=np.int64) if ids is None else np.asarray(ids, np.int64),
        names=None if names is None else np.asarray(names),
        groups=None if groups is None else np.asarray(groups, np.int32),
        name=name,
        num_train=int(num_train),
        num_classes=num_classes,
        class_names=tuple(str(name) for name in class_names),
        group_names=tuple(str(name) for name in group_names),
        scale=float(scale),
        mean=constants[0],
        std=constants[1],
        is_pool_scaled=is_pool_scaled,
        notes=tuple(notes),
    )


def _tidy(name: str, inputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inputs = tidy_inputs(f"the inputs of data set {name!r}", inputs)
    return inputs, tidy_labels(f"the labels of data set {name!r}", labels, len(inputs))


def class_count(name: str, labels: np.ndarray, num_classes: int = 0) -> int:
    """Returns the number of classes: `num_classes` if that is not 0, else the largest label + 1.

    Raises:
      DataError: a label that is not below `num_classes`; or most of the numbers up to the largest label are not the
        label of any row: then they are names, not class indices.
    """
    if num_classes:
        checks.labels(name, labels, num_classes)
        return num_classes
    count, values = int(labels.max()) + 1, np.unique(labels)
    if 2 * len(values) < count:
        listed = ", ".join(map(str, values[:4].tolist())) + (", ..." if len(values) > 4 else "")
        raise errors.DataError(
            f"{name} contain only {len(values)} different values ({listed}), but as class indices they mean {count:,} "
            f"classes, most of them without a row. {RENUMBER} If there really are {count:,} classes, give all their "
            "class_names."
        )
    return count


def build_cut(name: str, inputs: np.ndarray, labels: np.ndarray, held_out: float, **facts: Any) -> Dataset:
    """Builds a `Dataset` from rows of a source without test rows, which `cut` divides into the two pools.

    Args:
      name: the source's name.
      inputs: [N, ...] in source order.
      labels: [N] likewise.
      held_out: fraction of the rows that is held out.
      **facts: keywords of `build`. `ids`, `names` and `groups` are in source order and are reordered with the rows;
        without `ids` they are the row numbers of the source.
    """
    # Checked in the order of the source, so that messages name rows as the user counts them.
    inputs, labels = _tidy(name, inputs, labels)
    num_classes = facts.get("num_classes") or len(facts.get("class_names", ()))
    facts = facts | {"num_classes": class_count(f"the labels of data set {name!r}", labels, num_classes)}
    order, num_train = cut(name, len(inputs), held_out)
    facts = {"ids": np.arange(len(inputs))} | facts
    by_row = {key: np.asarray(facts[key])[order] for key in ("ids", "names", "groups") if facts.get(key) is not None}
    return build(name, inputs[order], labels[order], num_train, **facts | by_row)


def take(dataset: Dataset, rows: np.ndarray, num_train: int) -> Dataset:
    """Returns some rows of a data set.

    Args:
      dataset: the data set.
      rows: [n] positions, or an [N] mask, in pool order: rows of the train pool first.
      num_train: number of them in the train pool.
    """
    by_row = {
        field: None if getattr(dataset, field) is None else np.asarray(getattr(dataset, field))[rows]
        for field in ROW_FIELDS
    }
    return dataset.replace(**by_row, num_train=num_train)  # type: ignore[attr-defined]
