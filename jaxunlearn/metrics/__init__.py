"""Metrics: numbers with intervals, from scores and truth. One definition each; published variants by argument.

    roc          curve, AUC, balanced accuracy, TPR and TNR at low levels
    balanced     the published bootstrap for unequal kinds
    bootstrap    AUC and TPRs of audits of texts over draws, corrected or as published
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

    utility      UA, RA, TA and their gap to exact retraining; who plays which part

`METRICS` (`registry`) has a line for every metric that is printed: its title, which end is better, and for those that
rank samples the function of (scores [n], higher = member; truth [n], True = member).
"""

from jaxunlearn.metrics.registry import METRICS, Metric, headers
