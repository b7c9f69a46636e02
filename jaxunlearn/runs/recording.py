"""Recording logits of a role: every finished member on the rows of the split, clean or augmented, into one file.

logits/ROLE.npy [M, n, C], line i = member i          logits/snapshots.npy, line i * K + k = member i, k-th snapshot
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxunlearn import errors, keys, population, progress, store, trees
from jaxunlearn.runs import experiments, roles
from jaxunlearn.store import chunks, logits

CLEAN = "clean"
TRAINING_MODE = "training_mode_"


def file_name(role: str, view: str) -> str:
    """`shadow.npy` for the clean view, `shadow.augmented_0.npy` for others."""
    return f"{role}.npy" if view == CLEAN else f"{role}.{view}.npy"


def view_names(count: int) -> tuple[str, ...]:
    """Names of the augmented views beside the clean one; a name is a view, the same pictures for every role."""
    return tuple(f"augmented_{number}" for number in range(count))


def training_mode(batch: int) -> str:
    """Name of the view in which networks answer in training mode, `batch` rows at a time, in the order of the rows."""
    return f"{TRAINING_MODE}{batch}"


def record(
    run: store.Run,
    reporter: progress.Reporter,
    experiment: experiments.Experiment,
    role: roles.Role,
    rows: np.ndarray,
    view: str = CLEAN,
    snapshots: tuple[int, ...] = (),
) -> tuple[np.ndarray, bool]:
    """Computes the logits of all members that the file does not hold yet.

    Args:
      run: the run folder.
      reporter: for messages.
      experiment: the experiments.
      role: whose members `roles.train_missing` has trained.
      rows: [N] int32 rows of the data set.
      view: clean, training_mode_B, or augmented_K. An augmented view's random draws are a function of the seed, its
        name and the places of the rows, so that roles recorded on the same rows see the same pictures.
      snapshots: K epochs whose weights are taken; empty = the finished weights (K = 1).

    Returns:
      ([M_file * K, N, C] memory map whose line i * K + k belongs to member i and snapshot k, whether all chunks could
      be read). After False the damaged chunks are gone: train the missing members and record again.
    """
    places = _places(run, role, snapshots)
    wanted = (int(role.member_ids.max()) + 1) * len(places)
    path = run.path("logits", file_name(role.name, view))
    classes = experiment.dataset.num_classes
    file = logits.open_file(
        path, wanted, len(rows), classes, experiment.settings.engine.logits_dtype, _fingerprint(role, rows, view)
    )
    if file.damaged:
        reporter.say(f"{path} is damaged for {len(file.damaged)} member(s); their logits are computed again")
    for place, folder in enumerate(places):
        for chunk in chunks.finished(folder, role.fingerprint)[0]:
            lines = chunk.member_ids * len(places) + place
            todo = [i for i, line in enumerate(lines.tolist()) if line not in file.done and line < wanted]
            if not todo:
                continue
            try:
                variables = roles.load_chunk(experiment, chunk)["variables"]
            except errors.StoreError as error:
                reporter.say(f"{error}\nIts members are trained again.")
                store.files.remove(chunk.path)
                continue
            when = f", epoch {snapshots[place]}" if snapshots else ""
            reporter.say(f"recording logits of {len(todo)} {role.name} member(s) on {len(rows)} rows ({view}{when})")
            picked = trees.take(variables, np.asarray(todo))
            for where, values in _answers(experiment, picked, rows, view):
                # One assignment per member: ids of a chunk need not be consecutive.
                for answers, line in zip(values, lines[todo], strict=True):
                    file.values[line, where] = answers
            logits.commit(file, lines[todo])
    lost = {line // len(places) for line in _lines(role, len(places)) if line not in file.done}
    if snapshots and lost:
        # The finished weights without a readable snapshot are of no use here: the whole training is repeated.
        for chunk in chunks.finished(run.path("populations", role.name), role.fingerprint)[0]:
            if lost.intersection(chunk.member_ids.tolist()):
                store.files.remove(chunk.path)
    return file.values, not lost


def _answers(
    experiment: experiments.Experiment, variables: Any, rows: np.ndarray, view: str
) -> Iterator[tuple[slice, np.ndarray]]:
    """Logits of all members in a view, block by block, as `population.predict` yields them."""
    inputs, lifting = experiments.resident(experiment).inputs, experiments.lifting(experiment, trees.size(variables))
    if not view.startswith(TRAINING_MODE):
        key = None if view == CLEAN else keys.stream(keys.root(experiment.settings.seed), view)
        yield from population.predict(experiment.task, variables, inputs, rows, lifting, view_key=key)
        return
    batch, task = int(view.removeprefix(TRAINING_MODE)), experiments.in_training_mode(experiment)
    whole = len(rows) // batch * batch
    # Padding would change the statistics of its batch: the rows that are left over make a smaller one.
    for start, part in ((0, rows[:whole]), (whole, rows[whole:])):
        if len(part):
            size = min(batch, len(part))
            block = max(1, 4096 // size) * size
            for where, values in population.predict(task, variables, inputs, part, lifting, batch=size, block=block):
                yield slice(start + where.start, start + where.stop), values


def write(
    run: store.Run,
    experiment: experiments.Experiment,
    role: roles.Role,
    rows: np.ndarray,
    view: str,
    values: np.ndarray,
) -> np.ndarray:
    """Stores logits [M, N, C] that were computed elsewhere (joint answers of an ensemble) as the role's own."""
    path = run.path("logits", file_name(role.name, view))
    dtype, mark = experiment.settings.engine.logits_dtype, _fingerprint(role, rows, view)
    file = logits.open_file(path, len(values), len(rows), values.shape[-1], dtype, mark)
    todo = np.asarray([line for line in range(len(values)) if line not in file.done], np.int64)
    for line in todo:
        file.values[line] = values[line]
    if len(todo):
        logits.commit(file, todo)
    return file.values


def read(
    run: store.Run,
    experiment: experiments.Experiment,
    role: roles.Role,
    rows: np.ndarray,
    view: str = CLEAN,
    snapshots: tuple[int, ...] = (),
) -> np.ndarray:
    """Recorded logits as a read-only memory map [M * K, N, C], lines as in `record`; computes and writes nothing.

    Raises:
      StoreError: missing, incomplete, or recorded from other models or rows. Blocks' checksums are not verified here:
        the command that records does that whenever it runs.
    """
    path = run.path("logits", file_name(role.name, view))
    lines = _lines(role, len(_places(run, role, snapshots)))
    try:
        manifest = store.files.read_json(path.with_suffix(".json"))
        done, found = manifest["done"], manifest["facts"]["fingerprint"]
    except (OSError, KeyError, TypeError) as error:
        raise errors.StoreError(f"{path} is missing, or was never finished.") from error
    if found != _fingerprint(role, rows, view):
        raise errors.StoreError(f"{path} was recorded from other models or rows.")
    there = sum(str(line) in done for line in lines)
    if there < len(lines):
        raise errors.StoreError(f"{path} holds {there} of {len(lines)} lines.")
    values = logits.read(path)
    if values.shape[0] <= max(lines) or values.shape[1:] != (len(rows), experiment.dataset.num_classes):
        raise errors.StoreError(f"{path} is damaged: its shape is {values.shape}.")
    return values[: max(lines) + 1]


def _places(run: store.Run, role: roles.Role, snapshots: tuple[int, ...]) -> list[Path]:
    """Folders of the chunks that are recorded, one per snapshot."""
    folder = run.path("populations", role.name)
    return [folder / f"snapshot_{epoch:05d}" for epoch in snapshots] or [folder]


def _lines(role: roles.Role, each: int) -> list[int]:
    """The lines of the file that belong to members of the role."""
    return [int(member) * each + place for member in role.member_ids for place in range(each)]


def _fingerprint(role: roles.Role, rows: np.ndarray, view: str) -> str:
    return store.files.fingerprint({"role": role.fingerprint, "rows": rows, "view": view})
