"""Learning-rate factors of a phase, by the `StepInfo` of each member: epoch, elapsed fraction of the epoch, steps.

A schedule is a function `StepInfo -> float32 factor` on the rate. Epochs and steps are each member's own: forget sets
of different sizes have different numbers of steps and the same schedule.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxunlearn.population import StepInfo, recipe

Schedule = Callable[[StepInfo], jax.Array | float]


def constant(step_info: StepInfo) -> float:
    """Returns 1."""
    del step_info
    return 1.0


def cosine(epochs: int) -> Schedule:
    """Returns the schedule (1 + cos(pi e / E)) / 2 in epoch e: changes once per epoch, never reaches 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.population import StepInfo
      >>> from jaxunlearn.unlearn import schedules
      >>> factor = schedules.cosine(epochs=4)(StepInfo(jnp.int32(2), jnp.float32(0.0), jnp.int32(20)))
      >>> round(float(factor), 3)
      0.5
    """
    return lambda step_info: recipe.cosine(step_info.epoch.astype(jnp.float32), epochs)


def cosine_by_step(epochs: int) -> Schedule:
    """Returns the schedule (1 + cos(pi t / n)) / 2 at step t of n = all steps of the phase."""
    return lambda step_info: recipe.cosine(step_info.epoch + step_info.fraction, epochs)


def cosine_to(steps: int) -> Schedule:
    """Returns the schedule (1 + cos(pi t / steps)) / 2 at step t, for phases with `max_steps`."""
    return lambda step_info: recipe.cosine(step_info.step, steps)


def milestones(epochs: tuple[int, ...], factor: float) -> Schedule:
    """Returns the schedule `factor` to the power of the number of milestones reached, counted with repetitions."""
    return lambda step_info: recipe.milestones(step_info.epoch, epochs, factor)


def falling(epochs: int) -> Schedule:
    """Returns the schedule 1 - e / E in epoch e, 0 from epoch E on."""
    return lambda step_info: jnp.maximum(1.0 - step_info.epoch / epochs, 0.0)


def overshooting(marks: tuple[int, ...], factor: float) -> Schedule:
    """Returns the published warm-up of Over-Unlearning and Replay: the factor rises from 0 to 2 over two epochs.

    From epoch 2 on it is 1, multiplied by `factor` at every milestone. Source: `fit_one_cycle` of both code bases, if
    milestones are given.
    """
    decay = milestones(marks, factor)
    return lambda step_info: jnp.where(step_info.epoch < 2, step_info.epoch + step_info.fraction, decay(step_info))


def warmup(epochs: int) -> Schedule:
    """Returns the schedule linear from 1 / n to 1 over the n steps of the first `epochs` epochs, then 1."""
    return lambda step_info: jnp.minimum(1.0, (step_info.step + 1) / (epochs * step_info.length))


def linear(epochs: int, warm: int = 1) -> Schedule:
    """Returns `warmup` over the first `warm` epochs, then linear from 1 down to 1 / n over the n remaining steps.

    The published schedule of language models except that its warm-up begins with a step of rate 0.
    """
    if epochs <= warm:
        return warmup(max(epochs, 1))
    rise = warmup(warm)

    def factor(step_info: StepInfo) -> jax.Array:
        remaining = (epochs * step_info.length - step_info.step) / ((epochs - warm) * step_info.length)
        return jnp.minimum(rise(step_info), remaining)

    return factor
