"""Unlearned roles: what a method makes of the originals, one member per forget set (times the parts of an ensemble).

A member's numbers depend on (settings, method, hyperparameters, forget set).
"""

import contextlib
import dataclasses
import hashlib
import inspect
from typing import Any

import numpy as np

from jaxunlearn import checks, errors, records, unlearn
from jaxunlearn.runs import experiments, roles, splits
from jaxunlearn.runs.roles import audited, variants
from jaxunlearn.runs.roles.variants import MethodConfig, of_role
from jaxunlearn.unlearn import registry
from jaxunlearn.unlearn.base import entries
from jaxunlearn.unlearn.wrappers import wrappers

STAGE_VERSION = 2
PARTS = ".parts"  # the models of an ensemble are a role of their own; the role itself holds their joint answers


def describe(experiment: experiments.Experiment, split: records.Split, variant: MethodConfig) -> roles.RoleSpec:
    """The role of a variant as others see it, one member per forget set; nothing is stored.

    Raises:
      ConfigError: hyperparameters that do not build; a method for data of another kind.
    """
    check_kind(experiment, variant)
    method = built(variant)
    exact = audited.describe(experiment, split, "retrained")
    epochs = max(1, sum(phase.epochs for phase in method.phases if phase.gradient_steps))
    train = dataclasses.replace(exact.experiment.settings.train, epochs=epochs)
    own = exact.experiment._replace(settings=dataclasses.replace(exact.experiment.settings, train=train))
    original = audited.describe(experiment, split, "original").fingerprint
    return exact._replace(
        name=variant.role,
        experiment=own,
        facts=_facts(experiment, original, audited.original_of(experiment.settings, len(exact.membership)), variant),
        version=STAGE_VERSION,
        run_stage=variant.role,
        start=roles.Start("original", original),
        variant=variant,
        method=method,
    )


def of_name(experiment: experiments.Experiment, split: records.Split, name: str) -> roles.RoleSpec:
    """The role called `unlearned:METHOD`, as `describe` gives it."""
    return describe(experiment, split, of_role(experiment.settings, name))


def mid_of(experiment: experiments.Experiment, split: records.Split, spec: roles.RoleSpec) -> roles.RoleSpec:
    """The role METHOD@mid of the models that the members of a role are half way."""
    assert spec.variant is not None
    return describe(experiment, split, variants.mid_of(experiment.settings, spec.variant))


def parts(spec: roles.RoleSpec) -> roles.RoleSpec:
    """The role that is trained: of an ensemble its parts, set by set; else the role itself."""
    assert spec.method is not None
    if spec.method.ensemble == 1:
        return spec
    return spec._replace(name=spec.name + PARTS, membership=np.repeat(spec.membership, spec.method.ensemble, 0))


def _facts(
    experiment: experiments.Experiment, original: str, original_of: np.ndarray, variant: MethodConfig
) -> dict[str, Any]:
    """What decides about the numbers of an unlearned role; `original_of`: which original every member starts from."""
    settings = experiment.settings
    # One original for all members, whatever it is called, has no fact: so it was before there was a choice.
    started = {"targets.originals": settings.targets.originals} if original_of.any() else {}
    return {
        **started,
        "seed": settings.seed,
        "data": experiment.data_fingerprint,
        "split": splits.fingerprint(experiment),
        "original": original,
        "augment": {"kind": settings.data.augment, "pad": settings.data.pad} if settings.unlearn.augment else "none",
        "bn": settings.unlearn.bn,
        "batch": settings.train.batch,
        "dtype": settings.model.dtype,
        "method": variant.method,
        "hyperparameters": variant.hyperparameters,
        "source": _source(variant),
    }


def check_kind(experiment: experiments.Experiment, variant: MethodConfig) -> None:
    """Raises a ConfigError for a method for texts where these have class labels, and the other way round."""
    entries.check_fits(variant.method, variant.entry, experiment.dataset.vocabulary)


def built(variant: MethodConfig) -> unlearn.Method:
    """The method with its hyperparameters.

    Raises:
      ConfigError: a builder that returns no method.
    """
    with users_code(variant):
        try:
            return registry.bind_hyperparameters(variant.entry, variant.hyperparameters)({})
        except errors.ConfigError as error:
            raise errors.ConfigError(f"{variant.method}: {error}") from error


def users_code(variant: MethodConfig) -> contextlib.AbstractContextManager[None]:
    """Turns whatever a user's own method raises into one message that names it."""
    build = None if registry.is_builtin(variant.method) else wrappers.innermost(variant.entry.build)
    return checks.users_code(variant.method, build)


def _source(variant: MethodConfig) -> str:
    """A user's method is what its module says; ours has a stage version."""
    if registry.is_builtin(variant.method):
        return ""
    build = wrappers.innermost(variant.entry.build)
    module = inspect.getmodule(build)
    try:
        text = inspect.getsource(module or build)
    except OSError:
        return ""
    return hashlib.blake2s(text.encode(), digest_size=8).hexdigest()
