"""Roles: the groups of models of a run, as plain arrays and facts, before anything is stored or trained.

Experiment, Split -> RoleSpec (`shadow`, `audited`, `unlearned`) -> `execution` trains and records what is missing
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import population, store, unlearn
from jaxunlearn.runs import experiments
from jaxunlearn.runs.roles.variants import MethodConfig
from jaxunlearn.settings import TrainSettings, to_dict


class Start(NamedTuple):
    """Finished models from whose weights a role starts: member r from member r, or (shared) all from member 0.

    Attributes:
      name: of their role; `fingerprint`: of it.
      folder: of their chunks; None = populations/NAME of the same run.
      shared: whether one model serves all members.
    """

    name: str
    fingerprint: str
    folder: Path | None = None
    shared: bool = False


class RoleSpec(NamedTuple):
    """One group of models of a run.

    A member's numbers depend on its own number and rows and on `facts` alone, so a role can grow: 128 shadow models
    reuse the 64 that are there.

    Attributes:
      name: shadow, original, retrained, unlearned:METHOD ...
      experiment: the experiment with this role's own recipe.
      membership: [M, N] bool, the rows of the data set that each member trains on (unlearned members: retains).
      held_out: [N] bool rows on which train.keep = best chooses the epoch, less a member's own.
      rows: [n] int32 rows whose logits are recorded.
      facts: plain values, everything that decides about the members' numbers; `version`: of the code that makes them.
      stage: the name that --overwrite knows.
      views: augmented views recorded beside the clean one.
      snapshots: K epochs (1 = after the first) whose logits are recorded; empty = the finished weights.
      factors: [M] float32 factors on the learning rate; None = 1.
      drawn: what decides about a membership that is drawn and kept in the run folder; None = it follows from the split.
      start: whose weights the members start from; None = each member's own random initialisation.
      coupling: [M] member numbers: whose initial weights and batches each member shares; None = everyone has its own.
      steps: per epoch, of members whose rows do not decide about it (clones); 0 = as many as their rows take.
      variant, method: how originals become these members; None = trained on their rows.
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
    drawn: Mapping[str, Any] | None = None
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
        """Of everything that decides about the members' numbers."""
        return store.fingerprint_of(self.facts, self.version)


def model_steps(spec: RoleSpec, member_ids: Any) -> int:
    """Steps of some members together in one epoch."""
    batch, ids = spec.experiment.settings.train.batch, np.asarray(member_ids)
    return spec.steps * len(ids) or population.model_steps(spec.membership[ids].sum(1), batch)


def recipe_facts(train: TrainSettings) -> dict[str, Any]:
    """What of a recipe decides about numbers; settings that came later count only where they are set."""
    return {name: value for name, value in to_dict(train).items() if name != "l1" or value}


def mask(length: int, rows: Any) -> np.ndarray:
    """[length] bool, true at `rows`."""
    inside = np.zeros(length, bool)
    inside[np.asarray(rows)] = True
    return inside


def view_names(count: int) -> tuple[str, ...]:
    """Names of the augmented views beside the clean one; a name is a view, the same pictures for every role."""
    return tuple(f"augmented_{number}" for number in range(count))


def claim(run: store.Run, spec: RoleSpec) -> RoleSpec:
    """Claims a role's stage of the run folder; returns the role with the membership that is kept there.

    Raises:
      StoreError: the folder holds this role made with other settings.
    """
    if spec.drawn is not None:
        spec = spec._replace(membership=_kept_membership(run, spec, spec.drawn))
    store.claim(run, spec.run_stage, run.path("populations", spec.name, "stage.json"), spec.facts, spec.version)
    return spec


def _kept_membership(run: store.Run, spec: RoleSpec, drawn: Mapping[str, Any]) -> np.ndarray:
    """[M, N] bool: stored rows as they are, rows of new members added.

    Raises:
      StoreError: the stored rows were drawn by other facts; the message names the stage for --overwrite.
    """
    store.claim(run, spec.run_stage, run.path("populations", spec.name, "membership.json"), drawn, spec.version)
    path = run.path("populations", spec.name, "membership.npz")
    count = spec.membership.shape[1]
    arrays = store.stored(run, path, ("packed",))
    table = np.zeros((0, count), bool)
    if arrays is not None:
        table = np.unpackbits(arrays["packed"], axis=1, count=count).astype(bool)
    if len(table) < len(spec.membership):
        table = np.concatenate([table, spec.membership[len(table) :]])
        store.files.write_npz(path, packed=np.packbits(table, axis=1))
    return table[: len(spec.membership)]


def disk_bytes(spec: RoleSpec) -> int:
    """Bytes that a role writes: variables of every member and snapshot, a rolling checkpoint, and the logits."""
    members, settings = len(spec.membership), spec.experiment.settings
    weights = members * spec.experiment.cost.parameters * 4 * (1 + len(settings.train.snapshots) + 3)
    lines = members * max(len(spec.snapshots), 1) * (1 + len(spec.views))
    numbers = lines * len(spec.rows) * experiments.recorded_width(spec.experiment)
    return weights + numbers * np.dtype(settings.engine.logits_dtype).itemsize


def missing_bytes(run: store.Run, spec: RoleSpec) -> int:
    """Bytes that the members of a role will take that no finished chunk holds yet."""
    finished, _ = store.chunks.finished(run.path("populations", spec.name), spec.fingerprint)
    done = sum(len(chunk.member_ids) for chunk in finished)
    return int(max(0.0, 1.0 - done / len(spec.membership)) * disk_bytes(spec))
