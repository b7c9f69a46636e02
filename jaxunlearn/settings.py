"""Settings: the one source of names, types, defaults, ranges and help texts.

A config file starts from `defaults()`, a locked ConfigDict made from the frozen dataclasses below, and changes what
differs. `resolve(config)` turns it back into a frozen `Settings`, after checking every name, type and range; what needs
the data (sizes against rows, files that must exist) is checked where the data is known, still before any training.
"""

import dataclasses
import difflib
import os
import pathlib
import types
import typing
from typing import Any

import ml_collections

from jaxunlearn import checks, errors


def _field(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = ()
) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


def _section(cls: type) -> Any:
    return dataclasses.field(default_factory=cls)


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Which data, from where, how it is shown to the network."""

    name: str = _field("digits", "a source: digits, npz, folder, cifar10, ..., or my_module:my_source")
    path: str = _field("", "file or folder of the source; empty = its usual place")
    cache: str = _field("", "folder for decoded copies; empty = the user's cache folder")
    held_out: float = _field(0.2, "fraction held out where a source has no test part of its own", low=0.01, high=0.9)
    train_rows: int = _field(0, "use only the first rows of the train pool; 0 = all", low=0)
    test_rows: int = _field(0, "use only the first rows of the held-out pool; 0 = all", low=0)
    size: int = _field(32, "pixels per side for the folder source", low=4, high=1024)
    augment: str = _field("none", "training augmentation", choices=("none", "flip", "crop", "flip_crop"))
    pad: int = _field(4, "black pixels added on each side before a random crop", low=0, high=64)
    normalise: bool = _field(True, "subtract the mean and divide by the deviation of the train pool")


@dataclasses.dataclass(frozen=True)
class ForgetSettings:
    """What is asked to be forgotten."""

    kind: str = _field(
        "set_random",
        "how forget sets are chosen",
        choices=("set_random", "one_class", "class_percentage", "classes", "index_file"),
    )
    count: int = _field(10, "number of forget sets", low=1)
    size: int = _field(50, "rows per forget set (set_random)", low=1)
    classes: tuple[int, ...] = _field((0,), "one_class, class_percentage: forget set r takes class classes[r % len]")
    fraction: float = _field(0.1, "class_percentage: fraction of the class", low=0.0, high=1.0)
    path: str = _field("", "index_file: .npy or .txt with rows of the train pool, or .npz with one array per set")


@dataclasses.dataclass(frozen=True)
class SplitSettings:
    """Who trains on what."""

    shadow: int = _field(800, "rows of the train pool kept for shadow models; the rest is the target set", low=2)
    target: int = _field(0, "rows of the target set; 0 = all that are left", low=0)
    population: int = _field(5000, "at most this many held-out rows form the population (calibration) set", low=1)
    rng: str = _field(
        "numpy",
        "numpy = fully random; mt19937 = the published permutations, with their fixed tails",
        choices=("numpy", "mt19937"),
    )
    forget: ForgetSettings = _section(ForgetSettings)


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """The network."""

    name: str = _field("cnn", "an architecture of the README table, or my_module:my_model")
    hidden: tuple[int, ...] = _field((), "mlp: widths of the hidden layers; empty = the architecture's own")
    width: int = _field(0, "cnn, resnet, vit: base width; 0 = the architecture's own", low=0)
    dtype: str = _field("float32", "compute type of training", choices=("float32", "bfloat16"))


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """The recipe: SGD with momentum, L2 weight decay and a schedule, or Adam."""

    optimizer: str = _field("sgd", "optimizer", choices=("sgd", "adam", "adamw"))
    learning_rate: float = _field(0.1, "peak learning rate", low=0.0)
    momentum: float = _field(0.9, "SGD momentum", low=0.0, high=0.9999)
    nesterov: bool = _field(False, "Nesterov momentum")
    weight_decay: float = _field(5e-4, "L2 on every parameter, added to the gradient (adamw: decoupled)", low=0.0)
    schedule: str = _field("cosine", "learning-rate schedule", choices=("constant", "cosine", "step"))
    schedule_per: str = _field("epoch", "the rate changes once per epoch or at every step", choices=("epoch", "step"))
    schedule_epochs: int = _field(0, "length of the cosine; 0 = as many as epochs", low=0)
    milestones: tuple[int, ...] = _field((), "step schedule: epochs from which the rate is multiplied by decay")
    decay: float = _field(0.1, "step schedule: factor at each milestone", low=0.0, high=1.0)
    warmup_epochs: float = _field(0.0, "linear warm-up from 0 over so many epochs", low=0.0)
    epochs: int = _field(20, "passes over the member's own rows", low=1)
    batch: int = _field(64, "rows per step", low=1)
    label_smoothing: float = _field(0.0, "label smoothing", low=0.0, high=1.0)
    keep: str = _field("last", "weights that are kept: of the last epoch, or the best on held-out rows",
                       choices=("last", "best"))  # fmt: skip
    snapshots: tuple[int, ...] = _field((), "epochs (1 = after the first) whose weights are kept as well")


@dataclasses.dataclass(frozen=True)
class ShadowSettings:
    """The shadow population."""

    count: int = _field(64, "number of shadow models", low=1)
    ratio: float = _field(0.8, "fraction of the pool that one shadow model trains on", low=0.0, high=1.0)
    pool: str = _field("shadow", "rows that shadows may train on: shadow set, target set, or both",
                       choices=("shadow", "target", "both"))  # fmt: skip
    learning_rate_factor: tuple[float, ...] = _field((), "per member factors of the rate, cycled; empty = all 1")
    views: int = _field(0, "augmented views recorded beside the clean one", low=0, high=64)


@dataclasses.dataclass(frozen=True)
class TargetSettings:
    """The audited side: originals, exact retrains, and what the scores need beside them."""

    originals: str = _field("shared", "one original model for all forget sets, or one per forget set",
                            choices=("shared", "per_set"))  # fmt: skip
    epochs: int = _field(0, "epochs of originals and retrains; 0 = as the shadows", low=0)
    population_in: bool = _field(True, "train a model on the population rows (IN side of online RMIA)")
    shadow_origin: bool = _field(True, "train a model on all shadow rows (UnLeak's training pairs)")
    reference: int = _field(0, "models on random halves of the target rows, for standard online LiRA", low=0)
    reference_ratio: float = _field(0.5, "fraction of the target rows that one reference model trains on",
                                    low=0.01, high=0.99)  # fmt: skip
    snapshots: int = _field(10, "ScoreUI: trainings of all target rows that start from shadow weights; 0 = none", low=0)
    breaks: int = _field(20, "ScoreUI: equal steps between the first and the last kept epoch", low=1)
    snapshot_epochs: int = _field(0, "ScoreUI: epochs of these trainings; 0 = as originals and retrains", low=0)
    views: int = _field(0, "augmented views recorded beside the clean one, for multi-query scores", low=0, high=64)
    start: str = _field("", "run folder whose originals and retrains are trained on from here (incremental protocol)")


@dataclasses.dataclass(frozen=True)
class SweepSettings:
    """Values of hyperparameters that are tried side by side, as further members of one population; empty = no sweep."""

    lr: tuple[float, ...] = _field((), "learning rate", low=0.0)
    alpha: tuple[float, ...] = _field((), "the method's alpha (selection, weight, step, noise)")
    lam: tuple[float, ...] = _field((), "the method's lambda (dampening)")
    beta: tuple[float, ...] = _field((), "the method's beta")
    gamma: tuple[float, ...] = _field((), "the method's gamma")
    fraction: tuple[float, ...] = _field((), "part of the parameters or rows", low=0.0, high=1.0)
    quantile: tuple[float, ...] = _field((), "quantile of the pruning rules", low=0.0, high=1.0)
    weight_decay: tuple[float, ...] = _field((), "weight decay", low=0.0)


@dataclasses.dataclass(frozen=True)
class UnlearnSettings:
    """Approximate unlearning."""

    methods: tuple[str, ...] = _field(("all",), "names of the method table, or my_module:my_method; all = every one")
    options: tuple[str, ...] = _field((), "hyperparameters: ssd.alpha=5 for one method, epochs=3 for all that have it")
    dataset: str = _field("", "data set whose published hyperparameters are used; empty = data.name")
    bn: str = _field("auto", "BatchNorm: auto = the method's own, frozen, recalibrate on retained rows, faithful, or "
                     "first_epoch (training mode in the first epoch only)",
                     choices=("auto", "frozen", "recalibrate", "faithful", "first_epoch"))  # fmt: skip
    augment: bool = _field(True, "unlearning sees the training augmentation (data.augment)")
    sweep: SweepSettings = _section(SweepSettings)


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """Experiments that join several stages."""

    kind: str = _field("methods", "methods: all unlearning methods beside exact retraining", choices=("methods",))


@dataclasses.dataclass(frozen=True)
class AuditSettings:
    """How forgetting is measured and judged."""

    protocol: str = _field(
        "all",
        "all = verdicts, binui, scoreui and shadow_sweep",
        choices=("all", "binui", "scoreui", "class_report", "shift", "arch_shift", "incremental", "shadow_sweep",
                 "sensitivity"),
    )  # fmt: skip
    scores: tuple[str, ...] = _field(("all",), "names of the score table, or my_module:my_score; all = every one")
    unlearned: tuple[str, ...] = _field(("retrained",), "roles that are audited: retrained, unlearned:METHOD, or "
                                        "unlearned:all for every method of unlearn.methods")  # fmt: skip
    dataset: str = _field("", "data set whose published constants are used; empty = data.name")
    group_size: int = _field(1, "shadow models per group; scores see one group at a time", low=1)
    groups: int = _field(10, "at most so many groups of shadow models", low=1)
    levels: int = _field(100, "IAM: interpolation levels", low=2)
    e1: float = _field(0.0, "log-log signal: e1; 0 = the published constant", low=0.0)
    e2: float = _field(0.0, "log-log signal: e2; 0 = the published constant", low=0.0)
    family: str = _field("gumbel", "IAM: distribution", choices=("gumbel", "norm", "ecdf", "beta", "kde"))
    spread: str = _field("pooled", "IAM: spread over shadows and samples, or per sample over shadows",
                         choices=("pooled", "per_sample"))  # fmt: skip
    lira_variance: str = _field("auto", "LiRA: auto = global with fewer than 128 shadows, else per sample",
                                choices=("auto", "global", "per_sample"))  # fmt: skip
    rmia_signal: str = _field(
        "taylor_soft_margin",
        "RMIA: signal",
        choices=("softmax", "taylor", "soft_margin", "taylor_soft_margin", "carlini_logit"),
    )
    rmia_temperature: float = _field(0.0, "RMIA: temperature; 0 = the published constant", low=0.0)
    rmia_offline_a: float = _field(-1.0, "RMIA: offline_a in [0, 1]; -1 = the published constant, -2 = tuned on a "
                                   "shadow as pseudo-target", low=-2.0, high=1.0)  # fmt: skip
    rmia_gamma: float = _field(2.0, "RMIA: ratio above which a population sample is dominated", low=0.0)
    interval: float = _field(0.95, "level of all intervals", low=0.5, high=0.9999)
    decision: str = _field("auto", "score of the per-sample verdicts: auto = iam_off (iam_on with the retrained "
                           "null), or lira_off without its arrays; none = no verdicts")  # fmt: skip
    calibration: str = _field("auto", "null of the verdicts: each shadow as the unlearned model, population samples in "
                              "the audited model, or exact retrains of other forget sets; auto = shadows unless "
                              "measured to be too eager, then population",
                              choices=("auto", "retrained", "shadows", "population"))  # fmt: skip
    level: float = _field(0.05, "verdicts: false discovery rate", low=1e-6, high=0.5)
    shadow_runs: tuple[str, ...] = _field((), "run folders whose shadows are used instead (shift, arch_shift, "
                                              "incremental)")  # fmt: skip
    counts: tuple[int, ...] = _field((1, 2, 4, 8, 16, 32, 64, 128), "shadow_sweep: group sizes", low=1)
    sweep_e1: tuple[float, ...] = _field((0.1, 0.01, 0.001), "sensitivity: values of e1", low=1e-9)
    sweep_e2: tuple[float, ...] = _field((1e-3, 1e-5), "sensitivity: values of e2", low=1e-12)
    sweep_levels: tuple[int, ...] = _field((2, 4, 8, 16, 32, 64, 128, 256), "sensitivity: interpolation levels", low=2)


@dataclasses.dataclass(frozen=True)
class EngineSettings:
    """How populations are mapped onto the machine. None of these changes the numbers beyond float rounding."""

    mapping: str = _field("auto", "members one after another inside one program, side by side, or a host loop",
                          choices=("auto", "map", "vmap", "loop"))  # fmt: skip
    conv: str = _field("auto", "form of the convolutions (models/conv.py)",
                       choices=("auto", "cpu", "native", "canonical", "im2col", "shift", "unrolled",
                                "grouped"))  # fmt: skip
    chunk: int = _field(0, "members trained and checkpointed together; 0 = as many as memory holds", low=0)
    group: int = _field(0, "members side by side inside a mapped program; 0 = by platform", low=0)
    devices: int = _field(0, "devices over which members are spread; 0 = all", low=0)
    memory: float = _field(0.85, "fraction of the free memory that a chunk may fill", low=0.05, high=1.0)
    checkpoint_seconds: float = _field(60.0, "least time between checkpoints inside a chunk", low=0.0)
    logits_dtype: str = _field("float32", "type of recorded logits", choices=("float32", "float16"))
    tune: bool = _field(False, "time the candidate mappings on this machine first and remember the best")


@dataclasses.dataclass(frozen=True)
class CompatSettings:
    """Deviations from published implementations that change numbers: corrected, or faithful to the quirk."""

    records: str = _field("corrected", "faithful: logits of training rows are taken through the training augmentation",
                          choices=("corrected", "faithful"))  # fmt: skip
    scores: str = _field("corrected", "faithful: LiRA, IAM constants and Table 5 with the published code's quirks",
                         choices=("corrected", "faithful"))  # fmt: skip
    unlearn: str = _field("corrected", "faithful: unlearning methods with the published code's quirks (docstrings)",
                          choices=("corrected", "faithful"))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything one run depends on."""

    seed: int = _field(42, "the root of all random draws", low=0, high=2**32 - 1)
    data: DataSettings = _section(DataSettings)
    split: SplitSettings = _section(SplitSettings)
    model: ModelSettings = _section(ModelSettings)
    train: TrainSettings = _section(TrainSettings)
    shadows: ShadowSettings = _section(ShadowSettings)
    targets: TargetSettings = _section(TargetSettings)
    unlearn: UnlearnSettings = _section(UnlearnSettings)
    audit: AuditSettings = _section(AuditSettings)
    study: StudySettings = _section(StudySettings)
    engine: EngineSettings = _section(EngineSettings)
    compat: CompatSettings = _section(CompatSettings)


def cache_folder() -> pathlib.Path:
    """The user's cache folder of this package: `$XDG_CACHE_HOME/jaxunlearn`, else `~/.cache/jaxunlearn`."""
    home = os.path.expandvars(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return pathlib.Path(home).expanduser() / "jaxunlearn"


def to_dict(settings: Any) -> dict[str, Any]:
    """A settings dataclass as nested plain dicts; tuples stay tuples."""
    return {
        field.name: to_dict(value) if dataclasses.is_dataclass(value) else value
        for field in dataclasses.fields(settings)
        for value in [getattr(settings, field.name)]
    }


# Published recipes that several experiments share; sizes and counts are the experiments' own.
RECIPES: dict[str, dict[str, Any]] = {
    # Every smoke variant: as many ScoreUI trainings as it has shadows to start from.
    "smoke": {"targets.snapshots": 2, "targets.breaks": 4},
    # IAM, section on training: every image model.
    "iam_vision": {
        "data.augment": "flip_crop",
        "split.forget.size": 500,
        "model.name": "resnet18",
        "train.learning_rate": 0.1,
        "train.epochs": 201,
        "train.schedule_epochs": 200,
        "train.batch": 128,
    },
    # IAM: shadow models of Purchase and Texas.
    "iam_tabular": {
        "split.forget.size": 500,
        "train.learning_rate": 0.01,
        "train.epochs": 201,
        "train.schedule_epochs": 200,
        "train.batch": 128,
    },
}


def defaults(recipe: str = "") -> ml_collections.ConfigDict:
    """The default settings, with a recipe of `RECIPES` if one is named, as a locked ConfigDict to start from."""
    config = ml_collections.ConfigDict(to_dict(Settings()))
    if recipe:
        checks.choice("recipe", recipe, RECIPES)
        config.update_from_flattened_dict(RECIPES[recipe])
    return config.lock()


def variant(config: ml_collections.ConfigDict, name: str, variants: dict[str, dict[str, Any]]) -> Any:
    """Applies a named variant to a config: `variants[name]` maps dotted names to values.

    `""` and `default` are the config as it stands. Raises a ConfigError for a name that no variant has.
    """
    if name in ("", "default"):
        return config
    if name not in variants:
        raise errors.unknown("variant", name, ["default", *variants])
    config.update_from_flattened_dict(variants[name])
    return config


def field_names(cls: Any = Settings, prefix: str = "") -> list[str]:
    """Every dotted setting name, in order of definition."""
    names = []
    for field in dataclasses.fields(cls):
        kind = typing.get_type_hints(cls)[field.name]
        if dataclasses.is_dataclass(kind):
            names += field_names(kind, f"{prefix}{field.name}.")
        else:
            names.append(prefix + field.name)
    return names


def resolve(config: Any) -> Settings:
    """A checked, frozen `Settings` from a ConfigDict or nested dict.

    Raises:
      ConfigError: unknown name (with the nearest one), wrong type, or a value out of range.
    """
    if isinstance(config, ml_collections.ConfigDict):
        config = config.copy_and_resolve_references().to_dict()
    settings = _build(Settings, config, "")
    _check_together(settings)
    return settings


def _build(cls: type, values: Any, prefix: str) -> Any:
    if not isinstance(values, dict):
        raise errors.ConfigError(f"{prefix.rstrip('.') or 'the config'} must be a group of settings, not {values!r}.")
    known = {field.name: field for field in dataclasses.fields(cls)}
    kinds = typing.get_type_hints(cls)
    for name in values:
        if name not in known:
            raise unknown_setting(prefix + str(name))
    built = {}
    for name, field in known.items():
        if name not in values:
            continue
        full = prefix + name
        if dataclasses.is_dataclass(kinds[name]):
            built[name] = _build(kinds[name], values[name], full + ".")
        else:
            built[name] = _convert(full, values[name], kinds[name])
            _check_range(full, built[name], field.metadata)
    return cls(**built)


def unknown_setting(name: str) -> errors.ConfigError:
    """The error for a setting that does not exist, with the nearest dotted name that does."""
    known = field_names()
    # A right leaf in the wrong group is the most frequent slip, so leaves count before whole names.
    same_leaf = [other for other in known if other.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    close = same_leaf[:1] or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return errors.ConfigError(f"unknown setting {name!r}.{hint} --print_config shows all of them.")


def _convert(name: str, value: Any, kind: Any) -> Any:
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        values = value if isinstance(value, (tuple, list)) else (value,)
        return tuple(_convert(name, one, item) for one in values)
    if isinstance(kind, types.UnionType):
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    whole = isinstance(value, float) and value.is_integer() and kind is int
    fits = isinstance(value, kind) or (kind is float and isinstance(value, int)) or whole
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise errors.ConfigError(f"{name} = {value!r}: expected {kind.__name__}, got {type(value).__name__}.")
    return kind(value)


def _check_range(name: str, value: Any, metadata: Any) -> None:
    for one in value if isinstance(value, tuple) else (value,):
        if metadata["choices"]:
            checks.choice(name, one, metadata["choices"])
        elif isinstance(one, (int, float)) and not isinstance(one, bool):
            checks.in_range(name, one, metadata["low"], metadata["high"])


def _check_together(settings: Settings) -> None:
    train, shadows = settings.train, settings.shadows
    if shadows.ratio == 0.0:
        raise errors.ConfigError("shadows.ratio = 0.0: a shadow model must train on something; give more than 0.")
    late = [epoch for epoch in train.snapshots if not 1 <= epoch <= train.epochs]
    if late:
        raise errors.ConfigError(
            f"train.snapshots holds epoch {late[0]}, but training has epochs 1 to {train.epochs} (train.epochs)."
        )
    if train.schedule == "step" and not train.milestones:
        raise errors.ConfigError("train.schedule = 'step' needs train.milestones, e.g. (60, 120, 160).")
    if settings.split.forget.kind == "index_file" and not settings.split.forget.path:
        raise errors.ConfigError("split.forget.kind = 'index_file' needs split.forget.path.")
