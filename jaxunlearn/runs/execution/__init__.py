"""Execution: trains and records the members that RoleSpecs describe and the run folder lacks.

`scratch` trains on a role's rows, `unlearning` computes members from the originals, `extraction` copies a role from its
answers, `recording` stores logits; `members` reads and writes finished members. `make` combines them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxunlearn import progress, store
from jaxunlearn.population import chunked
from jaxunlearn.runs import roles
from jaxunlearn.runs.execution import extraction, members, recording, scratch, unlearning

__all__: list[str] = []  # internal


class RecordedRoles(NamedTuple):
    """Trained and recorded roles: name -> clean logits [M * K, n, C]; the cost of training in this process."""

    logits: dict[str, np.ndarray]
    cost: chunked.TrainingCost


def make(run_folder: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec) -> RecordedRoles:
    """Trains and records the missing members of a role that is trained on its rows."""
    return _until_complete(
        [spec],
        lambda: scratch.train_missing(run_folder, reporter, spec),
        lambda spec, view: recording.record(run_folder, reporter, spec, view),
    )


def extract(
    run_folder: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec, victim: roles.RoleSpec
) -> RecordedRoles:
    """Trains and records the missing clones of a recorded role.

    Args:
      run_folder: of the run.
      reporter: of the run.
      spec: the clones, from `roles.clone_models`.
      victim: the role whose models are queried.
    """
    return _until_complete(
        [spec],
        lambda: extraction.train_missing(run_folder, reporter, spec, victim),
        lambda spec, view: recording.record(run_folder, reporter, spec, view),
    )


def unlearn(unlearning_run: unlearning.UnlearningRun, specs: Sequence[roles.RoleSpec]) -> RecordedRoles:
    """Computes and records the missing members of all variants of one method."""
    return _until_complete(
        specs,
        lambda: unlearning.train_missing(unlearning_run, specs),
        lambda spec, view: unlearning.record(unlearning_run, spec, view),
    )


def _until_complete(
    specs: Sequence[roles.RoleSpec],
    train: Callable[[], chunked.TrainingCost],
    record: Callable[[roles.RoleSpec, str], tuple[np.ndarray, bool]],
) -> RecordedRoles:
    """Trains and records roles; retrains members whose files are damaged when they are read back.

    Raises:
      StoreError: finished members are damaged again after `members.ROUNDS` attempts.
    """
    cost = chunked.TrainingCost()
    for _ in range(members.ROUNDS):
        cost = chunked.add(cost, train())
        logits, all_complete = {}, True
        for spec in specs:
            for view in (*spec.views, recording.CLEAN):
                logits[spec.name], is_complete = record(spec, view)
                all_complete = all_complete and is_complete
        if all_complete:
            return RecordedRoles(logits, cost)
    raise members.not_kept(", ".join(spec.name for spec in specs))
