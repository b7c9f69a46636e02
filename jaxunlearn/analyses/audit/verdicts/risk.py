"""Says what one flagged row means: of rows that a single test flags, how many are right, by what was known before."""

import math

import numpy as np

from jaxunlearn.analyses.audit.evidence.signals import ORIGINAL, RETRAINED
from jaxunlearn.analyses.audit.verdicts.requests import RoleVerdicts
from jaxunlearn.metrics.inference import decision, intervals
from jaxunlearn.records import Finding
from jaxunlearn.report.cells import Table
from jaxunlearn.report.section import Section

PRIORS = (0.01, 0.1, 0.5)


def section(decided: dict[str, RoleVerdicts], fdr: float) -> Section | None:
    """Returns the positive predictive value of the flag p (never seen) <= level; None without the original.

    The threshold is a rank among rows that no model saw, so no answer of the audited model to a requested row sets it.
    Rows of the original were all trained on: the share flagged is the true positive rate. The false positive rate is
    the share flagged of exact retrains where they are there, else the level, which the rank test keeps.

    Args:
      decided: role -> verdicts.
      fdr: of the flag.
    """
    if ORIGINAL not in decided or any(one.checks.refused for one in decided[ORIGINAL].judgements):
        return None
    caught = _share(decided[ORIGINAL], fdr)
    has_retrained = RETRAINED in decided
    false = _share(decided[RETRAINED], fdr) if has_retrained else intervals.Interval(fdr, fdr, fdr)
    if caught.value == 0:
        return Section(
            "risk", "What does it mean if a single row is flagged?",
            "Nothing can be said: on the original model, which saw every row, no row has a p-value of at most "
            f"{fdr:g}.",
        )  # fmt: skip
    found = [_finding(caught, false, prior) for prior in PRIORS]
    first = found[0]
    at_least = "at least " if false.value == 0 else ""
    value = first.low if false.value == 0 else first.value
    source = "on exact retrains" if has_retrained else "by the level of the test"
    text = (
        f"A row is flagged if its p-value (never seen) is at most {fdr:g}, before any control for many rows. That "
        f"flags {100 * caught.value:.1f} % of rows that are in the model (the original) and "
        f"{100 * false.value:.1f} % of rows that are not ({source}). Of 100 rows so flagged, {at_least}"
        f"{math.floor(100 * value):d} would be right if 1 % of the rows asked about were still in the model. The "
        "verdicts above are stricter: they control the share of wrong ones among all requested rows."
    )
    table = Table(
        "Share of flagged rows that are right", "95 % intervals from both rates (Clopper-Pearson).",
        ("still in the model beforehand", "share of flagged rows that are right"),
        tuple((f"{100 * prior:g} %", one) for prior, one in zip(PRIORS, found, strict=True)),
    )  # fmt: skip
    return Section("risk", "What does it mean if a single row is flagged?", text, table, None, tuple(found))


def _share(found: RoleVerdicts, fdr: float) -> intervals.Interval:
    p_high = found.tested("p_high")[found.requested]
    return intervals.clopper_pearson(float((p_high <= fdr).sum()), float(len(p_high)))


def _finding(caught: intervals.Interval, false: intervals.Interval, prior: float) -> Finding:
    value, low, high = (
        float(decision.positive_predictive_value(np.array(true), np.array(wrong), prior))
        for true, wrong in ((caught.value, false.value), (caught.low, false.high), (caught.high, false.low))
    )
    return Finding(value, low, high, metric="PPV", of="original", against=f"prior {prior:g}", method="Clopper-Pearson")
