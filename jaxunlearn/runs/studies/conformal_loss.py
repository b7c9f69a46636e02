"""The study of the conformal-guided loss: every method with and without it, weights side by side in one population.

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
from jaxunlearn.runs.drivers.run_input import Job
from jaxunlearn.runs.roles import variants
from jaxunlearn.runs.verbs import unlearn
from jaxunlearn.settings import Settings

EVALUATION = ANALYSES["evaluation"]
STEM = "conformal_loss"
PUBLISHED = ("retrain", "finetune", "random_label", "salun")  # what the published code can wrap
COLUMNS = ("UA", "RA", "TA", "coverage_forget", "size_forget", "cr_forget", "size_test", "cr_test", "recover_ratio")


class Line(NamedTuple):
    """One row: the role as the evaluation names it, its method with all that is swept beside the weight, the weight."""

    role: str
    method: str
    lam: float


def report(run: RecordedRun, context: Context, made: unlearn.Summary | None) -> Report:
    """The table of all methods and weights."""
    settings = run.settings
    found = EVALUATION.analyse(EVALUATION.gather(run, context), settings, context)
    section = present(found, [line_of(variants.of_role(settings, role)) for role in run.roles
                              if role.startswith(variants.PREFIX)])  # fmt: skip
    conformal = settings.unlearn.conformal
    form = "pairwise" if variants.is_pairwise(settings) else "per sample"
    return Report(
        title="Conformal-guided unlearning",
        answer=section.text,
        sections=(section,),
        provenance={
            "forget sets": f"{found.design.sets} ({settings.split.forget.kind})",
            "loss": f"alpha {conformal.alpha:g}, delta {conformal.delta:g}, {conformal.batch} rows per step, {form}",
        },
        stem=STEM,
        notes=found.notes,
        width=sections.WIDTH,
    )


def narrowed(chosen: Settings) -> Settings:
    """The settings with every method wrapped, at least the weights 0 and the default, and prediction sets alone.

    `all` stands for the methods that the published code wraps.
    """
    given = chosen.unlearn.conformal
    usual = variants.usual_lam(chosen)
    weights = tuple(dict.fromkeys(given.lam or (0.0, usual)))
    if len(weights) == 1:
        weights = (0.0, usual) if weights[0] == 0 else (0.0, *weights)
    methods = PUBLISHED if "all" in chosen.unlearn.methods else chosen.unlearn.methods
    conformal = dataclasses.replace(given, enable=True, lam=weights)
    unlearn = dataclasses.replace(chosen.unlearn, methods=methods, conformal=conformal)
    evaluate = dataclasses.replace(chosen.evaluate, metrics=("conformal",))
    targets = dataclasses.replace(chosen.targets, population_in=False, reference=0, snapshots=0)
    return dataclasses.replace(chosen, unlearn=unlearn, evaluate=evaluate, targets=targets)


def line_of(variant: variants.MethodConfig) -> Line:
    """The row of a wrapped method."""
    weight = f"{variants.CONFORMAL}_lam"
    others = [f"{name}={variant.hyperparameters[name]:g}" for name in variant.swept if name != weight]
    method = variant.method.partition("+")[0] + ("@" + ",".join(others) if others else "")
    return Line(unlearn.shown(variant.role), method, float(variant.hyperparameters[weight]))


def present(found: sections.Evaluation, lines: list[Line]) -> Section:
    """The table, with what the loss adds to UA and takes from TA over the smallest weight of the same method."""
    smallest = {one.method: min((two for two in lines if two.method == one.method), key=lambda two: two.lam)
                for one in lines}  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    every: list[Finding] = []
    gains: dict[float, list[tuple[float, float]]] = {}
    known = [Line(role, role, np.nan) for role in ("original", "retrained") if role in found.roles]
    for line in known + lines:
        cells = [sections.finding(found, line.role, name) for name in COLUMNS]
        every += cells
        gain: list[Cell] = ["", ""]
        start = smallest.get(line.method)
        if start is not None and line.lam > start.lam:
            apart = [_difference(found, line.role, start.role, name) for name in ("UA", "TA")]
            every += apart
            gain = [sections.bare(one) for one in apart]
            gains.setdefault(line.lam, []).append((apart[0].value, apart[1].value))
        weight = "" if np.isnan(line.lam) else f"{line.lam:g}"
        rows.append((line.method, weight, *(sections.bare(cell) for cell in cells), *gain))
    caption = (
        f"{sentences.plus_minus(found.design)} Sets at alpha = {found.report_alpha:g}; D_f forgotten, D_t test "
        "samples. Gains "
        "are over the smallest weight of the same method, paired by forget set."
    )
    header = ("method", "lambda", *headers(COLUMNS), "gain of UA", "gain of TA")
    said = [_in_words(weight, np.asarray(pairs)) for weight, pairs in sorted(gains.items())]
    text = " ".join(said) or "One weight only: nothing to compare."
    table = Table("Methods with the conformal-guided loss", caption, header, tuple(rows), ("retrained", "original"))
    return Section(STEM, "What the conformal-guided loss does", text, table, None, tuple(every))


def _in_words(weight: float, gains: np.ndarray) -> str:
    """What one weight does to UA and TA, from the gains [methods, 2]; methods without numbers are left out and said."""
    known = gains[np.isfinite(gains).all(1)]
    if not len(known):
        return f"What lambda {weight:g} changes could not be measured: no method has numbers with and without it."
    ua, ta = 100 * known.mean(0)
    over = "" if len(gains) == 1 else f", mean over {len(known)} methods" if len(known) > 1 else ", of one method"
    left_out = f" ({len(gains) - len(known)} without numbers left out)" if len(known) < len(gains) else ""
    return f"lambda {weight:g} changes UA by {ua:+.1f} and TA by {ta:+.1f} points{over}{left_out}."


def _difference(found: sections.Evaluation, role: str, start: str, name: str) -> Finding:
    values = sections.value_of(found, role, name) - sections.value_of(found, start, name)
    return variance.mean(values, found.design, metric=f"gain of {name}", of=role, against=start)


JOB = Job(narrowed, EVALUATION.roles, EVALUATION.check, EVALUATION.check_run, report)
