"""Data-free extraction of a run's models: missing models are trained first, then all are copied."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxunlearn import errors, keys, population, progress, records
from jaxunlearn.attacks import extraction as attack
from jaxunlearn.attacks.extraction import options
from jaxunlearn.runs import experiments, opening, roles, splits
from jaxunlearn.runs.drivers import plan, reading, run_input
from jaxunlearn.runs.execution import extraction
from jaxunlearn.runs.roles import audited_models, clone_models, variants
from jaxunlearn.runs.verbs import extract, unlearn
from jaxunlearn.settings import Settings

NAMES = (*unlearn.REFERENCE_ROLES, run_input.ALL_METHODS)


def run(
    settings: Settings, workdir: str, overwrite: tuple[str, ...], dry_run: bool, overrides: Mapping[str, Any]
) -> str:  # fmt: skip
    """Copies the models of extract.roles; returns the text for the terminal.

    Args:
      settings: of the run.
      workdir: the run folder.
      overwrite: stages whose results are deleted first.
      dry_run: whether to only show the plan.
      overrides: settings of the command line.

    Raises:
      UserError: settings are checked before any training.
    """
    checked_job, reporter = prepare(settings), progress.Reporter()
    if dry_run:
        split = splits.draw(checked_job.experiment)
        return _plan_text(checked_job, split, _victim_specs(checked_job, split, reporter))
    with opening.open_experiment(checked_job.experiment, settings, workdir, overwrite, overrides) as open_run:
        run_folder, reporter, experiment, _, _ = open_run
        checked_job = checked_job._replace(experiment=experiment)
        split = splits.obtain(run_folder, experiment)
        victims = _victim_specs(checked_job, split, reporter)
        reporter.log(extract.budget_text(experiment, victims))
        for victim in victims:  # clones of other settings are refused before anything is trained
            roles.claim(run_folder, clone_models.describe(experiment, split, victim))
        run_input.train(run_folder, reporter, checked_job)
        summary = extract.run(
            run_folder, reporter, experiment, split, [roles.claim(run_folder, victim_spec) for victim_spec in victims]
        )
        return f"{extract.text(summary)}\n\n{extract.files_text(run_folder, summary)}"


def prepare(settings: Settings) -> run_input.CheckedJob:
    """Builds the experiment and checks the extraction before a run folder is touched.

    Raises:
      ConfigError: a budget below one iteration, inputs that no generator produces, or an unknown role.
    """
    _check_roles(settings.extract.roles)
    options.check(attack.of_settings(settings.extract))
    experiment, reporter = experiments.prepare(settings), progress.Reporter()
    experiments.require_classes(experiment, "launch.extract")
    clone_models.check(experiment)
    audited_models.check(experiment)
    configs: tuple[variants.MethodConfig, ...] = ()
    wants_all = run_input.ALL_METHODS in settings.extract.roles
    if wants_all:
        experiment, configs = unlearn.check(experiment, reporter)
    known_roles = {variant.role for variant in configs}
    explicit_roles = [
        name for name in settings.extract.roles if name.startswith(variants.PREFIX) and name not in known_roles
    ]
    explicit_configs = tuple(variants.config_of_role(experiment.settings, name) for name in explicit_roles)
    unlearn.trace(experiment, explicit_configs)
    configs += explicit_configs
    # Methods start from the originals, and are compared with exact retraining.
    names = (*unlearn.REFERENCE_ROLES, *(variant.role for variant in configs))
    return run_input.CheckedJob(experiment, names, configs, wants_all, tuple(reporter.notes))


def _check_roles(names: Sequence[str]) -> None:
    """Raises a ConfigError for roles without models to query.

    Raises:
      ConfigError: no role, or an unknown one.
    """
    if not names:
        raise errors.ConfigError("extract.roles names nothing to copy; e.g. (retrained, unlearned).")
    for name in names:
        if name not in NAMES and not name.startswith(variants.PREFIX):
            raise errors.unknown("role in extract.roles", name, (*NAMES, f"{variants.PREFIX}METHOD"))


def _victim_specs(
    checked_job: run_input.CheckedJob, split: records.Split, reporter: progress.Reporter
) -> list[roles.RoleSpec]:  # fmt: skip
    """Returns the roles whose models are queried.

    Raises:
      ConfigError: all of them are ensembles.
    """
    experiment, specs = checked_job.experiment, []
    for name in checked_job.roles:
        if name in unlearn.REFERENCE_ROLES and name not in experiment.settings.extract.roles:
            continue
        spec = reading.describe_role(experiment, split, name)
        if spec.method is not None and spec.method.ensemble > 1:
            reporter.note(f"{name} is an ensemble of models: it is not copied")
            continue
        specs.append(spec)
    if not specs:
        raise errors.ConfigError("extract.roles names ensembles only, which are not copied; e.g. (retrained,).")
    return specs


def _plan_text(checked_job: run_input.CheckedJob, split: records.Split, victims: list[roles.RoleSpec]) -> str:
    """Returns the plan: models to train, and queries."""
    experiment = checked_job.experiment
    specs = [clone_models.describe(experiment, split, victim) for victim in victims]
    shapes = population.variables(jax.eval_shape(experiment.task.init, keys.root(0)))

    def make_job(spec: roles.RoleSpec, ids: np.ndarray, lengths: tuple[int, int]) -> population.TrainingJob:
        del lengths
        # The time of a query does not depend on the weights.
        blank = jax.tree.map(lambda leaf: np.zeros((len(spec.membership), *leaf.shape), leaf.dtype), shapes)
        return extraction.job_of(spec, ids, blank)

    return "\n\n".join([
        run_input.plan_text(checked_job), extract.budget_text(experiment, victims),
        plan.text(plan.of_roles(specs, make_job=make_job)),
    ])  # fmt: skip
