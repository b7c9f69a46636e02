"""The resolved experiment: data set, network, task and device mapping built from `Settings`.

    settings -> data set, network, task, policy -> executor for a number of members

Everything here is quick and raises before a run folder is touched.
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

# Forward FLOPs (multiply-add = 2) of the largest convolution of one member and batch. Up to this, a GPU is busy only
# with whole populations side by side; above it, native per-member kernels are faster.
SMALL_CONV_FLOPS = 0.1e9
GPU_GROUP = 8


class MappingPolicy(NamedTuple):
    """How members are mapped onto this machine, before their number is known.

    Attributes:
      mapping: map, vmap or loop.
      group: members side by side inside a map.
      conv: the form of the convolutions.
      devices: the largest number of devices.
    """

    mapping: str
    group: int
    conv: str
    devices: int


class Experiment(NamedTuple):
    """A resolved run.

    Attributes:
      settings: checked.
      dataset: host arrays.
      data_fingerprint: of their content.
      task: the functions of one member.
      mapping_policy: how members are mapped; see `member_mapping`.
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
      DataError, ConfigError, DeviceError: invalid settings or data, or missing devices.
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
        raise errors.ConfigError(
            "train.keep = 'best' chooses the epoch by the accuracy on classes; for texts set it to 'last'."
        )
    network_cost = cost.describe(models.build(settings.model, dataset.num_answers), shape)
    mapping_policy = choose_policy(settings, network_cost)
    task = build_task(settings, dataset, mapping_policy.conv)
    facts = {"inputs": np.asarray(dataset.inputs), "labels": dataset.labels, "train": dataset.num_train}
    if settings.split.forget.kind == "subclass" and dataset.groups is not None:
        facts["groups"] = np.asarray(dataset.groups)  # the second labelling decides which rows are forgotten
    if dataset.class_values:  # the same settings then name other classes to forget
        facts["classes"] = np.array(dataset.class_values)
    if dataset.vocabulary:
        facts |= {"vocabulary": dataset.vocabulary}
        facts |= {} if dataset.prompts is None else {"prompts": np.asarray(dataset.prompts)}
    normalisation = {"scale": dataset.scale, "mean": dataset.mean, "std": dataset.std}
    return Experiment(
        settings, dataset, store.files.fingerprint({**facts, **normalisation}), task, mapping_policy, network_cost
    )


def build_task(settings: Settings, dataset: Dataset, conv: str) -> population.Task:
    """Builds the supervised task of these settings, with convolutions of the form `conv`; it predicts in float32."""
    network, evaluator = build_network(settings, dataset, conv), build_evaluator(settings, dataset, conv)
    recording = {"record": tokens.recorded} if dataset.vocabulary else {}
    return population.supervised(
        network.module, evaluator, network.prepare, settings.train, network.example, **recording
    )


def in_training_mode(experiment: Experiment) -> population.Task:
    """Returns the experiment's task with predictions in training mode: BatchNorm uses the statistics of the batch."""
    settings, dataset = experiment.settings, experiment.dataset
    evaluator = build_evaluator(settings, dataset, experiment.mapping_policy.conv)
    return population.in_training_mode(
        experiment.task, evaluator, build_network(settings, dataset, experiment.mapping_policy.conv).prepare
    )


def build_network(settings: Settings, dataset: Dataset, conv: str) -> unlearn.Network:
    """Builds the network for training, with convolutions of the form `conv`, and the preparation of its inputs."""
    module = models.build(settings.model, dataset.num_answers, conv=conv, dtype=settings.model.dtype)
    prepare_inputs = augment.prepare(dataset, settings.data.augment, settings.data.pad)
    example = jax.ShapeDtypeStruct(tuple(dataset.inputs.shape[1:]), jnp.dtype(dataset.inputs.dtype))
    return unlearn.Network(module, prepare_inputs, example, dataset.num_answers)


def build_evaluator(settings: Settings, dataset: Dataset, conv: str) -> Any:
    """Builds the same network for prediction: float32, whatever the dtype of training."""
    return models.build(settings.model, dataset.num_answers, conv=conv, dtype="float32")


def require_classes(experiment: Experiment, command: str) -> None:
    """Raises an error for texts in a command that works on classes.

    Raises:
      ConfigError: the data set holds texts.
    """
    if experiment.dataset.vocabulary:
        raise errors.ConfigError(
            f"{command} works on classes, but {experiment.dataset.name!r} contains texts. For texts there are "
            "launch.audit, launch.unlearn and launch.study with study.kind = methods."
        )


def choose_policy(settings: Settings, network_cost: cost.Cost) -> MappingPolicy:
    """Chooses mapping, group and convolution form: the user's settings, otherwise the platform's default.

    CPU: one member after another on one host device per core, canonical gradients. GPU: all members side by side if
    the network is tiny or dense; ResNet-sized networks in groups of 8 with one native kernel per member. See
    docs/gpu.md for the measurements behind these defaults; `launch.bench gpu` repeats them.

    Raises:
      DeviceError: more devices requested than available.
    """
    engine = settings.engine
    flops = network_cost.largest_conv_flops * settings.train.batch
    if jax.local_devices()[0].platform == "cpu":
        default = MappingPolicy("map", 1, "cpu", 0)
    elif flops <= SMALL_CONV_FLOPS:
        default = MappingPolicy("vmap", 1, "im2col", 0)
    else:
        default = MappingPolicy("map", GPU_GROUP, "unrolled", 0)
    devices = executor.make_mapping(devices=engine.devices).mesh.size
    return MappingPolicy(
        mapping=engine.mapping if engine.mapping != "auto" else default.mapping,
        group=engine.group or default.group,
        conv=engine.conv if engine.conv != "auto" else default.conv,
        devices=devices,
    )


def with_policy(experiment: Experiment, mapping_policy: MappingPolicy) -> Experiment:
    """Returns the same experiment with another policy."""
    return experiment._replace(
        mapping_policy=mapping_policy, task=build_task(experiment.settings, experiment.dataset, mapping_policy.conv)
    )


def member_mapping(experiment: Experiment, members: int) -> population.MemberMapping:
    """Returns the executor for `members` members, with no more devices, and no larger groups, than they need."""
    mapping_policy = experiment.mapping_policy
    devices = min(mapping_policy.devices, members)
    return executor.make_mapping(mapping_policy.mapping, min(mapping_policy.group, -(-members // devices)), devices)


def device_dataset(experiment: Experiment) -> population.DeviceDataset:
    """Returns the data set in the form used on the device; for texts, the labels are the next tokens."""
    dataset = experiment.dataset
    labels = records.next_tokens(dataset) if dataset.vocabulary else np.asarray(dataset.labels, np.int32)
    return population.DeviceDataset(np.asarray(dataset.inputs), labels)


def recorded_width(experiment: Experiment) -> int:
    """Returns the number of values recorded per row and model: logits of a classifier, or signals of next tokens."""
    dataset = experiment.dataset
    return tokens.width(dataset.inputs.shape[1]) if dataset.vocabulary else dataset.num_classes
