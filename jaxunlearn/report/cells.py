"""What a table holds: titles, cells, and what can be said of a cell before anyone decides where it is printed."""

import math
import numbers
import re
from typing import NamedTuple

from jaxunlearn import errors, escapes
from jaxunlearn.records import Finding
from jaxunlearn.report import number_format

Cell = str | int | float | Finding


class Table(NamedTuple):
    """What is printed, independent of where.

    Attributes:
      title: a few words; may be empty.
      caption: one or two sentences: what the rows are, how to read them; may be empty.
      header: one title per column, with its arrow (↑ higher is better, ↓ lower is better) where it has a direction.
      rows: cells; a number is printed, a Finding with what is known about it, a string as it stands.
      baselines: first cells of rows that others are compared with; never marked as the best.
    """

    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    baselines: tuple[str, ...] = ()


def check(table: Table) -> None:
    """Raises a ShapeError unless every row has one cell per title and there is a title."""
    if not table.header:
        raise errors.ShapeError(f"table {table.title!r} has no columns. Give it at least one title in its header.")
    for place, row in enumerate(table.rows):
        if len(row) != len(table.header):
            raise errors.ShapeError(
                f"row {place} of table {table.title!r} has {len(row)} cell(s), but the header has {len(table.header)} "
                f"({', '.join(table.header)}). Give every row one cell per title."
            )


def titles(table: Table, percent: bool = False) -> list[str]:
    """The column titles; with `percent`, those of columns that hold fractions end in `(%)`, before the arrow."""
    return [
        re.sub(r"\s*([↑↓]?)\s*$", r" (%) \1", title, count=1).rstrip()
        if percent and any(_is_fraction(row[column]) for row in table.rows)
        else title
        for column, title in enumerate(table.header)
    ]


def strings(table: Table, *, percent: bool = False, digits: int | None = None) -> list[list[str]]:
    """Every cell in full, as text that nobody has escaped yet."""
    return [[string(cell, percent=percent, digits=digits) for cell in row] for row in table.rows]


def string(cell: Cell, *, percent: bool = False, digits: int | None = None) -> str:
    """One cell in full. Whole numbers are counts: they get thousands separators and are never per cent."""
    digits = places(digits, percent)
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
    """(row, column) of the best number of every column whose title ends in ↑ (largest) or ↓ (smallest).

    Numbers that are printed alike are marked alike.
    """
    digits = places(digits, percent)
    marked = set()
    for column, title in enumerate(table.header):
        choose = {"↑": max, "↓": min}.get(title.rstrip()[-1:])
        known = {
            row: value for row, cells in enumerate(table.rows)
            if cells[0] not in table.baselines and not math.isnan(value := estimate(cells[column]))
        }  # fmt: skip
        if choose is None or not known:
            continue
        printed = {row: number_format.number(value, digits, percent=percent) for row, value in known.items()}
        top = number_format.number(choose(known.values()), digits, percent=percent)
        marked |= {(row, column) for row, shown in printed.items() if shown == top}
    return marked


def estimate(cell: Cell) -> float:
    """The number in a cell, NaN for text."""
    if isinstance(cell, Finding):
        return float(cell.value)
    return float(cell) if isinstance(cell, numbers.Real) and not isinstance(cell, bool) else math.nan


def has_findings(table: Table, column: int) -> bool:
    """Whether any cell of the column is a Finding."""
    return any(isinstance(row[column], Finding) for row in table.rows)


def is_numeric(table: Table, column: int) -> bool:
    """Whether the column is set flush right: some cell of it is a number."""
    cells = [row[column] for row in table.rows]
    return any(isinstance(cell, Finding | numbers.Real) and not isinstance(cell, bool) for cell in cells)


def places(digits: int | None, percent: bool) -> int:
    """The decimals asked for, or the usual ones: 3 for plain numbers, 1 for per cent."""
    return digits if digits is not None else 1 if percent else 3


def _is_fraction(cell: Cell) -> bool:
    return isinstance(cell, Finding) or (isinstance(cell, numbers.Real) and not isinstance(cell, numbers.Integral))
