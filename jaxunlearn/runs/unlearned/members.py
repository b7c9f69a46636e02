"""Members of unlearned roles: one per forget set (times the parts of an ensemble), trained together, resumable.

    all variants of one method x all forget sets = ONE population -> a finished chunk per variant

A member's numbers depend on (settings, method, hyperparameters, forget set); draws are shared between the variants
of a sweep, so that they differ by their hyperparameters only.
"""

import contextlib
import dataclasses
import hashlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxunlearn import checks, errors, keys, progress, records, store, trees, unlearn
from jaxunlearn.population import capacity, chunked
from jaxunlearn.runs import experiments, recording, roles, shadows, splits, target_roles
from jaxunlearn.runs.unlearned.variants import Variant, of_role
from jaxunlearn.store import chunks
from jaxunlearn.unlearn import network as networks
from jaxunlearn.unlearn import running, table, wrappers

STAGE_VERSION = 2
PARTS = ".parts"  # the models of an ensemble are a role of their own; the role itself holds their joint answers
_EPOCHS = 100_000  # a rolling checkpoint counts its epochs as phase * _EPOCHS + epoch


class Staged(NamedTuple):
    """One variant claimed in a run folder.

    Attributes:
      variant: what it is.
      method: built with its hyperparameters.
      target: the role as described (members, rows, views); `role`: as trainer and recorder want it, of the parts where
        the method is an ensemble.
    """

    variant: Variant
    method: unlearn.Method
    target: target_roles.Target
    role: roles.Role


class World(NamedTuple):
    """What all methods of a run start from.

    Attributes:
      run, reporter, experiment, split: as everywhere.
      originals: flax variables [1 or R, ...] of the original models.
      facts: what decides about every unlearned member beside its method.
    """

    run: store.Run
    reporter: progress.Reporter
    experiment: experiments.Experiment
    split: records.Split
    originals: Any
    facts: dict[str, Any]


def world(
    run: store.Run,
    reporter: progress.Reporter,
    experiment: experiments.Experiment,
    split: records.Split,
    fingerprint: str,
) -> World:
    """Loads the trained originals; damaged ones are trained again.

    Raises:
      StoreError: they are not trained yet, or by other settings.
    """
    target, role = original_role(run, experiment, split, fingerprint)
    originals = roles.trained_members(run, reporter, target.experiment, role)
    return World(run, reporter, experiment, split, originals, facts_of(experiment, role.fingerprint, fingerprint))


def original_role(
    run: store.Run, experiment: experiments.Experiment, split: records.Split, split_fingerprint: str
) -> tuple[target_roles.Target, roles.Role]:
    """The originals' role, claimed."""
    shadow = shadows.shadow_role(experiment, split, split_fingerprint, run)
    target = target_roles.describe(experiment, split, "original")
    return target, target_roles.stage(run, target, split_fingerprint, shadow)


def facts_of(experiment: experiments.Experiment, original: str, split_fingerprint: str) -> dict[str, Any]:
    """What decides about every unlearned member beside its method."""
    settings = experiment.settings
    return {
        "seed": settings.seed,
        "data": experiment.data_fingerprint,
        "split": split_fingerprint,
        "original": original,
        "augment": {"kind": settings.data.augment, "pad": settings.data.pad} if settings.unlearn.augment else "none",
        "bn": settings.unlearn.bn,
        "batch": settings.train.batch,
        "dtype": settings.model.dtype,
    }


def stage(
    run: store.Run, experiment: experiments.Experiment, split: records.Split, facts: dict[str, Any], variant: Variant
) -> Staged:
    """Claims a variant's stage of the run folder.

    Raises:
      StoreError: the folder holds this role made with other settings. ConfigError: hyperparameters that do not build.
    """
    method = built(variant)
    target = describe(experiment, split, variant, method)
    own = {**facts, "method": variant.method, "hyperparameters": variant.chosen, "source": _source(variant)}
    name = variant.role + (PARTS if method.ensemble > 1 else "")
    manifest = run.path("populations", name, "stage.json")
    fingerprint, _ = store.claim(run, variant.role, manifest, own, STAGE_VERSION)
    role = target_roles.trainable(target, fingerprint)
    if method.ensemble > 1:
        member = np.repeat(target.member, method.ensemble, 0)
        role = target_roles.trainable(target._replace(name=name, member=member), fingerprint)
    return Staged(variant, method, target, role)


def built(variant: Variant) -> unlearn.Method:
    """The method with its hyperparameters.

    Raises:
      ConfigError: a builder that returns no method.
    """
    with _users_code(variant):
        try:
            return table.binder(variant.entry, variant.chosen)({})
        except errors.ConfigError as error:
            raise errors.ConfigError(f"{variant.method}: {error}") from error


def describe(
    experiment: experiments.Experiment, split: records.Split, variant: Variant, method: unlearn.Method
) -> target_roles.Target:
    """The role of a variant; nothing is read or stored."""
    exact = target_roles.describe(experiment, split, "retrained")
    epochs = max(1, sum(phase.epochs for phase in method.phases if phase.moves))
    train = dataclasses.replace(exact.experiment.settings.train, epochs=epochs)
    own = exact.experiment._replace(settings=dataclasses.replace(exact.experiment.settings, train=train))
    return exact._replace(name=variant.role, experiment=own)


def _source(variant: Variant) -> str:
    """A user's method is what its module says; ours has a stage version."""
    if table.is_ours(variant.method):
        return ""
    build = wrappers.innermost(variant.entry.build)
    module = inspect.getmodule(build)
    try:
        text = inspect.getsource(module or build)
    except OSError:
        return ""
    return hashlib.blake2s(text.encode(), digest_size=8).hexdigest()


def setup(
    experiment: experiments.Experiment,
    split: records.Split,
    originals: Any,
    ways: Sequence[Variant],
    chosen: np.ndarray,
) -> running.Setup:
    """The members at places `chosen` of all variants of ONE method: place = (variant * R + forget set) * parts + part.

    The variants differ by their swept hyperparameters only. `originals`: variables (or their shapes) [1 or R, ...].
    """
    settings, first = experiment.settings, ways[0]
    parts = built(first).ensemble
    forget = np.asarray(split.forget)
    sets = len(forget)
    variant, rest = np.divmod(np.asarray(chosen), sets * parts)
    number, part = np.divmod(rest, parts)
    target = np.asarray(split.target)
    hyper = {}
    if len(ways) > 1:
        hyper = {name: np.asarray([ways[place].chosen[name] for place in variant], np.float64) for name in first.swept}
    lifting = experiments.lifting(experiment, len(chosen))
    by_group = settings.split.forget.kind == "subclass" and experiment.dataset.groups is not None
    return running.Setup(
        network=experiments.build_network(settings, experiment.dataset, experiment.policy.conv),
        data=experiments.resident(experiment),
        build=table.binder(first.entry, first.chosen),
        hyper=hyper,
        originals=originals,
        forget=[np.flatnonzero(forget[r]) for r in number],
        retain=[target[~forget[r][target]] for r in number],
        validation=np.asarray(split.population),
        numbers=rest.astype(np.int32),
        part=part.astype(np.int32),
        # A wrapped method draws as the method itself, so that the two differ by the wrapper alone.
        key=keys.stream(keys.root(settings.seed), f"unlearned:{wrappers.split(first.method)[0]}"),
        lifting=lifting,
        bn=settings.unlearn.bn,
        batch=settings.train.batch,
        augment=settings.unlearn.augment,
        kinds=np.asarray(experiment.dataset.groups if by_group else (), np.int32),
        test=np.asarray(split.test),
        budget=0 if settings.engine.chunk else capacity.budget(list(lifting.mesh.devices.flat), settings.engine.memory),
    )


def trace(experiment: experiments.Experiment, split: records.Split, variant: Variant) -> None:
    """Traces a variant on the run's network, before anything is trained.

    Raises:
      ConfigError: the network lacks what the method needs; a user's own method that does not run.
    """
    net = experiments.build_network(experiment.settings, experiment.dataset, experiment.policy.conv)
    params, statistics = jax.eval_shape(lambda: networks.init(net, keys.root(0)))
    one = {"params": params, **statistics}
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), one)
    with _users_code(variant):
        try:
            running.trace(setup(experiment, split, shapes, [variant], np.zeros(1, np.int64)))
        except errors.UserError as error:
            raise errors.ConfigError(f"{variant.method} cannot run here: {error}") from error


def _users_code(variant: Variant) -> contextlib.AbstractContextManager[None]:
    """Turns whatever a user's own method raises into one message that names it."""
    build = None if table.is_ours(variant.method) else wrappers.innermost(variant.entry.build)
    return checks.users_code(variant.method, build)


def train_missing(world: World, staged: Sequence[Staged]) -> None:
    """Trains the members of all variants of one method that no finished chunk holds."""
    missing = np.concatenate([_missing(world, one, place) for place, one in enumerate(staged)])
    if not len(missing):
        return
    size = world.experiment.settings.engine.chunk or len(missing)
    queue = [(missing[start : start + size], True) for start in range(0, len(missing), size)]
    world.reporter.begin(f"unlearning by {staged[0].variant.method}")
    chunked.train(_chunked(world, staged), queue, world.reporter)
    store.files.remove(_work(world, staged))


def _chunked(world: World, staged: Sequence[Staged]) -> chunked.ChunkedTraining:
    """All variants of one method as the restartable loop wants them; an id is a member's place among all of them."""
    method, folder = staged[0].variant.method, _work(world, staged)
    num_epochs = max(1, staged[0].target.experiment.settings.train.epochs)

    def prepared(ids: np.ndarray) -> running.Setup:
        ways = [one.variant for one in staged]
        return setup(world.experiment, world.split, _originals(world, staged, ids), ways, ids)

    def mark(ids: np.ndarray) -> str:
        return store.files.fingerprint({"members": ids.tolist(), "roles": [one.role.fingerprint for one in staged]})

    def epochs(ids: np.ndarray, checkpoint: chunked.Checkpoint | None) -> Iterator[chunked.EpochReport]:
        job = prepared(ids)
        planned = [running.epochs_of(job, index) for index in range(len(staged[0].method.phases))]
        world.reporter.say(f"{method}: {len(ids)} members, {sum(planned)} epoch(s) in {len(planned)} phase(s)")
        for event in running.run(job, None if checkpoint is None else checkpoint.state):
            done = 0 if event.outcome is not None else sum(planned[: event.phase]) + event.epoch

            def state(event: running.Event = event) -> running.Checkpoint:
                return running.Checkpoint(event.phase, event.epoch, event.checkpoint())

            yield chunked.EpochReport(done, event.loss, event.accuracy, state, event.outcome)

    def save(ids: np.ndarray, state: running.Checkpoint, history: Any, epoch: int, seconds: float) -> None:
        tree, place = {"point": state.tree, "history": history}, state.phase * _EPOCHS + state.epoch
        chunks.save_partial(folder, tree, np.arange(len(ids)), mark(ids), place, seconds=seconds)

    def load(ids: np.ndarray) -> chunked.Checkpoint | None:
        job = prepared(ids)
        planned = [running.epochs_of(job, index) for index in range(len(staged[0].method.phases))]
        return _resume(world, job, folder, mark(ids), planned, num_epochs)

    def finish(ids: np.ndarray, outcome: running.Outcome, history: Any, seconds: float) -> None:
        for place, one in enumerate(staged):
            own = np.flatnonzero(ids // len(one.role.member_ids) == place)
            if len(own):
                share = seconds * len(own) / len(ids)
                _store(world, one, ids[own] - place * len(one.role.member_ids), outcome, history, own, share)
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


def _missing(world: World, one: Staged, place: int) -> np.ndarray:
    """Places of the members of a variant that are not finished; damaged chunks are removed."""
    covered = roles.finished(world.run.path("populations", one.role.name), world.reporter, one.role)
    ids = [member for member in one.role.member_ids.tolist() if member not in covered]
    return np.asarray(ids, np.int64) + place * len(one.role.member_ids)


def _work(world: World, staged: Sequence[Staged]) -> Any:
    """Where rolling checkpoints of a method live: all its variants train together."""
    return world.run.path("populations", f"{staged[0].variant.role.partition('@')[0]}.work")


def _originals(world: World, staged: Sequence[Staged], ids: np.ndarray) -> Any:
    """What each member starts from: its forget set's original, or the one of all."""
    if trees.size(world.originals) == 1:
        return trees.take(world.originals, np.zeros(len(ids), np.int64))
    parts = staged[0].method.ensemble
    return trees.take(world.originals, ids // parts % len(np.asarray(world.split.forget)))


def _resume(
    world: World, job: running.Setup, folder: Any, mark: str, planned: list[int], num_epochs: int
) -> chunked.Checkpoint | None:
    """The newest rolling checkpoint of these members; None where there is none."""
    whole, damaged = chunks.partial(folder, mark)
    for path in damaged:
        store.files.remove(path)
    if not whole:
        return None
    phase, epoch = divmod(whole[-1].manifest["epoch"], _EPOCHS)
    history = chunked.blank_history(len(job.numbers), num_epochs)
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
    world: World, one: Staged, ids: np.ndarray, outcome: running.Outcome, history: dict[str, np.ndarray],
    own: np.ndarray, seconds: float,
) -> None:  # fmt: skip
    """Stores finished members of one variant, and what they cost."""
    folder = world.run.path("populations", one.role.name)
    variables, diverged_at, kept = trees.take((outcome.variables, outcome.diverged_at, history), own)
    moved = _moved(world, outcome, own, ids // one.method.ensemble)
    epochs = history["loss"].shape[1]
    roles.store_chunk(folder, one.role, ids, variables, diverged_at, kept, epochs, seconds=seconds, moved=moved)


def _moved(world: World, outcome: running.Outcome, own: np.ndarray, sets: np.ndarray) -> list[float]:
    """|theta - theta_original| / |theta_original| of every member, over all parameters together."""
    found = []
    for place, number in zip(own, sets, strict=True):
        before = trees.take(world.originals["params"], int(number) if trees.size(world.originals) > 1 else 0)
        after = trees.take(outcome.variables["params"], int(place))
        pairs = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
        change = sum(float(np.sum(np.square(b - a, dtype=np.float64))) for a, b in pairs)
        size = sum(float(np.sum(np.square(a, dtype=np.float64))) for a, _ in pairs)
        found.append(float(np.sqrt(change / max(size, 1e-30))))
    return found


def record(world: World, one: Staged) -> tuple[np.ndarray, bool]:
    """Records the role's logits in every view; the clean ones, and whether all members could be read."""
    rows, intact = one.target.rows, True
    values: Any = None
    for view in (*one.target.views, recording.CLEAN):
        values, whole = recording.record(world.run, world.reporter, one.target.experiment, one.role, rows, view)
        intact = intact and whole
        if whole and one.method.ensemble > 1:
            joint = joint_logits(values, one.method.ensemble, len(one.target.member))
            values = recording.write(world.run, one.target.experiment, public_role(one), rows, view, joint)
    return values, intact


def public_role(one: Staged) -> roles.Role:
    """The role that others see: one member per forget set."""
    return target_roles.trainable(one.target, one.role.fingerprint)


def joint_logits(values: np.ndarray, parts: int, sets: int) -> np.ndarray:
    """[R, N, C] log of the mean probability of `parts` models each, from their logits [R * parts, N, C]."""
    found = []
    for number in range(sets):
        own = np.asarray(values[number * parts : (number + 1) * parts], np.float32)
        log_p = np.asarray(jax.nn.log_softmax(own, axis=-1))
        found.append(np.asarray(jax.nn.logsumexp(log_p, axis=0)) - np.log(parts))
    return np.stack(found).astype(np.float32)


def recorded(run: store.Run, experiment: experiments.Experiment, role: str) -> Staged:
    """The claimed variant of a role, for readers; nothing is trained.

    Raises:
      StoreError: the role is not there, or made with other settings.
    """
    variant = of_role(experiment.settings, role)
    split, split_fingerprint = splits.obtain(run, experiment)
    _, original = original_role(run, experiment, split, split_fingerprint)
    facts = facts_of(experiment, original.fingerprint, split_fingerprint)
    return stage(run, experiment, split, facts, variant)
