"""Clones as a role: extracted:ROLE holds a copy of every model of ROLE, trained on its posteriors alone (DFME).

A clone has the architecture of the run; its weights depend on (the posteriors of its model, settings.extract, seed).
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
    """Raises a ConfigError for an impossible extraction, before anything is trained.

    Raises:
      ConfigError: a budget below one iteration, or inputs that no generator produces.
    """
    settings = experiment.settings.extract
    options.check(extraction.of_settings(settings))
    generator.build(_shape(experiment), settings.width)


def describe(experiment: experiments.Experiment, split: records.Split, victim: roles.RoleSpec) -> roles.RoleSpec:
    """Describes the clones of the models of a role; reads and stores nothing.

    Args:
      experiment: of the run.
      split: of the run; its population rows choose the epoch if extract.keep = best.
      victim: the role whose models are queried.
    """
    settings = experiment.settings
    extraction_options = extraction.of_settings(settings.extract)
    train = dataclasses.replace(
        settings.train, epochs=options.epochs(extraction_options), keep=settings.extract.keep, snapshots=()
    )  # fmt: skip
    task = _task(experiment, extraction_options)
    params = jax.tree.leaves(jax.eval_shape(task.init, keys.root(0)).params)  # clone and generator
    clone_experiment = experiment._replace(
        settings=dataclasses.replace(settings, train=train), task=task,
        cost=experiment.cost._replace(parameters=sum(leaf.size for leaf in params)),
    )  # fmt: skip
    extract_facts = {name: value for name, value in to_dict(settings.extract).items() if name != "roles"}
    return roles.RoleSpec(
        name=PREFIX + victim.name,
        experiment=clone_experiment,
        membership=victim.membership,
        held_out=roles.mask(len(experiment.dataset.labels), split.population),
        rows=victim.rows,
        facts={"victim": victim.fingerprint, "seed": settings.seed, "extract": extract_facts},
        version=STAGE_VERSION,
        run_stage=PREFIX + victim.name,
        steps=options.iterations(extraction_options),
    )


def is_clone_role(spec: roles.RoleSpec) -> bool:
    """Returns whether the members of a role are clones."""
    return spec.name.startswith(PREFIX)


def _shape(experiment: experiments.Experiment) -> tuple[int, ...]:
    return tuple(experiment.dataset.inputs.shape[1:])


def to_inputs(experiment: experiments.Experiment) -> Callable[[jax.Array], jax.Array]:
    """Returns the function that maps values in (-1, 1) to network inputs, as configured by extract.inputs.

    The range of pixel values is public knowledge; that of a feature (an age, a share) is known to users of the model.
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


def _task(experiment: experiments.Experiment, extraction_options: extraction.Options) -> population.Task:
    """Returns the task of one extraction; float32 throughout, because finite differences of posteriors are small."""
    settings, conv = experiment.settings, experiment.mapping_policy.conv
    network = models.build(settings.model, experiment.dataset.num_classes, conv=conv, dtype="float32")
    shape = _shape(experiment)
    return extraction.task(
        network, generator.build(shape, extraction_options.width, conv), victims.network(network), shape,
        extraction_options, to_inputs=to_inputs(experiment), prepare=_prepare(experiment),
    )  # fmt: skip
