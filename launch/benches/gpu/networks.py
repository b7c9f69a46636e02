"""Training steps of convolutional networks: alone, inside the epoch, in groups of members, and to the end.

Every function yields the rows of `names`; sizes arrive as arguments (see `table.py`). Pictures are random bytes: speed
does not depend on the content. "tf32" is float32 with a GPU's default products, "f32" exact float32.
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
    """Builds a network and random pictures in ten classes.

    Args:
      model: name in the table of models.
      side: pixels per side.
      batch: rows per step.
      arithmetic: bf16, tf32 or f32.
      augment: of the training.
      rows: number of pictures.
    """
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
    """Returns the context in which programs of this arithmetic are traced."""
    return jax.default_matmul_precision(peaks.ARITHMETIC[arithmetic][1])


def _sample_row(name: str, seconds: Sequence[float], samples: int, operations: float, arithmetic: str,
                **facts: Any) -> Row:  # fmt: skip
    """Builds a row of microseconds per training sample from seconds per call."""
    row = value_row(name, [1e6 * call_seconds / samples for call_seconds in seconds], "us per sample", **facts)
    return {**row, "arithmetic": arithmetic, "operation_rate": operations / (row["value"] * 1e-6)}


# ---------------------------------------------------------------------------------------------------------------------
# one member: the plain step, also inside a scan


def plain_step(
    names: Sequence[str], *, pace: clock.Pace, network: dict[str, Any], conv: str = "native"
) -> Iterator[Row]:
    """Measures one jitted step of one member on one batch, donated state; compiling and autotuning separately.

    Rows, in order of `names`: the step; seconds of compiling without autotuning; seconds that autotuning adds.

    Args:
      names: rows to measure.
      pace: of the windows.
      network: arguments of `make_network`.
      conv: form of the convolution.
    """
    net = make_network(**network)
    batch, arithmetic = net.settings.train.batch, network["arithmetic"]
    with precision(arithmetic):
        step, state, rows = _member(net, conv)
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
    kernel_profile = clock.profile(
        _repeated(call, calls), jax.block_until_ready, calls * statistics.median(times), calls
    )
    yield _sample_row(names[0], times, batch, net.operations, arithmetic, **facts, **kernel_profile)
    if len(names) > 1:
        yield value_row(names[1], [plain_seconds], "s")
        yield value_row(names[2], [compile_seconds - plain_seconds], "s more")


def _start_libraries() -> None:
    """Compiles and runs a small convolution and product, so that start-up of libraries does not count as compiling."""
    pictures, kernel = jnp.ones((8, 8, 8, 8)), jnp.ones((3, 3, 8, 8))

    @jax.jit
    def small(pictures: jax.Array, kernel: jax.Array) -> jax.Array:
        maps = jax.lax.conv_general_dilated(
            pictures, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return maps.reshape(64, 64) @ maps.reshape(64, 64)

    jax.block_until_ready(small(pictures, kernel))


def _compiled(lowered: Any, options: dict[str, str] | None) -> tuple[Any, float]:
    start = time.perf_counter()
    return lowered.compile(compiler_options=options), time.perf_counter() - start


def scanned_step(names: Sequence[str], *, pace: clock.Pace, network: dict[str, Any], steps: int) -> Iterator[Row]:
    """Measures the plain step inside a scan, always on the same batch: the cost of the loop.

    Args:
      names: rows to measure.
      pace: of the windows.
      network: arguments of `make_network`.
      steps: of the scan.
    """
    net = make_network(**network)
    batch, arithmetic = net.settings.train.batch, network["arithmetic"]
    with precision(arithmetic):
        step, state, rows = _member(net, "cpu" if jax.default_backend() == "cpu" else "native")

        def epoch(state: Any, rows: Any) -> Any:
            return jax.lax.scan(lambda state, _: (step(state, rows), None), state, None, length=steps)[0]

        program = jax.jit(epoch, donate_argnums=0).lower(state, rows).compile()
    times = clock.windows(_stateful(lambda state: program(state, rows), state), pace, jax.block_until_ready)
    counts = programs.step_of(program.as_text())
    yield _sample_row(names[0], times, steps * batch, net.operations, arithmetic, kernels=counts.kernels,
                      bytes_per_sample=counts.num_bytes / batch)  # fmt: skip


def _member(net: Network, conv: str) -> tuple[Callable[[Any, Any], Any], Any, Any]:
    """Returns one member's step(state, batch) -> state, its initial state, and a batch on the device."""
    task = experiments.build_task(net.settings, net.dataset, conv)
    size = net.settings.train.batch
    rows = np.arange(size, dtype=np.int32)
    batch = population.Batch(jnp.asarray(net.dataset.inputs[:size]), jnp.asarray(net.dataset.labels[:size]),
                             jnp.ones(size, jnp.float32), jnp.asarray(rows))  # fmt: skip
    constants = {"learning_rate": jnp.float32(1e-3), "weight_decay": jnp.float32(0.0)}

    def step(state: Any, batch: population.Batch) -> Any:
        step_info = population.StepInfo(jnp.int32(0), jnp.float32(0.0), jnp.int32(0))
        return task.step(state, {"train": batch}, step_info, keys.root(0), constants)[0]

    return step, jax.jit(task.init)(keys.root(0)), batch


def _stateful(program: Callable[[Any], Any], state: Any) -> Callable[[], Any]:
    """Returns a call without arguments that continues from the state of the last one."""
    state_cell = [state]

    def call() -> Any:
        state_cell[0] = program(state_cell[0])
        return state_cell[0]

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
    """Measures the engine's epoch as a user gets it, `members` side by side in one group.

    Rows, in order of `names`: microseconds per sample, with kernels per step, compile seconds, peak memory (before
    training, with autotuning, and after) and the compiler's prediction of it; with a second name, seconds per epoch of
    `epoch_rows` samples of one member.

    Args:
      names: rows to measure.
      pace: of the windows.
      network: arguments of `make_network`.
      steps: per epoch.
      members: trained in one group.
      mapping: of members: map or vmap.
      conv: form of the convolution.
      profiled: whether kernels are profiled.
      epoch_rows: samples of the second row.
    """
    net = make_network(**network)
    arithmetic, batch = network["arithmetic"], net.settings.train.batch
    with precision(arithmetic):
        job, device_data, member_mapping = _job(net, steps, members, mapping, conv)
        start = time.perf_counter()
        program = training.compile_epoch(job, device_data, member_mapping)
        compile_seconds = time.perf_counter() - start
    peak_bytes_before = peak_bytes()
    epochs = training.train(job, device_data, _FOREVER, member_mapping, program=program)
    times = clock.windows(lambda: next(epochs), pace, _nothing)
    counts = programs.step_of(program.call.as_text())  # type: ignore[attr-defined]
    facts = {"members": members, "mapping": mapping, "conv": conv, "kernels": counts.kernels,
             "bytes_per_sample": counts.num_bytes / (batch * members), "compile_seconds": compile_seconds,
             "predicted_bytes": capacity.program_bytes(program.memory), "peak_bytes": peak_bytes(),
             "peak_bytes_before": peak_bytes_before, "batch": batch,
             "augment": network.get("augment", "none")}  # fmt: skip
    kernel_profile = clock.profile(lambda: next(epochs), _nothing, statistics.median(times), steps) if profiled else {}
    row = _sample_row(names[0], times, steps * batch * members, net.operations, arithmetic, **facts, **kernel_profile)
    yield row
    if len(names) > 1:
        scale = epoch_rows * 1e-6
        spread = [scale * row[key] for key in ("value", "low", "high")]
        yield value_row(names[1], spread, "s", rounds=row["rounds"])


def _nothing(result: Any) -> None:
    """Does nothing: the engine waits for every epoch itself, since it returns sums on the host."""


def peak_bytes() -> int | None:
    """Returns the peak of device memory in use so far; None if the device does not report it."""
    memory = jax.local_devices()[0].memory_stats() or {}
    return memory.get("peak_bytes_in_use")


def _job(net: Network, steps: int, members: int, mapping: str,
         conv: str) -> tuple[population.TrainingJob, population.DeviceDataset, population.MemberMapping]:  # fmt: skip
    """Builds a population in which every member passes over `steps` batches per epoch."""
    batch, total = net.settings.train.batch, len(net.dataset.labels)
    task = experiments.build_task(net.settings, net.dataset, conv)
    job, device_data = _population(task, net.dataset, members, total, steps * batch, batch, 1e-3, 0.0)
    return job, device_data, executor.make_mapping(mapping, members, 1)


def _population(
    task: Any, dataset: Dataset, members: int, pool: int, rows: int, batch: int, rate: float, decay: float
) -> tuple[population.TrainingJob, population.DeviceDataset]:
    """Builds members that train on `rows` random rows of the first `pool`, and the data set on the device."""
    membership = np.zeros((members, len(dataset.labels)), bool)
    for i, mask in enumerate(membership):
        mask[np.random.default_rng(i).choice(pool, rows, replace=False)] = True
    stream, ones = population.from_membership(membership), np.ones(members, np.float32)
    job = population.TrainingJob(
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
    """Trains `members` models by configs/cifar10_fast.py; measures held-out accuracy and seconds.

    Args:
      names: accuracy; seconds of all epochs, without compiling and start.
      pace: not used; the training is timed once as a whole.
      path: CIFAR-10 as .npz.
      variant: of the config.
      arithmetic: bf16, tf32 or f32.
      members: models trained side by side.
      rows: training rows of each, drawn from the first 5 / 4 * rows.
    """
    config = importlib.import_module("configs.cifar10_fast").get_config(variant)
    config.data.path, config.model.dtype = path, peaks.ARITHMETIC[arithmetic][0]
    run_settings = settings.resolve(config)
    dataset = data.load(run_settings.data)
    pool = min(rows * 5 // 4, dataset.num_train)
    member_rows = min(rows, pool)
    on_cpu = jax.default_backend() == "cpu"
    task = experiments.build_task(run_settings, dataset, "cpu" if on_cpu else "unrolled")
    member_mapping = executor.make_mapping("map", 1 if on_cpu else members, 1)
    train = run_settings.train
    job, device_data = _population(
        task, dataset, members, pool, member_rows, train.batch, train.learning_rate, train.weight_decay
    )
    program = training.compile_epoch(job, device_data, member_mapping)
    ends = []
    for progress in training.train(job, device_data, run_settings.train.epochs, member_mapping, program=program):
        ends.append(time.perf_counter())
        last = progress
    # The first epoch includes the initialisation and its compiling.
    seconds = (ends[-1] - ends[0]) * len(ends) / max(len(ends) - 1, 1)
    variables = training.kept_variables(training.host(last))
    held_out = np.arange(dataset.num_train, len(dataset.labels), dtype=np.int32)
    predictions = population.predict(task, variables, device_data.inputs, held_out, member_mapping)
    is_correct = np.concatenate(
        [logits.argmax(-1) == dataset.labels[held_out[chunk]] for chunk, logits in predictions], axis=1
    )
    facts = {"members": members, "rows_per_member": member_rows, "epochs": run_settings.train.epochs,
             "train_accuracy": float(last.accuracy.mean())}  # fmt: skip
    yield value_row(names[0], is_correct.mean(1).tolist(), "of held-out rows", **facts)
    if len(names) > 1:
        yield value_row(names[1], [seconds], "s", **facts)
