"""What a setting is: default, help text, range or choices, as a field of a frozen dataclass."""

import dataclasses
from typing import Any

# Far above what anybody needs: a slip of the keyboard is refused instead of running for years.
MAX_MODELS, MAX_EPOCHS, MAX_WIDTH, MAX_LEVELS, MAX_RESAMPLES = 100_000, 100_000, 65_536, 10_000, 100_000
MAX_LENGTH = 1 << 20


def field(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = (),
    of_runs: bool = False,
) -> Any:  # fmt: skip
    """Declares a setting: its default, help, range or choices, and whether it says nothing about a user's arrays."""
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "of_runs": of_runs}
    return dataclasses.field(default=default, metadata=metadata)


def section(cls: type) -> Any:
    """A group within a group."""
    return dataclasses.field(default_factory=cls)


# Kinds of forget sets that are (parts of) whole classes.
CLASS_KINDS = ("one_class", "class_percentage", "classes")
