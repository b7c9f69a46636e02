"""Opening a run folder for an experiment of several stages: lock, status, progress, tuned mapping."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jaxunlearn import analyses, progress, settings, store
from jaxunlearn.runs import experiments, splits, tuning


class OpenRun(NamedTuple):
    """What every stage works with.

    Attributes:
      run, reporter, experiment: as everywhere.
      plain: the settings as nested dicts.
      begun: `time.monotonic()` of the start.
    """

    run: store.Run
    reporter: progress.Reporter
    experiment: experiments.Experiment
    plain: dict[str, Any]
    begun: float


@contextlib.contextmanager
def open_experiment(
    experiment: experiments.Experiment, chosen: settings.Settings, workdir: str, overwrite: tuple[str, ...],
    overrides: Mapping[str, Any],
) -> Iterator[OpenRun]:  # fmt: skip
    """Holds the run folder while the block runs, and records how it ends.

    Args:
      experiment: checked; its settings may be narrower than what was chosen.
      chosen: the settings as the user gave them, which run.json keeps.
      workdir: the run folder.
      overwrite: stages whose results are deleted first.
      overrides: settings of the command line.

    Raises:
      StoreError: cannot be written, or another process works in it. ConfigError: unknown stage.
    """
    plain = settings.to_dict(chosen)
    with store.open_run(workdir, overwrite, analyses.owned_outputs()) as run, store.status(run, plain, overrides):
        begun = time.monotonic()
        reporter = progress.Reporter(run.log)
        splits.tell(reporter, experiment)
        yield OpenRun(run, reporter, tuning.obtain(experiment, reporter), plain, begun)
