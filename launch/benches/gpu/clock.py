"""Timed windows, and which kernels the time goes to."""

import collections
import glob
import re
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Pace(NamedTuple):
    """How long to look: timed windows of about `seconds` each, after warm-up."""

    windows: int = 5
    seconds: float = 0.3


FULL, QUICK = Pace(), Pace(5, 0.005)
_MOST_CALLS, _WARM_CALLS = 1000, 4
# Kinds of kernels by patterns of their names; the first that fits counts. A cast ("convert") is no convolution.
KINDS = (
    ("copy", r"memcpy|memset"),
    ("change of layout", r"nchwto|nhwcto|tonhwc|tonchw"),
    ("convolution", r"conv(?!ert)|wgrad|dgrad|fprop|cudnn|implicit_gemm"),
    ("matrix product", r"gemm|cutlass|nvjet|dot"),
    ("reduction", r"reduce"),
    ("sort", r"sort"),
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
    # The first calls may still record graphs; one that is longer than a window is a window itself.
    tried = [_seconds(call, wait)]
    while tried[-1] < pace.seconds and len(tried) < _WARM_CALLS:
        tried.append(_seconds(call, wait))
    repeats = max(1, min(round(pace.seconds / max(min(tried), 1e-9)), _MOST_CALLS))
    seconds = tried[-1:] if tried[-1] >= pace.seconds else []
    for _ in range(pace.windows - len(seconds)):
        begun = time.perf_counter()
        for _ in range(repeats):
            result = call()
        wait(result)
        seconds.append((time.perf_counter() - begun) / repeats)
    return seconds


def _seconds(call: Callable[[], Any], wait: Callable[[Any], Any]) -> float:
    begun = time.perf_counter()
    wait(call())
    return time.perf_counter() - begun


def kind_of(kernel: str) -> str:
    """The kind of a kernel, from its name."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, kernel.lower())), "element-wise")


def profile(
    call: Callable[[], Any], wait: Callable[[Any], Any], seconds: float, steps: int, most: int = 12
) -> dict[str, Any]:
    """Where a GPU spends its time during one call, from JAX's profiler; {} where it names no GPU.

    Under the profiler, kernels are launched one by one and not as graphs, so its own wall time is no measure.

    Args:
      call: the work, warm.
      wait: waits for its result.
      seconds: what the call takes without the profiler.
      steps: training steps in one call, for the number of kernels per step.
      most: kernels to name.

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
    """(name, seconds) of everything that ran on the streams of a GPU."""
    return [
        (event.name, event.duration_ns * 1e-9)
        for plane in data.planes if plane.name.startswith("/device:GPU")
        for line in plane.lines if line.name.startswith("Stream")
        for event in line.events
    ]  # fmt: skip


def summary(events: list[tuple[str, float]], seconds: float, steps: int, most: int) -> dict[str, Any]:
    """What `profile` returns, from (kernel, seconds) pairs."""
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
