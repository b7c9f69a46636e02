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
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from jaxunlearn import errors
from jaxunlearn.store import arrays, files

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
    return (path / RETRAINED).exists()


def read(path: Path) -> Folder:
    """Reads a folder; logits are memory-mapped.

    Raises:
      DataError: a file that is no plain array, or a metrics.csv without the columns or with something that is no
        fraction.
    """
    subfolders = sorted(one for one in path.iterdir() if (one / UNLEARNED).exists())
    unlearned = {one.name: arrays.mapped(one / UNLEARNED) for one in subfolders}
    places = {"": path, **{one.name: one for one in subfolders}}
    accuracies = {name: _accuracies(place / METRICS) for name, place in places.items() if (place / METRICS).is_file()}
    named = {name: arrays.mapped(path / f"{name}.npy") for name in NAMES if (path / f"{name}.npy").is_file()}
    return Folder(arrays.mapped(path / RETRAINED), unlearned, accuracies, named)


def _accuracies(path: Path) -> Accuracies:
    try:
        lines = list(csv.DictReader(io.StringIO(path.read_text())))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
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
