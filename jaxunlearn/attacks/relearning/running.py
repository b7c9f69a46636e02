"""Relearning as ONE population: every (victim, trial, learning rate) is a member that starts from its victim's weights.

    per step   1 probe under the forget label + r retained rows -> training mode, CE, SGD with momentum
               evaluation mode: mean CE and accuracy over ALL probes of the member -> its trajectory

Members share only the data set; the engine (`population.training`) runs them. Source: OUR `rea.py` and
`mia_mu_strategies.py`. Differs from the published code: every trial has a new optimizer (published: momentum is carried
from the forget trial to those of unseen classes, `relearn_carried`; the first version carries the weights as well, so
later unseen classes are learned better).
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import checks, errors, keys, population, trees
from jaxunlearn.attacks.relearning import plan
from jaxunlearn.population import (
    Batch,
    DeviceDataset,
    MemberMapping,
    Metrics,
    State,
    StepInfo,
    Task,
    executor,
    training,
)

Tree = Any
Module = Any  # a flax linen module
Prepare = Callable[[jax.Array, jax.Array, bool], jax.Array]
CARRIED = ("optimizer", "everything")


class Trajectories(NamedTuple):
    """Trajectories of M members, and their final states.

    Attributes:
      loss: [M, T] float32 mean cross entropy of a member's probes after each step.
      accuracy: [M, T] float32 share of them that are classified correctly.
      variables: flax variables [M, ...] after the last step.
      momentum: [M, ...] momentum of the optimizer after it.
      diverged_at: [M] step at which a member was frozen, -1 = never; its trajectory is constant from there on.
    """

    loss: np.ndarray
    accuracy: np.ndarray
    variables: Tree
    momentum: Tree
    diverged_at: np.ndarray


class WatchedRows(NamedTuple):
    """The rows over which a member is evaluated after every step, gathered once per epoch."""

    inputs: jax.Array  # [n, ...] raw
    labels: jax.Array  # [n] int32
    weights: jax.Array  # [n] float32, 0 = padding


def task(module: Module, prepare: Prepare, momentum: float = 0.9, weight_decay: float = 0.0) -> Task:
    """Returns the task of a member: it trains on all its streams as one batch and records metrics of its watched rows.

    The optimizer state is a dict {"momentum": tree, "loss": [T], "accuracy": [T]}. Constants of a member:
    `learning_rate`, `probe_label` (labels of the stream "probe"), and `watched` (`WatchedRows`).

    Args:
      module: the network, called as module.apply(variables, inputs, train=..., mask=...).
      prepare: (raw inputs, key, is_train) -> network inputs; nothing is augmented.
      momentum: of SGD.
      weight_decay: of SGD, added to the gradient.
    """

    def init(key: jax.Array) -> State:
        raise RuntimeError("relearning starts from given weights")

    def step(
        state: State, batches: Mapping[str, Batch], step_info: StepInfo, key: jax.Array, constants: Tree
    ) -> tuple[State, Metrics]:
        labelled_batches = [
            batch._replace(labels=jnp.full_like(batch.labels, constants["probe_label"])) if name == "probe" else batch
            for name, batch in batches.items()
        ]
        inputs, labels, weights, _ = (jnp.concatenate(column) for column in zip(*labelled_batches, strict=True))
        inputs = prepare(inputs, keys.stream(key, "augment"), False)

        def objective(params: Tree) -> tuple[jax.Array, Tree]:
            logits, new_state = module.apply(
                trees.join_variables(params, state.model_state), inputs, train=True, mask=weights > 0,
                mutable=list(state.model_state), rngs={"dropout": keys.stream(key, "dropout")},
            )  # fmt: skip
            losses, _ = _losses_and_hits(logits, labels)
            return jnp.sum(jnp.where(weights > 0, losses * weights, 0.0)) / jnp.sum(weights), dict(new_state)

        (loss, model_state), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
        if weight_decay:
            gradients = jax.tree.map(lambda g, p: g + weight_decay * p, gradients, state.params)
        trace = jax.tree.map(lambda b, g: momentum * b + g, state.optimizer["momentum"], gradients)
        rate = constants["learning_rate"]
        params = jax.tree.map(lambda p, b: p - rate * b, state.params, trace)
        watched = constants["watched"]
        answers = predict(trees.join_variables(params, model_state), watched.inputs)
        shares = watched.weights / jnp.maximum(jnp.sum(watched.weights), 1.0)
        losses, is_right = _losses_and_hits(answers, watched.labels)
        watched_loss, watched_accuracy = jnp.sum(shares * losses), jnp.sum(shares * is_right)
        optimizer = {
            "momentum": trace,
            "loss": state.optimizer["loss"].at[step_info.step].set(watched_loss),
            "accuracy": state.optimizer["accuracy"].at[step_info.step].set(watched_accuracy),
        }
        return State(params, model_state, optimizer), Metrics(loss, jnp.float32(0.0), jnp.sum(weights))

    def predict(variables: Tree, inputs: jax.Array) -> jax.Array:
        return jnp.asarray(module.apply(variables, prepare(inputs, keys.root(0), False), train=False))

    def view(variables: Tree, inputs: jax.Array, row_keys: jax.Array) -> jax.Array:
        del row_keys
        return predict(variables, inputs)

    return Task(init, step, predict, view)


def _losses_and_hits(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns [B] cross entropies, and [B] bool whether the first largest logit is that of the label.

    Comparisons replace gathers and argmax, which a CPU does not vectorise.
    """
    classes = jnp.arange(logits.shape[-1])
    is_label = classes == labels[:, None]
    label_logits = jnp.sum(jnp.where(is_label, logits, 0.0), -1)
    top = jax.lax.stop_gradient(jnp.max(logits, -1, keepdims=True))
    losses = jnp.log(jnp.sum(jnp.exp(logits - top), -1)) + top[:, 0] - label_logits
    is_beaten = jnp.any((logits == top) & (classes < labels[:, None]), -1)
    return losses, (label_logits == top[:, 0]) & ~is_beaten


class TrialMembers(NamedTuple):
    """Inputs of a run of M members; every leaf but `batches`, `epochs` and `unshuffled` has a leading M."""

    start: Tree
    streams: dict[str, population.Stream]
    batches: dict[str, int]
    constants: dict[str, Any]
    momentum: Tree
    ids: np.ndarray
    epochs: int
    unshuffled: tuple[str, ...]


def _watch(state: State, data: DeviceDataset, constants: Tree, key: jax.Array) -> dict[str, WatchedRows]:
    """Gathers the watched rows of a member."""
    del state, key
    rows = constants["watched_rows"]
    weights = (rows >= 0).astype(jnp.float32)
    return {
        "watched": WatchedRows(jnp.asarray(data.inputs)[jnp.maximum(rows, 0)], constants["watched_labels"], weights)
    }


def job_of(member_task: Task, members: TrialMembers, key: jax.Array) -> population.TrainingJob:
    """Returns the engine's job of a population; the epochs are those of its first stream."""
    primary_stream = next(iter(members.streams))
    per_epoch = population.steps_per_epoch(members.streams[primary_stream], members.batches[primary_stream])
    empty = np.full((len(members.ids), members.epochs * per_epoch), np.nan, np.float32)
    params, model_state = trees.split_variables(members.start)
    optimizer = {"momentum": members.momentum, "loss": empty, "accuracy": empty}
    return population.TrainingJob(
        task=member_task, streams=members.streams, batches=members.batches, member_ids=members.ids, key=key,
        constants=members.constants, steps=per_epoch, initial=State(params, model_state, optimizer),
        unshuffled=members.unshuffled, on_epoch_start=_watch,
    )  # fmt: skip


def run(
    job: population.TrainingJob,
    epochs: int,
    data: DeviceDataset,
    mapping: MemberMapping,
    program: executor.CompiledProgram | None = None,
) -> Trajectories:
    """Runs one population to its end.

    Args:
      job: from `job_of`.
      epochs: of its first stream.
      data: the data set on the device.
      mapping: how members are mapped.
      program: the compiled epoch of the job, or of another job of the same shapes; None compiles one.
    """
    *_, latest = population.train(job, data, epochs, mapping, program=program)
    carry = population.host(latest)
    optimizer = carry.state.optimizer
    return Trajectories(
        filled(optimizer["loss"]), filled(optimizer["accuracy"]), population.variables(carry.state),
        optimizer["momentum"], np.asarray(carry.diverged_at),
    )  # fmt: skip


def filled(values: np.ndarray) -> np.ndarray:
    """Fills steps [M, T] that a member did not take with its last step before them; NaN where there is none."""
    last_steps = np.where(np.isnan(values), 0, np.arange(values.shape[1]))
    return np.take_along_axis(values, np.maximum.accumulate(last_steps, 1), 1)


def no_momentum(start: Tree) -> Tree:
    """Returns the momentum of new optimizers for members with these variables: zeros."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), start["params"])


def relearn(
    module: Module,
    prepare: Prepare,
    victims: Tree,
    data: DeviceDataset,
    trials: plan.TrialPlan,
    mapping: MemberMapping,
    *,
    key: jax.Array,
    momentum: float = 0.9,
    chunk: int = 0,
    start: Tree = None,
    trace: Tree = None,
) -> Trajectories:
    """Runs all trials, each from its victim's weights with a new optimizer.

    Args:
      module: the network.
      prepare: see `task`.
      victims: flax variables [V, ...] of the unlearned models.
      data: the data set on the device.
      trials: from `plan`.
      mapping: how members are mapped (`population.make_mapping`); small networks are faster in groups.
      key: for dropout only; everything else follows from the trials.
      momentum: of SGD.
      chunk: members that run together; 0 = all.
      start: flax variables [M, ...] to start from instead of the victims'.
      trace: [M, ...] momentum to start with instead of 0.

    Raises:
      ShapeError: trials of different lengths. DataError: a victim or row that does not exist.
    """
    if not len(trials.victim):
        raise errors.DataError("there are no trials to run.")
    chunks = relearn_by_chunk(
        module, prepare, victims, data, trials, mapping, key=key, momentum=momentum, chunk=chunk, start=start,
        trace=trace,
    )  # fmt: skip
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *(trajectories for _, trajectories in chunks))


def relearn_by_chunk(  # noqa: D417
    module: Module,
    prepare: Prepare,
    victims: Tree,
    data: DeviceDataset,
    trials: plan.TrialPlan,
    mapping: MemberMapping,
    *,
    key: jax.Array,
    momentum: float = 0.9,
    chunk: int = 0,
    skip: Collection[int] = (),
    start: Tree = None,
    trace: Tree = None,
) -> Iterator[tuple[int, Trajectories]]:
    """Runs trials chunk by chunk, for callers that need not keep all results in memory.

    Args:
      module, prepare, victims, data, trials, mapping, key, momentum, chunk, start, trace: see `relearn`.
      skip: indices of chunks that are not run.

    Yields:
      (index of the chunk, trajectories of its members).
    """
    _check(trials, trees.size(victims), len(np.asarray(data.labels)))
    member_task, count = task(module, prepare, momentum), len(trials.victim)
    size, program = chunk or count, None
    for index, first in enumerate(range(0, count, size)):
        if index in skip:
            continue
        # The last chunk is filled up with its last trial, so that all chunks share one program's shapes.
        trial_ids = np.minimum(np.arange(first, first + min(size, count)), count - 1)
        chunk_trials = plan.take(trials, trial_ids)
        chunk_start = trees.take(victims, chunk_trials.victim) if start is None else trees.take(start, trial_ids)
        chunk_trace = no_momentum(chunk_start) if trace is None else trees.take(trace, trial_ids)
        job = job_of(member_task, members_of(chunk_trials, chunk_start, chunk_trace, trial_ids), key)
        program = program or training.compile_epoch(job, data, mapping)
        trajectories = run(job, 1, data, mapping, program)
        yield index, trees.take(trajectories, slice(0, count - first))


def members_of(trials: plan.TrialPlan, start: Tree, trace: Tree, ids: np.ndarray) -> TrialMembers:
    """Returns the population of these trials.

    Args:
      trials: of M members.
      start: flax variables [M, ...] to start from.
      trace: [M, ...] momentum to start with.
      ids: [M] member ids, from which dropout is drawn.
    """
    labels = np.repeat(np.asarray(trials.label, np.int32)[:, None], trials.probes.shape[1], 1)
    constants = {
        "learning_rate": np.asarray(trials.learning_rate, np.float32),
        "probe_label": np.asarray(trials.label, np.int32),
        "watched_rows": np.asarray(trials.probes, np.int32),
        "watched_labels": labels,
    }
    streams, batches = {"probe": _stream(trials.learned)}, {"probe": 1}
    if trials.retained.shape[-1]:
        streams["retain"] = _stream(trials.retained.reshape(len(ids), -1))
        batches["retain"] = trials.retained.shape[-1]
    return TrialMembers(start, streams, batches, constants, trace, np.asarray(ids, np.int32), 1, tuple(streams))


def _stream(rows: np.ndarray) -> population.Stream:
    """Returns the stream of rows [M, n] in their order; padding (-1) reads one of the member's rows at weight 0."""
    rows = np.asarray(rows, np.int32)
    real_rows = np.where(rows >= 0, rows, rows.max(1, keepdims=True, initial=0))
    return population.Stream(real_rows, (rows >= 0).astype(np.float32), np.full(len(rows), rows.shape[1], np.int32))


def relearn_carried(
    module: Module,
    prepare: Prepare,
    victims: Tree,
    data: DeviceDataset,
    trials: plan.TrialPlan,
    mapping: MemberMapping,
    *,
    key: jax.Array,
    momentum: float = 0.9,
    carried: str = "optimizer",
) -> Trajectories:
    """Runs trials as published: those of one victim, repeat and rate share an optimizer, the forget trial comes first.

    Args:
      module: the network.
      prepare: see `task`.
      victims: flax variables [V, ...].
      data: the data set on the device.
      trials: from `plan`; the first of each sequence is the forget trial.
      mapping: how members are mapped.
      key: for dropout.
      momentum: of SGD.
      carried: "optimizer": all other trials start with the momentum that the first one ends with (second version, which
        runs one of them). "everything": each starts with the momentum of the trial before it, and from the third on
        with its weights as well (first version).
    """
    checks.choice("carried", carried, CARRIED)
    groups = np.stack([trials.victim, trials.repeat, np.asarray(trials.learning_rate, np.float64)], 1)
    sequence = np.unique(groups, axis=0, return_inverse=True)[1].ravel()
    rank = np.array([np.count_nonzero(sequence[:index] == group) for index, group in enumerate(sequence)])
    turns = np.minimum(rank, 1) if carried == "optimizer" else rank
    trajectories: list[Trajectories] = []
    order: list[np.ndarray] = []
    # The k-th trials of all sequences are one population.
    for turn in range(turns.max(initial=-1) + 1):
        trial_ids = np.flatnonzero(turns == turn)
        trial_ids = trial_ids[np.argsort(sequence[trial_ids], kind="stable")]
        start = trace = None
        if turn:
            predecessors = np.searchsorted(sequence[order[-1]], sequence[trial_ids])
            trace = trees.take(trajectories[-1].momentum, predecessors)
            start = trees.take(trajectories[-1].variables, predecessors) if turn > 1 else None
        turn_trials = plan.take(trials, trial_ids)
        trajectories.append(
            relearn(
                module,
                prepare,
                victims,
                data,
                turn_trials,
                mapping,
                key=key,
                momentum=momentum,
                start=start,
                trace=trace,
            )  # fmt: skip
        )
        order.append(trial_ids)
    inverse = np.argsort(np.concatenate(order), kind="stable")
    return trees.take(jax.tree.map(lambda *leaves: np.concatenate(leaves), *trajectories), inverse)


def _check(trials: plan.TrialPlan, victims: int, rows: int) -> None:
    checks.shape(
        "M MN MT M MTr M", victim=trials.victim, probes=trials.probes, learned=trials.learned, label=trials.label,
        retained=trials.retained, learning_rate=trials.learning_rate,
    )  # fmt: skip
    if len(trials.victim) and not 0 <= trials.victim.min() <= trials.victim.max() < victims:
        raise errors.DataError(f"trials name victims {trials.victim.min()} to {trials.victim.max()} of {victims}.")
    for name, rows_read in (("probes", trials.probes), ("learned", trials.learned), ("retained", trials.retained)):
        if rows_read.size and not -1 <= rows_read.min() <= rows_read.max() < rows:
            raise errors.DataError(f"{name} contains row {rows_read.max()}, but the data set has {rows} rows.")
