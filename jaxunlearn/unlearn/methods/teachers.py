"""Methods that learn from other networks: the bad teacher, and SCRUB with its rewinding.

    bad teacher   forget rows imitate a random network, retained rows the original model
    SCRUB         forget rows move away from the original model, retained rows stay with it and with their labels

The teachers answer in evaluation mode, without gradient.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import checks, errors, population, trees
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import (
    Estimate,
    EstimateContext,
    GradientStep,
    MemberRows,
    Method,
    Phase,
    Samples,
    SavedState,
    Scalar,
    StepContext,
    StreamSpec,
)
from jaxunlearn.unlearn.blocks import losses, passes, schedules, transforms

Tree = Any
OPTIMIZERS = ("sgd", "adam")


def two_teachers(
    student: jax.Array,
    bad: jax.Array,
    good: jax.Array,
    batch: Samples,
    temperature: Scalar = 1.0,
    per_class: bool = True,
) -> jax.Array:
    """Mean KL(teacher || student) over a batch whose forget rows have the bad teacher and all others the good one.

    Args:
      student: [B, C] float32 logits; of texts, as everywhere here, [B, T, V].
      bad: [B, C] float32 logits of the teacher of forget rows.
      good: [B, C] float32 logits of the teacher of all other rows.
      batch: tells which rows are to be forgotten.
      temperature: > 0; divides all logits, and no factor makes up for it.
      per_class: the mean runs over the classes too, that is, 1 / C of the divergence: so in both published code bases.
    """
    teacher = jnp.where(batch.is_forget.reshape(-1, *[1] * (student.ndim - 1)), bad, good)
    loss = losses.mean(losses.divergence(student, teacher, temperature), batch)
    return loss / student.shape[-1] if per_class else loss


def forget_and_share(share: float) -> Callable[[MemberRows], np.ndarray]:
    """Rows: the forget set, and a random share of the retained ones; share 0 = as many as there are to forget."""

    def rows(member_rows: MemberRows) -> np.ndarray:
        wanted = round(share * len(member_rows.retain)) if share else len(member_rows.forget)
        return np.concatenate([member_rows.forget, member_rows.rng.permutation(member_rows.retain)[:wanted]])

    return rows


def bad_teacher(
    lr: float = 6e-4,
    epochs: int = 3,
    temperature: float = 1.0,
    share: float = 0.3,
    batch: int = 0,
    per_class: bool = True,
) -> Method:
    """The forget set learns the answers of a random network, a share of the retained set those of the original; Adam.

    Args:
      lr: of Adam, constant.
      epochs: passes over the forget set and the share.
      temperature: of all softmaxes.
      share: of the retained rows that are read; 0 = as many rows as there are to forget (all there are at most).
      batch: rows per step, 0 = the run's.
      per_class: the loss is divided by C, as published; Adam hardly notices.

    Source: Chundawat et al. 2023 ("Can bad teaching induce forgetting?"), share 0.3; conformal unlearning "teacher":
    share 0, 1e-4.
    """

    def objective(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
        bad, good = context.teachers["bad"]["both"], context.teachers["good"]["both"]
        return two_teachers(outputs["both"], bad, good, batches["both"], temperature, per_class)

    reads = {"both": StreamSpec(forget_and_share(share), batch)}
    teachers = {"bad": "fresh", "good": "original"}
    phase = Phase(transforms.adam(lr), (GradientStep(objective),), reads, epochs, teachers=teachers)
    return Method((phase,), "recalibrate")


def distillation(
    student: jax.Array, teacher: jax.Array, batch: Samples, temperature: Scalar, where: jax.Array | None = None
) -> jax.Array:
    """T^2 times the mean KL(teacher || student) of softmax(logits / T), over the rows of `where` [B] bool."""
    return jnp.square(temperature) * losses.mean(losses.divergence(student, teacher, temperature), batch, where)


def scrub(
    lr: float = 1e-3,
    epochs: int = 5,
    msteps: int = 3,
    gamma: float = 1.0,
    beta: float = 0.1,
    temperature: float = 4.0,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    optimizer: str = "adam",
    milestones: tuple[int, ...] = (),
    decay: float = 0.1,
    batch: int = 32,
    rewind: bool = False,
    compat: str = "corrected",
) -> Method:
    """SCRUB: early epochs begin with a pass over the forget set, away from the original; all pass over the retained.

        forget rows:   -T^2 KL(original || student)
        retain rows:   gamma * cross entropy + beta * T^2 KL(original || student)

    At first student and original agree, where the divergence has gradient 0: only BatchNorm, dropout, augmentation or
    weight decay get the forget pass going. Adam makes steps of the smallest gradient; SGD can need many passes. A
    forget set of a batch or two gives a pass too few steps to get anywhere: hence the small batches.

    Args:
      lr: of one optimizer for both passes.
      epochs: passes over the retained set.
      msteps: epochs that begin with a pass over the forget set.
      gamma: weight of the labels.
      beta: weight of the original model.
      temperature: T.
      momentum: of SGD.
      weight_decay: L2, added to the gradient, with both optimizers.
      optimizer: "sgd" or "adam".
      milestones: epochs, counted from 0, from which on the rate is multiplied by `decay` (once more).
      decay: see `milestones`.
      batch: rows per step, 0 = the run's.
      rewind: SCRUB+R: goes back to the epoch after which the model was as often wrong on the forget set as it is in the
        end on held-out rows, see `rewinding`. Every epoch is then a program of its own, and its state is kept.
      compat: "faithful" makes msteps + 1 forget passes, as the conformal unlearning code does.

    Source: Kurmanji et al. 2023, "Towards unbounded machine unlearning"; OUR version 2 (Adam, milestones 3, 5, 9);
    conformal unlearning (SGD, msteps 5, beta 1, T 2).

    Raises:
      ConfigError: an unknown optimizer or compat; to rewind without held-out rows.
    """
    checks.choice("optimizer", optimizer, OPTIMIZERS)
    checks.choice("compat", compat, ("corrected", "faithful"))
    schedule = schedules.milestones(milestones, decay)
    if optimizer == "sgd":
        descent = transforms.sgd(lr, momentum, weight_decay, schedule=schedule)
    else:
        descent = transforms.adam(lr, weight_decay, schedule)

    def objective(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
        student, samples = outputs["both"], batches["both"]
        teacher, is_retain = context.teachers["original"]["both"], ~samples.is_forget
        away = distillation(student, teacher, samples, temperature, samples.is_forget)
        near = distillation(student, teacher, samples, temperature, is_retain)
        return gamma * losses.cross_entropy(student, samples, is_retain) + beta * near - away

    def stage(first: int, count: int, keep: str = "") -> Phase:
        rows = ("forget", "retain") if first < passes_away else "retain"
        return Phase(
            descent,
            (GradientStep(objective),),
            {"both": StreamSpec(rows, batch)},
            count,
            teachers={"original": "original"},
            save_as=keep,
            same_optimizer=first > 0,
            first_epoch=first,
        )

    passes_away = min(msteps + (compat == "faithful"), epochs)
    if rewind and epochs:
        kept = tuple(f"epoch_{number}" for number in range(epochs))
        stages = tuple(stage(number, 1, name) for number, name in enumerate(kept))
        return Method((*stages, rewinding(kept, batch)), "recalibrate")
    cuts = [cut for cut in sorted({0, passes_away}) if cut < epochs] or [0]
    stages = tuple(stage(cut, end - cut) for cut, end in zip(cuts, [*cuts[1:], epochs], strict=True))
    return Method(stages, "recalibrate")


def held_out_alike(member_rows: MemberRows) -> np.ndarray:
    """Held-out rows, of each class as many as are to be forgotten if there are so many; of any class if none has one.

    Of texts, a class is a group (author, document).

    Raises:
      ConfigError: no held-out rows.
    """
    if not len(member_rows.validation):
        raise errors.ConfigError(
            "rewinding compares the error on the forget set with that on held-out rows, and there are none. "
            "Give the run population rows, or set rewind = false."
        )
    shuffled = member_rows.rng.permutation(member_rows.validation)
    of_class = member_rows.labels[shuffled]
    found = [
        shuffled[of_class == label][:count]
        for label, count in zip(*np.unique(member_rows.labels[member_rows.forget], return_counts=True), strict=True)
    ]
    rows = np.concatenate(found) if found else shuffled[:0]
    return rows if len(rows) else shuffled[: len(member_rows.forget)]


def error(member: EstimateContext, saved: SavedState, name: str) -> jax.Array:
    """Share of wrong answers of a saved state on one stream, in evaluation mode."""

    def update(total: tuple[jax.Array, jax.Array], samples: Samples, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        del key
        logits, _ = network.forward(member.network, saved.params, saved.model_state, samples.inputs, samples.weights)
        right, number = population.right_answers(logits, samples.labels, samples.weights)
        return total[0] + number - right, total[1] + number

    wrong, number = passes.fold(member, name, (jnp.float32(0.0), jnp.float32(0.0)), update)
    return wrong / jnp.maximum(number, 1.0)


def rewinding(kept: tuple[str, ...], batch: int = 0) -> Phase:
    """An edit that goes back to one of the kept states of earlier phases, with its statistics.

    It takes the state whose error on the forget set is closest to the error of the last one on as many held-out rows of
    the same classes, of equally close ones the earliest: as often wrong as on samples never seen, and not more often.

    Source: Kurmanji et al. 2023, section 3.2 (SCRUB+R).
    """

    def compute(member: EstimateContext) -> tuple[Tree, Tree]:
        saved = [member.saved_states[name] for name in kept]
        wanted = error(member, saved[-1], "held_out")
        states = trees.stack([(one.params, one.model_state) for one in saved])
        found = jax.lax.map(lambda state: error(member, SavedState(state[0], state[1], None), "forget"), states)
        return trees.take(states, jnp.argmin(jnp.abs(found - wanted)))

    def change(params: Tree, *, estimates: Mapping[str, Tree], **extras: Any) -> Tree:
        del params, extras
        return estimates["chosen"]

    reads = {
        "forget": StreamSpec("forget", batch, shuffle=False),
        "held_out": StreamSpec(held_out_alike, batch, shuffle=False),
    }
    # Forward passes: as many as states over the forget set, one over as many held-out rows.
    estimate = Estimate(compute, reads, cost=(len(kept) + 1) / 6)
    return Phase(transforms.one_shot(change), estimates={"chosen": estimate})
