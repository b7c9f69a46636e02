"""The audited side as roles: who trains on what, for how long, from which weights, and what decides about it.

| role | members | trains on | starts from |
| --- | --- | --- | --- |
| original | 1, or one per forget set | all target rows | fresh, or targets.start |
| retrained | one per forget set | target rows without the set: exact retraining | fresh, or targets.start |
| population_in | 1 | the population rows | fresh |
| shadow_origin | 1 | all shadow rows | fresh |
| reference | targets.reference | a random part of the target rows | fresh |
| snapshots | targets.snapshots | all target rows, kept at several epochs | the weights of shadow member l |

A member's numbers depend on (settings of its role, seed, role, its number, its rows), so each role has a fingerprint of
its own and grows by members. Source: IAM, sections on training and ScoreUI. Differs from the published code:
population_in trains with the batch size, epochs and augmentation of the other roles (published: batch 256, no
augmentation), and every role of a run shares one recipe.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxunlearn import errors, population, records, store, trees
from jaxunlearn.data.splits import shadow_members
from jaxunlearn.population import recipe
from jaxunlearn.runs import experiments, recording, roles, splits
from jaxunlearn.settings import Settings, ShadowSettings, TrainSettings, to_dict

NAMES = ("original", "retrained", "population_in", "shadow_origin", "reference", "snapshots")
PER_SET = ("original", "retrained")
STAGE_VERSION = 1


class Target(NamedTuple):
    """One role before anything is stored.

    Attributes:
      name: one of NAMES.
      experiment: the experiment with this role's own epochs and snapshots.
      member: [M, N_all] bool, the rows that each member trains on.
      held_out: [N_all] bool rows on which train.keep = best chooses the epoch.
      rows: [n] int32 rows whose logits are recorded.
      views: augmented views recorded beside the clean one.
      snapshots: K epochs (1 = after the first) whose logits are recorded; empty = the finished weights.
    """

    name: str
    experiment: experiments.Experiment
    member: np.ndarray
    held_out: np.ndarray
    rows: np.ndarray
    views: tuple[str, ...] = ()
    snapshots: tuple[int, ...] = ()


class Origin(NamedTuple):
    """A finished role from whose weights another starts: member r from member r, or (shared) all from member 0."""

    folder: Path
    fingerprint: str
    shared: bool


def wanted(settings: Settings) -> tuple[str, ...]:
    """The roles that these settings ask for, in the order in which they are trained."""
    targets = settings.targets
    asked = {"original": True, "retrained": True, "population_in": targets.population_in,
             "shadow_origin": targets.shadow_origin, "reference": targets.reference > 0,
             "snapshots": targets.snapshots > 0}  # fmt: skip
    return tuple(name for name in NAMES if asked[name])


def kept_epochs(epochs: int, breaks: int) -> tuple[int, ...]:
    """Epochs (1 = after the first) whose weights ScoreUI keeps: 1 + b * step, b = 0..B, step = (epochs - 1) // B.

    With fewer than B epochs after the first, B is lowered to their number.
    Source: IAM, section on ScoreUI (published, from 0: b * floor(epochs / B)).
    """
    breaks = min(breaks, epochs - 1)
    step = (epochs - 1) // max(breaks, 1)
    return tuple(1 + b * step for b in range(breaks + 1))


def snapshot_epochs(settings: Settings) -> int:
    """Nominal epochs of the ScoreUI trainings; those after the last kept one are not run."""
    return settings.targets.snapshot_epochs or settings.targets.epochs or settings.train.epochs


def train_settings(settings: Settings, name: str) -> TrainSettings:
    """The recipe of one role: the shadows' with its own epochs; the schedule keeps the length of the whole training."""
    train = settings.train
    if name != "snapshots":
        return dataclasses.replace(train, epochs=settings.targets.epochs or train.epochs, snapshots=())
    epochs = snapshot_epochs(settings)
    kept = kept_epochs(epochs, settings.targets.breaks)
    length = train.schedule_epochs or epochs
    return dataclasses.replace(train, epochs=kept[-1], snapshots=kept, schedule_epochs=length, keep="last")


def describe(experiment: experiments.Experiment, split: records.Split, name: str) -> Target:
    """One role of these settings; nothing is read or stored."""
    settings = experiment.settings
    train = train_settings(settings, name)
    own_settings = dataclasses.replace(settings, train=train)
    own = experiment._replace(
        settings=own_settings, task=experiments.build_task(own_settings, experiment.dataset, experiment.policy.conv)
    )
    chosen_on = split.shadow if name == "population_in" else split.population
    views: tuple[str, ...] = ()
    if name in PER_SET:
        views = recording.view_names(max(settings.targets.views, int(settings.compat.records == "faithful")))
    rows = splits.recorded_rows(split)
    if name == "snapshots":
        rows = np.sort(np.concatenate([split.target, split.population])).astype(np.int32)
    everything = len(experiment.dataset.labels)
    return Target(
        name, own, _member(experiment, split, name), _mask(everything, chosen_on), rows, views, train.snapshots
    )  # fmt: skip


def _mask(length: int, rows: Any) -> np.ndarray:
    inside = np.zeros(length, bool)
    inside[np.asarray(rows)] = True
    return inside


def _member(experiment: experiments.Experiment, split: records.Split, name: str) -> np.ndarray:
    """[M, N_all] bool: the rows that each member of a role trains on."""
    settings, everything = experiment.settings, len(experiment.dataset.labels)
    target = _mask(everything, split.target)
    forget = np.asarray(split.forget)
    if name == "original":
        return np.repeat(target[None], len(forget) if settings.targets.originals == "per_set" else 1, 0)
    if name == "retrained":
        return target & ~forget
    if name == "population_in":
        return _mask(everything, split.population)[None]
    if name == "shadow_origin":
        return _mask(everything, split.shadow)[None]
    if name == "snapshots":
        return np.repeat(target[None], settings.targets.snapshots, 0)
    return draw_reference(experiment, split, np.arange(settings.targets.reference))


def draw_reference(experiment: experiments.Experiment, split: records.Split, member_ids: np.ndarray) -> np.ndarray:
    """[m, N_all] bool: reference models' rows, drawn as shadows draw theirs, but from the target rows.

    Always by the numpy generator: the published one would put the last 200 target rows into every model, which leaves
    them without an OUT model.
    """
    settings = experiment.settings
    drawn = ShadowSettings(ratio=settings.targets.reference_ratio, pool="target")
    return shadow_members(split, drawn, member_ids, settings.seed, "numpy", len(experiment.dataset.labels))


def check(experiment: experiments.Experiment) -> None:
    """Refuses impossible settings before a run folder is touched.

    Raises:
      ConfigError: too few shadows to start snapshots from, a reference model without rows, a targets.start that does
        not fit.
    """
    splits.check(experiment)
    settings, split = experiment.settings, splits.draw(experiment)
    targets = settings.targets
    if targets.snapshots > settings.shadows.count:
        raise errors.ConfigError(
            f"targets.snapshots = {targets.snapshots} trainings start from the weights of as many shadow models, but "
            f"shadows.count = {settings.shadows.count}. Lower targets.snapshots (0 = none) or raise shadows.count."
        )
    if targets.reference and not int(targets.reference_ratio * len(split.target)):
        raise errors.ConfigError(
            f"targets.reference_ratio = {targets.reference_ratio} of {len(split.target)} target rows leaves a "
            "reference model without a row; raise it."
        )
    if targets.start:
        for name in PER_SET:
            origin(describe(experiment, split, name))


def origin(target: Target) -> Origin:
    """The role of the run folder targets.start from which this one starts.

    Raises:
      ConfigError: nothing finished there, too few members, or another architecture, input or number of classes.
    """
    start = target.experiment.settings.targets.start
    folder = Path(start).expanduser() / "populations" / target.name
    stage = folder / "stage.json"
    if not stage.exists():
        raise errors.ConfigError(
            f"targets.start = {start!r}: {stage} does not exist; it must be a run folder whose {target.name} models "
            f"are trained. Run `python -m launch.targets --config=... --workdir={start}` first."
        )
    fingerprint, facts = store.read_claim(stage)
    now = {
        "classes": target.experiment.dataset.num_classes,
        "shape": list(target.experiment.dataset.inputs.shape[1:]),
        **{
            f"model.{name}": value
            for name, value in to_dict(target.experiment.settings.model).items()
            if name != "dtype"
        },
    }
    for name, value in now.items():
        value = list(value) if isinstance(value, tuple) else value
        if facts.get(name) != value:
            raise errors.ConfigError(
                f"targets.start = {start!r} holds {target.name} models with {name} = {facts.get(name)!r}, but this run "
                f"has {value!r}; weights can be trained on only in the same network."
            )
    found = store.chunks.finished(folder, fingerprint)[0]
    ids = {int(member) for chunk in found for member in chunk.member_ids}
    shared = target.name == "original" and ids == {0}
    needed = 1 if shared else len(target.member)
    if not ids.issuperset(range(needed)):
        raise errors.ConfigError(
            f"targets.start = {start!r} holds {len(ids)} finished {target.name} model(s), but {needed} are needed, one "
            "per forget set. Train them there, or lower split.forget.count."
        )
    return Origin(folder, fingerprint, shared)


def stage(run: store.Run, target: Target, split_fingerprint: str, shadow: roles.Role) -> roles.Role:
    """Claims a role's stage of the run folder, and says where its members start.

    Args:
      run: the run folder.
      target: the role.
      split_fingerprint: from `splits.obtain`.
      shadow: the shadow role, from whose weights snapshots start.

    Raises:
      StoreError: the folder holds this role made with other settings. ConfigError: targets.start does not fit.
    """
    experiment, settings = target.experiment, target.experiment.settings
    facts: dict[str, Any] = {
        "seed": settings.seed,
        "data": experiment.data_fingerprint,
        "classes": experiment.dataset.num_classes,
        "shape": list(experiment.dataset.inputs.shape[1:]),
        "augment": {"kind": settings.data.augment, "pad": settings.data.pad},
        "split": split_fingerprint,
        "model": to_dict(settings.model),
        "train": to_dict(settings.train),
    }
    ids = np.arange(len(target.member), dtype=np.int32)
    member, initial = target.member, None
    if target.name == "reference":
        facts["reference_ratio"] = settings.targets.reference_ratio
        drawn = {"split": split_fingerprint, "ratio": settings.targets.reference_ratio}
        member = splits.stored_membership(
            run, experiment, target.name, target.name, drawn, ids, lambda new: target.member[np.asarray(new)]
        )
    if target.name == "snapshots":
        facts["shadow"] = shadow.fingerprint
        begun = Origin(run.path("populations", shadow.name), shadow.fingerprint, shared=False)
        initial = _starting_at(experiment, begun)
    if target.name in PER_SET and settings.targets.start:
        begun = origin(target)
        facts["start"] = {"fingerprint": begun.fingerprint, "shared": begun.shared}
        initial = _starting_at(experiment, begun)
    manifest = run.path("populations", target.name, "stage.json")
    fingerprint, _ = store.claim(run, target.name, manifest, facts, STAGE_VERSION)
    return trainable(target._replace(member=member), fingerprint, initial)


def trainable(
    target: Target, fingerprint: str = "", initial: Callable[[np.ndarray], population.State] | None = None
) -> roles.Role:
    """A described role as the trainer wants it; without a fingerprint for a dry run, where nothing is stored."""
    return roles.Role(
        name=target.name,
        member_ids=np.arange(len(target.member), dtype=np.int32),
        membership=lambda chosen: target.member[np.asarray(chosen)],
        factors=lambda chosen: np.ones(len(chosen), np.float32),
        held_out=lambda chosen: np.repeat(target.held_out[None], len(chosen), 0),
        fingerprint=fingerprint,
        initial=initial,
    )


def _starting_at(experiment: experiments.Experiment, begun: Origin) -> Callable[[np.ndarray], population.State]:
    """Member ids -> states with the weights of the origin's members."""

    def initial(member_ids: np.ndarray) -> population.State:
        chosen = np.zeros(len(member_ids), np.int32) if begun.shared else np.asarray(member_ids)
        return fresh_state(experiment, roles.load_members(experiment, begun.folder, begun.fingerprint, chosen))

    return initial


def fresh_state(experiment: experiments.Experiment, variables: Any) -> population.State:
    """States that start from variables [m, ...]: parameters and BatchNorm statistics, with a fresh optimizer."""
    collections = dict(variables)
    params = collections.pop("params")
    transform = recipe.transform(experiment.settings.train, 0.0, 0.0)
    return trees.to_host(population.State(params, collections, jax.vmap(transform.init)(params)))


def disk_bytes(target: Target) -> int:
    """Bytes that a role writes: variables of every member and snapshot, a rolling checkpoint, and the logits."""
    members, (settings, dataset) = len(target.member), (target.experiment.settings, target.experiment.dataset)
    weights = members * target.experiment.cost.parameters * 4 * (1 + len(target.snapshots) + 3)
    lines = members * max(len(target.snapshots), 1) * (1 + len(target.views))
    return weights + lines * len(target.rows) * dataset.num_classes * np.dtype(settings.engine.logits_dtype).itemsize
