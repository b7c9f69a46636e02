import numpy as np
import pytest

from jaxunlearn.records import Dataset
from tests import real_data


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """No test reads or writes the user's own caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


@pytest.fixture
def shared():
    return real_data.find


@pytest.fixture
def rows():
    """A tabular data set of given sizes whose only content is its labels."""

    def make(num_train=1000, num_held_out=100, num_classes=4):
        count = num_train + num_held_out
        return Dataset(
            inputs=np.zeros((count, 1), np.uint8),
            labels=(np.arange(count) % num_classes).astype(np.int32),
            ids=np.arange(count),
            name="made",
            num_train=num_train,
            num_classes=num_classes,
        )

    return make


@pytest.fixture
def pictures():
    """A picture data set of random bytes with the given number of rows and channels."""

    def make(count=20, side=8, channels=3, dtype=np.uint8):
        values = np.random.default_rng(0).integers(1, 256, (count, side, side, channels))
        return Dataset(
            inputs=values.astype(dtype),
            labels=(np.arange(count) % 2).astype(np.int32),
            ids=np.arange(count),
            name="made",
            num_train=count - 2,
            num_classes=2,
            scale=255.0,
            mean=(0.5,) * channels,
            std=(0.25,) * channels,
        )

    return make
