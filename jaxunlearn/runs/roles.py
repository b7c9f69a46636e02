"""Training the missing members of a role, chunk by chunk; killed at any moment, it resumes.

    finished chunks are kept -> chunks in work continue from their rolling checkpoint -> the rest is cut anew

A role (shadow, original, retrained ...) is a set of member numbers with a membership row each. Because a member's
numbers depend on nothing but its own number and row, roles can grow: 128 shadows reuse the 64 that are there.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxunlearn import errors, keys, population, progress, store, trees
from jaxunlearn.population import capacity, lift, training
from jaxunlearn.runs import workbench
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


class Spent(NamedTuple):
    """What training cost in this run (finished chunks of earlier runs cost nothing)."""

    members: int = 0
    model_steps: float = 0.0
    seconds: float = 0.0
    compile_seconds: float = 0.0


def add(one: Spent, other: Spent) -> Spent:
    """Two costs together."""
    return Spent(
        one.members + other.members,
        one.model_steps + other.model_steps,
        one.seconds + other.seconds,
        one.compile_seconds + other.compile_seconds,
    )


class Program(NamedTuple):
    """A compiled epoch and the time that compiling took."""

    compiled: lift.Compiled
    seconds: float


class Work(NamedTuple):
    """One role being trained: constants of the loop, and the compiled epochs by number of members."""

    folder: Path
    reporter: progress.Reporter
    bench: workbench.Workbench
    role: Role
    lifting: lift.Lifting
    lengths: tuple[int, int]  # most rows of a member in its two streams: all chunks are padded to share programs
    programs: dict[int, Program]


def make_job(
    bench: workbench.Workbench, role: Role, member_ids: np.ndarray, lengths: tuple[int, int] = (0, 0)
) -> population.Job:
    """The training job of some members of a role; `lengths` pads both streams to the role's largest member."""
    settings = bench.settings
    ids = np.asarray(member_ids, np.int32)
    stream = population.from_membership(role.membership(ids), lengths[0])
    rates = settings.train.learning_rate * np.asarray(role.factors(ids), np.float32)
    decays = np.full(len(ids), settings.train.weight_decay, np.float32)
    best = population.from_membership(role.held_out(ids), lengths[1]) if settings.train.keep == "best" else None
    return population.Job(
        task=bench.task,
        streams={"train": stream},
        batches={"train": settings.train.batch},
        member_ids=ids,
        key=keys.stream(keys.root(settings.seed), role.name),
        constants={"learning_rate": rates, "weight_decay": decays},
        steps=-(-stream.rows.shape[1] // settings.train.batch),
        held_out=best,
    )


def checkpoint_template(bench: workbench.Workbench, role: Role, member_ids: np.ndarray) -> dict[str, Tree]:
    """Shapes of what a rolling checkpoint of these members holds."""
    carry = training.carry_shapes(make_job(bench, role, member_ids))
    return {"carry": carry, "history": _blank_history(bench, len(member_ids))}


def chunk_template(bench: workbench.Workbench, members: int, epochs: int) -> dict[str, Tree]:
    """Shapes of what a finished chunk of so many members and epochs holds."""
    one = {
        "variables": population.variables(jax.eval_shape(bench.task.init, keys.root(0))),
        "diverged_at": jax.ShapeDtypeStruct((), np.int32),
    }
    stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((members, *leaf.shape), leaf.dtype), one)
    history = jax.ShapeDtypeStruct((members, epochs), np.float32)
    return {**stacked, "history": {"loss": history, "accuracy": history}}


def _blank_history(bench: workbench.Workbench, members: int) -> dict[str, np.ndarray]:
    blank = np.full((members, bench.settings.train.epochs), np.nan, np.float32)
    return {"loss": blank, "accuracy": blank.copy()}


def train_missing(run: store.Run, reporter: progress.Reporter, bench: workbench.Workbench, role: Role) -> Spent:
    """Trains every member of the role that no finished chunk holds; returns what that cost."""
    folder = run.path("populations", role.name)
    queue = _take_stock(folder, reporter, role)
    if not queue:
        return Spent()
    missing = np.concatenate([ids for ids, _ in queue])
    rows = role.membership(missing).sum(1)
    held_out = role.held_out(missing).sum(1) if bench.settings.train.keep == "best" else np.zeros(1)
    lifting = workbench.lifting(bench, min(len(rows), bench.settings.engine.chunk or len(rows)))
    work = Work(folder, reporter, bench, role, lifting, (int(rows.max()), int(held_out.max())), {})
    total = population.model_steps(rows, bench.settings.train.batch) * bench.settings.train.epochs
    reporter.begin(f"training {role.name}")
    spent = Spent()
    while queue:
        ids, checkpoint = queue.pop(0)
        try:
            chunk = len(ids) if checkpoint is not None else _fit(work, ids)
            if chunk < len(ids):
                queue = [(ids[i : i + chunk], None) for i in range(0, len(ids), chunk)] + queue
                continue
            spent = _train_chunk(work, ids, checkpoint, spent, total)
        except jax.errors.JaxRuntimeError as error:
            queue = [*((half, None) for half in halves(error, ids, reporter)), *queue]
    return spent


def halves(error: Exception, ids: np.ndarray, reporter: progress.Reporter) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of members that did not fit into memory together; any other error is raised again.

    Raises:
      DeviceError: not even one member fits, by the compiler's account.
    """
    is_foreseen = isinstance(error, capacity.DoesNotFit)
    if is_foreseen and len(ids) == 1:
        raise errors.DeviceError(
            f"one member does not fit: {error}. Use a smaller train.batch, model.dtype=bfloat16, a higher "
            "engine.memory or a smaller model."
        ) from error
    if len(ids) == 1 or not (is_foreseen or "RESOURCE_EXHAUSTED" in str(error)):
        raise error
    half = -(-len(ids) // 2)
    reporter.say(f"out of memory with {len(ids)} members at once; going on with {half}")
    return ids[:half], ids[half:]


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
        job = make_job(work.bench, work.role, np.resize(work.role.member_ids, members), work.lengths)
        begun = time.monotonic()
        program = training.compile_epoch(job, workbench.resident(work.bench), work.lifting)
        work.programs[members] = Program(program, time.monotonic() - begun)
    return work.programs[members].compiled


def _fit(work: Work, ids: np.ndarray) -> int:
    """Members per chunk: the user's number, or what memory holds."""
    engine, lifting = work.bench.settings.engine, work.lifting
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


def _train_chunk(work: Work, ids: np.ndarray, checkpoint: chunks.Chunk | None, spent: Spent, total: float) -> Spent:
    """Trains one chunk to the end, with rolling checkpoints and snapshots, and stores it."""
    bench, role, reporter = work.bench, work.role, work.reporter
    recipe = bench.settings.train
    program = _program(work, len(ids))
    compiled = sum(made.seconds for made in work.programs.values())
    # What a role cost is told whenever methods are compared with it: each chunk keeps its share, interrupted or not.
    earlier = 0.0 if checkpoint is None else checkpoint.manifest.get("seconds", float("nan"))
    earlier += compiled - spent.compile_seconds
    begun = time.monotonic()
    job = make_job(bench, role, ids, work.lengths)
    done, carry, history = _resume(work, ids, checkpoint)
    if carry is None and role.initial is not None:
        job = job._replace(initial=role.initial(ids))
    steps_per_epoch = population.model_steps(np.asarray(job.streams["train"].num_rows), recipe.batch)
    saved, base = time.monotonic(), spent.model_steps
    latest = None
    for latest in population.train(
        job, workbench.resident(bench), recipe.epochs, work.lifting, program=program, carry=carry, done=done
    ):
        history["loss"][:, latest.epoch - 1] = latest.loss
        history["accuracy"][:, latest.epoch - 1] = latest.accuracy
        steps = base + (latest.epoch - done) * steps_per_epoch
        mean = float(np.nanmean(latest.loss)) if np.isfinite(latest.loss).any() else float("nan")
        reporter.update(
            steps, total, "model-steps", f"epoch {latest.epoch} / {recipe.epochs}, loss {mean:.3f}",
            epoch=latest.epoch, loss=mean,
        )  # fmt: skip
        last = latest.epoch == recipe.epochs
        if latest.epoch in recipe.snapshots:
            now = population.variables(latest.carry.state)
            _store(work.folder / f"snapshot_{latest.epoch:05d}", role, ids, latest, history, now)
        if not last and time.monotonic() - saved >= bench.settings.engine.checkpoint_seconds:
            tree = {"carry": population.host(latest), "history": history}
            seconds = earlier + time.monotonic() - begun
            chunks.save_partial(work.folder, tree, ids, role.fingerprint, latest.epoch, seconds=seconds)
            saved = time.monotonic()
    assert latest is not None  # a checkpoint is never written after the last epoch
    seconds = earlier + time.monotonic() - begun
    _store(work.folder, role, ids, latest, history, training.kept_variables(latest.carry), seconds=seconds)
    chunks.drop_partial(work.folder, ids)
    return Spent(
        spent.members + len(ids),
        base + (recipe.epochs - done) * steps_per_epoch,
        spent.seconds + time.monotonic() - begun,
        compiled,
    )


def _resume(
    work: Work, ids: np.ndarray, checkpoint: chunks.Chunk | None
) -> tuple[int, training.Carry | None, dict[str, np.ndarray]]:
    """Epochs done, carry and history of a checkpoint; a fresh start where there is none or it is damaged."""
    fresh = (0, None, _blank_history(work.bench, len(ids)))
    if checkpoint is None:
        return fresh
    try:
        tree = chunks.load(checkpoint, checkpoint_template(work.bench, work.role, ids))
    except errors.StoreError as error:
        work.reporter.say(f"{error} Starting these members again.")
        return fresh
    work.reporter.say(f"{work.role.name}: {len(ids)} members continue after epoch {checkpoint.manifest['epoch']}")
    return checkpoint.manifest["epoch"], tree["carry"], jax.tree.map(np.array, tree["history"])


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


def load_chunk(bench: workbench.Workbench, chunk: chunks.Chunk, epochs: int = 0) -> dict[str, Tree]:
    """A finished chunk: `variables`, `diverged_at` [m], `history` [m, epochs]; verified.

    `epochs` is what its role was trained for; 0 = train.epochs of this workbench.
    """
    return chunks.load(chunk, chunk_template(bench, len(chunk.member_ids), epochs or bench.settings.train.epochs))


def trained_members(run: store.Run, reporter: progress.Reporter, bench: workbench.Workbench, role: Role) -> Tree:
    """Returns the kept flax variables of a trained role of this run; members of damaged chunks are trained again."""
    folder = run.path("populations", role.name)
    while True:
        try:
            return load_members(bench, folder, role.fingerprint, role.member_ids)
        except chunks.Damaged as error:
            _discard([error.path], reporter)
            train_missing(run, reporter, bench, role)


def load_members(bench: workbench.Workbench, folder: Path, fingerprint: str, member_ids: np.ndarray) -> Tree:
    """The kept flax variables of finished members, leading axis in the order of `member_ids` (repeats allowed).

    Args:
      bench: of the same architecture, number of classes and shape of inputs.
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
            variables = load_chunk(bench, chunk, chunk.manifest["epoch"])["variables"]
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
