"""Membership attacks on the outputs of one model."""

from jaxunlearn.metrics.membership.membership import (
    NEWTON_STEPS,
    SETS,
    EntropyAttack,
    Rates,
    Sigmoid,
    best_threshold,
    class_thresholds,
    entropy_attack,
    fit_sigmoid,
    song_mittal,
    song_mittal_probabilities,
)
from jaxunlearn.metrics.membership.output_features import (
    COMPAT,
    LOG_FLOOR,
    Features,
    entropies,
    features,
    probability_features,
)

__all__ = [
    "COMPAT",
    "EntropyAttack",
    "Features",
    "LOG_FLOOR",
    "NEWTON_STEPS",
    "Rates",
    "SETS",
    "Sigmoid",
    "best_threshold",
    "class_thresholds",
    "entropies",
    "entropy_attack",
    "features",
    "fit_sigmoid",
    "probability_features",
    "song_mittal",
    "song_mittal_probabilities",
]
