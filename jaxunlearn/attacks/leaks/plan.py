"""Who trains on what: record sets, deletions, records that no model saw, and replacements, as row numbers.

    all rows -> two sides that share no record: shadow (the attacker trains on it) and target (it is attacked)
    a side   -> positive (sets are drawn from it), negative (never trained on), replace (added by online learning)
    a set    -> one original model; its deletions -> one unlearned model each

Draws use NumPy's legacy generator and the published order of calls, so published plans are reproduced bit for bit; what
the published code draws later, in its attack stage, comes from a separate generator here.

Source: Unlearning-Leaks, record_split. Differs from the published code: one seed decides everything (published: none
is set), and SISA with a group is an error (published: the group size is ignored).
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
    """The plan of one side; I sets, U deletions each, k records per deletion.

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
    """Splits rows as scikit-learn's train_test_split does; returns (remaining rows, ceil(fraction * n) drawn rows)."""
    size = int(np.ceil(fraction * len(rows)))
    order = np.random.RandomState(seed).permutation(len(rows))
    return rows[order[size:]], rows[order[:size]]


def pools(num_rows: int) -> tuple[SideRows, SideRows]:
    """Returns the pools of the shadow and the target side; they depend only on the number of rows.

    Example:
      >>> from jaxunlearn.attacks.leaks import plan
      >>> shadow, target = plan.pools(100)
      >>> len(shadow.positive), len(shadow.negative), len(shadow.replace)
      (40, 8, 2)
    """

    def of_side(rows: np.ndarray) -> SideRows:
        positive, remainder = split(rows, 0.2, 100)
        negative, replace = split(remainder, 0.15, 0)
        return SideRows(positive, negative, replace)

    shadow, target = split(np.arange(num_rows), 0.5, 100)
    return of_side(shadow), of_side(target)


def check(sizes: Sizes, pool: SideRows, case: str = "in_out", online: bool = False, side: str = "shadow") -> None:
    """Raises an error unless a side has enough records for its sizes.

    Args:
      sizes: of the side.
      pool: its records.
      case: one of `CASES`.
      online: whether deleted records are replaced by fresh ones.
      side: "shadow" or "target", for messages.

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
            f"the {side} side has {len(pool.negative)} records never used for training, but {needed} are needed. Lower "
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
    for name, value, allowed in (("group", sizes.group, 1), ("case", case, "in_out"), ("update", online, False)):
        if value != allowed:
            text = "online" if name == "update" else value
            raise errors.ConfigError(f"{name} = {text}: SISA deletes one record per retrained shard and adds none.")


def draw(
    pool: SideRows, sizes: Sizes, generator: np.random.RandomState, attack_generator: np.random.RandomState, *,
    case: str = "in_out", online: bool = False,
) -> SidePlan:  # fmt: skip
    """Draws the plan of one side.

    Args:
      pool: records of the side.
      sizes: of the side, checked by `check`.
      generator: of sets and deletions, used in the published order of calls: shadow side first, then target.
      attack_generator: of what the published code draws in its attack: negatives, replacements, single records.
      case: in_out (deleted records against records never seen), in_in (records that stay), or multi_version (one of
        the k deleted records: it was removed at some moment between the two versions).
      online: whether as many fresh records are added as are deleted.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.leaks import plan
      >>> shadow, _ = plan.pools(100)
      >>> side = plan.draw(shadow, plan.Sizes(2, 10, 3), np.random.RandomState(0), np.random.RandomState(1))
      >>> side.sets.shape, side.deleted.shape
      ((2, 10), (2, 3, 1))
    """
    rows, deleted = [], []
    for _ in range(sizes.sets):
        records = generator.choice(pool.positive, sizes.set_size, replace=False)
        rows.append(records)
        if sizes.shards:  # every record at most once
            deleted.append(generator.choice(records, sizes.deletions, replace=False)[:, None])
        else:
            deleted.append(
                np.stack([generator.choice(records, sizes.group, replace=False) for _ in range(sizes.deletions)])
            )
    sets, deletions = np.stack(rows), np.stack(deleted)
    # Drawn before everything that depends on the case, so that every case is measured on the same models.
    added = None
    if online:
        additions = [
            attack_generator.choice(pool.replace, sizes.group, replace=False)
            for _ in range(sizes.sets * sizes.deletions)
        ]
        added = np.stack(additions).reshape(deletions.shape)
    positive = _evaluated(sets, deletions, case, attack_generator)
    if sizes.shards:
        partners = [attack_generator.choice(pool.negative, sizes.deletions, replace=False) for _ in sets]
        negative = np.stack(partners)[:, :, None]
    else:
        negative = attack_generator.choice(pool.negative, positive.shape)
    return SidePlan(sets, deletions, shard_of(sets, deletions, sizes.shards), positive, negative, added)


def draw_all(
    num_rows: int, sizes: Sizes, seed: int, *, repeats: int = 1, case: str = "in_out", online: bool = False
) -> tuple[tuple[SidePlan, SidePlan], ...]:
    """Draws both sides of every repeat; repeat r equals the first repeat of seed + r.

    Args:
      num_rows: of the data set.
      sizes: of both sides.
      seed: of all draws.
      repeats: independent plans.
      case: see `draw`.
      online: see `draw`.

    Returns:
      (shadow side, target side) per repeat.

    Raises:
      ConfigError: as `check`.

    Example:
      >>> from jaxunlearn.attacks.leaks import plan
      >>> (shadow, target), = plan.draw_all(100, plan.Sizes(2, 10, 3), seed=0)
      >>> len(set(shadow.sets.ravel()) & set(target.sets.ravel()))
      0
    """
    side_pools = pools(num_rows)
    for side, pool in zip(("shadow", "target"), side_pools, strict=True):
        check(sizes, pool, case, online, side)
    plans = []
    for repeat in range(repeats):
        generator = np.random.RandomState((seed + repeat) % 2**32)
        attack_generator = np.random.RandomState([seed + repeat, 1])
        shadow, target = (
            draw(pool, sizes, generator, attack_generator, case=case, online=online) for pool in side_pools
        )
        plans.append((shadow, target))
    return tuple(plans)


def renamed(side: SidePlan, names: np.ndarray) -> SidePlan:
    """Returns the plan in other row numbers: row i becomes names[i]."""
    added = None if side.added is None else names[side.added]
    return SidePlan(
        names[side.sets], names[side.deleted], side.shard, names[side.positive], names[side.negative], added
    )


def _evaluated(sets: np.ndarray, deleted: np.ndarray, case: str, attack_generator: np.random.RandomState) -> np.ndarray:
    """Draws the [I, U, q] records with label 1."""
    if case == "in_out":
        return deleted
    if case == "multi_version":
        return np.asarray(
            [[[attack_generator.choice(records)] for records in set_deletions] for set_deletions in deleted]
        )
    return np.asarray(
        [
            [[attack_generator.choice(np.setdiff1d(rows, records))] for records in set_deletions]
            for rows, set_deletions in zip(sets, deleted, strict=True)
        ]
    )


def shards_of(sets: np.ndarray, shards: int) -> np.ndarray:
    """Returns the [I, S, n / S] records of every shard, in the order in which they were drawn."""
    return sets.reshape(len(sets), max(shards, 1), -1)


def shard_of(sets: np.ndarray, deleted: np.ndarray, shards: int) -> np.ndarray:
    """Returns [I, U] which shard holds the first deleted record; zeros without shards."""
    size = sets.shape[1] // max(shards, 1)
    return (sets[:, None, :] == deleted[:, :, :1]).argmax(-1) // size


def membership(side: SidePlan, shards: int, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns who trains on what, as a membership matrix.

    Returns:
      ([I * S + I * U, num_rows] bool: all original (shard) models set by set, then all unlearned ones;
      [I * S + I * U] int the original model from which each comes).
    """
    shard_rows = shards_of(side.sets, shards)
    sets, num_shards, _ = shard_rows.shape
    deletions = side.deleted.shape[1]
    member = np.zeros((sets * (num_shards + deletions), num_rows), bool)
    source = np.zeros(len(member), np.int32)
    for i in range(sets):
        for s in range(num_shards):
            member[i * num_shards + s, shard_rows[i, s]] = True
            source[i * num_shards + s] = i * num_shards + s
        for j in range(deletions):
            index, origin = sets * num_shards + i * deletions + j, i * num_shards + int(side.shard[i, j])
            member[index] = member[origin]
            member[index, side.deleted[i, j]] = False
            if side.added is not None:
                member[index, side.added[i, j]] = True
            source[index] = origin
    return member, source


def evaluated_rows(sides: Sequence[SidePlan]) -> np.ndarray:
    """Returns the sorted distinct rows whose posteriors are needed."""
    return np.unique(np.concatenate([np.concatenate([side.positive.ravel(), side.negative.ravel()]) for side in sides]))
