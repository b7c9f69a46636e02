"""Saved tunings in the user's cache folder: the fastest mapping by task and device."""

from pathlib import Path
from typing import Any

from jaxunlearn import errors, settings
from jaxunlearn.store import files


def location() -> Path:
    """Returns the path of the file, next to the compilation cache."""
    return settings.cache_folder() / "tuning.json"


def recall(key: str) -> dict[str, Any] | None:
    """Returns the values saved for a key; None if there are none, or the file cannot be read."""
    try:
        return files.read_json(location()).get(key)
    except (OSError, errors.StoreError, AttributeError):
        return None


def remember(key: str, values: dict[str, Any]) -> None:
    """Saves values for a key; ignores a cache folder that cannot be written."""
    try:
        stored = files.read_json(location())
    except (OSError, errors.StoreError):
        stored = {}
    try:
        files.write_json(location(), {**stored, key: values})
    except (OSError, errors.StoreError):
        pass
