"""Measurements for tests of the GPU bench's runner: quick, slow, failing and crashing ones, run by real processes."""

import os
import sys
import time


def plain(names, *, pace, values):
    """One row per value."""
    for name, value in zip(names, values, strict=True):
        print("libraries print what they like")
        yield {"name": name, "value": value, "unit": "s", "low": value, "high": value, "rounds": pace.windows}


def slow(names, *, pace, pause):
    """The first row at once, the second after a while."""
    yield {"name": names[0], "value": 1.0, "unit": "s"}
    time.sleep(pause)
    yield {"name": names[1], "value": 2.0, "unit": "s"}


def failing(names, *, pace):
    """One row, then an error of Python's."""
    yield {"name": names[0], "value": 1.0, "unit": "s"}
    raise MemoryError("RESOURCE_EXHAUSTED:\n\tout of memory while trying to allocate 1 GiB")


def crashing(names, *, pace):
    """The end of the process, as after a failed assertion in a library."""
    print("E0000 fatal: the compiler gave up", file=sys.stderr, flush=True)
    os._exit(7)
    yield {}
