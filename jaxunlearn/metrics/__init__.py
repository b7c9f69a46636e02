"""Metrics: values with intervals, from scores and truth. One definition each; published variants by argument.

    ranking      tables over forget sets and shadow groups (`pooled`), the bootstrap of texts (`bootstrap`), ScoreUI
                 (`correlation`), per class (`classes`), `wording`
    inference    mean, DeLong, Clopper-Pearson, jackknife (`intervals`); false discovery rate (`decision`); are
                 p-values uniform under the null (`calibration_test`)
    conformal    thresholds and prediction sets of all models; coverage, size, CR, recover ratio (`prediction_sets`)
    membership   per-class threshold attacks, entropy attack (`membership`); the five SVC attacks (`svc`); `miacr`
    epsilon      epsilon-hat of N retrained against N unlearned models (`epsilon`; its kernels: `attack_rules`);
                 intervals over models, proven lower bound (`epsilon_bounds`); the NeurIPS-2023 score (`challenge`);
                 the guarantee of DP-SGD (`privacy`)
    populations  components of the variance over models (`variance`), closest method to retraining (`closeness`)
    verdict      the verdict on one request

    roc          curve, AUC, balanced accuracy, TPR and TNR at low levels
    utility      UA, RA, TA, losses of texts, and their gap to exact retraining; which rows each is computed on
    distances    JS divergence, ZRF, activation distance
    distribution how a class lies among the others (`kernel_density`)

`METRICS` (`registry`) has an entry for every printed metric: its title, which end is better, and for metrics that rank
samples the function of (scores [n], higher = member; truth [n], True = member).
"""

from jaxunlearn.metrics import roc
from jaxunlearn.metrics.registry import METRICS, Metric, headers

__all__ = ["METRICS", "Metric", "headers", "roc"]
