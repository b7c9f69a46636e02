"""Checks for the public borders: shapes by axis letters, finiteness, ranges, names.

`shape("MNC", logits=logits)` reads as documentation and raises a `ShapeError` that names the argument, its shape
and the letters. Axis letters: M models, N samples, C classes, S shadows, B batch, F features, K views, P population,
T steps.
All checks run on the host, on shapes or on concrete arrays; none belongs inside `jit`.
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
    """Binds axis letters to sizes and raises where arrays disagree.

    Args:
      letters: one pattern for all arrays ("MNC"), or several separated by spaces, one per array ("MNC N"). A `*` at
        the end of a pattern allows further axes.
      sizes: letters already bound, from an earlier call.
      **arrays: anything with a `shape`, by the name the user knows it by.

    Returns:
      letter -> size for every letter bound.

    Raises:
      ShapeError: wrong number of axes, or one letter with two sizes; the message names argument and shapes.
    """
    patterns = letters.split()
    if len(patterns) == 1:
        patterns *= len(arrays)
    bound = dict(sizes or {})
    owner = dict.fromkeys(bound, "the caller")
    for pattern, (name, array) in zip(patterns, arrays.items(), strict=True):
        actual = tuple(np.shape(array))
        axes = pattern.rstrip("*")
        if len(actual) != len(axes) and not (pattern.endswith("*") and len(actual) >= len(axes)):
            raise errors.ShapeError(
                f"{name} has shape {actual}, expected {len(axes)} axes [{', '.join(axes)}]"
                f"{' or more' if pattern.endswith('*') else ''}."
            )
        for letter, size in zip(axes, actual, strict=False):
            if bound.setdefault(letter, size) != size:
                raise errors.ShapeError(
                    f"{name} has shape {actual}: axis {letter} is {size}, but {owner[letter]} has {letter} = "
                    f"{bound[letter]}. Both must describe the same {letter}."
                )
            owner.setdefault(letter, name)
    return bound


def finite(name: str, array: Any, axes: str = "") -> None:
    """Raises a DataError with count and first indices where a float array holds NaN or infinity."""
    values = np.asarray(array)
    if not np.issubdtype(values.dtype, np.inexact) and values.dtype.name != "bfloat16":
        return
    # A sum is one pass without a temporary; only a bad array pays for the search of the places.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.sum(values, dtype=np.float64)):
            return
    bad = np.argwhere(~np.isfinite(values.astype(np.float32)))
    if len(bad) == 0:
        return
    places = ", ".join(str(tuple(int(i) for i in place)) for place in bad[:3])
    letters = f" (axes {', '.join(axes)})" if axes else ""
    raise errors.DataError(
        f"{name} holds {len(bad)} value(s) that are NaN or infinite, first at {places}{letters}. "
        "Remove or repair those entries; they are never replaced silently."
    )


def not_nan(name: str, array: Any, axes: str = "") -> None:
    """Raises a DataError with count and first place where a float array holds NaN; infinite values may stay."""
    values = np.asarray(array)
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isnan(np.sum(values, dtype=np.float64)):
            return
    bad = np.argwhere(np.isnan(values.astype(np.float32)))
    if len(bad):
        place = tuple(int(i) for i in bad[0])
        letters = f" (axes {', '.join(axes)})" if axes else ""
        raise errors.DataError(
            f"{name} holds {len(bad)} NaN(s), first at {place}{letters}. Leave out models that diverged."
        )


def float_type(name: str, array: Any) -> None:
    """Raises a DataError unless an array that a user brings holds numbers that NumPy knows."""
    dtype = np.asarray(array).dtype
    if dtype.kind not in "fiu":
        raise errors.DataError(
            f"{name} has dtype {dtype}, expected float16, float32 or float64. NumPy files do not keep bfloat16: "
            "convert to float32 before saving."
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
    """Returns [count] whole numbers or text that a user calls samples by; raises a DataError for anything else."""
    values = np.asarray(array)
    if values.shape != (count,) or values.dtype.kind not in "iuUS":
        raise errors.DataError(
            f"{name} has shape {values.shape} and dtype {values.dtype}; expected a whole number or text for each of "
            f"{count} samples."
        )
    return np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values


def in_range(name: str, value: float, low: float | None = None, high: float | None = None) -> None:
    """Raises a ConfigError unless low <= value <= high (either end may be open)."""
    if (low is not None and value < low) or (high is not None and value > high) or value != value:
        if low is None and high is None:
            raise errors.ConfigError(f"{name} = {value}: must be a number.")
        ends = f"at least {low}" if high is None else f"at most {high}" if low is None else f"between {low} and {high}"
        raise errors.ConfigError(f"{name} = {value}: must be {ends}.")


def choice(kind: str, value: str, known: Iterable[str]) -> None:
    """Raises a ConfigError with the nearest known name unless `value` is one of `known`."""
    known = list(known)
    if value not in known:
        raise errors.unknown(kind, value, known)


def lookup(kind: str, name: str, table: Mapping[str, Callable]) -> Callable:
    """Finds a table entry, or imports a user's own function given as `my_module:my_function`.

    Raises:
      ConfigError: no such entry (with the nearest one), no such module, one that fails while it is imported, or no such
        function in it.
    """
    if ":" not in name:
        if name not in table:
            raise errors.unknown(kind, name, table)
        return table[name]
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise errors.ConfigError(f"{kind} {name!r}: expected my_module:my_function, two names of Python.")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise errors.ConfigError(
            f"{kind} {name!r}: cannot import module {module_name!r} ({error}). "
            "It must lie in the working directory or be installed."
        ) from error
    except (Exception, SystemExit) as error:  # whatever the user's file does while it is read
        raise errors.ConfigError(
            f"{kind} {name!r}: module {module_name!r} fails while it is imported: {said(error)}."
        ) from error
    if not callable(getattr(module, attribute, None)):
        raise errors.ConfigError(
            f"{kind} {name!r}: module {module_name!r} has no function {attribute!r}."
            f"{errors.nearest(attribute, vars(module))}"
        )
    return getattr(module, attribute)


@contextlib.contextmanager
def users_code(what: str, function: Any) -> Iterator[None]:
    """Turns whatever a user's own function raises into a ConfigError that names it; our own errors pass.

    Args:
      what: the function in words, e.g. "score my_module:my_score".
      function: the function itself; the message names the last line of its file that was reached. None for a function
        of ours, whose exceptions are bugs and pass.
    """
    try:
        yield
    except errors.UserError:
        raise
    except (Exception, SystemExit) as error:
        if function is None:
            raise
        raise errors.ConfigError(f"{what} does not run: {said(error, function)}.") from error


def said(error: BaseException, function: Any = None) -> str:
    """Returns type, first line and place of an error: the last line reached of the function's file, else of all."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    own = getattr(getattr(inspect.unwrap(function), "__code__", None), "co_filename", "") if callable(function) else ""
    place = next((frame for frame in reversed(frames) if frame.filename == own), frames[-1] if frames else None)
    if isinstance(error, SyntaxError) or place is None:  # it names file and line by itself
        return text
    return f"{text} ({place.filename}, line {place.lineno})"


def printable(text: str) -> str:
    """Returns a name or message with control characters escaped: what a file holds must not steer the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)
