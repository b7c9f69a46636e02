"""Reminiscence: fine-tuning on retained rows alone, and what of the forgotten ones comes back by it.

Source: OUR `rea_reminiscence_random.py`. The models it ends with are asked by LiRA (`scores.lira.median_online`), and
so are the unlearned ones, for comparison.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxunlearn import errors, keys, population, trees
from jaxunlearn.attacks.relearning import running
from jaxunlearn.population import DeviceDataset, MemberMapping

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
    """Relearns on retained rows alone: do forgotten rows come back by themselves?

    Fine-tuning in stages of constant rate, each with an optimizer of its own; after every step the watched rows are
    answered. `variables` are the reminisced models, which LiRA is then asked about.

    Args:
      module: the network.
      prepare: see `running.task`.
      victims: flax variables [V, ...]; one member per victim.
      data: the resident data set.
      retain: [V] rows that each victim kept.
      watched: [V] rows to be watched under their own labels, say the forgotten ones.
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
    own = running.task(module, prepare, momentum, weight_decay)
    rows = np.full((count, max(map(len, watched))), -1, np.int32)
    for line, one in zip(rows, watched, strict=True):
        line[: len(one)] = one
    labels = np.asarray(data.labels, np.int32)[np.maximum(rows, 0)]
    streams = {"retain": population.from_rows([[one] for one in retain], batch)}
    found: list[running.Trajectories] = []
    for number, (rate, epochs) in enumerate(stages):
        start = found[-1].variables if found else trees.to_host(victims)
        constants = {
            "learning_rate": np.full(count, rate, np.float32), "probe_label": np.zeros(count, np.int32),
            "watched_rows": rows, "watched_labels": labels,
        }  # fmt: skip
        members = running.TrialMembers(
            start, streams, {"retain": batch}, constants, running.no_momentum(start),
            np.arange(count, dtype=np.int32), epochs, (),
        )  # fmt: skip
        job = running.job_of(own, members, keys.at(keys.stream(key, "reminisce"), number))
        found.append(running.run(job, epochs, data, mapping))
    loss, accuracy = (np.concatenate([getattr(one, name) for one in found], 1) for name in ("loss", "accuracy"))
    frozen = np.max([one.diverged_at for one in found], 0)
    return found[-1]._replace(loss=loss, accuracy=accuracy, diverged_at=frozen)
