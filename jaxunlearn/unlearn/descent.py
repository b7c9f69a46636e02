"""Methods that only descend or ascend: fine-tuning, frozen lower layers, gradient ascent, NegGrad+, L1."""

from collections.abc import Mapping

import jax

from jaxunlearn.unlearn import losses, schedules, transforms
from jaxunlearn.unlearn.method import Method, Move, Now, Phase, Reads, Samples


def retain_loss(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], now: Now) -> jax.Array:
    """Mean cross entropy on the stream "retain"."""
    del now
    return losses.cross_entropy(outputs["retain"], batches["retain"])


def finetune(
    lr: float = 0.01, epochs: int = 5, momentum: float = 0.9, weight_decay: float = 5e-4, batch: int = 0
) -> Method:
    """Trains on for some epochs on the retained samples alone; the rate falls as a cosine, once per epoch.

    Forgetting is left to catastrophic forgetting. Source: IAM (5 epochs at 0.01); conformal unlearning "FT".
    """
    descent = transforms.sgd(lr, momentum, weight_decay, schedule=schedules.cosine(epochs))
    return Method((Phase(descent, (Move(retain_loss),), {"retain": Reads("retain", batch)}, epochs),), "recalibrate")
