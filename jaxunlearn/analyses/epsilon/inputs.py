"""Inputs of epsilon-hat: logits of many models of one request, from a user's files or from a run folder."""

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
PARTS = ("retain", "forget", "test")
THE_RETRAINED = "the retrained models"  # in messages
IGNORED = f"`{measures.BASELINE}` is ignored: the baseline is made by splitting the retrained models"
# Accuracies that differ by more than this from those of the logits were not taken in the same mode.
MODES_DIFFER = 0.003

FIELDS = {
    "labels": ArrayField("S", "targets", required=True),
    **{name: ArrayField("S", "ids") for name in NAMES},
    GOAL: ArrayField("SNC|SN", required=True, aliases={"retain": ""}, finite=False),
    **{f"*{MARK}{part}_accuracy": ArrayField("?", "numbers") for part in PARTS},
    "*": ArrayField("S?C|S?", finite=False),
}
EXPECTED = (
    "epsilon-hat takes a folder with logits_retain.npy and APPROACH/logits_unlearn.npy [S, 1 + N, C] (slot 0 the "
    "one-hot label), or an .npz with `labels` [S], `retrained` [S, N, C] and one such array per approach (README)."
)


class Group(NamedTuple):
    """Models of one request whose logits were taken in one mode.

    Attributes:
      retrained: [S, Nr, C] logits, or [S, Nr] predictions of a regression; approaches: name -> [S, Nu, C] or [S, Nu].
      labels: [S]; names: arrays [S] that name the samples in files of results; empty = numbers.
      accuracies: approach, or BASELINE for the retrained models -> "retain", "forget", "test" -> [N] fractions.
    """

    retrained: np.ndarray
    approaches: dict[str, np.ndarray]
    labels: np.ndarray
    names: dict[str, np.ndarray]
    accuracies: dict[str, dict[str, np.ndarray]]


class EpsilonInputs(NamedTuple):
    """What epsilon-hat is measured of.

    Attributes:
      modes: mode of BatchNorm -> models; a user's files have one.
      options: what is measured; samples: whose margins are drawn, empty = chosen by how easy they are to tell apart.
      notes: what the user should know.
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
    """What is measured, and how."""
    return measures.EpsilonOptions(settings.epsilon, settings.compat.evaluate, settings.seed)


def from_arrays(values: Mapping[str, np.ndarray], settings: Settings) -> EpsilonInputs:
    """Inputs from arrays that `arrays.read` has checked.

    Raises:
      DataError, ShapeError, ConfigError: arrays that do not go together, or choices that they do not allow.
    """
    chosen = settings.epsilon
    is_regression = np.ndim(values[GOAL]) == 2
    labels = np.asarray(values["labels"])
    if is_regression and _is_binary(labels):  # sigmoid outputs or logits of a binary classifier
        values = {name: _as_classes(name, array) for name, array in values.items()}
        is_regression = False
    # Predictions stay float64: their errors may be small beside them.
    dtype = np.float64 if is_regression else np.float32
    retrained = np.asarray(values[GOAL], dtype)
    if is_regression and labels.dtype.kind not in "fiu":
        raise errors.DataError(f"labels has dtype {labels.dtype}, expected numbers: the true values of a regression.")
    labels = labels if is_regression else arrays.class_labels("labels", labels)
    approaches, notes = {}, []
    accuracies: dict[str, dict[str, np.ndarray]] = {}
    for name, array in values.items():
        owner, mark, column = name.rpartition(MARK)
        if mark and column.removesuffix("_accuracy") in PARTS:
            owner = measures.BASELINE if owner in (GOAL, "retain") else owner
            accuracies.setdefault(owner, {})[column.removesuffix("_accuracy")] = np.asarray(array)
        elif name == measures.BASELINE:
            notes.append(IGNORED)
        elif name not in ("labels", GOAL, *NAMES):
            if np.ndim(array) != retrained.ndim:
                raise errors.ShapeError(
                    f"{name} has shape {np.shape(array)}, but the retrained models have {retrained.shape}: an approach "
                    "has as many axes."
                )
            approaches[name] = np.asarray(array, dtype)
    if not approaches:
        shape = "[S, N]" if is_regression else "[S, N, C]"
        raise errors.DataError(f"there is no approach: no array {shape} besides `{GOAL}`. {EXPECTED}")
    for owner in accuracies:
        if owner not in (*approaches, measures.BASELINE):
            raise errors.DataError(
                f"accuracies of {owner!r} are given, but no approach of that name.{errors.nearest(owner, approaches)}"
            )
    for name in chosen.approach:
        checks.choice("approach", name, (*approaches, measures.BASELINE))
    if chosen.approach:
        approaches = {name: array for name, array in approaches.items() if name in chosen.approach}
    for name, array in {THE_RETRAINED: retrained, **approaches}.items():
        _check(name, retrained, array, labels)
    if not approaches and retrained.shape[1] < 2:
        raise errors.DataError("the baseline splits the retrained models in two, but there is only one.")
    if is_regression and chosen.metric == "challenge":
        raise errors.ConfigError("metric = 'challenge' needs logits of a classifier; these are predictions [S, N].")
    if is_regression and chosen.score != "gaussian":
        raise errors.ConfigError(f"score = {chosen.score!r}: a regression is judged by its squared error.")
    for sample in chosen.samples:
        if not 0 <= sample < len(labels):
            raise errors.ConfigError(f"samples: {sample} is none of the {len(labels)} samples, 0 to {len(labels) - 1}.")
    models = {measures.BASELINE: retrained.shape[1], **{name: one.shape[1] for name, one in approaches.items()}}
    accuracies = {name: own for name, own in accuracies.items() if name in models}
    for name, own in accuracies.items():
        _check_accuracies(name, own, models[name])
    notes += _modes(retrained, approaches, labels, accuracies)
    names = {name: np.asarray(values[name]) for name in NAMES if name in values}
    group = Group(retrained, approaches, labels, names, accuracies)
    return EpsilonInputs({RUNNING: group}, options_of(settings), chosen.samples, tuple(notes))


def _is_binary(labels: np.ndarray) -> bool:
    return labels.dtype.kind in "iub" and bool(((labels == 0) | (labels == 1)).all())


def _as_classes(name: str, array: np.ndarray) -> np.ndarray:
    if name in ("labels", *NAMES) or MARK in name:
        return array
    values, _ = arrays.check({name: arrays.two_classes(np.asarray(array), False)}, {name: ArrayField("SNC")})
    return values[name]


def _check(name: str, retrained: np.ndarray, values: np.ndarray, labels: np.ndarray) -> None:
    """Raises for shapes, NaN and labels of an approach, or of the retrained models themselves, by name."""
    if retrained.ndim == 2:
        checks.finite(name, values, "SN")
        checks.finite("labels", labels)
        return
    checks.labels("labels", labels, retrained.shape[2])


def _check_accuracies(name: str, own: dict[str, np.ndarray], models: int) -> None:
    """Raises a DataError unless there is one fraction per model."""
    whose = THE_RETRAINED if name == measures.BASELINE else name
    for part, values in own.items():
        if values.dtype.kind not in "fiu" or values.shape != (models,):
            raise errors.DataError(
                f"{part} accuracies of {whose} have shape {values.shape} and dtype {values.dtype}, expected one "
                f"fraction for each of the {models} models."
            )
        if not ((values >= 0) & (values <= 1)).all():
            raise errors.DataError(f"{part} accuracies of {whose} must be fractions between 0 and 1.")
        if name == measures.BASELINE and not values.any() and part != "forget":
            raise errors.DataError(f"{part} accuracies of {whose} are all 0: there is nothing to compare with.")


def _modes(
    retrained: np.ndarray, approaches: dict[str, np.ndarray], labels: np.ndarray,
    accuracies: dict[str, dict[str, np.ndarray]],
) -> list[str]:  # fmt: skip
    """Whether logits and accuracies were taken in the same mode of BatchNorm."""
    notes = []
    for name, values in {measures.BASELINE: retrained, **approaches}.items():
        known = accuracies.get(name, {}).get("forget")
        if known is None or retrained.ndim == 2:
            continue
        apart = float((values.argmax(-1) == labels[:, None]).mean() - np.mean(known))
        if abs(apart) > MODES_DIFFER:
            whose = THE_RETRAINED if name == measures.BASELINE else name
            notes.append(
                f"{whose}: the logits are right on {100 * apart:+.2f} points of the forget set compared with the "
                "accuracies given; were they recorded with BatchNorm in training mode?"
            )
    return notes


# ---------------------------------------------------------------------------------------------------------------------
# a run folder


def gather(run: RecordedRun, context: Context) -> EpsilonInputs:
    """Logits of the retrained models and of every approach on the rows to be forgotten, in both modes of BatchNorm.

    All unlearned models start from the one original model and differ by their draws, as published; retrained models
    differ by everything. With `targets.originals = crossed` every unlearned model starts from an original of its own,
    and the originals are measured as an approach that does nothing. Models that diverged are left out.

    Source: Forget with Precision. Its logits were recorded in training mode by accident (BatchNorm by batches of 100
    forgotten samples); `running` is what a model in use answers, `batch` is for comparison with published numbers.

    Raises:
      StoreError: fewer than two retrained models, or not one approach with two models, did not diverge.
    """
    settings = run.settings
    design = variance.design_of(
        settings.targets.originals, settings.split.forget.repeats, settings.split.forget.repeats
    )
    beside = ("shadow",) if design.kind == "crossed" else ("shadow", measures.START)
    rows = np.flatnonzero(np.asarray(run.split.forget)[0]).astype(np.int32)
    recorded: dict[str, dict[str, np.ndarray]] = {}
    accuracies, notes = {}, []
    for role in (name for name in run.roles if name not in beside):
        title = run.title(role)
        logits = run.logits(role)
        own = _accuracies(run, role)
        modes = {RUNNING: np.asarray(logits.values[:, np.searchsorted(logits.rows, rows)], np.float32)}
        batched = run.training_mode(role, rows, settings.epsilon.bn_batch)
        if batched is not None:
            modes[BATCH] = batched
        # The last step of all can break a model whose losses were finite to the end.
        is_sound = np.isfinite(modes[RUNNING]).all((1, 2)) & np.isfinite(np.stack([*own.values()])).all(0)
        if not is_sound.all():
            notes.append(f"{title}: {int((~is_sound).sum())} of {len(is_sound)} models diverged and are left out")
        if is_sound.sum() >= 2:
            recorded[title] = {mode: values[is_sound] for mode, values in modes.items()}
            accuracies[title] = {part: values[is_sound] for part, values in own.items()}
    if GOAL not in recorded or len(recorded) < 2:
        raise errors.StoreError(
            "too many models diverged: two retrained ones and an approach with two are the least. Lower the learning "
            "rates (train.learning_rate, unlearn.options) in another --workdir."
        )
    known = {measures.BASELINE if name == GOAL else name: own for name, own in accuracies.items()}
    groups = {}
    for mode in (RUNNING, BATCH):
        logits_of = {name: modes[mode].swapaxes(0, 1) for name, modes in recorded.items() if mode in modes}
        if GOAL in logits_of and len(logits_of) > 1:  # else no BatchNorm, or nothing but ensembles
            retrained = logits_of.pop(GOAL)
            groups[mode] = Group(retrained, logits_of, run.labels[rows], run.names(rows), known)
    repeats = settings.split.forget.repeats
    return EpsilonInputs(
        groups,
        options_of(settings)._replace(design=design),
        settings.epsilon.samples,
        tuple(notes),
        {run.title(role): run.cost(role) for role in run.roles if role not in beside},
        {"models": f"{repeats} retrained; of every approach {sentences.units(design)}",
         **({"left out": "; ".join(notes)} if notes else {})},
    )  # fmt: skip


def _accuracies(run: RecordedRun, role: str) -> dict[str, np.ndarray]:
    """Accuracies on retained, forgotten and test rows of every model of a role; NaN for those that diverged."""
    numbers = run.utility(role)
    return {"retain": numbers["RA"], "forget": 1 - numbers["UA"], "test": numbers["TA"]}
