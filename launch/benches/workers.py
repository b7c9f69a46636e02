"""The driver of `launch.benches.torch_ways`: starts the PyTorch processes, gives them a case, and requests epochs.

    with workers.started(2) as pool:
        workers.load(pool, case)
        losses, cpu_seconds = workers.run(pool[:1], "memory", threads=1, members=16)

Nothing here imports PyTorch: in one process with JAX, each library's threads would slow the other's.
"""

import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import _entry

_PATIENCE_SECONDS = 10.0
Worker = subprocess.Popen


def installed() -> bool:
    """Returns whether PyTorch is installed, without importing it."""
    return importlib.util.find_spec("torch") is not None


@contextlib.contextmanager
def started(count: int) -> Iterator[list[Worker]]:
    """Starts `count` PyTorch processes, and ends them on exit."""
    command = [sys.executable, "-m", f"{__package__}.torch_ways"]
    pool = [
        subprocess.Popen(command, cwd=_entry.HOME, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        yield pool
    finally:
        for worker in pool:
            with contextlib.suppress(OSError):
                worker.stdin.close()
        for worker in pool:
            try:
                worker.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            worker.stdout.close()


def load(pool: list[Worker], case: Mapping[str, np.ndarray]) -> str:
    """Gives every worker its share of the members of a case; returns PyTorch's version.

    Args:
      pool: the workers; with more than one, worker i gets every len(pool)-th member from i on.
      case: inputs [N, ...], labels [N], order [M, steps, B], learning_rate, momentum, weight_decay, and the flax
        parameters [M, ...] as `Dense_0/kernel` ...
    """
    shared = ("inputs", "labels", "learning_rate", "momentum", "weight_decay")
    version = ""
    with tempfile.TemporaryDirectory() as folder:
        for i, worker in enumerate(pool):
            share = {name: value if name in shared else value[i :: len(pool)] for name, value in case.items()}
            path = Path(folder) / f"worker_{i}.npz"
            np.savez(path, **share)
            _send(worker, do="load", path=str(path))
            version = _receive(worker)["torch"]
    return version


def run(pool: list[Worker], way: str, threads: int, members: int) -> tuple[list[list[float]], float]:
    """Trains one epoch of `members` members per worker, in all workers at the same time.

    Args:
      pool: the workers.
      way: of training: loader, memory, or func.
      threads: of each worker.
      members: trained by each worker.

    Returns:
      Losses per member and step, in the order of `pool`, and the CPU seconds of all workers.
    """
    for worker in pool:
        _send(worker, do="run", way=way, threads=threads, members=members)
    answers = [_receive(worker) for worker in pool]
    return [losses for answer in answers for losses in answer["losses"]], sum(
        answer["cpu_seconds"] for answer in answers
    )


def _send(worker: Worker, **request: Any) -> None:
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(request) + "\n")
    worker.stdin.flush()


def _receive(worker: Worker) -> dict[str, Any]:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError(f"the PyTorch process ended with code {worker.wait()}; see its message above.")
    return json.loads(line)
