"""Picture files: which files of a folder are pictures, and how their pixels become one array.

    folder -> listing -> pictures, and how many of what is left out
    pictures -> headers (channels, depth) -> pixels [N, size, size, C]

Nothing is lost on the way in silence: more than 8 bits become float32, and what only the transparency of a picture
shows is drawn.
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
# Ink of any brightness but this one stands out from it.
GROUND = (128, 128, 128, 255)


def entries(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns what lies in a folder, sorted by name, hidden files left out.

    Raises:
      DataError: no folder, one that cannot be read, or a link in it that points to nothing.
    """
    try:
        found = sorted(one for one in folder.iterdir() if not one.name.startswith("."))
        dangling = next((one for one in found if not one.exists()), None)
    except OSError as error:
        raise errors.DataError(f"{folder} cannot be read as a folder ({error.strerror}).") from error
    if dangling is not None:
        raise errors.DataError(
            f"{dangling} is a link to {dangling.readlink()}, which does not exist. Restore that, or remove the link."
        )
    return found


def listing(folder: pathlib.Path) -> tuple[list[pathlib.Path], Counter[str]]:
    """Lists the pictures of one class; a class folder may keep them in a folder `images` of its own.

    Returns:
      (pictures sorted by path, how many entries of which kind are no pictures).

    Raises:
      DataError: as `entries`, or something called like a picture that is no regular file.
    """
    inner = folder / "images"
    there = sorted([*entries(folder), *(entries(inner) if inner.is_dir() else [])])
    pictures = [one for one in there if one.suffix.lower() in SUFFIXES]
    for one in pictures:
        if not one.is_file():
            raise errors.DataError(f"{one} is called like a picture but is no regular file. Remove or rename it.")
    return pictures, Counter(kind_of(one) for one in there if one.suffix.lower() not in SUFFIXES and one != inner)


def kind_of(path: pathlib.Path) -> str:
    """What to call an entry that is left out."""
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
      ([N, size, size, C], how many pictures are transparent in places). C = 1 where every picture is grey, else 3;
      uint8, or float32 brightness in 0 .. 1 where one of them has 16 bits.

    Raises:
      DataError: a file that is not one picture of at most 16 bits (named), or more pixels than memory holds.
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
    """What `work` makes of an opened picture; a broken file is an error that names it."""
    import PIL.Image

    broken = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, MemoryError,
              struct.error, zlib.error, PIL.Image.DecompressionBombError)  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large, but sound; or without what is broken in its metadata
            with PIL.Image.open(path) as picture:
                return work(picture)
    except broken as error:
        raise errors.DataError(
            f"{path} cannot be read as a picture ({error}). Remove the file or replace it with a sound one."
        ) from error


def _header(picture: Any) -> tuple[bool, bool]:
    """(is grey, has 16 bits) of a picture whose pixels need not be read."""
    # Photographs of some cameras hold a second, smaller view.
    if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":
        raise ValueError(f"it holds {picture.n_frames} pictures or pages; save each to a file of its own")
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits")
    is_deep = picture.mode in DEEP_MODES
    return is_deep or picture.mode in GREY_MODES, is_deep


def _pixels(picture: Any, size: int) -> tuple[np.ndarray, bool]:
    """([size, size, 1 or 3] uint8, or float32 in 0 .. 1 of a picture of 16 bits; is it transparent in places)."""
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
        # One and the same transparency everywhere shows nothing.
        is_transparent = low < high
        if is_transparent:
            picture = PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, GROUND), picture)
    return resized(picture.convert("RGB"), size), is_transparent


def _brightness(values: np.ndarray) -> np.ndarray:
    return values / np.float32(255) if values.dtype == np.uint8 else values


def resized(picture: Any, size: int) -> np.ndarray:
    """A PIL picture as an array with `size` pixels per side; one that has that size already is not touched."""
    import PIL.Image

    if picture.size != (size, size):
        picture = picture.resize((size, size), PIL.Image.Resampling.BILINEAR)
    return np.asarray(picture)
