"""Methods for language models that compare answers: NPO, SimNPO, DPO, AltPO.

NPO and SimNPO make the true answer less likely; DPO and AltPO prefer an alternative to it. The alternative replaces the
tokens after the prompt of every text to forget, and is computed once, before the first step:

    dpo     a fixed sequence of tokens ("I don't know"), or uniformly random tokens
    altpo   a sample from the original model

The original's loss on an answer is one number per text, estimated once. The rest is as in `language_methods.py`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxunlearn import checks, errors, keys, trees
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import Estimate, EstimateContext, Method, Samples, Scalar, StepContext, StreamSpec
from jaxunlearn.unlearn.blocks import passes
from jaxunlearn.unlearn.language import language
from jaxunlearn.unlearn.language.language_methods import Descent, ForgetTerm, method_of

Tree = Any
# (member, samples) -> the texts [B, T] with other answers
Alternative = Callable[[EstimateContext, Samples], jax.Array]


def check_beta(beta: Scalar) -> None:
    """Raises a ConfigError unless beta is above 0; a traced one is not checked."""
    if not isinstance(beta, jax.core.Tracer) and not beta > 0:
        raise errors.ConfigError(f"beta = {beta}: must be above 0. A small one is nearly gradient ascent.")


def original_logits(member: EstimateContext, inputs: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns [B, T, V] logits of the original model in evaluation mode."""
    return network.forward(member.network, *trees.split_variables(member.reference), inputs, weights)[0]


def original_losses(batch: int) -> Estimate:
    """Estimates [N_all] `language.row_losses` of the original on every text to forget; 0 elsewhere."""

    def compute(member: EstimateContext) -> tuple[Tree, Tree]:
        def update(table: jax.Array, samples: Samples, key: jax.Array) -> jax.Array:
            del key
            logits = original_logits(member, samples.inputs, samples.weights)
            rows = language.row_losses(logits, samples.labels)
            return table.at[samples.rows].add(jnp.where(samples.weights > 0, rows, 0.0))

        return passes.fold(member, "forget", jnp.zeros(member.forget.shape), update), member.model_state

    return Estimate(compute, {"forget": StreamSpec("forget", batch, shuffle=False)}, 1 / 3)


def npo(
    lr: float = 1e-3, epochs: int = 10, gamma: float = 1.0, alpha: float = 1.0, beta: float = 0.1,
    retain: str = "nll", weight_decay: float = 0.0, schedule: str = "linear", batch: int = 0,
    compat: str = "corrected",
) -> Method:  # fmt: skip
    """Makes texts to forget less likely than under the original, up to a point (negative preference optimisation).

    A row's gradient falls as sigma(-beta (S - S_original)), S the summed loss of its tokens: long rows weigh more and
    stop earlier.

    Args:
      lr, epochs, gamma, alpha, retain, weight_decay, schedule, batch, compat: see `language_methods.grad_diff`.
      beta: > 0; small = closer to gradient ascent.

    Source: Zhang et al., "Negative preference optimization: from catastrophic collapse to effective unlearning", 2024.

    Raises:
      ConfigError: an unknown retain term, compat or schedule; a beta of 0.

    Example:
      >>> from jaxunlearn.unlearn.language import preferences
      >>> list(preferences.npo(beta=0.2).phases[0].estimates)
      ['original']
    """
    check_beta(beta)

    def forget_term(logits: jax.Array, batch: Samples, context: StepContext) -> jax.Array:
        return language.npo(logits, context.estimates["original"][batch.rows], batch, beta)

    steps = Descent(lr, epochs, weight_decay, schedule, batch)
    return method_of(forget_term, steps, gamma, alpha, retain, compat, {"original": original_losses(batch)})


def simnpo(
    lr: float = 1e-3, epochs: int = 10, gamma: float = 0.125, alpha: float = 1.0, beta: float = 4.5,
    delta: float = 0.0, retain: str = "nll", weight_decay: float = 0.0, schedule: str = "linear", batch: int = 0,
    compat: str = "corrected",
) -> Method:  # fmt: skip
    """Applies NPO to the mean loss per token, without the original model (SimNPO).

    Args:
      lr, epochs, alpha, retain, weight_decay, schedule, batch: see `language_methods.grad_diff`.
      gamma, beta: weight, and > 0; 0.125 and 4.5 in open-unlearning, 0.1375 and 2.5 by the authors on TOFU.
      delta: nats per token, see `language.simnpo`.
      compat: "faithful" divides a text without prompt by one token too many, its first; and see `grad_diff`.

    Source: Fan et al., "Simplicity prevails: rethinking negative preference optimization for LLM unlearning", 2024.

    Raises:
      ConfigError: an unknown retain term, compat or schedule; a beta of 0.
    """
    check_beta(beta)

    def forget_term(logits: jax.Array, batch: Samples, context: StepContext) -> jax.Array:
        return language.simnpo(logits, batch, beta, delta, compat == "faithful")

    steps = Descent(lr, epochs, weight_decay, schedule, batch)
    return method_of(forget_term, steps, gamma, alpha, retain, compat)


def answer_start(labels: jax.Array) -> jax.Array:
    """Returns [B] the position of the first token of every answer, from labels [B, T]; at least 1."""
    return jnp.argmax(labels >= 0, -1) + 1


def with_answer(samples: Samples, answer: jax.Array, lengths: jax.Array | int) -> jax.Array:
    """Writes other answers into texts, [B, T] int32; too long ones are cut, free positions become padding.

    Args:
      samples: inputs [B, T] and labels [B, T].
      answer: [L] or [B, L] tokens that follow the prompt.
      lengths: of the answers, [B] or one for all; at most L.
    """
    positions = jnp.arange(samples.inputs.shape[1])
    offsets = positions - answer_start(samples.labels)[:, None]
    answer = jnp.broadcast_to(answer, (len(samples.inputs), answer.shape[-1]))
    new = jnp.take_along_axis(answer, jnp.clip(offsets, 0, answer.shape[-1] - 1), -1)
    lengths = jnp.broadcast_to(jnp.asarray(lengths), (len(samples.inputs),))[:, None]
    return jnp.where(offsets < 0, samples.inputs, jnp.where(offsets < lengths, new, -1)).astype(jnp.int32)


def answer_labels(inputs: jax.Array, start: jax.Array) -> jax.Array:
    """Returns [B, T] next tokens of texts [B, T] whose answers begin at `start` [B]; -1 elsewhere."""
    following = jnp.concatenate([inputs[:, 1:], jnp.full_like(inputs[:, :1], -1)], 1)
    positions = jnp.arange(inputs.shape[1])
    return jnp.where(positions + 1 >= start[:, None], following, -1)


def random_answers(member: EstimateContext, samples: Samples) -> jax.Array:
    """Writes uniformly random answers, as long as the true ones; a row's draws are permanent."""
    key, length = keys.stream(member.labels_key, "alternative"), samples.inputs.shape[1]

    def draw(row: jax.Array) -> jax.Array:
        return jax.random.randint(keys.at(key, row), (length,), 0, member.network.num_classes)

    return with_answer(samples, jax.vmap(draw)(samples.rows), jnp.sum(samples.labels >= 0, -1))


def fixed_answer(tokens: tuple[int, ...]) -> Alternative:
    """Writes the same answer into every text."""

    def make(member: EstimateContext, samples: Samples) -> jax.Array:
        if max(tokens) >= member.network.num_classes:
            raise errors.ConfigError(
                f"idk has token {max(tokens)}, but the vocabulary has {member.network.num_classes} tokens, from 0."
            )
        return with_answer(samples, jnp.asarray(tokens, jnp.int32), len(tokens))

    return make


def sampled_answers(temperature: Scalar, most: int) -> Alternative:
    """Samples answers from the original token by token, as long as the true ones, at most `most` tokens."""

    def make(member: EstimateContext, samples: Samples) -> jax.Array:
        start, key = answer_start(samples.labels), keys.stream(member.labels_key, "alternative")
        lengths = jnp.minimum(jnp.sum(samples.labels >= 0, -1), most)
        positions = jnp.arange(samples.inputs.shape[1])

        def add(index: jax.Array, inputs: jax.Array) -> jax.Array:
            logits = original_logits(member, inputs, samples.weights)
            last = (start + index - 1)[:, None, None]
            next_logits = jnp.take_along_axis(logits, jnp.minimum(last, logits.shape[1] - 1), 1)[:, 0]

            def draw(row: jax.Array, row_logits: jax.Array) -> jax.Array:
                return jax.random.categorical(keys.at(keys.at(key, row), index), row_logits)

            tokens = jax.vmap(draw)(samples.rows, next_logits / jnp.maximum(temperature, 1e-6))
            is_next = (positions == (start + index)[:, None]) & (index < lengths)[:, None]
            return jnp.where(is_next, tokens[:, None], inputs).astype(jnp.int32)

        blank = with_answer(samples, jnp.full(1, -1, jnp.int32), 0)
        return jax.lax.fori_loop(0, most, add, blank)

    return make


def alternatives(make: Alternative, batch: int, cost: float = 0.0) -> Estimate:
    """Estimates other answers to the texts to forget, n of them in the order of the forget set.

    {"rows" [n] of the data set (-1 = none), "inputs" [n, T], "labels" [n, T], "losses" [n] `row_losses` of the original
    on them, "statistics" of the model}.

    Args:
      make: (member, samples) -> texts [B, T].
      batch: rows per step, 0 = the run's.
      cost: gradient passes per row of `make`.
    """

    def compute(member: EstimateContext) -> tuple[Tree, Tree]:
        size, count = member.stream_specs["forget"].batch, member.streams["forget"].rows.shape[0]
        length, width = -(-count // size) * size, member.data.inputs.shape[1]
        texts = jnp.full((length, width), -1, jnp.int32)
        blank = {"rows": texts[:, 0], "inputs": texts, "labels": texts, "losses": jnp.zeros(length)}

        def update(total: tuple[Tree, jax.Array], samples: Samples, key: jax.Array) -> tuple[Tree, jax.Array]:
            del key
            inputs = make(member, samples)
            labels = answer_labels(inputs, answer_start(samples.labels))
            reference = language.row_losses(original_logits(member, inputs, samples.weights), labels)
            rows = jnp.where(samples.weights > 0, samples.rows, -1).astype(jnp.int32)
            new = {"rows": rows, "inputs": inputs, "labels": labels, "losses": reference}
            table, offset = total
            table = jax.tree.map(
                lambda old, rows: jax.lax.dynamic_update_slice_in_dim(old, rows, offset, 0), table, new
            )
            return table, offset + size

        table, _ = passes.fold(member, "forget", (blank, jnp.int32(0)), update)
        return {**table, "statistics": member.model_state}, member.model_state

    return Estimate(compute, {"forget": StreamSpec("forget", batch, shuffle=False)}, cost + 1 / 3)


def preference_term(beta: Scalar) -> ForgetTerm:
    """Returns the forget term of DPO: the answers of the estimate "alternatives" over the true ones."""

    def forget_term(logits: jax.Array, batch: Samples, context: StepContext) -> jax.Array:
        table = context.estimates["alternatives"]
        index = jnp.argmax(table["rows"] == batch.rows[:, None], -1)
        inputs, labels, reference = (table[name][index] for name in ("inputs", "labels", "losses"))
        answers, _ = network.forward(context.network, context.params, table["statistics"], inputs, batch.weights)
        preferred = language.row_losses(answers, labels) - reference
        rejected = language.row_losses(logits, batch.labels) - context.estimates["original"][batch.rows]
        return language.dpo(rejected, preferred, batch, beta)

    return forget_term


# A step on a pair of rows passes over three texts: the true answer, the alternative, and the retained one.
_COST = 1.5


def dpo(
    lr: float = 1e-3, epochs: int = 10, gamma: float = 1.0, alpha: float = 1.0, beta: float = 0.1, idk: tuple = (),
    retain: str = "nll", weight_decay: float = 0.0, schedule: str = "linear", batch: int = 0,
    compat: str = "corrected",
) -> Method:  # fmt: skip
    """Prefers another answer to the true one, for every text to forget (direct preference optimisation).

    Args:
      lr, weight_decay, schedule: of AdamW, see `Descent`.
      epochs: passes over the forget set.
      gamma: weight of the preference.
      alpha: weight of the retain term.
      beta: > 0; how fast the preference saturates.
      idk: token ids of the other answer ("I don't know"; published: one of 100 such sentences per row, drawn anew in
        every epoch); empty = uniformly random tokens, as many as the true answer has, drawn once per row.
      retain: one of `language_methods.RETAIN`.
      batch: rows per step of each stream.
      compat: that of `grad_diff`.

    The first token of a text without prompt stands for the prompt. Source: Rafailov et al. 2023; IdkDPO of Maini et
    al., "TOFU", 2024.

    Raises:
      ConfigError: an unknown retain term, compat or schedule; a token outside the vocabulary; a beta of 0.
    """
    check_beta(beta)
    make = fixed_answer(tuple(int(token) for token in idk)) if idk else random_answers
    estimates = {"original": original_losses(batch), "alternatives": alternatives(make, batch)}
    steps = Descent(lr, epochs, weight_decay, schedule, batch)
    return method_of(preference_term(beta), steps, gamma, alpha, retain, compat, estimates, cost=_COST)


def altpo(
    lr: float = 1e-3, epochs: int = 10, gamma: float = 1.0, alpha: float = 1.0, beta: float = 0.1,
    temperature: float = 1.0, tokens: int = 32, retain: str = "nll", weight_decay: float = 0.0,
    schedule: str = "linear", batch: int = 0, compat: str = "corrected",
) -> Method:  # fmt: skip
    """Prefers an answer sampled from the original model to the true one (alternate preference optimisation).

    Args:
      lr, weight_decay, schedule: of AdamW, see `Descent`; published rates: 1e-5 to 5e-5.
      epochs: passes over the forget set.
      gamma: weight of the preference.
      alpha: weight of the retain term; published 1 to 5.
      beta: > 0; published 0.05 to 0.5.
      temperature: of the sampling; 0 = the likeliest token.
      tokens: largest length of an alternative, which is otherwise as long as the true answer. Sampling has no cache: it
        takes this many forward passes over the forget set.
      retain: one of `language_methods.RETAIN`.
      batch: rows per step of each stream.
      compat: that of `grad_diff`.

    Published: a prompt requests alternatives from an instruction-tuned model. A small model has no such prompt: it
    continues the text, and where it has memorised a text that is the true answer, which then is neither preferred nor
    rejected; raise the temperature there.
    Source: Mekala et al., "Alternate preference optimization for unlearning factual knowledge", 2024.

    Raises:
      ConfigError: no tokens; an unknown retain term, compat or schedule; a beta of 0.
    """
    check_beta(beta)
    checks.in_range("tokens", tokens, 1)
    sampled = alternatives(sampled_answers(temperature, tokens), batch, tokens / 3)
    estimates = {"original": original_losses(batch), "alternatives": sampled}
    steps = Descent(lr, epochs, weight_decay, schedule, batch)
    return method_of(preference_term(beta), steps, gamma, alpha, retain, compat, estimates, cost=_COST)
