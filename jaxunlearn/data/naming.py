"""Names of rows and classes: by their number in the user's own file, never by an internal index or label.

    positions (rows of a `Dataset`)  -> named, shown        everything a user reads
    numbers or names of a user       -> positions_of_rows, positions_of_names
    label (output of a network)      -> class_value, class_name, class_shown
    class number of a user           -> label_of

A position is an index into the arrays of a `Dataset`. Where a source is cut at random, position 0 is some row of the
file. Labels are renumbered where classes are excluded.
"""

from typing import Any

import numpy as np

from jaxunlearn import errors
from jaxunlearn.records import Dataset


def result_names(dataset: Dataset, positions: Any = slice(None)) -> dict[str, np.ndarray]:
    """Returns the arrays that name rows in every file of results.

    Args:
      dataset: the data set.
      positions: [n] rows of the data set; by default all.

    Returns:
      `rows` [n], their numbers in the user's file, and, where the file has names for them, `ids` [n].

    Example:
      >>> from jaxunlearn import data, settings
      >>> from jaxunlearn.data import naming
      >>> digits = data.load(settings.DataSettings(name="digits"))
      >>> naming.result_names(digits, [0, 1])["rows"]
      array([ 879, 1100])
    """
    names = {"rows": np.asarray(dataset.ids)[positions]}
    return names if dataset.names is None else names | {"ids": np.asarray(dataset.names)[positions]}


def display_names(dataset: Dataset, positions: Any) -> np.ndarray:
    """Returns names of rows for tables and messages, [n] text: `17`, or `17 (cat/0017.png)` if the file has names."""
    names = result_names(dataset, positions)
    if dataset.names is None:
        return names["rows"].astype(str)
    pairs = zip(names["rows"].tolist(), names["ids"].astype(str).tolist(), strict=True)
    return np.array([f"{number} ({errors.printable(name)})" for number, name in pairs], dtype=np.str_)


def positions_of_rows(what: str, dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """Finds rows of the user's file in the data set.

    Args:
      what: the list that holds them, for messages.
      dataset: the data set.
      rows: [n] whole numbers.

    Returns:
      [n] int64 positions.

    Raises:
      DataError: a number that no row has, or that several rows have.
    """
    return _positions(what, "row", np.asarray(dataset.ids), rows)


def positions_of_names(what: str, dataset: Dataset, names: np.ndarray) -> np.ndarray:
    """Finds rows by their names [n] in the user's file: as `positions_of_rows`, for `Dataset.names`.

    Raises:
      DataError: the data set has no names, or a name that no row or several rows have.
    """
    if dataset.names is None:
        raise errors.DataError(
            f"{what} lists ids, but data set {dataset.name!r} has none. List row numbers, or give its .npz an array "
            "`ids` (`ids_train` and `ids_test` where it has two pools)."
        )
    return _positions(what, "id", np.asarray(dataset.names).astype(str), names)


def class_value(dataset: Dataset, label: int) -> int:
    """Returns the user's own number of a class."""
    return dataset.class_values[label] if dataset.class_values else int(label)


def class_name(dataset: Dataset, label: int) -> str:
    """Returns the user's name of a class, else `class 3` by the user's own number."""
    return dataset.class_names[label] if dataset.class_names else f"class {class_value(dataset, label)}"


def class_display(dataset: Dataset, label: int) -> str:
    """Returns number and name of a class for messages: `4 ('deer')`, or `4` if it has no other name."""
    value = class_value(dataset, label)
    name = dataset.class_names[label] if dataset.class_names else str(value)
    return str(value) if name == str(value) else f"{value} ({errors.printable(name)!r})"


def label_of(what: str, dataset: Dataset, value: int) -> int:
    """Finds the label of a class by the user's own number.

    Raises:
      ConfigError: no such class, or one whose rows are excluded.
    """
    values = dataset.class_values or tuple(range(dataset.num_classes))
    if value in values:
        return values.index(value)
    ood = dataset.ood
    if ood is not None and value in ood.class_values:
        raise errors.ConfigError(
            f"{what} contains class {class_display(ood, ood.class_values.index(value))}, whose rows are excluded by "
            "data.ood_classes: no model sees them, so none can forget them. Take it out of one of the two."
        )
    spans = f"0 to {values[-1]}" if values == tuple(range(len(values))) else ", ".join(map(str, values))
    raise errors.ConfigError(f"{what} contains {value}; {dataset.name!r} has the classes {spans}.")


def _positions(what: str, kind: str, identifiers: np.ndarray, requested: np.ndarray) -> np.ndarray:
    order = np.argsort(identifiers, kind="stable")
    low, high = (np.searchsorted(identifiers, requested, side, sorter=order) for side in ("left", "right"))
    if np.any(low == high):
        absent = requested[low == high]
        span = (
            f" Its rows are {identifiers.min()} to {identifiers.max()}."
            if kind == "row"
            else f" Its first is {identifiers[0]!r}."
        )
        raise errors.DataError(
            f"{what} lists {kind} {absent[0]}, which the data set does not contain ({len(absent)} such).{span}"
        )
    if np.any(high - low > 1):
        raise errors.DataError(
            f"{what} lists {kind} {requested[high - low > 1][0]}, which several rows of the data set have. List row "
            "numbers, or make ids unique."
        )
    return order[low]
