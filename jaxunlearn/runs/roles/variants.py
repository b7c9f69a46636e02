"""Variants of unlearning methods: a method with all its hyperparameters, and the name of its role.

    unlearned:ssd            the method as the settings have it
    unlearned:ssd@alpha=5    one value of a sweep
    unlearned:ssd+our@mid    the first half of a method that has one: recorded along with unlearned:ssd+our

Hyperparameters come from the builder's defaults, then the published values of the data set, then compat.unlearn, then
`unlearn.options`, then the sweep.
"""

import itertools
from typing import Any, NamedTuple

from jaxunlearn import errors, unlearn
from jaxunlearn.settings import Settings, to_dict
from jaxunlearn.unlearn import registry
from jaxunlearn.unlearn.wrappers import wrappers

PREFIX = "unlearned:"
# The exact retrains are a role of their own, trained by launch.targets; `all` does not train them a second time.
EXACT = "retrain"
CONFORMAL = "conformal"


class MethodConfig(NamedTuple):
    """One method with its hyperparameters.

    Attributes:
      role: `unlearned:METHOD`, with `@name=value,...` for values of a sweep.
      method: its name; `entry`: its line of the table.
      chosen: every hyperparameter of the builder.
      swept: names of those that the sweep gave.
    """

    role: str
    method: str
    entry: unlearn.MethodEntry
    hyperparameters: dict[str, Any]
    swept: tuple[str, ...] = ()


def names(settings: Settings) -> tuple[str, ...]:
    """The methods that the settings ask for, `all` spelled out.

    Raises:
      ConfigError: an unknown method.
    """
    asked: list[str] = []
    for name in settings.unlearn.methods:
        asked += [one for one in unlearn.METHODS if one != EXACT] if name == "all" else [name]
    if settings.unlearn.conformal.enable:
        asked = [name if CONFORMAL in wrappers.split(name)[1] else f"{name}{wrappers.SEPARATOR}{CONFORMAL}"
                 for name in asked]  # fmt: skip
    for name in asked:
        unlearn.lookup(name)
    found = [one for name in asked for one in (name, *_mid(settings, name))]
    return tuple(dict.fromkeys(found))


def _mid(settings: Settings, name: str) -> tuple[str, ...]:
    """METHOD@mid of a method that has one: the model between over-unlearning and Replay is a result of its own."""
    if name.endswith(wrappers.MID) or not wrappers.has_mid(name):
        return ()
    return (name + wrappers.MID,) if _base(settings, name)[1].get("orthogonal_replay", True) else ()


def wanted(settings: Settings) -> tuple[MethodConfig, ...]:
    """Every variant that the settings ask for, sweeps spelled out.

    Raises:
      ConfigError: an unknown method or hyperparameter, a sweep that no method has, or of a whole number.
    """
    asked = names(settings)
    check_options(settings)
    if settings.unlearn.conformal.lam and not any(CONFORMAL in wrappers.split(name)[1] for name in asked):
        raise errors.ConfigError(
            "unlearn.conformal.lam is set, but no method is wrapped in the conformal loss. Name one "
            "METHOD+conformal, or set --config.unlearn.conformal.enable=True."
        )
    swept = _sweeps(settings)
    for name in swept:
        if not any(name in registry.swept(entry, chosen) for entry, chosen in (_base(settings, one) for one in asked)):
            raise errors.ConfigError(
                f"sweep of {name}: none of the methods {', '.join(asked)} has a hyperparameter {name!r} that may "
                "differ between members."
            )
    found = []
    for method in asked:
        entry, chosen = _base(settings, method)
        own = [name for name in swept if name in registry.swept(entry, chosen)]
        for values in itertools.product(*(swept[name] for name in own)):
            given = dict(zip(own, values, strict=True))
            found.append(MethodConfig(_role(method, given), method, entry, {**chosen, **given}, tuple(own)))
    return tuple(found)


def _sweeps(settings: Settings) -> dict[str, tuple[float, ...]]:
    """Hyperparameter -> its values, from unlearn.sweep.NAME and unlearn.sweeps.

    Raises:
      ConfigError: not of the form name=0.1;0.2, or a name given twice.
    """
    found = {name: values for name, values in to_dict(settings.unlearn.sweep).items() if values}
    weights = tuple(dict.fromkeys(settings.unlearn.conformal.lam))
    if len(weights) > 1:
        found[f"{CONFORMAL}_lam"] = weights
    for sweep in settings.unlearn.sweeps:
        name, equals, text = sweep.partition("=")
        try:
            values = tuple(float(part) for part in text.split(";") if part.strip())
        except ValueError as error:
            raise errors.ConfigError(f"unlearn.sweeps: {sweep!r} holds something that is no number.") from error
        if not equals or not name or not values:
            raise errors.ConfigError(f"unlearn.sweeps: {sweep!r} is not of the form strength=0.1;0.2.")
        if name in found:
            raise errors.ConfigError(f"unlearn.sweeps: the values of {name} are given twice.")
        found[name] = values
    return found


def of_role(settings: Settings, role: str) -> MethodConfig:
    """The variant behind a role's name.

    Raises:
      ConfigError: not such a name, an unknown method or hyperparameter.
    """
    if not role.startswith(PREFIX):
        raise errors.ConfigError(f"role {role!r} is no unlearned:METHOD.")
    method, *labels = role.removeprefix(PREFIX).split("@")
    if labels and f"@{labels[0]}" == wrappers.MID:
        method += wrappers.MID
        labels = labels[1:]
    label = "@".join(labels)
    entry, chosen = _base(settings, method)
    given = {}
    for part in filter(None, label.split(",")):
        name, _, text = part.partition("=")
        given[name] = registry.parse_hyperparameter(entry, name, text)
    return MethodConfig(role, method, entry, {**chosen, **given}, tuple(given))


def mid_of(settings: Settings, variant: MethodConfig) -> MethodConfig:
    """The variant METHOD@mid whose models a method comes by, with the hyperparameters that decide about them."""
    method = variant.method + wrappers.MID
    entry, chosen = _base(settings, method)
    swept = tuple(name for name in variant.swept if name in chosen)
    chosen |= {name: variant.hyperparameters[name] for name in swept}
    return MethodConfig(_role(method, {name: chosen[name] for name in swept}), method, entry, chosen, swept)


def _role(method: str, swept: dict[str, Any]) -> str:
    label = ",".join(f"{name}={value!r}" for name, value in swept.items())
    return f"{PREFIX}{method}" + (f"@{label}" if label else "")


def roles_of(settings: Settings, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Role names with `unlearned:all` spelled out as every variant that the settings ask for."""
    found: list[str] = []
    for name in asked:
        found += [one.role for one in wanted(settings)] if name == f"{PREFIX}all" else [name]
    return tuple(dict.fromkeys(found))


def _base(settings: Settings, method: str) -> tuple[unlearn.MethodEntry, dict[str, Any]]:
    """A method's line of the table and its hyperparameters without a sweep."""
    entry = unlearn.lookup(method)
    chosen = unlearn.hyperparameters(entry, settings.unlearn.dataset or settings.data.name)
    if "compat" in chosen and settings.compat.unlearn == "faithful":
        chosen["compat"] = "faithful"
    if CONFORMAL in wrappers.split(method)[1]:
        chosen |= _conformal(settings)
    for option in settings.unlearn.options:
        target, name, text = _parse(option)
        if target == method or (target in _also(method) or not target) and name in chosen:
            chosen[name] = registry.parse_hyperparameter(entry, name, text)
    return entry, chosen


def _also(method: str) -> tuple[str, ...]:
    """Names whose options hold for a method too: its own without @mid, and the plain one that it wraps.

    Not where the wrapper puts another method in its place: an alpha for ssd is none for its intensified form.
    """
    base, chain = wrappers.split(method)
    whole = method.removesuffix(wrappers.MID)
    is_another = any(wrappers.replaces(one, wrappers.innermost(unlearn.lookup(base).build)) for one in chain)
    return (whole,) if is_another else (whole, base)


def is_pairwise(settings: Settings) -> bool:
    """Whether the conformal loss has its published form."""
    return settings.unlearn.conformal.pairwise or settings.compat.unlearn == "faithful"


def usual_lam(settings: Settings) -> float:
    """The weight of the conformal loss where none is given."""
    return 0.5 if is_pairwise(settings) else 0.085


def _conformal(settings: Settings) -> dict[str, Any]:
    """Hyperparameters of the wrapper as unlearn.conformal has them."""
    own, pairwise = settings.unlearn.conformal, is_pairwise(settings)
    lam = own.lam[0] if own.lam else usual_lam(settings)
    given = {"lam": lam, "delta": own.delta, "alpha": own.alpha, "pairwise": pairwise, "batch": own.batch,
             "calibration": own.calibration_rows, "eval_mode": settings.compat.unlearn == "faithful"}  # fmt: skip
    return {f"{CONFORMAL}_{name}": value for name, value in given.items()}


def check_options(settings: Settings) -> None:
    """Raises a ConfigError for an option that no method takes up."""
    asked = names(settings)
    for option in settings.unlearn.options:
        target, name, _ = _parse(option)
        if target:
            known = unlearn.hyperparameters(unlearn.lookup(target))
            if name not in known:
                raise errors.unknown(f"hyperparameter of {target}", name, known)
        elif not any(name in unlearn.hyperparameters(unlearn.lookup(method)) for method in asked):
            everything = sorted({one for method in asked for one in unlearn.hyperparameters(unlearn.lookup(method))})
            raise errors.unknown("hyperparameter in unlearn.options", name, everything)


def _parse(option: str) -> tuple[str, str, str]:
    """(method or "", hyperparameter, text) of `ssd.alpha=5` or `epochs=3`.

    Raises:
      ConfigError: not of this form.
    """
    left, equals, text = option.partition("=")
    target, _, name = left.rpartition(".")
    if not equals or not name:
        raise errors.ConfigError(f"unlearn.options: {option!r} is not of the form ssd.alpha=5 or epochs=3.")
    return target, name, text


def hyperparameters(settings: Settings, method: str) -> dict[str, Any]:
    """All hyperparameters of a method as these settings have them, without sweeps."""
    return _base(settings, method)[1]
