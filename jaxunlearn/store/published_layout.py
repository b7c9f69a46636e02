"""Logits of unlearning approaches in the published layout: one folder, one subfolder per approach.

    DATA/logits_retain.npy              float32 [S, 1 + N, C]: slot 0 of axis 1 is the one-hot label, then N retrained
    DATA/metrics.csv                    seed,retain_accuracy,forget_accuracy,test_accuracy: fractions, a line per model
    DATA/APPROACH/logits_unlearn.npy    the same for unlearned models
    DATA/APPROACH/metrics.csv
    DATA/rows.npy, ids.npy              [S] numbers and names of the samples in the user's data (our addition; optional)

Source: Forget with Precision, `create_logits.py`, `attack.py`.
"""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from jaxunlearn import errors, escapes
from jaxunlearn.store import arrays, files, npy

RETRAINED, UNLEARNED, METRICS = "logits_retain.npy", "logits_unlearn.npy", "metrics.csv"
SUBSETS = ("retain", "forget", "test")
HEADER = "seed,retain_accuracy,forget_accuracy,test_accuracy"
NAMES = ("rows", "ids")
Accuracies = dict[str, np.ndarray]


class Folder(NamedTuple):
    """The contents of such a folder.

    Attributes:
      retrained: [S, 1 + N, C] as stored; `unlearned`: approach -> the same.
      accuracies: approach, or "" for the retrained models -> retain, forget, test -> [N] fractions; approaches without
        a file are missing.
      named: `rows`, `ids` -> [S], if present.
    """

    retrained: np.ndarray
    unlearned: dict[str, np.ndarray]
    accuracies: dict[str, Accuracies]
    named: dict[str, np.ndarray]


def is_folder(path: Path) -> bool:
    """Returns whether a path is a folder in this layout."""
    return os.path.exists(path / RETRAINED)  # False for invalid names


def read(path: Path) -> Folder:
    """Reads a folder; logits are memory-mapped.

    Raises:
      DataError: a file that is not a plain array, or a metrics.csv with missing columns or values that are not
        fractions.
    """
    subfolders = {
        escapes.escaped(subfolder.name): subfolder
        for subfolder in sorted(path.iterdir())
        if (subfolder / UNLEARNED).exists()
    }
    unlearned = {name: arrays.mapped(subfolder / UNLEARNED) for name, subfolder in subfolders.items()}
    folders = {"": path, **subfolders}
    accuracies = {
        name: _accuracies(folder / METRICS) for name, folder in folders.items() if (folder / METRICS).is_file()
    }
    arrays_of_rows = {name: arrays.mapped(path / f"{name}.npy") for name in NAMES if (path / f"{name}.npy").is_file()}
    return Folder(arrays.mapped(path / RETRAINED), unlearned, accuracies, arrays_of_rows)


def as_arrays(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads a folder as named arrays, as in an .npz: labels, retrained, one array per approach, accuracies.

    Returns:
      (name -> array, notes for the user).

    Raises:
      DataError: no approach, labels that are not one-hot or differ between approaches, or a damaged file.
    """
    folder = read(path)
    if not folder.unlearned:
        raise errors.DataError(f"{path} has {RETRAINED}, but no subfolder with {UNLEARNED}.")
    labels, retrained = _split_labels(path / RETRAINED, folder.retrained)
    result, notes = {"labels": labels, "retrained": retrained, **folder.named}, []
    for name, stored in folder.unlearned.items():
        labels_of_approach, values = _split_labels(path / name / UNLEARNED, stored)
        if len(labels_of_approach) != len(labels) or (labels_of_approach != labels).any():
            raise errors.DataError(
                f"{path / name / UNLEARNED} has other labels than {path / RETRAINED}: both must contain the same "
                "samples in the same order."
            )
        result[name] = values
        if name not in folder.accuracies and name != "baseline":
            notes.append(f"{name} has no {METRICS}: its accuracies are not known")
    for name, accuracies in folder.accuracies.items():
        if not name or name in folder.unlearned:
            result |= {f"{name or 'retrained'}__{_column(subset)}": values for subset, values in accuracies.items()}
    return result, notes


def _split_labels(path: Path, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits [S, 1 + N, C], whose slot 0 of axis 1 is the one-hot label, into labels [S] and logits [S, N, C]."""
    if stored.ndim != 3 or stored.dtype.kind != "f" or stored.shape[1] < 2 or stored.shape[2] < 2 or not len(stored):
        raise errors.DataError(
            f"{path} has shape {stored.shape} and dtype {stored.dtype}: expected floats [S, 1 + N, C] with N >= 1 "
            "models."
        )
    one_hot = np.asarray(stored[:, 0], np.float32)
    is_one_hot = ((one_hot == 0) | (one_hot == 1)).all(-1) & (one_hot.sum(-1) == 1)
    if not is_one_hot.all():
        row = int(np.flatnonzero(~is_one_hot)[0])
        raise errors.DataError(
            f"{path}: slot 0 of axis 1 must contain the one-hot label, but that of sample {row} is "
            f"{np.round(one_hot[row], 3).tolist()}. Logits without labels: give an .npz with `labels` instead."
        )
    return one_hot.argmax(-1), np.asarray(stored[:, 1:], np.float32)


def _accuracies(path: Path) -> Accuracies:
    try:
        npy.require_regular(path)
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
    except (npy.Malformed, OSError, UnicodeDecodeError, csv.Error) as error:
        raise errors.DataError(f"{path} cannot be read as a table ({error}).") from error
    missing = [_column(subset) for subset in SUBSETS if not rows or _column(subset) not in rows[0]]
    if missing:
        raise errors.DataError(f"{path} lacks {', '.join(missing)}. Expected the header {HEADER} and a line per model.")
    try:
        accuracies = {subset: np.asarray([float(row[_column(subset)]) for row in rows]) for subset in SUBSETS}
    except (TypeError, ValueError) as error:
        raise errors.DataError(f"{path} contains an accuracy that is not a number ({error}).") from error
    for name, values in accuracies.items():
        if not ((values >= 0) & (values <= 1)).all():
            index = int(np.flatnonzero(~((values >= 0) & (values <= 1)))[0])
            raise errors.DataError(
                f"{path}: {_column(name)} of line {index + 1} is {values[index]:g}; accuracies are fractions between 0 "
                "and 1."
            )
    return accuracies


def _column(subset: str) -> str:
    return f"{subset}_accuracy"


def write(
    path: Path, labels: np.ndarray, retrained: np.ndarray, unlearned: Mapping[str, np.ndarray],
    accuracies: Mapping[str, Mapping[str, np.ndarray]], named: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> None:  # fmt: skip
    """Writes a folder that `read` and the published scripts can read.

    Args:
      path: the folder.
      labels: [S] int.
      retrained: [S, N, C] logits.
      unlearned: approach -> [S, N, C] logits.
      accuracies: as in `Folder`.
      named: as in `Folder`.

    Raises:
      StoreError: the folder cannot be written.

    Example:
      >>> import pathlib
      >>> import numpy as np
      >>> from jaxunlearn.store import published_layout
      >>> logits = np.zeros((2, 5, 3), np.float32)
      >>> published_layout.write(pathlib.Path("my_logits"), np.array([0, 2]), logits, {"ssd": logits}, {})
      >>> arrays, notes = published_layout.as_arrays(pathlib.Path("my_logits"))
      >>> sorted(arrays), notes
      (['labels', 'retrained', 'ssd'], ['ssd has no metrics.csv: its accuracies are not known'])
    """
    for name, array in named.items():
        files.write_npy(path / f"{name}.npy", array)
    classes = retrained.shape[-1]
    one_hot = np.eye(classes, dtype=np.float32)[labels][:, None]
    for name, values in {"": retrained, **unlearned}.items():
        stacked = np.concatenate([one_hot, np.asarray(values, np.float32)], axis=1)
        files.write_npy(path / name / (UNLEARNED if name else RETRAINED), stacked)
        if name in accuracies:
            by_subset = accuracies[name]
            rows = zip(*(by_subset[subset] for subset in SUBSETS), strict=True)
            csv_rows = [
                f"{seed},{','.join(repr(float(value)) for value in model_accuracies)}"
                for seed, model_accuracies in enumerate(rows)
            ]
            text = "\n".join([HEADER, *csv_rows]) + "\n"
            files.write_bytes(path / name / METRICS, text.encode())
