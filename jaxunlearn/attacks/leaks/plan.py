"""Who trains on what: record sets, deletions, records that nobody saw, and replacements, as row numbers.

    all rows -> two sides that share no record: shadow (the attacker trains on it) and target (it is attacked)
    a side   -> positive (sets are drawn from it), negative (never trained on), replace (added by online learning)
    a set    -> one original model; its deletions -> one unlearned model each

With NumPy's legacy generator and the published order of calls, so that published plans come back bit for bit; what the
published code draws later, in its attack stage, comes from a generator of its own here.

Source: Unlearning-Leaks, record_split. Differs from the published code: one seed decides everything (published: none
is set), and a SISA plan of a group is refused (published: the group size is ignored).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxunlearn import checks, errors

CASES = ("in_out", "in_in", "multi_version")


class SideRows(NamedTuple):
    """Row numbers of one side: positive [P], negative [n], replace [r]; disjoint."""

    positive: np.ndarray
    negative: np.ndarray
    replace: np.ndarray


class Sizes(NamedTuple):
    """How much is drawn on one side.

    Attributes:
      sets: original models; set_size: training records of each.
      deletions: unlearned models per original; group: records that one of them deletes together.
      shards: of SISA; 0 = retraining from scratch.
    """

    sets: int
    set_size: int
    deletions: int
    group: int = 1
    shards: int = 0


class SidePlan(NamedTuple):
    """What happens on one side; I sets, U deletions each, k records per deletion.

    Attributes:
      sets: [I, n] training records, in the order in which they were drawn.
      deleted: [I, U, k] records of the set.
      shard: [I, U] int which shard holds the deleted record; zeros without shards.
      positive: [I, U, q] evaluated records with label 1.
      negative: [I, U, q] their partners with label 0, never trained on.
      added: [I, U, k] records that replace the deleted ones; None = nothing is added.
    """

    sets: np.ndarray
    deleted: np.ndarray
    shard: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    added: np.ndarray | None


def split(rows: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits rows as scikit-learn's train_test_split does; returns (rest, the ceil(fraction * n) taken out)."""
    taken = int(np.ceil(fraction * len(rows)))
    order = np.random.RandomState(seed).permutation(len(rows))
    return rows[order[taken:]], rows[order[:taken]]


def pools(num_rows: int) -> tuple[SideRows, SideRows]:
    """Returns the pools of the shadow and of the target side; a function of the number of rows alone."""

    def of_side(rows: np.ndarray) -> SideRows:
        positive, rest = split(rows, 0.2, 100)
        negative, replace = split(rest, 0.15, 0)
        return SideRows(positive, negative, replace)

    shadow, target = split(np.arange(num_rows), 0.5, 100)
    return of_side(shadow), of_side(target)


def check(sizes: Sizes, pool: SideRows, case: str = "in_out", online: bool = False, side: str = "shadow") -> None:
    """Refuses sizes that a side cannot have.

    Raises:
      ConfigError: the message names the setting, its value and what is possible.
    """
    checks.choice("case", case, CASES)
    for name in ("sets", "set_size", "deletions", "group"):
        checks.in_range(name, getattr(sizes, name), 1)
    if sizes.set_size > len(pool.positive):
        raise errors.ConfigError(
            f"set_size = {sizes.set_size}, but the {side} side has {len(pool.positive):,} records to train on (four "
            "tenths of the data). Lower set_size, or give more data."
        )
    if sizes.group >= sizes.set_size:
        raise errors.ConfigError(
            f"group = {sizes.group} records are deleted together from sets of set_size = {sizes.set_size}: nothing "
            "is left to train on. Lower group or raise set_size."
        )
    if sizes.shards:
        _check_sisa(sizes, case, online)
    needed = sizes.group if case == "in_out" else 1
    if not len(pool.negative) or (sizes.shards and sizes.deletions > len(pool.negative)):
        needed = sizes.deletions if sizes.shards else needed
        raise errors.ConfigError(
            f"the {side} side has {len(pool.negative)} records that nobody trains on, but {needed} are needed. Lower "
            "deletions, or give more data."
        )
    if online and sizes.group > len(pool.replace):
        raise errors.ConfigError(
            f"online learning adds {sizes.group} records per model, but the {side} side has {len(pool.replace)} for "
            "that. Lower group, or give more data."
        )


def _check_sisa(sizes: Sizes, case: str, online: bool) -> None:
    if sizes.set_size % sizes.shards or sizes.set_size < 2 * sizes.shards:
        raise errors.ConfigError(
            f"set_size = {sizes.set_size} does not split into {sizes.shards} equal shards of at least 2 records. "
            "Choose shards that divide set_size."
        )
    if sizes.deletions > sizes.set_size:
        raise errors.ConfigError(
            f"deletions = {sizes.deletions}, but a set has {sizes.set_size} records, of which SISA deletes each "
            "at most once. Lower deletions."
        )
    for name, value, only in (("group", sizes.group, 1), ("case", case, "in_out"), ("update", online, False)):
        if value != only:
            shown = "online" if name == "update" else value
            raise errors.ConfigError(f"{name} = {shown}: SISA deletes one record per retrained shard and adds none.")


def draw(
    pool: SideRows, sizes: Sizes, generator: np.random.RandomState, later: np.random.RandomState, *,
    case: str = "in_out", online: bool = False,
) -> SidePlan:  # fmt: skip
    """Draws the plan of one side.

    Args:
      pool: of the side.
      sizes: checked.
      generator: of sets and deletions, used in the published order of calls: shadow side first, then target.
      later: of everything that the published code draws while it attacks: negatives, replacements, single records.
      case: in_out (deleted records against records never seen), in_in (records that stay), or multi_version (one of
        the k deleted records: it was removed at some moment between the two versions).
      online: as many fresh records are added as are deleted.
    """
    rows, deleted = [], []
    for _ in range(sizes.sets):
        one = generator.choice(pool.positive, sizes.set_size, replace=False)
        rows.append(one)
        if sizes.shards:  # every record at most once
            deleted.append(generator.choice(one, sizes.deletions, replace=False)[:, None])
        else:
            deleted.append(
                np.stack([generator.choice(one, sizes.group, replace=False) for _ in range(sizes.deletions)])
            )
    sets, gone = np.stack(rows), np.stack(deleted)
    # Before what depends on the case: every case is measured on the same models.
    added = None
    if online:
        fresh = [later.choice(pool.replace, sizes.group, replace=False) for _ in range(sizes.sets * sizes.deletions)]
        added = np.stack(fresh).reshape(gone.shape)
    positive = _evaluated(sets, gone, case, later)
    if sizes.shards:
        negative = np.stack([later.choice(pool.negative, sizes.deletions, replace=False) for _ in sets])[:, :, None]
    else:
        negative = later.choice(pool.negative, positive.shape)
    return SidePlan(sets, gone, shard_of(sets, gone, sizes.shards), positive, negative, added)


def whole(
    num_rows: int, sizes: Sizes, seed: int, *, repeats: int = 1, case: str = "in_out", online: bool = False
) -> tuple[tuple[SidePlan, SidePlan], ...]:
    """Draws both sides of every repeat; repeat r is what seed + r gives as its first.

    Raises:
      ConfigError: as `check`.
    """
    both = pools(num_rows)
    for side, pool in zip(("shadow", "target"), both, strict=True):
        check(sizes, pool, case, online, side)
    found = []
    for repeat in range(repeats):
        generator, later = np.random.RandomState((seed + repeat) % 2**32), np.random.RandomState([seed + repeat, 1])
        shadow, target = (draw(pool, sizes, generator, later, case=case, online=online) for pool in both)
        found.append((shadow, target))
    return tuple(found)


def renamed(side: SidePlan, names: np.ndarray) -> SidePlan:
    """The same plan in other row numbers: row i becomes names[i]."""
    added = None if side.added is None else names[side.added]
    return SidePlan(
        names[side.sets], names[side.deleted], side.shard, names[side.positive], names[side.negative], added
    )


def _evaluated(sets: np.ndarray, deleted: np.ndarray, case: str, later: np.random.RandomState) -> np.ndarray:
    """[I, U, q] the records with label 1."""
    if case == "in_out":
        return deleted
    if case == "multi_version":
        return np.asarray([[[later.choice(gone)] for gone in per_set] for per_set in deleted])
    return np.asarray(
        [
            [[later.choice(np.setdiff1d(rows, gone))] for gone in per_set]
            for rows, per_set in zip(sets, deleted, strict=True)
        ]
    )


def shards_of(sets: np.ndarray, shards: int) -> np.ndarray:
    """[I, S, n / S] the records of every shard, in the order in which they were drawn."""
    return sets.reshape(len(sets), max(shards, 1), -1)


def shard_of(sets: np.ndarray, deleted: np.ndarray, shards: int) -> np.ndarray:
    """[I, U] which shard holds the first deleted record; zeros without shards."""
    size = sets.shape[1] // max(shards, 1)
    return (sets[:, None, :] == deleted[:, :, :1]).argmax(-1) // size


def membership(side: SidePlan, shards: int, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Who trains on what, as a membership matrix.

    Returns:
      ([I * S + I * U, num_rows] bool: all original (shard) models set by set, then all unlearned ones;
      [I * S + I * U] int the original model from which each comes).
    """
    parts = shards_of(side.sets, shards)
    sets, number, _ = parts.shape
    deletions = side.deleted.shape[1]
    member = np.zeros((sets * (number + deletions), num_rows), bool)
    source = np.zeros(len(member), np.int32)
    for i in range(sets):
        for s in range(number):
            member[i * number + s, parts[i, s]] = True
            source[i * number + s] = i * number + s
        for j in range(deletions):
            place, origin = sets * number + i * deletions + j, i * number + int(side.shard[i, j])
            member[place] = member[origin]
            member[place, side.deleted[i, j]] = False
            if side.added is not None:
                member[place, side.added[i, j]] = True
            source[place] = origin
    return member, source


def evaluated_rows(sides: Sequence[SidePlan]) -> np.ndarray:
    """Sorted distinct rows whose posteriors are needed."""
    return np.unique(np.concatenate([np.concatenate([one.positive.ravel(), one.negative.ravel()]) for one in sides]))
