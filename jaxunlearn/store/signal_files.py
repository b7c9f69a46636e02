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
    """Returns whether a path is a folder in this layout."""
    return os.path.isdir(path) and any(_is_of("nll_target", file.name) for file in path.iterdir())


def as_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads a folder as named arrays, as in an .npz.

    Raises:
      DataError: several files of one kind, or a line that is not a number.

    Example:
      >>> import pathlib
      >>> from jaxunlearn.store import signal_files
      >>> folder = pathlib.Path("my_losses")
      >>> folder.mkdir(exist_ok=True)
      >>> _ = (folder / "news-nlloss.txt").write_text(chr(10).join(["nlloss :", "2.5", "3.0"]))
      >>> signal_files.as_arrays(folder)
      {'nll_target': array([2.5, 3. ])}
    """
    result = {}
    for name in SUFFIXES:
        files = sorted(file for file in path.iterdir() if _is_of(name, file.name))
        if len(files) > 1:
            names = ", ".join(errors.printable(file.name) for file in files[:3])
            raise errors.DataError(
                f"{path} contains {len(files)} files *{SUFFIXES[name]}: {names}. Keep the files of one run."
            )
        if files:
            result[name] = _read(files[0])
    return result


def _is_of(name: str, file: str) -> bool:
    """Returns whether a file name belongs to an array; the longest matching suffix counts."""
    matches = [
        other for other, suffix in SUFFIXES.items() if file == suffix or file.endswith((f"-{suffix}", f"_{suffix}"))
    ]
    return bool(matches) and max(matches, key=lambda other: len(SUFFIXES[other])) == name


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
            f"{file} begins with {errors.printable(key[:40])!r} and contains {len(lines)} further line(s). The first "
            "line is the key (`nlloss :`), then one number per line."
        )
    values = np.empty(len(lines))
    for index, line in enumerate(lines):
        try:
            values[index] = float(line)
        except ValueError as error:
            raise errors.DataError(
                f"{file}, line {index + 2}: {errors.printable(line[:40])!r} is not a number. The first line is the "
                f"key, here {errors.printable(key[:40])!r}, then one number per line."
            ) from error
    return values
