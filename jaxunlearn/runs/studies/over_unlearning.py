"""The study of Over-Unlearning and Replay: every method with and without it, under attack.

METHOD, METHOD+our -> UA, RA, TA, the Reminiscence Attack, the position of the forgotten class among the others
"""

import dataclasses
import math

from jaxunlearn.analyses import ANALYSES
from jaxunlearn.analyses.base import Context, RecordedRun
from jaxunlearn.analyses.evaluation import distributions
from jaxunlearn.analyses.evaluation import sections as evaluation_sections
from jaxunlearn.analyses.reminiscence import measures
from jaxunlearn.analyses.reminiscence import sections as attack_sections
from jaxunlearn.metrics import headers
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.records import Finding
from jaxunlearn.report import number_format, sentences
from jaxunlearn.report.cells import Cell, Table
from jaxunlearn.report.section import Report, Section
from jaxunlearn.runs.drivers.run_input import AnalysisJob
from jaxunlearn.runs.verbs import unlearn
from jaxunlearn.settings import Settings
from jaxunlearn.unlearn.wrappers import wrappers

EVALUATION, ATTACK = ANALYSES["evaluation"], ANALYSES["reminiscence"]
STEM = "over_unlearning"
WRAPPER = "our"
PUBLISHED = ("negrad_plus", "amnesiac", "bad_teacher", "ssd", "influence")  # what the published code wraps
UTILITY = ("UA", "RA", "TA")
UNDER_ATTACK = ("rea_excess", "rea_accuracy")
DISTRIBUTION = ("distribution_variance", "silhouette", "overlap_integral")


def report(run: RecordedRun, context: Context, summary: unlearn.UnlearningSummary | None) -> Report:
    """Returns the report: a table of all methods with and without Over-Unlearning and Replay."""
    settings = run.settings
    run = run._replace(roles=tuple(role for role in run.roles if not role.endswith(wrappers.MID)))
    evaluation = EVALUATION.analyse(EVALUATION.gather(run, context), settings, context)
    attack = ATTACK.analyse(ATTACK.gather(run, context), settings, context)
    main_section = present(evaluation, attack)
    distribution_sections = [
        section
        for section in evaluation_sections.sections(evaluation)
        if section.name.startswith("evaluation_distribution")
    ]
    return Report(
        title="Over-Unlearning and Replay",
        answer=main_section.text,
        summary=(*attack_sections.summary(attack)[:3], ("Effect of Over-Unlearning and Replay", main_section.text)),
        sections=(main_section, *attack_sections.sections(attack), *distribution_sections),
        provenance={"forget sets": f"{evaluation.design.sets} ({settings.split.forget.kind})", **attack.about},
        stem=STEM,
        notes=evaluation.notes,
        width=150,
    )


def narrow(settings: Settings) -> Settings:
    """Returns the settings with every method and its wrapped form; `all` means those that the published code wraps."""
    names = PUBLISHED if "all" in settings.unlearn.methods else settings.unlearn.methods
    bases = dict.fromkeys(wrappers.SEPARATOR.join(_without_wrapper(name)) for name in names)
    methods = tuple(name for base in bases for name in (base, f"{base}{wrappers.SEPARATOR}{WRAPPER}"))
    unlearning = dataclasses.replace(settings.unlearn, methods=methods)
    evaluate = dataclasses.replace(settings.evaluate, metrics=(distributions.GROUP,))
    return ATTACK.narrow(dataclasses.replace(settings, unlearn=unlearning, evaluate=evaluate))


def _without_wrapper(name: str) -> list[str]:
    base, chain = wrappers.split(name.removesuffix(wrappers.MID))
    return [base, *(wrapper for wrapper in chain if wrapper != WRAPPER)]


def present(evaluation: evaluation_sections.Evaluation, attack: attack_sections.Reminiscence) -> Section:
    """Returns the table of the study."""
    rows: list[tuple[Cell, ...]] = []
    all_findings: list[Finding] = []
    for name in evaluation.roles:
        findings = [evaluation_sections.finding(evaluation, name, metric) for metric in (*UTILITY, *DISTRIBUTION)]
        metrics = attack.roles[name].metrics
        attack_cells: list[Cell] = [metrics.get(metric, "") for metric in UNDER_ATTACK]
        all_findings += [*findings, *(cell for cell in attack_cells if isinstance(cell, Finding))]
        values = [evaluation_sections.bare(finding) for finding in findings]
        rows.append((name, *values[: len(UTILITY)], *attack_cells, *values[len(UTILITY) :]))
    caption = (
        f"{sentences.plus_minus(evaluation.design)} AUC vs retrained, ReA accuracy: "
        f"[{number_format.rate(attack.confidence_level)} interval over forget sets], see below; variance, silhouette, "
        "overlap of the forgotten class after t-SNE. The goal is the row of the retrained models."
    )
    header = ("method", *headers(UTILITY), *headers(UNDER_ATTACK), *headers(DISTRIBUTION))
    table = Table("", caption, header, tuple(rows), ("original", "retrained"))
    return Section(STEM, "Methods with and without Over-Unlearning and Replay", answer_text(attack), table, None,
                   tuple(all_findings))  # fmt: skip


def answer_text(attack: attack_sections.Reminiscence) -> str:
    """Describes whether the wrapped form of each method is relearned later, by pairs of forget sets."""
    auc_by_role = attack_sections.judged(attack)
    suffix = f"{wrappers.SEPARATOR}{WRAPPER}"
    pairs = [name for name in auc_by_role if not name.endswith(suffix) and name + suffix in auc_by_role]
    if not pairs:
        return "No method was measured with and without Over-Unlearning and Replay."
    comparisons = "; ".join(_pair_text(attack, name, name + suffix, len(pairs)) for name in pairs)
    confidence_level = number_format.rate(attack.confidence_level)
    return (
        "AUC for relearning the forgotten class sooner than retrained models do (.5 = no sooner), without and with "
        f"Over-Unlearning and Replay: {comparisons}. Intervals are for all pairs together, {confidence_level}."
    )


def _pair_text(attack: attack_sections.Reminiscence, name: str, wrapped: str, pairs: int) -> str:
    """Describes one method: both AUCs, their difference, and whether anything is left."""
    auc_by_role = attack_sections.judged(attack)
    values = f"{name} {number_format.number(auc_by_role[name].value, bare=True)} and " + (
        number_format.number(auc_by_role[wrapped].value, bare=True)
    )
    difference = drop(attack, name, wrapped, pairs)
    change = (
        f"lower by {number_format.bare(difference)}"
        if difference.value >= 0
        else f"higher by {number_format.bare(_negative(difference))}"
    )
    if math.isnan(difference.low):
        return f"{values} (too few forget sets to compare)"
    is_shown = difference.low > 0 or difference.high < 0
    conclusions = {
        "residual": "with it still above retraining", "nothing shown": "with it indistinguishable from retraining",
        "not known": "with it indistinguishable from retraining (no variation among sets)",
    }  # fmt: skip
    doubt = "" if is_shown else ", not significant"
    return f"{values} ({change}{doubt}; {conclusions[attack_sections.verdict(auc_by_role[wrapped])]})"


def drop(attack: attack_sections.Reminiscence, name: str, wrapped: str, pairs: int) -> Finding:
    """Computes AUC against retrained models of a method minus that of its wrapped form, by pairs of forget sets.

    Args:
      attack: the results of the Reminiscence Attack.
      name: of the method.
      wrapped: name of its wrapped form.
      pairs: number of compared pairs, for the joint confidence level.
    """
    values = attack.roles[name].excess - attack.roles[wrapped].excess
    confidence_level = 1 - (1 - attack.confidence_level) / pairs
    finding = intervals.mean(values, metric="rea_drop", of=name, against=wrapped, confidence_level=confidence_level)
    if (finding.n or 0) < measures.least_sets(confidence_level):
        finding = dataclasses.replace(finding, low=math.nan, high=math.nan)
    return finding


def _negative(finding: Finding) -> Finding:
    return dataclasses.replace(finding, value=-finding.value, low=-finding.high, high=-finding.low)


def check(settings: Settings) -> None:
    """Checks settings for both analyses."""
    EVALUATION.check(settings)
    ATTACK.check(settings)


def check_run(run: RecordedRun) -> None:
    """Checks a run for both analyses, before anything is trained.

    Raises:
      UserError: no unseen classes, too few rows, an unusable calibration set.
    """
    EVALUATION.check_run(run)
    ATTACK.check_run(run)


JOB = AnalysisJob(narrow, EVALUATION.roles, check, check_run, report)
