"""From trajectories to one number per trial: the step at which a probe set is learned, and the score of it.

Higher score = learned sooner = the class was forgotten, not unseen. Ranking numbers are those of `metrics.roc`.
Source: OUR `rea.py` (steps, differences), and its paper's tables (trial level).
"""

import numpy as np

from jaxunlearn import checks

LEVEL = 0.9
NEVER = 75  # published; with 77 steps a trial that gets there at the very end counts as later than one that never does


def first_steps(accuracy: np.ndarray, level: float = LEVEL, never: int | None = None) -> np.ndarray:
    """Returns the first step (from 0) at which each trial's accuracy is at least `level`.

    Args:
      accuracy: [M, T] in [0, 1].
      level: published 0.9.
      never: of trials that do not get there; None = T, published `NEVER`.

    Returns:
      [M] int.
    """
    checks.shape("MT", accuracy=accuracy)
    # Shares of float32 fall on either side of a level such as 0.9: a millionth decides nothing else.
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
      break_ties: among trials of the same step the mean accuracy of the trajectory decides.
    """
    sooner = -first_steps(accuracy, level, never).astype(np.float64)
    return sooner + (np.asarray(accuracy, np.float64).mean(1) / 2 if break_ties else 0.0)


def smoothed(accuracy: np.ndarray, width: int = 5) -> np.ndarray:
    """Returns moving averages over `width` steps where all of them exist, [M, T - width + 1]: how curves are drawn."""
    checks.shape("MT", accuracy=accuracy)
    checks.in_range("width", width, 1, accuracy.shape[1])
    return np.lib.stride_tricks.sliding_window_view(accuracy, width, axis=1).mean(-1)
