"""What an audit answers: the first line, the verdicts and how far they can be trusted, the samples to look at first."""

import dataclasses

import numpy as np

from jaxunlearn import scores
from jaxunlearn.analyses.audit import verdicts
from jaxunlearn.analyses.audit.signals import ORIGINAL, RETRAINED, AuditSignals
from jaxunlearn.metrics import intervals
from jaxunlearn.records import Finding
from jaxunlearn.report import bars, words
from jaxunlearn.report.cells import Cell, Table
from jaxunlearn.report.section import Section

WORST = 12
# Less than this part of the original model's samples caught, and no more than that more samples cleared: no power.
WEAK = 0.05
VERDICT = {
    verdicts.NOT_FORGOTTEN: "not forgotten",
    verdicts.CANNOT_TELL: "cannot tell",
    verdicts.FORGOTTEN: "forgotten",
}
ORIGIN = {
    "retrained": "samples forgotten by exact retrains of other forget sets",
    "shadows": "shadow models in the unlearned model's place",
    "population": "population samples in the audited model",
}


def compose(
    decided: dict[str, verdicts.Verdicts],
    truth: verdicts.Calibration | None,
    obstacle: str,
    signals: AuditSignals,
    level: float,
) -> tuple[str, list[Section]]:
    """The first line and the sections of verdicts on the audited roles, exact retraining and the original."""
    if not decided:
        return answer(None, None, level, obstacle), []
    main = signals.audited[0]
    retrained = decided.get(RETRAINED) if main != RETRAINED else None
    first = answer(decided[main], retrained, level, "", audited=main, original=decided.get(ORIGINAL))
    made = decisions(decided, truth)
    made.insert(1, worst(decided[main], signals.shown, signals.labels, signals.class_names))
    return first, made


def decisions(found: dict[str, verdicts.Verdicts], truth: verdicts.Calibration | None) -> list[Section]:
    """The verdict table, and how far its p-values can be trusted."""
    rates = {role: _rate(one, role) for role, one in found.items()}
    if "retrained" in rates:
        goal = rates["retrained"].value
        rates = {
            role: one if role == "retrained" else dataclasses.replace(one, retrained=goal)
            for role, one in rates.items()
        }
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (role, int(one.counts.sum()), *(int(number) for number in one.counts), rates[role])
        for role, one in found.items()
    )
    first = next(iter(found.values()))
    table = Table(
        "Verdicts on the samples asked to be forgotten",
        f"Score {first.score}, false discovery rate {first.level:g} per forget set, null: "
        f"{len(first.null.values[0]):,} scores of {ORIGIN[first.null.calibration]}.",
        ("audited model", "samples", "not forgotten", "cannot tell", "forgotten", "rate not forgotten"),
        rows,
    )
    said = [
        "Not forgotten: higher than models that never saw the data would score. Forgotten: lower than samples the "
        "model was trained on. Both controlled for multiple testing (Benjamini-Hochberg)."
    ]
    findings = tuple(rates.values())
    drift = first.null.drift
    if drift is not None:
        said.append("The null of the shadow models (without the original model), measured:")
        seen = "population samples, which no model saw"
        said.append(words.calibration_sentence(drift.rate, first.level, seen, uniform=drift.p_value))
        if first.null.calibration != "shadows":
            said.append("It was not used.")
        findings += (drift.rate,)
    elif first.null.calibration == "shadows" and scores.find(first.score).reads_original:
        said.append(
            f"{first.score} reads the original model: how far its null drifts cannot be measured on population samples."
        )
    said.append(_resolution(first))
    if truth is not None:
        said.append(words.calibration_sentence(truth.rate, first.level, uniform=truth.p_value))
        findings += (truth.rate,)
    sections = [Section(
        "verdicts", "Which samples are forgotten?", " ".join(filter(None, said)), table,
        bars.verdicts(list(found), np.stack([one.counts for one in found.values()])), findings,
    )]  # fmt: skip
    shown = truth or drift
    replaced = truth is None and first.null.calibration != "shadows"
    unused = " under the null of the shadow models, which was not used" if replaced else ""
    if shown is not None:
        sections.append(Section(
            "calibration", "Can the p-values be trusted?",
            f"P-values of samples that the audited model never saw must be uniform. Shown: {shown.rate.against}"
            f"{unused}. Kolmogorov-Smirnov distance {shown.distance:.3f}, p = {shown.p_value:.2g}.",
            figure=bars.calibration(shown.p_out, first.level, samples=shown.rate.against.capitalize()),
        ))  # fmt: skip
    return sections


def _resolution(found: verdicts.Verdicts) -> str:
    """What the number of null scores allows: k rejections among m need a p-value of at most level * k / m."""
    asked = int((found.codes >= 0).sum(1).max())
    smallest = 1 / (len(found.null.values[0]) + 1)
    least = int(np.ceil(asked * smallest / found.level - 1e-9))
    if least <= 1:
        return ""
    return (
        f"With {len(found.null.values[0]):,} null scores no p-value is below {smallest:.2g}, so fewer than "
        f"{least} samples of a forget set can never be called not forgotten; more of them sharpen this."
    )


def _rate(found: verdicts.Verdicts, role: str) -> Finding:
    """Fraction of the requested samples judged not forgotten, with a t interval over forget sets where they differ."""
    asked = (found.codes >= 0).sum(1)
    rate = intervals.mean((found.codes == verdicts.NOT_FORGOTTEN).sum(1) / asked, metric="rate not forgotten", of=role)
    whole = float(found.counts[0] / found.counts.sum())
    if len(asked) > 1 and rate.low < rate.high:
        low, high = np.clip((rate.low, rate.high), 0, 1)
        return dataclasses.replace(rate, value=whole, low=float(low), high=float(high), method="t over forget sets")
    bounds = intervals.clopper_pearson(float(found.counts[0]), float(found.counts.sum()))
    return dataclasses.replace(rate, value=whole, low=bounds.low, high=bounds.high, method="Clopper-Pearson")


def worst(found: verdicts.Verdicts, rows: np.ndarray, labels: np.ndarray, names: tuple[str, ...] = ()) -> Section:
    """The requested samples that look most trained on, by their p-value.

    Args:
      found: of the audited role.
      rows: [N] numbers or names by which the user knows the samples.
      labels: [N].
      names: of the classes; may be empty.
    """
    asked = np.argwhere(found.codes >= 0)
    p_out = found.p_out[tuple(asked.T)]
    first = asked[np.lexsort((-found.values[tuple(asked.T)], p_out))][:WORST]
    cells: tuple[tuple[Cell, ...], ...] = tuple(
        (
            str(rows[sample]),
            str(number),
            names[labels[sample]] if names else str(labels[sample]),
            float(found.values[number, sample]),
            f"{found.p_out[number, sample]:.2g}",
            VERDICT[int(found.codes[number, sample])],
        )
        for number, sample in first
    )
    header = ("sample", "forget set", "class", f"{found.score}", "p (never seen)", "verdict")
    table = Table(
        "Samples that look most trained on", "p-values before the control for multiple testing.", header, cells
    )
    return Section("worst", "Which samples should be looked at first?", "", table)


def answer(
    found: verdicts.Verdicts | None,
    retrained: verdicts.Verdicts | None,
    level: float,
    obstacle: str,
    *,
    audited: str = "",
    original: verdicts.Verdicts | None = None,
) -> str:
    """The first line: what the verdicts on the audited role say, beside exact retraining and no unlearning at all."""
    if found is None:
        return words.answer(None, level=level, obstacle=obstacle)
    sentence = words.answer(
        _counts(found),
        level=level,
        retrained=None if retrained is None else _counts(retrained),
        requested=found.p_in is not None,
        exact=audited == "retrained",
    )
    if original is not None:
        whole = int(original.counts.sum())
        caught, cleared = int(original.counts[0]), int(original.counts[2])
        sentence += f" Of the original model, which forgot nothing, it is {caught:,} of {whole:,}"
        sentence += f"; {cleared:,} look forgotten." if original.p_in is not None else "."
        gained = found.counts[2] / found.counts.sum() - cleared / whole
        if caught < WEAK * whole and gained < WEAK:
            sentence += " So these verdicts would hardly notice if nothing had been forgotten."
    return f"Exact retraining, audited as if it were a method: {sentence}" if audited == "retrained" else sentence


def _counts(found: verdicts.Verdicts) -> words.Verdicts:
    remembered, unclear, forgotten = map(int, found.counts)
    return words.Verdicts(remembered, unclear, forgotten if found.p_in is not None else None)


def headline(sections: list[Section]) -> str:
    """The first line of a report without verdicts: the text of its first section."""
    return sections[0].text if sections else "Nothing was measured."
