"""Pictures in folders, one folder per class: any user's, CINIC-10, and Tiny-ImageNet.

    pools of (file, label) -> decoded once, cached -> Dataset

The order is that of published code: classes sorted by name, files sorted by name within a class. Pictures are decoded
once; the arrays are cached under a name that depends on every file's size and time.
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

# Part of the name of cached copies: those of an earlier version are not read.
DECODING_VERSION = 2


class Pool(NamedTuple):
    """The pictures of one pool in their order.

    Attributes:
      pictures, labels: one entry per picture.
      left_out: kind of entry that is not a picture -> number of them.
    """

    pictures: list[pathlib.Path]
    labels: list[int]
    left_out: Counter[str] = Counter()


def folder(settings: DataSettings) -> Dataset:
    """Loads pictures root/<split>/<class>/* (train and test, val or valid), or root/<class>/* with a fraction held out.

    Pictures are resized to `data.size` pixels per side (both sides, the aspect ratio is not kept). C = 1 if all
    pictures are grey, else 3. ids count the pictures in sorted order, held-out ones after the train ones; names are
    their paths under the root. Notes count the entries that are not read.

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
        pool = _list_pool(root, names)
        content = _decode(settings, [pool], names, settings.size)
        return arrays.build_cut(
            "folder", content["x"], content["y"], settings.held_out, class_names=content["class_names"].tolist(),
            **_facts(root, [pool], [root], content),
        )  # fmt: skip
    held_out = next((root / part for part in ("test", "val", "valid") if (root / part).is_dir()), None)
    if held_out is None:
        raise errors.DataError(
            f"{root} has a folder 'train' but none of 'test', 'val', 'valid'; add the held-out pictures, or put the "
            "class folders directly under the root to have a fraction held out."
        )
    names = class_names(root / "train")
    pools = [_list_pool(root / "train", names), _list_pool(held_out, names, root / "train")]
    content = _decode(settings, pools, names, settings.size)
    return _build("folder", content, **_facts(root, pools, [root, root / "train", held_out], content))


def _facts(
    root: pathlib.Path, pools: Sequence[Pool], folders: Sequence[pathlib.Path], content: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Returns facts about a folder: the paths of its pictures, and notes about other entries and transparency.

    Args:
      root: paths are relative to it.
      pools: all of them.
      folders: those that should only hold folders; the last ones hold the classes.
      content: from `_decode`.
    """
    left_out: Counter[str] = sum((pool.left_out for pool in pools), Counter())
    left_out.update(
        decoding.kind_of(entry) for folder in folders for entry in decoding.entries(folder) if entry.is_file()
    )
    if len(folders) > 1:
        pool_names = {folder.name for folder in folders[1:]}
        unread_folders = [entry for entry in decoding.entries(root) if entry.is_dir() and entry.name not in pool_names]
        left_out.update(f"folder {entry.name!r}" for entry in unread_folders)
    notes = []
    if left_out:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(left_out.items()))
        notes.append(f"not read, because they are not pictures ({', '.join(decoding.SUFFIXES)}) of a class: {counts}")
    if content["transparent"]:
        notes.append(f"{int(content['transparent']):,} pictures are transparent in places and are laid on mid-grey")
    paths = [str(picture.relative_to(root)) for pool in pools for picture in pool.pictures]
    return {"names": np.array(paths, np.str_), "notes": notes}


def cinic10(settings: DataSettings) -> Dataset:
    """Loads CINIC-10: 90,000 pictures in `train` and 180,000 held-out ones in `valid`, then `test`.

    Class folders sorted by name are the CIFAR-10 classes in CIFAR-10's order. `data.path` may also be an .npz.

    Source: the normalisation and pools of the IAM reference.
    """
    ways = (
        "download https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz, unpack it, and point "
        "--config.data.path to the folder that contains train, valid and test",
    )
    root = files.locate(settings, ["CINIC-10", "cinic10", "cinic10.npz"], ways)
    if root.suffix == ".npz":
        return builtin.from_npz(root, "cinic10", settings.held_out, num_classes=10, constants=CINIC10_CONSTANTS)
    absent = [name for name in ("train", "valid", "test") if not (root / name).is_dir()]
    if absent:
        raise files.missing_error(
            "cinic10", f"the folders train, valid and test in {root}, of which {absent[0]} is absent", ways
        )
    names = class_names(root / "train")
    if names != CINIC10_CLASSES:
        raise errors.DataError(
            f"{root / 'train'} contains the classes {', '.join(names)}; expected {', '.join(CINIC10_CLASSES)}."
        )
    pools = [_list_pool(root / name, names, root / "train") for name in ("train", "valid", "test")]
    return _build("cinic10", _decode(settings, pools, names, 32), constants=CINIC10_CONSTANTS)


def tiny_imagenet(settings: DataSettings) -> Dataset:
    """Loads Tiny-ImageNet: 100,000 training pictures of 64x64x3 in 200 classes, numbered in order of WordNet ids.

    Two layouts, both with train/WNID/*.JPEG or train/WNID/images/*.JPEG:

    * as downloaded: the held-out pool is val/images, labelled by val/val_annotations.txt, 10,000 pictures; the pictures
      of `test` have no labels and are left out;
    * rearranged: val, test and cal (those that exist) hold class folders as train does, and are the held-out pool in
      this order.

    The name of a class is its first one in words.txt, else its id. A rearranged copy may hold fewer classes.

    Source: the normalisation of the conformal unlearning reference (ImageNet's).
    """
    ways = (
        "download http://cs231n.stanford.edu/tiny-imagenet-200.zip, unpack it, and point --config.data.path to the "
        "folder tiny-imagenet-200, which contains train and val",
    )
    root = files.locate(settings, ["tiny-imagenet-200", "tiny_imagenet", "tiny_imagenet.npz"], ways)
    if root.suffix == ".npz":
        return builtin.from_npz(root, "tiny_imagenet", settings.held_out, constants=TINY_IMAGENET_CONSTANTS)
    if not (root / "train").is_dir():
        raise files.missing_error("tiny_imagenet", f"the folder train in {root}", ways)
    wordnet_ids = class_names(root / "train")
    pools, annotations = [_list_pool(root / "train", wordnet_ids)], root / "val" / "val_annotations.txt"
    # A rearranged copy may keep the annotations, and an empty folder.
    if annotations.is_file() and any((root / "val" / "images").glob("*")):
        pools.append(_annotated(annotations, wordnet_ids))
        content = _decode(settings, pools, wordnet_ids, 64, files.stamp(annotations))
    else:
        # The downloaded `test` holds only unlabelled pictures, which a rearranged copy may still contain.
        held_out = [
            root_of_pool for root_of_pool in (root / "val", root / "test", root / "cal") if _has_classes(root_of_pool)
        ]
        if not held_out:
            raise files.missing_error(
                "tiny_imagenet", f"val/val_annotations.txt, or class folders in val, test or cal of {root}", ways
            )
        pools += [_list_pool(root_of_pool, wordnet_ids, root / "train") for root_of_pool in held_out]
        content = _decode(settings, pools, wordnet_ids, 64)
    words = _words(root / "words.txt")
    content["class_names"] = np.array([words.get(name, name) for name in wordnet_ids])
    return _build("tiny_imagenet", content, constants=TINY_IMAGENET_CONSTANTS)


def _has_classes(root: pathlib.Path) -> bool:
    return root.is_dir() and any(entry.is_dir() and entry.name != "images" for entry in decoding.entries(root))


def _annotated(annotations: pathlib.Path, names: Sequence[str]) -> Pool:
    """Lists the pictures labelled by lines `picture <tab> class <tab> ...`, sorted by class and then by name."""
    label_of = {name: label for label, name in enumerate(names)}
    labelled = []
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
        labelled.append((label_of[words[1]], picture.name, picture))
    if not labelled:
        raise errors.DataError(f"{annotations} labels no picture. Restore the file of the download.")
    labelled.sort()
    return Pool([picture for _, _, picture in labelled], [label for label, _, _ in labelled])


def _words(path: pathlib.Path) -> dict[str, str]:
    """Reads WordNet id -> first name from lines `n01443537 <tab> goldfish, Carassius auratus`; {} without the file."""
    if not path.is_file():
        return {}
    lines = [line.partition("\t") for line in path.read_text(errors="replace").splitlines()]
    return {name.strip(): words.split(",")[0].strip() for name, _, words in lines if words.strip()}


def _build(name: str, content: dict[str, np.ndarray], **facts: Any) -> Dataset:
    """Builds a `Dataset` whose train pool is the first of the decoded pools."""
    names, num_train = content["class_names"].tolist(), int(content["counts"][0])
    return arrays.build(name, content["x"], content["y"], num_train, class_names=names, **facts)


def class_names(root: pathlib.Path) -> tuple[str, ...]:
    """Returns the sorted names of the class folders under `root`.

    Raises:
      DataError: no folder there.
    """
    names = tuple(entry.name for entry in decoding.entries(root) if entry.is_dir())
    if not names:
        raise errors.DataError(
            f"{root} contains no class folders; expected <class>/*{decoding.SUFFIXES[0]}, one folder per class, as in "
            f"{root / 'cat' / '0001.png'}."
        )
    return names


def _list_pool(root: pathlib.Path, names: Sequence[str], train: pathlib.Path | None = None) -> Pool:
    """Lists the pictures of one pool with their labels.

    Args:
      root: the folder of class folders.
      names: all classes.
      train: the folder that has every class; None = `root`, where a class without pictures is an error.

    Raises:
      DataError: a class that `names` does not hold, a class of the train pool without pictures, or an entry named
        like a picture that is not a regular file.
    """
    extra = sorted(set(class_names(root)) - set(names))
    if extra:
        raise errors.DataError(
            f"{root} contains the class {extra[0]!r}, which {train} does not; it has {', '.join(names)}."
        )
    pool = Pool([], [], Counter())
    for label, name in enumerate(names):
        pictures, left_out = decoding.listing(root / name) if (root / name).is_dir() else ([], Counter())
        if not pictures and train in (None, root):
            raise errors.DataError(f"{root / name} contains no pictures ({', '.join(decoding.SUFFIXES)}).")
        pool.pictures.extend(pictures)
        pool.labels.extend([label] * len(pictures))
        pool.left_out.update(left_out)
    return pool


def _decode(
    settings: DataSettings, pools: Sequence[Pool], names: Sequence[str], size: int, *facts: Any
) -> dict[str, np.ndarray]:
    """Decodes the pictures of several pools: x [N, size, size, C], y [N], counts per pool, class_names; cached.

    `transparent` is the number of pictures with transparent regions. `facts` are what the labels depend on in addition
    to the paths of the pictures.
    """
    pictures, counts = [picture for pool in pools for picture in pool.pictures], [len(pool.pictures) for pool in pools]

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
    return files.load_cached(settings, f"{settings.name.replace(':', '_')}-{digest}", make)
