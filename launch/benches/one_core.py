"""Measures on one core: a bench's module runs as a separate process, pinned, with one thread for every library.

    rows = one_core.rows_of(__name__, "time", quick)      the module's last line is its rows as JSON
    if __name__ == "__main__": one_core.main({"time": time_rows}, QUICK, FULL)

Ratios of such rows are ratios of CPU time (`cpu_rates`), which equals wall time if the core is otherwise idle.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from .. import _entry
from . import timing
from .timing import Row, Variant

THREADS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}
# Flags of a quick run, which does not measure speed: its programs need not be fast, but compile quickly. (Devices other
# than CPUs ignore the second.)
QUICKLY_COMPILED = "--xla_backend_optimization_level=0 --xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"
Say = Callable[[str], None]


def rows_of(module: str, measurement: str, quick: bool) -> list[Row]:
    """Returns the rows of one measurement of a module, from a separate process on one core.

    Raises:
      RuntimeError: the process failed; its own message is on stderr.
    """
    command = [sys.executable, "-m", module, measurement, str(int(quick))]
    # A quick run does not measure times, so it may load its programs from the cache.
    overrides = (
        {"XLA_FLAGS": f"{THREADS['XLA_FLAGS']} {QUICKLY_COMPILED}"} if quick else {"JAX_COMPILATION_CACHE_DIR": ""}
    )
    environment = {**os.environ, **THREADS, **overrides}
    process = subprocess.run(command, cwd=_entry.HOME, env=environment, stdout=subprocess.PIPE, text=True)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with code {process.returncode}; see its message above.")
    return json.loads(process.stdout.splitlines()[-1])


def main(measurements: Mapping[str, Callable[[Any, Say], list[Row]]], quick: Any, full: Any) -> None:
    """Runs the process of `rows_of`: pins it before any library counts the cores, and prints the rows."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    sizes = quick if sys.argv[2] == "1" else full
    rows = measurements[sys.argv[1]](sizes, lambda line: print(f"  {line}", file=sys.stderr, flush=True))
    print(json.dumps(rows))


def variant(name: str, work: Callable[[], Any]) -> Variant:
    """Returns a variant that does the work once and waits for its end."""

    def call() -> float:
        import jax

        jax.block_until_ready(work())
        return 0.0

    return Variant(name, call, 1)


def cpu_rates(times: timing.Times) -> timing.Times:
    """Replaces rates by those per second of CPU time.

    Other load on this core interrupts long calls more than short ones, which would increase wall-time ratios.
    """
    return times._replace(rates=[1 / seconds for seconds in times.cpu_seconds])


def ratio(name: str, here: Callable[[], Any], plain: Callable[[], Any], target: float | None, rounds: int,
          round_seconds: float, **facts: Any) -> Row:  # fmt: skip
    """Builds a row with the speed of `here` relative to `plain`, which does the same work.

    Args:
      name: of the comparison.
      here: the work as done by jaxunlearn.
      plain: the same work in NumPy.
      target: the ratio must reach it; None = no target.
      rounds: number of rounds.
      round_seconds: length of a variant's turn in a round.
      **facts: further entries of the row.
    """
    ways = {"here": variant("jaxunlearn", here), "plain": variant("NumPy", plain)}
    times = timing.interleave(ways, rounds, round_seconds, lambda line: None)
    row = timing.ratio_row(name, cpu_rates(times["here"]), cpu_rates(times["plain"]), target, **facts)
    # Seconds per call are more useful here than calls per second.
    return {key: value for key, value in row.items() if "rate" not in key and "cpu" not in key}


def seconds(name: str, work: Callable[[], Any], target: float | None, rounds: int, round_seconds: float,
            **facts: Any) -> Row:  # fmt: skip
    """Builds a row with the seconds of the work, warm.

    Args:
      name: of the measurement.
      work: does it once.
      target: bound of the seconds; None = no target.
      rounds: number of rounds.
      round_seconds: length of a turn.
      **facts: further entries of the row.
    """
    times = timing.interleave({"all": variant("all", work)}, rounds, round_seconds, lambda line: None)
    return timing.value_row(name, [1 / rate for rate in times["all"].rates], "s", target=target, **facts)
