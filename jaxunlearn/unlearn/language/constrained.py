"""Unlearning of texts under a constraint: PDU, a primal-dual method.

    minimise gamma * (largest logit - mean logit)^2 on the forget set, subject to retain loss <= eps

The multiplier of the constraint adapts to the retain loss. The rest is as in `language_methods.py`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxunlearn import checks
from jaxunlearn.unlearn.base.entries import COMPATS
from jaxunlearn.unlearn.base.method import GradientStep, Method, Phase, Samples, Scalar, StepContext
from jaxunlearn.unlearn.blocks import transforms
from jaxunlearn.unlearn.language import language
from jaxunlearn.unlearn.language.language_methods import Descent
from jaxunlearn.unlearn.methods import descent

Tree = Any


class DualState(NamedTuple):
    """State of `dual`: the multiplier of the retain loss, float32, and the state of the inner transform."""

    multiplier: jax.Array
    inner: Tree


def dual(
    inner: optax.GradientTransformation, gamma: Scalar, start: Scalar, step: Scalar, eps: Scalar, warmup: int
) -> transforms.Transform:
    """Descends gamma * forget + mu * (retain - eps) while mu climbs it: mu <- max(0, mu + step * (retain - eps)).

    For a gradient step with the objectives "forget" and "retain".

    Args:
      inner: takes the joint gradient.
      gamma: weight of the forget loss.
      start: mu at the beginning.
      step: of mu.
      eps: bound of the retain loss.
      warmup: epochs in which mu stays constant.
    """
    inner_transform = optax.with_extra_args_support(inner)

    def init(params: Tree) -> DualState:
        return DualState(jnp.asarray(start, jnp.float32), inner_transform.init(params))

    def update(updates: Tree, state: DualState, params: Tree = None, **extras: Any) -> tuple[Tree, DualState]:
        mu, grads = state.multiplier, (extras["forget_grads"], extras["retain_grads"])
        joint = jax.tree.map(lambda forget, retain: gamma * forget + mu * retain, *grads)
        changes, inner_state = inner_transform.update(joint, state.inner, params, **extras)
        new_multiplier = jnp.maximum(mu + step * (extras["losses"]["retain"] - eps), 0.0)
        return changes, DualState(jnp.where(extras["step_info"].epoch >= warmup, new_multiplier, mu), inner_state)

    return transforms.Transform(init, update)


def pdu(
    lr: float = 1e-3, epochs: int = 10, gamma: float = 1.0, alpha: float = 1.0, eps: float = 0.3, step: float = 1.0,
    warmup: int = 5, weight_decay: float = 0.0, schedule: str = "linear", batch: int = 0, compat: str = "corrected",
) -> Method:  # fmt: skip
    """Makes all tokens equally likely on the forget set while the retain loss stays below `eps` (PDU).

    Args:
      lr, weight_decay, schedule: of AdamW, see `Descent`.
      epochs: passes over the forget set.
      gamma: weight of the forget term.
      alpha: multiplier of the retain loss at the beginning (published 1; the authors 50 to 100).
      eps: bound of the mean cross entropy on retained texts, in nats; set it by hand, near that of the original.
      step: of the multiplier.
      warmup: epochs before the multiplier moves.
      batch: rows per step of each stream.
      compat: "faithful" reads positions that are one too late: those of the answer's tokens, the last of which predicts
        past the end, instead of those that predict them.

    Source: Entesari et al., "Constrained entropic unlearning: a primal-dual framework", 2025.

    Raises:
      ConfigError: an unknown compat or schedule.

    Example:
      >>> from jaxunlearn.unlearn.language import constrained
      >>> list(constrained.pdu(eps=0.5).phases[0].stream_specs)
      ['forget', 'retain']
    """
    checks.choice("compat", compat, COMPATS)

    def forget_term(
        outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext
    ) -> jax.Array:
        return language.peakedness(outputs["forget"], batches["forget"], compat == "faithful")

    steps = Descent(lr, epochs, weight_decay, schedule, batch)
    gradient_step = GradientStep({"forget": forget_term, "retain": descent.retain_loss}, cost=1.0)
    transform = dual(steps.transform(), gamma, alpha, step, eps, warmup)
    return Method((Phase(transform, (gradient_step,), steps.stream_specs(), epochs),))
