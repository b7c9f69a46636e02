"""The groups of settings: names, types, defaults, ranges and help texts, as frozen dataclasses.

`settings.Settings` joins them; a field is one line here.
"""

import dataclasses
from typing import Any

# Far above what anybody needs: a slip of the keyboard is refused instead of running for years.
MAX_MODELS, MAX_EPOCHS, MAX_WIDTH, MAX_LEVELS, MAX_RESAMPLES = 100_000, 100_000, 65_536, 10_000, 100_000
MAX_LENGTH = 1 << 20


def field(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = (),
    of_runs: bool = False,
) -> Any:  # fmt: skip
    """Declares a setting: its default, help, range or choices, and whether it says nothing about a user's arrays."""
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "of_runs": of_runs}
    return dataclasses.field(default=default, metadata=metadata)


def section(cls: type) -> Any:
    """A group within a group."""
    return dataclasses.field(default_factory=cls)


# Kinds of forget sets that are (parts of) whole classes.
CLASS_KINDS = ("one_class", "class_percentage", "classes")


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Which data, from where, how it is shown to the network."""

    name: str = field(
        "digits", "a source: digits, npz, csv, folder, texts, grammar, cifar10, ..., or my_module:my_source"
    )
    path: str = field("", "file or folder of the source; empty = its usual place")
    cache: str = field("", "folder for decoded copies; empty = the user's cache folder")
    held_out: float = field(0.2, "fraction held out where a source has no test part of its own", low=0.01, high=0.9)
    train_rows: int = field(0, "use only the first rows of the train pool; 0 = all", low=0)
    test_rows: int = field(0, "use only the first rows of the held-out pool; 0 = all", low=0)
    ood_classes: tuple[str, ...] = field((), "classes, by name or number, whose rows no model ever sees: they are kept "
                                         "apart as probes, and the other classes are numbered anew")  # fmt: skip
    ood_subclasses: tuple[str, ...] = field((), "the same for fine classes (cifar20, or an .npz with an array fine)")
    label: str = field("", "csv: column of the class; empty = the one called label, target, y or class, else the last")
    id_column: str = field("", "csv: column that names the rows and is no feature; empty = one called id whose values "
                           "all differ, else rows are named by their lines")  # fmt: skip
    categories: tuple[str, ...] = field((), "csv: columns whose numbers name categories (postcodes)")
    ignore: tuple[str, ...] = field((), "csv: columns that are left out")
    size: int = field(32, "pixels per side for the sources folder and imagenet64", low=4, high=1024)
    augment: str = field("none", "training augmentation; gray = one picture in ten loses its colours",
                          choices=("none", "flip", "crop", "flip_crop", "flip_crop_gray", "autoaugment"))  # fmt: skip
    pad: int = field(
        4, "pixels added on each side before a random crop: black, with autoaugment mirrored", low=0, high=64
    )
    normalise: bool = field(True, "subtract the mean and divide by the deviation of the train pool")
    length: int = field(256, "texts: longest row; longer documents are cut into blocks", low=4, high=MAX_LENGTH)
    unit: str = field("tokens", "texts: what data.length counts; words = blocks of whitespace-separated words, as MUSE "
                       "cuts its news", choices=("tokens", "words"))  # fmt: skip
    tokenizer: str = field("bytes", "texts: bytes (UTF-8), or my_module:my_tokenizer, a function from a string to a "
                            "list of token ids")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ForgetSettings:
    """What is asked to be forgotten."""

    kind: str = field(
        "set_random",
        "how forget sets are chosen",
        choices=("set_random", "one_class", "class_percentage", "classes", "subclass", "index_file", "randperm"),
    )
    count: int = field(10, "number of forget sets", low=1, high=MAX_MODELS)
    size: int = field(50, "rows per forget set (set_random, randperm)", low=1)
    classes: tuple[int, ...] = field((0,), "one_class, class_percentage: forget set r takes class classes[r % len]; "
                                      "subclass: likewise, of the fine classes")  # fmt: skip
    fraction: float = field(0.1, "class_percentage: fraction of the class", low=0.0, high=1.0)
    path: str = field("", "index_file: .npy or .txt with row numbers of the data's file, or .npz with an array per set")
    seed: int = field(420, "randperm: seed of PyTorch's permutation (published: 420)", low=0, high=2**32 - 1)
    repeats: int = field(
        1,
        "each set so many times: as many retrained and unlearned models of it, by other draws",
        low=1,
        high=MAX_MODELS,
    )


@dataclasses.dataclass(frozen=True)
class SplitSettings:
    """Who trains on what."""

    shadow: int = field(800, "rows of the train pool kept for shadow models; the rest is the target set (optml: 0, or "
                         "its number of validation rows)", low=0)  # fmt: skip
    target: int = field(0, "rows of the target set; 0 = all that are left", low=0)
    test: int = field(0, "rows of the test set; 0 = half of the held-out pool", low=0)
    population: int = field(5000, "at most this many held-out rows form the population (calibration) set", low=1)
    rng: str = field(
        "numpy",
        "numpy = fully random; mt19937 = IAM's published permutations, with their fixed tails; optml = SalUn's splits",
        choices=("numpy", "mt19937", "optml"),
    )
    forget: ForgetSettings = section(ForgetSettings)


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """The network."""

    name: str = field("cnn", "an architecture of the README table, or my_module:my_model")
    hidden: tuple[int, ...] = field(
        (), "mlp: widths of the hidden layers; empty = the architecture's own", low=1, high=MAX_WIDTH
    )
    width: int = field(0, "cnn, resnet, vgg, vit: base width; 0 = the architecture's own", low=0, high=MAX_WIDTH)
    dtype: str = field("float32", "compute type of training", choices=("float32", "bfloat16"))


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """The recipe: SGD with momentum, L2 weight decay and a schedule, or Adam."""

    optimizer: str = field("sgd", "optimizer", choices=("sgd", "adam", "adamw"))
    learning_rate: float = field(0.1, "peak learning rate", low=0.0)
    momentum: float = field(0.9, "SGD momentum", low=0.0, high=0.9999)
    nesterov: bool = field(False, "Nesterov momentum")
    weight_decay: float = field(5e-4, "L2 on every parameter, added to the gradient (adamw: decoupled)", low=0.0)
    l1: float = field(0.0, "L1 on every parameter: l1 * sum |p| is added to the loss (sparse pretraining, published "
                      "5e-5)", low=0.0)  # fmt: skip
    schedule: str = field("cosine", "learning-rate schedule", choices=("constant", "cosine", "step"))
    schedule_per: str = field("epoch", "the rate changes once per epoch or at every step", choices=("epoch", "step"))
    schedule_epochs: int = field(0, "length of the cosine; 0 = as many as epochs", low=0)
    milestones: tuple[int, ...] = field((), "step schedule: epochs from which the rate is multiplied by decay")
    decay: float = field(0.1, "step schedule: factor at each milestone", low=0.0, high=1.0)
    warmup_epochs: float = field(0.0, "linear warm-up from 0 over so many epochs", low=0.0)
    epochs: int = field(20, "passes over the member's own rows", low=1, high=MAX_EPOCHS)
    batch: int = field(64, "rows per step", low=1)
    label_smoothing: float = field(0.0, "label smoothing", low=0.0, high=1.0)
    keep: str = field("last", "weights that are kept: of the last epoch, or the best on held-out rows",
                       choices=("last", "best"))  # fmt: skip
    snapshots: tuple[int, ...] = field((), "epochs (1 = after the first) whose weights are kept as well")


@dataclasses.dataclass(frozen=True)
class ShadowSettings:
    """The shadow population."""

    count: int = field(64, "number of shadow models", low=1, high=MAX_MODELS)
    ratio: float = field(0.8, "fraction of the pool that one shadow model trains on", low=0.0, high=1.0)
    pool: str = field("shadow", "rows that shadows may train on: shadow set, target set, or both",
                       choices=("shadow", "target", "both"))  # fmt: skip
    learning_rate_factor: tuple[float, ...] = field((), "per member factors of the rate, cycled; empty = all 1")
    views: int = field(0, "augmented views recorded beside the clean one", low=0, high=64)


@dataclasses.dataclass(frozen=True)
class TargetSettings:
    """The audited side: originals, exact retrains, and what the scores need beside them."""

    originals: str = field("per_set", "an original model for every forget set; shared = ONE for all: intervals then "
                            "hold for that model only; crossed = split.forget.repeats originals, every one for every "
                            "forget set", choices=("per_set", "shared", "crossed"))  # fmt: skip
    epochs: int = field(0, "epochs of originals and retrains; 0 = as the shadows", low=0, high=MAX_EPOCHS)
    population_in: bool = field(True, "train a model on the population rows (IN side of online RMIA)")
    shadow_origin: bool = field(True, "train a model on all shadow rows (UnLeak's training pairs)")
    reference: int = field(
        0, "models on random halves of the target rows, for standard online LiRA", low=0, high=MAX_MODELS
    )
    reference_ratio: float = field(0.5, "fraction of the target rows that one reference model trains on",
                                    low=0.01, high=0.99)  # fmt: skip
    snapshots: int = field(
        10, "ScoreUI: trainings of all target rows that start from shadow weights; 0 = none", low=0, high=MAX_MODELS
    )
    breaks: int = field(20, "ScoreUI: equal steps between the first and the last kept epoch", low=1, high=MAX_EPOCHS)
    snapshot_epochs: int = field(
        0, "ScoreUI: epochs of these trainings; 0 = as originals and retrains", low=0, high=MAX_EPOCHS
    )
    views: int = field(0, "augmented views recorded beside the clean one, for multi-query scores", low=0, high=64)
    start: str = field("", "run folder whose originals and retrains are trained on from here (incremental protocol)")


@dataclasses.dataclass(frozen=True)
class SweepSettings:
    """Values of hyperparameters that are tried side by side, as further members of one population; empty = no sweep."""

    lr: tuple[float, ...] = field((), "learning rate", low=0.0)
    alpha: tuple[float, ...] = field((), "the method's alpha (selection, weight, step, noise)")
    lam: tuple[float, ...] = field((), "the method's lambda (dampening)")
    beta: tuple[float, ...] = field((), "the method's beta")
    gamma: tuple[float, ...] = field((), "the method's gamma")
    fraction: tuple[float, ...] = field((), "part of the parameters or rows", low=0.0, high=1.0)
    quantile: tuple[float, ...] = field((), "quantile of the pruning rules", low=0.0, high=1.0)
    weight_decay: tuple[float, ...] = field((), "weight decay", low=0.0)


@dataclasses.dataclass(frozen=True)
class ConformalSettings:
    """The conformal-guided loss around unlearning methods (METHOD+conformal)."""

    enable: bool = field(False, "every method of unlearn.methods is wrapped; or name single ones METHOD+conformal")
    lamda: tuple[float, ...] = field((), "weight of the loss, several = a sweep; empty = 0.085, pairwise 0.5", low=0.0)
    delta: float = field(0.01, "margin beyond the threshold", low=0.0)
    alpha: float = field(0.05, "level of the threshold", low=1e-4, high=0.9999)
    pairwise: bool = field(False, "each row with the labels of all rows, as published; compat.unlearn=faithful sets it")
    batch: int = field(16, "rows to forget per step; 0 = the run's batch", low=0)
    calibration: int = field(0, "the threshold of the loss is taken on so many test rows (published 1000, of a class "
                                 "200); 0 = on the population rows", low=0)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class UnlearnSettings:
    """Approximate unlearning."""

    methods: tuple[str, ...] = field(("all",), "names of the method table, or my_module:my_method; all = every one")
    options: tuple[str, ...] = field((), "hyperparameters: ssd.alpha=5 for one method, epochs=3 for all that have it")
    dataset: str = field("", "data set whose published hyperparameters are used; empty = data.name")
    bn: str = field("auto", "BatchNorm: auto = the method's own, frozen, recalibrate on retained rows, faithful, or "
                     "first_epoch (training mode in the first epoch only)",
                     choices=("auto", "frozen", "recalibrate", "faithful", "first_epoch"))  # fmt: skip
    augment: bool = field(True, "unlearning sees the training augmentation (data.augment)")
    conformal: ConformalSettings = section(ConformalSettings)
    sweep: SweepSettings = section(SweepSettings)
    sweeps: tuple[str, ...] = field((), "further sweeps, of any hyperparameter that is a float: strength=0.1;0.2")


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
    levels: int = field(0, "IAM: interpolation levels; 0 = 100, or what a file of arrays says", low=0, high=MAX_LEVELS)
    e1: float = field(0.0, "log-log signal: e1; 0 = the published constant", low=0.0)
    e2: float = field(0.0, "log-log signal: e2; 0 = the published constant", low=0.0)
    family: str = field("gumbel", "IAM: distribution", choices=("gumbel", "norm", "ecdf", "beta", "kde"))
    spread: str = field("pooled", "IAM: spread over shadows and samples, or per sample over shadows",
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
    interval: float = field(0.95, "level of all intervals", low=0.5, high=0.9999)
    decision: str = field("auto", "the score that is named first, before any is computed: auto = iam_on (texts: "
                           "lm_iam), or the first of iam_off, lira_off, confidence (lm_ratio, lm_loss) that can "
                           "be computed")  # fmt: skip
    level: float = field(0.05, "verdicts: part of each kind of verdict that may be wrong", low=1e-6, high=0.5)
    strict: bool = field(False, "verdicts: FORGOTTEN only where less than half of what training left is still there")
    plan_shadows: bool = field(False, "only say which models and rows a verdict needs, and what they would show")
    shadow_runs: tuple[str, ...] = field((), "run folders whose shadows are used instead (shift, arch_shift, "
                                              "incremental)")  # fmt: skip
    forget_type: str = field("auto", "form of faithful LiRA-Off: random sets or classes; auto = as split.forget.kind",
                              choices=("auto", "set_random", "class"))  # fmt: skip
    counts: tuple[int, ...] = field((1, 2, 4, 8, 16, 32, 64, 128), "shadow_sweep: group sizes", low=1)
    sweep_e1: tuple[float, ...] = field((0.1, 0.01, 0.001), "sensitivity: values of e1", low=1e-9)
    sweep_e2: tuple[float, ...] = field((1e-3, 1e-5), "sensitivity: values of e2", low=1e-12)
    sweep_levels: tuple[int, ...] = field(
        (2, 4, 8, 16, 32, 64, 128, 256), "sensitivity: interpolation levels", low=2, high=MAX_LEVELS
    )


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """The field's utility numbers and conformal metrics."""

    metrics: tuple[str, ...] = field(("all",), "groups: svc, thresholds, entropy, distances, conformal, miacr; all "
                                    "of these; distribution, which takes seconds per model")  # fmt: skip
    alphas: tuple[float, ...] = field((0.05, 0.1, 0.15, 0.2), "levels of the prediction sets, each in (0, 1)")
    headline: float = field(0.0, "the level of tables and sentences, one of alphas; 0 = 0.1, or the first", low=0.0,
                            high=0.9999)  # fmt: skip
    score: str = field("lac", "non-conformity: lac = 1 - p, log = -log p, aps, raps",
                        choices=("lac", "log", "aps", "raps"))  # fmt: skip
    rank: str = field("reference", "of the threshold: reference = as published, one above the textbook's",
                       choices=("reference", "textbook"))  # fmt: skip
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
    level: float = field(0.95, "level of intervals and of the proved lower bound", low=0.5, high=0.9999)
    histograms: int = field(
        3, "samples whose margins are drawn: from the hardest to the easiest to tell", low=0, high=8
    )
    approach: tuple[str, ...] = field((), "approaches of a file; empty = all; baseline = the retrained models split in "
                                           "two")  # fmt: skip
    samples: tuple[int, ...] = field((), "samples whose margins are drawn; empty = from the hardest to the easiest",
                                     low=0)  # fmt: skip
    bn_batch: int = field(100, "study: forgotten rows per batch where BatchNorm is in training mode", low=2)


@dataclasses.dataclass(frozen=True)
class EngineSettings:
    """How populations are mapped onto the machine. None of these changes the numbers beyond float rounding."""

    mapping: str = field("auto", "members one after another inside one program, side by side, or a host loop",
                          choices=("auto", "map", "vmap", "loop"))  # fmt: skip
    conv: str = field("auto", "form of the convolutions (models/layers/conv.py)",
                       choices=("auto", "cpu", "native", "canonical", "im2col", "shift", "unrolled",
                                "grouped"))  # fmt: skip
    chunk: int = field(0, "members trained and checkpointed together; 0 = as many as memory holds", low=0)
    group: int = field(0, "members side by side inside a mapped program; 0 = by platform", low=0)
    devices: int = field(0, "devices over which members are spread; 0 = all", low=0)
    memory: float = field(0.85, "fraction of the free memory that a chunk may fill", low=0.05, high=1.0)
    checkpoint_seconds: float = field(60.0, "least time between checkpoints inside a chunk", low=0.0)
    logits_dtype: str = field("float32", "type of recorded logits", choices=("float32", "float16"))
    tune: bool = field(False, "time the candidate mappings on this machine first and remember the best")


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
