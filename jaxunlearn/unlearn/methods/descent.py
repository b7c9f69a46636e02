"""Methods that only descend or ascend: fine-tuning, last layers alone, gradient ascent, NegGrad+, L1 and pruning.

All are SGD on some mix of

    + cross entropy of rows to keep    - cross entropy of rows to forget    + a_e |p|_1    + l2 / 2 |p - original|^2

and differ in the rows they read, the parameters that may move, and the rate. Sources: fine-tuning and ascent as in
"IAM", in the conformal unlearning code (`unlearn.py`), in the saliency code of the OPTML group, and in the two code
bases of Over-Unlearning and Replay ("OUR", v1 and v2); other sources stand at each function.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxunlearn import checks, keys, trees
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import (
    Estimate,
    EstimateContext,
    GradientStep,
    Method,
    Objective,
    Phase,
    Samples,
    Scalar,
    StepContext,
    StreamSpec,
)
from jaxunlearn.unlearn.base.network import Network
from jaxunlearn.unlearn.blocks import losses, schedules, transforms

Tree = Any
SCHEDULES = ("constant", "cosine", "milestones", "overshooting", "linear")
OPTIMIZERS = ("sgd", "adam", "adamw")


retain_loss = losses.cross_entropy_on("retain")
forget_ascent = losses.cross_entropy_on("forget", -1.0)


def make_schedule(name: str, epochs: int, milestones: tuple[int, ...] = (), factor: Scalar = 0.1) -> schedules.Schedule:
    """Returns the learning-rate schedule with this name.

    Args:
      name: "constant"; "cosine" over `epochs`, once per epoch; "milestones": times `factor` at each of them;
        "overshooting": the same after a warm-up that climbs to twice the rate (`schedules.overshooting`); "linear": up
        over the first epoch, then down to 0 (`schedules.linear`).
      epochs: of the phase.
      milestones: epochs, counted from 0.
      factor: of the rate at each milestone; may be traced.

    Raises:
      ConfigError: an unknown name.
    """
    checks.choice("schedule", name, SCHEDULES)
    if name == "cosine":
        return schedules.cosine(epochs)
    if name == "linear":
        return schedules.linear(epochs)
    if name == "milestones":
        return schedules.milestones(milestones, factor)  # type: ignore[arg-type]
    return schedules.overshooting(milestones, factor) if name == "overshooting" else schedules.constant  # type: ignore[arg-type]


def make_optimizer(
    optimizer: str,
    lr: Scalar,
    momentum: Scalar,
    weight_decay: Scalar,
    schedule: schedules.Schedule,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer with this name.

    Args:
      optimizer: one of OPTIMIZERS; "adam" and "adamw" (for vision transformers) ignore the momentum.
      lr, momentum, weight_decay: floats, may be traced; the decay of "adamw" is decoupled, of the others L2.
      schedule: factor on the rate.
      nesterov: Nesterov momentum, of "sgd" only.

    Raises:
      ConfigError: an unknown name.
    """
    checks.choice("optimizer", optimizer, OPTIMIZERS)
    if optimizer == "sgd":
        return transforms.sgd(lr, momentum, weight_decay, nesterov, schedule)
    return (transforms.adam if optimizer == "adam" else transforms.adamw)(lr, weight_decay, schedule)


def finetune(
    lr: float = 0.01,
    epochs: int = 5,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch: int = 0,
    schedule: str = "cosine",
    milestones: tuple = (),
    factor: float = 0.1,
    nesterov: bool = False,
    l1: float = 0.0,
    optimizer: str = "sgd",
) -> Method:
    """Fine-tunes on the retained samples alone; the rate falls as a cosine, once per epoch.

    Relies on catastrophic forgetting.

    Args:
      lr, momentum, weight_decay, nesterov, optimizer: see `make_optimizer`.
      epochs: passes over the retained set.
      batch: rows per step, 0 = the run's.
      schedule, milestones, factor: see `make_schedule`. OUR v1 has "overshooting" with factor 0.8.
      l1: constant coefficient of sum |p|; 5e-5 with schedule="constant" is one phase of the Replay of OUR v2.

    Source: IAM (5 epochs at 0.01); conformal unlearning and OPTML "FT"; OUR `fit_one_cycle`; forget precision (constant
    1e-3, Nesterov).

    Example:
      >>> from jaxunlearn import unlearn
      >>> unlearn.descent.finetune(epochs=3).phases[0].epochs
      3
    """
    descent = make_optimizer(
        optimizer, lr, momentum, weight_decay, make_schedule(schedule, epochs, milestones, factor), nesterov
    )
    transform = optax.chain(transforms.add_l1(l1), descent)
    return Method(
        (Phase(transform, (GradientStep(retain_loss),), {"retain": StreamSpec("retain", batch)}, epochs),),
        "recalibrate",
    )


def last_layers(net: Network, k: int) -> tuple[tuple[str, ...], ...]:
    """Returns the paths of the last k layers with a kernel, and of all modules called after the first of them.

    Convolutions and dense layers count, in the order in which they are called; a normalisation goes with the layer
    before it. If k reaches the depth of the network, the only path is the root: everything.
    """
    layers = network.layers(net)
    indices = [number for number, layer in enumerate(layers) if layer.kind != "norm"]
    if k >= len(indices):
        return ((),)
    paths = [layer.path for layer in layers[indices[-k] :]]
    # A module with parameters of its own (class token, positions) is noted after the layers within it.
    return tuple(path for path in paths if sum(layer.path[: len(path)] == path for layer in layers) == 1)


def all_but_last(net: Network, k: int) -> tuple[str, ...]:
    """Returns the paths "a/b/kernel" of all parameters outside the last k layers."""
    shapes = jax.eval_shape(lambda: network.init(net, keys.root(0))[0])
    in_last_layers = network.mask_of_paths(last_layers(net, k), shapes)
    return tuple(path for path, is_last in trees.named_leaves(in_last_layers) if not is_last)


def cf_k(
    lr: float = 0.02,
    epochs: int = 5,
    k: int = 2,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch: int = 0,
    schedule: str = "cosine",
) -> Method:
    """Fine-tunes the last k layers on the retained samples (catastrophic forgetting-k).

    All other parameters stay bit for bit; their BatchNorm statistics follow the policy.

    Args:
      lr, momentum, weight_decay: of SGD.
      epochs: passes over the retained set.
      k: layers that train, see `last_layers`; beyond the depth of the network this is plain fine-tuning.
      batch: rows per step, 0 = the run's.
      schedule: one of SCHEDULES.

    Source: Goel et al., "Towards adversarial evaluations for inexact machine unlearning", 2022.

    Raises:
      ConfigError: k below 1.
    """
    checks.in_range("k", k, 1)
    descent = transforms.sgd(lr, momentum, weight_decay, schedule=make_schedule(schedule, epochs))
    stream_specs = {"retain": StreamSpec("retain", batch)}
    phase = Phase(descent, (GradientStep(retain_loss),), stream_specs, epochs, frozen=lambda net: all_but_last(net, k))
    return Method((phase,), "recalibrate")


def reinitialised(member: EstimateContext, k: int) -> tuple[Tree, Tree]:
    """Returns parameters and model state with those of the last k layers reinitialised."""
    paths = last_layers(member.network, k)
    params, model_state = network.init(member.network, keys.stream(member.key, "renewed"))

    def merge(fresh: Tree, current: Tree) -> Tree:
        in_last_layers = network.mask_of_paths(paths, current)
        return jax.tree.map(lambda is_last, new, old: new if is_last else old, in_last_layers, fresh, current)

    fresh_state = {name: merge(model_state[name], current) for name, current in member.model_state.items()}
    return merge(params, member.params), fresh_state


def eu_k(
    lr: float = 0.05,
    epochs: int = 10,
    k: int = 2,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch: int = 0,
    schedule: str = "cosine",
) -> Method:
    """Reinitialises the last k layers and trains them on the retained samples, the others frozen (exact unlearning-k).

    Exact for those layers only: what the frozen ones know of the forgotten samples stays.

    Args:
      lr, momentum, weight_decay: of SGD.
      epochs: passes over the retained set; 0 = the last layers are reinitialised and not trained.
      k: layers, see `last_layers`; beyond the depth of the network this is retraining.
      batch: rows per step, 0 = the run's.
      schedule: one of SCHEDULES.

    Source: Goel et al., "Towards adversarial evaluations for inexact machine unlearning", 2022.

    Raises:
      ConfigError: k below 1.
    """
    training = cf_k(lr, epochs, k, momentum, weight_decay, batch, schedule)
    draw = transforms.one_shot(lambda params, *, estimates, **extras: estimates["renewed"])
    redraw = Phase(draw, estimates={"renewed": Estimate(lambda member: reinitialised(member, k), cost=0.0)})
    return Method((redraw, *training.phases), training.bn)


def total_step(lr: Scalar, schedule: schedules.Schedule) -> optax.GradientTransformationExtraArgs:
    """Passes gradients on unchanged; its state is the sum of lr * schedule * gradient so far, like the parameters."""

    def update(updates: Tree, state: Tree, params: Tree = None, *, step_info: Any, **extras: Any) -> tuple[Tree, Tree]:
        del params, extras
        factor = lr * schedule(step_info)
        return updates, jax.tree.map(lambda total, leaf: total + factor * leaf, state, updates)

    return optax.GradientTransformationExtraArgs(lambda params: jax.tree.map(jnp.zeros_like, params), update)


def unrelated_ascent(lr: Scalar, epochs: int, batch: int, schedule: str) -> Method:
    """Moves the original along the gradients of a random network that learns the forget set: the IAM seed's ascent.

    For every forget batch g = gradient of the random network phi; theta += lr_e * g; phi takes an SGD step (momentum
    0.9, weight decay 5e-4) along g. As theta is never evaluated, phi runs alone and the steps are added afterwards.

    Args:
      lr: of both networks.
      epochs: passes over the forget set.
      batch: rows per step, 0 = the run's.
      schedule: one of SCHEDULES.
    """

    def forget_loss(
        outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext
    ) -> jax.Array:
        return -forget_ascent(outputs, batches, context)

    def ascend(params: Tree, *, saved_states: Mapping[str, Any], **extras: Any) -> Tree:
        del extras
        return jax.tree.map(jnp.add, params, saved_states["unrelated"].optimizer[0])

    factors = make_schedule(schedule, epochs)
    transform = optax.chain(total_step(lr, factors), transforms.sgd(lr, 0.9, 5e-4, schedule=factors))
    stream_specs = {"forget": StreamSpec("forget", batch)}
    phi = Phase(
        transform, (GradientStep(forget_loss),), stream_specs, epochs, start="fresh", save_as="unrelated", mode="train"
    )
    return Method((phi, Phase(transforms.one_shot(ascend), start="original")))


def ascent(
    lr: float = 0.01,
    epochs: int = 5,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    batch: int = 0,
    schedule: str = "cosine",
    l2: float = 0.0,
    source: str = "self",
    compat: str = "corrected",
) -> Method:
    """Climbs the cross entropy of the forget set; the rate falls as a cosine, once per epoch.

    Nothing protects the retained samples, and the loss has no ceiling: choose small rates, above all for whole classes.

    Args:
      lr, momentum, weight_decay: of SGD.
      epochs: passes over the forget set.
      batch: rows per step, 0 = the run's.
      schedule: one of SCHEDULES.
      l2: adds l2 / 2 |p - original|^2 to the minimised loss.
      source: "self", or "fresh": gradients come from an unrelated random network, so that hardly anything is forgotten
        (`unrelated_ascent`, where momentum, decay and l2 do not count).
      compat: "faithful" = source "fresh", as in the IAM seed.

    Source: IAM "ascent"; conformal unlearning and OPTML "GA" (momentum 0.9, weight decay 5e-4, constant rate); OUR v1
    (constant rate, l2 0.1).

    Raises:
      ConfigError: an unknown source, compat or schedule.
    """
    checks.choice("source", source, ("self", "fresh"))
    checks.choice("compat", compat, ("corrected", "faithful"))
    if source == "fresh" or compat == "faithful":
        return unrelated_ascent(lr, epochs, batch, schedule)
    descent = transforms.sgd(lr, momentum, weight_decay, schedule=make_schedule(schedule, epochs))
    transform = optax.chain(transforms.add_l2_to_reference(l2), descent)
    return Method((Phase(transform, (GradientStep(forget_ascent),), {"forget": StreamSpec("forget", batch)}, epochs),))


def paired(alpha: Scalar) -> Objective:
    """Returns the objective alpha * CE(stream "retain") - (1 - alpha) * CE(stream "forget")."""

    def objective(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
        return alpha * retain_loss(outputs, batches, context) + (1.0 - alpha) * forget_ascent(outputs, batches, context)

    return objective


def mixed(lam: Scalar) -> Objective:
    """Returns the objective CE(retained rows) - lam * CE(forget rows) of the stream "all", a mean over each kind."""

    def objective(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
        del context
        logits, batch = outputs["all"], batches["all"]
        retain_term = losses.cross_entropy(logits, batch, ~batch.is_forget)
        return retain_term - lam * losses.cross_entropy(logits, batch, batch.is_forget)

    return objective


def negrad_plus(
    lr: float = 0.05,
    epochs: int = 5,
    alpha: float = 0.95,
    lam: float = 0.001,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    batch: int = 0,
    schedule: str = "constant",
    l1: float = 0.0,
    l2: float = 0.0,
    form: str = "paired",
    optimizer: str = "sgd",
) -> Method:
    """Takes steps that descend on retained samples and climb on those to forget (NegGrad+).

    Args:
      lr, momentum, weight_decay, optimizer: see `make_optimizer`.
      epochs: passes over the retained set; if mixed, over both sets.
      alpha: share of the retained loss, if paired.
      lam: weight of the forget loss, if mixed.
      batch: rows per step of each stream, 0 = the run's.
      schedule: one of SCHEDULES.
      l1: adds l1 * |p|_1 to the loss, outside alpha.
      l2: adds l2 / 2 |p - original|^2, outside alpha; OUR v2 has 0.1 inside, that is l2 = 0.1 * alpha here.
      form: "paired": alpha * CE(retain batch) - (1 - alpha) * CE(forget batch), forget batches cycled within an epoch
        over the retained ones; "mixed": batches of both kinds, CE(retained rows) - lam * CE(forget rows).

    Source: OUR `negative_grad` (paired, plain SGD; alpha 0.95, on samples 0.7; v1 l2 0.1, l1
    1e-3); conformal unlearning "ga_plus" (mixed, momentum 0.9, weight decay 5e-4, cosine); the idea is that of Kurmanji
    et al. 2023.

    Raises:
      ConfigError: an unknown form, schedule or optimizer.

    Example:
      >>> from jaxunlearn import unlearn
      >>> list(unlearn.descent.negrad_plus(alpha=0.9).phases[0].stream_specs)
      ['retain', 'forget']
    """
    checks.choice("form", form, ("paired", "mixed"))
    if form == "mixed":
        gradient_step, stream_specs = GradientStep(mixed(lam)), {"all": StreamSpec("forget+retain", batch)}
    else:
        gradient_step, stream_specs = (
            GradientStep(paired(alpha)),
            {"retain": StreamSpec("retain", batch), "forget": StreamSpec("forget", batch)},
        )
    descent = make_optimizer(optimizer, lr, momentum, weight_decay, make_schedule(schedule, epochs))
    transform = optax.chain(transforms.add_l1(l1), transforms.add_l2_to_reference(l2), descent)
    return Method((Phase(transform, (gradient_step,), stream_specs, epochs),), "recalibrate")
