"""From trajectories to one number per trial: the step at which a probe set is learned, and its score.

Higher score = learned sooner = the class was forgotten, not unseen. Ranking metrics are those of `metrics.roc`.
Source: OUR `rea.py` (steps, differences), and its paper's tables (trial level).
"""

import numpy as np

from jaxunlearn import checks

LEVEL = 0.9
# Published; of 77 steps, a trial that gets there in the last one counts as later than one that never does.
NOT_REACHED = 75


def first_steps(accuracy: np.ndarray, level: float = LEVEL, never: int | None = None) -> np.ndarray:
    """Returns the first step (from 0) at which each trial's accuracy is at least `level`.

    Args:
      accuracy: [M, T] in [0, 1].
      level: published 0.9.
      never: step of trials that do not reach it; None = T, published `NOT_REACHED`.

    Returns:
      [M] int.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.relearning import first_steps
      >>> first_steps(np.array([[0.5, 1.0, 1.0], [0.0, 0.5, 0.5]])).tolist()
      [1, 3]
    """
    checks.shape("MT", accuracy=accuracy)
    # float32 fractions fall on either side of a level such as 0.9; a tolerance of 1e-6 affects no other fraction.
    reached = np.asarray(accuracy, np.float64) >= level - 1e-6
    return np.where(reached.any(1), reached.argmax(1), reached.shape[1] if never is None else never)


def scores(
    accuracy: np.ndarray, level: float = LEVEL, never: int | None = None, break_ties: bool = True
) -> np.ndarray:  # fmt: skip
    """Returns a score per trial, higher = relearned sooner: minus the first step.

    Args:
      accuracy: [M, T] in [0, 1].
      level: see `first_steps`.
      never: see `first_steps`.
      break_ties: order trials of the same step by the mean accuracy of their trajectories.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.relearning import scores
      >>> scores(np.array([[0.5, 1.0, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0]])).tolist()
      [-0.5625, -2.75]
    """
    score = -first_steps(accuracy, level, never).astype(np.float64)
    return score + (np.asarray(accuracy, np.float64).mean(1) / 2 if break_ties else 0.0)
