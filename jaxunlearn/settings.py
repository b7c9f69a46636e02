"""Settings: the one source of names, types, defaults, ranges and help texts.

A config file starts from `defaults()`, a locked ConfigDict made from the frozen dataclasses of `sections.py`, and
changes what differs. `resolve(config)` turns it back into a frozen `Settings`, after checking every name, type and
range; what needs the data (sizes against rows, files that must exist) is checked where the data is known, still before
any training.
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
from jaxunlearn.attack_sections import ExtractSettings, LeaksSettings, ReminisceSettings
from jaxunlearn.sections import (
    CLASS_KINDS,
    AuditSettings,
    CompatSettings,
    ConformalSettings,
    DataSettings,
    EngineSettings,
    EpsilonSettings,
    EvaluateSettings,
    ForgetSettings,
    ModelSettings,
    ShadowSettings,
    SplitSettings,
    StudySettings,
    SweepSettings,
    TargetSettings,
    TrainSettings,
    UnlearnSettings,
    section,
)
from jaxunlearn.sections import field as setting

__all__ = [
    "CLASS_KINDS", "AuditSettings", "CompatSettings", "ConformalSettings", "DataSettings", "EngineSettings",
    "EpsilonSettings", "EvaluateSettings", "ExtractSettings", "ForgetSettings", "LeaksSettings", "ModelSettings",
    "ReminisceSettings", "Settings", "ShadowSettings", "SplitSettings", "StudySettings", "SweepSettings",
    "TargetSettings", "TrainSettings", "UnlearnSettings", "cache_folder", "defaults", "field_names", "resolve",
    "to_dict", "unknown_setting", "variant",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything one run depends on."""

    seed: int = setting(42, "the root of all random draws", low=0, high=2**32 - 1)
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
    """The user's cache folder of this package: `$XDG_CACHE_HOME/jaxunlearn`, else `~/.cache/jaxunlearn`."""
    home = os.path.expandvars(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return pathlib.Path(home).expanduser() / "jaxunlearn"


def to_dict(settings: Any) -> dict[str, Any]:
    """A settings dataclass as nested plain dicts; tuples stay tuples."""
    return {
        field.name: to_dict(value) if dataclasses.is_dataclass(value) else value
        for field in dataclasses.fields(settings)
        for value in [getattr(settings, field.name)]
    }


# Published recipes that several experiments share; sizes and counts are the experiment' own.
RECIPES: dict[str, dict[str, Any]] = {
    # Every smoke variant: as many ScoreUI trainings as it has shadows to start from.
    "smoke": {"targets.snapshots": 2, "targets.breaks": 4},
    # IAM, section on training: every image model; one original for all forget sets, as published.
    "iam_vision": {
        "targets.originals": "shared",
        "data.augment": "flip_crop",
        "split.forget.size": 500,
        "model.name": "resnet18",
        "train.learning_rate": 0.1,
        "train.epochs": 201,
        "train.schedule_epochs": 200,
        "train.batch": 128,
    },
    # Conformal unlearning: original model of every data set. Nothing there needs shadow models, which keep the fewest
    # rows possible, nor the models of other scores.
    "conformal": {
        "data.augment": "flip_crop_gray",
        "split.shadow": 2,
        "split.test": 8000,
        "split.population": 2000,
        "split.forget.count": 1,
        "model.name": "resnet18",
        "train.learning_rate": 0.1,
        "train.epochs": 200,
        "train.batch": 64,
        "shadows.count": 1,
        "targets.population_in": False,
        "targets.shadow_origin": False,
        "targets.snapshots": 0,
    },
    # Conformal unlearning as its scripts run it: their seed; training rows evaluated through the augmentation;
    # BatchNorm in training mode in the first epoch only, and never under the conformal loss; 128 rows per step of which
    # 13 are to be forgotten. Not reproduced: random labels and SalUn freeze the augmentation of their pictures there.
    "conformal_paper": {
        "seed": 10,
        "compat.records": "faithful",
        "compat.unlearn": "faithful",
        "compat.evaluate": "faithful",
        "evaluate.qhat": "own",
        "evaluate.miacr_attack": "svc",
        "evaluate.svc_rows": 0,
        "unlearn.bn": "first_epoch",
        "unlearn.conformal.batch": 13,
        "unlearn.conformal.calibration": 1000,
        "unlearn.options": (
            "retrain.epochs=200",
            "retrain.lr=0.01",
            *(f"{name}.{value}" for name in ("finetune", "random_label", "salun") for value in ("epochs=20", "lr=0.1")),
            *(f"{name}+conformal.batch=115" for name in ("retrain", "finetune", "random_label", "salun")),
        ),
    },
    # Unlearning-Leaks: networks as scikit-learn's MLPClassifier trains them.
    "leaks": {
        "model.name": "mlp",
        "model.hidden": (100,),
        "train.optimizer": "adam",
        "train.learning_rate": 0.01,
        "train.schedule": "constant",
        "train.weight_decay": 0.0,
    },
    # Over-Unlearning and Replay: pretraining on the classes that are left, one of which is forgotten. Nothing there
    # needs shadow models, nor the models of other scores.
    "over_unlearning": {
        "data.ood_classes": ("12", "16", "17", "18", "19"),
        "split.shadow": 2,
        "split.forget.kind": "one_class",
        "split.forget.classes": (4,),
        "split.forget.count": 1,
        "model.name": "resnet18",
        "train.learning_rate": 0.1,
        "train.schedule": "step",
        "train.milestones": (15, 30, 35),
        "train.decay": 0.2,
        "train.warmup_epochs": 1.0,
        "train.epochs": 40,
        "train.batch": 64,
        "train.keep": "best",
        "shadows.count": 1,
        "targets.population_in": False,
        "targets.shadow_origin": False,
        "targets.snapshots": 0,
    },
    # Forget with Precision, on data that is at hand everywhere: one forget set, many models of it, a token shadow
    # model. Nothing is augmented in the unlearning stages, as published.
    "forget_precision": {
        "data.name": "digits",
        "split.shadow": 2,
        "split.forget.count": 1,
        "split.forget.size": 50,
        "split.forget.repeats": 64,
        "model.name": "cnn_bn",
        "train.learning_rate": 0.05,
        "train.nesterov": True,
        "train.epochs": 20,
        "train.batch": 64,
        "shadows.count": 1,
        "study.kind": "epsilon",
        "targets.population_in": False,
        "targets.shadow_origin": False,
        "targets.snapshots": 0,
        "unlearn.augment": False,
        # Fine-tuning as the repairs of the other approaches: constant rate, Nesterov.
        "unlearn.options": ("finetune.schedule=constant", "finetune.nesterov=True"),
    },
    # Forget with Precision as published: its 1,000 rows of 50,000 (all but two of which are trained on), batch norm in
    # training mode while unlearning; its text augments the training of the models, its code does not.
    "forget_precision_cifar10": {
        "data.name": "cifar10",
        "data.augment": "autoaugment",
        "split.test": 9000,
        "split.forget.kind": "randperm",
        "split.forget.size": 1000,
        "split.forget.repeats": 80,
        "model.name": "resnet18",
        "train.learning_rate": 0.1,
        "train.epochs": 100,
        "train.schedule": "step",
        "train.milestones": (35, 70, 90),
        "train.batch": 128,
        "unlearn.bn": "faithful",
        "unlearn.options": (
            "finetune.lr=0.001",
            "finetune.schedule=constant",
            "finetune.nesterov=True",
            "finetune.batch=128",
        ),
    },
    # IAM: shadow models of Purchase and Texas; one original for all forget sets, as published.
    "iam_tabular": {
        "targets.originals": "shared",
        "split.forget.size": 500,
        "train.learning_rate": 0.01,
        "train.epochs": 201,
        "train.schedule_epochs": 200,
        "train.batch": 128,
    },
}


def defaults(recipe: str = "") -> ml_collections.ConfigDict:
    """The default settings, with a recipe of `RECIPES` if one is named, as a locked ConfigDict to start from."""
    config = ml_collections.ConfigDict(to_dict(Settings()))
    if recipe:
        checks.choice("recipe", recipe, RECIPES)
        config.update_from_flattened_dict(RECIPES[recipe])
    return config.lock()


def variant(config: ml_collections.ConfigDict, name: str, variants: dict[str, dict[str, Any]]) -> Any:
    """Applies a named variant to a config: `variants[name]` maps dotted names to values.

    `""` and `default` are the config as it stands. Raises a ConfigError for a name that no variant has.
    """
    if name in ("", "default"):
        return config
    if name not in variants:
        raise errors.unknown("variant", name, ["default", *variants])
    config.update_from_flattened_dict(variants[name])
    return config


def field_names(cls: Any = Settings, prefix: str = "") -> list[str]:
    """Every dotted setting name, in order of definition."""
    names = []
    for field in dataclasses.fields(cls):
        kind = typing.get_type_hints(cls)[field.name]
        if dataclasses.is_dataclass(kind):
            names += field_names(kind, f"{prefix}{field.name}.")
        else:
            names.append(prefix + field.name)
    return names


def resolve(config: Any) -> Settings:
    """A checked, frozen `Settings` from a ConfigDict or nested dict.

    Raises:
      ConfigError: unknown name (with the nearest one), wrong type, or a value out of range.
    """
    if isinstance(config, ml_collections.ConfigDict):
        config = config.copy_and_resolve_references().to_dict()
    settings = _build(Settings, config, "")
    settings = _completed(settings)
    _check_together(settings)
    return settings


def _completed(settings: Settings) -> Settings:
    """The settings with values that depend on others filled in."""
    evaluate = settings.evaluate
    if evaluate.headline == 0 and evaluate.alphas:
        headline = 0.1 if 0.1 in evaluate.alphas else evaluate.alphas[0]
        return dataclasses.replace(settings, evaluate=dataclasses.replace(evaluate, headline=headline))
    return settings


def _build(cls: type, values: Any, prefix: str) -> Any:
    if not isinstance(values, dict):
        raise errors.ConfigError(f"{prefix.rstrip('.') or 'the config'} must be a group of settings, not {values!r}.")
    known = {field.name: field for field in dataclasses.fields(cls)}
    kinds = typing.get_type_hints(cls)
    for name in values:
        if name not in known:
            raise unknown_setting(prefix + str(name))
    built = {}
    for name, field in known.items():
        if name not in values:
            continue
        full = prefix + name
        if dataclasses.is_dataclass(kinds[name]):
            built[name] = _build(kinds[name], values[name], full + ".")
        else:
            built[name] = _convert(full, values[name], kinds[name])
            _check_range(full, built[name], field.metadata)
    return cls(**built)


def unknown_setting(name: str) -> errors.ConfigError:
    """The error for a setting that does not exist, with the nearest dotted name that does."""
    known = field_names()
    # A right leaf in the wrong group is the most frequent slip, so leaves count before whole names.
    same_leaf = [other for other in known if other.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    close = same_leaf[:1] or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return errors.ConfigError(f"unknown setting {name!r}.{hint} --print_config shows all of them.")


def _convert(name: str, value: Any, kind: Any, is_item: bool = False) -> Any:
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        values = value if isinstance(value, (tuple, list)) else (value,)
        return tuple(_convert(name, one, item, is_item=True) for one in values)
    if isinstance(kind, types.UnionType):
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    if is_item and kind is str and type(value) is int:  # names=12,16 on a command line are numbers
        value = str(value)
    whole = isinstance(value, float) and value.is_integer() and kind is int
    fits = isinstance(value, kind) or (kind is float and isinstance(value, int)) or whole
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise errors.ConfigError(f"{name} = {value!r}: expected {kind.__name__}, got {type(value).__name__}.")
    return kind(value)


def _check_range(name: str, value: Any, metadata: Any) -> None:
    for one in value if isinstance(value, tuple) else (value,):
        if metadata["choices"]:
            checks.choice(name, one, metadata["choices"])
        elif isinstance(one, (int, float)) and not isinstance(one, bool):
            checks.in_range(name, one, metadata["low"], metadata["high"])


def _check_together(settings: Settings) -> None:
    train, shadows = settings.train, settings.shadows
    if shadows.ratio == 0.0:
        raise errors.ConfigError("shadows.ratio = 0.0: a shadow model must train on something; give more than 0.")
    late = [epoch for epoch in train.snapshots if not 1 <= epoch <= train.epochs]
    if late:
        raise errors.ConfigError(
            f"train.snapshots holds epoch {late[0]}, but training has epochs 1 to {train.epochs} (train.epochs)."
        )
    if train.schedule == "step" and not train.milestones:
        raise errors.ConfigError("train.schedule = 'step' needs train.milestones, e.g. (60, 120, 160).")
    if settings.evaluate.headline not in settings.evaluate.alphas:
        raise errors.ConfigError(
            f"evaluate.headline = {settings.evaluate.headline} is none of evaluate.alphas {settings.evaluate.alphas}."
        )
    if settings.epsilon.bootstrap == 1:
        raise errors.ConfigError("epsilon.bootstrap = 1: one resample makes no interval; give 0, or some hundred.")
    if settings.split.forget.kind == "index_file" and not settings.split.forget.path:
        raise errors.ConfigError("split.forget.kind = 'index_file' needs split.forget.path.")
