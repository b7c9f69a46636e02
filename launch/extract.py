"""Copies the models of a run from their answers alone, without any of their data (data-free model extraction, DFME).

    python -m launch.extract --config=configs/our_digits.py
    python -m launch.extract --config=configs/our_digits.py --dry_run
    python -m launch.extract --config=configs/our_digits.py --config.extract.roles=original,unlearned:ssd
    python -m launch.reminisce --config=configs/our_digits.py --target=extracted

A generator makes up inputs on which model and copy disagree most; the copy learns the model's answers on them. Models
that are missing are trained first, finished ones and their clones are reused; how many queries each model is asked is
said before anything is trained (extract.budget). Killed and started again with the same command, it continues where it
stopped. Prints how often clones give their model's class, and writes extract.json and the roles extracted:ROLE.
--overwrite=extracted deletes all clones, --overwrite=extracted:ROLE those of one role.
"""

import sys

from . import _entry


def command(request: _entry.Request) -> None:
    """Plans or extracts, then prints the table."""
    from jaxunlearn import progress
    from jaxunlearn.runs.drivers import extract_input

    progress.show(extract_input.run(
        request.settings, request.workdir, request.overwrite, request.dry_run, request.overrides
    ))  # fmt: skip


if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or ""))
