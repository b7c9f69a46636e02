"""What an evaluation found as tables, a figure and sentences. Numbers only; both doors end here."""

import math
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import store
from jaxunlearn.metrics import intervals
from jaxunlearn.protocols.audit.presenting import Piece
from jaxunlearn.protocols.evaluation.measures import Numbers
from jaxunlearn.records import Finding
from jaxunlearn.report import curves, tables
from jaxunlearn.report.cells import Cell, Table

STEM = "evaluation"
GOAL, START = "retrained", "original"
JOINS = "\nlaunch.audit puts these sections into report/report.html."
WIDTH = 140
GAP = ("UA", "RA", "TA", "svc_confidence")  # SalUn's tables: their MIA is the SVC on the confidence

UTILITY = {"UA": "UA", "RA": "RA ↑", "TA": "TA ↑", "svc_confidence": "MIA", "confidence_forget": "p(true) forgotten",
           "confidence_test": "p(true) test"}  # fmt: skip
ATTACKS = {
    "svc_correctness": "SVC correct", "svc_confidence": "SVC conf", "svc_entropy": "SVC entropy",
    "svc_modified_entropy": "SVC m-entropy", "svc_probability": "SVC prob", "threshold_correctness": "thr correct",
    "threshold_confidence": "thr conf", "threshold_entropy": "thr entropy", "threshold_modified_entropy":
    "thr m-entropy", "entropy_mia": "entropy MIA (member)", "zrf": "ZRF", "activation_distance": "act. distance",
}  # fmt: skip
CONFORMAL = {
    "q_hat": "q_hat", "coverage_forget": "coverage D_f", "coverage_test": "coverage D_t", "size_forget": "size D_f",
    "size_test": "size D_t", "cr_forget": "CR D_f", "cr_retain": "CR D_r ↑", "cr_test": "CR D_t ↑",
    "recover_ratio": "recover ratio", "miacr": "MIACR", "miacr_size": "attack size",
}  # fmt: skip
CLASSES = {
    "UA_test": "UA test", "q_hat_forget": "q_hat D_f", "coverage_test_forget": "coverage", "size_test_forget": "size",
    "cr_test_forget": "CR", "miacr_test_excluded": "lacks 'non-member' ↓", "miacr_test_non_member": "called non-member",
}  # fmt: skip
EVERY = {
    "q_hat": "q_hat", "coverage_forget": "coverage D_f", "coverage_retain": "coverage D_r",
    "coverage_test": "coverage D_t", "size_forget": "size D_f", "size_retain": "size D_r", "size_test": "size D_t",
    "cr_forget": "CR D_f", "cr_retain": "CR D_r", "cr_test": "CR D_t", "recover_ratio": "recover ratio",
    "empty_forget": "empty D_f", "empty_test": "empty D_t",
}  # fmt: skip


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
    """

    roles: dict[str, Numbers]
    alphas: tuple[float, ...]
    headline: float
    sets: int
    costs: dict[str, tuple[float, float]]
    diverged: dict[str, list[int]]
    classes: tuple[str, ...] = ()


def plain(found: Evaluation) -> dict[str, Any]:
    """What evaluation.json holds."""
    return found._asdict()


def from_plain(stored: Mapping[str, Any]) -> Evaluation:
    """The evaluation that evaluation.json holds."""
    roles = {role: {name: np.asarray(values, np.float64) for name, values in numbers.items()}
             for role, numbers in stored["roles"].items()}  # fmt: skip
    costs = {role: (float(cost[0]), float(cost[1])) for role, cost in stored["costs"].items()}
    return Evaluation(
        roles, tuple(stored["alphas"]), stored["headline"], stored["sets"], costs, stored["diverged"],
        tuple(stored["classes"]),
    )  # fmt: skip


def of_run(run: store.Run) -> list[Piece]:
    """The sections of an evaluation that the run folder holds; none otherwise."""
    path = run.path("evaluation.json")
    try:
        return pieces(from_plain(store.files.read_json(path)))
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise store.files.damaged(path, "it holds no evaluation") from error


def value_of(found: Evaluation, role: str, name: str, alpha: float | None = None) -> np.ndarray:
    """[R] numbers of one role, at the headline level or another."""
    values = np.asarray(found.roles[role].get(name, np.full(found.sets, np.nan)), np.float64)
    return values if values.ndim == 1 else values[:, found.alphas.index(found.headline if alpha is None else alpha)]


def mean_of(found: Evaluation, role: str, name: str, alpha: float | None = None) -> float:
    """Mean over forget sets whose number is finite; NaN where none is."""
    values = value_of(found, role, name, alpha)
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else math.nan


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


def gap(found: Evaluation, role: str) -> float:
    """Average gap: mean absolute difference of means to exact retraining over UA, RA, TA and MIA, as a fraction.

    NaN unless all four were measured. Source: SalUn, tables (there in percentage points).
    """
    if GOAL not in found.roles or role == GOAL:
        return math.nan
    apart = [abs(mean_of(found, role, name) - mean_of(found, GOAL, name)) for name in GAP]
    return float(np.mean(apart))


def pieces(found: Evaluation) -> list[Piece]:
    """Sections of the report."""
    over = f"Means over {found.sets} forget set(s) ± deviation." if found.sets > 1 else "One model."
    made = [
        _piece(found, "utility", "Utility", UTILITY,
               f"{over} UA = 1 - accuracy on the forget set, RA and TA = accuracy on retained and test samples, MIA = "
               "share of forgotten samples that an SVC on the confidence calls non-members, gap = mean absolute "
               "difference to the retrained models over UA, RA, TA and MIA, seconds for all forget sets.",
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
        made.append(Piece("against_alpha", "Prediction sets against alpha", text, figure=figure))
    made.append(_by_class(found, over))
    if len(found.alphas) > 1:
        made.append(_levels(found, over))
    return [one for one in made if one.table is not None or one.figure is not None]


def _piece(
    found: Evaluation, name: str, title: str, columns: Mapping[str, str], caption: str, told: str,
    with_costs: bool = False,
) -> Piece:  # fmt: skip
    known = [key for key in columns if any(key in numbers for numbers in found.roles.values())]
    if not known:
        return Piece(name, title, told)
    rows: list[tuple[Cell, ...]] = []
    every: list[Finding] = []
    header = ["role", *(columns[key] for key in known)]
    if with_costs:
        header += ["gap ↓", "epochs", "seconds"] if GOAL in found.roles else ["epochs", "seconds"]
    for role in found.roles:
        cells = [finding(found, role, key) if key in found.roles[role] else "" for key in known]
        every += [cell for cell in cells if isinstance(cell, Finding)]
        shown = [bare(cell) for cell in cells]
        costs: list[Cell] = []
        if with_costs:
            apart = gap(found, role)
            if GOAL in found.roles:
                costs.append("" if math.isnan(apart) else apart)
            seconds, epochs = found.costs.get(role, (math.nan, math.nan))
            costs += [_cost(epochs), _cost(seconds)]
        rows.append((role, *shown, *costs))
    if with_costs and any(math.isnan(found.costs.get(role, (math.nan, 0))[0]) for role in found.roles):
        header, rows = _without_blank(header, rows)
    return Piece(name, title, told, Table(title, caption, tuple(header), tuple(rows)), None, tuple(every))


def bare(cell: Cell) -> Cell:
    """A finding for a table whose rows include the retrained models', and whose deviations say enough."""
    if not isinstance(cell, Finding):
        return cell
    return intervals.without_interval(cell).replace(retrained=None)  # type: ignore[attr-defined]


def _without_blank(header: list[str], rows: list[tuple[Cell, ...]]) -> tuple[list[str], list[tuple[Cell, ...]]]:
    kept = [place for place in range(len(header)) if any(row[place] != "" for row in rows)]
    return [header[place] for place in kept], [tuple(row[place] for place in kept) for row in rows]


def _cost(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2f}"


def _levels(found: Evaluation, over: str) -> Piece:
    known = [key for key in EVERY if any(key in numbers for numbers in found.roles.values())]
    if not known:
        return Piece("alphas", "", "")
    rows: list[tuple[Cell, ...]] = []
    every: list[Finding] = []
    for role, numbers in found.roles.items():
        for alpha in found.alphas:
            cells = [finding(found, role, key, alpha) if key in numbers else "" for key in known]
            every += [cell for cell in cells if isinstance(cell, Finding)]
            rows.append((role, f"{alpha:g}", *(bare(cell) for cell in cells)))
    title = "Prediction sets at every level"
    table = Table(title, over, ("role", "alpha", *(EVERY[key] for key in known)), tuple(rows))
    return Piece("alphas", title, "D_f forgotten, D_r retained, D_t test samples.", table, None, tuple(every))


def _by_class(found: Evaluation, over: str) -> Piece:
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
    return Piece("by_class", title, text, table)


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


def files(found: Evaluation) -> str:
    """Further lines of what lies where."""
    lines = ["  evaluation.json                  every number per role, forget set and alpha"]
    if any("q_hat" in numbers for numbers in found.roles.values()):
        kept = "covered, size [forget sets, alphas, samples]: who is forgotten in name only"
        lines.append(f"  evaluation/sets_ROLE.npz         {kept}")
    return "\n".join(lines)


def text(made: Iterable[Piece]) -> str:
    """What the terminal shows: every table but those over all levels and classes."""
    shown = [
        f"{tables.text(piece.table, width=WIDTH)}\n\n{textwrap.fill(piece.text, WIDTH)}".rstrip()
        for piece in made
        if piece.table is not None and piece.name not in ("alphas", "by_class")
    ]
    return "\n\n\n".join(shown)
