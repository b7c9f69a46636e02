"""Tables as text for the terminal, Markdown, LaTeX and CSV.

The terminal shows what fits into its width: the richest of five forms, from findings with std, interval and retrained
value down to bare estimates. Files always contain everything; CSV is unrounded.
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
    """Formats (name, value) pairs as two aligned columns.

    Example:
      >>> from jaxunlearn.report import tables
      >>> print(tables.pairs([("models", "64"), ("in all", "8.2 s")]))
      models  64
      in all  8.2 s
    """
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def text(table: Table, *, percent: bool = False, digits: int | None = None, width: int = 120) -> str:
    """Formats a table for the terminal: aligned, with wrapped titles, in the richest form that fits.

    The forms, in order: findings in full; std of every finding, interval and retrained value of the first column of
    findings only; the same without the retrained value; estimates and std; estimates only.

    Args:
      table: what to print.
      percent: print 100 times every fraction and add (%) to the titles of those columns.
      digits: decimals; 3 for plain numbers, 1 for per cent.
      width: of the terminal in characters. Estimates alone may exceed it.

    Raises:
      ShapeError: a row has more or fewer cells than there are titles.

    Example:
      >>> from jaxunlearn.records import Finding
      >>> from jaxunlearn.report import Table, tables
      >>> print(tables.text(Table("", "", ("score", "AUC ↑"), (("iam_on", Finding(0.912, 0.905, 0.919)),))))
      score                AUC ↑
      ──────  ──────────────────
      iam_on  0.912 [.905, .919]
    """
    cells.check(table)
    finding_columns = {column for column in range(len(table.header)) if cells.has_findings(table, column)}
    first_column = {min(finding_columns)} if finding_columns else set()
    no_columns: set[int] = set()
    lines: list[str] = []
    for std, interval, retrained in (
        (finding_columns, finding_columns, finding_columns), (finding_columns, first_column, first_column),
        (finding_columns, first_column, no_columns), (finding_columns, no_columns, no_columns),
        (no_columns, no_columns, no_columns),
    ):  # fmt: skip
        form = {"std": std, "interval": interval, "retrained": retrained}
        lines = _layout(table, form, percent, cells.num_digits(digits, percent))
        if max(map(len, lines)) <= width:
            break
    title_lines = textwrap.wrap(table.title, width)
    caption_lines = textwrap.wrap(table.caption, width)
    return "\n".join(
        [*title_lines, *([""] if title_lines else []), *lines, *([""] if caption_lines else []), *caption_lines]
    )


def markdown(table: Table, *, percent: bool = False, digits: int | None = None) -> str:
    """Formats a table as Markdown: bold title, pipe table, caption; findings in full.

    Args:
      table: what to print.
      percent: print 100 times every fraction and add (%) to the titles of those columns.
      digits: decimals; 3 for plain numbers, 1 for per cent.

    Raises:
      ShapeError: a row has more or fewer cells than there are titles.

    Example:
      >>> from jaxunlearn.report import Table, tables
      >>> print(tables.markdown(Table("", "", ("score", "AUC ↑"), (("iam_on", 0.912),))))
      | score | AUC ↑ |
      | :-- | --: |
      | iam_on | 0.912 |
    """
    cells.check(table)
    alignments = ["--:" if cells.is_numeric(table, column) else ":--" for column in range(len(table.header))]
    lines = [[_escape_markdown(title) for title in cells.titles(table, percent)], alignments]
    lines += [[_escape_markdown(cell) for cell in row] for row in cells.strings(table, percent=percent, digits=digits)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    title = f"**{_escape_markdown(table.title)}**" if table.title else ""
    return "\n\n".join(paragraph for paragraph in (title, body, _escape_markdown(table.caption)) if paragraph) + "\n"


def latex(table: Table, *, percent: bool = False, digits: int | None = None, bold: bool = False) -> str:
    """Formats a table as LaTeX: `table` and `tabular` without packages, special characters escaped.

    Args:
      table: what to print.
      percent: print 100 times every fraction and add (%) to the titles of those columns.
      digits: decimals; 3 for plain numbers, 1 for per cent.
      bold: print the best estimate of every column with an arrow in bold, including ties (of the numbers as printed).

    Raises:
      ShapeError: a row has more or fewer cells than there are titles.
    """
    cells.check(table)
    best_cells = cells.best(table, percent=percent, digits=digits) if bold else set()
    lines = [" & ".join(_escape_latex(title) for title in cells.titles(table, percent)) + r" \\", r"\hline"]
    for row, row_texts in enumerate(cells.strings(table, percent=percent, digits=digits)):
        escaped = [_escape_latex(cell) for cell in row_texts]
        latex_cells = [
            rf"\textbf{{{cell}}}" if (row, column) in best_cells else cell for column, cell in enumerate(escaped)
        ]
        lines.append(" & ".join(latex_cells) + r" \\")
    alignment = "".join("r" if cells.is_numeric(table, column) else "l" for column in range(len(table.header)))
    caption = " ".join(f"{sentence.rstrip('.')}." for sentence in (table.title, table.caption) if sentence)
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
    """Formats a table as CSV: numbers unrounded, never in per cent; missing numbers are empty.

    A column of findings becomes several: the estimate under its title, then the title followed by `std`, `low`, `high`,
    `n` and `method`, and by `retrained` if any finding of the column has one.

    Raises:
      ShapeError: a row has more or fewer cells than there are titles.

    Example:
      >>> from jaxunlearn.report import Table, tables
      >>> print(tables.csv(Table("", "", ("score", "AUC ↑"), (("iam_on", 0.912),))))
      score,AUC ↑
      iam_on,0.912
    """
    cells.check(table)
    columns: list[tuple[str, list[str]]] = []
    for column, title in enumerate(table.header):
        column_cells = [row[column] for row in table.rows]
        columns.append((title, [_plain(cell.value if isinstance(cell, Finding) else cell) for cell in column_cells]))
        if not cells.has_findings(table, column):
            continue
        names = ["std", "low", "high", "n", "method"]
        if any(isinstance(cell, Finding) and cell.retrained is not None for cell in column_cells):
            names.append("retrained")
        for name in names:
            values = [_plain(getattr(cell, name)) if isinstance(cell, Finding) else "" for cell in column_cells]
            columns.append((f"{title} {name}", values))
    buffer = io.StringIO()
    writer = csv_module.writer(buffer, lineterminator="\n")
    writer.writerow([escapes.spreadsheet(name) for name, _ in columns])
    writer.writerows(zip(*(values for _, values in columns), strict=True))
    return buffer.getvalue()


def _plain(cell: object) -> str:
    if isinstance(cell, numbers.Integral) and not isinstance(cell, bool):
        return str(int(cell))
    if isinstance(cell, numbers.Real) and not isinstance(cell, bool):
        return "" if math.isnan(float(cell)) else repr(float(cell))
    return "" if cell is None else escapes.spreadsheet(str(cell))


def _layout(table: Table, form: dict[str, set[int]], percent: bool, digits: int) -> list[str]:
    """Returns the lines of a table: wrapped titles, a rule, the rows."""
    columns = []
    for column, title in enumerate(cells.titles(table, percent)):
        fields = [field for field in number_format.FormattedFinding._fields if column in form.get(field, set())]
        cell_texts = _align([row[column] for row in table.rows], fields, percent, digits)
        # (%) and arrows stay on the line of the last word.
        words = re.sub(r" (?=[↑↓]|\(%\))", "\0", title)
        width = max([*map(len, cell_texts), *map(len, words.split()), 1])
        title_lines = [line.replace("\0", " ") for line in textwrap.wrap(words, width)]
        columns.append((str.rjust if cells.is_numeric(table, column) else str.ljust, width, title_lines, cell_texts))
    height = max(len(title_lines) for _, _, title_lines, _ in columns)
    blocks = []
    for align, width, title_lines, cell_texts in columns:
        head = [""] * (height - len(title_lines)) + title_lines
        blocks.append([align(line, width) for line in [*head, "─" * width, *cell_texts]])
    return ["  ".join(line).rstrip() for line in zip(*blocks, strict=True)]


def _align(column: list[Cell], fields: list[str], percent: bool, digits: int) -> list[str]:
    """Formats the cells of one column; estimates, stds, intervals and retrained values are aligned."""
    texts_of_row = {
        row: [formatted.value, *(getattr(formatted, name) for name in fields)]
        for row, cell in enumerate(column)
        if isinstance(cell, Finding)
        for formatted in [number_format.format_finding(cell, digits, percent=percent)]
    }
    widths = [max(map(len, texts)) for texts in zip(*texts_of_row.values(), strict=True)]
    cell_texts = []
    for row, cell in enumerate(column):
        full_text = cells.string(cell, percent=percent, digits=digits)
        if not widths or (row not in texts_of_row and len(full_text) > widths[0]):
            cell_texts.append(full_text)
            continue
        value, *rest = texts_of_row.get(row, [full_text] + [""] * len(fields))
        details = [detail.ljust(width) for detail, width in zip(rest, widths[1:], strict=True) if width]
        cell_texts.append(" ".join([value.rjust(widths[0]), *details]))
    return cell_texts


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
    # LaTeX would read a leading bracket as the optional argument of the preceding line break.
    return "{[}" + escaped[1:] if escaped.startswith("[") else escaped
