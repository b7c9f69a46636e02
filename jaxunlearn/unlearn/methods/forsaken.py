"""Forsaken: a mask of small changes to the weights that makes the forget set look like samples never seen.

    corrected   theta - eta * u, u learned by Adam on KL(P || softmax(mean forget logits)) + penalty * |u|_1
    published   the same step with u from a generator network that is never trained: noise

P is the mean softmax output on non-members (the held-out rows). Source: Ma et al., "Learn to forget: machine unlearning
via neuron masking", 2022, and the IAM seed's copy of it.
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


def mean_probabilities(member: EstimateContext, name: str) -> tuple[jax.Array, Tree]:
    """Returns the [C] mean softmax output over a stream, uniform for an empty one, and the model state after it."""
    classes = member.network.num_classes

    def update(total: tuple[jax.Array, Tree], samples: Samples, key: jax.Array) -> tuple[jax.Array, Tree]:
        logits, new_state = _forward(member, total[1], samples, key)
        probabilities = jnp.where(samples.weights[:, None] > 0, jax.nn.softmax(logits), 0.0)
        return total[0] + jnp.sum(probabilities, 0), new_state

    summed, new_state = passes.fold(member, name, (jnp.zeros(classes), member.model_state), update)
    total = jnp.sum(summed)
    return jnp.where(total > 0, summed / jnp.where(total > 0, total, 1.0), 1.0 / classes), new_state


def _forward(member: EstimateContext, model_state: Tree, samples: Samples, key: jax.Array) -> tuple[jax.Array, Tree]:
    return network.forward(
        member.network, member.params, model_state, samples.inputs, samples.weights, member.mode, key
    )


def mean_logits(member: EstimateContext, name: str) -> tuple[jax.Array, Tree]:
    """Returns the [C] mean logits over a stream, 0 for an empty one, and the model state after it."""

    def update(total: tuple[jax.Array, Tree], samples: Samples, key: jax.Array) -> tuple[jax.Array, Tree]:
        logits, new_state = _forward(member, total[1], samples, key)
        return total[0] + jnp.sum(jnp.where(samples.weights[:, None] > 0, logits, 0.0), 0), new_state

    start = (jnp.zeros(member.network.num_classes), member.model_state)
    summed, new_state = passes.fold(member, name, start, update)
    return summed / passes.count(member, name), new_state


def divergence(target: jax.Array, logits: jax.Array) -> jax.Array:
    """Computes KL(target || softmax(logits)) of [C] vectors, a sum over classes; published code takes their mean.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.unlearn import forsaken
      >>> print(f"{forsaken.divergence(jnp.array([1.0, 0.0]), jnp.zeros(2)):.3f}")
      0.693
    """
    return jnp.sum(jax.scipy.special.xlogy(target, target) - target * jax.nn.log_softmax(logits))


def apply_mask(params: Tree, mask: Tree, eta: Scalar) -> Tree:
    """Returns the parameters minus eta times the mask of changes."""
    return jax.tree.map(lambda leaf, u: leaf - eta * u, params, mask)


def generated_mask(params: Tree, logits: jax.Array, key: jax.Array) -> Tree:
    """Computes the mask u = W2 relu(W1 [theta; logits] + b1) + b2 of an untrained generator with 64 hidden units.

    Both layers are initialised as in PyTorch, uniform in +-1/sqrt(fan_in), one hidden unit after the other, so that
    memory holds one row of W1 or W2 at a time. b2 dominates: u is about uniform in +-1/8.
    """
    named = trees.named_leaves({"params": params, "logits": logits})
    bound, weight_bound = float(sum(leaf.size for _, leaf in named)) ** -0.5, HIDDEN**-0.5

    def draw(label: str, name: str, unit: jax.Array | int, shape: tuple[int, ...], limit: float) -> jax.Array:
        stream_key = keys.at(keys.stream(keys.stream(key, label), name), unit)
        return jax.random.uniform(stream_key, shape, minval=-limit, maxval=limit)

    def activity(unit: jax.Array) -> jax.Array:
        total = draw("b1", "", unit, (), bound)
        for name, leaf in named:
            total += jnp.sum(draw("w1", name, unit, leaf.shape, bound) * leaf)
        return jax.nn.relu(total)

    hidden = jax.lax.map(activity, jnp.arange(HIDDEN))

    def mask_leaf(name: str, leaf: jax.Array) -> jax.Array:
        def add(unit: int, total: jax.Array) -> jax.Array:
            return total + hidden[unit] * draw("w2", name, unit, leaf.shape, weight_bound)

        return jax.lax.fori_loop(0, HIDDEN, add, draw("b2", name, 0, leaf.shape, weight_bound))

    leaves = [mask_leaf(name, leaf) for name, leaf in trees.named_leaves(params)]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


class MaskState(NamedTuple):
    """State of `learned_mask`: the current mask, the parameters at the start, and Adam's state."""

    mask: Tree
    start: Tree
    adam: Tree


def learned_mask(lr: Scalar, eta: Scalar, penalty: Scalar) -> transforms.Transform:
    """Returns Adam on the mask u of theta = start - eta * u, from gradients with respect to theta.

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
        new_params = apply_mask(state.start, mask, eta)
        return jax.tree.map(lambda a, b: a - b, new_params, params), MaskState(mask, state.start, moments)

    return transforms.Transform(init, update)


def _objective(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
    """Computes KL(mean softmax on non-members || softmax of the batch's mean logits)."""
    weights = batches["forget"].weights[:, None]
    total = jnp.maximum(jnp.sum(weights > 0), 1)
    mean = jnp.sum(jnp.where(weights > 0, outputs["forget"], 0.0), 0) / total
    return divergence(context.estimates["target"], mean)


def published_step(
    eta: Scalar, batch: int, generate: Callable[[Tree, jax.Array, jax.Array], Tree] = generated_mask
) -> Method:
    """Takes one step along `generate(params, mean forget logits, key)`.

    Batch statistics move as in the seed: with non-members, the forget set, the forget set after the step, and the
    retained rows.
    """

    def step(params: Tree, *, estimates: Any, key: jax.Array, **extras: Any) -> Tree:
        del extras
        return apply_mask(params, generate(params, estimates["logits"], key), eta)

    def logits_of(name: str) -> Estimate:
        return Estimate(lambda member: mean_logits(member, name), {name: StreamSpec(name, batch, shuffle=False)}, 1 / 3)

    estimates = {"target": logits_of("validation"), "logits": logits_of("forget")}
    later_estimates = {"forget": logits_of("forget"), "retain": logits_of("retain")}
    phases = (
        Phase(transforms.one_shot(step), estimates=estimates),
        Phase(transforms.one_shot(_unchanged), estimates=later_estimates),
    )
    return Method(phases)


def _unchanged(params: Tree, **extras: Any) -> Tree:
    del extras
    return params


def forsaken(lr: float = 0.1, eta: float = 0.01, epochs: int = 20, penalty: float = 1e-3, batch: int = 0,
             compat: str = "corrected") -> Method:  # fmt: skip
    """Learns small changes u of all weights that make the forget set's mean output that of held-out samples.

    Args:
      lr: of Adam on u; the weights are theta - eta * u.
      eta: step size of the mask.
      epochs: passes over the forget set.
      penalty: coefficient of |u|_1; keeps weights that do not matter where they are.
      batch: rows per step, 0 = the run's.
      compat: "faithful" = the seed's single step with u from a generator that is drawn anew and never trained: all
        weights get uniform noise of about +-0.125 * eta, and `lr`, `epochs` and `penalty` do not count.

    Source: Ma et al. 2022.
    """
    checks.choice("compat", compat, ("corrected", "faithful"))
    if compat == "faithful":
        return published_step(eta, batch)
    target = Estimate(
        lambda member: mean_probabilities(member, "validation"), {"validation": StreamSpec("validation", batch)}, 1 / 3
    )
    phase = Phase(
        learned_mask(lr, eta, penalty), (GradientStep(_objective),), {"forget": StreamSpec("forget", batch)}, epochs,
        estimates={"target": target},
    )  # fmt: skip
    return Method((phase,))


def random_perturb(scale: float = 1.25e-3) -> Method:
    """Adds uniform noise in +-scale to every parameter: a control that does not look at the forget set.

    By default the noise is as large as that of the seed's Forsaken.
    """

    def change(params: Tree, *, key: jax.Array, **extras: Any) -> Tree:
        del extras
        leaves = [
            leaf + scale * jax.random.uniform(keys.stream(key, name), leaf.shape, minval=-1.0, maxval=1.0)
            for name, leaf in trees.named_leaves(params)
        ]
        return jax.tree.unflatten(jax.tree.structure(params), leaves)

    return Method((Phase(transforms.one_shot(change)),))
