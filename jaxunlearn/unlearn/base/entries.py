"""Entries of the table of methods, and the kind of data a method is for."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxunlearn import errors
from jaxunlearn.unlearn.base.method import Builder

COMPATS = ("corrected", "faithful")  # values of the hyperparameter `compat`
NEEDS = ("forget", "retain", "labels", "statistics", "validation", "tokens", "classes")


class MethodEntry(NamedTuple):
    """One entry of the table.

    Attributes:
      build: the builder; its arguments and their defaults are the hyperparameters.
      about: description in one line.
      source: paper or code base.
      needs: which of NEEDS it reads ("labels": it replaces labels; "statistics": estimates in extra passes). "tokens":
        only for texts under language models; "classes": only for rows with class labels; neither: for both.
      published: data set -> hyperparameters that replace the defaults there.
    """

    build: Builder
    about: str
    source: str
    needs: tuple[str, ...]
    published: Mapping[str, Mapping[str, Any]] = {}


def fits(entry: MethodEntry, vocabulary: int) -> bool:
    """Returns whether a method is for data of this kind: texts (a vocabulary above 0) or rows with class labels."""
    return ("classes" if vocabulary else "tokens") not in entry.needs


def check_fits(name: str, entry: MethodEntry, vocabulary: int) -> None:
    """Refuses a method for data of the other kind.

    Raises:
      ConfigError: it is for texts and these are not texts, or vice versa.
    """
    if fits(entry, vocabulary):
        return
    kinds = ("rows with class labels", "texts") if vocabulary else ("texts", "rows with class labels")
    raise errors.ConfigError(
        f"{name} is for {kinds[0]}, and this data set has {kinds[1]}. Choose another method: launch.unlearn --list "
        f"shows which ones need {'classes' if vocabulary else 'tokens'}."
    )
