"""Selective synaptic dampening: parameters that matter more to the forget set than to the rest are scaled down.

Source: Foster, Schoepf and Brintrup, "Fast machine unlearning without retraining through selective synaptic
dampening", 2024, and their repository; the IAM seed's copy clips the gradients.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxunlearn.unlearn import passes, transforms
from jaxunlearn.unlearn.method import Estimate, Member, Method, Phase, Reads, Samples, Scalar

Tree = Any


def importance(member: Member, name: str, clip: float = 0.0) -> tuple[Tree, Tree]:
    """Mean over batches of the squared gradient of the batch-mean cross entropy, and the statistics afterwards.

    Args:
      member: the member.
      name: of the stream.
      clip: gradients are first scaled to this global norm at most (the IAM seed: 1); 0 = not.
    """

    def update(total: tuple[Tree, Tree], samples: Samples, key: jax.Array) -> tuple[Tree, Tree]:
        gradients, moved = passes.loss_gradient(member, samples, total[1], key)
        if clip:
            factor = jnp.minimum(1.0, clip / (optax.tree.norm(gradients) + 1e-6))
            gradients = jax.tree.map(lambda leaf: factor * leaf, gradients)
        return jax.tree.map(lambda a, b: a + jnp.square(b), total[0], gradients), moved

    summed, statistics = passes.fold(member, name, (passes.zeros(member), member.statistics), update)
    return jax.tree.map(lambda leaf: leaf / passes.batches(member, name), summed), statistics


def dampened(params: Tree, forget: Tree, full: Tree, alpha: Scalar, lam: Scalar, exponent: Scalar = 1.0) -> Tree:
    """Parameters after dampening.

    Where forget > alpha * full (strictly): theta * min((lam * full / forget)^exponent, 1); elsewhere unchanged.
    """

    def one(theta: jax.Array, f: jax.Array, o: jax.Array) -> jax.Array:
        is_chosen = f > alpha * o
        ratio = lam * o / jnp.where(is_chosen, f, 1.0)
        return jnp.where(is_chosen, theta * jnp.minimum(ratio**exponent, 1.0), theta)

    return jax.tree.map(one, params, forget, full)


def ssd(alpha: float = 10.0, lam: float = 1.0, exponent: float = 1.0, clip: float = 0.0, batch: int = 0,
        compat: str = "corrected") -> Method:  # fmt: skip
    """Scales down parameters whose importance for the forget set is more than alpha times that for all data.

    `compat="faithful"` clips batch gradients to norm 1 as the IAM seed does. One pass over forget and one over all.
    """
    limit = 1.0 if compat == "faithful" else clip

    def estimate(name: str, rows: str) -> Estimate:
        return Estimate(lambda member: importance(member, name, limit), {name: Reads(rows, batch, shuffle=False)})

    def change(params: Tree, *, estimates: Any, **extras: Any) -> Tree:
        del extras
        return dampened(params, estimates["forget"], estimates["all"], alpha, lam, exponent)

    found = {"forget": estimate("forget", "forget"), "all": estimate("all", "retain+forget")}
    return Method((Phase(transforms.edit(change), estimates=found),))
