"""Arithmetic on whole models: subtracts the change that fine-tuning on the forget set makes."""

from typing import Any

import jax

from jaxunlearn.unlearn.base.method import GradientStep, Method, Phase, StreamSpec
from jaxunlearn.unlearn.blocks import losses, transforms
from jaxunlearn.unlearn.methods import descent

Tree = Any


def task_vector(
    lr: float = 1e-3, epochs: int = 5, alpha: float = 1.0, weight_decay: float = 0.0, schedule: str = "linear",
    optimizer: str = "adamw", batch: int = 0,
) -> Method:  # fmt: skip
    """Fine-tunes a copy on the forget set and moves the original `alpha` times as far the other way (task vector).

    theta = original - alpha * (copy - original); alpha is to be swept. Retained samples are not read.

    Args:
      lr, weight_decay, optimizer, schedule: of the fine-tuning, see `descent.make_optimizer`, `descent.make_schedule`.
      epochs: passes over the forget set.
      alpha: length of the step back, in units of the copy's change.
      batch: rows per step, 0 = the run's.

    Source: Ilharco et al., "Editing models with task arithmetic", 2023.

    Raises:
      ConfigError: an unknown optimizer or schedule.

    Example:
      >>> from jaxunlearn import unlearn
      >>> [phase.epochs for phase in unlearn.arithmetic.task_vector(epochs=3).phases]
      [3, 1]
    """
    transform = descent.make_optimizer(optimizer, lr, 0.9, weight_decay, descent.make_schedule(schedule, epochs))
    reinforcement = Phase(
        transform, (GradientStep(losses.cross_entropy_on("forget")),), {"forget": StreamSpec("forget", batch)}, epochs
    )

    def negated(params: Tree, *, reference_params: Tree, **extras: Any) -> Tree:
        del extras
        return jax.tree.map(lambda old, new: old - alpha * (new - old), reference_params, params)

    return Method((reinforcement, Phase(transforms.one_shot(negated))))
