"""SISA: S models of disjoint shards answer together; a deletion retrains the one shard that held the record.

    original(x) = mean over shards s of p_s(x)
    unlearned(x) = (p'_t(x) + sum over s != t of p_s(x)) / S, t = the shard of the deleted record

Source: Bourtoule et al., Machine Unlearning; aggregation by the mean as in Unlearning-Leaks. Differs from the
published code, which sums in place into shard 0's array and then takes the mean of all shards for the answer of shard 0
whenever t != 0: `faithful` repeats that error, which hides the deleted record.
"""

import numpy as np

from jaxunlearn import checks


def original(shards: np.ndarray) -> np.ndarray:
    """Returns [N, C] joint posteriors from those of the shards [S, N, C].

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.leaks import sisa
      >>> sisa.original(np.array([[[1.0, 0.0]], [[0.5, 0.5]]])).tolist()
      [[0.75, 0.25]]
    """
    checks.shape("SNC", shards=shards)
    return np.mean(shards, axis=0)


def unlearned(shards: np.ndarray, retrained: np.ndarray, shard: np.ndarray, faithful: bool = False) -> np.ndarray:
    """Computes the joint posteriors after a shard was retrained.

    Args:
      shards: [S, N, C] posteriors of the original shard models on N records.
      retrained: [N, C] posteriors of the retrained shard model that belongs to each record.
      shard: [N] int, which shard that is.
      faithful: repeat the published aliasing error.

    Returns:
      [N, C] posteriors.

    Raises:
      ShapeError: arrays that do not fit together.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.leaks import sisa
      >>> shards = np.array([[[1.0, 0.0]], [[0.5, 0.5]]])
      >>> sisa.unlearned(shards, retrained=np.array([[0.25, 0.75]]), shard=np.array([1])).tolist()
      [[0.625, 0.375]]
    """
    checks.shape("SNC NC N", shards=shards, retrained=retrained, shard=shard)
    num_shards, rows = len(shards), np.arange(len(shard))
    answers = np.array(shards)
    if faithful:
        answers[0] = original(shards)  # only read where another shard was retrained
    answers[shard, rows] = retrained
    return answers.sum(0) / num_shards
