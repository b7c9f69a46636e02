"""Atomic writes, checksums, and user-facing messages for operating-system errors."""

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxunlearn import errors, escapes, progress
from jaxunlearn.store import npy

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again, nothing finished is lost",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EACCES: "permission denied; choose another --workdir",
    errno.EPERM: "not permitted; choose another --workdir",
    errno.EROFS: "the file system is read-only; choose another --workdir",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another --workdir",
    errno.EEXIST: "a file of that name is in the way; choose another --workdir",
    errno.EISDIR: "a folder of that name is in the way; move it, or choose another --workdir",
    errno.ENAMETOOLONG: "the name is too long; choose another --workdir",
    errno.EFBIG: "the file is larger than the system allows (ulimit -f); run the same command again without that limit",
    errno.ENOENT: "the folder cannot be made there; choose another --workdir",
}
OUTPUTS = "outputs.jsonl"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns operating-system errors while writing `path` into StoreErrors that say what to do."""
    try:
        yield
    except OSError as error:
        raise errors.StoreError(f"cannot write {path}: {reason(error)}.") from error


def reason(error: OSError) -> str:
    """Explains an operating-system error, and what to do about it."""
    default = f"{error.strerror or error}; choose another --workdir or repair the disk, then run the same command again"
    return _REASONS.get(error.errno or 0, default)


def note(path: Path) -> None:
    """Registers an output in outputs.jsonl of its run folder, before it is written; ignores files outside of one."""
    root = next((folder for folder in path.parents if (folder / OUTPUTS).is_file()), None)
    if root is not None:
        append_json_line(root / OUTPUTS, str(path.relative_to(root)))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes an output under a temporary name, syncs it, and renames it into place."""
    note(path)
    write_whole(path, content)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file as `write_bytes` does, without registering it as an output."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Writes strict JSON atomically: NaN becomes null, infinity "inf" (`escapes.strict_json`).

    Example:
      >>> import pathlib
      >>> from jaxunlearn.store import files
      >>> files.write_json(pathlib.Path("my.json"), {"auc": 0.9})
      >>> files.read_json(pathlib.Path("my.json"))
      {'auc': 0.9}
    """
    write_bytes(path, as_json(value))


def as_json(value: Any) -> bytes:
    """Returns a value as the bytes that `write_json` writes."""
    return (_json(value, indent=1) + "\n").encode()


def read_json(path: Path, kind: type = dict) -> Any:
    """Reads a JSON object, or a list (`kind`).

    Raises:
      StoreError: damaged, of another type, or a folder. FileNotFoundError: there is no such file.
    """
    try:
        npy.require_regular(path)
        value = json.loads(path.read_text())
        if not isinstance(value, kind):
            expected = "an object" if kind is dict else f"a {kind.__name__}"
            raise npy.Malformed(f"it contains a {type(value).__name__}, expected {expected}")
    except FileNotFoundError:
        raise
    except (npy.Malformed, OSError, ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    return value


def damaged(path: Path, why: object) -> errors.StoreError:
    """Returns the error for a damaged file of a run folder."""
    return errors.StoreError(f"{path} is damaged ({why}). Delete it and run the same command again.")


def write_npz(path: Path, **arrays: Any) -> None:
    """Writes an uncompressed .npz atomically, without pickles."""
    note(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.stem}.tmp-{os.getpid()}.npz")
        np.savez(temporary, allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})
        os.replace(temporary, path)


def write_npy(path: Path, array: np.ndarray) -> None:
    """Writes one array as .npy, atomically."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of an .npz; the zip's checksums detect truncation and flipped bytes.

    Raises:
      StoreError: missing or damaged.
    """
    try:
        return npy.read_archive(path)
    except FileNotFoundError as error:
        raise errors.StoreError(f"{path} is missing.") from error
    except npy.Malformed as error:
        raise damaged(path, error) from error


def append_json_line(path: Path, value: Any) -> None:
    """Appends one JSON object as a line; not atomic: a killed run may lose the last line."""
    with writing(path), open(path, "a") as file:
        file.write(_json(value) + "\n")


def checksum(array: np.ndarray) -> int:
    """Computes the CRC32 of an array's bytes in C order."""
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data) if array.size else 0


def fingerprint(facts: Any) -> str:
    """Computes a 16-digit hash of nested plain values and arrays; the order of names does not matter.

    Raises:
      TypeError: a value of another type. Its text may leave out what distinguishes it from another value.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.store import files
      >>> files.fingerprint({"a": 1, "rows": np.arange(3)}) == files.fingerprint({"rows": np.arange(3), "a": 1})
      True
    """
    digest = hashlib.blake2b(digest_size=8)

    def add_text(value: Any) -> None:
        digest.update(json.dumps(value).encode())

    def add(value: Any) -> None:
        if isinstance(value, dict):
            digest.update(b"{")
            for name in sorted(value):
                digest.update(str(name).encode() + b":")
                add(value[name])
        elif isinstance(value, (list, tuple)):
            digest.update(b"[")
            for item in value:
                add(item)
        elif isinstance(value, np.generic):
            add_text(value.item())
        elif hasattr(value, "__array__"):  # of NumPy, of JAX or of another library
            array = np.asarray(value)
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data if array.size else b"")
        else:
            add_text(value)
        digest.update(b",")

    add(facts)
    return digest.hexdigest()


def require_space(folder: Path, num_bytes: int) -> None:
    """Raises a StoreError if the disk of `folder` has less free space than the run will write."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise errors.StoreError(
            f"{folder} has {progress.size(free)} free, but this run writes about {progress.size(num_bytes)}. "
            "Free some space, choose another --workdir, or record less (shadows.count, engine.logits_dtype=float16)."
        )


def remove(path: Path) -> None:
    """Deletes a file or folder if it is there."""
    with writing(path):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(escapes.strict_json(value), indent=indent, default=str, allow_nan=False)
