"""Reading what a run folder holds, as analyses see it; trains and records nothing (but one view of epsilon-hat)."""

from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import errors, keys, population, progress, records, store, trees
from jaxunlearn.analyses.base import RecordedRun, RoleLogits
from jaxunlearn.data import naming
from jaxunlearn.runs import experiments, recording, roles, shadows, splits, target_roles
from jaxunlearn.runs.drivers import external
from jaxunlearn.runs.unlearned import account, members, variants
from jaxunlearn.runs.unlearned import runs as unlearned


class _Described(NamedTuple):
    """A role to be read: what it is, its own experiment, rows and snapshots, and the command that makes it."""

    role: roles.Role
    experiment: experiments.Experiment
    rows: np.ndarray
    snapshots: tuple[int, ...]
    command: str
    diverged: dict[int, int]


def recorded_run(
    run: store.Run,
    reporter: progress.Reporter,
    experiment: experiments.Experiment,
    names: tuple[str, ...],
    made: unlearned.Summary | None,
) -> RecordedRun:
    """A trained run folder as an analysis sees it.

    Args:
      run: the folder.
      reporter: for messages.
      experiment: of the same settings.
      names: recorded roles that the analysis asked for.
      made: utility and cost of the roles, where they were looked at.
    """
    split, fingerprint = splits.obtain(run, experiment)
    cache: dict[tuple[str, str], RoleLogits] = {}

    def logits(name: str, view: str = recording.CLEAN) -> RoleLogits:
        if (name, view) not in cache:
            cache[name, view] = role_logits(run, experiment, name, view)
        return cache[name, view]

    def cost(name: str) -> tuple[float, float]:
        one = None if made is None else made.roles.get(name)
        return (float("nan"), float("nan")) if one is None else (one.seconds, one.retain_epochs)

    def utility(name: str) -> dict[str, np.ndarray]:
        recorded = logits(name)
        return unlearned.utility(experiment, split, recorded.values, recorded.rows, recorded.diverged)

    def training_mode(name: str, rows: np.ndarray, batch: int) -> np.ndarray | None:
        return _training_mode(run, reporter, experiment, split, fingerprint, name, rows, batch)

    return planned_run(experiment, split)._replace(
        split_fingerprint=fingerprint,
        roles=names,
        logits=logits,
        cost=cost,
        utility=utility,
        untrained=lambda rows: _untrained(experiment, rows),
        training_mode=training_mode,
        external_shadows=lambda folder, options: external.open_shadows(run, reporter, experiment, folder, options),
    )


def planned_run(experiment: experiments.Experiment, split: records.Split) -> RecordedRun:
    """A run before anything is trained: what an analysis can check already."""

    def nothing(*given: Any) -> Any:
        raise errors.StoreError("nothing is recorded yet.")

    dataset = experiment.dataset
    return RecordedRun(
        settings=experiment.settings,
        split=split,
        split_fingerprint="",
        rows=splits.recorded_rows(split),
        labels=np.asarray(dataset.labels, np.int32),
        groups=None if dataset.groups is None else np.asarray(dataset.groups),
        names=lambda rows: naming.named(dataset, rows),
        shown=lambda rows: naming.shown(dataset, rows),
        class_names=tuple(dataset.class_names),
        roles=(),
        logits=nothing,
        cost=nothing,
        title=unlearned.shown,
        utility=nothing,
        untrained=nothing,
        training_mode=nothing,
        external_shadows=nothing,
    )


def role_logits(
    run_folder: store.Run, experiment: experiments.Experiment, name: str, view: str = recording.CLEAN
) -> RoleLogits:
    """The recorded logits of a role, checked against the settings.

    Args:
      run_folder: where `targets.run` has worked.
      experiment: of the same settings.
      name: shadow, one of `target_roles.NAMES`, or unlearned:METHOD.
      view: clean, or augmented_K.

    Raises:
      ConfigError: no such role.
      StoreError: not asked for, not recorded yet, or recorded with other settings; the message names the command to
        run.
    """
    if name.startswith(variants.PREFIX):
        role, experiment, rows, snapshots, command, diverged = _unlearned(run_folder, experiment, name, view)
    else:
        role, experiment, rows, snapshots, command, diverged = _trained(run_folder, experiment, name)
    try:
        values = recording.read(run_folder, experiment, role, rows, view, snapshots)
    except errors.StoreError as error:
        raise errors.StoreError(f"{error} {command}") from error
    labels = np.asarray(experiment.dataset.labels, np.int32)[rows]
    member = role.membership(role.member_ids)[:, rows]
    facts = store.files.read_json(run_folder.path("logits", f"{name}.json"))["facts"]
    return RoleLogits(values, labels, rows, member, diverged, snapshots, facts)


def _trained(run_folder: store.Run, experiment: experiments.Experiment, name: str) -> _Described:
    """The shadows, or a role of `target_roles`."""
    known = (shadows.ROLE, *target_roles.NAMES)
    if name not in known:
        raise errors.unknown("role", name, known)
    if name != shadows.ROLE and name not in target_roles.wanted(experiment.settings):
        raise errors.StoreError(
            f"these settings ask for no {name} models. Switch them on (targets.{name}) and run `python -m "
            f"launch.targets --config=... --workdir={run_folder.root}`."
        )
    verb = "shadows" if name == shadows.ROLE else "targets"
    needed = [("split.json",), ("populations", shadows.ROLE, "stage.json"), ("populations", name, "stage.json")]
    command = f"Run `python -m launch.{verb} --config=... --workdir={run_folder.root}` with the same settings."
    for parts in needed:
        if not run_folder.path(*parts).exists():
            raise errors.StoreError(f"{run_folder.path(*parts)} is missing. {command}")
    split, split_fingerprint = splits.obtain(run_folder, experiment)
    role = shadows.shadow_role(experiment, split, split_fingerprint, run_folder)
    if name == shadows.ROLE:
        diverged = shadows.diverged_members(run_folder, role)
        return _Described(role, experiment, splits.recorded_rows(split), (), command, diverged)
    target = target_roles.describe(experiment, split, name)
    role = target_roles.stage(run_folder, target, split_fingerprint, role)
    diverged = shadows.diverged_members(run_folder, role)
    return _Described(role, target.experiment, target.rows, target.snapshots, command, diverged)


def _unlearned(run_folder: store.Run, experiment: experiments.Experiment, name: str, view: str) -> _Described:
    """A role unlearned:METHOD."""
    method = name.removeprefix(variants.PREFIX).partition("@")[0]
    command = f"Run `python -m launch.unlearn --config=... --workdir={run_folder.root} --methods={method}`."
    if not run_folder.path("logits", recording.file_name(name, view)).exists():
        raise errors.StoreError(f"{run_folder.root} holds no logits of {name}. {command}")
    staged = members.recorded(run_folder, experiment, name)
    # An ensemble with one diverged model has no answer for its forget set.
    frozen = shadows.diverged_members(run_folder, staged.role)
    diverged = {member // staged.method.ensemble: step for member, step in frozen.items()}
    target, role = staged.target, members.public_role(staged)
    return _Described(role, target.experiment, target.rows, (), command, diverged)


def _untrained(experiment: experiments.Experiment, rows: np.ndarray) -> np.ndarray:
    """Logits [n, C] of one untrained network."""
    state = experiment.task.init(keys.stream(keys.root(experiment.settings.seed), "evaluate: untrained"))
    one = trees.stack([{"params": state.params, **state.statistics}])
    answers = np.full((len(rows), experiment.dataset.num_classes), np.nan, np.float32)
    inputs = experiments.resident(experiment).inputs
    for where, values in population.predict(experiment.task, one, inputs, rows, experiments.lifting(experiment, 1)):
        answers[where] = values[0]
    return answers


def _training_mode(
    run: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, split: records.Split,
    fingerprint: str, name: str, rows: np.ndarray, batch: int,
) -> np.ndarray | None:  # fmt: skip
    """Logits [M, n, C] with BatchNorm in training mode, recorded where they are not yet; None where there is no such.

    Raises:
      StoreError: a damaged population; run the command again.
    """
    if not account.has_statistics(experiment):
        return None
    if name.startswith(variants.PREFIX):
        staged = members.recorded(run, experiment, name)
        if staged.method.ensemble > 1:
            reporter.say(f"{name} is an ensemble: not recorded in training mode")
            return None
        own_experiment, role = staged.target.experiment, members.public_role(staged)
    else:
        shadow = shadows.shadow_role(experiment, split, fingerprint, run)
        target = target_roles.describe(experiment, split, name)
        own_experiment, role = target.experiment, target_roles.stage(run, target, fingerprint, shadow)
    view = recording.training_mode(batch)
    values, whole = recording.record(run, reporter, own_experiment, role, rows, view)
    if not whole:
        raise errors.StoreError(f"models of {name} were damaged and are made again: run the same command again.")
    return np.asarray(values, np.float32)
