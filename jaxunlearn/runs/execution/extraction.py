"""Extraction of recorded models: the clones of a role are trained by the same restartable loop as all other models."""

from typing import Any

import numpy as np

from jaxunlearn import keys, population, progress, store, trees
from jaxunlearn.attacks import extraction
from jaxunlearn.population import chunked
from jaxunlearn.runs import roles
from jaxunlearn.runs.execution import members, recording, scratch

Tree = Any


def train_missing(
    run_folder: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec, victim: roles.RoleSpec
) -> chunked.TrainingCost:  # fmt: skip
    """Trains every clone that no finished chunk holds; returns the cost.

    Args:
      run_folder: the run folder, where both roles are claimed.
      reporter: for progress.
      spec: the clones, from `roles.clone_models`.
      victim: the role whose models are queried, trained and recorded.

    Raises:
      StoreError: a queried model is missing or damaged.
    """
    variables = members.load(
        victim.experiment, members.folder_of(run_folder, victim), victim.fingerprint, victim.member_ids
    )
    answers = None
    if spec.experiment.settings.train.keep == "best":
        victim_logits = recording.read(run_folder, victim)
        answers = np.zeros(spec.membership.shape, np.int32)
        answers[:, victim.rows] = np.stack([np.asarray(member_logits).argmax(-1) for member_logits in victim_logits])

    def make_job(spec: roles.RoleSpec, ids: np.ndarray, lengths: tuple[int, int]) -> population.TrainingJob:
        del lengths  # clones have no training rows
        return job_of(spec, ids, variables, answers)

    return scratch.train_missing(run_folder, reporter, spec, make_job)


def job_of(
    spec: roles.RoleSpec, ids: np.ndarray, variables: Tree, answers: np.ndarray | None = None
) -> population.TrainingJob:
    """Returns the extraction job of some members of a role.

    Args:
      spec: the clones.
      ids: [m] member ids.
      variables: flax variables [M, ...] of all queried models.
      answers: [M, N] int32 classes that these models predict for every row of the data set, by which the best epoch is
        chosen; None = keep the last epoch.
    """
    settings, ids = spec.experiment.settings, np.asarray(ids, np.int32)
    return extraction.job(
        spec.experiment.task, ids, keys.stream(keys.root(settings.seed), spec.name),
        extraction.of_settings(settings.extract), victims=trees.take(variables, ids),
        answers=None if answers is None else answers[ids],
        rows=None if answers is None else np.flatnonzero(spec.held_out),
    )  # fmt: skip
