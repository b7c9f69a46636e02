"""Degradation: how much surer of the truth an attacker becomes by seeing both versions instead of the original alone.

d_i = P_pair(truth_i) - P_classical(truth_i) per record; DegRate = mean of d, DegCount = share of records with d > 0.

Source: Unlearning-Leaks, section on evaluation metrics (published code: computed and discarded).
"""

import numpy as np

from jaxunlearn import checks


def gains(pair: np.ndarray, classical: np.ndarray, deleted: np.ndarray) -> np.ndarray:
    """Returns [N] d_i in [-1, 1]; positive = the pair makes the attacker surer of the truth.

    Args:
      pair: [N] probability of "deleted member" from the pair of versions.
      classical: [N] the same from the original alone.
      deleted: [N] bool, the truth.

    Raises:
      ShapeError: vectors of different lengths.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.leaks.degradation import gains
      >>> gains(np.array([0.9, 0.5]), np.array([0.5, 0.25]), np.array([True, False])).tolist()
      [0.4, -0.25]
    """
    checks.shape("N", pair=pair, classical=classical, deleted=deleted)
    return np.where(deleted, pair - classical, classical - pair)


def rate(gains: np.ndarray) -> float:
    """Returns DegRate in [-1, 1]: the mean gain over all records, members and non-members."""
    return float(np.mean(gains))


def count(gains: np.ndarray) -> float:
    """Returns DegCount in [0, 1]: the share of records with a gain above 0; equal confidences do not count."""
    return float(np.mean(gains > 0))
