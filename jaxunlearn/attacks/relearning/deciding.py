"""An honest decision: threshold, direction and learning rate are fitted on shadow trials, then applied to others.

The published balanced accuracy is the maximum over thresholds on the same trials it is reported for
(`metrics.roc.balanced_accuracy`), at the best of several learning rates: chance alone exceeds one half there.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxunlearn import checks, errors


class Decision(NamedTuple):
    """A fitted decision.

    Attributes:
      learning_rate: of the trials that it applies to.
      threshold: a trial counts as forgotten where direction * score > direction * threshold.
      direction: 1 = high scores are of forgotten classes, -1 = low ones are.
      shadow_accuracy: balanced accuracy on the shadow trials it was fitted on; too high for other trials.
    """

    learning_rate: float
    threshold: float
    direction: int
    shadow_accuracy: float


class JudgedTrials(NamedTuple):
    """Performance of a decision on trials that it was not fitted on; each a fraction in [0, 1]."""

    balanced_accuracy: float
    true_positive_rate: float
    false_positive_rate: float


def choose(scores: Mapping[float, np.ndarray], truth: Mapping[float, np.ndarray]) -> Decision:
    """Fits a decision by balanced accuracy on shadow trials.

    Ties between thresholds go to the one with the widest gap between neighbouring scores, ties between directions and
    rates to the first.

    Args:
      scores: learning rate -> [n] scores of shadow trials.
      truth: learning rate -> [n] bool, True = of a forgotten class.

    Raises:
      DataError: no rate, or only one kind of trials.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.relearning import choose
      >>> choose({0.1: np.array([-9.0, -7.0, -3.0, -1.0])}, {0.1: np.array([False, False, True, True])})
      Decision(learning_rate=0.1, threshold=-5.0, direction=1, shadow_accuracy=1.0)
    """
    best: tuple[float, float] | None = None
    decision = Decision(float("nan"), float("nan"), 1, 0.0)
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
            index = np.lexsort((-gaps, -accuracy))[0]
            if best is None or accuracy[index] > best[0]:
                best = (float(accuracy[index]), 0.0)
                decision = Decision(float(rate), float(direction * cuts[index]), direction, float(accuracy[index]))
    if best is None:
        raise errors.DataError("there are no shadow trials to choose a decision by.")
    return decision


def decide(decision: Decision, scores: np.ndarray) -> np.ndarray:
    """Returns [n] bool: which trials, run at the decision's learning rate, it calls forgotten.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.relearning import Decision, decide
      >>> decide(Decision(0.1, -5.0, 1, 1.0), np.array([-8.0, -2.0])).tolist()
      [False, True]
    """
    return decision.direction * np.asarray(scores, np.float64) > decision.direction * decision.threshold


def judge(decision: Decision, scores: np.ndarray, truth: np.ndarray) -> JudgedTrials:
    """Evaluates a decision on other trials at its learning rate; `truth` [n] bool, True = forgotten.

    Raises:
      DataError: only one kind of trials.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.relearning import Decision, judge
      >>> judge(Decision(0.1, -5.0, 1, 1.0), np.array([-8.0, -2.0, -3.0]), np.array([False, True, False]))
      JudgedTrials(balanced_accuracy=0.75, true_positive_rate=1.0, false_positive_rate=0.5)
    """
    flags, truth = decide(decision, scores), np.asarray(truth, bool)
    checks.shape("n n", scores=flags, truth=truth)
    if truth.all() or not truth.any():
        raise errors.DataError("the trials are all of one kind; a balanced accuracy needs both.")
    hits, alarms = float(flags[truth].mean()), float(flags[~truth].mean())
    return JudgedTrials((hits + 1 - alarms) / 2, hits, alarms)
