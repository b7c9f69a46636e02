"""Members of unlearned roles, made from the originals: all variants of a method together, resumable.

    all variants of one method x all forget sets = ONE population -> a finished chunk per variant

Draws are shared between the variants of a sweep, so that they differ by their hyperparameters only.
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
from jaxunlearn.runs.roles import audited, unlearned
from jaxunlearn.runs.roles.variants import MethodConfig
from jaxunlearn.store import chunks
from jaxunlearn.unlearn import registry
from jaxunlearn.unlearn.base import network as networks
from jaxunlearn.unlearn.engine import running
from jaxunlearn.unlearn.wrappers import wrappers

_EPOCHS = 100_000  # a rolling checkpoint counts its epochs as phase * _EPOCHS + epoch


class UnlearningRun(NamedTuple):
    """What all methods of a run start from.

    Attributes:
      run, reporter, experiment, split: as everywhere.
      originals: flax variables [O, ...] of the original models.
    """

    run: store.Run
    reporter: progress.Reporter
    experiment: experiments.Experiment
    split: records.Split
    originals: Any


def load_originals(
    run: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, split: records.Split
) -> UnlearningRun:  # fmt: skip
    """Loads the trained originals; damaged ones are trained again.

    Raises:
      StoreError: they are not trained yet, or by other settings.
    """
    original = roles.claim(run, audited.describe(experiment, split, "original"))
    return UnlearningRun(run, reporter, experiment, split, scratch.trained(run, reporter, original))


def unlearning_job(
    experiment: experiments.Experiment,
    split: records.Split,
    originals: Any,
    ways: Sequence[MethodConfig],
    chosen: np.ndarray,
) -> running.UnlearningJob:
    """The members at places `chosen` of all variants of ONE method: place = (variant * R + forget set) * parts + part.

    The variants differ by their swept hyperparameters only. `originals`: variables (or their shapes) [members, ...].
    """
    settings, first = experiment.settings, ways[0]
    parts = unlearned.built(first).ensemble
    forget = np.asarray(split.forget)
    sets = len(forget)
    variant, rest = np.divmod(np.asarray(chosen), sets * parts)
    number, part = np.divmod(rest, parts)
    target = np.asarray(split.target)
    hyper = {}
    if len(ways) > 1:
        hyper = {name: np.asarray([ways[place].chosen[name] for place in variant], np.float64) for name in first.swept}
    member_mapping = experiments.member_mapping(experiment, len(chosen))
    dataset = experiment.dataset
    by_group = settings.split.forget.kind == "subclass" and dataset.groups is not None
    # What is resident of texts are next tokens: rows are chosen by the groups that are their labels.
    kinds = dataset.groups if by_group else dataset.labels if dataset.vocabulary else ()
    return running.UnlearningJob(
        network=experiments.build_network(settings, experiment.dataset, experiment.mapping_policy.conv),
        data=experiments.device_dataset(experiment),
        build=registry.bind_hyperparameters(first.entry, first.hyperparameters),
        hyper=hyper,
        originals=originals,
        forget=[np.flatnonzero(forget[r]) for r in number],
        retain=[target[~forget[r][target]] for r in number],
        validation=np.asarray(split.population),
        member_ids=rest.astype(np.int32),
        submodel=part.astype(np.int32),
        # A wrapped method draws as the method itself, so that the two differ by the wrapper alone.
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
      ConfigError: the network lacks what the method needs; it is for data of another kind; a user's own method that
        does not run.
    """
    unlearned.check_kind(experiment, variant)
    net = experiments.build_network(experiment.settings, experiment.dataset, experiment.mapping_policy.conv)
    params, statistics = jax.eval_shape(lambda: networks.init(net, keys.root(0)))
    one = {"params": params, **statistics}
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), one)
    with unlearned.users_code(variant):
        try:
            running.trace(unlearning_job(experiment, split, shapes, [variant], np.zeros(1, np.int64)))
        except errors.UserError as error:
            raise errors.ConfigError(f"{variant.method} cannot run here: {error}") from error


def train_missing(world: UnlearningRun, specs: Sequence[roles.RoleSpec]) -> chunked.TrainingCost:
    """Makes the members of all variants of one method that no finished chunk holds; returns what that cost."""
    trained = [unlearned.parts(spec) for spec in specs]
    missing = np.concatenate([_missing(world, spec, place) for place, spec in enumerate(trained)])
    if not len(missing):
        return chunked.TrainingCost()
    size = world.experiment.settings.engine.chunk or len(missing)
    queue = [(missing[start : start + size], True) for start in range(0, len(missing), size)]
    world.reporter.begin(f"unlearning by {_variant(specs[0]).method}")
    cost = chunked.train(_chunked(world, trained), queue, world.reporter)
    store.files.remove(_work(world, trained))
    return cost


def _chunked(world: UnlearningRun, trained: Sequence[roles.RoleSpec]) -> chunked.ChunkedTraining:
    """All variants of one method as the restartable loop wants them; an id is a member's place among all of them."""
    method, folder = trained[0].method, _work(world, trained)
    assert method is not None
    ways = [_variant(spec) for spec in trained]
    each = len(trained[0].membership)
    num_epochs = max(1, trained[0].experiment.settings.train.epochs)

    def prepared(ids: np.ndarray) -> running.UnlearningJob:
        return unlearning_job(world.experiment, world.split, _originals(world, method.ensemble, ids), ways, ids)

    def planned(job: running.UnlearningJob) -> list[int]:
        return [running.epochs_of(job, index) for index in range(len(method.phases))]

    def mark(ids: np.ndarray) -> str:
        return store.files.fingerprint({"members": ids.tolist(), "roles": [spec.fingerprint for spec in trained]})

    def epochs(ids: np.ndarray, checkpoint: chunked.Checkpoint | None) -> Iterator[chunked.EpochReport]:
        job = prepared(ids)
        each_phase = planned(job)
        told = f"{len(ids)} members, {sum(each_phase)} epoch(s) in {len(each_phase)} phase(s)"
        world.reporter.say(f"{ways[0].method}: {told}")
        for event in running.run(job, None if checkpoint is None else checkpoint.state):
            done = 0 if event.outcome is not None else sum(each_phase[: event.phase]) + event.epoch

            def state(event: running.Event = event) -> running.Checkpoint:
                return running.Checkpoint(event.phase, event.epoch, event.checkpoint())

            yield chunked.EpochReport(done, event.loss, event.accuracy, state, event.outcome)

    def save(ids: np.ndarray, state: running.Checkpoint, history: Any, epoch: int, seconds: float) -> None:
        tree, place = {"point": state.tree, "history": history}, state.phase * _EPOCHS + state.epoch
        chunks.save_partial(folder, tree, np.arange(len(ids)), mark(ids), place, seconds=seconds)

    def load(ids: np.ndarray) -> chunked.Checkpoint | None:
        job = prepared(ids)
        return _resume(world, job, folder, mark(ids), planned(job), num_epochs)

    def finish(ids: np.ndarray, outcome: running.Outcome, history: Any, seconds: float) -> None:
        for place, spec in enumerate(trained):
            own = np.flatnonzero(ids // each == place)
            if len(own):
                member_ids, share = ids[own] - place * each, len(own) / len(ids)
                _store(world, spec, member_ids, outcome, history, own, seconds * share)
                if outcome.mid is not None:
                    half = roles.claim(world.run, unlearned.mid_of(world.experiment, world.split, spec))
                    _store_missing(world, half, member_ids, outcome.mid, history, own, share)
        chunks.drop_partial(folder, ids)

    return chunked.ChunkedTraining(
        num_epochs=num_epochs,
        fit=len,  # a program that does not fit says so before it runs, and two halves go on
        epochs=epochs,
        load=load,
        save=save,
        after=lambda ids, report, history: None,
        finish=finish,
        steps=lambda ids, epochs: float(epochs * len(ids)),
        unit="epochs",
        compile_seconds=lambda: 0.0,
        checkpoint_seconds=world.experiment.settings.engine.checkpoint_seconds,
    )


def _variant(spec: roles.RoleSpec) -> MethodConfig:
    assert spec.variant is not None
    return spec.variant


def _missing(world: UnlearningRun, spec: roles.RoleSpec, place: int) -> np.ndarray:
    """Places of the members of a variant that are not finished; damaged chunks are removed."""
    covered = members.finished(members.folder_of(world.run, spec), world.reporter, spec)
    ids = [member for member in spec.member_ids.tolist() if member not in covered]
    return np.asarray(ids, np.int64) + place * len(spec.membership)


def _work(world: UnlearningRun, trained: Sequence[roles.RoleSpec]) -> Path:
    """Where rolling checkpoints of a method live: all its variants train together."""
    return world.run.path("populations", f"{_variant(trained[0]).role.partition('@')[0]}.work")


def _originals(world: UnlearningRun, parts: int, ids: np.ndarray) -> Any:
    """What each member starts from: its forget set's original, or the one of all."""
    sets = len(np.asarray(world.split.forget))
    return trees.take(world.originals, audited.original_of(world.experiment.settings, sets)[ids // parts % sets])


def _resume(
    world: UnlearningRun, job: running.UnlearningJob, folder: Any, mark: str, planned: list[int], num_epochs: int
) -> chunked.Checkpoint | None:
    """The newest rolling checkpoint of these members; None where there is none."""
    whole, damaged = chunks.partial(folder, mark)
    for path in damaged:
        store.files.remove(path)
    if not whole:
        return None
    phase, epoch = divmod(whole[-1].manifest["epoch"], _EPOCHS)
    history = chunked.blank_history(len(job.member_ids), num_epochs)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), history)
    try:
        tree = chunks.load(whole[-1], {"point": running.templates(job, phase), "history": shapes})
    except errors.StoreError as error:
        world.reporter.say(f"{error} Starting these members again.")
        return None
    world.reporter.say(f"continuing in phase {phase + 1} after epoch {epoch}")
    history = jax.tree.map(np.array, tree["history"])
    seconds = whole[-1].manifest.get("seconds", float("nan"))
    state = running.Checkpoint(phase, epoch, tree["point"])
    return chunked.Checkpoint(sum(planned[:phase]) + epoch, state, history, seconds)


def _store(
    world: UnlearningRun, spec: roles.RoleSpec, ids: np.ndarray, outcome: running.Outcome,
    history: dict[str, np.ndarray], own: np.ndarray, seconds: float,
) -> None:  # fmt: skip
    """Stores finished members of one variant, and what they cost."""
    assert spec.method is not None
    folder = members.folder_of(world.run, spec)
    variables, diverged_at, kept = trees.take((outcome.variables, outcome.diverged_at, history), own)
    moved = _moved(world, outcome, own, ids // spec.method.ensemble)
    epochs = history["loss"].shape[1]
    members.store_chunk(
        folder, spec.fingerprint, ids, variables, diverged_at, kept, epochs, seconds=seconds, moved=moved
    )


def _store_missing(
    world: UnlearningRun, half: roles.RoleSpec, ids: np.ndarray, outcome: running.Outcome,
    history: dict[str, np.ndarray], own: np.ndarray, share: float,
) -> None:  # fmt: skip
    """Stores the members of METHOD@mid that a run of the whole method came by, and that are not there yet."""
    covered = members.finished(members.folder_of(world.run, half), world.reporter, half)
    new = np.array([member not in covered for member in ids.tolist()])
    if new.any():
        cut = {name: values[:, : half.experiment.settings.train.epochs] for name, values in history.items()}
        _store(world, half, ids[new], outcome, cut, own[new], outcome.seconds * share)


def _moved(world: UnlearningRun, outcome: running.Outcome, own: np.ndarray, sets: np.ndarray) -> list[float]:
    """|theta - theta_original| / |theta_original| of every member, over all parameters together."""
    found = []
    original_of = audited.original_of(world.experiment.settings, len(np.asarray(world.split.forget)))
    for place, number in zip(own, original_of[sets], strict=True):
        before = trees.take(world.originals["params"], int(number))
        after = trees.take(outcome.variables["params"], int(place))
        pairs = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
        change = sum(float(np.sum(np.square(b - a, dtype=np.float64))) for a, b in pairs)
        size = sum(float(np.sum(np.square(a, dtype=np.float64))) for a, _ in pairs)
        found.append(float(np.sqrt(change / max(size, 1e-30))))
    return found


def record(world: UnlearningRun, spec: roles.RoleSpec, view: str) -> tuple[np.ndarray, bool]:
    """Records a role in a view, of an ensemble its parts and their joint answers; see `recording.record`."""
    assert spec.method is not None
    values, whole = recording.record(world.run, world.reporter, unlearned.parts(spec), view)
    if whole and spec.method.ensemble > 1:
        joint = recording.joint_logits(values, spec.method.ensemble, len(spec.membership))
        values = recording.write(world.run, spec, view, joint)
    return values, whole
