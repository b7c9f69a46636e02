"""Trains the shadow models of a config as one population and records their logits.

    python -m launch.shadows --config=configs/digits.py
    python -m launch.shadows --config=configs/cifar100.py --config.shadows.count=128 --workdir=runs/c100

If it is killed, the same command continues where it stopped and ends with the same numbers.
"""

import sys

from . import _entry


def command(request: _entry.Request) -> None:
    """Plans, or trains and records, then prints the table."""
    from jaxunlearn import progress
    from jaxunlearn.runs import experiments, opening, splits
    from jaxunlearn.runs.drivers import plan
    from jaxunlearn.runs.verbs import shadows

    run_settings = request.settings
    experiment = experiments.prepare(run_settings)
    splits.check(experiment)
    if request.dry_run:
        progress.show(plan.text(plan.make(experiment)))
        return
    with opening.open_experiment(
        experiment, run_settings, request.workdir, request.overwrite, request.overrides
    ) as opened:
        summary = shadows.run(opened.run_folder, opened.reporter, opened.experiment)
        progress.show(shadows.summary_text(summary))
        progress.show(f"\n{shadows.files_text(opened.run_folder, run_settings)}")


if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or ""))
