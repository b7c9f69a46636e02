"""Everything that decides about the numbers of a method on M members, before anything runs: rows, streams, modes.

Host side; what comes of it is traced by `running`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxunlearn import errors, keys, population
from jaxunlearn.population import DeviceDataset, MemberMapping, Stream
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import MemberRows, Method, Phase, StreamSpec
from jaxunlearn.unlearn.base.network import Network
from jaxunlearn.unlearn.engine import tasks

Tree = Any


class UnlearningJob(NamedTuple):
    """Everything that decides about the numbers of M members, and where they run.

    Attributes:
      network: the model; `data`: resident inputs and labels.
      build: {name: number} -> Method; called with plain numbers on the host and with traced scalars inside.
      hyper: name -> [M] float64, the hyperparameters that may differ between members (float32 inside).
      originals: flax variables with leading M: what each member starts from.
      forget, retain: [M][n] rows of each member; validation: [p] rows of all.
      numbers: [M] int32, what keys are derived from; part: [M] int32 part of an ensemble.
      key: root key of the role.
      mapping: how members are mapped.
      bn: "auto" (the method's own), "frozen", "recalibrate", "faithful" or "first_epoch" (training mode in the first
        epoch only, as code that forgets to switch back after an evaluation does).
      batch: rows per step where a stream does not say; augment: whether inputs are augmented.
      budget: bytes that a program may need per device; 0 = not checked.
      kinds: [N_all] int32 subclasses where these are forgotten, and the groups of texts; empty = the labels (of texts:
        one group). `test`: rows, see `MemberRows`.
    """

    network: Network
    data: DeviceDataset
    build: Callable[[Mapping[str, Any]], Method]
    hyper: Mapping[str, np.ndarray]
    originals: Tree
    forget: Sequence[np.ndarray]
    retain: Sequence[np.ndarray]
    validation: np.ndarray
    member_ids: np.ndarray
    submodel: np.ndarray
    key: jax.Array
    mapping: MemberMapping
    bn: str = "auto"
    batch: int = 64
    augment: bool = True
    budget: int = 0
    kinds: np.ndarray = np.zeros(0, np.int32)
    test: np.ndarray = np.zeros(0, np.int32)


def template(job: UnlearningJob) -> Method:
    """The method of member 0: its phases have the same shape for all."""
    return _concrete(job, 0)


def _concrete(job: UnlearningJob, member: int) -> Method:
    return job.build({name: float(values[member]) for name, values in job.hyper.items()})


def batch_norm_mode(job: UnlearningJob) -> str:
    """The BatchNorm policy in force."""
    return template(job).bn if job.bn == "auto" else job.bn


def phases(job: UnlearningJob) -> tuple[tuple[Phase, str], ...]:
    """The phases of member 0 with the mode that each runs in: "train", "eval" or "first_epoch"."""
    mode = {"frozen": "eval", "first_epoch": "first_epoch"}.get(batch_norm_mode(job), "train")
    return tuple((phase, phase.mode or mode) for phase in template(job).phases)


def member_rows(job: UnlearningJob, member: int, index: int, name: str) -> MemberRows:
    """The rows of one member; the generator depends on the role, the member's number, the phase and the stream."""
    seed = np.asarray(jax.random.key_data(job.key)).ravel()
    rng = np.random.default_rng([*map(int, seed), int(job.member_ids[member]), index, keys.name_hash(name)])
    labels = np.asarray(job.data.labels)
    if labels.ndim > 1:  # next tokens of texts
        labels = job.kinds if len(job.kinds) else np.zeros(len(labels), np.int32)
    return MemberRows(
        np.asarray(job.forget[member], np.int32), np.asarray(job.retain[member], np.int32),
        np.asarray(job.validation, np.int32), labels, int(job.submodel[member]), rng,
        job.kinds if len(job.kinds) else labels, np.asarray(job.test, np.int32),
    )  # fmt: skip


def rows_of(reads: StreamSpec, rows_of_member: MemberRows) -> list[np.ndarray]:
    """The segments of row numbers that a stream reads.

    Raises:
      ConfigError: an unknown name of rows.
    """
    segments = reads.rows if isinstance(reads.rows, tuple) else (reads.rows,)
    found = []
    for one in segments:
        if callable(one):
            found.append(np.asarray(one(rows_of_member), np.int32))
            continue
        parts = []
        for name in one.split("+"):
            if name not in ("forget", "retain", "validation"):
                raise errors.unknown("rows", name, ("forget", "retain", "validation"))
            parts.append(getattr(rows_of_member, name))
        found.append(np.concatenate(parts))
    return found


def streams_of(
    job: UnlearningJob, index: int, reads_of: Callable[[Phase], Mapping[str, StreamSpec]], prefix: str
) -> dict[str, Stream]:
    """Streams with leading M of one phase or estimate, each member's rows from its own numbers."""
    members = range(len(job.member_ids))
    methods = [_concrete(job, member) for member in members]
    found = {}
    for name, reads in tasks.sized(reads_of(methods[0].phases[index]), job.batch).items():
        parts = [
            rows_of(reads_of(methods[member].phases[index])[name], member_rows(job, member, index, prefix + name))
            for member in members
        ]
        found[name] = population.from_rows(parts, reads.batch)
    return found


def estimate_streams(job: UnlearningJob, index: int, which: str) -> dict[str, dict[str, Stream]]:
    """Streams of all estimates of a phase; `which` is "estimates" or "every_epoch"."""
    phase = phases(job)[index][0]
    return {
        name: streams_of(job, index, lambda one, name=name: getattr(one, which)[name].stream_specs, f"{name}.")  # type: ignore[misc]
        for name in getattr(phase, which)
    }


def traced_phase(job: UnlearningJob, index: int) -> tasks.TracedPhase:
    """One phase ready to be traced."""
    phase, mode = phases(job)[index]
    net = network.widened(job.network) if phase.widen else job.network
    augment = job.augment and template(job).augment
    return tasks.TracedPhase(net, job.build, index, mode, job.key, job.batch, augment)


def constants_of(job: UnlearningJob, index: int, saved_states: Tree, estimates: Tree) -> dict[str, Any]:
    """Constants of all members in a phase; every leaf with a leading M."""
    forget = np.zeros((len(job.member_ids), len(np.asarray(job.data.labels))), bool)
    for line, rows in zip(forget, job.forget, strict=True):
        line[np.asarray(rows)] = True
    return {
        "number": np.asarray(job.member_ids, np.int32),
        "hyper": {name: np.asarray(values, np.float32) for name, values in job.hyper.items()},
        "forget": forget,
        "reference": job.originals,
        "saved_states": saved_states,
        "estimates": estimates,
        "epoch_streams": estimate_streams(job, index, "every_epoch"),
    }


def steps_of(job: UnlearningJob, index: int) -> np.ndarray:
    """[M] steps per epoch of a phase with moves, at least 1."""
    driver, reads = next(iter(tasks.sized(phases(job)[index][0].stream_specs, job.batch).items()))
    stream = streams_of(job, index, lambda one: {driver: one.stream_specs[driver]}, "")[driver]
    return np.maximum(-(-np.asarray(stream.num_rows) // reads.batch), 1)


def epochs_of(job: UnlearningJob, index: int) -> int:
    """Epochs of a phase: no more than the member with the fewest steps per epoch needs to reach `stop`; 0 = an edit."""
    phase = phases(job)[index][0]
    if not phase.gradient_steps or not phase.max_steps:
        return phase.epochs if phase.gradient_steps else 0
    return min(phase.epochs, -(-phase.max_steps // int(steps_of(job, index).min())))
