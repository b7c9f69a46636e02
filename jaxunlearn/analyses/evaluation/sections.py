"""What an evaluation found as tables, a figure and sentences. Numbers only; both doors end here."""

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
EVERY = ("q_hat", "coverage_forget", "coverage_retain", "coverage_test", "size_forget", "size_retain", "size_test",
         "cr_forget", "cr_retain", "cr_test", "recover_ratio", "empty_forget", "empty_test")  # fmt: skip


class Evaluation(NamedTuple):
    """All numbers of all roles.

    Attributes:
      roles: role -> name -> [R], [R, A] or (by class) [R, C, A]; "retrained" is the goal, "original" the
        start, where they are known.
      alphas: A levels; `report_alpha`: the one that tables and sentences speak of.
      sets: R models of forget sets, see `design`.
      costs: role -> (seconds, retain-epochs), NaN where unknown.
      diverged: role -> forget sets whose model diverged; their numbers are NaN.
      design: whose originals the models come from.
      classes: names of the classes; empty = numbers.
      notes: what the reader should know; about: provenance of the inputs, empty for a user's arrays.
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


def plain(found: Evaluation) -> dict[str, Any]:
    """What evaluation.json holds."""
    return {name: value for name, value in found._asdict().items() if name != "embedded"}


def from_plain(stored: Mapping[str, Any]) -> Evaluation:
    """The evaluation that evaluation.json holds."""
    number = np.vectorize(escapes.number, otypes=[np.float64])
    roles = {role: {name: number(np.asarray(values, object)) for name, values in numbers.items()}
             for role, numbers in stored["roles"].items()}  # fmt: skip
    costs = {role: (escapes.number(cost[0]), escapes.number(cost[1])) for role, cost in stored["costs"].items()}
    return Evaluation(
        roles, tuple(stored["alphas"]), stored["report_alpha"], stored["sets"], costs, stored["diverged"],
        Design(*stored.get("design", ("given", stored["sets"]))), tuple(stored["classes"]),
    )  # fmt: skip


def value_of(found: Evaluation, role: str, name: str, alpha: float | None = None) -> np.ndarray:
    """[R] numbers of one role, at `report_alpha` or another."""
    values = np.asarray(found.roles[role].get(name, np.full(found.sets, np.nan)), np.float64)
    return values if values.ndim == 1 else values[:, found.alphas.index(found.report_alpha if alpha is None else alpha)]


def mean_of(found: Evaluation, role: str, name: str, alpha: float | None = None) -> float:
    """Mean over forget sets whose number is finite; NaN where none is."""
    values = value_of(found, role, name, alpha)
    return utility.finite_mean(values)


def _mean_over_models(values: np.ndarray) -> np.ndarray:
    """Mean over models of [M, ...], NaN left out."""
    finite = np.isfinite(values)
    return np.where(finite, values, 0).sum(0) / np.where(finite.any(0), finite.sum(0), np.nan)


def finding(found: Evaluation, role: str, name: str, alpha: float | None = None) -> Finding:
    """A number with the interval of its design and its deviation, beside the retrained model's."""
    values = value_of(found, role, name, alpha)
    is_level = np.ndim(found.roles[role].get(name, ())) == 2
    label = f"{name} at alpha {found.report_alpha if alpha is None else alpha:g}" if is_level else name
    made = variance.mean(values, found.design, metric=label, of=role, against="forget sets")
    goal = mean_of(found, GOAL, name, alpha) if GOAL in found.roles else math.nan
    return made if math.isnan(goal) else made.replace(retrained=goal)  # type: ignore[attr-defined]


def gap(found: Evaluation, role: str, names: tuple[str, ...] = WITH_MIA) -> float:
    """Gap to exact retraining over some metrics, by default UA, RA, TA and MIA; NaN unless all were measured."""
    if GOAL not in found.roles or role == GOAL:
        return math.nan
    return utility.gap(found.roles[role], found.roles[GOAL], names)


def sections(found: Evaluation) -> list[Section]:
    """Sections of the report."""
    over = sentences.plus_minus(found.design)
    made = [
        _piece(found, "utility", "Utility", UTILITY,
               f"{over} UA = 1 - accuracy on the forget set, RA and TA = accuracy on retained and test samples, MIA = "
               "share of forgotten samples that an SVC on the confidence calls non-members, gap = mean absolute "
               "difference to the retrained models over UA, RA and TA (with MIA: over all four), seconds for all "
               "forget sets.",
               "The goal is to equal the retrained models; none of these numbers has to be 0 or 1.", with_costs=True),
        _piece(found, "attacks", "Membership attacks on forgotten samples, and distances", ATTACKS,
               f"{over} SVC and thr(eshold per class): share of forgotten samples called non-members; entropy MIA: "
               "share called members; ZRF: likeness to an untrained network; act. distance: to the retrained model.",
               "Attacks are fitted to retained (members) and test samples (non-members) of the same model."),
        _piece(found, "conformal", f"Prediction sets at alpha = {found.report_alpha:g}", CONFORMAL,
               f"{over} D_f forgotten, D_r retained, D_t test samples; CR = coverage / set size; recover ratio = of "
               "the misclassified forgotten samples, the share whose label is in the set; MIACR = share of forgotten "
               "samples whose conformal attack set lacks 'member', after exact retraining about its alpha for random "
               "samples and more for whole classes.",
               "Low CR on forgotten samples with high CR on test samples is forgetting that leaves the rest alone. A "
               "misclassified sample whose label is still in the set is forgotten in name only."),
    ]  # fmt: skip
    made += _distribution(found, over)
    apart = closest(found)
    if apart is not None and made[0].table is not None:
        made[0] = made[0]._replace(findings=(*made[0].findings, *closeness.findings(apart)))
    if any("cr_test_forget" in numbers or "UA_test" in numbers for numbers in found.roles.values()):
        made.append(
            _piece(found, "forgotten_classes", "Test samples of the forgotten classes", CLASSES, over,
                   "Classes of which no sample is retained; their test samples are left out of D_t above.")
        )  # fmt: skip
    figure = _figure(found)
    if figure is not None:
        text = "Coverage, set size and CR on forgotten and test samples; the dotted line is the promised coverage."
        made.append(Section("against_alpha", "Prediction sets against alpha", text, figure=figure))
    made.append(_sources(found))
    made.append(_by_class(found, over))
    if len(found.alphas) > 1:
        made.append(_levels(found, over))
    return [one for one in made if one.table is not None or one.figure is not None]


def _distribution(found: Evaluation, over: str) -> list[Section]:
    """How the forgotten samples lie among the retained ones: a table, and panels of retrained beside other models."""
    shown = {role: points for role, points in found.embedded.items() if len(points[0])}
    number = max((len(points) for points, _ in shown.values()), default=0)
    made = [
        _piece(found, "distribution", "How forgotten samples lie among the others", DISTRIBUTION,
               f"{over} Of outputs embedded in the plane by t-SNE. Variance of the forgotten samples; silhouette "
               "against the nearest class; overlap of their density with that of all other samples.",
               "A model that never saw a class scatters it over the others (large variance and overlap, small "
               "silhouette); a class that still stands apart was not forgotten. The goal is to equal retraining."),
    ]  # fmt: skip
    others = [role for role in shown if role != GOAL]
    size = embeddings.MOST - (GOAL in shown)
    for place in range(0, len(others), size) if others else ():
        roles = [*([GOAL] if GOAL in shown else []), *others[place : place + size]]
        title = "Forgotten samples among the others" + (f" ({place // size + 1})" if len(others) > size else "")
        text = f"The first model of each role, {number:,} forgotten and retained samples, the same ones for every role."
        figure = embeddings.side_by_side({role: shown[role] for role in roles})
        made.append(Section(f"embedded_{place // size + 1}", title, text, figure=figure))
    return made


def _piece(
    found: Evaluation, name: str, title: str, columns: tuple[str, ...], caption: str, told: str,
    with_costs: bool = False,
) -> Section:  # fmt: skip
    known = [key for key in columns if any(key in numbers for numbers in found.roles.values())]
    if not known:
        return Section(name, title, told)
    rows: list[tuple[Cell, ...]] = []
    every: list[Finding] = []
    shown_as = {"svc_confidence": "MIA"} if name == "utility" else {}
    header = ["role", *headers([shown_as.get(key, key) for key in known])]
    gaps = {"gap": utility.GAP, "gap_with_mia": WITH_MIA} if GOAL in found.roles and with_costs else {}
    if with_costs:
        header += headers([*gaps, "retain_epochs", "seconds"])
    for role in found.roles:
        cells = [finding(found, role, key) if key in found.roles[role] else "" for key in known]
        every += [cell for cell in cells if isinstance(cell, Finding)]
        shown = [bare(cell) for cell in cells]
        costs: list[Cell] = []
        if with_costs:
            apart = [gap(found, role, names) for names in gaps.values()]
            costs += ["" if math.isnan(one) else one for one in apart]
            seconds, epochs = found.costs.get(role, (math.nan, math.nan))
            costs += [number_format.cost(epochs), number_format.cost(seconds)]
        rows.append((role, *shown, *costs))
    if with_costs and any(math.isnan(found.costs.get(role, (math.nan, 0))[0]) for role in found.roles):
        header, rows = _without_blank(header, rows)
    table = Table(title, caption, tuple(header), tuple(rows), (GOAL, START, *closeness.YARDSTICKS))
    return Section(name, title, told, table, None, tuple(every))


def bare(cell: Cell) -> Cell:
    """A finding for a table whose rows include the retrained models'; its ± is half of the interval."""
    if not isinstance(cell, Finding):
        return cell
    return intervals.half(cell).replace(retrained=None)  # type: ignore[attr-defined]


def _without_blank(header: list[str], rows: list[tuple[Cell, ...]]) -> tuple[list[str], list[tuple[Cell, ...]]]:
    kept = [place for place in range(len(header)) if any(row[place] != "" for row in rows)]
    return [header[place] for place in kept], [tuple(row[place] for place in kept) for row in rows]


def _sources(found: Evaluation) -> Section:
    """The standard deviation by each source that the design tells apart; no table where it tells none."""
    title = "Where the ± comes from"
    named = list(variance.told_apart(found.design).values())
    known = [key for key in UTILITY if any(key in numbers for numbers in found.roles.values())]
    if not named or not known:
        return Section("sources", title)
    rows: list[tuple[Cell, ...]] = []
    every: list[Finding] = []
    for role in found.roles:
        cells: list[Cell] = []
        for key in known:
            values = value_of(found, role, key)
            sds = variance.deviations(variance.fit(values, found.design), found.design)
            cells.append(sentences.split(sds))
            every += variance.component_findings(values, found.design, metric=key, of=role)
        rows.append((role, *cells))
    caption = f"Standard deviations [{' | '.join(f'sd {name}' for name in named)}] of {sentences.units(found.design)}."
    header = ("role", *headers([{"svc_confidence": "MIA"}.get(key, key) for key in known]))
    text = "Estimates below 0 are printed as 0; the files have their signs, and intervals."
    return Section(
        "sources", title, text, Table(title, caption, header, tuple(rows)), None, tuple(every), printed=False
    )


def _levels(found: Evaluation, over: str) -> Section:
    known = [key for key in EVERY if any(key in numbers for numbers in found.roles.values())]
    if not known:
        return Section("alphas", "", "")
    rows: list[tuple[Cell, ...]] = []
    every: list[Finding] = []
    for role, numbers in found.roles.items():
        for alpha in found.alphas:
            cells = [finding(found, role, key, alpha) if key in numbers else "" for key in known]
            every += [cell for cell in cells if isinstance(cell, Finding)]
            rows.append((role, f"{alpha:g}", *(bare(cell) for cell in cells)))
    title = "Prediction sets at every level"
    table = Table(title, over, ("role", "alpha", *headers(known)), tuple(rows))
    text = "D_f forgotten, D_r retained, D_t test samples."
    return Section("alphas", title, text, table, None, tuple(every), printed=False)


def _by_class(found: Evaluation, over: str) -> Section:
    """Coverage and set size of each class: only their mean over classes is promised."""
    shown = _closest(found, "class_coverage_test")
    confidence_level = found.alphas.index(found.report_alpha)
    means = {}
    for role in shown:
        pair = (found.roles[role][f"class_{name}_test"][..., confidence_level] for name in ("coverage", "size"))
        means[role] = [_mean_over_models(values) for values in pair]
    count = len(next(iter(means.values()))[0]) if means else 0
    rows = []
    for place in range(count):
        pairs = [(cover[place], size[place]) for cover, size in means.values()]
        cells = [f"{cover:.3f} in {size:.2f}" if np.isfinite(cover) else "" for cover, size in pairs]
        rows.append((found.classes[place] if found.classes else str(place), *cells))
    title = f"Coverage and set size by class at alpha = {found.report_alpha:g}"
    caption = f"{over} Test samples: share whose label is in the set, and labels per set."
    table = Table(title, caption, ("class", *shown), tuple(rows)) if rows else None
    text = "The guarantee is for all classes together; a class may lie far below it."
    return Section("by_class", title, text, table, printed=False)


def _closest(found: Evaluation, name: str) -> list[str]:
    """At most six roles that have a number: the goal, the start, and what is closest to the goal."""
    there = [role for role in found.roles if np.isfinite(found.roles[role].get(name, np.nan)).any()]
    first = [role for role in (GOAL, START) if role in there]
    rest = [role for role in there if role not in first]
    rest.sort(key=lambda role: _or_infinite(gap(found, role)))
    return (first + rest)[:6]


def _figure(found: Evaluation) -> Any:
    """Coverage, size and CR against alpha."""
    shown = _closest(found, "cr_test")
    if not shown or len(found.alphas) < 2:
        return None

    def lines(name: str) -> dict[str, list[Finding]]:
        return {role: [finding(found, role, name, alpha) for alpha in found.alphas] for role in shown}

    return curves.against_alpha(
        found.alphas,
        {(row, column): lines(f"{column}_{part}")
         for row, part in (("forgotten", "forget"), ("test", "test"))
         for column in ("coverage", "size", "cr")},
    )  # fmt: skip


def _or_infinite(value: float) -> float:
    return math.inf if math.isnan(value) else value


def closest(found: Evaluation) -> closeness.Closeness | None:
    """Gaps of all methods to exact retraining, beside that of doing nothing; None without retrained models.

    Over UA, RA, TA and MIA, or over the first three where the attack was not asked for.
    """
    if GOAL not in found.roles:
        return None
    metrics = WITH_MIA if WITH_MIA[-1] in found.roles[GOAL] else utility.GAP
    methods = {role: found.roles[role] for role in methods_of(found)}
    return closeness.compare(methods, found.roles[GOAL], found.roles.get(START), found.design, metrics)


def methods_of(found: Evaluation) -> list[str]:
    """Roles that are neither the goal nor the start."""
    return [role for role in found.roles if role not in (GOAL, START)]


def in_words(found: Evaluation) -> str:
    """What the numbers say, in a few sentences."""
    said = [*_effect(found)]
    apart = closest(found)
    if apart is not None:
        over = "UA, RA, TA and MIA" if apart.metrics == WITH_MIA else "UA, RA and TA"
        said.append(
            sentences.closest(apart.gaps, apart.untouched, apart.gap_to_original, apart.gap_to_best, apart.best, over)
        )
    else:
        said.append("No retrained models were given, so how close these models come to retraining cannot be said.")
        said += [_alone(found, role) for role in found.roles]
    methods = methods_of(found)
    if START in found.roles and methods:
        start = mean_of(found, START, "cr_test")
        lost = [role for role in methods if mean_of(found, role, "cr_test") < start - 0.05]
        if lost:
            said.append(f"CR on test samples falls by more than 0.05 under: {', '.join(lost)}.")
    if GOAL in found.roles:
        goal = mean_of(found, GOAL, "miacr")
        over_goal = [role for role in methods if mean_of(found, role, "miacr") > goal + 0.2]
        if over_goal:
            said.append(f"MIACR far above the retrained models' (stranger than never seen): {', '.join(over_goal)}.")
    said += [f"{role}: the model of forget set(s) {', '.join(map(str, sets))} diverged." for role, sets in
             found.diverged.items()]  # fmt: skip
    return " ".join(said)


def _effect(found: Evaluation) -> list[str]:
    """What exact retraining does to the forgotten samples; nothing where it was not measured."""
    if GOAL not in found.roles:
        return []
    said = []
    before, after = (100 * mean_of(found, role, "UA") if role in found.roles else math.nan for role in (START, GOAL))
    if math.isnan(after):
        return ["Exact retraining has no numbers here (its models diverged), so there is nothing to compare with."]
    if not math.isnan(before):
        said.append(f"Exact retraining takes the error on forgotten samples from {before:.1f} to {after:.1f} %.")
    cr, ratio = (mean_of(found, GOAL, name) for name in ("cr_forget", "recover_ratio"))
    if not math.isnan(cr):
        held = f", and of those that it misclassifies {100 * ratio:.0f} % have their label in the set"
        held = "" if math.isnan(ratio) else held
        said.append(f"At alpha {found.report_alpha:g} its CR on forgotten samples is {cr:.3f}{held}.")
    return said


def _alone(found: Evaluation, role: str) -> str:
    """What is known of a role that is compared with nothing."""
    error, cover, size, cr = (mean_of(found, role, name) for name in ("UA", "coverage_forget", "size_forget",
                                                                      "cr_forget"))  # fmt: skip
    if math.isnan(error):
        return f"{role}: nothing could be measured."
    held = f"; at alpha {found.report_alpha:g} {100 * cover:.0f} % of them have their label in the set of "
    held += f"{size:.2f} labels"
    held = "" if math.isnan(cover) else held + ("" if math.isnan(cr) else f" (CR {cr:.3f})")
    return f"{role}: error on forgotten samples {100 * error:.1f} %{held}."
