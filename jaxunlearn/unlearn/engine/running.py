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
from jaxunlearn.population import Resident, State, capacity, lift, training
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import Phase, Saved
from jaxunlearn.unlearn.engine import statistics, tasks
from jaxunlearn.unlearn.engine.setups import (
    Setup,
    constants_of,
    epochs_of,
    estimate_streams,
    phases,
    stage_of,
    steps_of,
    streams_of,
    structure,
)

Tree = Any
NEVER = training.NEVER


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


def job_of(setup: Setup, index: int, initial: State, memory: Tree, estimates: Tree) -> population.Job:
    """The engine's job of a phase with moves."""
    stage, phase = stage_of(setup, index), phases(setup)[index][0]
    reads = tasks.sized(phase.reads, setup.batch)
    streams = streams_of(setup, index, lambda one: one.reads, "")
    driver = next(iter(reads))

    return population.Job(
        task=tasks.task(stage),
        streams=streams,
        batches={name: one.batch for name, one in reads.items()},
        member_ids=np.asarray(setup.numbers, np.int32),
        key=keys.at(setup.key, index),
        constants=constants_of(setup, index, memory, estimates),
        steps=max(1, population.steps_per_epoch(streams[driver], reads[driver].batch)),
        initial=initial,
        fixed=tuple(name for name, one in reads.items() if not one.shuffle),
        carried_on=tuple(name for name, one in reads.items() if one.carried_on),
        stop=phase.stop,
        prologue=_prologue(stage, phase),
    )


def _prologue(stage: tasks.Stage, phase: Phase) -> Callable[[State, Resident, Tree, jax.Array], Tree] | None:
    """What is estimated anew at the start of every epoch, as constants of its steps."""
    if not phase.every_epoch:
        return None

    def prologue(state: State, data: Resident, constants: Tree, key: jax.Array) -> dict[str, Tree]:
        own = tasks.phase_of(stage, constants)
        found, _ = tasks.estimate_all(stage._replace(mode="eval"), own.every_epoch, state, data,
                                      constants["epoch_streams"], constants, key)  # fmt: skip
        return {"estimates": {**constants["estimates"], **found}}

    return prologue


def _begin(setup: Setup, index: int, given: State, memory: Tree) -> tuple[State, Tree, np.ndarray]:
    """The state of all members before the first step of a phase, its estimates, and who stayed finite."""
    stage = stage_of(setup, index)
    fixed = {
        "constants": constants_of(setup, index, memory, {}),
        "streams": estimate_streams(setup, index, "estimates"),
    }
    arguments = lift.pad(jax.tree.map(np.asarray, (given, fixed)), setup.lifting)

    def fn(given: State, fixed: Tree, shared: Resident) -> Tree:
        return tasks.begin(stage, given, shared, fixed["streams"], fixed["constants"])

    given, fixed = lift.place(arguments, setup.lifting)
    data = lift.place(setup.data, setup.lifting, shared=True)
    program = lift.compile_lifted(fn, setup.lifting, given, fixed, data)
    capacity.require(program.memory, setup.budget)
    found = trees.to_host(program.call(given, fixed, data))
    return jax.tree.map(lambda leaf: leaf[: len(setup.numbers)], found)


def _is_plain(phase: Phase) -> bool:
    """Whether a phase begins with nothing but a new optimizer state."""
    is_made_here = phase.estimates or phase.widen or "fresh" in phase.teachers.values()
    return bool(phase.moves) and not is_made_here and phase.start == "current"


def _carried(phase: Phase, estimates: Tree) -> Tree:
    """What a phase takes over of the estimates of the one before."""
    return estimates if phase.same_optimizer and not phase.estimates else {}


def _plain_start(setup: Setup, index: int, given: State) -> State:
    stage = stage_of(setup, index)

    def init(params: Tree, hyper: Tree) -> Tree:
        return optax.with_extra_args_support(stage.build(hyper).phases[index].transform).init(params)

    if phases(setup)[index][0].same_optimizer:
        return given
    hyper = {name: jnp.asarray(values, jnp.float32) for name, values in setup.hyper.items()}
    return given._replace(optimizer=trees.to_host(jax.jit(jax.vmap(init))(given.params, hyper)))


class _Shapes(NamedTuple):
    """Shapes [M, ...] at the first step of the phase at `place`."""

    place: int
    state: State
    estimates: Tree
    memory: Tree


def _shapes(setup: Setup) -> Iterator[_Shapes]:
    """Shapes before every phase, by tracing what comes before it."""
    stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), setup.originals)
    memory: dict[str, Saved] = {}
    state = State(stacked["params"], {name: leaf for name, leaf in stacked.items() if name != "params"}, ())
    estimates: Tree = {}
    for index, (phase, _) in enumerate(phases(setup)):
        stage = stage_of(setup, index)
        fixed = {
            "constants": constants_of(setup, index, memory, {}),
            "streams": estimate_streams(setup, index, "estimates"),
        }

        def fn(given: State, fixed: Tree, data: Resident, stage: tasks.Stage = stage) -> Tree:
            return tasks.begin(stage, given, data, fixed["streams"], fixed["constants"])

        state, found, _ = jax.eval_shape(jax.vmap(fn, in_axes=(0, 0, None)), state, fixed, setup.data)
        estimates = {**_carried(phase, estimates), **found}
        yield _Shapes(index, state, estimates, memory)
        if phase.keep:
            memory = {**memory, phase.keep: Saved(state.params, state.statistics, state.optimizer)}
        if phase.widen:
            state = jax.eval_shape(functools.partial(_leave, setup, phase), state)


def templates(setup: Setup, index: int) -> Tree:
    """Shapes of a checkpoint inside phase `index`."""
    found = next(one for one in _shapes(setup) if one.place == index)
    frozen: Any = jax.ShapeDtypeStruct((len(setup.numbers),), np.int32)
    return {
        "carry": training.Carry(found.state, frozen), "memory": found.memory, "estimates": found.estimates,
        "diverged": frozen, "offset": jax.ShapeDtypeStruct((), np.int32),
    }  # fmt: skip


def trace(setup: Setup) -> None:
    """Traces every phase and a step of it, compiles and computes nothing: mistakes show before any training.

    Raises:
      ConfigError: layers that the network lacks, unknown rows. Whatever else a method's own code raises.
    """
    key = keys.root(0)
    clock = population.Clock(jnp.int32(0), jnp.float32(0.0), jnp.int32(0), jnp.int32(1))
    for index, state, estimates, memory in _shapes(setup):
        phase = phases(setup)[index][0]
        if not phase.moves:
            continue
        batches: dict[str, Any] = {}
        for name, reads in tasks.sized(phase.reads, setup.batch).items():
            shape = (reads.batch, *setup.data.inputs.shape[1:])
            inputs: Any = jax.ShapeDtypeStruct(shape, setup.data.inputs.dtype)
            labels: Any = jax.ShapeDtypeStruct((reads.batch, *setup.data.labels.shape[1:]), np.int32)
            real: Any = jax.ShapeDtypeStruct((reads.batch,), np.float32)
            rows: Any = jax.ShapeDtypeStruct((reads.batch,), np.int32)
            batches[name] = population.Batch(inputs, labels, real, rows)
        constants = constants_of(setup, index, memory, estimates)
        members = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (state, constants))
        stage = stage_of(setup, index)
        prologue = _prologue(stage, phase)
        made = {} if prologue is None else jax.eval_shape(prologue, members[0], setup.data, members[1], key)
        members = (members[0], {**members[1], **made})
        jax.eval_shape(tasks.task(stage).step, members[0], batches, clock, key, members[1])


def _leave(setup: Setup, phase: Phase, state: State) -> State:
    return state._replace(params=network.narrow(setup.network, state.params)) if phase.widen else state


def run(setup: Setup, checkpoint: Checkpoint | None = None) -> Iterator[Event]:
    """Runs all phases; yields after every epoch, and at the end with the outcome.

    Raises:
      ConfigError: a hyperparameter that decides about shapes was given as a sweep; rows or heads that do not exist.
      capacity.DoesNotFit: a program needs more memory than the budget; nothing has been run of it.
    """
    members = len(setup.numbers)
    originals = trees.to_host(setup.originals)
    rest = {name: leaf for name, leaf in originals.items() if name != "params"}
    memory: dict[str, Saved] = {}
    state = State(originals["params"], rest, ())
    diverged, offset = np.full(members, NEVER, np.int32), 0
    blank = np.full(members, np.nan, np.float32)
    every, method = phases(setup), structure(setup)
    mid, begun = None, time.monotonic()
    estimates: Tree = {}
    for index, (phase, _) in enumerate(every):
        carry: training.Carry | None = None
        done = 0
        if checkpoint is not None and index < checkpoint.phase:
            continue
        if checkpoint is not None and index == checkpoint.phase:
            memory, estimates = checkpoint.tree["memory"], checkpoint.tree["estimates"]
            diverged, offset = np.asarray(checkpoint.tree["diverged"]), int(checkpoint.tree["offset"])
            carry, done = checkpoint.tree["carry"], checkpoint.epoch
            state = carry.state
        elif _is_plain(phase):
            state, estimates = _plain_start(setup, index, state), _carried(phase, estimates)
        else:
            state, found, finite = _begin(setup, index, state, memory)
            estimates = {**_carried(phase, estimates), **found}
            diverged = np.where(finite | (diverged != NEVER), diverged, offset).astype(np.int32)
        epochs = epochs_of(setup, index)
        if epochs > done:
            job = job_of(setup, index, state, memory, estimates)
            before = {"memory": memory, "estimates": estimates, "diverged": diverged, "offset": np.int32(offset)}
            program = training.compile_epoch(job, setup.data, setup.lifting)
            capacity.require(program.memory, setup.budget)
            trained = population.train(
                job, setup.data, epochs, setup.lifting, program=program, carry=carry, done=done
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
            diverged = np.where((diverged == NEVER) & (frozen != NEVER), offset + frozen, diverged).astype(np.int32)
        if epochs:
            offset += epochs * int(steps_of(setup, index).max())
        if phase.keep:
            memory = {**memory, phase.keep: Saved(state.params, state.statistics, state.optimizer)}
        state = _leave(setup, phase, state)
        if index + 1 == method.mid and method.ensemble == 1:
            mid = _settled(setup, state, originals, diverged, time.monotonic() - begun)
    last = _settled(setup, state, originals, diverged, time.monotonic() - begun)
    yield Event(len(every), 0, blank, blank, dict, last._replace(mid=mid))


def _settled(setup: Setup, state: State, originals: Tree, diverged: np.ndarray, seconds: float) -> Outcome:
    """An outcome with BatchNorm's statistics as the policy wants them; what was not touched keeps its own."""
    variables = {"params": state.params, **state.statistics}
    pairs = zip(jax.tree.leaves(variables), jax.tree.leaves(originals), strict=True)
    if any(not np.array_equal(new, old) for new, old in pairs):
        variables = {"params": state.params, **statistics.settled(setup, state)}
    return Outcome(trees.to_host(variables), diverged.copy(), seconds)
