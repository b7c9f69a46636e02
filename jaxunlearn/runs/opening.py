"""Opens a run folder for an experiment of several stages: lock, status, progress, tuned mapping."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jaxunlearn import analyses, progress, settings, store
from jaxunlearn.runs import experiments, splits, tuning


class OpenRun(NamedTuple):
    """An open run folder.

    Attributes:
      run_folder: the open folder, locked.
      reporter: for messages and progress.
      experiment: with the tuned mapping.
      plain: the settings as nested dicts.
      start_time: `time.monotonic()` of the start.
    """

    run_folder: store.Run
    reporter: progress.Reporter
    experiment: experiments.Experiment
    plain: dict[str, Any]
    start_time: float


@contextlib.contextmanager
def open_experiment(
    experiment: experiments.Experiment, user_settings: settings.Settings, workdir: str, overwrite: tuple[str, ...],
    overrides: Mapping[str, Any],
) -> Iterator[OpenRun]:  # fmt: skip
    """Holds the run folder while the block runs, and records how it ends.

    Args:
      experiment: checked; its settings may be narrower than those of the user.
      user_settings: the settings of the user, which are stored in run.json.
      workdir: the run folder.
      overwrite: stages whose results are deleted first.
      overrides: settings of the command line.

    Raises:
      StoreError: the folder cannot be written, or another process uses it. ConfigError: unknown stage.
    """
    plain = settings.to_dict(user_settings)
    with (
        store.open_run(workdir, overwrite, analyses.owned_outputs()) as run_folder,
        store.status(run_folder, plain, overrides),
    ):
        start_time = time.monotonic()
        reporter = progress.Reporter(run_folder.log)
        splits.report_notes(reporter, experiment)
        yield OpenRun(run_folder, reporter, tuning.obtain(experiment, reporter), plain, start_time)
