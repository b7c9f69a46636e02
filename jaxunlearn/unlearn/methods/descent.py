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
    Member,
    Method,
    Move,
    Now,
    Objective,
    Phase,
    Reads,
    Samples,
    Scalar,
)
from jaxunlearn.unlearn.base.network import Network
from jaxunlearn.unlearn.blocks import losses, schedules, transforms

Tree = Any
SCHEDULES = ("constant", "cosine", "milestones", "overshooting", "linear")
OPTIMIZERS = ("sgd", "adam", "adamw")


retain_loss = losses.cross_entropy_on("retain")
forget_ascent = losses.cross_entropy_on("forget", -1.0)


def rate(name: str, epochs: int, milestones: tuple[int, ...] = (), factor: Scalar = 0.1) -> schedules.Schedule:
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


def stepper(
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
    descent = stepper(optimizer, lr, momentum, weight_decay, rate(schedule, epochs, milestones, factor), nesterov)
    transform = optax.chain(transforms.add_l1(l1), descent)
    return Method((Phase(transform, (Move(retain_loss),), {"retain": Reads("retain", batch)}, epochs),), "recalibrate")


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
    descent = transforms.sgd(lr, momentum, weight_decay, schedule=rate(schedule, epochs))
    reads = {"retain": Reads("retain", batch)}
    phase = Phase(descent, (Move(retain_loss),), reads, epochs, frozen=lambda net: all_but_last(net, k))
    return Method((phase,), "recalibrate")


def renewed(member: Member, k: int) -> tuple[Tree, Tree]:
    """Parameters and statistics with those of the last k layers drawn anew."""
    paths = last_layers(member.network, k)
    params, statistics = network.init(member.network, keys.stream(member.key, "renewed"))

    def choose(fresh: Tree, current: Tree) -> Tree:
        chosen = network.belongs(member.network, paths, current)
        return jax.tree.map(lambda is_last, new, old: new if is_last else old, chosen, fresh, current)

    moved = {name: choose(statistics[name], current) for name, current in member.statistics.items()}
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
    draw = transforms.edit(lambda params, *, estimates, **extras: estimates["renewed"])
    start = Phase(draw, estimates={"renewed": Estimate(lambda member: renewed(member, k), cost=0.0)})
    return Method((start, *training.phases), training.bn)


def total_step(lr: Scalar, schedule: schedules.Schedule) -> optax.GradientTransformationExtraArgs:
    """Passes gradients on unchanged; its state is the sum of lr * schedule * gradient so far, like the parameters."""

    def update(updates: Tree, state: Tree, params: Tree = None, *, clock: Any, **extras: Any) -> tuple[Tree, Tree]:
        del params, extras
        factor = lr * schedule(clock)
        return updates, jax.tree.map(lambda total, leaf: total + factor * leaf, state, updates)

    return optax.GradientTransformationExtraArgs(lambda params: jax.tree.map(jnp.zeros_like, params), update)


def unrelated_ascent(lr: Scalar, epochs: int, batch: int, schedule: str) -> Method:
    """The ascent of the IAM seed: the original climbs along gradients of a random network that learns the forget set.

    For every forget batch g = gradient of the random network phi; theta += lr_e * g; phi takes an SGD step (momentum
    0.9, weight decay 5e-4) along g. As theta is never evaluated, phi runs alone and the steps are added afterwards.
    """

    def forget_loss(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], now: Now) -> jax.Array:
        return -forget_ascent(outputs, batches, now)

    def climb(params: Tree, *, memory: Mapping[str, Any], **extras: Any) -> Tree:
        del extras
        return jax.tree.map(jnp.add, params, memory["unrelated"].optimizer[0])

    change = rate(schedule, epochs)
    both = optax.chain(total_step(lr, change), transforms.sgd(lr, 0.9, 5e-4, schedule=change))
    reads = {"forget": Reads("forget", batch)}
    phi = Phase(both, (Move(forget_loss),), reads, epochs, start="fresh", keep="unrelated", mode="train")
    return Method((phi, Phase(transforms.edit(climb), start="original")))


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
    descent = transforms.sgd(lr, momentum, weight_decay, schedule=rate(schedule, epochs))
    transform = optax.chain(transforms.add_l2_to_reference(l2), descent)
    return Method((Phase(transform, (Move(forget_ascent),), {"forget": Reads("forget", batch)}, epochs),))


def paired(alpha: Scalar) -> Objective:
    """Objective alpha * CE(stream "retain") - (1 - alpha) * CE(stream "forget")."""

    def objective(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], now: Now) -> jax.Array:
        return alpha * retain_loss(outputs, batches, now) + (1.0 - alpha) * forget_ascent(outputs, batches, now)

    return objective


def mixed(lam: Scalar) -> Objective:
    """Objective CE(retained rows) - lam * CE(rows to forget) of the stream "all": means over the parts of a batch."""

    def objective(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], now: Now) -> jax.Array:
        del now
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
        move, reads = Move(mixed(lam)), {"all": Reads("forget+retain", batch)}
    else:
        move, reads = Move(paired(alpha)), {"retain": Reads("retain", batch), "forget": Reads("forget", batch)}
    descent = stepper(optimizer, lr, momentum, weight_decay, rate(schedule, epochs))
    transform = optax.chain(transforms.add_l1(l1), transforms.add_l2_to_reference(l2), descent)
    return Method((Phase(transform, (move,), reads, epochs),), "recalibrate")


def l1_sparse(
    lr: float = 0.01,
    epochs: int = 5,
    alpha: float = 5e-4,
    no_l1_epochs: int = 0,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch: int = 0,
    schedule: str = "constant",
) -> Method:
    """Fine-tunes on the retained samples with CE + a_e |p|_1, a_e = alpha * (1 - e / (epochs - no_l1_epochs)), then 0.

    L1 falls on all parameters, biases and normalisation included. Small coefficients: 1e-6 to 1e-3.
    Source: Jia et al., "Model sparsity can simplify machine unlearning", 2023; OPTML `FT_l1` (there also under the name
    FT_prune, although nothing is pruned).
    """
    active = epochs - no_l1_epochs
    coefficient = transforms.add_l1(alpha, schedules.falling(active)) if active > 0 else optax.identity()
    descent = transforms.sgd(lr, momentum, weight_decay, schedule=rate(schedule, epochs))
    transform = optax.chain(coefficient, descent)
    return Method((Phase(transform, (Move(retain_loss),), {"retain": Reads("retain", batch)}, epochs),), "recalibrate")


def unpruned(params: Tree, sparsity: Scalar) -> Tree:
    """Tree of bools like `params`: False where a kernel entry is among the smallest `sparsity` of all kernels together.

    Biases and normalisation are never pruned; ties at the threshold stay. Asked again of the pruned parameters, it
    answers the same. `sparsity` may be traced; it counts as within 0..1.
    """
    kernels = [jnp.abs(leaf).ravel() for path, leaf in trees.named_leaves(params) if path.endswith("kernel")]
    sizes = jnp.sort(jnp.concatenate([*kernels, jnp.full(1, jnp.inf)]))
    count = jnp.round(jnp.clip(sparsity, 0.0, 1.0) * (sizes.size - 1)).astype(jnp.int32)

    def keep(path: Any, leaf: jax.Array) -> jax.Array:
        is_kernel = getattr(path[-1], "key", "") == "kernel"
        return jnp.abs(leaf) >= sizes[count] if is_kernel else jnp.ones(leaf.shape, bool)

    return jax.tree_util.tree_map_with_path(keep, params)


def pruned(params: Tree, sparsity: Scalar) -> Tree:
    """Parameters with the smallest kernel entries, `sparsity` of all of them, set to 0."""
    return jax.tree.map(lambda keep, leaf: jnp.where(keep, leaf, 0.0), unpruned(params, sparsity), params)


def ft_prune(
    lr: float = 0.01,
    epochs: int = 5,
    alpha: float = 5e-5,
    sparsity: float = 0.0,
    warmup: int = 0,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch: int = 0,
    optimizer: str = "sgd",
) -> Method:
    """Prunes the smallest kernel entries, then fine-tunes the rest on the retained samples with a falling L1 penalty.

    First the `sparsity` smallest entries of all kernels together are set to 0, and they stay there. Then constant rate
    and CE + a_e |p|_1 with a_e = alpha * (1 - e / epochs), over all parameters. `warmup`: the rate climbs linearly over
    so many epochs. Published code prunes nothing (sparsity 0).
    Source: OUR v1 and v2 `FT_prune`; v2 on samples warms up over 6 epochs. Pruning first: Jia et al. 2023, "prune
    first, then unlearn".

    Raises:
      ConfigError: an unknown optimizer.
    """
    climb = schedules.warmup(warmup) if warmup else schedules.constant
    descent = stepper(optimizer, lr, momentum, weight_decay, climb)
    penalty = transforms.add_l1(alpha, schedules.falling(epochs))
    cut = Phase(transforms.edit(lambda params, **extras: pruned(params, sparsity)))
    mask = Estimate(lambda member: (unpruned(member.params, sparsity), member.statistics), cost=0.0)
    training = Phase(
        transforms.protected(optax.chain(penalty, descent)),
        (Move(retain_loss),),
        {"retain": Reads("retain", batch)},
        epochs,
        estimates={"mask": mask},
    )
    return Method((cut, training), "recalibrate")
