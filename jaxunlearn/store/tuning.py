"""Remembered tunings: which mapping was fastest for which task on which device, in the user's cache folder."""

from pathlib import Path
from typing import Any

from jaxunlearn import errors, settings
from jaxunlearn.store import files


def location() -> Path:
    """The file, beside the compilation cache."""
    return settings.cache_folder() / "tuning.json"


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
