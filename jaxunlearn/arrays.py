"""The ONE reader of arrays that a user brings: field table in, checked arrays by our names out.

    names, ours or published -> kinds: labels, flags, ids, logits, probabilities, sigmoid outputs -> axes -> companions

Every analysis declares its arrays as `ArrayField`s, so that the same file gets the same answer wherever it is given.
"""

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import checks, errors

SMALLEST_PROBABILITY = np.float32(1e-37)  # what is 0 stays negligible, and its logarithm finite
ROWS_LOOKED_AT = 1000
CLASSES = "CDEU"  # letters of axes of classes


class ArrayField(NamedTuple):
    """One array that an analysis takes from a user.

    Attributes:
      axes: a letter per axis, "NC|MNC" = either; equal letters are equal sizes, "?" is of any size. C, D, E and U are
        axes of classes.
      kind: "logits" (float, finite, not probabilities), "labels" (class indices), "targets" (class indices, or true
        values of a regression), "flags" (0 or 1), "ids" (anything),
        "fractions" (0 to 1), "numbers" (finite), "count" (one whole number), "posteriors" (probabilities over classes,
        kept as they are) or "ignored".
      required: whether there is nothing to do without it.
      needs: arrays without which this one means nothing.
      aliases: published name -> its axes in the published order.
      finite: whether infinite values are refused (logits), and NaN as well (numbers).
    """

    axes: str
    kind: str = "logits"
    required: bool = False
    needs: tuple[str, ...] = ()
    aliases: Mapping[str, str] = {}
    finite: bool = True


def read(
    arrays: Mapping[str, np.ndarray], fields: Mapping[str, ArrayField], expected: str, *, probabilities: bool = False
) -> dict[str, np.ndarray]:
    """Checks arrays against a field table.

    Class labels may be whole numbers of any type, [n, 1], or one-hot; they come back as int32. Flags come back as
    bool. Outputs of binary models may be [n] or [n, 1] (sigmoid outputs under `probabilities`, else logits); they
    become two classes. Everything else keeps its type, and may be a memory map.

    Args:
      arrays: name -> array, as they stand in the file.
      fields: what is known; a name with * is a pattern, tried after the others.
      expected: a sentence: what the file should hold.
      probabilities: the logits fields hold probabilities, of which the logarithm is taken.

    Returns:
      our name -> array.

    Raises:
      DataError: unknown (with the nearest name), missing or contradictory arrays, wrong types, NaN, probabilities in
        the place of logits or the other way round. ShapeError: arrays that do not fit together.
    """
    return check(_named(arrays, fields, expected), fields, probabilities=probabilities)[0]


def check(
    named: Mapping[str, np.ndarray], fields: Mapping[str, ArrayField], *, probabilities: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, int]]:  # fmt: skip
    """Checks arrays that have our names already; returns them as `read` does, and the sizes by axis letter.

    Raises:
      DataError, ShapeError: as `read`.
    """
    axes: dict[str, str] = {}
    values: dict[str, Any] = {}
    order = list(fields)  # of the table, not of the file: the same arrays get the same message
    for name, array in sorted(named.items(), key=lambda item: order.index(_key(item[0], fields))):
        values[name], axes[name] = _converted(name, array, field_of(name, fields), probabilities)
        axes[name] = axes[name].replace("?", chr(ord("\u03b1") + len(axes) % 24 + 24 * (len(axes) // 24)))
    sizes = checks.shape(" ".join(axes[name] for name in values if axes[name]),
                         **{name: value for name, value in values.items() if axes[name]})  # fmt: skip
    for letter, size in sizes.items():
        if size == 0:
            owner = next(name for name in values if letter in axes[name])
            raise errors.ShapeError(f"{owner} is empty: it has shape {np.shape(values[owner])}.")
    for name, array in values.items():
        for companion in field_of(name, fields).needs:
            if companion not in values:
                raise errors.DataError(f"{name!r} is given without {companion!r}; both are needed together.")
        kind = field_of(name, fields).kind
        if kind == "labels" and "C" in sizes:
            # Models beside the first may know fewer classes.
            beside = [sizes[axes[other][-1]] for other in values
                      if set(axes[name]) < set(axes[other]) and axes[other][-1] in CLASSES]  # fmt: skip
            for model, line in enumerate(np.atleast_2d(array)):
                where = f"{name}[{model}]" if array.ndim > 1 else name
                checks.labels(where, line, min(beside, default=sizes["C"]))
        if kind == "posteriors":
            _check_posteriors(name, array, axes[name])
        if kind == "fractions" or (kind == "numbers" and field_of(name, fields).finite):
            checks.finite(name, array, axes[name])
        if kind == "fractions" and (np.min(array) < 0 or np.max(array) > 1 + 1e-6):
            raise errors.DataError(
                f"{name} holds values from {np.min(array):.4g} to {np.max(array):.4g}, expected fractions from 0 to 1."
                + (" Divide per cent by 100." if 1 < np.max(array) <= 100 and np.min(array) >= 0 else "")
            )
        if kind == "logits" and axes[name][-1] in CLASSES:
            _check_logits(name, array, axes[name], field_of(name, fields), probabilities)
            if probabilities:
                values[name] = np.log(np.maximum(np.asarray(array, np.float32), SMALLEST_PROBABILITY))
    return values, sizes


def field_of(name: str, fields: Mapping[str, ArrayField]) -> ArrayField:
    """The field of one of our names, patterns included."""
    return fields[_key(name, fields)]


def _key(name: str, fields: Mapping[str, ArrayField]) -> str:
    return name if name in fields else _pattern(name, fields)


def class_labels(name: str, array: np.ndarray, axes: int = 1) -> np.ndarray:
    """Class indices as int32: whole numbers of any type, with a last axis of 1, or one-hot.

    Raises:
      DataError: anything else.
    """
    values = np.asarray(array)
    if values.ndim == axes + 1 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == axes + 1 and values.dtype.kind in "biuf" and _is_one_hot(values):
        values = values.argmax(-1)
    is_whole = values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.floor(values)).all()
    if values.dtype.kind not in "iub" and not is_whole:
        raise errors.DataError(
            f"{name} has dtype {values.dtype}, expected whole numbers: the index of each sample's class, from 0."
        )
    if values.size and (values.min() < np.iinfo(np.int32).min or values.max() > np.iinfo(np.int32).max):
        raise errors.DataError(f"{name} holds {int(values.max())}: class indices are small numbers from 0.")
    return values.astype(np.int32)


def _is_one_hot(values: np.ndarray) -> bool:
    return bool((((values == 0) | (values == 1)).all(-1) & (values.sum(-1) == 1)).all())


def looks_like_probabilities(values: np.ndarray) -> bool:
    """Whether rows are non-negative and sum to 1 up to the rounding of low-precision types; judged on 1,000 rows."""
    rows = np.asarray(values).reshape(-1, values.shape[-1])[:ROWS_LOOKED_AT].astype(np.float32)
    slack = max(1e-2, 5e-4 * rows.shape[-1])  # three decimals
    return bool(rows.min() >= 0 and rows.max() <= 1 + slack and np.abs(rows.sum(-1) - 1).max() < slack)


# ---------------------------------------------------------------------------------------------------------------------
# names


def _named(
    arrays: Mapping[str, np.ndarray], fields: Mapping[str, ArrayField], expected: str
) -> dict[str, np.ndarray]:  # fmt: skip
    published = {alias: (name, axes) for name, field in fields.items() for alias, axes in field.aliases.items()}
    named: dict[str, np.ndarray] = {}
    unknown = []
    for given, array in arrays.items():
        name, order = published.get(given, (given, ""))
        pattern = name if name in fields else _pattern(name, fields, np.ndim(array))
        if not pattern:
            unknown.append(given)
            continue
        if fields[pattern].kind == "ignored":
            continue
        if name in named:
            raise errors.DataError(f"{name!r} is given twice, also under its published name; remove one.")
        named[name] = _reordered(array, order, fields[pattern].axes) if order else array
    for name, field in fields.items():
        if field.required and name not in named:
            raise errors.DataError(f"there is no array {name!r}.{errors.nearest(name, unknown)} {expected}")
    if unknown:
        plain_names = [*(name for name in fields if "*" not in name), *published]
        raise errors.DataError(
            f"the array {unknown[0]!r} of shape {np.shape(arrays[unknown[0]])} is not known here."
            f"{errors.nearest(unknown[0], plain_names)} Rename it, or leave it out. {expected}"
        )
    return named


def _pattern(name: str, fields: Mapping[str, ArrayField], axes: int | None = None) -> str:
    """The pattern that a name matches, of a fitting number of axes; "" where none does."""
    for pattern, field in fields.items():
        if "*" not in pattern or not fnmatch.fnmatchcase(name, pattern):
            continue
        numbers = {len(one) for one in field.axes.split("|")}
        if axes is None or field.kind == "ignored" or axes in numbers or (field.kind != "logits" and pattern != "*"):
            return pattern
    return ""


def _reordered(array: np.ndarray, order: str, axes: str) -> np.ndarray:
    """An array of published axes in our order."""
    if np.ndim(array) != len(order) or sorted(order) != sorted(axes):
        return array
    return np.transpose(array, [order.index(letter) for letter in axes])


# ---------------------------------------------------------------------------------------------------------------------
# kinds


def _converted(name: str, array: np.ndarray, field: ArrayField, probabilities: bool) -> tuple[Any, str]:
    """(array of the field's kind, its axes)."""
    choices = field.axes.split("|")
    if field.kind == "count":
        if np.ndim(array) or np.asarray(array).dtype.kind not in "iu":
            raise errors.DataError(f"{name} must be one whole number, not an array of shape {np.shape(array)}.")
        return np.asarray(array), ""
    if field.kind == "labels":
        return class_labels(name, array, len(choices[0])), choices[0]
    if field.kind == "targets":
        return _targets(array), choices[0]
    if field.kind == "flags":
        return _flags(name, array, len(choices[0])), choices[0]
    if field.kind == "ids":
        return checks.ids(array, np.shape(array)[0] if np.ndim(array) else 0, name), choices[0]
    dtype = np.asarray(array).dtype
    is_float = dtype.kind == "f" or dtype.name == "bfloat16"
    if not is_float and (field.kind in ("logits", "posteriors") or dtype.kind not in "iu"):
        raise errors.DataError(
            f"{name} has dtype {dtype}, expected float16, float32 or float64"
            + (": outputs of a network." if field.kind in ("logits", "posteriors") else ".")
            + " NumPy files do not keep bfloat16: convert to float32 before saving."
        )
    if field.kind in ("logits", "posteriors"):
        array = _widened(array, choices, probabilities or field.kind == "posteriors")
    fitting = [axes for axes in choices if len(axes) == np.ndim(array)]
    return array, (fitting or choices)[0]


def _targets(array: np.ndarray) -> np.ndarray:
    """Class indices or true values: [n, 1] and one-hot as [n], everything else as it is."""
    values = np.asarray(array)
    if values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    is_one_hot = values.ndim == 2 and values.dtype.kind in "biuf" and _is_one_hot(values)
    return values.argmax(-1) if is_one_hot else values


def _flags(name: str, array: np.ndarray, axes: int) -> np.ndarray:
    values = np.asarray(array)
    if values.ndim == axes + 1 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.dtype == bool:
        return values  # not copied: it may be a memory map
    if values.dtype.kind not in "biuf" or not ((values == 0) | (values == 1)).all():
        raise errors.DataError(f"{name} must hold only 0 and 1 (or booleans), e.g. 1 = forgotten.")
    return values.astype(bool)


def _widened(array: np.ndarray, choices: Iterable[str], probabilities: bool) -> np.ndarray:
    """Outputs of a binary model, [n] or [n, 1], as two classes; anything else as it is."""
    by_number = {len(axes): axes for axes in choices}
    axes = by_number.get(np.ndim(array), "")
    has_classes = bool(axes) and axes[-1] in CLASSES
    if has_classes and np.shape(array)[-1] == 1:
        return two_classes(np.asarray(array)[..., 0], probabilities)
    if not has_classes and np.ndim(array) + 1 in by_number and (not axes or probabilities):
        return two_classes(np.asarray(array), probabilities)
    return array


def two_classes(one: np.ndarray, probabilities: bool) -> np.ndarray:
    """[..., 2] outputs from those of class 1: logits [0, z], or probabilities [1 - p, p]."""
    return np.stack([1 - one if probabilities else np.zeros_like(one), one], -1)


def _check_logits(name: str, array: np.ndarray, axes: str, field: ArrayField, probabilities: bool) -> None:
    if array.shape[-1] < 2:
        raise errors.ShapeError(f"{name} has {array.shape[-1]} class; a classifier has at least 2.")
    models = array if array.ndim > 2 else array[None]
    axes = "".join(letter if letter.isascii() else "?" for letter in axes)
    for model, values in enumerate(models):  # one after another: memory maps may be larger than memory
        where = f"{name}[{model}]" if array.ndim > 2 else name
        (checks.finite if field.finite else checks.not_nan)(where, values, axes[-values.ndim :])
    shaped = looks_like_probabilities(models[0])
    binary = array.shape[-1] == 2 and not probabilities and _is_widened_sigmoid(models[0])
    if probabilities and not shaped:
        rows = np.asarray(models[0], np.float32).reshape(-1, array.shape[-1])
        sums = rows.sum(-1)
        worst = int(np.abs(sums - 1).argmax())
        raise errors.DataError(
            f"{name} are no probabilities: values from {rows.min():.4g} to {rows.max():.4g}, and row {worst} sums to "
            f"{sums[worst]:.4g} instead of 1. Give softmax outputs, or drop --probabilities if these are logits."
        )
    if not probabilities and (shaped or binary):
        raise errors.DataError(
            f"{name} looks like probabilities ({'all between 0 and 1' if binary else 'no value below 0, rows sum to 1'}"
            "), not logits. Pass --probabilities to use them as log-probabilities; better, save the network's outputs "
            "before the softmax: a softmax in float32 has lost what tells members apart."
        )


def _check_posteriors(name: str, array: np.ndarray, axes: str) -> None:
    if array.shape[-1] < 2:
        raise errors.ShapeError(f"{name} has {array.shape[-1]} class; a classifier has at least 2.")
    checks.finite(name, array, axes)
    rows = np.asarray(array, np.float64).reshape(-1, array.shape[-1])
    off = np.abs(rows.sum(-1) - 1)
    if rows.min() < 0 or off.max() > max(1e-2, 5e-4 * rows.shape[-1]):  # three decimals
        worst = int(off.argmax() if rows.min() >= 0 else rows.min(-1).argmin())
        raise errors.DataError(
            f"{name} holds no probabilities: values from {rows.min():.4g} to {rows.max():.4g}, and row {worst} sums to "
            f"{rows[worst].sum():.4g}. Give softmax outputs (of logits: scipy.special.softmax(logits, -1))."
        )


def _is_widened_sigmoid(values: np.ndarray) -> bool:
    """Whether outputs [0, p] of a widened binary model all lie between 0 and 1."""
    rows = np.asarray(values).reshape(-1, 2)[:ROWS_LOOKED_AT]
    return bool((rows[:, 0] == 0).all() and rows[:, 1].min() >= 0 and rows[:, 1].max() <= 1)
