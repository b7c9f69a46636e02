"""Methods for language models: objectives on a batch of texts to forget, and one of texts to keep, in every step.

    loss = gamma * forget term (`language.py`) + alpha * retain term

    grad_diff   ascent                                       satimp, wga   ascent with weights per token
    ce_u        the model's own outputs without truth        undial        the original's, the truth lowered
    rmu         hidden activations towards a random direction

Retain terms: "nll" = cross entropy, "kl" = KL to the original, "none" = retained texts are not read. An epoch is a pass
over the forget set. Published (open-unlearning, models of 1 to 8 billion parameters): AdamW at 1e-5, 10 epochs, linear
warm-up of one epoch and linear decay, 32 rows per step. Each docstring describes what `compat="faithful"` restores.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

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
# (logits [B, T, V] of the stream "forget", its samples, context) -> float32 scalar
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
    """AdamW of a method, and what it reads.

    Attributes:
      lr, weight_decay: of AdamW; the decay is decoupled.
      epochs: passes over the forget set.
      schedule: one of `descent.SCHEDULES`.
      batch: rows per step of each stream, 0 = the run's.
    """

    lr: Scalar
    epochs: int
    weight_decay: Scalar
    schedule: str
    batch: int

    def transform(self) -> transforms.Transform:
        """Returns AdamW with the schedule."""
        return transforms.adamw(self.lr, self.weight_decay, descent.make_schedule(self.schedule, self.epochs))

    def stream_specs(self, retain: str = "nll") -> dict[str, StreamSpec]:
        """Returns the forget set as the driving stream, and the retained texts unless `retain` is "none"."""
        specs = {"forget": StreamSpec("forget", self.batch)}
        if retain != "none":
            specs["retain"] = StreamSpec("retain", self.batch, continue_across_epochs=True)
        return specs


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
      estimates: computed before the phase.
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
        steps.transform(), (GradientStep(objective, cost=cost),), steps.stream_specs(retain), steps.epochs,
        estimates=estimates or {}, teachers=teachers,
    )  # fmt: skip
    return Method((phase,))


def grad_diff(
    lr: float = 1e-3, epochs: int = 10, gamma: float = 1.0, alpha: float = 1.0, retain: str = "nll",
    weight_decay: float = 0.0, schedule: str = "linear", batch: int = 0, compat: str = "corrected",
) -> Method:  # fmt: skip
    """Climbs the loss of the forget set, with a retain term (gradient difference).

    Args:
      lr, weight_decay, schedule: of AdamW, see `Descent`.
      epochs: passes over the forget set.
      gamma, alpha: weights of the forget and the retain term.
      retain: one of RETAIN.
      batch: rows per step of each stream.
      compat: "faithful" averages the KL of retain="kl" over all positions, prompt and padding included.

    Source: Liu et al., "Continual learning and private unlearning", 2022; Maini et al., "TOFU", 2024.

    Raises:
      ConfigError: an unknown retain term, compat or schedule.

    Example:
      >>> from jaxunlearn.unlearn.language import language_methods
      >>> list(language_methods.grad_diff(retain="none").phases[0].stream_specs)
      ['forget']
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
    """Climbs the loss of the forget set with weight p^beta per token: likely tokens most (weighted gradient ascent).

    Args:
      lr, epochs, gamma, alpha, retain, weight_decay, schedule, batch, compat: see `grad_diff`.
      beta: published: 1 in open-unlearning, 5 by the authors.

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
    """Climbs the loss of the forget set with weights p^beta1 (1 - p)^beta2 per token: saturation and importance.

    Args:
      lr, epochs, retain, weight_decay, schedule, batch, compat: see `grad_diff`.
      gamma, alpha: see `grad_diff`; 0.1 and 1 as in the published settings file, swapped in the code's defaults.
      beta1, beta2: exponents of p and of 1 - p.

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
    """Learns the model's own outputs with the true token left out; retained texts are not read (CE-U).

    The targets follow the model, so that the only fixed point is p(token) = 0. The loss of a batch without such tokens
    is 0 (published: NaN).

    Args:
      lr, epochs, weight_decay, schedule, batch: see `grad_diff`.
      skip: first tokens of every answer that are spared.

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
    """Learns the original's outputs on the forget set with the logit of the true token lowered (UNDIAL).

    Args:
      lr, epochs, gamma, alpha, weight_decay, schedule, batch: see `grad_diff`; published: rate 1e-4.
      beta: how far the logit is lowered.
      retain: one of RETAIN; published: retained texts with weight 0.
      compat: "faithful" averages over prompt and padding too, where the entry V - 100 of the vocabulary is lowered
        (label -100 taken as an index).

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


def feature_index(layer: int, count: int) -> int:
    """Returns the index of a hidden feature numbered from 1, 0 = the last, among `count`.

    Raises:
      ConfigError: the network has no such feature.
    """
    if layer > count:
        raise errors.ConfigError(f"layer = {layer}, but the network names {count} hidden features. Lower it, or set 0.")
    return (layer or count) - 1


def control_vector(layer: int, length: Scalar) -> Estimate:
    """Estimates [D] a direction of a given length, drawn once per member, uniform in [0, 1] per coordinate."""

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
    """Drives hidden activations of the forget set to a random direction and holds those of retained texts (RMU).

    Args:
      lr, weight_decay, schedule: of AdamW, see `Descent`; all parameters train (published for large models: three
        layers).
      epochs: passes over the forget set.
      gamma: weight of the forget set.
      alpha: weight of the retained texts, whose activations stay with those of the original.
      length: of the direction, which has no negative coordinate; published 2, and 20 with three layers.
      layer: number of the hidden feature among those that the network names, from 1; 0 = the last. Published: block 7
        of 32.
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
        index = feature_index(layer, len(forget.current))
        forget_distance = language.misdirection(
            forget.current[index], context.estimates["control"], batches["forget"], is_faithful
        )
        retain_distance = language.misdirection(
            retain.current[index], retain.original[index], batches["retain"], is_faithful
        )
        return gamma * forget_distance + alpha * retain_distance

    steps = Descent(lr, epochs, weight_decay, schedule, batch)
    gradient_step = GradientStep(objective, features=("forget", "retain"))
    estimates = {"control": control_vector(layer, length)}
    return Method((Phase(steps.transform(), (gradient_step,), steps.stream_specs(), epochs, estimates=estimates),))
