"""The published bootstrap for unequal kinds: ROC metrics of draws with equal numbers of members and non-members.

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
    """Computes the published bootstrap: means over draws with equal numbers of members and non-members.

    Every draw takes int(0.8 * size of the smaller kind) samples of each kind with replacement. Duplicates make the TPR
    at the lowest levels larger than on the original sample; the AUC is unbiased.

    Args:
      scores: [n] higher = member.
      truth: [n] True = member.
      seed: of the draws (the published code uses NumPy's global state).
      iterations: number of draws, at least 1.
      error_rates: see `roc.summary`.
      interpolation: see `roc.tpr_at_fpr`.

    Raises:
      ShapeError, DataError: as `roc.check`; DataError also if the smaller kind has fewer than 2 samples.
      ConfigError: iterations or a level out of range.

    Source: IAM, balanced variant of the evaluation.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.ranking import stratified_bootstrap
      >>> result = stratified_bootstrap.summary(np.arange(9.0), np.arange(9) > 5, seed=0, iterations=10)
      >>> result.auc, result.positives
      (1.0, 2)
    """
    checks.in_range("iterations", iterations, 1)
    scores, truth = roc.check(scores, truth)
    kinds = scores[truth], scores[~truth]
    size = int(0.8 * min(len(kind) for kind in kinds))
    if size < 1:
        raise errors.DataError("the smaller kind has 1 sample; the balanced bootstrap needs at least 2 of each kind.")
    generator = np.random.default_rng(seed)
    sample_truth = np.repeat([True, False], size)
    draws = []
    for _ in range(iterations):
        sample = np.concatenate([generator.choice(kind, size) for kind in kinds])
        draw = roc.summarise(roc.count(roc.rank(sample, sample_truth)), error_rates, interpolation)
        draws.append(np.concatenate([[draw.auc, draw.balanced_accuracy], draw.tpr_at_fpr, draw.tnr_at_fnr]))
    means = np.mean(draws, 0)
    split = 2 + len(error_rates)
    return roc.Summary(float(means[0]), float(means[1]), tuple(error_rates), means[2:split], means[split:], size, size)
