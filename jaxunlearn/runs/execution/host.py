"""Models that are fitted on the host, one after another: their posteriors are recorded, the models are not stored.

finished entries of the logits file are kept -> fit the next members -> their log posteriors -> commit, block by block
"""

from collections.abc import Callable

import numpy as np

from jaxunlearn import progress, store
from jaxunlearn.runs import roles
from jaxunlearn.runs.execution import recording
from jaxunlearn.store import logits

BLOCK = 20  # members per commit: at most this many are lost when the process is killed
SMALLEST = 1e-37  # a posterior of 0 keeps a finite logarithm

Predict = Callable[[np.ndarray], np.ndarray]
Fit = Callable[[int, np.ndarray, np.ndarray], Predict]  # (member, inputs, labels) -> inputs -> posteriors [n, C]


def finished_members(run_folder: store.Run, spec: roles.RoleSpec) -> set[int]:
    """Returns the ids of the members whose posteriors are recorded."""
    return set(recording.open_file(run_folder, spec).done) & set(spec.member_ids.tolist())


def record(run_folder: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec, fit: Fit) -> np.ndarray:
    """Fits the members that the logits file lacks and records their log posteriors on the role's rows.

    Args:
      run_folder: the run folder, where the role is claimed.
      reporter: for progress.
      spec: the role.
      fit: fits one member.

    Returns:
      [M, n, C] float32 or float16 memory map.
    """
    experiment = spec.experiment
    inputs, labels = np.asarray(experiment.dataset.inputs), np.asarray(experiment.dataset.labels)
    file = recording.open_file(run_folder, spec)
    missing = [member for member in spec.member_ids.tolist() if member not in file.done]
    if missing:
        reporter.begin(f"fitting {spec.name}")
    for start in range(0, len(missing), BLOCK):
        block = missing[start : start + BLOCK]
        for count, member in enumerate(block, start + 1):
            rows = np.flatnonzero(spec.membership[member])
            posteriors = fit(member, inputs[rows], labels[rows])(inputs[spec.rows])
            file.values[member] = np.log(np.maximum(posteriors, SMALLEST))
            reporter.update(count, len(missing), "models", "")
        logits.commit(file, np.asarray(block))
    return file.values
