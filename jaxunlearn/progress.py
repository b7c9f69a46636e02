"""Progress for people (stderr) and for programs (one JSON object per event, through a sink the store provides).

A self-overwriting line on a terminal, otherwise one line per 30 seconds; each says stage, done of total, rate, time
left and one number that matters. Compilation and waiting are announced, because silence reads as a hang.
"""

import math
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

from jaxunlearn import escapes

Sink = Callable[[dict[str, Any]], None]
MEMORY_SECONDS, MEMORY_UPDATES = 20.0, 4  # how far back a rate looks: the longer of the two


class Pace(NamedTuple):
    """How fast a stage goes: an average over its recent work, which forgets exponentially.

    The first interval is slow without telling anything (programs are compiled and loaded, memory is touched for the
    first time), so it is not averaged: until there is a second one, the time left is at most what it says.

    Attributes:
      time, done: of the last update that had moved on.
      idle: seconds since then that are not work, known to the caller (compiling).
      first: rate of the first interval, 0 where it was too short to tell; None = it has not ended.
      work, seconds: of the intervals after it, older ones counting less.
    """

    time: float
    done: float
    idle: float = 0.0
    first: float | None = None
    work: float = 0.0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Work per second; 0 where nothing is known."""
        return self.work / self.seconds if self.seconds > 0 else self.first or 0.0

    @property
    def is_bound(self) -> bool:
        """Whether the rate is the first interval's, which is a lower bound."""
        return self.seconds <= 0


def moved(pace: Pace, now: float, done: float) -> Pace:
    """The pace after an update: `done` work at the time `now`."""
    step, length = done - pace.done, max(now - pace.time - pace.idle, 1e-9)
    if step <= 0:  # nothing new; or members that ran out of memory begin again
        return pace if step == 0 else pace._replace(time=now, done=done, idle=0.0)
    after = pace._replace(time=now, done=done, idle=0.0)
    if pace.first is None:
        return after._replace(first=step / length if length > 1e-3 else 0.0)
    kept = math.exp(-length / max(MEMORY_SECONDS, MEMORY_UPDATES * length))
    return after._replace(work=pace.work * kept + step, seconds=pace.seconds * kept + length)


def duration(seconds: float) -> str:
    """`8.2 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def size(num_bytes: float) -> str:
    """`640 B`, `12.3 MiB`, `1.4 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024 or unit == "GiB":
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return ""


def rate(per_second: float) -> str:
    """`1,628`, `4.2` or `0.40` per second: three digits where they matter."""
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.1f}" if per_second >= 1 else f"{per_second:.2f}"


def show(text: str, out: TextIO | None = None) -> None:
    """Prints text with a user's names in it: the one way to a terminal, which nothing but this package may steer."""
    print(escapes.visible(text), file=out or sys.stdout, flush=True)


class Reporter:
    """Writes progress lines and events. Keeps the start time, the terminal's line, and notes for the report."""

    def __init__(self, sink: Sink | None = None, out: TextIO | None = None, every_seconds: float = 30.0):
        """`sink` receives every event; `out` is stderr unless given; `every_seconds` paces non-terminal output."""
        self.sink = sink
        self.out = out or sys.stderr
        self.every_seconds = every_seconds
        self.started = time.monotonic()
        self.notes: list[str] = []
        self._stage = ""
        self._pace: Pace | None = None
        self._last_line = -1e9
        self._open_line = False

    def event(self, stage: str, **values: Any) -> None:
        """Sends one event to the sink: time, seconds since start, stage and the values."""
        if self.sink is not None:
            seconds = round(time.monotonic() - self.started, 3)
            self.sink({"time": time.strftime("%Y-%m-%dT%H:%M:%S"), "seconds": seconds, "stage": stage, **values})

    def say(self, text: str, **values: Any) -> None:
        """Prints one line for people and records it."""
        self._close_line()
        show(text, self.out)
        self.event("message", text=text, **values)

    def note(self, text: str) -> None:
        """Says what a reader of the results must know, and keeps it for the report."""
        self.say(text)
        if text not in self.notes:
            self.notes.append(text)

    def begin(self, stage: str, done: float = 0.0) -> None:
        """Starts the clock of a stage; `done` is the work an earlier run left finished."""
        self._stage, self._pace = stage, Pace(time.monotonic(), done)
        self._last_line = -1e9

    def idle(self, seconds: float) -> None:
        """Tells of seconds since the last update that no later work will cost again, such as compiling."""
        if self._pace is not None:
            self._pace = self._pace._replace(idle=self._pace.idle + seconds)

    def update(self, done: float, total: float, unit: str, note: str = "", **values: Any) -> None:
        """Reports the stage's work: `done` of `total` units, its recent rate, and the time left of this stage."""
        if self._pace is None:
            self.begin("work")
        assert self._pace is not None
        now = time.monotonic()
        self._pace = pace = moved(self._pace, now, done)
        stage, speed = self._stage, pace.rate
        self.event(stage, done=done, total=total, unit=unit, rate=round(speed, 3), **values)
        on_terminal = self.out.isatty()
        if now - self._last_line < (0.2 if on_terminal else self.every_seconds) and done < total:
            return
        self._last_line = now
        words = [f"{stage}: {done:,.0f} / {total:,.0f} {unit}", f"{rate(speed)}/s" if speed > 0 else ""]
        if speed > 0 and done < total:
            words.append(f"{'at most ' * pace.is_bound}{duration((total - done) / speed)} left of this stage")
        line = ", ".join(filter(None, (*words, note)))
        line = escapes.visible(line)
        if on_terminal:
            self.out.write("\r\x1b[K" + line[:160])
            self.out.flush()
            self._open_line = True
            if done >= total:
                self._close_line()
        else:
            print(line, file=self.out, flush=True)

    def _close_line(self) -> None:
        if self._open_line:
            self.out.write("\n")
            self._open_line = False
