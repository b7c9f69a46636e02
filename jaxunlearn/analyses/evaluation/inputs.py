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
BESIDE = ("retrained", "original")
UNTRAINED = "untrained_forget"
EMBEDDED = ("forget", "retain")  # parts that may have features
_LETTERS = dict(zip((*REQUIRED, *OPTIONAL), "KFTRGH", strict=True))


def _fields() -> dict[str, ArrayField]:
    table = {}
    for part, letter in _LETTERS.items():
        is_required = part in REQUIRED
        table[part] = ArrayField(f"{letter}C|M{letter}C", required=is_required, needs=(f"{part}_labels",))
        table[f"{part}_labels"] = ArrayField(letter, "labels", required=is_required, needs=(part,))
        table[f"{part}_ids"] = ArrayField(letter, "ids", needs=(part,))
    for role, models, classes in (("retrained", "P", "D"), ("original", "O", "E")):
        for part, letter in _LETTERS.items():
            table[f"{role}_{part}"] = ArrayField(f"{letter}{classes}|{models}{letter}{classes}", needs=(part,))
    for prefix, models in (("", "M"), ("retrained_", "P"), ("original_", "O")):
        for part in EMBEDDED:
            name, letter = f"{prefix}{part}", _LETTERS[part]
            table[f"{name}_features"] = ArrayField(f"{letter}?|{models}{letter}?", "numbers", needs=(name,))
    table[UNTRAINED] = ArrayField("FU|VFU")
    return table


FIELDS = _fields()
EXPECTED = (
    "Outputs to evaluate are an .npz (or a folder of .npy) with `calibration`, `forget`, `test` and, for attacks, "
    "`retain` [n, c] (or [m, n, c] of m models), each with `..._labels` [n] (README)."
)


class Outputs(NamedTuple):
    """Outputs of one role's M models.

    Attributes:
      values: [M, N, C] float32 logits of all samples; alive: [M] bool, models that did not diverge.
      facts: what identifies them.
      features: [M, N, F] of the forgotten and retained samples, 0 elsewhere; None = the logits.
    """

    values: np.ndarray
    alive: np.ndarray
    facts: Any
    features: np.ndarray | None = None


class EvaluationInputs(NamedTuple):
    """What an evaluation reads.

    Attributes:
      roles: title -> () -> Outputs, loaded one role at a time; "retrained" is the goal, "original" the start.
      labels: [N]; parts: who plays which part for each of M models.
      names: arrays [N] that name the samples in files of results, at least `ids`.
      untrained: [N, C] logits of an untrained network on samples to be forgotten, NaN elsewhere; or None.
      choices: what is measured, and how.
      notes: about calibration and what is missing.
      facts: what decides about all numbers besides a role's logits.
      costs: title -> (seconds, retain-epochs), NaN where unknown.
      diverged: title -> forget sets whose model diverged.
      class_names: may be empty; about: provenance of the inputs.
      design: whose originals the models come from; None = given models, of which nothing is known.
    """

    roles: Mapping[str, Callable[[], Outputs]]
    labels: np.ndarray
    names: dict[str, np.ndarray]
    parts: Subsets
    untrained: np.ndarray | None
    choices: EvaluationOptions
    notes: tuple[str, ...]
    facts: Any
    costs: dict[str, tuple[float, float]] = {}
    diverged: dict[str, list[int]] = {}
    class_names: tuple[str, ...] = ()
    about: dict[str, str] = {}
    design: Design | None = None


def choices_of(settings: Settings) -> EvaluationOptions:
    """What is measured, and how."""
    groups = measures.groups_of(settings.evaluate.metrics)
    return EvaluationOptions(settings.evaluate, groups, settings.compat.evaluate, settings.seed)


# ---------------------------------------------------------------------------------------------------------------------
# a user's arrays


def from_arrays(values: Mapping[str, np.ndarray], settings: Settings) -> EvaluationInputs:
    """Inputs from arrays that `arrays.read` has checked.

    Raises:
      DataError, ShapeError, ConfigError: arrays that do not go together, or choices that they do not allow.
    """
    choices = choices_of(settings)
    names = [part for part in _LETTERS if part in values]
    main = {part: _models(values[part]) for part in names}
    _same_models(main)
    count = len(main["forget"])
    roles = {"unlearned": _joined(main)}
    for role in BESIDE:
        there = [part for part in names if f"{role}_{part}" in values]
        if not there:
            continue
        if there != names:
            lacking = next(part for part in names if part not in there)
            raise errors.DataError(
                f"{role}_{there[0]} is given, but not {role}_{lacking}. Give {role}_... for every part that the "
                f"unlearned model has ({', '.join(names)}), or for none."
            )
        own = {f"{role}_{part}": _models(values[f"{role}_{part}"]) for part in names}
        _same_models(own)
        _same_models({"forget": main["forget"], f"{role}_forget": own[f"{role}_forget"]}, is_beside=True)
        joined = _joined(own)
        roles[role] = np.broadcast_to(joined, (count, *joined.shape[1:]))
    labels = np.concatenate([values[f"{part}_labels"] for part in names]).astype(np.int64)
    _check_amounts(main, choices)
    parts = _parts(names, {part: values[f"{part}_labels"] for part in names}, count)
    untrained = None
    if UNTRAINED in values:
        outputs = _models(values[UNTRAINED])
        checks.shape("MNC", {"M": 1}, **{UNTRAINED: outputs})
        untrained = np.full((len(labels), outputs.shape[-1]), np.nan, np.float32)
        untrained[parts.forget[0]] = outputs[0]
    features = _features(values, roles, parts, choices)
    notes = [*measures.check_calibration(labels, parts, choices), *distributions.check(parts, choices)]
    if "retain" not in names:
        notes.append("without `retain` there is no RA and no membership attack")
    if any(one.shape[-1] != roles["unlearned"].shape[-1] for one in roles.values()):
        notes.append("models with different numbers of classes: no activation distance")
    order = [role for role in ("original", "retrained", "unlearned") if role in roles]
    ids = [values.get(f"{part}_ids", np.arange(len(values[f"{part}_labels"]))) for part in names]
    everyone = np.ones(count, bool)

    def loader(role: str) -> Callable[[], Outputs]:
        facts = np.asarray(roles[role]) if features is None else [np.asarray(roles[role]), features[role]]
        return lambda: Outputs(roles[role], everyone, facts, None if features is None else features[role])

    return EvaluationInputs(
        roles={role: loader(role) for role in order},
        labels=labels,
        names={"ids": np.concatenate([one.astype(str) for one in ids]) if _mixed(ids) else np.concatenate(ids)},
        parts=parts,
        untrained=untrained,
        choices=choices,
        notes=tuple(notes),
        facts={"labels": labels, "parts": parts._asdict(), **_facts_of(settings)},
    )


def _mixed(ids: list[np.ndarray]) -> bool:
    return len({one.dtype.kind for one in ids}) > 1


def _models(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float32)
    return values[None] if values.ndim == 2 else values


def _features(
    values: Mapping[str, np.ndarray], roles: Mapping[str, np.ndarray], parts: Subsets, choices: EvaluationOptions
) -> dict[str, np.ndarray] | None:
    """Features [M, N, F] of every role, 0 where they are not needed; None where none are given.

    Raises:
      DataError: features of some roles or parts only, or that nothing reads. ShapeError: of other sizes.
    """
    names = {role: [f"{'' if role == 'unlearned' else role + '_'}{part}_features" for part in EMBEDDED]
             for role in roles}  # fmt: skip
    given = [name for name in values if name.endswith("_features")]
    if not given:
        return None
    if distributions.GROUP not in choices.groups:
        raise errors.DataError(
            f"{given[0]} is given, but nothing reads it: ask for --metrics=all,{distributions.GROUP}, or leave it out."
        )
    absent = [name for pair in names.values() for name in pair if name not in values]
    if absent:
        raise errors.DataError(
            f"{given[0]} is given, but not {absent[0]}. Give features of the forgotten and retained samples of every "
            "role, or of none (then the logits are used)."
        )
    found = {}
    for role, pair in names.items():
        arrays = [_models(values[name]) for name in pair]
        _same_models(dict(zip(pair, arrays, strict=True)), "features")
        for name, array in zip(pair, arrays, strict=True):
            checks.finite(name, array, "MNF")
        models, samples = roles[role].shape[:2]
        if len(arrays[0]) not in (1, models):
            raise errors.ShapeError(f"{pair[0]} is of {len(arrays[0])} model(s), the outputs are of {models}.")
        whole = np.zeros((models, samples, arrays[0].shape[-1]), np.float32)
        for part, array in zip(EMBEDDED, arrays, strict=True):
            whole[:, getattr(parts, part)[0]] = array
        found[role] = whole
    return found


def _check_amounts(parts: dict[str, np.ndarray], choices: EvaluationOptions) -> None:
    """Raises a DataError for too few samples for the attacks."""
    attacks = set(choices.groups) & {"svc", "thresholds", "entropy", "miacr"}
    for name in ("retain", "test") if attacks and "retain" in parts else ():
        if parts[name].shape[1] < 2:
            raise errors.DataError(f"{name} holds 1 sample; membership attacks need at least 2 (or leave them out: "
                                   "--metrics=conformal,distances).")  # fmt: skip


def _same_models(parts: dict[str, np.ndarray], columns: str = "classes", is_beside: bool = False) -> None:
    """Raises a ShapeError unless all are of the same models; one `beside` others may be 1 model of other classes."""
    first, *rest = parts
    for name in rest:
        models, classes = parts[name].shape[0], parts[name].shape[-1]
        fits = models == len(parts[first]) or (is_beside and models == 1)
        if not fits or (classes != parts[first].shape[-1] and not is_beside):
            raise errors.ShapeError(
                f"{name} is of {models} model(s) and {classes} {columns}, but {first} is of {len(parts[first])} and "
                f"{parts[first].shape[-1]}: all arrays must be outputs of the same models."
            )


def _joined(parts: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate(list(parts.values()), axis=1)


def _parts(names: list[str], labels: dict[str, np.ndarray], models: int) -> Subsets:
    owner = np.repeat(names, [len(labels[name]) for name in names])
    return Subsets(*(np.repeat((owner == name)[None], models, 0) for name in Subsets._fields))


# ---------------------------------------------------------------------------------------------------------------------
# a run folder


def parts_of(
    settings: Settings, split: records.Split, labels: np.ndarray, groups: np.ndarray | None, rows: np.ndarray
) -> Subsets:
    """Who plays which part for each forget set, [R, n] on the sorted `rows`.

    Held-out rows of a class (or subclass) of which no row is retained are judged apart.
    """
    kinds = groups if settings.split.forget.kind == "subclass" and groups is not None else labels
    known = utility.parts_of(split, np.asarray(kinds), rows)
    return Subsets(known.forget, known.retain, known.test, known.population, known.test_forget, known.population_forget)


def gather(run: RecordedRun, context: Context) -> EvaluationInputs:
    """Inputs from the recorded logits of original, exact retraining and every method, on all forget sets at once.

    Thresholds and attacks calibrate on the population rows; TA and all numbers called test are of the test rows alone.
    """
    settings, split = run.settings, run.split
    choices = choices_of(settings)
    rows = run.logits("original").rows
    parts = parts_of(settings, split, run.labels, run.groups, rows)
    columns = np.flatnonzero(np.any([part.any(0) for part in parts], axis=0))
    parts = Subsets(*(part[:, columns] for part in parts))
    labels = np.asarray(run.labels, np.int64)[rows[columns]]
    untrained = None
    if "distances" in choices.groups:
        places = np.flatnonzero(parts.forget.any(0))
        answers = run.untrained(rows[columns][places])
        untrained = np.full((len(columns), answers.shape[-1]), np.nan, np.float32)
        untrained[places] = answers
    names = [role for role in run.roles if role != "shadow"]
    design = variance.design_of(settings.targets.originals, len(parts.forget), settings.split.forget.repeats)
    originals = {"originals": design.kind} if len(run.logits("original").values) > 1 else {}
    facts = {"split": run.split_fingerprint, "records": settings.compat.records, **originals, **_facts_of(settings)}

    def loader(role: str) -> Callable[[], Outputs]:
        return lambda: _outputs(run, role, columns, parts, design)

    diverged = {name: sorted(run.logits(name).diverged) for name in names}
    return EvaluationInputs(
        roles={run.title(name): loader(name) for name in names},
        labels=labels,
        names=run.names(rows[columns]),
        parts=parts,
        untrained=untrained,
        choices=choices,
        notes=(*measures.check_calibration(labels, parts, choices), *distributions.check(parts, choices)),
        facts=facts,
        costs={run.title(name): run.cost(name) for name in names},
        diverged={run.title(name): sets for name, sets in diverged.items() if sets},
        class_names=run.class_names,
        about={"forget sets": f"{design.sets} ({settings.split.forget.kind})", "models": sentences.units(design)},
        design=design,
    )


def _facts_of(settings: Settings) -> dict[str, Any]:
    return {"compat": settings.compat.evaluate, "evaluate": vars(settings.evaluate), "seed": settings.seed}


def _outputs(run: RecordedRun, name: str, columns: np.ndarray, parts: Subsets, design: Design) -> Outputs:
    """Outputs of a role on the columns that have a part; an original that serves several models is repeated."""
    recorded = run.logits(name)
    values = recorded.values[:, columns].astype(np.float32)
    if run.settings.compat.records == "faithful":
        # As published: rows that were trained on are seen through the training augmentation.
        trained = (parts.forget | parts.retain).any(0)
        values[:, trained] = run.logits(name, "augmented_0").values[:, columns[trained]]
    alive = np.asarray([number not in recorded.diverged for number in range(len(values))])
    for number in np.flatnonzero(alive):
        if not np.isfinite(values[number]).all():
            raise errors.DataError(
                f"the recorded logits of {name}, member {number}, hold NaN or infinite values although it did not "
                "diverge. Delete the folder logits/ of the run and run the same command again."
            )
    if name == "original":
        own = variance.design_factors(design)[0]
        values, alive = values[own], alive[own]
    return Outputs(values, alive, recorded.facts)
