"""Errors that are the user's to mend, and the sentence that helps to mend them.

Every `UserError` says what was wrong (with the value), what was expected, and what to do. The launchers print it
without a traceback and leave with exit code 2; any other exception is a bug and keeps its traceback.
"""

import difflib
from collections.abc import Iterable

from jaxunlearn import escapes


class UserError(Exception):
    """Something the user can mend: the message says what was wrong and what to do."""

    def __str__(self) -> str:
        """The message, fit for a terminal whatever names it repeats."""
        return escapes.visible(super().__str__())


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class DataError(UserError):
    """A data set or an input file is missing, malformed or holds impossible values."""


class ShapeError(UserError):
    """Arrays do not have the shapes they must have together."""


class StoreError(UserError):
    """A run folder is locked, damaged, unwritable, full, or holds results of other settings."""


class DeviceError(UserError):
    """More devices or more memory were asked for than this machine has."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ` Did you mean 'x'?` for the closest known name, or an empty string when none is close."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def unknown(kind: str, name: str, known: Iterable[str], error: type[UserError] = ConfigError) -> UserError:
    """Builds the error for a name that stands in no table: nearest known name first, then all of them."""
    known = sorted(known)
    return error(f"unknown {kind} {name!r}.{nearest(name, known)} Known: {', '.join(known)}.")


def printable(text: str) -> str:
    """Returns a user's text without the characters that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
