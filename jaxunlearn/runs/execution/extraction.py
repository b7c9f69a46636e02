"""Extraction of recorded models: the clones of a role are trained by the one restartable loop, like all models."""

from typing import Any

import numpy as np

from jaxunlearn import keys, population, progress, store, trees
from jaxunlearn.attacks import extraction
from jaxunlearn.population import chunked
from jaxunlearn.runs import roles
from jaxunlearn.runs.execution import members, recording, scratch

Tree = Any


def train_missing(
    run: store.Run, reporter: progress.Reporter, spec: roles.RoleSpec, victim: roles.RoleSpec
) -> chunked.TrainingCost:  # fmt: skip
    """Trains every clone that no finished chunk holds; returns what that cost.

    Args:
      run: the run folder, where both roles are claimed.
      reporter: for progress.
      spec: the clones, from `roles.extracted`.
      victim: the role that is asked, trained and recorded.

    Raises:
      StoreError: a model that is asked is not there, or damaged.
    """
    variables = members.load(victim.experiment, members.folder_of(run, victim), victim.fingerprint, victim.member_ids)
    answers = None
    if spec.experiment.settings.train.keep == "best":
        recorded = recording.read(run, victim)
        answers = np.zeros(spec.membership.shape, np.int32)
        answers[:, victim.rows] = np.stack([np.asarray(line).argmax(-1) for line in recorded])

    def make_job(spec: roles.RoleSpec, ids: np.ndarray, lengths: tuple[int, int]) -> population.Job:
        del lengths  # no clone has rows of its own
        return job_of(spec, ids, variables, answers)

    return scratch.train_missing(run, reporter, spec, make_job)


def job_of(spec: roles.RoleSpec, ids: np.ndarray, variables: Tree, answers: np.ndarray | None = None) -> population.Job:
    """The extraction of some members of a role.

    Args:
      spec: the clones.
      ids: [m] members.
      variables: flax variables [M, ...] of all models that are asked.
      answers: [M, N] their classes of all rows of the data set, by which the best epoch is chosen; None = the last.
    """
    settings, ids = spec.experiment.settings, np.asarray(ids, np.int32)
    return extraction.job(
        spec.experiment.task, ids, keys.stream(keys.root(settings.seed), spec.name),
        extraction.of_settings(settings.extract), victims=trees.take(variables, ids),
        answers=None if answers is None else answers[ids],
        rows=None if answers is None else np.flatnonzero(spec.held_out),
    )  # fmt: skip


def clones(run: store.Run, spec: roles.RoleSpec) -> Tree:
    """Loads the flax variables [M, ...] of finished clones, as networks of the run.

    Raises:
      StoreError: a clone is not there, or damaged.
    """
    return extraction.clones_of(
        members.load(spec.experiment, members.folder_of(run, spec), spec.fingerprint, spec.member_ids)
    )
