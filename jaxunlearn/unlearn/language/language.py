"""Losses of unlearning under language models, as pure functions of logits and next tokens.

Logits are [B, T, V], labels [B, T] the next tokens (-1 = none, see `records.next_tokens`), and the batch's weights are
0 in rows of padding. With nll = -log p(label), S = its sum over a row and n = its number of labels:

    preference    -(2 / beta) mean log sigma(beta * margin)     margin per row: S - S_original (NPO), S / n - delta
                                                                (SimNPO), the same against an alternative (DPO)
    reweighted    -sum w nll / N                                w = p^a (1 - p)^b without gradient (WGA, SatImp)
    distilled     soft cross entropy against edited logits      of the model itself (CE-U) or the original (UNDIAL)
    misdirected   squared distance of hidden activations to a random direction (RMU)

Single probabilities come from a logsumexp and one gathered logit: no softmax over V is stored. `faithful` restores
deviations of published code (open-unlearning). Means are over tokens or rows with labels, and 0 where there are none.
"""

import jax
import jax.numpy as jnp

from jaxunlearn.population import task
from jaxunlearn.unlearn.base.method import Samples, Scalar
from jaxunlearn.unlearn.blocks import losses

PUBLISHED_IGNORE = 100  # published labels are -100 where there is none, which addresses entry V - 100


def token_losses(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns [B, T] -log p(label), 0 where there is none."""
    return jnp.where(labels >= 0, task.cross_entropy(logits, labels), 0.0)


def row_losses(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns [B] sums of -log p(label) over the tokens of each text.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.unlearn.language import language
      >>> losses = language.row_losses(jnp.zeros((1, 3, 4)), jnp.array([[1, 2, -1]]))
      >>> print(f"{losses[0] / jnp.log(4.0):.2f}")
      2.00
    """
    return jnp.sum(token_losses(logits, labels), -1)


def answer_tokens(labels: jax.Array) -> jax.Array:
    """Returns [B, T] bool, True where the token AT this position is a label; the first never is."""
    return jnp.concatenate([jnp.full_like(labels[:, :1], -1), labels[:, :-1]], 1) >= 0


def row_mean(values: jax.Array, batch: Samples) -> jax.Array:
    """Averages [B] values over the rows that have any label."""
    return task.weighted_mean(values, losses.row_weights(batch))


def preference(margin: jax.Array, batch: Samples, beta: Scalar) -> jax.Array:
    """Computes -(2 / beta) mean over rows of log sigma(beta * margin), for margins [B]; it rewards high margins."""
    return -2.0 / beta * row_mean(jax.nn.log_sigmoid(beta * margin), batch)


def npo(logits: jax.Array, reference: jax.Array, batch: Samples, beta: Scalar) -> jax.Array:
    """Computes the loss of negative preference optimisation; rows less likely than under the original reduce it.

    Args:
      logits: [B, T, V].
      reference: [B] `row_losses` of the original.
      batch: labels [B, T] and weights.
      beta: > 0; small = closer to gradient ascent.

    Source: Zhang et al., "Negative Preference Optimization", 2024.
    """
    return preference(row_losses(logits, batch.labels) - reference, batch, beta)


def simnpo(logits: jax.Array, batch: Samples, beta: Scalar, delta: Scalar, faithful: bool = False) -> jax.Array:
    """Computes NPO without a reference; a mean loss per token above `delta` reduces it.

    Args:
      logits: [B, T, V].
      batch: labels [B, T] and weights.
      beta: > 0.
      delta: nats per token.
      faithful: a text without prompt is divided by one token too many, the first, which nothing predicts. (A prompt of
        one token cannot be told from none.)

    Source: Fan et al., "Simplicity prevails: rethinking negative preference optimization", 2024.
    """
    is_label = batch.labels >= 0
    count = jnp.sum(is_label, -1) + (is_label[:, 0] if faithful else 0)
    return preference(row_losses(logits, batch.labels) / jnp.maximum(count, 1) - delta, batch, beta)


def dpo(rejected: jax.Array, preferred: jax.Array, batch: Samples, beta: Scalar) -> jax.Array:
    """Computes the loss of preferring alternative answers to the true ones (direct preference optimisation).

    Args:
      rejected: [B] `row_losses` of the true answers, minus those of the original model.
      preferred: [B] the same of the alternative answers.
      batch: labels and weights of the true answers.
      beta: > 0.

    Source: Rafailov et al. 2023; as in Maini et al., "TOFU", 2024 (with "I don't know") and Mekala et al., "Alternate
    preference optimization", 2024.
    """
    return preference(rejected - preferred, batch, beta)


def reweighted(logits: jax.Array, batch: Samples, likely: Scalar, unlikely: Scalar = 0.0) -> jax.Array:
    """Computes minus the mean of p^likely (1 - p)^unlikely nll: ascent, without gradient through the weights.

    Args:
      logits: [B, T, V].
      batch: labels [B, T] and weights.
      likely: exponent of p: high = likely tokens count more.
      unlikely: exponent of 1 - p: high = likely tokens count less.

    Source: WGA of Wang et al., "Rethinking LLM unlearning objectives", 2025 (unlikely 0); SatImp of Yang et al.,
    "Exploring criteria of loss reweighting", 2025.
    """
    values = token_losses(logits, batch.labels)
    chance = jnp.exp(-jax.lax.stop_gradient(values))
    weights = chance**likely * (1.0 - chance) ** unlikely
    return -losses.mean(weights * values, batch)


def soft_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns [B, T] cross entropies of softmax(logits) against softmax(targets); targets get no gradient."""
    chances = jax.nn.softmax(jax.lax.stop_gradient(targets), -1)
    return jax.nn.logsumexp(logits, -1) - jnp.sum(chances * logits, -1)


def shift_logits(logits: jax.Array, tokens: jax.Array, change: Scalar) -> jax.Array:
    """Adds `change` to logits [B, T, V] at `tokens` [B, T]; -1 = nowhere."""
    return logits + jnp.where(tokens[..., None] == jnp.arange(logits.shape[-1]), change, 0.0)


def ce_u(logits: jax.Array, batch: Samples, skip: int = 1) -> jax.Array:
    """Computes the cross entropy of the model against its own answers without the true token.

    The first `skip` tokens of every answer are spared. Targets follow the model, so that the only fixed point is
    p(label) = 0.
    Source: Yang, "CE-U: cross entropy unlearning", 2025.
    """
    labels = batch.labels
    is_spared = jnp.cumsum(labels >= 0, -1) <= skip
    labels = jnp.where(is_spared, -1, labels)
    values = soft_cross_entropy(logits, shift_logits(logits, labels, -jnp.inf))
    return losses.mean(values, batch._replace(labels=labels))


def undial(
    logits: jax.Array, original: jax.Array, batch: Samples, beta: Scalar, faithful: bool = False
) -> jax.Array:  # fmt: skip
    """Computes the cross entropy against the original with the logit of the true token lowered by beta.

    Args:
      logits: [B, T, V].
      original: [B, T, V] logits of the original.
      batch: labels [B, T] and weights.
      beta: how far the logit is lowered.
      faithful: the mean is over all positions but the last, prompt and padding included, where the entry V - 100 is
        lowered.

    Source: Dong et al., "UNDIAL: self-distillation with adjusted logits", 2024.
    """
    labels = batch.labels
    if not faithful:
        return losses.mean(soft_cross_entropy(logits, shift_logits(original, labels, -beta)), batch)
    labels = jnp.where(labels >= 0, labels, logits.shape[-1] - PUBLISHED_IGNORE)
    values = soft_cross_entropy(logits, shift_logits(original, labels, -beta))[:, :-1]
    return position_mean(values, batch)


def position_mean(values: jax.Array, batch: Samples) -> jax.Array:
    """Averages over all positions of the unpadded rows, with a label or not."""
    return task.weighted_mean(values, jnp.broadcast_to(batch.weights[:, None], values.shape))


def divergence(student: jax.Array, original: jax.Array, batch: Samples, faithful: bool = False) -> jax.Array:
    """Averages KL(original || student) over the positions with a label.

    Args:
      student, original: [B, T, V] logits.
      batch: labels [B, T] and weights.
      faithful: over all positions.
    """
    values = losses.divergence(student, original)
    return position_mean(values, batch) if faithful else losses.mean(values, batch)


def peakedness(logits: jax.Array, batch: Samples, faithful: bool = False) -> jax.Array:
    """Averages (largest logit - mean logit)^2: 0 where all tokens are equally likely. The forget term of PDU.

    Args:
      logits: [B, T, V].
      batch: labels [B, T] and weights.
      faithful: over positions that are one too late: those AT which there is an answer token.

    Source: Entesari et al., "Constrained entropic unlearning", 2025.
    """
    values = jnp.square(jnp.max(logits, -1) - jnp.mean(logits, -1))
    if faithful:
        batch = batch._replace(labels=jnp.where(answer_tokens(batch.labels), 0, -1))
    return losses.mean(values, batch)


def misdirection(current: jax.Array, target: jax.Array, batch: Samples, faithful: bool = False) -> jax.Array:
    """Averages the squared distance of hidden activations at answer tokens to a target; rows weigh alike.

    Args:
      current: [B, T, D].
      target: [B, T, D] or [D].
      batch: labels [B, T] and weights.
      faithful: mean of the rows' sums times mean of 1 / their lengths, instead of the mean of the rows' means.

    Source: Li et al., "The WMDP benchmark" (RMU), 2024.
    """
    is_answer = answer_tokens(batch.labels)
    values = jnp.mean(jnp.square(current - target), -1)
    sums = jnp.sum(jnp.where(is_answer, values, 0.0), -1)
    share = 1.0 / jnp.maximum(jnp.sum(is_answer, -1), 1)
    if faithful:
        return row_mean(sums, batch) * row_mean(share, batch)
    return row_mean(sums * share, batch)


def direction(uniform: jax.Array, length: Scalar) -> jax.Array:
    """Returns the vector of Euclidean length `length` along `uniform` [D]."""
    return length * uniform / jnp.linalg.norm(uniform)
