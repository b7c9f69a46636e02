"""Converts a config to checked settings, and back.

A config file starts from `defaults()`, a locked ConfigDict made from the frozen dataclasses of this folder, and
changes some values. `resolve(config)` converts it to a frozen `Settings` and checks every name, type and range; what
depends on the data (sizes, existing files) is checked once the data is known, before any training.
"""

import dataclasses
import difflib
import os
import pathlib
import types
import typing
from typing import Any

import ml_collections

from jaxunlearn import checks, errors
from jaxunlearn.settings.analyses import AuditSettings, CompatSettings, EpsilonSettings, EvaluateSettings, StudySettings
from jaxunlearn.settings.attacks import ExtractSettings, LeaksSettings, ReminisceSettings
from jaxunlearn.settings.fields import field as setting
from jaxunlearn.settings.fields import section
from jaxunlearn.settings.recipes import RECIPES
from jaxunlearn.settings.renamed import RENAMED
from jaxunlearn.settings.training import (
    DataSettings,
    EngineSettings,
    ModelSettings,
    ShadowSettings,
    SplitSettings,
    TargetSettings,
    TrainSettings,
)
from jaxunlearn.settings.unlearning import UnlearnSettings


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of a run."""

    seed: int = setting(42, "seed of all random draws", low=0, high=2**32 - 1)
    data: DataSettings = section(DataSettings)
    split: SplitSettings = section(SplitSettings)
    model: ModelSettings = section(ModelSettings)
    train: TrainSettings = section(TrainSettings)
    shadows: ShadowSettings = section(ShadowSettings)
    targets: TargetSettings = section(TargetSettings)
    unlearn: UnlearnSettings = section(UnlearnSettings)
    audit: AuditSettings = section(AuditSettings)
    evaluate: EvaluateSettings = section(EvaluateSettings)
    epsilon: EpsilonSettings = section(EpsilonSettings)
    leaks: LeaksSettings = section(LeaksSettings)
    extract: ExtractSettings = section(ExtractSettings)
    reminisce: ReminisceSettings = section(ReminisceSettings)
    study: StudySettings = section(StudySettings)
    engine: EngineSettings = section(EngineSettings)
    compat: CompatSettings = section(CompatSettings)


def cache_folder() -> pathlib.Path:
    """Returns the package's cache folder: `$XDG_CACHE_HOME/jaxunlearn`, else `~/.cache/jaxunlearn`.

    Example:
      >>> from jaxunlearn import settings
      >>> settings.cache_folder().name
      'jaxunlearn'
    """
    home = os.path.expandvars(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return pathlib.Path(home).expanduser() / "jaxunlearn"


def to_dict(settings: Any) -> dict[str, Any]:
    """Converts a settings dataclass to nested dicts; tuples stay tuples.

    Example:
      >>> from jaxunlearn import settings
      >>> settings.to_dict(settings.Settings().split)["forget"]["kind"]
      'set_random'
    """
    return {
        field.name: to_dict(value) if dataclasses.is_dataclass(value) else value
        for field in dataclasses.fields(settings)
        for value in [getattr(settings, field.name)]
    }


def defaults(recipe: str = "") -> ml_collections.ConfigDict:
    """Returns the default settings as a locked ConfigDict, with a recipe of `RECIPES` applied if one is named.

    Example:
      >>> from jaxunlearn import settings
      >>> config = settings.defaults("iam_vision")
      >>> config.model.name, config.train.epochs
      ('resnet18', 201)
    """
    config = ml_collections.ConfigDict(to_dict(Settings()))
    if recipe:
        checks.choice("recipe", recipe, RECIPES)
        config.update_from_flattened_dict(RECIPES[recipe])
    return config.lock()


def variant(config: ml_collections.ConfigDict, name: str, variants: dict[str, dict[str, Any]]) -> Any:
    """Applies a named variant to a config: `variants[name]` maps dotted names to values.

    `""` and `default` leave the config unchanged.

    Raises:
      ConfigError: unknown variant.

    Example:
      >>> from jaxunlearn import settings
      >>> config = settings.variant(settings.defaults(), "smoke", {"smoke": {"shadows.count": 4}})
      >>> config.shadows.count
      4
    """
    if name in ("", "default"):
        return config
    if name not in variants:
        raise errors.unknown("variant", name, ["default", *variants])
    config.update_from_flattened_dict(variants[name])
    return config


def field_names(cls: Any = Settings, prefix: str = "") -> list[str]:
    """Returns every dotted setting name, in order of definition.

    Example:
      >>> from jaxunlearn import settings
      >>> settings.field_names()[:2]
      ['seed', 'data.name']
    """
    names = []
    for field in dataclasses.fields(cls):
        kind = typing.get_type_hints(cls)[field.name]
        if dataclasses.is_dataclass(kind):
            names += field_names(kind, f"{prefix}{field.name}.")
        else:
            names.append(prefix + field.name)
    return names


def resolve(config: Any) -> Settings:
    """Converts a ConfigDict or nested dict to a checked, frozen `Settings`; missing settings get their defaults.

    Raises:
      ConfigError: unknown name (with the nearest one), wrong type, or a value out of range.

    Example:
      >>> from jaxunlearn import settings
      >>> settings.resolve({"train": {"epochs": 3}}).train.epochs
      3
    """
    if isinstance(config, ml_collections.ConfigDict):
        config = config.copy_and_resolve_references().to_dict()
    settings = _build(Settings, config, "")
    settings = _fill_in(settings)
    _check_together(settings)
    return settings


def build(cls: type, values: dict[str, Any]) -> Any:
    """Returns one checked group of settings, such as `TrainSettings`, from values by name.

    Messages name settings without their group, as arguments of a function are.

    Args:
      cls: the group.
      values: by name; missing ones get their defaults.

    Raises:
      ConfigError: unknown name, wrong type, or a value out of range.

    Example:
      >>> from jaxunlearn import settings
      >>> settings.build(settings.TrainSettings, {"epochs": 3}).epochs
      3
    """
    group = _build(cls, values, "")
    if isinstance(group, TrainSettings):
        _check_training(group, "")
    return group


def _fill_in(settings: Settings) -> Settings:
    """Completes the values that depend on other settings."""
    evaluate = settings.evaluate
    if evaluate.report_alpha == 0 and evaluate.alphas:
        report_alpha = 0.1 if 0.1 in evaluate.alphas else evaluate.alphas[0]
        return dataclasses.replace(settings, evaluate=dataclasses.replace(evaluate, report_alpha=report_alpha))
    return settings


def _build(cls: type, values: Any, prefix: str) -> Any:
    if not isinstance(values, dict):
        raise errors.ConfigError(f"{prefix.rstrip('.') or 'the config'} must be a group of settings, not {values!r}.")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    kinds = typing.get_type_hints(cls)
    for name in values:
        if name not in fields:
            raise unknown_setting(prefix + str(name))
    arguments = {}
    for name, field in fields.items():
        if name not in values:
            continue
        full_name = prefix + name
        if dataclasses.is_dataclass(kinds[name]):
            arguments[name] = _build(kinds[name], values[name], full_name + ".")
        else:
            arguments[name] = _convert(full_name, values[name], kinds[name])
            _check_range(full_name, arguments[name], field.metadata)
    return cls(**arguments)


def unknown_setting(name: str) -> errors.ConfigError:
    """Returns the error for an unknown setting: with the current name of a renamed one, else with the nearest name.

    Example:
      >>> from jaxunlearn import settings
      >>> print(settings.unknown_setting("audit.level"))
      the setting audit.level is now called audit.fdr.
    """
    if name in RENAMED:
        return errors.ConfigError(f"the setting {name} is now called {RENAMED[name]}.")
    names = field_names()
    # The right name in the wrong group is the most frequent mistake, so it is tried before similar names.
    same_leaf = [other for other in names if other.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    matches = same_leaf[:1] or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {matches[0]!r}?" if matches else ""
    return errors.ConfigError(f"unknown setting {name!r}.{hint} --print_config shows all of them.")


def _convert(name: str, value: Any, kind: Any, is_item: bool = False) -> Any:
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numbers and arrays of NumPy and JAX
        value = value.tolist()
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        values = value if isinstance(value, (tuple, list)) else (value,)
        return tuple(_convert(name, entry, item, is_item=True) for entry in values)
    if isinstance(kind, types.UnionType):
        kind = next(option for option in typing.get_args(kind) if option is not type(None))
    if is_item and kind is str and type(value) is int:  # names=12,16 on a command line are parsed as numbers
        value = str(value)
    is_whole = isinstance(value, float) and value.is_integer() and kind is int
    fits = isinstance(value, kind) or (kind is float and isinstance(value, int)) or is_whole
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise errors.ConfigError(f"{name} = {value!r}: expected {kind.__name__}, got {type(value).__name__}.")
    return kind(value)


def _check_range(name: str, value: Any, metadata: Any) -> None:
    for item in value if isinstance(value, tuple) else (value,):
        if metadata["choices"]:
            checks.choice(name, item, metadata["choices"])
        elif isinstance(item, (int, float)) and not isinstance(item, bool):
            checks.in_range(name, item, metadata["low"], metadata["high"])


def _check_together(settings: Settings) -> None:
    if settings.shadows.ratio == 0.0:
        raise errors.ConfigError("shadows.ratio = 0.0: a shadow model must train on something; give more than 0.")
    _check_training(settings.train, "train.")
    if settings.evaluate.report_alpha not in settings.evaluate.alphas:
        raise errors.ConfigError(
            f"evaluate.report_alpha = {settings.evaluate.report_alpha} is not one of evaluate.alphas "
            f"{settings.evaluate.alphas}."
        )
    if settings.epsilon.bootstrap == 1:
        raise errors.ConfigError("epsilon.bootstrap = 1: one resample gives no interval; give 0, or several hundred.")
    if settings.split.forget.kind == "index_file" and not settings.split.forget.path:
        raise errors.ConfigError("split.forget.kind = 'index_file' needs split.forget.path.")


def _check_training(train: TrainSettings, prefix: str) -> None:
    late_epochs = [epoch for epoch in train.snapshots if not 1 <= epoch <= train.epochs]
    if late_epochs:
        raise errors.ConfigError(
            f"{prefix}snapshots contains epoch {late_epochs[0]}, but training has epochs 1 to {train.epochs} "
            f"({prefix}epochs)."
        )
    if train.schedule == "step" and not train.milestones:
        raise errors.ConfigError(f"{prefix}schedule = 'step' needs {prefix}milestones, e.g. (60, 120, 160).")
