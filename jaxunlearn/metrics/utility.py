"""Utility of unlearned models: UA, RA, TA and their gap to exact retraining. One definition each, whoever prints them.

Source: the tables of SalUn and of Conformal unlearning. MIA is not among them here: an attack on outputs is a metric of
its own, and the gap that includes it is `gap` over four numbers.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxunlearn.records import Split

GAP = ("UA", "RA", "TA")
LOSSES = ("forget_loss", "retain_loss", "test_loss")  # of language models, in their place


class Subsets(NamedTuple):
    """Which rows play which part for each of R forget sets, [R, n] bool each.

    Attributes:
      forget, retain: asked to be forgotten; the target rows that are kept.
      test, population: held out, of classes (or groups) of which rows are retained.
      test_forget, population_forget: held out, of classes of which no row is retained: nothing should know them.
    """

    forget: np.ndarray
    retain: np.ndarray
    test: np.ndarray
    population: np.ndarray
    test_forget: np.ndarray
    population_forget: np.ndarray


def parts_of(split: Split, kinds: np.ndarray, rows: np.ndarray) -> Subsets:
    """The parts of a split.

    Args:
      split: of a run.
      kinds: [N] class (or group) of every row of the data set, by which whole kinds can be forgotten.
      rows: [n] sorted rows of the data set.
    """
    kinds = np.asarray(kinds)[rows]
    forget = np.asarray(split.forget)[:, rows]
    target, test, population = (np.isin(rows, np.asarray(one)) for one in (split.target, split.test, split.population))
    retain = target & ~forget
    gone = np.stack([
        np.isin(kinds, np.setdiff1d(kinds[own], kinds[kept])) for own, kept in zip(forget, retain, strict=True)
    ])  # fmt: skip
    return Subsets(forget, retain, test & ~gone, population & ~gone, test & gone, population & gone)


def utility(right: np.ndarray, forget: np.ndarray, retain: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """UA, RA and TA of one model, as fractions; NaN where a part is empty.

    Args:
      right: [n] bool, samples that the model classifies correctly; of texts [n], the share of its next tokens.
      forget: [n] bool, asked to be forgotten.
      retain: [n] bool, kept.
      test: [n] bool, held out; see `Parts`.

    Returns:
      UA: 1 - accuracy on the samples to be forgotten (right is the retrained model's, neither 0 nor 1); RA, TA:
      accuracy on retained and on test samples.
    """
    return {"UA": 1 - accuracy(right, forget), "RA": accuracy(right, retain), "TA": accuracy(right, test)}


def losses(values: np.ndarray, forget: np.ndarray, retain: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """Mean losses of one language model in nats per token, mean over texts; NaN where a part is empty.

    Args:
      values: [n] losses of the texts.
      forget: [n] bool, asked to be forgotten.
      retain: [n] bool, kept.
      test: [n] bool, held out.

    Returns:
      forget_loss: on the texts to be forgotten (right is the retrained model's, not the highest); retain_loss,
      test_loss: on retained and on held-out texts.
    """
    return {name: accuracy(values, part) for name, part in zip(LOSSES, (forget, retain, test), strict=True)}


def accuracy(right: np.ndarray, part: np.ndarray) -> float:
    """Share of a part that is right; NaN where the part is empty."""
    return float(right[part].mean()) if part.any() else float("nan")


def gap(numbers: Mapping[str, np.ndarray], retrained: Mapping[str, np.ndarray], names: Sequence[str] = GAP) -> float:
    """Mean absolute difference to exact retraining over some metrics, as a fraction; lower = closer.

    Each metric is the mean over the models in which it is finite. NaN unless all metrics are known of both.

    Args:
      numbers: metric -> [R] of the R models of a role.
      retrained: the same of the retrained models.
      names: metrics; UA, RA and TA, or with the attack of SalUn's tables as the fourth.
    """
    apart = [abs(finite_mean(numbers[name]) - finite_mean(retrained[name])) if name in numbers and name in retrained
             else float("nan") for name in names]  # fmt: skip
    return float(np.mean(apart))


def finite_mean(values: np.ndarray) -> float:
    """Mean over what is finite; NaN where nothing is."""
    finite = np.asarray(values, np.float64)[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")
