"""Training steps of convolutional networks: alone, inside the epoch, in groups of members, and to the end.

Every function yields the rows of `names`; sizes arrive as arguments (see `table.py`). Pictures are random bytes: speed
does not depend on what they show. "tf32" is float32 with the products that a GPU takes by default, "f32" exact float32.
"""

import importlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import data, keys, population, settings
from jaxunlearn.data.formats import arrays
from jaxunlearn.models import build, cost
from jaxunlearn.population import capacity, executor, training
from jaxunlearn.records import Dataset
from jaxunlearn.runs import experiments

from ..timing import value_row
from . import clock, peaks, programs

Row = dict[str, Any]
_FOREVER = 1_000_000


class Network(NamedTuple):
    """A network on random pictures.

    Attributes:
      settings: of its training.
      dataset: random rows.
      operations: arithmetic of one training sample, forward and both gradients.
    """

    settings: settings.Settings
    dataset: Dataset
    operations: float


def make_network(model: str, side: int, batch: int, arithmetic: str, augment: str = "none",
                 rows: int = 50_000) -> Network:  # fmt: skip
    """A network of the table of models, with `rows` random pictures of side x side pixels and ten classes."""
    draw = np.random.default_rng(0)
    pictures = draw.integers(0, 256, (rows, side, side, 3), dtype=np.uint8)
    dataset = arrays.build_cut("random_pictures", pictures, draw.integers(0, 10, rows).astype(np.int32), 0.1,
                               num_classes=10)  # fmt: skip
    config = settings.defaults()
    config.model.name, config.model.dtype = model, peaks.ARITHMETIC[arithmetic][0]
    config.train.batch, config.data.augment = batch, augment
    resolved = settings.resolve(config)
    forward = cost.describe(build(resolved.model, 10), (side, side, 3)).forward_flops
    return Network(resolved, dataset, 3.0 * forward)


def precision(arithmetic: str) -> Any:
    """The context in which programs of this arithmetic are traced."""
    return jax.default_matmul_precision(peaks.ARITHMETIC[arithmetic][1])


def _sample_row(name: str, seconds: Sequence[float], samples: int, operations: float, arithmetic: str,
                **facts: Any) -> Row:  # fmt: skip
    """Microseconds per training sample, from seconds per call."""
    row = value_row(name, [1e6 * one / samples for one in seconds], "us per sample", **facts)
    return {**row, "arithmetic": arithmetic, "operation_rate": operations / (row["value"] * 1e-6)}


# ---------------------------------------------------------------------------------------------------------------------
# one member: the plain step, and the same inside a scan


def plain_step(
    names: Sequence[str], *, pace: clock.Pace, network: dict[str, Any], conv: str = "native"
) -> Iterator[Row]:
    """One jitted step of one member on one batch, donated state; compiling, and autotuning apart.

    Rows, in order of `names`: the step; seconds of compiling without autotuning; seconds that autotuning adds.
    """
    made = make_network(**network)
    batch, arithmetic = made.settings.train.batch, network["arithmetic"]
    with precision(arithmetic):
        step, state, rows = _member(made, conv)
        lowered = jax.jit(step, donate_argnums=0).lower(state, rows)
    plain_seconds = 0.0
    if len(names) > 1:
        _start_libraries()
        _, plain_seconds = _compiled(lowered, {"xla_gpu_autotune_level": "0"})
    program, compile_seconds = _compiled(lowered, None)
    call = _stateful(lambda state: program(state, rows), state)
    times = clock.windows(call, pace, jax.block_until_ready)
    counts = programs.step_of(program.as_text())
    facts = {"kernels": counts.kernels, "bytes_per_sample": counts.num_bytes / batch, "batch": batch,
             "compile_seconds": compile_seconds}  # fmt: skip
    calls = 10
    where = clock.profile(_repeated(call, calls), jax.block_until_ready, calls * statistics.median(times), calls)
    yield _sample_row(names[0], times, batch, made.operations, arithmetic, **facts, **where)
    if len(names) > 1:
        yield value_row(names[1], [plain_seconds], "s")
        yield value_row(names[2], [compile_seconds - plain_seconds], "s more")


def _start_libraries() -> None:
    """Compiles and runs a small convolution and product: what libraries do once must not count as compiling."""
    pictures, kernel = jnp.ones((8, 8, 8, 8)), jnp.ones((3, 3, 8, 8))

    @jax.jit
    def small(pictures: jax.Array, kernel: jax.Array) -> jax.Array:
        maps = jax.lax.conv_general_dilated(
            pictures, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return maps.reshape(64, 64) @ maps.reshape(64, 64)

    jax.block_until_ready(small(pictures, kernel))


def _compiled(lowered: Any, options: dict[str, str] | None) -> tuple[Any, float]:
    begun = time.perf_counter()
    return lowered.compile(compiler_options=options), time.perf_counter() - begun


def scanned_step(names: Sequence[str], *, pace: clock.Pace, network: dict[str, Any], steps: int) -> Iterator[Row]:
    """The plain step inside a scan, always on the same batch: what the loop itself costs."""
    made = make_network(**network)
    batch, arithmetic = made.settings.train.batch, network["arithmetic"]
    with precision(arithmetic):
        step, state, rows = _member(made, "cpu" if jax.default_backend() == "cpu" else "native")

        def epoch(state: Any, rows: Any) -> Any:
            return jax.lax.scan(lambda state, _: (step(state, rows), None), state, None, length=steps)[0]

        program = jax.jit(epoch, donate_argnums=0).lower(state, rows).compile()
    times = clock.windows(_stateful(lambda state: program(state, rows), state), pace, jax.block_until_ready)
    counts = programs.step_of(program.as_text())
    yield _sample_row(names[0], times, steps * batch, made.operations, arithmetic, kernels=counts.kernels,
                      bytes_per_sample=counts.num_bytes / batch)  # fmt: skip


def _member(made: Network, conv: str) -> tuple[Callable[[Any, Any], Any], Any, Any]:
    """One member's step(state, batch) -> state, its initial state, and a batch on the device."""
    task = experiments.build_task(made.settings, made.dataset, conv)
    size = made.settings.train.batch
    rows = np.arange(size, dtype=np.int32)
    batch = population.Batch(jnp.asarray(made.dataset.inputs[:size]), jnp.asarray(made.dataset.labels[:size]),
                             jnp.ones(size, jnp.float32), jnp.asarray(rows))  # fmt: skip
    constants = {"learning_rate": jnp.float32(1e-3), "weight_decay": jnp.float32(0.0)}

    def step(state: Any, batch: population.Batch) -> Any:
        now = population.StepInfo(jnp.int32(0), jnp.float32(0.0), jnp.int32(0))
        return task.step(state, {"train": batch}, now, keys.root(0), constants)[0]

    return step, jax.jit(task.init)(keys.root(0)), batch


def _stateful(program: Callable[[Any], Any], state: Any) -> Callable[[], Any]:
    """A call without arguments that goes on from where the last one ended."""
    held = [state]

    def call() -> Any:
        held[0] = program(held[0])
        return held[0]

    return call


def _repeated(call: Callable[[], Any], times: int) -> Callable[[], Any]:
    def calls() -> Any:
        for _ in range(times):
            result = call()
        return result

    return calls


# ---------------------------------------------------------------------------------------------------------------------
# the engine's epoch


def epoch(
    names: Sequence[str], *, pace: clock.Pace, network: dict[str, Any], steps: int, members: int = 1,
    mapping: str = "map", conv: str = "unrolled", profiled: bool = False, epoch_rows: int = 0,
) -> Iterator[Row]:  # fmt: skip
    """The engine's epoch as a user gets it, `members` side by side in one group.

    Rows, in order of `names`: microseconds per sample, with kernels per step, compile seconds, and memory at its peak
    (before training, autotuning included, and after) next to what the compiler predicted; with a second name, seconds
    per epoch of `epoch_rows` samples of one member.
    """
    made = make_network(**network)
    arithmetic, batch = network["arithmetic"], made.settings.train.batch
    with precision(arithmetic):
        job, resident, member_mapping = _job(made, steps, members, mapping, conv)
        begun = time.perf_counter()
        program = training.compile_epoch(job, resident, member_mapping)
        compile_seconds = time.perf_counter() - begun
    before = peak_bytes()
    epochs = training.train(job, resident, _FOREVER, member_mapping, program=program)
    times = clock.windows(lambda: next(epochs), pace, _nothing)
    counts = programs.step_of(program.call.as_text())  # type: ignore[attr-defined]
    facts = {"members": members, "mapping": mapping, "conv": conv, "kernels": counts.kernels,
             "bytes_per_sample": counts.num_bytes / (batch * members), "compile_seconds": compile_seconds,
             "predicted_bytes": capacity.program_bytes(program.memory), "peak_bytes": peak_bytes(),
             "peak_bytes_before": before, "batch": batch, "augment": network.get("augment", "none")}  # fmt: skip
    where = clock.profile(lambda: next(epochs), _nothing, statistics.median(times), steps) if profiled else {}
    row = _sample_row(names[0], times, steps * batch * members, made.operations, arithmetic, **facts, **where)
    yield row
    if len(names) > 1:
        scale = epoch_rows * 1e-6
        spread = [scale * row[key] for key in ("value", "low", "high")]
        yield value_row(names[1], spread, "s", rounds=row["rounds"])


def _nothing(result: Any) -> None:
    """The engine waits for every epoch itself: it hands out sums on the host."""


def peak_bytes() -> int | None:
    """Most device memory in use so far; None where the device does not say."""
    memory = jax.local_devices()[0].memory_stats() or {}
    return memory.get("peak_bytes_in_use")


def _job(made: Network, steps: int, members: int, mapping: str,
         conv: str) -> tuple[population.Job, population.DeviceDataset, population.MemberMapping]:  # fmt: skip
    """A population in which every member passes over `steps` batches per epoch."""
    batch, total = made.settings.train.batch, len(made.dataset.labels)
    task = experiments.build_task(made.settings, made.dataset, conv)
    job, resident = _population(task, made.dataset, members, total, steps * batch, batch, 1e-3, 0.0)
    return job, resident, executor.make_mapping(mapping, members, 1)


def _population(
    task: Any, dataset: Dataset, members: int, pool: int, rows: int, batch: int, rate: float, decay: float
) -> tuple[population.Job, population.DeviceDataset]:
    """Members that train on `rows` random rows of the first `pool`, and the data set on the device."""
    member = np.zeros((members, len(dataset.labels)), bool)
    for i, line in enumerate(member):
        line[np.random.default_rng(i).choice(pool, rows, replace=False)] = True
    stream, ones = population.from_membership(member), np.ones(members, np.float32)
    job = population.Job(
        task=task, streams={"train": stream}, batches={"train": batch},
        member_ids=np.arange(members, dtype=np.int32), key=keys.root(0),
        constants={"learning_rate": rate * ones, "weight_decay": decay * ones},
        steps=population.steps_per_epoch(stream, batch),
    )  # fmt: skip
    return job, population.DeviceDataset(np.asarray(dataset.inputs), np.asarray(dataset.labels, np.int32))


# ---------------------------------------------------------------------------------------------------------------------
# the fast recipe on real pictures


def fast_accuracy(
    names: Sequence[str], *, pace: clock.Pace, path: str, variant: str, arithmetic: str, members: int, rows: int,
) -> Iterator[Row]:  # fmt: skip
    """Held-out accuracy and seconds of `members` models trained to the end as configs/cifar10_fast.py has it.

    Args:
      names: accuracy; seconds of all epochs, compiling and start left out.
      pace: not used; the training is timed once, whole.
      path: CIFAR-10 as .npz.
      variant: of the config.
      arithmetic: bf16, tf32 or f32.
      members: models trained side by side.
      rows: training rows of each, drawn from the first 5 / 4 as many.
    """
    config = importlib.import_module("configs.cifar10_fast").get_config(variant)
    config.data.path, config.model.dtype = path, peaks.ARITHMETIC[arithmetic][0]
    chosen = settings.resolve(config)
    dataset = data.load(chosen.data)
    pool = min(rows * 5 // 4, dataset.num_train)
    own = min(rows, pool)
    on_cpu = jax.default_backend() == "cpu"
    task = experiments.build_task(chosen, dataset, "cpu" if on_cpu else "unrolled")
    member_mapping = executor.make_mapping("map", 1 if on_cpu else members, 1)
    train = chosen.train
    job, resident = _population(task, dataset, members, pool, own, train.batch, train.learning_rate, train.weight_decay)
    program = training.compile_epoch(job, resident, member_mapping)
    ends = []
    for progress in training.train(job, resident, chosen.train.epochs, member_mapping, program=program):
        ends.append(time.perf_counter())
        last = progress
    # The first epoch holds the initialisation and its compiling.
    seconds = (ends[-1] - ends[0]) * len(ends) / max(len(ends) - 1, 1)
    variables = training.kept_variables(training.host(last))
    held_out = np.arange(dataset.num_train, len(dataset.labels), dtype=np.int32)
    answers = population.predict(task, variables, resident.inputs, held_out, member_mapping)
    right = np.concatenate([logits.argmax(-1) == dataset.labels[held_out[place]] for place, logits in answers], axis=1)
    facts = {"members": members, "rows_per_member": own, "epochs": chosen.train.epochs,
             "train_accuracy": float(last.accuracy.mean())}  # fmt: skip
    yield value_row(names[0], right.mean(1).tolist(), "of held-out rows", **facts)
    if len(names) > 1:
        yield value_row(names[1], [seconds], "s", **facts)
