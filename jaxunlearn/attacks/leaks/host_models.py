"""Decision trees and random forests: models that scikit-learn fits on the host, one after another.

Source: models.DT and models.RF of Unlearning-Leaks. Differs from the published code: training records keep their order
(published: sorted after a deletion, which gives a forest another bootstrap), classes without records get posterior 0
(published: fewer columns), and a forest's trees depend on the seed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxunlearn import checks

FAMILIES = ("dt", "rf")
Predict = Callable[[np.ndarray], np.ndarray]


def classifier(family: str, seed: int = 0) -> Any:
    """Returns scikit-learn's classifier of a family with the published sizes, not fitted; see `fit`."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    if family == "dt":
        return DecisionTreeClassifier(max_leaf_nodes=10, random_state=0)
    return RandomForestClassifier(n_estimators=500, min_samples_leaf=30, random_state=seed)


def fit(family: str, inputs: np.ndarray, labels: np.ndarray, num_classes: int, seed: int = 0) -> Predict:
    """Fits one decision tree or random forest.

    Args:
      family: dt (10 leaves) or rf (500 trees, leaves of at least 30 records).
      inputs: [n, ...] raw; flattened.
      labels: [n] int.
      num_classes: C.
      seed: of the forest; a tree does not depend on it.

    Returns:
      inputs [m, ...] -> posteriors [m, C] float64.

    Raises:
      ConfigError: unknown family.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.leaks import host_models
      >>> predict = host_models.fit("dt", np.array([[0.0], [1.0]]), np.array([0, 2]), num_classes=3)
      >>> predict(np.array([[0.9]])).tolist()
      [[0.0, 0.0, 1.0]]
    """
    checks.choice("model", family, FAMILIES)
    model = classifier(family, seed)
    model.fit(inputs.reshape(len(inputs), -1), labels)

    def predict(rows: np.ndarray) -> np.ndarray:
        posteriors = model.predict_proba(rows.reshape(len(rows), -1))
        answers = np.zeros((len(rows), num_classes))
        answers[:, model.classes_] = posteriors
        return answers

    return predict
