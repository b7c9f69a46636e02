"""Unlearned roles: a method applied to the originals, one member per forget set (times the submodels of an ensemble).

A member's weights depend on (settings, method, hyperparameters, forget set).
"""

import contextlib
import dataclasses
import hashlib
import inspect
from typing import Any

import numpy as np

from jaxunlearn import checks, errors, records, unlearn
from jaxunlearn.runs import experiments, roles, splits
from jaxunlearn.runs.roles import audited_models, variants
from jaxunlearn.runs.roles.variants import MethodConfig, config_of_role
from jaxunlearn.unlearn import registry
from jaxunlearn.unlearn.base import entries
from jaxunlearn.unlearn.wrappers import wrappers

STAGE_VERSION = 2
SUBMODELS_SUFFIX = (
    ".parts"  # the models of an ensemble are a separate role; the role itself holds their joint predictions
)


def describe(experiment: experiments.Experiment, split: records.Split, variant: MethodConfig) -> roles.RoleSpec:
    """Describes the role of a variant as other stages see it, one member per forget set; stores nothing.

    Raises:
      ConfigError: invalid hyperparameters; a method for data of another kind.
    """
    check_kind(experiment, variant)
    method = build_method(variant)
    retrained = audited_models.describe(experiment, split, "retrained")
    epochs = max(1, sum(phase.epochs for phase in method.phases if phase.gradient_steps))
    train = dataclasses.replace(retrained.experiment.settings.train, epochs=epochs)
    role_experiment = retrained.experiment._replace(
        settings=dataclasses.replace(retrained.experiment.settings, train=train)
    )
    original = audited_models.describe(experiment, split, "original").fingerprint
    return retrained._replace(
        name=variant.role,
        experiment=role_experiment,
        facts=_facts(
            experiment, original, audited_models.original_of(experiment.settings, len(retrained.membership)), variant
        ),
        version=STAGE_VERSION,
        run_stage=variant.role,
        start=roles.Start("original", original),
        variant=variant,
        method=method,
    )


def describe_by_name(experiment: experiments.Experiment, split: records.Split, name: str) -> roles.RoleSpec:
    """Describes the role called `unlearned:METHOD`."""
    return describe(experiment, split, config_of_role(experiment.settings, name))


def mid_spec(experiment: experiments.Experiment, split: records.Split, spec: roles.RoleSpec) -> roles.RoleSpec:
    """Describes the role METHOD@mid: the intermediate models of a role's members."""
    assert spec.variant is not None
    return describe(experiment, split, variants.mid_config(experiment.settings, spec.variant))


def submodel_spec(spec: roles.RoleSpec) -> roles.RoleSpec:
    """Returns the role that is trained: for an ensemble, its submodels, set by set; otherwise the role itself."""
    assert spec.method is not None
    if spec.method.ensemble == 1:
        return spec
    return spec._replace(
        name=spec.name + SUBMODELS_SUFFIX, membership=np.repeat(spec.membership, spec.method.ensemble, 0)
    )


def _facts(
    experiment: experiments.Experiment, original_fingerprint: str, original_of: np.ndarray, variant: MethodConfig
) -> dict[str, Any]:
    """Returns everything that the weights of an unlearned role depend on.

    `original_of` holds the id of the original that each member starts from.
    """
    settings = experiment.settings
    # No fact for a single shared original: the fingerprint stays that of versions without this setting.
    originals_fact = {"targets.originals": settings.targets.originals} if original_of.any() else {}
    return {
        **originals_fact,
        "seed": settings.seed,
        "data": experiment.data_fingerprint,
        "split": splits.fingerprint(experiment),
        "original": original_fingerprint,
        "augment": {"kind": settings.data.augment, "pad": settings.data.pad} if settings.unlearn.augment else "none",
        "bn": settings.unlearn.bn,
        "batch": settings.train.batch,
        "dtype": settings.model.dtype,
        "method": variant.method,
        "hyperparameters": variant.hyperparameters,
        "source": _source_hash(variant),
    }


def check_kind(experiment: experiments.Experiment, variant: MethodConfig) -> None:
    """Raises a ConfigError for a method for texts on data with class labels, and vice versa."""
    entries.check_fits(variant.method, variant.entry, experiment.dataset.vocabulary)


def build_method(variant: MethodConfig) -> unlearn.Method:
    """Builds the method with its hyperparameters.

    Raises:
      ConfigError: the builder does not return a method.
    """
    with users_code(variant):
        try:
            return registry.bind_hyperparameters(variant.entry, variant.hyperparameters)({})
        except errors.ConfigError as error:
            raise errors.ConfigError(f"{variant.method}: {error}") from error


def users_code(variant: MethodConfig) -> contextlib.AbstractContextManager[None]:
    """Turns exceptions of a user's own method into one message that names the method."""
    build = None if registry.is_builtin(variant.method) else wrappers.base_builder(variant.entry.build)
    return checks.users_code(variant.method, build)


def _source_hash(variant: MethodConfig) -> str:
    """Returns a hash of the module of a user's method; "" for built-in ones, which have a stage version."""
    if registry.is_builtin(variant.method):
        return ""
    build = wrappers.base_builder(variant.entry.build)
    module = inspect.getmodule(build)
    try:
        text = inspect.getsource(module or build)
    except OSError:
        return ""
    return hashlib.blake2s(text.encode(), digest_size=8).hexdigest()
