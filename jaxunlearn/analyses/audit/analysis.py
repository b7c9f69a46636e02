"""The audit as an analysis: signals in; scoreboards, sweeps and verdicts out, composed into one report."""

from typing import Any, NamedTuple

from jaxunlearn import errors, scores
from jaxunlearn.analyses.audit import outcome, sections, text_sections
from jaxunlearn.analyses.audit.evidence import gather, plausibility, text_gather, text_run
from jaxunlearn.analyses.audit.evidence import signals as audit_signals
from jaxunlearn.analyses.audit.evidence.signals import ORIGINAL, RETRAINED, AuditInputs
from jaxunlearn.analyses.audit.scoring import binui, class_report, scoreboard, scoreui, sweeps
from jaxunlearn.analyses.audit.verdicts import first_screen, planning, requests, verdict_sections
from jaxunlearn.analyses.base import CLASSES, PROMPTED, TEXTS, Analysis, ArrayInput, Context, RecordedRun, require_units
from jaxunlearn.metrics.populations import variance
from jaxunlearn.records import Design
from jaxunlearn.report.section import Section
from jaxunlearn.scores import tokens
from jaxunlearn.settings import Settings


class Decisions(NamedTuple):
    """Verdicts, or the reason why there are none.

    Attributes:
      first_score: the score that the report names first; "" if none can be computed.
      verdicts: role -> verdicts, the first audited role first; may be empty.
      obstacle: the reason if there are none.
    """

    first_score: str
    verdicts: dict[str, requests.RoleVerdicts]
    obstacle: str = ""


# Candidates for the score that is named first: the first whose arrays are available.
AUTO = ("iam_on", "iam_off", "lira_off", "confidence", "lm_iam", "lm_ratio", "lm_loss")


class Audit(NamedTuple):
    """Results of an audit; those that were not requested are empty or None.

    Attributes:
      signals: the inputs.
      decisions: per-sample verdicts.
      scored: role -> all scores; boards: role -> their metrics (empty if the truth is unknown).
      scoreui_result: ScoreUI; counts, sensitivity: sweeps; by_class: the class report.
      sources: source of shadow models -> scoreboard; source_scoreui_results: likewise ScoreUI.
      warnings: about constant and duplicated scores; texts: results that only audits of texts have.
    """

    signals: AuditInputs
    decisions: Decisions | None = None
    scored: dict[str, scoreboard.RoleScores] = {}
    boards: dict[str, scoreboard.Scoreboard] = {}
    scoreui_result: scoreui.ScoreuiResult | None = None
    counts: sweeps.Sweep | None = None
    sensitivity: sweeps.Sweep | None = None
    by_class: class_report.ClassReport | None = None
    sources: dict[str, scoreboard.Scoreboard] = {}
    source_scoreui_results: dict[str, scoreui.ScoreuiResult] = {}
    warnings: tuple[str, ...] = ()
    texts: text_sections.TextFindings = text_sections.TextFindings()


def analyse(signals: AuditInputs, settings: Settings, context: Context) -> Audit:
    """Runs the protocol that the settings name.

    Raises:
      ConfigError: a protocol that these signals do not allow. DataError: a score that is not finite.
    """
    protocol, role, confidence_level = settings.audit.protocol, signals.audited[0], settings.audit.confidence_level
    _check_protocol(signals, protocol)
    audit = Audit(signals)
    if protocol in ("all", "binui"):
        decisions = decide(signals, settings, context)
        scored = {name: binui.run(signals, settings, name, context) for name in signals.audited}
        boards = {
            name: scoreboard.judge(scored_role, confidence_level)
            for name, scored_role in scored.items()
            if scored_role.truth is not None
        }
        audit = audit._replace(
            decisions=decisions,
            scored=scored,
            boards=boards,
            warnings=() if signals.is_run else _warnings(signals, scored[role]),
            texts=text_sections.judge(signals, scored[role], settings),
        )
    if protocol in ("all", "scoreui") and signals.snapshots is not None:
        audit = audit._replace(scoreui_result=scoreui.run(signals, settings, context))
    if protocol == "shadow_sweep" or (protocol == "all" and signals.is_run):
        audit = audit._replace(counts=sweeps.shadow_counts(signals, settings, role, context))
    if protocol == "sensitivity":
        audit = audit._replace(sensitivity=sweeps.sensitivity(signals, settings, role, context))
    if protocol == "class_report":
        audit = audit._replace(by_class=class_report.run(signals, settings, context))
    if protocol in gather.ELSEWHERE:
        audit = audit._replace(sources=sweeps.shadow_sources(signals, settings, role, context))
        if protocol == "shift" and signals.snapshots is not None:
            audit = audit._replace(source_scoreui_results={
                name: scoreui.run(sweeps.with_source(signals, shared), settings, context)
                for name, shared in signals.external.items()
            })  # fmt: skip
    return audit


def _warnings(signals: AuditInputs, scored: scoreboard.RoleScores) -> tuple[str, ...]:
    audited = signals.roles[signals.audited[0]].unlearned if signals.kind == scores.LOGITS else None
    return (*scoreboard.warnings(scored), *scores.notes_on_level(scored.values, audited, signals.options))


def _check_protocol(signals: AuditInputs, protocol: str) -> None:
    if protocol in ("shadow_sweep", "sensitivity", "class_report", *gather.ELSEWHERE) and signals.forgotten is None:
        raise errors.ConfigError(f"protocol = {protocol!r} compares with the truth: give `forgotten` [n].")
    if protocol in ("shadow_sweep", "sensitivity", "class_report") and not audit_signals.num_shadows(signals):
        raise errors.ConfigError(f"protocol = {protocol!r} needs shadow models: give `shadows` [s, n, c].")
    if protocol == "scoreui" and signals.snapshots is None:
        raise errors.ConfigError(
            "protocol = 'scoreui' needs `snapshots` [l, k, n, c]: models at k epochs of l trainings."
        )


# ---------------------------------------------------------------------------------------------------------------------
# verdicts


def decide(signals: AuditInputs, settings: Settings, context: Context) -> Decisions:
    """Returns verdicts on every audited role, on exact retraining and on the original (nothing unlearned)."""
    audit, first_score = settings.audit, decisive(signals, settings)
    obstacle = requests.obstacle(signals, signals.audited[0])
    if obstacle:
        return Decisions(first_score, {}, obstacle)
    verdicts: dict[str, requests.RoleVerdicts] = {}
    references = (RETRAINED, ORIGINAL) if signals.forgotten is not None else ()
    for role in dict.fromkeys((*signals.audited, *references)):
        if role in signals.roles and not requests.obstacle(signals, role):
            context.log(f"verdicts on {role}")
            verdicts[role] = requests.judged(signals, role, audit.fdr, audit.strict)
    return Decisions(first_score, verdicts)


def decisive(signals: AuditInputs, settings: Settings) -> str:
    """Returns the score that is named first, fixed before any result is known; "" if none can be computed.

    Raises:
      ConfigError: the requested score lacks arrays.
    """
    availability = audit_signals.available(signals, signals.audited[0])
    decision = settings.audit.decision
    if decision != "auto":
        missing_arrays = scores.missing(decision, availability)
        if missing_arrays:
            raise errors.ConfigError(f"audit.decision = {decision!r} needs {', '.join(missing_arrays)}.")
        return decision
    skipped = scores.skipped_for(AUTO, availability, kind=signals.kind)
    return next((name for name in AUTO if name not in skipped), "")


# ---------------------------------------------------------------------------------------------------------------------
# the report


def compose(audit: Audit, settings: Settings) -> outcome.AuditReport:
    """Composes sections, the answer in words, the results as values, and the arrays to save."""
    signals, values = audit.signals, outcome.result(audit, settings.audit.fdr)
    tables = outcome.listed(audit, values)
    verdict_files = [
        ("requests.csv", "one line per request: verdict, share that is left with its interval, p-values"),
        ("verdicts.csv", "one line per requested row: verdict, p-values, why"),
    ] * bool(tables)
    report_sections: list[Section] = []
    summary: first_screen.Summary = ()
    kind = settings.targets.originals if signals.is_run else "given"
    design = variance.design_of(kind, len(signals.roles[signals.audited[0]].unlearned.log_odds))
    if audit.decisions is not None:
        decisions = audit.decisions
        summary, verdict_parts = verdict_sections.compose(
            decisions.verdicts, decisions.obstacle, signals, settings.audit.fdr
        )
        report_sections += verdict_parts
        for role in signals.audited:
            report_sections += _scores(audit, role, design, decisions.first_score)
        report_sections += text_sections.section(audit.texts, settings)
    if audit.scoreui_result is not None:
        report_sections += sections.scoreui_sections(audit.scoreui_result, signals.kind == scores.TOKENS)
    if audit.counts is not None:
        report_sections += sections.counts(audit.counts, design)
    if audit.sensitivity is not None:
        report_sections += sections.sensitivity(audit.sensitivity, design)
    if audit.by_class is not None:
        report_sections += sections.by_class(audit.by_class, design)
    if audit.sources:
        report_sections += _sources(audit, design)
    if signals.accuracies:
        report_sections.append(sections.models(signals.accuracies, signals.doubts))
    doubts = _unchanged(signals) if signals.is_run else signals.doubts
    answer = first_screen.paragraph(summary, signals.audited[0]) or verdict_sections.first_sentence(report_sections)
    if first_screen.is_unchanged(signals):  # the summary says so already
        doubts = tuple(doubt for doubt in doubts if doubt not in _unchanged(signals))
    has_verdicts = audit.decisions is not None and bool(audit.decisions.verdicts)
    doubts += text_sections.doubts(audit.texts, has_verdicts, signals)
    headline = [text for _, text in summary[:1]]
    if summary and doubts:
        summary = (*summary[:1], (first_screen.DOUBTS, " ".join(doubts)), *summary[1:])
    return outcome.AuditReport(
        title="Audit" if signals.is_run else f"Audit of given {text_sections.called(signals)}",
        answer=" ".join([*headline, *doubts, answer]),
        summary=summary,
        sections=tuple(report_sections),
        provenance=_provenance(signals, settings),
        arrays=outcome.arrays(audit),
        listed=tables,
        result=values,
        notes=(*audit.warnings, *audit.texts.ties),
        files=((("scores/" if signals.is_run else "scores.npz"),
                "membership scores per sample, higher = still looks trained on; verdicts with p-values"),
               *verdict_files),
    )  # fmt: skip


def _scores(audit: Audit, role: str, design: Design, first_score: str) -> list[Section]:
    is_run = audit.signals.is_run
    if role not in audit.boards:
        return [sections.without_truth(audit.scored[role])]
    board = audit.boards[role]
    name = f"binui_{role}" if is_run else "scores"
    return sections.scoreboard(board, role if is_run else "", name, design, first_score)


def _unchanged(signals: AuditInputs) -> tuple[str, ...]:
    """Returns a warning if the audited models of a run answer like the original."""
    audited = signals.roles[signals.audited[0]]
    if signals.audited[0] == ORIGINAL or audited.original is None:
        return ()
    sentence = plausibility.unchanged_warning(audited.unlearned, audited.original)
    return (sentence,) if sentence else ()


def _sources(audit: Audit, design: Design) -> list[Section]:
    role = audit.signals.audited[0]
    source_sections = sections.sources(audit.sources, design)
    for source, board in audit.sources.items():
        if source != "own":
            source_sections += sections.scoreboard(
                board, f"{role}, shadows of {source}", f"binui_{role}_{source}", design
            )
            if source in audit.source_scoreui_results:
                source_sections += sections.scoreui_sections(audit.source_scoreui_results[source])
    return source_sections


def _provenance(signals: AuditInputs, settings: Settings) -> dict[str, str]:
    """Returns what a reader needs to repeat the audit."""
    options = signals.options
    constants = ", ".join(f"{name} {value:g}" for name, value in options.constants._asdict().items())
    size = len(audit_signals.groups(signals, settings)[0])
    if signals.kind == scores.TOKENS:
        return {
            "texts": f"{len(signals.labels):,}",
            "OUT models": f"{audit_signals.num_shadows(signals)}, {size} per group",
            "protocol": settings.audit.protocol, "compat": options.compat, **text_sections.provenance(signals),
        }  # fmt: skip
    return {
        "samples": f"{len(signals.labels):,}",
        "shadow models": f"{audit_signals.num_shadows(signals)}, {size} per group",
        "protocol": settings.audit.protocol,
        "constants": constants,
        "compat": options.compat,
        "IAM": f"{options.interpolation_steps} interpolation steps, {options.family}, {options.std} std",
    }


def describe(signals: AuditInputs, settings: Settings) -> list[tuple[str, str]]:
    """Describes what an audit of these signals would do, for a dry run."""
    names = audit_signals.names_of(signals, settings)
    runnable_names, skipped = audit_signals.runnable(signals, names, signals.audited[0])
    return [
        ("samples", f"{len(signals.labels):,}" + f" of {signals.num_classes} classes" * bool(signals.num_classes)),
        ("shadow models", str(audit_signals.num_shadows(signals))),
        ("models", ", ".join(signals.roles)),
        ("scores", ", ".join(runnable_names)),
        *[("skipped", f"{name}: {reason}") for name, reason in skipped.items()],
        *(planning.of_signals(signals) if settings.audit.plan_shadows else []),
    ]


def roles(settings: Settings) -> tuple[str, ...]:
    """Returns the roles of a run folder that an audit needs."""
    targets = settings.targets
    is_needed_by_name: dict[str, Any] = {
        "population_in": targets.population_in, "shadow_origin": targets.shadow_origin,
        "reference": targets.reference, "snapshots": targets.snapshots,
    }  # fmt: skip
    optional_roles = [name for name, is_needed in is_needed_by_name.items() if is_needed]
    roles_of = (ORIGINAL if name.startswith(PROMPTED) else name for name in settings.audit.unlearned)
    return tuple(dict.fromkeys(("shadow", ORIGINAL, RETRAINED, *optional_roles, *roles_of)))


def check(settings: Settings) -> None:
    """Refuses settings that no audit can use.

    Raises:
      ConfigError: an unknown score, or constants that do not fit together.
    """
    audit_signals.options_of(settings)
    decision = settings.audit.decision
    for name in settings.audit.scores:
        if name != "all":
            scores.find(name)  # raises for an unknown name
    names = [name for kind in (scores.LOGITS, scores.TOKENS) for name in scores.names_of(settings.audit.scores, kind)]
    if decision != "auto" and decision not in names:
        scores.names_of((decision,))  # raises for an unknown name
        raise errors.ConfigError(
            f"audit.decision = {decision!r} is not among the requested scores: add it to audit.scores."
        )


def check_run(run: RecordedRun) -> None:
    """Refuses audits that this run folder does not allow, before anything is trained.

    Raises:
      ConfigError: too few shadow models or forget sets, or a protocol whose inputs are missing.
    """
    settings, audit = run.settings, run.settings.audit
    require_units(settings)
    audit_signals.group_indices(settings, settings.shadows.count, audit.group_size or 1)
    if audit.protocol in gather.ELSEWHERE and not audit.shadow_runs:
        raise errors.ConfigError(
            f"audit.protocol = {audit.protocol!r} judges with the shadow models of other runs: name their run folders, "
            "e.g. --config.audit.shadow_runs=runs/cinic10."
        )
    if audit.protocol == "incremental" and not settings.targets.start:
        raise errors.ConfigError(
            "audit.protocol = 'incremental' audits models that were trained on from another run: name its run folder, "
            "e.g. --config.targets.start=runs/cifar10."
        )
    if run.predicted is not None:
        text_run.check(run)
    elif any(name.startswith(PROMPTED) for name in audit.unlearned):
        raise errors.ConfigError(f"audit.unlearned: roles {PROMPTED}KIND are of language models.")
    if audit.protocol == "class_report":
        class_report.check(settings)
    if audit.protocol == "scoreui" and not settings.targets.snapshots:
        raise errors.ConfigError("audit.protocol = 'scoreui' needs targets.snapshots of at least 1.")


AUDIT = Analysis(
    section="audit",
    compat="scores",
    flag="evidence",
    fields=gather.FIELDS,
    expected=gather.EXPECTED,
    check=check,
    from_arrays=gather.from_arrays,
    roles=roles,
    check_run=check_run,
    gather=gather.gather_whole,
    describe=describe,
    analyse=analyse,
    compose=compose,
    outputs=(
        "scores",
        "scores.npz",
        "verdicts.npz",
        "verdicts.csv",
        "requests.csv",
        "findings.json",
        "report/report.*",
        "report/tables",
    ),
    joins=("evaluation",),
    further=(ArrayInput("tokens", tokens.FIELDS, tokens.EXPECTED, text_gather.from_arrays),),
    kinds=(CLASSES, TEXTS),
    is_plan=lambda settings: settings.audit.plan_shadows,
    needs=planning.of_run,
)
