"""Copies the models of a run from their outputs alone, without their data (data-free model extraction, DFME).

    python -m launch.extract --config=configs/our_digits.py
    python -m launch.extract --config=configs/our_digits.py --dry_run
    python -m launch.extract --config=configs/our_digits.py --config.extract.roles=original,unlearned:ssd
    python -m launch.reminisce --config=configs/our_digits.py --target=extracted

A generator makes inputs on which model and copy disagree most; the copy learns the model's outputs on them. Missing
models are trained first; finished models and their copies are reused. The number of queries per model is printed before
anything is trained (extract.budget). If it is killed, the same command continues where it stopped. Prints how often
copies predict their model's class, and writes extract.json and the roles extracted:ROLE. --overwrite=extracted deletes
all copies, --overwrite=extracted:ROLE those of one role.
"""

import sys

from . import _entry


def command(request: _entry.CommandLine) -> None:
    """Plans or extracts, then prints the table."""
    from jaxunlearn import progress
    from jaxunlearn.runs.drivers import extract_input

    progress.show(extract_input.run(*request.of_run()))


if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or ""))
