"""The published splits of the saliency unlearning code (SalUn; group OPTML), index for index.

    per class, 10 % of the training pictures -> validation rows (our shadow set, which no target model sees)
    the other rows, ascending                -> training rows   (our target set)
    RandomState(seed - 1) over their positions -> forget set

Both are plain numpy draws and are exactly reproducible. The published original model is always trained on the split of
seed 1, whatever the seed of the unlearning run: with another seed a tenth of its "training rows" were never trained on.
Here original and unlearned models share one split; seed 1 is the published original model's.

Source: `Unlearn-Saliency`, data loaders of CIFAR-10/100 and SVHN; pinned by golden arrays.
"""

import numpy as np

FRACTION = 0.1


def validation_rows(labels: np.ndarray, seed: int) -> np.ndarray:
    """Draws the rows held out of training: int(0.1 n) of the n rows of each class, in turn from one stream.

    Args:
      labels: [N] classes of the whole train pool.
      seed: the split's seed.

    Returns:
      [n] int64 row numbers in drawn order.
    """
    stream = _stream(seed)
    drawn = []
    for label in range(int(labels.max()) + 1):
        rows = np.flatnonzero(labels == label)
        drawn.append(stream.choice(rows, int(FRACTION * len(rows)), replace=False))
    return np.concatenate(drawn)


def training_rows(labels: np.ndarray, validation: np.ndarray) -> np.ndarray:
    """Returns the rows of the train pool that are not held out, [n] int64, ascending."""
    is_training = np.ones(len(labels), bool)
    is_training[validation] = False
    return np.flatnonzero(is_training)


def forget_rows(rows: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Draws `size` of the given rows from the stream of seed - 1.

    Args:
      rows: [n] all training rows, or those of one class, ascending.
      size: at most n.
      seed: the published seed of the forget set; set r of a run has seed + r.

    Returns:
      [size] rows in drawn order.
    """
    return _stream(seed - 1).choice(rows, size, replace=False)


def _stream(seed: int) -> np.random.RandomState:
    # Seed 0 would give -1, which fails in the published code.
    return np.random.RandomState(seed % 2**32)
