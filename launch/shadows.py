"""Trains the shadow population of a config and records its logits: the main job.

    python -m launch.shadows --config=configs/digits.py
    python -m launch.shadows --config=configs/cifar100.py --config.shadows.count=128 --workdir=runs/c100

Killed and started again with the same command, it continues where it stopped and ends with the same numbers.
"""

import sys

from launch import _entry


def command(request: _entry.Request) -> None:
    """Plans, or trains and records, then prints the table."""
    from jaxunlearn import progress, settings, store
    from jaxunlearn.runs import plan, shadows, splits, tuning, workbench

    if request.dry_run:
        progress.show(plan.text(plan.make(request.settings)))
        return
    bench = workbench.prepare(request.settings)
    splits.check(bench)
    plain = settings.to_dict(request.settings)
    with store.open_run(request.workdir, request.overwrite) as run, store.status(run, plain, request.overrides):
        reporter = progress.Reporter(run.log)
        splits.tell(reporter, bench)
        summary = shadows.run(run, reporter, tuning.obtain(bench, reporter))
        progress.show(shadows.summary_text(summary))
        progress.show(f"\n{shadows.files_text(run, request.settings)}")


if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or ""))
