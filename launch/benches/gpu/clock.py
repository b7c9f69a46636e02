"""Timed windows, and the time of each kind of kernel."""

import collections
import glob
import re
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Pace(NamedTuple):
    """Timed windows of about `seconds` each, after warm-up."""

    windows: int = 5
    seconds: float = 0.3


FULL, QUICK = Pace(), Pace(5, 0.005)
_MOST_CALLS, _WARM_CALLS = 1000, 4
# Kinds of kernels by patterns of their names; the first match counts. A cast ("convert") is no convolution.
KINDS = (
    ("copy", r"memcpy|memset"),
    ("change of layout", r"nchwto|nhwcto|tonhwc|tonchw"),
    ("convolution", r"conv(?!ert)|wgrad|dgrad|fprop|cudnn|implicit_gemm"),
    ("matrix product", r"gemm|cutlass|nvjet|dot"),
    ("reduction", r"reduce"),
    ("sort", r"sort"),
)


def windows(call: Callable[[], Any], pace: Pace, wait: Callable[[Any], Any]) -> list[float]:
    """Measures seconds per call in each of several windows.

    As in training, calls within a window do not wait for each other.

    Args:
      call: starts the work and returns something to wait for.
      pace: number and length of the windows.
      wait: waits for the result of the last call.
    """
    wait(call())
    # The first calls may still record graphs; a call that is longer than a window counts as a window.
    first_seconds = [_seconds(call, wait)]
    while first_seconds[-1] < pace.seconds and len(first_seconds) < _WARM_CALLS:
        first_seconds.append(_seconds(call, wait))
    repeats = max(1, min(round(pace.seconds / max(min(first_seconds), 1e-9)), _MOST_CALLS))
    seconds = first_seconds[-1:] if first_seconds[-1] >= pace.seconds else []
    for _ in range(pace.windows - len(seconds)):
        start = time.perf_counter()
        for _ in range(repeats):
            result = call()
        wait(result)
        seconds.append((time.perf_counter() - start) / repeats)
    return seconds


def _seconds(call: Callable[[], Any], wait: Callable[[Any], Any]) -> float:
    start = time.perf_counter()
    wait(call())
    return time.perf_counter() - start


def kind_of(kernel: str) -> str:
    """Returns the kind of a kernel, by its name."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, kernel.lower())), "element-wise")


def profile(
    call: Callable[[], Any], wait: Callable[[Any], Any], seconds: float, steps: int, most: int = 12
) -> dict[str, Any]:
    """Profiles the kernels of one call by JAX's profiler; {} if it reports no GPU.

    Under the profiler, kernels are launched one by one and not as graphs, so its own wall time is not used.

    Args:
      call: the work, warm.
      wait: waits for its result.
      seconds: of the call without the profiler.
      steps: training steps in one call, for the number of kernels per step.
      most: number of kernels to list.

    Returns:
      `busy`: seconds of all kernels over `seconds`; `kernels_run`: kernels per step; `kinds`: kind -> share of the
      kernels' time; `top`: [name, share of the kernels' time, times per step] of the longest.
    """
    import jax

    with tempfile.TemporaryDirectory() as folder:
        try:
            with jax.profiler.trace(folder):
                wait(call())
            events = [event for path in glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
                      for event in _kernels(jax.profiler.ProfileData.from_file(path))]  # fmt: skip
        except Exception as error:  # noqa: BLE001 - a profiler that does not work here must not cost the measurement
            return {"profile": f"none: {type(error).__name__}: {str(error)[:200]}"}
    return summary(events, seconds, steps, most)


def _kernels(data: Any) -> list[tuple[str, float]]:
    """Returns (name, seconds) of all events on the streams of a GPU."""
    return [
        (event.name, event.duration_ns * 1e-9)
        for plane in data.planes if plane.name.startswith("/device:GPU")
        for line in plane.lines if line.name.startswith("Stream")
        for event in line.events
    ]  # fmt: skip


def summary(events: list[tuple[str, float]], seconds: float, steps: int, most: int) -> dict[str, Any]:
    """Computes the result of `profile`.

    Args:
      events: (kernel, seconds) pairs.
      seconds: of the call without the profiler.
      steps: training steps in the call.
      most: number of kernels to list.
    """
    if not events:
        return {}
    by_name: dict[str, list[float]] = collections.defaultdict(list)
    for name, duration in events:
        by_name[name].append(duration)
    total = sum(duration for _, duration in events)
    kinds: collections.Counter[str] = collections.Counter()
    for name, times in by_name.items():
        kinds[kind_of(name)] += sum(times) / total  # type: ignore[assignment]
    longest = sorted(by_name, key=lambda name: -sum(by_name[name]))[:most]
    top = [[name[:100], round(sum(by_name[name]) / total, 4), len(by_name[name]) / steps] for name in longest]
    return {
        "busy": total / seconds,
        "kernels_run": len(events) / steps,
        "kinds": {kind: round(share, 4) for kind, share in kinds.most_common()},
        "top": top,
    }
