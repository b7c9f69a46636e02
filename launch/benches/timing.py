"""Timing for shared machines: variants in interleaved rounds, ratios per round, medians.

    variants -> warm-up, repeats per round -> rounds of (variant 1, variant 2, ...) -> Times -> rows with ratios

Other load slows all variants of one round alike, so the ratio is taken within each round and its median counts. CPU
time (of this process and its workers) is reported with wall time for the same reason.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_MOST_REPEATS = 200
# A variant with shorter calls is first called untimed, at most twice, in each turn: the previous variant has evicted
# its data from the caches, while real training runs one epoch after another.
_REFILL_SECONDS = 1.5
# Two rounds are enough for a slow variant.
_SLOW_SECONDS, _SLOW_ROUNDS = 4.0, 2
Row = dict[str, Any]


class Variant(NamedTuple):
    """One way to do the same work.

    Attributes:
      name: for the rows.
      call: does the work once, waits for its end, and returns the CPU seconds that other processes spent on it.
      units: units of work (model-steps) per call.
    """

    name: str
    call: Callable[[], float]
    units: float


class Times(NamedTuple):
    """Times of one variant, one entry per round; a very slow variant only runs in the first rounds.

    Attributes:
      name: of the variant.
      rates: units per second of wall time.
      cpu_seconds: CPU seconds per unit.
    """

    name: str
    rates: list[float]
    cpu_seconds: list[float]


def interleave(
    variants: Mapping[str, Variant], rounds: int, round_seconds: float, say: Callable[[str], None]
) -> dict[str, Times]:
    """Times every variant in every round.

    Args:
      variants: key -> variant.
      rounds: at least 1.
      round_seconds: a variant is repeated within a round to fill about this time.
      say: takes one line of progress per round.

    Returns:
      key -> Times.
    """
    calls_seconds, repeats = {}, {}
    for key, variant in variants.items():
        say(f"  warm-up: {variant.name}")
        calls_seconds[key] = _call_seconds(variant)
        repeats[key] = max(1, min(round(round_seconds / calls_seconds[key]), _MOST_REPEATS))
    times = {key: Times(variant.name, [], []) for key, variant in variants.items()}
    for number in range(rounds):
        start = time.perf_counter()
        for key, variant in variants.items():
            if number >= _SLOW_ROUNDS and calls_seconds[key] > _SLOW_SECONDS:
                continue
            if calls_seconds[key] < _REFILL_SECONDS:
                _timed(variant, min(repeats[key], 2))
            wall, cpu = _timed(variant, repeats[key])
            times[key].rates.append(repeats[key] * variant.units / wall)
            times[key].cpu_seconds.append(cpu / (repeats[key] * variant.units))
        say(f"  round {number + 1} of {rounds}: {time.perf_counter() - start:.1f} s")
    return times


def _call_seconds(variant: Variant) -> float:
    """Returns the seconds of one warm call; the first call of something short is mostly set-up and does not count."""
    wall, _ = _timed(variant, 1)
    return _timed(variant, 1)[0] if wall < _REFILL_SECONDS else wall


def _timed(variant: Variant, repeats: int) -> tuple[float, float]:
    """Returns wall and CPU seconds of `repeats` calls."""
    wall, cpu, elsewhere = time.perf_counter(), time.process_time(), 0.0
    for _ in range(repeats):
        elsewhere += variant.call()
    return time.perf_counter() - wall, time.process_time() - cpu + elsewhere


def cores_used(times: Times) -> float:
    """Computes CPU seconds per second of wall time; other processes used the rest of the cores."""
    return statistics.median(rate * cpu for rate, cpu in zip(times.rates, times.cpu_seconds, strict=True))


def fastest(times: Mapping[str, Times], keys: list[str]) -> Times:
    """Returns the times of the variant with the highest median rate: a baseline is quoted at its best setting."""
    return max((times[key] for key in keys), key=lambda variant_times: statistics.median(variant_times.rates))


def ratio_row(name: str, here: Times, baseline: Times, target: float | None = None, **facts: Any) -> Row:
    """Builds a row with the speed of `here` relative to `baseline`: median, min and max of the per-round ratios.

    Args:
      name: of the comparison.
      here: times of the variant that should be faster.
      baseline: times of the other one, from the same rounds.
      target: the ratio must reach it; None = no target.
      **facts: further entries of the row.
    """
    ratios = [a / b for a, b in zip(here.rates, baseline.rates, strict=False)]
    rate, baseline_rate = statistics.median(here.rates), statistics.median(baseline.rates)
    cpu_ratios = [b / a for a, b in zip(here.cpu_seconds, baseline.cpu_seconds, strict=False)]
    row = {
        "name": name,
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "cpu_ratio": statistics.median(cpu_ratios),
        "rate": rate,
        "baseline_rate": baseline_rate,
        "rate_unit": "model-steps/s",
        "seconds": 1.0 / rate,
        "baseline_seconds": 1.0 / baseline_rate,
        "cpu_seconds": statistics.median(here.cpu_seconds),
        "baseline_cpu_seconds": statistics.median(baseline.cpu_seconds),
        "here": here.name,
        "baseline": baseline.name,
        "rounds": len(ratios),
        **facts,
    }
    return with_target(row, row["ratio"], ">=", target)


def value_row(
    name: str, values: list[float], unit: str, sense: str = "<=", target: float | None = None, **facts: Any
) -> Row:
    """Builds a row with the median of `values`.

    Args:
      name: of the measurement.
      values: one per round.
      unit: of the values.
      sense: "<=" or ">=": the side of `target` that is good.
      target: bound of the median; None = no target.
      **facts: further entries of the row.
    """
    value = statistics.median(values)
    row = {"name": name, "value": value, "low": min(values), "high": max(values), "unit": unit, "rounds": len(values)}
    return with_target({**row, **facts}, value, sense, target)


def with_target(row: Row, value: float, sense: str, target: float | None) -> Row:
    """Adds `sense`, `target` and `met` to a row if there is a target.

    Args:
      row: the row.
      value: compared with the target.
      sense: "<=" or ">=".
      target: bound of the value; None leaves the row as it is.
    """
    if target is None:
        return row
    return {**row, "sense": sense, "target": target, "met": value >= target if sense == ">=" else value <= target}


def number(value: float) -> str:
    """Formats a value with three digits, without an exponent from 0.001 to a million."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
