"""Shadows of another run, queried on this run's rows: dataset shift, architecture shift, incremental training.

Images keep this run's normalisation (as published); the external shadows' own training rows, for IAM-Off, are those
recorded in their own run.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from jaxunlearn import errors, population, progress, records, scores, settings, store
from jaxunlearn.analyses.audit.evidence import gather
from jaxunlearn.analyses.base import RoleLogits
from jaxunlearn.runs import experiments, roles, splits
from jaxunlearn.runs.execution import members, recording
from jaxunlearn.runs.roles import shadow

PROTOCOLS = gather.ELSEWHERE


def name_of(folder: str) -> str:
    """Returns a short name for a run folder in tables."""
    return Path(folder).expanduser().absolute().name


def settings_of(folder: str) -> settings.Settings:
    """Returns the settings of another run.

    Raises:
      ConfigError: the run has no finished shadow population.
    """
    root = Path(folder).expanduser()
    if not (root / "run.json").exists() or not (root / "populations" / shadow.NAME / "stage.json").exists():
        raise errors.ConfigError(
            f"audit.shadow_runs names {folder!r}, which contains no shadow models. It must be a run folder: train them "
            f"with `python -m launch.shadows --config=... --workdir={folder}` first."
        )
    try:
        return settings.resolve(store.files.read_json(root / "run.json")["settings"])
    except KeyError as error:
        raise store.files.damaged(root / "run.json", "it contains no settings") from error
    except errors.ConfigError as error:
        raise errors.ConfigError(
            f"audit.shadow_runs names {folder!r}, whose settings are those of another version of jaxunlearn ({error}) "
            "Train its shadows again with this one."
        ) from error


def check(experiment: experiments.Experiment) -> None:
    """Raises a ConfigError unless every run of audit.shadow_runs can predict this run's rows."""
    for folder in experiment.settings.audit.shadow_runs:
        other_settings = settings_of(folder)
        logits = Path(folder).expanduser() / "logits" / "shadow.npy"
        classes = store.logits.read(logits).shape[-1] if logits.exists() else experiment.dataset.num_classes
        if classes != experiment.dataset.num_classes:
            raise errors.ConfigError(
                f"audit.shadow_runs: the shadows of {folder!r} have {classes} classes "
                f"({other_settings.data.name}), but this run's data has {experiment.dataset.num_classes}; shadows must "
                "have the same classes."
            )


def open_shadows(
    run_folder: store.Run,
    reporter: progress.Reporter,
    experiment: experiments.Experiment,
    folder: str,
    options: scores.Options,
) -> tuple[str, tuple[scores.Signals, scores.Signals, scores.Signals]]:
    """Computes signals of another run's shadows on this run's target and population rows, and on their training rows.

    Args:
      run_folder: of this run.
      reporter: for messages.
      experiment: of this run.
      folder: the other run folder.
      options: which signals to compute.

    Returns:
      (short name of the run, (signals on target rows, on population rows, on own rows)).

    Raises:
      ConfigError: not a run folder with shadows, or a network that cannot read these inputs.
    """
    other_settings = settings_of(folder)
    mixed_settings = dataclasses.replace(
        experiment.settings, model=other_settings.model, train=other_settings.train, shadows=other_settings.shadows
    )
    shadow_experiment = experiments.prepare(mixed_settings)
    root = store.Run(Path(folder).expanduser().absolute())
    fingerprint, _ = store.read_claim(root.path("populations", shadow.NAME, "stage.json"))
    ids = np.arange(other_settings.shadows.count)
    split = splits.obtain(run_folder, experiment)
    reporter.log(f"querying {len(ids)} shadow models of {root.root} on {len(split.target):,} target rows")
    try:
        variables = members.load(shadow_experiment, root.path("populations", shadow.NAME), fingerprint, ids)
    except ValueError as error:
        raise errors.ConfigError(
            f"audit.shadow_runs: the shadows of {folder!r} were trained on inputs of another shape than this run's "
            f"{experiment.dataset.inputs.shape[1:]}; they cannot be evaluated on these rows."
        ) from error
    own_logits = _own_logits(root, experiments.prepare(other_settings))
    return name_of(folder), (
        _signals(shadow_experiment, variables, split.target, options),
        _signals(shadow_experiment, variables, split.population, options),
        gather.own_signals(own_logits, options),
    )


def _own_logits(root: store.Run, experiment: experiments.Experiment) -> RoleLogits:
    """Returns the shadows' recorded logits in their own run."""
    spec = roles.claim(root, shadow.describe(experiment, splits.obtain(root, experiment)))
    values = recording.read(root, spec)
    labels = np.asarray(experiment.dataset.labels, np.int32)[spec.rows]
    return RoleLogits(values, labels, spec.rows, spec.membership[:, spec.rows], {})


def _signals(
    experiment: experiments.Experiment, variables: object, rows: records.Array, options: scores.Options
) -> scores.Signals:
    """Computes the signals [S, n] of a population on rows of the data set, block by block; logits are not kept."""
    rows = np.asarray(rows, np.int32)
    labels = np.asarray(experiment.dataset.labels, np.int32)[rows]
    count = jax.tree.leaves(variables)[0].shape[0]
    signals = [
        scores.signals_of(values, labels[block], options)
        for block, values in population.predict(
            experiment.task,
            variables,
            experiments.device_dataset(experiment).inputs,
            rows,
            experiments.member_mapping(experiment, count),
        )
    ]
    return scores.Signals(*(np.concatenate(signal_blocks, -1) for signal_blocks in zip(*signals, strict=True)))
