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
    """Averages KL(teacher || student) over a batch: the bad teacher for forget rows, the good one for all others.

    Args:
      student: [B, C] float32 logits; of texts, as everywhere here, [B, T, V].
      bad: [B, C] float32 logits of the teacher of forget rows.
      good: [B, C] float32 logits of the teacher of all other rows.
      batch: `is_forget` selects the teacher.
      temperature: > 0; divides all logits, with no compensating factor.
      per_class: the mean is over the classes too, that is, 1 / C of the divergence, as in both published code bases.
    """
    teacher = jnp.where(batch.is_forget.reshape(-1, *[1] * (student.ndim - 1)), bad, good)
    loss = losses.mean(losses.divergence(student, teacher, temperature), batch)
    return loss / student.shape[-1] if per_class else loss


def forget_and_share(share: float) -> Callable[[MemberRows], np.ndarray]:
    """Returns a function for `StreamSpec.rows`: the forget set and a random share of the retained rows, 0 = as many."""

    def rows(member_rows: MemberRows) -> np.ndarray:
        count = round(share * len(member_rows.retain)) if share else len(member_rows.forget)
        return np.concatenate([member_rows.forget, member_rows.rng.permutation(member_rows.retain)[:count]])

    return rows


def bad_teacher(
    lr: float = 6e-4,
    epochs: int = 3,
    temperature: float = 1.0,
    share: float = 0.3,
    batch: int = 0,
    per_class: bool = True,
) -> Method:
    """Distils a random network on the forget set, and the original on a share of the retained set; Adam.

    Args:
      lr: of Adam, constant.
      epochs: passes over the forget set and the share.
      temperature: of all softmaxes.
      share: of the retained rows that are read; 0 = as many rows as there are to forget (at most all).
      batch: rows per step, 0 = the run's.
      per_class: the loss is divided by C, as published; Adam hardly notices.

    Source: Chundawat et al. 2023 ("Can bad teaching induce forgetting?"), share 0.3; conformal unlearning "teacher":
    share 0, 1e-4.
    """

    def objective(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
        bad, good = context.teachers["bad"]["both"], context.teachers["good"]["both"]
        return two_teachers(outputs["both"], bad, good, batches["both"], temperature, per_class)

    stream_specs = {"both": StreamSpec(forget_and_share(share), batch)}
    teachers = {"bad": "fresh", "good": "original"}
    phase = Phase(transforms.adam(lr), (GradientStep(objective),), stream_specs, epochs, teachers=teachers)
    return Method((phase,), "recalibrate")


def distillation(
    student: jax.Array, teacher: jax.Array, batch: Samples, temperature: Scalar, where: jax.Array | None = None
) -> jax.Array:
    """Computes T^2 times the mean KL(teacher || student) of softmax(logits / T).

    Args:
      student, teacher: [B, C] logits; of texts [B, T, V].
      batch: labels and weights.
      temperature: T.
      where: [B] bool, the rows that count; None = all.
    """
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
    """Moves away from the original on the forget set in early epochs, towards it on the retained set in all (SCRUB).

        forget rows:   -T^2 KL(original || student)
        retain rows:   gamma * cross entropy + beta * T^2 KL(original || student)

    At first student and original agree, where the divergence has gradient 0: only BatchNorm, dropout, augmentation or
    weight decay start the forget pass. Adam makes full steps of the smallest gradient; SGD can need many passes. A
    forget set of one or two batches gives a pass too few steps to have an effect: hence the small batches.

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
      milestones, decay: the rate is multiplied by `decay` from each of these epochs on, counted from 0.
      batch: rows per step, 0 = the run's.
      rewind: SCRUB+R: goes back to the epoch whose error on the forget set is closest to the final error on held-out
        rows, see `rewinding`. Every epoch is then a separate program, and its state is saved.
      compat: "faithful" makes msteps + 1 forget passes, as the conformal unlearning code does.

    Source: Kurmanji et al. 2023, "Towards unbounded machine unlearning"; OUR version 2 (Adam, milestones 3, 5, 9);
    conformal unlearning (SGD, msteps 5, beta 1, T 2).

    Raises:
      ConfigError: an unknown optimizer or compat; to rewind without held-out rows.

    Example:
      >>> from jaxunlearn import unlearn
      >>> method = unlearn.teachers.scrub(epochs=3, msteps=1)
      >>> [(phase.epochs, phase.stream_specs["both"].rows) for phase in method.phases]
      [(1, ('forget', 'retain')), (2, 'retain')]
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
        forget_divergence = distillation(student, teacher, samples, temperature, samples.is_forget)
        retain_divergence = distillation(student, teacher, samples, temperature, is_retain)
        return gamma * losses.cross_entropy(student, samples, is_retain) + beta * retain_divergence - forget_divergence

    def epochs_from(first: int, count: int, save_as: str = "") -> Phase:
        rows = ("forget", "retain") if first < forget_epochs else "retain"
        return Phase(
            descent,
            (GradientStep(objective),),
            {"both": StreamSpec(rows, batch)},
            count,
            teachers={"original": "original"},
            save_as=save_as,
            same_optimizer=first > 0,
            first_epoch=first,
        )

    forget_epochs = min(msteps + (compat == "faithful"), epochs)
    if rewind and epochs:
        names = tuple(f"epoch_{number}" for number in range(epochs))
        phases = tuple(epochs_from(number, 1, name) for number, name in enumerate(names))
        return Method((*phases, rewinding(names, batch)), "recalibrate")
    starts = [cut for cut in sorted({0, forget_epochs}) if cut < epochs] or [0]
    phases = tuple(epochs_from(cut, end - cut) for cut, end in zip(starts, [*starts[1:], epochs], strict=True))
    return Method(phases, "recalibrate")


def held_out_alike(member_rows: MemberRows) -> np.ndarray:
    """Returns held-out rows matched by class: per class min(#forget, #available); any class if none matches.

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
    class_rows = [
        shuffled[of_class == label][:count]
        for label, count in zip(*np.unique(member_rows.labels[member_rows.forget], return_counts=True), strict=True)
    ]
    rows = np.concatenate(class_rows) if class_rows else shuffled[:0]
    return rows if len(rows) else shuffled[: len(member_rows.forget)]


def error(member: EstimateContext, saved: SavedState, name: str) -> jax.Array:
    """Computes the error rate of a saved state on one stream, in evaluation mode."""

    def update(total: tuple[jax.Array, jax.Array], samples: Samples, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        del key
        logits, _ = network.forward(member.network, saved.params, saved.model_state, samples.inputs, samples.weights)
        num_right, count = population.right_answers(logits, samples.labels, samples.weights)
        return total[0] + count - num_right, total[1] + count

    num_wrong, count = passes.fold(member, name, (jnp.float32(0.0), jnp.float32(0.0)), update)
    return num_wrong / jnp.maximum(count, 1.0)


def rewinding(names: tuple[str, ...], batch: int = 0) -> Phase:
    """Returns a phase that goes back to one of the saved states of earlier phases, model state included.

    It takes the state whose error on the forget set is closest to the error of the last one on as many held-out rows of
    the same classes, the earliest of equally close ones: as often wrong as on samples never seen, and not more often.

    Source: Kurmanji et al. 2023, section 3.2 (SCRUB+R).
    """

    def compute(member: EstimateContext) -> tuple[Tree, Tree]:
        saved_states = [member.saved_states[name] for name in names]
        held_out_error = error(member, saved_states[-1], "held_out")
        states = trees.stack([(state.params, state.model_state) for state in saved_states])
        forget_errors = jax.lax.map(lambda state: error(member, SavedState(state[0], state[1], None), "forget"), states)
        return trees.take(states, jnp.argmin(jnp.abs(forget_errors - held_out_error)))

    def change(params: Tree, *, estimates: Mapping[str, Tree], **extras: Any) -> Tree:
        del params, extras
        return estimates["chosen"]

    stream_specs = {
        "forget": StreamSpec("forget", batch, shuffle=False),
        "held_out": StreamSpec(held_out_alike, batch, shuffle=False),
    }
    # Forward passes: as many as states over the forget set, one over as many held-out rows.
    estimate = Estimate(compute, stream_specs, cost=(len(names) + 1) / 6)
    return Phase(transforms.one_shot(change), estimates={"chosen": estimate})
