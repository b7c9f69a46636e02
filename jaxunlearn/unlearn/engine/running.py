"""Runs a method over a whole population at once: phases in sequence, every phase one compiled program per epoch.

    for event in run(setup):         # the caller reports and keeps checkpoints
        ...
    event.outcome                    # of the last one: variables [M, ...], diverged_at [M]

A member is one (forget set, setting of hyperparameters) pair. Nothing here opens a file.
"""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxunlearn import keys, population, trees
from jaxunlearn.population import DeviceDataset, State, capacity, executor, training
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import Phase, SavedState
from jaxunlearn.unlearn.engine import batch_norm, tasks
from jaxunlearn.unlearn.engine.jobs import (
    UnlearningJob,
    constants_of,
    epochs_of,
    estimate_streams,
    phases,
    steps_of,
    streams_of,
    template,
    traced_phase,
)

Tree = Any
NOT_DIVERGED = training.NOT_DIVERGED


class Outcome(NamedTuple):
    """What a method made of M members.

    Attributes:
      variables: flax variables [M, ...].
      diverged_at: [M] step at which a member was frozen, -1 = never.
      seconds: since the run began, compiling included.
      mid: the same after `Method.mid` phases, where the method has that, is no ensemble, and the run was not continued
        behind it.
    """

    variables: Tree
    diverged_at: np.ndarray
    seconds: float = float("nan")
    mid: "Outcome | None" = None


class Event(NamedTuple):
    """What `run` yields: after every epoch, and once at the end.

    Attributes:
      phase, epoch: epochs done of this phase; `loss`, `accuracy`: [M] means over the driving stream.
      checkpoint: () -> host tree to go on from (`run(setup, checkpoint=...)`).
      outcome: of the last event only.
    """

    phase: int
    epoch: int
    loss: np.ndarray
    accuracy: np.ndarray
    checkpoint: Callable[[], Tree]
    outcome: Outcome | None = None


class Checkpoint(NamedTuple):
    """Where a run stood: `tree` as `Event.checkpoint` made it after `epoch` epochs of `phase`."""

    phase: int
    epoch: int
    tree: Tree


def job_of(job: UnlearningJob, index: int, initial: State, saved_states: Tree, estimates: Tree) -> population.Job:
    """The engine's job of a phase with moves."""
    stage, phase = traced_phase(job, index), phases(job)[index][0]
    reads = tasks.sized(phase.stream_specs, job.batch)
    streams = streams_of(job, index, lambda one: one.stream_specs, "")
    driver = next(iter(reads))

    return population.Job(
        task=tasks.task(stage),
        streams=streams,
        batches={name: one.batch for name, one in reads.items()},
        member_ids=np.asarray(job.member_ids, np.int32),
        key=keys.at(job.key, index),
        constants=constants_of(job, index, saved_states, estimates),
        steps=max(1, population.steps_per_epoch(streams[driver], reads[driver].batch)),
        initial=initial,
        unshuffled=tuple(name for name, one in reads.items() if not one.shuffle),
        continue_across_epochs=tuple(name for name, one in reads.items() if one.continue_across_epochs),
        max_steps=phase.max_steps,
        on_epoch_start=_on_epoch_start(stage, phase),
    )


def _on_epoch_start(
    stage: tasks.TracedPhase, phase: Phase
) -> Callable[[State, DeviceDataset, Tree, jax.Array], Tree] | None:
    """What is estimated anew at the start of every epoch, as constants of its steps."""
    if not phase.every_epoch:
        return None

    def on_epoch_start(state: State, data: DeviceDataset, constants: Tree, key: jax.Array) -> dict[str, Tree]:
        own = tasks.phase_of(stage, constants)
        found, _ = tasks.estimate_all(stage._replace(mode="eval"), own.every_epoch, state, data,
                                      constants["epoch_streams"], constants, key)  # fmt: skip
        return {"estimates": {**constants["estimates"], **found}}

    return on_epoch_start


def _begin(job: UnlearningJob, index: int, given: State, saved_states: Tree) -> tuple[State, Tree, np.ndarray]:
    """The state of all members before the first step of a phase, its estimates, and who stayed finite."""
    stage = traced_phase(job, index)
    fixed = {
        "constants": constants_of(job, index, saved_states, {}),
        "streams": estimate_streams(job, index, "estimates"),
    }
    arguments = executor.pad(jax.tree.map(np.asarray, (given, fixed)), job.mapping)

    def fn(given: State, fixed: Tree, shared: DeviceDataset) -> Tree:
        return tasks.begin(stage, given, shared, fixed["streams"], fixed["constants"])

    given, fixed = executor.place(arguments, job.mapping)
    data = executor.place(job.data, job.mapping, shared=True)
    program = executor.compile_mapped(fn, job.mapping, given, fixed, data)
    capacity.require(program.memory, job.budget)
    found = trees.to_host(program.call(given, fixed, data))
    return jax.tree.map(lambda leaf: leaf[: len(job.member_ids)], found)


def _is_plain(phase: Phase) -> bool:
    """Whether a phase begins with nothing but a new optimizer state."""
    is_made_here = phase.estimates or phase.widen or "fresh" in phase.teachers.values()
    return bool(phase.gradient_steps) and not is_made_here and phase.start == "current"


def _carried(phase: Phase, estimates: Tree) -> Tree:
    """What a phase takes over of the estimates of the one before."""
    return estimates if phase.same_optimizer and not phase.estimates else {}


def _plain_start(job: UnlearningJob, index: int, given: State) -> State:
    stage = traced_phase(job, index)

    def init(params: Tree, hyper: Tree) -> Tree:
        return optax.with_extra_args_support(stage.build(hyper).phases[index].transform).init(params)

    if phases(job)[index][0].same_optimizer:
        return given
    hyper = {name: jnp.asarray(values, jnp.float32) for name, values in job.hyper.items()}
    return given._replace(optimizer=trees.to_host(jax.jit(jax.vmap(init))(given.params, hyper)))


class _Shapes(NamedTuple):
    """Shapes [M, ...] at the first step of the phase at `place`."""

    place: int
    state: State
    estimates: Tree
    saved_states: Tree


def _shapes(job: UnlearningJob) -> Iterator[_Shapes]:
    """Shapes before every phase, by tracing what comes before it."""
    stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), job.originals)
    saved_states: dict[str, SavedState] = {}
    state = State(stacked["params"], {name: leaf for name, leaf in stacked.items() if name != "params"}, ())
    estimates: Tree = {}
    for index, (phase, _) in enumerate(phases(job)):
        stage = traced_phase(job, index)
        fixed = {
            "constants": constants_of(job, index, saved_states, {}),
            "streams": estimate_streams(job, index, "estimates"),
        }

        def fn(given: State, fixed: Tree, data: DeviceDataset, stage: tasks.TracedPhase = stage) -> Tree:
            return tasks.begin(stage, given, data, fixed["streams"], fixed["constants"])

        state, found, _ = jax.eval_shape(jax.vmap(fn, in_axes=(0, 0, None)), state, fixed, job.data)
        estimates = {**_carried(phase, estimates), **found}
        yield _Shapes(index, state, estimates, saved_states)
        if phase.save_as:
            saved_states = {**saved_states, phase.save_as: SavedState(state.params, state.model_state, state.optimizer)}
        if phase.widen:
            state = jax.eval_shape(functools.partial(_leave, job, phase), state)


def templates(job: UnlearningJob, index: int) -> Tree:
    """Shapes of a checkpoint inside phase `index`."""
    found = next(one for one in _shapes(job) if one.place == index)
    frozen: Any = jax.ShapeDtypeStruct((len(job.member_ids),), np.int32)
    return {
        "carry": training.Carry(found.state, frozen), "memory": found.saved_states, "estimates": found.estimates,
        "diverged": frozen, "offset": jax.ShapeDtypeStruct((), np.int32),
    }  # fmt: skip


def trace(job: UnlearningJob) -> None:
    """Traces every phase and a step of it, compiles and computes nothing: mistakes show before any training.

    Raises:
      ConfigError: layers that the network lacks, unknown rows. Whatever else a method's own code raises.
    """
    key = keys.root(0)
    step_info = population.StepInfo(jnp.int32(0), jnp.float32(0.0), jnp.int32(0), jnp.int32(1))
    for index, state, estimates, saved_states in _shapes(job):
        phase = phases(job)[index][0]
        if not phase.gradient_steps:
            continue
        batches: dict[str, Any] = {}
        for name, reads in tasks.sized(phase.stream_specs, job.batch).items():
            shape = (reads.batch, *job.data.inputs.shape[1:])
            inputs: Any = jax.ShapeDtypeStruct(shape, job.data.inputs.dtype)
            labels: Any = jax.ShapeDtypeStruct((reads.batch, *job.data.labels.shape[1:]), np.int32)
            real: Any = jax.ShapeDtypeStruct((reads.batch,), np.float32)
            rows: Any = jax.ShapeDtypeStruct((reads.batch,), np.int32)
            batches[name] = population.Batch(inputs, labels, real, rows)
        constants = constants_of(job, index, saved_states, estimates)
        members = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (state, constants))
        stage = traced_phase(job, index)
        on_epoch_start = _on_epoch_start(stage, phase)
        made = {} if on_epoch_start is None else jax.eval_shape(on_epoch_start, members[0], job.data, members[1], key)
        members = (members[0], {**members[1], **made})
        jax.eval_shape(tasks.task(stage).step, members[0], batches, step_info, key, members[1])


def _leave(job: UnlearningJob, phase: Phase, state: State) -> State:
    return state._replace(params=network.narrow(job.network, state.params)) if phase.widen else state


def run(job: UnlearningJob, checkpoint: Checkpoint | None = None) -> Iterator[Event]:
    """Runs all phases; yields after every epoch, and at the end with the outcome.

    Raises:
      ConfigError: a hyperparameter that decides about shapes was given as a sweep; rows or heads that do not exist.
      capacity.DoesNotFit: a program needs more memory than the budget; nothing has been run of it.
    """
    members = len(job.member_ids)
    originals = trees.to_host(job.originals)
    rest = {name: leaf for name, leaf in originals.items() if name != "params"}
    saved_states: dict[str, SavedState] = {}
    state = State(originals["params"], rest, ())
    diverged, offset = np.full(members, NOT_DIVERGED, np.int32), 0
    blank = np.full(members, np.nan, np.float32)
    every, method = phases(job), template(job)
    mid, begun = None, time.monotonic()
    estimates: Tree = {}
    for index, (phase, _) in enumerate(every):
        carry: training.Carry | None = None
        done = 0
        if checkpoint is not None and index < checkpoint.phase:
            continue
        if checkpoint is not None and index == checkpoint.phase:
            saved_states, estimates = checkpoint.tree["memory"], checkpoint.tree["estimates"]
            diverged, offset = np.asarray(checkpoint.tree["diverged"]), int(checkpoint.tree["offset"])
            carry, done = checkpoint.tree["carry"], checkpoint.epoch
            state = carry.state
        elif _is_plain(phase):
            state, estimates = _plain_start(job, index, state), _carried(phase, estimates)
        else:
            state, found, finite = _begin(job, index, state, saved_states)
            estimates = {**_carried(phase, estimates), **found}
            diverged = np.where(finite | (diverged != NOT_DIVERGED), diverged, offset).astype(np.int32)
        epochs = epochs_of(job, index)
        if epochs > done:
            population_job = job_of(job, index, state, saved_states, estimates)
            before = {"memory": saved_states, "estimates": estimates, "diverged": diverged, "offset": np.int32(offset)}
            program = training.compile_epoch(population_job, job.data, job.mapping)
            capacity.require(program.memory, job.budget)
            trained = population.train(
                population_job, job.data, epochs, job.mapping, program=program, carry=carry, done=done
            )  # fmt: skip
            report = None
            for report in trained:

                def keep(report: population.Progress = report, before: Tree = before) -> Tree:
                    return {"carry": population.host(report), **before}

                yield Event(index, report.epoch, report.loss, report.accuracy, keep)
            assert report is not None  # there is at least one epoch to do
            carry = population.host(report)
        if carry is not None:
            state, frozen = carry.state, np.asarray(carry.diverged_at)
            diverged = np.where(
                (diverged == NOT_DIVERGED) & (frozen != NOT_DIVERGED), offset + frozen, diverged
            ).astype(np.int32)
        if epochs:
            offset += epochs * int(steps_of(job, index).max())
        if phase.save_as:
            saved_states = {**saved_states, phase.save_as: SavedState(state.params, state.model_state, state.optimizer)}
        state = _leave(job, phase, state)
        if index + 1 == method.mid and method.ensemble == 1:
            mid = _settled(job, state, originals, diverged, time.monotonic() - begun)
    last = _settled(job, state, originals, diverged, time.monotonic() - begun)
    yield Event(len(every), 0, blank, blank, dict, last._replace(mid=mid))


def _settled(job: UnlearningJob, state: State, originals: Tree, diverged: np.ndarray, seconds: float) -> Outcome:
    """An outcome with BatchNorm's statistics as the policy wants them; what was not touched keeps its own."""
    variables = {"params": state.params, **state.model_state}
    pairs = zip(jax.tree.leaves(variables), jax.tree.leaves(originals), strict=True)
    if any(not np.array_equal(new, old) for new, old in pairs):
        variables = {"params": state.params, **batch_norm.finalise_batch_norm(job, state)}
    return Outcome(trees.to_host(variables), diverged.copy(), seconds)
