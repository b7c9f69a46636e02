"""Checks array files before reading them: zip directories and .npy headers.

    regular file -> zip directory: kinds, sizes -> header of each member -> total size -> arrays, native byte order

`arrays` (user-given files), `files` and `logits` (files of run folders) turn `Malformed` into their own errors.
"""

import io
import math
import os
import stat
import struct
import zipfile
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from jaxunlearn import escapes, progress

MAGIC = b"\x93NUMPY"
# Also numpy.load's limit; headers are parsed as Python literals.
MAX_HEADER_BYTES = 10_000
# Real data never compresses this well; files that unpack to more are refused (zip bombs).
MAX_RATIO, RATIO_FREE_BYTES = 100, 2**30
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1


class Malformed(Exception):
    """The file is not a plain array or an archive of plain arrays; the message is a clause that explains why."""


class Header(NamedTuple):
    """The header of a .npy, and the byte offset of its values."""

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int

    @property
    def size(self) -> int:
        """Bytes of the whole .npy."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes]) -> Header:
    """Reads the header of a .npy of plain numbers, bools or strings.

    Raises:
      Malformed: not a .npy file, an implausible header, Python objects, or an unsupported type (float128, complex ...).
    """
    start = file.read(8)
    if start[:6] != MAGIC:
        raise Malformed("is not a .npy file")
    width, version = {b"\x01\x00": ("<H", (1, 0)), b"\x02\x00": ("<I", (2, 0))}.get(start[6:], ("", (0, 0)))
    if not width:
        raise Malformed("is of an unknown .npy version")
    prefix = file.read(struct.calcsize(width))
    length = struct.unpack(width, prefix)[0] if len(prefix) == struct.calcsize(width) else MAX_HEADER_BYTES + 1
    if length > MAX_HEADER_BYTES:
        raise Malformed("has a damaged header")
    shape, dtype = _parse(prefix + file.read(length), version)
    if not all(type(axis) is int and axis >= 0 for axis in shape) or len(shape) > 32:
        raise Malformed(f"has the impossible shape {str(shape)[:60]}")
    if dtype.hasobject:
        raise Malformed("contains Python objects, which are never unpickled (they could run code)")
    if dtype.kind not in "biufUS" or (dtype.kind == "f" and dtype.itemsize > 8):
        raise Malformed(
            f"has dtype {escapes.escaped(str(dtype))[:60]}, expected plain numbers of at most 64 bits (NumPy files do "
            "not keep bfloat16: convert to float32 before saving)"
        )
    return Header(shape, dtype, 8 + len(prefix) + length)


def _parse(text: bytes, version: tuple[int, int]) -> tuple[tuple[int, ...], np.dtype]:
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(io.BytesIO(text), max_header_size=MAX_HEADER_BYTES)
    except Exception as error:  # noqa: BLE001 - the literal parser raises many types, even MemoryError
        raise Malformed("has a damaged header") from error
    return shape, dtype


def require_regular(path: Path) -> int:
    """Returns the size in bytes of a regular file; refuses pipes (reading would block), devices and folders.

    Raises:
      Malformed: not a regular file. FileNotFoundError: there is no such file.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # a loop of links, a name too long, a NUL in it
        raise Malformed(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a device or a socket"
        raise Malformed(f"is {kind}, not a regular file")
    return status.st_size


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of an .npz, in this machine's byte order.

    Raises:
      Malformed: not an .npz of plain arrays, damaged, or larger than memory. FileNotFoundError: there is no such file.

    Example:
      >>> import pathlib
      >>> import numpy as np
      >>> from jaxunlearn.store import npy
      >>> np.savez("my.npz", labels=np.arange(3))
      >>> npy.read_archive(pathlib.Path("my.npz"))
      {'labels': array([0, 1, 2])}
    """
    num_bytes = require_regular(path)
    try:
        with open(path, "rb") as file:
            if file.read(6) == MAGIC:
                raise Malformed("is a single array, a .npy under another name")
            if not zipfile.is_zipfile(file):
                raise Malformed("is not a zip archive")
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                _check_directory(members, num_bytes)
                for member in members:
                    _check_member(archive, member)
                return {member.filename.removesuffix(".npy"): _read(archive, member) for member in members}
    except (Malformed, FileNotFoundError):
        raise
    except MemoryError as error:
        raise Malformed("does not fit into memory; save each array as a .npy, which is memory-mapped") from error
    except Exception as error:  # noqa: BLE001 - zipfile and zlib report damage by many types
        lines = str(error).splitlines() or [type(error).__name__]
        raise Malformed(escapes.escaped(f"is damaged: {lines[0][:160]}")) from error


def _check_directory(members: list[zipfile.ZipInfo], num_bytes: int) -> None:
    for member in members:
        name = member.filename
        if not name.endswith(".npy"):
            raise Malformed(f"contains {name!r}, which is not an array")
        if member.flag_bits & _ENCRYPTED:
            raise Malformed(f"contains {name!r}, which is encrypted")
        if member.compress_type not in _METHODS:
            raise Malformed(f"contains {name!r}, which is compressed by method {member.compress_type}")
    names = [member.filename for member in members]
    duplicate = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if duplicate is not None:
        raise Malformed(f"contains {duplicate!r} twice")
    if sum(member.compress_size for member in members) > num_bytes:
        raise Malformed("is damaged: its members are larger than the file")
    total = sum(member.file_size for member in members)
    if total > max(RATIO_FREE_BYTES, MAX_RATIO * num_bytes):
        raise Malformed(
            f"claims to unpack to {progress.size(total)} from {progress.size(num_bytes)}; if that is right, save it "
            "uncompressed"
        )
    if total > _memory():
        raise Malformed(
            f"needs {progress.size(total)} of memory, more than there is; save each array as a .npy in one folder, "
            "they are memory-mapped"
        )


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    with archive.open(member) as file:
        try:
            header = read_header(file)
        except Malformed as error:
            raise Malformed(f"contains {member.filename!r}, which {error}") from error
    if header.size != member.file_size:
        raise Malformed(f"contains {member.filename!r}, whose size does not fit its shape {header.shape}")


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        return native(np.lib.format.read_array(file, allow_pickle=False, max_header_size=MAX_HEADER_BYTES))


def map_file(path: Path) -> np.ndarray:
    """Returns a .npy as a read-only memory map, or as a copy in memory if its byte order differs.

    Raises:
      Malformed: not a plain array, or truncated. FileNotFoundError: there is no such file.
    """
    num_bytes = require_regular(path)
    try:
        with open(path, "rb") as file:
            header = read_header(file)
        if header.size > num_bytes:
            raise Malformed(f"is cut short: {num_bytes:,} of {header.size:,} bytes")
        if 0 in header.shape:  # empty files cannot be mapped
            return np.empty(header.shape, header.dtype)
        return native(np.load(path, mmap_mode="r", allow_pickle=False))
    except OSError as error:
        raise Malformed(f"cannot be read: {error.strerror or error}") from error


def native(array: np.ndarray) -> np.ndarray:
    """Converts an array to this machine's byte order, without a copy if possible."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
