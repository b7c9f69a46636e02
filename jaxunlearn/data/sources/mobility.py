"""Two tables of the Unlearning-Leaks reference: US-Accidents, and check-ins of Instagram in New York and Los Angeles.

    accident              CSV of US-Accidents, first 600,000 rows -> 29 coded columns, severity
    insta_ny, insta_la    CSV: 168 counts (check-ins per hour of the week), `locid`, category last -> 168 features

Source: data_prepare and utils of Unlearning-Leaks. The specification of the columns of US-Accidents is not published;
the kinds below follow from what the columns hold. Severity 1, 2, 3, 4 becomes class 0, 0, 1, 1 of two (published: 1, 1,
2, 2 of three, of which one is empty).
"""

import csv
import io
import pathlib
import zlib

import numpy as np

from jaxunlearn import errors
from jaxunlearn.data.formats import arrays, encoding, files
from jaxunlearn.records import Dataset
from jaxunlearn.settings import DataSettings

ACCIDENT_ROWS = 600_000
FLAGS = ("Amenity", "Crossing", "Junction", "Railway", "Station", "Traffic_Signal")
NUMBERS = (
    "Start_Lat", "Start_Lng", "Distance(mi)", "Temperature(F)", "Wind_Chill(F)", "Humidity(%)", "Pressure(in)",
    "Visibility(mi)", "Wind_Speed(mph)", "Precipitation(in)",
)  # fmt: skip
ACCIDENT_FEATURES = (
    "Source", "TMC", "Start_Lat", "Start_Lng", "Distance(mi)", "Side", "County", "State", "Timezone", "Airport_Code",
    "Temperature(F)", "Wind_Chill(F)", "Humidity(%)", "Pressure(in)", "Visibility(mi)", "Wind_Direction",
    "Wind_Speed(mph)", "Precipitation(in)", "Weather_Condition", "Amenity", "Crossing", "Junction", "Railway",
    "Station", "Traffic_Signal", "Sunrise_Sunset", "Civil_Twilight", "Nautical_Twilight", "Astronomical_Twilight",
)  # fmt: skip
SEVERITIES = {"1": 0, "2": 0, "3": 1, "4": 1}
HOURS = 168


def accident(settings: DataSettings) -> Dataset:
    """Loads US-Accidents: [N, 29] coded columns, two classes of severity.

    Raises:
      DataError: missing file or column, a number column with text, or an unknown severity.
    """
    path = files.locate(settings, ["accident.csv", "accident.csv.gz"], ["point --config.data.path to the CSV"])
    columns = _columns(path, ACCIDENT_ROWS)
    absent = [name for name in (*ACCIDENT_FEATURES, "Severity") if name not in columns]
    if absent:
        raise errors.DataError(
            f"{path} has no column {absent[0]!r}; expected {', '.join(ACCIDENT_FEATURES)}, Severity."
        )
    coded = [_coded(columns[name], name, path) for name in ACCIDENT_FEATURES]
    wrong = sorted(set(columns["Severity"]) - set(SEVERITIES))
    if wrong:
        raise errors.DataError(f"{path}: the severity {wrong[0]!r} is not one of 1, 2, 3, 4.")
    labels = np.asarray([SEVERITIES[value] for value in columns["Severity"]], np.int32)
    return arrays.build_cut(
        "accident", np.stack(coded, 1).astype(np.float32), labels, settings.held_out, class_names=("1 or 2", "3 or 4")
    )


def _coded(values: list[str], name: str, path: pathlib.Path) -> np.ndarray:
    """Returns the codes [N] of one column."""
    if name in FLAGS:
        unknown = sorted(set(values) - {"True", "False", "true", "false", "1", "0"})
        if unknown:
            raise errors.DataError(f"{path}: column {name!r} contains {unknown[0]!r}, expected True or False.")
        return np.asarray([value in ("True", "true", "1") for value in values], np.uint32)
    if name in NUMBERS:
        return encoding.equal_width(_numbers(values, name, path))
    texts = np.asarray(values)
    return encoding.first_seen(texts, texts == "")


def insta_ny(settings: DataSettings) -> Dataset:
    """Loads check-ins in New York: [N, 168] counts per hour of the week, 9 categories of places."""
    return _checkins(settings, "insta_ny", "ny_withCatId.csv")


def insta_la(settings: DataSettings) -> Dataset:
    """Loads check-ins in Los Angeles: [N, 168] counts per hour of the week, 9 categories of places."""
    return _checkins(settings, "insta_la", "la_withCatId.csv")


def _checkins(settings: DataSettings, name: str, file: str) -> Dataset:
    path = files.locate(settings, [file, f"{file}.gz"], [f"point --config.data.path to {file}"])
    columns = _columns(path)
    columns.pop("locid", None)
    *hours, label = columns
    if len(hours) != HOURS:
        raise errors.DataError(
            f"{path} has {len(hours)} columns besides locid and the category (the last one), expected {HOURS}: one per "
            "hour of the week."
        )
    inputs = np.stack([_numbers(columns[hour], hour, path, gaps=False) for hour in hours], 1)
    labels = _numbers(columns[label], label, path, gaps=False)
    if (labels != np.floor(labels)).any():
        raise errors.DataError(f"{path}: the last column, {label!r}, must contain categories as whole numbers from 0.")
    return arrays.build_cut(name, inputs, labels.astype(np.int64), settings.held_out)


def _columns(path: pathlib.Path, max_rows: int = 0) -> dict[str, list[str]]:
    """Reads the columns of a CSV by its header; `max_rows` 0 = all rows."""
    try:
        text = files.read_bytes(path).decode("utf-8-sig")
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=None)) if any(row)]
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise errors.DataError(f"{path} cannot be read as text ({error}). Fetch it again.") from error
    if len(rows) < 2:
        raise errors.DataError(f"{path} contains no rows under its header.")
    header, body = rows[0], rows[1 : max_rows + 1] if max_rows else rows[1:]
    for line, row in enumerate(body, 2):
        if len(row) != len(header):
            raise errors.DataError(f"{path}, row {line}: {len(row)} columns, expected {len(header)}.")
    return {name: [row[index] for row in body] for index, name in enumerate(header)}


def _numbers(values: list[str], name: str, path: pathlib.Path, gaps: bool = True) -> np.ndarray:
    """Returns numbers [N] float64; an empty cell is NaN if gaps are allowed."""
    try:
        return np.asarray([float(value) if value or not gaps else np.nan for value in values])
    except ValueError as error:
        raise errors.DataError(f"{path}: column {name!r} contains a value that is not a number ({error}).") from error
