"""Data sets, all in one record: `Dataset`.

    load(settings.data) -> Dataset -> splits.draw(...) -> Split
                                   -> augment.prepare(...) -> inputs of a network

To add a data set: one function from `DataSettings` to `Dataset` and one entry in `SOURCES`. A user's
`my_module:my_source` needs no entry, nor does a data set with image and label that TensorFlow Datasets has prepared.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.data import exclusion
from jaxunlearn.data.formats import arrays
from jaxunlearn.data.language import grammar, text_files, texts
from jaxunlearn.data.sources import archives, builtin, columns, image_folders, imagenet64, mobility, tabular, tfds
from jaxunlearn.data.sources.archives import import_archive
from jaxunlearn.records import Dataset
from jaxunlearn.settings import DataSettings

__all__ = ["SOURCES", "import_archive", "load", "validate"]

SOURCES: dict[str, Callable[[DataSettings], Dataset]] = {
    "digits": builtin.digits,
    "npz": builtin.npz,
    "csv": columns.from_csv,
    "folder": image_folders.folder,
    "cifar10": archives.cifar10,
    "cifar100": archives.cifar100,
    "cifar20": archives.cifar20,
    "cinic10": image_folders.cinic10,
    "tiny_imagenet": image_folders.tiny_imagenet,
    "imagenet64": imagenet64.imagenet64,
    "mnist": archives.mnist,
    "fashion_mnist": archives.fashion_mnist,
    "svhn": archives.svhn,
    "location30": tabular.location30,
    "purchase100": tabular.purchase100,
    "texas100": tabular.texas100,
    "adult": tabular.adult,
    "accident": mobility.accident,
    "insta_ny": mobility.insta_ny,
    "insta_la": mobility.insta_la,
    "grammar": grammar.grammar,
    "texts": text_files.from_files,
}


def load(settings: DataSettings | str) -> Dataset:
    """Loads and checks a data set, cut to the requested rows.

    Args:
      settings: a name, or DataSettings with name, path, cache, held_out, train_rows, test_rows, ood_classes,
        ood_subclasses, size, normalise.

    Returns:
      A checked `Dataset`: inputs [N, ...] uint8 or float32 (pictures NHWC), labels [N] int32, ids [N] int64; the first
      num_train rows are the train pool. Rows of excluded classes are only in `ood`. Without `normalise`, mean and std
      are empty.

    Raises:
      ConfigError: unknown name, a user's function that cannot be found, or classes that cannot be excluded.
      DataError: missing or malformed data.

    Example:
      >>> from jaxunlearn import data
      >>> digits = data.load("digits")
      >>> digits.inputs.shape, digits.num_train, digits.num_classes
      ((1797, 8, 8, 1), 1437, 10)
    """
    if isinstance(settings, str):
        settings = DataSettings(name=settings)
    if not isinstance(settings, DataSettings):
        raise errors.ConfigError(f"data are loaded by a name or DataSettings, not by {settings!r}.")
    known = ":" in settings.name or settings.name in SOURCES
    if known or not tfds.is_known(settings.name, settings):
        source = checks.lookup("data source", settings.name, SOURCES)
    else:
        source = tfds.source
    with checks.users_code(f"data source {settings.name}", source if ":" in settings.name else None):
        dataset = source(settings)
    validate(dataset, settings.name)
    dataset = _on_host(dataset)
    if dataset.vocabulary:
        texts.require_plain(dataset, settings.augment)
    dataset = _first_rows(dataset, settings.train_rows, settings.test_rows)
    dataset = exclusion.exclude(dataset, settings.ood_classes, settings.ood_subclasses)
    if not settings.normalise:
        no_constants: dict[str, Any] = {"mean": (), "std": (), "is_pool_scaled": False}
        ood = None if dataset.ood is None else dataset.ood.replace(**no_constants)  # type: ignore[attr-defined]
        dataset = dataset.replace(ood=ood, **no_constants)  # type: ignore[attr-defined]
    return dataset


def _on_host(dataset: Dataset) -> Dataset:
    """Returns the data set with NumPy arrays; a user's source may build it from arrays on a device."""
    by_row = {field: getattr(dataset, field) for field in arrays.ROW_FIELDS}
    host_values = {field: None if value is None else np.asarray(value) for field, value in by_row.items()}
    ood = None if dataset.ood is None else _on_host(dataset.ood)
    return dataset.replace(**host_values, ood=ood)  # type: ignore[attr-defined]


def _first_rows(dataset: Dataset, train_rows: int, test_rows: int) -> Dataset:
    """Returns the first rows of each pool; 0 = all of them, more than there are is an error."""
    num_train, num_rows = dataset.num_train, len(dataset.labels)
    for name, requested, available in (
        ("train_rows", train_rows, num_train),
        ("test_rows", test_rows, num_rows - num_train),
    ):
        if requested > available:
            raise errors.DataError(
                f"data.{name} = {requested}, but that pool of {dataset.name!r} has {available} rows. Lower it, or "
                "set 0 for all."
            )
    if not train_rows and not test_rows:
        return dataset
    train_rows, test_rows = train_rows or num_train, test_rows or num_rows - num_train
    rows = np.r_[0:train_rows, num_train : num_train + test_rows]
    return arrays.take(dataset, rows, train_rows)


def validate(dataset: Dataset, name: str) -> None:
    """Checks what every later stage relies on, whatever source the data set comes from.

    Raises:
      DataError: not a `Dataset`, arrays that do not fit together, other types than promised, NaN, an empty pool, fewer
        than two classes (of texts: no group), labels out of range, constants that do not fit the channels, or texts
        that `texts.validate` refuses.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import data
      >>> from jaxunlearn.data.formats import arrays
      >>> rows = np.array([[0.5, 2.0], [1.5, 0.0], [0.0, 1.0]], np.float32)
      >>> dataset = arrays.build("mine", rows, np.array([0, 1, 0]), num_train=2)
      >>> data.validate(dataset, "mine")
    """
    if not isinstance(dataset, Dataset):
        raise errors.DataError(f"data source {name!r} returned {type(dataset).__name__}, expected records.Dataset.")
    num_rows = len(dataset.labels)
    for field in arrays.ROW_FIELDS:
        value = getattr(dataset, field)
        if value is not None and len(value) != num_rows:
            raise errors.DataError(f"data source {name!r}: {field} has {len(value)} rows, labels has {num_rows}.")
    if dataset.vocabulary:
        texts.validate(dataset, name)
    else:
        _validate_inputs(dataset, name)
    if not 0 < dataset.num_train < num_rows:
        raise errors.DataError(
            f"data source {name!r}: {dataset.num_train} of {num_rows} rows are the train pool; both pools need a row."
        )
    _validate_labels(dataset, name)


def _validate_inputs(dataset: Dataset, name: str) -> None:
    """Checks numeric inputs and their constants of normalisation."""
    shape = tuple(dataset.inputs.shape)
    if dataset.prompts is not None or dataset.texts is not None:
        raise errors.DataError(f"data source {name!r} has prompts or texts, but no vocabulary: set the number of ids.")
    if str(dataset.inputs.dtype) not in ("uint8", "float32") or len(shape) < 2:
        raise errors.DataError(
            f"data source {name!r}: inputs have dtype {dataset.inputs.dtype} and shape {shape}, expected uint8 or "
            "float32 rows [N, ...] (texts: int32 token ids, and a vocabulary)."
        )
    checks.finite(f"the inputs of data source {name!r}", dataset.inputs)
    fits = len(dataset.mean) == len(dataset.std) and len(dataset.mean) in (0, shape[-1])
    if not fits or not all(constant > 0 for constant in (*dataset.std, dataset.scale)):
        raise errors.DataError(
            f"data source {name!r}: mean has {len(dataset.mean)} and std {len(dataset.std)} values for {shape[-1]} "
            f"channels or features (both may be empty); std and scale = {dataset.scale} must be above 0."
        )


def _validate_labels(dataset: Dataset, name: str) -> None:
    least = 1 if dataset.vocabulary else 2
    if dataset.num_classes < least:
        requirement = "texts need one group at least" if dataset.vocabulary else "a classifier needs at least 2"
        raise errors.DataError(f"data source {name!r} has {dataset.num_classes} class(es); {requirement}.")
    if dataset.class_names and len(dataset.class_names) != dataset.num_classes:
        raise errors.DataError(
            f"data source {name!r} has {dataset.num_classes} classes, but {len(dataset.class_names)} class names."
        )
    if dataset.groups is not None and dataset.group_names:
        checks.labels(f"the fine classes of data source {name!r}", dataset.groups, len(dataset.group_names))
    checks.labels(f"the labels of data source {name!r}", dataset.labels, dataset.num_classes)
