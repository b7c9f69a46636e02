"""User-given arrays: an .npz, or a folder of memory-mapped .npy files.

`npy` checks types and sizes before anything is read. Names, axes and dtypes are checked by `jaxunlearn.arrays`.
"""

import os
from pathlib import Path

import numpy as np

from jaxunlearn import errors, escapes
from jaxunlearn.store import npy


def read(path: Path | str, expected: str = "") -> dict[str, np.ndarray]:
    """Reads the arrays of an .npz, or of a folder of .npy files (as read-only memory maps).

    Args:
      path: as given by the user.
      expected: a sentence for error messages: what the file should contain.

    Returns:
      name -> array of numbers, bools or strings in this machine's byte order. Unprintable characters of names are
      escaped.

    Raises:
      DataError: missing, unreadable, larger than memory, not of plain arrays, or an empty array of several axes.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.store import arrays
      >>> np.savez("my.npz", labels=np.arange(3))
      >>> arrays.read("my.npz")
      {'labels': array([0, 1, 2])}
    """
    path = expand(path)
    try:
        if os.path.isdir(path):  # unlike Path.is_dir, False for invalid names
            arrays = {file.stem: mapped(file) for file in sorted(path.glob("*.npy"))}
            if not arrays:
                raise errors.DataError(f"{path} contains no .npy files. {expected}")
        elif path.suffix == ".npy":
            raise errors.DataError(f"{path} is a single array. {expected}")
        else:
            arrays = npy.read_archive(path)
            if not arrays:
                raise npy.Malformed("contains no array")
    except FileNotFoundError as error:
        raise errors.DataError(f"{path} does not exist. {expected}") from error
    except npy.Malformed as error:
        raise errors.DataError(
            f"{path} cannot be read as an .npz of plain arrays: it {error}. Save it with numpy.savez(path, "
            f"name=array, ...). {expected}"
        ) from error
    for name, array in arrays.items():
        if array.ndim > 1 and not array.size:
            raise errors.DataError(
                f"{path}: {name!r} has shape {array.shape}, it contains no value. Leave out what you do not have."
            )
    return {escapes.escaped(name): array for name, array in arrays.items()}


def mapped(path: Path) -> np.ndarray:
    """Returns a .npy as a read-only memory map; raises a DataError if it is not a plain array."""
    try:
        return npy.map_file(path)
    except FileNotFoundError as error:
        raise errors.DataError(f"{path} does not exist.") from error
    except npy.Malformed as error:
        raise errors.DataError(
            f"{path} cannot be read as a plain array: it {error}. Save it with numpy.save."
        ) from error


def expand(path: Path | str) -> Path:
    """Returns a path with `~` expanded; raises a DataError for invalid paths."""
    if "\0" in str(path):
        raise errors.DataError(f"{str(path)!r} is not a path (it contains a NUL).")
    try:
        return Path(path).expanduser()
    except (RuntimeError, ValueError) as error:  # the home of an unknown user
        raise errors.DataError(f"{str(path)!r} is not a path ({error}).") from error
