"""A user's table with a header as a data set: numbers, categories as codes, a label, names of rows.

    CSV file(s) -> csv_files.read -> label, ids, features -> Dataset

Categories are coded by the sorted order of their distinct values, as in `tabular.adult`; missing is a category of its
own. Missing numbers take the median of the column over the train pool. Notes report both.
"""

import re
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import errors
from jaxunlearn.data.formats import arrays, csv_files, encoding, files
from jaxunlearn.data.formats.csv_files import CsvTable
from jaxunlearn.records import Dataset
from jaxunlearn.settings import DataSettings

LABEL_NAMES = ("label", "target", "y", "class")
ID_NAMES = ("id", "ids", "row_id")
MISSING = ("", "?", "na", "n/a", "nan", "null")
NO_NUMBER = (*MISSING, "none", "-")  # words that may be categories elsewhere
# A column is numeric if at least this fraction of its present cells is written with digits only.
NUMERIC_FRACTION = 0.9
NUMBER_LIKE = re.compile(r"[-+]?[$€£]?\s?\d[\d,.' ]*([eE][-+]?\d+)?\s?%?")
# More distinct values than these (the second: if they are also more than half of the rows) are no class labels.
MAX_FRACTIONAL_CLASSES, MAX_SPARSE_CLASSES = 20, 20
POOLS = ("train", "test")


class _Rows(NamedTuple):
    """One or two tables, one below the other: cells by column, and the location of each row."""

    path: str
    columns: dict[str, list[str]]
    locations: list[tuple[CsvTable, int]]  # (table, line)
    num_train: int  # 0 = to be cut
    notes: tuple[str, ...]

    def where(self, row: int) -> str:
        """Returns `mine.csv, line 7`."""
        table, line = self.locations[row]
        return f"{table.path}, line {line}"


def from_csv(settings: DataSettings) -> Dataset:
    """Loads a CSV file with a header, or a folder with train.csv and test.csv: [N, F] features and a label column.

    The label is `data.label`, else the one column called label, target, y or class, else the last one. Rows are named
    by `data.id_column` (else by a column called id whose values differ), else `mine.csv:17`, by the line in which they
    begin. `ids` count rows from 0, test rows after train rows.

    Raises:
      DataError: no or unreadable file (see `csv_files.read`), unknown columns, missing or unusable labels, words in a
        column of numbers, or pools that do not have the same columns.
    """
    if not settings.path:
        raise errors.DataError(
            "data set 'csv' needs a file: set --config.data.path to a .csv with a header, or to a folder with "
            "train.csv and test.csv."
        )
    rows = _read(settings)
    notes = list(rows.notes)
    label = _label_column(rows, settings.label, notes)
    labels, class_names = _labels(rows, label)
    names, id_column = _names(rows, settings.id_column, label, notes)
    for setting, required in (("data.ignore", settings.ignore), ("data.categories", settings.categories)):
        _require_columns(rows, setting, required)
    left_out = {label, id_column, *settings.ignore}
    features = [name for name in rows.columns if name not in left_out]
    if not features:
        raise errors.DataError(f"{rows.path} has no columns besides {', '.join(sorted(left_out - {''}))}: no features.")
    order, num_train = np.arange(len(labels)), rows.num_train
    if not num_train:
        order, num_train = arrays.cut("csv", len(labels), settings.held_out)
    inputs = np.stack([_coded(rows, name, settings.categories, order[:num_train], notes) for name in features], 1)
    facts: dict[str, Any] = {"class_names": class_names, "notes": notes}
    return arrays.build(
        "csv", inputs[order], labels[order], num_train, ids=order, names=np.asarray(names)[order], **facts
    )


def _read(settings: DataSettings) -> _Rows:
    path = files.existing("csv", settings.path)
    if not path.is_dir():
        table = csv_files.read(path)
        return _Rows(str(path), table.columns, [(table, line) for line in table.lines], 0, table.notes)
    paths = [
        next((path / f"{pool}{end}" for end in (".csv", ".csv.gz", ".tsv") if (path / f"{pool}{end}").is_file()), None)
        for pool in POOLS
    ]
    if paths[0] is None or paths[1] is None:
        missing = POOLS[paths.index(None)]
        raise errors.DataError(f"{path} contains no {missing}.csv; a folder of tables needs train.csv and test.csv.")
    train, test = csv_files.read(paths[0]), csv_files.read(paths[1])
    for table, other in ((test, train), (train, test)):
        for name in other.columns:
            if name not in table.columns:
                raise errors.DataError(
                    f"{table.path} has no column {name!r}, but {other.path.name} has."
                    f"{errors.nearest(name, table.columns)} Both need the same columns, in any order."
                )
    return _Rows(
        str(path),
        {name: cells + test.columns[name] for name, cells in train.columns.items()},
        [(table, line) for table in (train, test) for line in table.lines],
        len(train.lines),
        (*train.notes, *test.notes),
    )


def _require_columns(rows: _Rows, setting: str, names: tuple[str, ...]) -> None:
    for name in names:
        if name not in rows.columns:
            raise errors.DataError(
                f"{setting}: {rows.path} has no column {name!r}.{errors.nearest(name, rows.columns)} It has "
                f"{_listing(list(rows.columns))}."
            )


def _label_column(rows: _Rows, name: str, notes: list[str]) -> str:
    if name:
        _require_columns(rows, "data.label", (name,))
        return name
    usual = [name for name in rows.columns if name.lower() in LABEL_NAMES]
    if len(usual) > 1:
        raise errors.DataError(
            f"{rows.path} has the columns {_listing(usual)}: choose the label with --config.data.label={usual[0]}."
        )
    label = usual[0] if usual else list(rows.columns)[-1]
    notes.append(f"the label is column {label!r}{'' if usual else ', the last one'} (data.label)")
    return label


def _labels(rows: _Rows, label: str) -> tuple[np.ndarray, list[str]]:
    """Returns class indices [N] by the sorted order of the values (numbers by size), and the values as names."""
    cells = rows.columns[label]
    gaps = [row for row, cell in enumerate(cells) if cell.lower() in MISSING]
    if gaps:
        raise errors.DataError(
            f"{rows.where(gaps[0])}: the label {label!r} is missing ({len(gaps)} such rows). Fill them in, or delete "
            "these rows."
        )
    numeric = all(map(csv_files.is_number, cells))
    values: Any = np.array([float(cell) for cell in cells]) if numeric else np.array(cells)
    classes, labels = np.unique(values, return_inverse=True)
    value_list = _listing([f"{value:g}" if numeric else str(value) for value in classes[:4]]) + ", ..." * (
        len(classes) > 4
    )
    is_fractional = numeric and not np.array_equal(classes, np.round(classes))
    is_sparse = len(classes) > MAX_SPARSE_CLASSES and 2 * len(classes) > len(cells)
    if is_sparse or (is_fractional and len(classes) > MAX_FRACTIONAL_CLASSES):
        raise errors.DataError(
            f"{rows.path}: the label {label!r} has {len(classes):,} different values in {len(cells):,} rows "
            f"({value_list}). A label names a class: cut regression targets into classes first; to use another column, "
            "set --config.data.label=NAME."
        )
    if len(classes) < 2:
        raise errors.DataError(
            f"{rows.path}: every row has the label {value_list} in column {label!r}; a classifier needs at least 2 "
            "classes. To use another column, set --config.data.label=NAME."
        )
    if numeric:
        return labels.astype(np.int32), [f"{value:.15g}" for value in classes]
    return labels.astype(np.int32), classes.tolist()


def _names(rows: _Rows, id_column: str, label: str, notes: list[str]) -> tuple[list[str], str]:
    """Returns the names of rows and the column that holds them ("" = named by their lines)."""
    if id_column:
        _require_columns(rows, "data.id_column", (id_column,))
        if id_column == label:
            raise errors.DataError(f"data.id_column = {id_column!r} is also the label. Name two different columns.")
        cells = rows.columns[id_column]
        first: dict[str, int] = {}
        for row, cell in enumerate(cells):
            if not cell or cell in first:
                reason = f"{cell!r} also occurs in line {rows.locations[first[cell]][1]}" if cell else "it is empty"
                raise errors.DataError(
                    f"{rows.where(row)}: data.id_column = {id_column!r} must name every row, but {reason}."
                )
            first[cell] = row
        return cells, id_column
    for name, cells in rows.columns.items():
        if name != label and name.lower() in ID_NAMES and all(cells) and len(set(cells)) == len(cells):
            notes.append(f"column {name!r} names the rows and is not used as a feature (data.id_column)")
            return cells, name
    return [f"{table.path.name}:{line}" for table, line in rows.locations], ""


def _coded(rows: _Rows, name: str, categories: tuple[str, ...], train: np.ndarray, notes: list[str]) -> np.ndarray:
    """Returns one column as [N] float64: numbers as they are, or codes of categories.

    Args:
      rows: the table.
      name: the column.
      categories: columns whose numbers are codes of categories.
      train: rows of the train pool, whose median fills gaps.
      notes: a note about missing values is appended here.
    """
    cells = rows.columns[name]
    gaps = [row for row, cell in enumerate(cells) if cell.lower() in NO_NUMBER]
    missing = set(gaps)
    present_cells = [cell for row, cell in enumerate(cells) if row not in missing]
    if not present_cells:
        raise errors.DataError(
            f"{rows.path}: column {name!r} contains no value. Leave it out: --config.data.ignore={name}."
        )
    num_numbers = sum(csv_files.is_number(cell) or NUMBER_LIKE.fullmatch(cell) is not None for cell in present_cells)
    if name in categories or num_numbers < NUMERIC_FRACTION * len(present_cells):
        return _categories(rows, name, notes)
    values = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if row in missing:
            continue
        number = float(cell) if csv_files.is_number(cell) else np.nan
        if not np.isfinite(number):
            raise _not_a_number(rows, name, row)
        values[row] = number
    if gaps:
        present = values[train][~np.isnan(values[train])]
        if not len(present):
            raise errors.DataError(f"{rows.path}: column {name!r} contains no value in the train pool. Leave it out.")
        median = float(np.median(present))
        values[np.isnan(values)] = median
        notes.append(f"column {name!r}: {_missing(rows, gaps)} filled with {median:g}, the median of the train pool")
    return values


def _categories(rows: _Rows, name: str, notes: list[str]) -> np.ndarray:
    cells = rows.columns[name]
    gaps = [row for row, cell in enumerate(cells) if cell.lower() in MISSING]
    codes = encoding.sorted_codes(np.array(cells))
    if gaps:
        notes.append(f"column {name!r}: {_missing(rows, gaps)} kept as a category")
    if len(cells) > 1 and codes.max() == len(cells) - 1:
        notes.append(f"column {name!r} has a different value in every row; data.ignore={name} leaves it out")
    return codes.astype(np.float64)


def _not_a_number(rows: _Rows, name: str, row: int) -> errors.DataError:
    cell = rows.columns[name][row]
    if NUMBER_LIKE.fullmatch(cell):
        advice = "Write numbers with digits and a decimal point only (1234.5): no separators of thousands, no units."
    elif csv_files.is_number(cell):
        advice = "Only finite numbers can be learned from; leave the cell empty where the value is not known."
    else:
        advice = (
            "Nearly all other cells of the column are numbers. Correct the cell, or leave it empty where the value is "
            "not known."
        )
    return errors.DataError(
        f"{rows.where(row)}: column {name!r} contains {cell[:40]!r}, expected a number. {advice} If the column names "
        f"categories: --config.data.categories={name}."
    )


def _missing(rows: _Rows, gaps: list[int]) -> str:
    table, line = rows.locations[gaps[0]]
    plural = "s are" if len(gaps) > 1 else " is"
    return f"{len(gaps):,} missing value{plural} (first: {table.path.name}, line {line})"


def _listing(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:12]) + (", ..." if len(names) > 12 else "")
