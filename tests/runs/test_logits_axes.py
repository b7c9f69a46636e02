"""Whoever finds a file of logits finds next to it which models, rows and classes of the user's its axes are."""

import contextlib
import io
import json
import re
from pathlib import Path

import finished
import numpy as np
import pytest

from jaxunlearn import data, settings, store

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def logits():
    return finished.folder() / "logits"


@pytest.fixture(scope="module")
def index(logits):
    return json.loads((logits / "index.json").read_text())


def test_every_file_of_logits_is_described(logits, index):
    recorded = {path.with_suffix(".npy").name for path in logits.glob("*.json") if path.name != "index.json"}
    assert recorded and recorded == set(index)
    for name, about in index.items():
        values = np.load(logits / name)
        for axis in ("file_rows", "labels", "rows"):
            assert np.load(logits / about[axis]).shape == (values.shape[1],), (name, axis)
        assert np.load(logits / about["trained"]).shape == values.shape[:2] and about["role"] == name[: -len(".npy")]
        assert about["axes"] == ["models", "rows", "classes"] and about["view"] == "clean"
        assert np.load(logits / about["class_names"]).tolist() == [str(digit) for digit in range(10)]


def test_rows_labels_and_members_are_those_of_the_users_data(logits, index):
    from sklearn.datasets import load_digits

    about = index["retrained.npy"]
    rows = np.load(logits / about["file_rows"])
    np.testing.assert_array_equal(np.load(logits / about["labels"]), load_digits().target[rows])
    dataset = data.load(settings.DataSettings())
    np.testing.assert_array_equal(dataset.ids[np.load(logits / about["rows"])], rows)
    split = np.load(logits.parent / "split.npz")
    kept, original = np.load(logits / about["trained"]), np.load(logits / index["original.npy"]["trained"])
    for number, forget_mask in enumerate(split["forget"]):
        forget_mask = np.asarray(forget_mask)
        forget_mask = np.flatnonzero(forget_mask) if forget_mask.dtype == bool else forget_mask
        gone = rows[original[number] & ~kept[number]]
        assert set(gone.tolist()) <= set(dataset.ids.tolist()) and len(gone) == 50
    assert not (kept & ~original).any()


def test_roles_with_the_same_rows_share_their_files(index):
    assert {about["file_rows"] for about in index.values()} == {"file_rows.npy"}
    assert len({about["trained"] for about in index.values()}) == len(index)


def test_the_lines_of_the_docs_run_and_say_the_accuracy(logits):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/reading.md").read_text(), flags=re.DOTALL)
    code = next(block for block in blocks if "index.json" in block)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code.replace("runs/digits/logits/", f"{logits}/"), {})  # noqa: S102
    accuracy = float(out.getvalue().split()[0])
    values, trained = np.load(logits / "original.npy"), np.load(logits / "original.trained.npy")
    assert accuracy == pytest.approx((values.argmax(-1) == np.load(logits / "labels.npy"))[trained].mean())


def describe(folder, name, rows, is_main, stem=""):
    path = folder / f"{name}.npy"
    np.save(path, np.zeros((2, len(rows), 3)))
    store.axes.describe(
        path, stem or name, {"rows": np.array(rows), "file_rows": np.array(rows) * 10},
        {"class_names": np.array(["a", "b", "c"])}, np.ones((2, len(rows)), bool), {"role": name}, is_main,
    )  # fmt: skip
    return json.loads((folder / "index.json").read_text())


def test_a_role_with_other_rows_has_files_of_its_own(tmp_path):
    index = describe(tmp_path, "leaks", [4, 5], False)
    assert index["leaks.npy"]["file_rows"] == "leaks.file_rows.npy"
    index = describe(tmp_path, "shadow", [1, 2, 3], True)
    assert index["shadow.npy"]["file_rows"] == "file_rows.npy" and len(index) == 2
    index = describe(tmp_path, "original", [1, 2, 3], False)
    assert index["original.npy"]["file_rows"] == "file_rows.npy"
    index = describe(tmp_path, "snapshots", [3], False)
    assert np.load(tmp_path / index["snapshots.npy"]["file_rows"]).tolist() == [30]
    assert np.load(tmp_path / index["leaks.npy"]["file_rows"]).tolist() == [40, 50]


def test_nothing_is_written_twice_and_what_is_gone_is_forgotten(tmp_path):
    describe(tmp_path, "shadow", [1, 2, 3], True)
    describe(tmp_path, "original", [1, 2], False)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != "shadow.npy"}
    describe(tmp_path, "shadow", [1, 2, 3], True)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != "shadow.npy"}
    (tmp_path / "original.npy").unlink()
    (tmp_path / "rows.npy").write_bytes(b"damaged")
    assert set(describe(tmp_path, "shadow", [1, 2, 3], True)) == {"shadow.npy"}
    assert np.load(tmp_path / "rows.npy").tolist() == [1, 2, 3]
    (tmp_path / "index.json").write_text("{")
    assert set(describe(tmp_path, "shadow", [1, 2, 3], True)) == {"shadow.npy"}
