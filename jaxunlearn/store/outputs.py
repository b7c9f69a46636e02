"""Which files of a run folder are ours: outputs.jsonl lists every output, one a line, before it is written.

Nothing else in the folder is ever deleted. A folder that is not empty and has no such list is no run folder: whatever
lies there is the user's.
"""

import fnmatch
import json
import re
from collections.abc import Iterable
from pathlib import Path

from jaxunlearn import errors
from jaxunlearn.store import files

# What a killed process leaves beside the output it was writing: NAME.tmp-PID, STEM.tmp-PID.SUFFIX, STEM.PID.part.SUFFIX
_LEFTOVER = re.compile(r"(.+?)(\.tmp-\d+|\.\d+\.part)(\.\w+)?")
# Never deleted by a pattern: they tell what happened to the folder.
_KEPT = (files.OUTPUTS, "run.json", "log.jsonl")


def claim(root: Path) -> None:
    """Makes a run folder, or accepts one that is ours.

    Raises:
      StoreError: the folder holds something and is no run folder, or it cannot be made.
    """
    with files.writing(root):
        root.mkdir(parents=True, exist_ok=True)
        if is_own_output(root):
            return
        foreign = sorted(path.name for path in root.iterdir() if path.name != ".lock")
        if foreign:
            shown = ", ".join(repr(name) for name in foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            raise errors.StoreError(
                f"{root} is no run folder and not empty (it holds {shown}); nothing was touched. Choose a folder that "
                "is new or empty, by --workdir, or --out where arrays are given."
            )
        (root / files.OUTPUTS).touch()


def is_own_output(root: Path) -> bool:
    """Tells whether a folder is a run folder, of this version or of one that kept no list of its outputs."""
    if (root / files.OUTPUTS).is_file():
        return True
    try:
        return {"status", "versions", "settings"} <= set(files.read_json(root / "run.json"))
    except (OSError, errors.StoreError):
        return False


def listed(root: Path) -> list[str]:
    """Returns the outputs that are there, as paths relative to the run folder; lines cut short are skipped."""
    try:
        lines = (root / files.OUTPUTS).read_text(errors="replace").splitlines()
    except OSError:  # none, or a folder in its place
        return []
    names = []
    for line in lines:
        try:
            name = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(name, str) and name and not Path(name).is_absolute() and ".." not in Path(name).parts:
            names.append(name)
    return list(dict.fromkeys(names))


def tidy(root: Path) -> None:
    """Deletes what killed processes left of outputs in work, and shortens the list to what is there."""
    names = listed(root)
    by_folder: dict[Path, set[str]] = {root: {files.OUTPUTS}}
    for name in names:
        path = root / name
        by_folder.setdefault(path.parent, set()).add(path.name)
    for folder, ours in by_folder.items():
        for path in list(folder.iterdir()) if folder.is_dir() else ():
            match = _LEFTOVER.fullmatch(path.name)
            if match and (match[1] + (match[3] or "")) in ours:
                files.remove(path)
    _keep(root, names)


def delete(root: Path, patterns: Iterable[str]) -> None:
    """Deletes outputs that match a pattern, or lie below what matches one; then folders that are empty."""
    every = [wanted for pattern in patterns for wanted in (pattern, f"{pattern}/*")]
    names = listed(root)
    for name in names:
        if name not in _KEPT and any(fnmatch.fnmatchcase(name, wanted) for wanted in every):
            files.remove(root / name)
            for folder in [root / parent for parent in Path(name).parents if parent.parts]:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
    _keep(root, names)


def _keep(root: Path, names: Iterable[str]) -> None:
    if (root / files.OUTPUTS).is_file():
        there = [name for name in names if (root / name).exists()]
        files.write_whole(root / files.OUTPUTS, "".join(json.dumps(name) + "\n" for name in there).encode())
