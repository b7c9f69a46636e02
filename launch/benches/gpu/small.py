"""Small networks in large populations: members side by side, compared with one after another."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax

from jaxunlearn import trees
from jaxunlearn.runs import experiments

from .. import programs as populations
from ..timing import value_row
from . import clock, programs

Row = dict[str, Any]


def members(names: Sequence[str], *, pace: clock.Pace, case: str, cells: dict[str, Any]) -> Iterator[Row]:
    """Measures model-steps per second of one network.

    Args:
      names: rows to measure.
      pace: of the windows.
      case: key of the network in `programs.CASES` of the bench `population`.
      cells: name of a row -> [members, mapping, conv].
    """
    for name in names:
        count, mapping, conv = cells[name]
        if conv == "unrolled" and jax.default_backend() == "cpu":
            conv = "cpu"  # gradients of native convolutions in a loop take minutes there
        problem = populations.build(populations.CASES[case], count)
        policy = experiments.MappingPolicy(mapping, 1, conv, 1)
        experiment = experiments.with_policy(problem.role.experiment, policy)
        engine = populations.engine(problem._replace(role=problem.role._replace(experiment=experiment)), count)
        seconds = clock.windows(lambda engine=engine: next(engine.epochs), pace, lambda result: None)  # type: ignore[misc]
        step = programs.step_of(engine.program.call.as_text())  # type: ignore[attr-defined]
        row = value_row(name, [engine.model_steps / window for window in seconds], "model-steps/s", members=count,
                        mapping=mapping, conv=conv, case=case, kernels=step.kernels,
                        compile_seconds=engine.compile_seconds)  # fmt: skip
        network = experiment.cost
        # At least the weights and their momentum are read and written once per step.
        weights = 16 * trees.count(trees.take(problem.initial.state.params, 0))
        operations = 3 * network.forward_flops * populations.BATCH
        yield {**row, "arithmetic": "tf32", "operation_rate": row["value"] * operations,
               "byte_rate": row["value"] * weights}  # fmt: skip
        jax.clear_caches()
