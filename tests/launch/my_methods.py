"""A user's own unlearning method, as docs/add_a_method.md shows it."""

import dataclasses

from jaxunlearn.unlearn import GradientStep, Method, Phase, StreamSpec
from jaxunlearn.unlearn.blocks import losses, transforms


def push_and_keep(lr: float = 0.02, epochs: int = 2):
    """Descends on retained samples and ascends on forgotten ones."""

    def objective(outputs, batches, context):
        keep = losses.cross_entropy(outputs["retain"], batches["retain"])
        return keep - 0.1 * losses.cross_entropy(outputs["forget"], batches["forget"])

    reads = {"retain": StreamSpec("retain"), "forget": StreamSpec("forget")}
    return Method((Phase(transforms.sgd(lr), (GradientStep(objective),), reads, epochs),))


def not_a_method(lr: float = 0.1):
    """Returns something else."""
    return lr


def misspelt():
    """Reads a stream that it does not have."""
    method = push_and_keep()
    phase = method.phases[0]
    wrong = GradientStep(lambda outputs, batches, context: losses.cross_entropy(outputs["retian"], batches["retian"]))
    return Method((dataclasses.replace(phase, gradient_steps=(wrong,)),))
