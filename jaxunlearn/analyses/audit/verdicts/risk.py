"""Positive predictive value of flagged rows: the share of them that are right, by prior probability."""

import math

import numpy as np

from jaxunlearn.analyses.audit.evidence.signals import ORIGINAL, RETRAINED
from jaxunlearn.analyses.audit.verdicts.requests import RoleVerdicts
from jaxunlearn.metrics.inference import decision, intervals
from jaxunlearn.records import Finding
from jaxunlearn.report.cells import Table
from jaxunlearn.report.section import Section

PRIORS = (0.01, 0.1, 0.5)


def section(role_verdicts: dict[str, RoleVerdicts], fdr: float) -> Section | None:
    """Returns the positive predictive value of the flag p (never seen) <= fdr; None without the original.

    The threshold is a rank among rows that no model saw, so no answer of the audited model to a requested row sets it.
    The original was trained on all requested rows: the share flagged there is the true positive rate. The false
    positive rate is the share flagged on exact retrains if there are any, else `fdr`, which the rank test guarantees.

    Args:
      role_verdicts: role -> verdicts.
      fdr: threshold of the flag.
    """
    if ORIGINAL not in role_verdicts or any(
        judgement.checks.refusal for judgement in role_verdicts[ORIGINAL].judgements
    ):
        return None
    true_positive_rate = _share(role_verdicts[ORIGINAL], fdr)
    has_retrained = RETRAINED in role_verdicts
    false_positive_rate = _share(role_verdicts[RETRAINED], fdr) if has_retrained else intervals.Interval(fdr, fdr, fdr)
    if true_positive_rate.value == 0:
        return Section(
            "risk", "What does it mean if a single row is flagged?",
            "Nothing can be said: on the original model, which saw every row, no row has a p-value of at most "
            f"{fdr:g}.",
        )  # fmt: skip
    findings = [_finding(true_positive_rate, false_positive_rate, prior) for prior in PRIORS]
    rarest = findings[0]
    qualifier = "at least " if false_positive_rate.value == 0 else ""
    value = rarest.low if false_positive_rate.value == 0 else rarest.value
    source = "on exact retrains" if has_retrained else "by the level of the test"
    text = (
        f"A row is flagged if its p-value (never seen) is at most {fdr:g}, before any control for many rows. That "
        f"flags {100 * true_positive_rate.value:.1f} % of rows that are in the model (the original) and "
        f"{100 * false_positive_rate.value:.1f} % of rows that are not ({source}). Of 100 flagged rows, {qualifier}"
        f"{math.floor(100 * value):d} would be right if 1 % of the requested rows were still in the model. The "
        "verdicts above are stricter: they control the share of wrong ones among all requested rows."
    )
    table = Table(
        "Share of flagged rows that are right", "95 % intervals from both rates (Clopper-Pearson).",
        ("still in the model beforehand", "share of flagged rows that are right"),
        tuple((f"{100 * prior:g} %", finding) for prior, finding in zip(PRIORS, findings, strict=True)),
    )  # fmt: skip
    return Section("risk", "What does it mean if a single row is flagged?", text, table, None, tuple(findings))


def _share(verdicts: RoleVerdicts, fdr: float) -> intervals.Interval:
    p_high = verdicts.tested("p_high")[verdicts.requested]
    return intervals.clopper_pearson(float((p_high <= fdr).sum()), float(len(p_high)))


def _finding(true_positive_rate: intervals.Interval, false_positive_rate: intervals.Interval, prior: float) -> Finding:
    value, low, high = (
        float(decision.positive_predictive_value(np.array(true_positive), np.array(false_positive), prior))
        for true_positive, false_positive in (
            (true_positive_rate.value, false_positive_rate.value),
            (true_positive_rate.low, false_positive_rate.high),
            (true_positive_rate.high, false_positive_rate.low),
        )
    )
    return Finding(value, low, high, metric="PPV", of="original", against=f"prior {prior:g}", method="Clopper-Pearson")
