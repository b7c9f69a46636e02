"""Logits on disk: one memory-mapped .npy [M, N, C] per role and view, and a manifest of finished members.

    logits/shadow.npy  logits/shadow.json          the clean view
    logits/shadow.augmented_0.npy  ...             further views

A member's block is valid once its checksum is in the manifest. After truncation or alteration, only the affected
members are computed again.
"""

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import errors
from jaxunlearn.store import files, npy


class LogitsFile(NamedTuple):
    """An open logits file.

    Attributes:
      values: [M, N, C] memory map; block i belongs to member i.
      done: member -> checksum of its block.
      path: the .npy; `facts`: rows, classes, dtype and fingerprint, as in the manifest.
      damaged: members whose block did not match its checksum when the file was opened.
    """

    values: np.memmap
    done: dict[int, int]
    path: Path
    facts: dict[str, Any]
    damaged: tuple[int, ...] = ()


def open_file(
    path: Path, num_members: int, num_rows: int, num_classes: int, dtype: str, fingerprint: str
) -> LogitsFile:
    """Opens or creates a logits file of at least `num_members` blocks and verifies the finished ones.

    A file of other facts, or an unreadable one, is replaced; finished blocks of a smaller file are copied.

    Args:
      path: the .npy; the manifest has the same name with .json.
      num_members: M, at least.
      num_rows: N.
      num_classes: C.
      dtype: "float32" or "float16".
      fingerprint: of the role's stage.
    """
    facts = {"rows": num_rows, "classes": num_classes, "dtype": dtype, "fingerprint": fingerprint}
    done = _read_done(path, facts)
    old, damaged = _open_old(path, facts, done)
    done = {member: crc for member, crc in done.items() if member not in damaged}
    if old is not None and old.mode == "r+" and old.shape[0] >= num_members:
        return LogitsFile(old, done, path, facts, damaged)
    num_members = max(num_members, *(member + 1 for member in done), 1)
    values = _make(path, (num_members, num_rows, num_classes), dtype)
    for member in done:
        assert old is not None
        values[member] = old[member]
    values.flush()
    temporary = Path(str(values.filename))
    with files.writing(path):
        os.replace(temporary, path)
    file = LogitsFile(np.load(path, mmap_mode="r+"), done, path, facts, damaged)
    _write_manifest(file)
    return file


def commit(file: LogitsFile, member_ids: np.ndarray) -> None:
    """Marks members as finished, after flushing their blocks to disk."""
    file.values.flush()
    for member in np.asarray(member_ids).tolist():
        file.done[member] = files.checksum(np.asarray(file.values[member]))
    _write_manifest(file)


def read(path: Path) -> np.ndarray:
    """Returns the logits as a read-only memory map [M, N, C].

    Raises:
      StoreError: missing or unreadable.
    """
    try:
        return npy.map_file(path)
    except (npy.Malformed, OSError) as error:
        raise errors.StoreError(f"{path} cannot be read ({error}); run launch.shadows again to repair it.") from error


def _make(path: Path, shape: tuple[int, ...], dtype: str) -> np.memmap:
    temporary = path.with_name(f"{path.stem}.tmp-{os.getpid()}.npy")
    files.note(path)
    with files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.lib.format.open_memmap(temporary, "w+", dtype=np.dtype(dtype), shape=shape)
        # A full disk must fail here, with a message, not later with a bus error during a memory write.
        with open(temporary, "r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, temporary.stat().st_size)
    return values


def _read_done(path: Path, facts: dict[str, Any]) -> dict[int, int]:
    try:
        manifest = files.read_json(path.with_suffix(".json"))
        if manifest["facts"] != facts:
            return {}
        return {int(member): crc for member, crc in manifest["done"].items()}
    except (OSError, errors.StoreError, KeyError, TypeError, ValueError, AttributeError):
        return {}


def _open_old(path: Path, facts: dict[str, Any], done: dict[int, int]) -> tuple[np.memmap | None, tuple[int, ...]]:
    """Returns the existing file if its shape matches, and the finished members whose blocks are damaged or missing."""
    if not done:
        return None, ()
    members = tuple(sorted(done))
    try:
        num_bytes = npy.require_regular(path)
        with open(path, "rb") as file:
            header = npy.read_header(file)
    except (OSError, npy.Malformed):
        return None, members
    block = (facts["rows"], facts["classes"])
    if len(header.shape) != 3 or header.shape[1:] != block or header.dtype != np.dtype(facts["dtype"]):
        return None, members
    if num_bytes == header.size:
        values = np.load(path, mmap_mode="r+")
    else:  # truncated, or another number of members: the remaining blocks, to be copied
        num_stored = (num_bytes - header.offset) // (math.prod(block) * header.dtype.itemsize)
        if num_stored < 1:
            return None, members
        values = np.memmap(path, header.dtype, "r", header.offset, (num_stored, *block))
    stored_members = [member for member in members if member < len(values)]
    intact = {member for member in stored_members if files.checksum(np.asarray(values[member])) == done[member]}
    return values, tuple(member for member in members if member not in intact)


def _write_manifest(file: LogitsFile) -> None:
    done = {str(member): crc for member, crc in sorted(file.done.items())}
    files.write_json(file.path.with_suffix(".json"), {"facts": file.facts, "done": done})
