"""Who trains on what: shadow, target, population and test rows, and which rows each shadow model sees.

    train pool    -> shadow | target        (forget sets lie inside target: see `forget`)
    held-out pool -> test | population
    shadow pool   -> one row of [M, N] per shadow model

Three ways of drawing, by `settings.rng`:

* `numpy`: everything is random by the seed. The training rows of a member depend on the seed, its number and the pool,
  never on the number of members or the order of drawing.
* `mt19937`: the published permutations, index for index, with their quirks: shadow and target do not depend on the
  seed; the last 100 target rows are forgotten under every seed (so only 400 of 500 vary, and forget sets of at most 100
  rows are all the same); the last 200 shadow rows are training rows of every shadow model; shadow seeds are chained
  through their low byte and always start at 42.
* `optml`: SalUn's published splits (see `optml_splits`): the shadow set is its validation set. Held-out rows and
  shadow members, which that code does not have, are drawn as with `numpy`.

Source: IAM reference, data loader and shadow training; pinned by golden arrays.
"""

from collections.abc import Sequence

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.data.formats import published_permutations
from jaxunlearn.data.splitting import forget, optml_splits
from jaxunlearn.records import Dataset, Split
from jaxunlearn.settings import ShadowSettings, SplitSettings


def draw(dataset: Dataset, settings: SplitSettings, seed: int) -> Split:
    """Draws the split of one run.

    With `rng="numpy"` shadow and target rows are random draws from the train pool, and the held-out pool is halved at
    random; forget sets are independent uniform draws from the target rows, set r by seed + r. Rows of an
    `index_file` and `randperm` never enter the shadow set, so that they can always be audited.

    With `rng="mt19937"` shadow, target, test, population and the forget sets of `set_random` equal the published ones:
    set r is the published set of seed + r, the held-out halves are those of `seed`. Differs from the published code
    in nothing; see the module docstring for its quirks.

    With `rng="optml"` shadow (validation) rows in drawn order, target (training) rows ascending and the forget sets of
    `set_random`, `one_class` and `class_percentage` equal those of SalUn's code; set r is the published one of seed +
    r. That code tests on the whole held-out pool; here it also supplies the population rows (`settings.test`).

    Args:
      dataset: train pool first, then held-out pool.
      settings: sizes, generator and forget sets.
      seed: the run's seed.

    Returns:
      A `Split` whose index arrays are rows of the data set: shadow [settings.shadow], target in drawn order, test
      (settings.test rows of the held-out pool, or half of it, an odd row included), population (the others, at most
      settings.population), forget [R, N].

    Raises:
      ConfigError: sizes that do not fit together, or a forget set that is empty or leaves nothing to retain.
      DataError: an absent class, or an index file that does not fit.

    Example:
      >>> from jaxunlearn import data, settings
      >>> from jaxunlearn.data.splitting import splits
      >>> digits = data.load(settings.DataSettings(name="digits"))
      >>> options = settings.SplitSettings(shadow=600, forget=settings.ForgetSettings(size=10, count=2))
      >>> split = splits.draw(digits, options, seed=1)
      >>> split.shadow.shape, split.target.shape, split.forget.sum(1)
      ((600,), (837,), array([10, 10]))
    """
    _check_pools(dataset, settings)
    listed = forget.listed_rows(settings, dataset)
    if settings.rng == "mt19937":
        shadow, target, held_out = _published_rows(dataset, settings, seed)
    elif settings.rng == "optml":
        shadow, target, held_out = _optml_rows(dataset, settings, seed)
    else:
        shadow, target, held_out = _random_rows(dataset, settings, seed, listed)
    num_test = settings.test or (len(held_out) + 1) // 2
    sets = forget.draw(dataset, target, settings, seed, listed)
    return Split(
        shadow=shadow.astype(np.int32),
        target=target.astype(np.int32),
        population=held_out[num_test:][: settings.population].astype(np.int32),
        test=held_out[:num_test].astype(np.int32),
        forget=sets,
        kind=settings.forget.kind,
        seed=seed,
    )


def _check_pools(dataset: Dataset, settings: SplitSettings) -> None:
    num_train, num_held_out = dataset.num_train, len(dataset.labels) - dataset.num_train
    if settings.shadow + max(settings.target, 2) > num_train:
        requirement = f"split.target = {settings.target}" if settings.target else "at least 2 target rows"
        raise errors.ConfigError(
            f"split.shadow = {settings.shadow} and {requirement} do not fit into the train pool of {dataset.name!r}, "
            f"which has {num_train} rows. Lower split.shadow{' or split.target' if settings.target else ''}."
        )
    if num_held_out < 2:
        raise errors.ConfigError(
            f"the held-out pool of {dataset.name!r} has {num_held_out} row(s); test and population need one each. "
            "Hold out more rows (data.held_out, data.test_rows)."
        )
    if settings.test >= num_held_out:
        raise errors.ConfigError(
            f"split.test = {settings.test} leaves none of the {num_held_out} held-out rows of {dataset.name!r} for the "
            "population. Lower it, or set 0 for half of them."
        )
    if settings.rng != "optml" and settings.shadow < 2:
        raise errors.ConfigError(
            f"split.shadow = {settings.shadow}: shadow models need at least 2 rows of their own. Only split.rng = "
            "'optml', which sets their number itself, accepts 0."
        )
    if settings.rng == "mt19937":
        num_target = settings.target or num_train - settings.shadow
        if num_target < published_permutations.TARGET_TAIL:
            raise errors.ConfigError(
                f"split.rng = 'mt19937' needs at least {published_permutations.TARGET_TAIL} target rows (published "
                f"fixed tail), but there are {num_target}. Lower split.shadow, or use split.rng = 'numpy'."
            )
        if settings.shadow < published_permutations.SHADOW_TAIL:
            raise errors.ConfigError(
                f"split.rng = 'mt19937' needs at least {published_permutations.SHADOW_TAIL} shadow rows (published "
                f"fixed tail), but split.shadow = {settings.shadow}. Raise it, or use split.rng = 'numpy'."
            )


def _random_rows(
    dataset: Dataset, settings: SplitSettings, seed: int, listed: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    num_train = dataset.num_train
    order = published_permutations.generator(seed, "split").permutation(num_train)
    is_listed = np.zeros(num_train, bool)
    for rows in listed:
        is_listed[rows] = True
    free = order[~is_listed[order]]
    if len(free) < settings.shadow:
        raise errors.ConfigError(
            f"split.shadow = {settings.shadow}, but only {len(free)} rows of the train pool are left in addition to "
            f"the {int(is_listed.sum())} rows to forget ({forget.source_of_rows(settings)}). Lower split.shadow."
        )
    shadow = free[: settings.shadow]
    if settings.target and settings.target < is_listed.sum():
        raise errors.ConfigError(
            f"split.target = {settings.target}, but {forget.source_of_rows(settings)} contains {int(is_listed.sum())} "
            "different rows, all of which must be target rows. Raise split.target."
        )
    is_target = is_listed.copy()
    others = free[settings.shadow :]
    is_target[others[: settings.target - is_listed.sum()] if settings.target else others] = True
    target = order[is_target[order]]
    return shadow, target, _random_held_out(dataset, seed)


def _random_held_out(dataset: Dataset, seed: int) -> np.ndarray:
    num_held_out = len(dataset.labels) - dataset.num_train
    return dataset.num_train + published_permutations.generator(seed, "held_out").permutation(num_held_out)


def _optml_rows(dataset: Dataset, settings: SplitSettings, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = np.asarray(dataset.labels)[: dataset.num_train]
    shadow = optml_splits.validation_rows(labels, seed)
    target = optml_splits.training_rows(labels, shadow)
    for name, requested, available in (
        ("shadow", settings.shadow, len(shadow)),
        ("target", settings.target, len(target)),
    ):
        if requested not in (0, available):
            raise errors.ConfigError(
                f"split.{name} = {requested}, but split.rng = 'optml' keeps 10 % of each class of {dataset.name!r}, "
                f"{len(shadow)} rows, as shadow set and the other {len(target)} as target set. Set "
                f"--config.split.{name}=0 or {available}."
            )
    if len(shadow) < 2:
        raise errors.ConfigError(
            f"split.rng = 'optml' keeps 10 % of each class as shadow set, but the classes of {dataset.name!r} are so "
            f"small that this is {len(shadow)} row(s). Use more rows, or split.rng = 'numpy'."
        )
    return shadow, target, _random_held_out(dataset, seed)


def _published_rows(dataset: Dataset, settings: SplitSettings, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    num_rows, num_train = len(dataset.labels), dataset.num_train
    order = published_permutations.fixed(num_train)
    shadow, target = order[: settings.shadow], order[settings.shadow :]
    target = target[: settings.target or None]
    stream = published_permutations.published_stream(seed)
    # Drawn and thrown away: the held-out permutation continues the stream behind the one of the target rows.
    published_permutations.published(len(target) - published_permutations.TARGET_TAIL, stream)
    held_out = num_train + published_permutations.published(num_rows - num_train, stream)
    return shadow, target, held_out


def shadow_seeds(count: int) -> list[int]:
    """Returns the seeds of the first `count` shadow models of a published sequential run.

    s_0 = 42, s_i = (s_{i-1} mod 256) + i.
    """
    seeds = [published_permutations.FIXED_SEED]
    for i in range(1, count):
        seeds.append(seeds[-1] % 256 + i)
    return seeds[:count]


def shadow_pool(split: Split, pool: str) -> np.ndarray:
    """Returns the rows [n] that shadow models may train on: the shadow rows, the target rows, or both in this order.

    Raises:
      ConfigError: unknown pool.
    """
    pools = {"shadow": [split.shadow], "target": [split.target], "both": [split.shadow, split.target]}
    checks.choice("shadows.pool", pool, pools)
    return np.concatenate([np.asarray(rows) for rows in pools[pool]])


def shadow_members(
    split: Split, shadows: ShadowSettings, member_ids: Sequence[int] | np.ndarray, seed: int, rng: str, num_rows: int
) -> np.ndarray:
    """Draws the rows that each shadow model trains on: int(ratio * pool size) rows of the pool.

    Member i's row is a function of (seed, i) and the pool alone. With `rng="mt19937"` it is the published one of a
    sequential run: the last 200 pool positions always, the rest by member i's chained seed; `seed` plays no part.

    Args:
      split: from `draw`; the pool is its shadow rows, its target rows, or both in this order.
      shadows: ratio and pool.
      member_ids: [M] global ids of members, at least 0.
      seed: the run's seed.
      rng: numpy, mt19937, or optml (which draws as numpy does).
      num_rows: N, rows of the data set.

    Returns:
      [M, N] bool.

    Raises:
      ConfigError: a member would train on nothing, or too few rows for the published fixed tail.

    Example:
      >>> from jaxunlearn import data, settings
      >>> from jaxunlearn.data.splitting import splits
      >>> digits = data.load(settings.DataSettings(name="digits"))
      >>> options = settings.SplitSettings(shadow=600, forget=settings.ForgetSettings(size=10, count=2))
      >>> split = splits.draw(digits, options, seed=1)
      >>> members = splits.shadow_members(split, settings.ShadowSettings(ratio=0.5), range(3), 1, "numpy", 1797)
      >>> members.sum(1)
      array([300, 300, 300])
    """
    checks.choice("split.rng", rng, ("numpy", "mt19937", "optml"))
    pool = shadow_pool(split, shadows.pool)
    member_ids = np.asarray(member_ids, np.int64).reshape(-1)
    size = int(shadows.ratio * len(pool))
    least = published_permutations.SHADOW_TAIL if rng == "mt19937" else 1
    if not least <= size <= len(pool):
        raise errors.ConfigError(
            f"shadows.ratio = {shadows.ratio} of {len(pool)} rows (pool {shadows.pool!r}) gives {size} rows per shadow "
            f"model; with split.rng = {rng!r} it must be between {least} and {len(pool)}. Raise the ratio or "
            "split.shadow."
        )
    if len(member_ids) and member_ids.min() < 0:
        raise errors.ConfigError(f"member number {int(member_ids.min())}: shadow models are numbered from 0.")
    members = np.zeros((len(member_ids), num_rows), bool)
    if rng != "mt19937":
        for row, member_id in zip(members, member_ids.tolist(), strict=True):
            row[published_permutations.generator(seed, "shadow_members", member_id).permutation(pool)[:size]] = True
        return members
    seeds = shadow_seeds(int(member_ids.max()) + 1 if len(member_ids) else 0)
    for row, member_id in zip(members, member_ids.tolist(), strict=True):
        row[pool[published_shadow_positions(len(pool), shadows.ratio, seeds[member_id])]] = True
    return members


def published_shadow_positions(pool_size: int, ratio: float, seed: int) -> np.ndarray:
    """Returns the training positions of one published shadow model, in its published order.

    A permutation of all but the last 200 positions gives the first int(ratio * m) - 200; the last 200 follow in order.

    Returns:
      [int(ratio * pool_size)] int64 positions within the pool.
    """
    size = int(ratio * pool_size)
    order = published_permutations.published(
        pool_size - published_permutations.SHADOW_TAIL, published_permutations.published_stream(seed)
    )
    tail = np.arange(pool_size - published_permutations.SHADOW_TAIL, pool_size)
    return np.concatenate([order[: size - published_permutations.SHADOW_TAIL], tail])
