"""The ONE reader of user-given arrays: checks them against a table of fields and returns them by our names.

    names, ours or published -> kinds: labels, flags, ids, logits, probabilities, sigmoid outputs -> axes -> companions

Every analysis declares its arrays as `ArrayField`s, so that all analyses treat the same file alike.
"""

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import checks, errors

SMALLEST_PROBABILITY = np.float32(1e-37)  # replaces 0: negligible, with a finite logarithm
ROWS_INSPECTED = 1000
CLASSES = "CDEU"  # letters of class axes


class ArrayField(NamedTuple):
    """One array that an analysis accepts from a user.

    Attributes:
      axes: a letter per axis, "NC|MNC" = either; equal letters have equal sizes, "?" has any size. C, D, E and U are
        class axes.
      kind: "logits" (float, finite, not probabilities), "labels" (class indices), "targets" (class indices, or true
        values of a regression), "flags" (0 or 1), "ids" (anything), "fractions" (0 to 1), "numbers" (finite), "count"
        (one whole number), "posteriors" (probabilities over classes, not converted) or "ignored".
      required: whether the analysis needs it.
      needs: arrays that must be given together with it.
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
      arrays: name -> array, as stored in the file.
      fields: the accepted arrays by name; a name with * is a pattern, tried after the others.
      expected: a sentence for error messages: what the file should contain.
      probabilities: the logits fields contain probabilities; their logarithm is taken.

    Returns:
      our name -> array.

    Raises:
      DataError: unknown (with the nearest name), missing or contradictory arrays, wrong types, NaN, probabilities
        instead of logits or vice versa. ShapeError: arrays whose shapes do not agree.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import arrays
      >>> fields = {"logits": arrays.ArrayField("NC"), "labels": arrays.ArrayField("N", "labels", aliases={"y": "N"})}
      >>> logits = np.array([[2.5, -1.0], [0.5, 3.0]], np.float32)
      >>> checked = arrays.read({"logits": logits, "y": np.eye(2)}, fields, "Expected logits and labels.")
      >>> checked["labels"]
      array([0, 1], dtype=int32)
    """
    return check(_rename(arrays, fields, expected), fields, probabilities=probabilities)[0]


def check(
    by_name: Mapping[str, np.ndarray], fields: Mapping[str, ArrayField], *, probabilities: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, int]]:  # fmt: skip
    """Checks arrays that already have our names.

    Returns:
      The arrays as in `read`, and the sizes by axis letter.

    Raises:
      DataError, ShapeError: as `read`.
    """
    axes: dict[str, str] = {}
    values: dict[str, Any] = {}
    order = list(fields)  # of the table, not of the file: error messages do not depend on the file's order
    for name, array in sorted(by_name.items(), key=lambda item: order.index(_key(item[0], fields))):
        _require_models(name, array, field_of(name, fields), {axes[other]: np.shape(values[other]) for other in values})
        values[name], axes[name] = _convert(name, array, field_of(name, fields), probabilities)
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
            # Other models may have fewer classes than the first.
            class_counts = [sizes[axes[other][-1]] for other in values
                      if set(axes[name]) < set(axes[other]) and axes[other][-1] in CLASSES]  # fmt: skip
            for model, model_labels in enumerate(np.atleast_2d(array)):
                where = f"{name}[{model}]" if array.ndim > 1 else name
                checks.labels(where, model_labels, min(class_counts, default=sizes["C"]))
        if kind == "posteriors":
            _check_posteriors(name, array, axes[name])
        if kind == "fractions" or (kind == "numbers" and field_of(name, fields).finite):
            checks.finite(name, array, axes[name])
        if kind == "fractions" and (np.min(array) < 0 or np.max(array) > 1 + 1e-6):
            raise errors.DataError(
                f"{name} contains values from {np.min(array):.4g} to {np.max(array):.4g}, expected fractions from 0 to "
                "1." + (" Divide per cent by 100." if 1 < np.max(array) <= 100 and np.min(array) >= 0 else "")
            )
        if kind == "logits" and axes[name][-1] in CLASSES:
            _check_logits(name, array, axes[name], field_of(name, fields), probabilities)
            if probabilities:
                values[name] = np.log(np.maximum(np.asarray(array, np.float32), SMALLEST_PROBABILITY))
    return values, sizes


def field_of(name: str, fields: Mapping[str, ArrayField]) -> ArrayField:
    """Returns the field of one of our names, patterns included."""
    return fields[_key(name, fields)]


def _key(name: str, fields: Mapping[str, ArrayField]) -> str:
    return name if name in fields else _pattern(name, fields)


def class_labels(name: str, array: np.ndarray, axes: int = 1) -> np.ndarray:
    """Converts class labels to int32 indices.

    Args:
      name: of the array, for messages.
      array: whole numbers of any type, optionally with a last axis of size 1, or one-hot.
      axes: number of axes of the result.

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
        raise errors.DataError(f"{name} contains {int(values.max())}: class indices are small numbers from 0.")
    return values.astype(np.int32)


def _is_one_hot(values: np.ndarray) -> bool:
    return bool((((values == 0) | (values == 1)).all(-1) & (values.sum(-1) == 1)).all())


def looks_like_probabilities(values: np.ndarray, total: float = 1.0) -> bool:
    """Returns whether rows are non-negative and sum to `total` up to rounding to two decimals; checks 1,000 rows."""
    rows = np.asarray(values).reshape(-1, values.shape[-1])[:ROWS_INSPECTED].astype(np.float32) / np.float32(total)
    tolerance = min(max(1e-2, 5.1e-3 * rows.shape[-1]), 0.5)  # of sums of many classes
    return bool(rows.min() >= 0 and rows.max() <= 1 + tolerance and np.abs(rows.sum(-1) - 1).max() < tolerance)


# ---------------------------------------------------------------------------------------------------------------------
# names


def _rename(
    arrays: Mapping[str, np.ndarray], fields: Mapping[str, ArrayField], expected: str
) -> dict[str, np.ndarray]:  # fmt: skip
    published = {alias: (name, axes) for name, field in fields.items() for alias, axes in field.aliases.items()}
    by_name: dict[str, np.ndarray] = {}
    unknown = []
    for stored_name, array in arrays.items():
        name, order = published.get(stored_name, (stored_name, ""))
        pattern = name if name in fields else _pattern(name, fields, np.ndim(array))
        if not pattern:
            unknown.append(stored_name)
            continue
        if fields[pattern].kind == "ignored":
            continue
        if name in by_name:
            raise errors.DataError(f"{name!r} is given twice, also under its published name; remove one.")
        by_name[name] = _reorder(array, order, fields[pattern].axes) if order else array
    for name, field in fields.items():
        if field.required and name not in by_name:
            raise errors.DataError(f"there is no array {name!r}.{errors.nearest(name, unknown)} {expected}")
    if unknown:
        plain_names = [*(name for name in fields if "*" not in name), *published]
        raise errors.DataError(
            f"the array {unknown[0]!r} of shape {np.shape(arrays[unknown[0]])} is not known here."
            f"{errors.nearest(unknown[0], plain_names)} Rename it, or leave it out. {expected}"
        )
    return by_name


def _pattern(name: str, fields: Mapping[str, ArrayField], axes: int | None = None) -> str:
    """Returns the pattern that matches a name and number of axes; "" if none does."""
    for pattern, field in fields.items():
        if "*" not in pattern or not fnmatch.fnmatchcase(name, pattern):
            continue
        axis_counts = {len(letters) for letters in field.axes.split("|")}
        if (
            axes is None
            or field.kind == "ignored"
            or axes in axis_counts
            or (field.kind != "logits" and pattern != "*")
        ):
            return pattern
    return ""


def _reorder(array: np.ndarray, order: str, axes: str) -> np.ndarray:
    """Transposes an array from the published order of axes to ours."""
    if np.ndim(array) != len(order) or sorted(order) != sorted(axes):
        return array
    return np.transpose(array, [order.index(letter) for letter in axes])


# ---------------------------------------------------------------------------------------------------------------------
# kinds


def _convert(name: str, array: np.ndarray, field: ArrayField, probabilities: bool) -> tuple[Any, str]:
    """Returns the array converted to the field's kind, and its axes."""
    layouts = field.axes.split("|")
    if field.kind == "count":
        if np.ndim(array) or np.asarray(array).dtype.kind not in "iu":
            raise errors.DataError(f"{name} must be one whole number, not an array of shape {np.shape(array)}.")
        return np.asarray(array), ""
    if field.kind == "labels":
        return class_labels(name, array, len(layouts[0])), layouts[0]
    if field.kind == "targets":
        return _targets(array), layouts[0]
    if field.kind == "flags":
        return _flags(name, array, len(layouts[0])), layouts[0]
    if field.kind == "ids":
        return checks.ids(array, np.shape(array)[0] if np.ndim(array) else 0, name), layouts[0]
    dtype = np.asarray(array).dtype
    is_float = dtype.kind == "f" or dtype.name == "bfloat16"
    if not is_float and (field.kind in ("logits", "posteriors") or dtype.kind not in "iu"):
        raise errors.DataError(
            f"{name} has dtype {dtype}, expected float16, float32 or float64"
            + (": outputs of a network." if field.kind in ("logits", "posteriors") else ".")
            + " NumPy files do not keep bfloat16: convert to float32 before saving." * (dtype.kind == "V")
        )
    if field.kind in ("logits", "posteriors"):
        array = _widen(array, layouts, probabilities or field.kind == "posteriors")
    matches = [axes for axes in layouts if len(axes) == np.ndim(array)]
    return array, (matches or layouts)[0]


def _require_models(name: str, array: np.ndarray, field: ArrayField, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuses outputs [N, C] of one model where those of several belong: they would be read as [S, N] of two classes.

    Args:
      name: of the array.
      array: as given.
      field: of the array.
      shapes: of the arrays that were read before, by axes.
    """
    axes, shape = field.axes, np.shape(array)
    if len(axes) == 3 and field.kind == "logits" and shape == shapes.get(axes[1:]) and shape[0] != shape[1]:
        raise errors.ShapeError(
            f"{name} has shape {shape}, which is one model's; it must be [{', '.join(axes)}]. For one model give "
            f"{name}[None]."
        )


def _targets(array: np.ndarray) -> np.ndarray:
    """Converts [n, 1] and one-hot targets to [n]; returns anything else unchanged."""
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
        raise errors.DataError(f"{name} must contain only 0 and 1 (or booleans), e.g. 1 = forgotten. "
                               "Row numbers become such a mask by np.isin(np.arange(n), rows).")  # fmt: skip
    return values.astype(bool)


def _widen(array: np.ndarray, layouts: Iterable[str], probabilities: bool) -> np.ndarray:
    """Converts outputs of a binary model, [n] or [n, 1], to two classes; returns anything else unchanged."""
    by_ndim = {len(axes): axes for axes in layouts}
    axes = by_ndim.get(np.ndim(array), "")
    has_classes = bool(axes) and axes[-1] in CLASSES
    if has_classes and np.shape(array)[-1] == 1:
        return two_classes(np.asarray(array)[..., 0], probabilities)
    if not has_classes and np.ndim(array) + 1 in by_ndim and (not axes or probabilities):
        return two_classes(np.asarray(array), probabilities)
    return array


def two_classes(positive: np.ndarray, probabilities: bool) -> np.ndarray:
    """Returns two-class outputs [..., 2] from those of class 1: logits [0, z], or probabilities [1 - p, p].

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import arrays
      >>> arrays.two_classes(np.array([0.25, 1.0]), probabilities=True)
      array([[0.75, 0.25],
             [0.  , 1.  ]])
    """
    return np.stack([1 - positive if probabilities else np.zeros_like(positive), positive], -1)


def _check_logits(name: str, array: np.ndarray, axes: str, field: ArrayField, probabilities: bool) -> None:
    if array.shape[-1] < 2:
        raise errors.ShapeError(f"{name} has {array.shape[-1]} class; a classifier has at least 2.")
    models = array if array.ndim > 2 else array[None]
    axes = "".join(letter if letter.isascii() else "?" for letter in axes)
    for model, values in enumerate(models):  # one after another: memory maps may be larger than memory
        where = f"{name}[{model}]" if array.ndim > 2 else name
        (checks.finite if field.finite else checks.not_nan)(where, values, axes[-values.ndim :])
    is_softmax = looks_like_probabilities(models[0])
    if looks_like_probabilities(models[0], total=100):
        raise errors.DataError(f"{name} looks like percentages (no value below 0, rows sum to 100): save the network's "
                               "outputs before the softmax, or divide by 100.")  # fmt: skip
    is_sigmoid = array.shape[-1] == 2 and not probabilities and _is_widened_sigmoid(models[0])
    if probabilities and not is_softmax:
        rows = np.asarray(models[0], np.float32).reshape(-1, array.shape[-1])
        sums = rows.sum(-1)
        worst = int(np.abs(sums - 1).argmax())
        raise errors.DataError(
            f"{name} are not probabilities: values from {rows.min():.4g} to {rows.max():.4g}, and row {worst} sums "
            f"to {sums[worst]:.4g} instead of 1. Give softmax outputs, or drop --probabilities if these are logits."
        )
    if not probabilities and (is_softmax or is_sigmoid):
        raise errors.DataError(
            f"{name} looks like probabilities ("
            f"{'all between 0 and 1' if is_sigmoid else 'no value below 0, rows sum to 1'}), not logits. "
            "Pass --probabilities to use them as log-probabilities; better, save the network's outputs "
            "before the softmax: a softmax in float32 loses the precision that distinguishes members."
        )


def _check_posteriors(name: str, array: np.ndarray, axes: str) -> None:
    if array.shape[-1] < 2:
        raise errors.ShapeError(f"{name} has {array.shape[-1]} class; a classifier has at least 2.")
    checks.finite(name, array, axes)
    rows = np.asarray(array, np.float64).reshape(-1, array.shape[-1])
    deviation = np.abs(rows.sum(-1) - 1)
    if rows.min() < 0 or deviation.max() > max(1e-2, 5e-4 * rows.shape[-1]):  # three decimals
        worst = int(deviation.argmax() if rows.min() >= 0 else rows.min(-1).argmin())
        raise errors.DataError(
            f"{name} contains no probabilities: values from {rows.min():.4g} to {rows.max():.4g}, and row {worst} sums "
            f"to {rows[worst].sum():.4g}. Give softmax outputs (of logits: scipy.special.softmax(logits, -1))."
        )


def _is_widened_sigmoid(values: np.ndarray) -> bool:
    """Returns whether two-class outputs [0, p] of a binary model all lie between 0 and 1."""
    rows = np.asarray(values).reshape(-1, 2)[:ROWS_INSPECTED]
    return bool((rows[:, 0] == 0).all() and rows[:, 1].min() >= 0 and rows[:, 1].max() <= 1)
