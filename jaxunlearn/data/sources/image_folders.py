"""Pictures in folders, one folder per class: any user's, CINIC-10, and Tiny-ImageNet.

    pools of (file, label) -> decoded once, cached -> Dataset

Order is that of published code: classes sorted by name, files sorted by name within a class. Reading is done once; the
decoded arrays are cached under a name that depends on every file's size and time.
"""

import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import errors
from jaxunlearn.data.formats import arrays, decoding, files
from jaxunlearn.data.sources import builtin
from jaxunlearn.records import Dataset
from jaxunlearn.settings import DataSettings

CINIC10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CINIC10_CONSTANTS = ((0.47889522, 0.47227842, 0.43047404), (0.24205776, 0.23828046, 0.25874835))
TINY_IMAGENET_CONSTANTS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# Copies that an earlier way of decoding has left in the cache are not read.
DECODING_VERSION = 2


class Pool(NamedTuple):
    """The pictures of one pool in their order.

    Attributes:
      pictures, labels: one entry per picture.
      left_out: kind of entry that is no picture -> how many lie there.
    """

    pictures: list[pathlib.Path]
    labels: list[int]
    left_out: Counter[str] = Counter()


def folder(settings: DataSettings) -> Dataset:
    """Pictures under root/<split>/<class>/ (train and test, val or valid), or root/<class>/ with a fraction held out.

    Pictures are resized to `data.size` pixels per side (both sides, the shape is not kept). Grey pictures give C = 1 if
    all are grey, else everything is RGB. ids count the pictures in sorted order, held-out ones after the train ones;
    names are their paths under the root. What lies there and is not read is counted in the notes.

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
        names = class_names(root)
        pool = _listed(root, names)
        content = _decoded(settings, [pool], names, settings.size)
        return arrays.build_cut(
            "folder", content["x"], content["y"], settings.held_out, class_names=content["class_names"].tolist(),
            **_told(root, [pool], [root], content),
        )  # fmt: skip
    held_out = next((root / part for part in ("test", "val", "valid") if (root / part).is_dir()), None)
    if held_out is None:
        raise errors.DataError(
            f"{root} has a folder 'train' but none of 'test', 'val', 'valid'; add the held-out pictures, or put the "
            "class folders directly under the root to have a fraction held out."
        )
    names = class_names(root / "train")
    pools = [_listed(root / "train", names), _listed(held_out, names, root / "train")]
    content = _decoded(settings, pools, names, settings.size)
    return _build("folder", content, **_told(root, pools, [root, root / "train", held_out], content))


def _told(
    root: pathlib.Path, pools: Sequence[Pool], folders: Sequence[pathlib.Path], content: dict[str, np.ndarray]
) -> dict[str, Any]:
    """What to tell about a folder: the paths of its pictures, and what was left out or drawn.

    Args:
      root: what paths are relative to.
      pools: all of them.
      folders: those that hold folders alone; the last ones hold the classes.
      content: from `_decoded`.
    """
    left_out: Counter[str] = sum((pool.left_out for pool in pools), Counter())
    left_out.update(decoding.kind_of(one) for folder in folders for one in decoding.entries(folder) if one.is_file())
    if len(folders) > 1:
        read = {folder.name for folder in folders[1:]}
        others = [one for one in decoding.entries(root) if one.is_dir() and one.name not in read]
        left_out.update(f"folder {one.name!r}" for one in others)
    notes = []
    if left_out:
        listed = ", ".join(f"{count:,} {kind}" for kind, count in sorted(left_out.items()))
        notes.append(f"not read, because they are no pictures ({', '.join(decoding.SUFFIXES)}) of a class: {listed}")
    if content["transparent"]:
        notes.append(f"{int(content['transparent']):,} pictures are transparent in places and are laid on mid-grey")
    paths = [str(picture.relative_to(root)) for pool in pools for picture in pool.pictures]
    return {"names": np.array(paths, np.str_), "notes": notes}


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
        return builtin.from_npz(root, "cinic10", settings.held_out, num_classes=10, constants=CINIC10_CONSTANTS)
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
    pools = [_listed(root / part, found, root / "train") for part in ("train", "valid", "test")]
    return _build("cinic10", _decoded(settings, pools, found, 32), constants=CINIC10_CONSTANTS)


def tiny_imagenet(settings: DataSettings) -> Dataset:
    """Tiny-ImageNet: 100,000 training pictures of 64x64x3 in 200 classes, numbered in the order of their WordNet ids.

    Two layouts, both with train/WNID/*.JPEG or train/WNID/images/*.JPEG:

    * as downloaded: the held-out pool is val/images, labelled by val/val_annotations.txt, 10,000 pictures; the pictures
      of `test` have no labels and are left out;
    * rearranged: val, test and cal, as far as they are there, hold class folders as train does, and are the held-out
      pool in this order.

    Classes are called by their first name in words.txt, else by their id. A rearranged copy may hold fewer.

    Source: the normalisation of the conformal unlearning reference (ImageNet's).
    """
    ways = (
        "download http://cs231n.stanford.edu/tiny-imagenet-200.zip, unpack it, and point --config.data.path to the "
        "folder tiny-imagenet-200, which holds train and val",
    )
    root = files.locate(settings, ["tiny-imagenet-200", "tiny_imagenet", "tiny_imagenet.npz"], ways)
    if root.suffix == ".npz":
        return builtin.from_npz(root, "tiny_imagenet", settings.held_out, constants=TINY_IMAGENET_CONSTANTS)
    if not (root / "train").is_dir():
        raise files.missing("tiny_imagenet", f"the folder train in {root}", ways)
    found = class_names(root / "train")
    pools, annotations = [_listed(root / "train", found)], root / "val" / "val_annotations.txt"
    # A rearranged copy may keep the annotations, and an empty folder.
    if annotations.is_file() and any((root / "val" / "images").glob("*")):
        pools.append(_annotated(annotations, found))
        content = _decoded(settings, pools, found, 64, files.stamp(annotations))
    else:
        # The downloaded `test` holds nothing but unlabelled pictures, which a rearranged copy may still have beside it.
        parts = [part for part in (root / "val", root / "test", root / "cal") if _has_classes(part)]
        if not parts:
            raise files.missing(
                "tiny_imagenet", f"val/val_annotations.txt, or class folders in val, test or cal of {root}", ways
            )
        pools += [_listed(part, found, root / "train") for part in parts]
        content = _decoded(settings, pools, found, 64)
    words = _words(root / "words.txt")
    content["class_names"] = np.array([words.get(name, name) for name in found])
    return _build("tiny_imagenet", content, constants=TINY_IMAGENET_CONSTANTS)


def _has_classes(root: pathlib.Path) -> bool:
    return root.is_dir() and any(one.is_dir() and one.name != "images" for one in decoding.entries(root))


def _annotated(annotations: pathlib.Path, names: Sequence[str]) -> Pool:
    """The pictures that lines `picture <tab> class <tab> ...` label, sorted by class and then by name."""
    label_of = {name: label for label, name in enumerate(names)}
    found = []
    for number, line in enumerate(annotations.read_text(errors="replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        picture = annotations.parent / "images" / words[0]
        if len(words) < 2 or words[1] not in label_of:
            raise errors.DataError(
                f"{annotations}, line {number}: {line!r} does not give a picture and one of the {len(names)} classes "
                "of the folder train. Restore the file of the download."
            )
        if not picture.is_file():
            raise errors.DataError(f"{annotations}, line {number}, names {picture}, which is absent. Unpack it again.")
        found.append((label_of[words[1]], picture.name, picture))
    if not found:
        raise errors.DataError(f"{annotations} labels no picture. Restore the file of the download.")
    found.sort()
    return Pool([picture for _, _, picture in found], [label for label, _, _ in found])


def _words(path: pathlib.Path) -> dict[str, str]:
    """WordNet id -> first name, from lines `n01443537 <tab> goldfish, Carassius auratus`; empty without the file."""
    if not path.is_file():
        return {}
    lines = [line.partition("\t") for line in path.read_text(errors="replace").splitlines()]
    return {name.strip(): words.split(",")[0].strip() for name, _, words in lines if words.strip()}


def _build(name: str, content: dict[str, np.ndarray], **facts: Any) -> Dataset:
    """A `Dataset` whose train pool is the first of the decoded pools."""
    names, num_train = content["class_names"].tolist(), int(content["counts"][0])
    return arrays.build(name, content["x"], content["y"], num_train, class_names=names, **facts)


def class_names(root: pathlib.Path) -> tuple[str, ...]:
    """The sorted names of the class folders under `root`.

    Raises:
      DataError: no folder there.
    """
    names = tuple(one.name for one in decoding.entries(root) if one.is_dir())
    if not names:
        raise errors.DataError(
            f"{root} holds no class folders; expected <class>/*{decoding.SUFFIXES[0]}, one folder per class, as in "
            f"{root / 'cat' / '0001.png'}."
        )
    return names


def _listed(root: pathlib.Path, names: Sequence[str], train: pathlib.Path | None = None) -> Pool:
    """Lists the pictures of one pool with their labels.

    Args:
      root: the folder of class folders.
      names: all classes.
      train: the folder that has every class; None = `root` is it, and a class without pictures is an error.

    Raises:
      DataError: a class that `names` does not hold, a class of the train pool without pictures, or something called
        like a picture that is none.
    """
    extra = sorted(set(class_names(root)) - set(names))
    if extra:
        raise errors.DataError(
            f"{root} holds the class {extra[0]!r}, which {train} does not; it has {', '.join(names)}."
        )
    pool = Pool([], [], Counter())
    for label, name in enumerate(names):
        pictures, left_out = decoding.listing(root / name) if (root / name).is_dir() else ([], Counter())
        if not pictures and train in (None, root):
            raise errors.DataError(f"{root / name} holds no pictures ({', '.join(decoding.SUFFIXES)}).")
        pool.pictures.extend(pictures)
        pool.labels.extend([label] * len(pictures))
        pool.left_out.update(left_out)
    return pool


def _decoded(
    settings: DataSettings, pools: Sequence[Pool], names: Sequence[str], size: int, *facts: Any
) -> dict[str, np.ndarray]:
    """All pictures of several pools as x [N, size, size, C], y [N], counts per pool, class_names; cached.

    `transparent` is how many of them are transparent in places.

    `facts` are what the labels depend on beside the paths of the pictures.
    """
    pictures, counts = [one for pool in pools for one in pool.pictures], [len(pool.pictures) for pool in pools]

    def make() -> dict[str, np.ndarray]:
        x, transparent = decoding.read_pictures(pictures, size)
        return {
            "x": x,
            "y": np.array([label for pool in pools for label in pool.labels], np.int32),
            "counts": np.array(counts),
            "class_names": np.array(names),
            "transparent": np.array(transparent),
        }

    digest = files.digest(DECODING_VERSION, size, counts, *map(files.stamp, pictures), *facts)
    return files.cached(settings, f"{settings.name.replace(':', '_')}-{digest}", make)
