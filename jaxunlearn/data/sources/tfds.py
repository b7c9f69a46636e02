"""Data sets prepared by TensorFlow Datasets, read without TensorFlow.

Only folders in array_record format can be read without TensorFlow. Nothing is ever downloaded: an offline attempt would
hang for minutes. TFDS shuffles on writing; if a feature `id` exists (bytes like b"train_00266"), rows are sorted by it,
because published splits are given in source order.
"""

import contextlib
import io
import logging
import os
import pathlib
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxunlearn import errors
from jaxunlearn.data.formats import arrays, decoding, files
from jaxunlearn.data.sources import builtin
from jaxunlearn.records import Dataset
from jaxunlearn.settings import DataSettings

HELD_OUT_SPLITS = ("test", "validation", "val", "valid")


def data_dir(settings: DataSettings) -> pathlib.Path:
    """Returns the folder of prepared data: `data.path` if no .npz, `$TFDS_DATA_DIR`, or `~/tensorflow_datasets`."""
    path = "" if settings.path.endswith(".npz") else settings.path
    return files.expand(path or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def is_known(name: str, settings: DataSettings) -> bool:
    """Returns whether TFDS knows this name, or a data set of this name is prepared in the data folder; no network."""
    try:
        _builder(name, settings)
    except errors.DataError as error:
        # Missing or broken data of a known name get their own message; these errors do not mean that the name is known.
        return type(error.__cause__).__name__ not in ("DatasetNotFoundError", "ModuleNotFoundError", "ImportError")
    return True


def source(settings: DataSettings) -> Dataset:
    """Loads any prepared TFDS data set with the features `image` and `label`, by `data.name` ("emnist/letters").

    The splits train and test (or validation) become the pools; without a held-out split a fraction is held out.
    Pictures of unequal size are resized to `data.size`. ids are the numbers of the feature `id` where there is one.
    """
    if settings.path.endswith(".npz"):
        return builtin.from_npz(files.existing(settings.name, settings.path), settings.name, settings.held_out)
    content = read(settings, settings.name)
    names = content["class_names"].tolist()
    if "x_test" not in content:
        return arrays.build_cut(
            settings.name, content["x_train"], content["y_train"], settings.held_out, class_names=names,
            ids=content["ids_train"],
        )  # fmt: skip
    inputs, labels = builtin.join(settings.name, *(content[key] for key in builtin.POOLS))
    ids = source_ids(content)
    return arrays.build(settings.name, inputs, labels, len(content["y_train"]), ids=ids, class_names=names)


def source_ids(content: dict[str, np.ndarray]) -> np.ndarray:
    """Returns row numbers in the source, held-out rows numbered after the train rows."""
    train, test = content["ids_train"], content["ids_test"]
    return np.concatenate([train, test + train.max() + 1])


def read(settings: DataSettings, tfds_name: str, more_ways: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Reads a prepared data set once, in source order, and caches it.

    Args:
      settings: path, cache and size.
      tfds_name: its name in TFDS.
      more_ways: other ways to get it, for the message if it is not prepared.

    Returns:
      x_train, y_train, ids_train, the same for test where there is a held-out split, and class_names.

    Raises:
      DataError: unknown, not prepared, of another format, damaged, or without image and label.
    """
    builder = _builder(tfds_name, settings)
    version = str(builder.info.version if hasattr(builder.info, "version") else builder.version)
    with _quiet():
        is_prepared = builder.is_prepared() and bool(builder.info.splits)
    if not is_prepared:
        looked = f"{tfds_name}/{version} under {data_dir(settings)}"
        raise files.missing_error(settings.name, looked, [download_command(tfds_name, data_dir(settings)), *more_ways])
    if builder.info.file_format is None or builder.info.file_format.value not in ("array_record", "parquet"):
        raise errors.DataError(
            f"data set {tfds_name!r} under {builder.data_path} was prepared as {builder.info.file_format.name}, which "
            "only TensorFlow can read. Delete that folder and prepare it again with file_format='array_record': "
            + download_command(tfds_name, data_dir(settings))
        )
    absent = [feature for feature in ("image", "label") if feature not in builder.info.features]
    if absent:
        raise errors.DataError(
            f"data set {tfds_name!r} has the features {', '.join(builder.info.features)}, but no {absent[0]!r}; only "
            "data sets with image and label can be read. Write your own source: --config.data.name=my_module:my_source."
        )
    splits = ["train"] + [name for name in HELD_OUT_SPLITS if name in builder.info.splits][:1]
    if "train" not in builder.info.splits:
        raise errors.DataError(
            f"data set {tfds_name!r} has the splits {', '.join(builder.info.splits)}, but no 'train'."
        )

    def make() -> dict[str, np.ndarray]:
        content = {"class_names": np.array(_label_names(builder))}
        for part, split in zip(("train", "test"), splits, strict=False):
            content |= {f"{key}_{part}": value for key, value in _read_split(builder, split, settings.size).items()}
        return content

    facts = [(split, builder.info.splits[split].num_examples, builder.info.splits[split].num_bytes) for split in splits]
    stem = f"tfds-{tfds_name.replace('/', '_')}-{version}-{files.digest(builder.data_path, settings.size, *facts)}"
    return files.load_cached(settings, stem, make)


def download_command(tfds_name: str, folder: pathlib.Path) -> str:
    """Returns a sentence that explains how to prepare a data set so that it can be read here."""
    return (
        'on a machine with network and TensorFlow: python -c "import tensorflow_datasets as t; '
        f"t.builder('{tfds_name}', data_dir='{folder}', file_format='array_record').download_and_prepare()\", then "
        "copy the folder"
    )


def _builder(name: str, settings: DataSettings) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise errors.DataError(
            f"data set {name!r} is read through tensorflow-datasets, which cannot be imported ({error}). "
            "Install it (pip install tensorflow-datasets importlib_resources), or give an .npz as --config.data.path."
        ) from error
    folder, builder = data_dir(settings), None
    try:
        # No file_format is given: on a folder prepared in another one it would raise.
        with _quiet():
            builder = tfds.builder(name, data_dir=str(folder))
            if builder.is_prepared():
                return builder
    except tfds.core.DatasetNotFoundError as error:
        raise errors.DataError(f"tensorflow-datasets has no data set {name!r}.") from error
    except ImportError:
        pass  # Some descriptions need TensorFlow; their prepared data can be read without it.
    except (ValueError, RuntimeError, OSError, KeyError) as error:
        raise errors.DataError(
            f"data set {name!r} cannot be opened under {folder} ({_first_line(error)}). "
            "Delete its folder and prepare it again."
        ) from error
    # Prepared by another version of TFDS: the newest version in the folder is used.
    described = sorted((folder / name).glob("*/dataset_info.json"))
    if described:
        return tfds.builder_from_directory(str(described[-1].parent))
    if builder is None:
        raise files.missing_error(settings.name, f"{name} under {folder}", [download_command(name, folder)])
    return builder


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences TFDS: its warnings duplicate our messages, and it prints banners to stdout, which is for results."""
    logger = logging.getLogger("absl")
    was_disabled = logger.disabled
    logger.disabled = True
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was_disabled


def _label_names(builder: Any) -> list[str]:
    names = getattr(builder.info.features["label"], "names", None)
    return list(names or [])


def _read_split(builder: Any, split: str, size: int) -> dict[str, np.ndarray]:
    try:
        with _quiet():
            rows = list(builder.as_data_source(split))
    except (RuntimeError, ValueError, OSError, IndexError, NotImplementedError) as error:
        raise errors.DataError(
            f"split {split!r} of {builder.data_path} cannot be read ({_first_line(error)}). A file is missing or cut "
            "off: delete that folder and prepare it again."
        ) from error
    expected = builder.info.splits[split].num_examples
    if len(rows) != expected or not rows:
        raise errors.DataError(
            f"split {split!r} of {builder.data_path} contains {len(rows)} rows, its description says {expected}. "
            "Delete that folder and prepare it again."
        )
    images = [np.asarray(row["image"]) for row in rows]
    # Decided by the description and not by the rows, so that both pools get the same size.
    is_fixed = None not in builder.info.features["image"].shape
    x = np.stack(images) if is_fixed else np.stack([_resized(image, size) for image in images])
    y = np.array([int(row["label"]) for row in rows], np.int32)
    ids = _ids(rows, split, str(builder.data_path))
    order = np.argsort(ids, kind="stable")
    return {"x": x[order], "y": y[order], "ids": ids[order]}


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    if image.dtype != np.uint8:
        raise errors.DataError(f"pictures of unequal size must be 8-bit to be resized, these are {image.dtype}.")
    import PIL.Image

    is_grey = image.shape[-1] == 1
    resized = decoding.resized(PIL.Image.fromarray(image[..., 0] if is_grey else image), size)
    return resized[..., None] if is_grey else resized


def _ids(rows: list[dict[str, Any]], split: str, where: str) -> np.ndarray:
    """Returns the numbers at the end of the feature `id`, [N] int64; without one, the order of TFDS."""
    numbers = []
    for row in rows:
        word = row.get("id", b"")
        match = re.search(r"(\d+)$", word.decode() if isinstance(word, bytes) else str(word))
        if match is None:
            break
        numbers.append(int(match.group(1)))
    if len(numbers) == len(rows) and len(set(numbers)) == len(numbers):
        return np.array(numbers, np.int64)
    warnings.warn(
        f"split {split!r} of {where} has no usable feature 'id': rows stay in the shuffled order of TFDS, so published "
        "index files do not apply to it.",
        stacklevel=2,
    )
    return np.arange(len(rows), dtype=np.int64)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
