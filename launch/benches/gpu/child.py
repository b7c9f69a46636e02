"""One process of measurements, driven by the runner: a JSON request on stdin, one JSON line per row on stdout.

It imports what takes time at once and touches the device only when the request arrives, so that the next process can
get ready while this one measures. When its stdin ends, the runner has died: it ends too, and leaves the device.
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
    """Measures what the request asks for; the last line says that nothing is missing."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not mix with the answers

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
    """What this process runs on: device, versions, whether PyTorch is there to compare with."""
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
    """Emits the rows of one measurement; where it fails, a failed row for each that is missing, and goes on."""
    module, _, function = measurement["function"].partition(":")
    pace = clock.QUICK if request["quick"] else clock.FULL
    missing = list(measurement["names"])
    begun = time.perf_counter()
    try:
        found: Any = getattr(importlib.import_module(module), function)
        for row in _named(found(measurement["names"], pace=pace, **measurement["arguments"]), missing):
            now = time.perf_counter()
            whole = complete(row, measurement, request["rates"], now - begun)
            peaks.learn(request["rates"]["measured"], whole)
            emit(whole)
            begun = now
    except Exception as error:  # noqa: BLE001 - a row that fails is a finding; the rest goes on
        for name in missing:
            emit(failed(name, measurement, error, time.perf_counter() - begun))


def _named(rows: Iterator[Row], missing: list[str]) -> Iterator[Row]:
    for row in rows:
        missing.remove(row["name"])
        yield row


def complete(row: Row, measurement: dict[str, Any], rates: dict[str, dict[str, float]], seconds: float) -> Row:
    """The row with its section, status, share of the peak, and the seconds it took."""
    # The device's own rows are what the others are compared with; only the data sheet is above them.
    source = "data sheet" if measurement["section"] == 1 else "measured"
    whole = peaks.with_share(row, rates[source], source)
    return {"section": measurement["section"], "status": "ok", **whole, "seconds": seconds}


def failed(name: str, measurement: dict[str, Any], error: Exception | str, seconds: float) -> Row:
    """A row that says why there is no number."""
    message = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return {"section": measurement["section"], "name": name, "status": "failed", "value": None, "unit": "",
            "share": None, "share_of": "", "message": " ".join(message.split())[:1000], "seconds": seconds}  # fmt: skip


def request_of(measurements: Sequence[dict[str, Any]], machine: dict[str, Any] | None, quick: bool,
               rates: dict[str, dict[str, float]]) -> str:  # fmt: skip
    """The request as one line; machine None = only say what this process runs on."""
    return json.dumps({"measurements": list(measurements), "machine": machine, "quick": quick, "rates": rates}) + "\n"


if __name__ == "__main__":
    serve()
