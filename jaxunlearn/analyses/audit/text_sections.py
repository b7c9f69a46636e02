"""What an audit of texts says besides the sections of every audit: the bootstrap table, what OUT models stand for."""

from collections.abc import Mapping

import numpy as np

from jaxunlearn import scores
from jaxunlearn.analyses.audit.scoreboard import Scored
from jaxunlearn.analyses.audit.signals import AuditSignals
from jaxunlearn.metrics import bootstrap, headers
from jaxunlearn.records import Finding
from jaxunlearn.report import formats
from jaxunlearn.report.cells import Cell, Table
from jaxunlearn.report.section import Section
from jaxunlearn.settings import Settings

Resampled = dict[str, dict[str, Finding]]

OUT_NOTE = (
    "Verdicts take the OUT models for models that were trained as the audited one was, without the requested texts. "
    "Models of another architecture or other training data are no such null: audit with them for scores only."
)


def resampled(signals: AuditSignals, scored: Scored, settings: Settings) -> Resampled:
    """Computes the bootstrap table of all scores (the first group of OUT models); empty where it is not asked for."""
    audit = settings.audit
    if signals.kind != scores.TOKENS or scored.truth is None or not audit.draws:
        return {}
    mode = "legacy" if signals.options.compat == "faithful" else "corrected"
    values = {name: lines[0].ravel() for name, lines in scored.values.items()}
    table = bootstrap.table(
        values, scored.truth.ravel(), mode=mode, seed=settings.seed, iterations=max(audit.draws, 2),
        level=audit.interval,
    )  # fmt: skip
    return dict(sorted(table.items(), key=lambda item: -item[1]["auc"].value))


def section(found: Mapping[str, Mapping[str, Finding]], settings: Settings) -> list[Section]:
    """The bootstrap table as a section; none where there is no table."""
    if not found:
        return []
    first = next(iter(found.values()))["auc"]
    draws = formats.count(settings.audit.draws)
    if np.isnan(first.low):
        caption = (
            f"As published: mean ± deviation over {draws} draws of {formats.count(first.n // 2)} texts of each kind "
            "with replacement; TPR at the corner of the curve whose FPR is nearest. ± is no interval."
        )
    else:
        caption = (
            f"[ ] {formats.rate(first.level)} interval over {draws} draws of as many texts of each kind with "
            "replacement; of this model: other models may differ."
        )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (name, *(row[column] for column in bootstrap.COLUMNS)) for name, row in found.items()
    )
    table = Table(
        "Scores over bootstrap draws", caption, ("score", *headers(bootstrap.COLUMNS)), rows, baselines=("random",)
    )
    findings = tuple(finding for row in found.values() for finding in row.values())
    text = "AUC, and the share of kept texts recognised where a tenth, or a hundredth, of the forgotten is called kept."
    return [Section("bootstrap", "How sure are these numbers?", text, table, None, findings)]


def assumed(has_verdicts: bool, signals: AuditSignals) -> tuple[str, ...]:
    """What verdicts on texts assume, to be read before them; nothing for other audits."""
    return (OUT_NOTE,) if has_verdicts and signals.kind == scores.TOKENS else ()


def provenance(signals: AuditSignals) -> dict[str, str]:
    """The choices of scores of texts, for the foot of the page."""
    chosen = signals.options.tokens
    spread = f"blocks of {chosen.block} texts" if chosen.block else "all texts"
    return {
        "IAM": f"{chosen.levels} levels, e1 {chosen.eps1:g}, e2 {chosen.eps2:g}, spread over {spread}",
        "tokens": f"Min-K {chosen.k:g} %, SURP {chosen.surp_k:g} % below {chosen.surp_entropy:g} nats",
        "RMIA": f"gamma {chosen.gamma:g}",
    }
