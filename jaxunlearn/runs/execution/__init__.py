"""Execution: what RoleSpecs ask for and the run folder lacks is trained and recorded.

`scratch` trains on a role's rows, `unlearning` makes members from the originals, `extraction` copies a role from its
answers, `recording` keeps logits; `members` reads and writes what is finished. `make` is the one way through them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxunlearn import errors, progress, store
from jaxunlearn.population import chunked
from jaxunlearn.runs import roles
from jaxunlearn.runs.execution import extraction, recording, scratch, unlearning

ROUNDS = 4  # of training again what is damaged when it is read back


class Made(NamedTuple):
    """Roles that are trained and recorded: name -> clean logits [M * K, n, C]; what training cost in this process."""

    logits: dict[str, np.ndarray]
    spent: chunked.TrainingCost


def make(run: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec) -> Made:
    """Trains and records what is missing of a role that is trained on its rows."""
    return _until_whole(
        [spec],
        lambda: scratch.train_missing(run, reporter, spec),
        lambda spec, view: recording.record(run, reporter, spec, view),
    )


def extract(run: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec, victim: roles.RoleSpec) -> Made:
    """Makes and records what is missing of the clones `spec` of a recorded role."""
    return _until_whole(
        [spec],
        lambda: extraction.train_missing(run, reporter, spec, victim),
        lambda spec, view: recording.record(run, reporter, spec, view),
    )


def unlearn(world: unlearning.UnlearningRun, specs: Sequence[roles.RoleSpec]) -> Made:
    """Makes and records what is missing of all variants of one method."""
    return _until_whole(
        specs,
        lambda: unlearning.train_missing(world, specs),
        lambda spec, view: unlearning.record(world, spec, view),
    )


def _until_whole(
    specs: Sequence[roles.RoleSpec],
    train: Callable[[], chunked.TrainingCost],
    record: Callable[[roles.RoleSpec, str], tuple[np.ndarray, bool]],
) -> Made:
    """Trains and records roles; what is found damaged while recording is trained again.

    Raises:
      StoreError: what was just written is damaged again and again.
    """
    spent = chunked.TrainingCost()
    for _ in range(ROUNDS):
        spent = chunked.add(spent, train())
        logits, is_whole = {}, True
        for spec in specs:
            for view in (*spec.views, recording.CLEAN):
                logits[spec.name], whole = record(spec, view)
                is_whole = is_whole and whole
        if is_whole:
            return Made(logits, spent)
    names = ", ".join(spec.name for spec in specs)
    raise errors.StoreError(
        f"{names}: finished models were damaged when they were read back, {ROUNDS} times in a row. The disk of the run "
        "folder does not keep what is written to it; move the folder to another disk and run the same command again."
    )
