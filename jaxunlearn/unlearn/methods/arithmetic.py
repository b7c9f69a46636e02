"""Arithmetic on whole models: what fine-tuning on the forget set changes, taken away."""

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
    """Task vector: fine-tunes a copy on the forget set and goes `alpha` times as far the other way.

    theta = original - alpha * (copy - original); alpha is to be swept. Retained samples are not read.

    Source: Ilharco et al., "Editing models with task arithmetic", 2023.

    Raises:
      ConfigError: an unknown optimizer or schedule.
    """
    transform = descent.make_optimizer(optimizer, lr, 0.9, weight_decay, descent.make_schedule(schedule, epochs))
    reinforce = Phase(
        transform, (GradientStep(losses.cross_entropy_on("forget")),), {"forget": StreamSpec("forget", batch)}, epochs
    )

    def negated(params: Tree, *, reference_params: Tree, **extras: Any) -> Tree:
        del extras
        return jax.tree.map(lambda old, new: old - alpha * (new - old), reference_params, params)

    return Method((reinforce, Phase(transforms.one_shot(negated))))
