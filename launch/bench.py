"""Measures speed and memory, and compares them with baselines.

    python -m launch.bench                                  lists the benches
    python -m launch.bench population conv                  runs two of them
    python -m launch.bench population --quick --out=rows.jsonl
    python -m launch.bench gpu --out=rows.jsonl --minutes=8 --data=cifar10.npz
    python -m launch.bench gpu --out=rows.jsonl --report    the table and a proposal of defaults, without measuring

Prints one line per row, the ratio (or value) first: median over rounds, then min and max, then the target and whether
it was met. With --out, appends one JSON object per row, with versions and device, to a file. `gpu` runs on any device,
appends each row at once, stops when its minutes are used, and continues there when called with the same file.
"""

# A bench is a function run(quick: bool) -> list of rows. A row is a dict with `name` and either `ratio` (speed, or
# time, relative to the baseline) or `value` and `unit`; where they apply: `low`, `high` (over rounds), `goal`,
# `sense`, `target`, `met`, `rate`, `baseline_rate`, `rate_unit`, `seconds`, `baseline_seconds`, `compile_seconds`,
# `program_bytes`, `peak_process_bytes`. The JSON line keeps all other keys.

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags

from jaxunlearn import errors, escapes, progress

from . import _entry
from .benches import lines
from .benches.timing import number

BENCHES = {
    "population": ".benches.population:run",
    "conv": ".benches.conv:run",
    "scores": ".benches.scores:run",
    "tokens": ".benches.tokens:run",
    "conformal": ".benches.conformal:run",
    "epsilon": ".benches.epsilon:run",
    "unlearn": ".benches.unlearn:run",
    "leaks": ".benches.leaks:run",
    "relearning": ".benches.relearning:run",
    "gpu": ".benches.gpu.runner:run",
}
ABOUT = {
    "population": "training populations: the engine against PyTorch and naive JAX; members, devices, whole jobs",
    "conv": "convolution forms under member mappings, relative to map + canonical (larger = slower)",
    "scores": "scores from logits on one core: against plain NumPy, seconds for all of them, memory",
    "tokens": "scores of 10,000 texts x 512 tokens on one core, and their signals: against loops and a pass per score",
    "conformal": "prediction sets of 100 models at 10 levels in one call: against loops over models and levels",
    "epsilon": "epsilon-hat and challenge score of 8 approaches on one core: seconds, and against published loops",
    "unlearn": "ten forget sets as one population: against ten whole processes, and against ten warm calls",
    "leaks": "420 models of Unlearning-Leaks as one population: against loops over scikit-learn and PyTorch",
    "relearning": "720 trials of the reminiscence attack as one population: against one trial after another",
    "gpu": "an accelerator in a few minutes: steps, groups of members, scoring, shares of its peak; resumable",
}
GPU_FLAGS = ("minutes", "data", "rows", "again", "report")
Row = dict[str, Any]


class BenchRequest(NamedTuple):
    """One parsed command line."""

    names: tuple[str, ...]
    quick: bool
    out: str
    flags: Any  # those of gpu


def define(values: flags.FlagValues) -> None:
    """Adds this launcher's own flags."""
    flags.DEFINE_bool("quick", False, "small sizes and few rounds: a check that it runs, no measurement",
                      flag_values=values)  # fmt: skip
    flags.DEFINE_string("out", "", "file to which one JSON object per row is appended", flag_values=values)
    flags.DEFINE_float("minutes", 8.0, "gpu: deadline", 0.1, 1440.0, flag_values=values)
    flags.DEFINE_string("data", "", "gpu: CIFAR-10 as .npz, for the accuracy of the fast recipe", flag_values=values)
    flags.DEFINE_string("rows", "", "gpu: measure only rows whose name contains this", flag_values=values)
    flags.DEFINE_bool(
        "again", False, "gpu: repeat rows that are in --out already; best with --rows", flag_values=values
    )
    flags.DEFINE_bool("report", False, "gpu: print the table of --out and a proposal of defaults; measure nothing",
                      flag_values=values)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Runs the launcher with the exit codes of all launchers: 0 done, 1 bug, 2 user error, 130 interrupted."""
    argv = list(sys.argv if argv is None else argv)
    if "--quick" not in argv:
        # Compile times are measured too, so the compilation cache is off unless the user has set one.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "")
    _entry.prepare_process()

    def work() -> None:
        request = parse(argv)
        if request is not None:
            command(request)

    return _entry.guarded(work)


def parse(argv: list[str]) -> BenchRequest | None:
    """Parses a command line; returns None for --help.

    Raises:
      ConfigError: unknown flag or bench.
    """
    values = flags.FlagValues()
    define(values)
    flags.DEFINE_bool("help", False, "show this help", short_name="h", flag_values=values)
    if any(argument in ("-h", "--help") for argument in argv[1:]):
        print(_entry.as_called(f"{(__doc__ or '').strip()}\n\n{listing()}\n\nFlags:{values.get_help()}"))
        return None
    try:
        names = values(argv)[1:]
    except flags.Error as error:
        raise errors.ConfigError(str(error).splitlines()[0]) from error
    for name in names:
        if name not in BENCHES:
            raise errors.unknown("bench", name, BENCHES)
    gpu_flags = [name for name in GPU_FLAGS if values[name].present]
    if gpu_flags and "gpu" not in names:
        raise errors.ConfigError(
            f"--{gpu_flags[0]} belongs to the bench gpu. Call python -m launch.bench gpu --{gpu_flags[0]}=..."
        )
    return BenchRequest(tuple(names), values["quick"].value, values["out"].value, values)


def listing() -> str:
    """Returns the benches with one line each."""
    width = max(map(len, BENCHES))
    return "\n".join(f"{name:{width}}  {ABOUT.get(name, '')}".rstrip() for name in BENCHES)


def command(request: BenchRequest) -> None:
    """Runs the benches, or lists them if none is named."""
    if not request.names:
        print(listing())
        return
    if request.out and not request.flags["report"].value:
        lines.append(request.out, [])  # fails before, not after, ten minutes of measuring if it cannot be written
    for name in request.names:
        if name == "gpu":
            _gpu(request)
            continue
        rows = _function(BENCHES[name])(request.quick)
        note = " (quick: sizes and rounds are too small to conclude from)" if request.quick else ""
        print(f"\n{name}{note}", *map(line, rows), sep="\n", flush=True)
        if request.out:
            lines.append(request.out, [as_json(name, request.quick, row) for row in rows])


def _gpu(request: BenchRequest) -> None:
    """Runs the gpu bench, which appends rows to its file as they arrive and measures only missing ones."""
    from .benches.gpu import report, runner

    options = {name: request.flags[name].value for name in GPU_FLAGS}
    if options.pop("report"):
        machines = report.by_machine(runner.read(request.out), request.quick)
        if not machines:
            raise errors.ConfigError("--report needs --out=FILE with rows of this bench" + " (--quick)" * request.quick)
        for rows in machines:
            print(report.markdown(rows), report.proposal(rows), sep="\n\n", end="\n\n")
        return
    rows = _function(BENCHES["gpu"])(runner.Options(request.quick, request.out, **options))
    print("\ngpu\n" + report.text(rows), flush=True)


def _function(location: str) -> Callable[[Any], list[Row]]:
    module, _, name = location.partition(":")
    return getattr(importlib.import_module(module, __package__), name)


def line(row: Row) -> str:
    """Returns a row as text: ratio or value, min and max over rounds, target, name, and both sides."""
    value, unit = (row["ratio"], "x") if "ratio" in row else (row["value"], "")
    spread = f"({number(row['low'])} .. {number(row['high'])})" if row.get("rounds", 1) > 1 and "low" in row else ""
    target = ""
    if "target" in row:
        target = f"ok {row['sense']} {number(row['target'])}: {'met' if row['met'] else 'NOT MET'}"
    name = " ".join(filter(None, [row.get("goal", ""), row["name"]]))
    return f"{number(value) + unit:>9} {spread:17} {target:19} {name}{_sides(row, value)}".rstrip()


def _sides(row: Row, value: float) -> str:
    """Returns details of a row as text: rates or seconds of both sides, compile time, memory."""
    notes = [f"{row['unit']}"] if row.get("unit") else []
    if "rate" in row:
        notes.append(f"{row['rate']:,.0f} against {row['baseline_rate']:,.0f} {row['rate_unit']}")
    elif "seconds" in row:
        baseline = row.get("baseline_seconds", row["seconds"] / value)
        notes.append(f"{_seconds(row['seconds'])} against {_seconds(baseline)}")
    if "cpu_ratio" in row:
        notes.append(f"CPU time {number(row['cpu_ratio'])}x")
    if row.get("compile_seconds") is not None and "seconds" not in row:
        notes.append(f"compiling {row['compile_seconds']:.1f} s")
    for key, name in (("program_bytes", "program"), ("peak_process_bytes", "process")):
        if key in row:
            notes.append(f"{name} {progress.size(row[key])}")
    return f"  [{'; '.join(notes)}]" if notes else ""


def _seconds(seconds: float) -> str:
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1 or unit == "us":
            return f"{seconds * factor:.3g} {unit}"
    return ""


def as_json(bench: str, quick: bool, row: Row) -> str:
    """Returns a row as one line of JSON, with versions and device."""
    from jaxunlearn import store

    versions = store.versions()
    machine = {"device": versions["device"], "cores": _entry.cores(), "versions": versions}
    return json.dumps(escapes.strict_json({"bench": bench, "quick": quick, **row, **machine}))


if __name__ == "__main__":
    sys.exit(main())
