"""A run folder in, a report out: the one way for every analysis and study.

prepare -> train and record what is missing -> RecordedRun -> gather -> analyse -> compose -> deliver
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
from jaxunlearn.runs.roles import audited, shadow, variants
from jaxunlearn.runs.verbs import shadows, targets, unlearn
from jaxunlearn.settings import Settings

ALL_METHODS = "unlearned"  # stands for every method of unlearn.methods


class Job(NamedTuple):
    """What is done with a run folder.

    Attributes:
      narrow: settings -> settings with only the models that are needed.
      roles: settings -> roles that are needed, see `Analysis.roles`.
      check: refuses settings; check_run: refuses a run before anything is trained, first without its folder, then in
        it.
      report: (recorded run, context, utility and cost of all roles) -> report.
      joins: analyses whose sections the report takes up.
      is_plan, needs, reads: see `Analysis`.
    """

    narrow: Callable[[Settings], Settings]
    roles: Callable[[Settings], tuple[str, ...]]
    check: Callable[[Settings], None]
    check_run: Callable[[RecordedRun], None]
    report: Callable[[RecordedRun, Context, unlearn.Summary | None], Report]
    joins: tuple[str, ...] = ()
    is_plan: Callable[[Settings], bool] = lambda settings: False
    needs: Callable[[Settings, records.Split], list[tuple[str, str]]] = lambda settings, split: []
    reads: tuple[str, ...] = (CLASSES,)


class Prepared(NamedTuple):
    """A job that has passed every check.

    Attributes:
      experiment: with methods spelled out; roles: to record; variants: the unlearning methods among them.
      costs_are_wanted: whether the report says what every role costs.
      notes: what a reader of the report must know.
    """

    experiment: experiments.Experiment
    roles: tuple[str, ...]
    variants: tuple[variants.MethodConfig, ...]
    costs_are_wanted: bool
    notes: tuple[str, ...] = ()


def job_of(name: str) -> Job:
    """The job of an analysis."""
    analysis: Analysis = ANALYSES[name]

    def report(run: RecordedRun, context: Context, made: unlearn.Summary | None) -> Report:
        inputs = analysis.gather(run, context)
        return analysis.compose(analysis.analyse(inputs, run.settings, context), run.settings)

    return Job(
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
    job: Job, chosen: Settings, workdir: str, overwrite: tuple[str, ...], dry_run: bool, overrides: Mapping[str, Any]
) -> str:
    """Does a job; trains and records first what is missing. Returns what the terminal shows.

    Raises:
      UserError: anything the user can mend; settings and other run folders are checked before any training.
    """
    prepared = prepare(job, chosen)
    if dry_run or job.is_plan(chosen):
        needs = job.needs(chosen, splits.draw(prepared.experiment)) if job.is_plan(chosen) else []
        return "\n\n".join([*([delivery.described(needs)] if needs else []), plan_text(prepared)])
    with opening.open_experiment(prepared.experiment, chosen, workdir, overwrite, overrides) as opened:
        folder, reporter, experiment, plain, begun = opened
        # What only the folder can tell is asked before anything is trained in it.
        job.check_run(reading.recorded_run(folder, reporter, experiment, prepared.roles, None))
        trained, made = train(folder, reporter, prepared._replace(experiment=experiment))
        recorded = reading.recorded_run(folder, reporter, experiment, prepared.roles, made)
        report = job.report(recorded, delivery.context(folder, reporter), made)
        joined = delivery.joined_sections(folder, job.joins)
        report = report._replace(
            title=f"{report.title}: {chosen.data.name}",
            sections=(*report.sections, *joined),
            notes=(*prepared.notes, *reporter.notes, *report.notes),
            more_findings=tuple(shadows.findings(trained.shadow)) if report.stem == "report" else (),
        )
        config = f"{chosen.data.name}, {chosen.model.name}, seed {chosen.seed}"
        return delivery.deliver(folder, report, plain, begun, {"config": config})


def prepare(job: Job, chosen: Settings) -> Prepared:
    """Builds the experiment and refuses impossible jobs before a run folder is touched.

    Raises:
      UserError: what the user has to mend.
    """
    narrowed = job.narrow(chosen)
    job.check(narrowed)
    experiment = experiments.prepare(narrowed)
    if TEXTS not in job.reads:
        experiments.require_classes(experiment, "this command")
    elif CLASSES not in job.reads and not experiment.dataset.vocabulary:
        raise errors.ConfigError(f"this command works on texts, but {experiment.dataset.name!r} holds none.")
    prompts.check(experiment.settings)
    audited.check(experiment)
    reporter = progress.Reporter()
    asked: tuple[variants.MethodConfig, ...] = ()
    wanted = job.roles(narrowed)
    wants_all = ALL_METHODS in wanted or f"{variants.PREFIX}all" in wanted
    if wants_all:
        experiment, asked = unlearn.check(experiment, reporter)
    experiment = _with_roles_named(experiment)
    names = [name for name in job.roles(experiment.settings) if name != ALL_METHODS]
    if ALL_METHODS in wanted:
        names += [variant.role for variant in asked]
    else:
        asked = tuple(variants.of_role(experiment.settings, name) for name in names if name.startswith(variants.PREFIX))
        if not wants_all:
            unlearn.trace(experiment, asked)
    known = (shadow.NAME, *audited.NAMES)
    for name in names:
        if name not in known and not name.startswith(variants.PREFIX):
            raise errors.unknown("role", name, (*audited.NAMES, f"{variants.PREFIX}METHOD"))
    job.check_run(reading.planned_run(experiment, splits.draw(experiment)))
    if experiment.settings.audit.protocol in external.PROTOCOLS:
        external.check(experiment)
    return Prepared(experiment, tuple(names), asked, ALL_METHODS in wanted, tuple(reporter.notes))


def _with_roles_named(experiment: experiments.Experiment) -> experiments.Experiment:
    """The experiment with `unlearned:all` in audit.unlearned spelled out."""
    named = variants.roles_of(experiment.settings, experiment.settings.audit.unlearned)
    audit = dataclasses.replace(experiment.settings.audit, unlearned=named)
    return experiment._replace(settings=dataclasses.replace(experiment.settings, audit=audit))


def train(
    run: store.Run, reporter: progress.Reporter, prepared: Prepared
) -> tuple[targets.Summary, unlearn.Summary | None]:
    """Trains and records what is missing; the second result is None where no costs or methods are wanted."""
    experiment, names, asked, costs_are_wanted, _ = prepared
    unlearn.claim(run, experiment, asked)
    trained = targets.run(run, reporter, experiment, tuple(name for name in audited.NAMES if name in names))
    made = unlearn.make(run, reporter, experiment, asked) if asked or costs_are_wanted else None
    return trained, made


def plan_text(prepared: Prepared) -> str:
    """What would be trained."""
    return plan.text(plan.make(prepared.experiment, prepared.roles, prepared.variants))
