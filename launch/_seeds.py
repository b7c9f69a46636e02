"""--seeds=1,2,3: the whole command once per seed, then one table over seeds."""

import contextlib
import dataclasses
import io
from collections.abc import Callable
from typing import Any

from absl import flags

from jaxunlearn import errors, progress, settings

from . import _entry

LARGEST = 2**32 - 1


def define(values: flags.FlagValues) -> None:
    """Adds the flag."""
    flags.DEFINE_list("seeds", [], "with a config: run the command once per seed, in WORKDIR/seed_1 ..., then print a "
                      "table over seeds", flag_values=values)  # fmt: skip


def are_given(request: _entry.CommandLine) -> bool:
    """Returns whether the command is to be run for several seeds."""
    return "seeds" in request.flags and request.flags["seeds"].present


def run(
    request: _entry.CommandLine,
    run_settings: settings.Settings,
    verb: str,
    findings: str,
    single: Callable[[Any], None],
) -> None:
    """Runs a verb once, or once per seed of --seeds and prints the table over seeds; a dry run plans the first.

    Args:
      request: the command line.
      run_settings: its settings, with all flags.
      verb: name of the launcher.
      findings: the file of a run folder that holds the verb's numbers.
      single: runs one request without --seeds; its output is not printed, the report of its seed has it.

    Raises:
      ConfigError: seeds that are not a list of distinct seeds, or given together with a single seed or arrays.
    """
    if not are_given(request):
        single(request)
        return
    seeds = parse(request)

    def run_seed(seed: int, folder: str) -> None:
        single(request._replace(
            settings=dataclasses.replace(request.settings, seed=seed), workdir=folder,
            overrides={**request.overrides, "seed": seed},
        ))  # fmt: skip

    if request.dry_run or (verb == "audit" and run_settings.audit.plan_shadows):
        progress.show(f"{len(seeds)} seed(s), each as follows, in {request.workdir}/seed_{seeds[0]} ...\n")
        run_seed(seeds[0], f"{request.workdir}/seed_{seeds[0]}")
        return
    from jaxunlearn.runs.drivers import seeds as driver

    def run_silently(seed: int, folder: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            run_seed(seed, folder)

    decision = run_settings.audit.decision if verb == "audit" else ""
    command = driver.Command(verb, findings, run_silently, decision)
    progress.show(driver.run(command, seeds, run_settings, request.workdir, bool(request.overwrite)))


def parse(request: _entry.CommandLine) -> tuple[int, ...]:
    """Returns the seeds of a command line.

    Raises:
      ConfigError: see `run`.
    """
    words = request.flags["seeds"].value
    argument = f"--seeds={','.join(words)}"
    if request.flags["config"].value is None:
        raise errors.ConfigError("--seeds belongs to --config: arrays come from one seed.")
    if "seed" in request.overrides or ("seed" in request.flags and request.flags["seed"].present):
        raise errors.ConfigError("give --seed or --seeds, not both.")
    try:
        seeds = tuple(int(word) for word in words)
    except ValueError as error:
        raise errors.ConfigError(f"{argument}: expected whole numbers, separated by commas (1,2,3).") from error
    if not seeds:
        raise errors.ConfigError("--seeds= names no seed. Give some, separated by commas (1,2,3).")
    for seed in seeds:
        if not 0 <= seed <= LARGEST:
            raise errors.ConfigError(f"{argument}: {seed} is not a seed; seeds lie between 0 and {LARGEST}.")
        if seeds.count(seed) > 1:
            raise errors.ConfigError(
                f"{argument}: seed {seed} is given twice; the same models would count as independent."
            )
    return seeds
