"""Trains originals, exact retrains and what an audit needs beside them, and records their logits.

    python -m launch.targets --config=configs/digits.py
    python -m launch.targets --config=configs/digits.py --config.split.forget.count=5 --config.targets.snapshots=0
    python -m launch.targets --config=configs/cifar100.py --workdir=runs/c100 --dry_run
    python -m launch.targets --config=configs/digits.py --overwrite=retrained

The shadow population is trained first where it is missing. Roles (settings targets.*): original, retrained,
population_in, shadow_origin, reference, snapshots; each is a folder of populations/, a file of logits/ and a stage for
--overwrite (targets = all of them). Killed and started again with the same command, it continues where it stopped and
ends with the same numbers.
"""

import sys

from . import _entry


def command(request: _entry.Request) -> None:
    """Plans, or trains and records, then prints the table."""
    from jaxunlearn import progress
    from jaxunlearn.runs import experiments, opening
    from jaxunlearn.runs.drivers import plan
    from jaxunlearn.runs.roles import audited
    from jaxunlearn.runs.verbs import targets

    chosen = request.settings
    experiment = experiments.prepare(chosen)
    audited.check(experiment)
    if request.dry_run:
        progress.show(plan.text(plan.make(experiment, audited.NAMES)))
        return
    with opening.open_experiment(experiment, chosen, request.workdir, request.overwrite, request.overrides) as opened:
        summary = targets.run(opened.run, opened.reporter, opened.experiment)
        progress.show(targets.text(summary))
        progress.show(f"\n{targets.files_text(opened.run, chosen)}")


if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or ""))
