"""Selective synaptic dampening: scales down parameters that matter more to the forget set than to the rest.

Source: Foster, Schoepf and Brintrup, "Fast machine unlearning without retraining through selective synaptic
dampening", 2024, and "Loss-free machine unlearning", 2024, with their repository; the IAM seed's copy clips the
gradients.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxunlearn.unlearn.base.method import Estimate, EstimateContext, Method, Phase, Samples, Scalar, StreamSpec
from jaxunlearn.unlearn.blocks import losses, passes, transforms

Tree = Any


def importance(
    member: EstimateContext,
    name: str,
    clip: Scalar = 0.0,
    loss: Callable[[jax.Array, Samples], jax.Array] = losses.cross_entropy,
    measure: Callable[[jax.Array], jax.Array] = jnp.square,
) -> tuple[Tree, Tree]:
    """Averages the squared gradient of the batch-mean loss over batches; also returns the model state after them.

    Args:
      member: the member.
      name: of the stream.
      clip: gradients are first scaled to this global norm at most (the IAM seed: 1); 0 = not.
      loss: (logits [B, C], samples) -> mean over the batch.
      measure: element-wise function of the gradient: its square or its absolute value.
    """

    def update(total: tuple[Tree, Tree], samples: Samples, key: jax.Array) -> tuple[Tree, Tree]:
        gradients, new_state = passes.loss_gradient(member, samples, total[1], key, loss)
        factor = jnp.where(clip > 0, jnp.minimum(1.0, clip / (optax.tree.norm(gradients) + 1e-6)), 1.0)
        return jax.tree.map(lambda a, b: a + measure(factor * b), total[0], gradients), new_state

    summed, model_state = passes.fold(member, name, (passes.zeros(member), member.model_state), update)
    return jax.tree.map(lambda leaf: leaf / passes.batches(member, name), summed), model_state


def output_norm(logits: jax.Array, samples: Samples) -> jax.Array:
    """Averages |logits|^2 over the batch: a loss without labels."""
    return losses.mean(jnp.sum(jnp.square(logits), -1), samples)


def dampen(params: Tree, forget: Tree, full: Tree, alpha: Scalar, lam: Scalar, exponent: Scalar = 1.0) -> Tree:
    """Returns theta * min((lam * full / forget)^exponent, 1) where forget > alpha * full, and theta elsewhere.

    Args:
      params: theta.
      forget, full: importances for the forget set and for all data.
      alpha, lam, exponent: floats, may be traced.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.unlearn import dampening
      >>> theta, forget, full = jnp.ones(2), jnp.array([4.0, 1.0]), jnp.ones(2)
      >>> dampening.dampen(theta, forget, full, alpha=2.0, lam=1.0).tolist()
      [0.25, 1.0]
    """

    def dampen_leaf(theta: jax.Array, f: jax.Array, o: jax.Array) -> jax.Array:
        is_dampened = f > alpha * o
        ratio = lam * o / jnp.where(is_dampened, f, 1.0)
        return jnp.where(is_dampened, theta * jnp.minimum(ratio**exponent, 1.0), theta)

    return jax.tree.map(dampen_leaf, params, forget, full)


def _method(
    measure: Callable[[EstimateContext, str], tuple[Tree, Tree]], alpha: Scalar, lam: Scalar, exponent: Scalar,
    batch: int, mode: str = "", augment: bool = False,
) -> Method:  # fmt: skip
    """Returns the method that estimates importances by `measure` (member, stream), then dampens."""

    def estimate(name: str, rows: str) -> Estimate:
        stream_specs = {name: StreamSpec(rows, batch, shuffle=False)}
        return Estimate(lambda member: measure(member, name), stream_specs, augment=augment)

    def change(params: Tree, *, estimates: Any, **extras: Any) -> Tree:
        del extras
        return dampen(params, estimates["forget"], estimates["all"], alpha, lam, exponent)

    estimates = {"forget": estimate("forget", "forget"), "all": estimate("all", "retain+forget")}
    return Method((Phase(transforms.one_shot(change), estimates=estimates, mode=mode),))


def ssd(alpha: float = 5.0, lam: float = 1.0, exponent: float = 1.0, clip: float = 0.0, batch: int = 0,
        compat: str = "corrected") -> Method:  # fmt: skip
    """Scales down parameters whose importance for the forget set is more than alpha times that for all data.

    One pass over the forget set and one over all data. Importances depend on the batch size: gradients are squared
      after
    averaging over a batch.

    Args:
      alpha, lam, exponent: see `dampen`.
      clip: largest norm of a batch's gradient, 0 = no clipping.
      batch: rows per gradient, 0 = the run's.
      compat: "faithful" clips to norm 1 and augments the rows, as the IAM seed does.
    """
    is_faithful = compat == "faithful"
    limit = 1.0 if is_faithful else clip

    def measure(member: EstimateContext, name: str) -> tuple[Tree, Tree]:
        return importance(member, name, limit)

    return _method(measure, alpha, lam, exponent, batch, augment=is_faithful)


def lfssd(alpha: float = 4.0, lam: float = 1.0, exponent: float = 1.0, batch: int = 0) -> Method:
    """Applies SSD without labels: importance is the mean |gradient| of the squared norm of the logits; evaluation mode.

    Absolute gradients vary less than squared ones, so that a threshold alpha selects fewer parameters than in `ssd`.

    Args:
      alpha, lam, exponent: see `dampen`.
      batch: rows per gradient, 0 = the run's.
    """

    def measure(member: EstimateContext, name: str) -> tuple[Tree, Tree]:
        return importance(member, name, 0.0, output_norm, jnp.abs)

    return _method(measure, alpha, lam, exponent, batch, "eval")
