"""Trains the shadow population of a config and records its logits: the main job.

    python -m launch.shadows --config=configs/digits.py
    python -m launch.shadows --config=configs/cifar100.py --config.shadows.count=128 --workdir=runs/c100

Killed and started again with the same command, it continues where it stopped and ends with the same numbers.
"""

import sys

from . import _entry


def command(request: _entry.Request) -> None:
    """Plans, or trains and records, then prints the table."""
    from jaxunlearn import progress
    from jaxunlearn.runs import experiments, opening, splits
    from jaxunlearn.runs.drivers import plan
    from jaxunlearn.runs.verbs import shadows

    chosen = request.settings
    experiment = experiments.prepare(chosen)
    splits.check(experiment)
    if request.dry_run:
        progress.show(plan.text(plan.make(experiment)))
        return
    with opening.open_experiment(experiment, chosen, request.workdir, request.overwrite, request.overrides) as opened:
        summary = shadows.run(opened.run, opened.reporter, opened.experiment)
        progress.show(shadows.summary_text(summary))
        progress.show(f"\n{shadows.files_text(opened.run, chosen)}")


if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or ""))
