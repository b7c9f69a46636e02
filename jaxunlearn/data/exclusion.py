"""Classes that no model ever sees: their rows leave every pool and stay reachable as probes.

    dataset, ood_classes -> kept rows, numbered anew 0 .. K-1 in the order of their old numbers
                            + `Dataset.ood`: the removed rows, a data set of their own

What is asked of a model that was told to forget a class can then be asked of classes it never knew. A class to forget
is one of the kept ones: removing its rows leaves the K labels alone, so that its output is vacant in a retrained model.
`Dataset.class_values` remembers the user's own numbers; fine classes (`Dataset.groups`) keep theirs.

Source: OUR reference, data sets and splits. Differs from the published code: the class to forget is numbered anew like
the others (there it keeps its old label).
"""

from collections.abc import Sequence

import numpy as np

from jaxunlearn import errors
from jaxunlearn.data import naming
from jaxunlearn.data.formats import arrays
from jaxunlearn.records import Dataset


def exclude(dataset: Dataset, ood_classes: Sequence[str] = (), ood_subclasses: Sequence[str] = ()) -> Dataset:
    """Takes the rows of some classes out of a data set.

    Args:
      dataset: checked; without excluded rows.
      ood_classes: names, or the user's numbers, of classes. A name counts before a number.
      ood_subclasses: the same of fine classes (`groups`); classes keep their numbers unless all rows of one are gone.

    Returns:
      The data set without these rows, with labels 0 .. K-1. Its `ood` holds them: labels count the excluded (fine)
      classes in the order of their old numbers, `class_values` and `class_names` are theirs, and `num_train` is the
      number of rows from the train pool, which come first. Constants of normalisation that were computed from the train
      pool are computed anew, from the kept rows alone, and used for both.

    Raises:
      ConfigError: an unknown class, both kinds at once, fine classes of a data set that has none, too few
        classes left, or nothing left of a pool.
    """
    # A list that a command line empties (--config.data.ood_classes=) is one empty word.
    ood_classes, ood_subclasses = ([word for word in given if word.strip()] for given in (ood_classes, ood_subclasses))
    if not ood_classes and not ood_subclasses:
        return dataset
    if ood_classes and ood_subclasses:
        raise errors.ConfigError("data.ood_classes and data.ood_subclasses exclude each other: give one of them.")
    if ood_subclasses and dataset.groups is None:
        raise errors.ConfigError(
            f"data.ood_subclasses needs fine classes, but data set {dataset.name!r} has none. Use one that has "
            "(--config.data.name=cifar20, or an .npz with an array `fine`), or data.ood_classes."
        )
    labels = np.asarray(dataset.labels)
    if ood_subclasses:
        setting, groups = "data.ood_subclasses", np.asarray(dataset.groups)
        values = _asked(setting, ood_subclasses, np.unique(groups), dataset.group_names)
        is_ood, ood_names = np.isin(groups, values), dataset.group_names
        ood_labels = np.searchsorted(values, groups[is_ood])
    else:
        setting, every = "data.ood_classes", np.arange(dataset.num_classes)
        values = _asked(setting, ood_classes, every, dataset.class_names)
        is_ood, ood_names = np.isin(labels, values), dataset.class_names
        ood_labels = np.searchsorted(values, labels[is_ood])
    gone = values if ood_classes else np.setdiff1d(labels[is_ood], labels[~is_ood])
    kept = np.setdiff1d(np.arange(dataset.num_classes), gone)
    _check_rest(dataset, setting, values, kept, is_ood)
    ood = _rows(dataset, is_ood).replace(  # type: ignore[attr-defined]
        labels=ood_labels.astype(np.int32),
        num_classes=len(values),
        class_values=tuple(values.tolist()),
        class_names=_names(values, ood_names),
    )
    rest = _rows(dataset, ~is_ood).replace(  # type: ignore[attr-defined]
        labels=np.searchsorted(kept, labels[~is_ood]).astype(np.int32),
        num_classes=len(kept),
        class_values=tuple(kept.tolist()),
        class_names=_names(kept, dataset.class_names),
    )
    if dataset.is_pool_scaled:
        mean, std = arrays.statistics(np.asarray(rest.inputs)[: rest.num_train], rest.scale)
        rest, ood = (one.replace(mean=mean, std=std) for one in (rest, ood))
    shown = ", ".join(naming.class_shown(ood, label) for label in range(len(values)))
    note = (
        f"{setting}: no model sees the {'fine ' if ood_subclasses else ''}class{'es' * (len(values) > 1)} {shown} "
        f"({int(is_ood.sum()):,} rows); {len(kept)} classes are left"
    )
    return rest.replace(ood=ood, notes=(*dataset.notes, note))


def require(dataset: Dataset, classes: int = 1, rows: int = 1, what: str = "this analysis") -> Dataset:
    """Returns the excluded rows of a data set, or refuses.

    Args:
      dataset: from `data.load`.
      classes: number of excluded classes that are needed.
      rows: number of rows that each of them must have.
      what: who needs them, for the message.

    Raises:
      ConfigError: nothing is excluded, or fewer classes or rows than that.
    """
    ood = dataset.ood
    found = 0 if ood is None else ood.num_classes
    if ood is None or found < classes:
        raise errors.ConfigError(
            f"{what} compares with at least {classes} class(es) that no model has seen, but {found} are excluded. Name "
            "them: --config.data.ood_classes=8,9 (names or numbers), or data.ood_subclasses for fine classes."
        )
    counts = np.bincount(np.asarray(ood.labels), minlength=ood.num_classes)
    if counts.min() < rows:
        least = naming.class_shown(ood, int(counts.argmin()))
        raise errors.ConfigError(
            f"{what} needs {rows} rows of each excluded class, but class {least} has {counts.min()}. Ask for fewer "
            "rows, or exclude a larger class."
        )
    return ood


def _asked(setting: str, wanted: Sequence[str], known: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The numbers of the classes asked for, sorted; `names` may be empty."""
    values = []
    # A list of names without quotes comes from a command line as one text.
    words = [part.strip() for word in wanted for part in ([word] if word in names else word.split(","))]
    for word in words:
        if word in names:
            values.append(names.index(word))
        elif word.isascii() and word.isdigit() and int(word) in known:
            values.append(int(word))
        else:
            listed = ", ".join(f"{value}" + (f" {names[value]!r}" if names else "") for value in known[:12].tolist())
            raise errors.ConfigError(
                f"{setting} holds {errors.printable(word)!r}, which is no class of the data set. It has the classes "
                f"{listed}{', ...' if len(known) > 12 else ''}."
            )
    return np.unique(values)


def _check_rest(dataset: Dataset, setting: str, values: np.ndarray, kept: np.ndarray, is_ood: np.ndarray) -> None:
    least = 1 if dataset.vocabulary else 2
    if len(kept) < least:
        needed = f"a {'language model' if dataset.vocabulary else 'classifier'} needs at least {least}"
        raise errors.ConfigError(
            f"{setting} leaves {len(kept)} of the {dataset.num_classes} classes of {dataset.name!r}; {needed}. "
            "Exclude fewer."
        )
    num_train = dataset.num_train
    for name, pool in (("train", is_ood[:num_train]), ("held-out", is_ood[num_train:])):
        if pool.all():
            raise errors.ConfigError(f"{setting} leaves no row of the {name} pool of {dataset.name!r}. Exclude fewer.")
    if not is_ood.any():
        raise errors.ConfigError(f"{setting} names classes without a row: {', '.join(map(str, values.tolist()))}.")


def _rows(dataset: Dataset, mask: np.ndarray) -> Dataset:
    """The rows of a mask [N], both pools in their order."""
    return arrays.take(dataset, mask, int(mask[: dataset.num_train].sum()))


def _names(values: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    """Names of these classes; their own numbers where the data set has none, so that nobody meets new numbers."""
    return tuple(names[value] if names else str(value) for value in values.tolist())
