"""Arrays that a user brings: an .npz, or a folder of .npy files that are memory-mapped."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from jaxunlearn import errors

EVIDENCE = (
    "It must be an .npz with `unlearned` [n, c], `labels` [n] and as many of `original` [n, c], `shadows` [s, n, c], "
    "`forgotten` [n] as you have."
)


def read(path: Path, expected: str = EVIDENCE) -> dict[str, np.ndarray]:
    """Arrays of an .npz, or of a folder of .npy files (as read-only memory maps).

    `expected` says in an error what the file should hold.

    Raises:
      DataError: not there, not readable, or pickled objects inside.
    """
    if path.is_dir():
        found = {file.stem: mapped(file) for file in sorted(path.glob("*.npy"))}
        if not found:
            raise errors.DataError(f"{path} holds no .npy files. {expected}")
        return found
    if path.suffix == ".npy":
        raise errors.DataError(f"{path} is a single array. {expected}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise errors.DataError(f"{path} does not exist. {expected}") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
        raise errors.DataError(
            f"{path} cannot be read as an .npz of plain arrays ({error}). Save it with numpy.savez(path, name=array, "
            f"...). {expected}"
        ) from error


def mapped(path: Path) -> np.ndarray:
    """One .npy as a read-only memory map; raises a DataError where it is no plain array."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise errors.DataError(f"{path} cannot be read as a plain array ({error}). Save it with numpy.save.") from error
