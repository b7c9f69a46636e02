"""Trains the shadow models of a config as one population and records their logits.

    python -m launch.shadows --config=configs/digits.py
    python -m launch.shadows --config=configs/cifar100.py --config.shadows.count=128 --workdir=runs/c100

If it is killed, the same command continues where it stopped and ends with the same numbers.
"""

import sys

from . import _entry


def command(request: _entry.CommandLine) -> None:
    """Plans, or trains and records, then prints the table."""
    from jaxunlearn import progress
    from jaxunlearn.runs.drivers import train_input

    progress.show(train_input.run("shadows", *request.of_run()))


if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or ""))
