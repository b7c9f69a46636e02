"""What an audit answers: could it have noticed, was anything changed, the request, persons, rows, and what to trust."""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxunlearn.analyses.audit.evidence.signals import RETRAINED, AuditSignals
from jaxunlearn.analyses.audit.verdicts import first_screen, planning, risk, verdict_sentences
from jaxunlearn.analyses.audit.verdicts.requests import RoleVerdicts
from jaxunlearn.analyses.audit.verdicts.verdict_sentences import ORDER, WORDS
from jaxunlearn.metrics.inference import calibration_test, intervals
from jaxunlearn.metrics.verdict.judge import Judgement
from jaxunlearn.records import Finding
from jaxunlearn.report import number_format
from jaxunlearn.report.cells import Cell, Table
from jaxunlearn.report.figures import verdict_bars
from jaxunlearn.report.section import Section

FIRST_ROWS, PRINTED_ROWS = 200, 40  # of the page, of the terminal; verdicts.csv has all


def compose(
    decided: dict[str, RoleVerdicts], obstacle: str, signals: AuditSignals, fdr: float
) -> tuple[first_screen.Summary, list[Section]]:
    """Returns what is read first, and the sections, in the order of the procedure.

    Args:
      decided: role -> verdicts, the first audited role first; empty where there are none.
      obstacle: why there are none.
      signals: what the verdicts rest on.
      fdr: of each kind of false verdict.
    """
    if not decided:
        return first_screen.unjudged(signals, obstacle), [needs(signals)]
    role = signals.audited[0]
    found = decided[role]
    alone = found.judgements[0] if len(found.judgements) == 1 else None
    if alone is not None:
        named = first_screen.Named(
            signals.shown[found.requested[0]], signals.person_names, signals.forgotten is not None
        )
        summary = first_screen.single(alone, fdr, named)
    else:
        summary = first_screen.several(found, fdr, role)
    sections = [overview(decided, signals), requests_table(found, signals, fdr)]
    if alone is not None and alone.persons:
        sections.append(persons(alone, signals))
    sections += [rows_table(found, signals), trust(decided, signals, fdr)]
    meaning = risk.section(decided, fdr)
    sections += [] if meaning is None else [meaning]
    return summary, sections


def needs(signals: AuditSignals) -> Section:
    """Returns which models and rows a verdict needs, and how many of them are there."""
    table = Table("What a verdict on single rows needs", "", ("what", "how many are there, and how many it takes"),
                  tuple(planning.of_signals(signals)))  # fmt: skip
    return Section("needs", "What would it take to judge these rows?", "", table)


def overview(decided: dict[str, RoleVerdicts], signals: AuditSignals) -> Section:
    """Returns the table of verdicts by audited model, with what the audit could have seen."""
    counts = {role: [int((found.codes == code).sum()) for code in ORDER] for role, found in decided.items()}
    rates = {role: _rate(found, role) for role, found in decided.items()}
    if RETRAINED in rates:
        goal = rates[RETRAINED].value
        rates = {
            role: one if role == RETRAINED else dataclasses.replace(one, retrained=goal) for role, one in rates.items()
        }
    rows = tuple(
        (role, sum(counts[role]), *counts[role], _power(found, "power_not"), _power(found, "power_forgotten"),
         rates[role])
        for role, found in decided.items()
    )  # fmt: skip
    table = Table(
        "Verdicts on the rows asked to be forgotten",
        "Each kind of verdict at most about 5 % wrong per request (Benjamini-Hochberg). Caught if untouched, confirmed "
        "if exact: what this audit could have noticed.",
        ("audited model", "rows", *(WORDS[code].lower() for code in ORDER), "caught if untouched",
         "confirmed if exact", "rate not forgotten"),
        rows,
    )  # fmt: skip
    text = (
        "Not forgotten: answered higher than by models that never saw the row. Forgotten: lower than rows like it that "
        "were trained on, and nearer to models that never saw it. Suppressed: clearly lower than any model that never "
        "saw it."
    )
    figure = verdict_bars.verdicts(list(decided), np.array(list(counts.values())))
    return Section("verdicts", "Which rows are forgotten?", text, table, figure, tuple(rates.values()))


def _power(found: RoleVerdicts, name: str) -> Cell:
    each = [getattr(one, name) for one in found.judgements]
    return number_format.MISSING if any(one is None for one in each) else int(sum(each))


def requests_table(found: RoleVerdicts, signals: AuditSignals, fdr: float) -> Section:
    """Returns what is left of each request as a whole."""
    rows: list[tuple[Cell, ...]] = []
    for number, one in enumerate(found.judgements):
        group = one.group
        kept = number_format.MISSING if np.isnan(group.kept[0]) else verdict_sentences.share(group)
        name = f"{number}: {signals.set_names[number]}" if signals.from_classes and signals.is_run else str(number)
        rows.append((name, len(one.codes), kept, _p(group.p_high), _p(group.p_in), _p(group.p_low),
                     _p(group.p_narrow), first_screen.state(one, fdr)))  # fmt: skip
    table = Table(
        "Requests as a whole",
        "Left = share of what training left on these rows that is still there, with its 95 % interval: 100 % = as if "
        "never forgotten, 0 % = as if never seen.",
        ("request", "rows", "left", "p (never seen)", "p (half is left)", "p (not lower)", "p (as varied)",
         "verdict"),
        tuple(rows),
    )  # fmt: skip
    return Section("requests", "Is the request as a whole still in the model?", "", table)


def persons(found: Judgement, signals: AuditSignals) -> Section:
    """Returns what is left of each person's rows."""
    names = signals.person_names
    rows: list[tuple[Cell, ...]] = []
    for number, (group, is_in) in found.persons.items():
        kept = number_format.MISSING if np.isnan(group.kept[0]) else verdict_sentences.share(group)
        verdict = "answers edited" if found.is_edited else "still in the model" if is_in else "not shown"
        rows.append((str(names[number]), kept, _p(group.p_high), verdict))
    table = Table("Persons", "At most about 5 % of those so called are wrong.",
                  ("person", "left", "p (never seen)", "verdict"), tuple(rows))  # fmt: skip
    return Section("persons", "Whose rows are still in the model?", "", table)


def rows_table(found: RoleVerdicts, signals: AuditSignals) -> Section:
    """Returns the requested rows, those that look most trained on first."""
    listed = listed_rows(found, signals)
    p_high = np.concatenate([one.tests.p_high for one in found.judgements])
    z = np.concatenate([one.tests.z for one in found.judgements])
    shown = [listed[index] for index in np.lexsort((-z, p_high))[:FIRST_ROWS]]
    table = Table(
        "Rows", "p-values before the control for multiple testing; verdicts.csv holds all rows.", HEADER,
        tuple(row.shown for row in shown),
    )  # fmt: skip
    is_short = len(table.rows) <= PRINTED_ROWS
    return Section("rows", "Which rows should be looked at first?", "", table, printed=is_short)


HEADER = ("sample", "request", "class", "verdict", "p (never seen)", "p (not lower)", "p (trained on)", "left",
          "agreement", "why")  # fmt: skip


class RowVerdict(NamedTuple):
    """One requested row: a line of verdicts.csv.

    Attributes:
      sample: what the user calls it; request: number of its forget set; label: its class.
      verdict, why: in words.
      p_high, p_low, p_in: see `rows.RowTests`.
      left: share of what training left that is still there; NaN where that is too little to tell.
      agreement: share of the groups of shadows that give it this verdict; NaN where there are too few shadows.
    """

    sample: str
    request: str
    label: str
    verdict: str
    p_high: float
    p_low: float
    p_in: float
    left: float
    agreement: float
    why: str

    @property
    def shown(self) -> tuple[str, ...]:
        """Its cells under HEADER."""
        shares = ("" if np.isnan(share) else f"{100 * share:.0f} %" for share in (self.left, self.agreement))
        return (*self[:4], _p(self.p_high), _p(self.p_low), _p(self.p_in), *shares, self.why)


def all_rows(found: RoleVerdicts, signals: AuditSignals) -> Table:
    """Returns the table of all requested rows."""
    header = ("sample", "request", "class", *RowVerdict._fields[3:])
    return Table("", "", header, tuple(listed_rows(found, signals)))


def listed_rows(found: RoleVerdicts, signals: AuditSignals) -> list[RowVerdict]:
    """Returns one record per requested row, in the order of the file."""
    names = signals.class_names
    listed = []
    for number, one in enumerate(found.judgements):
        places = np.flatnonzero(found.requested[number])
        why, tests = verdict_sentences.reasons(one), one.tests
        answers = tests.centre + tests.z * tests.deviation
        for index, (place, code) in enumerate(zip(places, one.codes, strict=True)):
            trace = tests.trace[index]
            is_known = trace >= tests.deviation[index]
            left = float((answers[index] - tests.centre[index]) / trace) if is_known else np.nan
            label = int(signals.labels[place])
            listed.append(RowVerdict(
                str(signals.shown[place]), str(number), names[label] if names else str(label), WORDS[int(code)],
                float(tests.p_high[index]), float(tests.p_low[index]), float(tests.p_in[index]), left,
                float("nan") if one.agreement is None else float(one.agreement[index]), str(why[index]),
            ))  # fmt: skip
    return listed


def trust(decided: dict[str, RoleVerdicts], signals: AuditSignals, fdr: float) -> Section:
    """Returns what the verdicts rest on, measured where exact retrains are there."""
    found = next(iter(decided.values()))
    is_one = len(found.judgements) == 1
    said = verdict_sentences.trust(found.judgements[0]) if is_one else _common(found)
    findings: tuple[Finding, ...] = ()
    figure = None
    if RETRAINED in decided:
        retrained = decided[RETRAINED]
        p_high = retrained.tested("p_high")[retrained.requested]
        sets = np.broadcast_to(np.arange(len(retrained.requested))[:, None], retrained.requested.shape)
        clusters = sets[retrained.requested]
        seen = calibration_test.calibration_test(
            p_high, clusters=clusters if len(np.unique(clusters)) > 1 else None, alpha=fdr
        )
        rate = Finding(*seen.rate, metric=f"rate of p <= {fdr:g}", n=len(p_high), of="calibration",
                       against="rows truly forgotten", method=seen.method)  # fmt: skip
        findings = (rate,)
        figure = verdict_bars.calibration(p_high, fdr)
        said.append(
            f"Of {len(p_high):,} rows that truly were forgotten, {100 * rate.value:.1f} % have a p-value of at most "
            f"{100 * fdr:g} % (should be {100 * fdr:g})."
        )
    if signals.forgotten is not None and _whole_classes(signals.labels, signals.forgotten):
        said.append(
            "A class was removed with all its rows: no retained row is like them, so that what training left on them "
            "is estimated from other classes. Take FORGOTTEN for unproved there."
        )
    said += verdict_sentences.FOOTNOTES
    return Section("trust", "Can this be trusted?", " ".join(said), _foundations(found), figure, findings)


def _whole_classes(labels: np.ndarray, forgotten: np.ndarray) -> bool:
    """Returns whether some request leaves no retained row of a class."""
    return any(not np.isin(labels[asked], labels[~asked]).all() for asked in forgotten)


def _foundations(found: RoleVerdicts) -> Table:
    """Returns what the verdict on each request rests on."""
    rows = tuple(
        (str(number), *one.checks.sizes, one.model.raw_slope, one.model.correlation, _known(one.checks.retained_place),
         _known(one.checks.chosen_place))
        for number, one in enumerate(found.judgements)
    )  # fmt: skip
    caption = (
        "Slope and correlation of the model's answers on the shadows', over the unseen rows (1 = alike). Retained "
        "place: 0.5 = the shadows find retained rows as hard as unseen ones. Chosen place: above 0.85 = the requested "
        "rows look chosen by the original's answers."
    )
    return Table(
        "What the verdicts rest on", caption,
        ("request", "shadows", "unseen rows", "retained rows", "slope", "correlation", "retained place",
         "chosen place"),
        rows,
    )  # fmt: skip


def _known(value: float) -> Cell:
    return number_format.MISSING if np.isnan(value) else value


def _common(found: RoleVerdicts) -> list[str]:
    """Returns what the requests of a run rest on, together."""
    each = found.judgements
    shadows, population, _ = each[0].checks.sizes
    slopes = [one.model.raw_slope for one in each]
    correlations = [one.model.correlation for one in each]
    said = [
        f"They rest on {shadows:,} shadow model(s) and {population:,} rows that no model saw. The shadows follow the "
        f"audited models with slopes of {min(slopes):.2f} to {max(slopes):.2f} and correlations of "
        f"{min(correlations):.2f} to {max(correlations):.2f} (1 = alike)."
    ]
    for name, text in (("is_contaminated", "shadows answer retained rows otherwise than the population"),
                       ("is_chosen", "rows look chosen by the original's own answers")):  # fmt: skip
        number = sum(bool(getattr(one.checks, name)) for one in each)
        if number:
            said.append(f"In {number} of {len(each)} requests {text}.")
    for reason in dict.fromkeys(one.checks.refused or one.checks.refused_in for one in each):
        if reason:
            said.append(reason)
    return said


def _rate(found: RoleVerdicts, role: str) -> Finding:
    """Returns the fraction of requested rows judged not forgotten, with an interval over forget sets if they differ."""
    asked = found.requested.sum(1)
    caught = (found.codes == ORDER[0]).sum(1)
    rate = intervals.mean(caught / asked, metric="rate not forgotten", of=role)
    whole = float(caught.sum() / asked.sum())
    if len(asked) > 1 and rate.low < rate.high:
        low, high = np.clip((rate.low, rate.high), 0, 1)
        return dataclasses.replace(rate, value=whole, low=float(low), high=float(high), method="t over forget sets")
    bounds = intervals.clopper_pearson(float(caught.sum()), float(asked.sum()))
    return dataclasses.replace(rate, value=whole, low=bounds.low, high=bounds.high, method="Clopper-Pearson")


def _p(value: float) -> str:
    return f"{value:.2g}"


def first_sentence(sections: list[Section]) -> str:
    """Returns the first line of a report without verdicts: the text of its first section."""
    return sections[0].text if sections else "Nothing was measured."
