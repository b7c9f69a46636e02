"""Reads one CSV file as text: separator, header, records and the lines in which they begin; cells stay strings.

    bytes -> UTF-8 text -> separator -> header and records -> CsvTable

Messages about a malformed file name the line.
"""

import csv
import io
import pathlib
import zlib
from typing import NamedTuple

from jaxunlearn import errors
from jaxunlearn.data.formats import files

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SNIFFED_CHARACTERS = 64 * 1024  # the separator is detected in the beginning of a file


class CsvTable(NamedTuple):
    """A file as text.

    Attributes:
      path: of the file.
      columns: name -> [N] cells without surrounding blanks, in the order of the file.
      lines: [N] line of the file, from 1, in which each record begins (cells in quotes may span lines).
      notes: sentences for the user about how it was read.
    """

    path: pathlib.Path
    columns: dict[str, list[str]]
    lines: list[int]
    notes: tuple[str, ...] = ()


def read(path: pathlib.Path) -> CsvTable:
    """Reads a file with a header, also from .gz; commas, semicolons, tabs or bars separate its columns.

    Raises:
      DataError: unreadable, not UTF-8, no rows, ragged rows, open quotes, a header that is missing, has a name twice
        or none, or no separator.
    """
    text = _text(path)
    separator = _separator(text)
    records = _records(path, text, separator)
    if len(records) < 2:
        raise errors.DataError(f"{path} contains {'a header, but no rows' if records else 'no rows: it is empty'}.")
    (_, header), *body = records
    if len(header) == 1:
        raise errors.DataError(
            f"{path} has only one column ({header[0][:40]!r}). Columns are separated by {_enumeration(SEPARATORS)}; "
            "a row needs features and a label."
        )
    for line, cells in body:
        if len(cells) != len(header):
            raise errors.DataError(
                f"{path}, line {line}: {len(cells)} columns, expected {len(header)} as in the header. Put cells that "
                "contain the separator into double quotes."
            )
    _require_header(path, header, [cells for _, cells in body])
    columns, notes = _named_columns(
        path, header, [list(cells) for cells in zip(*(row for _, row in body), strict=True)]
    )
    if separator != ",":
        notes.insert(0, f"{path.name}: columns are separated by {SEPARATORS[separator]}")
    return CsvTable(path, columns, [line for line, _ in body], tuple(notes))


def _text(path: pathlib.Path) -> str:
    try:
        raw = files.read_bytes(path)
    except (OSError, EOFError, zlib.error) as error:
        raise errors.DataError(f"{path} cannot be read ({error}). Fetch or write it again.") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise errors.DataError(
            f"{path}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8. Save the table as UTF-8 "
            "(iconv -f LATIN1 -t UTF-8 old.csv > new.csv, or pandas: to_csv(path, index=False))."
        ) from error


def _separator(text: str) -> str:
    """Returns the separator that gives most of the first rows as many columns as the header; ties: most columns."""
    beginning = text[:SNIFFED_CHARACTERS]
    complete_lines = beginning if len(beginning) == len(text) else beginning[: beginning.rfind("\n") + 1] or beginning

    def fit(separator: str) -> tuple[float, int]:
        widths = []
        try:
            for row in csv.reader(io.StringIO(complete_lines, newline=""), delimiter=separator):
                if row:
                    widths.append(len(row))
        except csv.Error:
            pass
        if not widths or widths[0] < 2:
            return 0.0, 0
        return sum(width == widths[0] for width in widths) / len(widths), widths[0]

    return max(SEPARATORS, key=fit)


def _records(path: pathlib.Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    """Returns (first line, cells) of every record that is not empty; any line ending is accepted."""
    reader = csv.reader(
        io.StringIO(text, newline=None), delimiter=separator, strict=True, skipinitialspace=separator != "\t"
    )
    records, first_line = [], 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                records.append((first_line, cells))
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise errors.DataError(
            f"{path}, line {first_line}: {error}. Quotes inside a quoted cell are doubled; check for one that is not "
            "closed."
        ) from error
    return records


def _require_header(path: pathlib.Path, header: list[str], body: list[list[str]]) -> None:
    """Raises a DataError if the first line looks like the rows below it: numbers wherever the second line has some.

    Names that count the columns (0, 1, 2, ...) are a header.
    """
    numeric = [column for column, cell in enumerate(body[0]) if is_number(cell)]
    names = [header[place] for place in numeric]
    if not names or not all(map(is_number, names)):
        return
    values = [float(name) for name in names]
    is_counting = all(later - earlier == 1 for earlier, later in zip(values, values[1:], strict=False))
    if not (is_counting and len(values) > 1):
        raise errors.DataError(
            f"{path} has no header: its first line contains values ({', '.join(header[:4])}, ...), not names of "
            "columns. Insert a line of names above it."
        )


def is_number(cell: str) -> bool:
    """Returns whether a cell is a number as Python writes it, without separators of thousands."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python reads 1_000


def _named_columns(
    path: pathlib.Path, header: list[str], cells: list[list[str]]
) -> tuple[dict[str, list[str]], list[str]]:
    """Returns the columns by name; unnamed ones are left out if they are empty or only count the rows."""
    columns: dict[str, list[str]] = {}
    notes = []
    for position, (name, column) in enumerate(zip(header, cells, strict=True), 1):
        if not name:
            first = int(column[0]) if column[0].isdecimal() else -1
            counts = [str(first + row) for row in range(len(column))]
            if any(column) and (first < 0 or column != counts):
                raise errors.DataError(
                    f"{path}: column {position} has no name in the header. Give it one, or delete it."
                )
            reason = "is empty" if not any(column) else "only counts the rows"
            notes.append(f"{path.name}: column {position} has no name and {reason}; it is left out")
        elif name in columns:
            raise errors.DataError(
                f"{path}: the header has the name {name!r} twice. Rename or delete one of these columns"
                f"{'; if the first line contains values, write a header above it' if is_number(name) else ''}."
            )
        else:
            columns[name] = column
    return columns, notes


def _enumeration(words: dict[str, str]) -> str:
    *first, last = words.values()
    return f"{', '.join(first)} or {last}"
