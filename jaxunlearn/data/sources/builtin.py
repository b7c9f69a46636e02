"""The two sources that need no download: the bundled digits, and a user's own `.npz`."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.data.formats import arrays, files
from jaxunlearn.records import Dataset
from jaxunlearn.settings import DataSettings

POOLS = ("x_train", "y_train", "x_test", "y_test")
WHOLE = ("x", "y")


def digits(settings: DataSettings) -> Dataset:
    """Loads scikit-learn's bundled digits: 1,797 real 8x8 pictures, [N, 8, 8, 1] uint8 in 0 .. 16, ten classes.

    The pools are cut by the fixed permutation of seed 42; ids are the row numbers in scikit-learn's order.
    """
    from sklearn import datasets

    raw = datasets.load_digits()
    return arrays.build_cut(
        "digits",
        raw.images.astype(np.uint8),
        raw.target,
        settings.held_out,
        class_names=[str(digit) for digit in range(10)],
        scale=16.0,
    )


def npz(settings: DataSettings) -> Dataset:
    """Loads a user's arrays: x_train, y_train, x_test, y_test, or x, y with `data.held_out` held out.

    Inputs are [N, F], [N, H, W] or [N, H, W, C]; class_names is optional. Rows are numbered from 0, held-out rows after
    the train rows. `ids` (or `ids_train` and `ids_test`), numbers or text of any kind, appear in the results. `fine`
    (or `fine_train` and `fine_test`) are fine classes under the classes y, whole numbers; `fine_names` are their names.

    Raises:
      DataError: no path, unreadable file, other arrays than these, or malformed ones.
    """
    if not settings.path:
        raise errors.DataError(
            "data set 'npz' needs a file: set --config.data.path to an .npz with x_train, y_train, x_test, y_test."
        )
    return from_npz(files.existing("npz", settings.path), "npz", settings.held_out)


def from_npz(path: pathlib.Path, name: str, held_out: float, **facts: Any) -> Dataset:
    """Builds a `Dataset` from an `.npz`; `facts` go to `arrays.build` (scale, constants, num_classes)."""
    return from_content(files.read_npz(path), path, name, held_out, **facts)


def from_content(
    content: Mapping[str, np.ndarray], path: pathlib.Path, name: str, held_out: float, **facts: Any
) -> Dataset:
    """Builds a `Dataset` from the arrays of an `.npz`.

    Args:
      content: name -> array.
      path: of their file, for messages.
      name: the source's name.
      held_out: fraction that is held out if there are no test rows.
      **facts: keywords of `arrays.build`.
    """
    if "class_names" in content:
        facts.setdefault("class_names", _class_names(path, content["class_names"]))
    if all(key in content for key in POOLS):
        inputs, labels = join(path, *(content[key] for key in POOLS))
        sizes = {"train": len(content["y_train"]), "test": len(content["y_test"])}
        return arrays.build(name, inputs, labels, sizes["train"], **_by_row(path, content, sizes), **facts)
    if all(key in content for key in WHOLE):
        x, y = content["x"], content["y"]
        if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
            raise errors.DataError(f"{path}: x has shape {x.shape}, y has shape {y.shape}; expected one label per row.")
        return arrays.build_cut(name, x, y, held_out, **_by_row(path, content, {"": len(y)}), **facts)
    raise errors.DataError(
        f"{path} contains the arrays {', '.join(sorted(content)) or '(none)'}; expected {', '.join(POOLS)}, "
        f"or {', '.join(WHOLE)}. Save it with numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)."
    )


def join(
    path: pathlib.Path | str, x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Joins train and held-out arrays to one array of inputs and one of labels, after checking that they fit.

    Args:
      path: source of the arrays, for messages.
      x_train: [n, ...] inputs of the train pool.
      y_train: [n] its labels.
      x_test: [m, ...] inputs of the held-out pool.
      y_test: [m] its labels.

    Returns:
      (inputs [n + m, ...], labels [n + m]).
    """
    for pool, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
            raise errors.DataError(
                f"{path}: x_{pool} has shape {x.shape}, y_{pool} has shape {y.shape}; expected one label per row."
            )
        if len(y) == 0:
            raise errors.DataError(f"{path}: x_{pool} has no rows; both pools need at least one.")
    if x_train.shape[1:] != x_test.shape[1:]:
        raise errors.DataError(
            f"{path}: rows of x_train have shape {x_train.shape[1:]}, rows of x_test {x_test.shape[1:]}; "
            "both pools must contain the same kind of row."
        )
    if (x_train.dtype.kind == "f") != (x_test.dtype.kind == "f"):
        raise errors.DataError(
            f"{path}: x_train is {x_train.dtype}, x_test is {x_test.dtype}; one of them is probably scaled to 0 .. 1 "
            "and the other is not. Save both in the same form."
        )
    tidy = [arrays.tidy_inputs(f"x_{pool} of {path}", x) for pool, x in (("train", x_train), ("test", x_test))]
    if tidy[0].dtype != tidy[1].dtype:
        tidy = [inputs.astype(np.float32) for inputs in tidy]
    labels = [
        arrays.tidy_labels(f"y_{pool} of {path}", y, len(y)) for pool, y in (("train", y_train), ("test", y_test))
    ]
    return np.concatenate(tidy), np.concatenate(labels)


def _by_row(path: pathlib.Path, content: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Returns `names` and `groups` with `group_names` of the rows, as far as the file has them.

    Args:
      path: of the file, for messages.
      content: arrays of the file.
      sizes: pool -> number of its rows; the pool "" is all of them.
    """
    fields: dict[str, Any] = {}
    ids = _pooled(path, content, "ids", sizes)
    if ids:
        fields["names"] = np.concatenate([checks.ids(array, size, f"{key} of {path}") for key, array, size in ids])
    fine = _pooled(path, content, "fine", sizes)
    if fine:
        tidy = [arrays.tidy_labels(f"{key} of {path}", array, size) for key, array, size in fine]
        fields["groups"] = np.concatenate(tidy)
        if "fine_names" in content:
            fields["group_names"] = _class_names(path, content["fine_names"], "fine_names")
    return fields


def _pooled(
    path: pathlib.Path, content: Mapping[str, np.ndarray], name: str, sizes: Mapping[str, int]
) -> list[tuple[str, np.ndarray, int]]:
    """Returns (array name, array, number of rows) of each pool; empty if the file does not hold them."""
    keys = {f"{name}_{pool}" if pool else name: size for pool, size in sizes.items()}
    if not any(key in content for key in keys):
        return []
    for key in keys:
        if key not in content:
            raise errors.DataError(
                f"{path} contains {name} of one pool, but no {key}: give {name}_train and {name}_test."
            )
    return [(key, content[key], size) for key, size in keys.items()]


def _class_names(path: pathlib.Path, values: np.ndarray, name: str = "class_names") -> Sequence[str]:
    if values.ndim != 1 or values.dtype.kind not in "US":
        raise errors.DataError(
            f"{path}: {name} has shape {values.shape} and dtype {values.dtype}; expected a list of names."
        )
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]
