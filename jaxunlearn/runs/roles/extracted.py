"""Clones as a role: extracted:ROLE holds a copy of every model of ROLE, made from its answers alone (DFME).

A clone has the run's own architecture; its numbers depend on (the answers of its model, settings.extract, seed).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import keys, models, population, records
from jaxunlearn.attacks import extraction
from jaxunlearn.attacks.extraction import options, victims
from jaxunlearn.models.architectures import generator
from jaxunlearn.runs import experiments, roles
from jaxunlearn.settings import to_dict

PREFIX = "extracted:"
STAGE_VERSION = 1


def check(experiment: experiments.Experiment) -> None:
    """Refuses an extraction that cannot be, before anything is trained.

    Raises:
      ConfigError: a budget below one iteration, or inputs that no generator makes.
    """
    chosen = experiment.settings.extract
    options.check(extraction.of_settings(chosen))
    generator.build(_shape(experiment), chosen.width)


def describe(experiment: experiments.Experiment, split: records.Split, victim: roles.RoleSpec) -> roles.RoleSpec:
    """The clones of the models of a role; nothing is read or stored.

    Args:
      experiment: of the run.
      split: of the run, whose population rows choose the epoch if extract.keep = best.
      victim: the role that is asked.
    """
    settings = experiment.settings
    chosen = extraction.of_settings(settings.extract)
    train = dataclasses.replace(
        settings.train, epochs=options.epochs(chosen), keep=settings.extract.keep, snapshots=()
    )  # fmt: skip
    task = _task(experiment, chosen)
    both = jax.tree.leaves(jax.eval_shape(task.init, keys.root(0)).params)  # clone and generator
    own = experiment._replace(
        settings=dataclasses.replace(settings, train=train), task=task,
        cost=experiment.cost._replace(parameters=sum(leaf.size for leaf in both)),
    )  # fmt: skip
    asked = {name: value for name, value in to_dict(settings.extract).items() if name != "roles"}
    return roles.RoleSpec(
        name=PREFIX + victim.name,
        experiment=own,
        membership=victim.membership,
        held_out=roles.mask(len(experiment.dataset.labels), split.population),
        rows=victim.rows,
        facts={"victim": victim.fingerprint, "seed": settings.seed, "extract": asked},
        version=STAGE_VERSION,
        run_stage=PREFIX + victim.name,
        steps=options.iterations(chosen),
    )


def is_one(spec: roles.RoleSpec) -> bool:
    """Whether the members of a role are clones."""
    return spec.name.startswith(PREFIX)


def _shape(experiment: experiments.Experiment) -> tuple[int, ...]:
    return tuple(experiment.dataset.inputs.shape[1:])


def to_inputs(experiment: experiments.Experiment) -> Callable[[jax.Array], jax.Array]:
    """Returns what turns values in (-1, 1) into network inputs, as extract.inputs says.

    The range of pictures is known to everyone, that of a feature (an age, a share) to whoever may ask for answers.
    """
    settings, inputs = experiment.settings, np.asarray(experiment.dataset.inputs)
    if settings.extract.inputs == "network":
        return lambda values: values
    prepare = _prepare(experiment)
    low, high = (0.0, experiment.dataset.scale) if inputs.ndim == 4 else (inputs.min(0), inputs.max(0))
    return lambda values: prepare(low + (values + 1) / 2 * (jnp.asarray(high) - low))


def _prepare(experiment: experiments.Experiment) -> Callable[[jax.Array], jax.Array]:
    settings = experiment.settings
    prepare = experiments.build_network(settings, experiment.dataset, experiment.mapping_policy.conv).prepare
    return lambda raw: prepare(raw, None, False)


def _task(experiment: experiments.Experiment, chosen: extraction.Options) -> population.Task:
    """One extraction; in float32 throughout, because the differences of answers are small."""
    settings, conv = experiment.settings, experiment.mapping_policy.conv
    network = models.build(settings.model, experiment.dataset.num_classes, conv=conv, dtype="float32")
    shape = _shape(experiment)
    return extraction.task(
        network, generator.build(shape, chosen.width, conv), victims.network(network), shape, chosen,
        to_inputs=to_inputs(experiment), prepare=_prepare(experiment),
    )  # fmt: skip
