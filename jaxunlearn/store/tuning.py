"""Remembered tunings: which mapping was fastest for which task on which device, in the user's cache folder."""

import os
from pathlib import Path
from typing import Any

from jaxunlearn import errors
from jaxunlearn.store import files


def location() -> Path:
    """The file, beside the compilation cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "jaxunlearn" / "tuning.json"


def recall(key: str) -> dict[str, Any] | None:
    """What was remembered for a key; None if nothing was, or the file cannot be read."""
    try:
        return files.read_json(location()).get(key)
    except (OSError, errors.StoreError, AttributeError):
        return None


def remember(key: str, answer: dict[str, Any]) -> None:
    """Adds an answer; a cache that cannot be written is no reason to stop."""
    try:
        known = files.read_json(location())
    except (OSError, errors.StoreError):
        known = {}
    try:
        files.write_json(location(), {**known, key: answer})
    except (OSError, errors.StoreError):
        pass
