"""Training the missing members of a role from scratch, chunk by chunk; resumes after being killed at any moment.

finished chunks are kept -> unfinished chunks continue from their rolling checkpoint -> the rest is divided anew
"""

import collections
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxunlearn import errors, keys, population, progress, store, trees
from jaxunlearn.population import capacity, chunked, executor, recipe, training
from jaxunlearn.runs import experiments, roles
from jaxunlearn.runs.execution import members
from jaxunlearn.store import chunks

Tree = Any
# (role, member ids, largest number of rows per member in each of its two streams) -> their job
MakeJob = Callable[[roles.RoleSpec, np.ndarray, tuple[int, int]], population.TrainingJob]


class Program(NamedTuple):
    """A compiled epoch and the seconds that compiling took."""

    compiled: executor.CompiledProgram
    seconds: float


class RoleTraining(NamedTuple):
    """The training of one role: constants of the loop, and the compiled epochs by number of members."""

    run_folder: store.Run
    reporter: progress.Reporter
    spec: roles.RoleSpec
    mapping: executor.MemberMapping
    make_job: MakeJob
    lengths: tuple[
        int, int
    ]  # most rows per member in its two streams: all chunks are padded to these to share programs
    programs: dict[int, Program]


def make_job(spec: roles.RoleSpec, member_ids: np.ndarray, lengths: tuple[int, int] = (0, 0)) -> population.TrainingJob:
    """Returns the training job of some members; `lengths` pads both streams to the role's largest member."""
    settings = spec.experiment.settings
    ids = np.asarray(member_ids, np.int32)
    coupled_ids = None if spec.coupling is None else np.asarray(spec.coupling, np.int32)[ids]
    membership = spec.membership[ids]
    stream = (
        population.from_membership(membership, lengths[0])
        if coupled_ids is None
        else population.from_coupled(membership, spec.membership[coupled_ids], lengths[0])
    )
    rate_scale = np.ones(len(ids), np.float32) if spec.learning_rate_scale is None else spec.learning_rate_scale[ids]
    decays = np.full(len(ids), settings.train.weight_decay, np.float32)
    held_out = population.from_membership(_held_out(spec, ids), lengths[1]) if settings.train.keep == "best" else None
    return population.TrainingJob(
        task=spec.experiment.task,
        streams={"train": stream},
        batches={"train": settings.train.batch},
        member_ids=ids if coupled_ids is None else coupled_ids,
        key=keys.stream(keys.root(settings.seed), spec.name),
        constants={"learning_rate": settings.train.learning_rate * rate_scale, "weight_decay": decays},
        steps=-(-stream.rows.shape[1] // settings.train.batch),
        held_out=held_out,
    )


def _held_out(spec: roles.RoleSpec, ids: np.ndarray) -> np.ndarray:
    """Returns [m, N] bool: rows on which the best epoch of these members is chosen."""
    return spec.held_out & ~spec.membership[ids]


def checkpoint_template(spec: roles.RoleSpec, member_ids: np.ndarray, make_job: MakeJob = make_job) -> dict[str, Tree]:
    """Returns the shapes of a rolling checkpoint of these members."""
    carry = training.carry_shapes(make_job(spec, member_ids, (0, 0)))
    return {"carry": carry, "history": chunked.blank_history(len(member_ids), spec.experiment.settings.train.epochs)}


def train_missing(
    run_folder: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec, make_job: MakeJob = make_job
) -> chunked.TrainingCost:  # fmt: skip
    """Trains every member of the role that no finished chunk holds; returns the cost.

    Args:
      run_folder: the run folder, where the role is claimed.
      reporter: for progress.
      spec: the role.
      make_job: returns the training job of some members; the default trains them on their rows.
    """
    settings = spec.experiment.settings
    queue = _missing_queue(run_folder, reporter, spec)
    if not queue:
        return chunked.TrainingCost()
    missing = np.concatenate([ids for ids, _ in queue])
    rows = spec.membership[missing].sum(1)
    if spec.coupling is not None:  # a member keeps the batch positions of the rows that it lacks
        rows = np.maximum(rows, spec.membership[spec.coupling[missing]].sum(1))
    held_out = _held_out(spec, missing).sum(1) if settings.train.keep == "best" else np.zeros(1)
    mapping = experiments.member_mapping(spec.experiment, min(len(rows), settings.engine.chunk or len(rows)))
    role_training = RoleTraining(
        run_folder, reporter, spec, mapping, make_job, (int(rows.max()), int(held_out.max())), {}
    )
    reporter.begin(f"training {spec.name}")
    return chunked.train(
        _chunked_training(role_training, queue), [(ids, checkpoint is not None) for ids, checkpoint in queue], reporter
    )


def _chunked_training(
    role_training: RoleTraining, queue: list[tuple[np.ndarray, chunks.Chunk | None]]
) -> chunked.ChunkedTraining:
    """Returns the training of a role for the restartable loop."""
    spec, folder = role_training.spec, members.folder_of(role_training.run_folder, role_training.spec)
    settings = spec.experiment.settings
    checkpoints = {ids.tobytes(): checkpoint for ids, checkpoint in queue}

    def epochs(ids: np.ndarray, checkpoint: chunked.Checkpoint | None) -> Iterator[chunked.EpochReport]:
        program = _program(role_training, len(ids))
        job = role_training.make_job(spec, ids, role_training.lengths)
        carry, done = (None, 0) if checkpoint is None else (checkpoint.state, checkpoint.epoch)
        if carry is None and spec.start is not None:
            job = job._replace(initial=initial_states(role_training.run_folder, spec, spec.start, ids))
        data = experiments.device_dataset(spec.experiment)
        for latest in population.train(
            job, data, settings.train.epochs, role_training.mapping, program=program, carry=carry, done=done
        ):
            state = functools.partial(population.host, latest)
            yield chunked.EpochReport(latest.epoch, latest.loss, latest.accuracy, state, latest)

    def save(ids: np.ndarray, state: Tree, history: Tree, epoch: int, seconds: float) -> None:
        tree = {"carry": state, "history": history}
        chunks.save_partial(folder, tree, ids, spec.fingerprint, epoch, seconds=seconds)

    def after(ids: np.ndarray, report: chunked.EpochReport, history: Tree) -> None:
        if report.epoch in settings.train.snapshots:
            variables = population.variables(report.result.carry.state)
            _store(folder / f"snapshot_{report.epoch:05d}", spec, ids, report.result, history, variables)

    def finish(ids: np.ndarray, latest: population.Progress, history: Tree, seconds: float) -> None:
        _store(folder, spec, ids, latest, history, training.kept_variables(latest.carry), seconds=seconds)
        chunks.drop_partial(folder, ids)

    def steps(ids: np.ndarray, epochs: int) -> float:
        return float(roles.model_steps(spec, ids) * epochs)

    return chunked.ChunkedTraining(
        num_epochs=settings.train.epochs,
        fit=lambda ids: _chunk_size(role_training, ids),
        epochs=epochs,
        load=lambda ids: _resume(role_training, ids, checkpoints.get(ids.tobytes())),
        save=save,
        on_epoch_end=after,
        finish=finish,
        steps=steps,
        unit="model-steps",
        compile_seconds=lambda: sum(program.seconds for program in role_training.programs.values()),
        checkpoint_seconds=settings.engine.checkpoint_seconds,
    )


def _missing_queue(
    run_folder: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec
) -> list[tuple[np.ndarray, chunks.Chunk | None]]:
    """Returns what is left to train: unfinished chunks with their newest checkpoint, then all other missing members."""
    folder = members.folder_of(run_folder, spec)
    member_ids = members.finished_members(folder, reporter, spec)
    partial_chunks, damaged = chunks.partial(folder, spec.fingerprint)
    members.discard_damaged(damaged, reporter)
    queue: list[tuple[np.ndarray, chunks.Chunk | None]] = []
    for chunk in partial_chunks:
        if member_ids.isdisjoint(chunk.member_ids.tolist()):
            queue.append((chunk.member_ids, chunk))
            member_ids.update(chunk.member_ids.tolist())
    missing = np.asarray([member for member in spec.member_ids.tolist() if member not in member_ids], np.int32)
    return [*queue, (missing, None)] if len(missing) else queue


def initial_states(
    run_folder: store.Run, spec: roles.RoleSpec, start: roles.Start, member_ids: np.ndarray
) -> population.State:
    """Returns states of some members with the weights of the models that they start from.

    Args:
      run_folder: the run folder.
      spec: the role.
      start: the models whose weights the members start from.
      member_ids: [m] member ids.
    """
    folder = start.folder or run_folder.path("populations", start.name)
    start_ids = np.zeros(len(member_ids), np.int32) if start.shared else np.asarray(member_ids)
    return fresh_state(spec.experiment, members.load(spec.experiment, folder, start.fingerprint, start_ids))


def fresh_state(experiment: experiments.Experiment, variables: Tree) -> population.State:
    """Returns states that start from variables [m, ...]: parameters, BatchNorm statistics, and a fresh optimizer."""
    params, model_state = trees.split_variables(variables)
    transform = recipe.make_optimizer(experiment.settings.train, 0.0, 0.0)
    # A recipe's optimizer starts the same whatever the weights: one member's, so that no device holds all members here.
    optimizer = trees.to_host(transform.init(trees.take(params, 0)))
    optimizers = jax.tree.map(lambda leaf: np.repeat(leaf[None], trees.size(params), 0), optimizer)
    return trees.to_host(population.State(params, model_state, optimizers))


def load_variables(run_folder: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec) -> Tree:
    """Loads the variables [M, ...] of a trained role of this run; retrains the members of damaged chunks.

    Raises:
      StoreError: they are not trained yet, or the same ones are damaged `members.ROUNDS` times.
    """
    damages: collections.Counter[Path] = collections.Counter()
    while True:
        try:
            return members.load(spec.experiment, members.folder_of(run_folder, spec), spec.fingerprint, spec.member_ids)
        except chunks.Damaged as error:
            members.discard_damaged([error.path], reporter)
            damages[error.path] += 1  # counted per chunk: several may have been damaged since they were written
            if damages[error.path] == members.ROUNDS:
                raise members.not_kept(spec.name) from error
            train_missing(run_folder, reporter, spec)


def _program(role_training: RoleTraining, count: int) -> executor.CompiledProgram:
    """Returns the compiled epoch for `count` members; compiles it once."""
    if count not in role_training.programs:
        role_training.reporter.log(f"compiling the epoch of {count} {role_training.spec.name} member(s)")
        job = role_training.make_job(
            role_training.spec, np.resize(role_training.spec.member_ids, count), role_training.lengths
        )
        start_time = time.monotonic()
        program = training.compile_epoch(
            job, experiments.device_dataset(role_training.spec.experiment), role_training.mapping
        )
        role_training.programs[count] = Program(program, time.monotonic() - start_time)
    return role_training.programs[count].compiled


def _chunk_size(role_training: RoleTraining, ids: np.ndarray) -> int:
    """Returns the number of members per chunk: the user's setting, or as many as fit in memory."""
    engine, mapping = role_training.spec.experiment.settings.engine, role_training.mapping
    if engine.chunk:
        return min(engine.chunk, len(ids))
    budget = capacity.budget(list(mapping.mesh.devices.flat), engine.memory)

    def bytes_of(count: int) -> int:
        return capacity.program_bytes(_program(role_training, count).memory)

    chunk_fit = capacity.fit(bytes_of, len(ids), executor.multiple(mapping), budget)
    if chunk_fit.chunk < len(ids):
        role_training.reporter.log(
            f"{len(ids)} members do not fit at once; {chunk_fit.chunk} at a time "
            f"({progress.size(chunk_fit.program_bytes)} of {progress.size(budget)} per device)"
        )
    return chunk_fit.chunk


def _resume(role_training: RoleTraining, ids: np.ndarray, checkpoint: chunks.Chunk | None) -> chunked.Checkpoint | None:
    """Loads a stored checkpoint; returns None (a fresh start) if there is none or it is damaged."""
    if checkpoint is None:
        return None
    try:
        tree = chunks.load(checkpoint, checkpoint_template(role_training.spec, ids, role_training.make_job))
    except errors.StoreError as error:
        role_training.reporter.log(f"{error} Starting these members again.")
        return None
    epoch = checkpoint.manifest["epoch"]
    role_training.reporter.log(f"{role_training.spec.name}: {len(ids)} members continue after epoch {epoch}")
    history = jax.tree.map(np.array, tree["history"])
    return chunked.Checkpoint(epoch, tree["carry"], history, checkpoint.manifest.get("seconds", float("nan")))


def _store(
    folder: Path, spec: roles.RoleSpec, ids: np.ndarray, latest: population.Progress, history: dict[str, np.ndarray],
    variables: Tree, **facts: Any,
) -> None:  # fmt: skip
    """Stores a finished chunk, or a snapshot of one."""
    tree = (variables, latest.carry.diverged_at)
    variables, diverged_at = jax.tree.map(lambda leaf: np.asarray(leaf)[: len(ids)], tree)
    members.store_chunk(folder, spec.fingerprint, ids, variables, diverged_at, history, latest.epoch, **facts)
