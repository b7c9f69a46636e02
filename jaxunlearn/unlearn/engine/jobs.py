"""Host-side inputs of an unlearning run: rows, streams, BatchNorm mode.

`running` traces and runs them.
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
    """An unlearning run of M members: everything its results depend on, and the devices it runs on.

    Attributes:
      network: the model; `data`: inputs and labels.
      build: {name: number} -> Method; called with plain numbers on the host and with traced scalars inside programs.
      hyper: name -> [M] float64, the hyperparameters that may differ between members (float32 inside programs).
      originals: flax variables with leading M from which the members start.
      forget, retain: [M][n] rows of each member; `validation`: [p] rows of all.
      member_ids: [M] int32, from which keys are derived; `submodel`: [M] int32 index in an ensemble, else 0.
      key: root key of the role.
      mapping: how members are mapped.
      bn: "auto" (the method's own), "frozen", "recalibrate", "faithful" or "first_epoch" (training mode in the first
        epoch only, as in code that does not switch back after an evaluation).
      batch: rows per step of streams without a batch size; `augment`: whether inputs are augmented.
      budget: maximum bytes of a program per device; 0 = not checked.
      kinds: [N_all] int32 subclasses if these are forgotten, or the groups of texts; empty = the labels (of texts: one
        group). `test`: rows, see `MemberRows`.
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
    """Returns the method of member 0; the phases of all members have the same shape."""
    return _method_of(job, 0)


def _method_of(job: UnlearningJob, member: int) -> Method:
    return job.build({name: float(values[member]) for name, values in job.hyper.items()})


def batch_norm_mode(job: UnlearningJob) -> str:
    """Returns the BatchNorm policy of the run."""
    return template(job).bn if job.bn == "auto" else job.bn


def phases(job: UnlearningJob) -> tuple[tuple[Phase, str], ...]:
    """Returns the phases of member 0 with the mode of each: "train", "eval" or "first_epoch"."""
    mode = {"frozen": "eval", "first_epoch": "first_epoch"}.get(batch_norm_mode(job), "train")
    return tuple((phase, phase.mode or mode) for phase in template(job).phases)


def member_rows(job: UnlearningJob, member: int, index: int, name: str) -> MemberRows:
    """Returns the rows of one member; their generator depends on the role, the member id, the phase and the stream.

    Args:
      job: the run.
      member: position of the member in the run.
      index: of the phase.
      name: of the stream.
    """
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


def rows_of(stream_spec: StreamSpec, rows_of_member: MemberRows) -> list[np.ndarray]:
    """Returns the segments of row numbers that a stream reads.

    Raises:
      ConfigError: an unknown name of rows.
    """
    segments = stream_spec.rows if isinstance(stream_spec.rows, tuple) else (stream_spec.rows,)
    row_lists = []
    for segment in segments:
        if callable(segment):
            row_lists.append(np.asarray(segment(rows_of_member), np.int32))
            continue
        named_rows = []
        for name in segment.split("+"):
            if name not in ("forget", "retain", "validation"):
                raise errors.unknown("rows", name, ("forget", "retain", "validation"))
            named_rows.append(getattr(rows_of_member, name))
        row_lists.append(np.concatenate(named_rows))
    return row_lists


def streams_of(
    job: UnlearningJob, index: int, stream_specs_of: Callable[[Phase], Mapping[str, StreamSpec]], prefix: str
) -> dict[str, Stream]:
    """Returns the streams with leading M of one phase or estimate.

    Args:
      job: the run.
      index: of the phase.
      stream_specs_of: phase of a member -> its stream specs by name.
      prefix: of the names from which the members' generators are derived.
    """
    members = range(len(job.member_ids))
    methods = [_method_of(job, member) for member in members]
    streams = {}
    for name, stream_spec in tasks.with_batch_sizes(stream_specs_of(methods[0].phases[index]), job.batch).items():
        row_lists = [
            rows_of(
                stream_specs_of(methods[member].phases[index])[name], member_rows(job, member, index, prefix + name)
            )
            for member in members
        ]
        streams[name] = population.from_rows(row_lists, stream_spec.batch)
    return streams


def estimate_streams(job: UnlearningJob, index: int, field: str) -> dict[str, dict[str, Stream]]:
    """Returns the streams of all estimates of a phase; `field` is "estimates" or "every_epoch"."""
    phase = phases(job)[index][0]
    return {
        name: streams_of(job, index, lambda phase, name=name: getattr(phase, field)[name].stream_specs, f"{name}.")  # type: ignore[misc]
        for name in getattr(phase, field)
    }


def traced_phase(job: UnlearningJob, index: int) -> tasks.TracedPhase:
    """Returns one phase, ready to be traced."""
    phase, mode = phases(job)[index]
    net = network.widened(job.network) if phase.widen else job.network
    augment = job.augment and template(job).augment
    return tasks.TracedPhase(net, job.build, index, mode, job.key, job.batch, augment)


def constants_of(job: UnlearningJob, index: int, saved_states: Tree, estimates: Tree) -> dict[str, Any]:
    """Returns the constants of all members in a phase; every leaf has a leading M.

    Args:
      job: the run.
      index: of the phase.
      saved_states: SavedStates of earlier phases, by name.
      estimates: of the phase, by name.
    """
    forget = np.zeros((len(job.member_ids), len(np.asarray(job.data.labels))), bool)
    for flags, rows in zip(forget, job.forget, strict=True):
        flags[np.asarray(rows)] = True
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
    """Returns [M] steps per epoch of a phase with gradient steps, at least 1."""
    primary, stream_spec = next(iter(tasks.with_batch_sizes(phases(job)[index][0].stream_specs, job.batch).items()))
    stream = streams_of(job, index, lambda phase: {primary: phase.stream_specs[primary]}, "")[primary]
    return np.maximum(-(-np.asarray(stream.num_rows) // stream_spec.batch), 1)


def epochs_of(job: UnlearningJob, index: int) -> int:
    """Returns the epochs of a phase, at most those in which all members reach `max_steps`; 0 = a one-shot phase."""
    phase = phases(job)[index][0]
    if not phase.gradient_steps or not phase.max_steps:
        return phase.epochs if phase.gradient_steps else 0
    return min(phase.epochs, -(-phase.max_steps // int(steps_of(job, index).min())))
