"""Learning-rate factors of a phase, by the clock of each member: epoch, part of the epoch that is over, steps.

A schedule is a function `StepInfo -> float32 factor` on the rate. The clock is a member's own: forget sets of other
sizes have other numbers of steps, and the same schedule.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxunlearn.population import StepInfo

Schedule = Callable[[StepInfo], jax.Array | float]


def constant(step_info: StepInfo) -> float:
    """Always 1."""
    del step_info
    return 1.0


def cosine(epochs: int) -> Schedule:
    """(1 + cos(pi e / E)) / 2 in epoch e: changes once per epoch, never reaches 0."""
    return lambda step_info: (1.0 + jnp.cos(jnp.pi * step_info.epoch.astype(jnp.float32) / epochs)) / 2.0


def cosine_by_step(epochs: int) -> Schedule:
    """(1 + cos(pi t / n)) / 2 at step t of n = all steps of the phase."""
    return lambda step_info: (1.0 + jnp.cos(jnp.pi * (step_info.epoch + step_info.fraction) / epochs)) / 2.0


def cosine_to(steps: int) -> Schedule:
    """(1 + cos(pi t / n)) / 2 at step t, n given (phases with a `stop`)."""
    return lambda step_info: (1.0 + jnp.cos(jnp.pi * step_info.step / steps)) / 2.0


def milestones(epochs: tuple[int, ...], factor: float) -> Schedule:
    """`factor` to the number of milestones that have begun; repeated ones count repeatedly."""
    places = jnp.asarray(epochs, jnp.float32)
    return lambda step_info: jnp.float32(factor) ** jnp.sum(step_info.epoch >= places)


def polynomial(epochs: int, power: float) -> Schedule:
    """max(1e-6, (1 - e / E)^power); past the last epoch 1e-6."""
    return lambda step_info: jnp.maximum(1e-6, jnp.clip(1.0 - step_info.epoch / epochs, 0.0, 1.0) ** power)


def falling(epochs: int) -> Schedule:
    """1 - e / E in epoch e, 0 from epoch E on."""
    return lambda step_info: jnp.maximum(1.0 - step_info.epoch / epochs, 0.0)


def overshooting(marks: tuple[int, ...], factor: float) -> Schedule:
    """The warm-up of Over-Unlearning and Replay as published: the rate climbs 0 -> 1 -> 2 over the first two epochs.

    From epoch 2 on it is 1, multiplied by `factor` at every milestone that has begun. Source: `fit_one_cycle` of both
    code bases, where milestones are given.
    """
    later = milestones(marks, factor)
    return lambda step_info: jnp.where(step_info.epoch < 2, step_info.epoch + step_info.fraction, later(step_info))


def warmup(epochs: int) -> Schedule:
    """Linear from 1 / n to 1 over the n steps of the first `epochs` epochs, then 1."""
    return lambda step_info: jnp.minimum(1.0, (step_info.step + 1) / (epochs * step_info.length))


def linear(epochs: int, warm: int = 1) -> Schedule:
    """`warmup` over the first `warm` epochs, then linear from 1 down to 1 / n over the n steps of the others.

    The published schedule of language models but for the warm-up, which there begins with a step of rate 0.
    """
    if epochs <= warm:
        return warmup(max(epochs, 1))
    climb = warmup(warm)

    def factor(step_info: StepInfo) -> jax.Array:
        left = (epochs * step_info.length - step_info.step) / ((epochs - warm) * step_info.length)
        return jnp.minimum(climb(step_info), left)

    return factor
