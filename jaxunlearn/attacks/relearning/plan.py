"""Who relearns what: trials as plain arrays, one line per member of the population. Host side.

draw      probe sets of the forget class and of unseen classes, retained rows that come along   -> trials
crossed   trials x victims x learning rates                                                     -> members
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxunlearn import checks, errors


class Trials(NamedTuple):
    """M trials.

    Attributes:
      victim: [M] int, which model each starts from.
      probes: [M, n] int32 rows of the data set over which a trial is evaluated, -1 = none (trials of fewer probes).
      learned: [M, T] int32, the probes in the order in which they are learned, one per step, -1 = no more.
      label: [M] int32, the output that probes are labelled with: that of the forget class, of negatives too.
      retained: [M, T, r] int32 rows that come along in each step, -1 = none.
      learning_rate: [M] float32.
      is_forgotten: [M] bool, whether the probes are of what was forgotten (positives) or never seen.
      number: [M] int, which trial it is: the same probes at another rate, or of another victim, have the same number.
      repeat: [M] int, which draw of probes; a forget trial and unseen ones of one repeat were made together.
    """

    victim: np.ndarray
    probes: np.ndarray
    learned: np.ndarray
    label: np.ndarray
    retained: np.ndarray
    learning_rate: np.ndarray
    is_forgotten: np.ndarray
    number: np.ndarray
    repeat: np.ndarray


def take(trials: Trials, places: np.ndarray) -> Trials:
    """Returns the trials at some places."""
    return Trials(*(column[places] for column in trials))


def draw(
    forget: np.ndarray,
    unseen: Sequence[np.ndarray],
    retain: np.ndarray,
    label: int,
    *,
    size: int,
    repeats: int,
    companions: int = 14,
    steps: int = 0,
    held_out: int | None = None,
    seed: int = 0,
) -> Trials:
    """Draws the trials against one victim at a rate of 1: per repeat one of the forget class and one per unseen class.

    Args:
      forget: rows of the forgotten class.
      unseen: [classes] rows of each class that no model was trained on.
      retain: rows that the victim kept.
      label: output of the forgotten class.
      size: n, probes per trial.
      repeats: draws of probe sets.
      companions: retained rows per step. Published: 14 for 10 and 20 classes, 4 for 100.
      steps: at most so many; 0 = one per probe. Published: 77, in the first version 52. Accuracies are of all probes.
      held_out: retained rows of every trial that never come along; None = `size`, as published.
      seed: of all draws; trial k draws the same whichever others there are.

    Raises:
      DataError: fewer rows than are to be drawn.
    """
    checks.in_range("size", size, 1)
    checks.in_range("repeats", repeats, 1)
    checks.in_range("companions", companions, 0)
    groups = [np.asarray(rows, np.int32) for rows in (forget, *unseen)]
    out = size if held_out is None else held_out
    for name, rows, least in (
        *((f"class {place} of the probes", rows, size) for place, rows in enumerate(groups)),
        ("the retained rows", np.asarray(retain), out + companions),
    ):
        if len(rows) < least:
            raise errors.DataError(f"{name} has {len(rows)} rows, but {least} are needed. Lower size, or held_out.")
    count = min(size, steps or size)
    lines = []
    for repeat in range(repeats):
        for place, rows in enumerate(groups):
            generator = np.random.default_rng([seed, repeat, place])
            probes = generator.permutation(rows)[:size]
            stream = generator.permutation(np.asarray(retain, np.int32))[out:]
            # A stream that is used up starts again.
            lines.append((probes, np.resize(stream, (count, companions)), place == 0, repeat))
    probes, retained, is_forgotten, repeats_of = (np.asarray(column) for column in zip(*lines, strict=True))
    total = len(lines)
    return Trials(
        np.zeros(total, int), probes, probes[:, :count], np.full(total, label, np.int32), retained,
        np.ones(total, np.float32), is_forgotten, np.arange(total), repeats_of,
    )  # fmt: skip


def crossed(trials: Trials, victims: Sequence[int], learning_rates: Sequence[float]) -> Trials:
    """Returns every trial against every victim at every rate, victim by victim and rate by rate."""
    m, v, r = len(trials.victim), len(victims), len(learning_rates)
    repeated = take(trials, np.tile(np.arange(m), v * r))
    return repeated._replace(
        victim=np.repeat(np.asarray(victims, int), m * r),
        learning_rate=np.tile(np.repeat(np.asarray(learning_rates, np.float32), m), v),
    )
