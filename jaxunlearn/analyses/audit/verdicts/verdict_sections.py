"""Sections on verdicts: overview with power, requests, persons, rows, and the checks that the verdicts rest on."""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxunlearn.analyses.audit.evidence.signals import RETRAINED, AuditInputs
from jaxunlearn.analyses.audit.verdicts import first_screen, planning, request_verdicts, risk, verdict_sentences
from jaxunlearn.analyses.audit.verdicts.request_verdicts import Verdict
from jaxunlearn.analyses.audit.verdicts.requests import RoleVerdicts
from jaxunlearn.analyses.audit.verdicts.verdict_sentences import ORDER, WORDS
from jaxunlearn.metrics.inference import calibration_test, intervals
from jaxunlearn.metrics.verdict.judge import Judgement
from jaxunlearn.records import Finding
from jaxunlearn.report import number_format
from jaxunlearn.report.cells import Cell, Table
from jaxunlearn.report.figures import verdict_bars
from jaxunlearn.report.section import Section

MAX_ROWS, MAX_PRINTED_ROWS = 200, 40  # of the page, of the terminal; verdicts.csv has all


def compose(
    role_verdicts: dict[str, RoleVerdicts], obstacle: str, signals: AuditInputs, fdr: float
) -> tuple[first_screen.Summary, list[Section]]:
    """Returns the summary and the sections, in the order of the procedure.

    Args:
      role_verdicts: role -> verdicts, the first audited role first; empty if there are none.
      obstacle: why there are none.
      signals: what the verdicts rest on.
      fdr: of each kind of false verdict.
    """
    if not role_verdicts:
        return first_screen.no_verdict_summary(signals, obstacle), [needs(signals)]
    role = signals.audited[0]
    verdicts = role_verdicts[role]
    judgement = verdicts.judgements[0] if len(verdicts.judgements) == 1 else None
    if judgement is not None:
        named = first_screen.RequestNames(
            signals.display_names[verdicts.requested[0]], signals.person_names, signals.forgotten is not None,
            signals.is_run, signals.doubts,
        )  # fmt: skip
        summary = first_screen.request_summary(judgement, fdr, named)
    else:
        summary = first_screen.role_summary(verdicts, fdr, role)
    others = [other for other in signals.audited[1:] if other in role_verdicts]
    if others:  # the first screen is of the first model: it says so, and what came out for the others
        (_, headline), *answers = summary
        headlines = [
            f"{other}: {first_screen.role_summary(role_verdicts[other], fdr, other)[0][1]}" for other in others
        ]
        summary = (
            (first_screen.SHORT, f"{role}: {headline}"),
            (first_screen.OTHERS, " ".join(headlines)),
            *answers,
        )
    sections = [overview(role_verdicts, fdr), requests_table(verdicts, signals, fdr)]
    if judgement is not None and judgement.persons:
        sections.append(persons(judgement, signals, fdr))
    sections += [rows_table(verdicts, signals), trust(role_verdicts, signals, fdr)]
    risk_section = risk.section(role_verdicts, fdr)
    sections += [] if risk_section is None else [risk_section]
    return summary, sections


def needs(signals: AuditInputs) -> Section:
    """Tabulates the models and rows that a verdict needs, and how many of them are available."""
    table = Table("What a verdict on single rows needs", "", ("item", "available, and required"),
                  tuple(planning.of_signals(signals)))  # fmt: skip
    return Section("needs", "What would it take to judge these rows?", "", table)


def overview(role_verdicts: dict[str, RoleVerdicts], fdr: float) -> Section:
    """Tabulates verdicts by audited model, with the power of the audit; `fdr`: of each kind of verdict."""
    counts = {role: [int((verdicts.codes == code).sum()) for code in ORDER] for role, verdicts in role_verdicts.items()}
    rates = {role: _rate(verdicts, role) for role, verdicts in role_verdicts.items()}
    if RETRAINED in rates:
        goal = rates[RETRAINED].value
        rates = {
            role: finding if role == RETRAINED else dataclasses.replace(finding, retrained=goal)
            for role, finding in rates.items()
        }
    rows = tuple(
        (role, sum(counts[role]), *counts[role], _power(verdicts, "power_not"), _power(verdicts, "power_forgotten"),
         rates[role])
        for role, verdicts in role_verdicts.items()
    )  # fmt: skip
    table = Table(
        "Verdicts on the requested rows",
        f"At most about {number_format.rate(fdr)} of the verdicts of each kind are wrong per request "
        "(Benjamini-Hochberg). The columns 'caught if untouched' and 'confirmed if exact' show the power of the audit.",
        ("audited model", "rows", *(WORDS[code].lower() for code in ORDER), "caught if untouched",
         "confirmed if exact", "rate not forgotten"),
        rows,
    )  # fmt: skip
    text = (
        "Not forgotten: answered higher than by models that never saw the row. Forgotten: lower than rows like it that "
        "were trained on, and nearer to models that never saw it. Suppressed: clearly lower than any model that never "
        "saw it."
    )
    figure = verdict_bars.verdicts(list(role_verdicts), np.array(list(counts.values())))
    return Section("verdicts", "Which rows are forgotten?", text, table, figure, tuple(rates.values()))


def _power(verdicts: RoleVerdicts, name: str) -> Cell:
    powers = [getattr(judgement, name) for judgement in verdicts.judgements]
    return number_format.MISSING if any(power is None for power in powers) else int(sum(powers))


def requests_table(verdicts: RoleVerdicts, signals: AuditInputs, fdr: float) -> Section:
    """Tabulates what remains of each request as a whole."""
    rows: list[tuple[Cell, ...]] = []
    for index, judgement in enumerate(verdicts.judgements):
        group = judgement.group
        share = number_format.MISSING if np.isnan(group.trace_left[0]) else verdict_sentences.share(group)
        name = f"{index}: {signals.set_names[index]}" if signals.from_classes and signals.is_run else str(index)
        rows.append((name, len(judgement.codes), share, _p(group.p_high), _p(group.p_in), _p(group.p_low),
                     _p(group.p_narrow), first_screen.state(judgement, fdr)))  # fmt: skip
    table = Table(
        "Requests as a whole",
        "Remaining = fraction of the effect of training on these rows that is still present, with its 95 % interval: "
        "100 % = as if never forgotten, 0 % = as if never seen.",
        ("request", "rows", "remaining", "p (never seen)", "p (half remains)", "p (not lower)", "p (too uniform)",
         "verdict"),
        tuple(rows),
    )  # fmt: skip
    shares = (request_verdicts.share_left(judgement, signals.audited[0]) for judgement in verdicts.judgements)
    findings = tuple(share for share in shares if not np.isnan(share.value))
    return Section("requests", "Is the request as a whole still in the model?", "", table, findings=findings)


def persons(judgement: Judgement, signals: AuditInputs, fdr: float) -> Section:
    """Tabulates what remains of each person's rows; `fdr`: of the persons called still in the model."""
    names = signals.person_names
    rows: list[tuple[Cell, ...]] = []
    for index, (group, is_in) in judgement.persons.items():
        share = number_format.MISSING if np.isnan(group.trace_left[0]) else verdict_sentences.share(group)
        verdict = "answers edited" if judgement.is_edited else "still in the model" if is_in else "not shown"
        rows.append((str(names[index]), share, _p(group.p_high), verdict))
    table = Table(
        "Persons",
        f"Of the persons called still in the model, at most about {number_format.rate(fdr)} are not "
        "(Benjamini-Hochberg).",
        ("person", "remaining", "p (never seen)", "verdict"),
        tuple(rows),
    )
    return Section("persons", "Whose rows are still in the model?", "", table)


def rows_table(verdicts: RoleVerdicts, signals: AuditInputs) -> Section:
    """Tabulates the requested rows, those that look most trained on first."""
    listed = listed_rows(verdicts, signals)
    p_high = np.concatenate([judgement.tests.p_high for judgement in verdicts.judgements])
    z = np.concatenate([judgement.tests.z for judgement in verdicts.judgements])
    first_rows = [listed[index] for index in np.lexsort((-z, p_high))[:MAX_ROWS]]
    table = Table(
        "Rows", "p-values before the control for multiple testing; verdicts.csv holds all rows.", HEADER,
        tuple(row.shown for row in first_rows),
    )  # fmt: skip
    is_short = len(table.rows) <= MAX_PRINTED_ROWS
    return Section("rows", "Which rows should be looked at first?", "", table, printed=is_short)


HEADER = ("sample", "request", "class", "verdict", "p (never seen)", "p (not lower)", "p (trained on)",
          "remaining", "agreement", "why")  # fmt: skip


class RowVerdict(NamedTuple):
    """One requested row: a line of verdicts.csv.

    Attributes:
      sample: its name, a whole number or text as the user's `ids` are; without them its position, from 0.
      request: index of its forget set; label: its class, by name where the classes have names, else its number.
      verdict, why: in words.
      p_high, p_low, p_in: see `rows.RowTests`.
      left: share of the trace of training that remains; NaN if the trace is too small.
      agreement: share of the groups of shadows that give it this verdict; NaN where there are too few shadows.
    """

    sample: int | str
    request: int
    label: int | str
    verdict: Verdict
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
        return (*map(str, self[:4]), _p(self.p_high), _p(self.p_low), _p(self.p_in), *shares, self.why)


COLUMNS = ("sample", "request", "class", *RowVerdict._fields[3:])  # of verdicts.csv


def listed_rows(verdicts: RoleVerdicts, signals: AuditInputs) -> list[RowVerdict]:
    """Returns one record per requested row, in the order of the file."""
    names, samples = signals.class_names, _samples(signals)
    listed = []
    for set_index, judgement in enumerate(verdicts.judgements):
        positions = np.flatnonzero(verdicts.requested[set_index])
        why, tests = verdict_sentences.reasons(judgement), judgement.tests
        answers = tests.centre + tests.z * tests.deviation
        for index, (position, code) in enumerate(zip(positions, judgement.codes, strict=True)):
            trace = tests.trace[index]
            is_known = trace >= tests.deviation[index]
            left = float((answers[index] - tests.centre[index]) / trace) if is_known else np.nan
            label = int(signals.labels[position])
            listed.append(RowVerdict(
                samples[position], set_index, names[label] if names else label, Verdict(WORDS[int(code)]),
                float(tests.p_high[index]), float(tests.p_low[index]), float(tests.p_in[index]), left,
                float("nan") if judgement.agreement is None else float(judgement.agreement[index]), str(why[index]),
            ))  # fmt: skip
    return listed


def _samples(signals: AuditInputs) -> list[int | str]:
    """Returns the names of the samples, as whole numbers where these are what is displayed."""
    names = [str(name) for name in signals.display_names]
    for numbers in signals.names.values():
        if numbers.dtype.kind in "iu" and list(map(str, numbers.tolist())) == names:
            return list(numbers.tolist())
    return list(names)


def trust(role_verdicts: dict[str, RoleVerdicts], signals: AuditInputs, fdr: float) -> Section:
    """Reports the checks of the verdicts, with the calibration on exact retrains if there are any."""
    verdicts = next(iter(role_verdicts.values()))
    is_single = len(verdicts.judgements) == 1
    sentences = verdict_sentences.trust(verdicts.judgements[0], signals.is_run) if is_single else _common(verdicts)
    findings: tuple[Finding, ...] = ()
    figure = None
    if RETRAINED in role_verdicts:
        retrained = role_verdicts[RETRAINED]
        p_high = retrained.tested("p_high")[retrained.requested]
        sets = np.broadcast_to(np.arange(len(retrained.requested))[:, None], retrained.requested.shape)
        clusters = sets[retrained.requested]
        calibration_result = calibration_test.calibration_test(
            p_high, clusters=clusters if len(np.unique(clusters)) > 1 else None, alpha=fdr
        )
        rate = Finding(*calibration_result.rate, metric=f"rate of p <= {fdr:g}", n=len(p_high), of="calibration",
                       against="rows truly forgotten", method=calibration_result.method)  # fmt: skip
        findings = (rate,)
        figure = verdict_bars.calibration(p_high, fdr)
        sentences.append(
            f"Of {len(p_high):,} rows that truly were forgotten, {100 * rate.value:.1f} % have a p-value of at most "
            f"{100 * fdr:g} % (should be {100 * fdr:g})."
        )
    if signals.forgotten is not None and _whole_classes(signals.labels, signals.forgotten):
        sentences.append(
            "A class was removed with all its rows: no retained row is like them, so that the effect of training on "
            "them is estimated from other classes. Treat FORGOTTEN as unproven for these rows."
        )
    sentences += verdict_sentences.FOOTNOTES
    return Section("trust", "Can this be trusted?", " ".join(sentences), _foundations(verdicts), figure, findings)


def _whole_classes(labels: np.ndarray, forgotten: np.ndarray) -> bool:
    """Returns whether some request leaves no retained row of a class."""
    return any(not np.isin(labels[mask], labels[~mask]).all() for mask in forgotten)


def _foundations(verdicts: RoleVerdicts) -> Table:
    """Tabulates the checks behind the verdict on each request."""
    rows = tuple(
        (
            str(index),
            *judgement.checks.sizes,
            judgement.model.raw_slope,
            judgement.model.correlation,
            _known(judgement.checks.retained_rank),
            _known(judgement.checks.selection_rank),
        )
        for index, judgement in enumerate(verdicts.judgements)
    )
    caption = (
        "Slope and correlation of the model's answers on the shadows', over the unseen rows (1 = alike). Retained "
        "rank: 0.5 = the shadows find retained rows as hard as unseen ones. Selection rank: above 0.85 = the requested "
        "rows look chosen by the original's answers."
    )
    return Table(
        "What the verdicts rest on", caption,
        ("request", "shadows", "unseen rows", "retained rows", "slope", "correlation", "retained rank",
         "selection rank"),
        rows,
    )  # fmt: skip


def _known(value: float) -> Cell:
    return number_format.MISSING if np.isnan(value) else value


def _common(verdicts: RoleVerdicts) -> list[str]:
    """Sums up the checks over all requests of a run."""
    judgements = verdicts.judgements
    shadows, population, _ = judgements[0].checks.sizes
    slopes = [judgement.model.raw_slope for judgement in judgements]
    correlations = [judgement.model.correlation for judgement in judgements]
    sentences = [
        f"They rest on {shadows:,} shadow model(s) and {population:,} rows that no model saw. The shadows follow the "
        f"audited models with slopes of {min(slopes):.2f} to {max(slopes):.2f} and correlations of "
        f"{min(correlations):.2f} to {max(correlations):.2f} (1 = alike)."
    ]
    for name, text in (("is_contaminated", "shadows answer retained rows differently from the population"),
                       ("is_selected", "rows look chosen by the original's own answers")):  # fmt: skip
        num_affected = sum(bool(getattr(judgement.checks, name)) for judgement in judgements)
        if num_affected:
            sentences.append(f"In {num_affected} of {len(judgements)} requests {text}.")
    for reason in dict.fromkeys(
        judgement.checks.refusal or judgement.checks.forgotten_refusal for judgement in judgements
    ):
        if reason:
            sentences.append(reason)
    return sentences


def _rate(verdicts: RoleVerdicts, role: str) -> Finding:
    """Returns the fraction of requested rows judged not forgotten, with an interval over forget sets if they differ."""
    num_requested = verdicts.requested.sum(1)
    num_caught = (verdicts.codes == ORDER[0]).sum(1)
    rate = intervals.mean(num_caught / num_requested, metric="rate not forgotten", of=role)
    pooled_rate = float(num_caught.sum() / num_requested.sum())
    if len(num_requested) > 1 and rate.low < rate.high:
        low, high = np.clip((rate.low, rate.high), 0, 1)
        return dataclasses.replace(
            rate, value=pooled_rate, low=float(low), high=float(high), method="t over forget sets"
        )
    bounds = intervals.clopper_pearson(float(num_caught.sum()), float(num_requested.sum()))
    return dataclasses.replace(rate, value=pooled_rate, low=bounds.low, high=bounds.high, method="Clopper-Pearson")


def _p(value: float) -> str:
    return f"{value:.2g}"


def first_sentence(sections: list[Section]) -> str:
    """Returns the first line of a report without verdicts: the text of its first section."""
    return sections[0].text if sections else "Nothing was measured."
