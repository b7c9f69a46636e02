"""Judging scores by the truth: metrics with intervals for every score, and what they gain over the plain confidence.

Arrays only: whoever trained the models, and however.
"""

from typing import NamedTuple

import numpy as np

from jaxunlearn.metrics.ranking import pooled
from jaxunlearn.records import Finding

PLAIN = ("confidence", "lm_loss")


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
      gains: other scores' AUC minus that of the plain score, as Findings (empty without it).
      plain: the score that looks at the audited model alone: `confidence`, of texts `lm_loss`.
    """

    scored: Scored
    table: dict[str, dict[str, Finding]]
    gains: dict[str, Finding]
    plain: str = PLAIN[0]


def judge(scored: Scored, confidence_level: float) -> Scoreboard:
    """Metrics with intervals for every score, and AUC gains over the plain confidence."""
    assert scored.truth is not None
    table = {
        name: pooled.table(values, scored.truth, confidence_level=confidence_level, of=name)
        for name, values in scored.values.items()
    }
    order = sorted(table, key=lambda name: -table[name]["auc"].value)
    gains = {}
    plain = next((name for name in PLAIN if name in scored.values), "")
    for name in order if plain else ():
        if name not in (plain, "random"):
            gains[name] = pooled.paired_auc(
                scored.values[name],
                scored.values[plain],
                scored.truth,
                confidence_level=confidence_level,
                of=name,
                against=plain,
            )
    return Scoreboard(scored, {name: table[name] for name in order}, gains, plain)


def warnings(scored: Scored) -> list[str]:
    """Returns sentences about scores that say nothing (constant), or twice the same."""
    said = []
    first: dict[bytes, str] = {}
    for name, values in scored.values.items():
        line = values[0, 0]
        if len(line) > 1 and np.ptp(line) == 0:
            said.append(f"score {name} is the same for every sample ({line[0]:.6g}); it cannot rank anything")
            continue
        same = first.setdefault(line.tobytes(), name)
        if same != name:
            said.append(f"scores {same} and {name} are identical on these samples")
    return said
