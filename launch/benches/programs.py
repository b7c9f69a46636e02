"""The programs that `launch.bench population` compares, on the JAX side: the engine as a user gets it, and naive JAX.

    settings -> experiments -> job -> engine (compiled epoch, map over members, one device per core)
                                 -> naive scan over steps of vmap over members; naive loop of a jitted step

All train the same networks from the same weights with the same batches and recipe. The baselines get their batch order
and normalised float32 rows for free; the engine draws its order and normalises uint8 rows in its steps.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxunlearn import keys, models, population, settings, trees
from jaxunlearn.data.augmentation import augment
from jaxunlearn.data.formats import arrays
from jaxunlearn.population import capacity, executor, streams, training
from jaxunlearn.records import Dataset
from jaxunlearn.runs import experiments, roles
from jaxunlearn.runs.execution import scratch

Tree = Any
BATCH = 64
_FOREVER = 1_000_000  # epochs: the rounds take as many from the engine's generator as they need


class BenchProblem(NamedTuple):
    """Data and network of a comparison: source and model names of the settings, rows that one member trains on."""

    name: str
    data: str
    model: str
    rows: int


CASES = {
    "location": BenchProblem("Location MLP", f"{__name__}:location_rows", "location", 768),
    "digits": BenchProblem("digits CNN", "digits", "cnn", 896),
}


class Problem(NamedTuple):
    """A case, prepared for a number of members.

    Attributes:
      role: members and their rows, with the experiment of the case's settings.
      job: the engine's job for all members.
      initial: host carry of epoch 0, the common starting point of all programs.
    """

    role: roles.RoleSpec
    job: population.TrainingJob
    initial: training.Carry


class Engine(NamedTuple):
    """The engine's training loop, ready to be advanced epoch by epoch.

    Attributes:
      epochs: the generator that users loop over; the first epoch is not yet run.
      program: the compiled epoch.
      compile_seconds: time of compiling (without the persistent cache unless the user has set one).
      model_steps: per epoch.
    """

    epochs: Iterator[population.Progress]
    program: executor.CompiledProgram
    compile_seconds: float
    model_steps: int


def location_rows(data: settings.DataSettings) -> Dataset:
    """Draws synthetic binary rows of Location-30's shape: 446 features, 30 classes, 5,010 rows.

    Each class has a pattern, each row differs from it in a tenth of the features: learnable, and as fast as the real
    rows, since speed does not depend on the content.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(30, size=5010).astype(np.int32)
    patterns = rng.random((30, 446)) < 0.1
    inputs = patterns[labels] ^ (rng.random((len(labels), 446)) < 0.1)
    return arrays.build_cut("location_rows", inputs.astype(np.uint8), labels, data.held_out, num_classes=30)


def build(case: BenchProblem, members: int) -> Problem:
    """Loads the data, builds the network, draws every member's rows and its initial weights."""
    config = settings.defaults()
    config.data.name, config.model.name = case.data, case.model
    config.train.batch, config.train.learning_rate, config.train.schedule = BATCH, 0.05, "constant"
    config.shadows.count = members
    experiment = experiments.prepare(settings.resolve(config))

    rows = len(experiment.dataset.labels)
    table = np.zeros((members, rows), bool)
    for member, mask in enumerate(table):
        # Half of a small pool, as shadow models read it.
        pool = min(rows, 2 * case.rows)
        mask[np.random.default_rng(member).choice(pool, case.rows, replace=False)] = True
    role = roles.RoleSpec("bench", experiment, table, np.zeros(rows, bool), np.arange(0), {}, 1, "bench")
    job = scratch.make_job(role, role.member_ids)
    initial = trees.to_host(training.init_carry(job, executor.make_mapping("vmap", 1, 1)))
    return Problem(role, job, initial)


def engine(problem: Problem, members: int, devices: int = 0) -> Engine:
    """Builds the engine of the first `members` members; devices 0 = the settings' choice on this machine."""
    mapping = experiments.member_mapping(problem.role.experiment, members)
    if devices:
        mapping = executor.make_mapping(mapping.kind, mapping.group, devices)
    job = scratch.make_job(problem.role, problem.role.member_ids[:members])
    data = executor.place(experiments.device_dataset(problem.role.experiment), mapping, shared=True)
    start = time.perf_counter()
    program = training.compile_epoch(job, data, mapping)
    seconds = time.perf_counter() - start
    carry = trees.take(problem.initial, slice(members))
    epochs = training.train(job, data, _FOREVER, mapping, program=program, carry=carry)
    return Engine(epochs, program, seconds, members * job.steps)


def program_bytes(engine: Engine) -> int:
    """Returns the bytes that the compiled epoch needs per device."""
    return capacity.program_bytes(engine.program.memory)


def batch_order(problem: Problem, epoch: int = 0) -> np.ndarray:
    """Draws the engine's own batches of an epoch: [M, steps, B] int32 rows of the data set."""
    job = problem.job
    stream = jax.tree.map(jnp.asarray, job.streams["train"])

    def member_order(member_stream: streams.Stream, member_id: jax.Array) -> jax.Array:
        key = keys.at(keys.member(keys.stream(job.key, "train"), member_id), epoch)
        return streams.epoch_batches(member_stream, keys.stream(key, "train"), BATCH, job.steps)[0]

    return np.asarray(jax.jit(jax.vmap(member_order))(stream, jnp.asarray(job.member_ids)))


def network_inputs(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Returns the inputs of a network: [N, ...] float32 normalised rows and [N] int32 labels."""
    dataset = problem.role.experiment.dataset
    inputs = augment.normalise(jnp.asarray(dataset.inputs), dataset.scale, dataset.mean, dataset.std)
    return np.asarray(inputs), np.asarray(dataset.labels, np.int32)


# Plain JAX without tuning: order [M, steps, B] -> losses [M, steps]; it keeps its state between calls.
Naive = Callable[[np.ndarray], np.ndarray]


def naive_scan(problem: Problem, order: np.ndarray) -> Naive:
    """Compiles `jit(scan over steps of vmap over members)` with native convolutions for the shape of `order`."""
    step, state, data = _naive_member(problem)

    def epoch(state: Tree, order: jax.Array, data: Tree) -> tuple[Tree, jax.Array]:
        over_members = jax.vmap(step, in_axes=(0, 0, None))
        return jax.lax.scan(lambda state, rows: over_members(state, rows, data), state, order)

    steps_first = jnp.asarray(order.swapaxes(0, 1))
    program = jax.jit(epoch, donate_argnums=0).lower(state, steps_first, data).compile()
    state_cell = [state]

    def run(order: np.ndarray) -> np.ndarray:
        state_cell[0], losses = program(state_cell[0], jnp.asarray(order.swapaxes(0, 1)), data)
        return np.asarray(losses).T

    return run


def naive_loop(problem: Problem) -> Naive:
    """Builds a Python loop over members and steps of one member's jitted step, with native convolutions."""
    step, state, data = _naive_member(problem)
    members = [trees.take(state, i) for i in range(trees.size(state))]
    program = jax.jit(step, donate_argnums=0).lower(members[0], jnp.zeros(BATCH, jnp.int32), data).compile()

    def run(order: np.ndarray) -> np.ndarray:
        losses: list[list[jax.Array]] = []
        for i, member_order in enumerate(order):
            losses.append([])
            for rows in member_order:
                members[i], loss = program(members[i], rows, data)
                losses[-1].append(loss)
        return np.asarray(jax.device_get(losses))

    return run


def _naive_member(problem: Problem) -> tuple[Callable[..., Any], Tree, Tree]:
    """Returns one member's step(state, rows, data) -> (state, loss), the initial state of all members, and the data."""
    experiment = problem.role.experiment
    module = models.build(experiment.settings.model, experiment.dataset.num_classes, conv="native")
    train = experiment.settings.train
    optimizer = optax.chain(
        optax.add_decayed_weights(train.weight_decay), optax.sgd(train.learning_rate, train.momentum)
    )

    def step(state: Tree, rows: jax.Array, data: Tree) -> tuple[Tree, jax.Array]:
        params, memory = state
        inputs, labels = data[0][rows], data[1][rows]

        def objective(params: Tree) -> jax.Array:
            logits = module.apply({"params": params}, inputs, train=True)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

        loss, gradients = jax.value_and_grad(objective)(params)
        updates, memory = optimizer.update(gradients, memory, params)
        return (optax.apply_updates(params, updates), memory), loss

    params = jax.tree.map(jnp.asarray, problem.initial.state.params)
    data = jax.tree.map(jnp.asarray, network_inputs(problem))
    return step, (params, jax.vmap(optimizer.init)(params)), data
