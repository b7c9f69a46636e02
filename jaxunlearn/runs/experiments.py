"""The experiment: everything a settings file means on this machine, built and checked before any long work.

    settings -> data set, network, task, policy -> executor for so many members

Everything here is quick; what it refuses, it refuses before a run folder is touched.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import data, errors, models, population, records, store, unlearn
from jaxunlearn.data.augmentation import augment
from jaxunlearn.models import cost
from jaxunlearn.population import executor
from jaxunlearn.records import Dataset
from jaxunlearn.scores import tokens
from jaxunlearn.settings import Settings

# Forward FLOPs (multiply-add = 2) of the largest convolution of one member and batch, up to which a GPU is filled only
# by whole populations side by side; above it, native per-member kernels win.
SMALL_CONV_FLOPS = 0.1e9
GPU_GROUP = 8


class MappingPolicy(NamedTuple):
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
      mapping_policy: how members are mapped; `lifting(experiment, members)` makes it concrete.
      cost: parameters, FLOPs and convolution sizes of the network.
    """

    settings: Settings
    dataset: Dataset
    data_fingerprint: str
    task: population.Task
    mapping_policy: MappingPolicy
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
    models.check_kind(settings.model.name, bool(dataset.vocabulary))
    if dataset.vocabulary and train.keep == "best":
        raise errors.ConfigError("train.keep = 'best' chooses by right answers of classes; for texts set it to 'last'.")
    measured = cost.describe(models.build(settings.model, dataset.num_answers), shape)
    mapping_policy = choose_policy(settings, measured)
    task = build_task(settings, dataset, mapping_policy.conv)
    facts = {"inputs": np.asarray(dataset.inputs), "labels": dataset.labels, "train": dataset.num_train}
    if settings.split.forget.kind == "subclass" and dataset.groups is not None:
        facts["groups"] = np.asarray(dataset.groups)  # the second labelling decides who is forgotten
    if dataset.class_values:  # the same numbers name other classes to forget
        facts["classes"] = np.array(dataset.class_values)
    if dataset.vocabulary:
        facts |= {"vocabulary": dataset.vocabulary}
        facts |= {} if dataset.prompts is None else {"prompts": np.asarray(dataset.prompts)}
    normalisation = {"scale": dataset.scale, "mean": dataset.mean, "std": dataset.std}
    return Experiment(
        settings, dataset, store.files.fingerprint({**facts, **normalisation}), task, mapping_policy, measured
    )


def build_task(settings: Settings, dataset: Dataset, conv: str) -> population.Task:
    """The supervised task of these settings, with its convolutions in the given form; answers are float32."""
    trained, evaluator = build_network(settings, dataset, conv), build_evaluator(settings, dataset, conv)
    more = {"record": tokens.recorded} if dataset.vocabulary else {}
    return population.supervised(trained.module, evaluator, trained.prepare, settings.train, trained.example, **more)


def in_training_mode(experiment: Experiment) -> population.Task:
    """The experiment's task with answers of a network in training mode: BatchNorm by the batch."""
    settings, dataset = experiment.settings, experiment.dataset
    evaluator = build_evaluator(settings, dataset, experiment.mapping_policy.conv)
    return population.in_training_mode(
        experiment.task, evaluator, build_network(settings, dataset, experiment.mapping_policy.conv).prepare
    )


def build_network(settings: Settings, dataset: Dataset, conv: str) -> unlearn.Network:
    """The network for training, with its convolutions in the given form, and the way its inputs are prepared."""
    module = models.build(settings.model, dataset.num_answers, conv=conv, dtype=settings.model.dtype)
    prepare_inputs = augment.prepare(dataset, settings.data.augment, settings.data.pad)
    example = jax.ShapeDtypeStruct(tuple(dataset.inputs.shape[1:]), jnp.dtype(dataset.inputs.dtype))
    return unlearn.Network(module, prepare_inputs, example, dataset.num_answers)


def build_evaluator(settings: Settings, dataset: Dataset, conv: str) -> Any:
    """The same network as a flax module for answering: float32, whatever training computes in."""
    return models.build(settings.model, dataset.num_answers, conv=conv, dtype="float32")


def require_classes(experiment: Experiment, command: str) -> None:
    """Refuses texts where a command works on classes.

    Raises:
      ConfigError: the data set holds texts.
    """
    if experiment.dataset.vocabulary:
        raise errors.ConfigError(
            f"{command} works on classes, but {experiment.dataset.name!r} holds texts. For texts there are "
            "launch.audit, launch.unlearn and launch.study with study.kind = methods."
        )


def choose_policy(settings: Settings, measured: cost.Cost) -> MappingPolicy:
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
        chosen = MappingPolicy("map", 1, "cpu", 0)
    elif flops <= SMALL_CONV_FLOPS:
        chosen = MappingPolicy("vmap", 1, "im2col", 0)
    else:
        chosen = MappingPolicy("map", GPU_GROUP, "unrolled", 0)
    devices = executor.make_mapping(devices=engine.devices).mesh.size
    return MappingPolicy(
        mapping=engine.mapping if engine.mapping != "auto" else chosen.mapping,
        group=engine.group or chosen.group,
        conv=engine.conv if engine.conv != "auto" else chosen.conv,
        devices=devices,
    )


def with_policy(experiment: Experiment, mapping_policy: MappingPolicy) -> Experiment:
    """The same experiment with another policy."""
    return experiment._replace(
        mapping_policy=mapping_policy, task=build_task(experiment.settings, experiment.dataset, mapping_policy.conv)
    )


def member_mapping(experiment: Experiment, members: int) -> population.MemberMapping:
    """The executor for so many members: never more devices, nor larger groups, than there are members for."""
    mapping_policy = experiment.mapping_policy
    devices = min(mapping_policy.devices, members)
    return executor.make_mapping(mapping_policy.mapping, min(mapping_policy.group, -(-members // devices)), devices)


def device_dataset(experiment: Experiment) -> population.DeviceDataset:
    """The data set as it lives on the device; of texts, the labels are the next tokens."""
    dataset = experiment.dataset
    labels = records.next_tokens(dataset) if dataset.vocabulary else np.asarray(dataset.labels, np.int32)
    return population.DeviceDataset(np.asarray(dataset.inputs), labels)


def recorded_width(experiment: Experiment) -> int:
    """How many numbers are recorded per row and model: the logits of a classifier, or the signals of next tokens."""
    dataset = experiment.dataset
    return tokens.width(dataset.inputs.shape[1]) if dataset.vocabulary else dataset.num_classes
