"""Can the words alone tell forgotten texts from kept ones? A bag of words, judged on texts it was not fitted on.

No language model enters: where this separates, the two kinds are different texts, and a score that separates them may
read the difference of the texts and not what the model has seen. NumPy and scikit-learn on the host.

Source: the check of distribution shift in the benchmark that IAM's language-model part builds on (bag_of_words); there
the forest has no seed.
"""

from collections.abc import Sequence

import numpy as np

from jaxunlearn.metrics.inference import intervals
from jaxunlearn.records import Finding

FOLDS, TREES, DEPTH, LEAF = 5, 100, 2, 5
DOCUMENT_SHARE = 0.05  # words that are in fewer texts are not looked at
FEWEST = 20  # texts of each kind; fewer say nothing
MOST = 5000  # texts; more are a random part
DIFFERENT = 0.55  # from this lower end of the AUC's interval on, the kinds differ


def out_of_fold(texts: Sequence[str] | np.ndarray, truth: np.ndarray, seed: int = 0) -> np.ndarray | None:
    """Computes the probability that a text is of the first kind, by a forest fitted on the other folds.

    Args:
      texts: [N].
      truth: [N] True = the first kind; at least five texts of either.
      seed: of the folds and the trees.

    Returns:
      [N] float64 in [0, 1]; None where no word is in enough of the texts.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    try:
        counts = CountVectorizer(min_df=DOCUMENT_SHARE).fit_transform(list(map(str, texts)))
    except ValueError:  # nothing is left of the vocabulary
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
      seed: of everything that is drawn.
      confidence_level: of the interval.

    Returns:
      AUC with DeLong's interval, which takes the five forests for one: on texts of one kind, 60 and 140, its lower end
      was above .5 in 5 of 60 draws, above .55 in 1. None with fewer than 20 texts of a kind, or without a word that 5 %
      of them share.
    """
    truth = np.asarray(truth, bool)
    kept = np.arange(len(truth))
    if len(kept) > MOST:
        kept = np.sort(np.random.default_rng(seed).permutation(len(kept))[:MOST])
    truth = truth[kept]
    if min(truth.sum(), (~truth).sum()) < FEWEST:
        return None
    found = out_of_fold(np.asarray(texts)[kept], truth, seed)
    if found is None:
        return None
    return Finding(
        *intervals.delong(found, truth, confidence_level), metric="auc", n=len(truth),
        confidence_level=confidence_level, of="words alone", against="kept against forgotten",
        method="DeLong, out of fold",
    )  # fmt: skip


def is_different(finding: Finding | None) -> bool:
    """Whether the two kinds are clearly different texts."""
    return finding is not None and finding.low > DIFFERENT
