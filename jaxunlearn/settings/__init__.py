"""Settings: the one source of names, types, defaults, ranges and help texts.

    fields       what a setting is
    training, unlearning, analyses, attacks    the groups of settings
    recipes      published ones that experiments share
    renamed      names of earlier versions
    resolution   a config -> checked, frozen `Settings`

Other rooms import from here; a new setting is one line in its group.
"""

from jaxunlearn.settings.analyses import AuditSettings, CompatSettings, EpsilonSettings, EvaluateSettings, StudySettings
from jaxunlearn.settings.attacks import ExtractSettings, LeaksSettings, ReminisceSettings
from jaxunlearn.settings.fields import CLASS_KINDS, MAX_EPOCHS, MAX_LEVELS
from jaxunlearn.settings.recipes import RECIPES
from jaxunlearn.settings.renamed import RENAMED, renamed
from jaxunlearn.settings.resolution import (
    Settings,
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
    "CLASS_KINDS", "MAX_EPOCHS", "MAX_LEVELS", "RECIPES", "RENAMED", "AuditSettings", "CompatSettings",
    "ConformalSettings",
    "DataSettings", "EngineSettings", "EpsilonSettings", "EvaluateSettings", "ExtractSettings", "ForgetSettings",
    "LeaksSettings", "ModelSettings", "ReminisceSettings", "Settings", "ShadowSettings", "SplitSettings",
    "StudySettings", "SweepSettings", "TargetSettings", "TrainSettings", "UnlearnSettings", "cache_folder", "defaults",
    "field_names", "renamed", "resolve", "to_dict", "unknown_setting", "variant",
]  # fmt: skip
