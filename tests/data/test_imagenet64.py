"""ImageNet64's pickled batches: read as arrays, and never run."""

import pickle

import numpy as np
import pytest

from jaxunlearn import data, errors
from jaxunlearn.data.sources import imagenet64
from jaxunlearn.settings import DataSettings

RANDOM = np.random.default_rng(0)


def write(folder, name, count, labels, protocol=4, **more):
    pixels = RANDOM.integers(0, 256, (count, 3, 64, 64)).astype(np.uint8)
    content = {"data": pixels.reshape(count, -1), "labels": list(labels), **more}
    (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))
    return pixels.transpose(0, 2, 3, 1)


def load(folder, **options):
    return data.load(DataSettings(name="imagenet64", path=str(folder), **options))


def test_batches_are_read_in_their_order_and_labels_count_from_0(tmp_path):
    batches = [
        write(tmp_path, f"train_data_batch_{number}", 2, (1 + number % 2, 3), protocol, mean=np.zeros(3))
        for number, protocol in ((1, 2), (2, 5), (10, 3))
    ]
    held_out = write(tmp_path, "val_data", 2, (2, 1))
    dataset = load(tmp_path, size=64)
    np.testing.assert_array_equal(dataset.inputs, np.concatenate([*batches, held_out]))
    assert dataset.labels.tolist() == [1, 2, 0, 2, 0, 2, 1, 0] and (dataset.num_train, dataset.num_classes) == (6, 3)
    assert dataset.mean == () and dataset.scale == 255.0
    small = load(tmp_path, ood_classes=("1",))
    assert small.inputs.shape == (6, 32, 32, 3) and small.ood.labels.tolist() == [0, 0] and small.num_classes == 2


def test_a_subset_of_classes_keeps_their_published_numbers_as_names(tmp_path):
    write(tmp_path, "train_data_batch_1", 3, (900, 17, 40))
    write(tmp_path, "val_data", 1, (40,))
    dataset = load(tmp_path)
    assert dataset.class_names == ("17", "40", "900") and dataset.labels.tolist() == [2, 0, 1, 1]
    write(tmp_path, "val_data", 1, (41,))
    with pytest.raises(errors.DataError, match="contains class 41, of which the train batches have no picture"):
        load(tmp_path)


class Trap:
    """A pickle that runs a command when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_batch_that_would_run_code_is_refused_unrun(tmp_path):
    write(tmp_path, "val_data", 1, (1,))
    trap = tmp_path / "sprung"
    write(tmp_path, "train_data_batch_1", 1, (1,), more=Trap(trap))
    with pytest.raises(errors.DataError, match=r"asks for (_io|io)\.open"):
        load(tmp_path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no pickle", "cannot be read as a pickled batch"),
        (pickle.dumps([1]), "contains list"),
        (pickle.dumps({"labels": [1]}), "no 'data'"),
        (pickle.dumps({"data": np.zeros((1, 5), np.uint8), "labels": [1]}), r"expected uint8 \[n, 12288\]"),
        (pickle.dumps({"data": np.zeros((1, 12288), np.uint8), "labels": [0]}), "whole number from 1"),
    ],
)
def test_malformed_batches_are_refused(tmp_path, content, words):
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(errors.DataError, match=words):
        imagenet64._read_batch(tmp_path / "batch", 64)


def test_absent_batches_are_told(tmp_path):
    with pytest.raises(errors.DataError, match="train_data_batch_1 ... and val_data"):
        load(tmp_path)
