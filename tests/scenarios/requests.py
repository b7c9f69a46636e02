"""Says which rows are asked to be forgotten."""

import numpy as np

from tests.scenarios.worlds import Data, Family, generator

KINDS = ("random", "easy", "hard", "class", "mislabelled", "copies", "person", "remembered")


def choose(
    family: Family, data: Data, kind: str, world: int, difficulty: np.ndarray, original: np.ndarray
) -> np.ndarray:
    """Returns the [F] places of the rows of one request, ascending.

    Args:
      family: of the world.
      data: all worlds.
      kind: one of `KINDS`.
      world: its number.
      difficulty: [N] mean log-odds of models that have no other part in the study; low = hard.
      original: [N] log-odds of the original.
    """
    count, labels = family.asked, data.labels[world, : family.rows]
    draws = generator(family.name, kind, world)
    if kind in ("random", "copies"):
        chosen = draws.permutation(family.rows)[:count]
    elif kind == "easy":
        chosen = np.argsort(-difficulty, kind="stable")[:count]
    elif kind == "hard":
        chosen = np.argsort(difficulty, kind="stable")[:count]
    elif kind == "class":
        chosen = draws.permutation(np.flatnonzero(labels == 1))[:count]
    elif kind == "mislabelled":
        chosen = draws.permutation(np.flatnonzero(data.is_wrong[world, : family.rows]))[:count]
    elif kind == "person":
        inputs = data.inputs[world, : family.rows]
        first = draws.integers(family.rows)
        distances = np.where(labels == labels[first], ((inputs - inputs[first]) ** 2).sum(1), np.inf)
        chosen = np.argsort(distances, kind="stable")[:count]
    elif kind == "remembered":
        chosen = np.argsort(difficulty - original, kind="stable")[:count]
    else:
        raise ValueError(f"{kind!r} is none of {', '.join(KINDS)}")
    return np.sort(chosen)
