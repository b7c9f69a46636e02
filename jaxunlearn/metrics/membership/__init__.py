"""Membership attacks on the outputs of one model."""

from jaxunlearn.metrics.membership.membership import (
    COMPAT,
    LOG_FLOOR,
    NEWTON_STEPS,
    SETS,
    EntropyAttack,
    Features,
    Rates,
    Sigmoid,
    best_threshold,
    class_thresholds,
    entropies,
    entropy_attack,
    features,
    fit_sigmoid,
    probability_features,
    song_mittal,
    song_mittal_probabilities,
)
