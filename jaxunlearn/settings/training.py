"""Groups of settings that decide what is trained: data, split, network, recipe, shadows, audited models, the engine."""

import dataclasses

from jaxunlearn.settings.fields import MAX_EPOCHS, MAX_LENGTH, MAX_MODELS, MAX_WIDTH, field, section


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
