"""Reading one CSV file as text: separator, header, records and the lines they begin in; nothing is interpreted.

    bytes -> UTF-8 text -> separator -> header and records -> CsvTable

Everything that is wrong with a file is one message that names its line.
"""

import csv
import io
import pathlib
import zlib
from typing import NamedTuple

from jaxunlearn import errors
from jaxunlearn.data.formats import files

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SNIFFED_CHARACTERS = 64 * 1024  # of the start of a file, on which its separator is chosen


class CsvTable(NamedTuple):
    """A file as text.

    Attributes:
      path: where it was read from.
      columns: name -> [N] cells without blanks around them, in the order of the file.
      lines: [N] line of the file, from 1, in which each record begins (cells in quotes may span lines).
      notes: what the user should know about how it was read.
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
        raise errors.DataError(f"{path} holds {'a header, but no rows' if records else 'no rows: it is empty'}.")
    (_, header), *body = records
    if len(header) == 1:
        raise errors.DataError(
            f"{path} has one column only ({header[0][:40]!r}). Columns are separated by {_listed(SEPARATORS)}; a row "
            "needs features and a label."
        )
    for line, cells in body:
        if len(cells) != len(header):
            raise errors.DataError(
                f"{path}, line {line}: {len(cells)} columns, expected {len(header)} as in the header. Put cells that "
                "hold the separator into double quotes."
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
    """The separator that cuts the first rows into columns as often as the header, and into most columns."""
    start = text[:SNIFFED_CHARACTERS]
    whole = start if len(start) == len(text) else start[: start.rfind("\n") + 1] or start

    def fit(separator: str) -> tuple[float, int]:
        widths = []
        try:
            for row in csv.reader(io.StringIO(whole, newline=""), delimiter=separator):
                if row:
                    widths.append(len(row))
        except csv.Error:
            pass
        if not widths or widths[0] < 2:
            return 0.0, 0
        return sum(width == widths[0] for width in widths) / len(widths), widths[0]

    return max(SEPARATORS, key=fit)


def _records(path: pathlib.Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    """(line in which it begins, cells) of every record that holds anything; lines may end as on any system."""
    reader = csv.reader(
        io.StringIO(text, newline=None), delimiter=separator, strict=True, skipinitialspace=separator != "\t"
    )
    records, begun = [], 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                records.append((begun, cells))
            begun = reader.line_num + 1
    except csv.Error as error:
        raise errors.DataError(
            f"{path}, line {begun}: {error}. Quotes inside a quoted cell are doubled; check for one that is not closed."
        ) from error
    return records


def _require_header(path: pathlib.Path, header: list[str], body: list[list[str]]) -> None:
    """Refuses a first line that looks like the rows below it: numbers wherever the second line has some.

    Names that count the columns (0, 1, 2, ...) are a header.
    """
    numeric = [place for place, cell in enumerate(body[0]) if is_number(cell)]
    named = [header[place] for place in numeric]
    if not named or not all(map(is_number, named)):
        return
    values = [float(name) for name in named]
    counts = all(later - earlier == 1 for earlier, later in zip(values, values[1:], strict=False))
    if not (counts and len(values) > 1):
        raise errors.DataError(
            f"{path} has no header: its first line holds values ({', '.join(header[:4])}, ...), not names of columns. "
            "Write a line of names above it."
        )


def is_number(cell: str) -> bool:
    """Tells whether a cell is a number as Python writes it, without separators of thousands."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python reads 1_000


def _named_columns(
    path: pathlib.Path, header: list[str], cells: list[list[str]]
) -> tuple[dict[str, list[str]], list[str]]:
    """Columns by name; those without a name are left out where they are empty or merely count the rows."""
    columns: dict[str, list[str]] = {}
    notes = []
    for place, (name, column) in enumerate(zip(header, cells, strict=True), 1):
        if not name:
            first = int(column[0]) if column[0].isdecimal() else -1
            counts = [str(first + row) for row in range(len(column))]
            if any(column) and (first < 0 or column != counts):
                raise errors.DataError(f"{path}: column {place} has no name in the header. Give it one, or delete it.")
            why = "is empty" if not any(column) else "only counts the rows"
            notes.append(f"{path.name}: column {place} has no name and {why}; it is left out")
        elif name in columns:
            raise errors.DataError(
                f"{path}: the header has the name {name!r} twice. Rename or delete one of these columns"
                f"{'; if the first line holds values, write a header above it' if is_number(name) else ''}."
            )
        else:
            columns[name] = column
    return columns, notes


def _listed(words: dict[str, str]) -> str:
    *first, last = words.values()
    return f"{', '.join(first)} or {last}"
