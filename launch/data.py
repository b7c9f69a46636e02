"""Checks a data set: counts, shapes, class balance, repeated rows, a contact sheet; or explains how to get it.

    python -m launch.data --config=configs/digits.py
    python -m launch.data --config=configs/cifar100.py --import=cifar-100-binary.tar.gz    imports an official archive

Trains nothing and does not use the run folder, except that it writes the contact sheet there (--workdir).
"""

import sys

from absl import flags

from . import _entry


def define(values: flags.FlagValues) -> None:
    """Adds the verb's own flags."""
    flags.DEFINE_string("import", "", "an official CIFAR archive to read into the cache first", flag_values=values)


def command(request: _entry.CommandLine) -> None:
    """Imports an archive if one is given, then loads, checks and shows the data set."""
    from jaxunlearn import progress
    from jaxunlearn.runs import dataset

    settings = request.settings.data
    if request.dry_run:
        progress.show(f"would load {settings.name!r}; of pictures, draw {request.workdir}/report/contact_sheet.png")
        return
    if request.flags["import"].value:
        progress.show(f"imported into {dataset.import_archive(request.flags['import'].value, settings)}")
    facts, sheet = dataset.inspect(settings, request.workdir)
    progress.show(dataset.text(facts))
    if sheet:
        progress.show(f"\ncontact sheet: {sheet}")


if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or "", define=define))
