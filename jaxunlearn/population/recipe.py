"""Recipes: the optimizer and the learning-rate schedule of `settings.TrainSettings`, for ONE member.

PyTorch's conventions, because published numbers rest on them: L2 decay on every parameter (BatchNorm and biases too)
is added to the gradient before momentum, and the rate is constant within an epoch, so that with cosine over E epochs
epoch e (from 0) runs at rate0 * (1 + cos(pi e / E)) / 2, and epochs beyond E rise again.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxunlearn import settings

Tree = Any
Scalar = jax.Array | float


def make_optimizer(
    train: settings.TrainSettings, learning_rate: Scalar, weight_decay: Scalar
) -> optax.GradientTransformation:
    """Returns the optimizer of one step; rate and decay may be traced scalars, so that they can differ between members.

    Its state does not depend on the two, so one state serves the whole training. With train.l1 the gradient of
    l1 * sum |p| over all parameters (0 at 0) is added first, as if it were part of the loss; the reported loss contains
    neither this penalty nor the decay.
    """
    base = _plain(train, learning_rate, weight_decay)
    return optax.chain(_sparsity(train.l1), base) if train.l1 else base


def _sparsity(l1: float) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, params: add_l1(updates, params, l1))


def add_l1(gradients: Tree, params: Tree, coefficient: Scalar) -> Tree:
    """Returns gradients plus those of coefficient * sum |p| over all parameters (0 at 0)."""
    return jax.tree.map(lambda leaf, value: leaf + coefficient * jnp.sign(value), gradients, params)


def _plain(train: settings.TrainSettings, learning_rate: Scalar, weight_decay: Scalar) -> optax.GradientTransformation:
    if train.optimizer == "adamw":
        return optax.adamw(learning_rate, weight_decay=weight_decay)  # type: ignore[arg-type]
    decay = optax.add_decayed_weights(weight_decay)
    if train.optimizer == "adam":
        return optax.chain(decay, optax.adam(learning_rate))
    momentum = optax.trace(train.momentum, nesterov=train.nesterov) if train.momentum else optax.identity()
    return optax.chain(decay, momentum, optax.scale_by_learning_rate(learning_rate))


def cosine(time: Scalar, length: float) -> jax.Array:
    """Returns (1 + cos(pi time / length)) / 2: 1 at 0, 0 at `length`, and rising again beyond."""
    return (1.0 + jnp.cos(jnp.pi * time / length)) / 2.0


def milestones(time: Scalar, marks: Sequence[float], factor: float) -> jax.Array:
    """Returns `factor` to the power of the number of marks that time has reached, counted with repetitions."""
    return jnp.float32(factor) ** jnp.sum(time >= jnp.asarray(marks, jnp.float32))


def schedule_factor(train: settings.TrainSettings, epoch: jax.Array, fraction: jax.Array) -> jax.Array:
    """Returns the factor on the peak learning rate, float32 in [0, 1].

    Args:
      train: the recipe (schedule, schedule_per, schedule_epochs, milestones, decay, warmup_epochs).
      epoch: int32, from 0.
      fraction: float32 in [0, 1), elapsed fraction of the epoch; ignored with schedule_per="epoch" (but for the
        warm-up).
    """
    time = epoch.astype(jnp.float32) + jnp.where(train.schedule_per == "step", fraction, 0.0)
    factor = jnp.float32(1.0)
    if train.schedule == "cosine":
        length = float(train.schedule_epochs or train.epochs)
        factor = cosine(time, length)
    elif train.schedule == "step":
        factor = milestones(time, train.milestones, train.decay)
    if train.warmup_epochs:
        # The warm-up always advances with the step: a rate of exactly 0 over a whole first epoch trains nothing.
        progress = epoch.astype(jnp.float32) + fraction
        factor = factor * jnp.clip(progress / train.warmup_epochs, 0.0, 1.0)
    return factor
