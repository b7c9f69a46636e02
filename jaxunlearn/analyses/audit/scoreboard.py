"""Judging scores by the truth: metrics with intervals for every score, and what they gain over the plain confidence.

Arrays only: whoever trained the models, and however.
"""

from typing import NamedTuple

import numpy as np

from jaxunlearn.metrics import pooled
from jaxunlearn.records import Finding


class Scored(NamedTuple):
    """All scores of one audited role.

    Attributes:
      values: name -> [G, R, N] membership scores.
      truth: [R, N] bool, True = retained; None where it is not known.
      skipped: name -> why.
    """

    values: dict[str, np.ndarray]
    truth: np.ndarray | None
    skipped: dict[str, str]


class Scoreboard(NamedTuple):
    """What BinUI found of one role.

    Attributes:
      scored: the scores themselves.
      table: score -> metric -> Finding, best AUC first.
      gains: other scores' AUC minus that of `confidence`, as Findings (empty without `confidence`).
    """

    scored: Scored
    table: dict[str, dict[str, Finding]]
    gains: dict[str, Finding]


def judge(scored: Scored, level: float) -> Scoreboard:
    """Metrics with intervals for every score, and AUC gains over the plain confidence."""
    assert scored.truth is not None
    table = {name: pooled.table(values, scored.truth, level=level, of=name) for name, values in scored.values.items()}
    order = sorted(table, key=lambda name: -table[name]["auc"].value)
    gains = {}
    if "confidence" in scored.values:
        plain = scored.values["confidence"]
        for name in order:
            if name not in ("confidence", "random"):
                gains[name] = pooled.paired_auc(
                    scored.values[name], plain, scored.truth, level=level, of=name, against="confidence"
                )
    return Scoreboard(scored, {name: table[name] for name in order}, gains)
