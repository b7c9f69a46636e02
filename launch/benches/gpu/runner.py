"""Processes, deadline and resume of `launch.bench gpu`.

    rows file -> missing rows -> processes, one after another -> each row appended as it arrives

If a row fails, or a process crashes, hangs or runs out of memory, only its own rows are lost; they are recorded as
failed. Rows after the deadline are not recorded: the next call with the same file measures them.
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
_PATIENCE = 2.0  # a process is ended after this multiple of its expected seconds
_LEAST_LIMIT_SECONDS = 60.0
_PROBE_SECONDS = 90.0
_KEYS = {"name", "section", "status", "value", "unit", "quick", "device", "versions", "time", "seconds"}
_NEVER_SECONDS = "1000000000"


class Options(NamedTuple):
    """One call of the bench.

    Attributes:
      quick: tiny sizes: a check that it runs, no measurement.
      out: file to which rows are appended; "" = none, nothing is resumed.
      minutes: deadline.
      data: CIFAR-10 as .npz, or "".
      rows: measure only rows whose name contains this.
      again: repeat rows that are in the file already; the newest counts.
    """

    quick: bool
    out: str = ""
    minutes: float = 8.0
    data: str = ""
    rows: str = ""
    again: bool = False


class Process(NamedTuple):
    """A started process of measurements, and the file of its error output."""

    popen: subprocess.Popen
    errors: IO[bytes]


def run(options: Options, say: Callable[[str], None] | None = None) -> list[Row]:
    """Measures missing rows until the minutes are used.

    Returns:
      The newest row of every name on this machine, in the order of the table: those of the file and the new ones.

    Raises:
      ConfigError: unusable options, before anything is measured. DeviceError: JAX does not start here.
    """
    say = say or progress.Reporter().log
    deadline = time.monotonic() + 60 * options.minutes
    path = _checked_data(options.data)
    all_measurements = table.measurements(options.quick, path)
    selection = [
        measurement
        for measurement in table.passes(all_measurements)
        if any(options.rows in name for name in measurement.names)
    ]
    if not selection:
        raise errors.ConfigError(f"--rows={options.rows}: no row has a name that contains this.")
    machine = probe(options.quick, deadline)
    if machine["platform"] == "cpu" and not options.quick and os.environ.get("JAX_PLATFORMS") != "cpu":
        raise errors.DeviceError(
            "JAX finds no accelerator here, only the CPU, where this bench takes hours. Install .[cuda13] or "
            f".[cuda12], or try it with --quick; JAX_PLATFORMS=cpu measures the CPU. {machine['warning']}".strip()
        )
    rows = [row for row in read(options.out) if _is_of(row, machine, options.quick)]
    finished = {} if options.again else {row["name"]: row["status"] for row in rows}
    missing, skipped = _missing(selection, finished, options, machine)
    groups = grouped(missing, options.quick)
    count = sum(len(measurement.names) for measurement in missing)
    say(f"{machine['device']}, jax {machine['versions']['jax']}: {count} rows to measure in {len(groups)} processes, "
        f"until {options.minutes:g} minutes are used")  # fmt: skip
    new_rows = []
    for row in run_groups(groups, options, machine, rows, deadline, say):
        row_with_machine = {"bench": "gpu", "quick": options.quick, **row, **_stamp(machine)}
        new_rows.append(row_with_machine)
        if options.out:
            lines.append(options.out, [json.dumps(escapes.strict_json(row_with_machine))])
        say("  " + report.line(row_with_machine))
    for name, reason in skipped.items():
        say(f"  left out: {name} ({reason})")
    num_left = count - len({row["name"] for row in new_rows})
    if num_left:
        hint = "call again with the same --out to continue" if options.out else "give --out=FILE to continue later"
        say(f"{num_left} row(s) are left: {hint}")
    return report.ordered([*rows, *new_rows], options.quick)


def _missing(selection: list[Measurement], finished: dict[str, str], options: Options,
             machine: dict[str, Any]) -> tuple[list[Measurement], dict[str, str]]:  # fmt: skip
    """Returns measurements narrowed to requested, missing rows, and the rows that cannot be measured here.

    Failed rows are tried once more, after all that have not been tried.
    """
    reasons = {"data": "" if options.data else "give --data=cifar10.npz",
               "torch": "" if machine["torch"] else "PyTorch is not installed"}  # fmt: skip
    missing, skipped = [], {}
    for measurement in selection:
        names = tuple(name for name in measurement.names if options.rows in name and finished.get(name) != "ok")
        reason = reasons.get(measurement.needs, "")
        if reason:
            skipped |= dict.fromkeys(names, reason)
        elif names:
            missing.append(measurement if measurement.fresh else measurement._replace(names=names))
    return sorted(missing, key=lambda measurement: all(name in finished for name in measurement.names)), skipped


def grouped(measurements: list[Measurement], quick: bool) -> list[list[Measurement]]:
    """Groups measurements by process: neighbours that need no fresh one; in quick mode all with equal XLA flags."""

    def key(measurement: Measurement) -> Any:
        if quick:
            return measurement.environment.get("XLA_FLAGS", measurement.needs == "torch")
        return measurement.names if measurement.fresh else (measurement.turn, measurement.section)

    order = (
        sorted(
            measurements, key=lambda measurement: ("XLA_FLAGS" in measurement.environment, measurement.needs == "torch")
        )
        if quick
        else measurements
    )
    return [list(group) for _, group in itertools.groupby(order, key)]


def run_groups(groups: list[list[Measurement]], options: Options, machine: dict[str, Any], rows: list[Row],
             deadline: float, say: Callable[[str], None]) -> Iterator[Row]:  # fmt: skip
    """Yields rows as they arrive; with enough cores, the next process starts while one measures.

    Args:
      groups: measurements of each process.
      options: of the call.
      machine: from `probe`.
      rows: measured before; peaks are read from them.
      deadline: monotonic time.
      say: takes a line of progress.
    """
    rates = {"data sheet": peaks.data_sheet(machine["kind"]), "measured": {}}
    for row in rows:
        peaks.learn(rates["measured"], row)
    queue = list(groups)
    next_process: Process | None = None
    try:
        while queue and time.monotonic() < deadline:
            group, process, next_process = queue.pop(0), next_process, None
            seconds = sum(measurement.seconds for measurement in group)
            if not options.quick and deadline - time.monotonic() < seconds / 2:
                if process is not None:
                    end(process)
                continue
            process = process or start(group, options.quick)
            if queue and _entry.cores() > 2:
                next_process = start(queue[0], options.quick)
            limit = time.monotonic() + max(_PATIENCE * seconds, _LEAST_LIMIT_SECONDS)
            say(f"{table.SECTIONS[group[0].section]}: {group[0].names[0]}" + (" ..." if len(group) > 1 else ""))
            request = child.request_of([measurement._asdict() for measurement in group], machine, options.quick, rates)
            delivered: set[str] = set()
            problem = yield from _rows_of_process(process, request, min(limit, deadline), delivered, rates["measured"])
            if problem is None or time.monotonic() >= deadline:
                continue
            culprits, remaining = blamed(group, delivered)
            yield from (
                child.failed_row(name, {"section": measurement.section}, problem, 0.0) for measurement, name in culprits
            )
            if remaining:  # not to blame: they get a process of their own, before the next group
                if next_process is not None:
                    end(next_process)
                queue, next_process = [remaining, *queue], None
    finally:
        if next_process is not None:
            end(next_process)


def _rows_of_process(process: Process, request: str, until: float, names: set[str],
               rates: dict[str, float]) -> Generator[Row, None, str | None]:  # fmt: skip
    """Yields the rows of one process and adds their names; returns the reason if it ended too early, else None."""
    start_time = time.monotonic()
    try:
        for answer in ask(process, request, until):
            if "done" in answer:
                return None
            names.add(answer["name"])
            peaks.learn(rates, answer)
            yield answer
        return crash(process)
    except TimeoutError:
        return f"ended after {time.monotonic() - start_time:.0f} s, more than {_PATIENCE:g} times what was expected"
    finally:
        end(process)


def blamed(group: list[Measurement],
           delivered: set[str]) -> tuple[list[tuple[Measurement, str]], list[Measurement]]:  # fmt: skip
    """Returns the rows that ended a process of several, and the remaining measurements without them.

    The first row that did not arrive is to blame; if a measurement cannot be narrowed to some of its rows, all of its
    rows that did not arrive.
    """
    culprits: list[tuple[Measurement, str]] = []
    remaining = []
    for measurement in group:
        names = tuple(name for name in measurement.names if name not in delivered)
        if names and not culprits:
            culprits = [(measurement, name) for name in (names if measurement.fresh else names[:1])]
            names = () if measurement.fresh else names[1:]
        if names:
            remaining.append(measurement if measurement.fresh else measurement._replace(names=names))
    return culprits, remaining


# ---------------------------------------------------------------------------------------------------------------------
# processes


def start(group: list[Measurement], quick: bool) -> Process:
    """Starts the process of a group, in a session of its own, so that its own children end with it."""
    modules = sorted({measurement.function.partition(":")[0] for measurement in group})
    command = [sys.executable, "-m", f"{__package__}.child", *modules]
    variables = dict(group[0].environment) if group else {}
    extra_flags = [one_core.QUICKLY_COMPILED] * quick + [variables.pop("XLA_FLAGS", "")]
    flags = " ".join(["--xla_force_host_platform_device_count=1", *_user_flags(), *extra_flags]).strip()
    environment = {**os.environ, "XLA_FLAGS": flags, **_cache(quick), **({} if quick else variables)}
    output = tempfile.TemporaryFile()
    popen = subprocess.Popen(command, cwd=_entry.HOME, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=output, start_new_session=True)  # fmt: skip
    return Process(popen, output)


def _user_flags() -> list[str]:
    """Returns XLA_FLAGS of the environment, without the launchers' own flags."""
    return [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in flag]


def _cache(quick: bool) -> dict[str, str]:
    """Returns variables that cache results of autotuning, to save minutes, but no programs: compiling is measured."""
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
    buffer = b""
    while True:
        ready, _, _ = select.select([stdout], [], [], max(until - time.monotonic(), 0.0))
        if not ready:
            raise TimeoutError
        chunk = os.read(stdout.fileno(), 2**16)
        if not chunk:
            return
        *answers, buffer = (buffer + chunk).split(b"\n")
        yield from map(json.loads, answers)


def crash(process: Process) -> str:
    """Returns exit code and last lines of the error output of a process that ended too early."""
    code = process.popen.wait()
    return f"the process ended with code {code}: {_last_lines(process, 3)}"


def _last_lines(process: Process, count: int) -> str:
    process.errors.seek(0)
    output = [line for line in process.errors.read().decode(errors="replace").splitlines() if line.strip()]
    return " | ".join(output[-count:])


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
    """Returns device and versions, from a separate process: this one must not hold the device's memory.

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
    """Reads the rows of this bench in a file; [] if there is none. Lines cut off by a kill are skipped."""
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
    stamp = _stamp(machine)
    is_same = all(row.get(name) == stamp[name] for name in ("device", "xla_flags"))
    return is_same and row["quick"] == quick and row["versions"].get("jax") == machine["versions"]["jax"]


def _stamp(machine: dict[str, Any]) -> Row:
    return {"device": machine["device"], "cores": machine["cores"], "versions": machine["versions"],
            "xla_flags": " ".join(_user_flags()),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S")}  # fmt: skip


def _checked_data(path: str) -> str:
    if path and not Path(path).is_file():
        raise errors.ConfigError(
            f"--data={path} is not a file. Give CIFAR-10 as .npz (x_train, y_train, x_test, y_test)."
        )
    return str(Path(path).resolve()) if path else ""
