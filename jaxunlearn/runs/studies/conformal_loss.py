"""The study of the conformal-guided loss: every method with and without it, all weights in one population.

METHOD+conformal at lam = 0 (the method itself), ... -> UA, RA, TA, prediction sets, gain of UA over lam = 0
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxunlearn.analyses import ANALYSES
from jaxunlearn.analyses.base import Context, RecordedRun
from jaxunlearn.analyses.evaluation import sections
from jaxunlearn.metrics import headers
from jaxunlearn.metrics.populations import variance
from jaxunlearn.records import Finding
from jaxunlearn.report import sentences
from jaxunlearn.report.cells import Cell, Table
from jaxunlearn.report.section import Report, Section
from jaxunlearn.runs.drivers.run_input import AnalysisJob
from jaxunlearn.runs.roles import variants
from jaxunlearn.runs.verbs import unlearn
from jaxunlearn.settings import Settings

EVALUATION = ANALYSES["evaluation"]
STEM = "conformal_loss"
PUBLISHED = ("retrain", "finetune", "random_label", "salun")  # what the published code can wrap
COLUMNS = ("UA", "RA", "TA", "coverage_forget", "size_forget", "cr_forget", "size_test", "cr_test", "recover_ratio")


class MethodRow(NamedTuple):
    """One row: the role as named by the evaluation, its method with all other swept values, and the weight."""

    role: str
    method: str
    lam: float


def report(run: RecordedRun, context: Context, summary: unlearn.UnlearningSummary | None) -> Report:
    """Returns the report: a table of all methods and weights."""
    settings = run.settings
    evaluation = EVALUATION.analyse(EVALUATION.gather(run, context), settings, context)
    section = present(evaluation, [line_of(variants.config_of_role(settings, role)) for role in run.roles
                              if role.startswith(variants.PREFIX)])  # fmt: skip
    conformal = settings.unlearn.conformal
    loss_form = "pairwise" if variants.is_pairwise(settings) else "per sample"
    return Report(
        title="Conformal-guided unlearning",
        answer=section.text,
        sections=(section,),
        provenance={
            "forget sets": f"{evaluation.design.sets} ({settings.split.forget.kind})",
            "loss": (
                f"alpha {conformal.alpha:g}, delta {conformal.delta:g}, {conformal.batch} rows per step, {loss_form}"
            ),
        },
        stem=STEM,
        notes=evaluation.notes,
        width=sections.WIDTH,
    )


def narrow(settings: Settings) -> Settings:
    """Returns the settings with every method wrapped and only prediction sets evaluated.

    The weights include at least 0 and the default; `all` means the methods that the published code wraps.
    """
    options = settings.unlearn.conformal
    default_weight = variants.default_lam(settings)
    weights = tuple(dict.fromkeys(options.lam or (0.0, default_weight)))
    if len(weights) == 1:
        weights = (0.0, default_weight) if weights[0] == 0 else (0.0, *weights)
    methods = PUBLISHED if "all" in settings.unlearn.methods else settings.unlearn.methods
    conformal = dataclasses.replace(options, enable=True, lam=weights)
    unlearn = dataclasses.replace(settings.unlearn, methods=methods, conformal=conformal)
    evaluate = dataclasses.replace(settings.evaluate, metrics=("conformal",))
    targets = dataclasses.replace(settings.targets, population_in=False, reference=0, snapshots=0)
    return dataclasses.replace(settings, unlearn=unlearn, evaluate=evaluate, targets=targets)


def line_of(variant: variants.MethodConfig) -> MethodRow:
    """Returns the row of a wrapped method."""
    weight = f"{variants.CONFORMAL}_lam"
    other_values = [f"{name}={variant.hyperparameters[name]:g}" for name in variant.swept if name != weight]
    method = variant.method.partition("+")[0] + ("@" + ",".join(other_values) if other_values else "")
    return MethodRow(unlearn.display_name(variant.role), method, float(variant.hyperparameters[weight]))


def present(evaluation: sections.Evaluation, lines: list[MethodRow]) -> Section:
    """Returns the table, with the gains of UA and TA over the smallest weight of the same method."""
    start_lines: dict[str, MethodRow] = {}
    for line in sorted(lines, key=lambda line: line.lam):
        start_lines.setdefault(line.method, line)
    rows: list[tuple[Cell, ...]] = []
    all_findings: list[Finding] = []
    gains: dict[float, list[tuple[float, float]]] = {}
    reference_lines = [MethodRow(role, role, np.nan) for role in ("original", "retrained") if role in evaluation.roles]
    for line in reference_lines + lines:
        cells = [sections.finding(evaluation, line.role, name) for name in COLUMNS]
        all_findings += cells
        gain: list[Cell] = ["", ""]
        start = start_lines.get(line.method)
        if start is not None and line.lam > start.lam:
            differences = [_difference(evaluation, line.role, start.role, name) for name in ("UA", "TA")]
            all_findings += differences
            gain = [sections.bare(difference) for difference in differences]
            gains.setdefault(line.lam, []).append((differences[0].value, differences[1].value))
        weight = "" if np.isnan(line.lam) else f"{line.lam:g}"
        rows.append((line.method, weight, *(sections.bare(cell) for cell in cells), *gain))
    caption = (
        f"{sentences.plus_minus(evaluation.design)} Sets at alpha = {evaluation.report_alpha:g}; D_f forgotten, D_t "
        "test samples. Gains are relative to the smallest weight of the same method, paired by forget set."
    )
    header = ("method", "lambda", *headers(COLUMNS), "gain of UA", "gain of TA")
    sentences_by_weight = [_in_words(weight, np.asarray(pairs)) for weight, pairs in sorted(gains.items())]
    text = " ".join(sentences_by_weight) or "Only one weight: nothing to compare."
    table = Table("Methods with the conformal-guided loss", caption, header, tuple(rows), ("retrained", "original"))
    return Section(STEM, "Effect of the conformal-guided loss", text, table, None, tuple(all_findings))


def _in_words(weight: float, gains: np.ndarray) -> str:
    """Describes the effect of one weight on UA and TA, from the gains [methods, 2]."""
    finite_gains = gains[np.isfinite(gains).all(1)]
    if not len(finite_gains):
        return f"What lambda {weight:g} changes could not be measured: no method has numbers with and without it."
    ua, ta = 100 * finite_gains.mean(0)
    scope = f", mean over {len(finite_gains)} methods" if len(finite_gains) > 1 else ", of one method"
    scope = "" if len(gains) == 1 else scope
    omission = f" ({len(gains) - len(finite_gains)} without numbers left out)" if len(finite_gains) < len(gains) else ""
    return f"lambda {weight:g} changes UA by {ua:+.1f} and TA by {ta:+.1f} points{scope}{omission}."


def _difference(evaluation: sections.Evaluation, role: str, start: str, name: str) -> Finding:
    values = sections.value_of(evaluation, role, name) - sections.value_of(evaluation, start, name)
    return variance.mean(values, evaluation.design, metric=f"gain of {name}", of=role, against=start)


JOB = AnalysisJob(narrow, EVALUATION.roles, EVALUATION.check, EVALUATION.check_run, report)
