"""Methods that only descend or ascend: fine-tuning, last layers alone, gradient ascent, NegGrad+, L1 and pruning.

All are SGD on some mix of

    + cross entropy of rows to keep    - cross entropy of rows to forget    + a_e |p|_1    + l2 / 2 |p - original|^2

and differ in which rows, which parameters may move, and the rate. Sources: fine-tuning and ascent as in "IAM", in the
conformal unlearning code (`unlearn.py`), in the saliency code of the OPTML group, and in the two code bases of
Over-Unlearning and Replay ("OUR", v1 and v2); the rest is named where it stands.
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
    """The schedule of a name.

    Args:
      name: "constant"; "cosine" over `epochs`, once per epoch; "milestones": times `factor` at each of them;
        "overshooting": the same after a warm-up that climbs to twice the rate (`schedules.overshooting`); "linear": up
        over the first epoch, then down to 0 (`schedules.linear`).
      epochs: of the phase.
      milestones: epochs from 0.
      factor: may be traced.

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
    """The optimizer of a name; "adam" and "adamw" (vision transformers) do not look at the momentum.

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
    """Trains on for some epochs on the retained samples alone; the rate falls as a cosine, once per epoch.

    Forgetting is left to catastrophic forgetting. `l1` is a constant coefficient of sum |p|: with schedule="constant"
    and 5e-5 this is one stage of the Replay of OUR v2. OUR v1 fine-tunes with schedule="overshooting", factor 0.8.
    Source: IAM (5 epochs at 0.01); conformal unlearning and OPTML "FT"; OUR `fit_one_cycle`; forget precision (constant
    1e-3, Nesterov).
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
    """Paths of the last k layers with a kernel, and of whatever is called after the first of them.

    Convolutions and dense layers count, in the order in which they are called; a normalisation behind one goes with it.
    From the depth of the network on, the answer is the root: everything.
    """
    found = network.layers(net)
    places = [number for number, layer in enumerate(found) if layer.kind != "norm"]
    if k >= len(places):
        return ((),)
    paths = [layer.path for layer in found[places[-k] :]]
    # A module with parameters of its own (class token, positions) is noted after the layers within it.
    return tuple(path for path in paths if sum(layer.path[: len(path)] == path for layer in found) == 1)


def all_but_last(net: Network, k: int) -> tuple[str, ...]:
    """Paths "a/b/kernel" of all parameters outside the last k layers."""
    shapes = jax.eval_shape(lambda: network.init(net, keys.root(0))[0])
    inside = network.belongs(net, last_layers(net, k), shapes)
    return tuple(path for path, is_last in trees.named_leaves(inside) if not is_last)


def cf_k(
    lr: float = 0.02,
    epochs: int = 5,
    k: int = 2,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch: int = 0,
    schedule: str = "cosine",
) -> Method:
    """Catastrophic forgetting-k: fine-tunes the last k layers on the retained samples.

    All other parameters stay bit for bit; their BatchNorm statistics follow the policy.

    For layers see `last_layers`; a k beyond the depth of the network is plain fine-tuning.
    Source: Goel et al., "Towards adversarial evaluations for inexact machine unlearning", 2022.

    Raises:
      ConfigError: k below 1.
    """
    checks.in_range("k", k, 1)
    descent = transforms.sgd(lr, momentum, weight_decay, schedule=make_schedule(schedule, epochs))
    reads = {"retain": StreamSpec("retain", batch)}
    phase = Phase(descent, (GradientStep(retain_loss),), reads, epochs, frozen=lambda net: all_but_last(net, k))
    return Method((phase,), "recalibrate")


def reinitialised(member: EstimateContext, k: int) -> tuple[Tree, Tree]:
    """Parameters and statistics with those of the last k layers drawn anew."""
    paths = last_layers(member.network, k)
    params, model_state = network.init(member.network, keys.stream(member.key, "renewed"))

    def choose(fresh: Tree, current: Tree) -> Tree:
        chosen = network.belongs(member.network, paths, current)
        return jax.tree.map(lambda is_last, new, old: new if is_last else old, chosen, fresh, current)

    moved = {name: choose(model_state[name], current) for name, current in member.model_state.items()}
    return choose(params, member.params), moved


def eu_k(
    lr: float = 0.05,
    epochs: int = 10,
    k: int = 2,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch: int = 0,
    schedule: str = "cosine",
) -> Method:
    """Exact unlearning-k: draws the last k layers anew and trains them on the retained samples, the others frozen.

    Exact for those layers only: what the frozen ones know of the forgotten samples stays. With k beyond the depth of
    the network it is a retraining. No epochs = the drawn layers alone.
    Source: Goel et al., "Towards adversarial evaluations for inexact machine unlearning", 2022.

    Raises:
      ConfigError: k below 1.
    """
    training = cf_k(lr, epochs, k, momentum, weight_decay, batch, schedule)
    draw = transforms.one_shot(lambda params, *, estimates, **extras: estimates["renewed"])
    start = Phase(draw, estimates={"renewed": Estimate(lambda member: reinitialised(member, k), cost=0.0)})
    return Method((start, *training.phases), training.bn)


def total_step(lr: Scalar, schedule: schedules.Schedule) -> optax.GradientTransformationExtraArgs:
    """Passes gradients on unchanged; its state is the sum of lr * schedule * gradient so far, like the parameters."""

    def update(updates: Tree, state: Tree, params: Tree = None, *, step_info: Any, **extras: Any) -> tuple[Tree, Tree]:
        del params, extras
        factor = lr * schedule(step_info)
        return updates, jax.tree.map(lambda total, leaf: total + factor * leaf, state, updates)

    return optax.GradientTransformationExtraArgs(lambda params: jax.tree.map(jnp.zeros_like, params), update)


def unrelated_ascent(lr: Scalar, epochs: int, batch: int, schedule: str) -> Method:
    """The ascent of the IAM seed: the original climbs along gradients of a random network that learns the forget set.

    For every forget batch g = gradient of the random network phi; theta += lr_e * g; phi takes an SGD step (momentum
    0.9, weight decay 5e-4) along g. As theta is never evaluated, phi runs alone and the steps are added afterwards.
    """

    def forget_loss(
        outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext
    ) -> jax.Array:
        return -forget_ascent(outputs, batches, context)

    def ascend(params: Tree, *, saved_states: Mapping[str, Any], **extras: Any) -> Tree:
        del extras
        return jax.tree.map(jnp.add, params, saved_states["unrelated"].optimizer[0])

    change = make_schedule(schedule, epochs)
    both = optax.chain(total_step(lr, change), transforms.sgd(lr, 0.9, 5e-4, schedule=change))
    reads = {"forget": StreamSpec("forget", batch)}
    phi = Phase(both, (GradientStep(forget_loss),), reads, epochs, start="fresh", save_as="unrelated", mode="train")
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

    Nothing holds the retained samples, and the loss has no ceiling: small rates, above all for whole classes. `l2`
    pulls to the original by l2 / 2 |p - original|^2. `source="fresh"` is what `compat="faithful"` chooses, as the IAM
    seed does: gradients come from an unrelated random network, so hardly anything is forgotten (`unrelated_ascent`;
    momentum, decay and l2 do not count there).
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
    """Objective alpha * CE(stream "retain") - (1 - alpha) * CE(stream "forget")."""

    def objective(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
        return alpha * retain_loss(outputs, batches, context) + (1.0 - alpha) * forget_ascent(outputs, batches, context)

    return objective


def mixed(lam: Scalar) -> Objective:
    """Objective CE(retained rows) - lam * CE(rows to forget) of the stream "all": means over the parts of a batch."""

    def objective(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
        del context
        logits, batch = outputs["all"], batches["all"]
        keep = losses.cross_entropy(logits, batch, ~batch.is_forget)
        return keep - lam * losses.cross_entropy(logits, batch, batch.is_forget)

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
    """NegGrad+: descends on retained samples and climbs on those to forget, in one step.

    `form="paired"`: alpha * CE(retain batch) - (1 - alpha) * CE(forget batch), forget batches cycled within an epoch
    over the retained ones. `form="mixed"`: batches of both together, CE(retained part) - lam * CE(forget part).
    `l1` adds l1 * |p|_1 and `l2` adds l2 / 2 |p - original|^2, both beside alpha; OUR v2 has l2 = 0.1 within it, that
    is l2 = 0.1 * alpha here. Source: OUR `negative_grad` (paired, plain SGD; alpha 0.95, on samples 0.7; v1 l2 0.1, l1
    1e-3); conformal unlearning "ga_plus" (mixed, momentum 0.9, weight decay 5e-4, cosine); the idea is that of Kurmanji
    et al. 2023.

    Raises:
      ConfigError: an unknown form, schedule or optimizer.
    """
    checks.choice("form", form, ("paired", "mixed"))
    if form == "mixed":
        move, reads = GradientStep(mixed(lam)), {"all": StreamSpec("forget+retain", batch)}
    else:
        move, reads = (
            GradientStep(paired(alpha)),
            {"retain": StreamSpec("retain", batch), "forget": StreamSpec("forget", batch)},
        )
    descent = make_optimizer(optimizer, lr, momentum, weight_decay, make_schedule(schedule, epochs))
    transform = optax.chain(transforms.add_l1(l1), transforms.add_l2_to_reference(l2), descent)
    return Method((Phase(transform, (move,), reads, epochs),), "recalibrate")
