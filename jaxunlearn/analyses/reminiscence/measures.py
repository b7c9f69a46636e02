"""What the attack achieves: trials in, numbers with intervals out.

Every decision (learning rate, threshold, direction) about a forget set's model is fitted on the trials of the OTHER
forget sets' models, which an attacker can train: shadows. No number but the one called published looks at the trials it
is reported of before it decides. The unit of every interval is a forget set (delete-one jackknife): trials of one set
share their model.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxunlearn.analyses.reminiscence.inputs import Attacked, Membership, Recovery, Trials
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
LEAST_SPREAD = 0.5  # steps, where all trials of unseen classes end at the same one


class Curve(NamedTuple):
    """Mean accuracy [S] of probes by step, at the rate that was decided on most often."""

    rate: float
    forgotten: np.ndarray
    unseen: np.ndarray


class Attack(NamedTuple):
    """What is known of one role.

    Attributes:
      numbers: statistic -> Finding; "rea_excess" only next to a control: AUC of the trials of the forgotten class
        against the same trials on the control's model of the same forget set, 0.5 = relearned no sooner there.
      scores: [T] of all trials, higher = relearned sooner; whole: [T] the same of whole steps, ties left as they are.
      called: [T] bool, at the rate decided on: called forgotten; False elsewhere. decided: [T] bool, trials judged.
      rates: forget set -> learning rate that was decided on.
      excess: [R] AUC against the control by forget set, for paired comparisons; empty without a control.
      curve: of the figure; trials: number of (forgotten, unseen) trials at one rate.
      recovery: relearning on retained rows alone, or None.
      membership: sample-wise, before and after -> AUC; empty where there is none.
    """

    metrics: dict[str, Finding]
    scores: np.ndarray
    whole: np.ndarray
    called: np.ndarray
    decided: np.ndarray
    rates: Mapping[int, float]
    curve: Curve | None
    trials: tuple[int, int]
    recovery: Recovery | None = None
    membership: Mapping[str, Finding] = {}
    excess: np.ndarray = np.zeros(0)


class Judged(NamedTuple):
    """Per forget set [R, statistics], and who was called what."""

    table: np.ndarray
    called: np.ndarray
    decided: np.ndarray
    rates: np.ndarray


def score(trials: Trials, threshold: float, break_ties: bool) -> np.ndarray:
    """Scores trials, [T]: minus the steps they took, in deviations from the unseen classes on the same model.

    Some models learn everything sooner than others; without this a threshold of one says little about the next.
    """
    raw = relearning.scores(trials.accuracy, threshold, break_ties=break_ties)
    scores = np.empty(len(raw))
    for unit in np.unique(trials.unit):
        for rate in np.unique(trials.rate):
            own = (trials.unit == unit) & (trials.rate == rate)
            unseen = raw[own & ~trials.forgotten]
            scores[own] = (raw[own] - unseen.mean()) / max(float(unseen.std()), LEAST_SPREAD)
    return scores


def judge(trials: Trials, scores: np.ndarray, steps: np.ndarray, units: np.ndarray, first_rate: float) -> Judged:
    """Judges the models of some forget sets, each by a decision fitted on the others.

    Args:
      trials: of one role.
      scores: [T] of them.
      steps: [T] at which probes were learned.
      units: [R] forget sets that count.
      first_rate: learning rate of ranking numbers where a single set leaves nothing to fit a decision on.
    """
    rates = np.unique(trials.rate)
    table = np.full((len(units), len(STATISTICS)), np.nan)
    called, decided = np.zeros(len(scores), bool), np.zeros(len(scores), bool)
    taken = np.full(len(units), np.nan)
    for place, unit in enumerate(units):
        own, shadows = trials.unit == unit, np.isin(trials.unit, units) & (trials.unit != unit)
        taken[place] = rate = first_rate
        accuracy = np.nan
        if shadows.any():
            by_rate = {float(one): shadows & (trials.rate == one) for one in rates}
            decision = relearning.choose(
                {one: scores[mask] for one, mask in by_rate.items()},
                {one: trials.forgotten[mask] for one, mask in by_rate.items()},
            )
            taken[place] = rate = decision.learning_rate
            mask = own & np.isclose(trials.rate, rate)
            accuracy = relearning.judge(decision, scores[mask], trials.forgotten[mask]).balanced_accuracy
            called[mask], decided[mask] = relearning.decide(decision, scores[mask]), True
        mask = own & np.isclose(trials.rate, rate)
        truth = trials.forgotten[mask]
        published = max(
            roc.balanced_accuracy(scores[own & (trials.rate == one)], trials.forgotten[own & (trials.rate == one)])
            for one in rates
        )
        table[place] = (
            accuracy, roc.auc(scores[mask], truth), roc.tpr_at_fpr(scores[mask], truth, LEVEL_OF_TPR), published,
            np.median(steps[mask][truth]), np.median(steps[mask][~truth]),
        )  # fmt: skip
    return Judged(table, called, decided, taken)


def attack(
    found: Attacked, of: str, *, threshold: float, break_ties: bool, first_rate: float, confidence_level: float
) -> Attack:  # fmt: skip
    """Numbers of one role with intervals over forget sets.

    Args:
      found: trials and the like.
      of: its title.
      threshold: accuracy at which probes count as learned.
      break_ties: whether mean accuracies decide between trials of the same step.
      first_rate: see `judge`.
      confidence_level: of the intervals.
    """
    extra = {} if found.membership is None else membership(found.membership, of, confidence_level)
    trials = found.trials
    if trials is None:
        none = np.zeros(0, bool)
        return Attack({}, np.zeros(0), np.zeros(0), none, none, {}, None, (0, 0), found.recovery, extra)
    scores = score(trials, threshold, break_ties)
    steps = relearning.first_steps(trials.accuracy, threshold)
    units = np.unique(trials.unit)
    first_rate = float(trials.rate[np.abs(trials.rate - first_rate).argmin()])
    whole = judge(trials, scores, steps, units, first_rate)
    # The median of jackknifed medians says nothing; steps are described by their mean over sets of medians.
    means = [whole.table.mean(0)]
    if len(units) > 1:
        means += [judge(trials, scores, steps, units[units != unit], first_rate).table.mean(0) for unit in units]
    stacked = np.asarray(means)
    numbers = {
        name: _finding(name, stacked[:, column], of, confidence_level, len(units))
        for column, name in enumerate(STATISTICS)
    }
    values, counts = np.unique(whole.rates, return_counts=True)
    rate = float(values[counts.argmax()])
    shown = np.isclose(trials.rate, rate)
    curve = Curve(
        rate, trials.accuracy[shown & trials.forgotten].mean(0), trials.accuracy[shown & ~trials.forgotten].mean(0)
    )
    per_rate = len(np.unique(trials.rate))
    count = int(trials.forgotten.sum()) // per_rate, int((~trials.forgotten).sum()) // per_rate
    taken = {int(unit): float(value) for unit, value in zip(units, whole.rates, strict=True)}
    coarse = score(trials, threshold, break_ties=False)
    return Attack(numbers, scores, coarse, whole.called, whole.decided, taken, curve, count, found.recovery, extra)


def against(own: Attack, trials: Trials, control: Attack, reference: Trials, units: np.ndarray) -> np.ndarray:
    """How much sooner the forgotten class is relearned than by models that never saw it: [R] AUC, 0.5 = no sooner.

    Forget set by forget set, the same class and the same probes on both, each measured from the unseen classes on the
    same model: neither a class that is easy to learn counts, nor a model that learns everything sooner. In whole steps:
    where nobody learns anything, nobody is sooner. At the rate that was decided on for the set; NaN for a set of which
    one side has no model.

    Args:
      own: what was measured of the models under attack.
      trials: of the models under attack.
      control: what was measured of the retrained ones.
      reference: trials of the retrained ones.
      units: [R] forget sets, of all roles the same, so that any two can be compared in pairs.
    """
    sides = ((trials, own.whole), (reference, control.whole))
    values = np.full(len(units), np.nan)
    for place, unit in enumerate(units):
        rate = own.rates.get(int(unit), float("nan"))
        both = [scores[one.forgotten & (one.unit == unit) & np.isclose(one.rate, rate)] for one, scores in sides]
        if len(both[0]) and len(both[1]):
            truth = np.arange(len(both[0]) + len(both[1])) < len(both[0])
            values[place] = roc.auc(np.concatenate(both), truth)
    return values


def least_sets(confidence_level: float) -> int:
    """Returns the fewest forget sets that can decide a comparison with the control at `confidence_level`.

    A model as good as the control is above it in all of R sets with probability 2**-R. Where a class takes to one model
    more than to another by chance, the AUCs of a set are close to 0 or 1, and a few that agree have next to no spread:
    with fewer sets an interval by Student's t would exclude 0.5 several times too often.
    """
    return 1 + math.ceil(-math.log2(1 - confidence_level) - 1e-9)


def excess(values: np.ndarray, confidence_level: float, of: str, control: str) -> Finding:
    """The mean of `against` over forget sets, with its interval; NaN ends of fewer than `least_sets`."""
    known = values[np.isfinite(values)]
    without = [np.delete(known, place).mean() for place in range(len(known))] if len(known) > 1 else []
    stacked = np.asarray([known.mean() if len(known) else np.nan, *without])
    found = _finding("rea_excess", stacked, of, confidence_level, len(known), control)
    if len(known) < least_sets(confidence_level):
        found = dataclasses.replace(found, low=float("nan"), high=float("nan"))
    return found


def _finding(name: str, values: np.ndarray, of: str, confidence_level: float, count: int, control: str = "") -> Finding:
    """`values`: [1 + R] the statistic of all sets, and without each."""
    value, without = float(values[0]), values[1:]
    found = intervals.jackknife_within(value, without, confidence_level, RANGES[name])
    return Finding(
        value, found.low, found.high, metric=name, n=count, confidence_level=confidence_level, of=of, against=control,
        method=f"delete-one jackknife over {count} forget sets",
    )  # fmt: skip


def membership(found: Membership, of: str, confidence_level: float) -> dict[str, Finding]:
    """AUC of LiRA on single rows, mean over forget sets: the model as it is, and fine-tuned on retained rows."""
    numbers = {}
    for name, scores in (("auc_before", found.before), ("auc_after", found.after)):
        values = [
            roc.auc(scores[found.unit == unit], found.forgotten[found.unit == unit]) for unit in np.unique(found.unit)
        ]
        numbers[name] = intervals.mean(np.asarray(values), metric=name, of=of, confidence_level=confidence_level)
    return numbers


def returned_after(recovery: Recovery, share: float = 0.5) -> np.ndarray:
    """[R] steps until the accuracy on forgotten rows is at least `share` of all of them; NaN = not within the run."""
    reached = recovery.accuracy >= share
    steps = np.where(reached.any(1), reached.argmax(1) + 1.0, np.nan)
    return np.where(recovery.before >= share, 0.0, steps)
