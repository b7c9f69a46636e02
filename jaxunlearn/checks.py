"""Input validation: shapes by axis letters, finiteness, ranges, names.

`shape("MNC", logits=logits)` reads as documentation and raises a `ShapeError` that names the argument, its shape
and the letters. Axis letters: M models, N samples, C classes, S shadows, B batch, F features, K views, P population,
T steps.
All checks run on the host, on shapes or concrete arrays; none may be called inside `jit`.
"""

import contextlib
import importlib
import inspect
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxunlearn import errors


def shape(letters: str, sizes: Mapping[str, int] | None = None, **arrays: Any) -> dict[str, int]:
    """Binds axis letters to sizes and raises a ShapeError where arrays disagree.

    Args:
      letters: one pattern for all arrays ("MNC"), or several separated by spaces, one per array ("MNC N"). A `*` at
        the end of a pattern allows further axes.
      sizes: letters already bound, from an earlier call.
      **arrays: arrays (anything with a `shape`), by the name that the user knows.

    Returns:
      letter -> size for every letter bound.

    Raises:
      ShapeError: wrong number of axes, or one letter with two sizes; the message names argument and shapes.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import checks
      >>> checks.shape("MNC N", logits=np.zeros((3, 5, 2)), labels=np.zeros(5))
      {'M': 3, 'N': 5, 'C': 2}
    """
    patterns = letters.split()
    if len(patterns) == 1:
        patterns *= len(arrays)
    bindings = dict(sizes or {})
    owner = dict.fromkeys(bindings, "the caller")
    for pattern, (name, array) in zip(patterns, arrays.items(), strict=True):
        actual = tuple(np.shape(array))
        axes = pattern.rstrip("*")
        if len(actual) != len(axes) and not (pattern.endswith("*") and len(actual) >= len(axes)):
            raise errors.ShapeError(
                f"{name} has shape {actual}, expected {len(axes)} axes [{', '.join(axes)}]"
                f"{' or more' if pattern.endswith('*') else ''}."
            )
        for letter, size in zip(axes, actual, strict=False):
            if bindings.setdefault(letter, size) != size:
                raise errors.ShapeError(
                    f"{name} has shape {actual}: axis {letter} is {size}, but {owner[letter]} has {letter} = "
                    f"{bindings[letter]}. Both must describe the same {letter}."
                )
            owner.setdefault(letter, name)
    return bindings


def finite(name: str, array: Any, axes: str = "") -> None:
    """Raises a DataError with count and first indices where a float array holds NaN or infinity."""
    values = np.asarray(array)
    if not np.issubdtype(values.dtype, np.inexact) and values.dtype.name != "bfloat16":
        return
    # A sum is one pass without a temporary; only an invalid array pays for locating the entries.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.sum(values, dtype=np.float64)):
            return
    bad = np.argwhere(~np.isfinite(values.astype(np.float32)))
    if len(bad) == 0:
        return
    indices = ", ".join(str(tuple(int(i) for i in index)) for index in bad[:3])
    letters = f" (axes {', '.join(axes)})" if axes else ""
    raise errors.DataError(
        f"{name} contains {len(bad)} value(s) that are NaN or infinite, first at {indices}{letters}. "
        "Remove or repair those entries; they are never replaced silently."
    )


def not_nan(name: str, array: Any, axes: str = "") -> None:
    """Raises a DataError with count and first index where a float array holds NaN; infinite values are allowed."""
    values = np.asarray(array)
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isnan(np.sum(values, dtype=np.float64)):
            return
    bad = np.argwhere(np.isnan(values.astype(np.float32)))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        letters = f" (axes {', '.join(axes)})" if axes else ""
        raise errors.DataError(
            f"{name} contains {len(bad)} NaN(s), first at {index}{letters}. Leave out models that diverged."
        )


def labels(name: str, values: Any, num_classes: int) -> None:
    """Raises a DataError unless `values` are whole numbers in [0, num_classes)."""
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        raise errors.DataError(f"{name} has dtype {array.dtype}, expected whole numbers (class indices).")
    if array.size and (array.min() < 0 or array.max() >= num_classes):
        wrong = np.flatnonzero((array < 0) | (array >= num_classes))
        raise errors.DataError(
            f"{name} must lie in [0, {num_classes - 1}] for {num_classes} classes, but row {int(wrong[0])} is "
            f"{int(array[wrong[0]])} ({len(wrong)} row(s) out of range). Number the classes from 0."
        )


def ids(array: Any, count: int, name: str = "ids") -> np.ndarray:
    """Returns [count] sample ids, whole numbers or text; raises a DataError for anything else."""
    values = np.asarray(array)
    if values.shape != (count,) or values.dtype.kind not in "iuUS":
        raise errors.DataError(
            f"{name} has shape {values.shape} and dtype {values.dtype}; expected a whole number or text for each of "
            f"{count} samples."
        )
    return np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values


def in_range(name: str, value: float, low: float | None = None, high: float | None = None) -> None:
    """Raises a ConfigError unless low <= value <= high.

    Args:
      name: of the setting, for the message.
      value: NaN is always refused.
      low: inclusive lower bound; None = unbounded.
      high: inclusive upper bound; None = unbounded.
    """
    if (low is not None and value < low) or (high is not None and value > high) or value != value:
        if low is None and high is None:
            raise errors.ConfigError(f"{name} = {value}: must be a number.")
        ends = f"at least {low}" if high is None else f"at most {high}" if low is None else f"between {low} and {high}"
        raise errors.ConfigError(f"{name} = {value}: must be {ends}.")


def whole(name: str, value: Any, low: int = 0, high: int | None = None) -> int:
    """Returns a whole number as an int, from a number of Python, NumPy or JAX; 2.0 is one.

    Args:
      name: of the argument, for the message.
      value: what the user gave.
      low: smallest value allowed.
      high: largest value allowed; None = unbounded.

    Raises:
      ConfigError: no number, True or False, a fraction, or out of range.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import checks
      >>> checks.whole("batch", np.int64(8), low=1)
      8
    """
    number = value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
    if not is_number or not float(number).is_integer():
        raise errors.ConfigError(f"{name} = {value!r:.60}: expected a whole number.")
    in_range(name, int(number), low, high)
    return int(number)


def is_several(value: Any) -> bool:
    """Returns whether a user gave several values: a list, a tuple, a range, or an array [n].

    Example:
      >>> from jaxunlearn import checks
      >>> checks.is_several(range(3)), checks.is_several("abc")
      (True, False)
    """
    return isinstance(value, (list, tuple, range)) or getattr(value, "ndim", 0) == 1


def rows(name: str, values: Any, count: int) -> np.ndarray:
    """Returns sorted int32 row numbers, from row numbers or a mask.

    Args:
      name: of the argument, for the message.
      values: whole numbers within 0 .. count - 1, each once, or a mask [count] of bools, or of 0 and 1.
      count: N, the number of rows.

    Raises:
      DataError: numbers out of range or twice, fractions, 0 and 1 that could be either. ShapeError: a mask of another
        length, more than one axis, no array.

    Example:
      >>> from jaxunlearn import checks
      >>> checks.rows("forget", [True, False, True], 3), checks.rows("forget", [2, 0], 3)
      (array([0, 2], dtype=int32), array([0, 2], dtype=int32))
    """
    try:
        array = np.asarray(sorted(values) if isinstance(values, (set, frozenset)) else values)
    except (ValueError, TypeError) as error:
        raise errors.ShapeError(f"{name} must be row numbers [n] or a mask [N]: lists of unequal length.") from error
    if array.dtype == bool and array.shape != (count,):
        raise errors.ShapeError(f"{name}: a mask must be [N] with N = {count} rows, not {array.shape}.")
    if array.ndim != 1:
        raise errors.ShapeError(f"{name} must be row numbers [n] or a mask [N], not an array of shape {array.shape}.")
    is_numeric = array.dtype.kind in "biuf"
    is_mask = is_numeric and len(array) == count > 0 and bool(np.isin(array, (0, 1)).all())
    if is_mask and count <= 2 and array.dtype.kind in "iu" and len(np.unique(array)) == count and array.max() < count:
        raise errors.DataError(f"{name} = {array.tolist()} could be row numbers or a mask; give the mask as bools.")
    if is_mask:
        return np.flatnonzero(array).astype(np.int32)
    if len(array) and array.dtype.kind not in "iu":
        raise errors.DataError(f"{name} must be whole row numbers or a mask of bools, not {array.dtype}.")
    if len(array) and (array.min() < 0 or array.max() >= count):
        wrong = array.max() if array.min() >= 0 else array.min()
        raise errors.DataError(f"{name} contains row {wrong}; rows are 0 to {count - 1}.")
    if len(np.unique(array)) < len(array):
        repeated = np.sort(array)[:-1][np.diff(np.sort(array)) == 0][0]
        raise errors.DataError(f"{name} contains row {repeated} twice.")
    return np.sort(array).astype(np.int32)


def choice(kind: str, value: str, names: Iterable[str]) -> None:
    """Raises a ConfigError with the nearest known name unless `value` is among `names`."""
    names = list(names)
    if value not in names:
        raise errors.unknown(kind, value, names)


def lookup(kind: str, name: str, table: Mapping[str, Callable]) -> Callable:
    """Returns a table entry, or imports a user's own function given as `my_module:my_function`.

    Raises:
      ConfigError: no such entry (with the nearest one), no such module, one that fails while it is imported, or no such
        function in it.
    """
    if ":" not in name:
        if name not in table:
            raise errors.unknown(kind, name, table)
        return table[name]
    module_name, _, attribute = name.partition(":")
    if not all(name_part.isidentifier() for name_part in (*module_name.split("."), attribute)):
        raise errors.ConfigError(f"{kind} {name!r}: expected my_module:my_function, two Python names.")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise errors.ConfigError(
            f"{kind} {name!r}: cannot import module {module_name!r} ({error}). "
            "It must lie in the working directory or be installed."
        ) from error
    except (Exception, SystemExit) as error:  # any error that the user's file raises on import
        raise errors.ConfigError(
            f"{kind} {name!r}: module {module_name!r} fails while it is imported: {describe_error(error)}."
        ) from error
    if not callable(getattr(module, attribute, None)):
        raise errors.ConfigError(
            f"{kind} {name!r}: module {module_name!r} has no function {attribute!r}."
            f"{errors.nearest(attribute, vars(module))}"
        )
    return getattr(module, attribute)


@contextlib.contextmanager
def users_code(what: str, function: Any) -> Iterator[None]:
    """Turns any exception of a user's own function into a ConfigError that names it; `UserError`s pass through.

    Args:
      what: the function in words, e.g. "score my_module:my_score".
      function: the function itself; the message names the last line reached in its file. None for a built-in function,
        whose exceptions are bugs and pass through.
    """
    try:
        yield
    except errors.UserError:
        raise
    except (Exception, SystemExit) as error:
        if function is None:
            raise
        raise errors.ConfigError(f"{what} does not run: {describe_error(error, function)}.") from error


def describe_error(error: BaseException, function: Any = None) -> str:
    """Describes an error: type, first line and location: the last line reached in the function's file, else of all."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    file_name = (
        getattr(getattr(inspect.unwrap(function), "__code__", None), "co_filename", "") if callable(function) else ""
    )
    frame = next((entry for entry in reversed(frames) if entry.filename == file_name), frames[-1] if frames else None)
    if isinstance(error, SyntaxError) or frame is None:  # the message has file and line already
        return text
    return f"{text} ({frame.filename}, line {frame.lineno})"
