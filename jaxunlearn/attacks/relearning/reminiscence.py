"""Reminiscence: fine-tuning on retained rows only, and which forgotten rows it brings back.

Source: OUR `rea_reminiscence_random.py`. LiRA (`scores.lira.median_online`) is applied to the models that result and,
for comparison, to the unlearned ones.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxunlearn import errors, keys, population, trees
from jaxunlearn.attacks.relearning import running
from jaxunlearn.population import DeviceDataset, MemberMapping, training

Tree = Any


def reminisce(
    module: running.Module,
    prepare: running.Prepare,
    victims: Tree,
    data: DeviceDataset,
    retain: Sequence[np.ndarray],
    watched: Sequence[np.ndarray],
    mapping: MemberMapping,
    *,
    key: jax.Array,
    stages: Sequence[tuple[float, int]] = ((0.01, 3), (0.005, 3)),
    batch: int = 256,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
) -> running.Trajectories:
    """Fine-tunes on retained rows only and records whether forgotten rows come back by themselves.

    Training has stages of constant rate, each with a new optimizer; after every step the watched rows are evaluated.
    `variables` are the final models, to which LiRA is then applied.

    Args:
      module: the network.
      prepare: see `running.task`.
      victims: flax variables [V, ...]; one member per victim.
      data: the data set on the device.
      retain: [V] rows that each victim kept.
      watched: [V] rows evaluated with their true labels, e.g. the forgotten ones.
      mapping: how members are mapped.
      key: for the order of rows, and dropout.
      stages: (learning rate, epochs). Published for ResNet-18: the default.
      batch: rows per step.
      momentum: of SGD.
      weight_decay: of SGD.

    Raises:
      ShapeError: not as many sets of rows as victims.
    """
    count = trees.size(victims)
    if not len(retain) == len(watched) == count:
        raise errors.ShapeError(
            f"{count} victims, but {len(retain)} sets of retained rows and {len(watched)} of watched ones."
        )
    task = running.task(module, prepare, momentum, weight_decay)
    rows = np.full((count, max(map(len, watched))), -1, np.int32)
    for padded, indices in zip(rows, watched, strict=True):
        padded[: len(indices)] = indices
    labels = np.asarray(data.labels, np.int32)[np.maximum(rows, 0)]
    streams = {"retain": population.from_rows([[indices] for indices in retain], batch)}
    trajectories: list[running.Trajectories] = []
    diverged_at, offset = np.full(count, training.NOT_DIVERGED, np.int32), 0
    for stage, (rate, epochs) in enumerate(stages):
        start = trajectories[-1].variables if trajectories else trees.to_host(victims)
        constants = {
            "learning_rate": np.full(count, rate, np.float32), "probe_label": np.zeros(count, np.int32),
            "watched_rows": rows, "watched_labels": labels,
        }  # fmt: skip
        members = running.TrialMembers(
            start, streams, {"retain": batch}, constants, running.no_momentum(start),
            np.arange(count, dtype=np.int32), epochs, (),
        )  # fmt: skip
        job = running.job_of(task, members, keys.at(keys.stream(key, "reminisce"), stage))
        trajectories.append(running.run(job._replace(diverged_at=diverged_at), epochs, data, mapping))
        frozen_at = trajectories[-1].diverged_at
        is_new = (diverged_at == training.NOT_DIVERGED) & (frozen_at != training.NOT_DIVERGED)
        diverged_at, offset = np.where(is_new, offset + frozen_at, diverged_at), offset + epochs * job.steps
    # A member that an earlier stage froze has no steps in the later ones.
    loss = running.filled(np.concatenate([trajectory.loss for trajectory in trajectories], 1))
    accuracy = running.filled(np.concatenate([trajectory.accuracy for trajectory in trajectories], 1))
    return trajectories[-1]._replace(loss=loss, accuracy=accuracy, diverged_at=diverged_at)
