"""Groups of settings of analyses and studies."""

import dataclasses

from jaxunlearn.settings.fields import (
    MAX_LEVELS,
    MAX_RESAMPLES,
    field,
)


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """Experiments that join several stages."""

    kind: str = field("methods", "methods: all unlearning methods beside exact retraining; conformal: methods with and "
                      "without the conformal-guided loss; epsilon: epsilon-hat of many models of one forget set; "
                      "over_unlearning: methods with and without Over-Unlearning and Replay, under attack",
                      choices=("methods", "conformal", "epsilon", "over_unlearning"))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class AuditSettings:
    """How forgetting is measured and judged."""

    protocol: str = field(
        "all",
        "all = verdicts, binui, scoreui and shadow_sweep",
        choices=("all", "binui", "scoreui", "class_report", "shift", "arch_shift", "incremental", "shadow_sweep",
                 "sensitivity"),
    )  # fmt: skip
    scores: tuple[str, ...] = field(("all",), "names of the score table, or my_module:my_score; all = every one")
    unlearned: tuple[str, ...] = field(("retrained",), "roles that are audited: retrained, unlearned:METHOD, or "
                                        "unlearned:all for every method of unlearn.methods")  # fmt: skip
    dataset: str = field("", "data set whose published constants are used; empty = data.name")
    group_size: int = field(0, "shadow models per group, of which scores see one at a time; 0 = 1 in a run folder, all "
                             "of a file of arrays", low=0)  # fmt: skip
    groups: int = field(10, "at most so many groups of shadow models", low=1)
    interpolation_steps: int = field(
        0, "IAM: interpolation levels; 0 = 100, or what a file of arrays says", low=0, high=MAX_LEVELS
    )
    e1: float = field(0.0, "log-log signal: e1; 0 = the published constant", low=0.0)
    e2: float = field(0.0, "log-log signal: e2; 0 = the published constant", low=0.0)
    family: str = field("gumbel", "IAM: distribution", choices=("gumbel", "norm", "ecdf", "beta", "kde"))
    std: str = field("pooled", "IAM: spread over shadows and samples, or per sample over shadows",
                         choices=("pooled", "per_sample"))  # fmt: skip
    lira_variance: str = field("auto", "LiRA: auto = global with fewer than 128 shadows, else per sample",
                                choices=("auto", "global", "per_sample"))  # fmt: skip
    rmia_signal: str = field(
        "taylor_soft_margin",
        "RMIA: signal",
        choices=("softmax", "taylor", "soft_margin", "taylor_soft_margin", "carlini_logit"),
    )
    rmia_temperature: float = field(0.0, "RMIA: temperature; 0 = the published constant", low=0.0)
    rmia_offline_a: float = field(-1.0, "RMIA: offline_a in [0, 1]; -1 = the published constant, -2 = tuned on a "
                                   "shadow as pseudo-target", low=-2.0, high=1.0)  # fmt: skip
    rmia_gamma: float = field(2.0, "RMIA: ratio above which a population sample is dominated", low=0.0)
    min_k: float = field(20.0, "texts: per cent of the tokens that Min-K % and Min-K++ look at", low=0.01, high=100.0)
    surp_k: float = field(40.0, "texts: per cent of the tokens that SURP looks at", low=0.01, high=100.0)
    surp_entropy: float = field(2.0, "texts: entropy (nats) below which SURP counts a token", low=0.0)
    draws: int = field(1000, "texts: draws of the bootstrap table; 0 = no such table", low=0, high=MAX_RESAMPLES)
    confidence_level: float = field(0.95, "level of all intervals", low=0.5, high=0.9999)
    decision: str = field("auto", "the score that is named first, before any is computed: auto = iam_on (texts: "
                           "lm_iam), or the first of iam_off, lira_off, confidence (lm_ratio, lm_loss) that can "
                           "be computed")  # fmt: skip
    fdr: float = field(0.05, "verdicts: part of each kind of verdict that may be wrong", low=1e-6, high=0.5)
    strict: bool = field(False, "verdicts: FORGOTTEN only where less than half of what training left is still there")
    plan_shadows: bool = field(False, "only say which models and rows a verdict needs, and what they would show")
    shadow_runs: tuple[str, ...] = field((), "run folders whose shadows are used instead (shift, arch_shift, "
                                              "incremental)")  # fmt: skip
    forget_type: str = field("auto", "form of faithful LiRA-Off: random sets or classes; auto = as split.forget.kind",
                              choices=("auto", "set_random", "class"))  # fmt: skip
    counts: tuple[int, ...] = field((1, 2, 4, 8, 16, 32, 64, 128), "shadow_sweep: group sizes", low=1)
    sweep_e1: tuple[float, ...] = field((0.1, 0.01, 0.001), "sensitivity: values of e1", low=1e-9)
    sweep_e2: tuple[float, ...] = field((1e-3, 1e-5), "sensitivity: values of e2", low=1e-12)
    sweep_interpolation_steps: tuple[int, ...] = field(
        (2, 4, 8, 16, 32, 64, 128, 256), "sensitivity: interpolation levels", low=2, high=MAX_LEVELS
    )


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """The field's utility numbers and conformal metrics."""

    metrics: tuple[str, ...] = field(("all",), "groups: svc, thresholds, entropy, distances, conformal, miacr; all "
                                    "of these; distribution, which takes seconds per model")  # fmt: skip
    alphas: tuple[float, ...] = field((0.05, 0.1, 0.15, 0.2), "levels of the prediction sets, each in (0, 1)")
    report_alpha: float = field(0.0, "the level of tables and sentences, one of alphas; 0 = 0.1, or the first", low=0.0,
                            high=0.9999)  # fmt: skip
    score: str = field("lac", "non-conformity: lac = 1 - p, log = -log p, aps, raps",
                        choices=("lac", "log", "aps", "raps"))  # fmt: skip
    quantile_rule: str = field("published", "of the threshold: as published, which is one above the textbook's",
                       choices=("published", "textbook"))  # fmt: skip
    raps_lam: float = field(0.01, "raps: penalty per label behind place raps_k_reg", low=0.0)
    raps_k_reg: int = field(5, "raps: labels without penalty", low=0)
    qhat: str = field("retain", "whole classes forgotten: threshold of their samples from calibration rows of retained "
                       "classes, or of their own (published)", choices=("retain", "own"))  # fmt: skip
    strict: bool = field(True, "calibration sets that are too small, or lack a class of the test set, are errors")
    miacr_attack: str = field("threshold", "MIACR: threshold on the confidence (fast) or svc (published)",
                               choices=("threshold", "svc"))  # fmt: skip
    miacr_alpha: float = field(0.05, "MIACR: level", low=1e-4, high=0.9999)
    tsne_rows: int = field(1000, "distribution: at most so many samples per model are embedded; 0 = all (published)",
                           low=0)  # fmt: skip
    svc_rows: int = field(2000, "SVC attacks: at most so many shadow samples per side; 0 = all (published)", low=0)


@dataclasses.dataclass(frozen=True)
class EpsilonSettings:
    """epsilon-hat: N retrained against N unlearned models, per forgotten sample."""

    metric: str = field("both", "epsilon, the score of the NeurIPS-2023 challenge, or both",
                         choices=("both", "epsilon", "challenge"))  # fmt: skip
    delta: float = field(0.05, "the delta of epsilon-hat", low=0.0, high=0.999)
    score: str = field("gaussian", "what the attack looks at: Gaussian density ratio of margins, loss, or margin",
                        choices=("gaussian", "loss", "margin"))  # fmt: skip
    sweep: bool = field(True, "median epsilon-hat for delta = 0.00, 0.01 ... 0.98 as well")
    bootstrap: int = field(
        200, "resamples of the models for the intervals; 0 = no intervals", low=0, high=MAX_RESAMPLES
    )
    confidence_level: float = field(0.95, "level of intervals and of the proved lower bound", low=0.5, high=0.9999)
    histograms: int = field(
        3, "samples whose margins are drawn: from the hardest to the easiest to tell", low=0, high=8
    )
    approach: tuple[str, ...] = field((), "approaches of a file; empty = all; baseline = the retrained models split in "
                                           "two")  # fmt: skip
    samples: tuple[int, ...] = field((), "samples whose margins are drawn; empty = from the hardest to the easiest",
                                     low=0)  # fmt: skip
    bn_batch: int = field(100, "study: forgotten rows per batch where BatchNorm is in training mode", low=2)


@dataclasses.dataclass(frozen=True)
class CompatSettings:
    """Deviations from published implementations that change numbers: corrected, or faithful to the quirk."""

    records: str = field("corrected", "faithful: logits of training rows are taken through the training augmentation",
                          choices=("corrected", "faithful"))  # fmt: skip
    scores: str = field("corrected", "faithful: LiRA, IAM constants and Table 5 with the published code's quirks",
                         choices=("corrected", "faithful"))  # fmt: skip
    evaluate: str = field("corrected", "faithful: modified entropy, ZRF, MIACR of classes and the loss score of "
                           "epsilon-hat with the published quirks",
                           choices=("corrected", "faithful"))  # fmt: skip
    unlearn: str = field("corrected", "faithful: unlearning methods with the published code's quirks (docstrings)",
                          choices=("corrected", "faithful"))  # fmt: skip
    leaks: str = field("corrected", "faithful: answers of shards are added up, and attacks by logistic regression "
                       "judged, with the published quirks", choices=("corrected", "faithful"))  # fmt: skip
