"""ImageNet at 64 x 64 pixels, from its published batch files.

    train_data_batch_1 ... train_data_batch_10, val_data      pickled: data [n, 12288], labels [n] from 1
    -> pictures [N, size, size, 3] uint8, labels from 0, cached

A pickle can run any code while it is read. Here it may only contain the constituents of arrays of numbers; anything
else is an error and is not run.

Source: OUR reference, its ImageNet64 data set (a folder with a subset of 100 classes, resized to 32 pixels).
"""

import codecs
import io
import pathlib
import pickle
import re
from typing import Any

import numpy as np

from jaxunlearn import errors
from jaxunlearn.data.formats import arrays, decoding, files
from jaxunlearn.data.sources import builtin
from jaxunlearn.records import Dataset
from jaxunlearn.settings import DataSettings

SIDE = 64
DECODING_VERSION = 1


def imagenet64(settings: DataSettings) -> Dataset:
    """Loads ImageNet64, or a subset of its classes: train batches as the train pool, val_data as the held-out pool.

    Pictures are resized to `data.size` pixels per side. Their values are only scaled to 0 .. 1, as published. Labels
    count the classes in the train batches from 0, in the order of their published numbers, which are also their names
    unless they are 1 .. C. `data.path` may also be an .npz.

    Raises:
      DataError: absent or malformed files, one that is not a plain pickle of arrays, a class that only val_data holds.
    """
    ways = (
        "download the batches of ImageNet 64x64 from https://image-net.org/download-images.php, and point "
        "--config.data.path to the folder that contains train_data_batch_1 ... and val_data",
    )
    root = files.locate(settings, ["imagenet64", "Imagenet64", "imagenet64.npz"], ways)
    if root.suffix == ".npz":
        return builtin.from_npz(root, "imagenet64", settings.held_out, constants=((), ()))
    train = sorted(root.glob("train_data_batch_*"), key=_number)
    if not train or not (root / "val_data").is_file():
        raise files.missing_error("imagenet64", f"train_data_batch_1 ... and val_data in {root}", ways)

    def make() -> dict[str, np.ndarray]:
        x, y = _read_batches(train, settings.size)
        x_test, y_test = _read_batches([root / "val_data"], settings.size)
        return {"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test}

    batches = [*train, root / "val_data"]
    digest = files.digest(DECODING_VERSION, settings.size, *map(files.stamp, batches))
    content = files.load_cached(settings, f"imagenet64-{digest}", make)
    values = np.unique(content["y_train"])
    absent = np.setdiff1d(content["y_test"], values)
    if len(absent):
        raise errors.DataError(
            f"{root / 'val_data'} contains class {absent[0]}, of which the train batches have no picture "
            f"({len(absent)} such classes). Take both from the same subset."
        )
    names = () if np.array_equal(values, np.arange(1, len(values) + 1)) else values.astype(str).tolist()
    labels = np.searchsorted(values, np.concatenate([content["y_train"], content["y_test"]]))
    return arrays.build(
        "imagenet64", np.concatenate([content["x_train"], content["x_test"]]), labels, len(content["y_train"]),
        class_names=names, num_classes=len(values), constants=((), ()),
    )  # fmt: skip


def _number(path: pathlib.Path) -> tuple[int, str]:
    match = re.search(r"(\d+)$", path.name)
    return (int(match.group(1)) if match else 0, path.name)


def _read_batches(paths: list[pathlib.Path], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads batch files as [N, size, size, 3] uint8 and their labels [N] as published, from 1."""
    needed = sum(path.stat().st_size for path in paths) * (1 + size**2 / SIDE**2)
    files.require_memory(f"{len(paths)} batches of ImageNet64", int(needed))
    batches = [_read_batch(path, size) for path in paths]
    return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])


def _read_batch(path: pathlib.Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    content = load_arrays(path)
    absent = [name for name in ("data", "labels") if name not in content]
    if absent:
        raise errors.DataError(
            f"{path} contains {', '.join(map(repr, sorted(content)))}, but no {absent[0]!r}; a batch of ImageNet64 "
            "contains data and labels."
        )
    data, labels = np.asarray(content["data"]), np.asarray(content["labels"])
    length = 3 * SIDE * SIDE
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != length or not len(data):
        raise errors.DataError(
            f"{path}: data has dtype {data.dtype} and shape {data.shape}, expected uint8 [n, {length}] (64 x 64 RGB)."
        )
    if labels.dtype.kind not in "iu" or labels.shape != (len(data),) or labels.min() < 1:
        raise errors.DataError(f"{path}: labels must be one whole number from 1 per picture, {len(data)} of them.")
    pictures = data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    if size == SIDE:
        return np.ascontiguousarray(pictures), labels.astype(np.int32)
    import PIL.Image

    small = np.empty((len(pictures), size, size, 3), np.uint8)
    for row, picture in zip(small, pictures, strict=True):
        row[:] = decoding.resized(PIL.Image.fromarray(np.ascontiguousarray(picture)), size)
    return small, labels.astype(np.int32)


def load_arrays(path: pathlib.Path) -> dict[str, Any]:
    """Reads a pickled dict of arrays, numbers, lists and text, and nothing else.

    Raises:
      DataError: cut off, no pickle, no dict, or a name in it that such a dict does not need (reported, not run).
    """
    try:
        content = _ArraysOnly(io.BytesIO(files.read_bytes(path)), encoding="latin1").load()
    except (pickle.UnpicklingError, *files.BROKEN, ImportError, RecursionError) as error:
        raise errors.DataError(
            f"{path} cannot be read as a pickled batch of arrays ({error}). Fetch it again; files that contain "
            "anything other than arrays are not read, because reading them could run code."
        ) from error
    if not isinstance(content, dict):
        raise errors.DataError(f"{path} contains {type(content).__name__}, expected the dict of a batch.")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}


class _ArraysOnly(pickle.Unpickler):
    """Refuses every name that the pickle of an array does not need."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns the functions that rebuild arrays (names of numpy 1 and 2) and Python 2 bytes; nothing else."""
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.zeros(1).__reduce__()[0]
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return np.zeros(1).__reduce_ex__(5)[0]
        allowed = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype, ("_codecs", "encode"): codecs.encode}
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return allowed[module, name]
