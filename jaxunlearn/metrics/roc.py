"""ROC curve summaries on the host. Positive = member; scores: higher = member."""

import numpy as np
import scipy.stats


def auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a random member scores above a random non-member, ties counting half.

    Args:
      scores: [n] float, higher = member.
      truth: [n] bool, True = member.

    Returns:
      AUC in [0, 1]; NaN when one of the classes is empty.
    """
    truth = np.asarray(truth, bool)
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return float("nan")
    ranks = scipy.stats.rankdata(scores)
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))
