"""Training populations: the engine against PyTorch and naive JAX, flatness in members, devices, and whole jobs.

One interleaved comparison per case (Location MLP, digits CNN; 16 members, batch 64): all variants take turns in every
round, ratios are taken within a round, medians count. A baseline with threads is run with one thread and with all, and
quoted at its best. Targets are for two cores of a CPU.
"""

import re
import statistics
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxunlearn import errors, population, progress, trees

from .. import _entry
from . import jobs, programs, timing, workers
from .programs import BenchProblem, Engine, Problem
from .timing import Row, Times, Variant
from .workers import Worker

MEMBERS, FEW, MANY, QUICK_MANY = 16, 8, 128, 32
SCAN_STEPS = 2  # the scan over native convolutions is about 60 times slower; a few steps show its rate
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute")
# Ratios to reach: PyTorch in four ways, naive JAX in two.
TARGETS = {
    "location": {"loader": 40.0, "memory": 4.0, "func": 3.0, "processes": 2.2},
    "digits": {"loader": 12.0, "memory": 2.0, "func": 2.2, "processes": 1.6, "scan": 40.0, "loop": 2.2},
}
LETTERS = {"location": "C1", "digits": "C2"}
FLATNESS, TWO_DEVICES, ROUNDING = 0.85, 1.6, 1e-5
BUSY = 0.85  # fraction of the devices' cores: below it the machine was busy and the numbers are unreliable
Say = Callable[[str], None]


def run(quick: bool = False) -> list[Row]:
    """Runs the comparisons and the whole jobs.

    Args:
      quick: two short rounds, small jobs, under a minute; otherwise about ten minutes on two cores.

    Returns:
      Rows as `launch.bench` describes them.

    Raises:
      DeviceError: not on a CPU.
    """
    if jax.default_backend() != "cpu":
        raise errors.DeviceError(
            f"bench 'population' compares programs on the CPU, but JAX runs on {jax.default_backend()!r} here. "
            "Run it again with JAX_PLATFORMS=cpu."
        )
    say = progress.Reporter().log
    if _entry.cores() != 2:
        say(f"targets are for 2 cores; this machine offers {_entry.cores()}")
    if not workers.installed():
        say("the PyTorch rows are left out: pip install torch to see them")
    rows = []
    for key, case in programs.CASES.items():
        rows += compare(key, case, quick, say)
    return rows + jobs.study_rows(quick, say) + jobs.size_rows(quick, say)


def compare(key: str, case: BenchProblem, quick: bool, say: Say) -> list[Row]:
    """Measures all rows of one case in one set of interleaved rounds.

    Args:
      key: of the case in CASES and TARGETS.
      case: data and network.
      quick: short rounds and few members.
      say: takes a line of progress.
    """
    many = QUICK_MANY if quick else MANY
    say(f"{case.name}: building {many} members, compiling")
    problem = programs.build(case, many)
    engines = _engines(problem)
    name = f"{case.name}, N = {MEMBERS}: compiling the epoch, once"
    rows = [timing.value_row(name, [engines["engine"].compile_seconds], "s", case=key, members=MEMBERS)]
    rows += _sharding_rows(key, case, engines)
    variants = {name: _engine_variant(name, engine) for name, engine in engines.items()}
    variants |= _naive_variants(problem)
    count = 1 + _entry.cores() if workers.installed() else 0
    with workers.started(count) as pool:
        version = _load(pool, problem) if pool else ""
        # On a busy machine PyTorch's own threads are too slow for a quick run.
        threads = {1} if quick else {1, _entry.cores()}
        variants |= _torch_variants(pool, problem, 4 if quick else MEMBERS, sorted(threads))
        rounds, seconds = (2, 0.2) if quick else (5, 0.6)
        times = timing.interleave(variants, rounds, seconds, say)
    cores_used, devices = timing.cores_used(times["engine"]), min(jax.local_device_count(), MEMBERS)
    if cores_used < BUSY * devices:
        say(f"  a busy machine: {devices} devices had {cores_used:.1f} cores' time; run this again when it is quiet")
    facts = {"case": key, "members": MEMBERS, "compile_seconds": engines["engine"].compile_seconds, "torch": version}
    facts["cores_used"] = cores_used
    return _baseline_rows(key, case, times, facts) + _scaling_rows(case, many, times, facts) + rows


def _engines(problem: Problem) -> dict[str, Engine]:
    """Builds the engine as a user gets it, on one device, on two, and with few and many members."""
    engines = {
        "engine": programs.engine(problem, MEMBERS),
        "one device": programs.engine(problem, MEMBERS, devices=1),
        "few": programs.engine(problem, FEW),
        "many": programs.engine(problem, len(problem.role.member_ids)),
    }
    if jax.local_device_count() > 2:
        engines["two devices"] = programs.engine(problem, MEMBERS, devices=2)
    return engines


def _engine_variant(name: str, engine: Engine) -> Variant:
    def call() -> float:
        next(engine.epochs)
        return 0.0

    return Variant(f"jaxunlearn, {name}" if name != "engine" else "jaxunlearn", call, engine.model_steps)


def _naive_variants(problem: Problem) -> dict[str, Variant]:
    """Builds naive JAX on the first members."""
    few = problem._replace(initial=trees.take(problem.initial, slice(MEMBERS)))
    order = programs.batch_order(problem)[:MEMBERS]
    start = order[:, :SCAN_STEPS]
    scan, loop = programs.naive_scan(few, start), programs.naive_loop(few)

    def over(epoch: Callable[[np.ndarray], Any], order: np.ndarray) -> Callable[[], float]:
        def call() -> float:
            epoch(order)
            return 0.0

        return call

    return {
        "scan": Variant("naive JAX, scan over vmapped members", over(scan, start), start[..., 0].size),
        "loop": Variant("naive JAX, jitted step in a Python loop", over(loop, order), order[..., 0].size),
    }


def torch_case(problem: Problem, members: int) -> dict[str, np.ndarray]:
    """Returns the first members of a problem as arrays for the PyTorch processes."""
    inputs, labels = programs.network_inputs(problem)
    train = problem.role.experiment.settings.train
    recipe = {name: np.asarray(getattr(train, name)) for name in ("learning_rate", "momentum", "weight_decay")}
    weights = trees.named_leaves(trees.take(problem.initial.state.params, slice(members)))
    order = programs.batch_order(problem)[:members]
    return {"inputs": inputs, "labels": labels, "order": order, **recipe, **dict(weights)}


def _load(pool: list[Worker], problem: Problem) -> str:
    """Loads all members into the first worker, and shares of them into the others; returns PyTorch's version."""
    case = torch_case(problem, MEMBERS)
    workers.load(pool[1:], case)
    return workers.load(pool[:1], case)


def _torch_variants(pool: list[Worker], problem: Problem, members: int, settings: list[int]) -> dict[str, Variant]:
    """Builds PyTorch in four ways.

    `members`: number of models that the sequential ways train per call; `settings`: numbers of threads.
    """
    if not pool:
        return {}
    cores = _entry.cores()
    shares = [min(members, len(range(i, MEMBERS, cores))) for i in range(cores)]

    def variant(name: str, group: list[Worker], way: str, threads: int, models: int) -> Variant:
        def call() -> float:
            return workers.run(group, way, threads, members)[1]

        return Variant(name, call, models * problem.job.steps)

    variants = {
        "processes": variant(f"PyTorch in memory, {cores} processes of 1 thread", pool[1:], "memory", 1, sum(shares))
    }
    for threads in settings:
        label = f"{threads} thread" + "s" * (threads > 1)
        for way, name, models in (
            ("loader", "PyTorch with DataLoader, 2 workers", members),
            ("memory", "PyTorch in memory", members),
            ("func", "PyTorch torch.func vmap", MEMBERS),
        ):
            variants[f"{way} {threads}"] = variant(f"{name}, {label}", pool[:1], way, threads, models)
    return variants


def _baseline_rows(key: str, case: BenchProblem, times: dict[str, Times], facts: dict[str, Any]) -> list[Row]:
    """Returns the rows of the engine over every baseline.

    Tensors in memory and torch.func are quoted at their best number of threads. The DataLoader has one row per number,
    with the target on the last: all cores, the default of published scripts.
    """
    rows = []
    for way in ("loader", "memory", "func", "processes", "scan", "loop"):
        keys = [name for name in times if name.partition(" ")[0] == way]
        settings = [times[name] for name in keys]
        quoted = settings if way == "loader" or not keys else [timing.fastest(times, keys)]
        letter = "C3" if way in ("scan", "loop") and way in TARGETS[key] else LETTERS[key]
        rates = {baseline.name: statistics.median(baseline.rates) for baseline in settings}
        for baseline in quoted:
            target = TARGETS[key].get(way) if baseline is quoted[-1] else None
            name = f"{case.name}, N = {MEMBERS}: over {baseline.name}"
            facts_of_row = {"goal": letter, "baseline_rates": rates, **facts}
            rows.append(timing.ratio_row(name, times["engine"], baseline, target, **facts_of_row))
    return rows


def _scaling_rows(case: BenchProblem, many: int, times: dict[str, Times], facts: dict[str, Any]) -> list[Row]:
    """Returns the rows of many members over few, and of two devices over one."""
    devices = jax.local_device_count()
    name = f"{case.name}: rate at N = {many} over N = {FEW}"
    rows = [timing.ratio_row(name, times["many"], times["few"], FLATNESS, goal="C4", **facts)]
    if devices > 1:
        name = f"{case.name}, N = {MEMBERS}: 2 host devices over 1"
        here, baseline = times["engine" if devices == 2 else "two devices"], times["one device"]
        rows.append(timing.ratio_row(name, here, baseline, TWO_DEVICES, goal="C5", **facts))
    return rows


def collectives(text: str) -> int:
    """Counts the collective operations in the text of a compiled program."""
    return len(re.findall(rf"\b(?:{'|'.join(COLLECTIVES)})(?:-start)?\(", text))


def _sharding_rows(key: str, case: BenchProblem, engines: dict[str, Engine]) -> list[Row]:
    """Compares one device with several after the first epoch of each, and counts collectives in the program."""
    if jax.local_device_count() == 1:
        return []
    single, multiple = (population.host(next(engines[name].epochs)).state.params for name in ("one device", "engine"))
    differences = jax.tree.map(lambda a, b: np.max(np.abs(a - b)) / np.max(np.abs(a)), single, multiple)
    largest = float(max(jax.tree.leaves(differences)))
    num_collectives = collectives(engines["engine"].program.call.as_text())  # type: ignore[attr-defined]
    name = f"{case.name}, N = {MEMBERS}: {jax.local_device_count()} devices against 1, weights after one epoch"
    bound = 0.0 if key == "location" else ROUNDING
    facts = {"goal": "D1", "case": key, "members": MEMBERS}
    return [
        timing.value_row(name, [largest], "largest relative difference", target=bound, **facts),
        timing.value_row(f"{case.name}: collectives in the program", [num_collectives], "found", target=0, **facts),
    ]
