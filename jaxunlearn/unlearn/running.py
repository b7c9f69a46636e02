"""Runs a method over a whole population at once: phases in sequence, every phase one compiled program per epoch.

    for event in run(setup):         # the caller reports and keeps checkpoints
        ...
    event.outcome                    # of the last one: variables [M, ...], diverged_at [M]

A member is one (forget set, setting of hyperparameters) pair. Nothing here opens a file.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxunlearn import errors, keys, population, trees
from jaxunlearn.population import Lifting, Resident, State, Stream, lift, training
from jaxunlearn.unlearn import network, passes, tasks
from jaxunlearn.unlearn.method import Method, Phase, Pools, Reads, Saved
from jaxunlearn.unlearn.network import Network

Tree = Any
NEVER = training.NEVER
POLICIES = ("auto", "frozen", "recalibrate", "faithful", "first_epoch")


class Setup(NamedTuple):
    """Everything that decides about the numbers of M members, and where they run.

    Attributes:
      network: the model; `data`: resident inputs and labels.
      build: {name: number} -> Method; called with plain numbers on the host and with traced scalars inside.
      hyper: name -> [M] float64, the hyperparameters that may differ between members (float32 inside).
      originals: flax variables with leading M: what each member starts from.
      forget, retain: [M][n] rows of each member; validation: [p] rows of all.
      numbers: [M] int32, what keys are derived from; part: [M] int32 part of an ensemble.
      key: root key of the role.
      lifting: how members are mapped.
      bn: "auto" (the method's own), "frozen", "recalibrate", "faithful" or "first_epoch" (training mode in the first
        epoch only, as code that forgets to switch back after an evaluation does).
      batch: rows per step where a stream does not say; augment: whether inputs are augmented.
    """

    network: Network
    data: Resident
    build: Callable[[Mapping[str, Any]], Method]
    hyper: Mapping[str, np.ndarray]
    originals: Tree
    forget: Sequence[np.ndarray]
    retain: Sequence[np.ndarray]
    validation: np.ndarray
    numbers: np.ndarray
    part: np.ndarray
    key: jax.Array
    lifting: Lifting
    bn: str = "auto"
    batch: int = 64
    augment: bool = True


class Outcome(NamedTuple):
    """What a method made of M members: flax variables [M, ...], and [M] steps at which a member was frozen, or -1."""

    variables: Tree
    diverged_at: np.ndarray


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


def structure(setup: Setup) -> Method:
    """The method of member 0: its phases have the same shape for all."""
    return _concrete(setup, 0)


def _concrete(setup: Setup, member: int) -> Method:
    return setup.build({name: float(values[member]) for name, values in setup.hyper.items()})


def policy(setup: Setup) -> str:
    """The BatchNorm policy in force."""
    return structure(setup).bn if setup.bn == "auto" else setup.bn


def phases(setup: Setup) -> tuple[tuple[Phase, str], ...]:
    """The phases of member 0 with the mode that each runs in; with "first_epoch" trainings are cut in two."""
    chosen = policy(setup)
    mode = "eval" if chosen == "frozen" else "train"
    return tuple((phase, phase.mode or mode) for phase in _cut(setup, structure(setup)).phases)


def _cut(setup: Setup, method: Method) -> Method:
    """With the policy "first_epoch", every training phase as one epoch in training mode and the rest in evaluation."""
    if policy(setup) != "first_epoch":
        return method
    from jaxunlearn.unlearn import wrappers

    return wrappers.training_mode_in_first_epoch(method)


def pools_of(setup: Setup, member: int, index: int, name: str) -> Pools:
    """The rows of one member; the generator depends on the role, the member's number, the phase and the stream."""
    seed = np.asarray(jax.random.key_data(setup.key)).ravel()
    rng = np.random.default_rng([*map(int, seed), int(setup.numbers[member]), index, keys.name_hash(name)])
    return Pools(
        np.asarray(setup.forget[member], np.int32), np.asarray(setup.retain[member], np.int32),
        np.asarray(setup.validation, np.int32), np.asarray(setup.data.labels), int(setup.part[member]), rng,
    )  # fmt: skip


def rows_of(reads: Reads, pools: Pools) -> list[np.ndarray]:
    """The segments of row numbers that a stream reads.

    Raises:
      ConfigError: an unknown name of rows.
    """
    segments = reads.rows if isinstance(reads.rows, tuple) else (reads.rows,)
    found = []
    for one in segments:
        if callable(one):
            found.append(np.asarray(one(pools), np.int32))
            continue
        parts = []
        for name in one.split("+"):
            if name not in ("forget", "retain", "validation"):
                raise errors.unknown("rows", name, ("forget", "retain", "validation"))
            parts.append(getattr(pools, name))
        found.append(np.concatenate(parts))
    return found


def _streams(
    setup: Setup, index: int, reads_of: Callable[[Phase], Mapping[str, Reads]], prefix: str
) -> dict[str, Stream]:
    """Streams with leading M of one phase or estimate, each member's rows from its own numbers."""
    members = range(len(setup.numbers))
    methods = [_cut(setup, _concrete(setup, member)) for member in members]
    found = {}
    for name, reads in tasks.sized(reads_of(methods[0].phases[index]), setup.batch).items():
        parts = [
            rows_of(reads_of(methods[member].phases[index])[name], pools_of(setup, member, index, prefix + name))
            for member in members
        ]
        found[name] = population.from_rows(parts, reads.batch)
    return found


def _estimate_streams(setup: Setup, index: int, which: str) -> dict[str, dict[str, Stream]]:
    phase = phases(setup)[index][0]
    return {
        name: _streams(setup, index, lambda one, name=name: getattr(one, which)[name].reads, f"{name}.")  # type: ignore[misc]
        for name in getattr(phase, which)
    }


def stage_of(setup: Setup, index: int) -> tasks.Stage:
    """One phase ready to be traced."""
    phase, mode = phases(setup)[index]
    net = network.widened(setup.network) if phase.widen else setup.network

    def build(hyper: Mapping[str, Any]) -> Method:
        return _cut(setup, setup.build(hyper))

    return tasks.Stage(net, build, index, mode, setup.key, setup.batch, setup.augment)


def constants_of(setup: Setup, index: int, memory: Tree, estimates: Tree) -> dict[str, Any]:
    """Constants of all members in a phase; every leaf with a leading M."""
    forget = np.zeros((len(setup.numbers), len(np.asarray(setup.data.labels))), bool)
    for line, rows in zip(forget, setup.forget, strict=True):
        line[np.asarray(rows)] = True
    return {
        "number": np.asarray(setup.numbers, np.int32),
        "hyper": {name: np.asarray(values, np.float32) for name, values in setup.hyper.items()},
        "forget": forget,
        "reference": setup.originals,
        "memory": memory,
        "estimates": estimates,
        "epoch_streams": _estimate_streams(setup, index, "every_epoch"),
    }


def job_of(setup: Setup, index: int, initial: State, memory: Tree, estimates: Tree) -> population.Job:
    """The engine's job of a phase with moves."""
    stage, phase = stage_of(setup, index), phases(setup)[index][0]
    reads = tasks.sized(phase.reads, setup.batch)
    streams = _streams(setup, index, lambda one: one.reads, "")
    driver = next(iter(reads))

    def prologue(state: State, data: Resident, constants: Tree, key: jax.Array) -> dict[str, Tree]:
        own = tasks.phase_of(stage, constants)
        found, _ = tasks.estimate_all(stage._replace(mode="eval"), own.every_epoch, state, data,
                                      constants["epoch_streams"], constants, key)  # fmt: skip
        return {"estimates": {**constants["estimates"], **found}}

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
        prologue=prologue if phase.every_epoch else None,
    )


def _begin(setup: Setup, index: int, given: State, memory: Tree) -> tuple[State, Tree, np.ndarray]:
    """The state of all members before the first step of a phase, its estimates, and who stayed finite."""
    stage = stage_of(setup, index)
    fixed = {
        "constants": constants_of(setup, index, memory, {}),
        "streams": _estimate_streams(setup, index, "estimates"),
    }
    arguments = lift.pad(jax.tree.map(np.asarray, (given, fixed)), setup.lifting)

    def fn(given: State, fixed: Tree, shared: Resident) -> Tree:
        return tasks.begin(stage, given, shared, fixed["streams"], fixed["constants"])

    given, fixed = lift.place(arguments, setup.lifting)
    data = lift.place(setup.data, setup.lifting, shared=True)
    program = lift.compile_lifted(fn, setup.lifting, given, fixed, data)
    found = trees.to_host(program.call(given, fixed, data))
    return jax.tree.map(lambda leaf: leaf[: len(setup.numbers)], found)


def _is_plain(phase: Phase) -> bool:
    """Whether a phase begins with nothing but a new optimizer state."""
    return bool(phase.moves) and not phase.estimates and phase.start == "current" and not phase.widen


def _plain_start(setup: Setup, index: int, given: State) -> State:
    stage = stage_of(setup, index)

    def init(params: Tree, hyper: Tree) -> Tree:
        return optax.with_extra_args_support(stage.build(hyper).phases[index].transform).init(params)

    if phases(setup)[index][0].same_optimizer:
        return given
    hyper = {name: jnp.asarray(values, jnp.float32) for name, values in setup.hyper.items()}
    return given._replace(optimizer=trees.to_host(jax.jit(jax.vmap(init))(given.params, hyper)))


def templates(setup: Setup, index: int) -> Tree:
    """Shapes of a checkpoint inside phase `index`."""
    members = len(setup.numbers)
    stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), setup.originals)
    rest = {name: leaf for name, leaf in stacked.items() if name != "params"}
    memory: dict[str, Saved] = {}
    state = State(stacked["params"], rest, ())
    kept: Tree = {}
    for number in range(index + 1):
        phase = phases(setup)[number][0]
        stage = stage_of(setup, number)
        fixed = {
            "constants": constants_of(setup, number, memory, {}),
            "streams": _estimate_streams(setup, number, "estimates"),
        }

        def fn(given: State, fixed: Tree, data: Resident, stage: tasks.Stage = stage) -> Tree:
            return tasks.begin(stage, given, data, fixed["streams"], fixed["constants"])

        state, estimates, _ = jax.eval_shape(jax.vmap(fn, in_axes=(0, 0, None)), state, fixed, setup.data)
        estimates = kept if phase.same_optimizer and not phase.estimates else estimates
        kept = estimates
        if number == index:
            frozen: Any = jax.ShapeDtypeStruct((members,), np.int32)
            return {"carry": training.Carry(state, frozen), "memory": memory, "estimates": estimates}
        if phase.keep:
            memory = {**memory, phase.keep: Saved(state.params, state.statistics, state.optimizer)}
        if phase.widen:
            state = jax.eval_shape(functools.partial(_leave, setup, phase), state)
    raise AssertionError("no such phase")


def _epochs(phase: Phase, job: population.Job) -> int:
    """Epochs of a phase: no more than the member with the fewest steps per epoch needs to reach `stop`."""
    if not phase.stop:
        return phase.epochs
    driver = next(iter(job.streams))
    fewest = max(1, int(np.min(-(-np.asarray(job.streams[driver].num_rows) // job.batches[driver]))))
    return min(phase.epochs, -(-phase.stop // fewest))


def _leave(setup: Setup, phase: Phase, state: State) -> State:
    return state._replace(params=network.narrow(setup.network, state.params)) if phase.widen else state


def run(setup: Setup, checkpoint: Checkpoint | None = None) -> Iterator[Event]:
    """Runs all phases; yields after every epoch, and at the end with the outcome.

    Raises:
      ConfigError: a hyperparameter that decides about shapes was given as a sweep; rows or heads that do not exist.
    """
    members = len(setup.numbers)
    originals = trees.to_host(setup.originals)
    rest = {name: leaf for name, leaf in originals.items() if name != "params"}
    memory: dict[str, Saved] = {}
    state = State(originals["params"], rest, ())
    diverged, offset, trained = np.full(members, NEVER, np.int32), 0, False
    blank = np.full(members, np.nan, np.float32)
    every = phases(setup)
    estimates: Tree = {}
    for index, (phase, _) in enumerate(every):
        carry, done = None, 0
        estimates = estimates if phase.same_optimizer and not phase.estimates else {}
        if checkpoint is not None and index < checkpoint.phase:
            continue
        if checkpoint is not None and index == checkpoint.phase:
            memory, estimates = checkpoint.tree["memory"], checkpoint.tree["estimates"]
            carry, done = checkpoint.tree["carry"], checkpoint.epoch
            state, trained = carry.state, True
        elif _is_plain(phase):
            state = _plain_start(setup, index, state)
        else:
            state, estimates, finite = _begin(setup, index, state, memory)
            diverged = np.where(finite | (diverged != NEVER), diverged, offset).astype(np.int32)
        if phase.moves and phase.epochs > done:
            job = job_of(setup, index, state, memory, estimates)
            report, epochs = None, _epochs(phase, job)
            for report in population.train(job, setup.data, epochs, setup.lifting, carry=carry, done=done):

                def keep(
                    report: population.Progress = report, memory: Tree = memory, estimates: Tree = estimates
                ) -> Tree:
                    return {"carry": population.host(report), "memory": memory, "estimates": estimates}

                yield Event(index, report.epoch, report.loss, report.accuracy, keep)
            assert report is not None
            last = population.host(report)
            state, trained = last.state, True
            frozen = np.asarray(last.diverged_at)
            diverged = np.where((diverged == NEVER) & (frozen != NEVER), offset + frozen, diverged).astype(np.int32)
            offset += job.steps * phase.epochs
        if phase.keep:
            memory = {**memory, phase.keep: Saved(state.params, state.statistics, state.optimizer)}
        state = _leave(setup, phase, state)
    if policy(setup) == "recalibrate" and trained and state.statistics:
        state = state._replace(statistics=_recalibrate(setup, state))
    variables = {"params": state.params, **state.statistics}
    yield Event(len(every), 0, blank, blank, dict, Outcome(trees.to_host(variables), diverged))


def _recalibrate(setup: Setup, state: State) -> Tree:
    """BatchNorm statistics as means over the batches of one pass of the retained rows."""
    reads = {"retain": Reads("retain", setup.batch)}
    streams = {"retain": population.from_rows([[np.asarray(rows)] for rows in setup.retain], setup.batch)}
    stage = tasks.Stage(setup.network, setup.build, 0, "train", setup.key, setup.batch, setup.augment)

    def fn(given: None, fixed: Tree, shared: Resident) -> Tree:
        state, streams, constants = fixed
        key = keys.member(keys.stream(stage.key, "recalibrate"), constants["number"])
        member = tasks.member_of(stage, state, shared, streams, reads, constants, {}, key)
        return passes.recalibrated(member, "retain")

    members = len(setup.numbers)
    constants = {"number": np.asarray(setup.numbers, np.int32), "reference": setup.originals, "memory": {},
                 "forget": np.zeros((members, len(np.asarray(setup.data.labels))), bool)}  # fmt: skip
    fixed = lift.pad(jax.tree.map(np.asarray, (state._replace(optimizer=()), streams, constants)), setup.lifting)
    fixed, data = lift.place(fixed, setup.lifting), lift.place(setup.data, setup.lifting, shared=True)
    program = lift.compile_lifted(fn, setup.lifting, None, fixed, data)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:members], program.call(None, fixed, data))
