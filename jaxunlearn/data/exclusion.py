"""Classes that no model ever sees: their rows leave every pool and remain available as probes.

    dataset, ood_classes -> remaining rows, classes renumbered 0 .. K-1 in the order of their old numbers
                            + `Dataset.ood`: the removed rows as a data set

A forgotten class can then be compared with classes that the model never saw. The class to forget is one of the
remaining ones: removing its rows does not change the K labels, so its output is vacant in a retrained model.
`Dataset.class_values` holds the user's own numbers; fine classes (`Dataset.groups`) keep theirs.

Source: OUR reference, data sets and splits. Differs from the published code: the class to forget is renumbered like
the others (there it keeps its old label).
"""

from collections.abc import Sequence

import numpy as np

from jaxunlearn import errors
from jaxunlearn.data import naming
from jaxunlearn.data.formats import arrays
from jaxunlearn.records import Dataset


def exclude(dataset: Dataset, ood_classes: Sequence[str] = (), ood_subclasses: Sequence[str] = ()) -> Dataset:
    """Removes the rows of some classes from a data set.

    Args:
      dataset: checked; without excluded rows.
      ood_classes: names, or the user's numbers, of classes. A name counts before a number.
      ood_subclasses: the same of fine classes (`groups`); classes keep their numbers unless all rows of one are gone.

    Returns:
      The data set without these rows, with labels 0 .. K-1. Its `ood` holds them: labels count the excluded (fine)
      classes in the order of their old numbers, `class_values` and `class_names` are theirs, and `num_train` is the
      number of rows from the train pool, which come first. Constants of normalisation that were computed from the train
      pool are recomputed from the remaining rows and used for both.

    Raises:
      ConfigError: an unknown class, both kinds at once, fine classes of a data set that has none, too few
        classes left, or nothing left of a pool.

    Example:
      >>> from jaxunlearn import data, settings
      >>> from jaxunlearn.data import exclusion
      >>> digits = exclusion.exclude(data.load(settings.DataSettings(name="digits")), ood_classes=["8", "9"])
      >>> digits.num_classes, digits.ood.class_values, len(digits.ood.labels)
      (8, (8, 9), 354)
    """
    # On a command line, --config.data.ood_classes= gives a list of one empty word.
    ood_classes, ood_subclasses = ([word for word in names if word.strip()] for names in (ood_classes, ood_subclasses))
    if not ood_classes and not ood_subclasses:
        return dataset
    if ood_classes and ood_subclasses:
        raise errors.ConfigError("data.ood_classes and data.ood_subclasses cannot be combined: give one of them.")
    if ood_subclasses and dataset.groups is None:
        raise errors.ConfigError(
            f"data.ood_subclasses needs fine classes, but data set {dataset.name!r} has none. Use one that has "
            "(--config.data.name=cifar20, or an .npz with an array `fine`), or data.ood_classes."
        )
    labels = np.asarray(dataset.labels)
    if ood_subclasses:
        setting, groups = "data.ood_subclasses", np.asarray(dataset.groups)
        values = _class_numbers(setting, ood_subclasses, np.unique(groups), dataset.group_names)
        is_ood, ood_names = np.isin(groups, values), dataset.group_names
        ood_labels = np.searchsorted(values, groups[is_ood])
    else:
        setting, all_classes = "data.ood_classes", np.arange(dataset.num_classes)
        values = _class_numbers(setting, ood_classes, all_classes, dataset.class_names)
        is_ood, ood_names = np.isin(labels, values), dataset.class_names
        ood_labels = np.searchsorted(values, labels[is_ood])
    excluded = values if ood_classes else np.setdiff1d(labels[is_ood], labels[~is_ood])
    remaining = np.setdiff1d(np.arange(dataset.num_classes), excluded)
    _check_remainder(dataset, setting, values, remaining, is_ood)
    ood = _rows(dataset, is_ood).replace(  # type: ignore[attr-defined]
        labels=ood_labels.astype(np.int32),
        num_classes=len(values),
        class_values=tuple(values.tolist()),
        class_names=_names(values, ood_names),
    )
    remainder = _rows(dataset, ~is_ood).replace(  # type: ignore[attr-defined]
        labels=np.searchsorted(remaining, labels[~is_ood]).astype(np.int32),
        num_classes=len(remaining),
        class_values=tuple(remaining.tolist()),
        class_names=_names(remaining, dataset.class_names),
    )
    if dataset.is_pool_scaled:
        mean, std = arrays.statistics(np.asarray(remainder.inputs)[: remainder.num_train], remainder.scale)
        remainder, ood = (subset.replace(mean=mean, std=std) for subset in (remainder, ood))
    class_list = ", ".join(naming.class_display(ood, label) for label in range(len(values)))
    note = (
        f"{setting}: no model sees the {'fine ' if ood_subclasses else ''}class{'es' * (len(values) > 1)} {class_list} "
        f"({int(is_ood.sum()):,} rows); {len(remaining)} classes are left"
    )
    return remainder.replace(ood=ood, notes=(*dataset.notes, note))


def require(dataset: Dataset, classes: int = 1, rows: int = 1, what: str = "this analysis") -> Dataset:
    """Returns the excluded rows of a data set, which must be enough.

    Args:
      dataset: from `data.load`.
      classes: number of excluded classes that are needed.
      rows: number of rows that each of them must have.
      what: the analysis that needs them, for the message.

    Raises:
      ConfigError: nothing is excluded, or fewer classes or rows than required.
    """
    ood = dataset.ood
    count = 0 if ood is None else ood.num_classes
    if ood is None or count < classes:
        raise errors.ConfigError(
            f"{what} compares with at least {classes} class(es) that no model has seen, but {count} are excluded. Name "
            "them: --config.data.ood_classes=8,9 (names or numbers), or data.ood_subclasses for fine classes."
        )
    counts = np.bincount(np.asarray(ood.labels), minlength=ood.num_classes)
    if counts.min() < rows:
        smallest = naming.class_display(ood, int(counts.argmin()))
        raise errors.ConfigError(
            f"{what} needs {rows} rows of each excluded class, but class {smallest} has {counts.min()}. Ask for fewer "
            "rows, or exclude a larger class."
        )
    return ood


def _class_numbers(setting: str, requested: Sequence[str], numbers: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Returns the sorted numbers of the requested classes; `names` may be empty."""
    values = []
    # A command line gives a list of names without quotes as one string.
    words = [name.strip() for word in requested for name in ([word] if word in names else word.split(","))]
    for word in words:
        if word in names:
            values.append(names.index(word))
        elif word.isascii() and word.isdigit() and int(word) in numbers:
            values.append(int(word))
        else:
            choices = ", ".join(f"{value}" + (f" {names[value]!r}" if names else "") for value in numbers[:12].tolist())
            raise errors.ConfigError(
                f"{setting} contains {errors.printable(word)!r}, which is not a class of the data set. Its classes are "
                f"{choices}{', ...' if len(numbers) > 12 else ''}."
            )
    return np.unique(values)


def _check_remainder(
    dataset: Dataset, setting: str, values: np.ndarray, remaining: np.ndarray, is_ood: np.ndarray
) -> None:
    least = 1 if dataset.vocabulary else 2
    if len(remaining) < least:
        requirement = f"a {'language model' if dataset.vocabulary else 'classifier'} needs at least {least}"
        raise errors.ConfigError(
            f"{setting} leaves {len(remaining)} of the {dataset.num_classes} classes of {dataset.name!r}; "
            f"{requirement}. Exclude fewer."
        )
    num_train = dataset.num_train
    for name, pool in (("train", is_ood[:num_train]), ("held-out", is_ood[num_train:])):
        if pool.all():
            raise errors.ConfigError(f"{setting} leaves no row of the {name} pool of {dataset.name!r}. Exclude fewer.")
    if not is_ood.any():
        raise errors.ConfigError(f"{setting} names classes without a row: {', '.join(map(str, values.tolist()))}.")


def _rows(dataset: Dataset, mask: np.ndarray) -> Dataset:
    """Returns the rows of a mask [N], both pools in their order."""
    return arrays.take(dataset, mask, int(mask[: dataset.num_train].sum()))


def _names(values: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of these classes; their numbers in the data where it has no names."""
    return tuple(names[value] if names else str(value) for value in values.tolist())
