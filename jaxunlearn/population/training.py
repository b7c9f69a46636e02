"""Training a population: one compiled program per epoch, a generator that yields after each.

    for progress in train(job, data, epochs, mapping):     # the caller reports, checkpoints, stores snapshots
        ...

Within the program every member scans over its own steps: gather its batch from the data on the device, take the task's
step, and keep the old state if the batch is empty, the loss is not finite, or the member is already frozen. A diverged
member therefore keeps the state that gave the first loss that was not finite, is flagged even if only its parameters or
statistics overflowed, and cannot affect other members. Nothing here opens a file.
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
    """Everything that training changes and a checkpoint stores; every leaf has a leading M.

    Attributes:
      state: parameters, statistics, optimizer state.
      diverged_at: [M] int32 global step at which the member was frozen, -1 = never.
      best: variables of the best epoch so far, or None if the last epoch is kept.
      best_accuracy: [M] float32 accuracy of `best` on the member's held-out stream, or None.
    """

    state: State
    diverged_at: jax.Array
    best: Tree = None
    best_accuracy: jax.Array | None = None


class Progress(NamedTuple):
    """State and metrics after one epoch, as `train` yields them.

    Attributes:
      epoch: number of finished epochs (1 = after the first).
      carry: on the device, padded; `host(progress)` copies and trims it. Donated when the generator continues.
      loss, accuracy: [M] float32 means over the member's own rows during the epoch (NaN for a frozen member).
      num_members: M without padding.
    """

    epoch: int
    carry: Carry
    loss: np.ndarray
    accuracy: np.ndarray
    num_members: int


class TrainingJob(NamedTuple):
    """One population to train: everything its results depend on.

    Attributes:
      task: one member's functions.
      streams: name -> Stream; the first is the primary one, which is read once per epoch; the others cycle.
      batches: name -> rows per step.
      member_ids: [M] int32 global member numbers.
      key: the root key of this role; members fold in their id.
      constants: tree with leading M: `learning_rate`, `weight_decay`, masks, teachers ...
      steps: steps per epoch; equal steps in all chunks of a population save compiling and do not change results.
      held_out: stream on which the best epoch is selected, or None to keep the last one; `held_out_batch`: its rows per
        step, 0 = as the primary stream's.
      initial: State with leading M to start from, or None for `task.init`.
      diverged_at: [M] step at which an earlier job froze a member, -1 = never; a frozen member stays as it is. None =
        all members train.
      unshuffled: names of streams that are read in their own order instead of a new one every epoch.
      continue_across_epochs: names of accompanying streams that continue where the last epoch stopped reading; others
        start again.
      max_steps: maximum number of steps over all epochs; 0 = no limit.
      on_epoch_start: (state, data, constants, key) -> dict, computed at the start of every epoch and merged into the
        step's constants (a dict); None = nothing.
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
    diverged_at: np.ndarray | None = None
    unshuffled: tuple[str, ...] = ()
    continue_across_epochs: tuple[str, ...] = ()
    max_steps: int = 0
    on_epoch_start: Callable[[State, DeviceDataset, Tree, jax.Array], dict[str, Tree]] | None = None


def _start(
    job: TrainingJob, initial: State | None, diverged_at: jax.Array | None, member_id: jax.Array, key: jax.Array
) -> Carry:
    """Returns the carry of ONE member before its first epoch."""
    state = initial if initial is not None else job.task.init(keys.member(keys.stream(key, "init"), member_id))
    best = (variables(state), jnp.float32(-1.0)) if job.held_out is not None else (None, None)
    return Carry(state, jnp.int32(NOT_DIVERGED) if diverged_at is None else diverged_at, *best)


def init_carry(job: TrainingJob, mapping: executor.MemberMapping) -> Carry:
    """Returns the padded carry of epoch 0 on the devices: each member from its own key, or from `job.initial`."""
    diverged_at = None if job.diverged_at is None else np.asarray(job.diverged_at, np.int32)
    start, ids = executor.pad(((job.initial, diverged_at), np.asarray(job.member_ids, np.int32)), mapping)
    # A loop on the host is for training; its initialisation is the same program as that of a map.
    mapped = mapping._replace(kind="map") if mapping.kind == "loop" else mapping

    def begin(start: tuple[State | None, jax.Array | None], member_id: jax.Array, key: jax.Array) -> Carry:
        return _start(job, start[0], start[1], member_id, key)

    program = jax.jit(executor.map_members(begin, mapped))
    arguments = (
        executor.place(start, mapping),
        executor.place(ids, mapping),
        executor.place(job.key, mapping, shared=True),
    )
    # It runs once: on a CPU, optimising its random draws would take longer than running it.
    options: dict[str, str | bool] = {"xla_backend_optimization_level": "1"} if jax.default_backend() == "cpu" else {}
    return program.lower(*arguments).compile(compiler_options=options)(*arguments)


def carry_shapes(job: TrainingJob, members: int = 0) -> Carry:
    """Returns shapes and dtypes of the carry of `members` members (0 = the job's own), without computing anything."""
    ids = jax.ShapeDtypeStruct((members or len(job.member_ids),), jnp.int32)
    initial = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*ids.shape, *leaf.shape[1:]), leaf.dtype), job.initial)
    start = jax.vmap(lambda state, member_id, key: _start(job, state, None, member_id, key), in_axes=(0, 0, None))
    return jax.eval_shape(start, initial, ids, job.key)


def place_carry(carry: Carry, mapping: executor.MemberMapping) -> Carry:
    """Puts the carry of a checkpoint (host, unpadded) back onto the devices."""
    return executor.place(executor.pad(carry, mapping), mapping)


def host(progress: Progress) -> Carry:
    """Returns the carry as NumPy arrays without padding members, as a checkpoint stores it.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.population import Carry, Progress, State, host
      >>> carry = Carry(State({"w": jnp.zeros((4, 2))}, {}, ()), jnp.full(4, -1))  # 3 members and 1 of padding
      >>> host(Progress(1, carry, loss=None, accuracy=None, num_members=3)).state.params["w"].shape
      (3, 2)
    """
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: progress.num_members], progress.carry)


def kept_variables(carry: Carry) -> Tree:
    """Returns the flax variables of a finished training: of the last epoch, or of the best one.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.population import Carry, State, kept_variables
      >>> kept_variables(Carry(State({"w": 2.0}, {}, ()), np.array([-1])))
      {'params': {'w': 2.0}}
      >>> kept_variables(Carry(State({"w": 2.0}, {}, ()), np.array([-1]), best={"params": {"w": 1.0}}))
      {'params': {'w': 1.0}}
    """
    return variables(carry.state) if carry.best is None else carry.best


class MemberInputs(NamedTuple):
    """Per-member inputs of the epoch program that stay the same."""

    member_id: jax.Array | np.ndarray
    streams: dict[str, streams.Stream]
    held_out: streams.Stream | None
    constants: Tree


def _epoch_of_one_member(job: TrainingJob, carry: Carry, inputs: MemberInputs, shared: tuple) -> tuple[Carry, Metrics]:
    """Trains ONE member for one epoch; pure, mapped by the executor. `shared` = (data, epoch number, role key)."""
    data, epoch, role_key = shared
    key = keys.at(keys.member(keys.stream(role_key, "train"), inputs.member_id), epoch)
    primary = next(iter(job.streams))
    member_steps = jnp.maximum(-(-inputs.streams[primary].num_rows // job.batches[primary]), 1)
    batches = {
        name: streams.epoch_batches(
            stream, keys.stream(key, name), job.batches[name], job.steps, shuffle=name not in job.unshuffled,
            cycle=name != primary, done=epoch * member_steps if name in job.continue_across_epochs else 0,
        )
        for name, stream in inputs.streams.items()
    }  # fmt: skip
    constants = inputs.constants
    if job.on_epoch_start is not None:
        constants = {**constants, **job.on_epoch_start(carry.state, data, constants, keys.stream(key, "prologue"))}

    def step(carry: Carry, step_inputs: tuple) -> tuple[Carry, Metrics]:
        index, step_rows = step_inputs
        step_batches = {
            name: Batch(data.inputs[rows], data.labels[rows], weights, rows)
            for name, (rows, weights) in step_rows.items()
        }
        step_info = StepInfo(epoch, index / member_steps, epoch * member_steps + index, member_steps)
        state, metrics = job.task.step(carry.state, step_batches, step_info, keys.at(key, index), constants)
        active = (jnp.sum(step_batches[primary].weights) > 0) & (carry.diverged_at == NOT_DIVERGED)
        if job.max_steps:
            active &= step_info.step < job.max_steps
        finite = jnp.isfinite(metrics.loss)
        diverged_at = jnp.where(active & ~finite, step_info.step, carry.diverged_at)
        state = trees.where(active & finite, state, carry.state)
        active_metrics = jax.tree.map(lambda value: jnp.where(active, value, 0.0), metrics)
        sums = Metrics(active_metrics.loss * active_metrics.weight, active_metrics.correct, active_metrics.weight)
        return carry._replace(state=state, diverged_at=diverged_at), sums

    carry, sums = jax.lax.scan(step, carry, (jnp.arange(job.steps), batches))
    carry = _freeze_if_overflown(carry, epoch * member_steps + member_steps - 1)
    if inputs.held_out is not None:
        carry = _keep_best(job, carry, inputs.held_out, data, constants)
    return carry, jax.tree.map(jnp.sum, sums)


def _freeze_if_overflown(carry: Carry, step: jax.Array) -> Carry:
    """Flags a member that overflowed in a step whose loss was still finite (checked once per epoch).

    Statistics of BatchNorm count too: in training nothing reads them, but every prediction does.
    """
    finite = jnp.array(True)
    for leaf in jax.tree.leaves((carry.state.params, carry.state.model_state)):
        finite &= jnp.all(jnp.isfinite(leaf))
    return carry._replace(diverged_at=jnp.where(finite | (carry.diverged_at != NOT_DIVERGED), carry.diverged_at, step))


def _keep_best(job: TrainingJob, carry: Carry, held_out: streams.Stream, data: DeviceDataset, constants: Tree) -> Carry:
    """Keeps the variables of the epoch with the highest accuracy on the member's held-out rows (first one wins)."""
    batch = job.held_out_batch or next(iter(job.batches.values()))
    steps = -(-held_out.rows.shape[0] // batch)
    current = variables(carry.state)

    def score(total: jax.Array, batch_rows: tuple) -> tuple[jax.Array, None]:
        rows, weights = batch_rows
        if job.task.is_correct is not None:
            is_correct = job.task.is_correct(current, data.inputs[rows], rows, constants)
        else:
            is_correct = jnp.argmax(job.task.predict(current, data.inputs[rows]), -1) == data.labels[rows]
        return total + jnp.sum(jnp.where(is_correct, weights, 0.0)), None

    batches = streams.epoch_batches(held_out, keys.root(0), batch, steps)
    total, _ = jax.lax.scan(score, jnp.float32(0.0), batches)
    accuracy = total / jnp.maximum(jnp.sum(held_out.weights), 1e-9)
    assert carry.best_accuracy is not None  # made by init_carry wherever there is a held-out stream
    is_better = accuracy > carry.best_accuracy
    return carry._replace(
        best=trees.where(is_better, current, carry.best),
        best_accuracy=jnp.where(is_better, accuracy, carry.best_accuracy),
    )


def _member_inputs(job: TrainingJob, mapping: executor.MemberMapping) -> MemberInputs:
    host_side = MemberInputs(np.asarray(job.member_ids, np.int32), dict(job.streams), job.held_out, job.constants)
    return executor.pad(jax.tree.map(np.asarray, host_side), mapping)


def compile_epoch(job: TrainingJob, data: DeviceDataset, mapping: executor.MemberMapping) -> executor.CompiledProgram:
    """Compiles the epoch program of a job without running anything; its `memory` holds the compiler's analysis."""
    inputs = _member_inputs(job, mapping)
    carry = carry_shapes(job, trees.size(inputs))
    shared = (data, jax.ShapeDtypeStruct((), jnp.int32), job.key)

    def fn(carry: Carry, inputs: MemberInputs, shared: tuple) -> tuple[Carry, Metrics]:
        return _epoch_of_one_member(job, carry, inputs, shared)

    return executor.compile_mapped(fn, mapping, carry, inputs, shared, donate=True)


def train(
    job: TrainingJob,
    data: DeviceDataset,
    epochs: int,
    mapping: executor.MemberMapping,
    *,
    program: executor.CompiledProgram | None = None,
    carry: Carry | None = None,
    done: int = 0,
) -> Iterator[Progress]:
    """Trains a population, yielding after every epoch.

    Args:
      job: the population.
      data: the data set; moved to the devices if it is not there yet.
      epochs: total number of epochs; training resumes after `done`.
      mapping: how members are mapped; does not change results beyond float rounding.
      program: the compiled epoch, if the caller has it already.
      carry: host carry of a checkpoint taken after `done` epochs; None starts from the beginning.
      done: finished epochs of the checkpoint.

    Yields:
      Progress after epochs done+1 .. epochs. Its device carry is donated to the next epoch: copy with `host` first.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from jaxunlearn import keys, models, population, settings
      >>> rng = np.random.default_rng(0)
      >>> labels = np.arange(20, dtype=np.int32) % 3
      >>> data = population.DeviceDataset(rng.normal(size=(20, 4)).astype(np.float32), labels)
      >>> network = models.build(settings.ModelSettings("logistic"), num_classes=3)
      >>> task = population.supervised(network, network, lambda inputs, key, is_train: inputs,
      ...                              settings.TrainSettings(epochs=2), jax.ShapeDtypeStruct((4,), jnp.float32))
      >>> stream = population.from_membership(rng.random((3, 20)) < 0.5)  # M = 3 models, each on its own half
      >>> job = population.TrainingJob(
      ...     task, {"train": stream}, {"train": 8}, member_ids=np.arange(3), key=keys.root(0),
      ...     constants={"learning_rate": np.full(3, 0.1, np.float32), "weight_decay": np.zeros(3, np.float32)},
      ...     steps=population.steps_per_epoch(stream, 8))
      >>> for progress in population.train(job, data, 2, population.make_mapping(devices=1)):
      ...     print(progress.epoch, progress.loss.shape)
      1 (3,)
      2 (3,)
      >>> variables = population.kept_variables(population.host(progress))
      >>> variables["params"]["Dense_0"]["kernel"].shape
      (3, 4, 3)
    """
    data = executor.place(data, mapping, shared=True)
    program = program or compile_epoch(job, data, mapping)
    inputs = executor.place(_member_inputs(job, mapping), mapping)
    current_carry = place_carry(carry, mapping) if carry is not None else init_carry(job, mapping)
    key = executor.place(job.key, mapping, shared=True)
    num_members = len(np.asarray(job.member_ids))
    for epoch in range(done, epochs):
        shared = (data, executor.place(np.int32(epoch), mapping, shared=True), key)
        current_carry, sums = program.call(current_carry, inputs, shared)
        sums = jax.tree.map(lambda leaf: np.asarray(leaf)[:num_members], sums)
        with np.errstate(invalid="ignore", divide="ignore"):
            loss, accuracy = sums.loss / sums.weight, sums.correct / sums.weight
        yield Progress(epoch + 1, current_carry, loss, accuracy, num_members)
