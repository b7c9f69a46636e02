"""Forsaken: a mask of small changes to the weights that makes the forget set look like samples never seen.

    corrected   theta - eta * u, u learned by Adam on KL(P || softmax(mean forget logits)) + penalty * |u|_1
    published   the same step with u from a generator network that is never trained: noise

P is the mean answer to non-members (the held-out rows). Source: Ma et al., "Learn to forget: machine unlearning via
neuron masking", 2022, and the IAM seed's copy of it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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
    Phase,
    Samples,
    Scalar,
    StepContext,
    StreamSpec,
)
from jaxunlearn.unlearn.blocks import passes, transforms

Tree = Any
HIDDEN = 64  # of the published generator


def answers(member: EstimateContext, name: str) -> tuple[jax.Array, Tree]:
    """[C] mean softmax output over a stream, uniform for an empty one, and the statistics after it."""
    classes = member.network.num_classes

    def update(total: tuple[jax.Array, Tree], samples: Samples, key: jax.Array) -> tuple[jax.Array, Tree]:
        logits, moved = _forward(member, total[1], samples, key)
        probabilities = jnp.where(samples.weights[:, None] > 0, jax.nn.softmax(logits), 0.0)
        return total[0] + jnp.sum(probabilities, 0), moved

    summed, moved = passes.fold(member, name, (jnp.zeros(classes), member.model_state), update)
    total = jnp.sum(summed)
    return jnp.where(total > 0, summed / jnp.where(total > 0, total, 1.0), 1.0 / classes), moved


def _forward(member: EstimateContext, model_state: Tree, samples: Samples, key: jax.Array) -> tuple[jax.Array, Tree]:
    return network.forward(
        member.network, member.params, model_state, samples.inputs, samples.weights, member.mode, key
    )


def mean_logits(member: EstimateContext, name: str) -> tuple[jax.Array, Tree]:
    """[C] mean logits over a stream (0 for an empty one), and the statistics after it."""

    def update(total: tuple[jax.Array, Tree], samples: Samples, key: jax.Array) -> tuple[jax.Array, Tree]:
        logits, moved = _forward(member, total[1], samples, key)
        return total[0] + jnp.sum(jnp.where(samples.weights[:, None] > 0, logits, 0.0), 0), moved

    start = (jnp.zeros(member.network.num_classes), member.model_state)
    summed, moved = passes.fold(member, name, start, update)
    return summed / passes.count(member, name), moved


def divergence(target: jax.Array, logits: jax.Array) -> jax.Array:
    """KL(target || softmax(logits)) of [C] vectors, as a sum over classes; the published code takes their mean."""
    return jnp.sum(jax.scipy.special.xlogy(target, target) - target * jax.nn.log_softmax(logits))


def published_target(logits: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """[C] P as the seed computes it: mean of the largest logit per true label, divided by the sum over labels.

    Labels come in order of first appearance instead of class order; classes that do not occur have 0 inserted at their
    own place. Logits [B, C], labels [B].
    """
    is_class = labels[None, :] == jnp.arange(num_classes)[:, None]
    count = jnp.sum(is_class, 1)
    means = jnp.sum(jnp.where(is_class, jnp.max(logits, -1), 0.0), 1) / jnp.maximum(count, 1)
    first = jnp.where(count > 0, jnp.argmax(is_class, 1), len(labels))
    values = means[jnp.argsort(first)]
    # The k-th value goes to the k-th place whose own class occurs.
    place = jnp.cumsum(count > 0) - 1
    spread = jnp.where(count > 0, values[jnp.maximum(place, 0)], 0.0)
    return spread / jnp.sum(spread)


def applied(params: Tree, mask: Tree, eta: Scalar) -> Tree:
    """Parameters minus eta times the mask of changes."""
    return jax.tree.map(lambda leaf, u: leaf - eta * u, params, mask)


def generated(params: Tree, logits: jax.Array, key: jax.Array) -> Tree:
    """What an untrained generator answers: u = W2 relu(W1 [theta; logits] + b1) + b2, 64 hidden units.

    Both layers are drawn as PyTorch starts them, uniform in +-1/sqrt(fan_in), one hidden unit after the other, so that
    memory holds one row of W1 or W2 at a time. b2 dominates: u is about uniform in +-1/8.
    """
    named = trees.named_leaves({"params": params, "logits": logits})
    bound, out = float(sum(leaf.size for _, leaf in named)) ** -0.5, HIDDEN**-0.5

    def draw(label: str, name: str, unit: jax.Array | int, shape: tuple[int, ...], limit: float) -> jax.Array:
        own = keys.at(keys.stream(keys.stream(key, label), name), unit)
        return jax.random.uniform(own, shape, minval=-limit, maxval=limit)

    def activity(unit: jax.Array) -> jax.Array:
        total = draw("b1", "", unit, (), bound)
        for name, leaf in named:
            total += jnp.sum(draw("w1", name, unit, leaf.shape, bound) * leaf)
        return jax.nn.relu(total)

    hidden = jax.lax.map(activity, jnp.arange(HIDDEN))

    def answer(name: str, leaf: jax.Array) -> jax.Array:
        def add(unit: int, total: jax.Array) -> jax.Array:
            return total + hidden[unit] * draw("w2", name, unit, leaf.shape, out)

        return jax.lax.fori_loop(0, HIDDEN, add, draw("b2", name, 0, leaf.shape, out))

    leaves = [answer(name, leaf) for name, leaf in trees.named_leaves(params)]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


class MaskState(NamedTuple):
    """Of `learned_mask`: the mask so far, where the parameters began, and Adam's state."""

    mask: Tree
    start: Tree
    adam: Tree


def learned_mask(lr: Scalar, eta: Scalar, penalty: Scalar) -> transforms.Transform:
    """Adam on the mask u of theta = start - eta * u, from gradients with respect to theta.

    The gradient of u is -eta times that of theta, plus penalty * sign(u). The mask begins at 0.
    """
    adam = optax.chain(optax.scale_by_adam(), optax.scale_by_learning_rate(lr))

    def init(params: Tree) -> MaskState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return MaskState(zeros, params, adam.init(zeros))

    def update(updates: Tree, state: MaskState, params: Tree = None, **extras: Any) -> tuple[Tree, MaskState]:
        del extras
        gradient = jax.tree.map(lambda g, u: -eta * g + penalty * jnp.sign(u), updates, state.mask)
        change, moments = adam.update(gradient, state.adam)
        mask = optax.apply_updates(state.mask, change)
        new = applied(state.start, mask, eta)
        return jax.tree.map(lambda a, b: a - b, new, params), MaskState(mask, state.start, moments)

    return transforms.Transform(init, update)


def _objective(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
    """KL(non-members' mean answer || softmax of the batch's mean logits)."""
    weights = batches["forget"].weights[:, None]
    total = jnp.maximum(jnp.sum(weights > 0), 1)
    mean = jnp.sum(jnp.where(weights > 0, outputs["forget"], 0.0), 0) / total
    return divergence(context.estimates["target"], mean)


def as_published(eta: Scalar, batch: int, generate: Callable[[Tree, jax.Array, jax.Array], Tree] = generated) -> Method:
    """One step along `generate(params, mean forget logits, key)`; batch statistics move as in the seed.

    They move with non-members, the forget set, the forget set after the step, and the retained rows.
    """

    def step(params: Tree, *, estimates: Any, key: jax.Array, **extras: Any) -> Tree:
        del extras
        return applied(params, generate(params, estimates["logits"], key), eta)

    def reading(name: str) -> Estimate:
        return Estimate(lambda member: mean_logits(member, name), {name: StreamSpec(name, batch, shuffle=False)}, 1 / 3)

    first = {"target": reading("validation"), "logits": reading("forget")}
    again = {"forget": reading("forget"), "retain": reading("retain")}
    phases = Phase(transforms.one_shot(step), estimates=first), Phase(transforms.one_shot(_unchanged), estimates=again)
    return Method(phases)


def _unchanged(params: Tree, **extras: Any) -> Tree:
    del extras
    return params


def forsaken(lr: float = 0.1, eta: float = 0.01, epochs: int = 20, penalty: float = 1e-3, batch: int = 0,
             compat: str = "corrected") -> Method:  # fmt: skip
    """Learns small changes of all weights that make the forget set's mean answer that of held-out samples.

    Adam at rate `lr` on u of theta - eta * u, one pass over the forget set per epoch; the penalty keeps weights that do
    not matter where they are. Source: Ma et al. 2022.

    `compat="faithful"`: the seed's single step with u from a generator that is drawn anew and never trained, so that
    all weights get uniform noise of about +-0.125 * eta; `lr`, `epochs` and `penalty` then play no part.
    """
    checks.choice("compat", compat, ("corrected", "faithful"))
    if compat == "faithful":
        return as_published(eta, batch)
    target = Estimate(
        lambda member: answers(member, "validation"), {"validation": StreamSpec("validation", batch)}, 1 / 3
    )
    phase = Phase(
        learned_mask(lr, eta, penalty), (GradientStep(_objective),), {"forget": StreamSpec("forget", batch)}, epochs,
        estimates={"target": target},
    )  # fmt: skip
    return Method((phase,))


def random_perturb(scale: float = 1.25e-3) -> Method:
    """Adds uniform noise in +-scale to every parameter: what a method does that does not look at the forget set.

    The default is the size of the noise that the seed's Forsaken amounts to.
    """

    def change(params: Tree, *, key: jax.Array, **extras: Any) -> Tree:
        del extras
        drawn = [
            leaf + scale * jax.random.uniform(keys.stream(key, name), leaf.shape, minval=-1.0, maxval=1.0)
            for name, leaf in trees.named_leaves(params)
        ]
        return jax.tree.unflatten(jax.tree.structure(params), drawn)

    return Method((Phase(transforms.one_shot(change)),))
