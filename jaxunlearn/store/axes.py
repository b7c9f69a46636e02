"""Descriptions of the axes of recorded logits: logits/index.json, and arrays with one entry per row.

logits/index.json    {"shadow.npy": {"axes": [...], "file_rows": "file_rows.npy", "labels": "labels.npy", ...}, ...}
logits/file_rows.npy, labels.npy, ids.npy, rows.npy      of the shadow models and of roles with the same rows
logits/ROLE.file_rows.npy, ...                           of a role with other rows
logits/ROLE.trained.npy                                  [models, rows] bool: whether the model trained on the row
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
    """Writes the descriptions of the axes of a logits file, unless they are up to date.

    Args:
      path: logits/NAME.npy of a run folder.
      stem: prefix of the names of arrays that only this role has.
      rows: name -> [n] array along the rows; `rows` is one of them and identifies them.
      classes: name -> [C] array along the classes, the same for all roles.
      trained: [M, n] bool.
      facts: plain values about the file, stored in the index.
      is_main: whether its row arrays have names without prefix, shared by roles with the same rows.
    """
    folder = path.parent
    has_shared_rows = is_main or same(folder / "rows.npy", rows["rows"])
    entry = dict(facts)
    for name, array in rows.items():
        entry[name] = f"{name}.npy" if has_shared_rows else f"{stem}.{name}.npy"
        keep(folder / entry[name], array)
    for name, array in classes.items():
        entry[name] = f"{name}.npy"
        keep(folder / entry[name], array)
    entry["trained"] = f"{stem}.trained.npy"
    keep(folder / entry["trained"], trained)
    try:
        old_index = files.read_json(folder / INDEX)
    except (FileNotFoundError, errors.StoreError):  # every command rewrites its roles' entries
        old_index = {}
    index = {name: other_entry for name, other_entry in old_index.items() if (folder / name).exists()} | {
        path.name: entry
    }
    if index != old_index:
        files.write_json(folder / INDEX, index)


def same(path: Path, array: np.ndarray) -> bool:
    """Returns whether a file contains this array, with the same dtype."""
    if not os.path.lexists(path):
        return False
    try:
        stored = npy.map_file(path)
    except (npy.Malformed, OSError, ValueError):
        return False
    return stored.dtype == array.dtype and np.array_equal(stored, array)


def keep(path: Path, array: np.ndarray) -> None:
    """Writes an array unless the file already contains it."""
    if not same(path, array):
        files.write_npy(path, array)
