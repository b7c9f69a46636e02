"""Over- and under-unlearning by class: membership left in forgotten classes, and lost in retained ones.

    mean over forgotten samples above exact retraining    -> under-unlearning
    mean or lowest tenth over retained samples below it   -> over-unlearning

One row per audited role and class, and one for all classes together; a row of constant 0.5 ("random") for comparison.
Every number is the mean over the groups of shadow models. Source: IAM, section on over- and under-unlearning (Table 8);
the published table shows its last shadow model only.
"""

from typing import NamedTuple

import jax
import numpy as np

from jaxunlearn import errors
from jaxunlearn.analyses.audit.evidence import signals as audit_signals
from jaxunlearn.analyses.audit.evidence.signals import AuditInputs
from jaxunlearn.analyses.audit.scoring import binui
from jaxunlearn.analyses.base import Context
from jaxunlearn.metrics.ranking import classes
from jaxunlearn.settings import CLASS_KINDS, Settings

SCORE = "iam_on"


class ClassReport(NamedTuple):
    """Results of the class report.

    Attributes:
      roles: role -> rows per forget set and pooled, means over groups; `original` (nothing forgotten), `random` last.
      groups: number of groups of shadow models.
      gaps: role -> difference between its pooled row and that of exact retraining (empty without it).
      names: [R] the name of each forget set (that of its class).
    """

    roles: dict[str, classes.ClassMetrics]
    groups: int
    gaps: dict[str, classes.Gap]
    names: list[str]


def check(settings: Settings) -> None:
    """Raises a ConfigError unless the forget sets are classes."""
    kind = settings.split.forget.kind
    if kind not in CLASS_KINDS:
        raise errors.ConfigError(
            f"audit.protocol = 'class_report' needs forget sets that are classes, but split.forget.kind is {kind!r}. "
            "Set --config.split.forget.kind=one_class, .classes=0,1,2 and .count=3."
        )


def run(signals: AuditInputs, settings: Settings, context: Context) -> ClassReport:
    """Computes the report on all audited roles from IAM-On memberships, mean over groups of shadow models."""
    assert signals.forgotten is not None
    groups, truth = audit_signals.groups(signals, settings), ~signals.forgotten
    role_names = [role for role in (*signals.audited, "retrained", "original") if role in signals.roles]
    scored = {
        role: binui.score_all(signals, [SCORE], groups, role, context)[SCORE] for role in dict.fromkeys(role_names)
    }
    scored["random"] = np.full((1, *truth.shape), 0.5, np.float32)
    roles = {
        role: _mean([classes.report(memberships, truth) for memberships in by_group])
        for role, by_group in scored.items()
    }
    exact = roles.get("retrained")
    gaps = {}
    if exact:
        gaps = {role: classes.against_retrained(report.pooled, exact.pooled) for role, report in roles.items()}
    return ClassReport(roles, len(groups), gaps, list(signals.set_names))


def _mean(reports: list[classes.ClassMetrics]) -> classes.ClassMetrics:
    """Averages every number over reports."""
    return jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *reports)
