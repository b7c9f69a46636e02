"""Tables: findings in rows, as text for the terminal, as markdown, LaTeX and CSV.

The terminal gets what fits into its width: the richest of four forms, from every finding with spread, interval and
retrained value down to the bare estimates. The files always get everything; CSV gets it unrounded.
"""

import csv as csv_module
import io
import math
import numbers
import re
import textwrap
from collections.abc import Sequence

from jaxunlearn import escapes
from jaxunlearn.records import Finding
from jaxunlearn.report import cells, number_format
from jaxunlearn.report.cells import Cell, Table

__all__ = ["Table", "csv", "latex", "markdown", "pairs", "text"]


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Two aligned columns: what, and its value."""
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def text(table: Table, *, percent: bool = False, digits: int | None = None, width: int = 120) -> str:
    """A table for the terminal: aligned, titles broken over lines, in the richest form that fits.

    The forms, in order: everything of every finding; spread of every finding, interval and retrained value of the
    first column of findings; the same without the retrained value; estimates and spreads; the estimates alone.

    Args:
      table: what to print.
      percent: print 100 times every fraction; the titles of those columns say so.
      digits: decimals; 3 for plain numbers, 1 for per cent.
      width: columns of the terminal. Estimates alone may exceed it.

    Raises:
      ShapeError: a row has more or fewer cells than there are titles.
    """
    cells.check(table)
    found = {column for column in range(len(table.header)) if cells.has_findings(table, column)}
    first = {min(found)} if found else set()
    nothing: set[int] = set()
    lines: list[str] = []
    for spread, interval, retrained in (
        (found, found, found), (found, first, first), (found, first, nothing), (found, nothing, nothing),
        (nothing, nothing, nothing),
    ):  # fmt: skip
        form = {"spread": spread, "interval": interval, "retrained": retrained}
        lines = _layout(table, form, percent, cells.places(digits, percent))
        if max(map(len, lines)) <= width:
            break
    above = textwrap.wrap(table.title, width)
    below = textwrap.wrap(table.caption, width)
    return "\n".join([*above, *([""] if above else []), *lines, *([""] if below else []), *below])


def markdown(table: Table, *, percent: bool = False, digits: int | None = None) -> str:
    """A table for GitHub and the like: bold title, pipe table, caption; every finding in full.

    Args:
      table: what to print.
      percent: print 100 times every fraction; the titles of those columns say so.
      digits: decimals; 3 for plain numbers, 1 for per cent.

    Raises:
      ShapeError: a row has more or fewer cells than there are titles.
    """
    cells.check(table)
    sides = ["--:" if cells.is_numeric(table, column) else ":--" for column in range(len(table.header))]
    lines = [[_escape_markdown(title) for title in cells.titles(table, percent)], sides]
    lines += [[_escape_markdown(cell) for cell in row] for row in cells.strings(table, percent=percent, digits=digits)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    title = f"**{_escape_markdown(table.title)}**" if table.title else ""
    return "\n\n".join(part for part in (title, body, _escape_markdown(table.caption)) if part) + "\n"


def latex(table: Table, *, percent: bool = False, digits: int | None = None, bold: bool = False) -> str:
    r"""A table for a paper: `table` and `tabular` without packages, special characters escaped.

    Args:
      table: what to print; an arrow at the end of a title says which end of the column is better.
      percent: print 100 times every fraction; the titles of those columns say so.
      digits: decimals; 3 for plain numbers, 1 for per cent.
      bold: set the best estimate of every column with an arrow in bold, ties alike. The comparison is made with the
        numbers as printed, so that equal looks are equal marks.

    Raises:
      ShapeError: a row has more or fewer cells than there are titles.
    """
    cells.check(table)
    best = cells.best(table, percent=percent, digits=digits) if bold else set()
    lines = [" & ".join(_escape_latex(title) for title in cells.titles(table, percent)) + r" \\", r"\hline"]
    for row, printed in enumerate(cells.strings(table, percent=percent, digits=digits)):
        escaped = [_escape_latex(cell) for cell in printed]
        marked = [rf"\textbf{{{cell}}}" if (row, column) in best else cell for column, cell in enumerate(escaped)]
        lines.append(" & ".join(marked) + r" \\")
    alignment = "".join("r" if cells.is_numeric(table, column) else "l" for column in range(len(table.header)))
    caption = " ".join(f"{part.rstrip('.')}." for part in (table.title, table.caption) if part)
    return "\n".join([
        r"\begin{table}",
        r"\centering",
        *([rf"\caption{{{_escape_latex(caption)}}}"] if caption else []),
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\hline",
        *lines,
        r"\hline",
        r"\end{tabular}",
        r"\end{table}",
    ]) + "\n"  # fmt: skip


def csv(table: Table) -> str:
    """A table for a program: numbers unrounded, never in per cent, missing ones empty.

    A column of findings becomes several: the estimate under its title, then the title followed by `spread`, `low`,
    `high`, `n` and `method`, and by `retrained` where any finding of the column has that value.

    Raises:
      ShapeError: a row has more or fewer cells than there are titles.
    """
    cells.check(table)
    columns: list[tuple[str, list[str]]] = []
    for column, title in enumerate(table.header):
        held = [row[column] for row in table.rows]
        columns.append((title, [_plain(cell.value if isinstance(cell, Finding) else cell) for cell in held]))
        if not cells.has_findings(table, column):
            continue
        names = ["std", "low", "high", "n", "method"]
        if any(isinstance(cell, Finding) and cell.retrained is not None for cell in held):
            names.append("retrained")
        for name in names:
            values = [_plain(getattr(cell, name)) if isinstance(cell, Finding) else "" for cell in held]
            columns.append((f"{title} {name}", values))
    out = io.StringIO()
    writer = csv_module.writer(out, lineterminator="\n")
    writer.writerow([escapes.spreadsheet(name) for name, _ in columns])
    writer.writerows(zip(*(values for _, values in columns), strict=True))
    return out.getvalue()


def _plain(cell: object) -> str:
    if isinstance(cell, numbers.Integral) and not isinstance(cell, bool):
        return str(int(cell))
    if isinstance(cell, numbers.Real) and not isinstance(cell, bool):
        return "" if math.isnan(float(cell)) else repr(float(cell))
    return "" if cell is None else escapes.spreadsheet(str(cell))


def _layout(table: Table, form: dict[str, set[int]], percent: bool, digits: int) -> list[str]:
    """The lines of the table proper: broken titles, a rule, the rows."""
    columns = []
    for column, title in enumerate(cells.titles(table, percent)):
        shown = [part for part in number_format.NumberParts._fields if column in form.get(part, set())]
        printed = _aligned([row[column] for row in table.rows], shown, percent, digits)
        # What qualifies a word must not stand alone on a line: (%) and arrows stay with the last word.
        words = re.sub(r" (?=[↑↓]|\(%\))", "\0", title)
        room = max([*map(len, printed), *map(len, words.split()), 1])
        above = [line.replace("\0", " ") for line in textwrap.wrap(words, room)]
        columns.append((str.rjust if cells.is_numeric(table, column) else str.ljust, room, above, printed))
    height = max(len(above) for _, _, above, _ in columns)
    blocks = []
    for align, room, above, printed in columns:
        head = [""] * (height - len(above)) + above
        blocks.append([align(line, room) for line in [*head, "─" * room, *printed]])
    return ["  ".join(line).rstrip() for line in zip(*blocks, strict=True)]


def _aligned(column: list[Cell], shown: list[str], percent: bool, digits: int) -> list[str]:
    """The cells of one column; estimates, spreads, intervals and retrained values stand below each other."""
    split = {
        row: [parts.value, *(getattr(parts, name) for name in shown)]
        for row, cell in enumerate(column)
        if isinstance(cell, Finding)
        for parts in [number_format.parts(cell, digits, percent=percent)]
    }
    rooms = [max(map(len, part)) for part in zip(*split.values(), strict=True)]
    printed = []
    for row, cell in enumerate(column):
        plain = cells.string(cell, percent=percent, digits=digits)
        if not rooms or (row not in split and len(plain) > rooms[0]):
            printed.append(plain)
            continue
        value, *rest = split.get(row, [plain] + [""] * len(shown))
        beside = [part.ljust(room) for part, room in zip(rest, rooms[1:], strict=True) if room]
        printed.append(" ".join([value.rjust(rooms[0]), *beside]))
    return printed


def _escape_markdown(cell: str) -> str:
    return escapes.markdown(" ".join(cell.split()))


LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$", "±": r"$\pm$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "∞": r"$\infty$", "≤": r"$\leq$", "≥": r"$\geq$",
}  # fmt: skip


def _escape_latex(cell: str) -> str:
    escaped = "".join(LATEX.get(character, character) for character in escapes.visible(cell))
    escaped = re.sub(r"(?<![\w-])-(?=[\d.])", "$-$", escaped)
    # A row that begins with a bracket would be read as the optional argument of the line break before it.
    return "{[}" + escaped[1:] if escaped.startswith("[") else escaped
