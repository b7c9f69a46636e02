"""Files of data sets: paths, reading, cached copies, and the error where a file is missing.

Decoded copies lie in one cache folder (`data.cache`, else the user's cache folder) as plain `.npz`. The name of a copy
holds a digest of its source, so a changed source is decoded again and a stale copy is never used.
"""

import gzip
import hashlib
import os
import pathlib
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from jaxunlearn import errors, progress, settings, store
from jaxunlearn.settings import DataSettings


def expand(path: str) -> pathlib.Path:
    """Expands `~` and environment variables in a user's path."""
    return pathlib.Path(os.path.expandvars(path)).expanduser()


def cache_folder(cache: str = "") -> pathlib.Path:
    """Returns the folder of decoded copies: `cache`, `$XDG_CACHE_HOME/jaxunlearn`, or `~/.cache/jaxunlearn`."""
    return expand(cache) if cache else settings.cache_folder()


def missing_error(name: str, looked: str, ways: Iterable[str] = ()) -> errors.DataError:
    """Builds the error for absent data: where they were looked for, and every way to get them.

    Args:
      name: the source's name.
      looked: where it was looked for, in words.
      ways: ways to get this source; a user's `.npz` and the built-in digits are always added.
    """
    options = [
        *ways,
        "point --config.data.path to an .npz with x_train, y_train, x_test, y_test",
        "try the built-in data, which need no file: --config.data.name=digits",
    ]
    numbered = "; ".join(f"({number}) {way}" for number, way in enumerate(options, 1))
    return errors.DataError(f"data set {name!r} was not found (looked for {looked}). Choose one: {numbered}.")


def existing(name: str, path: str, ways: Iterable[str] = ()) -> pathlib.Path:
    """Returns a user's path, expanded, which must be a file or a folder.

    Raises:
      DataError: there is nothing (the message lists the remedies), or a pipe or device, whose reading may never end.
    """
    location = expand(path)
    if not location.exists():
        raise missing_error(name, f"{location}, given as data.path", ways)
    if not location.is_file() and not location.is_dir():
        raise errors.DataError(
            f"data.path = {location} is neither a file nor a folder. Save its content to a file first."
        )
    return location


def locate(settings: DataSettings, candidates: Iterable[str], ways: Iterable[str] = ()) -> pathlib.Path:
    """Returns the file or folder of a source: `data.path`, else the first of `candidates` in the cache folder.

    Raises:
      DataError: none of them exists.
    """
    if settings.path:
        return existing(settings.name, settings.path, ways)
    folder, candidates = cache_folder(settings.cache), list(candidates)
    for candidate in candidates:
        if (folder / candidate).exists():
            return folder / candidate
    raise missing_error(settings.name, f"{' or '.join(candidates)} in {folder}, and data.path is empty", ways)


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads all arrays of an `.npz`; raises a DataError as `store.arrays.read` does."""
    return store.arrays.read(path, "If it is cut off or of another format, fetch or write it again.")


# What numpy and zipfile raise for members that are cut off, encrypted, oddly packed, or of an absurd shape.
BROKEN = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, AttributeError, MemoryError, RuntimeError,
          SyntaxError, TypeError, LookupError, OverflowError, tokenize.TokenError)  # fmt: skip


def require_memory(what: str, needed: int) -> None:
    """Raises a DataError if `needed` bytes are more than this machine's memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise errors.DataError(
            f"{what} would take {progress.size(needed)} of memory; this machine has {progress.size(memory)}. "
            "Use fewer or smaller rows."
        )


def read_bytes(path: pathlib.Path) -> bytes:
    """Reads a file, unpacked if it is gzip.

    Raises:
      DataError: no regular file, or larger than memory. OSError, EOFError: it cannot be read.
    """
    if not path.is_file():
        raise errors.DataError(f"{path} is not a regular file. Save its content to one first.")
    require_memory(str(path), path.stat().st_size)
    with open(path, "rb") as file:
        if file.read(2) != b"\x1f\x8b":
            file.seek(0)
            return file.read()
    with gzip.open(path) as file:
        # Unpacked once for its size only: a small file may unpack to more than memory holds.
        while file.read(1 << 24):
            require_memory(f"{path}, unpacked,", file.tell())
        file.seek(0)
        return file.read()


def write_npz(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays to `path` under a temporary name first, so that a reader never finds an incomplete file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            np.savez(file, **dict(arrays))  # type: ignore[arg-type]
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def digest(*parts: object) -> str:
    """Returns twelve hexadecimal digits that identify the given facts."""
    return hashlib.blake2s("\n".join(map(str, parts)).encode(errors="surrogateescape"), digest_size=6).hexdigest()


def stamp(path: pathlib.Path) -> tuple[str, int, int]:
    """Returns path, size and time of the last change, which identify a file without reading it."""
    facts = path.stat()
    return str(path.resolve()), facts.st_size, facts.st_mtime_ns


def load_cached(settings: DataSettings, stem: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the decoded copy named `stem`; makes it by `make` if it does not exist.

    A damaged copy is an error: making it again would hide a failing disk. A cache folder that cannot be written costs
    only time and gives a warning.
    """
    path = cache_folder(settings.cache) / f"{stem}.npz"
    if path.exists():
        try:
            return read_npz(path)
        except errors.DataError as error:
            raise errors.DataError(
                f"the decoded copy {path} is damaged. Delete that file and run the same command again: it is "
                "then made from its source again."
            ) from error
    arrays = make()
    try:
        write_npz(path, arrays)
    except OSError as error:
        warnings.warn(
            f"no decoded copy could be kept at {path} ({error}); every run will decode {settings.name!r} again. "
            "Set --config.data.cache to a folder that can be written.",
            stacklevel=2,
        )
    return arrays


def existing_file(setting: str, path: str) -> pathlib.Path:
    """Returns the file that a setting names.

    Raises:
      DataError: the setting is empty, or there is no such file.
    """
    location = expand(path)
    if not path or not location.is_file():
        raise errors.DataError(f"{setting} = {path!r}: there is no such file. Give the path of an existing one.")
    return location
