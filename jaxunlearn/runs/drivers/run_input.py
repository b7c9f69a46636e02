"""A run folder in, a report out, for every analysis and study.

prepare -> train and record missing models -> RecordedRun -> gather -> analyse -> compose -> deliver
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxunlearn import errors, progress, records, store
from jaxunlearn.analyses import ANALYSES
from jaxunlearn.analyses.base import CLASSES, TEXTS, Analysis, Context, RecordedRun
from jaxunlearn.report.section import Report
from jaxunlearn.runs import experiments, opening, prompts, splits
from jaxunlearn.runs.drivers import delivery, external, plan, reading
from jaxunlearn.runs.roles import audited_models, shadow, variants
from jaxunlearn.runs.verbs import shadows, targets, unlearn
from jaxunlearn.settings import Settings

ALL_METHODS = "unlearned"  # stands for every method of unlearn.methods


class AnalysisJob(NamedTuple):
    """An analysis or study of a run folder.

    Attributes:
      narrow: settings -> settings with only the models that are needed.
      roles: settings -> roles that are needed, see `Analysis.roles`.
      check: raises for invalid settings.
      check_run: raises for an invalid run before anything is trained, first without its folder, then in it.
      report: (recorded run, context, utility and cost of all roles) -> report.
      joins: analyses whose sections are added to the report.
      is_plan, needs, reads: see `Analysis`.
    """

    narrow: Callable[[Settings], Settings]
    roles: Callable[[Settings], tuple[str, ...]]
    check: Callable[[Settings], None]
    check_run: Callable[[RecordedRun], None]
    report: Callable[[RecordedRun, Context, unlearn.UnlearningSummary | None], Report]
    joins: tuple[str, ...] = ()
    is_plan: Callable[[Settings], bool] = lambda settings: False
    needs: Callable[[Settings, records.Split], list[tuple[str, str]]] = lambda settings, split: []
    reads: tuple[str, ...] = (CLASSES,)


class CheckedJob(NamedTuple):
    """A job that has passed every check.

    Attributes:
      experiment: with `all` expanded to the methods.
      roles: to record.
      variants: the unlearning methods among them.
      with_costs: whether the report states the cost of every role.
      notes: for readers of the report.
    """

    experiment: experiments.Experiment
    roles: tuple[str, ...]
    variants: tuple[variants.MethodConfig, ...]
    with_costs: bool
    notes: tuple[str, ...] = ()


def job_of(name: str) -> AnalysisJob:
    """Returns the job of an analysis."""
    analysis: Analysis = ANALYSES[name]

    def report(recorded: RecordedRun, context: Context, summary: unlearn.UnlearningSummary | None) -> Report:
        inputs = analysis.gather(recorded, context)
        return analysis.compose(analysis.analyse(inputs, recorded.settings, context), recorded.settings)

    return AnalysisJob(
        analysis.narrow,
        analysis.roles,
        analysis.check,
        analysis.check_run,
        report,
        analysis.joins,
        analysis.is_plan,
        analysis.needs,
        analysis.kinds,
    )


def run(
    job: AnalysisJob,
    settings: Settings,
    workdir: str,
    overwrite: tuple[str, ...],
    dry_run: bool,
    overrides: Mapping[str, Any],
) -> str:
    """Runs a job; trains and records missing models first. Returns the text for the terminal.

    Args:
      job: the analysis or study.
      settings: of the run.
      workdir: the run folder.
      overwrite: stages whose results are deleted first.
      dry_run: whether to only show the plan.
      overrides: settings of the command line.

    Raises:
      UserError: settings and other run folders are checked before any training.
    """
    checked_job = prepare(job, settings)
    if dry_run or job.is_plan(settings):
        needs = job.needs(settings, splits.draw(checked_job.experiment)) if job.is_plan(settings) else []
        return "\n\n".join([*([delivery.plan_table(needs)] if needs else []), plan_text(checked_job)])
    with opening.open_experiment(checked_job.experiment, settings, workdir, overwrite, overrides) as open_run:
        run_folder, reporter, experiment, plain, start_time = open_run
        # Checks that need the folder, before anything is trained in it.
        job.check_run(reading.recorded_run(run_folder, reporter, experiment, checked_job.roles, None))
        targets_summary, unlearning_summary = train(run_folder, reporter, checked_job._replace(experiment=experiment))
        recorded = reading.recorded_run(run_folder, reporter, experiment, checked_job.roles, unlearning_summary)
        report = job.report(recorded, delivery.context(run_folder, reporter), unlearning_summary)
        more_sections = delivery.joined_sections(run_folder, job.joins)
        report = report._replace(
            title=f"{report.title}: {settings.data.name}",
            sections=(*report.sections, *more_sections),
            notes=(*checked_job.notes, *reporter.notes, *report.notes),
            more_findings=tuple(shadows.findings(targets_summary.shadow)) if report.stem == "report" else (),
        )
        config = f"{settings.data.name}, {settings.model.name}, seed {settings.seed}"
        return delivery.deliver(run_folder, report, plain, start_time, {"config": config})


def prepare(job: AnalysisJob, settings: Settings) -> CheckedJob:
    """Builds the experiment and checks the job before a run folder is touched.

    Raises:
      UserError: invalid settings, data or roles.
    """
    job_settings = job.narrow(settings)
    job.check(job_settings)
    experiment = experiments.prepare(job_settings)
    if TEXTS not in job.reads:
        experiments.require_classes(experiment, "this command")
    elif CLASSES not in job.reads and not experiment.dataset.vocabulary:
        raise errors.ConfigError(f"this command works on texts, but {experiment.dataset.name!r} contains none.")
    prompts.check(experiment.settings)
    audited_models.check(experiment)
    reporter = progress.Reporter()
    configs: tuple[variants.MethodConfig, ...] = ()
    requested_roles = job.roles(job_settings)
    wants_all = ALL_METHODS in requested_roles or f"{variants.PREFIX}all" in requested_roles
    if wants_all:
        experiment, configs = unlearn.check(experiment, reporter)
    experiment = _expand_role_names(experiment)
    names = [name for name in job.roles(experiment.settings) if name != ALL_METHODS]
    if ALL_METHODS in requested_roles:
        names += [variant.role for variant in configs]
    else:
        configs = tuple(
            variants.config_of_role(experiment.settings, name) for name in names if name.startswith(variants.PREFIX)
        )
        if not wants_all:
            unlearn.trace(experiment, configs)
    known_roles = (shadow.NAME, *audited_models.NAMES)
    for name in names:
        if name not in known_roles and not name.startswith(variants.PREFIX):
            raise errors.unknown("role", name, (*audited_models.NAMES, f"{variants.PREFIX}METHOD"))
    job.check_run(reading.planned_run(experiment, splits.draw(experiment)))
    if experiment.settings.audit.protocol in external.PROTOCOLS:
        external.check(experiment)
    return CheckedJob(experiment, tuple(names), configs, ALL_METHODS in requested_roles, tuple(reporter.notes))


def _expand_role_names(experiment: experiments.Experiment) -> experiments.Experiment:
    """Returns the experiment with `unlearned:all` in audit.unlearned expanded."""
    role_names = variants.role_names(experiment.settings, experiment.settings.audit.unlearned)
    audit = dataclasses.replace(experiment.settings.audit, unlearned=role_names)
    return experiment._replace(settings=dataclasses.replace(experiment.settings, audit=audit))


def train(
    run_folder: store.Run, reporter: progress.Reporter, checked_job: CheckedJob
) -> tuple[targets.TargetsSummary, unlearn.UnlearningSummary | None]:
    """Trains and records missing models; the second result is None if neither costs nor methods are requested."""
    experiment, names, configs, with_costs, _ = checked_job
    unlearn.claim(run_folder, experiment, configs)
    targets_summary = targets.run(
        run_folder, reporter, experiment, tuple(name for name in audited_models.NAMES if name in names)
    )
    unlearning_summary = unlearn.make(run_folder, reporter, experiment, configs) if configs or with_costs else None
    return targets_summary, unlearning_summary


def plan_text(checked_job: CheckedJob) -> str:
    """Returns the plan of training."""
    return plan.text(plan.make(checked_job.experiment, checked_job.roles, checked_job.variants))
