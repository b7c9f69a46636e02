"""Forget sets: which target rows are to be forgotten, R sets as rows of a mask [R, N].

| kind | set r | number of sets |
| --- | --- | --- |
| set_random | `size` rows drawn by seed + r | `count` |
| one_class | every target row of class classes[r % len] | `count` |
| class_percentage | a fraction of the target rows of class classes[r % len] | `count` |
| classes | sequential removal: every target row of classes[0] .. classes[r] | len(classes) |
| subclass | every target row whose fine class (`groups` of the data set) is classes[r % len] | `count` |
| index_file | the rows that the file lists, as the user's own file numbers or names them | sets in the file |
| randperm | the first `size` rows of PyTorch's randperm of the train pool with seed `seed` + r | `count` |

Classes are the user's own numbers, also where others are excluded and labels are renumbered.
With `repeats` n every set occurs n times in a row: n models of the same request, with different seeds.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.data import naming
from jaxunlearn.data.formats import files, published_permutations
from jaxunlearn.data.splitting import optml_splits
from jaxunlearn.records import Dataset
from jaxunlearn.settings import CLASS_KINDS, SplitSettings

# Kinds whose rows are known before the split is drawn; they never enter the shadow set.
LISTED_KINDS = ("index_file", "randperm")


def draw(
    dataset: Dataset, target: np.ndarray, settings: SplitSettings, seed: int, listed: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """Draws all forget sets of a split.

    Args:
      dataset: for labels and number of rows.
      target: [n] rows of the target set, in drawn order.
      settings: generator and forget settings.
      seed: the run's seed; set r of `set_random` and `class_percentage` draws by seed + r (optml: seed - 1 + r).
      listed: for `index_file` and `randperm`, one array of rows per set, from `listed_rows`.

    Returns:
      [R, N] bool, each row a proper, non-empty subset of the target rows.

    Raises:
      ConfigError: a set that is empty or leaves nothing to retain, a class that does not exist, or subclasses of a data
        set that has none.
      DataError: a class without target rows, or listed rows outside the target set.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import data, settings
      >>> from jaxunlearn.data.splitting import forget
      >>> digits = data.load(settings.DataSettings(name="digits"))
      >>> options = settings.SplitSettings(forget=settings.ForgetSettings(kind="set_random", size=10, count=2))
      >>> sets = forget.draw(digits, np.arange(100), options, seed=1)
      >>> sets.shape, sets.sum(1)
      ((2, 1797), array([10, 10]))
    """
    kind = settings.forget.kind
    if kind == "set_random":
        row_sets = _random_sets(target, settings, seed)
    elif kind in LISTED_KINDS:
        row_sets = _listed_sets(dataset, target, settings, listed)
    else:
        checks.choice("split.forget.kind", kind, ("set_random", "subclass", *LISTED_KINDS, *CLASS_KINDS))
        row_sets = _class_sets(dataset, target, settings, seed)
    sets = np.zeros((len(row_sets), len(dataset.labels)), bool)
    for number, rows in enumerate(row_sets):
        sets[number, rows] = True
        if not 0 < sets[number].sum() < len(target):
            raise errors.ConfigError(
                f"forget set {number} ({kind}) takes {int(sets[number].sum())} of {len(target)} target rows; at least "
                "one row must be forgotten and one retained. Change split.forget or the size of the target set."
            )
    return np.repeat(sets, settings.forget.repeats, axis=0)


def _random_sets(target: np.ndarray, settings: SplitSettings, seed: int) -> list[np.ndarray]:
    size = settings.forget.size
    if size >= len(target):
        raise errors.ConfigError(
            f"split.forget.size = {size}, but the target set has {len(target)} rows and some must be retained. "
            "Lower split.forget.size or split.shadow."
        )
    if settings.rng == "numpy":
        return [
            published_permutations.generator(seed + number, "forget").permutation(target)[:size]
            for number in range(settings.forget.count)
        ]
    if settings.rng == "optml":
        return [optml_splits.forget_rows(target, size, seed + number) for number in range(settings.forget.count)]
    return [target[published_positions(len(target), seed + number)[-size:]] for number in range(settings.forget.count)]


def published_positions(num_target: int, seed: int) -> np.ndarray:
    """Returns the published order of target positions: all but the last 100 permuted, the last 100 in order.

    The forget set is the end of this list, so the last 100 positions are forgotten under every seed.
    """
    head = published_permutations.published(
        num_target - published_permutations.TARGET_TAIL, published_permutations.published_stream(seed)
    )
    return np.concatenate([head, np.arange(num_target - published_permutations.TARGET_TAIL, num_target)])


def _class_sets(dataset: Dataset, target: np.ndarray, settings: SplitSettings, seed: int) -> list[np.ndarray]:
    classes = settings.forget.classes
    if not classes:
        raise errors.ConfigError(f"split.forget.kind = {settings.forget.kind!r} needs split.forget.classes, e.g. (0,).")
    labels, kind_of_class = _labelling(dataset, settings.forget.kind)
    if dataset.vocabulary and dataset.num_classes == 1 and settings.forget.kind in ("one_class", "classes"):
        raise errors.ConfigError(
            f"split.forget.kind = {settings.forget.kind!r} forgets whole groups, but {dataset.name!r} has one group of "
            "texts, of which some must be retained. Use set_random or class_percentage, or give the texts groups "
            "(a folder for each, or the key group in a .jsonl)."
        )
    target_labels = labels[target]
    rows_of = {}
    for value in classes:
        label = value if kind_of_class == "fine class" else naming.label_of("split.forget.classes", dataset, value)
        if kind_of_class == "fine class":
            _check_fine_class(dataset, labels, value)
        rows_of[value] = target[target_labels == label]
        if len(rows_of[value]) == 0:
            numbers = np.unique(target_labels).tolist()
            if kind_of_class == "class":
                numbers = [naming.class_value(dataset, number) for number in numbers]
            present = ", ".join(map(str, numbers))
            raise errors.DataError(
                f"{kind_of_class} {value} of split.forget.classes has no row in the target set, which contains the "
                f"{kind_of_class}es {present}. Choose one of these, or a larger target set."
            )
    if settings.forget.kind == "classes":
        return [np.concatenate([rows_of[value] for value in classes[: step + 1]]) for step in range(len(classes))]
    row_sets = [rows_of[classes[number % len(classes)]] for number in range(settings.forget.count)]
    if settings.forget.kind in ("one_class", "subclass"):
        return row_sets
    return [_fraction_of(rows, settings, seed + number) for number, rows in enumerate(row_sets)]


def _labelling(dataset: Dataset, kind: str) -> tuple[np.ndarray, str]:
    """Returns the labels [N] that define classes of this kind, and the word for such a class."""
    if kind != "subclass":
        return np.asarray(dataset.labels), "class"
    if dataset.groups is None:
        raise errors.ConfigError(
            f"split.forget.kind = 'subclass' needs fine classes, but data set {dataset.name!r} has none. Use one that "
            "has (--config.data.name=cifar20, or an .npz with an array `fine`), or "
            "--config.split.forget.kind=one_class."
        )
    return np.asarray(dataset.groups), "fine class"


def _check_fine_class(dataset: Dataset, groups: np.ndarray, value: int) -> None:
    """Raises a ConfigError for a fine class that does not exist, or whose rows are excluded."""
    ood = dataset.ood
    if ood is not None and ood.groups is not None and value in np.asarray(ood.groups) and value not in groups:
        raise errors.ConfigError(
            f"split.forget.classes contains the fine class {value}, whose rows are excluded (data.ood_classes, "
            "data.ood_subclasses): no model sees them, so none can forget them. Take it out of one of the two."
        )
    if not 0 <= value <= groups.max():
        raise errors.ConfigError(
            f"split.forget.classes contains {value}; {dataset.name!r} has the fine classes 0 to {int(groups.max())}."
        )


def _fraction_of(rows: np.ndarray, settings: SplitSettings, seed: int) -> np.ndarray:
    size = int(len(rows) * settings.forget.fraction)
    if size == 0:
        raise errors.ConfigError(
            f"split.forget.fraction = {settings.forget.fraction} of the {len(rows)} target rows of a class is less "
            "than one row. Raise the fraction."
        )
    if settings.rng == "optml":
        return optml_splits.forget_rows(rows, size, seed)
    # IAM's code takes the first rows in target order, hence the same ones in every set of a class.
    return (
        rows[:size]
        if settings.rng == "mt19937"
        else published_permutations.generator(seed, "forget").permutation(rows)[:size]
    )


def _listed_sets(
    dataset: Dataset, target: np.ndarray, settings: SplitSettings, listed: Sequence[np.ndarray]
) -> list[np.ndarray]:
    for number, rows in enumerate(listed):
        outside = rows[~np.isin(rows, target)]
        if len(outside):
            raise errors.DataError(
                f"forget set {number} ({source_of_rows(settings)}) lists {len(outside)} row(s) outside the target "
                f"set, first {naming.display_names(dataset, outside[:1])[0]}. Only rows that the original model "
                "trains on can be forgotten: lower split.shadow, set split.target = 0, or use split.rng = 'numpy', "
                "which keeps listed rows out of the shadow set."
            )
    return list(listed)


def listed_rows(settings: SplitSettings, dataset: Dataset) -> tuple[np.ndarray, ...]:
    """Returns the forget sets that are known before the split is drawn, one [n] int64 array each; else none.

    `randperm` repeats `torch.manual_seed(seed); torch.randperm(n)[:size]` without PyTorch. Seed 420 gives the published
    1,000 rows of 50,000 of Forget with Precision, where rows count in the canonical order of CIFAR-10.

    Raises:
      DataError: as `read_index_file`. ConfigError: more rows than the train pool has.
    """
    options = settings.forget
    if options.kind == "index_file":
        return read_index_file(options.path, dataset)
    if options.kind != "randperm":
        return ()
    if options.size >= dataset.num_train:
        raise errors.ConfigError(
            f"split.forget.size = {options.size}, but the train pool of {dataset.name!r} has {dataset.num_train} rows "
            "and some must be retained. Lower split.forget.size."
        )
    streams = (published_permutations.published_stream(options.seed + number) for number in range(options.count))
    return tuple(
        np.sort(published_permutations.published(dataset.num_train, stream)[: options.size]) for stream in streams
    )


def source_of_rows(settings: SplitSettings) -> str:
    """Returns the source of listed rows, for messages."""
    options = settings.forget
    return f"index file {options.path}" if options.kind == "index_file" else f"randperm of seed {options.seed}"


def read_index_file(path: str, dataset: Dataset) -> tuple[np.ndarray, ...]:
    """Reads forget sets from a file: .npy (one set, or [R, n]), .txt (one set) or .npz (one array per set).

    Whole numbers are row numbers of the user's own file (`Dataset.ids`). Text is that file's names of its rows
    (`Dataset.names`); a .txt of such ids starts with a line `ids` and has one of them per line. An .npz gives its sets
    in the order in which they were saved.

    Returns:
      One sorted [n] int64 array of train rows per set, without repetitions.

    Raises:
      DataError: no such file, another format, not whole numbers, an empty set, or rows outside the train pool.
    """
    location = files.existing_file("split.forget.path", path)
    sets = []
    for number, listed in enumerate(_read_arrays(location)):
        where = f"forget set {number} of {location}"
        _check_listed(where, listed, len(dataset.labels))
        find = naming.positions_of_names if listed.dtype.kind == "U" else naming.positions_of_rows
        positions = np.unique(find(where, dataset, listed))
        held_out = positions[positions >= dataset.num_train]
        if len(held_out):
            raise errors.DataError(
                f"{where} lists row {naming.display_names(dataset, held_out[:1])[0]}, but the train pool of "
                f"{dataset.name!r} does not contain it: {len(held_out)} of the listed rows are held out, and only rows "
                "that models train on can be forgotten. Leave them out, or choose the pools yourself (x_train, x_test; "
                "train and test)."
            )
        sets.append(positions)
    return tuple(sets)


def _check_listed(where: str, listed: np.ndarray, num_rows: int) -> None:
    if listed.ndim != 1 or len(listed) == 0 or listed.dtype.kind not in "uiU":
        mask = " Save numpy.flatnonzero(mask) of a mask." if listed.dtype.kind == "b" else ""
        raise errors.DataError(
            f"{where} has shape {listed.shape} and dtype {listed.dtype}; expected a list of whole row numbers.{mask}"
        )
    # More than two numbers, each 0 or 1, are a mask and not a list of rows 0 and 1.
    if listed.dtype.kind in "ui" and len(listed) > 2 and np.isin(listed, (0, 1)).all():
        raise errors.DataError(
            f"{where} contains {len(listed)} numbers, all 0 or 1, for {num_rows} rows: this looks like a mask. Save "
            "numpy.flatnonzero(mask), the numbers of the rows."
        )


def _read_arrays(path: pathlib.Path) -> list[np.ndarray]:
    if path.suffix == ".npz":
        return list(files.read_npz(path).values())
    if path.suffix not in (".npy", ".txt"):
        raise errors.DataError(f"split.forget.path = {path}: expected a .npy, .npz or .txt file with row numbers.")
    try:
        if path.suffix == ".txt":
            return [_read_text(files.read_bytes(path).decode("utf-8-sig"))]
        # Memory-mapped, so that a header that claims more than the file holds is refused unread.
        array = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except files.BROKEN as error:
        raise errors.DataError(
            f"{path} cannot be read as row numbers ({error}). Expected whole numbers in a .txt (spaces, lines "
            "or commas between them; or ids, one per line below a line `ids`), an integer array in a .npy."
        ) from error
    return list(array) if array.ndim == 2 else [array]


def _read_text(text: str) -> np.ndarray:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines[:1] == ["ids"]:
        return np.array(lines[1:], np.str_)
    return np.array([int(word) for line in lines for word in line.replace(",", " ").split()], np.int64)


def sentences(dataset: Dataset, settings: SplitSettings) -> tuple[str, ...]:
    """Returns sentences that name the classes or rows to forget, where settings only give numbers."""
    kind, classes = settings.forget.kind, dict.fromkeys(settings.forget.classes)
    if kind in CLASS_KINDS and dataset.class_names:
        return (f"split.forget.classes: {'; '.join(_class(dataset, value) for value in classes)}",)
    if kind == "subclass" and dataset.group_names:
        names = "; ".join(f"fine class {value} is {dataset.group_names[value]!r}" for value in classes)
        return (f"split.forget.classes: {names}",)
    if kind != "index_file":
        return ()
    first = listed_rows(settings, dataset)[0]
    shown = ", ".join(naming.display_names(dataset, first[:5])) + (", ..." if len(first) > 5 else "")
    return (
        f"{source_of_rows(settings)}, first set: {len(first)} row(s), by their number in the data's own file {shown}",
    )


def _class(dataset: Dataset, value: int) -> str:
    names, label = dataset.class_names, naming.label_of("split.forget.classes", dataset, value)
    other = naming.class_value(dataset, names.index(str(value))) if str(value) in names else value
    warning = "" if other == value else f" (the one called '{value}' is class {other})"
    return f"class {value} is {names[label]!r}{warning}"


def set_names(dataset: Dataset, settings: SplitSettings, count: int) -> tuple[str, ...]:
    """Returns a name for each of `count` forget sets: the user's name of its (last) class, else its number."""
    kind, classes = settings.forget.kind, settings.forget.classes
    values = [classes[number // settings.forget.repeats % len(classes)] for number in range(count)] if classes else []
    if kind == "subclass":
        names = dataset.group_names
        return tuple(names[value] if names else f"fine class {value}" for value in values)
    if kind not in CLASS_KINDS:
        return tuple(f"forget set {number}" for number in range(count))
    labels = [naming.label_of("split.forget.classes", dataset, value) for value in values]
    return tuple(naming.class_name(dataset, label) for label in labels)
