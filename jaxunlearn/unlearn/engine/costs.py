"""What a method costs, counted from its description: rows read, in units of one training pass over the retained rows.

A gradient of one row counts 1, a forward pass alone (teachers, forward estimates, statistics) 1/3.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxunlearn.unlearn.base.method import Estimate, GradientStep, MemberRows, Method, Phase, StreamSpec
from jaxunlearn.unlearn.engine import jobs, tasks

FORWARD = 1 / 3


class Sizes(NamedTuple):
    """What the cost depends on beside the method.

    Attributes:
      forget, retain: rows of the forget set, and of the rest.
      classes: of the data set.
      batch: rows per step where a stream does not say.
      recalibrates: the network has BatchNorm statistics, and the policy in force is to estimate them anew at the end.
    """

    forget: int
    retain: int
    classes: int
    batch: int
    recalibrates: bool = False


def retain_epochs(method: Method, sizes: Sizes) -> float:
    """Rows read by all models of one forget set, over the number of retained rows."""
    total = 0.0
    for part in range(method.ensemble):
        total += sum(_phase(phase, sizes, part) for phase in method.phases)
    total += FORWARD * sizes.retain * sizes.recalibrates
    return total / max(sizes.retain, 1)


def _rows(reads: StreamSpec, sizes: Sizes, part: int) -> int:
    """Rows of one pass of a stream, with stand-in rows of one class."""
    everything = np.arange(sizes.forget + sizes.retain)
    forget, retain = everything[: sizes.forget], everything[sizes.forget :]
    member_rows = MemberRows(
        forget, retain, forget, np.zeros(len(everything), np.int32), part, np.random.default_rng(0)
    )
    return sum(len(rows) for rows in jobs.rows_of(reads, member_rows))


def _estimated(estimates: Mapping[str, Estimate], sizes: Sizes, part: int) -> float:
    total = 0.0
    for estimate in estimates.values():
        for reads in estimate.stream_specs.values():
            rows, cost = _rows(reads, sizes, part), estimate.cost
            total += cost(rows, sizes.classes) if callable(cost) else cost * rows
    return total


def _gradients(move: GradientStep) -> float:
    """Gradient passes of a move per row that it reads: one per objective, unless it says otherwise."""
    return move.cost or (len(move.objective) if isinstance(move.objective, Mapping) else 1.0)


def _phase(phase: Phase, sizes: Sizes, part: int) -> float:
    estimated = _estimated(phase.estimates, sizes, part)
    if not phase.gradient_steps or not phase.epochs:
        return estimated
    again = _estimated(phase.every_epoch, sizes, part)
    reads = tasks.sized(phase.stream_specs, sizes.batch)
    counts = {name: _rows(one, sizes, part) for name, one in reads.items()}
    driver = next(iter(reads))
    steps = -(-counts[driver] // reads[driver].batch)
    per_step = {name: counts[name] / max(-(-counts[name] // one.batch), 1) for name, one in reads.items()}
    passes = sum(
        _gradients(move) * per_step[name] / move.interval
        for move in phase.gradient_steps
        for name in (*tasks.answered(move, phase), *move.eval_streams)
    )
    taught = FORWARD * len(phase.teachers) * sum(per_step.values())
    all_steps = min(phase.epochs * steps, phase.max_steps or phase.epochs * steps)
    return estimated + again * phase.epochs + all_steps * (passes + taught)
