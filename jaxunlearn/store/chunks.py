"""Populations on disk: a folder of chunks, each an orbax checkpoint with a manifest.

    populations/ROLE/stage.json                       the facts of the role's training
    populations/ROLE/chunk_00000_00063/               finished members: arrays/ (orbax), manifest.json
    populations/ROLE/partial_00000_00063/epoch_0012/  rolling checkpoint of an unfinished chunk, only the newest one

The manifest is written last, inside a temporary folder that is then renamed: a chunk is complete or absent. Orbax does
not detect flipped bytes, so the manifest has file sizes and its own checksum (checked whenever chunks are listed) and a
checksum per leaf (checked whenever a chunk is loaded).
"""

import contextlib
import errno
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxunlearn import errors, trees
from jaxunlearn.store import files

Tree = Any


class Damaged(errors.StoreError):
    """A chunk is damaged; `path` is its folder."""

    def __init__(self, path: Path, clause: str):
        """Builds the message from the chunk's folder and a clause that explains the damage."""
        super().__init__(f"{path} {clause}; delete that folder and run the same command again: only this chunk is made "
                         "anew.")  # fmt: skip
        self.path = path


class Chunk(NamedTuple):
    """One finished or partial chunk on disk."""

    path: Path
    member_ids: np.ndarray
    manifest: dict[str, Any]


def chunk_name(member_ids: np.ndarray) -> str:
    """Returns a chunk's name: `00000_00063` for members 0..63; non-consecutive ids add a hash, so names are unique."""
    ids = np.asarray(member_ids)
    name = f"{int(ids.min()):05d}_{int(ids.max()):05d}"
    consecutive = len(ids) == ids.max() - ids.min() + 1
    return name if consecutive else f"{name}_{files.fingerprint(ids.tolist())[:6]}"


def save(path: Path, tree: Tree, member_ids: np.ndarray, fingerprint: str, **facts: Any) -> None:
    """Writes one checkpoint folder atomically: arrays by orbax, then the manifest, then renames the folder.

    Args:
      path: the folder; replaced if it exists.
      tree: arrays, of any structure.
      member_ids: [M] global member numbers.
      fingerprint: of the role's stage.
      **facts: further plain values for the manifest.
    """
    from orbax.checkpoint import v1 as ocp  # takes half a second to import

    tree = trees.to_host(tree)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    files.note(path)
    with files.writing(path):
        files.remove(temporary)
        temporary.mkdir(parents=True)
        try:
            with _quiet():
                ocp.save(temporary / "arrays", tree)
        except Exception as error:  # noqa: BLE001 - orbax and TensorStore report the disk's errors as any type
            os_error = _os_error(error)
            if os_error is None:
                raise
            raise os_error from error
        sizes = {str(file.relative_to(temporary)): file.stat().st_size for file in _files(temporary)}
        leaves = {name: files.checksum(np.asarray(leaf)) for name, leaf in trees.named_leaves(tree)}
        manifest = {
            "member_ids": np.asarray(member_ids).tolist(),
            "fingerprint": fingerprint,
            "files": sizes,
            "leaves": leaves,
            **facts,
        }
        manifest["checksum"] = _checksum(manifest)
        files.write_whole(temporary / "manifest.json", files.as_json(manifest))
        files.remove(path)
        os.replace(temporary, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences orbax, which logs tracebacks of the errors that it also raises."""
    logger = logging.getLogger("absl")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was_disabled


def _os_error(error: BaseException | None) -> OSError | None:
    """Returns the operating system's error behind an exception: itself, a cause, or parsed from TensorStore's text."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        match = re.search(r"[Oo][Ss][ _]error(?:_code)?\W*(\d+)|(RESOURCE_EXHAUSTED|No space left)", str(error))
        if match:
            code = int(match[1] or errno.ENOSPC)
            return OSError(code, os.strerror(code))
        error = error.__cause__ or error.__context__
    return None


def _checksum(manifest: dict[str, Any]) -> str:
    """Computes the checksum of a manifest (except this entry), as it will be read back."""
    return files.fingerprint(json.loads(files.as_json({**manifest, "checksum": ""})))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def inspect(path: Path, fingerprint: str) -> Chunk | None:
    """Returns a chunk if it is complete and of this fingerprint; None if it is damaged or of another run."""
    try:
        manifest = files.read_json(path / "manifest.json")
        # Chunks of earlier versions have no checksum.
        is_intact = manifest.get("checksum", "") in ("", _checksum(manifest))
        is_intact = is_intact and all((path / name).stat().st_size == size for name, size in manifest["files"].items())
        ids = np.asarray(manifest["member_ids"], np.int32)
    except (OSError, errors.StoreError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return Chunk(path, ids, manifest) if is_intact and manifest.get("fingerprint") == fingerprint else None


def load(chunk: Chunk, template: Tree) -> Tree:
    """Restores a checkpoint as NumPy arrays in the structure of `template` and verifies every leaf's checksum.

    Checkpoints that earlier versions wrote by orbax's pre-v1 API are read as well.

    Raises:
      Damaged: unreadable, or a leaf has another checksum; the message names chunk and leaf.
    """
    from orbax.checkpoint import v1 as ocp

    # NumPy leaves are restored as NumPy arrays on the host; broadcast zeros take no memory.
    shapes = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), template)
    try:
        with _quiet():
            tree = ocp.load(chunk.path / "arrays", shapes)
    except Exception as error:  # noqa: BLE001 - orbax and TensorStore report damage as bare Exceptions
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise Damaged(chunk.path, f"cannot be read ({reason})") from error
    tree = jax.tree.map(np.asarray, tree)
    for name, leaf in trees.named_leaves(tree):
        if files.checksum(leaf) != chunk.manifest["leaves"].get(name):
            raise Damaged(chunk.path, f"is damaged ({name})")
    return tree


def finished(role: Path, fingerprint: str) -> tuple[list[Chunk], list[Path]]:
    """Returns the complete chunks of a role, ordered by members, and the folders of damaged ones."""
    return _scan(role, "chunk_*", fingerprint)


def partial(role: Path, fingerprint: str) -> tuple[list[Chunk], list[Path]]:
    """Returns the newest complete rolling checkpoint of every unfinished chunk, and damaged checkpoint folders."""
    newest: dict[Path, Chunk] = {}
    intact, damaged = _scan(role, "partial_*/epoch_*", fingerprint)
    for chunk in intact:
        other = newest.get(chunk.path.parent)
        if other is None or other.manifest["epoch"] < chunk.manifest["epoch"]:
            newest[chunk.path.parent] = chunk
    return list(newest.values()), damaged


def _scan(role: Path, pattern: str, fingerprint: str) -> tuple[list[Chunk], list[Path]]:
    intact, damaged = [], []
    for path in sorted(role.glob(pattern)):
        chunk = inspect(path, fingerprint)
        if chunk is None:
            damaged.append(path)
        else:
            intact.append(chunk)
    return sorted(intact, key=lambda chunk: int(chunk.member_ids.min())), damaged


def save_partial(role: Path, tree: Tree, member_ids: np.ndarray, fingerprint: str, epoch: int, **facts: Any) -> None:
    """Writes a rolling checkpoint, then deletes older ones of the same chunk.

    Args:
      role: folder of the role.
      tree: arrays, of any structure.
      member_ids: [M] global member numbers.
      fingerprint: of the role's stage.
      epoch: number of finished epochs.
      **facts: further plain values for the manifest.
    """
    folder = role / f"partial_{chunk_name(member_ids)}"
    newest = folder / f"epoch_{epoch:05d}"
    save(newest, tree, member_ids, fingerprint, epoch=epoch, **facts)
    for path in folder.glob("epoch_*"):
        if path != newest:
            files.remove(path)


def drop_partial(role: Path, member_ids: np.ndarray) -> None:
    """Deletes the rolling checkpoint of a chunk that is finished."""
    files.remove(role / f"partial_{chunk_name(member_ids)}")
