"""Methods that train on false labels of the samples to be forgotten: random labels, amnesiac unlearning, poisoning.

All minimise the cross entropy of one stream in which `StreamSpec.labels` replaces the labels of forget rows
(`labels.py`). They differ in the classes that a label is drawn from, in how often it is drawn, in whether they read
retained samples, and in the order:

    mixed        forget and retain rows shuffled together
    sequential   in every epoch all forget batches, then all retain batches
"""

import optax

from jaxunlearn import checks
from jaxunlearn.unlearn.base.method import GradientStep, Method, Phase, StreamSpec
from jaxunlearn.unlearn.blocks import labels, losses, schedules, transforms

ORDERS = ("mixed", "sequential")


def training(
    transform: optax.GradientTransformation, stream_spec: StreamSpec, epochs: int, stream: str = "both"
) -> Phase:
    """Returns a phase that minimises the cross entropy of one stream.

    Args:
      transform: gradients to parameter changes.
      stream_spec: rows and labels.
      epochs: passes over the stream.
      stream: its name.
    """
    return Phase(transform, (GradientStep(losses.cross_entropy_on(stream)),), {stream: stream_spec}, epochs)


def _ordered(order: str, batch: int, fresh: bool) -> StreamSpec:
    """Specifies forget and retain rows in one of ORDERS; fresh labels: from all classes, lasting: from wrong ones."""
    checks.choice("order", order, ORDERS)
    rows = ("forget", "retain") if order == "sequential" else "forget+retain"
    return StreamSpec(rows, batch, labels=labels.uniform if fresh else labels.wrong, fresh_labels=fresh)


def random_label(
    lr: float = 0.02,
    epochs: int = 5,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch: int = 0,
    order: str = "mixed",
    fresh: bool = False,
) -> Method:
    """Gives every forget sample a random label and trains on forget and retain samples.

    Args:
      lr, momentum, weight_decay: of SGD; the rate falls as a cosine, once per epoch, if mixed; constant if sequential.
      epochs: passes over both sets.
      batch: rows per step, 0 = the run's.
      order: "mixed" or "sequential".
      fresh: False = one permanent label per sample, uniform over the C - 1 wrong classes; True = a new one in every
        epoch, uniform over all C, the true one included.

    Source: conformal unlearning "RL" (the defaults); `order="sequential", fresh=True` is RL of SalUn's code for
    CIFAR-10 (10 epochs at 0.01), and with a saliency mask it is SalUn itself.

    Raises:
      ConfigError: an unknown order.

    Example:
      >>> from jaxunlearn import unlearn
      >>> unlearn.relabelling.random_label(order="sequential").phases[0].stream_specs["both"].rows
      ('forget', 'retain')
    """
    schedule = schedules.cosine(epochs) if order == "mixed" else schedules.constant
    descent = transforms.sgd(lr, momentum, weight_decay, schedule=schedule)
    return Method((training(descent, _ordered(order, batch, fresh), epochs),), "recalibrate")


def amnesiac(lr: float = 1e-3, epochs: int = 3, l2: float = 0.0, batch: int = 0) -> Method:
    """Gives every forget sample one permanent wrong label and trains on both sets, shuffled together, with Adam.

    Args:
      lr: of Adam.
      epochs: passes over both sets.
      l2: adds l2 / 2 |p - original|^2 to the loss (published where used: 0.1).
      batch: rows per step, 0 = the run's.

    Source: Graves et al. 2021 as in Over-Unlearning and Replay (3 epochs at 1e-4, batch 128).
    """
    adam = optax.chain(transforms.add_l2_to_reference(l2), transforms.adam(lr))
    return Method((training(adam, _ordered("mixed", batch, False), epochs),), "recalibrate")


def relabel(lr: float = 1e-3, epochs: int = 3, batch: int = 0) -> Method:
    """Trains per epoch on all forget batches, freshly labelled from all C classes, then on all retain batches; Adam.

    Source: OUR version 2, sample-wise "relabel"; with a saliency mask its "salun".
    """
    return Method((training(transforms.adam(lr), _ordered("sequential", batch, True), epochs),), "recalibrate")


def _poisoned(rows: str, batch: int, shuffle: bool) -> StreamSpec:
    return StreamSpec(rows, batch, shuffle, labels=labels.uniform)


def poison(
    lr: float = 0.006, epochs: int = 1, momentum: float = 0.9, weight_decay: float = 5e-4, batch: int = 0
) -> Method:
    """Fits the forget set alone to labels uniform over all C classes, the true one included, drawn once.

    Args:
      lr, momentum, weight_decay: of SGD with Nesterov momentum; the rate is constant.
      epochs: passes over the forget set.
      batch: rows per step, 0 = the run's.

    Source: "Poison" of the forget-precision paper (1 epoch at 7e-4).
    """
    descent = transforms.sgd(lr, momentum, weight_decay, nesterov=True)
    return Method((training(descent, _poisoned("forget", batch, True), epochs, "forget"),), "frozen", augment=False)


def poison_full(
    lr: float = 0.01, epochs: int = 5, momentum: float = 0.9, weight_decay: float = 5e-4, batch: int = 0
) -> Method:
    """Fits the retained rows followed by the poisoned forget rows, always in this order, never shuffled.

    The batch in the middle holds both kinds.

    Args:
      lr, momentum, weight_decay: of SGD with Nesterov momentum; the rate falls as a cosine, once per epoch.
      epochs: passes over both sets.
      batch: rows per step, 0 = the run's.

    Source: "Poison full" of the forget-precision paper (5 epochs at 2e-3).
    """
    descent = transforms.sgd(lr, momentum, weight_decay, nesterov=True, schedule=schedules.cosine(epochs))
    return Method((training(descent, _poisoned("retain+forget", batch, False), epochs),), "recalibrate", augment=False)


def hybrid(
    lr: float = 0.02,
    lr_repair: float = 0.01,
    epochs: int = 5,
    poison_epochs: int = 1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch: int = 0,
) -> Method:
    """Poisons, then fine-tunes on the retained rows in their own order with a new optimizer; both rates are constant.

    Args:
      lr, poison_epochs: of the poisoning.
      lr_repair, epochs: of the fine-tuning.
      momentum, weight_decay: of SGD with Nesterov momentum, both times.
      batch: rows per step, 0 = the run's.

    Source: "Hybrid" of the forget-precision paper (1e-2 for 1 epoch, 1e-3 for 5).
    """
    first = transforms.sgd(lr, momentum, weight_decay, nesterov=True)
    second = transforms.sgd(lr_repair, momentum, weight_decay, nesterov=True)
    poisoning = training(first, _poisoned("forget", batch, True), poison_epochs, "forget")
    repair = training(second, StreamSpec("retain", batch, shuffle=False), epochs, "retain")
    return Method((poisoning, repair), "recalibrate", augment=False)
