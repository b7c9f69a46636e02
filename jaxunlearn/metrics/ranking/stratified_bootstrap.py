"""The published bootstrap for unequal kinds: ROC numbers of samples with as many members as forgotten ones.

NumPy on the host. Source: IAM, balanced variant of the evaluation.
"""

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.metrics import roc


def summary(
    scores: np.ndarray,
    truth: np.ndarray,
    *,
    seed: int,
    iterations: int = 5000,
    error_rates: tuple[float, ...] = roc.LEVELS,
    interpolation: str = "linear",
) -> roc.Summary:
    """The published bootstrap for unequal classes: means over draws of as many members as non-members.

    Every draw takes int(0.8 * the smaller kind) of each kind with replacement. Duplicates make the TPR at the lowest
    levels larger than on the whole sample; AUC is estimated without bias.

    Args:
      scores: [n] higher = member.
      truth: [n] True = member.
      seed: of the draws (the published code uses NumPy's global state).
      iterations: how many draws, at least 1.
      error_rates: see `roc.summary`.
      interpolation: see `roc.tpr_at_fpr`.

    Raises:
      ShapeError, DataError: as `roc.check`; DataError also when the smaller kind has fewer than 2 samples.
      ConfigError: iterations or a level out of range.

    Source: IAM, balanced variant of the evaluation.
    """
    checks.in_range("iterations", iterations, 1)
    scores, truth = roc.check(scores, truth)
    kinds = scores[truth], scores[~truth]
    size = int(0.8 * min(len(kind) for kind in kinds))
    if size < 1:
        raise errors.DataError("the smaller kind has 1 sample; the balanced bootstrap needs at least 2 of each kind.")
    generator = np.random.default_rng(seed)
    drawn_truth = np.repeat([True, False], size)
    draws = []
    for _ in range(iterations):
        drawn = np.concatenate([generator.choice(kind, size) for kind in kinds])
        one = roc.summarise(roc.count(roc.rank(drawn, drawn_truth)), error_rates, interpolation)
        draws.append(np.concatenate([[one.auc, one.balanced_accuracy], one.tpr_at_fpr, one.tnr_at_fnr]))
    means = np.mean(draws, 0)
    half = 2 + len(error_rates)
    return roc.Summary(float(means[0]), float(means[1]), tuple(error_rates), means[2:half], means[half:], size, size)
