"""The registered outputs of a run folder: outputs.jsonl lists every output, one per line, before it is written.

No other file in the folder is ever deleted. A non-empty folder without this list is not a run folder: its files belong
to the user.
"""

import fnmatch
import json
import re
from collections.abc import Iterable
from pathlib import Path

from jaxunlearn import errors
from jaxunlearn.store import files

# Temporary files that killed processes leave next to an output: NAME.tmp-PID, STEM.tmp-PID.SUFFIX, STEM.PID.part.SUFFIX
_LEFTOVER = re.compile(r"(.+?)(\.tmp-\d+|\.\d+\.part)(\.\w+)?")
# Never deleted by a pattern: the history of the folder.
_KEPT = (files.OUTPUTS, "run.json", "log.jsonl")


def claim(root: Path) -> None:
    """Creates a run folder, or accepts an existing one.

    Raises:
      StoreError: the folder is neither empty nor a run folder, or cannot be created.
    """
    with files.writing(root):
        root.mkdir(parents=True, exist_ok=True)
        if is_own_output(root):
            return
        other_files = sorted(path.name for path in root.iterdir() if path.name != ".lock")
        if other_files:
            names = ", ".join(repr(name) for name in other_files[:3]) + (", ..." if len(other_files) > 3 else "")
            raise errors.StoreError(
                f"{root} is not a run folder and not empty (it contains {names}); nothing was touched. Choose a new or "
                "empty folder, by --workdir, or by --out for arrays."
            )
        (root / files.OUTPUTS).touch()


def is_own_output(root: Path) -> bool:
    """Returns whether a folder is a run folder, of this version or of one without a list of outputs."""
    if (root / files.OUTPUTS).is_file():
        return True
    try:
        return {"status", "versions", "settings"} <= set(files.read_json(root / "run.json"))
    except (OSError, errors.StoreError):
        return False


def read_list(root: Path) -> list[str]:
    """Returns the registered outputs as paths relative to the run folder; truncated lines are skipped."""
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
    """Deletes temporary files of killed processes, and removes missing files from the list of outputs."""
    names = read_list(root)
    by_folder: dict[Path, set[str]] = {root: {files.OUTPUTS}}
    for name in names:
        path = root / name
        by_folder.setdefault(path.parent, set()).add(path.name)
    for folder, our_names in by_folder.items():
        for path in list(folder.iterdir()) if folder.is_dir() else ():
            match = _LEFTOVER.fullmatch(path.name)
            if match and (match[1] + (match[3] or "")) in our_names:
                files.remove(path)
    _rewrite_list(root, names)


def delete(root: Path, patterns: Iterable[str]) -> None:
    """Deletes outputs that match a pattern or lie below a matching folder; then empty folders."""
    all_patterns = [variant for pattern in patterns for variant in (pattern, f"{pattern}/*")]
    names = read_list(root)
    for name in names:
        if name not in _KEPT and any(fnmatch.fnmatchcase(name, pattern) for pattern in all_patterns):
            files.remove(root / name)
            for folder in [root / parent for parent in Path(name).parents if parent.parts]:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
    _rewrite_list(root, names)


def _rewrite_list(root: Path, names: Iterable[str]) -> None:
    if (root / files.OUTPUTS).is_file():
        present = [name for name in names if (root / name).exists()]
        files.write_whole(root / files.OUTPUTS, "".join(json.dumps(name) + "\n" for name in present).encode())
