"""Wrappers: methods made of methods. `finetune+conformal` is fine-tuning with the conformal-guided loss.

To add one: a function (method, its own hyperparameters with defaults) -> method, and one line in `WRAPPERS`. Its
hyperparameters join the method's as `<wrapper>_<name>`. Wrappers that change the method itself, such as `+our`, name
another builder for it in `INSTEAD`. A method with a `mid` has a second name, METHOD@mid: its phases up to there, whose
model is a result in its own right.
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
INSTEAD: dict[str, Mapping[Builder, over_unlearning.IntensifiedMethod]] = {
    "our": over_unlearning.INTENSIFIED,
    "orthogonal": {base: form._replace(replay={}) for base, form in over_unlearning.INTENSIFIED.items()},
}
# Wrappers whose method has a @mid -> their hyperparameters that only affect what comes after it.
WITH_MID: dict[str, tuple[str, ...]] = {
    "our": tuple(inspect.signature(over_unlearning.our).parameters)[1:],
    "orthogonal": orthogonal.OF_REPLAY,
}


def split(name: str) -> tuple[str, tuple[str, ...]]:
    """Splits a name such as `finetune+conformal` or `ssd+our@mid` into the method and the wrappers, innermost first.

    Raises:
      ConfigError: an unknown wrapper, the same one twice, two that exclude each other, or a @mid that does not exist.

    Example:
      >>> from jaxunlearn.unlearn.wrappers import wrappers
      >>> wrappers.split("ssd+our+conformal")
      ('ssd', ('our', 'conformal'))
    """
    full_name, at, _ = name.partition(MID)
    base, *wrappers = full_name.split(SEPARATOR)
    if name not in (full_name, full_name + MID):
        raise errors.ConfigError(f"{name!r}: {MID} must come at the end of a name, METHOD+our{MID}.")
    if len(set(wrappers)) < len(wrappers):
        raise errors.ConfigError(f"{name!r} wraps the method in the same wrapper twice. Name it once.")
    for wrapper in wrappers:
        checks.choice("wrapper of unlearning methods", wrapper, WRAPPERS)
    if any(wrapper in WITH_MID for wrapper in wrappers[1:]):
        raise errors.ConfigError(
            f"{name!r}: {' and '.join(WITH_MID)} change the method itself; one of them at most, and before other "
            "wrappers, such as negrad_plus+our+conformal."
        )
    if at and not has_mid(full_name):
        raise errors.ConfigError(f"{name!r}: only {', '.join(f'METHOD+{key}' for key in WITH_MID)} have a {MID}.")
    return base, tuple(wrappers)


def has_mid(name: str) -> bool:
    """Returns whether the method of a name has a first half, METHOD@mid, whose model is a result in its own right."""
    return any(wrapper in WITH_MID for wrapper in name.partition(MID)[0].split(SEPARATOR)[1:])


def replaces(name: str, build: Builder) -> bool:
    """Returns whether a wrapper takes another builder in place of this one."""
    return build in INSTEAD.get(name, {})


def wrap_builder(build: Builder, name: str) -> Builder:
    """Returns the builder of the wrapped method of `build`; its arguments are those of builder and wrapper."""
    wrap, keyword = WRAPPERS[name], inspect.Parameter.KEYWORD_ONLY
    replacement = INSTEAD.get(name, {}).get(build, over_unlearning.IntensifiedMethod(build))
    inner: Builder = replacement.build
    _, *parameters = inspect.signature(wrap).parameters.values()
    options = {
        f"{name}_{parameter.name}": parameter.replace(default=replacement.replay.get(parameter.name, parameter.default))
        for parameter in parameters
    }

    def build_wrapped(**hyper: Any) -> Method:
        values = {parameter.name: hyper.pop(key, parameter.default) for key, parameter in options.items()}
        return wrap(inner(**hyper), **values)

    inner_parameters = inspect.signature(inner).parameters.values()
    signature = [
        *(parameter.replace(kind=keyword) for parameter in inner_parameters),
        *(parameter.replace(name=key, kind=keyword) for key, parameter in options.items()),
    ]
    build_wrapped.__name__ = f"{build.__name__}{SEPARATOR}{name}"
    build_wrapped.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    build_wrapped.__wrapped__ = build  # type: ignore[attr-defined]
    return build_wrapped


def mid_builder(build: Builder, chain: tuple[str, ...]) -> Builder:
    """Returns the builder of METHOD@mid: the phases up to the `mid`, without the hyperparameters of later ones.

    Args:
      build: of the whole method.
      chain: its wrappers.
    """
    later_names = {f"{wrapper}_{name}" for wrapper in chain for name in WITH_MID.get(wrapper, ())}

    def build_mid(**hyper: Any) -> Method:
        method = build(**hyper)
        return dataclasses.replace(method, phases=method.phases[: method.mid], mid=0)

    signature = inspect.signature(build)
    parameters = [parameter for name, parameter in signature.parameters.items() if name not in later_names]
    build_mid.__name__ = f"{build.__name__}{MID}"
    build_mid.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    build_mid.__wrapped__ = build  # type: ignore[attr-defined]
    return build_mid


def base_builder(build: Builder) -> Builder:
    """Returns the builder without its wrappers."""
    while hasattr(build, "__wrapped__"):
        build = build.__wrapped__
    return build
