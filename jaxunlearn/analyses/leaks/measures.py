"""What the attack achieves: arrays in, numbers with intervals out.

Per repeat one attack per feature, trained on the shadow side and tried on the target side. Numbers are means over
repeats; the unit of every interval is a target record set (delete-one jackknife), because records of one set share
their models. Intervals hold for this attacker: what another draw of shadow models would change shows in the standard
deviation over repeats.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxunlearn.analyses.leaks.inputs import LeakInputs, Side
from jaxunlearn.attacks.leaks import defences, degradation, features
from jaxunlearn.metrics import roc
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.records import Finding

if TYPE_CHECKING:
    from jaxunlearn.attacks.leaks import classifiers

LEVEL_OF_TPR = 1e-2
BLOCKS = 100  # of records, where sets are not known
RANGES = {"auc": (0.0, 1.0), "accuracy": (0.0, 1.0), "tpr_at_fpr_1e-2": (0.0, 1.0), "deg_count": (0.0, 1.0),
          "deg_rate": (-1.0, 1.0), "gain": (-1.0, 1.0)}  # fmt: skip
STATISTICS = tuple(RANGES)


class FeatureMetrics(NamedTuple):
    """What one feature gives away.

    Attributes:
      name: of the feature.
      numbers: statistic -> Finding on target records; see `STATISTICS`. "gain" = AUC minus the classical AUC, paired.
      shadow_auc: mean AUC on the shadow records that the attack was trained on.
      score, probability: [N] of the target records in the given order; higher = deleted.
    """

    name: str
    metrics: dict[str, Finding]
    shadow_auc: float
    score: np.ndarray
    probability: np.ndarray


class Leaks(NamedTuple):
    """Everything that was measured.

    Attributes:
      features: name -> Measured, the classical attack last.
      distance: [N] l2 distance of the published pair of every target record.
      given: posteriors of both sides; inputs: what is published of them.
      attack, defence: as asked; level: of intervals.
      chosen: the feature that was chosen beforehand.
    """

    features: dict[str, FeatureMetrics]
    distance: np.ndarray
    given: LeakInputs
    inputs: LeakInputs
    attack: str
    defence: str
    confidence_level: float
    report_feature: str


def published(side: Side, defence: str, top_k: int, temperature: float) -> Side:
    """The side as an attacker sees it."""
    pair = [
        defences.publish(one, defence, top_k=top_k, temperature=temperature) for one in (side.original, side.unlearned)
    ]
    return side._replace(original=pair[0], unlearned=pair[1])


def attack(
    given: LeakInputs, names: tuple[str, ...], kind: str, seed: int, faithful: bool
) -> tuple[dict[str, "classifiers.Answers"], dict[str, float]]:
    """Attacks every repeat by itself.

    Returns:
      (feature -> answers on all target records, feature -> mean AUC on the shadow records). Features that the attack
      does not know are left out.
    """
    from jaxunlearn.attacks.leaks import classifiers  # trains populations: arrays of other analyses need none of it

    repeats = np.unique(given.target.repeat)
    answers: dict[str, classifiers.Answers] = {}
    fitted: dict[str, list[float]] = {}
    for number in repeats:
        masks = [side.repeat == number for side in (given.shadow, given.target)]
        tables = [
            {name: features.compute(side.original[mask], side.unlearned[mask], name) for name in names}
            for side, mask in zip((given.shadow, given.target), masks, strict=True)
        ]
        deleted = given.shadow.deleted[masks[0]]
        found = classifiers.run(kind, tables[0], deleted, tables[1], seed=seed + int(number), faithful=faithful)
        for name, one in found.items():
            blank = np.full(len(masks[1]), np.nan)
            whole = answers.setdefault(name, classifiers.Answers(blank, blank.copy()))
            whole.score[masks[1]], whole.probability[masks[1]] = one.target
            fitted.setdefault(name, []).append(roc.auc(one.shadow.score, deleted))
    return answers, {name: float(np.mean(values)) for name, values in fitted.items()}


def measure_features(
    answers: Mapping[str, "classifiers.Answers"], side: Side, confidence_level: float
) -> dict[str, dict[str, Finding]]:
    """Numbers of every feature against the classical attack.

    Args:
      answers: feature -> on the target records; must hold the classical attack.
      side: the target side.
      confidence_level: of the intervals.

    Returns:
      feature -> statistic -> Finding; NaN intervals with a single unit.
    """
    unit = _blocks(side) if side.unit is None else side.unit
    units = np.unique(unit)
    everything = np.ones(len(unit), bool)
    whole = _statistics(answers, side, everything)
    without = [_statistics(answers, side, unit != one) for one in units] if len(units) > 1 else []
    repeats = np.unique(side.repeat)
    apart = [_statistics(answers, side, side.repeat == one) for one in repeats]
    what = "records" if side.unit is None else "record sets"
    found: dict[str, dict[str, Finding]] = {}
    for place, name in enumerate(answers):
        found[name] = {}
        for column, statistic in enumerate(STATISTICS):
            value = float(whole[place, column])
            own = intervals.jackknife_within(
                value, np.asarray([one[place, column] for one in without]), confidence_level, RANGES[statistic]
            )
            found[name][statistic] = Finding(
                value, own.low, own.high, intervals.std(np.asarray([one[place, column] for one in apart])),
                metric=statistic, n=len(units), confidence_level=confidence_level, of=name, against=features.CLASSICAL,
                method=f"delete-one jackknife over {len(units)} {what}",
            )  # fmt: skip
    return found


def _blocks(side: Side) -> np.ndarray:
    """[N] at most 100 blocks of records that take turns, of both kinds alike."""
    unit = np.zeros(len(side.deleted), np.int64)
    for kind in (side.deleted, ~side.deleted):
        unit[kind] = np.arange(kind.sum()) % BLOCKS
    return unit


def _statistics(answers: Mapping[str, "classifiers.Answers"], side: Side, kept: np.ndarray) -> np.ndarray:
    """[features, statistics] means over repeats, of the kept records; NaN where a kind is missing."""
    tables = []
    for number in np.unique(side.repeat[kept]):
        mask = kept & (side.repeat == number)
        truth = side.deleted[mask]
        if truth.all() or not truth.any():
            return np.full((len(answers), len(STATISTICS)), np.nan)
        classical = answers[features.CLASSICAL]
        base = roc.auc(classical.score[mask], truth)
        rows = []
        for one in answers.values():
            score, probability = one.score[mask], one.probability[mask]
            gains = degradation.gains(probability, classical.probability[mask], truth)
            area = roc.auc(score, truth)
            rows.append([
                area, np.mean((probability > 0.5) == truth), roc.tpr_at_fpr(score, truth, LEVEL_OF_TPR),
                degradation.count(gains), degradation.rate(gains), area - base,
            ])  # fmt: skip
        tables.append(rows)
    return np.mean(np.asarray(tables, np.float64), axis=0)
