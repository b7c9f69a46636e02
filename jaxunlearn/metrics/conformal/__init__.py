"""Split conformal prediction: thresholds, prediction sets, coverage."""

from jaxunlearn.metrics.conformal.conformal import (
    QUANTILE_RULES,
    SCORES,
    STANDARD,
    ConformalResult,
    Options,
    calibrate,
    check_alphas,
    check_options,
    evaluate,
    label_scores,
    predict,
    quantiles,
    rank_of,
    smallest_calibration,
    threshold,
    true_label_scores,
)

__all__ = [
    "ConformalResult",
    "Options",
    "QUANTILE_RULES",
    "SCORES",
    "STANDARD",
    "calibrate",
    "check_alphas",
    "check_options",
    "evaluate",
    "label_scores",
    "predict",
    "quantiles",
    "rank_of",
    "smallest_calibration",
    "threshold",
    "true_label_scores",
]
