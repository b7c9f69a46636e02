"""Utility of unlearned models: UA, RA, TA and their gap to exact retraining, each with one definition.

Source: the tables of SalUn and of Conformal unlearning. MIA is not included: it is a metric of its own, and the gap
with MIA is `gap` over four metrics.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxunlearn.records import Split

GAP = ("UA", "RA", "TA")
LOSSES = ("forget_loss", "retain_loss", "test_loss")  # of language models, instead of accuracies
# What captions of tables say of the two.
ACCURACIES_TEXT = "UA = 1 - accuracy on the forget set, RA and TA = accuracy on retained and test samples"
LOSSES_TEXT = "Losses in nats per token, on texts to be forgotten, retained and held out"


class Subsets(NamedTuple):
    """Masks [R, n] bool of the rows of each of R forget sets.

    Attributes:
      forget, retain: rows to be forgotten; the target rows that are retained.
      test, population: held-out rows of classes (or groups) with retained rows.
      test_forget, population_forget: held-out rows of classes without any retained row, which no model should know.
    """

    forget: np.ndarray
    retain: np.ndarray
    test: np.ndarray
    population: np.ndarray
    test_forget: np.ndarray
    population_forget: np.ndarray


def subsets_of(split: Split, kinds: np.ndarray, rows: np.ndarray) -> Subsets:
    """Returns the subsets of a split among some rows of the data set.

    Args:
      split: of a run.
      kinds: [N] class (or group) of every row of the data set; a kind can be forgotten as a whole.
      rows: [n] sorted rows of the data set.
    """
    kinds = np.asarray(kinds)[rows]
    forget = np.asarray(split.forget)[:, rows]
    target, test, population = (
        np.isin(rows, np.asarray(indices)) for indices in (split.target, split.test, split.population)
    )
    retain = target & ~forget
    is_removed = np.stack([
        np.isin(kinds, np.setdiff1d(kinds[forget_mask], kinds[retain_mask]))
        for forget_mask, retain_mask in zip(forget, retain, strict=True)
    ])  # fmt: skip
    return Subsets(
        forget, retain, test & ~is_removed, population & ~is_removed, test & is_removed, population & is_removed
    )


def utility(correct: np.ndarray, forget: np.ndarray, retain: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """Computes UA, RA and TA of one model, as fractions; NaN where a subset is empty.

    Args:
      correct: [n] bool, samples that the model classifies correctly; for texts, [n] share of correct next tokens.
      forget: [n] bool, samples to be forgotten.
      retain: [n] bool, retained samples.
      test: [n] bool, held-out samples; see `Subsets`.

    Returns:
      UA: 1 - accuracy on the samples to be forgotten (the goal is the retrained model's value, neither 0 nor 1);
      RA, TA: accuracy on retained and on test samples.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics import utility
      >>> correct, rows = np.array([0, 1, 1, 1, 0, 1]), np.arange(6)
      >>> utility.utility(correct, rows < 2, (rows >= 2) & (rows < 4), rows >= 4)
      {'UA': 0.5, 'RA': 1.0, 'TA': 0.5}
    """
    return {"UA": 1 - accuracy(correct, forget), "RA": accuracy(correct, retain), "TA": accuracy(correct, test)}


def losses(values: np.ndarray, forget: np.ndarray, retain: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """Computes mean losses of one language model over texts, in nats per token; NaN where a subset is empty.

    Args:
      values: [n] losses of the texts.
      forget: [n] bool, texts to be forgotten.
      retain: [n] bool, retained texts.
      test: [n] bool, held-out texts.

    Returns:
      forget_loss: on the texts to be forgotten (the goal is the retrained model's value, not the highest);
      retain_loss, test_loss: on retained and on held-out texts.
    """
    return {name: accuracy(values, subset) for name, subset in zip(LOSSES, (forget, retain, test), strict=True)}


def accuracy(correct: np.ndarray, subset: np.ndarray) -> float:
    """Computes the share of a subset that is correct; NaN if the subset is empty."""
    return float(correct[subset].mean()) if subset.any() else float("nan")


def gap(metrics: Mapping[str, np.ndarray], retrained: Mapping[str, np.ndarray], names: Sequence[str] = GAP) -> float:
    """Computes the mean absolute difference to exact retraining over some metrics, as a fraction; lower = closer.

    Each metric is averaged over the models in which it is finite. NaN unless every metric is there for both.

    Args:
      metrics: metric -> [R] values of the R models of a role.
      retrained: the same of the retrained models.
      names: metrics; UA, RA and TA, or with the attack of SalUn's tables as the fourth.

    Example:
      >>> from jaxunlearn.metrics import utility
      >>> utility.gap({"UA": [0.5], "RA": [1.0], "TA": [0.75]}, {"UA": [0.25], "RA": [1.0], "TA": [0.25]})
      0.25
    """
    differences = [
        abs(finite_mean(metrics[name]) - finite_mean(retrained[name]))
        if name in metrics and name in retrained
        else float("nan")
        for name in names
    ]
    return float(np.mean(differences))


def finite_mean(values: np.ndarray) -> float:
    """Computes the mean of the finite values; NaN if there is none."""
    finite = np.asarray(values, np.float64)[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")
