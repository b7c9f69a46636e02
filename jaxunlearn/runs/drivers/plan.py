"""What a command would train, measured on this machine without training: members, steps, memory, time, disk.

One plan for every verb: the roles it needs, shadows included, and its unlearning methods. One epoch program is
compiled, which says what memory it takes, and a few of its steps are timed; the rest is arithmetic.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxunlearn import population, progress, records
from jaxunlearn.population import capacity, executor, training
from jaxunlearn.report import tables
from jaxunlearn.runs import experiments, roles, splits
from jaxunlearn.runs.execution import scratch
from jaxunlearn.runs.roles import audited, shadow, unlearned, variants
from jaxunlearn.runs.verbs import account
from jaxunlearn.unlearn.engine import costs

TIMED_STEPS = 3


class RolePlan(NamedTuple):
    """What one role would take.

    Attributes:
      name: of the role; members: M.
      epochs: of training; of a method, passes over its retained rows (a gradient per row counts 1).
      rows: of the largest member.
      model_steps: of all members together.
      disk_bytes: weights, rolling checkpoints and logits.
      seconds: estimated.
    """

    name: str
    members: int
    epochs: float
    rows: int
    model_steps: int
    disk_bytes: int
    seconds: float


class Plan(NamedTuple):
    """What a command would do.

    Attributes:
      roles: in the order in which they are trained.
      parameters: of one model; mapping: how members are mapped onto the machine.
      chunk: members trained at once, of the role with the most members.
      program_bytes: of that program per device; budget_bytes: what one device may give.
      files: what is written.
    """

    roles: tuple[RolePlan, ...]
    parameters: int
    mapping: str
    chunk: int
    program_bytes: int
    budget_bytes: int
    files: tuple[str, ...]


def make(
    experiment: experiments.Experiment, names: tuple[str, ...] = (), asked: tuple[variants.MethodConfig, ...] = ()
) -> Plan:  # fmt: skip
    """The plan of the shadow models, further roles and unlearning methods.

    Args:
      experiment: of checked settings.
      names: of `audited.NAMES`; those that the settings do not ask for are left out.
      asked: unlearning methods.

    Raises:
      DeviceError: not even one member fits into memory.
    """
    split = splits.draw(experiment)
    names = tuple(name for name in audited.wanted(experiment.settings) if name in names)
    specs = [shadow.describe(experiment, split), *(audited.describe(experiment, split, name) for name in names)]
    typical = next((place for place, spec in enumerate(specs) if spec.name == "retrained"), 0)

    def unlearning(rate: _Rate) -> list[RolePlan]:
        return [_unlearning(unlearned.describe(experiment, split, variant), split, rate) for variant in asked]

    return of_roles(specs, typical, unlearning)


def of_roles(
    specs: list[roles.RoleSpec], typical: int = 0, more: Callable[["_Rate"], list[RolePlan]] = lambda rate: [],
    make_job: scratch.MakeJob = scratch.make_job,
) -> Plan:  # fmt: skip
    """The plan of some roles.

    Args:
      specs: at least one.
      typical: place of the one whose rate is measured.
      more: rate -> plans of what is no training from scratch.
      make_job: what training some members of a role is.

    Raises:
      DeviceError: not even one member fits into memory.
    """
    experiment = specs[0].experiment
    fitted, member_mapping = _fit(max(specs, key=lambda spec: len(spec.membership)), make_job)
    rate = _measured_rate(specs[typical], make_job)
    found = [*(_planned(spec, rate) for spec in specs), *more(rate)]
    return Plan(
        tuple(found),
        experiment.cost.parameters,
        f"{member_mapping.kind}, conv {experiment.mapping_policy.conv}, {member_mapping.mesh.size} device(s)",
        fitted.chunk,
        fitted.program_bytes,
        fitted.budget_bytes,
        tuple(f"logits/{role.name}.npy  populations/{role.name}/" for role in found),
    )


class _Rate(NamedTuple):
    """Model-steps per second with so many members side by side."""

    steps: float
    at_once: int

    def seconds(self, steps: int, members: int) -> float:
        """Seconds for so many model-steps; fewer members than run side by side leave devices idle."""
        return steps / (self.steps * min(1.0, members / self.at_once))


def _planned(spec: roles.RoleSpec, rate: _Rate) -> RolePlan:
    """The plan of a role that is trained on its rows."""
    train, rows = spec.experiment.settings.train, spec.membership.sum(1)
    steps = roles.model_steps(spec, spec.member_ids) * train.epochs
    seconds = rate.seconds(steps, len(rows))
    return RolePlan(spec.name, len(rows), train.epochs, int(rows.max()), steps, roles.disk_bytes(spec), seconds)


def _unlearning(spec: roles.RoleSpec, split: records.Split, rate: _Rate) -> RolePlan:
    """The plan of an unlearning method: its cost in passes over the retained rows, at the rate of training."""
    assert spec.method is not None
    experiment, method = spec.experiment, spec.method
    forget = int(np.asarray(split.forget).sum(1).mean())
    retain = len(np.asarray(split.target)) - forget
    sizes = account.sizes_of(experiment, method, forget, retain, account.has_statistics(experiment))
    epochs = costs.retain_epochs(method, sizes)
    trained = unlearned.parts(spec)
    count = len(trained.membership)
    steps = int(np.ceil(epochs * -(-sizes.retain // experiment.settings.train.batch))) * count
    seconds = rate.seconds(steps, count)
    return RolePlan(spec.name, count, epochs, sizes.retain, steps, roles.disk_bytes(trained), seconds)


def _fit(spec: roles.RoleSpec, make_job: scratch.MakeJob) -> tuple[capacity.Fit, population.MemberMapping]:
    """How many members go at once, and what their program takes."""
    experiment, count = spec.experiment, len(spec.membership)
    engine = experiment.settings.engine
    member_mapping = experiments.member_mapping(experiment, min(count, engine.chunk or count))

    def need(members: int) -> int:
        job = make_job(spec, np.resize(spec.member_ids, members), (0, 0))
        return capacity.program_bytes(
            training.compile_epoch(job, experiments.device_dataset(experiment), member_mapping).memory
        )

    budget = capacity.budget(list(member_mapping.mesh.devices.flat), engine.memory)
    if engine.chunk:
        chunk = min(engine.chunk, count)
        return capacity.Fit(chunk, need(chunk), budget), member_mapping
    return capacity.fit(need, count, executor.multiple(member_mapping), budget), member_mapping


def _measured_rate(spec: roles.RoleSpec, make_job: scratch.MakeJob) -> _Rate:
    """The rate of one group on every device, from a few steps after a warm-up."""
    member_mapping = experiments.member_mapping(spec.experiment, len(spec.membership))
    ids = np.resize(spec.member_ids, executor.multiple(member_mapping))
    job = make_job(spec, ids, (0, 0))._replace(steps=TIMED_STEPS)
    data = executor.place(experiments.device_dataset(spec.experiment), member_mapping, shared=True)
    began = elapsed = 0.0
    for report in population.train(job, data, 2, member_mapping):
        elapsed, began = time.monotonic() - began, time.monotonic()
        del report
    return _Rate(TIMED_STEPS * len(ids) / elapsed, len(ids))


def text(plan: Plan) -> str:
    """A plan as a table."""
    rows = [
        (
            role.name,
            f"{role.members} member(s) of {role.epochs:.4g} epochs, {role.model_steps:,} model-steps, "
            f"about {progress.duration(role.seconds)}, {progress.size(role.disk_bytes)}",
        )
        for role in plan.roles
    ]
    steps = sum(role.model_steps for role in plan.roles)
    seconds = progress.duration(sum(role.seconds for role in plan.roles))
    disk = progress.size(sum(role.disk_bytes for role in plan.roles))
    members = max(role.members for role in plan.roles)
    chunks = -(-members // plan.chunk)
    memory = f"{progress.size(plan.program_bytes)} of {progress.size(plan.budget_bytes)} per device"
    return tables.pairs([
        *rows,
        ("one model", f"{plan.parameters:,} parameters; {plan.mapping}"),
        ("memory", f"{memory}, {members} members in {chunks} chunk(s) of up to {plan.chunk}"),
        ("time", f"about {seconds} for {steps:,} model-steps ({TIMED_STEPS} steps timed here)"),
        ("disk", f"about {disk}; what is finished already is reused"),
        ("files", "\n" + "\n".join(f"  {name}" for name in plan.files)),
    ])  # fmt: skip
