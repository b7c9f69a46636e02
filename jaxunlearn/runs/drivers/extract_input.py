"""Data-free extraction of a run's models: what is missing of the run is trained first, then its models are copied."""

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
from jaxunlearn.runs.roles import audited, extracted, variants
from jaxunlearn.runs.verbs import extract, unlearn
from jaxunlearn.settings import Settings

NAMES = (*unlearn.NEEDED, run_input.ALL_METHODS)


def run(
    chosen: Settings, workdir: str, overwrite: tuple[str, ...], dry_run: bool, overrides: Mapping[str, Any]
) -> str:  # fmt: skip
    """Copies the models of extract.roles; returns what the terminal shows.

    Args:
      chosen: the settings.
      workdir: the run folder.
      overwrite: stages whose results are deleted first.
      dry_run: whether only the plan is wanted.
      overrides: settings of the command line.

    Raises:
      UserError: anything the user can mend; settings are checked before any training.
    """
    prepared, reporter = prepare(chosen), progress.Reporter()
    if dry_run:
        split = splits.draw(prepared.experiment)
        return _plan_text(prepared, split, _victims(prepared, split, reporter))
    with opening.open_experiment(prepared.experiment, chosen, workdir, overwrite, overrides) as opened:
        folder, reporter, experiment, _, _ = opened
        prepared = prepared._replace(experiment=experiment)
        split = splits.obtain(folder, experiment)
        victims = _victims(prepared, split, reporter)
        reporter.say(extract.budget_text(experiment, victims))
        for victim in victims:  # clones made with other settings are refused before anything is trained
            roles.claim(folder, extracted.describe(experiment, split, victim))
        run_input.train(folder, reporter, prepared)
        summary = extract.run(folder, reporter, experiment, split, [roles.claim(folder, one) for one in victims])
        return f"{extract.text(summary)}\n\n{extract.files_text(folder, summary)}"


def prepare(chosen: Settings) -> run_input.Prepared:
    """Builds the experiment and refuses impossible extractions before a run folder is touched.

    Raises:
      ConfigError: a budget below one iteration, inputs that no generator makes, a role that does not exist.
    """
    _check_roles(chosen.extract.roles)
    options.check(attack.of_settings(chosen.extract))
    experiment, reporter = experiments.prepare(chosen), progress.Reporter()
    experiments.require_classes(experiment, "launch.extract")
    extracted.check(experiment)
    audited.check(experiment)
    asked: tuple[variants.MethodConfig, ...] = ()
    wants_all = run_input.ALL_METHODS in chosen.extract.roles
    if wants_all:
        experiment, asked = unlearn.check(experiment, reporter)
    known = {variant.role for variant in asked}
    named = [name for name in chosen.extract.roles if name.startswith(variants.PREFIX) and name not in known]
    more = tuple(variants.of_role(experiment.settings, name) for name in named)
    unlearn.trace(experiment, more)
    asked += more
    # Methods start from the originals, and are compared with exact retraining.
    names = (*unlearn.NEEDED, *(variant.role for variant in asked))
    return run_input.Prepared(experiment, names, asked, wants_all, tuple(reporter.notes))


def _check_roles(names: Sequence[str]) -> None:
    """Refuses roles that have no models to ask.

    Raises:
      ConfigError: no role, or an unknown one.
    """
    if not names:
        raise errors.ConfigError("extract.roles names nothing to copy; e.g. (retrained, unlearned).")
    for name in names:
        if name not in NAMES and not name.startswith(variants.PREFIX):
            raise errors.unknown("role in extract.roles", name, (*NAMES, f"{variants.PREFIX}METHOD"))


def _victims(
    prepared: run_input.Prepared, split: records.Split, reporter: progress.Reporter
) -> list[roles.RoleSpec]:  # fmt: skip
    """The roles whose models are asked.

    Raises:
      ConfigError: all of them are ensembles.
    """
    experiment, found = prepared.experiment, []
    for name in prepared.roles:
        if name in unlearn.NEEDED and name not in experiment.settings.extract.roles:
            continue
        spec = reading.described(experiment, split, name)
        if spec.method is not None and spec.method.ensemble > 1:
            reporter.note(f"{name} is an ensemble of models: it is not copied")
            continue
        found.append(spec)
    if not found:
        raise errors.ConfigError("extract.roles names ensembles only, which are not copied; e.g. (retrained,).")
    return found


def _plan_text(prepared: run_input.Prepared, split: records.Split, victims: list[roles.RoleSpec]) -> str:
    """What would be trained, and what would be asked."""
    experiment = prepared.experiment
    specs = [extracted.describe(experiment, split, victim) for victim in victims]
    shapes = population.variables(jax.eval_shape(experiment.task.init, keys.root(0)))

    def make_job(spec: roles.RoleSpec, ids: np.ndarray, lengths: tuple[int, int]) -> population.Job:
        del lengths
        # Whatever the models have learned, they answer in the same time.
        blank = jax.tree.map(lambda leaf: np.zeros((len(spec.membership), *leaf.shape), leaf.dtype), shapes)
        return extraction.job_of(spec, ids, blank)

    return "\n\n".join([
        run_input.plan_text(prepared), extract.budget_text(experiment, victims),
        plan.text(plan.of_roles(specs, make_job=make_job)),
    ])  # fmt: skip
