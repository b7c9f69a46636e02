"""Epsilon-hat: how well retrained and unlearned models can be told apart; what DP-SGD guarantees."""

from jaxunlearn.metrics.epsilon.epsilon import (
    COMPAT,
    DELTA,
    FEW_MODELS,
    SCORES,
    SLACK,
    Counts,
    Summary,
    count,
    epsilon_from_counts,
    epsilon_hat,
    epsilon_sweep,
    epsilon_table,
    halves,
    max_finite,
    quantiles,
    regression_epsilon,
    squared_errors,
    statistics_of,
    summarise,
)
