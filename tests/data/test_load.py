import subprocess
import sys

import numpy as np
import pytest

from jaxunlearn import data, errors
from jaxunlearn.data.formats import files, published_permutations
from jaxunlearn.records import Dataset
from jaxunlearn.settings import DataSettings


def refused(name="digits", kind=errors.DataError, **settings):
    with pytest.raises(kind) as caught:
        data.load(DataSettings(name=name, **settings))
    return str(caught.value)


def test_digits_are_small_real_pictures_cut_by_the_fixed_permutation():
    from sklearn import datasets

    dataset, raw = data.load(DataSettings()), datasets.load_digits()
    assert dataset.inputs.shape == (1797, 8, 8, 1) and dataset.inputs.dtype == np.uint8
    assert (dataset.num_train, dataset.num_classes, dataset.scale) == (1437, 10, 16.0)
    assert dataset.class_names == tuple("0123456789")
    assert (dataset.labels.dtype, dataset.ids.dtype) == (np.int32, np.int64)
    np.testing.assert_array_equal(dataset.ids, published_permutations.fixed(1797))
    np.testing.assert_array_equal(dataset.inputs[..., 0], raw.images[dataset.ids])
    np.testing.assert_array_equal(dataset.labels, raw.target[dataset.ids])
    scaled = dataset.inputs[:1437] / 16
    assert dataset.mean == (pytest.approx(scaled.mean()),) and dataset.std == (pytest.approx(scaled.std()),)


def test_pools_are_cut_to_their_first_rows():
    whole = data.load(DataSettings())
    cut = data.load(DataSettings(train_rows=100, test_rows=30, normalise=False))
    assert (len(cut.labels), cut.num_train, cut.mean, cut.std) == (130, 100, (), ())
    np.testing.assert_array_equal(cut.ids, np.r_[whole.ids[:100], whole.ids[1437:1467]])
    only_test = data.load(DataSettings(test_rows=5))
    assert (only_test.num_train, len(only_test.labels)) == (1437, 1442)
    assert "data.train_rows = 2000, but that pool of 'digits' has 1437 rows" in refused(train_rows=2000)
    assert "data.test_rows = 400" in refused(test_rows=400)


def test_a_users_own_source_is_reached_by_module_and_name(tmp_path, monkeypatch):
    (tmp_path / "my_rows.py").write_text(
        "import numpy as np\nfrom jaxunlearn.records import Dataset\n"
        "def three(settings):\n"
        "    return Dataset(np.ones((3, 2), np.float32), np.array([0, 1, 0], np.int32), np.arange(3), num_train=2,"
        " num_classes=2)\n"
        "def wrong(settings):\n    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert len(data.load(DataSettings(name="my_rows:three")).labels) == 3
    assert "returned int, expected records.Dataset" in refused("my_rows:wrong")
    assert "Did you mean 'three'" in refused("my_rows:tree", errors.ConfigError)
    assert "cannot import module 'no_rows'" in refused("no_rows:x", errors.ConfigError)


def test_arrays_of_a_users_source_are_brought_to_the_host(tmp_path, monkeypatch):
    (tmp_path / "jax_rows.py").write_text(
        "import jax.numpy as jnp\nfrom jaxunlearn.records import Dataset\n"
        "def dataset(**facts):\n"
        "    rows = jnp.arange(3)\n"
        "    return Dataset(jnp.ones((3, 2)), rows % 2, rows, num_train=2, num_classes=2, **facts)\n"
        "def three(settings):\n    return dataset(groups=jnp.zeros(3, jnp.int32), ood=dataset())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    loaded = data.load(DataSettings(name="jax_rows:three"))
    for dataset in (loaded, loaded.ood):
        assert type(dataset.inputs) is type(dataset.labels) is type(dataset.ids) is np.ndarray
    assert type(loaded.groups) is np.ndarray and loaded.ood.groups is None


def test_an_unknown_name_names_the_nearest_source():
    assert "unknown data source 'cifer10'. Did you mean 'cifar10'?" in refused("cifer10", errors.ConfigError)


def test_what_every_later_stage_relies_on_is_checked():
    sound = Dataset(
        np.ones((4, 2), np.float32), np.array([0, 1, 0, 1], np.int32), np.arange(4), name="made", num_train=2,
        num_classes=2,
    )  # fmt: skip
    data.validate(sound, "made")
    nan = np.ones((4, 2), np.float32)
    nan[1, 0] = np.nan
    for expected, broken in {
        "ids has 3 rows": {"ids": np.arange(3)},
        "inputs have dtype float64": {"inputs": np.ones((4, 2))},
        "0 of 4 rows are the train pool": {"num_train": 0},
        "4 of 4 rows are the train pool": {"num_train": 4},
        "1 class": {"num_classes": 1},
        "but 1 class names": {"class_names": ("a",)},
        "must lie in [0, 1]": {"labels": np.array([0, 1, 2, 0], np.int32)},
        "1 value(s) that are NaN or infinite": {"inputs": nan},
        "mean has 3 and std 3 values for 2": {"mean": (0.0,) * 3, "std": (1.0,) * 3},
        "must be above 0": {"mean": (0.0,) * 2, "std": (1.0, 0.0)},
    }.items():
        with pytest.raises(errors.DataError) as caught:
            data.validate(sound.replace(**broken), "made")
        assert expected in str(caught.value)


def test_importing_the_room_stays_cheap():
    code = (
        "import sys, jaxunlearn.data, jaxunlearn.data.splitting.splits, jaxunlearn.data.augmentation.augment;"
        "import jaxunlearn.data.summary;"
        "print([m for m in ('sklearn', 'tensorflow_datasets', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_cached_copy_is_made_once_and_a_damaged_one_is_named(tmp_path):
    settings, calls = DataSettings(name="made", cache=str(tmp_path / "cache")), []

    def make():
        calls.append(1)
        return {"x": np.arange(3)}

    for _ in range(2):
        np.testing.assert_array_equal(files.load_cached(settings, "made-1", make)["x"], np.arange(3))
    path = tmp_path / "cache" / "made-1.npz"
    assert len(calls) == 1 and [path.name for path in path.parent.iterdir()] == [path.name]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(errors.DataError, match="decoded copy .* is damaged. Delete that file"):
        files.load_cached(settings, "made-1", make)


def test_a_cache_folder_that_cannot_be_written_costs_only_a_warning(tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    settings = DataSettings(name="made", cache=str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="no decoded copy could be kept"):
        assert files.load_cached(settings, "made-1", lambda: {"x": np.ones(1)})["x"] == 1


def test_missing_data_name_every_way_out():
    for name in ("cifar10", "cifar100", "cifar20", "mnist", "fashion_mnist", "svhn", "cinic10", "tiny_imagenet"):
        message = refused(name)
        assert f"data set '{name}' was not found" in message
        assert "--config.data.path" in message and "--config.data.name=digits" in message
    assert "python -m launch.data --config=CONFIG --import=cifar-100-binary.tar.gz" in refused("cifar20")
    assert "download_and_prepare()" in refused("mnist") and "--import" not in refused("mnist")
    for name, file in (("location30", "dataset_location.tgz"), ("purchase100", "dataset_purchase.tgz"),
                       ("texas100", "dataset_texas.tgz"), ("adult", "adult.data")):  # fmt: skip
        assert file in refused(name) and "data.path is empty" in refused(name)
        assert "/nowhere, given as data.path" in refused(name, path="/nowhere")
    assert "needs a file" in refused("npz") and "needs a folder" in refused("folder")
    message = refused("cifar10", path="/nowhere.npz")
    assert "/nowhere.npz, given as data.path" in message and "--import=cifar-10-binary.tar.gz" in message
