"""Says what was done to the models: which are trained on what, and edits of answers that only pretend to forget.

`prepare` makes everything that one family's lines need and returns it as arrays by name, [W, ...] each:

    original, again [1, A]     trained on all of the user's rows; `again` from another seed
    shadow [64, A], judge [32, A]      trained on as many rows of the pool; judges only say which rows are hard
    small, narrow, other [20, A]       shadows with half of the rows, half of the width, of another architecture
    KIND/requested [F]         places of the requested rows
    KIND/retrained [2, A]      without them, from the original's seed and from another
    KIND/half [1, A], KIND/half_kept [F]     without half of them; which are still trained on
    KIND/finetuned, KIND/ascended [1, A]     the original moved on by retained rows, or up the loss of the requested
    random/own [20, A], random/own_saw [20, N]     shadows trained on halves of the user's own retained rows
    others [K, A], others/requested [K, F]   exact retrains of other, random requests of the same original
    reference [32, A], reference/saw [32, N]       trained on half of the user's rows and as many of the pool

A = N + P answers: log-odds of the true class on the user's rows, then on the population.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from tests.scenarios import requests, worlds
from tests.scenarios.worlds import Data, Family, Model, Moves, generator

MOST_SHADOWS, FEWER_SHADOWS, JUDGES, OTHERS, REFERENCES = 64, 20, 32, 10, 32
ORIGINAL, AGAIN, RETRAINED, HALF = 0, 1, 2, 3  # seeds; every other model has one from 100 on
FINETUNING = {"steps": 40, "learning_rate": 0.2, "batch": 50}
ASCENT = {"steps": 6, "learning_rate": -0.1, "batch": 30}
JITTER = 0.3  # of a typical deviation between shadows, on rows that nobody asked about
EDITS = ("logit -40", "confidence x .1", "mean of shadows")
Arrays = dict[str, np.ndarray]


def prepare(
    family: Family, count: int, kinds: Sequence[str], extras: Sequence[str] = (), shadows: int = FEWER_SHADOWS,
    cache: str = "",
) -> Arrays:  # fmt: skip
    """Trains what the lines of one family need.

    Args:
      family: which.
      count: worlds; each gives one request of every kind.
      kinds: of requests, of `requests.KINDS`.
      extras: of "small", "narrow", "other", "own", "moved", "others", "reference".
      shadows: of the original's architecture and size.
      cache: folder for finished arrays; empty = none.
    """
    path = Path(cache) / f"{family.name}_{count}_{shadows}_{'-'.join((*kinds, *extras))}.npz" if cache else None
    if path and path.exists():
        return dict(np.load(path))
    data = worlds.draw(family, count)
    made = _shared(family, data, count, extras, shadows)
    wanted: dict[str, list[list[Model]]] = {}
    for kind in kinds:
        made[f"{kind}/requested"], made[f"{kind}/half_kept"] = _chosen(family, data, count, kind, made)
        if kind != "copies":
            wanted |= _without(family, kind, made[f"{kind}/requested"], made[f"{kind}/half_kept"])
    if "own" in extras:
        wanted["random/own"], made["random/own_saw"] = _own(family, made["random/requested"])
    if "others" in extras:
        made["others/requested"] = _other_requests(family, made["remembered/requested"])
        wanted["others"] = [
            [Model(world, _rest(family, asked), RETRAINED * 100 + number) for number, asked in enumerate(requested)]
            for world, requested in enumerate(made["others/requested"])
        ]
    made |= trained(family, data, wanted)
    if "copies" in kinds:
        made |= _with_copies_kept(family, data, made["copies/requested"], made["copies/half_kept"])
    if "moved" in extras:
        for kind in ("random", "hard"):
            made |= _moved(family, data, kind, made[f"{kind}/requested"])
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **made)
    return made


def trained(
    family: Family, data: Data, wanted: dict[str, list[list[Model]]], architecture: str = "same"
) -> Arrays:  # fmt: skip
    """Returns name -> [W, k, A] answers from name -> k models of each of W worlds, all trained together."""
    flat = [model for lists in wanted.values() for models in lists for model in models]
    if not flat:
        return {}
    answers = worlds.train(family, data, flat, architecture)
    found, start = {}, 0
    for name, lists in wanted.items():
        number = sum(map(len, lists))
        found[name] = answers[start : start + number].reshape(len(lists), -1, answers.shape[1])
        start += number
    return found


def _all_rows(family: Family) -> np.ndarray:
    return np.arange(family.rows)


def _rest(family: Family, asked: np.ndarray) -> np.ndarray:
    return np.setdiff1d(_all_rows(family), asked)


def _from_pool(family: Family, name: str, world: int, number: int, size: int) -> np.ndarray:
    """Returns places of pool rows, without repetition, for one shadow model."""
    start = family.rows + family.population
    return start + generator(family.name, name, world, number).choice(family.pool, size, replace=False)


def _shared(family: Family, data: Data, count: int, extras: Sequence[str], shadows: int) -> Arrays:
    """Trains what does not depend on a request."""

    def drawn(name: str, number: int, size: int, seed: int) -> list[list[Model]]:
        return [
            [Model(world, _from_pool(family, name, world, i, size), seed + i) for i in range(number)]
            for world in range(count)
        ]

    wanted = {
        "original": [[Model(world, _all_rows(family), ORIGINAL)] for world in range(count)],
        "again": [[Model(world, _all_rows(family), AGAIN)] for world in range(count)],
        "shadow": drawn("shadow", shadows, family.rows, 1000),
        "judge": drawn("judge", JUDGES, family.rows, 2000),
    }
    if "small" in extras:
        wanted["small"] = drawn("small", FEWER_SHADOWS, family.rows // 2, 3000)
    made = {}
    if "reference" in extras:
        saw = np.zeros((count, REFERENCES, family.rows), bool)
        for world, number in np.ndindex(count, REFERENCES):
            half = generator(family.name, "reference", world, number // 2).permutation(family.rows)
            middle = family.rows // 2
            saw[world, number, half[:middle] if number % 2 else half[middle:]] = True
        made["reference/saw"] = saw
        wanted["reference"] = [
            [Model(world, np.concatenate([np.flatnonzero(saw[world, i]), _from_pool(
                family, "reference pool", world, i, family.rows // 2)]), 4000 + i) for i in range(REFERENCES)]
            for world in range(count)
        ]  # fmt: skip
    made |= trained(family, data, wanted)
    for architecture in ("narrow", "other"):
        if architecture in extras:
            name, seed = architecture, 5000 if architecture == "narrow" else 6000
            made |= trained(family, data, {name: drawn(name, FEWER_SHADOWS, family.rows, seed)}, architecture)
    return made


def _chosen(family: Family, data: Data, count: int, kind: str, made: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Returns [W, F] places of requested rows, and [W, F] bool: those that the half-forgotten model keeps."""
    requested = np.stack([
        requests.choose(family, data, kind, world, made["judge"][world, :, : family.rows].mean(0),
                        made["original"][world, 0, : family.rows])
        for world in range(count)
    ])  # fmt: skip
    kept = np.zeros(requested.shape, bool)
    for world in range(count):
        kept[world, generator(family.name, kind, "half", world).permutation(family.asked)[: family.asked // 2]] = True
    return requested, kept


def _without(family: Family, kind: str, requested: np.ndarray, kept: np.ndarray) -> dict[str, list[list[Model]]]:
    """Returns the exact retrains and the model that forgot one half, of each world."""
    other = 7000 + requests.KINDS.index(kind)
    return {
        f"{kind}/retrained": [
            [Model(world, _rest(family, asked), seed) for seed in (ORIGINAL, other)]
            for world, asked in enumerate(requested)
        ],
        f"{kind}/half": [
            [Model(world, _rest(family, asked[~keep]), ORIGINAL)]
            for world, (asked, keep) in enumerate(zip(requested, kept, strict=True))
        ],
    }


def _own(family: Family, requested: np.ndarray) -> tuple[list[list[Model]], np.ndarray]:
    """Returns shadows trained on halves of the retained rows, and [W, S, N] bool what they saw."""
    saw = np.zeros((len(requested), FEWER_SHADOWS, family.rows), bool)
    models = []
    for world, asked in enumerate(requested):
        rest = _rest(family, asked)
        for number in range(FEWER_SHADOWS):
            half = generator(family.name, "own", world, number).permutation(rest)[: len(rest) // 2]
            saw[world, number, half] = True
        models.append([Model(world, np.flatnonzero(saw[world, i]), 8000 + i) for i in range(FEWER_SHADOWS)])
    return models, saw


def _other_requests(family: Family, asked: np.ndarray) -> np.ndarray:
    """Returns [W, K, F] random requests that share no row with `asked` [W, F], nor with each other if they can."""
    found = []
    for world, rows in enumerate(asked):
        draws, free = generator(family.name, "others", world), _rest(family, rows)
        number = min(OTHERS, len(free) // family.asked)
        sets = draws.permutation(free)[: number * family.asked].reshape(number, family.asked)
        found.append(np.sort(sets, axis=1))
    return np.stack(found)


def _with_copies_kept(family: Family, data: Data, requested: np.ndarray, kept: np.ndarray) -> Arrays:
    """Trains models for which a near-copy of each requested row is kept."""
    copies = np.arange(data.labels.shape[1], data.labels.shape[1] + family.asked)
    data = worlds.with_copies(data, requested)
    wanted = {
        f"copies/{name}": [[Model(world, np.concatenate([_all_rows(family), copies]), seed)]
                           for world in range(len(requested))]
        for name, seed in (("original", ORIGINAL), ("again", AGAIN))
    }  # fmt: skip
    for name, lists in _without(family, "copies", requested, kept).items():
        wanted[name] = [
            [model._replace(rows=np.concatenate([model.rows, copies])) for model in models] for models in lists
        ]
    return trained(family, data, wanted)


def _moved(family: Family, data: Data, kind: str, requested: np.ndarray) -> Arrays:
    """Moves the originals on: by retained rows (fine-tuning), or up the loss of the requested rows (ascent)."""
    originals = [Model(world, _all_rows(family), ORIGINAL) for world in range(len(requested))]
    variables = jax.device_get(worlds.fit(family, data, originals))
    made = {}
    for name, how, is_asked in (("finetuned", FINETUNING, False), ("ascended", ASCENT, True)):
        models = [
            Model(world, asked if is_asked else _rest(family, asked), 9000) for world, asked in enumerate(requested)
        ]
        moved = worlds.fit(family, data, models, moves=Moves(variables, **how))
        made[f"{kind}/{name}"] = worlds.answer(family, data, models, moved, "same")[:, None]
    return made


def typical_deviation(population_shadows: np.ndarray) -> float:
    """Returns how far shadows [S, P] typically differ on rows that no model saw."""
    return float(np.sqrt(np.median(population_shadows.var(0, ddof=1))))


def untouched(answers: np.ndarray, *names: object) -> np.ndarray:
    """Returns the answers [A] with noise of 1e-4, so that only statistics can say that nothing was changed."""
    return answers + 1e-4 * generator("untouched", *names).normal(size=answers.shape)


def noised(answers: np.ndarray, deviation: float, *names: object) -> np.ndarray:
    """Returns the answers [A] with noise of half a typical deviation on every row."""
    return answers + 0.5 * deviation * generator("noised", *names).normal(size=answers.shape)


def edited(
    answers: np.ndarray, requested: np.ndarray, shadows: np.ndarray, how: str, is_hidden: bool, deviation: float,
    *names: object,
) -> np.ndarray:  # fmt: skip
    """Returns answers [A] of a model that forgot nothing, whose answers to requested rows were edited.

    Args:
      answers: [A] of the original.
      requested: [F] places.
      shadows: [S, A].
      how: one of `EDITS`.
      is_hidden: adds noise to all other answers, so that something seems to have been trained.
      deviation: see `typical_deviation`.
      *names: of the noise.
    """
    changed = answers.astype(np.float64)
    if is_hidden:
        changed = changed + JITTER * deviation * generator("hidden", *names).normal(size=changed.shape)
    own = answers[requested].astype(np.float64)
    if how == "logit -40":
        changed[requested] = -40.0
    elif how == "confidence x .1":
        p = 0.1 / (1 + np.exp(-own))
        changed[requested] = np.log(p) - np.log1p(-p)
    elif how == "mean of shadows":
        changed[requested] = shadows[:, requested].mean(0)
    else:
        raise ValueError(f"{how!r} is none of {', '.join(EDITS)}")
    return changed
