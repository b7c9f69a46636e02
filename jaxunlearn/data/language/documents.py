"""Files of texts: which files of a folder hold texts, and which documents they hold.

    path -> pools of files (`pools`) -> documents (`read`): a whole .txt file, or one line of a .jsonl file

A line of a .jsonl file is an object with one of

    {"text": "..."}    {"prompt": "...", "answer": "..."}    {"tokens": [5, 17, 2]}

and optionally "id" (a name of the text) and "group" (author, topic). "question" is another name of "prompt"; other keys
are not read.
"""

import json
import pathlib
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import errors
from jaxunlearn.data.formats import decoding, files

SUFFIXES = (".txt", ".jsonl")
HELD_OUT = ("test", "val", "valid")
EVERYTHING = "all"

# A byte of text becomes a token of four bytes, another four where it is padded, and is in two strings meanwhile.
BYTES_PER_BYTE = 12

FORMS = '{"text": "..."}, {"prompt": "...", "answer": "..."} or {"tokens": [...]}'


class Document(NamedTuple):
    """One text of a file.

    Attributes:
      name: the user's name of it: file, file:line, or the id of its line.
      where: file (and line), for messages.
      group: the group it belongs to.
      text: its characters; of a question with answer, the answer.
      prompt: the characters before the answer, which are not learned, or None.
      tokens: [n] token ids instead of characters, or None.
      is_file: whether it is a whole file, so that all its blocks are numbered.
    """

    name: str
    where: str
    group: str
    text: str = ""
    prompt: str | None = None
    tokens: np.ndarray | None = None
    is_file: bool = False


class Pool(NamedTuple):
    """The files of one pool in their order.

    Attributes:
      paths: N files.
      groups: of each, its folder's name or its own; a "group" of a line takes precedence.
      left_out: kind of entry that is not read -> number of them.
    """

    paths: list[pathlib.Path]
    groups: list[str]
    left_out: Counter[str]


def pools(path: pathlib.Path) -> list[Pool]:
    """Finds the files of texts under a path, sorted by name.

    Args:
      path: a .txt or .jsonl file; a folder of them; or a folder with `train` and one of `test`, `val`, `valid`, each a
        folder or such a file.

    Returns:
      One pool, of which a fraction is to be held out, or two: train and held-out.

    Raises:
      DataError: a pool without a file of texts, a folder or link that cannot be followed, or more than memory holds.
    """
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise errors.DataError(
                f"data.path = {path}: texts are read from {' and '.join(SUFFIXES)} files. Name a file of plain text "
                ".txt, and one with an object per line .jsonl."
            )
        pools_of_files = [_pool(path)]
    else:
        train, held_out = _named(path, ("train",)), _named(path, HELD_OUT)
        if train is None or (held_out is None and train.is_file()):
            pools_of_files = [_pool(path)]
        elif held_out is None:
            raise errors.DataError(
                f"{path} has a folder 'train' but none of 'test', 'val', 'valid'; add the held-out texts, or put all "
                "texts directly under it to have a fraction held out."
            )
        else:
            pools_of_files = [_pool(train), _pool(held_out)]
            ignored = [entry for entry in decoding.entries(path) if entry not in (train, held_out)]
            pools_of_files[0].left_out.update(_kind(entry) for entry in ignored)
    size = sum(file.stat().st_size for pool in pools_of_files for file in pool.paths)
    files.require_memory(f"the texts of {path}, as token ids,", BYTES_PER_BYTE * size)
    return pools_of_files


def _named(root: pathlib.Path, names: Sequence[str]) -> pathlib.Path | None:
    """Returns the first folder or file of texts with one of these names."""
    entries = decoding.entries(root)
    for name in names:
        matches = [
            entry for entry in entries if (entry.name == name and entry.is_dir()) or entry.name in _file_names(name)
        ]
        if len(matches) > 1:
            raise errors.DataError(f"{root} contains {matches[0].name} and {matches[1].name}; keep only one of them.")
        if matches:
            return matches[0]
    return None


def _file_names(stem: str) -> list[str]:
    return [stem + suffix for suffix in SUFFIXES]


def _pool(root: pathlib.Path) -> Pool:
    """Lists the files of one pool: one file, or all files of a folder and its subfolders."""
    pool = Pool([], [], Counter())
    if root.is_file():
        pool.paths.append(root)
        pool.groups.append(EVERYTHING)
        return pool
    for entry in decoding.entries(root):
        inside, left_out = _inside(entry, (root.resolve(),))
        pool.paths.extend(inside)
        pool.groups.extend([entry.name if entry.is_dir() else entry.stem] * len(inside))
        pool.left_out.update(left_out if inside or entry.is_file() else [_kind(entry)])
    if not pool.paths:
        unread = _counts_in_words(pool.left_out)
        raise errors.DataError(
            f"{root} contains no texts ({', '.join(SUFFIXES)})" + (f"; it contains {unread}." if unread else ".")
        )
    return pool


def _inside(entry: pathlib.Path, ancestors: tuple[pathlib.Path, ...]) -> tuple[list[pathlib.Path], Counter[str]]:
    """Returns (files of texts under an entry, other entries); `ancestors` are the folders above it."""
    if not entry.is_dir():
        is_text = entry.suffix.lower() in SUFFIXES
        return ([entry], Counter()) if is_text else ([], Counter([_kind(entry)]))
    if entry.resolve() in ancestors:
        raise errors.DataError(f"{entry} is a link to a folder that it lies in. Remove the link.")
    paths: list[pathlib.Path] = []
    left_out: Counter[str] = Counter()
    for child in decoding.entries(entry):
        inside, unread = _inside(child, (*ancestors, entry.resolve()))
        paths.extend(inside)
        left_out.update(unread)
    return paths, left_out


def _kind(entry: pathlib.Path) -> str:
    return f"folder {entry.name!r}" if entry.is_dir() else decoding.kind_of(entry)


def _counts_in_words(left_out: Counter[str]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(left_out.items()))


def left_out_note(pools: Sequence[Pool]) -> list[str]:
    """Returns a sentence about entries among the texts that are not read, if there are any."""
    unread = _counts_in_words(sum((pool.left_out for pool in pools), Counter()))
    return [f"not read, because they are not texts ({', '.join(SUFFIXES)}): {unread}"] if unread else []


def read(path: pathlib.Path, group: str, root: pathlib.Path) -> list[Document]:
    """Reads the documents of one file.

    Args:
      path: a .txt or .jsonl file.
      group: the group of texts whose line has no "group".
      root: the folder (or file) of all texts, to which names are relative.

    Raises:
      DataError: not UTF-8, no regular file, or a line that is none of the forms of this module (file and line named).
    """
    try:
        content = files.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.DataError(
            f"{path} is not UTF-8 text (byte {error.start} is {error.object[error.start]:#04x}). Save it as UTF-8."
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise errors.DataError(f"{path} cannot be read ({error}). Remove the file or replace it.") from error
    name = path.name if path == root else str(path.relative_to(root))
    if path.suffix.lower() == ".txt":
        return [Document(name, str(path), group, content, is_file=True)]
    # Not splitlines: some characters inside strings of JSON would count as ends of lines.
    lines = [(number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    return [_from_line(line, f"{name}:{number}", f"{path}, line {number}", group) for number, line in lines]


def _from_line(line: str, name: str, where: str, group: str) -> Document:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg}, character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else error
        raise errors.DataError(
            f"{where}: not JSON ({reason}). A .jsonl file contains one object per line: {FORMS}."
        ) from error
    if not isinstance(record, dict):
        raise errors.DataError(f"{where}: expected an object, {FORMS}, got {type(record).__name__}.")
    if "question" in record and "prompt" not in record:
        record["prompt"] = record["question"]
    is_pair = "prompt" in record or "answer" in record
    forms = [form for form in ("text", "tokens") if form in record] + ["prompt and answer"] * is_pair
    if not forms:
        keys = ", ".join(map(repr, list(record)[:8])) or "(none)"
        raise errors.DataError(f"{where} has the keys {keys}; expected {FORMS}.")
    if len(forms) > 1:
        raise errors.DataError(f"{where} contains {' and '.join(forms)}; expected one of {FORMS}.")
    name, group = _label(record, "id", where, name), _label(record, "group", where, group)
    if "tokens" in record:
        return Document(name, where, group, tokens=_tokens(record["tokens"], where))
    if "text" in record:
        return Document(name, where, group, _string(record, "text", where))
    return Document(name, where, group, _string(record, "answer", where), _string(record, "prompt", where))


def _string(record: dict[str, Any], key: str, where: str) -> str:
    if key not in record:
        raise errors.DataError(f"{where} has no key {key!r}: a prompt and its answer belong together.")
    value = record[key]
    if not isinstance(value, str):
        raise errors.DataError(f"{where}: {key} is {_shown(value)}, expected a string.")
    if not _is_sound(value):
        raise errors.DataError(f"{where}: {key} contains half of a surrogate pair (\\ud800 to \\udfff); write both.")
    return value


def _label(record: dict[str, Any], key: str, where: str, default: str) -> str:
    """Returns a line's value of `key`, a string or a whole number; without it `default`."""
    value = record.get(key)
    if value is None:
        return default
    if not isinstance(value, (str, int)) or isinstance(value, bool) or not _is_sound(str(value)):
        raise errors.DataError(f"{where}: {key} is {_shown(value)}, expected a string or a whole number.")
    return str(value)


def _tokens(value: Any, where: str) -> np.ndarray:
    """Returns the ids of a line, [n] int64, which are checked once the vocabulary is known."""
    if not isinstance(value, list) or any(type(token) is not int for token in value):
        raise errors.DataError(f"{where}: tokens is {_shown(value)}, expected a list of whole numbers.")
    if any(abs(token) >= 1 << 62 for token in value):
        raise errors.DataError(f"{where}: tokens contains {_shown(max(value, key=abs))}, which is not a token id.")
    return np.array(value, np.int64)


def _is_sound(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
