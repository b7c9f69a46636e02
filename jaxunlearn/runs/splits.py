"""Splits of a run: drawn once, stored, read back; drawn again only where the stored file is damaged."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxunlearn import errors, progress, records, store
from jaxunlearn.data import forget, naming, splits
from jaxunlearn.runs import experiments
from jaxunlearn.settings import to_dict

STAGE_VERSION = 1
_ARRAYS = ("shadow", "target", "population", "test", "forget")


def draw(experiment: experiments.Experiment) -> records.Split:
    """The split of these settings, not stored."""
    return splits.draw(experiment.dataset, experiment.settings.split, experiment.settings.seed)


def check(experiment: experiments.Experiment) -> None:
    """Raises what `obtain` and `shadow_membership` would raise for impossible sizes, before a run folder is touched."""
    draw_members(experiment, draw(experiment), np.zeros(1, np.int64))


def tell(reporter: progress.Reporter, experiment: experiments.Experiment) -> None:
    """Says what the data source tells about itself, and who is asked to be forgotten."""
    for said in (*experiment.dataset.notes, *forget.described(experiment.dataset, experiment.settings.split)):
        reporter.say(said)


def require_units(experiment: experiments.Experiment) -> None:
    """Refuses repeated forget sets where forget sets are the independent units of every interval.

    Raises:
      ConfigError: split.forget.repeats above 1.
    """
    repeats = experiment.settings.split.forget.repeats
    if repeats > 1:
        raise errors.ConfigError(
            f"split.forget.repeats = {repeats} repeats every forget set, but the intervals here take forget sets for "
            "independent. Set it to 1 (and split.forget.count to the number of sets), or use the study that compares "
            "models of one request: --config.study.kind=epsilon."
        )


def obtain(run: store.Run, experiment: experiments.Experiment) -> tuple[records.Split, str]:
    """The split of a run folder and its fingerprint: read if it is there, else drawn and stored."""
    settings = experiment.settings
    facts = {"seed": settings.seed, "data": experiment.data_fingerprint, "split": to_dict(settings.split)}
    if settings.split.forget.kind == "index_file":  # who is asked to be forgotten, whatever the file is called
        facts["listed"] = store.files.fingerprint(forget.listed_rows(settings.split, experiment.dataset))
    path = run.path("split.npz")
    arrays = store.stored(run, path, _ARRAYS)
    drawn = draw(experiment) if arrays is None else None  # a split that cannot be drawn must not claim the folder
    fingerprint, _ = store.claim(run, "split", run.path("split.json"), facts, STAGE_VERSION)
    if drawn is not None:
        arrays = {name: getattr(drawn, name) for name in _ARRAYS}
        store.files.write_npz(path, **arrays, **naming.named(experiment.dataset))
        return drawn, fingerprint
    assert arrays is not None
    split = records.Split(
        **{name: arrays[name] for name in _ARRAYS}, kind=settings.split.forget.kind, seed=settings.seed
    )  # fmt: skip
    return split, fingerprint


def draw_members(experiment: experiments.Experiment, split: records.Split, member_ids: np.ndarray) -> np.ndarray:
    """[m, N] bool: the rows that these shadow models train on, drawn from their numbers."""
    settings = experiment.settings
    rows = len(experiment.dataset.labels)
    return splits.shadow_members(split, settings.shadows, member_ids, settings.seed, settings.split.rng, rows)


def shadow_membership(
    run: store.Run,
    experiment: experiments.Experiment,
    split: records.Split,
    split_fingerprint: str,
    member_ids: np.ndarray,
) -> np.ndarray:
    """[M, N] bool for shadow members 0..M-1: stored rows as they are, rows of new members drawn and added."""
    shadows = experiment.settings.shadows
    facts = {"split": split_fingerprint, "ratio": shadows.ratio, "pool": shadows.pool}

    def draw(ids: np.ndarray) -> np.ndarray:
        return draw_members(experiment, split, ids)

    return stored_membership(run, experiment, "shadow", "shadows", facts, member_ids, draw)


def stored_membership(
    run: store.Run,
    experiment: experiments.Experiment,
    role: str,
    stage: str,
    facts: Mapping[str, Any],
    member_ids: np.ndarray,
    draw: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """[M, N] bool for members 0..M-1 of a role: stored rows as they are, rows of new members drawn and added.

    Raises:
      StoreError: the stored rows were drawn by other facts; the message names the stage for --overwrite.
    """
    store.claim(run, stage, run.path("populations", role, "membership.json"), facts, STAGE_VERSION)
    path = run.path("populations", role, "membership.npz")
    rows = len(experiment.dataset.labels)
    table = np.zeros((0, rows), bool)
    arrays = store.stored(run, path, ("packed",))
    if arrays is not None:
        table = np.unpackbits(arrays["packed"], axis=1, count=rows).astype(bool)
    if len(table) < len(member_ids):
        table = np.concatenate([table, draw(np.asarray(member_ids)[len(table) :])])
        store.files.write_npz(path, packed=np.packbits(table, axis=1))
    return table[: len(member_ids)]


def recorded_rows(split: records.Split) -> np.ndarray:
    """[N] int32 sorted rows whose logits are recorded: everything that has a part in the split."""
    return np.sort(np.concatenate([split.shadow, split.target, split.population, split.test])).astype(np.int32)
