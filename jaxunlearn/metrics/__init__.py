"""Metrics: numbers with intervals, from scores and truth. One definition each; published variants by argument.

    ranking      tables over forget sets and shadow groups (`pooled`), bootstraps (`bootstrap`, and as published for
                 unequal kinds `stratified_bootstrap`), ScoreUI (`correlation`), per class (`classes`), `wording`
    inference    mean, DeLong, Clopper-Pearson, jackknife (`intervals`); p-values, false discovery rate (`decision`);
                 are p-values what they claim to be (`calibration_test`)
    conformal    thresholds and prediction sets of all models; coverage, size, CR, recover ratio (`prediction_sets`)
    membership   per-class threshold attacks, entropy attack (`membership`); the five SVC attacks (`svc`); `miacr`
    epsilon      epsilon-hat of N retrained against N unlearned models (`epsilon`; its kernels: `attack_rules`);
                 intervals over models, proved lower bound (`epsilon_bounds`); the NeurIPS-2023 score (`challenge`);
                 what DP-SGD guarantees (`privacy`)
    populations  where a deviation comes from (`variance`), which method is closest to retraining (`closeness`)
    verdict      the verdict on one request

    roc          curve, AUC, balanced accuracy, TPR and TNR at low levels
    utility      UA, RA, TA, losses of texts, and their gap to exact retraining; who plays which part
    distances    JS divergence, ZRF, activation distance
    distribution how a class lies among the others (`kernel_density`)

`METRICS` (`registry`) has a line for every metric that is printed: its title, which end is better, and for those that
rank samples the function of (scores [n], higher = member; truth [n], True = member).
"""

from jaxunlearn.metrics.registry import METRICS, Metric, headers
