"""Unlearning ten forget sets as one population, against one at a time: whole processes, and calls in a warm process.

The digits study (10 forget sets of 50, the small CNN). Whole processes: `launch.unlearn` as a user starts it, once for
ten forget sets and ten times for one, with shadows, originals and retrains trained before and a filled compilation
cache. Warm: repeated calls of compiled epochs, for ten members at once or one by one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from jaxunlearn import errors, keys, population, progress, settings, trees, unlearn
from jaxunlearn.data.splitting import splits
from jaxunlearn.population import training
from jaxunlearn.runs import experiments
from jaxunlearn.unlearn import registry
from jaxunlearn.unlearn.engine import running

from .. import _entry
from . import timing
from .timing import Row, Times, Variant

SETS = 10
METHODS = ("finetune", "scrub", "salun")
PROCESSES, WARM = 4.0, 1.5
Say = Callable[[str], None]


def run(quick: bool = False) -> list[Row]:
    """Measures both comparisons for the gradient methods; quick: one method, one short round.

    Raises:
      DeviceError: not on a CPU.
    """
    if jax.default_backend() != "cpu":
        raise errors.DeviceError("bench 'unlearn' compares programs on the CPU. Run it again with JAX_PLATFORMS=cpu.")
    say = progress.Reporter().log
    if _entry.cores() != 2:
        say(f"targets are for 2 cores; this machine offers {_entry.cores()}")
    methods = [name for name in METHODS if name in unlearn.METHODS][: 1 if quick else None]
    return process_rows(methods, quick, say) + [row for name in methods for row in warm_rows(name, quick, say)]


def process_rows(methods: list[str], quick: bool, say: Say) -> list[Row]:
    """Times whole processes: one command for ten forget sets against ten commands for one."""
    rows = []
    rounds = 1 if quick else 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
        for count in (SETS, 1):
            say(f"training the original and retrains of {count} forget set(s)")
            command(folder / f"base_{count}", count, "finetune", environment)
        for method in methods:
            ratios, together_seconds, separate_seconds = [], [], []
            for number in range(rounds + 1):
                say(f"{method}: whole processes, round {number} of {rounds}" + (" (fills the cache)" * (not number)))
                together = timed(folder, SETS, method, environment)
                separate = sum(timed(folder, 1, method, environment) for _ in range(SETS if number else 1))
                if number:
                    together_seconds.append(together)
                    separate_seconds.append(separate)
                    ratios.append(separate / together)
            median = sorted(ratios)[len(ratios) // 2]
            row: Row = {
                "name": f"{method}: {SETS} forget sets in one command, against {SETS} commands",
                "ratio": median, "low": min(ratios), "high": max(ratios), "rounds": rounds,
                "seconds": float(np.median(together_seconds)), "baseline_seconds": float(np.median(separate_seconds)),
                "case": "digits",
            }  # fmt: skip
            rows.append(timing.with_target(row, median, ">=", None if quick else PROCESSES))
    return rows


def timed(folder: Path, count: int, method: str, environment: dict[str, str]) -> float:
    """Returns the seconds of one command on a fresh copy of a folder with trained originals and retrains.

    Args:
      folder: holds base_COUNT.
      count: number of forget sets.
      method: of unlearning.
      environment: variables of the process.
    """
    work = folder / "work"
    shutil.copytree(folder / f"base_{count}", work)
    for subfolder in ("populations", "logits"):
        for path in (work / subfolder).glob("unlearned:*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    start = time.perf_counter()
    command(work, count, method, environment)
    seconds = time.perf_counter() - start
    shutil.rmtree(work)
    return seconds


def command(workdir: Path, count: int, method: str, environment: dict[str, str]) -> None:
    """Runs `launch.unlearn` as a user does.

    Args:
      workdir: the run folder.
      count: number of forget sets.
      method: of unlearning.
      environment: variables of the process.
    """
    words = [
        sys.executable, "-m", f"{_entry.PACKAGE}.unlearn", "--config=digits", f"--methods={method}",
        "--config.shadows.count=2", "--config.targets.snapshots=0", f"--config.split.forget.count={count}",
        f"--workdir={workdir}",
    ]  # fmt: skip
    process = subprocess.run(words, cwd=_entry.HOME, env={**os.environ, **environment}, capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{process.stderr}")


def warm_rows(method: str, quick: bool, say: Say) -> list[Row]:
    """Times compiled programs only: an epoch of ten members against ten calls of the program of one."""
    say(f"{method}: compiling the programs of {SETS} members and of 1")
    variants = {"together": _variant(method, SETS), "apart": _variant(method, 1)}
    times: dict[str, Times] = timing.interleave(variants, 1 if quick else 7, 0.2 if quick else 2.0, say)
    return [
        timing.ratio_row(
            f"{method}: {SETS} forget sets in one call, against {SETS} warm calls", times["together"], times["apart"],
            None if quick else WARM, case="digits", members=SETS,
        )
    ]  # fmt: skip


def _variant(method: str, members: int) -> Variant:
    """Builds training epochs of all ten forget sets, `members` at a time, by a program compiled once."""
    unlearning_jobs = [_job(method, np.arange(first, first + members)) for first in range(0, SETS, members)]
    index = next(i for i, (phase, _) in enumerate(running.phases(unlearning_jobs[0])) if phase.gradient_steps)
    jobs = []
    for unlearning_job in unlearning_jobs:
        # The start of the first training phase, with estimates, is computed once: only epochs are timed.
        event = next(running.run(unlearning_job))
        point = event.checkpoint()
        initial = _initial(unlearning_job, index)
        jobs.append(running.job_of(unlearning_job, index, initial, point["memory"], point["estimates"]))
    # The initial carry is passed in: computing it would compile a program in every call.
    carries = [
        training.Carry(job.initial, np.full(len(unlearning_job.member_ids), running.NOT_DIVERGED, np.int32))
        for job, unlearning_job in zip(jobs, unlearning_jobs, strict=True)
    ]
    member_mapping = unlearning_jobs[0].mapping
    program = training.compile_epoch(jobs[0], unlearning_jobs[0].data, member_mapping)
    epochs = running.phases(unlearning_jobs[0])[index][0].epochs
    steps = sum(
        population.model_steps(np.asarray(next(iter(job.streams.values())).num_rows), next(iter(job.batches.values())))
        for job in jobs
    )

    def call() -> float:
        for job, unlearning_job, carry in zip(jobs, unlearning_jobs, carries, strict=True):
            data = unlearning_job.data
            for report in population.train(job, data, epochs, member_mapping, program=program, carry=carry):
                jax.block_until_ready(report.carry)
        return 0.0

    return Variant(f"{members} at a time", call, float(steps * epochs))


def _initial(job: running.UnlearningJob, index: int) -> population.State:
    """Returns the state before the first step of a phase that starts from the original."""
    params, model_state = trees.split_variables(job.originals)
    phase = running.phases(job)[index][0]
    optimizer = jax.vmap(phase.transform.init)(params)
    return jax.tree.map(np.asarray, population.State(params, model_state, optimizer))


def _job(method: str, sets: np.ndarray) -> running.UnlearningJob:
    """Builds the job of the digits study's `sets` with random originals: speed does not depend on the weights."""
    config = settings.defaults()
    config.train.learning_rate = 0.05
    run_settings = settings.resolve(config)
    experiment = experiments.prepare(run_settings)
    split = splits.draw(experiment.dataset, run_settings.split, run_settings.seed)
    entry = unlearn.lookup(method)
    hyper = unlearn.hyperparameters(entry, "digits")
    target, forget = np.asarray(split.target), np.asarray(split.forget)
    variables = jax.vmap(lambda key: experiment.task.init(key))(jax.vmap(lambda i: keys.at(keys.root(0), i))(sets))
    network = experiments.build_network(run_settings, experiment.dataset, experiment.mapping_policy.conv)
    return running.UnlearningJob(
        network, experiments.device_dataset(experiment), registry.bind_hyperparameters(entry, hyper), {},
        jax.tree.map(np.asarray, population.variables(variables)), [np.flatnonzero(forget[r]) for r in sets],
        [target[~forget[r][target]] for r in sets], np.asarray(split.population), sets.astype(np.int32),
        np.zeros(len(sets), np.int32), keys.root(1), experiments.member_mapping(experiment, len(sets)), "frozen",
        run_settings.train.batch,
    )  # fmt: skip
