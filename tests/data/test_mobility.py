"""Accidents and check-ins: codes as published, tables from raw files, clear messages."""

from pathlib import Path

import numpy as np
import pytest

from jaxunlearn import errors
from jaxunlearn.data import load
from jaxunlearn.data.formats import encoding
from jaxunlearn.data.sources import mobility
from jaxunlearn.settings import DataSettings

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "unlearning_leaks"


def test_codes_are_the_published_ones():
    with np.load(GOLDEN / "accident_encoding_a.npz") as content:
        arrays = dict(content)
    expected = arrays["encoded"]
    for index, name in enumerate(("f", "fn", "const")):
        np.testing.assert_array_equal(encoding.equal_width(arrays[name]), expected[:, index])
    np.testing.assert_array_equal(encoding.first_seen(arrays["e_id"], arrays["e_id"] == -1), expected[:, 3])
    np.testing.assert_array_equal(arrays["i"], expected[:, 4])
    np.testing.assert_array_equal(arrays["b"], expected[:, 5])


def test_a_column_of_gaps_has_one_code():
    assert (encoding.equal_width(np.full(3, np.nan)) == 101).all()
    np.testing.assert_array_equal(
        encoding.first_seen(np.array(["b", "", "a", "b"]), np.array([0, 1, 0, 0])), [1, 0, 3, 1]
    )


def accidents(path, change=lambda row: row, rows=20):
    names = ["ID", "Severity", *mobility.ACCIDENT_FEATURES]
    lines = [",".join(names)]
    for number in range(rows):
        row = {"ID": f"A-{number}", "Severity": str(1 + number % 4)}
        for name in mobility.ACCIDENT_FEATURES:
            is_number = name in mobility.NUMBERS
            row[name] = "False" if name in mobility.FLAGS else f"{number / 2}" if is_number else f"x{number % 3}"
        lines.append(",".join(change(row)[name] for name in names))
    path.write_text("\n".join(lines) + "\n")
    return path


def data(name, path):
    return load(DataSettings(name=name, path=str(path), held_out=0.25))


def test_accidents_from_a_table(tmp_path):
    dataset = data("accident", accidents(tmp_path / "accident.csv"))
    assert dataset.inputs.shape == (20, 29) and dataset.num_classes == 2
    row = int(np.flatnonzero(np.asarray(dataset.ids) == 19)[0])
    assert dataset.labels[row] == 1
    by_name = dict(zip(mobility.ACCIDENT_FEATURES, dataset.inputs[row].tolist(), strict=True))
    assert by_name["Start_Lat"] == 100 and by_name["County"] == 2 and by_name["Amenity"] == 0


def checkins(path, hours=168, label="category"):
    header = ",".join([*(f"h{hour}" for hour in range(hours)), "locid", label])
    rows = [",".join([*(str((hour + row) % 5) for hour in range(hours)), f"p{row}", str(row % 9)]) for row in range(18)]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_check_ins_from_a_table(tmp_path):
    dataset = data("insta_ny", checkins(tmp_path / "ny_withCatId.csv"))
    assert dataset.inputs.shape == (18, 168) and dataset.num_classes == 9
    row = int(np.flatnonzero(np.asarray(dataset.ids) == 4)[0])
    assert dataset.labels[row] == 4 and dataset.inputs[row, :3].tolist() == [4, 0, 1]


@pytest.mark.parametrize("change, message", [
    ({"Severity": "5"}, "the severity '5' is not one of 1, 2, 3, 4"),
    ({"Start_Lat": "north"}, "column 'Start_Lat' contains a value that is not a number"),
    ({"Amenity": "maybe"}, "column 'Amenity' contains 'maybe', expected True or False"),
])  # fmt: skip
def test_malformed_accidents_are_refused(tmp_path, change, message):
    path = accidents(tmp_path / "accident.csv", lambda row: row | change)
    with pytest.raises(errors.DataError, match=message):
        data("accident", path)


def test_other_malformed_tables_are_refused(tmp_path):
    with pytest.raises(errors.DataError, match="has 100 columns besides locid and the category"):
        data("insta_la", checkins(tmp_path / "la.csv", hours=100))
    (tmp_path / "short.csv").write_text("Severity\n1\n")
    with pytest.raises(errors.DataError, match="has no column 'Source'"):
        data("accident", tmp_path / "short.csv")
    (tmp_path / "empty.csv").write_text("a,b\n")
    with pytest.raises(errors.DataError, match="contains no rows under its header"):
        data("accident", tmp_path / "empty.csv")
