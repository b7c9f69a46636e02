"""Splits of a run: drawn once, stored, read back; drawn again only where the stored file is damaged."""

from typing import Any

import numpy as np

from jaxunlearn import errors, progress, records, store
from jaxunlearn.data import naming
from jaxunlearn.data.splitting import forget, splits
from jaxunlearn.runs import experiments
from jaxunlearn.settings import to_dict

STAGE_VERSION = 1
_ARRAYS = ("shadow", "target", "population", "test", "forget")


def draw(experiment: experiments.Experiment) -> records.Split:
    """The split of these settings, not stored."""
    return splits.draw(experiment.dataset, experiment.settings.split, experiment.settings.seed)


def check(experiment: experiments.Experiment) -> None:
    """Raises what `obtain` and the shadows' draws would raise for impossible sizes, before a run folder is touched."""
    draw_members(experiment, draw(experiment), np.zeros(1, np.int64))


def tell(reporter: progress.Reporter, experiment: experiments.Experiment) -> None:
    """Notes what the data source tells about itself, and who is asked to be forgotten."""
    for said in (*experiment.dataset.notes, *forget.described(experiment.dataset, experiment.settings.split)):
        reporter.note(said)


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


def fingerprint(experiment: experiments.Experiment) -> str:
    """The fingerprint of the split of these settings."""
    return store.fingerprint_of(_facts(experiment), STAGE_VERSION)


def _facts(experiment: experiments.Experiment) -> dict[str, Any]:
    """Everything that decides about the split."""
    settings = experiment.settings
    found = {"seed": settings.seed, "data": experiment.data_fingerprint, "split": to_dict(settings.split)}
    if settings.split.forget.kind == "index_file":  # who is asked to be forgotten, whatever the file is called
        found["listed"] = store.files.fingerprint(forget.listed_rows(settings.split, experiment.dataset))
    return found


def obtain(run: store.Run, experiment: experiments.Experiment) -> records.Split:
    """The split of a run folder: read if it is there, else drawn and stored.

    Raises:
      StoreError: the folder holds a split of other settings.
    """
    settings, path = experiment.settings, run.path("split.npz")
    arrays = store.stored(run, path, _ARRAYS)
    drawn = draw(experiment) if arrays is None else None  # a split that cannot be drawn must not claim the folder
    store.claim(run, "split", run.path("split.json"), _facts(experiment), STAGE_VERSION)
    if drawn is not None:
        arrays = {name: getattr(drawn, name) for name in _ARRAYS}
        store.files.write_npz(path, **arrays, **naming.named(experiment.dataset))
        return drawn
    assert arrays is not None
    return records.Split(
        **{name: arrays[name] for name in _ARRAYS}, kind=settings.split.forget.kind, seed=settings.seed
    )  # fmt: skip


def draw_members(experiment: experiments.Experiment, split: records.Split, member_ids: np.ndarray) -> np.ndarray:
    """[m, N] bool: the rows that these shadow models train on, drawn from their numbers."""
    settings = experiment.settings
    rows = len(experiment.dataset.labels)
    return splits.shadow_members(split, settings.shadows, member_ids, settings.seed, settings.split.rng, rows)


def recorded_rows(split: records.Split) -> np.ndarray:
    """[N] int32 sorted rows whose logits are recorded: everything that has a part in the split."""
    return np.sort(np.concatenate([split.shadow, split.target, split.population, split.test])).astype(np.int32)
