"""Declares settings: default, help text, range or choices, as fields of a frozen dataclass."""

import dataclasses
from typing import Any

# Far above realistic values: typing errors are refused instead of running for years.
MAX_MODELS, MAX_EPOCHS, MAX_WIDTH, MAX_LEVELS, MAX_RESAMPLES = 100_000, 100_000, 65_536, 10_000, 100_000
MAX_LENGTH = 1 << 20


def field(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = (),
    of_runs: bool = False, of_protocol: str = "", of_texts: bool = False,
) -> Any:  # fmt: skip
    """Declares a setting.

    Args:
      default: its value unless set.
      help: a short phrase for --help and --print_config.
      low: smallest value allowed (of each item of a tuple); None = unbounded.
      high: largest value allowed; None = unbounded.
      choices: the values allowed; empty = any.
      of_runs: whether it only applies to run folders, not to user-given arrays.
      of_protocol: the only protocol that reads it on a user's arrays; empty = any.
      of_texts: whether only audits of texts read it.
    """
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "of_runs": of_runs,
                "of_protocol": of_protocol, "of_texts": of_texts}  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def section(cls: type) -> Any:
    """Declares a group of settings within a group."""
    return dataclasses.field(default_factory=cls)


# Kinds of forget sets that consist of whole classes or of parts of one class.
CLASS_KINDS = ("one_class", "class_percentage", "classes")
