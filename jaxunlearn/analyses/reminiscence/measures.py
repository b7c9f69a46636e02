"""Metrics of the attack: trials in, numbers with intervals out.

Every decision (learning rate, threshold, direction) about a forget set's model is fitted on the trials of the OTHER
forget sets' models, which an attacker can train as shadows. Only the metric called published is fitted on the trials
that it is reported for. The unit of every interval is a forget set (delete-one jackknife): trials of one set share
their model.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxunlearn.analyses.reminiscence.inputs import Membership, Recovery, RoleTrials, TrialResults
from jaxunlearn.attacks import relearning
from jaxunlearn.metrics import roc
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.records import Finding

LEVEL_OF_TPR = 0.05
RANGES: dict[str, tuple[float, float]] = {
    "rea_accuracy": (0.0, 1.0), "auc": (0.0, 1.0), "tpr_at_fpr_5e-2": (0.0, 1.0), "rea_published": (0.0, 1.0),
    "steps_forgotten": (0.0, np.inf), "steps_unseen": (0.0, np.inf), "rea_excess": (0.0, 1.0),
}  # fmt: skip
STATISTICS = tuple(RANGES)[:-1]
LEAST_SPREAD = 0.5  # smallest standard deviation in steps, where all trials of unseen classes end at the same step


class Curve(NamedTuple):
    """Mean accuracy [S] of probes by step, at the most frequently selected rate."""

    rate: float
    forgotten: np.ndarray
    unseen: np.ndarray


class Attack(NamedTuple):
    """Metrics of one role.

    Attributes:
      metrics: statistic -> Finding; "rea_excess" only with a control: AUC of the trials of the forgotten class against
        the same trials on the control's model of the same forget set, 0.5 = relearned no sooner than there.
      scores: [T] of all trials, higher = relearned sooner; whole_step_scores: [T] the same in whole steps, with ties.
      is_called_forgotten: [T] bool, at the selected rate; False elsewhere. is_judged: [T] bool, trials at that rate.
      rates: forget set -> selected learning rate.
      excess: [R] AUC against the control by forget set, for paired comparisons; empty without a control.
      curve: of the figure; trials: number of (forgotten, unseen) trials at one rate.
      recovery: relearning on retained rows alone, or None.
      membership: sample-wise, before and after -> AUC; may be empty.
    """

    metrics: dict[str, Finding]
    scores: np.ndarray
    whole_step_scores: np.ndarray
    is_called_forgotten: np.ndarray
    is_judged: np.ndarray
    rates: Mapping[int, float]
    curve: Curve | None
    trials: tuple[int, int]
    recovery: Recovery | None = None
    membership: Mapping[str, Finding] = {}
    excess: np.ndarray = np.zeros(0)


class TrialDecisions(NamedTuple):
    """Statistics per forget set [R, statistics], decisions per trial [T], and the selected rates [R]."""

    table: np.ndarray
    is_called_forgotten: np.ndarray
    is_judged: np.ndarray
    rates: np.ndarray


def score(trials: TrialResults, threshold: float, break_ties: bool) -> np.ndarray:
    """Scores trials: minus their number of steps, standardised by the unseen classes on the same model, [T].

    Some models learn everything sooner than others; without this a threshold would not transfer between models.
    """
    raw = relearning.scores(trials.accuracy, threshold, break_ties=break_ties)
    scores = np.empty(len(raw))
    for unit in np.unique(trials.unit):
        for rate in np.unique(trials.rate):
            mask = (trials.unit == unit) & (trials.rate == rate)
            unseen = raw[mask & ~trials.forgotten]
            scores[mask] = (raw[mask] - unseen.mean()) / max(float(unseen.std()), LEAST_SPREAD)
    return scores


def judge(
    trials: TrialResults, scores: np.ndarray, steps: np.ndarray, units: np.ndarray, first_rate: float
) -> TrialDecisions:
    """Judges the models of some forget sets, each by a decision fitted on the others.

    Args:
      trials: of one role.
      scores: [T] of them.
      steps: [T] at which probes were learned.
      units: [R] forget sets to judge.
      first_rate: learning rate of ranking metrics if a single set leaves nothing to fit a decision on.
    """
    rates = np.unique(trials.rate)
    table = np.full((len(units), len(STATISTICS)), np.nan)
    is_called_forgotten, is_judged = np.zeros(len(scores), bool), np.zeros(len(scores), bool)
    decided_rates = np.full(len(units), np.nan)
    for index, unit in enumerate(units):
        is_own, shadows = trials.unit == unit, np.isin(trials.unit, units) & (trials.unit != unit)
        decided_rates[index] = rate = first_rate
        accuracy = np.nan
        if shadows.any():
            by_rate = {float(rate_value): shadows & (trials.rate == rate_value) for rate_value in rates}
            decision = relearning.choose(
                {rate_value: scores[mask] for rate_value, mask in by_rate.items()},
                {rate_value: trials.forgotten[mask] for rate_value, mask in by_rate.items()},
            )
            decided_rates[index] = rate = decision.learning_rate
            mask = is_own & np.isclose(trials.rate, rate)
            accuracy = relearning.judge(decision, scores[mask], trials.forgotten[mask]).balanced_accuracy
            is_called_forgotten[mask], is_judged[mask] = relearning.decide(decision, scores[mask]), True
        mask = is_own & np.isclose(trials.rate, rate)
        truth = trials.forgotten[mask]
        published = max(
            roc.balanced_accuracy(
                scores[is_own & (trials.rate == rate_value)], trials.forgotten[is_own & (trials.rate == rate_value)]
            )
            for rate_value in rates
        )
        table[index] = (
            accuracy, roc.auc(scores[mask], truth), roc.tpr_at_fpr(scores[mask], truth, LEVEL_OF_TPR), published,
            np.median(steps[mask][truth]), np.median(steps[mask][~truth]),
        )  # fmt: skip
    return TrialDecisions(table, is_called_forgotten, is_judged, decided_rates)


def attack(
    attacked: RoleTrials, of: str, *, threshold: float, break_ties: bool, first_rate: float, confidence_level: float
) -> Attack:  # fmt: skip
    """Computes the metrics of one role with intervals over forget sets.

    Args:
      attacked: trials, recovery and membership.
      of: its title.
      threshold: accuracy at which probes count as learned.
      break_ties: whether mean accuracies decide between trials of the same step.
      first_rate: see `judge`.
      confidence_level: of the intervals.
    """
    membership_metrics = {} if attacked.membership is None else membership(attacked.membership, of, confidence_level)
    trials = attacked.trials
    if trials is None:
        empty = np.zeros(0, bool)
        return Attack(
            {}, np.zeros(0), np.zeros(0), empty, empty, {}, None, (0, 0), attacked.recovery, membership_metrics
        )
    scores = score(trials, threshold, break_ties)
    steps = relearning.first_steps(trials.accuracy, threshold)
    units = np.unique(trials.unit)
    first_rate = float(trials.rate[np.abs(trials.rate - first_rate).argmin()])
    judged = judge(trials, scores, steps, units, first_rate)
    # The jackknife fails for medians over sets; steps are summarised by the mean over sets of medians.
    means = [judged.table.mean(0)]
    if len(units) > 1:
        means += [judge(trials, scores, steps, units[units != unit], first_rate).table.mean(0) for unit in units]
    stacked = np.asarray(means)
    metrics = {
        name: _finding(name, stacked[:, column], of, confidence_level, len(units))
        for column, name in enumerate(STATISTICS)
    }
    values, counts = np.unique(judged.rates, return_counts=True)
    rate = float(values[counts.argmax()])
    is_at_rate = np.isclose(trials.rate, rate)
    curve = Curve(
        rate,
        trials.accuracy[is_at_rate & trials.forgotten].mean(0),
        trials.accuracy[is_at_rate & ~trials.forgotten].mean(0),
    )
    per_rate = len(np.unique(trials.rate))
    num_trials = int(trials.forgotten.sum()) // per_rate, int((~trials.forgotten).sum()) // per_rate
    rates_of_sets = {int(unit): float(value) for unit, value in zip(units, judged.rates, strict=True)}
    whole_step_scores = score(trials, threshold, break_ties=False)
    return Attack(
        metrics,
        scores,
        whole_step_scores,
        judged.is_called_forgotten,
        judged.is_judged,
        rates_of_sets,
        curve,
        num_trials,
        attacked.recovery,
        membership_metrics,
    )


def against(
    model_attack: Attack, trials: TrialResults, control: Attack, reference: TrialResults, units: np.ndarray
) -> np.ndarray:
    """Computes [R] AUC of relearning sooner than models that never saw the forgotten class; 0.5 = no sooner.

    Both are compared per forget set on the same class and probes, each standardised by the unseen classes on the same
    model, so that neither an easy class nor a fast model counts. Whole steps are used: if no model learns anything,
    none is sooner. At the rate selected for the set; NaN for a set without a model on one side.

    Args:
      model_attack: metrics of the models under attack.
      trials: of the models under attack.
      control: metrics of the retrained models.
      reference: trials of the retrained models.
      units: [R] forget sets, the same for all roles, so that any two can be compared in pairs.
    """
    sides = ((trials, model_attack.whole_step_scores), (reference, control.whole_step_scores))
    values = np.full(len(units), np.nan)
    for index, unit in enumerate(units):
        rate = model_attack.rates.get(int(unit), float("nan"))
        side_scores = [
            scores[side_trials.forgotten & (side_trials.unit == unit) & np.isclose(side_trials.rate, rate)]
            for side_trials, scores in sides
        ]
        if len(side_scores[0]) and len(side_scores[1]):
            truth = np.arange(len(side_scores[0]) + len(side_scores[1])) < len(side_scores[0])
            values[index] = roc.auc(np.concatenate(side_scores), truth)
    return values


def least_sets(confidence_level: float) -> int:
    """Returns the smallest number of forget sets that can decide a comparison with the control.

    A model as good as the control is above it in all of R sets with probability 2**-R. If a class suits one model
    better than another by chance, the AUCs of a set are close to 0 or 1, and a few that agree have almost no variance:
    with fewer sets an interval by Student's t would exclude 0.5 several times too often.
    """
    return 1 + math.ceil(-math.log2(1 - confidence_level) - 1e-9)


def excess(values: np.ndarray, confidence_level: float, of: str, control: str) -> Finding:
    """Averages the result of `against` over forget sets; the interval is NaN with fewer than `least_sets`.

    Args:
      values: [R] AUC per forget set; NaN is left out.
      confidence_level: of the interval.
      of: title of the role.
      control: title of the control.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.analyses.reminiscence import measures
      >>> finding = measures.excess(np.array([0.9, 0.8, 1.0, 0.9, 0.9, 0.9]), 0.95, "finetune", "retrained")
      >>> round(finding.value, 3), finding.low > 0.5
      (0.9, True)
    """
    finite = values[np.isfinite(values)]
    jackknifed = [np.delete(finite, index).mean() for index in range(len(finite))] if len(finite) > 1 else []
    stacked = np.asarray([finite.mean() if len(finite) else np.nan, *jackknifed])
    finding = _finding("rea_excess", stacked, of, confidence_level, len(finite), control)
    if len(finite) < least_sets(confidence_level):
        finding = dataclasses.replace(finding, low=float("nan"), high=float("nan"))
    return finding


def _finding(name: str, values: np.ndarray, of: str, confidence_level: float, count: int, control: str = "") -> Finding:
    """Builds a Finding with a jackknife interval from `values` [1 + R]: the statistic of all sets, and without each."""
    value, without = float(values[0]), values[1:]
    interval = intervals.jackknife_within(value, without, confidence_level, RANGES[name])
    return Finding(
        value, interval.low, interval.high, metric=name, n=count, confidence_level=confidence_level, of=of,
        against=control, method=f"delete-one jackknife over {count} forget sets",
    )  # fmt: skip


def membership(membership_scores: Membership, of: str, confidence_level: float) -> dict[str, Finding]:
    """Computes the AUC of LiRA on single rows, mean over forget sets, before and after fine-tuning on retained rows."""
    metrics = {}
    for name, scores in (("auc_before", membership_scores.before), ("auc_after", membership_scores.after)):
        values = [
            roc.auc(scores[membership_scores.unit == unit], membership_scores.forgotten[membership_scores.unit == unit])
            for unit in np.unique(membership_scores.unit)
        ]
        metrics[name] = intervals.mean(np.asarray(values), metric=name, of=of, confidence_level=confidence_level)
    return metrics


def returned_after(recovery: Recovery, share: float = 0.5) -> np.ndarray:
    """Returns [R] steps until the accuracy on forgotten rows reaches `share`; NaN if it never does.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.analyses.reminiscence import inputs, measures
      >>> recovery = inputs.Recovery(np.array([[0.2, 0.6]]), np.zeros(1), 2, np.zeros(1, int), np.zeros(1, int))
      >>> measures.returned_after(recovery).tolist()
      [2.0]
    """
    is_reached = recovery.accuracy >= share
    steps = np.where(is_reached.any(1), is_reached.argmax(1) + 1.0, np.nan)
    return np.where(recovery.before >= share, 0.0, steps)
