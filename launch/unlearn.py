"""Unlearns by approximate methods, all forget sets at once, and records the logits as roles unlearned:METHOD.

    python -m launch.unlearn --list
    python -m launch.unlearn --config=configs/digits.py --methods=all
    python -m launch.unlearn --config=configs/digits.py --methods=ssd,salun --config.unlearn.options=ssd.alpha=5
    python -m launch.unlearn --config=configs/digits.py --methods=finetune --config.unlearn.sweep.lr=1e-4,1e-3,1e-2
    python -m launch.unlearn --config=configs/digits.py --methods=my_module:my_method
    python -m launch.audit --config=configs/digits.py --config.audit.unlearned=unlearned:ssd

Missing shadows, originals and exact retrains are trained first. Every method is one population: a member per forget set
(and value of a sweep). If it is killed, the same command continues where it stopped. --overwrite=unlearned deletes the
results of all methods, --overwrite=unlearned:ssd those of one.
"""

import dataclasses
import sys

from absl import flags

from jaxunlearn import errors
from jaxunlearn.settings import Settings

from . import _entry, _seeds


def define(values: flags.FlagValues) -> None:
    """Adds the verb's own flags."""
    flags.DEFINE_list("methods", [], "names from --list, my_module:my_method, or all (as unlearn.methods)",
                      flag_values=values)  # fmt: skip
    _seeds.define(values)
    flags.DEFINE_bool("list", False, "list the methods with their defaults; do nothing", flag_values=values)


def alone(values: flags.FlagValues) -> str:
    """Returns a run folder if no config is needed: --list."""
    return "list" if values["list"].value else ""


def change(request: _entry.CommandLine) -> Settings:
    """Returns the settings with the methods that were given as a flag."""
    flag = request.flags["methods"]
    if flag.present and not flag.value:
        raise errors.ConfigError("--methods= names no method. Give names from --list, separated by commas, or all.")
    methods = tuple(flag.value) or request.settings.unlearn.methods
    return dataclasses.replace(request.settings, unlearn=dataclasses.replace(request.settings.unlearn, methods=methods))


def command(request: _entry.CommandLine) -> None:
    """Lists, plans or unlearns, once or once per seed, then prints the table."""
    request = request._replace(settings=change(request))
    if request.flags["list"].value:
        from jaxunlearn import progress
        from jaxunlearn.runs.verbs import listing

        progress.show(listing.text(request.settings, with_data=request.flags["config"].value is not None))
    else:
        _seeds.run(request, request.settings, "unlearn", "unlearned.json", _single)


def _single(request: _entry.CommandLine) -> None:
    from jaxunlearn import progress
    from jaxunlearn.runs.drivers import train_input

    progress.show(train_input.run("unlearn", *request.of_run()))


if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or "", define=define, alone=alone, change=change))
