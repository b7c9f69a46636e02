"""Progress for people (stderr) and for programs (one JSON object per event, to a sink from the store).

A self-overwriting line on a terminal, otherwise one line per 30 seconds: stage, done of total, rate, time left and one
key number. Compilation and waiting are announced, because silence looks like a hang.
"""

import math
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

from jaxunlearn import escapes

Sink = Callable[[dict[str, Any]], None]
MEMORY_SECONDS, MEMORY_UPDATES = 20.0, 4  # averaging window of rates: the longer of the two


class Pace(NamedTuple):
    """The recent speed of a stage, as an exponentially weighted average.

    The first interval is unrepresentatively slow (programs are compiled and loaded, memory is touched for the first
    time), so it is not averaged: until there is a second one, the time left is an upper bound.

    Attributes:
      time, done: of the last update with progress.
      idle: seconds since then that were no work (compiling).
      first: rate of the first interval, 0 if it was too short to measure; None = it has not ended.
      work, seconds: of the intervals after it, with exponentially decaying weights.
    """

    time: float
    done: float
    idle: float = 0.0
    first: float | None = None
    work: float = 0.0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Work per second; 0 if unknown."""
        return self.work / self.seconds if self.seconds > 0 else self.first or 0.0

    @property
    def is_bound(self) -> bool:
        """Whether the rate is the first interval's, which is a lower bound."""
        return self.seconds <= 0


def advance(pace: Pace, now: float, done: float) -> Pace:
    """Returns the pace after an update: `done` work at the time `now`."""
    step, duration_s = done - pace.done, max(now - pace.time - pace.idle, 1e-9)
    if step <= 0:  # no progress; or members that ran out of memory restart
        return pace if step == 0 else pace._replace(time=now, done=done, idle=0.0)
    next_pace = pace._replace(time=now, done=done, idle=0.0)
    if pace.first is None:
        return next_pace._replace(first=step / duration_s if duration_s > 1e-3 else 0.0)
    decay = math.exp(-duration_s / max(MEMORY_SECONDS, MEMORY_UPDATES * duration_s))
    return next_pace._replace(work=pace.work * decay + step, seconds=pace.seconds * decay + duration_s)


def duration(seconds: float) -> str:
    """Formats a duration: `8.2 s`, `3 min 05 s` or `2 h 10 min`.

    Example:
      >>> from jaxunlearn import progress
      >>> progress.duration(185), progress.size(640), progress.rate(1628.4)
      ('3 min 05 s', '640 B', '1,628')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def size(num_bytes: float) -> str:
    """Formats a number of bytes: `640 B`, `12.3 MiB`, `1.4 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024 or unit == "GiB":
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return ""


def rate(per_second: float) -> str:
    """Formats a rate per second with up to three significant digits: `1,628`, `4.2` or `0.40`."""
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.1f}" if per_second >= 1 else f"{per_second:.2f}"


def show(text: str, out: TextIO | None = None) -> None:
    """Prints text that may contain user-given names, with control characters escaped. All output goes through here."""
    print(escapes.visible(text), file=out or sys.stdout, flush=True)


class Reporter:
    """Writes progress lines and events, and collects notes for the report."""

    def __init__(self, sink: Sink | None = None, out: TextIO | None = None, every_seconds: float = 30.0):
        """Starts the clock. `sink` receives every event; `out` defaults to stderr.

        Args:
          sink: receives every event, or None.
          out: where lines are written; stderr by default.
          every_seconds: least seconds between lines if `out` is not a terminal.
        """
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

    def log(self, text: str, **values: Any) -> None:
        """Prints one line for people and records it."""
        self._close_line()
        show(text, self.out)
        self.event("message", text=text, **values)

    def note(self, text: str) -> None:
        """Prints what readers of the results must know, and keeps it for the report."""
        self.log(text)
        if text not in self.notes:
            self.notes.append(text)

    def begin(self, stage: str, done: float = 0.0) -> None:
        """Starts the clock of a stage; `done` is the work an earlier run left finished."""
        self._stage, self._pace = stage, Pace(time.monotonic(), done)
        self._last_line = -1e9

    def idle(self, seconds: float) -> None:
        """Excludes seconds since the last update from the rate: one-off costs such as compiling."""
        if self._pace is not None:
            self._pace = self._pace._replace(idle=self._pace.idle + seconds)

    def update(self, done: float, total: float, unit: str, note: str = "", **values: Any) -> None:
        """Reports the stage's progress, its recent rate and the time left.

        Args:
          done: finished work, in `unit`s.
          total: all work.
          unit: e.g. "steps".
          note: appended to the line, e.g. "loss 0.5".
          **values: recorded with the event only.
        """
        if self._pace is None:
            self.begin("work")
        assert self._pace is not None
        now = time.monotonic()
        self._pace = pace = advance(self._pace, now, done)
        stage, speed = self._stage, pace.rate
        self.event(stage, done=done, total=total, unit=unit, rate=round(speed, 3), **values)
        on_terminal = self.out.isatty()
        if now - self._last_line < (0.2 if on_terminal else self.every_seconds) and done < total:
            return
        self._last_line = now
        fields = [f"{stage}: {done:,.0f} / {total:,.0f} {unit}", f"{rate(speed)}/s" if speed > 0 else ""]
        if speed > 0 and done < total:
            fields.append(f"{'at most ' * pace.is_bound}{duration((total - done) / speed)} left of this stage")
        line = ", ".join(filter(None, (*fields, note)))
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
