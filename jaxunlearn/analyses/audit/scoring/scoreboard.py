"""Scores against the truth: metrics with intervals for every score, and their gain over the plain confidence.

Arrays only; where the models come from does not matter.
"""

from typing import NamedTuple

import numpy as np

from jaxunlearn.metrics.ranking import pooled
from jaxunlearn.records import Finding

PLAIN = ("confidence", "lm_loss")


class RoleScores(NamedTuple):
    """All scores of one audited role.

    Attributes:
      values: name -> [G, R, N] membership scores.
      truth: [R, N] bool, True = retained; None where it is not known.
      skipped: name -> reason.
    """

    values: dict[str, np.ndarray]
    truth: np.ndarray | None
    skipped: dict[str, str]


class Scoreboard(NamedTuple):
    """Results of BinUI for one role.

    Attributes:
      scored: the scores themselves.
      table: score -> metric -> Finding, best AUC first.
      gains: other scores' AUC minus that of the plain score, as Findings (empty without it).
      plain: the score that reads the audited model alone: `confidence`, of texts `lm_loss`.
    """

    scored: RoleScores
    table: dict[str, dict[str, Finding]]
    gains: dict[str, Finding]
    plain: str = PLAIN[0]


def judge(scored: RoleScores, confidence_level: float) -> Scoreboard:
    """Computes metrics with intervals for every score, and AUC gains over the plain confidence."""
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


def warnings(scored: RoleScores) -> list[str]:
    """Returns sentences about constant and about identical scores."""
    sentences = []
    first_name: dict[bytes, str] = {}
    for name, values in scored.values.items():
        sample_scores = values[0, 0]
        if len(sample_scores) > 1 and np.ptp(sample_scores) == 0:
            sentences.append(
                f"score {name} is the same for every sample ({sample_scores[0]:.6g}); it cannot rank anything"
            )
            continue
        earlier = first_name.setdefault(sample_scores.tobytes(), name)
        if earlier != name:
            sentences.append(f"scores {earlier} and {name} are identical on these samples")
    return sentences
