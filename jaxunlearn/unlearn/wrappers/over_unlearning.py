"""Over-Unlearning and Replay (OUR): an intensified method without retained rows, then a short sparse fine-tuning.

    phase 1, over-unlearn   the base method on the forget set alone, at excessive strength             -> METHOD+our@mid
    phase 2, Replay         retained rows: CE + 5e-5 |p|_1, SGD momentum 0.9, weight decay 5e-4        -> METHOD+our

Replay restores what phase 1 destroys in addition to the forget set, but not the residuals of the forget set, by which
relearning attacks recognise it.

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
    """Returns one phase of Replay: fine-tuning on the retained rows with CE + l1 * |p|_1 and its own optimizer.

    Args:
      lr, momentum, weight_decay, optimizer, schedule: see `descent.make_optimizer`.
      epochs: passes over the retained rows.
      l1: coefficient of the sum of absolute values of all parameters.
      batch: rows per step, 0 = the run's.
    """
    inner = descent.make_optimizer(optimizer, lr, momentum, weight_decay, schedule)
    transform = optax.chain(transforms.add_l1(l1), inner)
    return Phase(transform, (GradientStep(descent.retain_loss),), {"retain": StreamSpec("retain", batch)}, epochs)


def append_phases(method: Method, phases: tuple[Phase, ...]) -> Method:
    """Appends phases on the retained rows to a method; the model before them is its `mid`."""

    def keep_mode(phase: Phase) -> Phase:
        # One-shot changes of methods that leave BatchNorm alone run in evaluation mode under any policy.
        is_frozen_one_shot = method.bn == "frozen" and not phase.gradient_steps
        return dataclasses.replace(phase, mode="eval") if is_frozen_one_shot and not phase.mode else phase

    first = tuple(keep_mode(phase) for phase in method.phases)
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
    """Appends Replay to a method, which is taken in its intensified form if it is one of `INTENSIFIED`.

    Args:
      method: the first phase; the model after it is recorded as METHOD+our@mid.
      lr, momentum, weight_decay: of the SGD of Replay.
      epochs: of Replay; published 3, with ssd and bad_teacher 5.
      l1: coefficient of the sum of absolute values of all parameters.
      batch: rows per step, 0 = the run's (published: 64).
      warmup: the published schedule, whose rate climbs 0 -> lr -> 2 lr over the first two epochs by a slip, is lr from
        the third on, and is multiplied by `factor` at `milestones`. False = the constant rate lr.
      milestones: epochs from 0.
      factor: see `warmup`.

    Example:
      >>> from jaxunlearn import unlearn
      >>> from jaxunlearn.unlearn.wrappers import over_unlearning
      >>> method = over_unlearning.our(unlearn.descent.ascent(), epochs=2)
      >>> method.mid, len(method.phases)
      (1, 2)
    """
    schedule = schedules.overshooting(milestones, factor) if warmup else schedules.constant  # type: ignore[arg-type]
    return append_phases(method, (replay(lr, epochs, l1, momentum, weight_decay, batch, schedule),))


def pure_ascent(
    lr: float = 0.01, epochs: int = 5, momentum: float = 0.0, weight_decay: float = 0.0, batch: int = 0, l2: float = 0.0
) -> Method:
    """Climbs the cross entropy of the forget set at a constant rate, without a retain term.

    Args:
      lr, momentum, weight_decay: of SGD.
      epochs: passes over the forget set.
      batch: rows per step, 0 = the run's.
      l2: adds l2 / 2 |p - original|^2 to the minimised loss.

    Source: OUR v1 `negative_grad_our`.
    """
    return descent.ascent(lr, epochs, momentum, weight_decay, batch, "constant", l2)


def false_labels(
    lr: float = 2.5e-3, epochs: int = 3, batch: int = 0, fresh: bool = False, optimizer: str = "adam",
    weight_decay: float = 0.0,
) -> Method:  # fmt: skip
    """Fits the forget set alone to false labels.

    Args:
      lr: constant; published 25 times that of the method itself.
      epochs: passes over the forget set.
      batch: rows per step, 0 = the run's (published: 128; sample-wise 64).
      fresh: False = one permanent wrong label per row; True = a new one in every epoch, uniform over all C classes.
      optimizer, weight_decay: see `descent.make_optimizer`; published for samples: "adamw" with 1e-4.

    Source: OUR v1 `amnesiac_our`; the first phase of v2's `orthogonality`.
    """
    transform = descent.make_optimizer(optimizer, lr, 0.0, weight_decay, schedules.constant)
    stream_spec = StreamSpec("forget", batch, labels=labels.uniform if fresh else labels.wrong, fresh_labels=fresh)
    return Method((relabelling.training(transform, stream_spec, epochs, "forget"),), "recalibrate")


def fresh_labels(lr: float = 2.5e-3, epochs: int = 3, batch: int = 0, optimizer: str = "adam",
                 weight_decay: float = 0.0) -> Method:  # fmt: skip
    """Runs `false_labels` with labels drawn anew in every epoch, uniform over all classes.

    Args:
      lr, epochs, batch, optimizer, weight_decay: see `false_labels`.
    """
    return false_labels(lr, epochs, batch, True, optimizer, weight_decay)


def bad_teacher(
    lr: float = 0.01, epochs: int = 3, temperature: float = 1.0, share: float = 1e-4, batch: int = 0
) -> Method:
    """Distils a random network on the forget set, and the original on hardly any retained row.

    Args:
      lr, epochs, temperature, batch: see `teachers.bad_teacher`.
      share: of the retained rows; may round to none.

    Source: OUR v1 `blindspot_our` (0.01 % of the retained rows, 3 in
    its experiments; rate 0.01 by default, 1e-4 in its driver).
    """
    return teachers.bad_teacher(lr, epochs, temperature, share, batch)


def ssd(alpha: float = 0.005, lam: float = 0.4, exponent: float = 1.0, batch: int = 0) -> Method:
    """Dampens nearly every parameter that matters to the forget set at all.

    Args:
      alpha, lam, exponent, batch: see `dampening.ssd`.

    Source: OUR v1 `ssd_tuning_our`.
    """
    return dampening.ssd(alpha, lam, exponent, batch=batch)


def influence_step(alpha: float = 24.0, recursion: str = "exact", samples: int = 1002, iterations: int = 20,
               batch: int = 0) -> Method:  # fmt: skip
    """Takes the influence step, 2.4 times as long as without Replay.

    Args:
      alpha, recursion, samples, iterations, batch: see `influence.influence`.

    Published: alpha 120 instead of 50 with recursion="rank_one", on an original trained with an L1 penalty.
    """
    return influence.influence(alpha, recursion, samples, iterations, batch)


class IntensifiedMethod(NamedTuple):
    """The intensified form of a base method under OUR.

    Attributes:
      build: the builder of its phase 1.
      replay: defaults of Replay that differ.
      digits: values for networks as small as those of digits, which the published rates hardly change: phase 1 has to
        erase a class.
    """

    build: Builder
    replay: Mapping[str, Any] = {}
    digits: Mapping[str, Any] = {}


INTENSIFIED: dict[Builder, IntensifiedMethod] = {
    descent.ascent: IntensifiedMethod(pure_ascent, digits={"lr": 0.15}),
    descent.negrad_plus: IntensifiedMethod(pure_ascent, digits={"lr": 0.15}),
    relabelling.amnesiac: IntensifiedMethod(false_labels, digits={"lr": 0.005}),
    relabelling.random_label: IntensifiedMethod(false_labels, digits={"lr": 0.005}),
    relabelling.relabel: IntensifiedMethod(fresh_labels, digits={"lr": 0.005}),
    teachers.bad_teacher: IntensifiedMethod(bad_teacher, {"epochs": 5}),
    dampening.ssd: IntensifiedMethod(ssd, {"epochs": 5}),
    influence.influence: IntensifiedMethod(influence_step, digits={"alpha": 200.0}),
}
