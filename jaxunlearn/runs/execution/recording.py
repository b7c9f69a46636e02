"""Recording the logits of a role: every finished member on the rows of the split, clean or augmented, into one file.

For language models the signals of every next token are recorded instead (`scores.tokens.recorded`).

logits/index.json describes the axes of each file.

logits/ROLE.npy [M, n, C], entry i = member i          logits/snapshots.npy, entry i * K + k = member i, k-th snapshot
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
VIEW_VERSION = 2  # of the random draws of augmented views; recorded ones of another version are computed again


def file_name(role: str, view: str) -> str:
    """Returns the file name of a view: `shadow.npy` for the clean one, `shadow.augmented_0.npy` for others."""
    return f"{role}.npy" if view == CLEAN else f"{role}.{view}.npy"


def training_mode(batch: int) -> str:
    """Returns the name of the view in which networks run in training mode, `batch` consecutive rows at a time."""
    return f"{TRAINING_MODE}{batch}"


def record(
    run_folder: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec, view: str = CLEAN,
    rows: np.ndarray | None = None,
) -> tuple[np.ndarray, bool]:  # fmt: skip
    """Computes the logits of all members that the file does not hold yet.

    Args:
      run_folder: the run folder.
      reporter: for messages.
      spec: a role whose members are trained.
      view: clean, training_mode_B, or augmented_K. An augmented view's random draws are a function of the seed, its
        name and the number of the row, so that all roles see the same images.
      rows: [N] int32 rows of the data set; None = the role's.

    Returns:
      ([M_file * K, N, C] memory map whose entry i * K + k belongs to member i and snapshot k, whether all chunks could
      be read). After False the damaged chunks are deleted: train the missing members and record again.
    """
    rows = spec.rows if rows is None else rows
    experiment, snapshots = spec.experiment, spec.snapshots
    folders = _chunk_folders(run_folder, spec)
    num_models = len(spec.membership) * len(folders)
    path = run_folder.path("logits", file_name(spec.name, view))
    width = experiments.recorded_width(experiment)
    file = logits.open_file(
        path, num_models, len(rows), width, experiment.settings.engine.logits_dtype, _fingerprint(spec, rows, view)
    )
    _describe(path, spec, view, rows)
    if file.damaged:
        reporter.log(f"{path} is damaged for {len(file.damaged)} member(s); their logits are computed again")
    for snapshot, folder in enumerate(folders):
        for chunk in chunks.finished(folder, spec.fingerprint)[0]:
            model_ids = chunk.member_ids * len(folders) + snapshot
            missing = [
                i
                for i, model_id in enumerate(model_ids.tolist())
                if model_id not in file.done and model_id < num_models
            ]
            if not missing:
                continue
            try:
                variables = members.load_chunk(experiment, chunk)["variables"]
            except errors.StoreError as error:
                reporter.log(f"{error}\nIts members are trained again.")
                store.files.remove(chunk.path)
                continue
            epoch_text = f", epoch {snapshots[snapshot]}" if snapshots else ""
            reporter.log(
                f"recording logits of {len(missing)} {spec.name} member(s) on {len(rows)} rows ({view}{epoch_text})"
            )
            missing_variables = trees.take(variables, np.asarray(missing))
            for block, values in _answers(experiment, missing_variables, rows, view):
                # One assignment per member: ids of a chunk need not be consecutive.
                for answers, model_id in zip(values, model_ids[missing], strict=True):
                    file.values[model_id, block] = answers
            logits.commit(file, model_ids[missing])
    lost_members = {model_id // len(folders) for model_id in range(num_models) if model_id not in file.done}
    if snapshots and lost_members:
        # Finished weights are useless here without every snapshot: the whole training is repeated.
        for chunk in chunks.finished(members.folder_of(run_folder, spec), spec.fingerprint)[0]:
            if lost_members.intersection(chunk.member_ids.tolist()):
                store.files.remove(chunk.path)
    return file.values, not lost_members


def _answers(
    experiment: experiments.Experiment, variables: Any, rows: np.ndarray, view: str
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields the logits of all members in a view, block by block, like `population.predict`."""
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
    full_rows = len(rows) // batch * batch
    # Padding would change the statistics of its batch: the remaining rows form a smaller batch.
    for start, subset in ((0, rows[:full_rows]), (full_rows, rows[full_rows:])):
        if len(subset):
            size = min(batch, len(subset))
            block = max(1, 4096 // size) * size
            for block_rows, values in population.predict(
                task, variables, inputs, subset, mapping, batch=size, block=block
            ):
                yield slice(start + block_rows.start, start + block_rows.stop), values


def joint_logits(values: np.ndarray, submodels: int, sets: int) -> np.ndarray:
    """Returns [R, N, C]: log of the mean probability of `submodels` models each, from logits [R * submodels, N, C]."""
    log_means = []
    for set_id in range(sets):
        member_logits = np.asarray(values[set_id * submodels : (set_id + 1) * submodels], np.float32)
        log_p = np.asarray(jax.nn.log_softmax(member_logits, axis=-1))
        log_means.append(np.asarray(jax.nn.logsumexp(log_p, axis=0)) - np.log(submodels))
    return np.stack(log_means).astype(np.float32)


def open_file(run_folder: store.Run, spec: roles.RoleSpec, view: str = CLEAN, num_models: int = 0) -> logits.LogitsFile:
    """Opens the role's file of logits on its rows, for logits that are computed elsewhere.

    Args:
      run_folder: the run folder.
      spec: the role.
      view: clean, training_mode_B, or augmented_K.
      num_models: length of the first axis; 0 = one entry per member.
    """
    path = run_folder.path("logits", file_name(spec.name, view))
    width, dtype = experiments.recorded_width(spec.experiment), spec.experiment.settings.engine.logits_dtype
    fingerprint = _fingerprint(spec, spec.rows, view)
    file = logits.open_file(path, num_models or len(spec.membership), len(spec.rows), width, dtype, fingerprint)
    _describe(path, spec, view, spec.rows)
    return file


def _describe(path: Path, spec: roles.RoleSpec, view: str, rows: np.ndarray) -> None:
    """Describes a file of logits in index.json: its models, rows and classes, by the user's own ids and names."""
    dataset = spec.experiment.dataset
    names = naming.result_names(dataset, rows)
    by_row = {"rows": rows, "file_rows": names.pop("rows"), **names, "labels": np.asarray(dataset.labels)[rows]}
    classes: dict[str, np.ndarray] = {}
    if dataset.class_values:
        classes["classes"] = np.array(dataset.class_values, np.int32)
    if dataset.class_names:
        classes["class_names"] = np.array(dataset.class_names, np.str_)
    models = "models x snapshots" if spec.snapshots else "models"
    axes = [models, "rows", "signals" if dataset.vocabulary else "classes"]
    facts: dict[str, Any] = {"role": spec.name, "view": view, "axes": axes}
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


def write(run_folder: store.Run, spec: roles.RoleSpec, view: str, values: np.ndarray) -> np.ndarray:
    """Stores logits that were computed elsewhere (the joint predictions of an ensemble) as those of the role.

    Args:
      run_folder: the run folder.
      spec: the role.
      view: clean, training_mode_B, or augmented_K.
      values: [M, n, C] logits.
    """
    file = open_file(run_folder, spec, view, len(values))
    missing = np.asarray([model_id for model_id in range(len(values)) if model_id not in file.done], np.int64)
    for model_id in missing:
        file.values[model_id] = values[model_id]
    if len(missing):
        logits.commit(file, missing)
    return file.values


def read(run_folder: store.Run, spec: roles.RoleSpec, view: str = CLEAN) -> np.ndarray:
    """Returns recorded logits as a read-only memory map [M * K, N, C], ordered as in `record`; writes nothing.

    Raises:
      StoreError: missing, incomplete, or recorded from other models or rows. Blocks' checksums are not verified here:
        the command that records does that whenever it runs.
    """
    path = run_folder.path("logits", file_name(spec.name, view))
    num_models = len(spec.membership) * max(len(spec.snapshots), 1)
    try:
        manifest = store.files.read_json(path.with_suffix(".json"))
        done, fingerprint = manifest["done"], manifest["facts"]["fingerprint"]
    except (OSError, KeyError, TypeError) as error:
        raise errors.StoreError(f"{path} is missing, or was never finished.") from error
    if fingerprint != _fingerprint(spec, spec.rows, view):
        raise errors.StoreError(f"{path} was recorded from other models or rows.")
    count = sum(str(model_id) in done for model_id in range(num_models))
    if count < num_models:
        raise errors.StoreError(f"{path} contains {count} of {num_models} lines.")
    values = logits.read(path)
    if values.shape[0] < num_models or values.shape[1:] != (
        len(spec.rows),
        experiments.recorded_width(spec.experiment),
    ):
        raise errors.StoreError(f"{path} is damaged: its shape is {values.shape}.")
    return values[:num_models]


def _chunk_folders(run_folder: store.Run, spec: roles.RoleSpec) -> list[Path]:
    """Returns the folders of the chunks that are recorded, one per snapshot."""
    folder = members.folder_of(run_folder, spec)
    return [folder / f"snapshot_{epoch:05d}" for epoch in spec.snapshots] or [folder]


def _fingerprint(spec: roles.RoleSpec, rows: np.ndarray, view: str) -> str:
    draws = {"draws": VIEW_VERSION} if view.startswith(roles.VIEW_PREFIX) else {}
    return store.files.fingerprint({"role": spec.fingerprint, "rows": rows, "view": view, **draws})
