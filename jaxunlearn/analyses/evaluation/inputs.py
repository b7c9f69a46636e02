"""Inputs of an evaluation, from a user's arrays or from the recorded logits of a run folder."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import checks, errors, records
from jaxunlearn.analyses.base import Context, RecordedRun
from jaxunlearn.analyses.evaluation import distributions, measures
from jaxunlearn.analyses.evaluation.measures import EvaluationOptions, Subsets
from jaxunlearn.arrays import ArrayField
from jaxunlearn.metrics import utility
from jaxunlearn.metrics.populations import variance
from jaxunlearn.records import Design
from jaxunlearn.report import sentences
from jaxunlearn.settings import Settings

REQUIRED = ("calibration", "forget", "test")
OPTIONAL = ("retain", "test_forget", "calibration_forget")
REFERENCES = ("retrained", "original")
UNTRAINED = "untrained_forget"
WITH_FEATURES = ("forget", "retain")  # subsets that may have features
_LETTERS = dict(zip((*REQUIRED, *OPTIONAL), "KFTRGH", strict=True))


def _fields() -> dict[str, ArrayField]:
    table = {}
    for subset, letter in _LETTERS.items():
        is_required = subset in REQUIRED
        table[subset] = ArrayField(f"{letter}C|M{letter}C", required=is_required, needs=(f"{subset}_labels",))
        table[f"{subset}_labels"] = ArrayField(letter, "labels", required=is_required, needs=(subset,))
        table[f"{subset}_ids"] = ArrayField(letter, "ids", needs=(subset,))
    for role, models, classes in (("retrained", "P", "D"), ("original", "O", "E")):
        for subset, letter in _LETTERS.items():
            table[f"{role}_{subset}"] = ArrayField(f"{letter}{classes}|{models}{letter}{classes}", needs=(subset,))
    for prefix, models in (("", "M"), ("retrained_", "P"), ("original_", "O")):
        for subset in WITH_FEATURES:
            name, letter = f"{prefix}{subset}", _LETTERS[subset]
            table[f"{name}_features"] = ArrayField(f"{letter}?|{models}{letter}?", "numbers", needs=(name,))
    table[UNTRAINED] = ArrayField("FU|VFU")
    return table


FIELDS = _fields()
EXPECTED = (
    "Outputs to evaluate are `calibration`, `forget`, `test` and, for attacks, `retain` [n, c] (or [m, n, c] of m "
    "models), each with `..._labels` [n] (docs/evaluation.md)."
)


class Outputs(NamedTuple):
    """Outputs of one role's M models.

    Attributes:
      values: [M, N, C] float32 logits of all samples; alive: [M] bool, models that did not diverge.
      facts: identify them.
      features: [M, N, F] of the forgotten and retained samples, 0 elsewhere; None = the logits.
    """

    values: np.ndarray
    alive: np.ndarray
    facts: Any
    features: np.ndarray | None = None


class EvaluationInputs(NamedTuple):
    """Validated inputs of an evaluation.

    Attributes:
      roles: title -> () -> Outputs, loaded one role at a time; "retrained" is the goal, "original" the start.
      labels: [N]; subsets: the samples of each subset for each of M models.
      names: arrays [N] that name the samples in result files, at least `ids`.
      untrained: [N, C] logits of an untrained network on the forgotten samples, NaN elsewhere; or None.
      options: of the measurement.
      notes: about calibration and missing arrays.
      facts: what determines the results apart from a role's logits.
      costs: title -> (seconds, retain-epochs), NaN where unknown.
      diverged: title -> forget sets whose model diverged.
      class_names: may be empty; about: provenance of the inputs.
      design: which originals the models start from; None = a user's models, whose origin is unknown.
    """

    roles: Mapping[str, Callable[[], Outputs]]
    labels: np.ndarray
    names: dict[str, np.ndarray]
    subsets: Subsets
    untrained: np.ndarray | None
    options: EvaluationOptions
    notes: tuple[str, ...]
    facts: Any
    costs: dict[str, tuple[float, float]] = {}
    diverged: dict[str, list[int]] = {}
    class_names: tuple[str, ...] = ()
    about: dict[str, str] = {}
    design: Design | None = None


def options_of(settings: Settings) -> EvaluationOptions:
    """Returns the options of the measurement from the settings."""
    groups = measures.groups_of(settings.evaluate.metrics)
    return EvaluationOptions(settings.evaluate, groups, settings.compat.evaluate, settings.seed)


# ---------------------------------------------------------------------------------------------------------------------
# a user's arrays


def from_arrays(values: Mapping[str, np.ndarray], settings: Settings) -> EvaluationInputs:
    """Builds the inputs from arrays that `arrays.read` has checked.

    Raises:
      DataError, ShapeError, ConfigError: inconsistent arrays, or settings that they do not allow.
    """
    options = options_of(settings)
    names = [subset for subset in _LETTERS if subset in values]
    unlearned = {subset: _models(values[subset]) for subset in names}
    _same_models(unlearned)
    num_models = len(unlearned["forget"])
    roles = {"unlearned": _joined(unlearned)}
    for role in REFERENCES:
        available = [subset for subset in names if f"{role}_{subset}" in values]
        if not available:
            continue
        if available != names:
            missing = next(subset for subset in names if subset not in available)
            raise errors.DataError(
                f"{role}_{available[0]} is given, but not {role}_{missing}. Give {role}_... for every part that the "
                f"unlearned model has ({', '.join(names)}), or for none."
            )
        role_logits = {f"{role}_{subset}": _models(values[f"{role}_{subset}"]) for subset in names}
        _same_models(role_logits)
        _same_models(
            {"forget": unlearned["forget"], f"{role}_forget": role_logits[f"{role}_forget"]}, is_reference=True
        )
        joined = _joined(role_logits)
        roles[role] = np.broadcast_to(joined, (num_models, *joined.shape[1:]))
    labels = np.concatenate([values[f"{subset}_labels"] for subset in names]).astype(np.int64)
    _check_amounts(unlearned, options)
    subsets = _subsets(names, {subset: values[f"{subset}_labels"] for subset in names}, num_models)
    untrained = None
    if UNTRAINED in values:
        outputs = _models(values[UNTRAINED])
        checks.shape("MNC", {"M": 1}, **{UNTRAINED: outputs})
        untrained = np.full((len(labels), outputs.shape[-1]), np.nan, np.float32)
        untrained[subsets.forget[0]] = outputs[0]
    features = _features(values, roles, subsets, options)
    notes = [*measures.check_calibration(labels, subsets, options), *distributions.check(subsets, options)]
    if "retain" not in names:
        notes.append("without `retain` there is no RA and no membership attack")
    if any(role_outputs.shape[-1] != roles["unlearned"].shape[-1] for role_outputs in roles.values()):
        notes.append("models with different numbers of classes: no activation distance")
    order = [role for role in ("original", "retrained", "unlearned") if role in roles]
    subset_ids = [values.get(f"{subset}_ids", np.arange(len(values[f"{subset}_labels"]))) for subset in names]
    is_alive = np.ones(num_models, bool)

    def loader(role: str) -> Callable[[], Outputs]:
        facts = np.asarray(roles[role]) if features is None else [np.asarray(roles[role]), features[role]]
        return lambda: Outputs(roles[role], is_alive, facts, None if features is None else features[role])

    return EvaluationInputs(
        roles={role: loader(role) for role in order},
        labels=labels,
        names={"ids": _joined_ids(subset_ids)},
        subsets=subsets,
        untrained=untrained,
        options=options,
        notes=tuple(notes),
        facts={"labels": labels, "parts": subsets._asdict(), **_facts_of(settings)},
    )


def _joined_ids(subset_ids: list[np.ndarray]) -> np.ndarray:
    """Concatenates the ids of all subsets, as text if their types differ."""
    is_mixed = len({ids.dtype.kind for ids in subset_ids}) > 1
    return np.concatenate([ids.astype(str) if is_mixed else ids for ids in subset_ids])


def _models(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float32)
    return values[None] if values.ndim == 2 else values


def _features(
    values: Mapping[str, np.ndarray], roles: Mapping[str, np.ndarray], subsets: Subsets, options: EvaluationOptions
) -> dict[str, np.ndarray] | None:
    """Returns features [M, N, F] of every role, 0 where they are not needed; None if there are none.

    Raises:
      DataError: features of some roles or subsets only, or that nothing reads. ShapeError: of other sizes.
    """
    names = {role: [f"{'' if role == 'unlearned' else role + '_'}{subset}_features" for subset in WITH_FEATURES]
             for role in roles}  # fmt: skip
    feature_names = [name for name in values if name.endswith("_features")]
    if not feature_names:
        return None
    if distributions.GROUP not in options.groups:
        raise errors.DataError(
            f"{feature_names[0]} is given, but nothing reads it: ask for --metrics=all,{distributions.GROUP}, or leave "
            "it out."
        )
    missing = [name for names_of_role in names.values() for name in names_of_role if name not in values]
    if missing:
        raise errors.DataError(
            f"{feature_names[0]} is given, but not {missing[0]}. Give features of the forgotten and retained samples "
            "of every role, or of none (then the logits are used)."
        )
    features = {}
    for role, names_of_role in names.items():
        arrays = [_models(values[name]) for name in names_of_role]
        _same_models(dict(zip(names_of_role, arrays, strict=True)), "features")
        for name, array in zip(names_of_role, arrays, strict=True):
            checks.finite(name, array, "MNF")
        num_models, num_samples = roles[role].shape[:2]
        if len(arrays[0]) not in (1, num_models):
            raise errors.ShapeError(
                f"{names_of_role[0]} has {len(arrays[0])} models, but the outputs have {num_models}."
            )
        role_features = np.zeros((num_models, num_samples, arrays[0].shape[-1]), np.float32)
        for subset, array in zip(WITH_FEATURES, arrays, strict=True):
            role_features[:, getattr(subsets, subset)[0]] = array
        features[role] = role_features
    return features


def _check_amounts(subsets: dict[str, np.ndarray], options: EvaluationOptions) -> None:
    """Raises a DataError if there are too few samples for the attacks."""
    attacks = set(options.groups) & {"svc", "thresholds", "entropy", "miacr"}
    for name in ("retain", "test") if attacks and "retain" in subsets else ():
        if subsets[name].shape[1] < 2:
            raise errors.DataError(f"{name} holds 1 sample; membership attacks need at least 2 (or leave them out: "
                                   "--metrics=conformal,distances).")  # fmt: skip


def _same_models(subsets: dict[str, np.ndarray], columns: str = "classes", is_reference: bool = False) -> None:
    """Raises a ShapeError unless all come from the same models; a reference may be 1 model with other classes."""
    first, *rest = subsets
    for name in rest:
        models, classes = subsets[name].shape[0], subsets[name].shape[-1]
        is_compatible = models == len(subsets[first]) or (is_reference and models == 1)
        if not is_compatible or (classes != subsets[first].shape[-1] and not is_reference):
            raise errors.ShapeError(
                f"{name} has {models} model(s) and {classes} {columns}, but {first} has {len(subsets[first])} and "
                f"{subsets[first].shape[-1]}: all arrays must be outputs of the same models."
            )


def _joined(subsets: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate(list(subsets.values()), axis=1)


def _subsets(names: list[str], labels: dict[str, np.ndarray], models: int) -> Subsets:
    owner = np.repeat(names, [len(labels[name]) for name in names])
    return Subsets(*(np.repeat((owner == name)[None], models, 0) for name in Subsets._fields))


# ---------------------------------------------------------------------------------------------------------------------
# a run folder


def subsets_of(
    settings: Settings, split: records.Split, labels: np.ndarray, groups: np.ndarray | None, rows: np.ndarray
) -> Subsets:
    """Returns the subsets of rows for each forget set, [R, n] on the sorted `rows`.

    Held-out rows of a class (or subclass) without retained rows form subsets of their own.

    Args:
      settings: for the kind of the forget sets.
      split: rows of all roles.
      labels: [N] of all rows of the data set.
      groups: [N] the second labelling, or None.
      rows: [n] sorted rows of the data set.
    """
    kinds = groups if settings.split.forget.kind == "subclass" and groups is not None else labels
    row_subsets = utility.subsets_of(split, np.asarray(kinds), rows)
    return Subsets(
        forget=row_subsets.forget,
        retain=row_subsets.retain,
        test=row_subsets.test,
        calibration=row_subsets.population,
        test_forget=row_subsets.test_forget,
        calibration_forget=row_subsets.population_forget,
    )


def gather(run: RecordedRun, context: Context) -> EvaluationInputs:
    """Reads the recorded logits of original, exact retraining and every method, on all forget sets at once.

    Thresholds and attacks are calibrated on the population rows; TA and all metrics called test use the test rows only.
    """
    settings, split = run.settings, run.split
    options = options_of(settings)
    rows = run.logits("original").rows
    subsets = subsets_of(settings, split, run.labels, run.groups, rows)
    columns = np.flatnonzero(np.any([subset.any(0) for subset in subsets], axis=0))
    subsets = Subsets(*(subset[:, columns] for subset in subsets))
    labels = np.asarray(run.labels, np.int64)[rows[columns]]
    untrained = None
    if "distances" in options.groups:
        positions = np.flatnonzero(subsets.forget.any(0))
        outputs = run.untrained(rows[columns][positions])
        untrained = np.full((len(columns), outputs.shape[-1]), np.nan, np.float32)
        untrained[positions] = outputs
    names = [role for role in run.roles if role != "shadow"]
    design = variance.design_of(settings.targets.originals, len(subsets.forget), settings.split.forget.repeats)
    originals = {"originals": design.kind} if len(run.logits("original").values) > 1 else {}
    facts = {"split": run.split_fingerprint, "records": settings.compat.records, **originals, **_facts_of(settings)}

    def loader(role: str) -> Callable[[], Outputs]:
        return lambda: _outputs(run, role, rows[columns], subsets, design)

    diverged = {name: sorted(run.logits(name).diverged) for name in names}
    return EvaluationInputs(
        roles={run.title(name): loader(name) for name in names},
        labels=labels,
        names=run.names(rows[columns]),
        subsets=subsets,
        untrained=untrained,
        options=options,
        notes=(*measures.check_calibration(labels, subsets, options), *distributions.check(subsets, options)),
        facts=facts,
        costs={run.title(name): run.cost(name) for name in names},
        diverged={run.title(name): sets for name, sets in diverged.items() if sets},
        class_names=run.class_names,
        about={"forget sets": f"{design.sets} ({settings.split.forget.kind})", "models": sentences.units(design)},
        design=design,
    )


def _facts_of(settings: Settings) -> dict[str, Any]:
    return {"compat": settings.compat.evaluate, "evaluate": vars(settings.evaluate), "seed": settings.seed}


def _outputs(run: RecordedRun, name: str, rows: np.ndarray, subsets: Subsets, design: Design) -> Outputs:
    """Reads the outputs of a role on the used rows; an original that serves several models is repeated."""
    recorded = run.logits(name)
    values = recorded.values[:, recorded.positions(rows)].astype(np.float32)
    if run.settings.compat.records == "faithful":
        # As published: training rows are evaluated under the training augmentation.
        is_trained = (subsets.forget | subsets.retain).any(0)
        augmented = run.logits(name, "augmented_0")
        values[:, is_trained] = augmented.values[:, augmented.positions(rows[is_trained])]
    is_alive = np.asarray([member not in recorded.diverged for member in range(len(values))])
    for member in np.flatnonzero(is_alive):
        if not np.isfinite(values[member]).all():
            raise errors.DataError(
                f"the recorded logits of {name}, member {member}, hold NaN or infinite values although it did not "
                "diverge. Delete the folder logits/ of the run and run the same command again."
            )
    if name == "original":
        original_index = variance.design_factors(design)[0]
        values, is_alive = values[original_index], is_alive[original_index]
    return Outputs(values, is_alive, recorded.facts)
