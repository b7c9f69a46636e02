"""Wrappers: methods made of methods. `finetune+conformal` is fine-tuning with the conformal-guided loss.

To add one: a function (method, its own hyperparameters with defaults) -> method, and one line in `WRAPPERS`. Its
hyperparameters stand beside the method's, under `<wrapper>_<name>`.
"""

import inspect
from collections.abc import Callable
from typing import Any

from jaxunlearn import checks, errors
from jaxunlearn.unlearn import conformal
from jaxunlearn.unlearn.method import Builder, Method

SEPARATOR = "+"
WRAPPERS: dict[str, Callable[..., Method]] = {"conformal": conformal.conformal}


def split(name: str) -> tuple[str, tuple[str, ...]]:
    """The method and the wrappers, innermost first, of a name such as `finetune+conformal`.

    Raises:
      ConfigError: an unknown wrapper, or one given twice.
    """
    base, *wrappers = name.split(SEPARATOR)
    if len(set(wrappers)) < len(wrappers):
        raise errors.ConfigError(f"{name!r} wraps the method in the same wrapper twice. Name it once.")
    for one in wrappers:
        checks.choice("wrapper of unlearning methods", one, WRAPPERS)
    return base, tuple(wrappers)


def wrapped(build: Builder, name: str) -> Builder:
    """The builder whose method is that of `build`, wrapped; its arguments are those of both."""
    wrap, prefix = WRAPPERS[name], f"{name}_"
    _, *own = inspect.signature(wrap).parameters.values()
    added = {prefix + one.name: one for one in own}

    def both(**chosen: Any) -> Method:
        mine = {added[key].name: chosen.pop(key) for key in list(chosen) if key in added}
        return wrap(build(**chosen), **mine)

    extra = [one.replace(name=key, kind=inspect.Parameter.KEYWORD_ONLY) for key, one in added.items()]
    plain = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in inspect.signature(build).parameters.values()]
    both.__name__ = f"{build.__name__}{SEPARATOR}{name}"
    both.__signature__ = inspect.Signature([*plain, *extra])  # type: ignore[attr-defined]
    both.__wrapped__ = build  # type: ignore[attr-defined]
    return both


def innermost(build: Builder) -> Builder:
    """The builder without its wrappers."""
    while hasattr(build, "__wrapped__"):
        build = build.__wrapped__
    return build
