"""Reads a run folder for analyses; trains nothing, and records only the additional views that an analysis needs."""

from typing import Any

import numpy as np

from jaxunlearn import errors, keys, population, progress, records, store, trees
from jaxunlearn.analyses.base import RecordedRun, RoleLogits
from jaxunlearn.data import naming
from jaxunlearn.data.splitting import forget
from jaxunlearn.runs import answers, experiments, prompts, roles, splits
from jaxunlearn.runs.drivers import external
from jaxunlearn.runs.execution import members, recording, relearning
from jaxunlearn.runs.roles import audited_models, clone_models, shadow, unlearned_models, variants
from jaxunlearn.runs.verbs import account, unlearn


def recorded_run(
    run_folder: store.Run,
    reporter: progress.Reporter,
    experiment: experiments.Experiment,
    names: tuple[str, ...],
    summary: unlearn.UnlearningSummary | None,
) -> RecordedRun:
    """Returns a trained run folder in the form that analyses read.

    Args:
      run_folder: the run folder.
      reporter: for messages.
      experiment: of the same settings.
      names: recorded roles that the analysis needs.
      summary: utility and cost of the roles, where computed.
    """
    split = splits.obtain(run_folder, experiment)
    cache: dict[tuple[str, str], RoleLogits] = {}

    def logits(name: str, view: str = recording.CLEAN) -> RoleLogits:
        if (name, view) not in cache:
            if view in prompts.KINDS:
                _record_prompted(run_folder, reporter, experiment, split, name, view)
            cache[name, view] = role_logits(run_folder, experiment, name, view)
        return cache[name, view]

    def cost(name: str) -> tuple[float, float]:
        role_utility = None if summary is None else summary.roles.get(name)
        return (
            (float("nan"), float("nan")) if role_utility is None else (role_utility.seconds, role_utility.retain_epochs)
        )

    def utility(name: str) -> dict[str, np.ndarray]:
        role_record = logits(name)
        return unlearn.utility(experiment, split, role_record.values, role_record.rows, role_record.diverged)

    def training_mode(name: str, rows: np.ndarray, batch: int) -> np.ndarray | None:
        return _training_mode_logits(run_folder, reporter, experiment, split, name, rows, batch)

    return planned_run(experiment, split)._replace(
        split_fingerprint=splits.fingerprint(experiment),
        roles=names,
        logits=logits,
        cost=cost,
        utility=utility,
        untrained=lambda rows: _untrained_logits(experiment, rows),
        training_mode=training_mode,
        external_shadows=lambda folder, options: external.open_shadows(
            run_folder, reporter, experiment, folder, options
        ),
        relearned=lambda name: _relearn(run_folder, reporter, experiment, split, name),
        check_relearning=lambda: _check_relearning(run_folder, experiment, split, names),
    )


def planned_run(experiment: experiments.Experiment, split: records.Split) -> RecordedRun:
    """Returns a run before anything is trained, for the checks of an analysis."""

    def not_recorded(*arguments: Any) -> Any:
        raise errors.StoreError("nothing is recorded yet.")

    dataset = experiment.dataset
    return RecordedRun(
        settings=experiment.settings,
        split=split,
        split_fingerprint="",
        rows=splits.recorded_rows(split),
        labels=np.asarray(dataset.labels, np.int32),
        groups=None if dataset.groups is None else np.asarray(dataset.groups),
        names=lambda rows: naming.result_names(dataset, rows),
        display_names=lambda rows: naming.display_names(dataset, rows),
        class_names=tuple(dataset.class_names),
        set_names=forget.set_names(dataset, experiment.settings.split, len(np.asarray(split.forget))),
        roles=(),
        logits=not_recorded,
        cost=not_recorded,
        title=unlearn.display_name,
        utility=not_recorded,
        untrained=not_recorded,
        training_mode=not_recorded,
        external_shadows=not_recorded,
        relearned=not_recorded,
        check_relearning=lambda: relearning.check(experiment, split),
        predicted=answers.prediction_mask(dataset) if dataset.vocabulary else None,
        texts=None if dataset.texts is None else np.asarray(dataset.texts),
    )


def role_logits(
    run_folder: store.Run, experiment: experiments.Experiment, name: str, view: str = recording.CLEAN
) -> RoleLogits:
    """Returns the recorded logits of a role, checked against the settings.

    Args:
      run_folder: where `targets.run` has finished.
      experiment: of the same settings.
      name: shadow, one of `audited_models.NAMES`, or unlearned:METHOD.
      view: clean, or augmented_K.

    Raises:
      ConfigError: no such role.
      StoreError: not requested, not recorded yet, or recorded with other settings; the message names the command to
        run.
    """
    command = _check_recorded(run_folder, experiment, name, view)
    spec = describe_role(experiment, splits.obtain(run_folder, experiment), name)
    if name.startswith(variants.PREFIX):
        roles.claim(run_folder, unlearned_models.submodel_spec(spec))
        diverged = unlearn.diverged_sets(run_folder, spec)
    else:
        spec = roles.claim(run_folder, spec)
        diverged = members.divergence_steps(run_folder, spec)
    try:
        values = recording.read(run_folder, spec, view)
    except errors.StoreError as error:
        raise errors.StoreError(f"{error} {command}") from error
    labels = np.asarray(experiment.dataset.labels, np.int32)[spec.rows]
    facts = store.files.read_json(run_folder.path("logits", f"{name}.json"))["facts"]
    return RoleLogits(values, labels, spec.rows, spec.membership[:, spec.rows], diverged, spec.snapshots, facts)


def describe_role(experiment: experiments.Experiment, split: records.Split, name: str) -> roles.RoleSpec:
    """Describes a role by its name: shadow, one of `audited_models.NAMES`, or unlearned:METHOD; stores nothing.

    Raises:
      ConfigError: no such role.
    """
    if name.startswith(variants.PREFIX):
        return unlearned_models.describe_by_name(experiment, split, name)
    known_roles = (shadow.NAME, *audited_models.NAMES)
    if name not in known_roles:
        raise errors.unknown("role", name, known_roles)
    return (
        shadow.describe(experiment, split) if name == shadow.NAME else audited_models.describe(experiment, split, name)
    )


def _check_recorded(run_folder: store.Run, experiment: experiments.Experiment, name: str, view: str) -> str:
    """Raises a StoreError for a role that is not recorded; returns the advice how to record it.

    Raises:
      StoreError: not requested, or not recorded yet.
    """
    root = run_folder.root
    if name.startswith(variants.PREFIX):
        method = name.removeprefix(variants.PREFIX).partition("@")[0]
        command = f"Run `python -m launch.unlearn --config=... --workdir={root} --methods={method}`."
        if not run_folder.path("logits", recording.file_name(name, view)).exists():
            raise errors.StoreError(f"{root} contains no logits of {name}. {command}")
        return command
    if name in audited_models.NAMES and name not in audited_models.requested_roles(experiment.settings):
        raise errors.StoreError(
            f"these settings request no {name} models. Switch them on (targets.{name}) and run `python -m "
            f"launch.targets --config=... --workdir={root}`."
        )
    verb = "shadows" if name == shadow.NAME else "targets"
    command = f"Run `python -m launch.{verb} --config=... --workdir={root}` with the same settings."
    paths = [("split.json",), ("populations", shadow.NAME, "stage.json")]
    if name in audited_models.NAMES:
        paths.append(("populations", name, "stage.json"))
    for names in paths:
        if not run_folder.path(*names).exists():
            raise errors.StoreError(f"{run_folder.path(*names)} is missing. {command}")
    return command


def _record_prompted(
    run_folder: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, split: records.Split,
    name: str, view: str,
) -> None:  # fmt: skip
    """Records a role of language models behind a prompt, unless it is recorded already.

    Raises:
      StoreError: a damaged population; run the command again.
    """
    spec = roles.claim(run_folder, describe_role(experiment, split, name))
    if not recording.record(run_folder, reporter, spec, view)[1]:
        raise errors.StoreError(f"models of {name} were damaged and are made again: run the same command again.")


def _relearn(
    run_folder: store.Run,
    reporter: progress.Reporter,
    experiment: experiments.Experiment,
    split: records.Split,
    name: str,
) -> Any:
    """Runs the Reminiscence Attack on a role."""
    spec = describe_role(experiment, split, name)
    if spec.method is not None and spec.method.ensemble > 1:
        reporter.note(f"{name} is an ensemble of models: it is not relearned")
        return relearning.RoleTrials()
    if experiment.settings.reminisce.target == "extracted":
        spec = clone_models.describe(experiment, split, spec)
    return relearning.attack_role(run_folder, reporter, experiment, split, roles.claim(run_folder, spec))


def _check_relearning(
    run_folder: store.Run, experiment: experiments.Experiment, split: records.Split, names: tuple[str, ...]
) -> None:  # fmt: skip
    """Checks, before anything is trained, that models or clones can be attacked.

    Raises:
      ConfigError: see `relearning.check`. StoreError: clones that are missing, or of other settings; the message
        names the command that computes them.
    """
    relearning.check(experiment, split)
    if experiment.settings.reminisce.target != "extracted":
        return
    command = f"Run `python -m launch.extract --config=... --workdir={run_folder.root}` with the same settings."
    for name in names:
        victim = describe_role(experiment, split, name)
        if victim.method is not None and victim.method.ensemble > 1:
            continue
        try:
            recording.read(run_folder, clone_models.describe(experiment, split, victim))
        except errors.StoreError as error:
            raise errors.StoreError(f"no clones of {unlearn.display_name(name)}: {error} {command}") from error


def _untrained_logits(experiment: experiments.Experiment, rows: np.ndarray) -> np.ndarray:
    """Returns the logits [n, C] of one untrained network."""
    state = experiment.task.init(keys.stream(keys.root(experiment.settings.seed), "evaluate: untrained"))
    variables = trees.stack([population.variables(state)])
    logits = np.full((len(rows), experiment.dataset.num_classes), np.nan, np.float32)
    inputs = experiments.device_dataset(experiment).inputs
    for block, values in population.predict(
        experiment.task, variables, inputs, rows, experiments.member_mapping(experiment, 1)
    ):
        logits[block] = values[0]
    return logits


def _training_mode_logits(
    run_folder: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, split: records.Split,
    name: str, rows: np.ndarray, batch: int,
) -> np.ndarray | None:  # fmt: skip
    """Returns logits [M, n, C] with BatchNorm in training mode, recorded if missing; None for ensembles or without it.

    Raises:
      StoreError: a damaged population; run the command again.
    """
    if not account.network_has_batch_stats(experiment):
        return None
    spec = describe_role(experiment, split, name)
    if spec.method is not None and spec.method.ensemble > 1:
        reporter.note(f"{name} is an ensemble: not recorded in training mode")
        return None
    spec = roles.claim(run_folder, spec)
    view = recording.training_mode(batch)
    values, is_complete = recording.record(run_folder, reporter, spec, view, rows)
    if not is_complete:
        raise errors.StoreError(f"models of {name} were damaged and are made again: run the same command again.")
    return np.asarray(values, np.float32)
