"""The audited models: their training rows, and edits of answers that only pretend to forget.

`prepare` trains everything that the lines of one family need and returns it as arrays by name, [W, ...] each:

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
JITTER = 0.3  # of a typical deviation between shadows, on rows outside the request
EDITS = ("logit -40", "confidence x .1", "mean of shadows")
Arrays = dict[str, np.ndarray]


def prepare(
    family: Family, count: int, kinds: Sequence[str], extras: Sequence[str] = (), shadows: int = FEWER_SHADOWS,
    cache: str = "",
) -> Arrays:  # fmt: skip
    """Trains the models that the lines of one family need.

    Args:
      family: of the worlds.
      count: number of worlds; each has one request of every kind.
      kinds: of requests, of `requests.KINDS`.
      extras: of "small", "narrow", "other", "own", "moved", "others", "reference".
      shadows: of the original's architecture and size.
      cache: folder for finished arrays; empty = none.
    """
    path = Path(cache) / f"{family.name}_{count}_{shadows}_{'-'.join((*kinds, *extras))}.npz" if cache else None
    if path and path.exists():
        return dict(np.load(path))
    data = worlds.draw(family, count)
    arrays = _shared(family, data, count, extras, shadows)
    models_of: dict[str, list[list[Model]]] = {}
    for kind in kinds:
        arrays[f"{kind}/requested"], arrays[f"{kind}/half_kept"] = _chosen(family, data, count, kind, arrays)
        if kind != "copies":
            models_of |= _without(family, kind, arrays[f"{kind}/requested"], arrays[f"{kind}/half_kept"])
    if "own" in extras:
        models_of["random/own"], arrays["random/own_saw"] = _own(family, arrays["random/requested"])
    if "others" in extras:
        arrays["others/requested"] = _other_requests(family, arrays["remembered/requested"])
        models_of["others"] = [
            [Model(world, _rest(family, rows), RETRAINED * 100 + index) for index, rows in enumerate(requested)]
            for world, requested in enumerate(arrays["others/requested"])
        ]
    arrays |= trained(family, data, models_of)
    if "copies" in kinds:
        arrays |= _with_copies_kept(family, data, arrays["copies/requested"], arrays["copies/half_kept"])
    if "moved" in extras:
        for kind in ("random", "hard"):
            arrays |= _moved(family, data, kind, arrays[f"{kind}/requested"])
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)
    return arrays


def trained(
    family: Family, data: Data, models_of: dict[str, list[list[Model]]], architecture: str = "same"
) -> Arrays:  # fmt: skip
    """Returns name -> [W, k, A] answers from name -> k models of each of W worlds, all trained together."""
    flat = [model for lists in models_of.values() for models in lists for model in models]
    if not flat:
        return {}
    answers = worlds.train(family, data, flat, architecture)
    answers_of, start = {}, 0
    for name, lists in models_of.items():
        count = sum(map(len, lists))
        answers_of[name] = answers[start : start + count].reshape(len(lists), -1, answers.shape[1])
        start += count
    return answers_of


def _all_rows(family: Family) -> np.ndarray:
    return np.arange(family.rows)


def _rest(family: Family, requested: np.ndarray) -> np.ndarray:
    return np.setdiff1d(_all_rows(family), requested)


def _from_pool(family: Family, name: str, world: int, index: int, size: int) -> np.ndarray:
    """Returns places of pool rows, without repetition, for one shadow model."""
    start = family.rows + family.population
    return start + generator(family.name, name, world, index).choice(family.pool, size, replace=False)


def _shared(family: Family, data: Data, count: int, extras: Sequence[str], shadows: int) -> Arrays:
    """Trains the models that do not depend on a request."""

    def drawn(name: str, num_models: int, size: int, seed: int) -> list[list[Model]]:
        return [
            [Model(world, _from_pool(family, name, world, i, size), seed + i) for i in range(num_models)]
            for world in range(count)
        ]

    models_of = {
        "original": [[Model(world, _all_rows(family), ORIGINAL)] for world in range(count)],
        "again": [[Model(world, _all_rows(family), AGAIN)] for world in range(count)],
        "shadow": drawn("shadow", shadows, family.rows, 1000),
        "judge": drawn("judge", JUDGES, family.rows, 2000),
    }
    if "small" in extras:
        models_of["small"] = drawn("small", FEWER_SHADOWS, family.rows // 2, 3000)
    arrays = {}
    if "reference" in extras:
        is_member = np.zeros((count, REFERENCES, family.rows), bool)
        for world, index in np.ndindex(count, REFERENCES):
            half = generator(family.name, "reference", world, index // 2).permutation(family.rows)
            middle = family.rows // 2
            is_member[world, index, half[:middle] if index % 2 else half[middle:]] = True
        arrays["reference/saw"] = is_member
        models_of["reference"] = [
            [Model(world, np.concatenate([np.flatnonzero(is_member[world, i]), _from_pool(
                family, "reference pool", world, i, family.rows // 2)]), 4000 + i) for i in range(REFERENCES)]
            for world in range(count)
        ]  # fmt: skip
    arrays |= trained(family, data, models_of)
    for architecture in ("narrow", "other"):
        if architecture in extras:
            name, seed = architecture, 5000 if architecture == "narrow" else 6000
            arrays |= trained(family, data, {name: drawn(name, FEWER_SHADOWS, family.rows, seed)}, architecture)
    return arrays


def _chosen(family: Family, data: Data, count: int, kind: str, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Returns [W, F] places of requested rows, and [W, F] bool: those that the half-forgotten model keeps."""
    requested = np.stack([
        requests.choose(family, data, kind, world, arrays["judge"][world, :, : family.rows].mean(0),
                        arrays["original"][world, 0, : family.rows])
        for world in range(count)
    ])  # fmt: skip
    is_kept = np.zeros(requested.shape, bool)
    for world in range(count):
        is_kept[
            world,
            generator(family.name, kind, "half", world).permutation(family.request_size)[: family.request_size // 2],
        ] = True
    return requested, is_kept


def _without(family: Family, kind: str, requested: np.ndarray, is_kept: np.ndarray) -> dict[str, list[list[Model]]]:
    """Returns the exact retrains and the model that forgot one half, of each world."""
    other_seed = 7000 + requests.KINDS.index(kind)
    return {
        f"{kind}/retrained": [
            [Model(world, _rest(family, rows), seed) for seed in (ORIGINAL, other_seed)]
            for world, rows in enumerate(requested)
        ],
        f"{kind}/half": [
            [Model(world, _rest(family, rows[~is_kept_row]), ORIGINAL)]
            for world, (rows, is_kept_row) in enumerate(zip(requested, is_kept, strict=True))
        ],
    }


def _own(family: Family, requested: np.ndarray) -> tuple[list[list[Model]], np.ndarray]:
    """Returns shadows trained on halves of the retained rows, and [W, S, N] bool what they saw."""
    is_member = np.zeros((len(requested), FEWER_SHADOWS, family.rows), bool)
    models = []
    for world, rows in enumerate(requested):
        retained = _rest(family, rows)
        for index in range(FEWER_SHADOWS):
            half = generator(family.name, "own", world, index).permutation(retained)[: len(retained) // 2]
            is_member[world, index, half] = True
        models.append([Model(world, np.flatnonzero(is_member[world, i]), 8000 + i) for i in range(FEWER_SHADOWS)])
    return models, is_member


def _other_requests(family: Family, requested: np.ndarray) -> np.ndarray:
    """Returns [W, K, F] random requests that share no row with `requested` [W, F], nor with each other if they can."""
    sets_of_world = []
    for world, rows in enumerate(requested):
        draws, free = generator(family.name, "others", world), _rest(family, rows)
        count = min(OTHERS, len(free) // family.request_size)
        sets = draws.permutation(free)[: count * family.request_size].reshape(count, family.request_size)
        sets_of_world.append(np.sort(sets, axis=1))
    return np.stack(sets_of_world)


def _with_copies_kept(family: Family, data: Data, requested: np.ndarray, is_kept: np.ndarray) -> Arrays:
    """Trains models for which a near-copy of each requested row is kept."""
    copies = np.arange(data.labels.shape[1], data.labels.shape[1] + family.request_size)
    data = worlds.with_copies(data, requested)
    models_of = {
        f"copies/{name}": [[Model(world, np.concatenate([_all_rows(family), copies]), seed)]
                           for world in range(len(requested))]
        for name, seed in (("original", ORIGINAL), ("again", AGAIN))
    }  # fmt: skip
    for name, lists in _without(family, "copies", requested, is_kept).items():
        models_of[name] = [
            [model._replace(rows=np.concatenate([model.rows, copies])) for model in models] for models in lists
        ]
    return trained(family, data, models_of)


def _moved(family: Family, data: Data, kind: str, requested: np.ndarray) -> Arrays:
    """Moves the originals on: by retained rows (fine-tuning), or up the loss of the requested rows (ascent)."""
    originals = [Model(world, _all_rows(family), ORIGINAL) for world in range(len(requested))]
    variables = jax.device_get(worlds.fit(family, data, originals))
    arrays = {}
    for name, options, is_asked in (("finetuned", FINETUNING, False), ("ascended", ASCENT, True)):
        models = [Model(world, rows if is_asked else _rest(family, rows), 9000) for world, rows in enumerate(requested)]
        variables_after = worlds.fit(family, data, models, moves=Moves(variables, **options))
        arrays[f"{kind}/{name}"] = worlds.answer(family, data, models, variables_after, "same")[:, None]
    return arrays


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
    edited_answers = answers.astype(np.float64)
    if is_hidden:
        edited_answers = edited_answers + JITTER * deviation * generator("hidden", *names).normal(
            size=edited_answers.shape
        )
    requested_answers = answers[requested].astype(np.float64)
    if how == "logit -40":
        edited_answers[requested] = -40.0
    elif how == "confidence x .1":
        p = 0.1 / (1 + np.exp(-requested_answers))
        edited_answers[requested] = np.log(p) - np.log1p(-p)
    elif how == "mean of shadows":
        edited_answers[requested] = shadows[:, requested].mean(0)
    else:
        raise ValueError(f"{how!r} is not one of {', '.join(EDITS)}")
    return edited_answers
