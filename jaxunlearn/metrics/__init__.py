"""Metrics: numbers with intervals, from scores and truth. One definition each; published variants by argument.

    roc          curve, AUC, balanced accuracy, TPR and TNR at low levels
    balanced     the published bootstrap for unequal kinds
    intervals    mean, DeLong, Clopper-Pearson, bootstrap, jackknife
    pooled       the table over forget sets and shadow groups; paired difference of AUCs
    correlation  ScoreUI: predicted against true degree of membership
    classes      over- and under-unlearning per class
    decision     per-sample p-values, false discovery rate, verdicts
    uniformity   are p-values what they claim to be, clusters of dependent ones included
    conformal    thresholds and prediction sets of all models; `prediction_sets`: coverage, size, CR, recover ratio
    membership   features, per-class threshold attacks, entropy attack; `svc`: the five SVC attacks; `miacr`
    distances    JS divergence, ZRF, activation distance
    epsilon      epsilon-hat of N retrained against N unlearned models, per sample; `attack_rules`: its kernels;
                 `epsilon_bounds`: intervals over models, proved lower bound; `challenge`: the NeurIPS-2023 score

`METRICS` maps a name to a function of (scores [n], higher = member; truth [n], True = member); every value: higher =
the score separates members better. Where a name is accepted, "my_module:my_metric" is too.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from jaxunlearn.metrics import roc

METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "auc": roc.auc,
    "balanced_accuracy": roc.balanced_accuracy,
    "tpr_at_fpr_1e-2": partial(roc.tpr_at_fpr, level=1e-2),
    "tpr_at_fpr_1e-3": partial(roc.tpr_at_fpr, level=1e-3),
    "tnr_at_fnr_1e-2": partial(roc.tnr_at_fnr, level=1e-2),
    "tnr_at_fnr_1e-3": partial(roc.tnr_at_fnr, level=1e-3),
}
