"""Unlearning ten forget sets as one population, against one at a time: whole processes, and calls in a warm process.

The digits study (10 forget sets of 50, the small CNN). Whole processes: `launch.unlearn` as a user starts it, once for
ten forget sets and ten times for one, with shadows, originals and retrains trained beforehand and a compilation cache
that knows the programs. Warm: compiled epochs called again and again, for ten members at once or one by one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxunlearn import errors, keys, population, progress, settings, unlearn
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
    """Rows of both comparisons for the gradient methods; quick: one method, one short round.

    Raises:
      DeviceError: not on a CPU.
    """
    if jax.default_backend() != "cpu":
        raise errors.DeviceError("bench 'unlearn' compares programs on the CPU. Run it again with JAX_PLATFORMS=cpu.")
    say = progress.Reporter().say
    if _entry.cores() != 2:
        say(f"targets are for 2 cores; this machine offers {_entry.cores()}")
    methods = [name for name in METHODS if name in unlearn.METHODS][: 1 if quick else None]
    return process_rows(methods, quick, say) + [row for name in methods for row in warm_rows(name, quick, say)]


def process_rows(methods: list[str], quick: bool, say: Say) -> list[Row]:
    """Whole processes: one command for ten forget sets against ten commands for one."""
    rows = []
    rounds = 1 if quick else 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
        for count in (SETS, 1):
            say(f"training the original and retrains of {count} forget set(s)")
            command(folder / f"base_{count}", count, "finetune", environment)
        for method in methods:
            ratios, one, ten = [], [], []
            for number in range(rounds + 1):
                say(f"{method}: whole processes, round {number} of {rounds}" + (" (fills the cache)" * (not number)))
                together = timed(folder, SETS, method, environment)
                separate = sum(timed(folder, 1, method, environment) for _ in range(SETS if number else 1))
                if number:
                    one, ten, ratios = [*one, together], [*ten, separate], [*ratios, separate / together]
            middle = sorted(ratios)[len(ratios) // 2]
            row: Row = {
                "name": f"{method}: {SETS} forget sets in one command, against {SETS} commands",
                "ratio": middle, "low": min(ratios), "high": max(ratios), "rounds": rounds,
                "seconds": float(np.median(one)), "baseline_seconds": float(np.median(ten)), "case": "digits",
            }  # fmt: skip
            rows.append(timing.with_target(row, middle, ">=", None if quick else PROCESSES))
    return rows


def timed(folder: Path, count: int, method: str, environment: dict[str, str]) -> float:
    """Seconds of one command on a fresh copy of a folder whose originals and retrains are trained."""
    work = folder / "work"
    shutil.copytree(folder / f"base_{count}", work)
    for place in ("populations", "logits"):
        for path in (work / place).glob("unlearned:*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    begun = time.perf_counter()
    command(work, count, method, environment)
    seconds = time.perf_counter() - begun
    shutil.rmtree(work)
    return seconds


def command(workdir: Path, count: int, method: str, environment: dict[str, str]) -> None:
    """`launch.unlearn` as a user starts it."""
    line = [
        sys.executable, "-m", f"{_entry.PACKAGE}.unlearn", "--config=digits", f"--methods={method}",
        "--config.shadows.count=2", "--config.targets.snapshots=0", f"--config.split.forget.count={count}",
        f"--workdir={workdir}",
    ]  # fmt: skip
    done = subprocess.run(line, cwd=_entry.HOME, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(line)} failed:\n{done.stderr}")


def warm_rows(method: str, quick: bool, say: Say) -> list[Row]:
    """Compiled programs only: an epoch of ten members against ten calls of the program of one."""
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
    """Training epochs of all ten forget sets, `members` at a time, by a program compiled once."""
    prepared = [_setup(method, np.arange(first, first + members)) for first in range(0, SETS, members)]
    index = next(i for i, (phase, _) in enumerate(running.phases(prepared[0])) if phase.gradient_steps)
    jobs = []
    for one in prepared:
        # The start of the first training phase, estimates included, is made once: the epochs are what is timed.
        event = next(running.run(one))
        point = event.checkpoint()
        jobs.append(running.job_of(one, index, _initial(one, index), point["memory"], point["estimates"]))
    # The carry of a population that begins is given: making it would compile a program in every call.
    carries = [
        training.Carry(job.initial, np.full(len(one.member_ids), running.NOT_DIVERGED, np.int32))
        for job, one in zip(jobs, prepared, strict=True)
    ]
    member_mapping = prepared[0].mapping
    program = training.compile_epoch(jobs[0], prepared[0].data, member_mapping)
    epochs = running.phases(prepared[0])[index][0].epochs
    steps = sum(
        population.model_steps(np.asarray(next(iter(job.streams.values())).num_rows), next(iter(job.batches.values())))
        for job in jobs
    )

    def call() -> float:
        for job, one, carry in zip(jobs, prepared, carries, strict=True):
            for report in population.train(job, one.data, epochs, member_mapping, program=program, carry=carry):
                jax.block_until_ready(report.carry)
        return 0.0

    return Variant(f"{members} at a time", call, float(steps * epochs))


def _initial(one: running.UnlearningJob, index: int) -> population.State:
    """The state before the first step of a phase that starts from the original."""
    variables: dict[str, Any] = dict(one.originals)
    params = variables.pop("params")
    phase = running.phases(one)[index][0]
    optimizer = jax.vmap(phase.transform.init)(params)
    return jax.tree.map(np.asarray, population.State(params, variables, optimizer))


def _setup(method: str, sets: np.ndarray) -> running.UnlearningJob:
    """The digits study's forget sets `sets` with random originals: speed does not depend on the weights."""
    config = settings.defaults()
    config.train.learning_rate = 0.05
    chosen = settings.resolve(config)
    bench = experiments.prepare(chosen)
    split = splits.draw(bench.dataset, chosen.split, chosen.seed)
    entry = unlearn.lookup(method)
    hyper = unlearn.hyperparameters(entry, "digits")
    target, forget = np.asarray(split.target), np.asarray(split.forget)
    variables = jax.vmap(lambda key: bench.task.init(key))(jax.vmap(lambda i: keys.at(keys.root(0), i))(sets))
    network = experiments.build_network(chosen, bench.dataset, bench.mapping_policy.conv)
    return running.UnlearningJob(
        network, experiments.device_dataset(bench), registry.bind_hyperparameters(entry, hyper), {},
        jax.tree.map(np.asarray, population.variables(variables)), [np.flatnonzero(forget[r]) for r in sets],
        [target[~forget[r][target]] for r in sets], np.asarray(split.population), sets.astype(np.int32),
        np.zeros(len(sets), np.int32), keys.root(1), experiments.member_mapping(bench, len(sets)), "frozen",
        chosen.train.batch,
    )  # fmt: skip
