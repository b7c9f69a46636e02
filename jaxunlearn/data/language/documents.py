"""Files of texts: which files of a folder hold texts, and which documents they hold.

    path -> pools of files (`pools`) -> documents (`read`): a whole .txt file, or one line of a .jsonl file

A line of a .jsonl file is an object with one of

    {"text": "..."}    {"prompt": "...", "answer": "..."}    {"tokens": [5, 17, 2]}

and, if wanted, "id" (what the text is called) and "group" (author, topic). "question" is another name of "prompt";
other keys are not read.
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

# A byte of text is a token of four bytes, a padded one of four more, and stands in two strings meanwhile.
BYTES_PER_BYTE = 12

FORMS = '{"text": "..."}, {"prompt": "...", "answer": "..."} or {"tokens": [...]}'


class Document(NamedTuple):
    """One text as it was found.

    Attributes:
      name: what a user calls it: file, file:line, or the id of its line.
      where: file (and line), for messages.
      group: the group it belongs to.
      text: its characters; of a question with answer, the answer.
      prompt: the characters in front that are given, or None.
      tokens: [n] token ids in place of characters, or None.
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
      groups: of each, the folder it lies in or its own name; what lines say for themselves counts before it.
      left_out: kind of entry that is not read -> how many.
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
        found = [_pool(path)]
    else:
        train, held_out = _named(path, ("train",)), _named(path, HELD_OUT)
        if train is None or (held_out is None and train.is_file()):
            found = [_pool(path)]
        elif held_out is None:
            raise errors.DataError(
                f"{path} has a folder 'train' but none of 'test', 'val', 'valid'; add the held-out texts, or put all "
                "texts directly under it to have a fraction held out."
            )
        else:
            found = [_pool(train), _pool(held_out)]
            others = [entry for entry in decoding.entries(path) if entry not in (train, held_out)]
            found[0].left_out.update(_kind(entry) for entry in others)
    size = sum(file.stat().st_size for pool in found for file in pool.paths)
    files.require_memory(f"the texts of {path}, as token ids,", BYTES_PER_BYTE * size)
    return found


def _named(root: pathlib.Path, names: Sequence[str]) -> pathlib.Path | None:
    """The first folder or file of texts that is called like one of these names."""
    there = decoding.entries(root)
    for name in names:
        found = [one for one in there if (one.name == name and one.is_dir()) or one.name in _file_names(name)]
        if len(found) > 1:
            raise errors.DataError(f"{root} holds {found[0].name} and {found[1].name}; keep one of them as pool.")
        if found:
            return found[0]
    return None


def _file_names(stem: str) -> list[str]:
    return [stem + suffix for suffix in SUFFIXES]


def _pool(root: pathlib.Path) -> Pool:
    """The files of one pool: one file, or all of a folder and of the folders in it."""
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
        listed = _listed(pool.left_out)
        raise errors.DataError(
            f"{root} holds no texts ({', '.join(SUFFIXES)})" + (f"; it holds {listed}." if listed else ".")
        )
    return pool


def _inside(entry: pathlib.Path, above: tuple[pathlib.Path, ...]) -> tuple[list[pathlib.Path], Counter[str]]:
    """(files of texts of an entry, what else lies there); `above` are the folders that it lies in."""
    if not entry.is_dir():
        is_text = entry.suffix.lower() in SUFFIXES
        return ([entry], Counter()) if is_text else ([], Counter([_kind(entry)]))
    if entry.resolve() in above:
        raise errors.DataError(f"{entry} is a link to a folder that it lies in. Remove the link.")
    paths: list[pathlib.Path] = []
    left_out: Counter[str] = Counter()
    for one in decoding.entries(entry):
        inside, others = _inside(one, (*above, entry.resolve()))
        paths.extend(inside)
        left_out.update(others)
    return paths, left_out


def _kind(entry: pathlib.Path) -> str:
    return f"folder {entry.name!r}" if entry.is_dir() else decoding.kind_of(entry)


def _listed(left_out: Counter[str]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(left_out.items()))


def left_out_note(found: Sequence[Pool]) -> list[str]:
    """Returns a sentence about what lies among the texts and is not read, if anything does."""
    listed = _listed(sum((pool.left_out for pool in found), Counter()))
    return [f"not read, because they are no texts ({', '.join(SUFFIXES)}): {listed}"] if listed else []


def read(path: pathlib.Path, group: str, root: pathlib.Path) -> list[Document]:
    """Reads the documents of one file.

    Args:
      path: a .txt or .jsonl file.
      group: the group of texts that do not name their own.
      root: the folder (or file) of all texts, to which names are relative.

    Raises:
      DataError: not UTF-8, no regular file, or a line that is none of the forms of this module (file and line named).
    """
    try:
        content = files.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.DataError(
            f"{path} is no UTF-8 text (byte {error.start} is {error.object[error.start]:#04x}). Save it as UTF-8."
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
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg}, character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else error
        raise errors.DataError(
            f"{where}: no JSON ({reason}). A .jsonl file holds one object per line: {FORMS}."
        ) from error
    if not isinstance(found, dict):
        raise errors.DataError(f"{where}: expected an object, {FORMS}, got {type(found).__name__}.")
    if "question" in found and "prompt" not in found:
        found["prompt"] = found["question"]
    is_pair = "prompt" in found or "answer" in found
    forms = [form for form in ("text", "tokens") if form in found] + ["prompt and answer"] * is_pair
    if not forms:
        keys = ", ".join(map(repr, list(found)[:8])) or "(none)"
        raise errors.DataError(f"{where} has the keys {keys}; expected {FORMS}.")
    if len(forms) > 1:
        raise errors.DataError(f"{where} holds {' and '.join(forms)}; expected one of {FORMS}.")
    name, group = _label(found, "id", where, name), _label(found, "group", where, group)
    if "tokens" in found:
        return Document(name, where, group, tokens=_tokens(found["tokens"], where))
    if "text" in found:
        return Document(name, where, group, _string(found, "text", where))
    return Document(name, where, group, _string(found, "answer", where), _string(found, "prompt", where))


def _string(found: dict[str, Any], key: str, where: str) -> str:
    if key not in found:
        raise errors.DataError(f"{where} has no key {key!r}: a prompt and its answer belong together.")
    value = found[key]
    if not isinstance(value, str):
        raise errors.DataError(f"{where}: {key} is {_shown(value)}, expected a string.")
    if not _is_sound(value):
        raise errors.DataError(f"{where}: {key} holds half of a pair of characters (\\ud800 to \\udfff); write both.")
    return value


def _label(found: dict[str, Any], key: str, where: str, default: str) -> str:
    """What a line says of itself, a string or a whole number; `default` where it says nothing."""
    value = found.get(key)
    if value is None:
        return default
    if not isinstance(value, (str, int)) or isinstance(value, bool) or not _is_sound(str(value)):
        raise errors.DataError(f"{where}: {key} is {_shown(value)}, expected a string or a whole number.")
    return str(value)


def _tokens(value: Any, where: str) -> np.ndarray:
    """[n] int64 ids of a line; which of them are tokens is checked once the vocabulary is known."""
    if not isinstance(value, list) or any(type(one) is not int for one in value):
        raise errors.DataError(f"{where}: tokens is {_shown(value)}, expected a list of whole numbers.")
    if any(abs(one) >= 1 << 62 for one in value):
        raise errors.DataError(f"{where}: tokens holds {_shown(max(value, key=abs))}, which is no token id.")
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
