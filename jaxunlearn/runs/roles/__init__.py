"""Roles: the groups of models of a run, as plain arrays and facts, before anything is stored or trained.

A role is described by one of the modules of this folder and executed by `runs.execution`:

Experiment, Split -> RoleSpec (`shadow`, `audited_models`, ...) -> `execution` trains and records missing members
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import population, store, unlearn
from jaxunlearn.runs import experiments
from jaxunlearn.runs.roles.variants import MethodConfig
from jaxunlearn.settings import TrainSettings, to_dict

__all__ = ["RoleSpec", "Start"]

VIEW_PREFIX = "augmented_"  # augmented_K: the K-th augmented view


class Start(NamedTuple):
    """Finished models from whose weights a role starts: member r from member r, or (shared) all from member 0.

    Attributes:
      name: of their role.
      fingerprint: of their role.
      folder: of their chunks; None = populations/NAME of the same run.
      shared: whether all members start from the same model.
    """

    name: str
    fingerprint: str
    folder: Path | None = None
    shared: bool = False


class RoleSpec(NamedTuple):
    """One group of models of a run.

    A member's weights depend only on its id, its rows and `facts`, so a role can grow: 128 shadow models reuse the 64
    that are finished.

    Attributes:
      name: shadow, original, retrained, unlearned:METHOD ...
      experiment: the experiment with this role's own recipe.
      membership: [M, N] bool, the rows of the data set that each member trains on (unlearned members: retains).
      held_out: [N] bool rows on which train.keep = best chooses the epoch; a member's own rows are excluded.
      rows: [n] int32 rows whose logits are recorded.
      facts: plain values, everything that the members' weights depend on.
      version: of the code that computes the members.
      run_stage: the name used by --overwrite.
      views: augmented views recorded in addition to the clean one.
      snapshots: K epochs (1 = after the first) whose logits are recorded; empty = the finished weights.
      learning_rate_scale: [M] float32 factors on the learning rate; None = 1.
      membership_facts: everything that a random membership stored in the run folder depends on; None = the membership
        follows from the split.
      start: models whose weights the members start from; None = each member's own random initialisation.
      coupling: [M] member ids whose initial weights and batches each member shares; None = no sharing.
      steps: per epoch, for members whose steps do not depend on their rows (clones); 0 = as many as their rows need.
      variant, method: how these members are computed from the originals; None = trained on their rows.
    """

    name: str
    experiment: experiments.Experiment
    membership: np.ndarray
    held_out: np.ndarray
    rows: np.ndarray
    facts: Mapping[str, Any]
    version: int
    run_stage: str
    views: tuple[str, ...] = ()
    snapshots: tuple[int, ...] = ()
    learning_rate_scale: np.ndarray | None = None
    membership_facts: Mapping[str, Any] | None = None
    start: Start | None = None
    coupling: np.ndarray | None = None
    steps: int = 0
    variant: MethodConfig | None = None
    method: unlearn.Method | None = None

    @property
    def member_ids(self) -> np.ndarray:
        """[M] int32."""
        return np.arange(len(self.membership), dtype=np.int32)

    @property
    def fingerprint(self) -> str:
        """Of everything that the members' weights depend on."""
        return store.fingerprint_of(self.facts, self.version)


def model_steps(spec: RoleSpec, member_ids: Any) -> int:
    """Returns the total number of steps of some members in one epoch."""
    batch, ids = spec.experiment.settings.train.batch, np.asarray(member_ids)
    return spec.steps * len(ids) or population.model_steps(spec.membership[ids].sum(1), batch)


def recipe_facts(train: TrainSettings) -> dict[str, Any]:
    """Returns the settings of a recipe that the weights depend on; later additions count only where they are set."""
    return {name: value for name, value in to_dict(train).items() if name != "l1" or value}


def mask(length: int, rows: Any) -> np.ndarray:
    """Returns [length] bool, true at `rows`."""
    is_member = np.zeros(length, bool)
    is_member[np.asarray(rows)] = True
    return is_member


def view_names(count: int) -> tuple[str, ...]:
    """Returns the names of the augmented views; a name stands for the same images in every role."""
    return tuple(f"{VIEW_PREFIX}{index}" for index in range(count))


def claim(run_folder: store.Run, spec: RoleSpec) -> RoleSpec:
    """Claims a role's stage of the run folder; returns the role with the membership stored there.

    Raises:
      StoreError: the folder holds this role made with other settings.
    """
    if spec.membership_facts is not None:
        spec = spec._replace(membership=_stored_membership(run_folder, spec, spec.membership_facts))
    store.claim(
        run_folder, spec.run_stage, run_folder.path("populations", spec.name, "stage.json"), spec.facts, spec.version
    )
    return spec


def _stored_membership(run_folder: store.Run, spec: RoleSpec, facts: Mapping[str, Any]) -> np.ndarray:
    """Returns [M, N] bool: the stored rows of existing members, followed by those of new members.

    Raises:
      StoreError: the stored rows were drawn by other facts; the message names the stage for --overwrite.
    """
    store.claim(
        run_folder, spec.run_stage, run_folder.path("populations", spec.name, "membership.json"), facts, spec.version
    )
    path = run_folder.path("populations", spec.name, "membership.npz")
    count = spec.membership.shape[1]
    arrays = store.load_intact(run_folder, path, ("packed",))
    membership = np.zeros((0, count), bool)
    if arrays is not None:
        membership = np.unpackbits(arrays["packed"], axis=1, count=count).astype(bool)
    if len(membership) < len(spec.membership):
        membership = np.concatenate([membership, spec.membership[len(membership) :]])
        store.files.write_npz(path, packed=np.packbits(membership, axis=1))
    return membership[: len(spec.membership)]


def disk_bytes(spec: RoleSpec) -> int:
    """Returns the bytes that a role writes: variables of members and snapshots, a rolling checkpoint, the logits."""
    members, settings = len(spec.membership), spec.experiment.settings
    weight_bytes = members * spec.experiment.cost.parameters * 4 * (1 + len(settings.train.snapshots) + 3)
    num_models = members * max(len(spec.snapshots), 1) * (1 + len(spec.views))
    num_values = num_models * len(spec.rows) * experiments.recorded_width(spec.experiment)
    return weight_bytes + num_values * np.dtype(settings.engine.logits_dtype).itemsize


def missing_bytes(run_folder: store.Run, spec: RoleSpec) -> int:
    """Returns the bytes that the unfinished members of a role will take."""
    finished_chunks, _ = store.chunks.finished(run_folder.path("populations", spec.name), spec.fingerprint)
    num_finished = sum(len(chunk.member_ids) for chunk in finished_chunks)
    return int(max(0.0, 1.0 - num_finished / len(spec.membership)) * disk_bytes(spec))
