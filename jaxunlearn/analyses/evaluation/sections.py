"""What an evaluation found as tables, a figure and sentences. Numbers only; both doors end here."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import escapes
from jaxunlearn.analyses.evaluation.measures import Numbers
from jaxunlearn.metrics import headers, intervals, utility
from jaxunlearn.records import Finding
from jaxunlearn.report import curves, formats
from jaxunlearn.report.cells import Cell, Table
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
EVERY = ("q_hat", "coverage_forget", "coverage_retain", "coverage_test", "size_forget", "size_retain", "size_test",
         "cr_forget", "cr_retain", "cr_test", "recover_ratio", "empty_forget", "empty_test")  # fmt: skip


class Evaluation(NamedTuple):
    """All numbers of all roles.

    Attributes:
      roles: role -> name -> [R], [R, A] or (by class) [R, C, A]; "retrained" is the goal, "original" the
        start, where they are known.
      alphas: A levels; `headline`: the one that tables and sentences speak of.
      sets: R forget sets (or models).
      costs: role -> (seconds, retain-epochs), NaN where unknown.
      diverged: role -> forget sets whose model diverged; their numbers are NaN.
      classes: names of the classes; empty = numbers.
      notes: what the reader should know; about: provenance of the inputs, empty for a user's arrays.
    """

    roles: dict[str, Numbers]
    alphas: tuple[float, ...]
    headline: float
    sets: int
    costs: dict[str, tuple[float, float]]
    diverged: dict[str, list[int]]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    about: dict[str, str] = {}


def plain(found: Evaluation) -> dict[str, Any]:
    """What evaluation.json holds."""
    return found._asdict()


def from_plain(stored: Mapping[str, Any]) -> Evaluation:
    """The evaluation that evaluation.json holds."""
    number = np.vectorize(escapes.number, otypes=[np.float64])
    roles = {role: {name: number(np.asarray(values, object)) for name, values in numbers.items()}
             for role, numbers in stored["roles"].items()}  # fmt: skip
    costs = {role: (escapes.number(cost[0]), escapes.number(cost[1])) for role, cost in stored["costs"].items()}
    return Evaluation(
        roles, tuple(stored["alphas"]), stored["headline"], stored["sets"], costs, stored["diverged"],
        tuple(stored["classes"]),
    )  # fmt: skip


def value_of(found: Evaluation, role: str, name: str, alpha: float | None = None) -> np.ndarray:
    """[R] numbers of one role, at the headline level or another."""
    values = np.asarray(found.roles[role].get(name, np.full(found.sets, np.nan)), np.float64)
    return values if values.ndim == 1 else values[:, found.alphas.index(found.headline if alpha is None else alpha)]


def mean_of(found: Evaluation, role: str, name: str, alpha: float | None = None) -> float:
    """Mean over forget sets whose number is finite; NaN where none is."""
    values = value_of(found, role, name, alpha)
    return utility.finite_mean(values)


def _mean_over_models(values: np.ndarray) -> np.ndarray:
    """Mean over models of [M, ...], NaN left out."""
    finite = np.isfinite(values)
    return np.where(finite, values, 0).sum(0) / np.where(finite.any(0), finite.sum(0), np.nan)


def finding(found: Evaluation, role: str, name: str, alpha: float | None = None) -> Finding:
    """A number with its interval and deviation over forget sets, beside the retrained model's."""
    values = value_of(found, role, name, alpha)
    is_level = np.ndim(found.roles[role].get(name, ())) == 2
    label = f"{name} at alpha {found.headline if alpha is None else alpha:g}" if is_level else name
    made = intervals.with_spread(
        intervals.mean(values, metric=label, of=role, against="forget sets"), values[np.isfinite(values)]
    )
    goal = mean_of(found, GOAL, name, alpha) if GOAL in found.roles else math.nan
    return made if math.isnan(goal) else made.replace(retrained=goal)  # type: ignore[attr-defined]


def gap(found: Evaluation, role: str, names: tuple[str, ...] = WITH_MIA) -> float:
    """Gap to exact retraining over some metrics, by default UA, RA, TA and MIA; NaN unless all were measured."""
    if GOAL not in found.roles or role == GOAL:
        return math.nan
    return utility.gap(found.roles[role], found.roles[GOAL], names)


def sections(found: Evaluation) -> list[Section]:
    """Sections of the report."""
    over = f"Means over {found.sets} forget set(s) ± deviation." if found.sets > 1 else "One model."
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
        _piece(found, "conformal", f"Prediction sets at alpha = {found.headline:g}", CONFORMAL,
               f"{over} D_f forgotten, D_r retained, D_t test samples; CR = coverage / set size; recover ratio = of "
               "the misclassified forgotten samples, the share whose label is in the set; MIACR = share of forgotten "
               "samples whose conformal attack set lacks 'member', after exact retraining about its alpha for random "
               "samples and more for whole classes.",
               "Low CR on forgotten samples with high CR on test samples is forgetting that leaves the rest alone. A "
               "misclassified sample whose label is still in the set is forgotten in name only."),
    ]  # fmt: skip
    if any("cr_test_forget" in numbers or "UA_test" in numbers for numbers in found.roles.values()):
        made.append(
            _piece(found, "forgotten_classes", "Test samples of the forgotten classes", CLASSES, over,
                   "Classes of which no sample is retained; their test samples are left out of D_t above.")
        )  # fmt: skip
    figure = _figure(found)
    if figure is not None:
        text = "Coverage, set size and CR on forgotten and test samples; the dotted line is the promised coverage."
        made.append(Section("against_alpha", "Prediction sets against alpha", text, figure=figure))
    made.append(_by_class(found, over))
    if len(found.alphas) > 1:
        made.append(_levels(found, over))
    return [one for one in made if one.table is not None or one.figure is not None]


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
            costs += [formats.cost(epochs), formats.cost(seconds)]
        rows.append((role, *shown, *costs))
    if with_costs and any(math.isnan(found.costs.get(role, (math.nan, 0))[0]) for role in found.roles):
        header, rows = _without_blank(header, rows)
    table = Table(title, caption, tuple(header), tuple(rows), (GOAL, START))
    return Section(name, title, told, table, None, tuple(every))


def bare(cell: Cell) -> Cell:
    """A finding for a table whose rows include the retrained models', and whose deviations say enough."""
    if not isinstance(cell, Finding):
        return cell
    return intervals.without_interval(cell).replace(retrained=None)  # type: ignore[attr-defined]


def _without_blank(header: list[str], rows: list[tuple[Cell, ...]]) -> tuple[list[str], list[tuple[Cell, ...]]]:
    kept = [place for place in range(len(header)) if any(row[place] != "" for row in rows)]
    return [header[place] for place in kept], [tuple(row[place] for place in kept) for row in rows]


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
    level = found.alphas.index(found.headline)
    means = {}
    for role in shown:
        pair = (found.roles[role][f"class_{name}_test"][..., level] for name in ("coverage", "size"))
        means[role] = [_mean_over_models(values) for values in pair]
    count = len(next(iter(means.values()))[0]) if means else 0
    rows = []
    for place in range(count):
        pairs = [(cover[place], size[place]) for cover, size in means.values()]
        cells = [f"{cover:.3f} in {size:.2f}" if np.isfinite(cover) else "" for cover, size in pairs]
        rows.append((found.classes[place] if found.classes else str(place), *cells))
    title = f"Coverage and set size by class at alpha = {found.headline:g}"
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


def in_words(found: Evaluation) -> str:
    """What the numbers say, in a few sentences."""
    said = []
    methods = [role for role in found.roles if role not in (GOAL, START)]
    ua = [100 * mean_of(found, role, "UA") for role in (START, GOAL) if role in found.roles]
    if len(ua) == 2 and np.isfinite(ua).all():
        said.append(f"Exact retraining takes the error on forgotten samples from {ua[0]:.1f} to {ua[1]:.1f} %.")
    cr = {role: mean_of(found, role, "cr_forget") for role in found.roles}
    if GOAL in found.roles and not math.isnan(cr[GOAL]):
        ratio = mean_of(found, GOAL, "recover_ratio")
        held = (
            ""
            if math.isnan(ratio)
            else f", and of those that it misclassifies {100 * ratio:.0f} % have their label in the set"
        )
        said.append(f"At alpha {found.headline:g} its CR on forgotten samples is {cr[GOAL]:.3f}{held}.")
    gaps = {role: gap(found, role) for role in methods if not math.isnan(gap(found, role))}
    if gaps:
        best = sorted(gaps, key=lambda role: gaps[role])[:3]
        shown = ", ".join(f"{role} ({100 * gaps[role]:.1f} points)" for role in best)
        said.append(f"Closest to it in UA, RA, TA and MIA: {shown}.")
    if START in found.roles and methods:
        start = mean_of(found, START, "cr_test")
        lost = [role for role in methods if mean_of(found, role, "cr_test") < start - 0.05]
        if lost:
            said.append(f"CR on test samples falls by more than 0.05 under: {', '.join(lost)}.")
    if GOAL in found.roles:
        goal = mean_of(found, GOAL, "miacr")
        over = [role for role in methods if mean_of(found, role, "miacr") > goal + 0.2]
        if over:
            said.append(f"MIACR far above the retrained models' (stranger than never seen): {', '.join(over)}.")
    if not said:
        for role in found.roles:
            cover, size = (mean_of(found, role, name) for name in ("coverage_forget", "size_forget"))
            held = (
                f"; at alpha {found.headline:g} {100 * cover:.0f} % of them have their label in the set of {size:.2f} "
            )
            held += f"labels (CR {cr[role]:.3f})"
            said.append(
                f"{role}: error on forgotten samples {100 * mean_of(found, role, 'UA'):.1f} %"
                + ("" if math.isnan(cover) else held) + "."
            )  # fmt: skip
    said += [f"{role}: the model of forget set(s) {', '.join(map(str, sets))} diverged." for role, sets in
             found.diverged.items()]  # fmt: skip
    return " ".join(said)
