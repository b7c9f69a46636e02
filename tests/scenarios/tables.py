"""Writes the study as markdown tables, and puts them between the marks of a document."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from jaxunlearn.metrics.inference import intervals
from jaxunlearn.metrics.inference.intervals import Interval
from tests.scenarios import lines, location, models, study, tries
from tests.scenarios.study import CONTAINED, Facts
from tests.scenarios.worlds import FAMILIES

Measured = Sequence[tuple[str, str, dict[str, Facts]]]


def number(interval: Interval, digits: int) -> str:
    """Returns `1.5 [0.9, 2.1]`; one number where the interval is a point or unknown."""
    if np.isnan(interval.value):
        return "-"
    value, low, high = (f"{end if round(end, digits) else 0.0:.{digits}f}" for end in interval)
    return value if np.isnan(interval.low) or low == high else f"{value} [{low}, {high}]"


def row(*cells: object) -> str:
    """Returns one line of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def table(head: Sequence[str], rows: Iterable[str]) -> str:
    """Returns a whole table."""
    return "\n".join([row(*head), row(*["---"] * len(head)), *rows])


def count_of(facts: Facts) -> int:
    """Returns how many requests a line has."""
    return len(facts.rows)


def share_of(facts: dict[str, Facts], names: Sequence[str], field: str) -> Interval:
    """Returns the share of requests with a flag, models of the same request averaged, with an exact interval."""
    requests = count_of(facts["untouched"] if "untouched" in facts else facts["again"])
    values_of = [study.per_request(getattr(facts[name], field), requests) for name in names if name in facts]
    return intervals.clopper_pearson(float(np.mean(values_of, 0).sum()), requests)


def average(facts: dict[str, Facts], name: str, field: str, requests: int) -> Interval:
    """Returns the mean over requests of one number."""
    return study.mean(study.per_request(getattr(facts[name], field), requests))


def rows_table(measured: Measured) -> str:
    """Returns the table of single rows."""
    head = (
        "line", "requests", "NOT, untouched", "FORGOTTEN, exact retrains", "about said",
        "false FORGOTTEN, contained models", "false NOT, exact retrains", "SUPPRESSED, exact retrains",
        "p_high <= .05, forgotten rows", "half forgotten: false share of NOT",
        "half forgotten: false share of FORGOTTEN",
    )  # fmt: skip
    rows = []
    for family, label, facts in measured:
        requests = count_of(facts["untouched"])
        contained, retrained = study.joined(facts, CONTAINED), facts["retrained"]
        rows.append(row(
            f"{family}: {label}", requests, number(average(facts, "untouched", "not_", requests), 1),
            number(average(facts, "retrained", "forgotten", requests), 1),
            f"{np.nanmean(retrained.power_forgotten):.1f}" if np.isfinite(retrained.power_forgotten).any() else "-",
            _total(contained.wrongly_forgotten, contained.rows), _total(retrained.wrongly_not, retrained.rows),
            _total(retrained.suppressed, retrained.rows), number(average(facts, "retrained", "high", requests), 3),
            number(study.mean(study.false_share(facts["half"], "not")), 3),
            number(study.mean(study.false_share(facts["half"], "forgotten")), 3),
        ))  # fmt: skip
    return table(head, rows)


def _total(wrong: np.ndarray, rows: np.ndarray) -> str:
    return f"{int(wrong.sum())} of {int(rows.sum()):,}"


def requests_table(measured: Measured) -> str:
    """Returns the table of requests as a whole."""
    head = (
        "line", "still in, contained", "still in, exact retrains", "gone, exact retrains", "gone, contained",
        "suppressed, exact retrains", "looks chosen", "kept, again", "kept, exact retrains", "interval holds 1, again",
        "interval holds 0, exact retrains",
    )  # fmt: skip
    rows = []
    for family, label, facts in measured:
        again, retrained = facts["again"], facts["retrained"]
        rows.append(row(
            f"{family}: {label}", number(share_of(facts, CONTAINED, "g_high"), 2),
            number(share_of(facts, ("retrained",), "g_high"), 2), number(share_of(facts, ("retrained",), "g_in"), 2),
            number(share_of(facts, CONTAINED, "g_in"), 2),
            number(share_of(facts, ("retrained",), "group_suppressed"), 2),
            number(share_of(facts, ("untouched",), "is_chosen"), 2), _kept(again), _kept(retrained),
            _covered(again, 1.0), _covered(retrained, 0.0),
        ))  # fmt: skip
    return table(head, rows)


def _kept(facts: Facts) -> str:
    known = facts.kept[np.isfinite(facts.kept[:, 0]), 0]
    return number(study.mean(known), 2) if len(known) > 1 else "-"


def _covered(facts: Facts, truth: float) -> str:
    flags = study.covered(facts, truth)
    return f"{number(study.share(flags), 2)} of {len(flags)}" if len(flags) else "-"


def models_table(measured: Measured) -> str:
    """Returns the table of everything else that was done to a model: moved on, or edited."""
    head = ("line", "model", "NOT", "FORGOTTEN", "SUPPRESSED", "seen as", "still in", "suppressed as a whole", "kept")
    rows = []
    for family, label, facts in measured:
        for name in ("identical", *study.OPEN, *study.HIDDEN, "half", "finetuned", "ascended"):
            if name not in facts or ("identical" not in facts):
                continue
            model_facts, requests = facts[name], count_of(facts[name])
            check = "IDENTICAL" if model_facts.is_identical.all() else f"EDITED {model_facts.is_edited.mean():.2f}"
            rows.append(row(
                f"{family}: {label}", name,
                *(number(average(facts, name, field, requests), 1) for field in ("not_", "forgotten", "suppressed")),
                check, number(study.share(model_facts.g_high), 2), number(study.share(model_facts.group_suppressed), 2),
                _kept(model_facts),
            ))  # fmt: skip
    return table(head, rows)


def planning_table(planned: Sequence[tuple[str, str, str, dict[str, Facts]]]) -> str:
    """Returns the planning table: what more shadows, more unseen rows and more retained rows buy."""
    head = ("varied", "number", "request", "NOT, again", "FORGOTTEN, exact retrains", "false NOT, exact retrains",
            "still in, again", "still in, exact retrains", "gone, exact retrains",
            "half-width of kept, again")  # fmt: skip
    rows = []
    for quantity, label, kind, facts in planned:
        requests, again = count_of(facts["again"]), facts["again"]
        width = (again.kept[:, 2] - again.kept[:, 1]) / 2
        width = width[np.isfinite(width)]
        rows.append(row(
            quantity, label, kind, number(average(facts, "again", "not_", requests), 1),
            number(average(facts, "retrained", "forgotten", requests), 1),
            _total(facts["retrained"].wrongly_not, facts["retrained"].rows),
            *(number(share_of(facts, (name,), field), 2)
              for name, field in (("again", "g_high"), ("retrained", "g_high"), ("retrained", "g_in"))),
            f"{np.median(width):.2f}" if len(width) else "-",
        ))  # fmt: skip
    return table(head, rows)


def location_table(data: str, folder: str) -> str:
    """Returns the table of Location-30."""
    arrays = location.trained(data, folder)
    head = ("model", "rows asked", "shadows", "NOT", "FORGOTTEN", "SUPPRESSED", "still in", "gone",
            "p_high <= .05, forgotten rows", "kept", "about said NOT, FORGOTTEN")  # fmt: skip
    audits = [(role, "all", shadows) for shadows in (20, 2) for role in ("retrained", "untouched", "another")]
    audits += [(role, subset, 20) for subset in ("hard", "easy") for role in ("retrained", "untouched")]
    audits += [(how, "all", 20) for how in models.EDITS]
    rows = []
    for role, subset, shadows in audits:
        facts = location.audited(arrays, role, subset, shadows)
        high = facts.high[np.isfinite(facts.high)]
        rows.append(row(
            role, f"{subset}, {facts.rows.sum():,}", shadows, facts.not_.sum(), facts.forgotten.sum(),
            facts.suppressed.sum(), f"{facts.g_high.sum()} of 10", f"{facts.g_in.sum()} of 10",
            number(study.mean(high), 3) if len(high) > 1 and role == "retrained" else "-", _kept(facts),
            f"{facts.power_not.sum():.0f}, {facts.power_forgotten.sum():.0f}",
        ))  # fmt: skip
    return table(head, rows)


def other_retrains_table(cache: str) -> str:
    """Returns what exact retrains of other requests change."""
    head = ("line", "model", "still in: usual", "still in: usual, without the check", "still in: new",
            "NOT, of them false: usual", "NOT, of them false: new")  # fmt: skip
    rows = []
    for name, kinds in (("net", ("remembered", "random")), ("forest", ("remembered", "random")),
                        ("logistic", ("remembered", "random", "hard"))):  # fmt: skip
        family = FAMILIES[name]
        arrays = lines.prepared(family, cache)
        for kind in kinds:
            for model, result in tries.with_other_retrains(family, arrays, kind).items():
                rows.append(row(
                    f"{name}: {kind}", model,
                    *(number(study.share(flags), 2) for flags in (result.usual, result.unguarded, result.new)),
                    f"{result.usual_called.mean():.1f}, {result.usual_wrong.mean():.2f}",
                    f"{result.new_called.mean():.1f}, {result.new_wrong.mean():.2f}",
                ))  # fmt: skip
    return table(head, rows)


def references_table(cache: str) -> str:
    """Returns what models that were trained with and without each row change."""
    head = ("line", "model", "FORGOTTEN: usual", "of them false", "SUPPRESSED: usual", "FORGOTTEN: new",
            "of them false", "SUPPRESSED: new")  # fmt: skip
    family = FAMILIES["net"]
    arrays, rows = lines.prepared(family, cache), []
    for kind in ("random", "hard"):
        for model, result in tries.with_references(family, arrays, kind).items():
            if not model.endswith("open"):
                rows.append(row(f"net: {kind}", model, *(f"{values.mean():.2f}" for values in result)))
    return table(head, rows)


def inserted(document: str, tables: dict[str, str]) -> str:
    """Returns the document with each table between its marks `<!-- name -->` and `<!-- end -->`."""
    for name, text in tables.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(document):
            raise ValueError(f"the document has no marks <!-- {name} --> ... <!-- end -->")
        document = pattern.sub(lambda match, text=text: f"{match[1]}{text}\n{match[2]}", document)
    return document
