"""What a method costs, counted from its description: rows read, in units of one training pass over the retained rows.

A gradient of one row counts 1, a forward pass alone (teachers, forward estimates) 1/3.
"""

import numpy as np

from jaxunlearn.unlearn import running, tasks
from jaxunlearn.unlearn.method import Method, Phase, Pools, Reads

FORWARD = 1 / 3


def retain_epochs(method: Method, forget: int, retain: int, batch: int) -> float:
    """Rows read by all models of one forget set, over the number of retained rows.

    Args:
      method: with its hyperparameters.
      forget: rows of the forget set.
      retain: rows of the rest.
      batch: rows per step where a stream does not say.
    """
    total = 0.0
    for part in range(method.ensemble):
        total += sum(_phase(phase, forget, retain, batch, part) for phase in method.phases)
    return total / max(retain, 1)


def _rows(reads: Reads, forget: int, retain: int, part: int) -> int:
    """Rows of one pass of a stream, with stand-in rows of one class."""
    everything = np.arange(forget + retain)
    pools = Pools(everything[:forget], everything[forget:], everything[:forget], np.zeros(forget + retain, np.int32),
                  part, np.random.default_rng(0))  # fmt: skip
    return sum(len(rows) for rows in running.rows_of(reads, pools))


def _phase(phase: Phase, forget: int, retain: int, batch: int, part: int) -> float:
    estimated = sum(
        estimate.cost * _rows(reads, forget, retain, part)
        for estimate in phase.estimates.values()
        for reads in estimate.reads.values()
    )
    if not phase.moves or not phase.epochs:
        return estimated
    again = sum(
        estimate.cost * _rows(reads, forget, retain, part)
        for estimate in phase.every_epoch.values()
        for reads in estimate.reads.values()
    )
    reads = tasks.sized(phase.reads, batch)
    counts = {name: _rows(one, forget, retain, part) for name, one in reads.items()}
    driver = next(iter(reads))
    steps = -(-counts[driver] // reads[driver].batch)
    per_step = {name: counts[name] / max(-(-counts[name] // one.batch), 1) for name, one in reads.items()}
    passes = sum(per_step[name] / move.every for move in phase.moves for name in (move.streams or tuple(reads)))
    taught = FORWARD * len(phase.teachers) * sum(per_step.values())
    all_steps = min(phase.epochs * steps, phase.stop or phase.epochs * steps)
    return estimated + again * phase.epochs + all_steps * (passes + taught)
