"""The plan of a dry run, measured on this machine without training: members, steps, memory, time, disk.

The same for every verb: the roles it needs, shadows included, and its unlearning methods. One epoch program is
compiled, which gives its memory, and a few of its steps are timed; the rest is arithmetic.
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
from jaxunlearn.runs.roles import audited_models, shadow, unlearned_models, variants
from jaxunlearn.runs.verbs import account
from jaxunlearn.unlearn.engine import costs

TIMED_STEPS = 3


class RolePlan(NamedTuple):
    """The estimated cost of one role.

    Attributes:
      name: of the role.
      members: M.
      epochs: of training; for a method, passes over its retained rows (one gradient per row = 1).
      rows: of the member with the most rows.
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
    """The plan of a command.

    Attributes:
      roles: in the order in which they are trained.
      parameters: of one model.
      mapping: how members are mapped onto the machine.
      chunk: members trained at once, of the role with the most members.
      program_bytes: of that program per device.
      budget_bytes: available per device.
      files: that are written.
    """

    roles: tuple[RolePlan, ...]
    parameters: int
    mapping: str
    chunk: int
    program_bytes: int
    budget_bytes: int
    files: tuple[str, ...]


def make(
    experiment: experiments.Experiment, names: tuple[str, ...] = (), configs: tuple[variants.MethodConfig, ...] = ()
) -> Plan:  # fmt: skip
    """Returns the plan of the shadow models, further roles and unlearning methods.

    Args:
      experiment: of checked settings.
      names: of `audited_models.NAMES`; those that the settings do not request are left out.
      configs: unlearning methods.

    Raises:
      DeviceError: not even one member fits into memory.
    """
    split = splits.draw(experiment)
    names = tuple(name for name in audited_models.requested_roles(experiment.settings) if name in names)
    specs = [shadow.describe(experiment, split), *(audited_models.describe(experiment, split, name) for name in names)]
    typical = next((index for index, spec in enumerate(specs) if spec.name == "retrained"), 0)

    def unlearning_plans(rate: _Rate) -> list[RolePlan]:
        return [
            _unlearning_plan(unlearned_models.describe(experiment, split, variant), split, rate) for variant in configs
        ]

    return of_roles(specs, typical, unlearning_plans)


def of_roles(
    specs: list[roles.RoleSpec], typical: int = 0, more_plans: Callable[["_Rate"], list[RolePlan]] = lambda rate: [],
    make_job: scratch.MakeJob = scratch.make_job,
) -> Plan:  # fmt: skip
    """Returns the plan of some roles.

    Args:
      specs: at least one.
      typical: index of the role whose rate is measured.
      more_plans: rate -> plans of roles that are not trained from scratch.
      make_job: returns the training job of some members of a role.

    Raises:
      DeviceError: not even one member fits into memory.
    """
    experiment = specs[0].experiment
    chunk_fit, member_mapping = _chunk_fit(max(specs, key=lambda spec: len(spec.membership)), make_job)
    rate = _measure_rate(specs[typical], make_job)
    role_plans = [*(_training_plan(spec, rate) for spec in specs), *more_plans(rate)]
    return Plan(
        tuple(role_plans),
        experiment.cost.parameters,
        f"{member_mapping.kind}, conv {experiment.mapping_policy.conv}, {member_mapping.mesh.size} device(s)",
        chunk_fit.chunk,
        chunk_fit.program_bytes,
        chunk_fit.budget_bytes,
        tuple(f"logits/{role.name}.npy  populations/{role.name}/" for role in role_plans),
    )


class _Rate(NamedTuple):
    """Model-steps per second with `at_once` members side by side."""

    steps: float
    at_once: int

    def seconds(self, steps: int, members: int) -> float:
        """Returns the seconds for `steps` model-steps; with fewer members than `at_once`, devices are idle."""
        return steps / (self.steps * min(1.0, members / self.at_once))


def _training_plan(spec: roles.RoleSpec, rate: _Rate) -> RolePlan:
    """Returns the plan of a role that is trained on its rows."""
    train, rows = spec.experiment.settings.train, spec.membership.sum(1)
    steps = roles.model_steps(spec, spec.member_ids) * train.epochs
    seconds = rate.seconds(steps, len(rows))
    return RolePlan(spec.name, len(rows), train.epochs, int(rows.max()), steps, roles.disk_bytes(spec), seconds)


def _unlearning_plan(spec: roles.RoleSpec, split: records.Split, rate: _Rate) -> RolePlan:
    """Returns the plan of an unlearning method: its cost in passes over the retained rows, at the rate of training."""
    assert spec.method is not None
    experiment, method = spec.experiment, spec.method
    forget = int(np.asarray(split.forget).sum(1).mean())
    retain = len(np.asarray(split.target)) - forget
    sizes = account.sizes_of(experiment, method, forget, retain, account.network_has_batch_stats(experiment))
    epochs = costs.retain_epochs(method, sizes)
    submodel_spec = unlearned_models.submodel_spec(spec)
    count = len(submodel_spec.membership)
    steps = int(np.ceil(epochs * -(-sizes.retain // experiment.settings.train.batch))) * count
    seconds = rate.seconds(steps, count)
    return RolePlan(spec.name, count, epochs, sizes.retain, steps, roles.disk_bytes(submodel_spec), seconds)


def _chunk_fit(spec: roles.RoleSpec, make_job: scratch.MakeJob) -> tuple[capacity.Fit, population.MemberMapping]:
    """Returns how many members fit at once, and the memory of their program."""
    experiment, count = spec.experiment, len(spec.membership)
    engine = experiment.settings.engine
    member_mapping = experiments.member_mapping(experiment, min(count, engine.chunk or count))

    def bytes_of(members: int) -> int:
        job = make_job(spec, np.resize(spec.member_ids, members), (0, 0))
        return capacity.program_bytes(
            training.compile_epoch(job, experiments.device_dataset(experiment), member_mapping).memory
        )

    budget = capacity.budget(list(member_mapping.mesh.devices.flat), engine.memory)
    if engine.chunk:
        chunk = min(engine.chunk, count)
        return capacity.Fit(chunk, bytes_of(chunk), budget), member_mapping
    return capacity.fit(bytes_of, count, executor.multiple(member_mapping), budget), member_mapping


def _measure_rate(spec: roles.RoleSpec, make_job: scratch.MakeJob) -> _Rate:
    """Measures the rate of one group on every device, from a few steps after a warm-up."""
    member_mapping = experiments.member_mapping(spec.experiment, len(spec.membership))
    ids = np.resize(spec.member_ids, executor.multiple(member_mapping))
    job = make_job(spec, ids, (0, 0))._replace(steps=TIMED_STEPS)
    data = executor.place(experiments.device_dataset(spec.experiment), member_mapping, shared=True)
    start_time = elapsed = 0.0
    for report in population.train(job, data, 2, member_mapping):
        elapsed, start_time = time.monotonic() - start_time, time.monotonic()
        del report
    return _Rate(TIMED_STEPS * len(ids) / elapsed, len(ids))


def text(plan: Plan) -> str:
    """Returns a plan as a table."""
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
        ("disk", f"about {disk}; finished members are reused"),
        ("files", "\n" + "\n".join(f"  {name}" for name in plan.files)),
    ])  # fmt: skip
