"""Training populations: the engine against PyTorch and naive JAX, flatness in members, devices, and whole jobs.

One interleaved comparison per case (Location MLP, digits CNN; 16 members, batch 64): all variants take turns in every
round, ratios are taken within a round, medians count. A baseline that knows threads is run with one thread and with
all, and quoted at its best. Targets hold for two cores of a CPU.
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
from .programs import Case, Engine, Problem
from .timing import Row, Times, Variant
from .workers import Worker

MEMBERS, FEW, MANY, QUICK_MANY = 16, 8, 128, 32
SCAN_STEPS = 2  # the scan over native convolutions is some 60 times slower; a few steps show its rate
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute")
# Least ratios to reach: PyTorch in four ways, naive JAX in two.
TARGETS = {
    "location": {"loader": 40.0, "memory": 4.0, "func": 3.0, "processes": 2.2},
    "digits": {"loader": 12.0, "memory": 2.0, "func": 2.2, "processes": 1.6, "scan": 40.0, "loop": 2.2},
}
LETTERS = {"location": "C1", "digits": "C2"}
FLATNESS, TWO_DEVICES, ROUNDING = 0.85, 1.6, 1e-5
BUSY = 0.85  # of the devices' cores: with less the numbers say little
Say = Callable[[str], None]


def run(quick: bool = False) -> list[Row]:
    """Runs the comparisons and the whole jobs.

    Args:
      quick: two short rounds, small jobs, under a minute; the whole takes some ten minutes on two cores.

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
    say = progress.Reporter().say
    if _entry.cores() != 2:
        say(f"targets are for 2 cores; this machine offers {_entry.cores()}")
    if not workers.installed():
        say("the PyTorch rows are left out: pip install torch to see them")
    rows = []
    for key, case in programs.CASES.items():
        rows += compare(key, case, quick, say)
    return rows + jobs.study_rows(quick, say) + jobs.size_rows(quick, say)


def compare(key: str, case: Case, quick: bool, say: Say) -> list[Row]:
    """All rows of one case from one set of interleaved rounds."""
    many = QUICK_MANY if quick else MANY
    say(f"{case.name}: building {many} members, compiling")
    problem = programs.build(case, many)
    engines = _engines(problem)
    name = f"{case.name}, N = {MEMBERS}: compiling the epoch, once"
    rows = [timing.value_row(name, [engines["engine"].compile_seconds], "s", case=key, members=MEMBERS)]
    rows += _sharding_rows(key, case, engines)
    variants = {name: _engine_variant(name, made) for name, made in engines.items()}
    variants |= _naive_variants(problem)
    count = 1 + _entry.cores() if workers.installed() else 0
    with workers.started(count) as pool:
        version = _load(pool, problem) if pool else ""
        # A busy machine makes PyTorch's own threads very slow, too slow for a quick look.
        threads = {1} if quick else {1, _entry.cores()}
        variants |= _torch_variants(pool, problem, 4 if quick else MEMBERS, sorted(threads))
        rounds, seconds = (2, 0.2) if quick else (5, 0.6)
        times = timing.interleave(variants, rounds, seconds, say)
    used, devices = timing.cores_used(times["engine"]), min(jax.local_device_count(), MEMBERS)
    if used < BUSY * devices:
        say(f"  a busy machine: {devices} devices had {used:.1f} cores' time; run this again when it is quiet")
    facts = {"case": key, "members": MEMBERS, "compile_seconds": engines["engine"].compile_seconds, "torch": version}
    facts["cores_used"] = used
    return _baseline_rows(key, case, times, facts) + _scaling_rows(case, many, times, facts) + rows


def _engines(problem: Problem) -> dict[str, Engine]:
    """The engine as a user gets it, on one device, on two, and with few and many members."""
    made = {
        "engine": programs.engine(problem, MEMBERS),
        "one device": programs.engine(problem, MEMBERS, devices=1),
        "few": programs.engine(problem, FEW),
        "many": programs.engine(problem, len(problem.role.member_ids)),
    }
    if jax.local_device_count() > 2:
        made["two devices"] = programs.engine(problem, MEMBERS, devices=2)
    return made


def _engine_variant(name: str, made: Engine) -> Variant:
    def call() -> float:
        next(made.epochs)
        return 0.0

    return Variant(f"jaxunlearn, {name}" if name != "engine" else "jaxunlearn", call, made.model_steps)


def _naive_variants(problem: Problem) -> dict[str, Variant]:
    """Naive JAX on the first members."""
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
    """The first members of a problem as the PyTorch processes read them."""
    inputs, labels = programs.network_inputs(problem)
    train = problem.role.experiment.settings.train
    recipe = {name: np.asarray(getattr(train, name)) for name in ("learning_rate", "momentum", "weight_decay")}
    weights = trees.named_leaves(trees.take(problem.initial.state.params, slice(members)))
    order = programs.batch_order(problem)[:members]
    return {"inputs": inputs, "labels": labels, "order": order, **recipe, **dict(weights)}


def _load(pool: list[Worker], problem: Problem) -> str:
    """All members into the first worker, and shares of them into the others."""
    case = torch_case(problem, MEMBERS)
    workers.load(pool[1:], case)
    return workers.load(pool[:1], case)


def _torch_variants(pool: list[Worker], problem: Problem, members: int, settings: list[int]) -> dict[str, Variant]:
    """PyTorch in four ways; `members`: models the sequential ways train per call, `settings`: numbers of threads."""
    if not pool:
        return {}
    cores = _entry.cores()
    shares = [min(members, len(range(i, MEMBERS, cores))) for i in range(cores)]

    def variant(name: str, chosen: list[Worker], way: str, threads: int, models: int) -> Variant:
        def call() -> float:
            return workers.run(chosen, way, threads, members)[1]

        return Variant(name, call, models * problem.job.steps)

    made = {
        "processes": variant(f"PyTorch in memory, {cores} processes of 1 thread", pool[1:], "memory", 1, sum(shares))
    }
    for threads in settings:
        label = f"{threads} thread" + "s" * (threads > 1)
        for way, name, models in (
            ("loader", "PyTorch with DataLoader, 2 workers", members),
            ("memory", "PyTorch in memory", members),
            ("func", "PyTorch torch.func vmap", MEMBERS),
        ):
            made[f"{way} {threads}"] = variant(f"{name}, {label}", pool[:1], way, threads, models)
    return made


def _baseline_rows(key: str, case: Case, times: dict[str, Times], facts: dict[str, Any]) -> list[Row]:
    """The engine over every baseline.

    Tensors in memory and torch.func are quoted at their best number of threads. The DataLoader has one row per number,
    with the target on the last: all cores, which is what a published script that sets nothing runs with.
    """
    rows = []
    for way in ("loader", "memory", "func", "processes", "scan", "loop"):
        keys = [name for name in times if name.partition(" ")[0] == way]
        settings = [times[name] for name in keys]
        quoted = settings if way == "loader" or not keys else [timing.fastest(times, keys)]
        letter = "C3" if way in ("scan", "loop") and way in TARGETS[key] else LETTERS[key]
        rates = {one.name: statistics.median(one.rates) for one in settings}
        for one in quoted:
            target = TARGETS[key].get(way) if one is quoted[-1] else None
            name = f"{case.name}, N = {MEMBERS}: over {one.name}"
            more = {"goal": letter, "baseline_rates": rates, **facts}
            rows.append(timing.ratio_row(name, times["engine"], one, target, **more))
    return rows


def _scaling_rows(case: Case, many: int, times: dict[str, Times], facts: dict[str, Any]) -> list[Row]:
    """Flatness in the number of members, and two devices over one."""
    devices = jax.local_device_count()
    name = f"{case.name}: rate at N = {many} over N = {FEW}"
    rows = [timing.ratio_row(name, times["many"], times["few"], FLATNESS, goal="C4", **facts)]
    if devices > 1:
        name = f"{case.name}, N = {MEMBERS}: 2 host devices over 1"
        here, baseline = times["engine" if devices == 2 else "two devices"], times["one device"]
        rows.append(timing.ratio_row(name, here, baseline, TWO_DEVICES, goal="C5", **facts))
    return rows


def collectives(text: str) -> int:
    """How often devices talk to each other in the text of a compiled program."""
    return len(re.findall(rf"\b(?:{'|'.join(COLLECTIVES)})(?:-start)?\(", text))


def _sharding_rows(key: str, case: Case, engines: dict[str, Engine]) -> list[Row]:
    """Difference between one device and several after the first epoch of each, and collectives in the program."""
    if jax.local_device_count() == 1:
        return []
    one, several = (population.host(next(engines[name].epochs)).state.params for name in ("one device", "engine"))
    differences = jax.tree.map(lambda a, b: np.max(np.abs(a - b)) / np.max(np.abs(a)), one, several)
    largest = float(max(jax.tree.leaves(differences)))
    found = collectives(engines["engine"].program.call.as_text())  # type: ignore[attr-defined]
    name = f"{case.name}, N = {MEMBERS}: {jax.local_device_count()} devices against 1, weights after one epoch"
    bound = 0.0 if key == "location" else ROUNDING
    facts = {"goal": "D1", "case": key, "members": MEMBERS}
    return [
        timing.value_row(name, [largest], "largest relative difference", target=bound, **facts),
        timing.value_row(f"{case.name}: collectives in the program", [found], "found", target=0, **facts),
    ]
