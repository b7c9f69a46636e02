"""The study of Over-Unlearning and Replay: every method with and without it, under attack.

METHOD, METHOD+our -> UA, RA, TA, the Reminiscence Attack, how the forgotten class lies among the others
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
from jaxunlearn.runs.drivers.run_input import Job
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


def report(run: RecordedRun, context: Context, made: unlearn.Summary | None) -> Report:
    """The table of all methods with and without Over-Unlearning and Replay."""
    settings = run.settings
    run = run._replace(roles=tuple(role for role in run.roles if not role.endswith(wrappers.MID)))
    evaluation = EVALUATION.analyse(EVALUATION.gather(run, context), settings, context)
    attack = ATTACK.analyse(ATTACK.gather(run, context), settings, context)
    first = present(evaluation, attack)
    seen = [one for one in evaluation_sections.sections(evaluation) if one.name.startswith("evaluation_distribution")]
    return Report(
        title="Over-Unlearning and Replay",
        answer=first.text,
        summary=(*attack_sections.summary(attack)[:3], ("What Over-Unlearning and Replay changes", first.text)),
        sections=(first, *attack_sections.sections(attack), *seen),
        provenance={"forget sets": f"{evaluation.design.sets} ({settings.split.forget.kind})", **attack.about},
        stem=STEM,
        notes=evaluation.notes,
        width=150,
    )


def narrowed(chosen: Settings) -> Settings:
    """The settings with every method and its wrapped form; `all` stands for what the published code wraps."""
    asked = PUBLISHED if "all" in chosen.unlearn.methods else chosen.unlearn.methods
    bases = dict.fromkeys(wrappers.SEPARATOR.join(_bases(name)) for name in asked)
    methods = tuple(name for base in bases for name in (base, f"{base}{wrappers.SEPARATOR}{WRAPPER}"))
    unlearning = dataclasses.replace(chosen.unlearn, methods=methods)
    evaluate = dataclasses.replace(chosen.evaluate, metrics=(distributions.GROUP,))
    return ATTACK.narrow(dataclasses.replace(chosen, unlearn=unlearning, evaluate=evaluate))


def _bases(name: str) -> list[str]:
    base, chain = wrappers.split(name.removesuffix(wrappers.MID))
    return [base, *(one for one in chain if one != WRAPPER)]


def present(evaluation: evaluation_sections.Evaluation, attack: attack_sections.Reminiscence) -> Section:
    """The table of the study."""
    rows: list[tuple[Cell, ...]] = []
    every: list[Finding] = []
    for name in evaluation.roles:
        shown = [evaluation_sections.finding(evaluation, name, one) for one in (*UTILITY, *DISTRIBUTION)]
        numbers = attack.roles[name].metrics
        attacked: list[Cell] = [numbers.get(one, "") for one in UNDER_ATTACK]
        every += [*shown, *(one for one in attacked if isinstance(one, Finding))]
        bare = [evaluation_sections.bare(one) for one in shown]
        rows.append((name, *bare[: len(UTILITY)], *attacked, *bare[len(UTILITY) :]))
    caption = (
        f"{sentences.plus_minus(evaluation.design)} AUC vs retrained, ReA accuracy: "
        f"[{number_format.rate(attack.confidence_level)} interval "
        "over forget sets], see below; variance, silhouette, overlap of the forgotten class after t-SNE. The goal is "
        "the line of the retrained models."
    )
    header = ("method", *headers(UTILITY), *headers(UNDER_ATTACK), *headers(DISTRIBUTION))
    table = Table("", caption, header, tuple(rows), ("original", "retrained"))
    return Section(STEM, "Methods with and without Over-Unlearning and Replay", in_words(attack), table, None,
                   tuple(every))  # fmt: skip


def in_words(attack: attack_sections.Reminiscence) -> str:
    """Whether the wrapped form of each method is relearned less soon, by forget sets in pairs, and what is left."""
    judged = attack_sections.judged(attack)
    suffix = f"{wrappers.SEPARATOR}{WRAPPER}"
    pairs = [name for name in judged if not name.endswith(suffix) and name + suffix in judged]
    if not pairs:
        return "No method was measured with and without Over-Unlearning and Replay."
    each = "; ".join(_pair(attack, name, name + suffix, len(pairs)) for name in pairs)
    confidence_level = number_format.rate(attack.confidence_level)
    return (
        "How much sooner than by retrained models the forgotten class is relearned, without and with Over-Unlearning "
        f"and Replay (an AUC, .5 = no sooner): {each}. Intervals are for all pairs together, {confidence_level}."
    )


def _pair(attack: attack_sections.Reminiscence, name: str, wrapped: str, pairs: int) -> str:
    """What becomes of one method: both numbers, their difference, and whether anything is left."""
    judged = attack_sections.judged(attack)
    values = f"{name} {number_format.number(judged[name].value, bare=True)} and " + (
        number_format.number(judged[wrapped].value, bare=True)
    )
    apart = drop(attack, name, wrapped, pairs)
    change = (
        f"lower by {number_format.bare(apart)}"
        if apart.value >= 0
        else f"higher by {number_format.bare(_negative(apart))}"
    )
    if math.isnan(apart.low):
        return f"{values} (too few forget sets to compare)"
    is_shown = apart.low > 0 or apart.high < 0
    left = {
        "residual": "with it still above retraining", "nothing shown": "with it not told apart from retraining",
        "not known": "with it not told apart from retraining, for all sets agree",
    }  # fmt: skip
    doubt = "" if is_shown else ", a difference that these sets do not show"
    return f"{values} ({change}{doubt}; {left[attack_sections.verdict(judged[wrapped])]})"


def drop(attack: attack_sections.Reminiscence, name: str, wrapped: str, pairs: int) -> Finding:
    """AUC against retrained models of a method minus that of its wrapped form, forget sets in pairs."""
    values = attack.roles[name].excess - attack.roles[wrapped].excess
    confidence_level = 1 - (1 - attack.confidence_level) / pairs
    found = intervals.mean(values, metric="rea_drop", of=name, against=wrapped, confidence_level=confidence_level)
    if (found.n or 0) < measures.least_sets(confidence_level):
        found = dataclasses.replace(found, low=math.nan, high=math.nan)
    return found


def _negative(finding: Finding) -> Finding:
    return dataclasses.replace(finding, value=-finding.value, low=-finding.high, high=-finding.low)


def check(settings: Settings) -> None:
    """Refuses what either analysis refuses."""
    EVALUATION.check(settings)
    ATTACK.check(settings)


def check_run(run: RecordedRun) -> None:
    """Refuses what either analysis refuses, before anything is trained.

    Raises:
      UserError: no unseen classes, too few rows, an unusable calibration set.
    """
    EVALUATION.check_run(run)
    ATTACK.check_run(run)


JOB = Job(narrowed, EVALUATION.roles, check, check_run, report)
