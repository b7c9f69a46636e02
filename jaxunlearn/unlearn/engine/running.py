"""Runs a method on a whole population at once: phases in sequence, each as one compiled program per epoch.

    for event in run(job):           # the caller reports and stores checkpoints
        ...
    event.outcome                    # of the last event: variables [M, ...], diverged_at [M]

A member is one (forget set, hyperparameters) pair. Nothing here opens a file.
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
from jaxunlearn.unlearn.engine import batch_norm, jobs, tasks
from jaxunlearn.unlearn.engine.jobs import (
    UnlearningJob,
    constants_of,
    epochs_of,
    estimate_streams,
    phases,
    steps_of,
    streams_of,
    template,
)

Tree = Any
NOT_DIVERGED = training.NOT_DIVERGED


class Outcome(NamedTuple):
    """Result of a method on M members.

    Attributes:
      variables: flax variables [M, ...].
      diverged_at: [M] step at which a member was frozen, -1 = never.
      seconds: since the start of the run, including compiling.
      mid: the outcome after `Method.mid` phases, if the method has a `mid`, is not an ensemble, and the run was not
        resumed after it.
    """

    variables: Tree
    diverged_at: np.ndarray
    seconds: float = float("nan")
    mid: "Outcome | None" = None


class Event(NamedTuple):
    """State of a run after an epoch, and once at its end.

    Attributes:
      phase: index of the phase; `epoch`: its finished epochs.
      loss, accuracy: [M] means over the primary stream.
      checkpoint: () -> host tree for `Checkpoint`, from which `run` resumes.
      outcome: in the last event only.
    """

    phase: int
    epoch: int
    loss: np.ndarray
    accuracy: np.ndarray
    checkpoint: Callable[[], Tree]
    outcome: Outcome | None = None


class PhaseCheckpoint(NamedTuple):
    """Progress of a run: `tree` from `Event.checkpoint` after `epoch` epochs of `phase`."""

    phase: int
    epoch: int
    tree: Tree


def job_of(
    job: UnlearningJob, index: int, initial: State, saved_states: Tree, estimates: Tree,
    diverged_at: np.ndarray | None = None,
) -> population.TrainingJob:  # fmt: skip
    """Returns the population job of a phase with gradient steps.

    Args:
      job: the unlearning job.
      index: of the phase.
      initial: state [M, ...] before the first step.
      saved_states: SavedStates of earlier phases, by name.
      estimates: of the phase, by name.
      diverged_at: [M] step at which an earlier phase froze a member, -1 = never; None = no member is frozen.
    """
    traced_phase, phase = jobs.traced_phase(job, index), phases(job)[index][0]
    stream_specs = tasks.with_batch_sizes(phase.stream_specs, job.batch)
    streams = streams_of(job, index, lambda member_phase: member_phase.stream_specs, "")
    primary = next(iter(stream_specs))

    return population.TrainingJob(
        task=tasks.task(traced_phase),
        streams=streams,
        batches={name: spec.batch for name, spec in stream_specs.items()},
        member_ids=np.asarray(job.member_ids, np.int32),
        key=keys.at(job.key, index),
        constants=constants_of(job, index, saved_states, estimates),
        steps=max(1, population.steps_per_epoch(streams[primary], stream_specs[primary].batch)),
        initial=initial,
        diverged_at=diverged_at,
        unshuffled=tuple(name for name, spec in stream_specs.items() if not spec.shuffle),
        continue_across_epochs=tuple(name for name, spec in stream_specs.items() if spec.continue_across_epochs),
        max_steps=phase.max_steps,
        on_epoch_start=_on_epoch_start(traced_phase, phase),
    )


def _on_epoch_start(
    traced_phase: tasks.TracedPhase, phase: Phase
) -> Callable[[State, DeviceDataset, Tree, jax.Array], Tree] | None:
    """Returns the function that computes the estimates of every epoch, as constants of its steps."""
    if not phase.every_epoch:
        return None

    def on_epoch_start(state: State, data: DeviceDataset, constants: Tree, key: jax.Array) -> dict[str, Tree]:
        member_phase = tasks.phase_of(traced_phase, constants)
        estimates, _ = tasks.estimate_all(traced_phase._replace(mode="eval"), member_phase.every_epoch, state, data,
                                      constants["epoch_streams"], constants, key)  # fmt: skip
        return {"estimates": {**constants["estimates"], **estimates}}

    return on_epoch_start


def _begin(job: UnlearningJob, index: int, initial: State, saved_states: Tree) -> tuple[State, Tree, np.ndarray]:
    """Returns the members' state before the first step of a phase, its estimates, and [M] whether all is finite."""
    traced_phase = jobs.traced_phase(job, index)
    inputs = {
        "constants": constants_of(job, index, saved_states, {}),
        "streams": estimate_streams(job, index, "estimates"),
    }
    arguments = executor.pad(jax.tree.map(np.asarray, (initial, inputs)), job.mapping)

    def fn(initial: State, inputs: Tree, shared: DeviceDataset) -> Tree:
        return tasks.begin(traced_phase, initial, shared, inputs["streams"], inputs["constants"])

    initial, inputs = executor.place(arguments, job.mapping)
    data = executor.place(job.data, job.mapping, shared=True)
    program = executor.compile_mapped(fn, job.mapping, initial, inputs, data)
    capacity.require(program.memory, job.budget)
    results = trees.to_host(program.call(initial, inputs, data))
    return jax.tree.map(lambda leaf: leaf[: len(job.member_ids)], results)


def _keep_frozen(is_frozen: np.ndarray, state: State, start: State) -> State:
    """Returns the start of a phase in which members that an earlier phase froze keep their weights."""

    def keep(new: np.ndarray, old: np.ndarray) -> np.ndarray:
        return np.where(is_frozen.reshape(-1, *[1] * (new.ndim - 1)), old, new)

    if not is_frozen.any():
        return start
    params, model_state = jax.tree.map(keep, (start.params, start.model_state), (state.params, state.model_state))
    return start._replace(params=params, model_state=model_state)


def _is_plain(phase: Phase) -> bool:
    """Returns whether a phase begins with a new optimizer state only."""
    has_more = phase.estimates or phase.widen or "fresh" in phase.teachers.values()
    return bool(phase.gradient_steps) and not has_more and phase.start == "current"


def _inherited_estimates(phase: Phase, estimates: Tree) -> Tree:
    """Returns the estimates that a phase inherits from the previous one."""
    return estimates if phase.same_optimizer and not phase.estimates else {}


def _plain_start(job: UnlearningJob, index: int, state: State) -> State:
    traced_phase = jobs.traced_phase(job, index)

    def init(carry: None, inputs: Tree, shared: None) -> Tree:
        params, hyper = inputs
        return optax.with_extra_args_support(traced_phase.build(hyper).phases[index].transform).init(params)

    if phases(job)[index][0].same_optimizer:
        return state
    hyper = {name: np.asarray(values, np.float32) for name, values in job.hyper.items()}
    inputs = executor.pad(jax.tree.map(np.asarray, (state.params, hyper)), job.mapping)
    program = executor.compile_mapped(init, job.mapping, None, inputs, None)
    capacity.require(program.memory, job.budget)
    optimizer = trees.to_host(program.call(None, executor.place(inputs, job.mapping), None))
    return state._replace(optimizer=jax.tree.map(lambda leaf: leaf[: len(job.member_ids)], optimizer))


class _Shapes(NamedTuple):
    """Shapes [M, ...] at the first step of the phase at `position`."""

    position: int
    state: State
    estimates: Tree
    saved_states: Tree


def _shapes(job: UnlearningJob) -> Iterator[_Shapes]:
    """Yields the shapes before every phase, by tracing the phases before it."""
    stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), job.originals)
    saved_states: dict[str, SavedState] = {}
    state = State(*trees.split_variables(stacked), ())
    estimates: Tree = {}
    for index, (phase, _) in enumerate(phases(job)):
        traced_phase = jobs.traced_phase(job, index)
        inputs = {
            "constants": constants_of(job, index, saved_states, {}),
            "streams": estimate_streams(job, index, "estimates"),
        }

        def fn(
            initial: State, inputs: Tree, data: DeviceDataset, traced_phase: tasks.TracedPhase = traced_phase
        ) -> Tree:
            return tasks.begin(traced_phase, initial, data, inputs["streams"], inputs["constants"])

        state, new_estimates, _ = jax.eval_shape(jax.vmap(fn, in_axes=(0, 0, None)), state, inputs, job.data)
        estimates = {**_inherited_estimates(phase, estimates), **new_estimates}
        yield _Shapes(index, state, estimates, saved_states)
        if phase.save_as:
            saved_states = {**saved_states, phase.save_as: SavedState(state.params, state.model_state, state.optimizer)}
        if phase.widen:
            state = jax.eval_shape(functools.partial(_leave, job, phase), state)


def templates(job: UnlearningJob, index: int) -> Tree:
    """Returns the shapes of a checkpoint inside phase `index`."""
    shapes = next(phase_shapes for phase_shapes in _shapes(job) if phase_shapes.position == index)
    diverged_at: Any = jax.ShapeDtypeStruct((len(job.member_ids),), np.int32)
    return {
        "carry": training.Carry(shapes.state, diverged_at), "memory": shapes.saved_states,
        "estimates": shapes.estimates, "diverged": diverged_at, "offset": jax.ShapeDtypeStruct((), np.int32),
    }  # fmt: skip


def trace(job: UnlearningJob) -> None:
    """Traces every phase and one of its steps without compiling or computing, to find mistakes before any training.

    Raises:
      ConfigError: layers that the network lacks, unknown rows. Also all errors of the method's own code.
    """
    key = keys.root(0)
    step_info = population.StepInfo(jnp.int32(0), jnp.float32(0.0), jnp.int32(0), jnp.int32(1))
    for index, state, estimates, saved_states in _shapes(job):
        phase = phases(job)[index][0]
        if not phase.gradient_steps:
            continue
        batches: dict[str, Any] = {}
        for name, stream_spec in tasks.with_batch_sizes(phase.stream_specs, job.batch).items():
            shape = (stream_spec.batch, *job.data.inputs.shape[1:])
            inputs: Any = jax.ShapeDtypeStruct(shape, job.data.inputs.dtype)
            labels: Any = jax.ShapeDtypeStruct((stream_spec.batch, *job.data.labels.shape[1:]), np.int32)
            weights: Any = jax.ShapeDtypeStruct((stream_spec.batch,), np.float32)
            rows: Any = jax.ShapeDtypeStruct((stream_spec.batch,), np.int32)
            batches[name] = population.Batch(inputs, labels, weights, rows)
        constants = constants_of(job, index, saved_states, estimates)
        members = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (state, constants))
        traced_phase = jobs.traced_phase(job, index)
        on_epoch_start = _on_epoch_start(traced_phase, phase)
        epoch_constants = (
            {} if on_epoch_start is None else jax.eval_shape(on_epoch_start, members[0], job.data, members[1], key)
        )
        members = (members[0], {**members[1], **epoch_constants})
        jax.eval_shape(tasks.task(traced_phase).step, members[0], batches, step_info, key, members[1])


def _leave(job: UnlearningJob, phase: Phase, state: State) -> State:
    return state._replace(params=network.narrow(job.network, state.params)) if phase.widen else state


def run(job: UnlearningJob, checkpoint: PhaseCheckpoint | None = None) -> Iterator[Event]:
    """Runs all phases; yields after every epoch, and at the end with the outcome.

    Raises:
      ConfigError: a hyperparameter that determines shapes differs between members; rows or heads that do not exist.
      capacity.DoesNotFit: a program needs more memory than the budget; it has not been run.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from jaxunlearn import keys, models, population, settings, unlearn
      >>> module = models.build(settings.ModelSettings("logistic"), num_classes=3)
      >>> network = unlearn.Network(module, lambda inputs, key, is_train: inputs,
      ...                           jax.ShapeDtypeStruct((4,), jnp.float32), num_classes=3)
      >>> inputs = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
      >>> job = unlearn.UnlearningJob(
      ...     network, population.DeviceDataset(inputs, np.arange(20, dtype=np.int32) % 3),
      ...     build=lambda hyper: unlearn.descent.ascent(lr=0.01, epochs=1), hyper={},
      ...     originals=jax.vmap(lambda key: module.init(key, inputs[:1]))(jax.random.split(jax.random.key(0), 2)),
      ...     forget=[np.arange(5), np.arange(5, 8)], retain=[np.arange(5, 20), np.r_[0:5, 8:20]],  # of 2 members
      ...     validation=np.arange(0), member_ids=np.arange(2), submodel=np.zeros(2, np.int32), key=keys.root(0),
      ...     mapping=population.make_mapping(devices=1))
      >>> *_, last = unlearn.running.run(job)
      >>> last.outcome.variables["params"]["Dense_0"]["kernel"].shape
      (2, 4, 3)
    """
    members = len(job.member_ids)
    originals = trees.to_host(job.originals)
    saved_states: dict[str, SavedState] = {}
    state = State(*trees.split_variables(originals), ())
    diverged, offset = np.full(members, NOT_DIVERGED, np.int32), 0
    nans = np.full(members, np.nan, np.float32)
    all_phases, method = phases(job), template(job)
    mid, start_time = None, time.monotonic()
    estimates: Tree = {}
    for index, (phase, _) in enumerate(all_phases):
        carry: training.Carry | None = None
        epochs_done = 0
        if checkpoint is not None and index < checkpoint.phase:
            continue
        if checkpoint is not None and index == checkpoint.phase:
            saved_states, estimates = checkpoint.tree["memory"], checkpoint.tree["estimates"]
            diverged, offset = np.asarray(checkpoint.tree["diverged"]), int(checkpoint.tree["offset"])
            carry, epochs_done = checkpoint.tree["carry"], checkpoint.epoch
            state = carry.state
        elif _is_plain(phase):
            state, estimates = _plain_start(job, index, state), _inherited_estimates(phase, estimates)
        else:
            start, new_estimates, finite = _begin(job, index, state, saved_states)
            estimates = {**_inherited_estimates(phase, estimates), **new_estimates}
            state = start if phase.widen else _keep_frozen(diverged != NOT_DIVERGED, state, start)
            diverged = np.where(finite | (diverged != NOT_DIVERGED), diverged, offset).astype(np.int32)
        epochs = epochs_of(job, index)
        if epochs > epochs_done:
            population_job = job_of(job, index, state, saved_states, estimates, diverged)
            checkpoint_base = {
                "memory": saved_states,
                "estimates": estimates,
                "diverged": diverged,
                "offset": np.int32(offset),
            }
            program = training.compile_epoch(population_job, job.data, job.mapping)
            capacity.require(program.memory, job.budget)
            reports = population.train(
                population_job, job.data, epochs, job.mapping, program=program, carry=carry, done=epochs_done
            )  # fmt: skip
            report = None
            for report in reports:

                def make_checkpoint(report: population.Progress = report, base: Tree = checkpoint_base) -> Tree:
                    return {"carry": population.host(report), **base}

                yield Event(index, report.epoch, report.loss, report.accuracy, make_checkpoint)
            assert report is not None  # there is at least one epoch
            carry = population.host(report)
        if carry is not None:
            state, frozen_at = carry.state, np.asarray(carry.diverged_at)
            diverged = np.where(
                (diverged == NOT_DIVERGED) & (frozen_at != NOT_DIVERGED), offset + frozen_at, diverged
            ).astype(np.int32)
        if epochs:
            offset += epochs * int(steps_of(job, index).max())
        if phase.save_as:
            saved_states = {**saved_states, phase.save_as: SavedState(state.params, state.model_state, state.optimizer)}
        state = _leave(job, phase, state)
        if index + 1 == method.mid and method.ensemble == 1:
            mid = _make_outcome(job, state, originals, diverged, time.monotonic() - start_time)
    outcome = _make_outcome(job, state, originals, diverged, time.monotonic() - start_time)
    yield Event(len(all_phases), 0, nans, nans, dict, outcome._replace(mid=mid))


def _make_outcome(job: UnlearningJob, state: State, originals: Tree, diverged: np.ndarray, seconds: float) -> Outcome:
    """Returns the outcome with BatchNorm statistics by the policy; unchanged models keep theirs."""
    variables = population.variables(state)
    pairs = zip(jax.tree.leaves(variables), jax.tree.leaves(originals), strict=True)
    if any(not np.array_equal(new, old) for new, old in pairs):
        variables = trees.join_variables(state.params, batch_norm.finalise_batch_norm(job, state))
    return Outcome(trees.to_host(variables), diverged.copy(), seconds)
