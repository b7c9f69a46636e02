"""Learning-rate factors of a phase, by the clock of each member: epoch, part of the epoch that is over, steps.

A schedule is a function `Clock -> float32 factor` on the rate. The clock is a member's own: forget sets of other sizes
have other numbers of steps, and the same schedule.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxunlearn.population import Clock

Schedule = Callable[[Clock], jax.Array | float]


def constant(clock: Clock) -> float:
    """Always 1."""
    del clock
    return 1.0


def cosine(epochs: int) -> Schedule:
    """(1 + cos(pi e / E)) / 2 in epoch e: changes once per epoch, never reaches 0."""
    return lambda clock: (1.0 + jnp.cos(jnp.pi * clock.epoch.astype(jnp.float32) / epochs)) / 2.0


def cosine_by_step(epochs: int) -> Schedule:
    """(1 + cos(pi t / n)) / 2 at step t of n = all steps of the phase."""
    return lambda clock: (1.0 + jnp.cos(jnp.pi * (clock.epoch + clock.fraction) / epochs)) / 2.0


def cosine_to(steps: int) -> Schedule:
    """(1 + cos(pi t / n)) / 2 at step t, n given (phases with a `stop`)."""
    return lambda clock: (1.0 + jnp.cos(jnp.pi * clock.step / steps)) / 2.0


def milestones(epochs: tuple[int, ...], factor: float) -> Schedule:
    """`factor` to the number of milestones that have begun; repeated ones count repeatedly."""
    places = jnp.asarray(epochs, jnp.float32)
    return lambda clock: jnp.float32(factor) ** jnp.sum(clock.epoch >= places)


def polynomial(epochs: int, power: float) -> Schedule:
    """max(1e-6, (1 - e / E)^power); past the last epoch 1e-6."""
    return lambda clock: jnp.maximum(1e-6, jnp.clip(1.0 - clock.epoch / epochs, 0.0, 1.0) ** power)


def falling(epochs: int) -> Schedule:
    """1 - e / E in epoch e, 0 from epoch E on."""
    return lambda clock: jnp.maximum(1.0 - clock.epoch / epochs, 0.0)


def overshooting(marks: tuple[int, ...], factor: float) -> Schedule:
    """The warm-up of Over-Unlearning and Replay as published: the rate climbs 0 -> 1 -> 2 over the first two epochs.

    From epoch 2 on it is 1, multiplied by `factor` at every milestone that has begun. Source: `fit_one_cycle` of both
    code bases, where milestones are given.
    """
    later = milestones(marks, factor)
    return lambda clock: jnp.where(clock.epoch < 2, clock.epoch + clock.fraction, later(clock))


def warmup(epochs: int) -> Schedule:
    """Linear from 1 / n to 1 over the n steps of the first `epochs` epochs, then 1."""
    return lambda clock: jnp.minimum(1.0, (clock.step + 1) / (epochs * clock.length))


def linear(epochs: int, warm: int = 1) -> Schedule:
    """`warmup` over the first `warm` epochs, then linear from 1 down to 1 / n over the n steps of the others.

    The published schedule of language models but for the warm-up, which there begins with a step of rate 0.
    """
    if epochs <= warm:
        return warmup(max(epochs, 1))
    climb = warmup(warm)

    def factor(clock: Clock) -> jax.Array:
        left = (epochs * clock.length - clock.step) / ((epochs - warm) * clock.length)
        return jnp.minimum(climb(clock), left)

    return factor
