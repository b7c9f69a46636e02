"""Requests: which rows are to be forgotten."""

import numpy as np

from tests.scenarios.worlds import Data, Family, generator

KINDS = ("random", "easy", "hard", "class", "mislabelled", "copies", "person", "remembered")


def choose(
    family: Family, data: Data, kind: str, world: int, difficulty: np.ndarray, original: np.ndarray
) -> np.ndarray:
    """Returns the [F] rows of one request, ascending.

    Args:
      family: of the world.
      data: all worlds.
      kind: one of `KINDS`.
      world: its number.
      difficulty: [N] mean log-odds of models that have no other part in the study; low = hard.
      original: [N] log-odds of the original.
    """
    count, labels = family.request_size, data.labels[world, : family.rows]
    draws = generator(family.name, kind, world)
    if kind in ("random", "copies"):
        rows = draws.permutation(family.rows)[:count]
    elif kind == "easy":
        rows = np.argsort(-difficulty, kind="stable")[:count]
    elif kind == "hard":
        rows = np.argsort(difficulty, kind="stable")[:count]
    elif kind == "class":
        rows = draws.permutation(np.flatnonzero(labels == 1))[:count]
    elif kind == "mislabelled":
        rows = draws.permutation(np.flatnonzero(data.is_wrong[world, : family.rows]))[:count]
    elif kind == "person":
        inputs = data.inputs[world, : family.rows]
        first = draws.integers(family.rows)
        distances = np.where(labels == labels[first], ((inputs - inputs[first]) ** 2).sum(1), np.inf)
        rows = np.argsort(distances, kind="stable")[:count]
    elif kind == "remembered":
        rows = np.argsort(difficulty - original, kind="stable")[:count]
    else:
        raise ValueError(f"{kind!r} is not one of {', '.join(KINDS)}")
    return np.sort(rows)
