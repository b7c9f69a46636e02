"""The models of Unlearning-Leaks as one role: originals and unlearned models of all sets, sides and repeats.

    repeat by repeat, shadow before target side: originals (all shards of set 0, of set 1 ...), then unlearned models
    (all deletions of set 0, of set 1 ...)

Every unlearned model is trained from scratch on its set (or shard) without the deleted records, so that all of them
are one population over one data set. A network is trained by the engine as everyone's; exact logistic regression is a
task of the engine too; trees and forests are fitted on the host (`execution.host`).
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
    """The role, and the plan behind it in places of the data set: [repeats] of (shadow, target)."""

    spec: roles.RoleSpec
    plans: tuple[tuple[plan.SidePlan, plan.SidePlan], ...]


def narrow(settings: Settings) -> Settings:
    """The settings with only what these models need."""
    targets = dataclasses.replace(settings.targets, population_in=False, shadow_origin=False, reference=0, snapshots=0)
    train, model = settings.train, settings.model
    if settings.leaks.model != "network":  # model.* and train.* play no part
        model = dataclasses.replace(model, name="logistic", hidden=(), width=0)
        train = dataclasses.replace(train, epochs=1, batch=1, schedule="constant", keep="last", snapshots=())
    return dataclasses.replace(settings, targets=targets, train=train, model=model)


def describe(experiment: experiments.Experiment) -> LeakRole:
    """The models of these settings; nothing is read or stored.

    Raises:
      ConfigError: sizes that the data do not have.
    """
    settings, dataset = experiment.settings, experiment.dataset
    sizes = inputs.sizes_of(settings)
    plans = inputs.plans_of(settings, np.asarray(dataset.ids), dataset.num_train)
    tables, sources, count = [], [], 0
    for side in (side for both in plans for side in both):
        member, source = plan.membership(side, sizes.shards, len(dataset.labels))
        tables.append(member)
        sources.append(source + count)
        count += len(member)
    membership = np.concatenate(tables)
    spec = roles.RoleSpec(
        name=NAME,
        experiment=_own(experiment, int(membership.sum(1).max())),
        membership=membership,
        held_out=_held_out(membership),
        rows=plan.evaluated_rows([side for both in plans for side in both]).astype(np.int32),
        facts=_facts(experiment),
        version=STAGE_VERSION,
        run_stage=NAME,
        coupling=np.concatenate(sources) if settings.leaks.coupling == "shared" else None,
    )
    return LeakRole(spec, plans)


def _own(experiment: experiments.Experiment, most: int) -> experiments.Experiment:
    """The experiment with the task of these models: of a network the usual one."""
    settings, dataset = experiment.settings, experiment.dataset
    chosen = settings.leaks
    if chosen.private:
        network = experiments.build_network(settings, dataset, experiment.mapping_policy.conv)
        evaluator = models.build(
            settings.model, dataset.num_classes, conv=experiment.mapping_policy.conv, dtype="float32"
        )
        return experiment._replace(
            task=population.private(
                network.module, evaluator, network.prepare, settings.train, network.example, chosen.clip, chosen.noise
            )
        )
    if chosen.model != "lr":
        return experiment
    example = jax.ShapeDtypeStruct(tuple(dataset.inputs.shape[1:]), jnp.dtype(dataset.inputs.dtype))
    # One step on all records of the member is the whole training.
    train = dataclasses.replace(settings.train, batch=most)
    return experiment._replace(
        settings=dataclasses.replace(settings, train=train), task=logistic.task(dataset.num_classes, example)
    )


def _held_out(membership: np.ndarray) -> np.ndarray:
    """[N] bool rows on which the best epoch is chosen (train.keep=best): those that no model of the run trains on."""
    return np.asarray(~membership.any(0))


def _facts(experiment: experiments.Experiment) -> dict[str, Any]:
    """Everything that decides about the numbers of a member; not who is attacked, nor how many repeats there are."""
    settings, dataset = experiment.settings, experiment.dataset
    chosen = {name: value for name, value in to_dict(settings.leaks).items() if name in OF_MODELS}
    found: dict[str, Any] = {"seed": settings.seed, "data": experiment.data_fingerprint,
                             "classes": dataset.num_classes, "leaks": chosen}  # fmt: skip
    if settings.leaks.private:
        found["private"] = {name: value for name, value in to_dict(settings.leaks).items() if name in OF_PRIVACY}
    if settings.leaks.model == "network":
        found |= {"model": to_dict(settings.model), "train": roles.recipe_facts(settings.train),
                  "augment": {"kind": settings.data.augment, "pad": settings.data.pad}}  # fmt: skip
    return found


def check(settings: Settings) -> None:
    """Refuses settings that contradict each other.

    Raises:
      ConfigError: privacy of models that are no networks, or of networks that share their noise.
    """
    chosen = settings.leaks
    if chosen.private and chosen.model != "network":
        raise errors.ConfigError(
            f"leaks.private trains networks by DP-SGD, but leaks.model = {chosen.model!r}. Set --model=network."
        )
    if chosen.private and chosen.coupling == "shared":
        raise errors.ConfigError(
            "leaks.private and leaks.coupling = 'shared': models that share their noise are not private together. Set "
            "--coupling=independent."
        )


def steps(role: LeakRole) -> int:
    """Steps of the model that takes the most."""
    train = role.spec.experiment.settings.train
    return -(-int(role.spec.membership.sum(1).max()) // train.batch) * train.epochs


def is_fitted_on_host(settings: Settings) -> bool:
    """Whether the models are scikit-learn's."""
    return settings.leaks.model in host_models.FAMILIES
