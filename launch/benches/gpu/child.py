"""One process of measurements, driven by the runner: a JSON request on stdin, one JSON line per row on stdout.

Slow imports happen at once, and it uses the device only after the request has arrived, so that the next process can
start while this one measures. When its stdin ends, the runner has died: it ends too and releases the device.
"""

import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from . import clock, peaks

Row = dict[str, Any]
Emit = Callable[[Row], None]


def serve() -> None:
    """Measures the rows of the request; the last line reports that they are complete."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # output of libraries must not mix with the answers

    def emit(row: Row) -> None:
        answers.write(json.dumps(row) + "\n")
        answers.flush()

    for module in sys.argv[1:]:
        importlib.import_module(module)
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_runner, daemon=True).start()
    if request["machine"] is None:
        emit({"machine": machine()})
    else:
        for measurement in request["measurements"]:
            measure(measurement, request, emit)
    emit({"done": True})


def _end_with_runner() -> None:
    while os.read(0, 2**12):
        pass
    os.killpg(0, signal.SIGKILL)


def machine() -> dict[str, Any]:
    """Returns facts about this process: device, versions, whether PyTorch is installed."""
    import jax

    from jaxunlearn import store

    from ... import _entry
    from .. import workers

    device, versions = jax.local_devices()[0], store.versions()
    return {
        "device": versions["device"],
        "kind": device.device_kind,
        "platform": device.platform,
        "cores": _entry.cores(),
        "versions": versions,
        "torch": workers.installed(),
    }


def measure(measurement: dict[str, Any], request: dict[str, Any], emit: Emit) -> None:
    """Emits the rows of one measurement; if it fails, a failed row for each missing one, and continues."""
    module, _, function = measurement["function"].partition(":")
    pace = clock.QUICK if request["quick"] else clock.FULL
    missing = list(measurement["names"])
    start = time.perf_counter()
    try:
        generator: Any = getattr(importlib.import_module(module), function)
        for row in _named(generator(measurement["names"], pace=pace, **measurement["arguments"]), missing):
            end = time.perf_counter()
            completed = complete(row, measurement, request["rates"], end - start)
            peaks.learn(request["rates"]["measured"], completed)
            emit(completed)
            start = end
    except Exception as error:  # noqa: BLE001 - a row that fails is a finding; the others continue
        for name in missing:
            emit(failed_row(name, measurement, error, time.perf_counter() - start))


def _named(rows: Iterator[Row], missing: list[str]) -> Iterator[Row]:
    for row in rows:
        missing.remove(row["name"])
        yield row


def complete(row: Row, measurement: dict[str, Any], rates: dict[str, dict[str, float]], seconds: float) -> Row:
    """Adds section, status, share of the peak, and the seconds of its measurement to a row.

    Args:
      row: measured.
      measurement: its entry of the table, as a dict.
      rates: source -> peak rates; see `peaks`.
      seconds: duration of the measurement.
    """
    # Section 1 measures the device's own peaks, which are compared with the data sheet.
    source = "data sheet" if measurement["section"] == 1 else "measured"
    with_share = peaks.with_share(row, rates[source], source)
    return {"section": measurement["section"], "status": "ok", **with_share, "seconds": seconds}


def failed_row(name: str, measurement: dict[str, Any], error: Exception | str, seconds: float) -> Row:
    """Builds a row that explains why there is no number.

    Args:
      name: of the row.
      measurement: its entry of the table; the section is used.
      error: the reason.
      seconds: duration until it failed.
    """
    message = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return {"section": measurement["section"], "name": name, "status": "failed", "value": None, "unit": "",
            "share": None, "share_of": "", "message": " ".join(message.split())[:1000], "seconds": seconds}  # fmt: skip


def request_of(measurements: Sequence[dict[str, Any]], machine: dict[str, Any] | None, quick: bool,
               rates: dict[str, dict[str, float]]) -> str:  # fmt: skip
    """Returns the request as one line of JSON.

    Args:
      measurements: entries of the table, as dicts.
      machine: from `machine`; None = the process only reports it.
      quick: whether windows are short.
      rates: source -> peak rates; see `peaks`.
    """
    return json.dumps({"measurements": list(measurements), "machine": machine, "quick": quick, "rates": rates}) + "\n"


if __name__ == "__main__":
    serve()
