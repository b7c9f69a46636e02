"""Gradient transforms of unlearning in the style of optax, where optax has none.

In addition to gradients, state and parameters, every `update` is called with these extras (keyword only); a transform
names the ones it uses and accepts the rest as `**extras`:

    step_info         StepInfo: epoch, fraction, step, length
    key               PRNG key of this step
    reference_params  parameters of the original model
    forget_grads, retain_grads   of a gradient step with two objectives, else None
    losses            of such a step, by the names of its objectives; else {}
    mask              estimates["mask"] if the phase estimated one: tree of bools or 0/1, 1 = may change; else None
    estimates         estimates of the phase, by name
    saved_states      name -> SavedStates of earlier phases

One-shot changes are transforms too: `one_shot(fn)` returns the difference between new and old parameters.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxunlearn.population import StepInfo, recipe
from jaxunlearn.unlearn.blocks import schedules

Tree = Any
Scalar = jax.Array | float
Transform: TypeAlias = optax.GradientTransformationExtraArgs


def stateless(fn: Callable[..., Tree]) -> Transform:
    """Returns a transform without state from `fn(gradients, params, **extras) -> updates`."""

    def update(updates: Tree, state: Any, params: Tree = None, **extras: Any) -> tuple[Tree, Any]:
        return fn(updates, params, **extras), state

    return Transform(lambda params: optax.EmptyState(), update)


def one_shot(fn: Callable[..., Tree]) -> Transform:
    """Returns a one-shot transform from `fn(params, **extras) -> new params`; gradients are ignored.

    Unchanged parameters stay bitwise the same; it composes: optax.chain(one_shot(fn), optax.scale(0.5)) goes half way.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.unlearn import transforms
      >>> zero = transforms.one_shot(lambda params, **extras: {"w": 0.0 * params["w"]})
      >>> params = {"w": jnp.array([1.0, -2.0])}
      >>> updates, _ = zero.update(params, zero.init(params), params)
      >>> updates["w"].tolist()
      [-1.0, 2.0]
    """

    def change(updates: Tree, params: Tree, **extras: Any) -> Tree:
        del updates
        return jax.tree.map(lambda new, old: new - old, fn(params, **extras), params)

    return stateless(change)


def scale_by_rate(learning_rate: Scalar, schedule: schedules.Schedule = schedules.constant) -> Transform:
    """Multiplies updates by -learning_rate * schedule(step_info): the last transform of a descent."""

    def scale(updates: Tree, params: Tree, *, step_info: StepInfo, **extras: Any) -> Tree:
        del params, extras
        factor = -learning_rate * schedule(step_info)
        return jax.tree.map(lambda leaf: factor * leaf, updates)

    return stateless(scale)


def sgd(
    learning_rate: Scalar,
    momentum: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    nesterov: bool = False,
    schedule: schedules.Schedule = schedules.constant,
) -> Transform:
    """Returns PyTorch's SGD: g += wd * p; b = m * b + g; p -= rate * b (Nesterov: g + m * b).

    Args:
      learning_rate: peak rate; may be traced.
      momentum: m.
      weight_decay: wd, applied to all parameters.
      nesterov: whether to use Nesterov's momentum.
      schedule: factor on the rate.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.unlearn import transforms
      >>> transform, params = transforms.sgd(0.5), {"w": jnp.array([1.0, 2.0])}
      >>> updates, _ = transform.update({"w": jnp.array([1.0, -1.0])}, transform.init(params), params, step_info=None)
      >>> updates["w"].tolist()
      [-0.5, 0.5]
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.trace(momentum, nesterov=nesterov),  # type: ignore[arg-type]
        scale_by_rate(learning_rate, schedule),
    )


def adam(
    learning_rate: Scalar, weight_decay: Scalar = 0.0, schedule: schedules.Schedule = schedules.constant
) -> Transform:
    """Returns PyTorch's Adam (0.9, 0.999, 1e-8); weight decay is L2, added to the gradient."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay), optax.scale_by_adam(), scale_by_rate(learning_rate, schedule)
    )


def adamw(
    learning_rate: Scalar, weight_decay: Scalar = 0.0, schedule: schedules.Schedule = schedules.constant
) -> Transform:
    """Returns PyTorch's AdamW, with decoupled decay: p -= rate * wd * p."""
    return optax.chain(
        optax.scale_by_adam(), optax.add_decayed_weights(weight_decay), scale_by_rate(learning_rate, schedule)
    )


def masked_gradients() -> Transform:
    """Multiplies gradients by the extra `mask`; later transforms (momentum, decay) still move masked parameters."""

    def apply(updates: Tree, params: Tree, *, mask: Tree, **extras: Any) -> Tree:
        del params, extras
        return jax.tree.map(lambda leaf, keep: jnp.where(keep != 0, leaf, 0.0), updates, mask)

    return stateless(apply)


def protected(inner: optax.GradientTransformation) -> Transform:
    """Applies `inner` to masked gradients and leaves masked parameters bitwise the same.

    Gives the same numbers as restoring them and clearing their momentum after every step.
    """
    return optax.chain(masked_gradients(), inner, masked_gradients())


def clip_by_global_norm(limit: float) -> Transform:
    """Clips gradients like PyTorch's `clip_grad_norm_`: times min(1, limit / (norm + 1e-6)), norm of all parameters."""

    def clip(updates: Tree, params: Tree, **extras: Any) -> Tree:
        del params, extras
        factor = jnp.minimum(1.0, limit / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda leaf: factor * leaf, updates)

    return stateless(clip)


def add_l1(coefficient: Scalar, schedule: schedules.Schedule = schedules.constant) -> Transform:
    """Adds the subgradient of coefficient * schedule(step_info) * sum |p| (0 at 0): L1 on all parameters."""

    def add(updates: Tree, params: Tree, *, step_info: StepInfo, **extras: Any) -> Tree:
        del extras
        return recipe.add_l1(updates, params, coefficient * schedule(step_info))

    return stateless(add)


def add_l2_to_reference(coefficient: Scalar) -> Transform:
    """Adds the gradient of coefficient / 2 * |p - p_original|^2."""

    def add(updates: Tree, params: Tree, *, reference_params: Tree, **extras: Any) -> Tree:
        del extras
        return jax.tree.map(lambda leaf, p, q: leaf + coefficient * (p - q), updates, params, reference_params)

    return stateless(add)
