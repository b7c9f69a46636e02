"""Cost of a method, computed from its description: rows read, in units of one training pass over the retained rows.

The gradient of one row counts 1, a forward pass (teachers, forward estimates, statistics) 1/3.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxunlearn.unlearn.base.method import Estimate, GradientStep, MemberRows, Method, Phase, StreamSpec
from jaxunlearn.unlearn.engine import jobs, tasks

FORWARD = 1 / 3


class Sizes(NamedTuple):
    """Quantities other than the method on which its cost depends.

    Attributes:
      forget, retain: rows of the forget set, and of the rest.
      classes: of the data set.
      batch: rows per step of streams without a batch size.
      recalibrates: whether the network has BatchNorm statistics that are estimated anew at the end.
    """

    forget: int
    retain: int
    classes: int
    batch: int
    recalibrates: bool = False


def retain_epochs(method: Method, sizes: Sizes) -> float:
    """Returns the rows read by all models of one forget set, divided by the number of retained rows."""
    total = 0.0
    for submodel in range(method.ensemble):
        total += sum(_phase_cost(phase, sizes, submodel) for phase in method.phases)
    total += FORWARD * sizes.retain * sizes.recalibrates
    return total / max(sizes.retain, 1)


def _rows(stream_spec: StreamSpec, sizes: Sizes, submodel: int) -> int:
    """Returns the number of rows of one pass of a stream, for placeholder rows of one class."""
    all_rows = np.arange(sizes.forget + sizes.retain)
    forget, retain = all_rows[: sizes.forget], all_rows[sizes.forget :]
    member_rows = MemberRows(
        forget, retain, forget, np.zeros(len(all_rows), np.int32), submodel, np.random.default_rng(0)
    )
    return sum(len(rows) for rows in jobs.rows_of(stream_spec, member_rows))


def _estimate_cost(estimates: Mapping[str, Estimate], sizes: Sizes, submodel: int) -> float:
    total = 0.0
    for estimate in estimates.values():
        for stream_spec in estimate.stream_specs.values():
            rows, cost = _rows(stream_spec, sizes, submodel), estimate.cost
            total += cost(rows, sizes.classes) if callable(cost) else cost * rows
    return total


def _passes_per_row(gradient_step: GradientStep) -> float:
    """Returns the gradient passes of a step per row read: `cost`, or one per objective."""
    return gradient_step.cost or (len(gradient_step.objective) if isinstance(gradient_step.objective, Mapping) else 1.0)


def _phase_cost(phase: Phase, sizes: Sizes, submodel: int) -> float:
    start_cost = _estimate_cost(phase.estimates, sizes, submodel)
    if not phase.gradient_steps or not phase.epochs:
        return start_cost
    epoch_cost = _estimate_cost(phase.every_epoch, sizes, submodel)
    stream_specs = tasks.with_batch_sizes(phase.stream_specs, sizes.batch)
    counts = {name: _rows(stream_spec, sizes, submodel) for name, stream_spec in stream_specs.items()}
    primary = next(iter(stream_specs))
    steps = -(-counts[primary] // stream_specs[primary].batch)
    per_step = {name: counts[name] / max(-(-counts[name] // spec.batch), 1) for name, spec in stream_specs.items()}
    passes = sum(
        _passes_per_row(gradient_step) * per_step[name] / gradient_step.interval
        for gradient_step in phase.gradient_steps
        for name in (*tasks.forward_streams(gradient_step, phase), *gradient_step.eval_streams)
    )
    teacher_passes = FORWARD * len(phase.teachers) * sum(per_step.values())
    all_steps = min(phase.epochs * steps, phase.max_steps or phase.epochs * steps)
    return start_cost + epoch_cost * phase.epochs + all_steps * (passes + teacher_passes)
