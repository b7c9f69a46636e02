"""A user's own unlearning method, as WORKSPACE.md shows it."""

import dataclasses

from jaxunlearn.unlearn import Method, Move, Phase, Reads
from jaxunlearn.unlearn.blocks import losses, transforms


def push_and_keep(lr: float = 0.02, epochs: int = 2):
    """Descends on retained samples and ascends on forgotten ones."""

    def objective(outputs, batches, now):
        keep = losses.cross_entropy(outputs["retain"], batches["retain"])
        return keep - 0.1 * losses.cross_entropy(outputs["forget"], batches["forget"])

    reads = {"retain": Reads("retain"), "forget": Reads("forget")}
    return Method((Phase(transforms.sgd(lr), (Move(objective),), reads, epochs),))


def not_a_method(lr: float = 0.1):
    """Returns something else."""
    return lr


def misspelt():
    """Reads a stream that it does not have."""
    method = push_and_keep()
    phase = method.phases[0]
    wrong = Move(lambda outputs, batches, now: losses.cross_entropy(outputs["retian"], batches["retian"]))
    return Method((dataclasses.replace(phase, moves=(wrong,)),))
