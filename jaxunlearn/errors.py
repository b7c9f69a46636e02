"""User-facing errors. Every message names the wrong value, what was expected, and how to fix it.

Launchers print a `UserError` without a traceback and exit with code 2; any other exception is a bug and keeps its
traceback.
"""

import difflib
from collections.abc import Iterable

from jaxunlearn import escapes

# Names of one thing in different libraries; a similar spelling would lead elsewhere.
SYNONYMS = (
    ("learning_rate", "lr", "rate", "step_size"),
    ("batch", "batch_size", "default_batch"),
    ("epochs", "num_epochs", "n_epochs"),
    ("weight_decay", "wd"),
)


class UserError(Exception):
    """An error that the user can fix: the message says what is wrong and what to do."""

    def __str__(self) -> str:
        """Returns the message with control characters of user-given names escaped, safe to print in a terminal."""
        return escapes.visible(super().__str__())


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class DataError(UserError):
    """A data set or an input file is missing, malformed or holds impossible values."""


class ShapeError(UserError):
    """Array shapes are wrong or do not agree with each other."""


class StoreError(UserError):
    """A run folder is locked, damaged, unwritable, full, or holds results of other settings."""


class DeviceError(UserError):
    """More devices or memory were requested than this machine has."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns ` Did you mean 'x'?` for the closest known name, or an empty string when none is close.

    A name of the same thing (lr, learning_rate) comes before similar spellings; upper and lower case do not matter.

    Example:
      >>> from jaxunlearn import errors
      >>> errors.nearest("shadow", ["shadows", "targets"]), errors.nearest("lr", ["l1", "learning_rate"])
      (" Did you mean 'shadows'?", " Did you mean 'learning_rate'?")
    """
    by_spelling = {str(other).lower(): other for other in names}
    word = str(name).lower()
    synonyms = [other for group in SYNONYMS if word in group for other in group if other in by_spelling]
    matches = synonyms or difflib.get_close_matches(word, list(by_spelling), n=1, cutoff=0.5)
    return f" Did you mean {by_spelling[matches[0]]!r}?" if matches else ""


def unknown(kind: str, name: str, names: Iterable[str], error: type[UserError] = ConfigError) -> UserError:
    """Returns the error for a name that is not in a table; the message suggests the nearest name and lists all.

    Args:
      kind: what is named, e.g. "method".
      name: the unknown name.
      names: of the entries of the table.
      error: class of the error.

    Example:
      >>> from jaxunlearn import errors
      >>> print(errors.unknown("score", "iamon", ["iam_on", "lira_on"]))
      unknown score 'iamon'. Did you mean 'iam_on'? Known: iam_on, lira_on.
    """
    names = sorted(names)
    return error(f"unknown {kind} {name!r}.{nearest(name, names)} Known: {', '.join(names)}.")


def printable(text: str) -> str:
    """Returns a user's text with unprintable characters replaced by `?`, safe to print in a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
