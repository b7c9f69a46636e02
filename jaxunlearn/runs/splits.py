"""Splits of a run: drawn once, stored, read back; drawn again only if the stored file is damaged."""

from typing import Any

import numpy as np

from jaxunlearn import progress, records, store
from jaxunlearn.data import naming
from jaxunlearn.data.splitting import forget, splits
from jaxunlearn.runs import experiments
from jaxunlearn.settings import to_dict

STAGE_VERSION = 1
_ARRAYS = ("shadow", "target", "population", "test", "forget")


def draw(experiment: experiments.Experiment) -> records.Split:
    """Draws the split of these settings without storing it."""
    return splits.draw(experiment.dataset, experiment.settings.split, experiment.settings.seed)


def check(experiment: experiments.Experiment) -> None:
    """Raises the errors of `obtain` and of the shadows' draws for impossible sizes, before a run folder is touched."""
    draw_members(experiment, draw(experiment), np.zeros(1, np.int64))


def report_notes(reporter: progress.Reporter, experiment: experiments.Experiment) -> None:
    """Logs the notes of the data source and a description of the forget sets."""
    for note in (*experiment.dataset.notes, *forget.sentences(experiment.dataset, experiment.settings.split)):
        reporter.note(note)


def fingerprint(experiment: experiments.Experiment) -> str:
    """Returns the fingerprint of the split of these settings."""
    return store.fingerprint_of(_facts(experiment), STAGE_VERSION)


def _facts(experiment: experiments.Experiment) -> dict[str, Any]:
    """Returns everything that the split depends on."""
    settings = experiment.settings
    facts = {"seed": settings.seed, "data": experiment.data_fingerprint, "split": to_dict(settings.split)}
    if settings.split.forget.kind == "index_file":  # the rows to be forgotten, independent of the name of the file
        facts["listed"] = store.files.fingerprint(forget.listed_rows(settings.split, experiment.dataset))
    return facts


def obtain(run_folder: store.Run, experiment: experiments.Experiment) -> records.Split:
    """Returns the split of a run folder: the stored one if it exists, otherwise a new one, which is stored.

    Raises:
      StoreError: the folder holds a split of other settings.
    """
    settings, path = experiment.settings, run_folder.path("split.npz")
    arrays = store.load_intact(run_folder, path, _ARRAYS)
    split = draw(experiment) if arrays is None else None  # an impossible split must not claim the folder
    store.claim(run_folder, "split", run_folder.path("split.json"), _facts(experiment), STAGE_VERSION)
    if split is not None:
        arrays = {name: getattr(split, name) for name in _ARRAYS}
        store.files.write_npz(path, **arrays, **naming.result_names(experiment.dataset))
        return split
    assert arrays is not None
    return records.Split(
        **{name: arrays[name] for name in _ARRAYS}, kind=settings.split.forget.kind, seed=settings.seed
    )  # fmt: skip


def draw_members(experiment: experiments.Experiment, split: records.Split, member_ids: np.ndarray) -> np.ndarray:
    """Draws [m, N] bool: the rows that these shadow models train on, from their ids."""
    settings = experiment.settings
    num_rows = len(experiment.dataset.labels)
    return splits.shadow_members(split, settings.shadows, member_ids, settings.seed, settings.split.rng, num_rows)


def recorded_rows(split: records.Split) -> np.ndarray:
    """Returns [N] int32 sorted rows whose logits are recorded: every row of the split."""
    return np.sort(np.concatenate([split.shadow, split.target, split.population, split.test])).astype(np.int32)
