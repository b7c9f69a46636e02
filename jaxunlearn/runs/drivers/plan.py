"""What a command would train, measured on this machine without training: members, steps, memory, time, disk.

One plan for every verb: the roles it needs, shadows included, and its unlearning methods. One epoch program is
compiled, which says what memory it takes, and a few of its steps are timed; the rest is arithmetic.
"""

import time
from typing import NamedTuple

import numpy as np

from jaxunlearn import population, progress, records
from jaxunlearn.population import capacity, lift, training
from jaxunlearn.report import tables
from jaxunlearn.runs import experiments, roles, shadows, splits, target_roles
from jaxunlearn.runs.unlearned import account, members, variants
from jaxunlearn.settings import TrainSettings
from jaxunlearn.unlearn import costs

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
    experiment: experiments.Experiment, names: tuple[str, ...] = (), asked: tuple[variants.Variant, ...] = ()
) -> Plan:  # fmt: skip
    """The plan of the shadow models, further roles and unlearning methods.

    Args:
      experiment: of checked settings.
      names: of `target_roles.NAMES`; those that the settings do not ask for are left out.
      asked: unlearning methods.

    Raises:
      DeviceError: not even one member fits into memory.
    """
    split = splits.draw(experiment)
    targets = [target_roles.describe(experiment, split, name) for name in target_roles.wanted(experiment.settings)
               if name in names]  # fmt: skip
    trained = {shadows.ROLE: (experiment, _shadow_role(experiment, split))}
    trained |= {target.name: (target.experiment, target_roles.trainable(target)) for target in targets}
    largest = max(trained, key=lambda name: len(trained[name][1].member_ids))
    fitted, lifting = _fit(*trained[largest])
    timed = "retrained" if "retrained" in trained else shadows.ROLE
    rate, at_once = _measured_rate(*trained[timed])

    def planned(name: str, train: TrainSettings, rows: np.ndarray, disk: int) -> RolePlan:
        steps = population.model_steps(rows, train.batch) * train.epochs
        share = min(1.0, len(rows) / at_once)  # fewer members than run side by side leave devices idle
        return RolePlan(name, len(rows), train.epochs, int(rows.max()), steps, disk, steps / (rate * share))

    rows = splits.draw_members(experiment, split, np.arange(experiment.settings.shadows.count)).sum(1)
    found = [
        planned(
            shadows.ROLE,
            experiment.settings.train,
            rows,
            shadows.disk_bytes(experiment, len(splits.recorded_rows(split))),
        )
    ]
    found += [
        planned(target.name, target.experiment.settings.train, target.member.sum(1), target_roles.disk_bytes(target))
        for target in targets
    ]
    found += [_method(experiment, split, variant, rate, at_once) for variant in asked]
    return Plan(
        tuple(found),
        experiment.cost.parameters,
        f"{lifting.mapping}, conv {experiment.policy.conv}, {lifting.mesh.size} device(s)",
        fitted.chunk,
        fitted.program_bytes,
        fitted.budget_bytes,
        tuple(f"logits/{role.name}.npy  populations/{role.name}/" for role in found),
    )


def _shadow_role(experiment: experiments.Experiment, split: records.Split) -> roles.Role:
    """The shadow role of a dry run: drawn afresh, nothing stored."""
    ids = np.arange(experiment.settings.shadows.count, dtype=np.int32)

    def membership(member_ids: np.ndarray) -> np.ndarray:
        return splits.draw_members(experiment, split, member_ids)

    return roles.Role(shadows.ROLE, ids, membership, lambda ids: np.ones(len(ids), np.float32), membership, "")


def _method(
    experiment: experiments.Experiment, split: records.Split, variant: variants.Variant, rate: float, at_once: int
) -> RolePlan:
    """The plan of an unlearning method: its cost in passes over the retained rows, at the rate of training."""
    method = members.built(variant)
    forget = np.asarray(split.forget).sum(1)
    sizes = account.sizes_of(experiment, method, int(forget.mean()), len(np.asarray(split.target)) - int(forget.mean()),
                             account.has_statistics(experiment))  # fmt: skip
    epochs = costs.retain_epochs(method, sizes)
    count = len(forget) * method.ensemble
    steps = int(np.ceil(epochs * -(-sizes.retain // experiment.settings.train.batch))) * count
    disk = target_roles.disk_bytes(members.describe(experiment, split, variant, method)) * method.ensemble
    seconds = steps / (rate * min(1.0, count / at_once))
    return RolePlan(variant.role, count, epochs, sizes.retain, steps, disk, seconds)


def _fit(experiment: experiments.Experiment, role: roles.Role) -> tuple[capacity.Fit, population.Lifting]:
    """How many members go at once, and what their program takes."""
    engine, count = experiment.settings.engine, len(role.member_ids)
    lifting = experiments.lifting(experiment, min(count, engine.chunk or count))

    def need(members: int) -> int:
        job = roles.make_job(experiment, role, np.resize(role.member_ids, members))
        return capacity.program_bytes(training.compile_epoch(job, experiments.resident(experiment), lifting).memory)

    budget = capacity.budget(list(lifting.mesh.devices.flat), engine.memory)
    if engine.chunk:
        chunk = min(engine.chunk, count)
        return capacity.Fit(chunk, need(chunk), budget), lifting
    return capacity.fit(need, count, lift.multiple(lifting), budget), lifting


def _measured_rate(experiment: experiments.Experiment, role: roles.Role) -> tuple[float, int]:
    """(model-steps per second, members side by side) of one group on every device, from a few steps after a warm-up."""
    lifting = experiments.lifting(experiment, len(role.member_ids))
    ids = np.resize(role.member_ids, lift.multiple(lifting))
    job = roles.make_job(experiment, role, ids)._replace(steps=TIMED_STEPS)
    data = lift.place(experiments.resident(experiment), lifting, shared=True)
    began = elapsed = 0.0
    for report in population.train(job, data, 2, lifting):
        elapsed, began = time.monotonic() - began, time.monotonic()
        del report
    return TIMED_STEPS * len(ids) / elapsed, len(ids)


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
