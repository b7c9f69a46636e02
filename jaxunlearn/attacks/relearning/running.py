"""Relearning as ONE population: every (victim, trial, learning rate) is a member that starts from its victim's weights.

    per step   1 probe under the forget label + r retained rows -> training mode, CE, SGD with momentum
               evaluation mode: mean CE and accuracy over ALL probes of the member -> its trajectory

Members share nothing but the data set; the engine (`population.training`) runs them. Source: OUR `rea.py` and
`mia_mu_strategies.py`. Differs from the published code: every trial has an optimizer of its own (published: momentum
goes on from the forget trial to those of unseen classes, `relearn_carried`; the first version goes on with the weights
as well, and unseen classes are the better learned the later they come).
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
    """What M members did, step by step, and where they ended.

    Attributes:
      loss: [M, T] float32 mean cross entropy of a member's probes after each step.
      accuracy: [M, T] float32 share of them that are answered with their label.
      variables: flax variables [M, ...] after the last step.
      momentum: [M, ...] momentum of the optimizer after it.
      diverged_at: [M] step at which a member was frozen, -1 = never; its trajectory stays at what it was before.
    """

    loss: np.ndarray
    accuracy: np.ndarray
    variables: Tree
    momentum: Tree
    diverged_at: np.ndarray


class Watched(NamedTuple):
    """The rows over which a member is evaluated after every step, gathered once per epoch."""

    inputs: jax.Array  # [n, ...] raw
    labels: jax.Array  # [n] int32
    weights: jax.Array  # [n] float32, 0 = padding


def task(module: Module, prepare: Prepare, momentum: float = 0.9, weight_decay: float = 0.0) -> Task:
    """One member: trains on all its streams as one batch, evaluates its watched rows, writes down what it found.

    The optimizer's state is a dict {"momentum": tree, "loss": [T], "accuracy": [T]}. Constants of a member:
    `learning_rate`, `probe_label` (labels of the stream "probe"), and `watched` (a `Watched`).

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
        shown = [
            batch._replace(labels=jnp.full_like(batch.labels, constants["probe_label"])) if name == "probe" else batch
            for name, batch in batches.items()
        ]
        inputs, labels, weights, _ = (jnp.concatenate(column) for column in zip(*shown, strict=True))
        inputs = prepare(inputs, keys.stream(key, "augment"), False)

        def objective(params: Tree) -> tuple[jax.Array, Tree]:
            logits, moved = module.apply(
                {"params": params, **state.model_state}, inputs, train=True, mask=weights > 0,
                mutable=list(state.model_state), rngs={"dropout": keys.stream(key, "dropout")},
            )  # fmt: skip
            losses, _ = _answered(logits, labels)
            return jnp.sum(jnp.where(weights > 0, losses * weights, 0.0)) / jnp.sum(weights), dict(moved)

        (loss, model_state), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
        if weight_decay:
            gradients = jax.tree.map(lambda g, p: g + weight_decay * p, gradients, state.params)
        trace = jax.tree.map(lambda b, g: momentum * b + g, state.optimizer["momentum"], gradients)
        rate = constants["learning_rate"]
        params = jax.tree.map(lambda p, b: p - rate * b, state.params, trace)
        watched = constants["watched"]
        answers = predict({"params": params, **model_state}, watched.inputs)
        shares = watched.weights / jnp.maximum(jnp.sum(watched.weights), 1.0)
        losses, is_right = _answered(answers, watched.labels)
        lost, right = jnp.sum(shares * losses), jnp.sum(shares * is_right)
        noted = {
            "momentum": trace,
            "loss": state.optimizer["loss"].at[step_info.step].set(lost),
            "accuracy": state.optimizer["accuracy"].at[step_info.step].set(right),
        }
        return State(params, model_state, noted), Metrics(loss, jnp.float32(0.0), jnp.sum(weights))

    def predict(variables: Tree, inputs: jax.Array) -> jax.Array:
        return jnp.asarray(module.apply(variables, prepare(inputs, keys.root(0), False), train=False))

    def view(variables: Tree, inputs: jax.Array, key: jax.Array) -> jax.Array:
        del key
        return predict(variables, inputs)

    return Task(init, step, predict, view)


def _answered(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[B] cross entropies, and [B] bool whether the first largest logit is the label's.

    By comparisons in place of gathers and argmax, which a CPU does one number after another.
    """
    classes = jnp.arange(logits.shape[-1])
    is_own = classes == labels[:, None]
    own = jnp.sum(jnp.where(is_own, logits, 0.0), -1)
    top = jax.lax.stop_gradient(jnp.max(logits, -1, keepdims=True))
    losses = jnp.log(jnp.sum(jnp.exp(logits - top), -1)) + top[:, 0] - own
    is_beaten = jnp.any((logits == top) & (classes < labels[:, None]), -1)
    return losses, (own == top[:, 0]) & ~is_beaten


class TrialMembers(NamedTuple):
    """Everything of M members that a run is made of; every leaf with a leading M but `batches` and `epochs`."""

    start: Tree
    streams: dict[str, population.Stream]
    batches: dict[str, int]
    constants: dict[str, Any]
    momentum: Tree
    ids: np.ndarray
    epochs: int
    unshuffled: tuple[str, ...]


def _watch(state: State, data: DeviceDataset, constants: Tree, key: jax.Array) -> dict[str, Watched]:
    """Gathers the watched rows of a member."""
    del state, key
    rows = constants["watched_rows"]
    weights = (rows >= 0).astype(jnp.float32)
    return {"watched": Watched(jnp.asarray(data.inputs)[jnp.maximum(rows, 0)], constants["watched_labels"], weights)}


def job_of(own: Task, members: TrialMembers, key: jax.Array) -> population.Job:
    """Returns the engine's job of a population; all steps are epochs of its first stream."""
    driver = next(iter(members.streams))
    per_epoch = population.steps_per_epoch(members.streams[driver], members.batches[driver])
    blank = np.full((len(members.ids), members.epochs * per_epoch), np.nan, np.float32)
    rest = {name: leaf for name, leaf in members.start.items() if name != "params"}
    noted = {"momentum": members.momentum, "loss": blank, "accuracy": blank}
    return population.Job(
        task=own, streams=members.streams, batches=members.batches, member_ids=members.ids, key=key,
        constants=members.constants, steps=per_epoch, initial=State(members.start["params"], rest, noted),
        unshuffled=members.unshuffled, on_epoch_start=_watch,
    )  # fmt: skip


def run(
    job: population.Job,
    epochs: int,
    data: DeviceDataset,
    mapping: MemberMapping,
    program: executor.Compiled | None = None,
) -> Trajectories:
    """Runs one population to its end; `program` is that of the job, or of another of the same shapes."""
    *_, last = population.train(job, data, epochs, mapping, program=program)
    carry = population.host(last)
    found = carry.state.optimizer
    return Trajectories(
        _filled(found["loss"]), _filled(found["accuracy"]), population.variables(carry.state), found["momentum"],
        np.asarray(carry.diverged_at),
    )  # fmt: skip


def _filled(values: np.ndarray) -> np.ndarray:
    """[M, T] with steps that a member did not take as the last one before them; NaN where there is none."""
    taken = np.where(np.isnan(values), 0, np.arange(values.shape[1]))
    return np.take_along_axis(values, np.maximum.accumulate(taken, 1), 1)


def no_momentum(start: Tree) -> Tree:
    """The momentum of new optimizers of members with these variables."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), start["params"])


def relearn(
    module: Module,
    prepare: Prepare,
    victims: Tree,
    data: DeviceDataset,
    trials: plan.Trials,
    mapping: MemberMapping,
    *,
    key: jax.Array,
    momentum: float = 0.9,
    chunk: int = 0,
    start: Tree = None,
    trace: Tree = None,
) -> Trajectories:
    """Runs all trials; each from its victim's weights, with an optimizer of its own.

    Args:
      module: the network.
      prepare: see `task`.
      victims: flax variables [V, ...] of the unlearned models.
      data: the resident data set.
      trials: from `plan`.
      mapping: how members are mapped (`population.make`); small networks want groups side by side.
      key: for dropout alone; everything else follows from the trials.
      momentum: of SGD.
      chunk: members that run together; 0 = all.
      start: flax variables [M, ...] to start from in place of the victims'.
      trace: [M, ...] momentum to start with in place of 0.

    Raises:
      ShapeError: trials of different lengths. DataError: a victim or row that does not exist.
    """
    if not len(trials.victim):
        raise errors.DataError("there are no trials to run.")
    chunks = relearn_by_chunk(
        module, prepare, victims, data, trials, mapping, key=key, momentum=momentum, chunk=chunk, start=start,
        trace=trace,
    )  # fmt: skip
    return jax.tree.map(lambda *parts: np.concatenate(parts), *(found for _, found in chunks))


def relearn_by_chunk(
    module: Module,
    prepare: Prepare,
    victims: Tree,
    data: DeviceDataset,
    trials: plan.Trials,
    mapping: MemberMapping,
    *,
    key: jax.Array,
    momentum: float = 0.9,
    chunk: int = 0,
    skip: Collection[int] = (),
    start: Tree = None,
    trace: Tree = None,
) -> Iterator[tuple[int, Trajectories]]:
    """Runs trials chunk by chunk: yields (number of the chunk, what its members did), for callers that keep less.

    All arguments but `skip`, numbers of chunks that are not run, are those of `relearn`.
    """
    _check(trials, trees.size(victims), len(np.asarray(data.labels)))
    own, count = task(module, prepare, momentum), len(trials.victim)
    size, program = chunk or count, None
    for number, first in enumerate(range(0, count, size)):
        if number in skip:
            continue
        # The last chunk is filled up with its last trial, so that all chunks share one program's shapes.
        places = np.minimum(np.arange(first, first + min(size, count)), count - 1)
        cut = plan.take(trials, places)
        begun = trees.take(victims, cut.victim) if start is None else trees.take(start, places)
        given = no_momentum(begun) if trace is None else trees.take(trace, places)
        job = job_of(own, members_of(cut, begun, given, places), key)
        program = program or training.compile_epoch(job, data, mapping)
        made = run(job, 1, data, mapping, program)
        yield number, trees.take(made, slice(0, count - first))


def members_of(trials: plan.Trials, start: Tree, trace: Tree, ids: np.ndarray) -> TrialMembers:
    """The population of some trials; a member's number is its place, so that dropout differs between members."""
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
    """Rows [M, n] as they are, -1 = padding, for which a row of the member's own is read at weight 0."""
    rows = np.asarray(rows, np.int32)
    own = np.where(rows >= 0, rows, rows.max(1, keepdims=True, initial=0))
    return population.Stream(own, (rows >= 0).astype(np.float32), np.full(len(rows), rows.shape[1], np.int32))


def relearn_carried(
    module: Module,
    prepare: Prepare,
    victims: Tree,
    data: DeviceDataset,
    trials: plan.Trials,
    mapping: MemberMapping,
    *,
    key: jax.Array,
    momentum: float = 0.9,
    carried: str = "optimizer",
) -> Trajectories:
    """Runs trials as published: those of one victim, repeat and rate share an optimizer, the first one goes ahead.

    Args:
      module: the network.
      prepare: see `task`.
      victims: flax variables [V, ...].
      data: the resident data set.
      trials: from `plan`; of a sequence the first is the forget trial.
      mapping: how members are mapped.
      key: for dropout.
      momentum: of SGD.
      carried: "optimizer": all others go on with the momentum that the first one leaves (second version, which runs one
        of them). "everything": each goes on with the momentum of the one before it, and from the third on with its
        weights, too (first version).
    """
    checks.choice("carried", carried, CARRIED)
    lines = np.stack([trials.victim, trials.repeat, np.asarray(trials.learning_rate, np.float64)], 1)
    sequence = np.unique(lines, axis=0, return_inverse=True)[1].ravel()
    rank = np.array([np.count_nonzero(sequence[:place] == one) for place, one in enumerate(sequence)])
    turns = np.minimum(rank, 1) if carried == "optimizer" else rank
    found: list[Trajectories] = []
    order: list[np.ndarray] = []
    # The k-th trials of all sequences are one population.
    for turn in range(turns.max(initial=-1) + 1):
        places = np.flatnonzero(turns == turn)
        places = places[np.argsort(sequence[places], kind="stable")]
        start = trace = None
        if turn:
            before = np.searchsorted(sequence[order[-1]], sequence[places])
            trace = trees.take(found[-1].momentum, before)
            start = trees.take(found[-1].variables, before) if turn > 1 else None
        own = plan.take(trials, places)
        found.append(
            relearn(module, prepare, victims, data, own, mapping, key=key, momentum=momentum, start=start, trace=trace)
        )
        order.append(places)
    back = np.argsort(np.concatenate(order), kind="stable")
    return trees.take(jax.tree.map(lambda *parts: np.concatenate(parts), *found), back)


def _check(trials: plan.Trials, victims: int, rows: int) -> None:
    checks.shape(
        "M MN MT M MTr M", victim=trials.victim, probes=trials.probes, learned=trials.learned, label=trials.label,
        retained=trials.retained, learning_rate=trials.learning_rate,
    )  # fmt: skip
    if len(trials.victim) and not 0 <= trials.victim.min() <= trials.victim.max() < victims:
        raise errors.DataError(f"trials name victims {trials.victim.min()} to {trials.victim.max()} of {victims}.")
    for name, places in (("probes", trials.probes), ("learned", trials.learned), ("retained", trials.retained)):
        if places.size and not -1 <= places.min() <= places.max() < rows:
            raise errors.DataError(f"{name} holds row {places.max()}, but the data set has {rows} rows.")
