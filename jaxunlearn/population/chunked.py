"""The one restartable loop: trains members chunk by chunk with rolling checkpoints, and resumes after any kill.

    queue of members -> as many as fit into memory -> epochs, with a checkpoint now and then -> stored -> next chunk
                                                        | out of memory: continues with two halves

Training from scratch and unlearning differ in what an epoch is (`ChunkedTraining.epochs`) and in where results are
stored; nothing else in the package has such a loop.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxunlearn import errors, progress
from jaxunlearn.population import capacity


class EpochReport(NamedTuple):
    """One finished epoch of a chunk.

    Attributes:
      epoch: finished epochs over all phases, from 1; 0 where only a result is reported.
      loss, accuracy: [m] means over the epoch.
      state: () -> state from which training can resume, for `ChunkedTraining.save`.
      result: the members so far; in the last report, the final ones.
    """

    epoch: int
    loss: np.ndarray
    accuracy: np.ndarray
    state: Callable[[], Any]
    result: Any


class Checkpoint(NamedTuple):
    """Progress of a chunk: `state` after `epoch` epochs, history [m, epochs] up to there, seconds spent."""

    epoch: int
    state: Any
    history: dict[str, np.ndarray]
    seconds: float = 0.0


class ChunkedTraining(NamedTuple):
    """A group of members as the loop sees it.

    Attributes:
      num_epochs: of every member, at least 1.
      fit: ids -> how many of them train at once.
      epochs: (ids, checkpoint or None) -> reports, one per epoch; the last one carries the result.
      load: ids -> their checkpoint, or None.
      save: (ids, state, history, epoch, seconds) stores a rolling checkpoint.
      on_epoch_end: (ids, report, history), called after every epoch, e.g. to store snapshots of weights.
      finish: (ids, result, history, seconds) stores finished members and drops their checkpoint.
      steps: (ids, epochs) -> amount of work of that many epochs; `unit`: its unit.
      compile_seconds: () -> seconds spent on compiling so far, as far as they are measured separately.
      checkpoint_seconds: minimum time between checkpoints.
    """

    num_epochs: int
    fit: Callable[[np.ndarray], int]
    epochs: Callable[[np.ndarray, Checkpoint | None], Iterator[EpochReport]]
    load: Callable[[np.ndarray], Checkpoint | None]
    save: Callable[[np.ndarray, Any, dict[str, np.ndarray], int, float], None]
    on_epoch_end: Callable[[np.ndarray, EpochReport, dict[str, np.ndarray]], None]
    finish: Callable[[np.ndarray, Any, dict[str, np.ndarray], float], None]
    steps: Callable[[np.ndarray, int], float]
    unit: str
    compile_seconds: Callable[[], float]
    checkpoint_seconds: float


class TrainingCost(NamedTuple):
    """Cost of training in this process (chunks finished by earlier ones cost nothing).

    Attributes:
      members: number trained; model_steps: of all of them, or passes over their rows.
      seconds: without compiling, as far as that is measured separately.
      compile_seconds: the rest.
    """

    members: int = 0
    model_steps: float = 0.0
    seconds: float = 0.0
    compile_seconds: float = 0.0


def add(first: TrainingCost, second: TrainingCost) -> TrainingCost:
    """Returns the sum of two costs."""
    sums = [left + right for left, right in zip(first, second, strict=True)]
    return TrainingCost(int(sums[0]), *sums[1:])


def train(
    training: ChunkedTraining, queue: list[tuple[np.ndarray, bool]], reporter: progress.Reporter
) -> TrainingCost:  # fmt: skip
    """Trains all members of a queue.

    Args:
      training: what an epoch is, and where things are stored.
      queue: ([m] member ids, whether exactly these may have a checkpoint), in order of training.
      reporter: for progress; its stage has been started.

    Raises:
      DeviceError: not even one member fits into memory.
    """
    cost, queue = TrainingCost(), list(queue)
    total = sum(training.steps(ids, training.num_epochs) for ids, _ in queue)
    while queue:
        ids, may_resume = queue.pop(0)
        try:
            size = len(ids) if may_resume else training.fit(ids)
            if size < len(ids):
                queue = [*((ids[start : start + size], False) for start in range(0, len(ids), size)), *queue]
                continue
            cost = add(cost, _train_chunk(training, ids, may_resume, cost, total, reporter))
        except (jax.errors.JaxRuntimeError, capacity.DoesNotFit) as error:
            queue = [*((half_ids, False) for half_ids in halves(error, ids, reporter)), *queue]
    return cost


def _train_chunk(
    training: ChunkedTraining, ids: np.ndarray, may_resume: bool, cost: TrainingCost, total: float,
    reporter: progress.Reporter,
) -> TrainingCost:  # fmt: skip
    """Trains one chunk to the end, stores it and returns its cost; `cost` is that of the previous chunks."""
    checkpoint = training.load(ids) if may_resume else None
    history = blank_history(len(ids), training.num_epochs) if checkpoint is None else checkpoint.history
    first_epoch = 0 if checkpoint is None else checkpoint.epoch
    compile_seconds_before = training.compile_seconds()  # includes finding out how many members fit
    seconds_before = compile_seconds_before - cost.compile_seconds + (0.0 if checkpoint is None else checkpoint.seconds)
    start_time = last_save = time.monotonic()
    reported_seconds, result = cost.compile_seconds, None
    for report in training.epochs(ids, checkpoint):
        result = report.result
        if not report.epoch:
            continue
        history["loss"][:, report.epoch - 1] = report.loss
        history["accuracy"][:, report.epoch - 1] = report.accuracy
        reporter.idle(training.compile_seconds() - reported_seconds)
        reported_seconds = training.compile_seconds()
        mean = float(np.nanmean(report.loss)) if np.isfinite(report.loss).any() else float("nan")
        reporter.update(
            cost.model_steps + training.steps(ids, report.epoch - first_epoch), total, training.unit,
            f"epoch {report.epoch} / {training.num_epochs}, loss {mean:.3f}", epoch=report.epoch, loss=mean,
        )  # fmt: skip
        training.on_epoch_end(ids, report, history)
        is_last = report.epoch == training.num_epochs
        if not is_last and time.monotonic() - last_save >= training.checkpoint_seconds:
            seconds = seconds_before + time.monotonic() - start_time
            training.save(ids, report.state(), history, report.epoch, seconds)
            last_save = time.monotonic()
    seconds = time.monotonic() - start_time
    training.finish(ids, result, history, seconds_before + seconds)
    compile_seconds = training.compile_seconds() - compile_seconds_before
    steps = training.steps(ids, training.num_epochs - first_epoch)
    return TrainingCost(
        len(ids), steps, seconds - compile_seconds, compile_seconds + compile_seconds_before - cost.compile_seconds
    )


def blank_history(members: int, epochs: int) -> dict[str, np.ndarray]:
    """Returns loss and accuracy [members, epochs] before training: NaN."""
    return {name: np.full((members, epochs), np.nan, np.float32) for name in ("loss", "accuracy")}


def halves(error: Exception, ids: np.ndarray, reporter: progress.Reporter) -> tuple[np.ndarray, np.ndarray]:
    """Returns two halves of members that did not fit into memory together; raises any other error again.

    Raises:
      DeviceError: not even one member fits, according to the compiler.
    """
    is_foreseen = isinstance(error, capacity.DoesNotFit)
    if is_foreseen and len(ids) == 1:
        raise errors.DeviceError(
            f"one member does not fit: {error}. Use a smaller train.batch, model.dtype=bfloat16, a higher "
            "engine.memory or a smaller model."
        ) from error
    if len(ids) == 1 or not (is_foreseen or "RESOURCE_EXHAUSTED" in str(error)):
        raise error
    size = -(-len(ids) // 2)
    reporter.log(f"out of memory with {len(ids)} members at once; going on with {size}")
    return ids[:size], ids[size:]
