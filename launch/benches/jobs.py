"""Whole jobs in separate processes: the digits study from start to end, and populations of several sizes.

    python -m launch.benches.jobs 64 5        one size: 64 members, 5 rounds; prints one JSON object

A fresh process per size gives a cold compilation and a peak memory without other work.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import _entry
from .timing import Row, value_row

STUDY_SECONDS = 20.0
_BYTES_PER_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
Say = Callable[[str], None]


def study_rows(quick: bool, say: Say) -> list[Row]:
    """Times the digits study (64 shadows x 10 epochs; quick: 8 x 2), process start to end, without and with a cache."""
    count, epochs, rounds = (8, 2, 1) if quick else (64, 10, 3)
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for state in seconds:
                say(f"digits study, {count} shadows x {epochs} epochs, {state} cache, round {number + 1} of {rounds}")
                seconds[state].append(_study(Path(folder), state, count, epochs))
    return [
        value_row(
            f"digits study, {count} shadows x {epochs} epochs, process start to end, {state} compilation cache",
            taken,
            "s",
            target=None if quick else STUDY_SECONDS,
            goal="C8",
            case="digits",
            members=count,
        )  # fmt: skip
        for state, taken in seconds.items()
    ]


def _study(folder: Path, name: str, count: int, epochs: int) -> float:
    """Returns the seconds of one run of the launcher as a user starts it."""
    command = [
        sys.executable, "-m", f"{_entry.PACKAGE}.shadows", "--config=digits", f"--config.shadows.count={count}",
        f"--config.train.epochs={epochs}", f"--workdir={folder / name}",
    ]  # fmt: skip
    start = time.perf_counter()
    _call(command, {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")})
    seconds = time.perf_counter() - start
    if not (folder / name / "logits" / "shadow.npy").is_file():
        raise RuntimeError("the study ended without logits on disk")
    return seconds


def size_rows(quick: bool, say: Say) -> list[Row]:
    """Measures rate, compile time and memory of digits populations of several sizes, each in a fresh process."""
    rows = []
    for members in (8,) if quick else (1, 8, 64, 128):
        say(f"digits population of {members} in a process of its own")
        command = [sys.executable, "-m", __name__, str(members), "2" if quick else "5"]
        facts = json.loads(_call(command, {"JAX_COMPILATION_CACHE_DIR": ""}).splitlines()[-1])
        name = f"digits CNN, N = {members}: rate in a fresh process"
        rates = facts.pop("rates")
        rows.append(value_row(name, rates, "model-steps/s", case="digits", members=members, **facts))
    return rows


def _call(command: list[str], environment: dict[str, str]) -> str:
    """Runs a command in the checkout and returns its stdout.

    Raises:
      RuntimeError: it failed; the message holds its stderr.
    """
    environment = {**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **environment}
    process = subprocess.run(command, cwd=_entry.HOME, env=environment, capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with code {process.returncode}:\n{process.stderr}")
    return process.stdout


def measure(members: int, rounds: int) -> dict[str, Any]:
    """Measures one size in this process: rates per round, compile seconds, bytes of the program, peak memory."""
    from . import programs, timing

    engine = programs.engine(programs.build(programs.CASES["digits"], members), members)

    def call() -> float:
        next(engine.epochs)
        return 0.0

    variant = timing.Variant("jaxunlearn", call, engine.model_steps)
    times = timing.interleave({"engine": variant}, rounds, 0.5, lambda line: None)
    return {
        "rates": times["engine"].rates,
        "compile_seconds": engine.compile_seconds,
        "program_bytes": programs.program_bytes(engine),
        "peak_process_bytes": _peak_bytes(),
    }


def _peak_bytes() -> int:
    """Returns the largest resident memory of this process so far.

    On Linux `ru_maxrss` is inherited from the parent process, so /proc is read first.
    """
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.is_file() else []:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES_PER_RSS_UNIT


if __name__ == "__main__":
    _entry.prepare_process()
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
