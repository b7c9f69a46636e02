"""Inputs of epsilon-hat: logits of many models of one forget set, from a user's arrays or from a run folder."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxunlearn import arrays, checks, errors
from jaxunlearn.analyses.base import Context, RecordedRun
from jaxunlearn.analyses.epsilon import measures
from jaxunlearn.arrays import ArrayField
from jaxunlearn.metrics.populations import variance
from jaxunlearn.report import sentences
from jaxunlearn.settings import Settings

RUNNING, BATCH = "running", "batch"
GOAL = "retrained"
NAMES = ("rows", "ids")
MARK = "__"  # between an approach's name and its accuracies
SUBSETS = ("retain", "forget", "test")
RETRAINED_MODELS = "the retrained models"  # in messages
IGNORED = f"`{measures.BASELINE}` is ignored: the baseline is made by splitting the retrained models"
# Accuracies that differ by more than this from those of the logits were not taken in the same mode.
MODES_DIFFER = 0.003

FIELDS = {
    "labels": ArrayField("S", "targets", required=True),
    **{name: ArrayField("S", "ids") for name in NAMES},
    GOAL: ArrayField("SNC|SN", required=True, aliases={"retain": ""}, finite=False),
    **{f"*{MARK}{subset}_accuracy": ArrayField("?", "numbers") for subset in SUBSETS},
    "*": ArrayField("S?C|S?", finite=False),
}
EXPECTED = (
    "epsilon-hat takes `labels` [S], `retrained` [S, N, C] and one such array per approach, or a folder with "
    "logits_retain.npy and APPROACH/logits_unlearn.npy [S, 1 + N, C], slot 0 the one-hot label (docs/epsilon.md)."
)


class Group(NamedTuple):
    """Models of one forget set, with logits recorded in one mode of BatchNorm.

    Attributes:
      retrained: [S, Nr, C] logits, or [S, Nr] predictions of a regression; approaches: name -> [S, Nu, C] or [S, Nu].
      labels: [S]; names: arrays [S] that name the samples in result files; empty = positions.
      accuracies: approach, or BASELINE for the retrained models -> "retain", "forget", "test" -> [N] fractions.
    """

    retrained: np.ndarray
    approaches: dict[str, np.ndarray]
    labels: np.ndarray
    names: dict[str, np.ndarray]
    accuracies: dict[str, dict[str, np.ndarray]]


class EpsilonInputs(NamedTuple):
    """Validated inputs of epsilon-hat.

    Attributes:
      modes: mode of BatchNorm -> models; a user's files have one.
      options: of the measurement; samples: those whose margins are drawn, empty = selected by epsilon-hat.
      notes: remarks for the user.
      costs: approach, or "retrained" -> (seconds, retain-epochs); empty for a user's files.
      about: provenance of the inputs, empty for a user's files.
    """

    modes: dict[str, Group]
    options: measures.EpsilonOptions
    samples: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    costs: dict[str, tuple[float, float]] = {}
    about: dict[str, str] = {}


def options_of(settings: Settings) -> measures.EpsilonOptions:
    """Returns the options of the measurement from the settings."""
    return measures.EpsilonOptions(settings.epsilon, settings.compat.evaluate, settings.seed)


def from_arrays(values: Mapping[str, np.ndarray], settings: Settings) -> EpsilonInputs:
    """Builds the inputs from arrays that `arrays.read` has checked.

    Raises:
      DataError, ShapeError, ConfigError: inconsistent arrays, or settings that they do not allow.
    """
    epsilon_settings = settings.epsilon
    is_regression = np.ndim(values[GOAL]) == 2
    labels = np.asarray(values["labels"])
    if is_regression and _is_binary(labels):  # sigmoid outputs or logits of a binary classifier
        values = {name: _as_classes(name, array) for name, array in values.items()}
        is_regression = False
    # Predictions stay float64: their errors may be small compared with them.
    dtype = np.float64 if is_regression else np.float32
    retrained = np.asarray(values[GOAL], dtype)
    if is_regression and labels.dtype.kind not in "fiu":
        raise errors.DataError(f"labels has dtype {labels.dtype}, expected numbers: the true values of a regression.")
    labels = labels if is_regression else arrays.class_labels("labels", labels)
    approaches, notes = {}, []
    accuracies: dict[str, dict[str, np.ndarray]] = {}
    for name, array in values.items():
        source, mark, column = name.rpartition(MARK)
        if mark and column.removesuffix("_accuracy") in SUBSETS:
            source = measures.BASELINE if source in (GOAL, "retain") else source
            accuracies.setdefault(source, {})[column.removesuffix("_accuracy")] = np.asarray(array)
        elif name == measures.BASELINE:
            notes.append(IGNORED)
        elif name not in ("labels", GOAL, *NAMES):
            if np.ndim(array) != retrained.ndim:
                raise errors.ShapeError(
                    f"{name} has shape {np.shape(array)}, but the retrained models have {retrained.shape}: both "
                    "must have the same number of axes."
                )
            approaches[name] = np.asarray(array, dtype)
    if not approaches:
        shape = "[S, N]" if is_regression else "[S, N, C]"
        raise errors.DataError(f"there is no approach: expected an array {shape} in addition to `{GOAL}`. {EXPECTED}")
    for source in accuracies:
        if source not in (*approaches, measures.BASELINE):
            raise errors.DataError(
                f"there are accuracies of {source!r}, but no approach of that name.{errors.nearest(source, approaches)}"
            )
    for name in epsilon_settings.approach:
        checks.choice("approach", name, (*approaches, measures.BASELINE))
    if epsilon_settings.approach:
        approaches = {name: array for name, array in approaches.items() if name in epsilon_settings.approach}
    for name, array in {RETRAINED_MODELS: retrained, **approaches}.items():
        _check(name, retrained, array, labels)
    if not approaches and retrained.shape[1] < 2:
        raise errors.DataError("the baseline splits the retrained models in two, but there is only one.")
    if is_regression and epsilon_settings.metric == "challenge":
        raise errors.ConfigError("metric = 'challenge' needs logits of a classifier; these are predictions [S, N].")
    if is_regression and epsilon_settings.score != "gaussian":
        raise errors.ConfigError(f"score = {epsilon_settings.score!r}: a regression is judged by its squared error.")
    for sample in epsilon_settings.samples:
        if not 0 <= sample < len(labels):
            raise errors.ConfigError(f"samples: {sample} is not a sample number; they go from 0 to {len(labels) - 1}.")
    models = {measures.BASELINE: retrained.shape[1], **{name: logits.shape[1] for name, logits in approaches.items()}}
    accuracies = {name: subset_accuracies for name, subset_accuracies in accuracies.items() if name in models}
    for name, subset_accuracies in accuracies.items():
        _check_accuracies(name, subset_accuracies, models[name])
    notes += _mode_notes(retrained, approaches, labels, accuracies)
    names = {name: np.asarray(values[name]) for name in NAMES if name in values}
    group = Group(retrained, approaches, labels, names, accuracies)
    return EpsilonInputs({RUNNING: group}, options_of(settings), epsilon_settings.samples, tuple(notes))


def _is_binary(labels: np.ndarray) -> bool:
    return labels.dtype.kind in "iub" and bool(((labels == 0) | (labels == 1)).all())


def _as_classes(name: str, array: np.ndarray) -> np.ndarray:
    if name in ("labels", *NAMES) or MARK in name:
        return array
    values, _ = arrays.check({name: arrays.two_classes(np.asarray(array), False)}, {name: ArrayField("SNC")})
    return values[name]


def _check(name: str, retrained: np.ndarray, values: np.ndarray, labels: np.ndarray) -> None:
    """Raises an error for invalid shapes, NaN or labels; `name`: the approach, or the retrained models."""
    if retrained.ndim == 2:
        checks.finite(name, values, "SN")
        checks.finite("labels", labels)
        return
    checks.labels("labels", labels, retrained.shape[2])


def _check_accuracies(name: str, subset_accuracies: dict[str, np.ndarray], num_models: int) -> None:
    """Raises a DataError unless there is one fraction per model."""
    owner = RETRAINED_MODELS if name == measures.BASELINE else name
    for subset, values in subset_accuracies.items():
        if values.dtype.kind not in "fiu" or values.shape != (num_models,):
            raise errors.DataError(
                f"{subset} accuracies of {owner} have shape {values.shape} and dtype {values.dtype}, expected one "
                f"fraction for each of the {num_models} models."
            )
        if not ((values >= 0) & (values <= 1)).all():
            raise errors.DataError(f"{subset} accuracies of {owner} must be fractions between 0 and 1.")
        if name == measures.BASELINE and not values.any() and subset != "forget":
            raise errors.DataError(f"{subset} accuracies of {owner} are all 0: there is nothing to compare with.")


def _mode_notes(
    retrained: np.ndarray, approaches: dict[str, np.ndarray], labels: np.ndarray,
    accuracies: dict[str, dict[str, np.ndarray]],
) -> list[str]:  # fmt: skip
    """Returns remarks on models whose logits and accuracies come from different modes of BatchNorm."""
    notes = []
    for name, values in {measures.BASELINE: retrained, **approaches}.items():
        forget_accuracy = accuracies.get(name, {}).get("forget")
        if forget_accuracy is None or retrained.ndim == 2:
            continue
        difference = float((values.argmax(-1) == labels[:, None]).mean() - np.mean(forget_accuracy))
        if abs(difference) > MODES_DIFFER:
            owner = RETRAINED_MODELS if name == measures.BASELINE else name
            notes.append(
                f"{owner}: the accuracy of the logits on the forget set differs from the given accuracy by "
                f"{100 * difference:+.2f} points; were they recorded with BatchNorm in training mode?"
            )
    return notes


# ---------------------------------------------------------------------------------------------------------------------
# a run folder


def gather(run: RecordedRun, context: Context) -> EpsilonInputs:
    """Reads the logits of the retrained models and of every approach on the forgotten rows, in both BatchNorm modes.

    As published, all unlearned models start from the same original model and differ only by their random streams;
    retrained models also differ by their initial weights. With `targets.originals = crossed` every unlearned model has
    its own original, and the originals are measured as an approach that does nothing. Diverged models are left out.

    Source: Forget with Precision. Its logits were recorded in training mode by accident (BatchNorm over batches of 100
    forgotten samples); `running` is how a deployed model answers, `batch` is for comparison with published numbers.

    Raises:
      StoreError: fewer than two retrained models, or no approach with two models, are left without the diverged ones.
    """
    settings = run.settings
    design = variance.design_of(
        settings.targets.originals, settings.split.forget.repeats, settings.split.forget.repeats
    )
    skipped = ("shadow",) if design.kind == "crossed" else ("shadow", measures.START)
    rows = np.flatnonzero(np.asarray(run.split.forget)[0]).astype(np.int32)
    recorded: dict[str, dict[str, np.ndarray]] = {}
    accuracies, notes = {}, []
    for role in (name for name in run.roles if name not in skipped):
        title = run.title(role)
        logits = run.logits(role)
        subset_accuracies = _accuracies(run, role)
        logits_by_mode = {RUNNING: np.asarray(logits.values[:, logits.positions(rows)], np.float32)}
        batched = run.training_mode(role, rows, settings.epsilon.bn_batch)
        if batched is not None:
            logits_by_mode[BATCH] = batched
        # The very last step can break a model whose losses were all finite.
        is_sound = np.isfinite(logits_by_mode[RUNNING]).all((1, 2)) & np.isfinite(
            np.stack([*subset_accuracies.values()])
        ).all(0)
        if not is_sound.all():
            notes.append(f"{title}: {int((~is_sound).sum())} of {len(is_sound)} models diverged and are left out")
        if is_sound.sum() >= 2:
            recorded[title] = {mode: values[is_sound] for mode, values in logits_by_mode.items()}
            accuracies[title] = {subset: values[is_sound] for subset, values in subset_accuracies.items()}
    if GOAL not in recorded or len(recorded) < 2:
        raise errors.StoreError(
            "too many models diverged: at least two retrained models and one approach with two models are needed. "
            "Lower the learning rates (train.learning_rate, unlearn.options) in another --workdir."
        )
    accuracies_of = {
        measures.BASELINE if name == GOAL else name: subset_accuracies for name, subset_accuracies in accuracies.items()
    }
    groups = {}
    for mode in (RUNNING, BATCH):
        logits_of = {
            name: logits_by_mode[mode].swapaxes(0, 1)
            for name, logits_by_mode in recorded.items()
            if mode in logits_by_mode
        }
        if GOAL in logits_of and len(logits_of) > 1:  # else no BatchNorm, or only ensembles
            retrained = logits_of.pop(GOAL)
            groups[mode] = Group(retrained, logits_of, run.labels[rows], run.names(rows), accuracies_of)
    repeats = settings.split.forget.repeats
    return EpsilonInputs(
        groups,
        options_of(settings)._replace(design=design),
        settings.epsilon.samples,
        tuple(notes),
        {run.title(role): run.cost(role) for role in run.roles if role not in skipped},
        {"models": f"{repeats} retrained; of every approach {sentences.units(design)}",
         **({"left out": "; ".join(notes)} if notes else {})},
    )  # fmt: skip


def _accuracies(run: RecordedRun, role: str) -> dict[str, np.ndarray]:
    """Returns the accuracies on retained, forgotten and test rows of all models of a role; NaN for diverged ones."""
    utility = run.utility(role)
    return {"retain": utility["RA"], "forget": 1 - utility["UA"], "test": utility["TA"]}
