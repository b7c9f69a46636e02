"""Losses per text in the published layout: a folder of text files, one number per line.

    NAME-nlloss.txt         losses of the audited model
    NAME-fitRef_nlloss.txt  of the IN model          NAME-ref_nlloss.txt  of the OUT model
    NAME-label.txt          1 = kept, 0 = forgotten

The first line of a file is its key (`nlloss :`), then numbers. Source: IAM, language-model part.
"""

import os
from pathlib import Path

import numpy as np

from jaxunlearn import errors

SUFFIXES = {
    "nll_fit": "fitRef_nlloss.txt", "nll_ref": "ref_nlloss.txt", "nll_target": "nlloss.txt", "label": "label.txt",
}  # fmt: skip


def is_folder(path: Path) -> bool:
    """Whether this is a folder of that layout."""
    return os.path.isdir(path) and any(_is_of("nll_target", file.name) for file in path.iterdir())


def as_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads a folder as an .npz would hold its arrays.

    Raises:
      DataError: several files of one kind, or a line that is no number.
    """
    found = {}
    for name in SUFFIXES:
        files = sorted(file for file in path.iterdir() if _is_of(name, file.name))
        if len(files) > 1:
            names = ", ".join(errors.printable(file.name) for file in files[:3])
            raise errors.DataError(f"{path} holds {len(files)} files *{SUFFIXES[name]}: {names}. Keep one run's files.")
        if files:
            found[name] = _read(files[0])
    return found


def _is_of(name: str, file: str) -> bool:
    """Whether a file holds this array: the longest suffix that fits decides."""
    fitting = [one for one, suffix in SUFFIXES.items() if file == suffix or file.endswith((f"-{suffix}", f"_{suffix}"))]
    return bool(fitting) and max(fitting, key=lambda one: len(SUFFIXES[one])) == name


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read(file: Path) -> np.ndarray:
    try:
        key, *lines = file.read_text().splitlines() or [""]
    except (OSError, ValueError) as error:
        raise errors.DataError(f"{file} cannot be read as lines of text ({error}).") from error
    if not lines or _is_number(key):
        raise errors.DataError(
            f"{file} begins with {errors.printable(key[:40])!r} and holds {len(lines)} further line(s). The first line "
            "is the key (`nlloss :`), then one number per line."
        )
    values = np.empty(len(lines))
    for place, line in enumerate(lines):
        try:
            values[place] = float(line)
        except ValueError as error:
            raise errors.DataError(
                f"{file}, line {place + 2}: {errors.printable(line[:40])!r} is no number. The first line is the key, "
                f"here {errors.printable(key[:40])!r}, then one number per line."
            ) from error
    return values
