"""METRICS: every printed metric, by its name in files and findings, with its title in tables.

Reports take all titles from here, so that one name stands for one number everywhere.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from jaxunlearn.metrics import roc

HIGHER, LOWER, AS_RETRAINED = "higher", "lower", "as retrained"
ARROWS = {HIGHER: " ↑", LOWER: " ↓", AS_RETRAINED: "", "": ""}


class Metric(NamedTuple):
    """One entry of METRICS.

    Attributes:
      title: in tables, without an arrow.
      better: "higher", "lower", "as retrained" (the value after exact retraining is the goal), or "" (neither).
      about: one line of explanation.
      compute: (scores [n], higher = member; truth [n], True = member) -> number; None unless it ranks samples.
    """

    title: str
    better: str
    about: str
    compute: Callable[[np.ndarray, np.ndarray], float] | None = None

    @property
    def header(self) -> str:
        """The title with an arrow that shows which end is better."""
        return self.title + ARROWS[self.better]


def _ranking(title: str, about: str, compute: Callable[[np.ndarray, np.ndarray], float]) -> Metric:
    return Metric(title, HIGHER, about, compute)


def _attack(title: str, attack: str) -> Metric:
    return Metric(title, AS_RETRAINED, f"share of forgotten samples that {attack} calls non-members")


_SUBSETS = {"forget": ("D_f", ""), "retain": ("D_r", HIGHER), "test": ("D_t", HIGHER), "test_forget": ("", "")}
_SETS = {
    "coverage": ("coverage", "share of samples whose label is in the prediction set"),
    "size": ("size", "labels per prediction set"),
    "cr": ("CR", "coverage over set size"),
    "empty": ("empty", "share of empty prediction sets"),
}

METRICS: dict[str, Metric] = {
    # scores that rank samples
    "auc": _ranking("AUC", "area under the ROC curve", roc.auc),
    "balanced_accuracy": _ranking("bal. acc", "best balanced accuracy over thresholds", roc.balanced_accuracy),
    **{
        f"{rate}_at_{fixed}_1e-{power}": _ranking(
            f"{rate.upper()}@{fixed.upper()} 1e-{power}",
            f"{rate.upper()} at {fixed.upper()} 1e-{power}",
            partial(compute, error_rate=10.0**-power),
        )
        for rate, fixed, compute in (("tpr", "fpr", roc.tpr_at_fpr), ("tnr", "fnr", roc.tnr_at_fnr))
        for power in (2, 3)
    },
    "tpr_at_fpr_1e-1": Metric("TPR@FPR 1e-1", HIGHER, "TPR at FPR 1e-1"),
    # ScoreUI
    "spearman": Metric("Spearman", HIGHER, "rank correlation with the amount of training"),
    "pearson": Metric("Pearson", HIGHER, "correlation with the amount of training"),
    "mse": Metric("MSE", LOWER, "squared distance to the amount of training"),
    "kl": Metric("KL", LOWER, "divergence from the amount of training"),
    # utility
    "UA": Metric("UA", AS_RETRAINED, "1 - accuracy on the samples to be forgotten"),
    "RA": Metric("RA", HIGHER, "accuracy on retained samples"),
    "TA": Metric("TA", HIGHER, "accuracy on test samples of classes that are still trained on"),
    "forget_loss": Metric("forget loss", AS_RETRAINED, "nats per token, on texts to be forgotten"),
    "retain_loss": Metric("retain loss", LOWER, "nats per token, on retained texts"),
    "test_loss": Metric("held-out loss", LOWER, "nats per token, on held-out texts: utility of the model"),
    "UA_test": Metric("UA test", AS_RETRAINED, "1 - accuracy on test samples of entirely forgotten classes"),
    "gap": Metric("gap", LOWER, "mean absolute difference to exact retraining over UA, RA and TA, or losses of texts"),
    "gap_with_mia": Metric("gap with MIA", LOWER, "the same over UA, RA, TA and MIA, as in SalUn's tables"),
    "confidence_forget": Metric("p(true) forgotten", AS_RETRAINED, "mean probability of the true label, forgotten"),
    "confidence_test": Metric("p(true) test", "", "mean probability of the true label, test samples"),
    "MAE": Metric("MAE", "", "mean absolute error on the samples to be forgotten"),
    # membership attacks on one model
    "MIA": _attack("MIA", "an SVC on the confidence"),
    "svc_confidence": _attack("SVC conf", "an SVC on the confidence"),
    "svc_correctness": _attack("SVC correct", "an SVC on the correctness"),
    "svc_entropy": _attack("SVC entropy", "an SVC on the entropy"),
    "svc_modified_entropy": _attack("SVC m-entropy", "an SVC on the modified entropy"),
    "svc_probability": _attack("SVC prob", "an SVC on all probabilities"),
    "threshold_correctness": _attack("thr correct", "a threshold per class on the correctness"),
    "threshold_confidence": _attack("thr conf", "a threshold per class on the confidence"),
    "threshold_entropy": _attack("thr entropy", "a threshold per class on the entropy"),
    "threshold_modified_entropy": _attack("thr m-entropy", "a threshold per class on the modified entropy"),
    "entropy_mia": Metric("entropy MIA (member)", AS_RETRAINED, "share that a regression on the entropy calls members"),
    "zrf": Metric("ZRF", AS_RETRAINED, "similarity to an untrained network"),
    "activation_distance": Metric("act. distance", LOWER, "distance of outputs to the retrained model"),
    # how forgotten samples lie among the others
    "distribution_variance": Metric("variance", AS_RETRAINED, "mean squared distance of the embedded forgotten samples "
                                    "to their centroid"),
    "silhouette": Metric("silhouette", AS_RETRAINED, "of the forgotten samples and the nearest class"),
    "overlap_sum": Metric("overlap sum", AS_RETRAINED, "smaller density of forgotten and other samples, summed over a "
                          "grid (published; depends on the grid)"),
    "overlap_integral": Metric("overlap", AS_RETRAINED, "the same as an integral, 0 to 1"),
    # prediction sets
    "q_hat": Metric("q_hat", "", "threshold of the prediction sets"),
    "q_hat_forget": Metric("q_hat D_f", "", "threshold of the prediction sets of forgotten classes"),
    **{
        f"{name}_{subset}": Metric(
            f"{title} {mark}".strip(), better if name == "cr" else "", f"{about}, {subset} samples"
        )
        for name, (title, about) in _SETS.items()
        for subset, (mark, better) in _SUBSETS.items()
    },
    "recover_ratio": Metric("recover ratio", "", "of the misclassified forgotten samples, those whose label is in the "
                            "set"),
    "miacr": Metric("MIACR", AS_RETRAINED, "share of forgotten samples whose conformal attack set lacks 'member'"),
    "miacr_size": Metric("attack size", "", "size of the conformal attack's sets"),
    "miacr_test_excluded": Metric("lacks 'non-member'", LOWER, "test samples of forgotten classes whose attack set "
                                  "lacks 'non-member'"),
    "miacr_test_non_member": Metric("called non-member", "", "test samples of forgotten classes called non-members"),
    # populations of models
    "epsilon_hat": Metric("epsilon-hat", LOWER, "how well unlearned and retrained models are told apart, per sample"),
    # pairs of versions
    "accuracy": Metric("accuracy", "", "share of records that the attack judges correctly"),
    "gain": Metric("gain", "", "AUC of the attack on both versions minus that of the attack on the original alone"),
    "deg_count": Metric("DegCount", "", "share of records for which both versions raise the attacker's "
                        "confidence in the truth"),
    "deg_rate": Metric("DegRate", "", "mean increase of the probability of the truth with both versions"),
    # copies of models
    "agreement": Metric("agreement", "", "share of test samples on which a copy predicts its model's class"),
    "agreement_forgotten": Metric("agreement D_f", "", "the same on the samples to be forgotten"),
    # relearning
    "tpr_at_fpr_5e-2": Metric("TPR@FPR 5e-2", AS_RETRAINED, "TPR of relearning trials at FPR 5e-2"),
    "rea_accuracy": Metric("ReA accuracy", AS_RETRAINED, "balanced accuracy of relearning trials, decided on "
                           "other trials"),
    "rea_published": Metric("published", "", "best balanced accuracy over thresholds and rates on the same trials"),
    "rea_excess": Metric("AUC vs retrained", AS_RETRAINED, "forgotten class against the same class on retrained "
                         "models: 0.5 = relearned no sooner"),
    "steps_forgotten": Metric("steps, forgotten", "", "median steps until probes of the forgotten class are learned"),
    "steps_unseen": Metric("steps, unseen", "", "median steps until probes of an unseen class are learned"),
    "auc_before": Metric("AUC as it is", AS_RETRAINED, "LiRA on forgotten rows against rows never trained on"),
    "auc_after": Metric("AUC after fine-tuning", AS_RETRAINED, "the same after fine-tuning on retained rows"),
    # membership
    "iam_on_forgotten": Metric("IAM-On forgotten", AS_RETRAINED, "mean membership score of forgotten samples"),
    "iam_on_retained": Metric("IAM-On retained", "", "mean membership score of retained samples"),
    "moved": Metric("moved", "", "relative change of the parameters"),
    "retain_epochs": Metric("epochs", "", "rows read, in passes over the retained samples"),
    "seconds": Metric("seconds", "", "for all forget sets together, including compilation"),
}  # fmt: skip


def headers(names: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Returns the column titles of these metrics.

    Example:
      >>> from jaxunlearn.metrics import headers
      >>> headers(["auc", "UA", "mse"])
      ('AUC ↑', 'UA', 'MSE ↓')
    """
    return tuple(METRICS[name].header for name in names)
