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
    """Returns the array fields of one side.

    Args:
      side: shadow or target.
      rows: letter of the axis of records.
      classes: letter of the axis of classes.
      published: name of the side in the reference.
    """
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
    "It contains posteriors of both versions for records that were deleted (1) or never used for training (0): "
    "`shadow_original`, `shadow_unlearned` [n, c], `shadow_deleted` [n] of models that you trained yourself, and "
    "`target_original`, `target_unlearned` [t, c], `target_deleted` [t] of the models under attack (docs/leaks.md)."
)


class Side(NamedTuple):
    """N posterior pairs of one side.

    Attributes:
      original, unlearned: [N, C] posteriors of both versions.
      deleted: [N] bool, True = trained on and then deleted, False = never trained on.
      unit: [N] int, the independent unit (record set) of each record, numbered over all repeats; None = not known.
      repeat: [N] int from 0, the repetition of the experiment.
      ids: [N] the user's names of the records, or None.
    """

    original: np.ndarray
    unlearned: np.ndarray
    deleted: np.ndarray
    unit: np.ndarray | None
    repeat: np.ndarray
    ids: np.ndarray | None = None


class LeaksUtility(NamedTuple):
    """Accuracies [I] of the original models of one side, per record set."""

    train: np.ndarray
    test: np.ndarray


class LeakInputs(NamedTuple):
    """Validated inputs of Unlearning-Leaks.

    Attributes:
      shadow, target: both sides, with the same repeats.
      utility: side -> accuracies of its original models; empty for a user's arrays.
      about: provenance; empty for a user's arrays.
    """

    shadow: Side
    target: Side
    utility: Mapping[str, LeaksUtility] = {}
    about: Mapping[str, str] = {}


def requested_features(settings: Settings) -> tuple[str, ...]:
    """Returns the features to measure, the classical attack last.

    Raises:
      ConfigError: an unknown feature.
    """
    requested = settings.leaks.features
    for name in requested:
        if name != "all" and name not in features.FEATURES:
            raise errors.unknown("feature", name, [*features.FEATURES, "all"])
    names = features.FEATURES if "all" in requested else (*requested, settings.leaks.feature)
    return (*(name for name in features.FEATURES if name in names and name != features.CLASSICAL), features.CLASSICAL)


def from_arrays(values: Mapping[str, np.ndarray], settings: Settings) -> LeakInputs:
    """Builds the inputs from arrays that `arrays.read` has checked.

    Raises:
      DataError: a side without one of the two kinds of records, or repeats that one side lacks.
    """
    blank = [np.zeros(len(values[f"{name}_deleted"]), np.int64) for name in SIDES]
    repeats = [values.get(f"{name}_repeat", zeros) for name, zeros in zip(SIDES, blank, strict=True)]
    values_of_repeat = np.unique(repeats[0])
    labels = (*values_of_repeat, *np.unique(repeats[1]))
    unmatched = [str(label) for label in labels if not all((side_repeats == label).any() for side_repeats in repeats)]
    if unmatched:
        raise errors.DataError(
            f"repeat {unmatched[0]} is on one side only: an attack needs both sides of a repeat (shadow_repeat and "
            "target_repeat)."
        )
    shadow, target = (
        _side(name, values, np.searchsorted(values_of_repeat, side_repeats))
        for name, side_repeats in zip(SIDES, repeats, strict=True)
    )
    for name, side in zip(SIDES, (shadow, target), strict=True):
        for repeat in np.unique(side.repeat):
            is_deleted = side.deleted[side.repeat == repeat]
            if is_deleted.all() or not is_deleted.any():
                raise errors.DataError(
                    f"{name}_deleted holds {int(is_deleted.sum())} deleted and {int((~is_deleted).sum())} other "
                    "records; an attack needs both: records that were deleted, and records never used for training."
                )
    return LeakInputs(shadow, target)


def sizes_of(settings: Settings) -> plan.Sizes:
    """Returns the sizes of each side of a run."""
    leak_settings = settings.leaks
    shards = leak_settings.shards if leak_settings.unlearning == "sisa" else 0
    return plan.Sizes(leak_settings.sets, leak_settings.set_size, leak_settings.deletions, leak_settings.group, shards)


def plans_of(settings: Settings, ids: np.ndarray, num_train: int) -> tuple[tuple[plan.SidePlan, plan.SidePlan], ...]:
    """Plans both sides of every repeat of a run, by rows of the data set.

    Args:
      settings: of the run.
      ids: [N] each row's number in the user's file: plans follow the order of the file, not of the pools.
      num_train: number of rows of the train pool, which come first.

    Raises:
      ConfigError: more rows than the data set has.
    """
    leak_settings = settings.leaks
    order = np.argsort(ids if leak_settings.rows == "all" else ids[:num_train], kind="stable")
    side_plans = plan.draw_all(
        len(order), sizes_of(settings), settings.seed, repeats=leak_settings.repeats,
        case=leak_settings.attacked_records, online=leak_settings.update == "online",
    )  # fmt: skip
    return tuple((plan.renamed(shadow, order), plan.renamed(target, order)) for shadow, target in side_plans)


def from_models(
    posteriors: Callable[[np.ndarray, np.ndarray], np.ndarray], plans: Sequence[Sequence[plan.SidePlan]],
    sizes: plan.Sizes, faithful: bool = False,
) -> tuple[Side, Side]:  # fmt: skip
    """Builds both sides from the posteriors of a run's models, ordered by repeat, shadow before target side.

    Args:
      posteriors: (members [m], rows [m, q]) -> [m, q, C] posteriors of each member on its own rows.
      plans: from `plans_of`; ids of records are rows.
      sizes: of each side.
      faithful: aggregate shards with the published error.
    """
    sides_by_repeat: tuple[list[Side], list[Side]] = ([], [])
    num_original = max(sizes.shards, 1)
    first = 0
    for repeat, sides in enumerate(plans):
        for repeats, side in zip(sides_by_repeat, sides, strict=True):
            repeats.append(_of_plan(posteriors, side, first, num_original, repeat, faithful))
            first += sizes.sets * (num_original + sizes.deletions)
    shadow, target = (_joined(repeats) for repeats in sides_by_repeat)
    return shadow, target


def _of_plan(
    posteriors: Callable[[np.ndarray, np.ndarray], np.ndarray], side: plan.SidePlan, first: int, shards: int,
    repeat: int, faithful: bool,
) -> Side:  # fmt: skip
    """Builds one side of one repeat, ordered by set and deletion, positives before negatives.

    Args:
      posteriors: as for `from_models`.
      side: plan of the side.
      first: index of its first model.
      shards: number of original models per set.
      repeat: index of the repeat.
      faithful: aggregate shards with the published error.
    """
    sets, deletions, width = side.positive.shape
    rows = np.concatenate([side.positive, side.negative], -1)  # [I, U, 2q]
    flat = rows.reshape(sets * deletions, -1)
    retrained = posteriors(first + sets * shards + np.arange(sets * deletions), flat)
    set_index = np.repeat(np.arange(sets), deletions)
    originals = np.stack([posteriors(first + set_index * shards + shard, flat) for shard in range(shards)])
    classes = retrained.shape[-1]
    shard_answers, retrained_flat = originals.reshape(shards, -1, classes), retrained.reshape(-1, classes)
    shard = np.repeat(side.shard.ravel(), flat.shape[1])
    deleted = np.tile(np.repeat([True, False], width), sets * deletions)
    unit = repeat * sets + np.repeat(set_index, flat.shape[1])
    return Side(
        sisa.original(shard_answers), sisa.unlearned(shard_answers, retrained_flat, shard, faithful), deleted, unit,
        np.full(len(deleted), repeat), flat.ravel(),
    )  # fmt: skip


def _joined(sides: Sequence[Side]) -> Side:
    return Side(*(np.concatenate(fields) for fields in zip(*sides, strict=True)))


def transferred(leak_inputs: LeakInputs, shadow: Side, origin: str) -> LeakInputs:
    """Replaces the shadow side by that of other models.

    Raises:
      DataError: a different number of classes or of repeats.
    """
    classes = [side.original.shape[1] for side in (shadow, leak_inputs.target)]
    if classes[0] != classes[1]:
        raise errors.DataError(
            f"the shadow models of {origin} answer over {classes[0]} classes, the target models over {classes[1]}: an "
            "attack cannot be carried over. Take shadow models with as many classes."
        )
    repeats = [int(side.repeat.max()) + 1 for side in (shadow, leak_inputs.target)]
    if repeats[0] != repeats[1]:
        raise errors.DataError(
            f"{origin} holds {repeats[0]} repeats, this run {repeats[1]}: an attack needs both sides of a repeat. Set "
            "--repeats to the other's."
        )
    return leak_inputs._replace(shadow=shadow, about={**leak_inputs.about, "shadow side": f"of {origin}"})


def as_arrays(leak_inputs: LeakInputs) -> dict[str, np.ndarray]:
    """Returns the inputs as arrays from which `from_arrays` rebuilds them."""
    arrays: dict[str, np.ndarray] = {}
    for name, side in zip(SIDES, (leak_inputs.shadow, leak_inputs.target), strict=True):
        columns = {"original": side.original, "unlearned": side.unlearned, "deleted": side.deleted, "set": side.unit,
                 "repeat": side.repeat, "ids": side.ids}  # fmt: skip
        arrays |= {f"{name}_{column}": value for column, value in columns.items() if value is not None}
    return arrays


def _side(name: str, values: Mapping[str, np.ndarray], repeat: np.ndarray) -> Side:
    groups = values.get(f"{name}_set")
    original, unlearned = (_floats(values[f"{name}_{version}"]) for version in ("original", "unlearned"))
    unit = None if groups is None else np.unique(groups, return_inverse=True)[1].ravel()
    deleted, ids = values[f"{name}_deleted"], values.get(f"{name}_ids")
    return Side(original, unlearned, deleted, _units(unit, repeat), repeat, ids)


def _floats(values: np.ndarray) -> np.ndarray:
    """Converts posteriors to at least float32: differences in half precision would be rounding errors."""
    array = np.asarray(values)
    return array if array.dtype == np.float64 else array.astype(np.float32)


def _units(unit: np.ndarray | None, repeat: np.ndarray) -> np.ndarray | None:
    """Numbers the sets over all repeats: sets of different repeats are different units."""
    return None if unit is None else np.unique(np.stack([repeat, unit]), axis=1, return_inverse=True)[1].ravel()
