"""How many members fit into memory, by the compiler's own figures and not by guesses from parameter counts.

The program for all members is compiled first: it is needed anyway if it fits, and compiling allocates nothing. If it
does not fit, two small populations are compiled, the line bytes(M) = shared + M * per_member is drawn through their
needs, and the members are split into equal chunks that stay within the budget.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxunlearn import errors, progress

# Without memory_stats (CPU), programs may use this share of the RAM; other processes need the rest.
CPU_SHARE = 0.6


class Fit(NamedTuple):
    """Size of the chunks, and their memory.

    Attributes:
      chunk: members per chunk.
      program_bytes: needs of the program of one chunk per device (0 where the compiler reports none).
      budget_bytes: limit per device.
    """

    chunk: int
    program_bytes: int
    budget_bytes: int


def budget(devices: list[jax.Device], fraction: float) -> int:
    """Returns the bytes that a program may use on each of `devices`: `fraction` of the free memory."""
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(fraction * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))
    ram = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(CPU_SHARE * fraction * ram / len(devices))


def program_bytes(memory: Any) -> int:
    """Returns the peak bytes of a compiled program per device: arguments + outputs + temporaries - donated."""
    if memory is None:
        return 0
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return int(total - memory.alias_size_in_bytes)


class DoesNotFit(RuntimeError):
    """A compiled program needs more memory than there is; fewer members may fit."""


def require(memory: Any, budget_bytes: int) -> None:
    """Raises `DoesNotFit` if the compiler reports that a program needs more than the budget (0 = no limit)."""
    if budget_bytes and program_bytes(memory) > budget_bytes:
        need, available = progress.size(program_bytes(memory)), progress.size(budget_bytes)
        raise DoesNotFit(f"the program needs {need} per device, but only {available} is available")


def fit(need: Callable[[int], int], members: int, multiple: int, budget_bytes: int) -> Fit:
    """Returns the largest equal chunks whose program stays within the budget.

    Args:
      need: number of members -> bytes per device of their program (compiles it).
      members: M in total.
      multiple: a chunk is padded to a multiple of this (devices times group).
      budget_bytes: per device.

    Raises:
      DeviceError: not even the smallest chunk fits.
    """
    total = need(members)
    if total <= budget_bytes:
        return Fit(members, total, budget_bytes)
    smallest, doubled = need(multiple), need(2 * multiple)
    slope = max((doubled - smallest) / multiple, 1.0)
    shared = smallest - slope * multiple
    if smallest > budget_bytes:
        raise errors.DeviceError(
            f"the smallest chunk ({multiple} member(s)) needs {progress.size(smallest)}, but "
            f"{progress.size(budget_bytes)} is available. Use a smaller train.batch, model.dtype=bfloat16, "
            "fewer engine.devices or a smaller model."
        )
    largest = max(multiple, int((budget_bytes - shared) / slope) // multiple * multiple)
    chunk = equal_chunks(members, largest)
    return Fit(chunk, int(shared + slope * chunk), budget_bytes)


def equal_chunks(members: int, largest: int) -> int:
    """Returns the members per chunk for as few, nearly equal chunks of at most `largest` members as possible."""
    chunks = -(-members // max(largest, 1))
    return -(-members // chunks)
