"""Measuring on one core: a bench's module is started as a process of its own, pinned, one thread for every library.

    rows = one_core.measured(__name__, "time", quick)      the module's last line is its rows as JSON
    if __name__ == "__main__": one_core.main({"time": time_rows}, QUICK, FULL)

Ratios of such rows are those of CPU time (`cpu_rates`), which is wall time where the core is otherwise idle.
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
# Flags of a quick look: it says nothing about speed, so its programs need not be fast, only soon there. (Other devices
# than CPUs pass over the second.)
QUICKLY_COMPILED = "--xla_backend_optimization_level=0 --xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"
Say = Callable[[str], None]


def measured(module: str, part: str, quick: bool) -> list[Row]:
    """Rows of one part of a module, from a process of its own on one core.

    Raises:
      RuntimeError: the process failed; its own message stands on stderr.
    """
    command = [sys.executable, "-m", module, part, str(int(quick))]
    # A quick look says nothing about times, so it may find its programs in the cache.
    own = {"XLA_FLAGS": f"{THREADS['XLA_FLAGS']} {QUICKLY_COMPILED}"} if quick else {"JAX_COMPILATION_CACHE_DIR": ""}
    environment = {**os.environ, **THREADS, **own}
    done = subprocess.run(command, cwd=_entry.HOME, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with code {done.returncode}; its own message stands above.")
    return json.loads(done.stdout.splitlines()[-1])


def main(parts: Mapping[str, Callable[[Any, Say], list[Row]]], quick: Any, full: Any) -> None:
    """The other end of `measured`: pins this process, before any library counts the cores, and prints the rows."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    sizes = quick if sys.argv[2] == "1" else full
    rows = parts[sys.argv[1]](sizes, lambda line: print(f"  {line}", file=sys.stderr, flush=True))
    print(json.dumps(rows))


def variant(name: str, work: Callable[[], Any]) -> Variant:
    """A way to do the work once, waited for."""

    def call() -> float:
        import jax

        jax.block_until_ready(work())
        return 0.0

    return Variant(name, call, 1)


def cpu_rates(times: timing.Times) -> timing.Times:
    """Rates per second of CPU time.

    A neighbour on this one core takes turns with long calls and leaves short ones alone: wall-time ratios grow then.
    """
    return times._replace(rates=[1 / seconds for seconds in times.cpu_seconds])


def ratio(name: str, here: Callable[[], Any], plain: Callable[[], Any], target: float | None, rounds: int,
          round_seconds: float, **facts: Any) -> Row:  # fmt: skip
    """A row that says how many times as fast `here` is as `plain`, which does the same work."""
    ways = {"here": variant("jaxunlearn", here), "plain": variant("NumPy", plain)}
    times = timing.interleave(ways, rounds, round_seconds, lambda line: None)
    row = timing.ratio_row(name, cpu_rates(times["here"]), cpu_rates(times["plain"]), target, **facts)
    # Seconds per call say more than calls per second here.
    return {key: value for key, value in row.items() if "rate" not in key and "cpu" not in key}


def seconds(name: str, work: Callable[[], Any], target: float | None, rounds: int, round_seconds: float,
            **facts: Any) -> Row:  # fmt: skip
    """A row that says how many seconds the work takes, warm."""
    times = timing.interleave({"all": variant("all", work)}, rounds, round_seconds, lambda line: None)
    return timing.value_row(name, [1 / rate for rate in times["all"].rates], "s", target=target, **facts)
