"""Arrays that a user brings: an .npz, or a folder of .npy files that are memory-mapped."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from jaxunlearn import errors


def read(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an .npz, or of a folder of .npy files (as read-only memory maps).

    Raises:
      DataError: not there, not readable, or pickled objects inside.
    """
    if path.is_dir():
        found = {file.stem: _mapped(file) for file in sorted(path.glob("*.npy"))}
        if not found:
            raise errors.DataError(
                f"{path} holds no .npy files; an evidence folder has original.npy, unlearned.npy ..."
            )
        return found
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise errors.DataError(
            f"--evidence={path} does not exist. It must be an .npz with `unlearned` [n, c], `labels` [n] and as many "
            "of `original` [n, c], `shadows` [s, n, c], `forgotten` [n] as you have."
        ) from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
        raise errors.DataError(
            f"--evidence={path} cannot be read as an .npz of plain arrays ({error}). Save it with numpy.savez(path, "
            "original=..., unlearned=..., shadows=..., labels=...)."
        ) from error


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise errors.DataError(f"{path} cannot be read as a plain array ({error}). Save it with numpy.save.") from error
