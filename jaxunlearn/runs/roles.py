"""Training the missing members of a role, chunk by chunk; killed at any moment, it resumes.

    finished chunks are kept -> chunks in work continue from their rolling checkpoint -> the rest is cut anew

A role (shadow, original, retrained ...) is a set of member numbers with a membership row each. Because a member's
numbers depend on nothing but its own number and row, roles can grow: 128 shadows reuse the 64 that are there.
"""

import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxunlearn import errors, keys, population, progress, store, trees
from jaxunlearn.population import capacity, chunked, lift, training
from jaxunlearn.runs import experiments
from jaxunlearn.store import chunks

Tree = Any


class Role(NamedTuple):
    """What a role is made of.

    Attributes:
      name: shadow, original, retrained, ...
      member_ids: [M] int32 global numbers wanted.
      membership: member ids -> [m, N] bool rows of the data set.
      factors: member ids -> [m] float32 factors on the learning rate.
      held_out: member ids -> [m, N] bool rows on which the best epoch is chosen (used with train.keep = best).
      fingerprint: of everything that decides about the members' numbers.
      initial: member ids -> State with leading m to start from; None = each member's own random initialisation.
    """

    name: str
    member_ids: np.ndarray
    membership: Callable[[np.ndarray], np.ndarray]
    factors: Callable[[np.ndarray], np.ndarray]
    held_out: Callable[[np.ndarray], np.ndarray]
    fingerprint: str
    initial: Callable[[np.ndarray], population.State] | None = None


class Program(NamedTuple):
    """A compiled epoch and the time that compiling took."""

    compiled: lift.Compiled
    seconds: float


class Work(NamedTuple):
    """One role being trained: constants of the loop, and the compiled epochs by number of members."""

    folder: Path
    reporter: progress.Reporter
    experiment: experiments.Experiment
    role: Role
    lifting: lift.Lifting
    lengths: tuple[int, int]  # most rows of a member in its two streams: all chunks are padded to share programs
    programs: dict[int, Program]


def make_job(
    experiment: experiments.Experiment, role: Role, member_ids: np.ndarray, lengths: tuple[int, int] = (0, 0)
) -> population.Job:
    """The training job of some members of a role; `lengths` pads both streams to the role's largest member."""
    settings = experiment.settings
    ids = np.asarray(member_ids, np.int32)
    stream = population.from_membership(role.membership(ids), lengths[0])
    rates = settings.train.learning_rate * np.asarray(role.factors(ids), np.float32)
    decays = np.full(len(ids), settings.train.weight_decay, np.float32)
    best = population.from_membership(role.held_out(ids), lengths[1]) if settings.train.keep == "best" else None
    return population.Job(
        task=experiment.task,
        streams={"train": stream},
        batches={"train": settings.train.batch},
        member_ids=ids,
        key=keys.stream(keys.root(settings.seed), role.name),
        constants={"learning_rate": rates, "weight_decay": decays},
        steps=-(-stream.rows.shape[1] // settings.train.batch),
        held_out=best,
    )


def checkpoint_template(experiment: experiments.Experiment, role: Role, member_ids: np.ndarray) -> dict[str, Tree]:
    """Shapes of what a rolling checkpoint of these members holds."""
    carry = training.carry_shapes(make_job(experiment, role, member_ids))
    return {"carry": carry, "history": chunked.blank_history(len(member_ids), experiment.settings.train.epochs)}


def chunk_template(experiment: experiments.Experiment, members: int, epochs: int) -> dict[str, Tree]:
    """Shapes of what a finished chunk of so many members and epochs holds."""
    one = {
        "variables": population.variables(jax.eval_shape(experiment.task.init, keys.root(0))),
        "diverged_at": jax.ShapeDtypeStruct((), np.int32),
    }
    stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((members, *leaf.shape), leaf.dtype), one)
    history = jax.ShapeDtypeStruct((members, epochs), np.float32)
    return {**stacked, "history": {"loss": history, "accuracy": history}}


def train_missing(
    run: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, role: Role
) -> chunked.TrainingCost:  # fmt: skip
    """Trains every member of the role that no finished chunk holds; returns what that cost."""
    folder = run.path("populations", role.name)
    queue = _take_stock(folder, reporter, role)
    if not queue:
        return chunked.TrainingCost()
    missing = np.concatenate([ids for ids, _ in queue])
    rows = role.membership(missing).sum(1)
    held_out = role.held_out(missing).sum(1) if experiment.settings.train.keep == "best" else np.zeros(1)
    lifting = experiments.lifting(experiment, min(len(rows), experiment.settings.engine.chunk or len(rows)))
    work = Work(folder, reporter, experiment, role, lifting, (int(rows.max()), int(held_out.max())), {})
    reporter.begin(f"training {role.name}")
    return chunked.train(_chunked(work, queue), [(ids, checkpoint is not None) for ids, checkpoint in queue], reporter)


def _chunked(work: Work, queue: list[tuple[np.ndarray, chunks.Chunk | None]]) -> chunked.ChunkedTraining:
    """A role as the restartable loop wants it."""
    experiment, role, folder = work.experiment, work.role, work.folder
    recipe = experiment.settings.train
    checkpoints = {ids.tobytes(): checkpoint for ids, checkpoint in queue}

    def epochs(ids: np.ndarray, checkpoint: chunked.Checkpoint | None) -> Iterator[chunked.EpochReport]:
        program = _program(work, len(ids))
        job = make_job(experiment, role, ids, work.lengths)
        carry, done = (None, 0) if checkpoint is None else (checkpoint.state, checkpoint.epoch)
        if carry is None and role.initial is not None:
            job = job._replace(initial=role.initial(ids))
        for latest in population.train(
            job, experiments.resident(experiment), recipe.epochs, work.lifting, program=program, carry=carry, done=done
        ):
            state = functools.partial(population.host, latest)
            yield chunked.EpochReport(latest.epoch, latest.loss, latest.accuracy, state, latest)

    def save(ids: np.ndarray, state: Tree, history: Tree, epoch: int, seconds: float) -> None:
        tree = {"carry": state, "history": history}
        chunks.save_partial(folder, tree, ids, role.fingerprint, epoch, seconds=seconds)

    def after(ids: np.ndarray, report: chunked.EpochReport, history: Tree) -> None:
        if report.epoch in recipe.snapshots:
            kept = population.variables(report.result.carry.state)
            _store(folder / f"snapshot_{report.epoch:05d}", role, ids, report.result, history, kept)

    def finish(ids: np.ndarray, latest: population.Progress, history: Tree, seconds: float) -> None:
        _store(folder, role, ids, latest, history, training.kept_variables(latest.carry), seconds=seconds)
        chunks.drop_partial(folder, ids)

    def steps(ids: np.ndarray, epochs: int) -> float:
        return population.model_steps(role.membership(ids).sum(1), recipe.batch) * epochs

    return chunked.ChunkedTraining(
        num_epochs=recipe.epochs,
        fit=lambda ids: _fit(work, ids),
        epochs=epochs,
        load=lambda ids: _resume(work, ids, checkpoints.get(ids.tobytes())),
        save=save,
        after=after,
        finish=finish,
        steps=steps,
        unit="model-steps",
        compile_seconds=lambda: sum(program.seconds for program in work.programs.values()),
        checkpoint_seconds=experiment.settings.engine.checkpoint_seconds,
    )


def finished(folder: Path, reporter: progress.Reporter, role: Role) -> set[int]:
    """Members of the folder that are finished, whoever wants them; damaged chunks are removed, and both is said."""
    whole, damaged = chunks.finished(folder, role.fingerprint)
    _discard(damaged, reporter)
    covered = {int(member) for chunk in whole for member in chunk.member_ids}
    there = len(covered.intersection(role.member_ids.tolist()))
    if there:
        reporter.say(f"{role.name}: {there} of {len(role.member_ids)} members are finished already")
    return covered


def _discard(damaged: list[Path], reporter: progress.Reporter) -> None:
    for path in damaged:
        reporter.say(f"{path} is damaged (cut short or altered); what it held is trained again")
        store.files.remove(path)


def _take_stock(folder: Path, reporter: progress.Reporter, role: Role) -> list[tuple[np.ndarray, chunks.Chunk | None]]:
    """What is left to train: chunks in work with their newest checkpoint first, then all other missing members."""
    covered = finished(folder, reporter, role)
    in_work, damaged = chunks.partial(folder, role.fingerprint)
    _discard(damaged, reporter)
    queue: list[tuple[np.ndarray, chunks.Chunk | None]] = []
    for chunk in in_work:
        if covered.isdisjoint(chunk.member_ids.tolist()):
            queue.append((chunk.member_ids, chunk))
            covered.update(chunk.member_ids.tolist())
    missing = np.asarray([member for member in role.member_ids.tolist() if member not in covered], np.int32)
    return [*queue, (missing, None)] if len(missing) else queue


def _program(work: Work, members: int) -> lift.Compiled:
    """The compiled epoch for so many members, made once."""
    if members not in work.programs:
        work.reporter.say(f"compiling the epoch of {members} {work.role.name} member(s)")
        job = make_job(work.experiment, work.role, np.resize(work.role.member_ids, members), work.lengths)
        begun = time.monotonic()
        program = training.compile_epoch(job, experiments.resident(work.experiment), work.lifting)
        work.programs[members] = Program(program, time.monotonic() - begun)
    return work.programs[members].compiled


def _fit(work: Work, ids: np.ndarray) -> int:
    """Members per chunk: the user's number, or what memory holds."""
    engine, lifting = work.experiment.settings.engine, work.lifting
    if engine.chunk:
        return min(engine.chunk, len(ids))
    budget = capacity.budget(list(lifting.mesh.devices.flat), engine.memory)

    def need(members: int) -> int:
        return capacity.program_bytes(_program(work, members).memory)

    fitted = capacity.fit(need, len(ids), lift.multiple(lifting), budget)
    if fitted.chunk < len(ids):
        work.reporter.say(
            f"{len(ids)} members do not fit at once; {fitted.chunk} at a time "
            f"({progress.size(fitted.program_bytes)} of {progress.size(budget)} per device)"
        )
    return fitted.chunk


def _resume(work: Work, ids: np.ndarray, checkpoint: chunks.Chunk | None) -> chunked.Checkpoint | None:
    """A stored checkpoint; None, a fresh start, where there is none or it is damaged."""
    if checkpoint is None:
        return None
    try:
        tree = chunks.load(checkpoint, checkpoint_template(work.experiment, work.role, ids))
    except errors.StoreError as error:
        work.reporter.say(f"{error} Starting these members again.")
        return None
    epoch = checkpoint.manifest["epoch"]
    work.reporter.say(f"{work.role.name}: {len(ids)} members continue after epoch {epoch}")
    history = jax.tree.map(np.array, tree["history"])
    return chunked.Checkpoint(epoch, tree["carry"], history, checkpoint.manifest.get("seconds", float("nan")))


def _store(
    folder: Path, role: Role, ids: np.ndarray, latest: population.Progress, history: dict[str, np.ndarray], kept: Tree,
    **facts: Any,
) -> None:  # fmt: skip
    """Stores a finished chunk, or a snapshot of one."""
    kept, diverged_at = jax.tree.map(lambda leaf: np.asarray(leaf)[: len(ids)], (kept, latest.carry.diverged_at))
    store_chunk(folder, role, ids, kept, diverged_at, history, latest.epoch, **facts)


def store_chunk(
    folder: Path,
    role: Role,
    ids: np.ndarray,
    variables: Tree,
    diverged_at: np.ndarray,
    history: dict[str, np.ndarray],
    epoch: int,
    **facts: Any,
) -> None:
    """Stores members after `epoch` epochs; every leaf with a leading [m], `facts` go into the chunk's manifest."""
    tree = {"variables": variables, "diverged_at": diverged_at, "history": history}
    diverged = {int(member): int(step) for member, step in zip(ids, diverged_at, strict=True) if step != training.NEVER}
    name = f"chunk_{chunks.chunk_name(ids)}"
    chunks.save(folder / name, tree, ids, role.fingerprint, epoch=epoch, diverged=diverged, **facts)


def load_chunk(experiment: experiments.Experiment, chunk: chunks.Chunk, epochs: int = 0) -> dict[str, Tree]:
    """A finished chunk: `variables`, `diverged_at` [m], `history` [m, epochs]; verified.

    `epochs` is what its role was trained for; 0 = train.epochs of this experiments.
    """
    return chunks.load(
        chunk, chunk_template(experiment, len(chunk.member_ids), epochs or experiment.settings.train.epochs)
    )


def trained_members(
    run: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, role: Role
) -> Tree:
    """Returns the kept flax variables of a trained role of this run; members of damaged chunks are trained again."""
    folder = run.path("populations", role.name)
    while True:
        try:
            return load_members(experiment, folder, role.fingerprint, role.member_ids)
        except chunks.Damaged as error:
            _discard([error.path], reporter)
            train_missing(run, reporter, experiment, role)


def load_members(experiment: experiments.Experiment, folder: Path, fingerprint: str, member_ids: np.ndarray) -> Tree:
    """The kept flax variables of finished members, leading axis in the order of `member_ids` (repeats allowed).

    Args:
      experiment: of the same architecture, number of classes and shape of inputs.
      folder: a role's folder, of this run or of another one.
      fingerprint: of the role, as its stage.json says.
      member_ids: [m] global numbers.

    Raises:
      StoreError: a member is not finished there, or its chunk is damaged.
    """
    wanted = np.asarray(member_ids).tolist()
    fragments: list[Tree] = []
    places: dict[int, int] = {}
    for chunk in chunks.finished(folder, fingerprint)[0]:
        rows = [i for i, member in enumerate(chunk.member_ids.tolist()) if member in wanted and member not in places]
        if rows:
            # Another run may have trained for other epochs than this one: a finished chunk knows its own.
            variables = load_chunk(experiment, chunk, chunk.manifest["epoch"])["variables"]
            fragments.append(trees.take(variables, np.asarray(rows)))
            places.update({member: len(places) + k for k, member in enumerate(chunk.member_ids[rows].tolist())})
    missing = [member for member in wanted if member not in places]
    if missing:
        raise errors.StoreError(
            f"{folder} holds no finished member {missing[0]}; members {min(wanted)} to {max(wanted)} are needed. "
            "Run the command that trains them again: it continues where it stopped."
        )
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *fragments)
    return trees.take(joined, np.asarray([places[member] for member in wanted]))
