"""Members of unlearned roles, computed from the originals: all variants of a method together, resumable.

    all variants of one method x all forget sets = ONE population -> a finished chunk per variant

The variants of a sweep share their random draws, so that they differ in their hyperparameters only.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxunlearn import errors, keys, progress, records, store, trees
from jaxunlearn.population import capacity, chunked
from jaxunlearn.runs import experiments, roles
from jaxunlearn.runs.execution import members, recording, scratch
from jaxunlearn.runs.roles import audited_models, unlearned_models
from jaxunlearn.runs.roles.variants import MethodConfig
from jaxunlearn.store import chunks
from jaxunlearn.unlearn import registry
from jaxunlearn.unlearn.base import network as networks
from jaxunlearn.unlearn.engine import running
from jaxunlearn.unlearn.wrappers import wrappers

_EPOCHS = 100_000  # a rolling checkpoint stores its progress as phase * _EPOCHS + epoch


class UnlearningRun(NamedTuple):
    """Inputs that all methods of a run share.

    Attributes:
      run_folder, reporter, experiment, split: of the run.
      originals: flax variables [O, ...] of the original models.
    """

    run_folder: store.Run
    reporter: progress.Reporter
    experiment: experiments.Experiment
    split: records.Split
    originals: Any


def load_originals(
    run_folder: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, split: records.Split
) -> UnlearningRun:  # fmt: skip
    """Loads the trained originals; damaged ones are retrained.

    Args:
      run_folder: of the run.
      reporter: of the run.
      experiment: of the run.
      split: of the run.

    Raises:
      StoreError: they are not trained yet, or by other settings.
    """
    original = roles.claim(run_folder, audited_models.describe(experiment, split, "original"))
    return UnlearningRun(
        run_folder, reporter, experiment, split, scratch.load_variables(run_folder, reporter, original)
    )


def unlearning_job(
    experiment: experiments.Experiment,
    split: records.Split,
    originals: Any,
    configs: Sequence[MethodConfig],
    indices: np.ndarray,
) -> running.UnlearningJob:
    """Returns the job of the members at `indices` among all variants of ONE method.

    Args:
      experiment: of the run.
      split: of the run.
      originals: variables (or their shapes) [members, ...].
      configs: the variants, which differ in their swept hyperparameters only.
      indices: [members] ints, each (variant * R + forget set) * submodels + submodel.
    """
    settings, first = experiment.settings, configs[0]
    submodels = unlearned_models.build_method(first).ensemble
    forget = np.asarray(split.forget)
    num_sets = len(forget)
    variant_ids, member_ids = np.divmod(np.asarray(indices), num_sets * submodels)
    set_ids, submodel_ids = np.divmod(member_ids, submodels)
    target = np.asarray(split.target)
    hyper = {}
    if len(configs) > 1:
        hyper = {
            name: np.asarray([configs[index].hyperparameters[name] for index in variant_ids], np.float64)
            for name in first.swept
        }
    member_mapping = experiments.member_mapping(experiment, len(indices))
    dataset = experiment.dataset
    by_group = settings.split.forget.kind == "subclass" and dataset.groups is not None
    # The labels of texts on the device are next tokens: rows are classed by their groups or labels.
    kinds = dataset.groups if by_group else dataset.labels if dataset.vocabulary else ()
    return running.UnlearningJob(
        network=experiments.build_network(settings, experiment.dataset, experiment.mapping_policy.conv),
        data=experiments.device_dataset(experiment),
        build=registry.bind_hyperparameters(first.entry, first.hyperparameters),
        hyper=hyper,
        originals=originals,
        forget=[np.flatnonzero(forget[r]) for r in set_ids],
        retain=[target[~forget[r][target]] for r in set_ids],
        validation=np.asarray(split.population),
        member_ids=member_ids.astype(np.int32),
        submodel=submodel_ids.astype(np.int32),
        # A wrapped method shares the random draws of the method itself: the two differ by the wrapper only.
        key=keys.stream(keys.root(settings.seed), f"unlearned:{wrappers.split(first.method)[0]}"),
        mapping=member_mapping,
        bn=settings.unlearn.bn,
        batch=settings.train.batch,
        augment=settings.unlearn.augment,
        kinds=np.asarray(kinds, np.int32),
        test=np.asarray(split.test),
        budget=0
        if settings.engine.chunk
        else capacity.budget(list(member_mapping.mesh.devices.flat), settings.engine.memory),
    )


def trace(experiment: experiments.Experiment, split: records.Split, variant: MethodConfig) -> None:
    """Traces a variant on the run's network, before anything is trained.

    Raises:
      ConfigError: the network lacks what the method needs; the method is for data of another kind; a user's method that
        does not run.
    """
    unlearned_models.check_kind(experiment, variant)
    net = experiments.build_network(experiment.settings, experiment.dataset, experiment.mapping_policy.conv)
    variables = jax.eval_shape(lambda: trees.join_variables(*networks.init(net, keys.root(0))))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), variables)
    with unlearned_models.users_code(variant):
        try:
            running.trace(unlearning_job(experiment, split, shapes, [variant], np.zeros(1, np.int64)))
        except errors.UserError as error:
            raise errors.ConfigError(f"{variant.method} cannot run here: {error}") from error


def train_missing(unlearning_run: UnlearningRun, specs: Sequence[roles.RoleSpec]) -> chunked.TrainingCost:
    """Computes the members of all variants of one method that no finished chunk holds; returns the cost."""
    submodel_specs = [unlearned_models.submodel_spec(spec) for spec in specs]
    missing = np.concatenate([_missing(unlearning_run, spec, index) for index, spec in enumerate(submodel_specs)])
    if not len(missing):
        return chunked.TrainingCost()
    queue = _missing_queue(unlearning_run, submodel_specs, missing)
    unlearning_run.reporter.begin(f"unlearning by {_variant(specs[0]).method}")
    training = _chunked_training(unlearning_run, submodel_specs, queue)
    cost = chunked.train(training, [(ids, True) for ids, _ in queue], unlearning_run.reporter)
    store.files.remove(_checkpoint_folder(unlearning_run, submodel_specs))
    return cost


def _missing_queue(
    unlearning_run: UnlearningRun, specs: Sequence[roles.RoleSpec], missing: np.ndarray
) -> list[tuple[np.ndarray, chunks.Chunk | None]]:
    """Returns the members to train: unfinished chunks with their newest checkpoint, then all other missing members."""
    partial_chunks, damaged = chunks.partial(_checkpoint_folder(unlearning_run, specs), _fingerprint(specs))
    members.discard_damaged(damaged, unlearning_run.reporter)
    queue: list[tuple[np.ndarray, chunks.Chunk | None]] = []
    for chunk in partial_chunks:
        if np.isin(chunk.member_ids, missing).all():
            queue.append((chunk.member_ids.astype(np.int64), chunk))
            missing = np.setdiff1d(missing, chunk.member_ids)
    size = unlearning_run.experiment.settings.engine.chunk or max(len(missing), 1)
    return [*queue, *((missing[start : start + size], None) for start in range(0, len(missing), size))]


def _fingerprint(specs: Sequence[roles.RoleSpec]) -> str:
    """Returns the fingerprint of the rolling checkpoints of all variants of one method."""
    return store.files.fingerprint({"roles": [spec.fingerprint for spec in specs]})


def _chunked_training(
    unlearning_run: UnlearningRun,
    specs: Sequence[roles.RoleSpec],
    queue: Sequence[tuple[np.ndarray, chunks.Chunk | None]],
) -> chunked.ChunkedTraining:
    """Returns the training of all variants of one method for the restartable loop.

    An id is a member's index among all variants, as in `unlearning_job`.
    """
    method, folder = specs[0].method, _checkpoint_folder(unlearning_run, specs)
    assert method is not None
    configs = [_variant(spec) for spec in specs]
    num_members = len(specs[0].membership)
    num_epochs = max(1, specs[0].experiment.settings.train.epochs)
    checkpoints = {ids.tobytes(): checkpoint for ids, checkpoint in queue}

    def make_job(ids: np.ndarray) -> running.UnlearningJob:
        return unlearning_job(
            unlearning_run.experiment,
            unlearning_run.split,
            _initial_variables(unlearning_run, method.ensemble, ids),
            configs,
            ids,
        )

    def phase_epochs(job: running.UnlearningJob) -> list[int]:
        return [running.epochs_of(job, index) for index in range(len(method.phases))]

    def epochs(ids: np.ndarray, checkpoint: chunked.Checkpoint | None) -> Iterator[chunked.EpochReport]:
        job = make_job(ids)
        epochs_by_phase = phase_epochs(job)
        plan_text = f"{len(ids)} members, {sum(epochs_by_phase)} epoch(s) in {len(epochs_by_phase)} phase(s)"
        unlearning_run.reporter.log(f"{configs[0].method}: {plan_text}")
        for event in running.run(job, None if checkpoint is None else checkpoint.state):
            done = 0 if event.outcome is not None else sum(epochs_by_phase[: event.phase]) + event.epoch

            def state(event: running.Event = event) -> running.PhaseCheckpoint:
                return running.PhaseCheckpoint(event.phase, event.epoch, event.checkpoint())

            yield chunked.EpochReport(done, event.loss, event.accuracy, state, event.outcome)

    def save(ids: np.ndarray, state: running.PhaseCheckpoint, history: Any, epoch: int, seconds: float) -> None:
        tree, epoch_count = {"point": state.tree, "history": history}, state.phase * _EPOCHS + state.epoch
        chunks.save_partial(folder, tree, ids, _fingerprint(specs), epoch_count, seconds=seconds)

    def load(ids: np.ndarray) -> chunked.Checkpoint | None:
        stored = checkpoints.get(ids.tobytes())
        if stored is None:
            return None
        job = make_job(ids)
        return _resume(unlearning_run, job, stored, phase_epochs(job), num_epochs)

    def finish(ids: np.ndarray, outcome: running.Outcome, history: Any, seconds: float) -> None:
        for index, spec in enumerate(specs):
            rows = np.flatnonzero(ids // num_members == index)
            if len(rows):
                member_ids, share = ids[rows] - index * num_members, len(rows) / len(ids)
                _store(unlearning_run, spec, member_ids, outcome, history, rows, seconds * share)
                if outcome.mid is not None:
                    mid_spec = roles.claim(
                        unlearning_run.run_folder,
                        unlearned_models.mid_spec(unlearning_run.experiment, unlearning_run.split, spec),
                    )
                    _store_mid(unlearning_run, mid_spec, member_ids, outcome.mid, history, rows, share)
        chunks.drop_partial(folder, ids)

    return chunked.ChunkedTraining(
        num_epochs=num_epochs,
        fit=len,  # a program that does not fit raises before it runs; the loop then halves the chunk
        epochs=epochs,
        load=load,
        save=save,
        on_epoch_end=lambda ids, report, history: None,
        finish=finish,
        steps=lambda ids, epochs: float(epochs * len(ids)),
        unit="epochs",
        compile_seconds=lambda: 0.0,
        checkpoint_seconds=unlearning_run.experiment.settings.engine.checkpoint_seconds,
    )


def _variant(spec: roles.RoleSpec) -> MethodConfig:
    assert spec.variant is not None
    return spec.variant


def _missing(unlearning_run: UnlearningRun, spec: roles.RoleSpec, index: int) -> np.ndarray:
    """Returns the indices of the unfinished members of a variant; deletes damaged chunks."""
    finished_ids = members.finished_members(
        members.folder_of(unlearning_run.run_folder, spec), unlearning_run.reporter, spec
    )
    ids = [member for member in spec.member_ids.tolist() if member not in finished_ids]
    return np.asarray(ids, np.int64) + index * len(spec.membership)


def _checkpoint_folder(unlearning_run: UnlearningRun, specs: Sequence[roles.RoleSpec]) -> Path:
    """Returns the folder of a method's rolling checkpoints; all its variants train together."""
    return unlearning_run.run_folder.path("populations", f"{_variant(specs[0]).role.partition('@')[0]}.work")


def _initial_variables(unlearning_run: UnlearningRun, submodels: int, ids: np.ndarray) -> Any:
    """Returns the initial variables: the original of the member's forget set, or the shared original."""
    num_sets = len(np.asarray(unlearning_run.split.forget))
    return trees.take(
        unlearning_run.originals,
        audited_models.original_of(unlearning_run.experiment.settings, num_sets)[ids // submodels % num_sets],
    )


def _resume(
    unlearning_run: UnlearningRun,
    job: running.UnlearningJob,
    stored: chunks.Chunk,
    phase_epochs: list[int],
    num_epochs: int,
) -> chunked.Checkpoint | None:
    """Loads the rolling checkpoint of a job's members; returns None (a fresh start) if it is damaged."""
    phase, epoch = divmod(stored.manifest["epoch"], _EPOCHS)
    history = chunked.blank_history(len(job.member_ids), num_epochs)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), history)
    try:
        tree = chunks.load(stored, {"point": running.templates(job, phase), "history": shapes})
    except errors.StoreError as error:
        unlearning_run.reporter.log(f"{error} Starting these members again.")
        return None
    unlearning_run.reporter.log(f"continuing in phase {phase + 1} after epoch {epoch}")
    history = jax.tree.map(np.array, tree["history"])
    seconds = stored.manifest.get("seconds", float("nan"))
    state = running.PhaseCheckpoint(phase, epoch, tree["point"])
    return chunked.Checkpoint(sum(phase_epochs[:phase]) + epoch, state, history, seconds)


def _store(
    unlearning_run: UnlearningRun, spec: roles.RoleSpec, ids: np.ndarray, outcome: running.Outcome,
    history: dict[str, np.ndarray], rows: np.ndarray, seconds: float,
) -> None:  # fmt: skip
    """Stores finished members of one variant, and their cost."""
    assert spec.method is not None
    folder = members.folder_of(unlearning_run.run_folder, spec)
    variables, diverged_at, member_history = trees.take((outcome.variables, outcome.diverged_at, history), rows)
    distances = _relative_distances(unlearning_run, outcome, rows, ids // spec.method.ensemble)
    epochs = history["loss"].shape[1]
    members.store_chunk(
        folder, spec.fingerprint, ids, variables, diverged_at, member_history, epochs, seconds=seconds, moved=distances
    )


def _store_mid(
    unlearning_run: UnlearningRun, mid_spec: roles.RoleSpec, ids: np.ndarray, outcome: running.Outcome,
    history: dict[str, np.ndarray], rows: np.ndarray, share: float,
) -> None:  # fmt: skip
    """Stores the members of METHOD@mid that a run of the whole method passes through, if they are missing."""
    finished_ids = members.finished_members(
        members.folder_of(unlearning_run.run_folder, mid_spec), unlearning_run.reporter, mid_spec
    )
    is_missing = np.array([member not in finished_ids for member in ids.tolist()])
    if is_missing.any():
        mid_history = {name: values[:, : mid_spec.experiment.settings.train.epochs] for name, values in history.items()}
        _store(
            unlearning_run, mid_spec, ids[is_missing], outcome, mid_history, rows[is_missing], outcome.seconds * share
        )


def _relative_distances(
    unlearning_run: UnlearningRun, outcome: running.Outcome, rows: np.ndarray, set_ids: np.ndarray
) -> list[float]:
    """Returns |theta - theta_original| / |theta_original| of every member, over all parameters together."""
    distances = []
    original_of = audited_models.original_of(
        unlearning_run.experiment.settings, len(np.asarray(unlearning_run.split.forget))
    )
    for row, original_id in zip(rows, original_of[set_ids], strict=True):
        before = trees.take(unlearning_run.originals["params"], int(original_id))
        after = trees.take(outcome.variables["params"], int(row))
        leaf_pairs = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
        change = sum(float(np.sum(np.square(b - a, dtype=np.float64))) for a, b in leaf_pairs)
        size = sum(float(np.sum(np.square(a, dtype=np.float64))) for a, _ in leaf_pairs)
        distances.append(float(np.sqrt(change / max(size, 1e-30))))
    return distances


def record(unlearning_run: UnlearningRun, spec: roles.RoleSpec, view: str) -> tuple[np.ndarray, bool]:
    """Records a role in a view; for an ensemble, its submodels and their joint predictions (see `recording.record`)."""
    assert spec.method is not None
    values, is_complete = recording.record(
        unlearning_run.run_folder, unlearning_run.reporter, unlearned_models.submodel_spec(spec), view
    )
    if is_complete and spec.method.ensemble > 1:
        joint = recording.joint_logits(values, spec.method.ensemble, len(spec.membership))
        values = recording.write(unlearning_run.run_folder, spec, view, joint)
    return values, is_complete
