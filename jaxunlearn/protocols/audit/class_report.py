"""Over- and under-unlearning by class: how much membership is left in forgotten classes, how much is lost in kept ones?

    mean over forgotten samples above exact retraining    -> under-unlearning
    mean or lowest tenth over retained samples below it   -> over-unlearning

One row per audited role and class, and one for all classes together; a row of constant 0.5 ("random") for comparison.
Every number is the mean over the groups of shadow models. Source: IAM, section on over- and under-unlearning (Table 8);
the published table shows its last shadow model only.
"""

from typing import NamedTuple

import jax
import numpy as np

from jaxunlearn import errors, progress
from jaxunlearn.data.forget import CLASS_KINDS
from jaxunlearn.metrics import classes
from jaxunlearn.protocols.audit import bank as banks
from jaxunlearn.protocols.audit import binui
from jaxunlearn.settings import Settings

SCORE = "iam_on"


class Report(NamedTuple):
    """What the class report found.

    Attributes:
      roles: role -> rows per forget set and pooled, means over groups; `original` (nothing forgotten), `random` last.
      groups: how many groups of shadow models.
      gaps: role -> difference of its pooled row to exact retraining's (empty without that).
      names: [R] what each forget set is (the class's name).
    """

    roles: dict[str, classes.Report]
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


def run(bank: banks.Bank, settings: Settings, class_names: tuple[str, ...], reporter: progress.Reporter) -> Report:
    """The report over all audited roles, from IAM-On memberships, mean over groups of shadow models."""
    forget = settings.split.forget
    chosen = banks.groups(settings, len(bank.shadow.target.log_odds))
    truth = ~bank.forgotten
    scored = {
        role: binui.score_all(bank, [SCORE], chosen, role, reporter)[SCORE] for role in (*bank.audited, "original")
    }
    scored["random"] = np.full((1, *truth.shape), 0.5, np.float32)
    roles = {role: _mean([classes.report(one, truth) for one in values]) for role, values in scored.items()}
    exact = roles.get("retrained")
    gaps = {role: classes.against_retrained(one.pooled, exact.pooled) for role, one in roles.items()} if exact else {}
    numbers = [forget.classes[number % len(forget.classes)] for number in range(len(truth))]
    names = [class_names[number] if class_names else f"class {number}" for number in numbers]
    return Report(roles, len(chosen), gaps, names)


def _mean(reports: list[classes.Report]) -> classes.Report:
    """Every number's mean over reports."""
    return jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *reports)
