"""Processes, deadline and resume of `launch.bench gpu`.

    rows file -> what is missing -> processes, one after another -> each row appended as it arrives

A row that fails, a process that crashes, hangs or outgrows the memory costs its own rows only, which are recorded as
failed. What the deadline cuts off is not recorded: the next call with the same file measures it.
"""

import itertools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from jaxunlearn import errors, escapes, progress, settings

from ... import _entry
from .. import lines, one_core
from . import child, peaks, report, table
from .table import Measurement

Row = dict[str, Any]
_PATIENCE = 2.0  # times the expected seconds, then a process is ended
_LEAST_LIMIT_SECONDS = 60.0
_PROBE_SECONDS = 90.0
_KEYS = {"name", "section", "status", "value", "unit", "quick", "device", "versions", "time", "seconds"}
_NEVER_SECONDS = "1000000000"


class Options(NamedTuple):
    """One call of the bench.

    Attributes:
      quick: tiny sizes: does it run, not how fast.
      out: file to which rows are appended; "" = none, nothing is resumed.
      minutes: deadline.
      data: CIFAR-10 as .npz, or "".
      rows: measure only rows whose name contains this.
      again: measure rows that the file holds already once more; the newest counts.
    """

    quick: bool
    out: str = ""
    minutes: float = 8.0
    data: str = ""
    rows: str = ""
    again: bool = False


class Process(NamedTuple):
    """A started process of measurements, and where its error output goes."""

    popen: subprocess.Popen
    errors: IO[bytes]


def run(options: Options, say: Callable[[str], None] | None = None) -> list[Row]:
    """Measures what is missing until the minutes are used.

    Returns:
      The newest row of every name on this machine, in the order of the table: those of the file and the new ones.

    Raises:
      ConfigError: unusable options, before anything is measured. DeviceError: JAX does not start here.
    """
    say = say or progress.Reporter().say
    deadline = time.monotonic() + 60 * options.minutes
    path = _checked_data(options.data)
    everything = table.measurements(options.quick, path)
    chosen = [one for one in table.passes(everything) if any(options.rows in name for name in one.names)]
    if not chosen:
        raise errors.ConfigError(f"--rows={options.rows}: no row has a name that contains this.")
    machine = probe(options.quick, deadline)
    if machine["platform"] == "cpu" and not options.quick and os.environ.get("JAX_PLATFORMS") != "cpu":
        raise errors.DeviceError(
            "JAX finds no accelerator here, only the CPU, where this bench takes hours. Install .[cuda13] or "
            f".[cuda12], or try it with --quick; JAX_PLATFORMS=cpu measures the CPU. {machine['warning']}".strip()
        )
    rows = [row for row in read(options.out) if _is_of(row, machine, options.quick)]
    finished = {} if options.again else {row["name"]: row["status"] for row in rows}
    missing, skipped = _missing(chosen, finished, options, machine)
    groups = grouped(missing, options.quick)
    count = sum(len(one.names) for one in missing)
    say(f"{machine['device']}, jax {machine['versions']['jax']}: {count} rows to measure in {len(groups)} processes, "
        f"until {options.minutes:g} minutes are used")  # fmt: skip
    arrived = []
    for row in measured(groups, options, machine, rows, deadline, say):
        whole = {"bench": "gpu", "quick": options.quick, **row, **_stamp(machine)}
        arrived.append(whole)
        if options.out:
            lines.append(options.out, [json.dumps(escapes.strict_json(whole))])
        say("  " + report.line(whole))
    for name, reason in skipped.items():
        say(f"  left out: {name} ({reason})")
    left = count - len({row["name"] for row in arrived})
    if left:
        hint = "call again with the same --out to go on" if options.out else "give --out=FILE to go on later"
        say(f"{left} row(s) are left: {hint}")
    return report.ordered([*rows, *arrived], options.quick)


def _missing(chosen: list[Measurement], finished: dict[str, str], options: Options,
             machine: dict[str, Any]) -> tuple[list[Measurement], dict[str, str]]:  # fmt: skip
    """Measurements narrowed to rows that are asked for and not there, and rows that cannot be measured here.

    What failed before is tried once more, after everything that has not been tried.
    """
    reasons = {"data": "" if options.data else "give --data=cifar10.npz",
               "torch": "" if machine["torch"] else "PyTorch is not installed"}  # fmt: skip
    missing, skipped = [], {}
    for one in chosen:
        asked = tuple(name for name in one.names if options.rows in name and finished.get(name) != "ok")
        reason = reasons.get(one.needs, "")
        if reason:
            skipped |= dict.fromkeys(asked, reason)
        elif asked:
            missing.append(one if one.fresh else one._replace(names=asked))
    return sorted(missing, key=lambda one: all(name in finished for name in one.names)), skipped


def grouped(measurements: list[Measurement], quick: bool) -> list[list[Measurement]]:
    """What runs in one process: neighbours that need none of their own; in quick mode all but other XLA flags."""

    def key(one: Measurement) -> Any:
        if quick:
            return one.environment.get("XLA_FLAGS", one.needs == "torch")
        return one.names if one.fresh else (one.turn, one.section)

    order = (
        sorted(measurements, key=lambda one: ("XLA_FLAGS" in one.environment, one.needs == "torch"))
        if quick
        else measurements
    )
    return [list(group) for _, group in itertools.groupby(order, key)]


def measured(groups: list[list[Measurement]], options: Options, machine: dict[str, Any], rows: list[Row],
             deadline: float, say: Callable[[str], None]) -> Iterator[Row]:  # fmt: skip
    """Yields rows as they arrive; while one process measures, the next one starts up, given cores for both."""
    rates = {"data sheet": peaks.data_sheet(machine["kind"]), "measured": {}}
    for row in rows:
        peaks.learn(rates["measured"], row)
    queue = list(groups)
    ready: Process | None = None
    try:
        while queue and time.monotonic() < deadline:
            group, process, ready = queue.pop(0), ready, None
            seconds = sum(one.seconds for one in group)
            if not options.quick and deadline - time.monotonic() < seconds / 2:
                if process is not None:
                    end(process)
                continue
            process = process or start(group, options.quick)
            if queue and _entry.cores() > 2:
                ready = start(queue[0], options.quick)
            limit = time.monotonic() + max(_PATIENCE * seconds, _LEAST_LIMIT_SECONDS)
            say(f"{table.SECTIONS[group[0].section]}: {group[0].names[0]}" + (" ..." if len(group) > 1 else ""))
            request = child.request_of([one._asdict() for one in group], machine, options.quick, rates)
            delivered: set[str] = set()
            problem = yield from _delivered(process, request, min(limit, deadline), delivered, rates["measured"])
            if problem is None or time.monotonic() >= deadline:
                continue
            failed, left = blamed(group, delivered)
            yield from (child.failed(name, {"section": one.section}, problem, 0.0) for one, name in failed)
            if left:  # they have done nothing wrong: a process of their own, before the next group
                if ready is not None:
                    end(ready)
                queue, ready = [left, *queue], None
    finally:
        if ready is not None:
            end(ready)


def _delivered(process: Process, request: str, until: float, names: set[str],
               rates: dict[str, float]) -> Generator[Row, None, str | None]:  # fmt: skip
    """Yields the rows of one process and adds their names; returns why it ended too early, or None."""
    begun = time.monotonic()
    try:
        for answer in ask(process, request, until):
            if "done" in answer:
                return None
            names.add(answer["name"])
            peaks.learn(rates, answer)
            yield answer
        return crash(process)
    except TimeoutError:
        return f"ended after {time.monotonic() - begun:.0f} s, more than {_PATIENCE:g} times what was expected"
    finally:
        end(process)


def blamed(group: list[Measurement],
           delivered: set[str]) -> tuple[list[tuple[Measurement, str]], list[Measurement]]:  # fmt: skip
    """Rows that ended a process of several, and what is left to measure without them.

    The first row that did not arrive is to blame; where a measurement cannot be narrowed to some of its rows, all of
    its rows that did not arrive.
    """
    failed: list[tuple[Measurement, str]] = []
    left = []
    for one in group:
        names = tuple(name for name in one.names if name not in delivered)
        if names and not failed:
            failed = [(one, name) for name in (names if one.fresh else names[:1])]
            names = () if one.fresh else names[1:]
        if names:
            left.append(one if one.fresh else one._replace(names=names))
    return failed, left


# ---------------------------------------------------------------------------------------------------------------------
# processes


def start(group: list[Measurement], quick: bool) -> Process:
    """Starts the process of a group, in a session of its own, so that its own children end with it."""
    modules = sorted({one.function.partition(":")[0] for one in group})
    command = [sys.executable, "-m", f"{__package__}.child", *modules]
    own = dict(group[0].environment) if group else {}
    given = [one_core.QUICKLY_COMPILED] * quick + [own.pop("XLA_FLAGS", "")]
    flags = " ".join(["--xla_force_host_platform_device_count=1", *_user_flags(), *given]).strip()
    environment = {**os.environ, "XLA_FLAGS": flags, **_cache(quick), **({} if quick else own)}
    output = tempfile.TemporaryFile()
    popen = subprocess.Popen(command, cwd=_entry.HOME, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=output, start_new_session=True)  # fmt: skip
    return Process(popen, output)


def _user_flags() -> list[str]:
    """XLA_FLAGS of the environment, without what launchers set there."""
    return [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in flag]


def _cache(quick: bool) -> dict[str, str]:
    """Compiled programs are not remembered, since compiling is measured; what autotuning found is, to save minutes."""
    if quick:
        return {}
    folder = settings.cache_folder() / "bench_gpu"
    return {"JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": _NEVER_SECONDS}


def ask(process: Process, request: str, until: float) -> Iterator[dict[str, Any]]:
    """Sends the request and yields the answers until the process closes its output.

    Raises:
      TimeoutError: at the monotonic time `until`.
    """
    stdin, stdout = process.popen.stdin, process.popen.stdout
    assert stdin is not None and stdout is not None
    try:
        stdin.write(request.encode())
        stdin.flush()  # it stays open: its end tells the process that this one has died
    except BrokenPipeError:
        return  # it has crashed already; its error output says why
    rest = b""
    while True:
        ready, _, _ = select.select([stdout], [], [], max(until - time.monotonic(), 0.0))
        if not ready:
            raise TimeoutError
        piece = os.read(stdout.fileno(), 2**16)
        if not piece:
            return
        *answers, rest = (rest + piece).split(b"\n")
        yield from map(json.loads, answers)


def crash(process: Process) -> str:
    """What a process that ended too early left behind: its code, and the last lines of its error output."""
    code = process.popen.wait()
    return f"the process ended with code {code}: {_last_lines(process, 3)}"


def _last_lines(process: Process, count: int) -> str:
    process.errors.seek(0)
    said = [line for line in process.errors.read().decode(errors="replace").splitlines() if line.strip()]
    return " | ".join(said[-count:])


def end(process: Process) -> None:
    """Ends a process and its children at once."""
    try:
        os.killpg(process.popen.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.popen.wait()
    for stream in (process.popen.stdin, process.popen.stdout, process.errors):
        if stream is not None:
            stream.close()


def probe(quick: bool, deadline: float) -> dict[str, Any]:
    """Device and versions, from a process of its own: this one must not hold the device's memory.

    Raises:
      DeviceError: JAX does not start.
    """
    process = start([], quick)
    until = min(time.monotonic() + _PROBE_SECONDS, max(deadline, time.monotonic() + 10))
    try:
        for answer in ask(process, child.request_of([], None, quick, {}), until):
            return {**answer["machine"], "warning": _last_lines(process, 1)}
        problem = crash(process)
    except TimeoutError:
        problem = "no answer in time"
    finally:
        end(process)
    raise errors.DeviceError(f"JAX does not start here: {problem}")


# ---------------------------------------------------------------------------------------------------------------------
# the rows file


def read(path: str) -> list[Row]:
    """Rows of this bench in a file; [] where there is none. A line cut off by a kill is left out."""
    is_there = path and Path(path).is_file()
    text = Path(path).read_text(encoding="utf-8", errors="replace") if is_there else ""
    rows = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("bench") == "gpu" and set(row) >= _KEYS:
            rows.append(row)
    return rows


def _is_of(row: Row, machine: dict[str, Any], quick: bool) -> bool:
    here = _stamp(machine)
    same = all(row.get(name) == here[name] for name in ("device", "xla_flags"))
    return same and row["quick"] == quick and row["versions"].get("jax") == machine["versions"]["jax"]


def _stamp(machine: dict[str, Any]) -> Row:
    return {"device": machine["device"], "cores": machine["cores"], "versions": machine["versions"],
            "xla_flags": " ".join(_user_flags()),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S")}  # fmt: skip


def _checked_data(given: str) -> str:
    if given and not Path(given).is_file():
        raise errors.ConfigError(
            f"--data={given} is no file. Give CIFAR-10 as .npz (x_train, y_train, x_test, y_test)."
        )
    return str(Path(given).resolve()) if given else ""
