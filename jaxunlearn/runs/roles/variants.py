"""Variants of unlearning methods: a method with all its hyperparameters, and the name of its role.

    unlearned:ssd            the method as configured in the settings
    unlearned:ssd@alpha=5    one value of a sweep
    unlearned:ssd+our@mid    the first phase of a method in two phases: recorded along with unlearned:ssd+our

Hyperparameters come from the builder's defaults, overridden in turn by the published values of the data set,
compat.unlearn, `unlearn.options`, and the sweep.
"""

import itertools
from typing import Any, NamedTuple

from jaxunlearn import errors, unlearn
from jaxunlearn.settings import Settings, to_dict
from jaxunlearn.unlearn import registry
from jaxunlearn.unlearn.wrappers import wrappers

PREFIX = "unlearned:"
# The exact retrains are a separate role, trained by launch.targets; `all` does not train them a second time.
EXACT = "retrain"
CONFORMAL = "conformal"


class MethodConfig(NamedTuple):
    """One method with its hyperparameters.

    Attributes:
      role: `unlearned:METHOD`, with `@name=value,...` for values of a sweep.
      method: its name.
      entry: its entry in the registry.
      hyperparameters: every hyperparameter of the builder.
      swept: names of the swept ones.
    """

    role: str
    method: str
    entry: unlearn.MethodEntry
    hyperparameters: dict[str, Any]
    swept: tuple[str, ...] = ()


def method_names(settings: Settings) -> tuple[str, ...]:
    """Returns the methods that the settings request, with `all` expanded.

    Raises:
      ConfigError: an unknown method.
    """
    requested: list[str] = []
    for name in settings.unlearn.methods:
        requested += [method for method in unlearn.METHODS if method != EXACT] if name == "all" else [name]
    if settings.unlearn.conformal.enable:
        requested = [name if CONFORMAL in wrappers.split(name)[1] else f"{name}{wrappers.SEPARATOR}{CONFORMAL}"
                 for name in requested]  # fmt: skip
    for name in requested:
        unlearn.lookup(name)
    expanded = [method for name in requested for method in (name, *_mid_names(settings, name))]
    return tuple(dict.fromkeys(expanded))


def _mid_names(settings: Settings, name: str) -> tuple[str, ...]:
    """Returns METHOD@mid where it exists: the model between over-unlearning and Replay is a result in itself."""
    if name.endswith(wrappers.MID) or not wrappers.has_mid(name):
        return ()
    return (name + wrappers.MID,) if _base_config(settings, name)[1].get("orthogonal_replay", True) else ()


def requested_configs(settings: Settings) -> tuple[MethodConfig, ...]:
    """Returns every variant that the settings request, with sweeps expanded.

    Raises:
      ConfigError: an unknown method or hyperparameter, a sweep that no method has, or of a whole number.
    """
    methods = method_names(settings)
    check_options(settings)
    if settings.unlearn.conformal.lam and not any(CONFORMAL in wrappers.split(name)[1] for name in methods):
        raise errors.ConfigError(
            "unlearn.conformal.lam is set, but no method is wrapped in the conformal loss. Name one "
            "METHOD+conformal, or set --config.unlearn.conformal.enable=True."
        )
    sweeps = _sweeps(settings)
    base_configs = [(method, *_base_config(settings, method)) for method in methods]
    for name in sweeps:
        if not any(name in registry.swept(entry, base_values) for _, entry, base_values in base_configs):
            raise errors.ConfigError(
                f"sweep of {name}: none of the methods {', '.join(methods)} has a hyperparameter {name!r} that may "
                "differ between members."
            )
    configs = []
    for method, entry, base_values in base_configs:
        swept_names = [name for name in sweeps if name in registry.swept(entry, base_values)]
        for values in itertools.product(*(sweeps[name] for name in swept_names)):
            swept_values = dict(zip(swept_names, values, strict=True))
            values_by_name = {**base_values, **swept_values}
            configs.append(MethodConfig(_role(method, swept_values), method, entry, values_by_name, tuple(swept_names)))
    return tuple(configs)


def _sweeps(settings: Settings) -> dict[str, tuple[float, ...]]:
    """Returns hyperparameter -> its values, from unlearn.sweep.NAME and unlearn.sweeps.

    Raises:
      ConfigError: not of the form name=0.1;0.2, or a name given twice.
    """
    sweeps = {name: values for name, values in to_dict(settings.unlearn.sweep).items() if values}
    weights = tuple(dict.fromkeys(settings.unlearn.conformal.lam))
    if len(weights) > 1:
        sweeps[f"{CONFORMAL}_lam"] = weights
    for sweep in settings.unlearn.sweeps:
        name, equals, text = sweep.partition("=")
        try:
            values = tuple(float(value) for value in text.split(";") if value.strip())
        except ValueError as error:
            raise errors.ConfigError(f"unlearn.sweeps: {sweep!r} contains a value that is not a number.") from error
        if not equals or not name or not values:
            raise errors.ConfigError(f"unlearn.sweeps: {sweep!r} is not of the form strength=0.1;0.2.")
        if name in sweeps:
            raise errors.ConfigError(f"unlearn.sweeps: the values of {name} are given twice.")
        sweeps[name] = values
    return sweeps


def config_of_role(settings: Settings, role: str) -> MethodConfig:
    """Returns the variant of a role name.

    Raises:
      ConfigError: not such a name, an unknown method or hyperparameter.
    """
    if not role.startswith(PREFIX):
        raise errors.ConfigError(f"role {role!r} is not of the form unlearned:METHOD.")
    method, *labels = role.removeprefix(PREFIX).split("@")
    if labels and f"@{labels[0]}" == wrappers.MID:
        method += wrappers.MID
        labels = labels[1:]
    label = "@".join(labels)
    entry, base_values = _base_config(settings, method)
    swept_values = {}
    for assignment in filter(None, label.split(",")):
        name, _, text = assignment.partition("=")
        swept_values[name] = registry.parse_hyperparameter(entry, name, text)
    return MethodConfig(role, method, entry, {**base_values, **swept_values}, tuple(swept_values))


def mid_config(settings: Settings, variant: MethodConfig) -> MethodConfig:
    """Returns the variant METHOD@mid of a method, with the hyperparameters that its models depend on."""
    method = variant.method + wrappers.MID
    entry, base_values = _base_config(settings, method)
    swept = tuple(name for name in variant.swept if name in base_values)
    base_values |= {name: variant.hyperparameters[name] for name in swept}
    return MethodConfig(_role(method, {name: base_values[name] for name in swept}), method, entry, base_values, swept)


def _role(method: str, swept: dict[str, Any]) -> str:
    label = ",".join(f"{name}={value!r}" for name, value in swept.items())
    return f"{PREFIX}{method}" + (f"@{label}" if label else "")


def role_names(settings: Settings, names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns role names with `unlearned:all` expanded to every variant that the settings request."""
    expanded: list[str] = []
    for name in names:
        expanded += [variant.role for variant in requested_configs(settings)] if name == f"{PREFIX}all" else [name]
    return tuple(dict.fromkeys(expanded))


def _base_config(settings: Settings, method: str) -> tuple[unlearn.MethodEntry, dict[str, Any]]:
    """Returns a method's registry entry and its hyperparameters without a sweep."""
    entry = unlearn.lookup(method)
    values = unlearn.hyperparameters(entry, settings.unlearn.dataset or settings.data.name)
    if "compat" in values and settings.compat.unlearn == "faithful":
        values["compat"] = "faithful"
    if CONFORMAL in wrappers.split(method)[1]:
        values |= _conformal_hyperparameters(settings)
    for option in settings.unlearn.options:
        target, name, text = _parse_option(option)
        if target == method or (target in _option_targets(method) or not target) and name in values:
            values[name] = registry.parse_hyperparameter(entry, name, text)
    return entry, values


def _option_targets(method: str) -> tuple[str, ...]:
    """Returns further names whose options apply to a method: its name without @mid, and the plain method that it wraps.

    The latter not where the wrapper replaces the method: an alpha for ssd does not apply to its intensified form.
    """
    base, chain = wrappers.split(method)
    full_method = method.removesuffix(wrappers.MID)
    build = wrappers.base_builder(unlearn.lookup(base).build)
    is_another = any(wrappers.replaces(wrapper, build) for wrapper in chain)
    return (full_method,) if is_another else (full_method, base)


def is_pairwise(settings: Settings) -> bool:
    """Returns whether the conformal loss has its published form."""
    return settings.unlearn.conformal.pairwise or settings.compat.unlearn == "faithful"


def default_lam(settings: Settings) -> float:
    """Returns the weight of the conformal loss where none is set."""
    return 0.5 if is_pairwise(settings) else 0.085


def _conformal_hyperparameters(settings: Settings) -> dict[str, Any]:
    """Returns the hyperparameters of the wrapper as set in unlearn.conformal."""
    options, pairwise = settings.unlearn.conformal, is_pairwise(settings)
    lam = options.lam[0] if options.lam else default_lam(settings)
    values = {"lam": lam, "delta": options.delta, "alpha": options.alpha, "pairwise": pairwise, "batch": options.batch,
             "calibration": options.calibration_rows, "eval_mode": settings.compat.unlearn == "faithful"}  # fmt: skip
    return {f"{CONFORMAL}_{name}": value for name, value in values.items()}


def check_options(settings: Settings) -> None:
    """Raises a ConfigError for an option that applies to no method."""
    methods = method_names(settings)
    for option in settings.unlearn.options:
        target, name, _ = _parse_option(option)
        if target:
            known_names = unlearn.hyperparameters(unlearn.lookup(target))
            if name not in known_names:
                raise errors.unknown(f"hyperparameter of {target}", name, known_names)
        elif not any(name in unlearn.hyperparameters(unlearn.lookup(method)) for method in methods):
            all_names = sorted({key for method in methods for key in unlearn.hyperparameters(unlearn.lookup(method))})
            raise errors.unknown("hyperparameter in unlearn.options", name, all_names)


def _parse_option(option: str) -> tuple[str, str, str]:
    """Returns (method or "", hyperparameter, text) of `ssd.alpha=5` or `epochs=3`.

    Raises:
      ConfigError: not of this form.
    """
    left, equals, text = option.partition("=")
    target, _, name = left.rpartition(".")
    if not equals or not name:
        raise errors.ConfigError(f"unlearn.options: {option!r} is not of the form ssd.alpha=5 or epochs=3.")
    return target, name, text


def hyperparameters(settings: Settings, method: str) -> dict[str, Any]:
    """Returns all hyperparameters of a method under these settings, without sweeps."""
    return _base_config(settings, method)[1]
