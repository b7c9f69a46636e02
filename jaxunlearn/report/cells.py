"""Tables and their cells, independent of the output format."""

import math
import numbers
import re
from typing import NamedTuple

from jaxunlearn import errors, escapes
from jaxunlearn.records import Finding
from jaxunlearn.report import number_format

Cell = str | int | float | Finding


class Table(NamedTuple):
    """A table, independent of the output format.

    Attributes:
      title: a few words; may be empty.
      caption: one or two sentences: what the rows are, how to read them; may be empty.
      header: one title per column, ending in ↑ (higher is better) or ↓ (lower is better) where this applies.
      rows: cells: numbers, findings (printed with std, interval and retrained value) or strings.
      baselines: first cells of rows that serve as references; never marked as the best.
    """

    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    baselines: tuple[str, ...] = ()


def check(table: Table) -> None:
    """Raises a ShapeError unless there is a title and every row has one cell per title."""
    if not table.header:
        raise errors.ShapeError(f"table {table.title!r} has no columns. Give it at least one title in its header.")
    for index, row in enumerate(table.rows):
        if len(row) != len(table.header):
            raise errors.ShapeError(
                f"row {index} of table {table.title!r} has {len(row)} cell(s), but the header has {len(table.header)} "
                f"({', '.join(table.header)}). Give every row one cell per title."
            )


def titles(table: Table, percent: bool = False) -> list[str]:
    """Returns the column titles; with `percent`, `(%)` is added to those of fractions, before the arrow."""
    return [
        re.sub(r"\s*([↑↓]?)\s*$", r" (%) \1", title, count=1).rstrip()
        if percent and any(_is_fraction(row[column]) for row in table.rows)
        else title
        for column, title in enumerate(table.header)
    ]


def strings(table: Table, *, percent: bool = False, digits: int | None = None) -> list[list[str]]:
    """Returns every cell in full, as text that is not yet escaped."""
    return [[string(cell, percent=percent, digits=digits) for cell in row] for row in table.rows]


def string(cell: Cell, *, percent: bool = False, digits: int | None = None) -> str:
    """Formats one cell in full. Whole numbers are counts: thousands separators, never per cent.

    Example:
      >>> from jaxunlearn.report import cells
      >>> cells.string(1234), cells.string(0.912), cells.string(0.912, percent=True)
      ('1,234', '0.912', '91.2')
    """
    digits = num_digits(digits, percent)
    if isinstance(cell, Finding):
        return number_format.long(cell, digits, percent=percent)
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, numbers.Integral):
        return number_format.count(int(cell))
    if isinstance(cell, numbers.Real):
        return number_format.number(float(cell), digits, percent=percent)
    return escapes.visible(" ".join(str(cell).split()))


def best(table: Table, *, percent: bool = False, digits: int | None = None) -> set[tuple[int, int]]:
    """Returns (row, column) of the best number of every column whose title ends in ↑ (largest) or ↓ (smallest).

    Numbers that look alike when printed count as ties.

    Example:
      >>> from jaxunlearn.report import Table, cells
      >>> cells.best(Table("", "", ("score", "AUC ↑"), (("iam_on", 0.91), ("confidence", 0.74))))
      {(0, 1)}
    """
    digits = num_digits(digits, percent)
    best_cells = set()
    for column, title in enumerate(table.header):
        extreme = {"↑": max, "↓": min}.get(title.rstrip()[-1:])
        values = {
            row: value for row, cells in enumerate(table.rows)
            if cells[0] not in table.baselines and not math.isnan(value := estimate(cells[column]))
        }  # fmt: skip
        if extreme is None or not values:
            continue
        texts = {row: number_format.number(value, digits, percent=percent) for row, value in values.items()}
        best_text = number_format.number(extreme(values.values()), digits, percent=percent)
        best_cells |= {(row, column) for row, text in texts.items() if text == best_text}
    return best_cells


def estimate(cell: Cell) -> float:
    """Returns the number in a cell; NaN for text."""
    if isinstance(cell, Finding):
        return float(cell.value)
    return float(cell) if isinstance(cell, numbers.Real) and not isinstance(cell, bool) else math.nan


def has_findings(table: Table, column: int) -> bool:
    """Returns whether any cell of the column is a Finding."""
    return any(isinstance(row[column], Finding) for row in table.rows)


def is_numeric(table: Table, column: int) -> bool:
    """Returns whether the column is right-aligned, i.e. contains a number."""
    cells = [row[column] for row in table.rows]
    return any(isinstance(cell, Finding | numbers.Real) and not isinstance(cell, bool) for cell in cells)


def num_digits(digits: int | None, percent: bool) -> int:
    """Returns the requested number of decimals, or the default: 3 for plain numbers, 1 for per cent."""
    return digits if digits is not None else 1 if percent else 3


def _is_fraction(cell: Cell) -> bool:
    return isinstance(cell, Finding) or (isinstance(cell, numbers.Real) and not isinstance(cell, numbers.Integral))
