"""Verbs that train the models of a run folder: shadow models, the models of an audit, unlearned models."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxunlearn.runs import experiments, opening, splits
from jaxunlearn.runs.drivers import plan
from jaxunlearn.runs.roles import audited_models, variants
from jaxunlearn.runs.verbs import shadows, targets, unlearn
from jaxunlearn.settings import Settings

Configs = tuple[variants.MethodConfig, ...]


class Verb(NamedTuple):
    """One verb that trains.

    Attributes:
      check: experiment -> (experiment, unlearning methods); raises before a run folder is touched.
      roles: names of `audited_models.NAMES` in the plan.
      train: (open run folder, the user's settings, methods) -> text for the terminal.
    """

    check: Callable[[experiments.Experiment], tuple[experiments.Experiment, Configs]]
    roles: tuple[str, ...]
    train: Callable[[opening.OpenRun, Settings, Configs], str]


def run(
    name: str, settings: Settings, workdir: str, overwrite: tuple[str, ...], dry_run: bool,
    overrides: Mapping[str, Any],
) -> str:  # fmt: skip
    """Plans, or trains and records what is missing; returns the text for the terminal.

    Args:
      name: of `VERBS`.
      settings: of the run.
      workdir: the run folder.
      overwrite: stages whose results are deleted first.
      dry_run: whether to only show the plan.
      overrides: settings of the command line.

    Raises:
      UserError: settings are checked before any training.
    """
    verb = VERBS[name]
    experiment, configs = verb.check(experiments.prepare(settings))
    if dry_run:
        return plan.text(plan.make(experiment, verb.roles, configs))
    with opening.open_experiment(experiment, settings, workdir, overwrite, overrides) as open_run:
        return verb.train(open_run, settings, configs)


def _check_shadows(experiment: experiments.Experiment) -> tuple[experiments.Experiment, Configs]:
    splits.check(experiment)
    return experiment, ()


def _check_targets(experiment: experiments.Experiment) -> tuple[experiments.Experiment, Configs]:
    audited_models.check(experiment)
    return experiment, ()


def _shadows(open_run: opening.OpenRun, settings: Settings, configs: Configs) -> str:
    del configs
    summary = shadows.run(open_run.run_folder, open_run.reporter, open_run.experiment)
    return f"{shadows.summary_text(summary)}\n\n{shadows.files_text(open_run.run_folder, settings)}"


def _targets(open_run: opening.OpenRun, settings: Settings, configs: Configs) -> str:
    del configs
    summary = targets.run(open_run.run_folder, open_run.reporter, open_run.experiment)
    return f"{targets.text(summary)}\n\n{targets.files_text(open_run.run_folder, settings)}"


def _unlearn(open_run: opening.OpenRun, settings: Settings, configs: Configs) -> str:
    del settings
    summary = unlearn.run(open_run.run_folder, open_run.reporter, open_run.experiment, configs)
    return f"{unlearn.text(summary)}\n\n{unlearn.files_text(open_run.run_folder, configs)}"


VERBS = {
    "shadows": Verb(_check_shadows, (), _shadows),
    "targets": Verb(_check_targets, audited_models.NAMES, _targets),
    "unlearn": Verb(unlearn.check, unlearn.REFERENCE_ROLES, _unlearn),
}
