"""BatchNorm statistics after a method, where its policy asks for more than the method left.

"recalibrate": estimated anew on the rows that are kept. "faithful", of methods that published code returns in training
mode: moved once more by the passes that measure accuracies there.
"""

from typing import Any

import jax
import numpy as np

from jaxunlearn import keys, population
from jaxunlearn.population import Resident, State, lift
from jaxunlearn.unlearn.base.method import Reads
from jaxunlearn.unlearn.blocks import passes
from jaxunlearn.unlearn.engine import setups, tasks
from jaxunlearn.unlearn.engine.setups import Setup

Tree = Any


def settled(setup: Setup, state: State) -> Tree:
    """The statistics [M, ...] of members that a method has touched."""
    if not state.statistics:
        return state.statistics
    chosen = setups.policy(setup)
    if chosen == "recalibrate":
        return _passed(setup, state, "recalibrate", (_kept_rows(setup),))
    if chosen == "faithful" and setups.structure(setup).left_training:
        # As the IAM seed does it (spec of its methods, quirk Q1): this alone can make a whole class look forgotten.
        return _passed(setup, state, "left_training", (Reads("retain", setup.batch), Reads("forget", setup.batch)))
    return state.statistics


def _kept_rows(setup: Setup) -> Reads:
    """The rows for new statistics: the retained ones; of a part of an ensemble those that it was trained on last."""
    method = setups.structure(setup)
    if method.ensemble == 1:
        return Reads("retain", setup.batch)
    return next(iter(method.phases[-1].reads.values()))._replace(batch=setup.batch, labels=None)


def _passed(setup: Setup, state: State, name: str, reads: tuple[Reads, ...]) -> Tree:
    """Statistics by name: "recalibrate" = means over the batches of one pass, "left_training" = moved by all passes."""
    named = {f"{name}_{number}": one for number, one in enumerate(reads)}
    last = len(setups.phases(setup)) - 1
    members = range(len(setup.numbers))
    streams = {
        key: population.from_rows(
            [setups.rows_of(one, setups.pools_of(setup, member, last, key)) for member in members], one.batch
        )
        for key, one in named.items()
    }
    stage = setups.stage_of(setup, last)._replace(network=setup.network, mode="train")

    def fn(given: None, fixed: Tree, shared: Resident) -> Tree:
        state, streams, constants = fixed
        key = keys.member(keys.stream(stage.key, name), constants["number"])
        member = tasks.member_of(stage, state, shared, streams, named, constants, {}, key)
        if name == "recalibrate":
            return passes.recalibrated(member, next(iter(named)))
        for one in named:
            member = member._replace(statistics=passes.moved(member, one))
        return member.statistics

    flags = np.zeros((len(setup.numbers), len(np.asarray(setup.data.labels))), bool)
    constants = {"number": np.asarray(setup.numbers, np.int32), "reference": setup.originals, "memory": {},
                 "forget": flags}  # fmt: skip
    fixed = jax.tree.map(np.asarray, (state._replace(optimizer=()), streams, constants))
    fixed = lift.place(lift.pad(fixed, setup.lifting), setup.lifting)
    data = lift.place(setup.data, setup.lifting, shared=True)
    program = lift.compile_lifted(fn, setup.lifting, None, fixed, data)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(setup.numbers)], program.call(None, fixed, data))
