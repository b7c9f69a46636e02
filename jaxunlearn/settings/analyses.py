"""Settings of analyses and studies."""

import dataclasses

from jaxunlearn.settings.fields import MAX_LEVELS, MAX_RESAMPLES, field


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """Studies: experiments of several stages."""

    kind: str = field("methods", "methods: all unlearning methods compared with exact retraining; conformal: methods "
                      "with and without the conformal-guided loss; epsilon: epsilon-hat of many models of one forget "
                      "set; over_unlearning: methods with and without Over-Unlearning and Replay, under attack",
                      choices=("methods", "conformal", "epsilon", "over_unlearning"))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class AuditSettings:
    """How forgetting is measured and judged."""

    protocol: str = field("all", "what to run; all = verdicts, binui, scoreui and shadow_sweep",
                          choices=("all", "binui", "scoreui", "class_report", "shift", "arch_shift", "incremental",
                                   "shadow_sweep", "sensitivity"))  # fmt: skip
    scores: tuple[str, ...] = field(("all",), "scores by name, or my_module:my_score; all = every one")
    unlearned: tuple[str, ...] = field(("retrained",), "models to audit: retrained, unlearned:METHOD, or unlearned:all "
                                       "for every method of unlearn.methods", of_runs=True)  # fmt: skip
    dataset: str = field("", "data set whose published constants are used; empty = data.name")
    group_size: int = field(0, "shadow models per group; scores use one group at a time; 0 = 1 for a run folder, all "
                            "for a file of arrays", low=0)  # fmt: skip
    groups: int = field(10, "maximum number of groups of shadow models", low=1)
    interpolation_steps: int = field(0, "IAM: number of interpolation steps; 0 = 100, or the number in a file of "
                                     "arrays", low=0, high=MAX_LEVELS)  # fmt: skip
    e1: float = field(0.0, "constant e1 of the log-log signal; 0 = the published value", low=0.0)
    e2: float = field(0.0, "constant e2 of the log-log signal; 0 = the published value", low=0.0)
    family: str = field("gumbel", "IAM: family of distributions", choices=("gumbel", "norm", "ecdf", "beta", "kde"))
    std: str = field("pooled", "IAM: standard deviation over shadows and samples, or per sample over shadows",
                     choices=("pooled", "per_sample"))  # fmt: skip
    lira_variance: str = field("auto", "LiRA: variance; auto = global with fewer than 128 shadows, else per sample",
                               choices=("auto", "global", "per_sample"))  # fmt: skip
    rmia_signal: str = field(
        "taylor_soft_margin",
        "RMIA: signal",
        choices=("softmax", "taylor", "soft_margin", "taylor_soft_margin", "carlini_logit"),
    )
    rmia_temperature: float = field(0.0, "RMIA: softmax temperature; 0 = the published value", low=0.0)
    rmia_offline_a: float = field(-1.0, "RMIA: offline_a in [0, 1]; -1 = the published value, -2 = tuned on a shadow "
                                  "as pseudo-target", low=-2.0, high=1.0)  # fmt: skip
    rmia_gamma: float = field(2.0, "RMIA: likelihood ratio (gamma) above which a sample dominates a population sample",
                              low=0.0)  # fmt: skip
    min_k: float = field(20.0, "texts: percentage of tokens used by Min-K % and Min-K++", low=0.01, high=100.0,
                         of_texts=True)  # fmt: skip
    surp_k: float = field(40.0, "texts: percentage of tokens used by SURP", low=0.01, high=100.0, of_texts=True)
    surp_entropy: float = field(2.0, "texts: entropy (nats) below which SURP uses a token", low=0.0, of_texts=True)
    draws: int = field(1000, "texts: resamples of the bootstrap table; 0 = no such table", low=0, high=MAX_RESAMPLES,
                       of_texts=True)  # fmt: skip
    confidence_level: float = field(0.95, "confidence level of all intervals", low=0.5, high=0.9999)
    decision: str = field("auto", "primary score, fixed before any score is computed: auto = iam_on (texts: lm_iam), "
                          "or the first of iam_off, lira_off, confidence (lm_ratio, lm_loss) "
                          "that can be computed")  # fmt: skip
    fdr: float = field(0.05, "verdicts: false discovery rate (FDR), the fraction of each kind of verdict that may be "
                       "wrong", low=1e-6, high=0.5)  # fmt: skip
    strict: bool = field(False, "verdicts: FORGOTTEN only if less than half of the effect of training remains")
    plan_shadows: bool = field(False, "only report which models and rows a verdict needs, and what they would show")
    shadow_runs: tuple[str, ...] = field((), "run folders whose shadow models are used instead (shift, arch_shift, "
                                         "incremental)", of_runs=True)  # fmt: skip
    forget_type: str = field("auto", "form of faithful LiRA-Off: random sets or classes; auto = by split.forget.kind",
                             choices=("auto", "set_random", "class"))  # fmt: skip
    counts: tuple[int, ...] = field((1, 2, 4, 8, 16, 32, 64, 128), "shadow_sweep: group sizes", low=1,
                                    of_protocol="shadow_sweep")  # fmt: skip
    sweep_e1: tuple[float, ...] = field((0.1, 0.01, 0.001), "sensitivity: values of e1", low=1e-9,
                                         of_protocol="sensitivity")  # fmt: skip
    sweep_e2: tuple[float, ...] = field((1e-3, 1e-5), "sensitivity: values of e2", low=1e-12,
                                         of_protocol="sensitivity")  # fmt: skip
    sweep_interpolation_steps: tuple[int, ...] = field((2, 4, 8, 16, 32, 64, 128, 256), "sensitivity: numbers of "
                                                       "interpolation steps", low=2, high=MAX_LEVELS,
                                                       of_protocol="sensitivity")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """Standard utility metrics and conformal metrics."""

    metrics: tuple[str, ...] = field(("all",), "groups of metrics: svc, thresholds, entropy, distances, conformal, "
                                     "miacr (all = these), and distribution (not part of all; takes "
                                     "seconds per model)")  # fmt: skip
    alphas: tuple[float, ...] = field((0.05, 0.1, 0.15, 0.2), "miscoverage levels of the prediction sets, each in (0, "
                                      "1)")  # fmt: skip
    report_alpha: float = field(0.0, "level shown in tables and sentences, one of alphas; 0 = 0.1, or the first",
                                low=0.0, high=0.9999)  # fmt: skip
    score: str = field("lac", "non-conformity score: lac = 1 - p, log = -log p, aps, raps",
                       choices=("lac", "log", "aps", "raps"))  # fmt: skip
    quantile_rule: str = field("published", "rank of the calibration quantile: published (one above the textbook rank) "
                               "or textbook", choices=("published", "textbook"))  # fmt: skip
    raps_lam: float = field(0.01, "raps: penalty per label beyond rank raps_k_reg", low=0.0)
    raps_k_reg: int = field(5, "raps: number of labels without penalty", low=0)
    qhat: str = field("retain", "threshold for samples of wholly forgotten classes: from calibration rows of retained "
                      "classes, or of the same class (published)", choices=("retain", "own"))  # fmt: skip
    strict: bool = field(True, "raise an error if the calibration set is too small or lacks a class of the test set")
    miacr_attack: str = field("threshold", "MIACR: membership attack: threshold on the confidence (fast) or svc "
                              "(published)", choices=("threshold", "svc"))  # fmt: skip
    miacr_alpha: float = field(0.05, "MIACR: miscoverage level", low=1e-4, high=0.9999)
    tsne_rows: int = field(1000, "distribution: maximum number of samples embedded per model; 0 = all (published)",
                           low=0)  # fmt: skip
    svc_rows: int = field(2000, "SVC attacks: maximum number of shadow samples per side; 0 = all (published)", low=0)


@dataclasses.dataclass(frozen=True)
class EpsilonSettings:
    """epsilon-hat: N retrained against N unlearned models, per forgotten sample."""

    metric: str = field("both", "epsilon-hat, the score of the NeurIPS-2023 challenge, or both",
                        choices=("both", "epsilon", "challenge"))  # fmt: skip
    delta: float = field(0.05, "delta of epsilon-hat", low=0.0, high=0.999)
    score: str = field("gaussian", "statistic of the attack: Gaussian density ratio of margins, loss, or margin",
                       choices=("gaussian", "loss", "margin"))  # fmt: skip
    sweep: bool = field(True, "also compute the median epsilon-hat for delta = 0.00, 0.01 ... 0.98")
    bootstrap: int = field(200, "bootstrap resamples of the models for the intervals; 0 = no intervals", low=0,
                           high=MAX_RESAMPLES)  # fmt: skip
    confidence_level: float = field(0.95, "confidence level of intervals and of the proven lower bound", low=0.5,
                                    high=0.9999)  # fmt: skip
    histograms: int = field(3, "number of samples whose margins are drawn, from the hardest to the easiest to tell "
                            "apart", low=0, high=8)  # fmt: skip
    approach: tuple[str, ...] = field((), "approaches of a file of arrays; empty = all; baseline = the retrained "
                                      "models split in two")  # fmt: skip
    samples: tuple[int, ...] = field((), "samples whose margins are drawn; empty = from the hardest to the easiest to "
                                     "tell apart", low=0)  # fmt: skip
    bn_batch: int = field(100, "study: forgotten rows per batch while BatchNorm is in training mode", low=2,
                          of_runs=True)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CompatSettings:
    """Deviations of published implementations that change numbers: corrected, or reproduced (faithful)."""

    records: str = field("corrected", "faithful: logits of training rows are recorded under the training augmentation",
                         choices=("corrected", "faithful"))  # fmt: skip
    scores: str = field("corrected", "faithful: LiRA, IAM constants and Table 5 with the quirks of the published code",
                        choices=("corrected", "faithful"))  # fmt: skip
    evaluate: str = field("corrected", "faithful: modified entropy, ZRF, MIACR of classes and the loss score of "
                          "epsilon-hat with the quirks of the published code",
                          choices=("corrected", "faithful"))  # fmt: skip
    unlearn: str = field("corrected", "faithful: unlearning methods with the quirks of the published code (see their "
                         "docstrings)", choices=("corrected", "faithful"))  # fmt: skip
    leaks: str = field("corrected", "faithful: SISA posteriors and logistic-regression attacks with the quirks of the "
                       "published code", choices=("corrected", "faithful"))  # fmt: skip
