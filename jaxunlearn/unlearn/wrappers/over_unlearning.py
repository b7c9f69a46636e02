"""Over-Unlearning and Replay (OUR): a method intensified and without retained rows, then a short sparse fine-tuning.

    phase 1, over-unlearn   the base method on the forget set alone, harder than anyone would dare     -> METHOD+our@mid
    phase 2, Replay         retained rows: CE + 5e-5 |p|_1, SGD momentum 0.9, weight decay 5e-4        -> METHOD+our

What phase 1 destroys beside the forget set, Replay brings back; what it does not bring back are the residuals of the
forget set, by which relearning attacks recognise it.

| base method | phase 1 |
| --- | --- |
| ascent, negrad_plus | pure ascent on the forget set |
| amnesiac, random_label, relabel | false labels of the forget set, Adam, no retained rows |
| bad_teacher | the random teacher's answers on the forget set, 0.01 % of the retained rows |
| ssd | small alpha and lambda |
| influence | a large alpha; published on a model trained with an L1 penalty, which is up to the original |
| any other | its own phases as they are |

Source: Over-Unlearning and Replay, version 1 (`*_our`). Its Replay calls with `l1=True` a function that has no such
argument; the coefficient is that of version 2. Differs from the published code: with the policy "recalibrate" batch
statistics are estimated anew on the retained rows after each phase (published: they drift).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import optax

from jaxunlearn.unlearn.base.method import Builder, GradientStep, Method, Phase, Scalar, StreamSpec
from jaxunlearn.unlearn.blocks import labels, schedules, transforms
from jaxunlearn.unlearn.methods import descent, relabelling, teachers
from jaxunlearn.unlearn.methods.importance import dampening, influence

Tree = Any


def replay(
    lr: Scalar,
    epochs: int,
    l1: Scalar = 5e-5,
    momentum: Scalar = 0.9,
    weight_decay: Scalar = 5e-4,
    batch: int = 0,
    schedule: schedules.Schedule = schedules.constant,
    optimizer: str = "sgd",
) -> Phase:
    """One stage of Replay: fine-tuning on the retained rows with CE + l1 * |p|_1, and an optimizer of its own.

    Args:
      lr: learning rate.
      epochs: passes over the retained rows.
      l1: coefficient of the sum of absolute values of all parameters.
      momentum: of SGD.
      weight_decay: L2, added to the gradient (of AdamW decoupled).
      batch: rows per step, 0 = the run's.
      schedule: factors on the rate.
      optimizer: one of `descent.OPTIMIZERS`.
    """
    stepper = descent.make_optimizer(optimizer, lr, momentum, weight_decay, schedule)
    transform = optax.chain(transforms.add_l1(l1), stepper)
    return Phase(transform, (GradientStep(descent.retain_loss),), {"retain": StreamSpec("retain", batch)}, epochs)


def followed(method: Method, phases: tuple[Phase, ...]) -> Method:
    """The method with further phases on the retained rows; the model before them is its `mid`."""

    def in_own_mode(phase: Phase) -> Phase:
        # Edits of methods that leave BatchNorm alone are computed in evaluation mode, whatever the policy of the whole.
        is_own = method.bn == "frozen" and not phase.gradient_steps
        return dataclasses.replace(phase, mode="eval") if is_own and not phase.mode else phase

    first = tuple(in_own_mode(phase) for phase in method.phases)
    return dataclasses.replace(method, phases=(*first, *phases), bn="recalibrate", mid=len(first))


def our(
    method: Method,
    lr: float = 0.01,
    epochs: int = 3,
    l1: float = 5e-5,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch: int = 0,
    warmup: bool = True,
    milestones: tuple[int, ...] = (4,),
    factor: float = 0.8,
) -> Method:
    """The method followed by Replay; of the methods of `INTENSIFIED` it is their intensified form.

    Args:
      method: the first phase; the model after it is recorded as METHOD+our@mid.
      lr: of Replay.
      epochs: of Replay; published 3, with ssd and bad_teacher 5.
      l1: coefficient of the sum of absolute values of all parameters.
      momentum: of SGD.
      weight_decay: L2 on every parameter, added to the gradient.
      batch: rows per step, 0 = the run's (published: 64).
      warmup: the published schedule, whose rate climbs 0 -> lr -> 2 lr over the first two epochs by a slip, is lr from
        the third on, and is multiplied by `factor` at `milestones`. False = the constant rate lr.
      milestones: epochs from 0.
      factor: see `warmup`.
    """
    schedule = schedules.overshooting(milestones, factor) if warmup else schedules.constant  # type: ignore[arg-type]
    return followed(method, (replay(lr, epochs, l1, momentum, weight_decay, batch, schedule),))


def pure_ascent(
    lr: float = 0.01, epochs: int = 5, momentum: float = 0.0, weight_decay: float = 0.0, batch: int = 0, l2: float = 0.0
) -> Method:
    """Climbs the cross entropy of the forget set at a constant rate, with nothing that holds it back.

    `l2` pulls to the original by l2 / 2 |p - original|^2. Source: OUR v1 `negative_grad_our`.
    """
    return descent.ascent(lr, epochs, momentum, weight_decay, batch, "constant", l2)


def false_labels(
    lr: float = 2.5e-3, epochs: int = 3, batch: int = 0, fresh: bool = False, optimizer: str = "adam",
    weight_decay: float = 0.0,
) -> Method:  # fmt: skip
    """Trains on the forget set alone with false labels.

    Args:
      lr: constant; published 25 times that of the method itself.
      epochs: passes over the forget set.
      batch: rows per step, 0 = the run's (published: 128; sample-wise 64).
      fresh: False = one wrong label per row for good; True = a new one in every epoch, uniform over all C classes.
      optimizer: one of `descent.OPTIMIZERS`; published for samples: "adamw" with weight decay 1e-4.
      weight_decay: see the optimizer.

    Source: OUR v1 `amnesiac_our`; the first phase of v2's `orthogonality`.
    """
    stepper = descent.make_optimizer(optimizer, lr, 0.0, weight_decay, schedules.constant)
    reads = StreamSpec("forget", batch, labels=labels.uniform if fresh else labels.wrong, fresh_labels=fresh)
    return Method((relabelling.training(stepper, reads, epochs, "forget"),), "recalibrate")


def fresh_labels(lr: float = 2.5e-3, epochs: int = 3, batch: int = 0, optimizer: str = "adam",
                 weight_decay: float = 0.0) -> Method:  # fmt: skip
    """Trains on the forget set alone with labels drawn anew in every epoch, uniform over all classes."""
    return false_labels(lr, epochs, batch, True, optimizer, weight_decay)


def bad_teacher(
    lr: float = 0.01, epochs: int = 3, temperature: float = 1.0, share: float = 1e-4, batch: int = 0
) -> Method:
    """The forget set learns the answers of a random network; hardly a retained row learns those of the original.

    `share` of the retained rows may round to none. Source: OUR v1 `blindspot_our` (0.01 % of the retained rows, 3 in
    its experiments; rate 0.01 by default, 1e-4 in its driver).
    """
    return teachers.bad_teacher(lr, epochs, temperature, share, batch)


def ssd(alpha: float = 0.005, lam: float = 0.4, exponent: float = 1.0, batch: int = 0) -> Method:
    """Dampens nearly every parameter that matters to the forget set at all. Source: OUR v1 `ssd_tuning_our`."""
    return dampening.ssd(alpha, lam, exponent, batch=batch)


def influenced(alpha: float = 24.0, recursion: str = "exact", samples: int = 1002, iterations: int = 20,
               batch: int = 0) -> Method:  # fmt: skip
    """The influence step, 2.4 times as long as without Replay.

    Published: alpha 120 instead of 50 with recursion="rank_one", on an original trained with an L1 penalty.
    """
    return influence.influence(alpha, recursion, samples, iterations, batch)


class Intensified(NamedTuple):
    """What OUR makes of a base method.

    Attributes:
      build: the builder of its phase 1.
      replay: defaults of Replay that differ.
      digits: values for networks as small as those of digits, which the published rates hardly move: phase 1 has to
        leave nothing of a class.
    """

    build: Builder
    replay: Mapping[str, Any] = {}
    digits: Mapping[str, Any] = {}


INTENSIFIED: dict[Builder, Intensified] = {
    descent.ascent: Intensified(pure_ascent, digits={"lr": 0.15}),
    descent.negrad_plus: Intensified(pure_ascent, digits={"lr": 0.15}),
    relabelling.amnesiac: Intensified(false_labels, digits={"lr": 0.005}),
    relabelling.random_label: Intensified(false_labels, digits={"lr": 0.005}),
    relabelling.relabel: Intensified(fresh_labels, digits={"lr": 0.005}),
    teachers.bad_teacher: Intensified(bad_teacher, {"epochs": 5}),
    dampening.ssd: Intensified(ssd, {"epochs": 5}),
    influence.influence: Intensified(influenced, digits={"alpha": 200.0}),
}
