"""Pictures in folders, one folder per class: any user's, and CINIC-10.

Order is that of published code: classes sorted by name, files sorted by name within a class. Reading is done once; the
decoded arrays are cached under a name that depends on every file's size and time.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxunlearn import errors
from jaxunlearn.data import arrays, embedded, files
from jaxunlearn.records import Dataset
from jaxunlearn.settings import DataSettings

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

CINIC10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CINIC10_CONSTANTS = ((0.47889522, 0.47227842, 0.43047404), (0.24205776, 0.23828046, 0.25874835))


def folder(settings: DataSettings) -> Dataset:
    """Pictures under root/<split>/<class>/ (train and test, val or valid), or root/<class>/ with a fraction held out.

    Pictures are resized to `data.size` pixels per side (both sides, the shape is not kept). Grey pictures give C = 1 if
    all are grey, else everything is RGB. ids count the pictures in sorted order, held-out ones after the train ones.

    Raises:
      DataError: no path, another layout, unequal classes, or a picture that cannot be read (named).
    """
    if not settings.path:
        raise errors.DataError(
            "data set 'folder' needs a folder: set --config.data.path to one with train/<class>/*.png and "
            "test/<class>/*.png, or with <class>/*.png."
        )
    root = files.existing("folder", settings.path)
    if not (root / "train").is_dir():
        content = _decoded(settings, [root], class_names(root), settings.size)
        return arrays.build_cut(
            "folder", content["x"], content["y"], settings.held_out, class_names=content["class_names"].tolist()
        )
    held_out = next((root / part for part in ("test", "val", "valid") if (root / part).is_dir()), None)
    if held_out is None:
        raise errors.DataError(
            f"{root} has a folder 'train' but none of 'test', 'val', 'valid'; add the held-out pictures, or put the "
            "class folders directly under the root to have a fraction held out."
        )
    content = _decoded(settings, [root / "train", held_out], class_names(root / "train"), settings.size)
    return _build("folder", content, num_train=int(content["counts"][0]))


def cinic10(settings: DataSettings) -> Dataset:
    """CINIC-10: the folder `train` is the train pool, `valid` then `test` the held-out pool; 90,000 + 180,000 pictures.

    Class folders sorted by name are the CIFAR-10 classes in CIFAR-10's order. An .npz as `data.path` is read instead.

    Source: the normalisation and pools of the IAM reference.
    """
    ways = (
        "download https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz, unpack it, and point "
        "--config.data.path to the folder that holds train, valid and test",
    )
    root = files.locate(settings, ["CINIC-10", "cinic10", "cinic10.npz"], ways)
    if root.suffix == ".npz":
        return embedded.from_npz(root, "cinic10", settings.held_out, num_classes=10, constants=CINIC10_CONSTANTS)
    absent = [part for part in ("train", "valid", "test") if not (root / part).is_dir()]
    if absent:
        raise files.missing(
            "cinic10", f"the folders train, valid and test in {root}, of which {absent[0]} is absent", ways
        )
    found = class_names(root / "train")
    if found != CINIC10_CLASSES:
        raise errors.DataError(
            f"{root / 'train'} holds the classes {', '.join(found)}; expected {', '.join(CINIC10_CLASSES)}."
        )
    content = _decoded(settings, [root / part for part in ("train", "valid", "test")], found, 32)
    return _build("cinic10", content, num_train=int(content["counts"][0]), constants=CINIC10_CONSTANTS)


def _build(name: str, content: dict[str, np.ndarray], num_train: int, **facts: Any) -> Dataset:
    names = content["class_names"].tolist()
    return arrays.build(name, content["x"], content["y"], num_train, class_names=names, **facts)


def class_names(root: pathlib.Path) -> tuple[str, ...]:
    """The sorted names of the class folders under `root`.

    Raises:
      DataError: no folder there.
    """
    names = tuple(sorted(one.name for one in root.iterdir() if one.is_dir() and not one.name.startswith(".")))
    if not names:
        raise errors.DataError(
            f"{root} holds no class folders; expected <class>/*{SUFFIXES[0]}, one folder per class, as in "
            f"{root / 'cat' / '0001.png'}."
        )
    return names


def _decoded(
    settings: DataSettings, roots: Sequence[pathlib.Path], names: Sequence[str], size: int
) -> dict[str, np.ndarray]:
    """All pictures of several pools as x [N, size, size, C] uint8, y [N], counts per pool, class_names; cached."""
    listed: list[tuple[pathlib.Path, int]] = []
    counts = []
    for root in roots:
        extra = sorted(set(class_names(root)) - set(names))
        if extra:
            raise errors.DataError(
                f"{root} holds the class {extra[0]!r}, which {roots[0]} does not; it has {', '.join(names)}."
            )
        before = len(listed)
        for label, name in enumerate(names):
            there = sorted(root.joinpath(name).glob("*")) if root.joinpath(name).is_dir() else []
            pictures = [one for one in there if one.suffix.lower() in SUFFIXES and one.name[0] != "."]
            if not pictures and root == roots[0]:
                raise errors.DataError(f"{root / name} holds no pictures ({', '.join(SUFFIXES)}).")
            listed += [(picture, label) for picture in pictures]
        counts.append(len(listed) - before)

    def make() -> dict[str, np.ndarray]:
        return {
            "x": read_pictures([picture for picture, _ in listed], size),
            "y": np.array([label for _, label in listed], np.int32),
            "counts": np.array(counts),
            "class_names": np.array(names),
        }

    stamps = [files.stamp(picture) for picture, _ in listed]
    return files.cached(settings, f"{settings.name.replace(':', '_')}-{files.digest(size, counts, *stamps)}", make)


def read_pictures(paths: Sequence[pathlib.Path], size: int) -> np.ndarray:
    """Reads pictures as [N, size, size, 3] uint8, or C = 1 where every one of them is grey.

    Raises:
      DataError: a file that is not a picture; the message names it.
    """
    import PIL.Image

    out = np.empty((len(paths), size, size, 3), np.uint8)
    is_grey = True
    for row, path in zip(out, paths, strict=True):
        try:
            with PIL.Image.open(path) as picture:
                is_grey = is_grey and picture.mode in ("1", "L", "LA")
                row[:] = resized(picture.convert("RGB"), size)
        except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
            raise errors.DataError(
                f"{path} cannot be read as a picture ({error}). Remove the file or replace it with a sound one."
            ) from error
    return np.ascontiguousarray(out[..., :1]) if is_grey and len(paths) else out


def resized(picture: Any, size: int) -> np.ndarray:
    """A PIL picture as an array with `size` pixels per side; one that has that size already is not touched."""
    import PIL.Image

    if picture.size != (size, size):
        picture = picture.resize((size, size), PIL.Image.Resampling.BILINEAR)
    return np.asarray(picture)
