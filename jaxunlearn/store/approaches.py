"""Logits of unlearning approaches in the published layout: one folder, one subfolder per approach.

    DATA/logits_retain.npy              float32 [S, 1 + N, C]: slot 0 of axis 1 the one-hot label, then N retrained
    DATA/metrics.csv                    seed,retain_accuracy,forget_accuracy,test_accuracy: fractions, a line per model
    DATA/APPROACH/logits_unlearn.npy    the same of unlearned models
    DATA/APPROACH/metrics.csv
    DATA/rows.npy, ids.npy              [S] numbers and names of the samples in the user's data (ours; may be absent)

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

from jaxunlearn import checks, errors
from jaxunlearn.store import arrays, files, npy

RETRAINED, UNLEARNED, METRICS = "logits_retain.npy", "logits_unlearn.npy", "metrics.csv"
PARTS = ("retain", "forget", "test")
HEADER = "seed,retain_accuracy,forget_accuracy,test_accuracy"
NAMES = ("rows", "ids")
Accuracies = dict[str, np.ndarray]


class Folder(NamedTuple):
    """What lies in such a folder.

    Attributes:
      retrained: [S, 1 + N, C] as stored; `unlearned`: approach -> the same.
      accuracies: approach, or "" for the retrained models -> retain, forget, test -> [N] fractions; without those
        that have no file.
      named: `rows`, `ids` -> [S], as far as they are there.
    """

    retrained: np.ndarray
    unlearned: dict[str, np.ndarray]
    accuracies: dict[str, Accuracies]
    named: dict[str, np.ndarray]


def is_folder(path: Path) -> bool:
    """Whether this is a folder of that layout."""
    return os.path.exists(path / RETRAINED)  # False for a name that no file can have


def read(path: Path) -> Folder:
    """Reads a folder; logits are memory-mapped.

    Raises:
      DataError: a file that is no plain array, or a metrics.csv without the columns or with something that is no
        fraction.
    """
    subfolders = {checks.printable(one.name): one for one in sorted(path.iterdir()) if (one / UNLEARNED).exists()}
    unlearned = {name: arrays.mapped(one / UNLEARNED) for name, one in subfolders.items()}
    places = {"": path, **subfolders}
    accuracies = {name: _accuracies(place / METRICS) for name, place in places.items() if (place / METRICS).is_file()}
    named = {name: arrays.mapped(path / f"{name}.npy") for name in NAMES if (path / f"{name}.npy").is_file()}
    return Folder(arrays.mapped(path / RETRAINED), unlearned, accuracies, named)


def as_arrays(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """A folder as named arrays, as an .npz would hold them: labels, retrained, one array per approach, accuracies.

    Returns:
      (name -> array, what the user should know).

    Raises:
      DataError: no approach, labels that are not one-hot or differ between approaches, or a damaged file.
    """
    folder = read(path)
    if not folder.unlearned:
        raise errors.DataError(f"{path} has {RETRAINED}, but no subfolder with {UNLEARNED}.")
    labels, retrained = _split(path / RETRAINED, folder.retrained)
    named, notes = {"labels": labels, "retrained": retrained, **folder.named}, []
    for name, stored in folder.unlearned.items():
        own, values = _split(path / name / UNLEARNED, stored)
        if len(own) != len(labels) or (own != labels).any():
            raise errors.DataError(
                f"{path / name / UNLEARNED} has other labels than {path / RETRAINED}: both must hold the same samples "
                "in the same order."
            )
        named[name] = values
        if name not in folder.accuracies and name != "baseline":
            notes.append(f"{name} has no {METRICS}: its accuracies are not known")
    for name, accuracies in folder.accuracies.items():
        if not name or name in folder.unlearned:
            named |= {f"{name or 'retrained'}__{_column(part)}": values for part, values in accuracies.items()}
    return named, notes


def _split(path: Path, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(labels [S], logits [S, N, C]) of an array whose slot 0 of axis 1 is the one-hot label."""
    if stored.ndim != 3 or stored.dtype.kind != "f" or stored.shape[1] < 2 or stored.shape[2] < 2 or not len(stored):
        raise errors.DataError(
            f"{path} has shape {stored.shape} and dtype {stored.dtype}: expected floats [S, 1 + N, C] with N >= 1 "
            "models."
        )
    first = np.asarray(stored[:, 0], np.float32)
    is_one_hot = ((first == 0) | (first == 1)).all(-1) & (first.sum(-1) == 1)
    if not is_one_hot.all():
        wrong = int(np.flatnonzero(~is_one_hot)[0])
        raise errors.DataError(
            f"{path}: slot 0 of axis 1 must hold the one-hot label, but that of sample {wrong} is "
            f"{np.round(first[wrong], 3).tolist()}. Logits without labels: give an .npz with `labels` instead."
        )
    return first.argmax(-1), np.asarray(stored[:, 1:], np.float32)


def _accuracies(path: Path) -> Accuracies:
    try:
        npy.require_regular(path)
        lines = list(csv.DictReader(io.StringIO(path.read_text())))
    except (npy.Malformed, OSError, UnicodeDecodeError, csv.Error) as error:
        raise errors.DataError(f"{path} cannot be read as a table ({error}).") from error
    missing = [_column(part) for part in PARTS if not lines or _column(part) not in lines[0]]
    if missing:
        raise errors.DataError(f"{path} lacks {', '.join(missing)}. Expected the header {HEADER} and a line per model.")
    try:
        found = {part: np.asarray([float(line[_column(part)]) for line in lines]) for part in PARTS}
    except (TypeError, ValueError) as error:
        raise errors.DataError(f"{path} holds an accuracy that is no number ({error}).") from error
    for name, values in found.items():
        if not ((values >= 0) & (values <= 1)).all():
            wrong = int(np.flatnonzero(~((values >= 0) & (values <= 1)))[0])
            raise errors.DataError(
                f"{path}: {_column(name)} of line {wrong + 1} is {values[wrong]:g}; accuracies are fractions between 0 "
                "and 1."
            )
    return found


def _column(part: str) -> str:
    return f"{part}_accuracy"


def write(
    path: Path, labels: np.ndarray, retrained: np.ndarray, unlearned: Mapping[str, np.ndarray],
    accuracies: Mapping[str, Mapping[str, np.ndarray]], named: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> None:  # fmt: skip
    """Writes a folder that `read`, and the published scripts, can read.

    Args:
      path: the folder.
      labels: [S] int.
      retrained: [S, N, C] logits; `unlearned`: approach -> the same.
      unlearned: by approach.
      accuracies: as in `Folder`.
      named: as in `Folder`.

    Raises:
      StoreError: cannot be written.
    """
    for name, array in named.items():
        files.write_npy(path / f"{name}.npy", array)
    classes = retrained.shape[-1]
    one_hot = np.eye(classes, dtype=np.float32)[labels][:, None]
    for name, values in {"": retrained, **unlearned}.items():
        stacked = np.concatenate([one_hot, np.asarray(values, np.float32)], axis=1)
        files.write_npy(path / name / (UNLEARNED if name else RETRAINED), stacked)
        if name in accuracies:
            own = accuracies[name]
            lines = zip(*(own[part] for part in PARTS), strict=True)
            rows = [f"{seed},{','.join(repr(float(value)) for value in line)}" for seed, line in enumerate(lines)]
            text = "\n".join([HEADER, *rows]) + "\n"
            files.write_bytes(path / name / METRICS, text.encode())
