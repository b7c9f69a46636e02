"""Who relearns what: trials as plain arrays, one row per member of the population. Host side.

draw      probe sets of the forget class and of unseen classes, retained rows in every step   -> trials
crossed   trials x victims x learning rates                                                   -> members
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxunlearn import checks, errors


class TrialPlan(NamedTuple):
    """M trials.

    Attributes:
      victim: [M] int, which model each starts from.
      probes: [M, n] int32 rows of the data set over which a trial is evaluated, -1 = padding (trials of fewer probes).
      learned: [M, T] int32, the probes in the order in which they are learned, one per step, -1 = padding.
      label: [M] int32, the label of the probes: that of the forget class, for negatives too.
      retained: [M, T, r] int32 retained rows in the batch of each step, -1 = padding.
      learning_rate: [M] float32.
      is_forgotten: [M] bool, whether the probes are of what was forgotten (positives) or never seen.
      trial_id: [M] int, id of the trial: the same probes at another rate, or of another victim, have the same id.
      repeat: [M] int, which draw of probes; a forget trial and the unseen ones of one repeat belong together.
    """

    victim: np.ndarray
    probes: np.ndarray
    learned: np.ndarray
    label: np.ndarray
    retained: np.ndarray
    learning_rate: np.ndarray
    is_forgotten: np.ndarray
    trial_id: np.ndarray
    repeat: np.ndarray


def take(trials: TrialPlan, indices: np.ndarray) -> TrialPlan:
    """Returns the trials at these indices."""
    return TrialPlan(*(column[indices] for column in trials))


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
) -> TrialPlan:
    """Draws trials against one victim at learning rate 1: per repeat one of the forget class and one per unseen class.

    Args:
      forget: rows of the forgotten class.
      unseen: [classes] rows of each class that no model was trained on.
      retain: rows that the victim kept.
      label: of the forgotten class.
      size: n, probes per trial.
      repeats: draws of probe sets.
      companions: retained rows per step. Published: 14 for 10 and 20 classes, 4 for 100.
      steps: at most this many; 0 = one per probe. Published: 77, in the first version 52. Accuracies are over all
        probes.
      held_out: retained rows per trial that are in no batch; None = `size`, as published.
      seed: of all draws; trial k draws the same whichever others there are.

    Raises:
      DataError: fewer rows than are to be drawn.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.relearning import draw
      >>> forget, unseen, retain = np.arange(5), [np.arange(5, 10)], np.arange(10, 30)
      >>> trials = draw(forget, unseen, retain, label=0, size=3, repeats=2, companions=4)
      >>> trials.is_forgotten.tolist(), trials.retained.shape
      ([True, False, True, False], (4, 3, 4))
    """
    checks.in_range("size", size, 1)
    checks.in_range("repeats", repeats, 1)
    checks.in_range("companions", companions, 0)
    groups = [np.asarray(rows, np.int32) for rows in (forget, *unseen)]
    num_held_out = size if held_out is None else held_out
    for name, rows, minimum in (
        *((f"class {index} of the probes", rows, size) for index, rows in enumerate(groups)),
        ("the retained rows", np.asarray(retain), num_held_out + companions),
    ):
        if len(rows) < minimum:
            raise errors.DataError(f"{name} has {len(rows)} rows, but {minimum} are needed. Lower size, or held_out.")
    count = min(size, steps or size)
    records = []
    for repeat in range(repeats):
        for index, rows in enumerate(groups):
            generator = np.random.default_rng([seed, repeat, index])
            probes = generator.permutation(rows)[:size]
            stream = generator.permutation(np.asarray(retain, np.int32))[num_held_out:]
            # An exhausted stream starts again.
            records.append((probes, np.resize(stream, (count, companions)), index == 0, repeat))
    probes, retained, is_forgotten, repeat_ids = (np.asarray(column) for column in zip(*records, strict=True))
    total = len(records)
    return TrialPlan(
        np.zeros(total, int), probes, probes[:, :count], np.full(total, label, np.int32), retained,
        np.ones(total, np.float32), is_forgotten, np.arange(total), repeat_ids,
    )  # fmt: skip


def crossed(trials: TrialPlan, victims: Sequence[int], learning_rates: Sequence[float]) -> TrialPlan:
    """Returns every trial against every victim at every rate, victim by victim and rate by rate.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.relearning import crossed, draw
      >>> trials = draw(np.arange(3), [], np.arange(3, 9), label=0, size=2, repeats=1, companions=1)
      >>> members = crossed(trials, victims=[0, 1], learning_rates=[0.5, 0.25])
      >>> members.victim.tolist(), members.learning_rate.tolist()
      ([0, 0, 1, 1], [0.5, 0.25, 0.5, 0.25])
    """
    m, v, r = len(trials.victim), len(victims), len(learning_rates)
    tiled = take(trials, np.tile(np.arange(m), v * r))
    return tiled._replace(
        victim=np.repeat(np.asarray(victims, int), m * r),
        learning_rate=np.tile(np.repeat(np.asarray(learning_rates, np.float32), m), v),
    )
