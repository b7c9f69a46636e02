"""Trains originals, exact retrains and the other models that an audit needs, and records their logits.

    python -m launch.targets --config=configs/digits.py
    python -m launch.targets --config=configs/digits.py --config.split.forget.count=5 --config.targets.snapshots=0
    python -m launch.targets --config=configs/cifar100.py --workdir=runs/c100 --dry_run
    python -m launch.targets --config=configs/digits.py --overwrite=retrained

The shadow population is trained first if it is missing. Roles (settings targets.*): original, retrained, population_in,
shadow_origin, reference, snapshots; each has a folder in populations/, a file in logits/ and a stage for --overwrite
(targets = all of them). If it is killed, the same command continues where it stopped and ends with the same numbers.
"""

import sys

from . import _entry


def command(request: _entry.CommandLine) -> None:
    """Plans, or trains and records, then prints the table."""
    from jaxunlearn import progress
    from jaxunlearn.runs.drivers import train_input

    progress.show(train_input.run("targets", *request.of_run()))


if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or ""))
