"""Tests whether the words alone separate forgotten from kept texts: a bag of words, evaluated on held-out texts.

No language model is involved: if this separates, the two kinds of texts differ, and a score that separates them may
reflect that difference rather than what the model was trained on. NumPy and scikit-learn on the host.

Source: the check of distribution shift in the benchmark that IAM's language-model part builds on (bag_of_words); there
the forest has no seed.
"""

from collections.abc import Sequence

import numpy as np

from jaxunlearn.metrics.inference import intervals
from jaxunlearn.records import Finding

FOLDS, TREES, DEPTH, LEAF = 5, 100, 2, 5
DOCUMENT_SHARE = 0.05  # words in a smaller share of the texts are ignored
FEWEST = 20  # texts of each kind; with fewer there is no result
MOST = 5000  # texts; of more a random subset is taken
DIFFERENT = 0.55  # the kinds differ if the lower end of the AUC's interval is above


def out_of_fold(texts: Sequence[str] | np.ndarray, truth: np.ndarray, seed: int = 0) -> np.ndarray | None:
    """Computes the probability that a text is of the first kind, by a forest fitted on the other folds.

    Args:
      texts: [N].
      truth: [N] True = the first kind; at least five texts of either.
      seed: of the folds and the trees.

    Returns:
      [N] float64 in [0, 1]; None if no word is in enough of the texts.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    try:
        counts = CountVectorizer(min_df=DOCUMENT_SHARE).fit_transform(list(map(str, texts)))
    except ValueError:  # the vocabulary is empty
        return None
    forest = RandomForestClassifier(TREES, max_depth=DEPTH, min_samples_leaf=LEAF, random_state=seed)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    return cross_val_predict(forest, counts, np.asarray(truth, bool), cv=folds, method="predict_proba")[:, 1]


def shift(
    texts: Sequence[str] | np.ndarray, truth: np.ndarray, *, seed: int = 0, confidence_level: float = 0.95
) -> Finding | None:
    """Computes how well the words alone tell two kinds of texts apart; .5 = not at all.

    Args:
      texts: [N].
      truth: [N] True = the first kind.
      seed: of the subset, the folds and the trees.
      confidence_level: of the interval.

    Returns:
      AUC with DeLong's interval, which treats the five forests as one: on 60 and 140 texts of one kind, its lower end
      was above .5 in 5 of 60 draws, above .55 in 1. None with fewer than 20 texts of a kind, or without a word in at
      least 5 % of them.

    Example:
      >>> from jaxunlearn.metrics.ranking import wording
      >>> finding = wording.shift(["a red fox"] * 25 + ["the blue sea"] * 25, [True] * 25 + [False] * 25)
      >>> finding.value, wording.is_different(finding)
      (1.0, True)
    """
    truth = np.asarray(truth, bool)
    index = np.arange(len(truth))
    if len(index) > MOST:
        index = np.sort(np.random.default_rng(seed).permutation(len(index))[:MOST])
    truth = truth[index]
    if min(truth.sum(), (~truth).sum()) < FEWEST:
        return None
    probabilities = out_of_fold(np.asarray(texts)[index], truth, seed)
    if probabilities is None:
        return None
    return Finding(
        *intervals.delong(probabilities, truth, confidence_level), metric="auc", n=len(truth),
        confidence_level=confidence_level, of="words alone", against="kept against forgotten",
        method="DeLong, out of fold",
    )  # fmt: skip


def is_different(finding: Finding | None) -> bool:
    """Returns whether the two kinds are clearly different texts."""
    return finding is not None and finding.low > DIFFERENT
