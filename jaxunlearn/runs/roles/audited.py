"""The audited side as roles: who trains on what, for how long, from which weights, and what decides about it.

| role | members | trains on | starts from |
| --- | --- | --- | --- |
| original | one per forget set, or ONE (targets.originals) | all target rows | fresh, or targets.start |
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
from pathlib import Path
from typing import Any

import numpy as np

from jaxunlearn import errors, records, store
from jaxunlearn.data.splitting.splits import shadow_members
from jaxunlearn.metrics.populations import variance
from jaxunlearn.runs import experiments, roles, splits
from jaxunlearn.runs.roles import shadow
from jaxunlearn.settings import Settings, ShadowSettings, TrainSettings, to_dict

NAMES = ("original", "retrained", "population_in", "shadow_origin", "reference", "snapshots")
PER_SET = ("original", "retrained")
STAGE_VERSION = 1


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


def describe(experiment: experiments.Experiment, split: records.Split, name: str) -> roles.RoleSpec:
    """One role of these settings; of a run folder nothing is read but targets.start.

    Raises:
      ConfigError: targets.start does not fit.
    """
    settings, everything = experiment.settings, len(experiment.dataset.labels)
    train = train_settings(settings, name)
    own_settings = dataclasses.replace(settings, train=train)
    own = experiment._replace(
        settings=own_settings,
        task=experiments.build_task(own_settings, experiment.dataset, experiment.mapping_policy.conv),
    )
    views: tuple[str, ...] = ()
    if name in PER_SET:
        views = roles.view_names(max(settings.targets.views, int(settings.compat.records == "faithful")))
    rows = splits.recorded_rows(split)
    if name == "snapshots":
        rows = np.sort(np.concatenate([split.target, split.population])).astype(np.int32)
    members = _members(experiment, split, name)
    begun = _start(experiment, name, len(members))
    return roles.RoleSpec(
        name=name,
        experiment=own,
        membership=members,
        held_out=roles.mask(everything, split.shadow if name == "population_in" else split.population),
        rows=rows,
        facts=_facts(own, name, begun),
        version=STAGE_VERSION,
        run_stage=name,
        views=views,
        snapshots=train.snapshots,
        drawn=None if name != "reference" else _drawn(experiment),
        start=begun,
    )


def _facts(experiment: experiments.Experiment, name: str, begun: roles.Start | None) -> dict[str, Any]:
    """Everything that decides about the numbers of a role's members."""
    settings = experiment.settings
    found: dict[str, Any] = {
        "seed": settings.seed,
        "data": experiment.data_fingerprint,
        "classes": experiment.dataset.num_answers,
        "shape": list(experiment.dataset.inputs.shape[1:]),
        "augment": {"kind": settings.data.augment, "pad": settings.data.pad},
        "split": splits.fingerprint(experiment),
        "model": to_dict(settings.model),
        "train": roles.recipe_facts(settings.train),
    }
    if name == "reference":
        found["reference_ratio"] = settings.targets.reference_ratio
    if begun is not None and begun.folder is None:
        found[begun.name] = begun.fingerprint
    elif begun is not None:
        found["start"] = {"fingerprint": begun.fingerprint, "shared": begun.shared}
    return found


def _drawn(experiment: experiments.Experiment) -> dict[str, Any]:
    """What decides about the rows of the reference models."""
    return {"split": splits.fingerprint(experiment), "ratio": experiment.settings.targets.reference_ratio}


def _start(experiment: experiments.Experiment, name: str, members: int) -> roles.Start | None:
    """Whose weights a role starts from."""
    if name == "snapshots":
        return roles.Start(shadow.NAME, shadow.fingerprint(experiment))
    if name in PER_SET and experiment.settings.targets.start:
        return start(experiment, name, members)
    return None


def design(settings: Settings, models: int) -> records.Design:
    """Returns what `models` models of forget sets are as draws: repeats, and whose originals they come from."""
    return variance.design_of(settings.targets.originals, models, settings.split.forget.repeats)


def original_of(settings: Settings, models: int) -> np.ndarray:
    """Returns the number of the original that every one of `models` models of forget sets comes from, [R] int.

    With repeats n model r is of forget set r // n; all of a set come from the original of that set, from ONE original
    (shared), or the u-th of every set from original u (crossed).
    """
    return variance.design_factors(design(settings, models))[0]


def _members(experiment: experiments.Experiment, split: records.Split, name: str) -> np.ndarray:
    """[M, N_all] bool: the rows that each member of a role trains on."""
    settings, everything = experiment.settings, len(experiment.dataset.labels)
    target = roles.mask(everything, split.target)
    forget = np.asarray(split.forget)
    if name == "original":
        return np.repeat(target[None], int(original_of(settings, len(forget)).max()) + 1, 0)
    if name == "retrained":
        return target & ~forget
    if name == "population_in":
        return roles.mask(everything, split.population)[None]
    if name == "shadow_origin":
        return roles.mask(everything, split.shadow)[None]
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
            start(experiment, name, len(_members(experiment, split, name)))


def start(experiment: experiments.Experiment, name: str, members: int) -> roles.Start:
    """The models of the run folder targets.start from which a role of so many members starts.

    Raises:
      ConfigError: nothing finished there, too few members, or another architecture, input or number of classes.
    """
    given = experiment.settings.targets.start
    folder = Path(given).expanduser() / "populations" / name
    stage = folder / "stage.json"
    if not stage.exists():
        raise errors.ConfigError(
            f"targets.start = {given!r}: {stage} does not exist; it must be a run folder whose {name} models "
            f"are trained. Run `python -m launch.targets --config=... --workdir={given}` first."
        )
    fingerprint, facts = store.read_claim(stage)
    model = {f"model.{key}": value for key, value in to_dict(experiment.settings.model).items() if key != "dtype"}
    shape = list(experiment.dataset.inputs.shape[1:])
    for fact, value in {"classes": experiment.dataset.num_answers, "shape": shape, **model}.items():
        value = list(value) if isinstance(value, tuple) else value
        if facts.get(fact) != value:
            raise errors.ConfigError(
                f"targets.start = {given!r} holds {name} models with {fact} = {facts.get(fact)!r}, but this run "
                f"has {value!r}; weights can be trained on only in the same network."
            )
    found = store.chunks.finished(folder, fingerprint)[0]
    ids = {int(member) for chunk in found for member in chunk.member_ids}
    shared = name == "original" and ids == {0}
    needed = 1 if shared else members
    if not ids.issuperset(range(needed)):
        raise errors.ConfigError(
            f"targets.start = {given!r} holds {len(ids)} finished {name} model(s), but {needed} are needed, one "
            "per forget set. Train them there, or lower split.forget.count."
        )
    return roles.Start(name, fingerprint, folder, shared)
