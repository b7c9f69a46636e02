"""Methods that move only the parameters that matter for the forget set: saliency masks, SalUn, SFRon, RUM.

    mask(member)             1 for the share of parameters with the largest |gradient| on the forget set
    saliency(method, 0.5)    any method with all its phases under that mask
    salun, sfron, rum        builders

Sources: Fan et al., "SalUn: empowering machine unlearning via gradient-based weight saliency", 2024; Huang et al.,
"Unified gradient-based machine unlearning with remain geometry enhancement" (SFRon), 2024; Zhao et al., "What makes
unlearning hard and what to do about it" (RUM), 2024; Garg et al., "Memorization through the lens of curvature", 2024.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxunlearn import checks, errors, keys, trees
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import (
    Estimate,
    EstimateContext,
    GradientStep,
    Method,
    Phase,
    Samples,
    Scalar,
    StepContext,
    StreamSpec,
)
from jaxunlearn.unlearn.blocks import losses, passes, schedules, transforms
from jaxunlearn.unlearn.methods import descent, relabelling
from jaxunlearn.unlearn.methods.importance import dampening

Tree = Any
FORMS = ("mixed", "sequential", "adam")
OPTIMIZERS = ("sgd", "adamw")


def at_original(member: EstimateContext) -> EstimateContext:
    """Returns the member with the original model, in evaluation mode.

    The same in all phases, even after they changed the model. A widened network has no original: there it is the
    current model.
    """
    params, model_state = trees.split_variables(member.reference)
    shapes = [[leaf.shape for leaf in jax.tree.leaves(tree)] for tree in (params, member.params)]
    if shapes[0] != shapes[1]:
        params, model_state = member.params, member.model_state
    return member._replace(params=params, model_state=model_state, mode="eval")


def absolute_gradient(member: EstimateContext, name: str) -> Tree:
    """Computes |sum over a stream's batches of the gradient of the batch-mean cross entropy| at the original model."""
    original = at_original(member)

    def update(total: Tree, samples: Samples, key: jax.Array) -> Tree:
        gradients, _ = passes.loss_gradient(original, samples, original.model_state, key)
        return jax.tree.map(jnp.add, total, gradients)

    return jax.tree.map(jnp.abs, passes.fold(original, name, passes.zeros(original), update))


def largest(tree: Tree, fraction: Scalar) -> Tree:
    """Returns a tree of bools, True for the int(N * fraction) largest of all N entries of the tree together.

    Of equal entries the first one wins (leaves in the tree's order, each row by row).

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.unlearn import saliency
      >>> saliency.largest({"a": jnp.array([3.0, 1.0]), "b": jnp.array([2.0, 0.0])}, 0.5)["a"].tolist()
      [True, False]
    """
    leaves, structure = jax.tree.flatten(tree)
    flat = jnp.concatenate([leaf.ravel() for leaf in leaves])
    order = jnp.argsort(-flat, stable=True)
    ranks = jnp.zeros(flat.shape, jnp.int32).at[order].set(jnp.arange(len(flat), dtype=jnp.int32))
    is_largest = ranks < jnp.floor(len(flat) * jnp.asarray(fraction, jnp.float32)).astype(jnp.int32)
    sizes = [leaf.size for leaf in leaves]
    offsets = [sum(sizes[:number]) for number in range(len(sizes))]
    masks = [
        is_largest[offset : offset + leaf.size].reshape(leaf.shape)
        for offset, leaf in zip(offsets, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, masks)


def mask(fraction: Scalar, batch: int = 0) -> Estimate:
    """Estimates the saliency mask of the original model on the forget set, a tree of bools, True = may move.

    Source: SalUn, `generate_mask`: evaluation mode, all parameters ranked together.
    """

    def compute(member: EstimateContext) -> tuple[Tree, Tree]:
        return largest(absolute_gradient(member, "forget"), fraction), member.model_state

    return Estimate(compute, {"forget": StreamSpec("forget", batch, shuffle=False)})


def saliency(method: Method, fraction: Scalar = 0.5, restore: bool = True, batch: int = 0) -> Method:
    """Restricts every phase of a method to the saliency mask of the original model.

    The mask is the same in all phases: it is always computed on the original. A phase that goes on with
    the estimates of the previous one goes on with its mask too.

    Args:
      method: any method without a mask of its own.
      fraction: of all parameters that may move.
      restore: masked-out parameters stay bit-identical, under one-shot changes too; False = only the gradients are
        masked (weight decay still moves everything, one-shot changes are not masked), as in the conformal unlearning
        code.
      batch: of the pass over the forget set; 0 = the run's.

    Raises:
      ConfigError: the method estimates a mask itself.

    Example:
      >>> from jaxunlearn import unlearn
      >>> method = unlearn.saliency.saliency(unlearn.descent.finetune(), fraction=0.3)
      >>> list(method.phases[0].estimates)
      ['mask']
    """
    phases = []
    for phase in method.phases:
        if "mask" in phase.estimates or "mask" in phase.every_epoch:
            raise errors.ConfigError("this method has a mask of its own and cannot get a saliency mask as well.")
        inner = phase.transform
        masked_transform = transforms.protected(inner) if restore else optax.chain(transforms.masked_gradients(), inner)
        is_continued = phase.same_optimizer and not phase.estimates
        estimates = {} if is_continued else {**phase.estimates, "mask": mask(fraction, batch)}
        phases.append(dataclasses.replace(phase, transform=masked_transform, estimates=estimates))
    return dataclasses.replace(method, phases=tuple(phases))


def salun(lr: float = 0.02, epochs: int = 5, fraction: float = 0.5, form: str = "mixed", momentum: float = 0.9,
          weight_decay: float = 5e-4, restore_masked: bool = True, batch: int = 0) -> Method:  # fmt: skip
    """Trains the most salient parameters alone on random labels of the forget set (SalUn).

    Args:
      lr: of SGD in the forms "mixed" and "sequential"; of Adam (about a tenth) in "adam".
      epochs: over forget and retained samples.
      fraction: of the parameters that may move.
      form: "mixed": one wrong label per forget sample, all rows shuffled together, cosine per epoch (conformal
        unlearning); "sequential": every epoch a new label out of all classes, forget batches first, constant rate (the
        authors' code); "adam": sequential with Adam and without weight decay (Orthogonal Unlearning).
      momentum, weight_decay: of SGD.
      restore_masked: masked-out parameters stay as they are, as in the authors' code; False = weight decay moves
        them, as in conformal unlearning. The sources disagree, hence no `compat`.
      batch: rows per step.

    Raises:
      ConfigError: an unknown form.
    """
    checks.choice("form of salun", form, FORMS)
    if form == "adam":
        base = relabelling.relabel(lr, epochs, batch)
    else:
        is_mixed = form == "mixed"
        order = "mixed" if is_mixed else "sequential"
        base = relabelling.random_label(lr, epochs, momentum, weight_decay, batch, order, fresh=not is_mixed)
    return saliency(base, fraction, restore_masked, batch)


def adaptive(values: jax.Array, batch: Samples, power: Scalar = 0.5, floor: float = 1e-4) -> jax.Array:
    """Averages [B] losses with weights 1 / loss^power (no gradient through them): forgotten rows count less.

    Args:
      values: [B] losses >= 0.
      batch: its padding is left out.
      power: of the weights.
      floor: losses below it get the weight of `floor`, so that a loss of exactly 0 does not take all the weight; 0 = as
        published, where the weight is 1 / (loss^power + 1e-15).
    """
    constants = jax.lax.stop_gradient(values)
    weights = jnp.maximum(constants, floor) ** -power if floor else 1.0 / (constants**power + 1e-15)
    weights = jnp.where(batch.weights > 0, weights, 0.0)
    total = jnp.sum(weights)
    return jnp.sum(weights * values) / jnp.where(total > 0, total, 1.0)


def more_important(forget: Tree, retain: Tree) -> Tree:
    """Returns a tree of bools, True where `forget` is at least `retain` (both plus 1e-15)."""
    return jax.tree.map(lambda f, r: (f + 1e-15) / (r + 1e-15) >= 1.0, forget, retain)


def importance_mask(batch: int = 0) -> Estimate:
    """Estimates `more_important` from the mean squared batch gradients of both sets, in evaluation mode."""

    def compute(member: EstimateContext) -> tuple[Tree, Tree]:
        eval_member = member._replace(mode="eval")
        forget, retain = (dampening.importance(eval_member, name)[0] for name in ("forget", "retain"))
        return more_important(forget, retain), member.model_state

    return Estimate(compute, {name: StreamSpec(name, batch, shuffle=False) for name in ("forget", "retain")})


def sfron(lr: float = 0.01, epochs: int = 5, iterations: int = 0, every: int = 1, alpha: float = 40.0,
          momentum: float = 0.9, weight_decay: float = 5e-4, clip: float = 1.0, optimizer: str = "sgd",
          batch: int = 0, compat: str = "corrected") -> Method:  # fmt: skip
    """Alternates a masked, clipped ascent on forget batches with a plain descent on retained ones.

    The ascent weighs samples by 1 / sqrt(loss), starts at weight alpha and moves the parameters that matter more to the
    forget set than to the retained set. Rate and alpha fall as a cosine over all steps; one optimizer serves both.

    Args:
      lr: largest rate.
      epochs: passes over the retained set.
      iterations: stops after this many steps, over which the cosine then falls; 0 = all epochs. As published: 3000.
      every: an ascent at steps 0, every, 2 * every ...
      alpha: weight of the ascent at the beginning, 40 as published; `clip` then limits an ascent's length.
      momentum: of SGD.
      weight_decay: of SGD (added to the gradient) or AdamW (decoupled).
      clip: largest norm of an ascent's gradient; 7 as published, for larger networks.
      optimizer: "sgd" or "adamw".
      batch: rows per step.
      compat: "faithful" lets a loss of exactly 0 take all the weight (see `adaptive`).

    The forget stream goes on from epoch to epoch. With `every` above 1 the forget batches between two ascents are
    skipped; the published code saves them up.

    Raises:
      ConfigError: an unknown optimizer.
    """
    schedule = schedules.cosine_to(iterations) if iterations else schedules.cosine_by_step(max(epochs, 1))
    checks.choice("optimizer", optimizer, OPTIMIZERS)
    if optimizer == "sgd":
        transform = transforms.sgd(lr, momentum, weight_decay, schedule=schedule)
    else:
        transform = transforms.adamw(lr, weight_decay, schedule)
    floor = 0.0 if compat == "faithful" else 1e-4

    def ascent(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
        batch = batches["forget"]
        values = losses.row_cross_entropy(outputs["forget"], batch.labels)
        batch = batch._replace(weights=losses.row_weights(batch))
        return -alpha * schedule(context.step_info) * adaptive(values, batch, floor=floor)

    pre_transform = optax.chain(transforms.masked_gradients(), transforms.clip_by_global_norm(clip))
    gradient_steps = (
        GradientStep(ascent, ("forget",), every, pre_transform),
        GradientStep(descent.retain_loss, ("retain",)),
    )
    stream_specs = {
        "retain": StreamSpec("retain", batch),
        "forget": StreamSpec("forget", batch, continue_across_epochs=True),
    }
    estimates = {"mask": importance_mask(batch)}
    return Method((Phase(transform, gradient_steps, stream_specs, epochs, iterations, estimates),), "recalibrate")


def sfron_plain(lr: float = 0.01, epochs: int = 5, every: int = 1, fraction: float = 0.5, batch: int = 0,
                compat: str = "corrected") -> Method:  # fmt: skip
    """Alternates plain SGD descent and ascent under a saliency mask: SFRon as in the Orthogonal Unlearning code.

    The ascent has no limit: on digits twice the default rate costs 6 points of accuracy; to forget a class takes 0.05.

    Args:
      lr: of SGD, constant.
      epochs: passes over the retained set.
      every: an ascent at steps 0, every, 2 * every ... of the whole run; published: 5.
      fraction: of the parameters that may move.
      batch: rows per step of each stream, 0 = the run's.
      compat: "faithful" begins every epoch with an ascent on the first forget batch, for any number of steps,
        at the price of one compiled program per epoch.
    """
    gradient_steps = (
        GradientStep(descent.forget_ascent, ("forget",), every),
        GradientStep(descent.retain_loss, ("retain",)),
    )
    is_faithful = compat == "faithful"
    stream_specs = {
        "retain": StreamSpec("retain", batch),
        "forget": StreamSpec("forget", batch, continue_across_epochs=not is_faithful),
    }
    phase = Phase(transforms.sgd(lr), gradient_steps, stream_specs, min(epochs, 1) if is_faithful else epochs)
    continuation = dataclasses.replace(phase, same_optimizer=True)
    phases = (phase, *[continuation] * (epochs - 1)) if is_faithful else (phase,)
    return saliency(Method(phases, "recalibrate"), fraction, batch=batch)


def curvature(member: EstimateContext, samples: Samples, directions: int = 10, step: float = 1e-3) -> jax.Array:
    """Estimates [B] the curvature of the loss at every input: a proxy of memorisation, higher = more memorised.

    Mean over random sign vectors v of |gradient(x + step v) - gradient(x)|^2 / step^2, gradients by the input, in
    evaluation mode; a row's directions do not depend on its batch. All products are in full float32: in a GPU's default
    TF32 the differences are rounding errors.

    Args:
      member: the model.
      samples: inputs [B, ...] and labels.
      directions: number of sign vectors.
      step: length in every coordinate.

    Source: Garg et al. 2024.
    """

    def gradient(inputs: jax.Array) -> jax.Array:
        return network.input_gradient(member.network, member.params, member.model_state, inputs, samples.labels)

    shape = samples.inputs.shape[1:]

    def add(total: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        key = keys.at(member.key, number)
        signs = jax.vmap(lambda row: jax.random.rademacher(keys.at(key, row), shape, jnp.float32))(samples.rows)
        change = (gradient(samples.inputs + step * signs) - base_gradient) / step
        return total + jnp.sum(jnp.square(change).reshape(len(change), -1), 1), None

    with jax.default_matmul_precision("highest"):
        base_gradient = gradient(samples.inputs)
        summed, _ = jax.lax.scan(add, jnp.zeros(len(samples.rows)), jnp.arange(directions))
    return summed / directions


def thirds(scores: jax.Array, is_counted: jax.Array) -> jax.Array:
    """Returns [n] int32: 0, 1, 2 for the low, middle, high third of scores [n] by rank; -1 where not `is_counted` [n].

    Each of the lower two has floor(count / 3) entries, the high one the rest; ties in the order of the entries.
    """
    order = jnp.argsort(jnp.where(is_counted, scores, jnp.inf), stable=True)
    # Entries that do not count come last even where scores are infinite themselves.
    order = order[jnp.argsort(~is_counted[order], stable=True)]
    ranks = jnp.zeros(scores.shape, jnp.int32).at[order].set(jnp.arange(len(scores), dtype=jnp.int32))
    size = jnp.sum(is_counted) // 3
    third = jnp.where(size > 0, jnp.minimum(ranks // jnp.maximum(size, 1), 2), 2)
    return jnp.where(is_counted, third, -1)


def most_memorised(directions: int = 10, step: float = 1e-3) -> Estimate:
    """Estimates [N_all] bool: the third of the forget rows with the highest curvature at the original model."""

    def compute(member: EstimateContext) -> tuple[Tree, Tree]:
        original, stream = at_original(member), member.streams["forget"]

        def update(total: jax.Array, samples: Samples, key: jax.Array) -> jax.Array:
            del key
            curvatures = curvature(original, samples, directions, step)
            return total.at[samples.rows].add(jnp.where(samples.weights > 0, curvatures, 0.0))

        table = passes.fold(original, "forget", jnp.zeros(member.forget.shape), update)
        rows = jnp.asarray(stream.rows)
        third = thirds(table[rows], jnp.asarray(stream.weights) > 0)
        return jnp.zeros(member.forget.shape, bool).at[rows].max(third == 2), member.model_state

    return Estimate(compute, {"forget": StreamSpec("forget", shuffle=False)}, cost=directions + 1.0)


def rum(lr: float = 0.01, epochs: int = 5, lr_relabel: float = 1e-3, epochs_relabel: int = 3, fraction: float = 0.5,
        directions: int = 10, batch: int = 0) -> Method:  # fmt: skip
    """Leaves the least memorised third of the forget set alone and applies SalUn to the most memorised third.

    Args:
      lr: of fine-tuning on the retained set (SGD, cosine per epoch).
      epochs: of fine-tuning.
      lr_relabel: of SalUn (Adam, new labels every epoch) on the highest third and the retained set.
      epochs_relabel: of SalUn.
      fraction: of the parameters that SalUn may move.
      directions: random directions per sample of the memorisation proxy, see `curvature`.
      batch: rows per step.

    The published code reads memorisation scores from a file and, class-wise, relabels the middle third by mistake.
    Other forget rows stay in the batches of SalUn and do not count in its loss.
    """
    finetuning = descent.finetune(lr, epochs, batch=batch).phases
    (relabel_phase,) = salun(lr_relabel, epochs_relabel, fraction, "adam", batch=batch).phases
    (stream,) = relabel_phase.stream_specs

    def objective(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
        batch = batches[stream]
        where = ~batch.is_forget | context.estimates["chosen"][batch.rows]
        return losses.cross_entropy(outputs[stream], batch, where)

    estimates = {"chosen": most_memorised(directions), **relabel_phase.estimates}
    salun_phase = dataclasses.replace(relabel_phase, gradient_steps=(GradientStep(objective),), estimates=estimates)
    return Method((*finetuning, salun_phase), "recalibrate")
