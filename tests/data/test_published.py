import hashlib
import io
import json
import tarfile

import numpy as np
import pytest

from jaxunlearn import data, errors
from jaxunlearn.data.sources import archives
from jaxunlearn.data.splitting import splits
from jaxunlearn.settings import DataSettings, ForgetSettings, SplitSettings

RANDOM = np.random.default_rng(2)


def load(name, path="", **settings):
    return data.load(DataSettings(name=name, path=str(path), **settings))


def refused(name, path="", **settings):
    with pytest.raises(errors.DataError) as caught:
        load(name, path, **settings)
    return str(caught.value)


def planes(x):
    return x.transpose(0, 3, 1, 2).reshape(len(x), -1)


def write_archive(path, members, monkeypatch):
    """An archive in the official layout whose sum passes for the official one."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"folder/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    archive = archives.ARCHIVES[path.name]
    changed = archives.dataclasses.replace(archive, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setitem(archives.ARCHIVES, path.name, changed)
    return path


@pytest.fixture
def cifar10_archive(tmp_path, monkeypatch):
    x = RANDOM.integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)
    y = np.arange(12) % 10
    records = np.concatenate([y[:, None], planes(x)], 1).astype(np.uint8)
    members = {f"data_batch_{i}.bin": records[2 * i - 2 : 2 * i].tobytes() for i in range(1, 6)}
    members |= {"test_batch.bin": records[10:].tobytes(), "batches.meta.txt": b"\n".join(b"n%d" % i for i in range(10))}
    return write_archive(tmp_path / "cifar-10-binary.tar.gz", members, monkeypatch), x, y


@pytest.fixture
def cifar100_archive(tmp_path, monkeypatch):
    x = RANDOM.integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)
    fine = np.array([4, 30, 1, 69, 99, 0, 41, 8, 3, 72, 95, 89])
    records = np.concatenate([np.zeros((12, 1)), fine[:, None], planes(x)], 1).astype(np.uint8)
    members = {"train.bin": records[:9].tobytes(), "test.bin": records[9:].tobytes()}
    return write_archive(tmp_path / "cifar-100-binary.tar.gz", members, monkeypatch), x, fine


def test_an_imported_archive_is_found_without_tfds(cifar10_archive, tmp_path, monkeypatch):
    path, x, y = cifar10_archive
    written = data.import_archive(str(path), str(tmp_path / "cache"))
    assert written.is_file()
    monkeypatch.setattr(archives.tfds, "read", None)
    dataset = load("cifar10", cache=str(tmp_path / "cache"))
    np.testing.assert_array_equal(dataset.inputs, x)
    np.testing.assert_array_equal(dataset.labels, y)
    np.testing.assert_array_equal(dataset.ids, np.arange(12))
    assert dataset.num_train == 10 and dataset.class_names[3] == "n3" and dataset.num_classes == 10
    assert (dataset.mean, dataset.std, dataset.scale) == (*archives.FACTS["cifar10"].constants, 255.0)
    direct = load("cifar10", path, cache=str(tmp_path / "other"))
    np.testing.assert_array_equal(direct.inputs, x)


def test_cifar20_has_coarse_labels_and_keeps_the_fine_ones_as_groups(cifar100_archive):
    path, x, fine = cifar100_archive
    dataset = load("cifar20", path)
    assert dataset.name == "cifar20" and dataset.num_classes == 20 and len(dataset.class_names) == 20
    assert dataset.labels.tolist() == [0, 0, 1, 19, 13, 4, 19, 18, 8, 0, 0, 19]
    np.testing.assert_array_equal(dataset.groups, fine)
    np.testing.assert_array_equal(dataset.inputs, x)
    whole = load("cifar100", path)
    assert whole.num_classes == 100 and whole.groups is None and whole.class_names == ()
    np.testing.assert_array_equal(whole.labels, fine)


def test_a_fine_class_of_cifar20_is_forgotten_under_its_coarse_class(cifar100_archive):
    path, _, fine = cifar100_archive
    dataset = load("cifar20", path)
    forget = ForgetSettings(kind="subclass", classes=(69, 4), count=3)
    split = splits.draw(dataset, SplitSettings(shadow=2, forget=forget), 0)
    inside = np.isin(np.arange(12), split.target)
    for row, fine_class in zip(split.forget, (69, 4, 69), strict=True):
        np.testing.assert_array_equal(row, (fine == fine_class) & inside)
    assert split.kind == "subclass" and dataset.labels[split.forget[0]].tolist() == [19]


def test_the_coarse_classes_partition_the_fine_ones():
    assert sorted(sum(archives.COARSE, ())) == list(range(100))
    assert len(archives.COARSE_NAMES) == len(archives.COARSE) == 20


def test_every_wrong_archive_is_refused(cifar10_archive, tmp_path, monkeypatch):
    path, _, _ = cifar10_archive

    def importing(name):
        with pytest.raises(errors.DataError) as caught:
            data.import_archive(str(name), str(tmp_path / "cache"))
        return str(caught.value)

    assert "there is no such file" in importing(tmp_path / "none.tar.gz")
    (tmp_path / "cifar.zip").write_bytes(b"x")
    assert "Known: cifar-10-binary.tar.gz" in importing(tmp_path / "cifar.zip")
    assert "is read from an .npz, from cifar-10-binary.tar.gz" in refused("cifar10", tmp_path / "cifar.zip")
    assert "data set 'cifar20' needs cifar-100-binary.tar.gz" in refused("cifar20", path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert "The download is incomplete" in importing(path)
    write_archive(path, {"data_batch_1.bin": b"x"}, monkeypatch)
    assert "contains no file data_batch_2.bin" in importing(path)
    write_archive(path, {f"data_batch_{i}.bin": b"x" for i in range(1, 6)}, monkeypatch)
    assert "5 bytes are not whole records of 3073 bytes" in importing(path)


def test_an_npz_as_path_gets_the_published_constants(tmp_path):
    x, y = RANDOM.integers(0, 256, (12, 28, 28)).astype(np.uint8), np.arange(12) % 10
    content = {"x_train": x[:9], "y_train": y[:9], "x_test": x[9:], "y_test": y[9:]}
    np.savez(tmp_path / "m.npz", **content)
    for name in ("mnist", "fashion_mnist"):
        dataset = load(name, tmp_path / "m.npz")
        assert dataset.inputs.shape == (12, 28, 28, 1)
        assert (dataset.mean, dataset.std) == archives.FACTS[name].constants and dataset.scale == 255.0
    assert "has 3 channel(s), but the inputs have shape" in refused("cifar10", tmp_path / "m.npz")
    np.savez(tmp_path / "f.npz", **content | {"x_train": x[:9] / 255, "x_test": x[9:] / 255})
    dataset = load("mnist", tmp_path / "f.npz")
    assert dataset.scale == 1.0 and dataset.mean == (0.1307,)
    np.savez(tmp_path / "g.npz", **content | {"x_train": x[:9] / 128 - 1, "x_test": x[9:] / 128 - 1})
    assert load("mnist", tmp_path / "g.npz").mean != (0.1307,), "normalised already: its own statistics"
    np.savez(tmp_path / "h.npz", x=np.zeros((20, 32, 32, 3), np.uint8) + 7, y=np.arange(20))
    dataset = load("cifar20", tmp_path / "h.npz")
    assert dataset.groups is None and dataset.num_classes == 20
    np.savez(tmp_path / "i.npz", x=np.zeros((20, 32, 32, 3), np.uint8) + 7, y=np.arange(20) + 90)
    assert "must lie in [0, 99]" in refused("cifar100", tmp_path / "i.npz")
    assert "must lie in [0, 99]" in refused("cifar20", tmp_path / "i.npz")


def prepare(folder, name, pools, shape=(4, 4, 3), with_id=True, features=None):
    """Prepares a data set with TFDS's own writer, as array_record and in its shuffled order."""
    import PIL.Image
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    kinds = {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(num_classes=10)}
    kinds |= {"id": tfds.features.Text()} if with_id else {}

    with registered.skip_registration():

        class Made(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("3.0.2")
            pkg_dir_path = None

            def _info(self):
                features_wanted = {key: kinds[key] for key in features or kinds}
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features_wanted))

            def _split_generators(self, manager):
                return {split: self._rows(split, images) for split, images in pools.items()}

            def _rows(self, split, images):
                for number, image in enumerate(images):
                    row = {"image": PIL.Image.fromarray(image), "label": number % 10, "id": f"{split}_{number:05d}"}
                    yield number, {key: row[key] for key in features or kinds}

            def _generate_examples(self):
                raise NotImplementedError

        Made.name = name
        builder = Made(data_dir=str(folder), file_format="array_record")
    builder.download_and_prepare()
    return folder / name / "3.0.2"


def images(count, shape=(4, 4, 3)):
    return [np.full(shape, 3 * number, np.uint8) for number in range(count)]


def test_prepared_data_are_read_in_source_order_and_cached(tmp_path, monkeypatch):
    folder = prepare(tmp_path / "tfds", "cifar10", {"train": images(30), "test": images(7)}, shape=(4, 4, 3))
    dataset = load("cifar10")
    assert dataset.inputs[:, 0, 0, 0].tolist() == [*range(0, 90, 3), *range(0, 21, 3)]
    assert dataset.labels.tolist() == [*(i % 10 for i in range(30)), *range(7)]
    assert dataset.ids.tolist() == list(range(37)) and dataset.num_train == 30
    assert dataset.mean == archives.FACTS["cifar10"].constants[0]
    with monkeypatch.context() as patch:
        patch.setattr(archives.tfds, "_read_split", None)
        np.testing.assert_array_equal(load("cifar10", tmp_path / "tfds").inputs, dataset.inputs)
    for shard in folder.glob("*train*"):
        shard.write_bytes(shard.read_bytes()[:100])
    message = refused("cifar10", cache=str(tmp_path / "fresh"))
    assert "delete that folder and prepare it again" in message and "split 'train'" in message


def test_other_prepared_data_are_found_by_their_name(tmp_path):
    prepare(tmp_path / "tfds", "own_set", {"train": images(20)}, with_id=False)
    with pytest.warns(UserWarning, match="shuffled order of TFDS"):
        dataset = load("own_set")
    assert dataset.name == "own_set" and (dataset.num_train, len(dataset.labels)) == (16, 20)
    np.testing.assert_array_equal(dataset.inputs[:, 0, 0, 0] // 3 % 10, dataset.labels)
    assert len(dataset.mean) == 3 and dataset.num_classes == 10
    mixed = [*images(4), *images(4, (6, 5, 3))]
    prepare(tmp_path / "tfds", "mixed_set", {"train": mixed, "validation": mixed[:2]}, shape=(None, None, 3))
    dataset = load("mixed_set", size=5)
    assert dataset.inputs.shape == (10, 5, 5, 3) and dataset.num_train == 8
    np.savez(tmp_path / "own.npz", x=np.zeros((20, 2), np.uint8), y=np.arange(20) % 2)
    assert load("mixed_set", tmp_path / "own.npz").inputs.shape == (20, 2), "an .npz stands in for any name"


def test_every_unreadable_preparation_is_refused(tmp_path):
    folder = prepare(tmp_path / "tfds", "mnist", {"train": images(3, (4, 4))}, (4, 4, 1), features=("image", "id"))
    assert "has the features id, image, but no 'label'" in refused("mnist").replace("image, id", "id, image")
    facts = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(facts | {"fileFormat": "tfrecord"}))
    message = refused("mnist")
    assert "was prepared as TFRECORD, which only TensorFlow can read" in message and "array_record" in message
    prepare(tmp_path / "tfds", "no_train", {"test": images(3)})
    assert "has the splits test, but no 'train'" in refused("no_train")
    assert "(looked for abstract_reasoning under" in refused("abstract_reasoning"), "its description needs TensorFlow"
    assert "(looked for caltech101/" in refused("caltech101")


def test_the_real_mnist_file_is_read_by_path(shared):
    dataset = load("mnist", shared("mnist.npz"), train_rows=1000, test_rows=100)
    assert dataset.inputs.shape == (1100, 28, 28, 1) and dataset.inputs.dtype == np.uint8
    assert dataset.mean == (0.1307,) and dataset.class_names == tuple("0123456789")
    assert abs(dataset.inputs[:1000].mean() / 255 - 0.1307) < 0.01
