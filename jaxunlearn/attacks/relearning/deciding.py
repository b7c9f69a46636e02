"""An honest decision: threshold, direction and learning rate are fitted on shadow trials, then applied to others.

The published balanced accuracy is the maximum over thresholds on the very trials it is reported of
(`metrics.roc.balanced_accuracy`), at the best of several learning rates: chance alone gets more than one half there.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxunlearn import checks, errors


class Decision(NamedTuple):
    """What was fitted.

    Attributes:
      learning_rate: of the trials that are looked at.
      threshold: a trial counts as forgotten where direction * score > direction * threshold.
      direction: 1 = high scores are of forgotten classes, -1 = low ones are.
      shadow_accuracy: balanced accuracy on the shadow trials it was fitted on; no claim about others.
    """

    learning_rate: float
    threshold: float
    direction: int
    shadow_accuracy: float


class JudgedTrials(NamedTuple):
    """How a decision does on trials that it was not fitted on: each a fraction in [0, 1]."""

    balanced_accuracy: float
    true_positive_rate: float
    false_positive_rate: float


def choose(scores: Mapping[float, np.ndarray], truth: Mapping[float, np.ndarray]) -> Decision:
    """Fits a decision by balanced accuracy on shadow trials.

    Of equally good thresholds the one with the widest gap between the scores around it is taken, of equally good
    directions and rates the first one.

    Args:
      scores: learning rate -> [n] scores of shadow trials.
      truth: learning rate -> [n] bool, True = of a forgotten class.

    Raises:
      DataError: no rate, or only one kind of trials.
    """
    best: tuple[float, float] | None = None
    found = Decision(float("nan"), float("nan"), 1, 0.0)
    for rate, values in scores.items():
        values, positive = np.asarray(values, np.float64), np.asarray(truth[rate], bool)
        checks.shape("n n", scores=values, truth=positive)
        checks.finite("scores", values)
        if positive.all() or not positive.any():
            raise errors.DataError(f"the shadow trials at learning rate {rate} are all of one kind; both are needed.")
        for direction in (1, -1):
            levels = np.unique(direction * values)
            middles = (levels[1:] + levels[:-1]) / 2
            cuts = np.concatenate([[levels[0] - 1], middles, [levels[-1] + 1]])
            gaps = np.concatenate([[0.0], np.diff(levels), [0.0]])
            missed, rejected = (
                np.searchsorted(np.sort(direction * values[kind]), cuts, "right") for kind in (positive, ~positive)
            )  # scores at or below every cut
            accuracy = ((positive.sum() - missed) / positive.sum() + rejected / (~positive).sum()) / 2
            place = np.lexsort((-gaps, -accuracy))[0]
            if best is None or accuracy[place] > best[0]:
                best = (float(accuracy[place]), 0.0)
                found = Decision(float(rate), float(direction * cuts[place]), direction, float(accuracy[place]))
    if best is None:
        raise errors.DataError("there are no shadow trials to choose a decision by.")
    return found


def decide(decision: Decision, scores: np.ndarray) -> np.ndarray:
    """Returns [n] bool: which trials, at the decision's learning rate, it calls forgotten."""
    return decision.direction * np.asarray(scores, np.float64) > decision.direction * decision.threshold


def judge(decision: Decision, scores: np.ndarray, truth: np.ndarray) -> JudgedTrials:
    """Returns how a decision does on other trials at its learning rate; `truth` [n] bool, True = forgotten.

    Raises:
      DataError: only one kind of trials.
    """
    called, truth = decide(decision, scores), np.asarray(truth, bool)
    checks.shape("n n", scores=called, truth=truth)
    if truth.all() or not truth.any():
        raise errors.DataError("the trials are all of one kind; a balanced accuracy needs both.")
    hits, alarms = float(called[truth].mean()), float(called[~truth].mean())
    return JudgedTrials((hits + 1 - alarms) / 2, hits, alarms)
