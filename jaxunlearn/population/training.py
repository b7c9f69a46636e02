"""Training a population: one compiled program per epoch, a generator that yields after each.

    for progress in train(job, data, epochs, mapping):     # the caller reports, checkpoints, keeps snapshots
        ...

Within the program every member scans over its own steps: gather its batch from the resident data, take the task's
step, keep the old state where the batch is empty, where the loss is not finite, or where the member is already frozen.
A diverged member therefore stops at the last state whose loss was finite, is flagged even where its parameters are
not, and cannot touch its neighbours. Nothing here opens a file.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import keys, trees
from jaxunlearn.population import executor, streams
from jaxunlearn.population.task import Batch, Metrics, State, StepInfo, Task, variables

Tree = Any
NOT_DIVERGED = -1


class DeviceDataset(NamedTuple):
    """The data set on the device, shared by all members."""

    inputs: jax.Array | np.ndarray  # [N, ...] uint8 or float32
    labels: jax.Array | np.ndarray  # [N] int32; of texts [N, T], the next tokens, -1 = none


class Carry(NamedTuple):
    """All that training changes and a checkpoint must hold; every leaf with a leading M.

    Attributes:
      state: parameters, statistics, optimizer state.
      diverged_at: [M] int32 global step at which the member was frozen, -1 = never.
      best: variables of the best epoch so far, or None when the last epoch is kept.
      best_accuracy: [M] float32 accuracy of `best` on the member's held-out stream, or None.
    """

    state: State
    diverged_at: jax.Array
    best: Tree = None
    best_accuracy: jax.Array | None = None


class Progress(NamedTuple):
    """What `train` yields after each epoch.

    Attributes:
      epoch: number of epochs done (1 = after the first).
      carry: on the device, padded; `host(progress)` copies and trims it. Donated when the generator continues.
      loss, accuracy: [M] float32 means over the member's own rows during the epoch (NaN for a frozen member).
      num_members: M without padding.
    """

    epoch: int
    carry: Carry
    loss: np.ndarray
    accuracy: np.ndarray
    num_members: int


class Job(NamedTuple):
    """One population to train: everything that decides about its numbers.

    Attributes:
      task: one member's functions.
      streams: name -> Stream; the first is the driver, whose rows are passed once per epoch; the others cycle.
      batches: name -> rows per step.
      member_ids: [M] int32 global member numbers.
      key: the root key of this role; members fold in their number.
      constants: tree with leading M: `learning_rate`, `weight_decay`, masks, teachers ...
      steps: steps per epoch; must be the same for all chunks of a population only for speed, not for the numbers.
      held_out: stream on which the best epoch is chosen, or None to keep the last one; `held_out_batch`: rows per step
        of it, 0 = as the driver's.
      initial: State with leading M to start from, or None for `task.init`.
      unshuffled: names of streams that are read in their own order instead of a new one every epoch.
      continue_across_epochs: names of accompanying streams that go on where the last epoch left them; others start
        again.
      max_steps: no steps are taken from this one on (counted over all epochs); 0 = never.
      on_epoch_start: computes something at the start of every epoch, merged into the step's constants (a dict): (state,
        data, constants, key) -> dict; None = nothing.
    """

    task: Task
    streams: Mapping[str, streams.Stream]
    batches: Mapping[str, int]
    member_ids: np.ndarray
    key: jax.Array
    constants: Tree
    steps: int
    held_out: streams.Stream | None = None
    held_out_batch: int = 0
    initial: State | None = None
    unshuffled: tuple[str, ...] = ()
    continue_across_epochs: tuple[str, ...] = ()
    max_steps: int = 0
    on_epoch_start: Callable[[State, DeviceDataset, Tree, jax.Array], dict[str, Tree]] | None = None


def _start(job: Job, given: State | None, member_id: jax.Array, key: jax.Array) -> Carry:
    """The carry of ONE member before its first epoch."""
    state = given if given is not None else job.task.init(keys.member(keys.stream(key, "init"), member_id))
    best = (variables(state), jnp.float32(-1.0)) if job.held_out is not None else (None, None)
    return Carry(state, jnp.int32(NOT_DIVERGED), *best)


def init_carry(job: Job, mapping: executor.MemberMapping) -> Carry:
    """The padded carry of epoch 0 on the devices: each member initialised from its own key, or as given."""
    given, ids = executor.pad((job.initial, np.asarray(job.member_ids, np.int32)), mapping)
    # A loop on the host is for training; its initialisation is the same program as that of a map.
    mapped = mapping._replace(kind="map") if mapping.kind == "loop" else mapping
    program = jax.jit(executor.map_members(lambda given, member_id, key: _start(job, given, member_id, key), mapped))
    arguments = (
        executor.place(given, mapping),
        executor.place(ids, mapping),
        executor.place(job.key, mapping, shared=True),
    )
    # It runs once: on a CPU, optimising its random draws would take longer than everything it does.
    options: dict[str, str | bool] = {"xla_backend_optimization_level": "1"} if jax.default_backend() == "cpu" else {}
    return program.lower(*arguments).compile(compiler_options=options)(*arguments)


def carry_shapes(job: Job, members: int = 0) -> Carry:
    """Shapes and dtypes of the carry of so many members (0 = the job's own), without computing anything."""
    ids = jax.ShapeDtypeStruct((members or len(job.member_ids),), jnp.int32)
    given = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*ids.shape, *leaf.shape[1:]), leaf.dtype), job.initial)
    start = jax.vmap(lambda given, member_id, key: _start(job, given, member_id, key), in_axes=(0, 0, None))
    return jax.eval_shape(start, given, ids, job.key)


def place_carry(carry: Carry, mapping: executor.MemberMapping) -> Carry:
    """A carry from a checkpoint (host, unpadded) back onto the devices."""
    return executor.place(executor.pad(carry, mapping), mapping)


def host(progress: Progress) -> Carry:
    """The carry as NumPy arrays without padding members: what a checkpoint stores."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: progress.num_members], progress.carry)


def kept_variables(carry: Carry) -> Tree:
    """The flax variables a finished training hands on: of the last epoch, or of the best one."""
    return variables(carry.state) if carry.best is None else carry.best


class MemberInputs(NamedTuple):
    """Per-member inputs of the epoch program that do not change."""

    member_id: jax.Array | np.ndarray
    streams: dict[str, streams.Stream]
    held_out: streams.Stream | None
    constants: Tree


def _epoch_of_one_member(job: Job, carry: Carry, fixed: MemberInputs, shared: tuple) -> tuple[Carry, Metrics]:
    """One epoch of ONE member; pure, mapped by the executor. `shared` = (data, epoch number, role key)."""
    data, epoch, role_key = shared
    key = keys.at(keys.member(keys.stream(role_key, "train"), fixed.member_id), epoch)
    driver = next(iter(job.streams))
    own_steps = jnp.maximum(-(-fixed.streams[driver].num_rows // job.batches[driver]), 1)
    batches = {
        name: streams.epoch_batches(
            stream, keys.stream(key, name), job.batches[name], job.steps, shuffle=name not in job.unshuffled,
            cycle=name != driver, done=epoch * own_steps if name in job.continue_across_epochs else 0,
        )
        for name, stream in fixed.streams.items()
    }  # fmt: skip
    constants = fixed.constants
    if job.on_epoch_start is not None:
        constants = {**constants, **job.on_epoch_start(carry.state, data, constants, keys.stream(key, "prologue"))}

    def step(carry: Carry, now: tuple) -> tuple[Carry, Metrics]:
        number, read = now
        taken = {
            name: Batch(data.inputs[rows], data.labels[rows], weights, rows) for name, (rows, weights) in read.items()
        }
        step_info = StepInfo(epoch, number / own_steps, epoch * own_steps + number, own_steps)
        state, metrics = job.task.step(carry.state, taken, step_info, keys.at(key, number), constants)
        active = (jnp.sum(taken[driver].weights) > 0) & (carry.diverged_at == NOT_DIVERGED)
        if job.max_steps:
            active &= step_info.step < job.max_steps
        finite = jnp.isfinite(metrics.loss)
        diverged_at = jnp.where(active & ~finite, step_info.step, carry.diverged_at)
        state = trees.where(active & finite, state, carry.state)
        counted = jax.tree.map(lambda value: jnp.where(active, value, 0.0), metrics)
        sums = Metrics(counted.loss * counted.weight, counted.correct, counted.weight)
        return carry._replace(state=state, diverged_at=diverged_at), sums

    carry, sums = jax.lax.scan(step, carry, (jnp.arange(job.steps), batches))
    carry = _freeze_if_overflown(carry, epoch * own_steps + own_steps - 1)
    if fixed.held_out is not None:
        carry = _keep_best(job, carry, fixed.held_out, data, constants)
    return carry, jax.tree.map(jnp.sum, sums)


def _freeze_if_overflown(carry: Carry, step: jax.Array) -> Carry:
    """Flags a member whose parameters overflowed in a step whose loss was still finite (checked once per epoch)."""
    finite = jnp.array(True)
    for leaf in jax.tree.leaves(carry.state.params):
        finite &= jnp.all(jnp.isfinite(leaf))
    return carry._replace(diverged_at=jnp.where(finite | (carry.diverged_at != NOT_DIVERGED), carry.diverged_at, step))


def _keep_best(job: Job, carry: Carry, held_out: streams.Stream, data: DeviceDataset, constants: Tree) -> Carry:
    """Keeps the variables of the epoch with the highest accuracy on the member's held-out rows (first one wins)."""
    batch = job.held_out_batch or next(iter(job.batches.values()))
    steps = -(-held_out.rows.shape[0] // batch)
    now = variables(carry.state)

    def score(total: jax.Array, read: tuple) -> tuple[jax.Array, None]:
        rows, weights = read
        if job.task.is_right is not None:
            right = job.task.is_right(now, data.inputs[rows], rows, constants)
        else:
            right = jnp.argmax(job.task.predict(now, data.inputs[rows]), -1) == data.labels[rows]
        return total + jnp.sum(jnp.where(right, weights, 0.0)), None

    batches = streams.epoch_batches(held_out, keys.root(0), batch, steps)
    total, _ = jax.lax.scan(score, jnp.float32(0.0), batches)
    accuracy = total / jnp.maximum(jnp.sum(held_out.weights), 1e-9)
    assert carry.best_accuracy is not None  # made by init_carry wherever there is a held-out stream
    better = accuracy > carry.best_accuracy
    return carry._replace(
        best=trees.where(better, now, carry.best), best_accuracy=jnp.where(better, accuracy, carry.best_accuracy)
    )


def _member_inputs(job: Job, mapping: executor.MemberMapping) -> MemberInputs:
    host_side = MemberInputs(np.asarray(job.member_ids, np.int32), dict(job.streams), job.held_out, job.constants)
    return executor.pad(jax.tree.map(np.asarray, host_side), mapping)


def compile_epoch(job: Job, data: DeviceDataset, mapping: executor.MemberMapping) -> executor.Compiled:
    """Compiles the epoch program of a job without running anything; `memory` says what it needs."""
    fixed = _member_inputs(job, mapping)
    carry = carry_shapes(job, trees.size(fixed))
    shared = (data, jax.ShapeDtypeStruct((), jnp.int32), job.key)

    def fn(carry: Carry, fixed: MemberInputs, shared: tuple) -> tuple[Carry, Metrics]:
        return _epoch_of_one_member(job, carry, fixed, shared)

    return executor.compile_mapped(fn, mapping, carry, fixed, shared, donate=True)


def train(
    job: Job,
    data: DeviceDataset,
    epochs: int,
    mapping: executor.MemberMapping,
    *,
    program: executor.Compiled | None = None,
    carry: Carry | None = None,
    done: int = 0,
) -> Iterator[Progress]:
    """Trains a population, yielding after every epoch.

    Args:
      job: the population.
      data: the resident data set (placed here if it is not yet).
      epochs: total number of epochs; training resumes after `done`.
      mapping: how members are mapped; does not change the numbers beyond float rounding.
      program: the compiled epoch, if the caller has it already.
      carry: host carry of a checkpoint taken after `done` epochs; None starts afresh.
      done: epochs that the checkpoint has behind it.

    Yields:
      Progress after epochs done+1 .. epochs. Its device carry is donated to the next epoch: copy with `host` first.
    """
    data = executor.place(data, mapping, shared=True)
    program = program or compile_epoch(job, data, mapping)
    fixed = executor.place(_member_inputs(job, mapping), mapping)
    current = place_carry(carry, mapping) if carry is not None else init_carry(job, mapping)
    key = executor.place(job.key, mapping, shared=True)
    num_members = len(np.asarray(job.member_ids))
    for epoch in range(done, epochs):
        shared = (data, executor.place(np.int32(epoch), mapping, shared=True), key)
        current, sums = program.call(current, fixed, shared)
        sums = jax.tree.map(lambda leaf: np.asarray(leaf)[:num_members], sums)
        with np.errstate(invalid="ignore", divide="ignore"):
            loss, accuracy = sums.loss / sums.weight, sums.correct / sums.weight
        yield Progress(epoch + 1, current, loss, accuracy, num_members)
