"""Wrappers: methods made of methods. `finetune+conformal` is fine-tuning with the conformal-guided loss.

To add one: a function (method, its own hyperparameters with defaults) -> method, and one line in `WRAPPERS`. Its
hyperparameters stand beside the method's, under `<wrapper>_<name>`. Wrappers that change the method itself, such as
`+our`, name another builder for it in `INSTEAD`. A method that has a `mid` has one more name, METHOD@mid: its phases up
to there, whose model is a result of its own.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from jaxunlearn import checks, errors
from jaxunlearn.unlearn.base.method import Builder, Method
from jaxunlearn.unlearn.methods import saliency
from jaxunlearn.unlearn.wrappers import conformal, orthogonal, over_unlearning

SEPARATOR = "+"
MID = "@mid"
WRAPPERS: dict[str, Callable[..., Method]] = {
    "conformal": conformal.conformal,
    "our": over_unlearning.our,
    "orthogonal": orthogonal.orthogonal,
    "salient": saliency.saliency,
}
# wrapper -> base builder -> the builder that takes its place, and defaults of the wrapper that differ with it
INSTEAD: dict[str, Mapping[Builder, over_unlearning.Intensified]] = {
    "our": over_unlearning.INTENSIFIED,
    "orthogonal": {base: one._replace(replay={}) for base, one in over_unlearning.INTENSIFIED.items()},
}
# Wrappers whose method has a @mid -> their hyperparameters that only decide about what comes after it.
WITH_MID: dict[str, tuple[str, ...]] = {
    "our": tuple(inspect.signature(over_unlearning.our).parameters)[1:],
    "orthogonal": orthogonal.OF_REPLAY,
}


def split(name: str) -> tuple[str, tuple[str, ...]]:
    """The method and the wrappers, innermost first, of a name such as `finetune+conformal` or `ssd+our@mid`.

    Raises:
      ConfigError: an unknown wrapper, one given twice, two of which only one can have the last word, or a @mid that
        does not exist.
    """
    whole, at, _ = name.partition(MID)
    base, *wrappers = whole.split(SEPARATOR)
    if name not in (whole, whole + MID):
        raise errors.ConfigError(f"{name!r}: {MID} stands at the end of a name, METHOD+our{MID}.")
    if len(set(wrappers)) < len(wrappers):
        raise errors.ConfigError(f"{name!r} wraps the method in the same wrapper twice. Name it once.")
    for one in wrappers:
        checks.choice("wrapper of unlearning methods", one, WRAPPERS)
    if any(one in WITH_MID for one in wrappers[1:]):
        raise errors.ConfigError(
            f"{name!r}: {' and '.join(WITH_MID)} change the method itself; one of them at most, and before other "
            "wrappers, such as negrad_plus+our+conformal."
        )
    if at and not has_mid(whole):
        raise errors.ConfigError(f"{name!r}: only {', '.join(f'METHOD+{one}' for one in WITH_MID)} have a {MID}.")
    return base, tuple(wrappers)


def has_mid(name: str) -> bool:
    """Whether the method of a name has a first half, METHOD@mid, whose model is a result of its own."""
    return any(one in WITH_MID for one in name.partition(MID)[0].split(SEPARATOR)[1:])


def replaces(name: str, build: Builder) -> bool:
    """Whether a wrapper takes another builder in place of this one."""
    return build in INSTEAD.get(name, {})


def wrapped(build: Builder, name: str) -> Builder:
    """The builder whose method is that of `build`, wrapped; its arguments are those of both."""
    wrap, prefix = WRAPPERS[name], f"{name}_"
    instead = INSTEAD.get(name, {}).get(build, over_unlearning.Intensified(build))
    inner: Builder = instead.build
    _, *own = inspect.signature(wrap).parameters.values()
    own = [one.replace(default=instead.replay.get(one.name, one.default)) for one in own]
    added = {prefix + one.name: one for one in own}

    def both(**chosen: Any) -> Method:
        mine = {one.name: chosen.pop(key, one.default) for key, one in added.items()}
        return wrap(inner(**chosen), **mine)

    extra = [one.replace(name=key, kind=inspect.Parameter.KEYWORD_ONLY) for key, one in added.items()]
    plain = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in inspect.signature(inner).parameters.values()]
    both.__name__ = f"{build.__name__}{SEPARATOR}{name}"
    both.__signature__ = inspect.Signature([*plain, *extra])  # type: ignore[attr-defined]
    both.__wrapped__ = build  # type: ignore[attr-defined]
    return both


def first_half(build: Builder, chain: tuple[str, ...]) -> Builder:
    """The builder of METHOD@mid: the phases of the method up to its `mid`, without the hyperparameters of the others.

    Args:
      build: of the whole method.
      chain: its wrappers.
    """
    later = {f"{name}_{one}" for name in chain for one in WITH_MID.get(name, ())}

    def half(**chosen: Any) -> Method:
        method = build(**chosen)
        return dataclasses.replace(method, phases=method.phases[: method.mid], mid=0)

    signature = inspect.signature(build)
    kept = [one for name, one in signature.parameters.items() if name not in later]
    half.__name__ = f"{build.__name__}{MID}"
    half.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    half.__wrapped__ = build  # type: ignore[attr-defined]
    return half


def innermost(build: Builder) -> Builder:
    """The builder without its wrappers."""
    while hasattr(build, "__wrapped__"):
        build = build.__wrapped__
    return build
