import gzip
import io
import os
import pathlib
import tarfile
import zipfile

import numpy as np
import pytest

from jaxunlearn import data, errors
from jaxunlearn.data.formats import published_permutations
from jaxunlearn.data.sources import tabular
from jaxunlearn.settings import DataSettings

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "unlearning_leaks"
COUNT = 40
X = np.random.default_rng(1).integers(0, 2, (COUNT, 6)).astype(np.uint8)
Y = np.arange(COUNT) % 30


def load(name, path, **settings):
    return data.load(DataSettings(name=name, path=str(path), **settings))


def refused(name, path):
    with pytest.raises(errors.DataError) as caught:
        load(name, path)
    return str(caught.value)


def table(labels, x=X, quote="", end="\n"):
    return "".join(f"{quote}{y}{quote}," + ",".join(map(str, row)) + end for y, row in zip(labels, x, strict=True))


def write_tar(path, **texts):
    with tarfile.open(path, "w:gz") as tar:
        for name, text in texts.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))


def same(dataset, labels=Y, num_classes=30):
    np.testing.assert_array_equal(dataset.ids, published_permutations.fixed(COUNT))
    np.testing.assert_array_equal(dataset.inputs, X[dataset.ids])
    np.testing.assert_array_equal(dataset.labels, labels[dataset.ids])
    assert (dataset.num_train, dataset.num_classes, dataset.mean, dataset.scale) == (32, num_classes, (), 1.0)
    return True


def test_location_is_read_from_archive_folder_file_and_npz(tmp_path, monkeypatch):
    text = table(Y, quote='"', end="\r\n")
    write_tar(tmp_path / "dataset_location.tgz", **{"./._bangkok": "junk", "bangkok": text})
    assert same(load("location30", tmp_path / "dataset_location.tgz"))
    with monkeypatch.context() as patch:
        patch.setattr(tabular, "_texts", None)
        assert same(load("location30", tmp_path / "dataset_location.tgz")), "the second time from the decoded copy"
    with zipfile.ZipFile(tmp_path / "location.zip", "w") as archive:
        archive.writestr("location/bangkok", text)
    assert same(load("location30", tmp_path / "location.zip"))
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "unpacked" / "bangkok").write_text(text)
    assert same(load("location30", tmp_path / "unpacked"))
    assert same(load("location30", tmp_path / "unpacked" / "bangkok"))
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    np.savez(tmp_path / "b.npz", features=X.astype(np.float32), labels=np.eye(30)[Y])
    assert same(load("location30", tmp_path / "a.npz")) and same(load("location30", tmp_path / "b.npz"))


def test_an_archive_in_the_cache_folder_is_found_by_its_published_name(tmp_path):
    write_tar(tmp_path / "dataset_location.tgz", bangkok=table(Y))
    assert same(data.load(DataSettings(name="location30", cache=str(tmp_path))))


def test_labels_that_count_from_one_are_shifted(tmp_path):
    labels = np.where(np.arange(COUNT) < COUNT - 1, np.arange(COUNT) + 1, 100)
    write_tar(tmp_path / "p.tgz", dataset_purchase=table(labels))
    assert same(load("purchase100", tmp_path / "p.tgz"), labels - 1, 100)
    feats, label_lines = "".join(",".join(map(str, row)) + "\n" for row in X), "".join(f"{y}\n" for y in labels)
    write_tar(tmp_path / "t.tgz", **{"texas/100/feats": feats, "texas/100/labels": label_lines, "texas/100/desc": "x"})
    assert same(load("texas100", tmp_path / "t.tgz"), labels - 1, 100)
    (tmp_path / "texas" / "100").mkdir(parents=True)
    (tmp_path / "texas" / "100" / "feats").write_text(feats)
    assert "needs the file 'labels' in the same folder" in refused("texas100", tmp_path / "texas" / "100" / "feats")
    (tmp_path / "texas" / "100" / "labels").write_text(label_lines)
    assert same(load("texas100", tmp_path / "texas"), labels - 1, 100)
    assert same(load("texas100", tmp_path / "texas" / "100" / "feats"), labels - 1, 100)
    (tmp_path / "texas" / "100" / "labels").write_text(label_lines[:-4])
    assert f"{COUNT} rows of features, but {COUNT - 1} labels" in refused("texas100", tmp_path / "texas")


def test_every_malformed_table_is_refused(tmp_path):
    path = tmp_path / "bangkok"
    for text, expected in (
        ("", "contains no rows"),
        ("0,1,0\n1,0\n", "row 1 is not a list of 2 features 0 or 1"),
        ("0,1,2\n", "row 0 is not a list"),
        ("0,1;0\n", "row 0 is not a list"),
        ("a,1,0\n", "a label that is not a whole number"),
        ("31,1,0\n0,0,1\n", "must lie in [0, 29]"),
    ):
        path.write_text(text)
        assert expected in refused("location30", path)
    write_tar(tmp_path / "other.tgz", readme="x")
    assert "contains no file 'bangkok' of data set 'location30'; it contains readme" in refused(
        "location30", tmp_path / "other.tgz"
    )
    np.savez(tmp_path / "a.npz", a=X)
    assert "contains the arrays a" in refused("location30", tmp_path / "a.npz")
    raw = (tmp_path / "other.tgz").read_bytes()
    (tmp_path / "cut.tgz").write_bytes(raw[:20])
    assert refused("location30", tmp_path / "cut.tgz")


ROWS = """\
39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, Cuba, <=50K
50, ?, 83311, Bachelors, 13, Married-civ-spouse, Exec-managerial, Husband, White, Male, 0, 0, 13, Cuba, >50K
38, Private, 215646, HS-grad, 9, Divorced, Sales, Not-in-family, Black, Female, 0, 0, 40, France, <=50K
28, Private, 338409, Masters, 14, Divorced, Sales, Wife, Black, Female, 0, 0, 40, France, >50K.

"""
CODES = np.array([
    [39, 2, 77516, 0, 13, 0, 1, 2, 1, 1, 2174, 0, 40, 0],
    [50, 0, 83311, 0, 13, 1, 0, 1, 1, 1, 0, 0, 13, 0],
    [38, 1, 215646, 1, 9, 2, 1, 0, 0, 0, 0, 0, 40, 1],
    [28, 1, 338409, 2, 14, 2, 2, 0, 0, 0, 0, 0, 40, 1],
])  # fmt: skip


def test_adult_is_coded_by_sorted_values_with_and_without_header(tmp_path):
    header = "age,workclass,fnlwgt,education,educational-num,marital-status,occupation,relationship,race,gender,"
    header += "capital-gain,capital-loss,hours-per-week,native-country,income\n"
    (tmp_path / "adult.data").write_text("|1x3 Cross validator\n" + ROWS)
    (tmp_path / "adult.csv.gz").write_bytes(gzip.compress((header + ROWS.replace(", ", ",")).encode()))
    for name in ("adult.data", "adult.csv.gz"):
        dataset = load("adult", tmp_path / name, held_out=0.25)
        order = published_permutations.fixed(4)
        np.testing.assert_array_equal(dataset.inputs, CODES[order])
        assert dataset.inputs.dtype == np.float32 and dataset.num_train == 3
        np.testing.assert_array_equal(dataset.labels, np.array([0, 1, 0, 1])[order])
        np.testing.assert_array_equal(dataset.groups, np.array([1, 1, 0, 0])[order])
        np.testing.assert_allclose(dataset.mean, CODES[order[:3]].mean(0))


def test_every_malformed_adult_file_is_refused(tmp_path):
    path = tmp_path / "adult.data"
    for text, expected in (
        ("", "contains no rows"),
        ("age,sex\n1,2\n", "has no column 'workclass'"),
        (ROWS + "1, 2\n", "line 6: 2 columns, expected 15"),
        (ROWS.replace("77516", "much"), "'fnlwgt' contains a value that is not a whole number"),
        (ROWS.replace(">50K\n", "rich\n"), "the income 'rich' is neither"),
    ):
        path.write_text(text)
        assert expected in refused("adult", path)
    path.write_bytes(b"\x1f\x8bno archive")
    assert "cannot be read as text" in refused("adult", path)
    path.write_text(ROWS.replace("State-gov", "x" * 140_000))
    assert "field larger than field limit" in refused("adult", path)
    path.write_text(ROWS.replace("77516", "9" * 400))
    assert "'fnlwgt' contains a value" in refused("adult", path)


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_lines_may_end_as_on_any_system(tmp_path, end):
    (tmp_path / "adult.data").write_bytes(b"\xef\xbb\xbf" + ROWS.replace("\n", end).encode())
    np.testing.assert_array_equal(
        load("adult", tmp_path / "adult.data", held_out=0.25).inputs, CODES[published_permutations.fixed(4)]
    )
    (tmp_path / "bangkok").write_bytes(table(Y, end=end).encode())
    assert same(load("location30", tmp_path / "bangkok"))


def test_files_that_never_end_or_do_not_fit_into_memory_are_refused_unread(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    for name in ("adult", "location30", "texas100", "npz"):
        assert "is neither a file nor a folder" in refused(name, tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "bangkok")
    assert "contains no file 'bangkok'" in refused("location30", tmp_path / "folder")
    text = table(Y)
    (tmp_path / "adult.csv.gz").write_bytes(gzip.compress(b"0" * 10_000_000))
    write_tar(tmp_path / "dataset_location.tgz", bangkok=text * 500)
    with zipfile.ZipFile(tmp_path / "location.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bangkok", text * 500)
    np.savez_compressed(tmp_path / "big.npz", x=np.zeros((COUNT, 100_000)), y=Y)
    monkeypatch.setattr("os.sysconf", lambda name: 200)
    for name, file in (("adult", "adult.csv.gz"), ("location30", "dataset_location.tgz"),
                       ("location30", "location.zip")):  # fmt: skip
        assert "of memory; this machine has 39.1 KiB" in refused(name, tmp_path / file)
    assert "cannot be read as an .npz of plain arrays" in refused("npz", tmp_path / "big.npz")


def test_the_real_adult_file_encodes_as_published(shared):
    dataset = load("adult", shared("adult.csv.gz"))
    assert dataset.inputs.shape == (32561, 14) and dataset.num_train == 26048
    first = int(np.flatnonzero(dataset.ids == 0)[0])
    row = [*dataset.inputs[first].astype(int).tolist(), int(dataset.labels[first])]
    assert row == [39, 7, 77516, 9, 13, 1, 1, 4, 4, 1, 2174, 0, 40, 39, 0]
    assert int(dataset.labels.sum()) == 7841 and len(dataset.mean) == 14
    assert set(dataset.groups.tolist()) == {0, 1}
    with np.load(GOLDEN / "adult_encoding.npz") as expected:
        whole = np.column_stack([dataset.inputs, dataset.labels])[np.argsort(dataset.ids)].astype(np.int64)
        np.testing.assert_array_equal(whole[:256], expected["encoded_first256"])
        for name in ("sum", "min", "max"):
            np.testing.assert_array_equal(getattr(whole, name)(0), expected[f"column_{name}"])


def test_the_real_location_file_has_the_published_pools(shared):
    dataset = load("location30", shared("location30.npz"))
    assert dataset.inputs.shape == (5010, 446) and dataset.inputs.dtype == np.uint8
    assert (dataset.num_train, dataset.num_classes, dataset.mean) == (4008, 30, ())
