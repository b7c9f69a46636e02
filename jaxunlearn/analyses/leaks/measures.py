"""Metrics of the attack: arrays in, numbers with intervals out.

Per repeat one attack per feature, trained on the shadow side and tested on the target side. Metrics are means over
repeats; the unit of every interval is a target record set (delete-one jackknife), because records of one set share
their models. Intervals hold for this attacker: the standard deviation over repeats shows the effect of other shadow
models.
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
BLOCKS = 100  # of records, if sets are not known
RANGES = {"auc": (0.0, 1.0), "accuracy": (0.0, 1.0), "tpr_at_fpr_1e-2": (0.0, 1.0), "deg_count": (0.0, 1.0),
          "deg_rate": (-1.0, 1.0), "gain": (-1.0, 1.0)}  # fmt: skip
STATISTICS = tuple(RANGES)


class FeatureMetrics(NamedTuple):
    """Metrics of one feature.

    Attributes:
      name: of the feature.
      metrics: statistic -> Finding on target records; see `STATISTICS`. "gain" = AUC minus the classical AUC, paired.
      shadow_auc: mean AUC on the shadow records that the attack was trained on.
      score, probability: [N] of the target records in the given order; higher = deleted.
    """

    name: str
    metrics: dict[str, Finding]
    shadow_auc: float
    score: np.ndarray
    probability: np.ndarray


class Leaks(NamedTuple):
    """Results of Unlearning-Leaks.

    Attributes:
      features: name -> metrics, the classical attack last.
      distance: [N] l2 distance of the published pair of every target record.
      posteriors: of both sides; published: the same behind the defence.
      attack, defence: names from the settings; confidence_level: of intervals.
      report_feature: the feature fixed in advance.
    """

    features: dict[str, FeatureMetrics]
    distance: np.ndarray
    posteriors: LeakInputs
    published: LeakInputs
    attack: str
    defence: str
    confidence_level: float
    report_feature: str


def published(side: Side, defence: str, top_k: int, temperature: float) -> Side:
    """Returns the side as an attacker sees it.

    Args:
      side: raw posteriors.
      defence: name of the defence.
      top_k: number of published entries.
      temperature: of the softmax.
    """
    defended = [
        defences.publish(posteriors, defence, top_k=top_k, temperature=temperature)
        for posteriors in (side.original, side.unlearned)
    ]
    return side._replace(original=defended[0], unlearned=defended[1])


def attack(
    leak_inputs: LeakInputs, names: tuple[str, ...], kind: str, seed: int, faithful: bool
) -> tuple[dict[str, "classifiers.Answers"], dict[str, float]]:
    """Attacks every repeat separately.

    Args:
      leak_inputs: both sides.
      names: features.
      kind: of attack.
      seed: of the attack classifiers; repeat i uses seed + i.
      faithful: with the published quirks.

    Returns:
      (feature -> answers on all target records, feature -> mean AUC on the shadow records). Features that the attack
      does not support are left out.
    """
    from jaxunlearn.attacks.leaks import classifiers  # trains populations: arrays of other analyses need none of it

    repeats = np.unique(leak_inputs.target.repeat)
    answers: dict[str, classifiers.Answers] = {}
    shadow_aucs: dict[str, list[float]] = {}
    for repeat in repeats:
        masks = [side.repeat == repeat for side in (leak_inputs.shadow, leak_inputs.target)]
        tables = [
            {name: features.compute(side.original[mask], side.unlearned[mask], name) for name in names}
            for side, mask in zip((leak_inputs.shadow, leak_inputs.target), masks, strict=True)
        ]
        deleted = leak_inputs.shadow.deleted[masks[0]]
        results = classifiers.run(kind, tables[0], deleted, tables[1], seed=seed + int(repeat), faithful=faithful)
        for name, result in results.items():
            missing = np.full(len(masks[1]), np.nan)
            all_answers = answers.setdefault(name, classifiers.Answers(missing, missing.copy()))
            all_answers.score[masks[1]], all_answers.probability[masks[1]] = result.target
            shadow_aucs.setdefault(name, []).append(roc.auc(result.shadow.score, deleted))
    return answers, {name: float(np.mean(values)) for name, values in shadow_aucs.items()}


def measure_features(
    answers: Mapping[str, "classifiers.Answers"], side: Side, confidence_level: float
) -> dict[str, dict[str, Finding]]:
    """Compares every feature with the classical attack.

    Args:
      answers: feature -> answers on the target records; must contain the classical attack.
      side: the target side.
      confidence_level: of the intervals.

    Returns:
      feature -> statistic -> Finding; NaN intervals with a single unit.
    """
    unit = _blocks(side) if side.unit is None else side.unit
    units = np.unique(unit)
    estimates = _statistics(answers, side, np.ones(len(unit), bool))
    jackknifed = [_statistics(answers, side, unit != left_out) for left_out in units] if len(units) > 1 else []
    by_repeat = [_statistics(answers, side, side.repeat == repeat) for repeat in np.unique(side.repeat)]
    noun = "records" if side.unit is None else "record sets"
    metrics: dict[str, dict[str, Finding]] = {}
    for row, name in enumerate(answers):
        metrics[name] = {}
        for column, statistic in enumerate(STATISTICS):
            value = float(estimates[row, column])
            interval = intervals.jackknife_within(
                value, np.asarray([table[row, column] for table in jackknifed]), confidence_level, RANGES[statistic]
            )
            std = intervals.std(np.asarray([table[row, column] for table in by_repeat]))
            metrics[name][statistic] = Finding(
                value, interval.low, interval.high, std, metric=statistic, n=len(units),
                confidence_level=confidence_level, of=name, against=features.CLASSICAL,
                method=f"delete-one jackknife over {len(units)} {noun}",
            )  # fmt: skip
    return metrics


def _blocks(side: Side) -> np.ndarray:
    """Assigns the records of each kind to at most 100 blocks in turn: [N]."""
    unit = np.zeros(len(side.deleted), np.int64)
    for kind in (side.deleted, ~side.deleted):
        unit[kind] = np.arange(kind.sum()) % BLOCKS
    return unit


def _statistics(answers: Mapping[str, "classifiers.Answers"], side: Side, is_kept: np.ndarray) -> np.ndarray:
    """Computes [features, statistics] means over repeats on the kept records; NaN if a kind is missing."""
    tables = []
    for repeat in np.unique(side.repeat[is_kept]):
        mask = is_kept & (side.repeat == repeat)
        truth = side.deleted[mask]
        if truth.all() or not truth.any():
            return np.full((len(answers), len(STATISTICS)), np.nan)
        classical = answers[features.CLASSICAL]
        base = roc.auc(classical.score[mask], truth)
        rows = []
        for feature_answers in answers.values():
            score, probability = feature_answers.score[mask], feature_answers.probability[mask]
            gains = degradation.gains(probability, classical.probability[mask], truth)
            area = roc.auc(score, truth)
            rows.append([
                area, np.mean((probability > 0.5) == truth), roc.tpr_at_fpr(score, truth, LEVEL_OF_TPR),
                degradation.count(gains), degradation.rate(gains), area - base,
            ])  # fmt: skip
        tables.append(rows)
    return np.mean(np.asarray(tables, np.float64), axis=0)
