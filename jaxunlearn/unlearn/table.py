"""The table of unlearning methods, and how hyperparameters reach a builder.

To add one: a builder in its family file, and one line in `METHODS`. `my_module:my_method` works wherever a name does.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxunlearn import checks, errors
from jaxunlearn.unlearn import dampening, descent
from jaxunlearn.unlearn.method import Builder, Method

NEEDS = ("forget", "retain", "labels", "statistics", "validation")


class Entry(NamedTuple):
    """One line of the table.

    Attributes:
      build: the builder; its arguments and their defaults are the hyperparameters.
      about: one line for people.
      source: paper or code base.
      needs: which of NEEDS it reads ("labels": it replaces labels; "statistics": estimates in extra passes).
      published: data set -> hyperparameters that replace the defaults there.
    """

    build: Builder
    about: str
    source: str
    needs: tuple[str, ...]
    published: Mapping[str, Mapping[str, Any]] = {}


METHODS: dict[str, Entry] = {
    "finetune": Entry(descent.finetune, "trains on the retained samples alone", "IAM; conformal FT", ("retain",)),
    "ssd": Entry(
        dampening.ssd, "scales down parameters that matter more to the forget set than to all data",
        "Foster et al. 2024", ("forget", "retain", "statistics"),
        {"cifar10": {"alpha": 60.0}, "cifar100": {"alpha": 60.0}, "cinic10": {"alpha": 10.0}},
    ),
}  # fmt: skip


def lookup(name: str) -> Entry:
    """The entry of a name, or of a user's own builder given as `my_module:my_method`.

    Raises:
      ConfigError: no such method (with the nearest one), module or function.
    """
    if ":" not in name:
        if name not in METHODS:
            raise errors.unknown("unlearning method", name, METHODS)
        return METHODS[name]
    build = checks.lookup("unlearning method", name, {})
    about = (inspect.getdoc(build) or name).splitlines()[0]
    return Entry(build, about, "yours", ())


def hyperparameters(entry: Entry, dataset: str = "") -> dict[str, Any]:
    """Names and default values of a builder's arguments, with the data set's own values in place.

    Raises:
      ConfigError: an argument without a default.
    """
    found = {}
    for name, parameter in inspect.signature(entry.build).parameters.items():
        if parameter.default is inspect.Parameter.empty:
            raise errors.ConfigError(
                f"argument {name!r} of {entry.build.__name__} has no default; every hyperparameter needs one."
            )
        found[name] = parameter.default
    return {**found, **entry.published.get(dataset, {})}


def binder(entry: Entry, chosen: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Method]:
    """{name: number} -> Method, with all other hyperparameters as chosen.

    Raises:
      ConfigError: the builder does not return a Method.
    """
    first = entry.build(**chosen)
    if not isinstance(first, Method):
        raise errors.ConfigError(f"{entry.build.__name__} returned {type(first).__name__}, expected an unlearn.Method.")

    def build(hyper: Mapping[str, Any]) -> Method:
        return entry.build(**{**chosen, **hyper})

    return build


def swept(entry: Entry, chosen: Mapping[str, Any]) -> tuple[str, ...]:
    """Hyperparameters that may differ between members: those whose default is a float."""
    defaults = hyperparameters(entry)
    return tuple(name for name in chosen if isinstance(defaults.get(name), float))


def assigned(entry: Entry, name: str, text: str) -> Any:
    """The value of hyperparameter `name` from the text of a command line, with the type of its default.

    Raises:
      ConfigError: no such hyperparameter, or a value of another type.
    """
    defaults = hyperparameters(entry)
    if name not in defaults:
        raise errors.unknown("hyperparameter", name, defaults)
    kind = type(defaults[name])
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if kind is tuple:
            return tuple(int(part) if part.lstrip("-").isdigit() else float(part) for part in text.split(";") if part)
        return kind(text)
    except (KeyError, ValueError) as error:
        raise errors.ConfigError(f"hyperparameter {name} = {text!r}: expected {kind.__name__}.") from error
