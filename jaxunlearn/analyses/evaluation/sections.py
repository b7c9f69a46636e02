"""Sections of the report on an evaluation, from arrays or from a run alike."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import escapes
from jaxunlearn.analyses.evaluation import distributions
from jaxunlearn.analyses.evaluation.measures import ModelMetrics
from jaxunlearn.metrics import headers, utility
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.metrics.populations import closeness, variance
from jaxunlearn.records import Design, Finding
from jaxunlearn.report import number_format, sentences
from jaxunlearn.report.cells import Cell, Table
from jaxunlearn.report.figures import curves, embeddings
from jaxunlearn.report.section import Section

STEM = "evaluation"
GOAL, START = "retrained", "original"
WIDTH = 140
WITH_MIA = (*utility.GAP, "svc_confidence")  # SalUn's tables: their MIA is the SVC on the confidence
UTILITY = ("UA", "RA", "TA", "svc_confidence", "confidence_forget", "confidence_test")
ATTACKS = (
    "svc_correctness", "svc_confidence", "svc_entropy", "svc_modified_entropy", "svc_probability",
    "threshold_correctness", "threshold_confidence", "threshold_entropy", "threshold_modified_entropy", "entropy_mia",
    "zrf", "activation_distance",
)  # fmt: skip
CONFORMAL = ("q_hat", "coverage_forget", "coverage_test", "size_forget", "size_test", "cr_forget", "cr_retain",
             "cr_test", "recover_ratio", "miacr", "miacr_size")  # fmt: skip
CLASSES = ("UA_test", "q_hat_forget", "coverage_test_forget", "size_test_forget", "cr_test_forget",
           "miacr_test_excluded", "miacr_test_non_member")  # fmt: skip
DISTRIBUTION = distributions.NUMBERS
ALL_CONFORMAL = (
    "q_hat", "coverage_forget", "coverage_retain", "coverage_test", "size_forget", "size_retain", "size_test",
    "cr_forget", "cr_retain", "cr_test", "recover_ratio", "empty_forget", "empty_test",
)  # fmt: skip


class Evaluation(NamedTuple):
    """Metrics of all roles.

    Attributes:
      roles: role -> name -> [R], [R, A] or (by class) [R, C, A]; "retrained" is the goal, "original" the start, if
        they are known.
      alphas: A levels; `report_alpha`: the level of tables and sentences.
      sets: R models of forget sets, see `design`.
      costs: role -> (seconds, retain-epochs), NaN where unknown.
      diverged: role -> forget sets whose model diverged; their metrics are NaN.
      design: which originals the models start from.
      classes: names of the classes; empty = class indices.
      notes: remarks for the reader; about: provenance of the inputs, empty for a user's arrays.
      embedded: role -> (points [n, 2], is_forgotten [n]) of its first model; not in evaluation.json.
    """

    roles: dict[str, ModelMetrics]
    alphas: tuple[float, ...]
    report_alpha: float
    sets: int
    costs: dict[str, tuple[float, float]]
    diverged: dict[str, list[int]]
    design: Design
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    about: dict[str, str] = {}
    embedded: dict[str, tuple[np.ndarray, np.ndarray]] = {}


def plain(evaluation: Evaluation) -> dict[str, Any]:
    """Returns the content of evaluation.json."""
    return {name: value for name, value in evaluation._asdict().items() if name != "embedded"}


def from_plain(stored: Mapping[str, Any]) -> Evaluation:
    """Rebuilds an evaluation from the content of evaluation.json."""
    number = np.vectorize(escapes.number, otypes=[np.float64])
    roles = {role: {name: number(np.asarray(values, object)) for name, values in metrics.items()}
             for role, metrics in stored["roles"].items()}  # fmt: skip
    costs = {role: (escapes.number(cost[0]), escapes.number(cost[1])) for role, cost in stored["costs"].items()}
    return Evaluation(
        roles, tuple(stored["alphas"]), stored["report_alpha"], stored["sets"], costs, stored["diverged"],
        Design(*stored.get("design", ("given", stored["sets"]))), tuple(stored["classes"]),
    )  # fmt: skip


def value_of(evaluation: Evaluation, role: str, name: str, alpha: float | None = None) -> np.ndarray:
    """Returns the values of one metric of one role, [R].

    Args:
      evaluation: metrics of all roles.
      role: its title.
      name: of the metric.
      alpha: level of prediction sets; None = `report_alpha`.
    """
    values = np.asarray(evaluation.roles[role].get(name, np.full(evaluation.sets, np.nan)), np.float64)
    if values.ndim == 1:
        return values
    return values[:, evaluation.alphas.index(evaluation.report_alpha if alpha is None else alpha)]


def mean_of(evaluation: Evaluation, role: str, name: str, alpha: float | None = None) -> float:
    """Averages a metric over the forget sets where it is finite; NaN if there is none.

    Args:
      evaluation: metrics of all roles.
      role: its title.
      name: of the metric.
      alpha: level of prediction sets; None = `report_alpha`.
    """
    values = value_of(evaluation, role, name, alpha)
    return utility.finite_mean(values)


def _mean_over_models(values: np.ndarray) -> np.ndarray:
    """Averages [M, ...] over models without NaN."""
    finite = np.isfinite(values)
    return np.where(finite, values, 0).sum(0) / np.where(finite.any(0), finite.sum(0), np.nan)


def finding(evaluation: Evaluation, role: str, name: str, alpha: float | None = None) -> Finding:
    """Returns a metric with the interval of its design and its deviation, next to the retrained model's.

    Args:
      evaluation: metrics of all roles.
      role: its title.
      name: of the metric.
      alpha: level of prediction sets; None = `report_alpha`.
    """
    values = value_of(evaluation, role, name, alpha)
    is_level = np.ndim(evaluation.roles[role].get(name, ())) == 2
    label = f"{name} at alpha {evaluation.report_alpha if alpha is None else alpha:g}" if is_level else name
    estimate = variance.mean(values, evaluation.design, metric=label, of=role, against="forget sets")
    retrained = mean_of(evaluation, GOAL, name, alpha) if GOAL in evaluation.roles else math.nan
    return estimate if math.isnan(retrained) else estimate.replace(retrained=retrained)  # type: ignore[attr-defined]


def gap(evaluation: Evaluation, role: str, names: tuple[str, ...] = WITH_MIA) -> float:
    """Computes the gap to exact retraining over some metrics, by default UA, RA, TA and MIA; NaN if one is missing."""
    if GOAL not in evaluation.roles or role == GOAL:
        return math.nan
    return utility.gap(evaluation.roles[role], evaluation.roles[GOAL], names)


def sections(evaluation: Evaluation) -> list[Section]:
    """Returns the sections of the report."""
    units = sentences.plus_minus(evaluation.design)
    report_sections = [
        _table_section(evaluation, "utility", "Utility", UTILITY,
               f"{units} {utility.ACCURACIES_TEXT}, MIA = "
               "share of forgotten samples that an SVC on the confidence calls non-members, gap = mean absolute "
               "difference to the retrained models over UA, RA and TA (with MIA: over all four), seconds for all "
               "forget sets.",
               "The goal is to equal the retrained models; none of these numbers has to be 0 or 1.", with_costs=True),
        _table_section(evaluation, "attacks", "Membership attacks on forgotten samples, and distances", ATTACKS,
               f"{units} SVC and thr(eshold per class): share of forgotten samples called non-members; entropy MIA: "
               "share called members; ZRF: likeness to an untrained network; act. distance: to the retrained model.",
               "Attacks are fitted to retained (members) and test samples (non-members) of the same model."),
        _table_section(evaluation, "conformal", f"Prediction sets at alpha = {evaluation.report_alpha:g}", CONFORMAL,
               f"{units} D_f forgotten, D_r retained, D_t test samples; CR = coverage / set size; recover ratio = of "
               "the misclassified forgotten samples, the share whose label is in the set; MIACR = share of forgotten "
               "samples whose conformal attack set lacks 'member', after exact retraining about its alpha for random "
               "samples and more for whole classes.",
               "Low CR on forgotten samples with high CR on test samples is forgetting that leaves the rest alone. A "
               "misclassified sample whose label is still in the set is forgotten in name only."),
    ]  # fmt: skip
    report_sections += _distribution(evaluation, units)
    comparison = closest(evaluation)
    if comparison is not None and report_sections[0].table is not None:
        findings = (*report_sections[0].findings, *closeness.findings(comparison))
        report_sections[0] = report_sections[0]._replace(findings=findings)
    if any("cr_test_forget" in metrics or "UA_test" in metrics for metrics in evaluation.roles.values()):
        report_sections.append(
            _table_section(evaluation, "forgotten_classes", "Test samples of the forgotten classes", CLASSES, units,
                   "Classes of which no sample is retained; their test samples are left out of D_t above.")
        )  # fmt: skip
    figure = _figure(evaluation)
    if figure is not None:
        text = "Coverage, set size and CR on forgotten and test samples; the dotted line is the promised coverage."
        report_sections.append(Section("against_alpha", "Prediction sets against alpha", text, figure=figure))
    report_sections.append(_sources(evaluation))
    report_sections.append(_by_class(evaluation, units))
    if len(evaluation.alphas) > 1:
        report_sections.append(_levels(evaluation, units))
    return [section for section in report_sections if section.table is not None or section.figure is not None]


def _distribution(evaluation: Evaluation, units: str) -> list[Section]:
    """Shows how the forgotten samples lie among the retained ones: a table, and panels next to retrained models."""
    points_of = {role: points for role, points in evaluation.embedded.items() if len(points[0])}
    num_points = max((len(points) for points, _ in points_of.values()), default=0)
    panels = [
        _table_section(evaluation, "distribution", "How forgotten samples lie among the others", DISTRIBUTION,
               f"{units} Of outputs embedded in the plane by t-SNE. Variance of the forgotten samples; silhouette "
               "against the nearest class; overlap of their density with that of all other samples.",
               "A model that never saw a class scatters it over the others (large variance and overlap, small "
               "silhouette); a class that still stands apart was not forgotten. The goal is to equal retraining."),
    ]  # fmt: skip
    compared = [role for role in points_of if role != GOAL]
    size = embeddings.MOST - (GOAL in points_of)
    for start in range(0, len(compared), size) if compared else ():
        roles = [*([GOAL] if GOAL in points_of else []), *compared[start : start + size]]
        title = "Forgotten samples among the others" + (f" ({start // size + 1})" if len(compared) > size else "")
        text = (
            f"The first model of each role, {num_points:,} forgotten and retained samples, the same ones for every "
            "role."
        )
        figure = embeddings.side_by_side({role: points_of[role] for role in roles})
        panels.append(Section(f"embedded_{start // size + 1}", title, text, figure=figure))
    return panels


def _table_section(
    evaluation: Evaluation, name: str, title: str, columns: tuple[str, ...], caption: str, text: str,
    with_costs: bool = False,
) -> Section:  # fmt: skip
    keys = [key for key in columns if any(key in metrics for metrics in evaluation.roles.values())]
    if not keys:
        return Section(name, title, text)
    rows: list[tuple[Cell, ...]] = []
    findings: list[Finding] = []
    labels = {"svc_confidence": "MIA"} if name == "utility" else {}
    header = ["role", *headers([labels.get(key, key) for key in keys])]
    gaps = {"gap": utility.GAP, "gap_with_mia": WITH_MIA} if GOAL in evaluation.roles and with_costs else {}
    if with_costs:
        header += headers([*gaps, "retain_epochs", "seconds"])
    for role in evaluation.roles:
        cells = [finding(evaluation, role, key) if key in evaluation.roles[role] else "" for key in keys]
        findings += [cell for cell in cells if isinstance(cell, Finding)]
        bare_cells = [bare(cell) for cell in cells]
        costs: list[Cell] = []
        if with_costs:
            role_gaps = [gap(evaluation, role, names) for names in gaps.values()]
            costs += ["" if math.isnan(value) else value for value in role_gaps]
            seconds, epochs = evaluation.costs.get(role, (math.nan, math.nan))
            costs += [number_format.cost(epochs), number_format.cost(seconds)]
        rows.append((role, *bare_cells, *costs))
    if with_costs and any(math.isnan(evaluation.costs.get(role, (math.nan, 0))[0]) for role in evaluation.roles):
        header, rows = _without_blank(header, rows)
    table = Table(title, caption, tuple(header), tuple(rows), (GOAL, START, *closeness.YARDSTICKS))
    return Section(name, title, text, table, None, tuple(findings))


def bare(cell: Cell) -> Cell:
    """Returns a finding for a table with rows of retrained models; its ± is half of the interval."""
    if not isinstance(cell, Finding):
        return cell
    return intervals.with_half_width(cell).replace(retrained=None)  # type: ignore[attr-defined]


def _without_blank(header: list[str], rows: list[tuple[Cell, ...]]) -> tuple[list[str], list[tuple[Cell, ...]]]:
    columns = [column for column in range(len(header)) if any(row[column] != "" for row in rows)]
    return [header[column] for column in columns], [tuple(row[column] for column in columns) for row in rows]


def _sources(evaluation: Evaluation) -> Section:
    """Tabulates the standard deviation by each source that the design separates; no table if it separates none."""
    title = "Where the ± comes from"
    components = list(variance.separable_sources(evaluation.design).values())
    keys = [key for key in UTILITY if any(key in metrics for metrics in evaluation.roles.values())]
    if not components or not keys:
        return Section("sources", title)
    rows: list[tuple[Cell, ...]] = []
    findings: list[Finding] = []
    for role in evaluation.roles:
        cells: list[Cell] = []
        for key in keys:
            values = value_of(evaluation, role, key)
            sds = variance.deviations(variance.fit(values, evaluation.design), evaluation.design)
            cells.append(sentences.std_cell(sds))
            findings += variance.component_findings(values, evaluation.design, metric=key, of=role)
        rows.append((role, *cells))
    split = " | ".join(f"sd {name}" for name in components)
    caption = f"Standard deviations [{split}] of {sentences.units(evaluation.design)}."
    header = ("role", *headers([{"svc_confidence": "MIA"}.get(key, key) for key in keys]))
    text = "Estimates below 0 are printed as 0; the files have their signs, and intervals."
    return Section(
        "sources", title, text, Table(title, caption, header, tuple(rows)), None, tuple(findings), printed=False
    )


def _levels(evaluation: Evaluation, units: str) -> Section:
    keys = [key for key in ALL_CONFORMAL if any(key in metrics for metrics in evaluation.roles.values())]
    if not keys:
        return Section("alphas", "", "")
    rows: list[tuple[Cell, ...]] = []
    findings: list[Finding] = []
    for role, metrics in evaluation.roles.items():
        for alpha in evaluation.alphas:
            cells = [finding(evaluation, role, key, alpha) if key in metrics else "" for key in keys]
            findings += [cell for cell in cells if isinstance(cell, Finding)]
            rows.append((role, f"{alpha:g}", *(bare(cell) for cell in cells)))
    title = "Prediction sets at every level"
    table = Table(title, units, ("role", "alpha", *headers(keys)), tuple(rows))
    text = "D_f forgotten, D_r retained, D_t test samples."
    return Section("alphas", title, text, table, None, tuple(findings), printed=False)


def _by_class(evaluation: Evaluation, units: str) -> Section:
    """Tabulates coverage and set size by class: only coverage over all classes together is guaranteed."""
    role_names = _closest(evaluation, "class_coverage_test")
    alpha_index = evaluation.alphas.index(evaluation.report_alpha)
    means = {}
    for role in role_names:
        class_values = (evaluation.roles[role][f"class_{name}_test"][..., alpha_index] for name in ("coverage", "size"))
        means[role] = [_mean_over_models(values) for values in class_values]
    count = len(next(iter(means.values()))[0]) if means else 0
    rows = []
    for index in range(count):
        pairs = [(coverage[index], size[index]) for coverage, size in means.values()]
        cells = [f"{coverage:.3f} in {size:.2f}" if np.isfinite(coverage) else "" for coverage, size in pairs]
        rows.append((evaluation.classes[index] if evaluation.classes else str(index), *cells))
    title = f"Coverage and set size by class at alpha = {evaluation.report_alpha:g}"
    caption = f"{units} Test samples: share whose label is in the set, and labels per set."
    table = Table(title, caption, ("class", *role_names), tuple(rows)) if rows else None
    text = "The guarantee is for all classes together; a class may lie far below it."
    return Section("by_class", title, text, table, printed=False)


def _closest(evaluation: Evaluation, name: str) -> list[str]:
    """Picks the goal, the start and the roles closest to the goal, at most six that have the metric."""
    role_names = [role for role in evaluation.roles if np.isfinite(evaluation.roles[role].get(name, np.nan)).any()]
    references = [role for role in (GOAL, START) if role in role_names]
    remaining = [role for role in role_names if role not in references]
    remaining.sort(key=lambda role: _or_infinite(gap(evaluation, role)))
    return (references + remaining)[:6]


def _figure(evaluation: Evaluation) -> Any:
    """Draws coverage, size and CR against alpha; None without several levels."""
    role_names = _closest(evaluation, "cr_test")
    if not role_names or len(evaluation.alphas) < 2:
        return None

    def lines(name: str) -> dict[str, list[Finding]]:
        return {role: [finding(evaluation, role, name, alpha) for alpha in evaluation.alphas] for role in role_names}

    return curves.against_alpha(
        evaluation.alphas,
        {(row, column): lines(f"{column}_{subset}")
         for row, subset in (("forgotten", "forget"), ("test", "test"))
         for column in ("coverage", "size", "cr")},
    )  # fmt: skip


def _or_infinite(value: float) -> float:
    return math.inf if math.isnan(value) else value


def closest(evaluation: Evaluation) -> closeness.Closeness | None:
    """Compares the gaps of all methods to exact retraining with that of doing nothing; None without retrained models.

    Over UA, RA, TA and MIA, or over the first three if the attack is not requested.
    """
    if GOAL not in evaluation.roles:
        return None
    metrics = WITH_MIA if WITH_MIA[-1] in evaluation.roles[GOAL] else utility.GAP
    methods = {role: evaluation.roles[role] for role in methods_of(evaluation)}
    return closeness.compare(methods, evaluation.roles[GOAL], evaluation.roles.get(START), evaluation.design, metrics)


def methods_of(evaluation: Evaluation) -> list[str]:
    """Returns the roles that are neither the goal nor the start."""
    return [role for role in evaluation.roles if role not in (GOAL, START)]
