"""Split conformal prediction: thresholds, prediction sets, coverage."""

from jaxunlearn.metrics.conformal.conformal import (
    QUANTILE_RULES,
    SCORES,
    STANDARD,
    Options,
    Report,
    calibrate,
    check_alphas,
    check_options,
    evaluate,
    label_scores,
    own_scores,
    predict,
    quantiles,
    rank_of,
    smallest_calibration,
    threshold,
)
