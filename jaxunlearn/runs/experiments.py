"""The experiment: everything a settings file means on this machine, built and checked before any long work.

    settings -> data set, network, task, policy -> executor for so many members

Everything here is quick; what it refuses, it refuses before a run folder is touched.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import data, errors, models, population, store, unlearn
from jaxunlearn.data import augment
from jaxunlearn.models import cost
from jaxunlearn.population import lift
from jaxunlearn.records import Dataset
from jaxunlearn.settings import Settings

# Forward FLOPs (multiply-add = 2) of the largest convolution of one member and batch, up to which a GPU is filled only
# by whole populations side by side; above it, native per-member kernels win.
SMALL_CONV_FLOPS = 0.1e9
GPU_GROUP = 8


class Policy(NamedTuple):
    """How members are mapped here, before their number is known.

    Attributes:
      mapping: map, vmap or loop; `group`: members side by side inside a map.
      conv: the form of the convolutions.
      devices: at most so many.
    """

    mapping: str
    group: int
    conv: str
    devices: int


class Experiment(NamedTuple):
    """The one record of a resolved run.

    Attributes:
      settings: checked.
      dataset: host arrays; `data_fingerprint` of its content.
      task: one member's functions.
      policy: how members are mapped; `lifting(experiment, members)` makes it concrete.
      cost: parameters, FLOPs and convolution sizes of the network.
    """

    settings: Settings
    dataset: Dataset
    data_fingerprint: str
    task: population.Task
    policy: Policy
    cost: cost.Cost


def prepare(settings: Settings) -> Experiment:
    """Loads the data, builds the network and chooses the mapping.

    Raises:
      DataError, ConfigError, DeviceError: anything the user has to mend, before any training.
    """
    dataset = data.load(settings.data)
    train = settings.train
    if train.batch > dataset.num_train:
        raise errors.ConfigError(
            f"train.batch = {train.batch} is more than the {dataset.num_train} rows of the train pool."
        )
    shape = tuple(dataset.inputs.shape[1:])
    measured = cost.describe(models.build(settings.model, dataset.num_classes), shape)
    policy = choose_policy(settings, measured)
    task = build_task(settings, dataset, policy.conv)
    facts = {"inputs": np.asarray(dataset.inputs), "labels": dataset.labels, "train": dataset.num_train}
    if settings.split.forget.kind == "subclass" and dataset.groups is not None:
        facts["groups"] = np.asarray(dataset.groups)  # the second labelling decides who is forgotten
    if dataset.class_values:  # the same numbers name other classes to forget
        facts["classes"] = np.array(dataset.class_values)
    normalisation = {"scale": dataset.scale, "mean": dataset.mean, "std": dataset.std}
    return Experiment(settings, dataset, store.files.fingerprint({**facts, **normalisation}), task, policy, measured)


def build_task(settings: Settings, dataset: Dataset, conv: str) -> population.Task:
    """The supervised task of these settings, with its convolutions in the given form; answers are float32."""
    trained = build_network(settings, dataset, conv)
    evaluator = models.build(settings.model, dataset.num_classes, conv=conv, dtype="float32")
    return population.supervised(trained.module, evaluator, trained.prepare, settings.train, trained.example)


def in_training_mode(experiment: Experiment) -> population.Task:
    """The experiment's task with answers of a network in training mode: BatchNorm by the batch."""
    settings, dataset = experiment.settings, experiment.dataset
    evaluator = models.build(settings.model, dataset.num_classes, conv=experiment.policy.conv, dtype="float32")
    return population.in_training_mode(
        experiment.task, evaluator, build_network(settings, dataset, experiment.policy.conv).prepare
    )


def build_network(settings: Settings, dataset: Dataset, conv: str) -> unlearn.Network:
    """The network for training, with its convolutions in the given form, and the way its inputs are prepared."""
    module = models.build(settings.model, dataset.num_classes, conv=conv, dtype=settings.model.dtype)
    prepare_inputs = augment.prepare(dataset, settings.data.augment, settings.data.pad)
    example = jax.ShapeDtypeStruct(tuple(dataset.inputs.shape[1:]), jnp.dtype(dataset.inputs.dtype))
    return unlearn.Network(module, prepare_inputs, example, dataset.num_classes)


def choose_policy(settings: Settings, measured: cost.Cost) -> Policy:
    """Mapping, group and convolution form: the user's where given, else the platform's default.

    CPU: one member after another on one host device per core, canonical gradients. GPU: everything side by side where
    the network is tiny or dense; ResNet-sized networks in groups of 8 with one native kernel per member. What these
    rest on stands in WORKSPACE.md, "On a GPU"; `launch.bench gpu` measures them.

    Raises:
      DeviceError: more devices asked for than there are.
    """
    engine = settings.engine
    flops = measured.largest_conv_flops * settings.train.batch
    if jax.local_devices()[0].platform == "cpu":
        chosen = Policy("map", 1, "cpu", 0)
    elif flops <= SMALL_CONV_FLOPS:
        chosen = Policy("vmap", 1, "im2col", 0)
    else:
        chosen = Policy("map", GPU_GROUP, "unrolled", 0)
    devices = lift.make(devices=engine.devices).mesh.size
    return Policy(
        mapping=engine.mapping if engine.mapping != "auto" else chosen.mapping,
        group=engine.group or chosen.group,
        conv=engine.conv if engine.conv != "auto" else chosen.conv,
        devices=devices,
    )


def with_policy(experiment: Experiment, policy: Policy) -> Experiment:
    """The same experiment with another policy."""
    return experiment._replace(policy=policy, task=build_task(experiment.settings, experiment.dataset, policy.conv))


def lifting(experiment: Experiment, members: int) -> population.Lifting:
    """The executor for so many members: never more devices, nor larger groups, than there are members for."""
    policy = experiment.policy
    devices = min(policy.devices, members)
    return lift.make(policy.mapping, min(policy.group, -(-members // devices)), devices)


def resident(experiment: Experiment) -> population.Resident:
    """The data set as it lives on the device."""
    return population.Resident(np.asarray(experiment.dataset.inputs), np.asarray(experiment.dataset.labels, np.int32))
