"""The one restartable loop: members chunk by chunk, with rolling checkpoints; killed at any moment, it resumes.

    queue of members -> as many as memory holds -> epochs, with a checkpoint now and then -> stored -> the next chunk
                                                        | out of memory: two halves go on

Training from scratch and unlearning differ by what an epoch is (`ChunkedTraining.epochs`) and by where things are
stored; nothing else in the package owns such a loop.
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
      epoch: epochs done, from 1, over all phases; 0 where only a result is reported.
      loss, accuracy: [m] means over the epoch.
      state: () -> what `ChunkedTraining.save` stores to go on from.
      result: what the members became so far; of the last report what they became.
    """

    epoch: int
    loss: np.ndarray
    accuracy: np.ndarray
    state: Callable[[], Any]
    result: Any


class Checkpoint(NamedTuple):
    """Where a chunk stood: `state` after `epoch` epochs, the history [m, epochs] up to there, the seconds it took."""

    epoch: int
    state: Any
    history: dict[str, np.ndarray]
    seconds: float = 0.0


class ChunkedTraining(NamedTuple):
    """What the loop needs to know of a group of members.

    Attributes:
      num_epochs: of every member, at least 1.
      fit: ids -> how many of them go at once.
      epochs: (ids, checkpoint or None) -> reports, one per epoch; the last one carries the result.
      load: ids -> their checkpoint, or None.
      save: (ids, state, history, epoch, seconds) stores a rolling checkpoint.
      after: (ids, report, history) is called after every epoch, for weights that are kept on the way.
      finish: (ids, result, history, seconds) stores finished members and drops their checkpoint.
      steps: (ids, epochs) -> work that so many epochs of them are; `unit`: of that work.
      compile_seconds: () -> what compiling has taken so far, as far as it is known apart.
      checkpoint_seconds: least time between checkpoints.
    """

    num_epochs: int
    fit: Callable[[np.ndarray], int]
    epochs: Callable[[np.ndarray, Checkpoint | None], Iterator[EpochReport]]
    load: Callable[[np.ndarray], Checkpoint | None]
    save: Callable[[np.ndarray, Any, dict[str, np.ndarray], int, float], None]
    after: Callable[[np.ndarray, EpochReport, dict[str, np.ndarray]], None]
    finish: Callable[[np.ndarray, Any, dict[str, np.ndarray], float], None]
    steps: Callable[[np.ndarray, int], float]
    unit: str
    compile_seconds: Callable[[], float]
    checkpoint_seconds: float


class TrainingCost(NamedTuple):
    """What training cost in this process (finished chunks of earlier ones cost nothing).

    Attributes:
      members: trained; model_steps: of all of them, or passes over their rows.
      seconds: without compiling, as far as that is known apart.
      compile_seconds: the rest.
    """

    members: int = 0
    model_steps: float = 0.0
    seconds: float = 0.0
    compile_seconds: float = 0.0


def add(first: TrainingCost, second: TrainingCost) -> TrainingCost:
    """Returns two costs together."""
    sums = [one + two for one, two in zip(first, second, strict=True)]
    return TrainingCost(int(sums[0]), *sums[1:])


def train(
    training: ChunkedTraining, queue: list[tuple[np.ndarray, bool]], reporter: progress.Reporter
) -> TrainingCost:  # fmt: skip
    """Trains all members of a queue.

    Args:
      training: what an epoch is, and where things are stored.
      queue: ([m] member ids, whether exactly these may have a checkpoint), first come, first trained.
      reporter: for progress; its stage has begun.

    Raises:
      DeviceError: not even one member fits into memory.
    """
    cost = TrainingCost()
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
            queue = [*((half, False) for half in halves(error, ids, reporter)), *queue]
    return cost


def _train_chunk(
    training: ChunkedTraining, ids: np.ndarray, may_resume: bool, cost: TrainingCost, total: float,
    reporter: progress.Reporter,
) -> TrainingCost:  # fmt: skip
    """Trains one chunk to the end and stores it; returns what that cost. `cost`: of the chunks before."""
    checkpoint = training.load(ids) if may_resume else None
    history = blank_history(len(ids), training.num_epochs) if checkpoint is None else checkpoint.history
    first = 0 if checkpoint is None else checkpoint.epoch
    compiled = training.compile_seconds()  # also for finding out how many members fit
    earlier = compiled - cost.compile_seconds + (0.0 if checkpoint is None else checkpoint.seconds)
    begun = saved = time.monotonic()
    told, result = cost.compile_seconds, None
    for report in training.epochs(ids, checkpoint):
        result = report.result
        if not report.epoch:
            continue
        history["loss"][:, report.epoch - 1] = report.loss
        history["accuracy"][:, report.epoch - 1] = report.accuracy
        reporter.idle(training.compile_seconds() - told)
        told = training.compile_seconds()
        mean = float(np.nanmean(report.loss)) if np.isfinite(report.loss).any() else float("nan")
        reporter.update(
            cost.model_steps + training.steps(ids, report.epoch - first), total, training.unit,
            f"epoch {report.epoch} / {training.num_epochs}, loss {mean:.3f}", epoch=report.epoch, loss=mean,
        )  # fmt: skip
        training.after(ids, report, history)
        is_last = report.epoch == training.num_epochs
        if not is_last and time.monotonic() - saved >= training.checkpoint_seconds:
            seconds = earlier + time.monotonic() - begun
            training.save(ids, report.state(), history, report.epoch, seconds)
            saved = time.monotonic()
    seconds = time.monotonic() - begun
    training.finish(ids, result, history, earlier + seconds)
    apart = training.compile_seconds() - compiled
    steps = training.steps(ids, training.num_epochs - first)
    return TrainingCost(len(ids), steps, seconds - apart, apart + compiled - cost.compile_seconds)


def blank_history(members: int, epochs: int) -> dict[str, np.ndarray]:
    """Loss and accuracy [members, epochs] before training: NaN."""
    return {name: np.full((members, epochs), np.nan, np.float32) for name in ("loss", "accuracy")}


def halves(error: Exception, ids: np.ndarray, reporter: progress.Reporter) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of members that did not fit into memory together; any other error is raised again.

    Raises:
      DeviceError: not even one member fits, by the compiler's account.
    """
    is_foreseen = isinstance(error, capacity.DoesNotFit)
    if is_foreseen and len(ids) == 1:
        raise errors.DeviceError(
            f"one member does not fit: {error}. Use a smaller train.batch, model.dtype=bfloat16, a higher "
            "engine.memory or a smaller model."
        ) from error
    if len(ids) == 1 or not (is_foreseen or "RESOURCE_EXHAUSTED" in str(error)):
        raise error
    half = -(-len(ids) // 2)
    reporter.say(f"out of memory with {len(ids)} members at once; going on with {half}")
    return ids[:half], ids[half:]
