"""What the axes of recorded logits are: logits/index.json, and arrays with one entry per row beside the logits.

logits/index.json    {"shadow.npy": {"axes": [...], "file_rows": "file_rows.npy", "labels": "labels.npy", ...}, ...}
logits/file_rows.npy, labels.npy, ids.npy, rows.npy      of the shadow models and of all who share their rows
logits/ROLE.file_rows.npy, ...                           of a role with other rows
logits/ROLE.trained.npy                                  [models, rows] bool: the model was trained on the row
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxunlearn import errors
from jaxunlearn.store import files, npy

INDEX = "index.json"


def describe(
    path: Path, stem: str, rows: Mapping[str, np.ndarray], classes: Mapping[str, np.ndarray], trained: np.ndarray,
    facts: Mapping[str, Any], is_main: bool,
) -> None:  # fmt: skip
    """Writes what the axes of a file of logits are, where it is not written already.

    Args:
      path: logits/NAME.npy of a run folder.
      stem: of the names of arrays that are this role's own.
      rows: name -> [n] array along the rows; `rows` is one of them and identifies them.
      classes: name -> [C] array along the classes, the same for all roles.
      trained: [M, n] bool.
      facts: plain values about the file, kept in the index.
      is_main: its rows have the plain names, to which roles of the same rows refer.
    """
    folder = path.parent
    shares = is_main or same(folder / "rows.npy", rows["rows"])
    entry = dict(facts)
    for name, array in rows.items():
        entry[name] = f"{name}.npy" if shares else f"{stem}.{name}.npy"
        keep(folder / entry[name], array)
    for name, array in classes.items():
        entry[name] = f"{name}.npy"
        keep(folder / entry[name], array)
    entry["trained"] = f"{stem}.trained.npy"
    keep(folder / entry["trained"], trained)
    try:
        before = files.read_json(folder / INDEX)
    except (FileNotFoundError, errors.StoreError):  # every command writes its roles' entries again
        before = {}
    index = {name: one for name, one in before.items() if (folder / name).exists()} | {path.name: entry}
    if index != before:
        files.write_json(folder / INDEX, index)


def same(path: Path, array: np.ndarray) -> bool:
    """Tells whether a file holds this very array."""
    if not os.path.lexists(path):
        return False
    try:
        found = npy.map_file(path)
    except (npy.Malformed, OSError, ValueError):
        return False
    return found.dtype == array.dtype and np.array_equal(found, array)


def keep(path: Path, array: np.ndarray) -> None:
    """Writes an array unless its file holds it already."""
    if not same(path, array):
        files.write_npy(path, array)
