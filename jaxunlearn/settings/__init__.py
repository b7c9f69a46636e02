"""Settings: the one source of names, types, defaults, ranges and help texts.

    fields       the fields of dataclasses that declare settings
    training, unlearning, analyses, attacks    the groups of settings
    recipes      published recipes that experiments share
    renamed      former names of settings
    resolution   a config -> checked, frozen `Settings`

Other subpackages import from here; a new setting is one line in its group.
"""

from jaxunlearn.settings.analyses import AuditSettings, CompatSettings, EpsilonSettings, EvaluateSettings, StudySettings
from jaxunlearn.settings.attacks import ExtractSettings, LeaksSettings, ReminisceSettings
from jaxunlearn.settings.fields import CLASS_KINDS, MAX_EPOCHS, MAX_LEVELS
from jaxunlearn.settings.recipes import RECIPES
from jaxunlearn.settings.renamed import RENAMED, current_name
from jaxunlearn.settings.resolution import (
    Settings,
    build,
    cache_folder,
    defaults,
    field_names,
    resolve,
    to_dict,
    unknown_setting,
    variant,
)
from jaxunlearn.settings.training import (
    DataSettings,
    EngineSettings,
    ForgetSettings,
    ModelSettings,
    ShadowSettings,
    SplitSettings,
    TargetSettings,
    TrainSettings,
)
from jaxunlearn.settings.unlearning import ConformalSettings, SweepSettings, UnlearnSettings

__all__ = [
    "AuditSettings",
    "CLASS_KINDS",
    "CompatSettings",
    "ConformalSettings",
    "DataSettings",
    "EngineSettings",
    "EpsilonSettings",
    "EvaluateSettings",
    "ExtractSettings",
    "ForgetSettings",
    "LeaksSettings",
    "MAX_EPOCHS",
    "MAX_LEVELS",
    "ModelSettings",
    "RECIPES",
    "RENAMED",
    "ReminisceSettings",
    "Settings",
    "ShadowSettings",
    "SplitSettings",
    "StudySettings",
    "SweepSettings",
    "TargetSettings",
    "TrainSettings",
    "UnlearnSettings",
    "build",
    "cache_folder",
    "current_name",
    "defaults",
    "field_names",
    "resolve",
    "to_dict",
    "unknown_setting",
    "variant",
]
