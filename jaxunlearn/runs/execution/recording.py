"""Recording logits of a role: every finished member on the rows of the split, clean or augmented, into one file.

Of language models the signals of every next token are recorded in their place (`scores.tokens.recorded`).

logits/index.json says what the axes of each file are.

logits/ROLE.npy [M, n, C], line i = member i          logits/snapshots.npy, line i * K + k = member i, k-th snapshot
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxunlearn import errors, keys, population, progress, store, trees
from jaxunlearn.data import naming
from jaxunlearn.runs import experiments, prompts, roles
from jaxunlearn.runs.execution import members
from jaxunlearn.runs.roles import shadow
from jaxunlearn.store import chunks, logits

CLEAN = "clean"
TRAINING_MODE = "training_mode_"


def file_name(role: str, view: str) -> str:
    """`shadow.npy` for the clean view, `shadow.augmented_0.npy` for others."""
    return f"{role}.npy" if view == CLEAN else f"{role}.{view}.npy"


def training_mode(batch: int) -> str:
    """Name of the view in which networks answer in training mode, `batch` rows at a time, in the order of the rows."""
    return f"{TRAINING_MODE}{batch}"


def record(
    run: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec, view: str = CLEAN, rows: np.ndarray | None = None
) -> tuple[np.ndarray, bool]:  # fmt: skip
    """Computes the logits of all members that the file does not hold yet.

    Args:
      run: the run folder.
      reporter: for messages.
      spec: a role whose members are trained.
      view: clean, training_mode_B, or augmented_K. An augmented view's random draws are a function of the seed, its
        name and the places of the rows, so that roles recorded on the same rows see the same pictures.
      rows: [N] int32 rows of the data set; None = the role's.

    Returns:
      ([M_file * K, N, C] memory map whose line i * K + k belongs to member i and snapshot k, whether all chunks could
      be read). After False the damaged chunks are gone: train the missing members and record again.
    """
    rows = spec.rows if rows is None else rows
    experiment, snapshots = spec.experiment, spec.snapshots
    places = _places(run, spec)
    wanted = len(spec.membership) * len(places)
    path = run.path("logits", file_name(spec.name, view))
    width = experiments.recorded_width(experiment)
    file = logits.open_file(
        path, wanted, len(rows), width, experiment.settings.engine.logits_dtype, _fingerprint(spec, rows, view)
    )
    _describe(path, spec, view, rows)
    if file.damaged:
        reporter.say(f"{path} is damaged for {len(file.damaged)} member(s); their logits are computed again")
    for place, folder in enumerate(places):
        for chunk in chunks.finished(folder, spec.fingerprint)[0]:
            lines = chunk.member_ids * len(places) + place
            todo = [i for i, line in enumerate(lines.tolist()) if line not in file.done and line < wanted]
            if not todo:
                continue
            try:
                variables = members.load_chunk(experiment, chunk)["variables"]
            except errors.StoreError as error:
                reporter.say(f"{error}\nIts members are trained again.")
                store.files.remove(chunk.path)
                continue
            when = f", epoch {snapshots[place]}" if snapshots else ""
            reporter.say(f"recording logits of {len(todo)} {spec.name} member(s) on {len(rows)} rows ({view}{when})")
            picked = trees.take(variables, np.asarray(todo))
            for where, values in _answers(experiment, picked, rows, view):
                # One assignment per member: ids of a chunk need not be consecutive.
                for answers, line in zip(values, lines[todo], strict=True):
                    file.values[line, where] = answers
            logits.commit(file, lines[todo])
    lost = {line // len(places) for line in range(wanted) if line not in file.done}
    if snapshots and lost:
        # The finished weights without a readable snapshot are of no use here: the whole training is repeated.
        for chunk in chunks.finished(members.folder_of(run, spec), spec.fingerprint)[0]:
            if lost.intersection(chunk.member_ids.tolist()):
                store.files.remove(chunk.path)
    return file.values, not lost


def _answers(
    experiment: experiments.Experiment, variables: Any, rows: np.ndarray, view: str
) -> Iterator[tuple[slice, np.ndarray]]:
    """Logits of all members in a view, block by block, as `population.predict` yields them."""
    inputs, mapping = (
        experiments.device_dataset(experiment).inputs,
        experiments.member_mapping(experiment, trees.size(variables)),
    )
    if view in prompts.KINDS:
        yield from population.predict(prompts.task(experiment, view), variables, inputs, rows, mapping)
        return
    if not view.startswith(TRAINING_MODE):
        key = None if view == CLEAN else keys.stream(keys.root(experiment.settings.seed), view)
        yield from population.predict(experiment.task, variables, inputs, rows, mapping, view_key=key)
        return
    batch, task = int(view.removeprefix(TRAINING_MODE)), experiments.in_training_mode(experiment)
    whole = len(rows) // batch * batch
    # Padding would change the statistics of its batch: the rows that are left over make a smaller one.
    for start, part in ((0, rows[:whole]), (whole, rows[whole:])):
        if len(part):
            size = min(batch, len(part))
            block = max(1, 4096 // size) * size
            for where, values in population.predict(task, variables, inputs, part, mapping, batch=size, block=block):
                yield slice(start + where.start, start + where.stop), values


def joint_logits(values: np.ndarray, parts: int, sets: int) -> np.ndarray:
    """[R, N, C] log of the mean probability of `parts` models each, from their logits [R * parts, N, C]."""
    found = []
    for number in range(sets):
        own = np.asarray(values[number * parts : (number + 1) * parts], np.float32)
        log_p = np.asarray(jax.nn.log_softmax(own, axis=-1))
        found.append(np.asarray(jax.nn.logsumexp(log_p, axis=0)) - np.log(parts))
    return np.stack(found).astype(np.float32)


def open_file(run: store.Run, spec: roles.RoleSpec, view: str = CLEAN, lines: int = 0) -> logits.LogitsFile:
    """The role's file of logits on its rows, for answers that are computed elsewhere; `lines`: 0 = one per member."""
    path = run.path("logits", file_name(spec.name, view))
    width, dtype = experiments.recorded_width(spec.experiment), spec.experiment.settings.engine.logits_dtype
    mark = _fingerprint(spec, spec.rows, view)
    file = logits.open_file(path, lines or len(spec.membership), len(spec.rows), width, dtype, mark)
    _describe(path, spec, view, spec.rows)
    return file


def _describe(path: Path, spec: roles.RoleSpec, view: str, rows: np.ndarray) -> None:
    """Writes beside a file of logits what its models, rows and classes are, by the user's own numbers and names."""
    dataset = spec.experiment.dataset
    names = naming.named(dataset, rows)
    by_row = {"rows": rows, "file_rows": names.pop("rows"), **names, "labels": np.asarray(dataset.labels)[rows]}
    classes: dict[str, np.ndarray] = {}
    if dataset.class_values:
        classes["classes"] = np.array(dataset.class_values, np.int32)
    if dataset.class_names:
        classes["class_names"] = np.array(dataset.class_names, np.str_)
    models = "models x snapshots" if spec.snapshots else "models"
    kinds = [models, "rows", "signals" if dataset.vocabulary else "classes"]
    facts: dict[str, Any] = {"role": spec.name, "view": view, "axes": kinds}
    facts |= {"snapshots": list(spec.snapshots)} if spec.snapshots else {}
    store.axes.describe(
        path,
        spec.name if rows is spec.rows else path.stem,
        by_row,
        classes,
        np.asarray(spec.membership)[:, rows],
        facts,
        spec.name == shadow.NAME,
    )


def write(run: store.Run, spec: roles.RoleSpec, view: str, values: np.ndarray) -> np.ndarray:
    """Stores logits [M, N, C] that were computed elsewhere (joint answers of an ensemble) as the role's own."""
    file = open_file(run, spec, view, len(values))
    todo = np.asarray([line for line in range(len(values)) if line not in file.done], np.int64)
    for line in todo:
        file.values[line] = values[line]
    if len(todo):
        logits.commit(file, todo)
    return file.values


def read(run: store.Run, spec: roles.RoleSpec, view: str = CLEAN) -> np.ndarray:
    """Recorded logits as a read-only memory map [M * K, N, C], lines as in `record`; computes and writes nothing.

    Raises:
      StoreError: missing, incomplete, or recorded from other models or rows. Blocks' checksums are not verified here:
        the command that records does that whenever it runs.
    """
    path = run.path("logits", file_name(spec.name, view))
    lines = len(spec.membership) * max(len(spec.snapshots), 1)
    try:
        manifest = store.files.read_json(path.with_suffix(".json"))
        done, found = manifest["done"], manifest["facts"]["fingerprint"]
    except (OSError, KeyError, TypeError) as error:
        raise errors.StoreError(f"{path} is missing, or was never finished.") from error
    if found != _fingerprint(spec, spec.rows, view):
        raise errors.StoreError(f"{path} was recorded from other models or rows.")
    there = sum(str(line) in done for line in range(lines))
    if there < lines:
        raise errors.StoreError(f"{path} holds {there} of {lines} lines.")
    values = logits.read(path)
    if values.shape[0] < lines or values.shape[1:] != (len(spec.rows), experiments.recorded_width(spec.experiment)):
        raise errors.StoreError(f"{path} is damaged: its shape is {values.shape}.")
    return values[:lines]


def _places(run: store.Run, spec: roles.RoleSpec) -> list[Path]:
    """Folders of the chunks that are recorded, one per snapshot."""
    folder = members.folder_of(run, spec)
    return [folder / f"snapshot_{epoch:05d}" for epoch in spec.snapshots] or [folder]


def _fingerprint(spec: roles.RoleSpec, rows: np.ndarray, view: str) -> str:
    return store.files.fingerprint({"role": spec.fingerprint, "rows": rows, "view": view})
