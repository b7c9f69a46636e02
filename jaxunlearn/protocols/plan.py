"""What a run would do, measured on this machine without training: members, steps, memory, time, disk."""

import time
from typing import NamedTuple

import numpy as np

from jaxunlearn import population, progress, records
from jaxunlearn.population import capacity, lift, training
from jaxunlearn.protocols import roles, splits, target_roles, workbench
from jaxunlearn.report import tables
from jaxunlearn.settings import Settings, TrainSettings


class Plan(NamedTuple):
    """What a run would do; printed by --dry_run."""

    members: int
    rows_per_member: int
    model_steps: int
    parameters: int
    mapping: str
    chunk: int
    program_bytes: int
    budget_bytes: int
    disk_bytes: int
    estimated_seconds: float
    files: tuple[str, ...]


def make(settings: Settings) -> Plan:
    """What `run` would do, measured on this machine without training: compiles, and times a few steps of one group."""
    bench = workbench.prepare(settings)
    split = splits.draw(bench)
    count = settings.shadows.count
    role = _unclaimed(bench, split)
    job = roles.make_job(bench, role, role.member_ids)
    lifting = workbench.lifting(bench, min(count, settings.engine.chunk or count))

    def need(members: int) -> int:
        ids = np.resize(role.member_ids, members)
        program = training.compile_epoch(roles.make_job(bench, role, ids), workbench.resident(bench), lifting)
        return capacity.program_bytes(program.memory)

    budget = capacity.budget(list(lifting.mesh.devices.flat), settings.engine.memory)
    if settings.engine.chunk:
        chunk = min(settings.engine.chunk, count)
        fitted = capacity.Fit(chunk, need(chunk), budget)
    else:
        fitted = capacity.fit(need, count, lift.multiple(lifting), budget)
    rows = np.asarray(job.streams["train"].num_rows)
    steps = population.model_steps(rows, settings.train.batch) * settings.train.epochs
    return Plan(
        members=count,
        rows_per_member=int(rows.max()),
        model_steps=steps,
        parameters=bench.cost.parameters,
        mapping=f"{lifting.mapping}, conv {bench.policy.conv}, {lifting.mesh.size} device(s)",
        chunk=fitted.chunk,
        program_bytes=fitted.program_bytes,
        budget_bytes=budget,
        disk_bytes=disk_bytes(bench, len(splits.recorded_rows(split))),
        estimated_seconds=steps / _measured_rate(bench, role, lifting),
        files=("run.json", "log.jsonl", "split.npz", "populations/shadow/", "logits/shadow.npy", "summary.json",
               "report/shadows_findings.json", "report/shadows.svg"),
    )  # fmt: skip


def _unclaimed(bench: workbench.Workbench, split: records.Split) -> roles.Role:
    """The shadow role of a dry run: drawn afresh, nothing stored."""
    ids = np.arange(bench.settings.shadows.count, dtype=np.int32)

    def membership(member_ids: np.ndarray) -> np.ndarray:
        return splits.draw_members(bench, split, member_ids)

    return roles.Role("shadow", ids, membership, lambda ids: np.ones(len(ids), np.float32), membership, "")


def _measured_rate(bench: workbench.Workbench, role: roles.Role, lifting: population.Lifting, steps: int = 3) -> float:
    """Model-steps per second of one group of members on every device, from a few timed steps after a warm-up."""
    ids = np.resize(role.member_ids, lift.multiple(lifting))
    job = roles.make_job(bench, role, ids)._replace(steps=steps)
    data = lift.place(workbench.resident(bench), lifting, shared=True)
    began = 0.0
    for report in population.train(job, data, 2, lifting):
        elapsed, began = time.monotonic() - began, time.monotonic()
        del report
    return steps * len(ids) / elapsed


def disk_bytes(bench: workbench.Workbench, num_rows: int) -> int:
    """Bytes a run writes: variables of every member, one rolling checkpoint, and the logits."""
    settings = bench.settings
    kept = 1 + len(settings.train.snapshots)
    weights = settings.shadows.count * bench.cost.parameters * 4 * (kept + 3)
    itemsize = np.dtype(settings.engine.logits_dtype).itemsize
    views = 1 + settings.shadows.views + (settings.compat.records == "faithful")
    return weights + views * settings.shadows.count * num_rows * bench.dataset.num_classes * itemsize


def text(planned: Plan) -> str:
    """A plan as a table."""
    chunks = -(-planned.members // planned.chunk)
    rows = [
        ("members", f"{planned.members} of {planned.parameters:,} parameters, {planned.rows_per_member:,} rows each"),
        ("model-steps", f"{planned.model_steps:,}"),
        ("mapping", planned.mapping),
        ("chunks", f"{chunks} of up to {planned.chunk} members"),
        ("memory", f"{progress.size(planned.program_bytes)} of {progress.size(planned.budget_bytes)} per device"),
        ("time", f"about {progress.duration(planned.estimated_seconds)} of training (3 steps timed here)"),
        ("disk", f"about {progress.size(planned.disk_bytes)}"),
        ("files", "\n" + "\n".join(f"  {name}" for name in planned.files)),
    ]
    return tables.pairs(rows)


class RolePlan(NamedTuple):
    """What one role of the audited side would cost."""

    name: str
    members: int
    epochs: int
    model_steps: int
    disk_bytes: int
    seconds: float


def make_targets(settings: Settings) -> tuple[RolePlan, ...]:
    """What `launch.targets` would do, the shadows included; the rate is measured once, on exact retrains.

    Raises:
      ConfigError, DataError: what the run itself would refuse.
    """
    bench = workbench.prepare(settings)
    target_roles.check(bench)
    split = splits.draw(bench)
    wanted = [target_roles.describe(bench, split, name) for name in target_roles.wanted(settings)]
    retrained = next(target for target in wanted if target.name == "retrained")
    lifting = workbench.lifting(retrained.bench, len(retrained.member))
    rate = _measured_rate(retrained.bench, target_roles.trainable(retrained), lifting)
    at_once = lift.multiple(lifting)

    def planned(name: str, train: TrainSettings, rows: np.ndarray, disk: int) -> RolePlan:
        steps = population.model_steps(rows, train.batch) * train.epochs
        share = min(1.0, len(rows) / at_once)  # fewer members than run side by side leave devices idle
        return RolePlan(name, len(rows), train.epochs, steps, disk, steps / (rate * share))

    shadow = splits.draw_members(bench, split, np.arange(settings.shadows.count)).sum(1)
    disk = disk_bytes(bench, len(splits.recorded_rows(split)))
    return (
        planned("shadow", settings.train, shadow, disk),
        *[
            planned(target.name, target.bench.settings.train, target.member.sum(1), target_roles.disk_bytes(target))
            for target in wanted
        ],
    )


def targets_text(planned: tuple[RolePlan, ...]) -> str:
    """The plan of all roles as a table."""
    rows = [
        (
            one.name,
            f"{one.members} member(s) of {one.epochs} epochs, {one.model_steps:,} model-steps, "
            f"about {progress.duration(one.seconds)}, {progress.size(one.disk_bytes)}",
        )
        for one in planned
    ]
    steps, disk = sum(one.model_steps for one in planned), sum(one.disk_bytes for one in planned)
    seconds = sum(one.seconds for one in planned)
    total = f"{steps:,} model-steps, about {progress.duration(seconds)} of training (3 steps timed here)"
    files = "\n" + "\n".join(f"  logits/{one.name}.npy  populations/{one.name}/" for one in planned)
    return tables.pairs([
        *rows, ("in all", f"{total}, about {progress.size(disk)}; what is finished already is reused"),
        ("files", f"{files}\n  targets.json"),
    ])  # fmt: skip
