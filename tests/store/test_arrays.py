"""User-given array files: anything but plain arrays is refused with one message, before it is read."""

import os
import struct
import zipfile

import numpy as np
import pytest

from jaxunlearn import errors
from jaxunlearn.store import arrays, npy, published_layout

ARRAY = np.arange(6.0).reshape(2, 3)


def raw(header, content=b"1234"):
    """A .npy whose header is this text."""
    text = header.encode()
    return npy.MAGIC + b"\x01\x00" + struct.pack("<H", len(text)) + text + content


def described(shape="(1,)", descr="'<f4'"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


def zipped(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def encrypted(path):
    content = bytearray(zipped(path, [("a.npy", raw(described()))]).read_bytes())
    offset = content.index(b"PK\x01\x02")
    content[offset + 8] |= 1
    path.write_bytes(content)
    return path


def saved(path, **named):
    np.savez(path, **named)
    return path


def renamed(path):
    np.save(path.with_suffix(".npy"), ARRAY)
    os.replace(path.with_suffix(".npy"), path)
    return path


def pipe(path):
    os.mkfifo(path)
    return path


def refused(path, read=arrays.read):
    with pytest.raises(errors.DataError) as caught:
        read(path)
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    "make, message",
    [
        (renamed, "a .npy under another name"),
        (encrypted, "contains 'a.npy', which is encrypted"),
        (lambda path: zipped(path, [("a.npy", raw(described()))], zipfile.ZIP_BZIP2), "compressed by method 12"),
        (lambda path: zipped(path, [("notes.txt", b"")]), "contains 'notes.txt', which is not an array"),
        (lambda path: zipped(path, []), "contains no array"),
        (lambda path: zipped(path, [("a.npy", b"text")]), "contains 'a.npy', which is not a .npy"),
        (lambda path: zipped(path, [("a.npy", raw("(" * 9000))]), "has a damaged header"),
        (lambda path: zipped(path, [("a.npy", raw("{'descr'"))]), "has a damaged header"),
        (lambda path: zipped(path, [("a.npy", raw(described("(-1,)")))]), r"impossible shape (-1,)"),
        (lambda path: zipped(path, [("a.npy", raw(described("(10**12,)")))]), "has a damaged header"),
        (lambda path: zipped(path, [("a.npy", raw(described("(1000000000000,)")))]), "does not fit its shape"),
        (lambda path: zipped(path, [("a.npy", raw(described(descr="[('a', '<f4')]")))]), "expected plain numbers"),
        (lambda path: zipped(path, [("\x1b[31m.npy", b"")]), r"contains '\x1b[31m.npy', which is not a .npy"),
        (lambda path: saved(path, a=ARRAY.astype(np.longdouble)), "has dtype float128"),
        (lambda path: saved(path, a=ARRAY.astype(complex)), "has dtype complex128"),
        (lambda path: saved(path, a=np.array([{}, None])), "contains Python objects"),
        (lambda path: saved(path, a=np.zeros((0, 3, 2))), "'a' has shape (0, 3, 2), it contains no value"),
        (pipe, "is a pipe, a device or a socket"),
        (lambda path: path, "does not exist"),
        (lambda path: path.with_name("a" * 300), "File name too long"),
        (lambda path: f"{path}\0", "it contains a NUL"),
        (lambda path: "~nobody_of_that_name/a.npz", "is not a path"),
    ],
)  # fmt: skip
def test_what_is_no_archive_of_plain_arrays_is_one_message(make, message, tmp_path):
    assert message in refused(make(tmp_path / "a.npz"))


def test_sizes_are_checked_before_anything_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(10**6, np.uint8))
    monkeypatch.setattr(npy, "_read", lambda *_: pytest.fail("it was unpacked"))
    monkeypatch.setattr(npy, "RATIO_FREE_BYTES", 10**5)
    assert "claims to unpack to 976.7 KiB from 1.2 KiB" in refused(path)
    monkeypatch.setattr(npy, "RATIO_FREE_BYTES", 10**9)
    monkeypatch.setattr(npy, "_memory", lambda: 10**5)
    assert "needs 976.7 KiB of memory, more than there is" in refused(path)


def test_any_byte_order_is_read_as_the_machines_own(tmp_path):
    other = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in
             {"a": ARRAY, "b": np.arange(3), "c": np.array(["ä", "b"])}.items()}  # fmt: skip
    np.savez(tmp_path / "a.npz", **other)
    for name, array in other.items():
        np.save(tmp_path / f"{name}.npy", array)
    for path in (tmp_path / "a.npz", tmp_path):
        for name, array in arrays.read(path).items():
            assert array.dtype.isnative
            np.testing.assert_array_equal(array, other[name])


def test_a_folder_is_mapped_and_its_damage_named(tmp_path):
    np.save(tmp_path / "a.npy", ARRAY)
    assert isinstance(arrays.read(tmp_path)["a"], np.memmap)
    os.truncate(tmp_path / "a.npy", 150)
    assert "a.npy cannot be read as a plain array: it is cut short: 150 of 176 bytes" in refused(tmp_path)
    os.remove(tmp_path / "a.npy")
    (tmp_path / "a.npy").mkdir()
    assert "it is a folder, not a regular file" in refused(tmp_path)


def test_names_that_would_steer_the_terminal_come_escaped(tmp_path):
    path = saved(tmp_path / "a.npz", **{"a\x1b[2J": ARRAY})
    assert list(arrays.read(path)) == [r"a\x1b[2J"]
    (tmp_path / "b\x1b[2J").mkdir()
    for name in ("logits_retain.npy", "b\x1b[2J/logits_unlearn.npy"):
        np.save(tmp_path / name, ARRAY)
    assert list(published_layout.read(tmp_path).unlearned) == [r"b\x1b[2J"]
