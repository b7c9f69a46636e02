"""Training the missing members of a role from scratch, chunk by chunk; killed at any moment, it resumes.

finished chunks are kept -> chunks in work continue from their rolling checkpoint -> the rest is cut anew
"""

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
# (role, members, most rows of a member in each of its two streams) -> their job
MakeJob = Callable[[roles.RoleSpec, np.ndarray, tuple[int, int]], population.Job]


class Program(NamedTuple):
    """A compiled epoch and the time that compiling took."""

    compiled: executor.Compiled
    seconds: float


class RoleTraining(NamedTuple):
    """One role being trained: constants of the loop, and the compiled epochs by number of members."""

    run: store.Run
    reporter: progress.Reporter
    spec: roles.RoleSpec
    mapping: executor.MemberMapping
    make_job: MakeJob
    lengths: tuple[int, int]  # most rows of a member in its two streams: all chunks are padded to share programs
    programs: dict[int, Program]


def make_job(spec: roles.RoleSpec, member_ids: np.ndarray, lengths: tuple[int, int] = (0, 0)) -> population.Job:
    """The training job of some members of a role; `lengths` pads both streams to the role's largest member."""
    settings = spec.experiment.settings
    ids = np.asarray(member_ids, np.int32)
    shared = None if spec.coupling is None else np.asarray(spec.coupling, np.int32)[ids]
    own = spec.membership[ids]
    stream = (
        population.from_membership(own, lengths[0])
        if shared is None
        else population.from_coupled(own, spec.membership[shared], lengths[0])
    )
    factors = np.ones(len(ids), np.float32) if spec.learning_rate_scale is None else spec.learning_rate_scale[ids]
    decays = np.full(len(ids), settings.train.weight_decay, np.float32)
    best = population.from_membership(_held_out(spec, ids), lengths[1]) if settings.train.keep == "best" else None
    return population.Job(
        task=spec.experiment.task,
        streams={"train": stream},
        batches={"train": settings.train.batch},
        member_ids=ids if shared is None else shared,
        key=keys.stream(keys.root(settings.seed), spec.name),
        constants={"learning_rate": settings.train.learning_rate * factors, "weight_decay": decays},
        steps=-(-stream.rows.shape[1] // settings.train.batch),
        held_out=best,
    )


def _held_out(spec: roles.RoleSpec, ids: np.ndarray) -> np.ndarray:
    """[m, N] bool rows on which the best epoch of these members is chosen."""
    return spec.held_out & ~spec.membership[ids]


def checkpoint_template(spec: roles.RoleSpec, member_ids: np.ndarray, make_job: MakeJob = make_job) -> dict[str, Tree]:
    """Shapes of what a rolling checkpoint of these members holds."""
    carry = training.carry_shapes(make_job(spec, member_ids, (0, 0)))
    return {"carry": carry, "history": chunked.blank_history(len(member_ids), spec.experiment.settings.train.epochs)}


def train_missing(
    run: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec, make_job: MakeJob = make_job
) -> chunked.TrainingCost:  # fmt: skip
    """Trains every member of the role that no finished chunk holds; returns what that cost.

    Args:
      run: the run folder, where the role is claimed.
      reporter: for progress.
      spec: the role.
      make_job: what training some of its members is; the default trains them on their rows.
    """
    settings = spec.experiment.settings
    queue = _take_stock(run, reporter, spec)
    if not queue:
        return chunked.TrainingCost()
    missing = np.concatenate([ids for ids, _ in queue])
    rows = spec.membership[missing].sum(1)
    if spec.coupling is not None:  # a member keeps the places of the rows that it lacks
        rows = np.maximum(rows, spec.membership[spec.coupling[missing]].sum(1))
    held_out = _held_out(spec, missing).sum(1) if settings.train.keep == "best" else np.zeros(1)
    mapping = experiments.member_mapping(spec.experiment, min(len(rows), settings.engine.chunk or len(rows)))
    work = RoleTraining(run, reporter, spec, mapping, make_job, (int(rows.max()), int(held_out.max())), {})
    reporter.begin(f"training {spec.name}")
    return chunked.train(_chunked(work, queue), [(ids, checkpoint is not None) for ids, checkpoint in queue], reporter)


def _chunked(work: RoleTraining, queue: list[tuple[np.ndarray, chunks.Chunk | None]]) -> chunked.ChunkedTraining:
    """A role as the restartable loop wants it."""
    spec, folder = work.spec, members.folder_of(work.run, work.spec)
    settings = spec.experiment.settings
    checkpoints = {ids.tobytes(): checkpoint for ids, checkpoint in queue}

    def epochs(ids: np.ndarray, checkpoint: chunked.Checkpoint | None) -> Iterator[chunked.EpochReport]:
        program = _program(work, len(ids))
        job = work.make_job(spec, ids, work.lengths)
        carry, done = (None, 0) if checkpoint is None else (checkpoint.state, checkpoint.epoch)
        if carry is None and spec.start is not None:
            job = job._replace(initial=started(work.run, spec, spec.start, ids))
        data = experiments.device_dataset(spec.experiment)
        for latest in population.train(
            job, data, settings.train.epochs, work.mapping, program=program, carry=carry, done=done
        ):
            state = functools.partial(population.host, latest)
            yield chunked.EpochReport(latest.epoch, latest.loss, latest.accuracy, state, latest)

    def save(ids: np.ndarray, state: Tree, history: Tree, epoch: int, seconds: float) -> None:
        tree = {"carry": state, "history": history}
        chunks.save_partial(folder, tree, ids, spec.fingerprint, epoch, seconds=seconds)

    def after(ids: np.ndarray, report: chunked.EpochReport, history: Tree) -> None:
        if report.epoch in settings.train.snapshots:
            kept = population.variables(report.result.carry.state)
            _store(folder / f"snapshot_{report.epoch:05d}", spec, ids, report.result, history, kept)

    def finish(ids: np.ndarray, latest: population.Progress, history: Tree, seconds: float) -> None:
        _store(folder, spec, ids, latest, history, training.kept_variables(latest.carry), seconds=seconds)
        chunks.drop_partial(folder, ids)

    def steps(ids: np.ndarray, epochs: int) -> float:
        return float(roles.model_steps(spec, ids) * epochs)

    return chunked.ChunkedTraining(
        num_epochs=settings.train.epochs,
        fit=lambda ids: _fit(work, ids),
        epochs=epochs,
        load=lambda ids: _resume(work, ids, checkpoints.get(ids.tobytes())),
        save=save,
        after=after,
        finish=finish,
        steps=steps,
        unit="model-steps",
        compile_seconds=lambda: sum(program.seconds for program in work.programs.values()),
        checkpoint_seconds=settings.engine.checkpoint_seconds,
    )


def _take_stock(
    run: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec
) -> list[tuple[np.ndarray, chunks.Chunk | None]]:
    """What is left to train: chunks in work with their newest checkpoint first, then all other missing members."""
    folder = members.folder_of(run, spec)
    covered = members.finished(folder, reporter, spec)
    in_work, damaged = chunks.partial(folder, spec.fingerprint)
    members.discard(damaged, reporter)
    queue: list[tuple[np.ndarray, chunks.Chunk | None]] = []
    for chunk in in_work:
        if covered.isdisjoint(chunk.member_ids.tolist()):
            queue.append((chunk.member_ids, chunk))
            covered.update(chunk.member_ids.tolist())
    missing = np.asarray([member for member in spec.member_ids.tolist() if member not in covered], np.int32)
    return [*queue, (missing, None)] if len(missing) else queue


def started(run: store.Run, spec: roles.RoleSpec, start: roles.Start, member_ids: np.ndarray) -> population.State:
    """States of some members with the weights of the models that they start from."""
    folder = start.folder or run.path("populations", start.name)
    chosen = np.zeros(len(member_ids), np.int32) if start.shared else np.asarray(member_ids)
    return fresh_state(spec.experiment, members.load(spec.experiment, folder, start.fingerprint, chosen))


def fresh_state(experiment: experiments.Experiment, variables: Tree) -> population.State:
    """States that start from variables [m, ...]: parameters and BatchNorm statistics, with a fresh optimizer."""
    collections = dict(variables)
    params = collections.pop("params")
    transform = recipe.transform(experiment.settings.train, 0.0, 0.0)
    return trees.to_host(population.State(params, collections, jax.vmap(transform.init)(params)))


def trained(run: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec) -> Tree:
    """The kept flax variables [M, ...] of a trained role of this run; members of damaged chunks are trained again."""
    while True:
        try:
            return members.load(spec.experiment, members.folder_of(run, spec), spec.fingerprint, spec.member_ids)
        except chunks.Damaged as error:
            members.discard([error.path], reporter)
            train_missing(run, reporter, spec)


def _program(work: RoleTraining, count: int) -> executor.Compiled:
    """The compiled epoch for so many members, made once."""
    if count not in work.programs:
        work.reporter.say(f"compiling the epoch of {count} {work.spec.name} member(s)")
        job = work.make_job(work.spec, np.resize(work.spec.member_ids, count), work.lengths)
        begun = time.monotonic()
        program = training.compile_epoch(job, experiments.device_dataset(work.spec.experiment), work.mapping)
        work.programs[count] = Program(program, time.monotonic() - begun)
    return work.programs[count].compiled


def _fit(work: RoleTraining, ids: np.ndarray) -> int:
    """Members per chunk: the user's number, or what memory holds."""
    engine, mapping = work.spec.experiment.settings.engine, work.mapping
    if engine.chunk:
        return min(engine.chunk, len(ids))
    budget = capacity.budget(list(mapping.mesh.devices.flat), engine.memory)

    def need(count: int) -> int:
        return capacity.program_bytes(_program(work, count).memory)

    fitted = capacity.fit(need, len(ids), executor.multiple(mapping), budget)
    if fitted.chunk < len(ids):
        work.reporter.say(
            f"{len(ids)} members do not fit at once; {fitted.chunk} at a time "
            f"({progress.size(fitted.program_bytes)} of {progress.size(budget)} per device)"
        )
    return fitted.chunk


def _resume(work: RoleTraining, ids: np.ndarray, checkpoint: chunks.Chunk | None) -> chunked.Checkpoint | None:
    """A stored checkpoint; None, a fresh start, where there is none or it is damaged."""
    if checkpoint is None:
        return None
    try:
        tree = chunks.load(checkpoint, checkpoint_template(work.spec, ids, work.make_job))
    except errors.StoreError as error:
        work.reporter.say(f"{error} Starting these members again.")
        return None
    epoch = checkpoint.manifest["epoch"]
    work.reporter.say(f"{work.spec.name}: {len(ids)} members continue after epoch {epoch}")
    history = jax.tree.map(np.array, tree["history"])
    return chunked.Checkpoint(epoch, tree["carry"], history, checkpoint.manifest.get("seconds", float("nan")))


def _store(
    folder: Path, spec: roles.RoleSpec, ids: np.ndarray, latest: population.Progress, history: dict[str, np.ndarray],
    kept: Tree, **facts: Any,
) -> None:  # fmt: skip
    """Stores a finished chunk, or a snapshot of one."""
    kept, diverged_at = jax.tree.map(lambda leaf: np.asarray(leaf)[: len(ids)], (kept, latest.carry.diverged_at))
    members.store_chunk(folder, spec.fingerprint, ids, kept, diverged_at, history, latest.epoch, **facts)
