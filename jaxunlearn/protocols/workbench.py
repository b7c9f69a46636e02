"""The workbench: everything a settings file means on this machine, built and checked before any long work.

settings -> data set, split facts, network, task, executor
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import data, errors, models, population, store
from jaxunlearn.data import augment
from jaxunlearn.models import cost
from jaxunlearn.population import lift
from jaxunlearn.records import Dataset
from jaxunlearn.settings import Settings

# Forward FLOPs (multiply-add = 2) of one convolution of one member and batch, above which a single member fills a GPU
# and native per-member kernels win, and below which whole populations must run side by side.
LARGE_CONV_FLOPS = 2.5e9
SMALL_CONV_FLOPS = 0.1e9
GPU_GROUP = 8


class Workbench(NamedTuple):
    """What a protocol works with.

    Attributes:
      settings: checked.
      dataset: host arrays; `data_fingerprint` of its content.
      task: one member's functions.
      lifting: how members are mapped.
      conv: the form of the convolutions that was chosen.
      cost: parameters, FLOPs and convolution sizes of the network.
    """

    settings: Settings
    dataset: Dataset
    data_fingerprint: str
    task: population.Task
    lifting: population.Lifting
    conv: str
    cost: cost.Cost


def prepare(settings: Settings) -> Workbench:
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
    lifting, conv = choose_mapping(settings, measured)
    task = build_task(settings, dataset, conv)
    facts = {"inputs": np.asarray(dataset.inputs), "labels": dataset.labels, "train": dataset.num_train}
    normalisation = {"scale": dataset.scale, "mean": dataset.mean, "std": dataset.std}
    return Workbench(
        settings, dataset, store.files.fingerprint({**facts, **normalisation}), task, lifting, conv, measured
    )


def build_task(settings: Settings, dataset: Dataset, conv: str) -> population.Task:
    """The supervised task of these settings, with its convolutions in the given form; answers are float32."""
    module = models.build(settings.model, dataset.num_classes, conv=conv, dtype=settings.model.dtype)
    evaluator = models.build(settings.model, dataset.num_classes, conv=conv, dtype="float32")
    prepare_inputs = augment.prepare(dataset, settings.data.augment, settings.data.pad)
    example = jax.ShapeDtypeStruct(tuple(dataset.inputs.shape[1:]), jnp.dtype(dataset.inputs.dtype))
    return population.supervised(module, evaluator, prepare_inputs, settings.train, example)


def choose_mapping(settings: Settings, measured: cost.Cost) -> tuple[population.Lifting, str]:
    """Mapping, group and convolution form: the user's where given, else the platform's default.

    CPU: one member after another on one host device per core, canonical gradients. GPU: everything side by side where
    the network is tiny or dense; ResNet-sized networks in groups of 8 with one native kernel per member.
    """
    engine = settings.engine
    platform = jax.local_devices()[0].platform
    flops = measured.largest_conv_flops * settings.train.batch
    if platform == "cpu":
        mapping, group, conv = "map", 1, "cpu"
    elif flops <= SMALL_CONV_FLOPS:
        mapping, group, conv = "vmap", 1, "im2col"
    else:
        mapping, group, conv = "map", GPU_GROUP, "unrolled"
    mapping = engine.mapping if engine.mapping != "auto" else mapping
    conv = engine.conv if engine.conv != "auto" else conv
    # More devices than members would train copies; a smaller mesh leaves their cores to XLA's own threads.
    devices = engine.devices or min(len(jax.local_devices()), settings.shadows.count)
    return lift.make(mapping, engine.group or group, devices), conv


def resident(bench: Workbench) -> population.Resident:
    """The data set as it lives on the device."""
    return population.Resident(np.asarray(bench.dataset.inputs), np.asarray(bench.dataset.labels, np.int32))
