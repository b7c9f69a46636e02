"""Reading what a run folder holds, as analyses see it; trains and records nothing (but one view of epsilon-hat)."""

from typing import Any

import numpy as np

from jaxunlearn import errors, keys, population, progress, records, store, trees
from jaxunlearn.analyses.base import RecordedRun, RoleLogits
from jaxunlearn.data import naming
from jaxunlearn.data.splitting import forget
from jaxunlearn.runs import answers, experiments, prompts, roles, splits
from jaxunlearn.runs.drivers import external
from jaxunlearn.runs.execution import members, recording, relearning
from jaxunlearn.runs.roles import audited, extracted, shadow, unlearned, variants
from jaxunlearn.runs.verbs import account, unlearn


def recorded_run(
    run: store.Run,
    reporter: progress.Reporter,
    experiment: experiments.Experiment,
    names: tuple[str, ...],
    made: unlearn.Summary | None,
) -> RecordedRun:
    """A trained run folder as an analysis sees it.

    Args:
      run: the folder.
      reporter: for messages.
      experiment: of the same settings.
      names: recorded roles that the analysis asked for.
      made: utility and cost of the roles, where they were looked at.
    """
    split = splits.obtain(run, experiment)
    cache: dict[tuple[str, str], RoleLogits] = {}

    def logits(name: str, view: str = recording.CLEAN) -> RoleLogits:
        if (name, view) not in cache:
            if view in prompts.KINDS:
                _record_prompted(run, reporter, experiment, split, name, view)
            cache[name, view] = role_logits(run, experiment, name, view)
        return cache[name, view]

    def cost(name: str) -> tuple[float, float]:
        one = None if made is None else made.roles.get(name)
        return (float("nan"), float("nan")) if one is None else (one.seconds, one.retain_epochs)

    def utility(name: str) -> dict[str, np.ndarray]:
        recorded = logits(name)
        return unlearn.utility(experiment, split, recorded.values, recorded.rows, recorded.diverged)

    def training_mode(name: str, rows: np.ndarray, batch: int) -> np.ndarray | None:
        return _training_mode(run, reporter, experiment, split, name, rows, batch)

    return planned_run(experiment, split)._replace(
        split_fingerprint=splits.fingerprint(experiment),
        roles=names,
        logits=logits,
        cost=cost,
        utility=utility,
        untrained=lambda rows: _untrained(experiment, rows),
        training_mode=training_mode,
        external_shadows=lambda folder, options: external.open_shadows(run, reporter, experiment, folder, options),
        relearned=lambda name: _relearned(run, reporter, experiment, split, name),
        check_relearning=lambda: _check_relearning(run, experiment, split, names),
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
        set_names=forget.set_names(dataset, experiment.settings.split, len(np.asarray(split.forget))),
        roles=(),
        logits=nothing,
        cost=nothing,
        title=unlearn.shown,
        utility=nothing,
        untrained=nothing,
        training_mode=nothing,
        external_shadows=nothing,
        relearned=nothing,
        check_relearning=lambda: relearning.check(experiment, split),
        predicted=answers.predicted(dataset) if dataset.vocabulary else None,
        texts=None if dataset.texts is None else np.asarray(dataset.texts),
    )


def role_logits(
    run_folder: store.Run, experiment: experiments.Experiment, name: str, view: str = recording.CLEAN
) -> RoleLogits:
    """The recorded logits of a role, checked against the settings.

    Args:
      run_folder: where `targets.run` has worked.
      experiment: of the same settings.
      name: shadow, one of `audited.NAMES`, or unlearned:METHOD.
      view: clean, or augmented_K.

    Raises:
      ConfigError: no such role.
      StoreError: not asked for, not recorded yet, or recorded with other settings; the message names the command to
        run.
    """
    command = _check_there(run_folder, experiment, name, view)
    spec = described(experiment, splits.obtain(run_folder, experiment), name)
    if name.startswith(variants.PREFIX):
        roles.claim(run_folder, unlearned.parts(spec))
        diverged = unlearn.diverged_sets(run_folder, spec)
    else:
        spec = roles.claim(run_folder, spec)
        diverged = members.diverged(run_folder, spec)
    try:
        values = recording.read(run_folder, spec, view)
    except errors.StoreError as error:
        raise errors.StoreError(f"{error} {command}") from error
    labels = np.asarray(experiment.dataset.labels, np.int32)[spec.rows]
    facts = store.files.read_json(run_folder.path("logits", f"{name}.json"))["facts"]
    return RoleLogits(values, labels, spec.rows, spec.membership[:, spec.rows], diverged, spec.snapshots, facts)


def described(experiment: experiments.Experiment, split: records.Split, name: str) -> roles.RoleSpec:
    """The role of a name: shadow, one of `audited.NAMES`, or unlearned:METHOD; nothing is stored.

    Raises:
      ConfigError: no such role.
    """
    if name.startswith(variants.PREFIX):
        return unlearned.of_name(experiment, split, name)
    known = (shadow.NAME, *audited.NAMES)
    if name not in known:
        raise errors.unknown("role", name, known)
    return shadow.describe(experiment, split) if name == shadow.NAME else audited.describe(experiment, split, name)


def _check_there(run_folder: store.Run, experiment: experiments.Experiment, name: str, view: str) -> str:
    """Refuses a role that is not recorded; returns the advice of how to make it.

    Raises:
      StoreError: not asked for, or not recorded yet.
    """
    root = run_folder.root
    if name.startswith(variants.PREFIX):
        method = name.removeprefix(variants.PREFIX).partition("@")[0]
        command = f"Run `python -m launch.unlearn --config=... --workdir={root} --methods={method}`."
        if not run_folder.path("logits", recording.file_name(name, view)).exists():
            raise errors.StoreError(f"{root} holds no logits of {name}. {command}")
        return command
    if name in audited.NAMES and name not in audited.wanted(experiment.settings):
        raise errors.StoreError(
            f"these settings ask for no {name} models. Switch them on (targets.{name}) and run `python -m "
            f"launch.targets --config=... --workdir={root}`."
        )
    verb = "shadows" if name == shadow.NAME else "targets"
    command = f"Run `python -m launch.{verb} --config=... --workdir={root}` with the same settings."
    needed = [("split.json",), ("populations", shadow.NAME, "stage.json")]
    if name in audited.NAMES:
        needed.append(("populations", name, "stage.json"))
    for parts in needed:
        if not run_folder.path(*parts).exists():
            raise errors.StoreError(f"{run_folder.path(*parts)} is missing. {command}")
    return command


def _record_prompted(
    run: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, split: records.Split, name: str,
    view: str,
) -> None:  # fmt: skip
    """Records a role of language models behind a prompt, where that is not there yet.

    Raises:
      StoreError: a damaged population; run the command again.
    """
    spec = roles.claim(run, described(experiment, split, name))
    if not recording.record(run, reporter, spec, view)[1]:
        raise errors.StoreError(f"models of {name} were damaged and are made again: run the same command again.")


def _relearned(
    run: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, split: records.Split, name: str
) -> Any:
    """What the Reminiscence Attack sees of a role."""
    spec = described(experiment, split, name)
    if spec.method is not None and spec.method.ensemble > 1:
        reporter.note(f"{name} is an ensemble of models: it is not relearned")
        return relearning.Attacked()
    if experiment.settings.reminisce.target == "extracted":
        spec = extracted.describe(experiment, split, spec)
    return relearning.attacked(run, reporter, experiment, split, roles.claim(run, spec))


def _check_relearning(
    run: store.Run, experiment: experiments.Experiment, split: records.Split, names: tuple[str, ...]
) -> None:  # fmt: skip
    """Refuses models or clones that cannot be attacked, before anything is trained.

    Raises:
      ConfigError: see `relearning.check`. StoreError: clones that are not there, or of other settings; the message
        names the command that makes them.
    """
    relearning.check(experiment, split)
    if experiment.settings.reminisce.target != "extracted":
        return
    command = f"Run `python -m launch.extract --config=... --workdir={run.root}` with the same settings."
    for name in names:
        victim = described(experiment, split, name)
        if victim.method is not None and victim.method.ensemble > 1:
            continue
        try:
            recording.read(run, extracted.describe(experiment, split, victim))
        except errors.StoreError as error:
            raise errors.StoreError(f"no clones of {unlearn.shown(name)}: {error} {command}") from error


def _untrained(experiment: experiments.Experiment, rows: np.ndarray) -> np.ndarray:
    """Logits [n, C] of one untrained network."""
    state = experiment.task.init(keys.stream(keys.root(experiment.settings.seed), "evaluate: untrained"))
    one = trees.stack([{"params": state.params, **state.model_state}])
    answers = np.full((len(rows), experiment.dataset.num_classes), np.nan, np.float32)
    inputs = experiments.device_dataset(experiment).inputs
    for where, values in population.predict(
        experiment.task, one, inputs, rows, experiments.member_mapping(experiment, 1)
    ):
        answers[where] = values[0]
    return answers


def _training_mode(
    run: store.Run, reporter: progress.Reporter, experiment: experiments.Experiment, split: records.Split, name: str,
    rows: np.ndarray, batch: int,
) -> np.ndarray | None:  # fmt: skip
    """Logits [M, n, C] with BatchNorm in training mode, recorded where they are not yet; None where there is no such.

    Raises:
      StoreError: a damaged population; run the command again.
    """
    if not account.has_statistics(experiment):
        return None
    spec = described(experiment, split, name)
    if spec.method is not None and spec.method.ensemble > 1:
        reporter.note(f"{name} is an ensemble: not recorded in training mode")
        return None
    spec = roles.claim(run, spec)
    view = recording.training_mode(batch)
    values, whole = recording.record(run, reporter, spec, view, rows)
    if not whole:
        raise errors.StoreError(f"models of {name} were damaged and are made again: run the same command again.")
    return np.asarray(values, np.float32)
