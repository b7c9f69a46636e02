"""Settings of training: data, split, network, recipe, shadow models, audited models, engine."""

import dataclasses

from jaxunlearn.settings.fields import MAX_EPOCHS, MAX_LENGTH, MAX_MODELS, MAX_WIDTH, field, section


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The data set and its preprocessing."""

    name: str = field("digits", "a source: digits, npz, csv, folder, texts, grammar, cifar10, ..., or "
                      "my_module:my_source")  # fmt: skip
    path: str = field("", "file or folder of the source; empty = its default location")
    cache: str = field("", "folder for decoded copies; empty = the user's cache folder")
    held_out: float = field(0.2, "fraction held out where a source has no test part of its own", low=0.01, high=0.9)
    train_rows: int = field(0, "use only the first N rows of the train pool; 0 = all", low=0)
    test_rows: int = field(0, "use only the first N rows of the held-out pool; 0 = all", low=0)
    ood_classes: tuple[str, ...] = field((), "classes, by name or number, that no model ever sees: their rows are kept "
                                         "as probes, and the remaining classes are renumbered")  # fmt: skip
    ood_subclasses: tuple[str, ...] = field((), "the same for fine classes (cifar20, or an .npz with an array fine)")
    label: str = field("", "csv: class column; empty = label, target, y or class if there is one, else the last column")
    id_column: str = field("", "csv: column of row ids, not used as a feature; empty = a column id with unique values, "
                           "else line numbers")  # fmt: skip
    categories: tuple[str, ...] = field((), "csv: numeric columns to treat as categories (e.g. postcodes)")
    ignore: tuple[str, ...] = field((), "csv: columns to leave out")
    size: int = field(32, "image size in pixels per side, for the sources folder and imagenet64", low=4, high=1024)
    augment: str = field("none", "training augmentation; gray = one picture in ten is converted to greyscale",
                         choices=("none", "flip", "crop", "flip_crop", "flip_crop_gray", "autoaugment"))  # fmt: skip
    pad: int = field(4, "pixels of padding per side before a random crop: black, with autoaugment mirrored", low=0,
                     high=64)  # fmt: skip
    normalise: bool = field(True, "subtract the mean of the train pool and divide by its standard deviation")
    length: int = field(256, "texts: maximum length of a row in data.unit; longer documents are cut into blocks", low=4,
                        high=MAX_LENGTH)  # fmt: skip
    unit: str = field("tokens", "texts: unit of data.length; words = blocks of whitespace-separated words, as MUSE "
                      "cuts its news", choices=("tokens", "words"))  # fmt: skip
    tokenizer: str = field("bytes", "texts: bytes (UTF-8), or my_module:my_tokenizer, a function from a string to a "
                            "list of token ids")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ForgetSettings:
    """The forget sets."""

    kind: str = field("set_random", "how forget sets are selected",
                      choices=("set_random", "one_class", "class_percentage", "classes", "subclass", "index_file",
                               "randperm"))  # fmt: skip
    count: int = field(10, "number of forget sets", low=1, high=MAX_MODELS)
    size: int = field(50, "rows per forget set (set_random, randperm)", low=1)
    classes: tuple[int, ...] = field((0,), "one_class, class_percentage, subclass (fine classes): forget set r uses "
                                      "classes[r % len]; classes: forget set r consists of classes[0] to "
                                      "classes[r]")  # fmt: skip
    fraction: float = field(0.1, "class_percentage: fraction of the class", low=0.0, high=1.0)
    path: str = field("", "index_file: .npy or .txt with row numbers of the data file, or .npz with one array per "
                      "forget set")  # fmt: skip
    seed: int = field(420, "randperm: seed of PyTorch's permutation (published: 420)", low=0, high=2**32 - 1)
    repeats: int = field(1, "number of retrained and unlearned models per forget set (different seeds)", low=1,
                         high=MAX_MODELS)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SplitSettings:
    """Which rows each model trains on."""

    shadow: int = field(800, "rows of the train pool reserved for shadow models; the rest is the target set (optml: 0, "
                        "or the number of its validation rows)", low=0)  # fmt: skip
    target: int = field(0, "rows of the target set; 0 = all remaining", low=0)
    test: int = field(0, "rows of the test set; 0 = half of the held-out pool", low=0)
    population: int = field(5000, "maximum number of held-out rows in the population (calibration) set", low=1)
    rng: str = field("numpy", "how rows are split: numpy = at random; mt19937 = IAM's published permutations, with "
                     "their fixed tails; optml = SalUn's splits", choices=("numpy", "mt19937", "optml"))  # fmt: skip
    forget: ForgetSettings = section(ForgetSettings)


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """The network."""

    name: str = field("cnn", "architecture: cnn, cnn_bn, mlp, resnet18, vgg16_bn, vit, ..., or my_module:my_model")
    hidden: tuple[int, ...] = field((), "mlp: widths of the hidden layers; empty = the architecture's default", low=1,
                                    high=MAX_WIDTH)  # fmt: skip
    width: int = field(0, "cnn, resnet, vgg, vit: base width; 0 = the architecture's default", low=0, high=MAX_WIDTH)
    dtype: str = field("float32", "compute dtype of training", choices=("float32", "bfloat16"))


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """The training recipe: SGD with momentum, L2 weight decay and a schedule, or Adam."""

    optimizer: str = field("sgd", "optimizer", choices=("sgd", "adam", "adamw"))
    learning_rate: float = field(0.1, "peak learning rate", low=0.0)
    momentum: float = field(0.9, "SGD momentum", low=0.0, high=0.9999)
    nesterov: bool = field(False, "Nesterov momentum")
    weight_decay: float = field(5e-4, "L2 weight decay of all parameters, added to the gradient (adamw: decoupled)",
                                low=0.0)  # fmt: skip
    l1: float = field(0.0, "L1 penalty on all parameters: l1 * sum |p| is added to the loss (sparse pretraining; "
                      "published 5e-5)", low=0.0)  # fmt: skip
    schedule: str = field("cosine", "learning-rate schedule", choices=("constant", "cosine", "step"))
    schedule_per: str = field("epoch", "whether the rate changes once per epoch or at every step",
                              choices=("epoch", "step"))  # fmt: skip
    schedule_epochs: int = field(0, "length of the cosine schedule in epochs; 0 = all epochs", low=0)
    milestones: tuple[int, ...] = field((), "step schedule: epochs at which the rate is multiplied by decay")
    decay: float = field(0.1, "step schedule: factor at each milestone", low=0.0, high=1.0)
    warmup_epochs: float = field(0.0, "epochs of linear warm-up from 0", low=0.0)
    epochs: int = field(20, "passes over each model's training rows", low=1, high=MAX_EPOCHS)
    batch: int = field(64, "batch size (rows per step)", low=1)
    label_smoothing: float = field(0.0, "label smoothing", low=0.0, high=1.0)
    keep: str = field("last", "weights to keep: those of the last epoch, or the best on held-out rows",
                       choices=("last", "best"))  # fmt: skip
    snapshots: tuple[int, ...] = field((), "epochs (1 = after the first) whose weights are saved too")


@dataclasses.dataclass(frozen=True)
class ShadowSettings:
    """The shadow models."""

    count: int = field(64, "number of shadow models", low=1, high=MAX_MODELS)
    ratio: float = field(0.8, "fraction of the pool that each shadow model trains on", low=0.0, high=1.0)
    pool: str = field("shadow", "rows that shadow models may train on: shadow set, target set, or both",
                      choices=("shadow", "target", "both"))  # fmt: skip
    learning_rate_factor: tuple[float, ...] = field((), "learning-rate factors of the shadow models, repeated "
                                                    "cyclically; empty = all 1")  # fmt: skip
    views: int = field(0, "number of augmented views recorded in addition to the clean one", low=0, high=64)


@dataclasses.dataclass(frozen=True)
class TargetSettings:
    """The audited models: originals, retrained models, and further models that scores need."""

    originals: str = field("per_set", "per_set = one original model per forget set; shared = ONE for all: intervals "
                           "then hold for that model only; crossed = split.forget.repeats originals, each combined "
                           "with every forget set", choices=("per_set", "shared", "crossed"))  # fmt: skip
    epochs: int = field(0, "training epochs of originals and retrained models; 0 = same as the shadow models", low=0,
                        high=MAX_EPOCHS)  # fmt: skip
    population_in: bool = field(True, "train a model on the population rows (IN models of online RMIA)")
    shadow_origin: bool = field(True, "train a model on all shadow rows (UnLeak's training pairs)")
    reference: int = field(0, "number of models trained on random subsets of the target rows, for standard online "
                           "LiRA; 0 = none", low=0, high=MAX_MODELS)  # fmt: skip
    reference_ratio: float = field(0.5, "fraction of the target rows that each reference model trains on", low=0.01,
                                   high=0.99)  # fmt: skip
    snapshots: int = field(10, "ScoreUI: number of training runs on all target rows that start from shadow weights; "
                           "0 = none", low=0, high=MAX_MODELS)  # fmt: skip
    breaks: int = field(20, "ScoreUI: number of equal steps between the first and the last saved epoch", low=1,
                        high=MAX_EPOCHS)  # fmt: skip
    snapshot_epochs: int = field(0, "ScoreUI: epochs per training run; 0 = same as originals and retrained models",
                                 low=0, high=MAX_EPOCHS)  # fmt: skip
    views: int = field(0, "number of augmented views recorded in addition to the clean one, for multi-query scores",
                       low=0, high=64)  # fmt: skip
    start: str = field("", "run folder whose originals and retrained models are trained further here (incremental "
                       "protocol)")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class EngineSettings:
    """How populations run on this machine. No setting changes results beyond float rounding."""

    mapping: str = field("auto", "how members run: one after another in one program (map), side by side (vmap), or in "
                         "a host loop (loop)", choices=("auto", "map", "vmap", "loop"))  # fmt: skip
    conv: str = field("auto", "convolution implementation (models/layers/conv.py)",
                      choices=("auto", "cpu", "native", "canonical", "im2col", "shift", "unrolled",
                               "grouped"))  # fmt: skip
    chunk: int = field(0, "members trained and checkpointed together; 0 = as many as fit into memory", low=0)
    group: int = field(0, "members side by side within a mapped program; 0 = chosen by platform", low=0)
    devices: int = field(0, "number of devices to use; 0 = all", low=0)
    memory: float = field(0.85, "maximum fraction of the free memory that a chunk may use", low=0.05, high=1.0)
    checkpoint_seconds: float = field(60.0, "minimum seconds between checkpoints within a chunk", low=0.0)
    logits_dtype: str = field("float32", "dtype of recorded logits", choices=("float32", "float16"))
    tune: bool = field(False, "time the candidate mappings on this machine first and remember the fastest")
