"""The models of Unlearning-Leaks as one role: originals and unlearned models of all sets, sides and repeats.

    repeat by repeat, shadow before target side: originals (all shards of set 0, of set 1 ...), then unlearned models
    (all deletions of set 0, of set 1 ...)

Every unlearned model is trained from scratch on its set (or shard) without the deleted records, so that all of them
are one population over one data set. Networks are trained by the engine like those of other roles; exact logistic
regression is a task of the engine too; trees and forests are fitted on the host (`execution.host`).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import errors, models, population
from jaxunlearn.analyses.leaks import inputs
from jaxunlearn.attacks.leaks import host_models, logistic, plan
from jaxunlearn.runs import experiments, roles
from jaxunlearn.settings import Settings, to_dict

NAME = "leaks"
STAGE_VERSION = 1
OF_MODELS = ("model", "sets", "set_size", "deletions", "group", "unlearning", "shards", "update", "coupling", "rows")
OF_PRIVACY = ("noise", "clip")


class LeakRole(NamedTuple):
    """The role and its plan, in rows of the data set: [repeats] of (shadow, target)."""

    spec: roles.RoleSpec
    plans: tuple[tuple[plan.SidePlan, plan.SidePlan], ...]


def narrow(settings: Settings) -> Settings:
    """Returns the settings restricted to what these models need."""
    targets = dataclasses.replace(settings.targets, population_in=False, shadow_origin=False, reference=0, snapshots=0)
    train, model = settings.train, settings.model
    if settings.leaks.model != "network":  # model.* and train.* play no part
        model = dataclasses.replace(model, name="logistic", hidden=(), width=0)
        train = dataclasses.replace(train, epochs=1, batch=1, schedule="constant", keep="last", snapshots=())
    return dataclasses.replace(settings, targets=targets, train=train, model=model)


def describe(experiment: experiments.Experiment) -> LeakRole:
    """Describes the models of these settings; reads and stores nothing.

    Raises:
      ConfigError: sizes that exceed the data.
    """
    settings, dataset = experiment.settings, experiment.dataset
    sizes = inputs.sizes_of(settings)
    plans = inputs.plans_of(settings, np.asarray(dataset.ids), dataset.num_train)
    tables, sources, count = [], [], 0
    for side in (side for sides in plans for side in sides):
        side_membership, side_sources = plan.membership(side, sizes.shards, len(dataset.labels))
        tables.append(side_membership)
        sources.append(side_sources + count)
        count += len(side_membership)
    membership = np.concatenate(tables)
    spec = roles.RoleSpec(
        name=NAME,
        experiment=_model_experiment(experiment, int(membership.sum(1).max())),
        membership=membership,
        held_out=_held_out(membership),
        rows=plan.evaluated_rows([side for sides in plans for side in sides]).astype(np.int32),
        facts=_facts(experiment),
        version=STAGE_VERSION,
        run_stage=NAME,
        coupling=np.concatenate(sources) if settings.leaks.coupling == "shared" else None,
    )
    return LeakRole(spec, plans)


def _model_experiment(experiment: experiments.Experiment, batch: int) -> experiments.Experiment:
    """Returns the experiment with the task of these models; for networks, the usual one."""
    settings, dataset = experiment.settings, experiment.dataset
    options = settings.leaks
    if options.private:
        network = experiments.build_network(settings, dataset, experiment.mapping_policy.conv)
        evaluator = models.build(
            settings.model, dataset.num_classes, conv=experiment.mapping_policy.conv, dtype="float32"
        )
        return experiment._replace(
            task=population.private(
                network.module, evaluator, network.prepare, settings.train, network.example, options.clip, options.noise
            )
        )
    if options.model != "lr":
        return experiment
    example = jax.ShapeDtypeStruct(tuple(dataset.inputs.shape[1:]), jnp.dtype(dataset.inputs.dtype))
    # One step on all records of the member is the whole training.
    train = dataclasses.replace(settings.train, batch=batch)
    return experiment._replace(
        settings=dataclasses.replace(settings, train=train), task=logistic.task(dataset.num_classes, example)
    )


def _held_out(membership: np.ndarray) -> np.ndarray:
    """Returns [N] bool: rows on which train.keep=best chooses the epoch: those that no model of the run trains on."""
    return np.asarray(~membership.any(0))


def _facts(experiment: experiments.Experiment) -> dict[str, Any]:
    """Returns everything that the weights of a member depend on: neither the attack nor the number of repeats."""
    settings, dataset = experiment.settings, experiment.dataset
    options = {name: value for name, value in to_dict(settings.leaks).items() if name in OF_MODELS}
    facts: dict[str, Any] = {"seed": settings.seed, "data": experiment.data_fingerprint,
                             "classes": dataset.num_classes, "leaks": options}  # fmt: skip
    if settings.leaks.private:
        facts["private"] = {name: value for name, value in to_dict(settings.leaks).items() if name in OF_PRIVACY}
    if settings.leaks.model == "network":
        facts |= {"model": to_dict(settings.model), "train": roles.recipe_facts(settings.train),
                  "augment": {"kind": settings.data.augment, "pad": settings.data.pad}}  # fmt: skip
    return facts


def check(settings: Settings) -> None:
    """Raises a ConfigError for settings that contradict each other.

    Raises:
      ConfigError: DP-SGD for models that are not networks, or for networks that share their noise.
    """
    options = settings.leaks
    if options.private and options.model != "network":
        raise errors.ConfigError(
            f"leaks.private trains networks by DP-SGD, but leaks.model = {options.model!r}. Set --model=network."
        )
    if options.private and options.coupling == "shared":
        raise errors.ConfigError(
            "leaks.private and leaks.coupling = 'shared': models that share their noise are not private together. Set "
            "--coupling=independent."
        )


def max_steps(role: LeakRole) -> int:
    """Returns the number of steps of the model with the most steps."""
    train = role.spec.experiment.settings.train
    return -(-int(role.spec.membership.sum(1).max()) // train.batch) * train.epochs


def is_fitted_on_host(settings: Settings) -> bool:
    """Returns whether the models are fitted by scikit-learn."""
    return settings.leaks.model in host_models.FAMILIES
