"""How many members fit: measured from the compiler's own account of the program, never guessed from parameter counts.

The program for all members is compiled first (it is needed anyway when it fits, and compiling allocates nothing). Only
when it does not fit are small populations compiled, a line bytes(M) = shared + M * per_member is drawn through their
needs, and the members are cut into equal chunks under the budget.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxunlearn import errors, progress

# Without memory_stats (CPU), this part of the RAM is taken as ours; other processes live there too.
CPU_SHARE = 0.6


class Fit(NamedTuple):
    """A decision about chunks.

    Attributes:
      chunk: members per chunk.
      program_bytes: what the program of one chunk needs per device (0 where the compiler does not say).
      budget_bytes: what one device may give.
    """

    chunk: int
    program_bytes: int
    budget_bytes: int


def budget(devices: list[jax.Device], fraction: float) -> int:
    """Bytes that a program may use on each of `devices`: `fraction` of what is free there now."""
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(fraction * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))
    ram = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(CPU_SHARE * fraction * ram / len(devices))


def program_bytes(memory: Any) -> int:
    """Peak bytes of a compiled program per device: arguments + outputs + temporaries - donated."""
    if memory is None:
        return 0
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return int(total - memory.alias_size_in_bytes)


class DoesNotFit(RuntimeError):
    """A compiled program needs more memory than there is; fewer members may fit."""


def require(memory: Any, budget_bytes: int) -> None:
    """Raises `DoesNotFit` where the compiler says that a program needs more than the budget (0 = anything goes)."""
    if budget_bytes and program_bytes(memory) > budget_bytes:
        need, given = progress.size(program_bytes(memory)), progress.size(budget_bytes)
        raise DoesNotFit(f"the program needs {need} per device, {given} are free for it")


def fit(need: Callable[[int], int], members: int, multiple: int, budget_bytes: int) -> Fit:
    """The largest equal chunks whose program stays within the budget.

    Args:
      need: bytes per device of the program for so many members (compiles it).
      members: M in all.
      multiple: a chunk is padded to a multiple of this (devices times group).
      budget_bytes: per device.

    Raises:
      DeviceError: not even the smallest chunk fits.
    """
    whole = need(members)
    if whole <= budget_bytes:
        return Fit(members, whole, budget_bytes)
    one, two = need(multiple), need(2 * multiple)
    slope = max((two - one) / multiple, 1.0)
    shared = one - slope * multiple
    if one > budget_bytes:
        raise errors.DeviceError(
            f"the smallest chunk ({multiple} member(s)) needs {progress.size(one)}, but {progress.size(budget_bytes)} "
            "are free for it. Use a smaller train.batch, model.dtype=bfloat16, fewer engine.devices or a smaller model."
        )
    largest = max(multiple, int((budget_bytes - shared) / slope) // multiple * multiple)
    chunk = equal_chunks(members, largest)
    return Fit(chunk, int(shared + slope * chunk), budget_bytes)


def equal_chunks(members: int, largest: int) -> int:
    """Members per chunk when `members` are cut into as few, nearly equal chunks of at most `largest` as possible."""
    number = -(-members // max(largest, 1))
    return -(-members // number)
