"""The published picture benchmarks with their published constants, from any of three kinds of files.

    data.path = an .npz            -> its arrays
    data.path = an official archive, or a copy imported before -> numpy reader
    else                           -> prepared by TensorFlow Datasets

Source of the constants: the configurations of the IAM reference (CIFAR), and the customary ones of the others.
"""

import dataclasses
import hashlib
import pathlib
import tarfile

import numpy as np

from jaxunlearn import errors
from jaxunlearn.data.formats import arrays, files
from jaxunlearn.data.sources import builtin, tfds
from jaxunlearn.records import Dataset
from jaxunlearn.settings import DataSettings


@dataclasses.dataclass(frozen=True)
class Facts:
    """Facts about a picture benchmark.

    Attributes:
      tfds: its name in TensorFlow Datasets.
      classes: number of classes.
      constants: published mean and std per channel, in units of 1/255.
      archive: the official archive, where there is a reader for it.
      names: class names, where the files do not hold them.
    """

    tfds: str
    classes: int
    constants: arrays.Constants
    archive: str = ""
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Archive:
    """An official archive: its checksum and the layout of its records (label bytes, then 3 planes of 32x32)."""

    sha256: str
    label_bytes: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str


_CIFAR100_CONSTANTS = ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
_DIGIT_NAMES = tuple("0123456789")

FACTS = {
    "cifar10": Facts("cifar10", 10, ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)), "cifar-10-binary.tar.gz"),
    "cifar100": Facts("cifar100", 100, _CIFAR100_CONSTANTS, "cifar-100-binary.tar.gz"),
    "mnist": Facts("mnist", 10, ((0.1307,), (0.3081,)), names=_DIGIT_NAMES),
    "fashion_mnist": Facts("fashion_mnist", 10, ((0.2860,), (0.3530,))),
    "svhn": Facts("svhn_cropped", 10, ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)), names=_DIGIT_NAMES),
}

ARCHIVES = {
    "cifar-10-binary.tar.gz": Archive(
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", 1,
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",), "batches.meta.txt",
    ),
    "cifar-100-binary.tar.gz": Archive(
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec", 2,
        ("train.bin",), ("test.bin",), "fine_label_names.txt",
    ),
}  # fmt: skip

# Fine classes of each coarse class of CIFAR-100, in the standard order.
COARSE = (
    (4, 30, 55, 72, 95), (1, 32, 67, 73, 91), (54, 62, 70, 82, 92), (9, 10, 16, 28, 61), (0, 51, 53, 57, 83),
    (22, 39, 40, 86, 87), (5, 20, 25, 84, 94), (6, 7, 14, 18, 24), (3, 42, 43, 88, 97), (12, 17, 37, 68, 76),
    (23, 33, 49, 60, 71), (15, 19, 21, 31, 38), (34, 63, 64, 66, 75), (26, 45, 77, 79, 99), (2, 11, 35, 46, 98),
    (27, 29, 44, 78, 93), (36, 50, 65, 74, 80), (47, 52, 56, 59, 96), (8, 13, 48, 58, 90), (41, 69, 81, 85, 89),
)  # fmt: skip
COARSE_NAMES = (
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices",
    "household_furniture", "insects", "large_carnivores", "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes", "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates",
    "people", "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
)  # fmt: skip


def cifar10(settings: DataSettings) -> Dataset:
    """Loads CIFAR-10: 50,000 + 10,000 pictures of 32x32x3, ten classes."""
    return _pictures(settings, "cifar10")


def cifar100(settings: DataSettings) -> Dataset:
    """Loads CIFAR-100 with its 100 fine classes: 50,000 + 10,000 pictures of 32x32x3."""
    return _pictures(settings, "cifar100")


def cifar20(settings: DataSettings) -> Dataset:
    """Loads CIFAR-100 with its 20 coarse classes as labels; `groups` holds the fine classes.

    The file is CIFAR-100's. An .npz may also hold coarse labels (none above 19); then there are no groups.
    """
    fine = _pictures(settings, "cifar100", label="cifar20")
    labels = np.asarray(fine.labels)
    if labels.max() < len(COARSE):
        return fine.replace(num_classes=len(COARSE), class_names=COARSE_NAMES)  # type: ignore[attr-defined]
    coarse_of = np.empty(100, np.int32)
    for coarse, members in enumerate(COARSE):
        coarse_of[list(members)] = coarse
    return fine.replace(  # type: ignore[attr-defined]
        labels=coarse_of[labels], groups=labels, num_classes=len(COARSE), class_names=COARSE_NAMES,
        group_names=fine.class_names,
    )  # fmt: skip


def mnist(settings: DataSettings) -> Dataset:
    """Loads MNIST: 60,000 + 10,000 pictures of 28x28x1, ten digits."""
    return _pictures(settings, "mnist")


def fashion_mnist(settings: DataSettings) -> Dataset:
    """Loads Fashion-MNIST: 60,000 + 10,000 pictures of 28x28x1, ten kinds of clothing."""
    return _pictures(settings, "fashion_mnist")


def svhn(settings: DataSettings) -> Dataset:
    """Loads SVHN, cropped digits: 73,257 + 26,032 pictures of 32x32x3, ten digits."""
    return _pictures(settings, "svhn")


def _pictures(settings: DataSettings, name: str, label: str = "") -> Dataset:
    facts, label = FACTS[name], label or name
    path = files.existing(label, settings.path, _ways(settings, facts)) if settings.path else None
    if path is not None and path.suffix == ".npz":
        return _from_npz(path, label, settings.held_out, facts)
    if path is not None and path.is_file():
        if path.name not in ARCHIVES:
            raise errors.DataError(
                f"data.path = {path}: data set {label!r} is read from an .npz, "
                f"{f'from {facts.archive}, ' if facts.archive else ''}or from a folder prepared by tensorflow-datasets."
            )
        if path.name != facts.archive:
            raise errors.DataError(f"data.path = {path}: data set {label!r} needs {facts.archive}.")
        content = files.read_npz(import_archive(str(path), settings.cache))
    else:
        imported = imported_copy(name, settings.cache)
        if path is None and facts.archive and imported.is_file():
            content = files.read_npz(imported)
        else:
            content = tfds.read(settings, facts.tfds, _archive_way(facts))
    inputs, labels = builtin.join(label, *(content[key] for key in builtin.POOLS))
    return arrays.build(
        label, inputs, labels, len(content["y_train"]), ids=tfds.source_ids(content), num_classes=facts.classes,
        class_names=content["class_names"].tolist() or facts.names, constants=facts.constants,
    )  # fmt: skip


def _from_npz(path: pathlib.Path, label: str, held_out: float, facts: Facts) -> Dataset:
    """Builds a benchmark from an .npz; float pictures that are scaled or normalised already stay as they are."""
    content = files.read_npz(path)
    scale, constants = 0.0, facts.constants
    inputs = content.get("x_train", content.get("x"))
    if inputs is not None and inputs.dtype.kind == "f" and inputs.size:
        if inputs.min() < 0:
            return builtin.from_content(content, path, label, held_out, num_classes=facts.classes)
        scale = 255.0 if inputs.max() > 1.5 else 1.0
    names = {} if "class_names" in content else {"class_names": facts.names}
    return builtin.from_content(
        content, path, label, held_out, num_classes=facts.classes, scale=scale, constants=constants, **names
    )


def _archive_way(facts: Facts) -> list[str]:
    if not facts.archive:
        return []
    address = f"https://www.cs.toronto.edu/~kriz/{facts.archive}"
    return [f"python -m launch.data --config=CONFIG --import={facts.archive} (CONFIG as here; the file from {address})"]


def _ways(settings: DataSettings, facts: Facts) -> list[str]:
    return [tfds.download_command(facts.tfds, tfds.data_dir(settings)), *_archive_way(facts)]


def imported_copy(name: str, cache: str = "") -> pathlib.Path:
    """Returns the path of the arrays of an imported official archive."""
    return files.cache_folder(cache) / f"{name}-official.npz"


def import_archive(path: str, out: str = "") -> pathlib.Path:
    """Converts an official CIFAR archive to an .npz in the cache folder, where the CIFAR sources find it.

    Args:
      path: cifar-10-binary.tar.gz or cifar-100-binary.tar.gz.
      out: cache folder; empty = the user's cache folder (`data.cache` of the runs must name the same one).

    Returns:
      The .npz that was written: x_train [50000, 32, 32, 3] uint8, y_train, ids_train, the same for test, class_names.

    Raises:
      DataError: no such file, another name, another SHA-256, or records that do not fit.

    Example:
      >>> from jaxunlearn.data import import_archive
      >>> import_archive("cifar-10-binary.tar.gz")  # downloaded before  # doctest: +SKIP
      PosixPath('/home/me/.cache/jaxunlearn/cifar10-official.npz')
    """
    source = files.existing_file("--import", path)
    if source.name not in ARCHIVES:
        raise errors.DataError(f"{source} is not an archive that can be imported. Known: {', '.join(ARCHIVES)}.")
    archive = ARCHIVES[source.name]
    target = imported_copy("cifar10" if "cifar-10-" in source.name else "cifar100", out)
    with open(source, "rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != archive.sha256:
        raise errors.DataError(
            f"{source} has the SHA-256 {actual}, the official archive {archive.sha256}. The download is incomplete or "
            "a different file: download it again."
        )
    content: dict[str, np.ndarray] = {}
    try:
        with tarfile.open(source) as tar:
            members = {
                pathlib.PurePosixPath(member.name).name: member for member in tar.getmembers() if member.isfile()
            }
            for pool, names in (("train", archive.train), ("test", archive.test)):
                raw = b"".join(_member(tar, members, source, name) for name in names)
                content |= {f"{key}_{pool}": value for key, value in _records(raw, archive.label_bytes, source).items()}
            words = _member(tar, members, source, archive.names).decode().split() if archive.names in members else []
    except (tarfile.TarError, OSError, EOFError) as error:
        raise errors.DataError(f"{source} cannot be unpacked ({error}). Fetch it again.") from error
    files.write_npz(target, content | {"class_names": np.array(words, dtype=np.str_)})
    return target


def _member(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], path: pathlib.Path, name: str) -> bytes:
    file = tar.extractfile(members[name]) if name in members else None
    if file is None:
        raise errors.DataError(f"{path} contains no file {name}; it is not the official archive.")
    return file.read()


def _records(raw: bytes, label_bytes: int, path: pathlib.Path) -> dict[str, np.ndarray]:
    """Splits records of label bytes and 3 planes; the last label byte is the (fine) class."""
    length = label_bytes + 3072
    if not raw or len(raw) % length:
        raise errors.DataError(f"{path}: {len(raw)} bytes are not whole records of {length} bytes.")
    table = np.frombuffer(raw, np.uint8).reshape(-1, length)
    x = table[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    y = table[:, label_bytes - 1].astype(np.int32)
    return {"x": np.ascontiguousarray(x), "y": y, "ids": np.arange(len(y), dtype=np.int64)}
