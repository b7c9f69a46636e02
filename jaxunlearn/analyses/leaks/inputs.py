"""Inputs of Unlearning-Leaks: posterior pairs of a shadow and of a target side, from a user's arrays or from a run."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxunlearn import errors
from jaxunlearn.arrays import ArrayField
from jaxunlearn.attacks.leaks import features, plan, sisa
from jaxunlearn.settings import Settings

SIDES = ("shadow", "target")


def _fields(side: str, rows: str, classes: str, published: str) -> dict[str, ArrayField]:
    """The arrays of one side; `published`: how the reference calls it."""
    pair = f"{rows}{classes}"
    return {
        f"{side}_original": ArrayField(pair, "posteriors", required=True, aliases={f"{published}_original": pair}),
        f"{side}_unlearned": ArrayField(pair, "posteriors", required=True, aliases={f"{published}_unlearning": pair}),
        f"{side}_deleted": ArrayField(rows, "flags", required=True, aliases={f"{published}_label": rows}),
        f"{side}_set": ArrayField(rows, "ids"),
        f"{side}_repeat": ArrayField(rows, "ids"),
        f"{side}_ids": ArrayField(rows, "ids"),
    }


FIELDS = {**_fields("shadow", "N", "C", "train"), **_fields("target", "T", "C", "test")}
EXPECTED = (
    "It holds posteriors of both versions for records that were deleted (1) and that nobody trained on (0): "
    "`shadow_original`, `shadow_unlearned` [n, c], `shadow_deleted` [n] of models that you trained yourself, and "
    "`target_original`, `target_unlearned` [t, c], `target_deleted` [t] of the models under attack (README)."
)


class Side(NamedTuple):
    """N posterior pairs of one side.

    Attributes:
      original, unlearned: [N, C] posteriors of both versions.
      deleted: [N] bool, True = trained on and then deleted, False = never trained on.
      unit: [N] int, the independent unit (record set) of each record, numbered over all repeats; None = not known.
      repeat: [N] int from 0, which repetition of the experiment.
      ids: [N] what the user calls the records, or None.
    """

    original: np.ndarray
    unlearned: np.ndarray
    deleted: np.ndarray
    unit: np.ndarray | None
    repeat: np.ndarray
    ids: np.ndarray | None = None


class Utility(NamedTuple):
    """How well the original models of one side are fitted: [I] accuracies per set."""

    train: np.ndarray
    test: np.ndarray


class LeakInputs(NamedTuple):
    """What is measured.

    Attributes:
      shadow, target: both sides, with the same repeats.
      utility: side -> accuracies of its original models; empty for a user's arrays.
      about: provenance; empty for a user's arrays.
    """

    shadow: Side
    target: Side
    utility: Mapping[str, Utility] = {}
    about: Mapping[str, str] = {}


def wanted(settings: Settings) -> tuple[str, ...]:
    """The features to measure, the classical attack last.

    Raises:
      ConfigError: unknown feature.
    """
    asked = settings.leaks.features
    for name in asked:
        if name != "all" and name not in features.FEATURES:
            raise errors.unknown("feature", name, [*features.FEATURES, "all"])
    chosen = [name for name in features.FEATURES if name in asked or "all" in asked or name == settings.leaks.feature]
    return (*(name for name in chosen if name != features.CLASSICAL), features.CLASSICAL)


def from_arrays(values: Mapping[str, np.ndarray], settings: Settings) -> LeakInputs:
    """Inputs from arrays that `arrays.read` has checked.

    Raises:
      DataError: a side without one of the two kinds of records, or repeats of one side that the other lacks.
    """
    blank = [np.zeros(len(values[f"{name}_deleted"]), np.int64) for name in SIDES]
    repeats = [values.get(f"{name}_repeat", none) for name, none in zip(SIDES, blank, strict=True)]
    known = np.unique(repeats[0])
    alone = [str(one) for one in (*known, *np.unique(repeats[1])) if not all((own == one).any() for own in repeats)]
    if alone:
        raise errors.DataError(
            f"repeat {alone[0]} is on one side only: an attack needs both sides of a repeat (shadow_repeat and "
            "target_repeat)."
        )
    shadow, target = (
        _side(name, values, np.searchsorted(known, own)) for name, own in zip(SIDES, repeats, strict=True)
    )
    for name, side in zip(SIDES, (shadow, target), strict=True):
        for repeat in np.unique(side.repeat):
            mine = side.deleted[side.repeat == repeat]
            if mine.all() or not mine.any():
                raise errors.DataError(
                    f"{name}_deleted holds {int(mine.sum())} deleted and {int((~mine).sum())} other records; an attack "
                    "needs both: records that were deleted, and records that nobody trained on."
                )
    return LeakInputs(shadow, target)


def sizes_of(settings: Settings) -> plan.Sizes:
    """How much is drawn on each side of a run."""
    chosen = settings.leaks
    shards = chosen.shards if chosen.unlearning == "sisa" else 0
    return plan.Sizes(chosen.sets, chosen.set_size, chosen.deletions, chosen.group, shards)


def plans_of(settings: Settings, ids: np.ndarray, num_train: int) -> tuple[tuple[plan.SidePlan, plan.SidePlan], ...]:
    """Both sides of every repeat of a run, in places of the data set.

    Args:
      settings: of the run.
      ids: [N] each place's row number in the user's file: plans follow the order of the file, not of the pools.
      num_train: places of the train pool, the first ones.

    Raises:
      ConfigError: more than the data have.
    """
    chosen = settings.leaks
    order = np.argsort(ids if chosen.rows == "all" else ids[:num_train], kind="stable")
    drawn = plan.whole(
        len(order), sizes_of(settings), settings.seed, repeats=chosen.repeats, case=chosen.case,
        online=chosen.update == "online",
    )  # fmt: skip
    return tuple((plan.renamed(shadow, order), plan.renamed(target, order)) for shadow, target in drawn)


def from_models(
    posteriors: Callable[[np.ndarray, np.ndarray], np.ndarray], plans: Sequence[Sequence[plan.SidePlan]],
    sizes: plan.Sizes, faithful: bool = False,
) -> tuple[Side, Side]:  # fmt: skip
    """Both sides from the answers of a run's models, which stand repeat by repeat, shadow before target side.

    Args:
      posteriors: (members [m], places [m, q]) -> [m, q, C] what each member answers to its own places.
      plans: as `plans_of` gives them; ids of records are places.
      sizes: of each side.
      faithful: aggregate shards with the published error.
    """
    parts: tuple[list[Side], list[Side]] = ([], [])
    number = max(sizes.shards, 1)
    first = 0
    for repeat, sides in enumerate(plans):
        for kept, side in zip(parts, sides, strict=True):
            kept.append(_of_plan(posteriors, side, first, number, repeat, faithful))
            first += sizes.sets * (number + sizes.deletions)
    shadow, target = (_joined(kept) for kept in parts)
    return shadow, target


def _of_plan(
    posteriors: Callable[[np.ndarray, np.ndarray], np.ndarray], side: plan.SidePlan, first: int, shards: int,
    repeat: int, faithful: bool,
) -> Side:  # fmt: skip
    """One side of one repeat: set by set, deletion by deletion, positives then negatives."""
    sets, deletions, width = side.positive.shape
    places = np.concatenate([side.positive, side.negative], -1)  # [I, U, 2q]
    flat = places.reshape(sets * deletions, -1)
    retrained = posteriors(first + sets * shards + np.arange(sets * deletions), flat)
    owner = np.repeat(np.arange(sets), deletions)
    originals = np.stack([posteriors(first + owner * shards + shard, flat) for shard in range(shards)])
    classes = retrained.shape[-1]
    answers, after = originals.reshape(shards, -1, classes), retrained.reshape(-1, classes)
    shard = np.repeat(side.shard.ravel(), flat.shape[1])
    deleted = np.tile(np.repeat([True, False], width), sets * deletions)
    unit = repeat * sets + np.repeat(owner, flat.shape[1])
    return Side(
        sisa.original(answers), sisa.unlearned(answers, after, shard, faithful), deleted, unit,
        np.full(len(deleted), repeat), flat.ravel(),
    )  # fmt: skip


def _joined(parts: Sequence[Side]) -> Side:
    return Side(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def transferred(given: LeakInputs, shadow: Side, origin: str) -> LeakInputs:
    """The inputs with the shadow side of other models.

    Raises:
      DataError: other classes, or another number of repeats.
    """
    classes = [side.original.shape[1] for side in (shadow, given.target)]
    if classes[0] != classes[1]:
        raise errors.DataError(
            f"the shadow models of {origin} answer over {classes[0]} classes, the target models over {classes[1]}: an "
            "attack cannot be carried over. Take shadow models with as many classes."
        )
    repeats = [int(side.repeat.max()) + 1 for side in (shadow, given.target)]
    if repeats[0] != repeats[1]:
        raise errors.DataError(
            f"{origin} holds {repeats[0]} repeats, this run {repeats[1]}: an attack needs both sides of a repeat. Set "
            "--repeats to the other's."
        )
    return given._replace(shadow=shadow, about={**given.about, "shadow side": f"of {origin}"})


def as_arrays(given: LeakInputs) -> dict[str, np.ndarray]:
    """The inputs as a file of arrays from which `from_arrays` makes them again."""
    found: dict[str, np.ndarray] = {}
    for name, side in zip(SIDES, (given.shadow, given.target), strict=True):
        parts = {"original": side.original, "unlearned": side.unlearned, "deleted": side.deleted, "set": side.unit,
                 "repeat": side.repeat, "ids": side.ids}  # fmt: skip
        found |= {f"{name}_{part}": value for part, value in parts.items() if value is not None}
    return found


def _side(name: str, values: Mapping[str, np.ndarray], repeat: np.ndarray) -> Side:
    groups = values.get(f"{name}_set")
    original, unlearned = (_floats(values[f"{name}_{version}"]) for version in ("original", "unlearned"))
    unit = None if groups is None else np.unique(groups, return_inverse=True)[1].ravel()
    deleted, ids = values[f"{name}_deleted"], values.get(f"{name}_ids")
    return Side(original, unlearned, deleted, _units(unit, repeat), repeat, ids)


def _floats(values: np.ndarray) -> np.ndarray:
    """Posteriors in at least float32: differences of half precision would be rounding."""
    array = np.asarray(values)
    return array if array.dtype == np.float64 else array.astype(np.float32)


def _units(unit: np.ndarray | None, repeat: np.ndarray) -> np.ndarray | None:
    """Sets of different repeats are different units."""
    return None if unit is None else np.unique(np.stack([repeat, unit]), axis=1, return_inverse=True)[1].ravel()
