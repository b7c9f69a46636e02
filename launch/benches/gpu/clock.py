"""Timed windows, and which kernels the time goes to."""

import collections
import glob
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Pace(NamedTuple):
    """How long to look: timed windows of about `seconds` each, after warm-up."""

    windows: int = 5
    seconds: float = 0.3


FULL, QUICK = Pace(), Pace(5, 0.005)
_MOST_CALLS = 1000
# Kinds of kernels by parts of their names; the first that fits counts.
KINDS = (
    ("copy", ("memcpy", "memset")),
    ("convolution", ("conv", "wgrad", "dgrad", "fprop", "cudnn", "xmma", "implicit_gemm")),
    ("matrix product", ("gemm", "cutlass", "dot")),
    ("reduction", ("reduce",)),
    ("sort", ("sort",)),
)


def windows(call: Callable[[], Any], pace: Pace, wait: Callable[[Any], Any]) -> list[float]:
    """Seconds per call in each of several windows.

    Calls within a window are not waited for one by one, as in training, where one step follows another.

    Args:
      call: starts the work and returns something to wait for.
      pace: number and length of the windows.
      wait: waits for what the last call returned.
    """
    wait(call())
    begun = time.perf_counter()
    wait(call())
    once = time.perf_counter() - begun
    repeats = max(1, min(round(pace.seconds / max(once, 1e-9)), _MOST_CALLS))
    seconds = []
    for _ in range(pace.windows):
        begun = time.perf_counter()
        for _ in range(repeats):
            result = call()
        wait(result)
        seconds.append((time.perf_counter() - begun) / repeats)
    return seconds


def value_row(name: str, values: list[float], unit: str, **facts: Any) -> dict[str, Any]:
    """A row: median of the windows, smallest and largest."""
    spread = {"low": min(values), "high": max(values), "rounds": len(values)}
    return {"name": name, "value": statistics.median(values), "unit": unit, **spread, **facts}


def kind_of(kernel: str) -> str:
    """The kind of a kernel, from its name."""
    lowered = kernel.lower()
    return next((kind for kind, parts in KINDS if any(part in lowered for part in parts)), "element-wise")


def profile(call: Callable[[], Any], wait: Callable[[Any], Any], steps: int, most: int = 12) -> dict[str, Any]:
    """Where a GPU spends its time during one call, from JAX's profiler; {} where it names no GPU.

    Args:
      call: the work, warm.
      wait: waits for its result.
      steps: training steps in one call, for the number of kernels per step.
      most: kernels to name.

    Returns:
      `busy`: share of the wall time in which a kernel ran; `kernels_run`: kernels per step; `kinds`: kind -> share of
      the kernels' time; `top`: [name, share of the kernels' time, times per step] of the longest.
    """
    import jax

    with tempfile.TemporaryDirectory() as folder:
        try:
            with jax.profiler.trace(folder):
                begun = time.perf_counter()
                wait(call())
                wall = time.perf_counter() - begun
            events = [event for path in glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
                      for event in _kernels(jax.profiler.ProfileData.from_file(path))]  # fmt: skip
        except Exception as error:  # noqa: BLE001 - a profiler that does not work here must not cost the measurement
            return {"profile": f"none: {type(error).__name__}: {str(error)[:200]}"}
    return summary(events, wall, steps, most)


def _kernels(data: Any) -> list[tuple[str, float]]:
    """(name, seconds) of everything that ran on the streams of a GPU."""
    return [
        (event.name, event.duration_ns * 1e-9)
        for plane in data.planes if plane.name.startswith("/device:GPU")
        for line in plane.lines if line.name.startswith("Stream")
        for event in line.events
    ]  # fmt: skip


def summary(events: list[tuple[str, float]], wall: float, steps: int, most: int) -> dict[str, Any]:
    """What `profile` returns, from (kernel, seconds) pairs."""
    if not events:
        return {}
    by_name: dict[str, list[float]] = collections.defaultdict(list)
    for name, seconds in events:
        by_name[name].append(seconds)
    total = sum(seconds for _, seconds in events)
    kinds: collections.Counter[str] = collections.Counter()
    for name, times in by_name.items():
        kinds[kind_of(name)] += sum(times) / total  # type: ignore[assignment]
    longest = sorted(by_name, key=lambda name: -sum(by_name[name]))[:most]
    top = [[name[:100], round(sum(by_name[name]) / total, 4), len(by_name[name]) / steps] for name in longest]
    return {
        "busy": min(total / wall, 1.0),
        "kernels_run": len(events) / steps,
        "kinds": {kind: round(share, 4) for kind, share in kinds.most_common()},
        "top": top,
    }
