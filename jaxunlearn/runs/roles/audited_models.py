"""The roles of the audited side: training rows, epochs, initial weights, and the facts they depend on.

| role | members | trains on | starts from |
| --- | --- | --- | --- |
| original | one per forget set, or ONE (targets.originals) | all target rows | fresh, or targets.start |
| retrained | one per forget set | target rows without the set: exact retraining | fresh, or targets.start |
| population_in | 1 | the population rows | fresh |
| shadow_origin | 1 | all shadow rows | fresh |
| reference | targets.reference | a random subset of the target rows | fresh |
| snapshots | targets.snapshots | all target rows, stored at several epochs | the weights of shadow member l |

A member's weights depend on (settings of its role, seed, role, its id, its rows), so each role has its own fingerprint
and can grow by members. Source: IAM, sections on training and ScoreUI. Differs from the published code:
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


def requested_roles(settings: Settings) -> tuple[str, ...]:
    """Returns the roles that these settings request, in the order in which they are trained."""
    targets = settings.targets
    is_requested = {"original": True, "retrained": True, "population_in": targets.population_in,
             "shadow_origin": targets.shadow_origin, "reference": targets.reference > 0,
             "snapshots": targets.snapshots > 0}  # fmt: skip
    return tuple(name for name in NAMES if is_requested[name])


def snapshot_schedule(epochs: int, breaks: int) -> tuple[int, ...]:
    """Returns the epochs (1 = after the first) whose weights ScoreUI stores.

    1 + b * step, b = 0..B, step = (epochs - 1) // B.

    With fewer than B epochs after the first, B is their number.
    Source: IAM, section on ScoreUI (published, from 0: b * floor(epochs / B)).
    """
    breaks = min(breaks, epochs - 1)
    step = (epochs - 1) // max(breaks, 1)
    return tuple(1 + b * step for b in range(breaks + 1))


def snapshot_epochs(settings: Settings) -> int:
    """Returns the nominal epochs of the ScoreUI trainings; epochs after the last snapshot are not run."""
    return settings.targets.snapshot_epochs or settings.targets.epochs or settings.train.epochs


def train_settings(settings: Settings, name: str) -> TrainSettings:
    """Returns the recipe of one role: that of the shadows with its own epochs; the schedule keeps its full length."""
    train = settings.train
    if name != "snapshots":
        return dataclasses.replace(train, epochs=settings.targets.epochs or train.epochs, snapshots=())
    epochs = snapshot_epochs(settings)
    snapshots = snapshot_schedule(epochs, settings.targets.breaks)
    length = train.schedule_epochs or epochs
    return dataclasses.replace(train, epochs=snapshots[-1], snapshots=snapshots, schedule_epochs=length, keep="last")


def describe(experiment: experiments.Experiment, split: records.Split, name: str) -> roles.RoleSpec:
    """Describes one role of these settings; reads nothing of a run folder except targets.start.

    Raises:
      ConfigError: targets.start is incompatible.
    """
    settings, num_rows = experiment.settings, len(experiment.dataset.labels)
    train = train_settings(settings, name)
    role_settings = dataclasses.replace(settings, train=train)
    role_experiment = experiment._replace(
        settings=role_settings,
        task=experiments.build_task(role_settings, experiment.dataset, experiment.mapping_policy.conv),
    )
    views: tuple[str, ...] = ()
    if name in PER_SET:
        views = roles.view_names(max(settings.targets.views, int(settings.compat.records == "faithful")))
    rows = splits.recorded_rows(split)
    if name == "snapshots":
        rows = np.sort(np.concatenate([split.target, split.population])).astype(np.int32)
    membership = _membership(experiment, split, name)
    start_models = _start(experiment, name, len(membership))
    return roles.RoleSpec(
        name=name,
        experiment=role_experiment,
        membership=membership,
        held_out=roles.mask(num_rows, split.shadow if name == "population_in" else split.population),
        rows=rows,
        facts=_facts(role_experiment, name, start_models),
        version=STAGE_VERSION,
        run_stage=name,
        views=views,
        snapshots=train.snapshots,
        membership_facts=None if name != "reference" else _reference_facts(experiment),
        start=start_models,
    )


def _facts(experiment: experiments.Experiment, name: str, start_models: roles.Start | None) -> dict[str, Any]:
    """Returns everything that the weights of a role's members depend on."""
    settings = experiment.settings
    facts: dict[str, Any] = {
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
        facts["reference_ratio"] = settings.targets.reference_ratio
    if start_models is not None and start_models.folder is None:
        facts[start_models.name] = start_models.fingerprint
    elif start_models is not None:
        facts["start"] = {"fingerprint": start_models.fingerprint, "shared": start_models.shared}
    return facts


def _reference_facts(experiment: experiments.Experiment) -> dict[str, Any]:
    """Returns everything that the rows of the reference models depend on."""
    return {"split": splits.fingerprint(experiment), "ratio": experiment.settings.targets.reference_ratio}


def _start(experiment: experiments.Experiment, name: str, members: int) -> roles.Start | None:
    """Returns the models whose weights a role starts from."""
    if name == "snapshots":
        return roles.Start(shadow.NAME, shadow.fingerprint(experiment))
    if name in PER_SET and experiment.settings.targets.start:
        return external_start(experiment, name, members)
    return None


def design(settings: Settings, models: int) -> records.Design:
    """Returns the design of `models` models of forget sets: repeats, and which originals they come from."""
    return variance.design_of(settings.targets.originals, models, settings.split.forget.repeats)


def original_of(settings: Settings, models: int) -> np.ndarray:
    """Returns [R] int: the id of the original that each of `models` models of forget sets comes from.

    With repeats n model r is of forget set r // n; all of a set come from the original of that set, from ONE original
    (shared), or the u-th of every set from original u (crossed).
    """
    return variance.design_factors(design(settings, models))[0]


def members_of_sets(design: records.Design, name: str) -> np.ndarray:
    """Returns [R] int: the member of a role that stands for the r-th model of forget sets: r, or r's original.

    Args:
      design: see `design`.
      name: of the role: the originals, or any with a member per model.
    """
    originals, forget_sets = variance.design_factors(design)
    return originals if name == "original" else np.arange(len(forget_sets))


def _membership(experiment: experiments.Experiment, split: records.Split, name: str) -> np.ndarray:
    """Returns [M, N_all] bool: the rows that each member of a role trains on."""
    settings, num_rows = experiment.settings, len(experiment.dataset.labels)
    target = roles.mask(num_rows, split.target)
    forget = np.asarray(split.forget)
    if name == "original":
        return np.repeat(target[None], int(original_of(settings, len(forget)).max()) + 1, 0)
    if name == "retrained":
        return target & ~forget
    if name == "population_in":
        return roles.mask(num_rows, split.population)[None]
    if name == "shadow_origin":
        return roles.mask(num_rows, split.shadow)[None]
    if name == "snapshots":
        return np.repeat(target[None], settings.targets.snapshots, 0)
    return draw_reference(experiment, split, np.arange(settings.targets.reference))


def draw_reference(experiment: experiments.Experiment, split: records.Split, member_ids: np.ndarray) -> np.ndarray:
    """Returns [m, N_all] bool: the rows of reference models, drawn like those of shadows, but from the target rows.

    Always by the numpy generator: the published one would put the last 200 target rows into every model, which leaves
    them without an OUT model.
    """
    settings = experiment.settings
    shadow_settings = ShadowSettings(ratio=settings.targets.reference_ratio, pool="target")
    return shadow_members(split, shadow_settings, member_ids, settings.seed, "numpy", len(experiment.dataset.labels))


def check(experiment: experiments.Experiment) -> None:
    """Raises a ConfigError for impossible settings, before a run folder is touched.

    Raises:
      ConfigError: too few shadows to start snapshots from, a reference model without rows, or an incompatible
        targets.start.
    """
    splits.check(experiment)
    settings, split = experiment.settings, splits.draw(experiment)
    targets = settings.targets
    if targets.snapshots > settings.shadows.count:
        raise errors.ConfigError(
            f"targets.snapshots = {targets.snapshots} training runs start from the weights of as many shadow models, "
            f"but shadows.count = {settings.shadows.count}. Lower targets.snapshots (0 = none) or raise shadows.count."
        )
    if targets.reference and not int(targets.reference_ratio * len(split.target)):
        raise errors.ConfigError(
            f"targets.reference_ratio = {targets.reference_ratio} of {len(split.target)} target rows leaves a "
            "reference model without a row; raise it."
        )
    if targets.start:
        for name in PER_SET:
            external_start(experiment, name, len(_membership(experiment, split, name)))


def external_start(experiment: experiments.Experiment, name: str, members: int) -> roles.Start:
    """Returns the models of the run folder targets.start from which a role of `members` members starts.

    Raises:
      ConfigError: nothing finished there, too few members, or another architecture, input or number of classes.
    """
    start_folder = experiment.settings.targets.start
    folder = Path(start_folder).expanduser() / "populations" / name
    stage = folder / "stage.json"
    if not stage.exists():
        raise errors.ConfigError(
            f"targets.start = {start_folder!r}: {stage} does not exist; it must be a run folder whose {name} models "
            f"are trained. Run `python -m launch.targets --config=... --workdir={start_folder}` first."
        )
    fingerprint, facts = store.read_claim(stage)
    model = {f"model.{key}": value for key, value in to_dict(experiment.settings.model).items() if key != "dtype"}
    shape = list(experiment.dataset.inputs.shape[1:])
    for fact, value in {"classes": experiment.dataset.num_answers, "shape": shape, **model}.items():
        value = list(value) if isinstance(value, tuple) else value
        if facts.get(fact) != value:
            raise errors.ConfigError(
                f"targets.start = {start_folder!r} contains {name} models with {fact} = {facts.get(fact)!r}, but this "
                f"run has {value!r}; weights can be trained on only in the same network."
            )
    finished_chunks = store.chunks.finished(folder, fingerprint)[0]
    finished_ids = {int(member) for chunk in finished_chunks for member in chunk.member_ids}
    shared = name == "original" and finished_ids == {0}
    num_needed = 1 if shared else members
    if not finished_ids.issuperset(range(num_needed)):
        raise errors.ConfigError(
            f"targets.start = {start_folder!r} contains {len(finished_ids)} finished {name} model(s), but {num_needed} "
            "are needed, one per forget set. Train them there, or lower split.forget.count."
        )
    return roles.Start(name, fingerprint, folder, shared)
