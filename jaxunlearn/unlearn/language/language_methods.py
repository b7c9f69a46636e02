"""Methods for language models: objectives on a batch of texts to forget, and one of texts to keep, in every step.

    loss = gamma * forget term (`language.py`) + alpha * retain term

    grad_diff   ascent                                      satimp, wga   ascent with weights per token
    ce_u        the model's own answers without the truth   undial        the original's, the truth lowered
    pdu         equally likely tokens; the retain loss is a constraint with a multiplier that follows it
    rmu         hidden activations towards a random direction

Retain terms: "nll" = cross entropy, "kl" = KL to the original, "none" = retained texts are not read. An epoch is a pass
over the forget set. Published (open-unlearning, models of 1 to 8 billion parameters): AdamW at 1e-5, 10 epochs, linear
warm-up of one epoch and linear decay, 32 rows per step. `compat="faithful"` restores what each docstring says.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxunlearn import checks, errors, keys
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.entries import COMPATS
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
from jaxunlearn.unlearn.blocks import losses, transforms
from jaxunlearn.unlearn.language import language
from jaxunlearn.unlearn.methods import descent

Tree = Any
RETAIN = ("nll", "kl", "none")
# (logits [B, T, V] of the stream "forget", its samples, now) -> float32 scalar
ForgetTerm = Callable[[jax.Array, Samples, StepContext], jax.Array]


def objective_of(
    forget_term: ForgetTerm, gamma: Scalar, alpha: Scalar, retain: str = "nll", faithful: bool = False
) -> Objective:
    """Returns the objective gamma * forget term + alpha * retain term.

    Args:
      forget_term: of the stream "forget".
      gamma: its weight.
      alpha: weight of the retain term.
      retain: one of RETAIN; "kl" needs the teacher "original".
      faithful: KL is averaged over all positions, prompt and padding included.
    """

    def objective(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
        loss = gamma * forget_term(outputs["forget"], batches["forget"], context)
        if retain == "none":
            return loss
        logits, batch = outputs["retain"], batches["retain"]
        if retain == "nll":
            return loss + alpha * losses.cross_entropy(logits, batch)
        original = context.teachers["original"]["retain"]
        return loss + alpha * language.divergence(logits, original, batch, faithful)

    return objective


class Descent(NamedTuple):
    """How a method descends: AdamW at `lr` with `weight_decay` over `epochs`, `batch` rows of each stream per step."""

    lr: Scalar
    epochs: int
    weight_decay: Scalar
    schedule: str
    batch: int

    def transform(self) -> transforms.Transform:
        """Returns AdamW with the schedule."""
        return transforms.adamw(self.lr, self.weight_decay, descent.make_schedule(self.schedule, self.epochs))

    def reads(self, retain: str = "nll") -> dict[str, StreamSpec]:
        """Returns the forget set as the driving stream, and the retained texts unless `retain` is "none"."""
        reads = {"forget": StreamSpec("forget", self.batch)}
        if retain != "none":
            reads["retain"] = StreamSpec("retain", self.batch, continue_across_epochs=True)
        return reads


def method_of(
    forget_term: ForgetTerm,
    steps: Descent,
    gamma: Scalar,
    alpha: Scalar,
    retain: str,
    compat: str,
    estimates: Mapping[str, Estimate] | None = None,
    teaches: bool = False,
    cost: float = 0.0,
) -> Method:
    """Returns the method of one phase that descends on `objective_of`.

    Args:
      forget_term: see `objective_of`.
      steps: rate, epochs, rows per step.
      gamma: weight of the forget term.
      alpha: weight of the retain term.
      retain: one of RETAIN.
      compat: one of COMPATS.
      estimates: made before the phase.
      teaches: the forget term reads the logits of the teacher "original".
      cost: see `GradientStep`.

    Raises:
      ConfigError: an unknown retain term, compat or schedule.
    """
    checks.choice("retain", retain, RETAIN)
    checks.choice("compat", compat, COMPATS)
    objective = objective_of(forget_term, gamma, alpha, retain, compat == "faithful")
    teachers = {"original": "original"} if teaches or retain == "kl" else {}
    phase = Phase(
        steps.transform(), (GradientStep(objective, cost=cost),), steps.reads(retain), steps.epochs,
        estimates=estimates or {}, teachers=teachers,
    )  # fmt: skip
    return Method((phase,))


def grad_diff(
    lr: float = 1e-3, epochs: int = 10, gamma: float = 1.0, alpha: float = 1.0, retain: str = "nll",
    weight_decay: float = 0.0, schedule: str = "linear", batch: int = 0, compat: str = "corrected",
) -> Method:  # fmt: skip
    """Gradient difference: climbs the loss of texts to forget, with a term that holds the retained ones.

    `compat="faithful"`: with retain="kl" the KL is averaged over all positions, prompt and padding included.
    Source: Liu et al., "Continual learning and private unlearning", 2022; Maini et al., "TOFU", 2024.

    Raises:
      ConfigError: an unknown retain term, compat or schedule.
    """

    def forget_term(logits: jax.Array, batch: Samples, context: StepContext) -> jax.Array:
        return -losses.cross_entropy(logits, batch)

    steps = Descent(lr, epochs, weight_decay, schedule, batch)
    return method_of(forget_term, steps, gamma, alpha, retain, compat)


def wga(
    lr: float = 1e-3, epochs: int = 10, gamma: float = 1.0, alpha: float = 1.0, beta: float = 1.0,
    retain: str = "nll", weight_decay: float = 0.0, schedule: str = "linear", batch: int = 0,
    compat: str = "corrected",
) -> Method:  # fmt: skip
    """Weighted gradient ascent: tokens that the model is sure of are climbed hardest, with weight p^beta.

    Published: beta 1 in open-unlearning, 5 by the authors. `compat` is that of `grad_diff`.
    Source: Wang et al., "Rethinking LLM unlearning objectives", 2025.

    Raises:
      ConfigError: an unknown retain term, compat or schedule.
    """

    def forget_term(logits: jax.Array, batch: Samples, context: StepContext) -> jax.Array:
        return language.reweighted(logits, batch, beta)

    steps = Descent(lr, epochs, weight_decay, schedule, batch)
    return method_of(forget_term, steps, gamma, alpha, retain, compat)


def satimp(
    lr: float = 1e-3, epochs: int = 10, gamma: float = 0.1, alpha: float = 1.0, beta1: float = 5.0, beta2: float = 1.0,
    retain: str = "nll", weight_decay: float = 0.0, schedule: str = "linear", batch: int = 0,
    compat: str = "corrected",
) -> Method:  # fmt: skip
    """Ascent with weights p^beta1 (1 - p)^beta2 per token: saturation and importance together.

    Published twice: gamma 0.1 and alpha 1 in the settings file, as here; the other way round in the code's defaults.
    `compat` is that of `grad_diff`.
    Source: Yang et al., "Exploring criteria of loss reweighting to enhance LLM unlearning", 2025.

    Raises:
      ConfigError: an unknown retain term, compat or schedule.
    """

    def forget_term(logits: jax.Array, batch: Samples, context: StepContext) -> jax.Array:
        return language.reweighted(logits, batch, beta1, beta2)

    steps = Descent(lr, epochs, weight_decay, schedule, batch)
    return method_of(forget_term, steps, gamma, alpha, retain, compat)


def ce_u(
    lr: float = 1e-3, epochs: int = 10, skip: int = 1, weight_decay: float = 0.0, schedule: str = "linear",
    batch: int = 0,
) -> Method:  # fmt: skip
    """CE-U: learns the model's own answers with the true token left out; retained texts are not read.

    The first `skip` tokens of every answer are spared. The targets follow the model, so that it stops nowhere but at
    p(token) = 0. Where a batch has nothing to learn the loss is 0 (published: NaN).
    Source: Yang, "CE-U: cross entropy unlearning", 2025.

    Raises:
      ConfigError: an unknown schedule.
    """

    def forget_term(logits: jax.Array, batch: Samples, context: StepContext) -> jax.Array:
        return language.ce_u(logits, batch, skip)

    steps = Descent(lr, epochs, weight_decay, schedule, batch)
    return method_of(forget_term, steps, 1.0, 0.0, "none", "corrected")


def undial(
    lr: float = 1e-3, epochs: int = 10, gamma: float = 1.0, alpha: float = 1.0, beta: float = 10.0,
    retain: str = "none", weight_decay: float = 0.0, schedule: str = "linear", batch: int = 0,
    compat: str = "corrected",
) -> Method:  # fmt: skip
    """UNDIAL: learns the original's answers on the forget set with the logit of the true token lowered by beta.

    Published: rate 1e-4, retained texts with weight 0; here they are not read unless `retain` says so.
    `compat="faithful"`: the mean runs over prompt and padding too, where the entry V - 100 of the vocabulary is
    lowered (label -100 taken as an index).
    Source: Dong et al., "UNDIAL: self-distillation with adjusted logits for robust unlearning", 2024.

    Raises:
      ConfigError: an unknown retain term, compat or schedule; the faithful form with fewer than 100 tokens.
    """

    def forget_term(logits: jax.Array, batch: Samples, context: StepContext) -> jax.Array:
        if compat == "faithful" and logits.shape[-1] < language.PUBLISHED_IGNORE:
            raise errors.ConfigError(
                f"undial as published lowers entry V - 100 of the vocabulary, which has {logits.shape[-1]} entries. "
                "Set compat=corrected."
            )
        return language.undial(logits, context.teachers["original"]["forget"], batch, beta, compat == "faithful")

    steps = Descent(lr, epochs, weight_decay, schedule, batch)
    return method_of(forget_term, steps, gamma, alpha, retain, compat, teaches=True)


class DualState(NamedTuple):
    """Of `dual`: the multiplier of the retain loss, float32, and the state of the inner transform."""

    multiplier: jax.Array
    inner: Tree


def dual(
    inner: optax.GradientTransformation, gamma: Scalar, start: Scalar, step: Scalar, eps: Scalar, warmup: int
) -> transforms.Transform:
    """Descends gamma * forget + mu * (retain - eps) while mu climbs it: mu <- max(0, mu + step * (retain - eps)).

    Of a move with the objectives "forget" and "retain".

    Args:
      inner: takes the joint gradient.
      gamma: weight of the forget loss.
      start: mu at the beginning.
      step: of mu.
      eps: what the retain loss may be.
      warmup: mu stays as it is for so many epochs.
    """
    descends = optax.with_extra_args_support(inner)

    def init(params: Tree) -> DualState:
        return DualState(jnp.asarray(start, jnp.float32), descends.init(params))

    def update(updates: Tree, state: DualState, params: Tree = None, **extras: Any) -> tuple[Tree, DualState]:
        mu, grads = state.multiplier, (extras["forget_grads"], extras["retain_grads"])
        joint = jax.tree.map(lambda forget, retain: gamma * forget + mu * retain, *grads)
        changes, after = descends.update(joint, state.inner, params, **extras)
        climbed = jnp.maximum(mu + step * (extras["losses"]["retain"] - eps), 0.0)
        return changes, DualState(jnp.where(extras["step_info"].epoch >= warmup, climbed, mu), after)

    return transforms.Transform(init, update)


def pdu(
    lr: float = 1e-3, epochs: int = 10, gamma: float = 1.0, alpha: float = 1.0, eps: float = 0.3, step: float = 1.0,
    warmup: int = 5, weight_decay: float = 0.0, schedule: str = "linear", batch: int = 0, compat: str = "corrected",
) -> Method:  # fmt: skip
    """PDU: makes all tokens equally likely on the forget set while the retain loss stays below `eps`.

    Args:
      lr: of AdamW.
      epochs: passes over the forget set.
      gamma: weight of the forget term.
      alpha: multiplier of the retain loss at the beginning (published 1; the authors 50 to 100).
      eps: bound of the mean cross entropy on retained texts, in nats; to be set by hand, near that of the original.
      step: of the multiplier.
      warmup: epochs before the multiplier moves.
      weight_decay: of AdamW, decoupled.
      schedule: one of `descent.SCHEDULES`.
      batch: rows per step of each stream.
      compat: "faithful" looks at positions one too late: those at the answer's tokens, the last of which predicts past
        the end, instead of those that predict them.

    Source: Entesari et al., "Constrained entropic unlearning: a primal-dual framework", 2025.

    Raises:
      ConfigError: an unknown compat or schedule.
    """
    checks.choice("compat", compat, COMPATS)

    def forget_term(
        outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext
    ) -> jax.Array:
        return language.spread(outputs["forget"], batches["forget"], compat == "faithful")

    steps = Descent(lr, epochs, weight_decay, schedule, batch)
    move = GradientStep({"forget": forget_term, "retain": descent.retain_loss}, cost=1.0)
    transform = dual(steps.transform(), gamma, alpha, step, eps, warmup)
    return Method((Phase(transform, (move,), steps.reads(), epochs),))


def feature_index(layer: int, count: int) -> int:
    """Returns the place of a hidden feature numbered from 1, 0 = the last, among `count`.

    Raises:
      ConfigError: the network has no such feature.
    """
    if layer > count:
        raise errors.ConfigError(f"layer = {layer}, but the network names {count} hidden features. Lower it, or set 0.")
    return (layer or count) - 1


def control_vector(layer: int, length: Scalar) -> Estimate:
    """Draws [D] a direction once per member, uniform in [0, 1] per coordinate, and scales it to a length."""

    def compute(member: EstimateContext) -> tuple[Tree, Tree]:
        net = member.network
        blank = net.prepare(jnp.zeros((1, *net.example.shape), net.example.dtype), member.key, False)
        features = jax.eval_shape(lambda: network.with_features(net, member.params, member.model_state, blank)[2])
        width = features[feature_index(layer, len(features))].shape[-1]
        uniform = jax.random.uniform(keys.stream(member.labels_key, "control"), (width,))
        return language.direction(uniform, length), member.model_state

    return Estimate(compute, cost=0.0)


def rmu(
    lr: float = 1e-3, epochs: int = 10, gamma: float = 1.0, alpha: float = 1.0, length: float = 2.0, layer: int = 0,
    weight_decay: float = 0.0, schedule: str = "linear", batch: int = 0, compat: str = "corrected",
) -> Method:  # fmt: skip
    """RMU: hidden activations of the forget set go to a random direction, those of retained texts stay.

    Args:
      lr: of AdamW; all parameters train (published for large models: those of three layers alone).
      epochs: passes over the forget set.
      gamma: weight of the forget set.
      alpha: weight of the retained texts, whose activations stay with those of the original.
      length: of the direction, which has no negative coordinate; published 2, and 20 with three layers.
      layer: which of the hidden features that the network names, from 1; 0 = the last. Published: block 7 of 32.
      weight_decay: of AdamW, decoupled.
      schedule: one of `descent.SCHEDULES`.
      batch: rows per step of each stream.
      compat: "faithful" takes the mean of rows' sums times the mean of 1 / their lengths, as published, not the mean of
        rows' means; the same for answers of one length.

    Source: Li et al., "The WMDP benchmark: measuring and reducing malicious use with unlearning", 2024.

    Raises:
      ConfigError: an unknown compat or schedule; a network that names no such feature.
    """
    checks.choice("compat", compat, COMPATS)
    is_faithful = compat == "faithful"

    def objective(outputs: Mapping[str, jax.Array], batches: Mapping[str, Samples], context: StepContext) -> jax.Array:
        forget, retain = context.features["forget"], context.features["retain"]
        place = feature_index(layer, len(forget.current))
        away = language.misdirection(
            forget.current[place], context.estimates["control"], batches["forget"], is_faithful
        )
        near = language.misdirection(retain.current[place], retain.original[place], batches["retain"], is_faithful)
        return gamma * away + alpha * near

    steps = Descent(lr, epochs, weight_decay, schedule, batch)
    move = GradientStep(objective, features=("forget", "retain"))
    estimates = {"control": control_vector(layer, length)}
    return Method((Phase(steps.transform(), (move,), steps.reads(), epochs, estimates=estimates),))
