"""Rows are named by their number in the user's own file, wherever the pools put them."""

import numpy as np
import pytest

from jaxunlearn import data, errors
from jaxunlearn.data import naming
from jaxunlearn.data.splitting import forget, splits
from jaxunlearn.settings import DataSettings, ForgetSettings, SplitSettings

COUNT = 200
X = np.random.default_rng(0).normal(size=(COUNT, 3)).astype(np.float32)
X[:, 0] = np.arange(COUNT)
CUSTOMERS = np.array([f"customer {7 * row}" for row in range(COUNT)])


def load(tmp_path, **content):
    np.savez(tmp_path / "people.npz", x=X, y=np.arange(COUNT) % 3, **content)
    return data.load(DataSettings(name="npz", path=str(tmp_path / "people.npz")))


def asking(path, **settings):
    return SplitSettings(shadow=20, forget=ForgetSettings(kind="index_file", path=str(path), **settings))


def refused(path, dataset):
    with pytest.raises(errors.DataError) as caught:
        forget.read_index_file(str(path), dataset)
    return str(caught.value)


def test_an_index_file_lists_rows_of_the_users_file(tmp_path):
    dataset = load(tmp_path)
    (tmp_path / "ask.txt").write_text("5, 17\n60 17\n")
    split = splits.draw(dataset, asking(tmp_path / "ask.txt"), 0)
    people = dataset.inputs[np.flatnonzero(split.forget[0]), 0]
    assert sorted(people.tolist()) == [5, 17, 60]
    assert not np.isin(np.flatnonzero(split.forget[0]), [5, 17, 60]).all(), "the pools are permuted"
    assert forget.sentences(dataset, asking(tmp_path / "ask.txt"))[0].startswith(f"index file {tmp_path / 'ask.txt'}")


def test_ids_are_carried_along_and_may_be_asked_for(tmp_path):
    dataset = load(tmp_path, ids=CUSTOMERS)
    np.testing.assert_array_equal(dataset.names, CUSTOMERS[dataset.inputs[:, 0].astype(int)])
    np.testing.assert_array_equal(dataset.ids, dataset.inputs[:, 0])
    (tmp_path / "ask.txt").write_text("ids\ncustomer 35\ncustomer 119\n")
    np.save(tmp_path / "ask.npy", CUSTOMERS[[5, 17]])
    for name in ("ask.txt", "ask.npy"):
        (positions,) = forget.read_index_file(str(tmp_path / name), dataset)
        assert sorted(dataset.inputs[positions, 0].tolist()) == [5, 17]
        assert sorted(naming.display_names(dataset, positions).tolist()) == ["17 (customer 119)", "5 (customer 35)"]
        assert sorted(naming.result_names(dataset, positions)["rows"].tolist()) == [5, 17]
    (tmp_path / "ask.txt").write_text("ids\nnobody\n")
    assert "lists id nobody, which the data set does not contain" in refused(tmp_path / "ask.txt", dataset)
    assert "has none. List row numbers" in refused(tmp_path / "ask.txt", load(tmp_path))
    duplicates = load(tmp_path, ids=np.zeros(COUNT, int))
    (tmp_path / "ask.txt").write_text("ids\n0\n")
    assert "which several rows of the data set have" in refused(tmp_path / "ask.txt", duplicates)


def test_rows_that_nobody_can_forget_are_refused_by_their_own_numbers(tmp_path):
    dataset = load(tmp_path, ids=CUSTOMERS)
    held_out = int(dataset.ids[dataset.num_train])
    np.save(tmp_path / "a.npy", np.array([held_out]))
    output = refused(tmp_path / "a.npy", dataset)
    assert f"lists row {held_out} (customer {7 * held_out})" in output and "does not contain it" in output
    np.save(tmp_path / "a.npy", np.array([3, 999]))
    assert "lists row 999, which the data set does not contain" in refused(tmp_path / "a.npy", dataset)
    for mask in (np.arange(160) == 5, (np.arange(160) == 5).astype(np.uint8)):
        np.save(tmp_path / "a.npy", mask)
        assert "numpy.flatnonzero(mask)" in refused(tmp_path / "a.npy", dataset)
    (tmp_path / "a.txt").write_text("9" * 30)
    assert "cannot be read as row numbers" in refused(tmp_path / "a.txt", dataset)
    published = SplitSettings(shadow=20, rng="mt19937", forget=ForgetSettings(kind="index_file"))
    shadow = dataset.ids[:2]
    with pytest.raises(errors.DataError, match=f"first {shadow[0]} \\(customer {7 * shadow[0]}\\)"):
        forget.draw(dataset, np.arange(2, 160), published, 0, [np.arange(2)])


def test_ids_that_do_not_fit_are_refused(tmp_path):
    for ids in (CUSTOMERS[:9], np.linspace(0, 1, COUNT)):
        with pytest.raises(errors.DataError, match="expected a whole number or text for each of 200 samples"):
            load(tmp_path, ids=ids)
    content = {
        f"{kind}_{pool}": X[:4] if kind == "x" else np.arange(4) % 2 for kind in "xy" for pool in ("train", "test")
    }
    path = tmp_path / "pools.npz"
    np.savez(path, **content, ids_train=np.arange(4))
    with pytest.raises(errors.DataError, match="no ids_test"):
        data.load(DataSettings(name="npz", path=str(path)))
    np.savez(path, **content, ids_train=np.arange(4), ids_test=np.arange(4) + 50)
    dataset = data.load(DataSettings(name="npz", path=str(path), train_rows=3))
    assert dataset.ids.tolist() == [0, 1, 2, 4, 5, 6, 7] and dataset.names.tolist() == [0, 1, 2, 50, 51, 52, 53]


def test_messages_about_rows_count_them_as_the_file_does(tmp_path):
    wrong = X.copy()
    wrong[123, 1] = np.nan
    np.savez(tmp_path / "nan.npz", x=wrong, y=np.arange(COUNT) % 3)
    with pytest.raises(errors.DataError, match=r"first at \(123, 1\)"):
        data.load(DataSettings(name="npz", path=str(tmp_path / "nan.npz")))
    labels = np.arange(COUNT) % 3
    labels[77] = 9
    np.savez(tmp_path / "label.npz", x=X, y=labels, class_names=np.array(["a", "b", "c"]))
    with pytest.raises(errors.DataError, match="row 77 is 9"):
        data.load(DataSettings(name="npz", path=str(tmp_path / "label.npz")))


def test_classes_are_told_by_their_names(tmp_path):
    names = [str(number) for number in (0, 1, 10, 11, *range(2, 10))]
    dataset = load(tmp_path).replace(num_classes=12, class_names=tuple(names))
    settings = SplitSettings(forget=ForgetSettings(kind="one_class", classes=(2, 0)))
    assert forget.sentences(dataset, settings) == (
        "split.forget.classes: class 2 is '10' (the one called '2' is class 4); class 0 is '0'",
    )
    assert forget.sentences(dataset, SplitSettings()) == ()


@pytest.mark.parametrize("values", [(7, 100201, 20_000_000), (3, 41), (0, 2**40)])
def test_labels_that_are_names_are_not_taken_for_class_numbers(tmp_path, values):
    y = np.array(values)[np.arange(COUNT) % len(values)]
    np.savez(tmp_path / "ids.npz", x=X, y=y)
    with pytest.raises(errors.DataError, match="return_inverse=True") as caught:
        data.load(DataSettings(name="npz", path=str(tmp_path / "ids.npz")))
    assert f"only {len(values)} different values" in str(caught.value) or str(2**40) in str(caught.value)
    np.savez(tmp_path / "few.npz", x=X, y=np.arange(COUNT) % 3 * 3, class_names=np.array(list("abcdefghijklmnop")))
    assert data.load(DataSettings(name="npz", path=str(tmp_path / "few.npz"))).num_classes == 16
