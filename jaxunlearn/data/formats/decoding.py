"""Picture files: which files of a folder are pictures, and how their pixels become one array.

    folder -> listing -> pictures, and counts of the entries left out
    pictures -> headers (channels, depth) -> pixels [N, size, size, C]

Nothing is lost silently: more than 8 bits become float32, and content that only the transparency of a picture shows
is drawn.
"""

import pathlib
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxunlearn import errors
from jaxunlearn.data.formats import files

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

GREY_MODES = ("1", "L", "LA", "La")
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
DEEPEST = 65535
# The background behind transparent pictures: both black and white ink are visible on it.
GROUND = (128, 128, 128, 255)


def entries(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the entries of a folder, sorted by name, without hidden files.

    Raises:
      DataError: no folder, one that cannot be read, or a link in it that points to nothing.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        dangling_link = next((path for path in paths if not path.exists()), None)
    except OSError as error:
        raise errors.DataError(f"{folder} cannot be read as a folder ({error.strerror}).") from error
    if dangling_link is not None:
        raise errors.DataError(
            f"{dangling_link} is a link to {dangling_link.readlink()}, which does not exist. Restore that, or remove "
            "the link."
        )
    return paths


def listing(folder: pathlib.Path) -> tuple[list[pathlib.Path], Counter[str]]:
    """Lists the pictures of one class; a class folder may keep them in a folder `images` of its own.

    Returns:
      (pictures sorted by path, number of other entries by kind).

    Raises:
      DataError: as `entries`, or something called like a picture that is not a regular file.
    """
    inner = folder / "images"
    paths = sorted([*entries(folder), *(entries(inner) if inner.is_dir() else [])])
    pictures = [path for path in paths if path.suffix.lower() in SUFFIXES]
    for path in pictures:
        if not path.is_file():
            raise errors.DataError(f"{path} is named like a picture but is not a regular file. Remove or rename it.")
    return pictures, Counter(kind_of(path) for path in paths if path.suffix.lower() not in SUFFIXES and path != inner)


def kind_of(path: pathlib.Path) -> str:
    """Returns the kind of an entry that is left out, in words."""
    if path.is_dir():
        return "folders"
    return repr(path.suffix.lower()) if path.suffix else "without suffix"


def read_pictures(paths: Sequence[pathlib.Path], size: int) -> tuple[np.ndarray, int]:
    """Reads pictures as one array.

    Pictures whose transparency differs from pixel to pixel are laid on mid-grey, where black and white ink show.

    Args:
      paths: N picture files.
      size: pixels per side; a picture of another size is resized (its shape is not kept).

    Returns:
      ([N, size, size, C], number of pictures with transparent regions). C = 1 where every picture is grey, else 3;
      uint8, or float32 brightness in 0 .. 1 where one of them has 16 bits.

    Raises:
      DataError: a file that is not one picture of at most 16 bits (named), or more pixels than fit into memory.
    """
    headers = [_read(path, _header) for path in paths]
    channels = 1 if headers and all(is_grey for is_grey, _ in headers) else 3
    is_deep = any(deep for _, deep in headers)
    shape, dtype = (len(paths), size, size, channels), np.dtype(np.float32 if is_deep else np.uint8)
    files.require_memory(f"{len(paths):,} pictures of {size} x {size}", int(np.prod(shape)) * dtype.itemsize)
    out, transparent = np.empty(shape, dtype), 0
    for row, path in zip(out, paths, strict=True):
        values, is_transparent = _read(path, lambda picture: _pixels(picture, size))
        transparent += is_transparent
        row[:] = (_brightness(values) if is_deep else values)[..., :channels]
    return out, transparent


def _read(path: pathlib.Path, work: Any) -> Any:
    """Returns `work(picture)` of a picture file; a DataError names a broken file."""
    import PIL.Image

    failures = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, MemoryError,
              struct.error, zlib.error, PIL.Image.DecompressionBombError)  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and of broken metadata
            with PIL.Image.open(path) as picture:
                return work(picture)
    except failures as error:
        raise errors.DataError(
            f"{path} cannot be read as a picture ({error}). Remove the file or replace it with an intact one."
        ) from error


def _header(picture: Any) -> tuple[bool, bool]:
    """Returns (is grey, has 16 bits) without reading the pixels."""
    # Photographs of some cameras hold a second, smaller view.
    if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":
        raise ValueError(f"it contains {picture.n_frames} pictures or pages; save each to a file of its own")
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits")
    is_deep = picture.mode in DEEP_MODES
    return is_deep or picture.mode in GREY_MODES, is_deep


def _pixels(picture: Any, size: int) -> tuple[np.ndarray, bool]:
    """Returns (pixels [size, size, 1 or 3] uint8, or float32 in 0 .. 1 if it has 16 bits; has transparent regions)."""
    import PIL.Image

    if picture.mode in DEEP_MODES:
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > DEEPEST:
            raise ValueError(f"its pixels are {values.min()} to {values.max()}; save it with 8 or 16 bits per pixel")
        grey = PIL.Image.fromarray(values.astype(np.float32) / DEEPEST)
        return resized(grey, size)[..., None], False
    is_transparent = False
    if picture.mode in ALPHA_MODES or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        low, high = picture.getextrema()[3]
        # A constant transparency shows nothing.
        is_transparent = low < high
        if is_transparent:
            picture = PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, GROUND), picture)
    return resized(picture.convert("RGB"), size), is_transparent


def _brightness(values: np.ndarray) -> np.ndarray:
    return values / np.float32(255) if values.dtype == np.uint8 else values


def resized(picture: Any, size: int) -> np.ndarray:
    """Returns a PIL picture as an array with `size` pixels per side; resized only if it has another size."""
    import PIL.Image

    if picture.size != (size, size):
        picture = picture.resize((size, size), PIL.Image.Resampling.BILINEAR)
    return np.asarray(picture)
