"""Scores from mean losses of the audited, an IN and OUT models, in closed forms that float32 holds.

Losses are mean negative log-likelihoods per token (natural logarithm); probabilities are P = e^-nll, per token.

Source: IAM, section on language models (reference: iam_llm_score `ip_fit`, lira_online `ratio_online`, `rmia_online`).
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxunlearn.records import Array

EULER = 0.5772  # four digits, as published
SMALLEST_LOSS = 1e-30


def log_odds(nll: Array) -> Array:
    """Computes log(P / (1 - P)) of P = e^-nll, exact for losses near 0 and where e^-nll underflows; higher = member.

    The floor on the loss is that of the published form, log(P / (1 - P + 1e-30)).

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.scores import tokens
      >>> tokens.log_odds(np.array([2000.0])).tolist()
      [-2000.0]
    """
    nll = jnp.maximum(jnp.asarray(nll), SMALLEST_LOSS)
    return -nll - jnp.log(-jnp.expm1(-nll))


def ratio(nll: Array, out: Array) -> Array:
    """Computes minus the loss over the mean loss of the OUT models [S, N]; higher = member."""
    return -nll / jnp.mean(out, 0)


def lira(odds: Array, odds_in: Array, odds_out: Array) -> Array:
    """Computes LiRA-On with one IN model, log N(q; a, 1) - log N(q; b, 1) = (a - b) (q - (a + b) / 2); higher = member.

    The published deviation over one model is 0 and counts as 1e-30, so that values are 1e60 times these.

    Args:
      odds: [N] log-odds q of the audited model.
      odds_in: [N] a of the IN model.
      odds_out: [S, N] of the OUT models, whose mean is b.
    """
    outside = jnp.mean(odds_out, 0)
    return (odds_in - outside) * (odds - (odds_in + outside) / 2)


def rmia(
    nll: Array, nll_in: Array, nll_out: Array, pop: Array, pop_in: Array, pop_out: Array, gamma: float = 2.0
) -> jax.Array:
    """Computes RMIA-On: the fraction [N] of population texts z with r(x) / r(z) > gamma.

    Here r = P / mean of P_in and P_out. Logarithms are compared, so that losses may have any size, by one sort and a
    search.

    Args:
      nll: [N] of the audited model.
      nll_in: [N] of the IN model.
      nll_out: [S, N] of OUT models.
      pop: [Z] of the audited model on population texts, which no model should have seen.
      pop_in: [Z] of the IN model on them.
      pop_out: [S, Z] of OUT models on them.
      gamma: ratio.
    """

    def log_ratio(loss: Array, inside: Array, outside: Array) -> jax.Array:
        mean_out = jax.nn.logsumexp(-jnp.asarray(outside), 0) - jnp.log(outside.shape[0])
        return jnp.log(2.0) - loss - jnp.logaddexp(-inside, mean_out)

    population_ratios = jnp.sort(log_ratio(pop, pop_in, pop_out))
    bound = log_ratio(nll, nll_in, nll_out) - jnp.log(jnp.maximum(gamma, 1e-30))
    return jnp.searchsorted(population_ratios, bound, side="left") / population_ratios.shape[0]


def iam_signal(nll: Array, eps1: float = 0.1, eps2: float = 1e-5) -> jax.Array:
    """Computes -log(eps1 - log(eps2 + 1 - P)); higher = LESS like a member (it is a signal of 1 - P)."""
    return -jnp.log(eps1 - jnp.log(eps2 - jnp.expm1(-jnp.asarray(nll))))


@partial(jax.jit, static_argnames=("interpolation_steps", "eps1", "eps2", "block"))
def iam_unlearned(
    nll: Array, nll_in: Array, nll_out: Array, *, interpolation_steps: int = 1000, eps1: float = 0.1,
    eps2: float = 1e-5, block: int = 0,
) -> jax.Array:  # fmt: skip
    """Computes the completeness of unlearning by IAM-On of texts, in [0, 1]; LOWER = member, exact near 0.

    One minus this is the membership score. In float32 all scores above 1 - 6e-8 are 1: a fifth of MUSE-News against
    checkpoints (in float64 a seventh), which costs .007 of Spearman's correlation there. For ranks use this.

    Interpolates from the IN signal f (level 0) towards the OUT signal r: I_a = f + a (r - f); a Gumbel distribution
    around it by the method of moments, its standard deviation over all texts; the result is the weighted mean of the
    CDF at the audited model's signal, weights growing towards OUT. The deviation at every level follows from three
    moments, so memory is O(N). Unlike IAM of classifiers it uses 1 - P and goes from IN to OUT.

    Args:
      nll: [N] of the audited model.
      nll_in: [N] of the IN model.
      nll_out: [S, N] of OUT models; r is the mean of their signals.
      interpolation_steps: K >= 2, the last one (OUT itself) left out.
      eps1: constant of the signal, above eps2.
      eps2: constant of the signal.
      block: > 0: deviation over consecutive blocks of this many texts and the remainder (published: 64); a score then
        depends on the order of the texts.

    Returns:
      [N]. With one text, or equal ones, the deviation is 1e-9: a step.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.scores.tokens import references
      >>> nll, nll_in, nll_out = np.array([0.2, 2.0]), np.array([0.1, 0.3]), np.array([[1.5, 2.5]])
      >>> score = references.iam_unlearned(nll, nll_in, nll_out, interpolation_steps=20)
      >>> bool(score[0] < score[1])  # the first text still looks trained on
      True
    """
    signal = partial(iam_signal, eps1=eps1, eps2=eps2)
    x, f, r = signal(nll), signal(nll_in), jnp.mean(signal(nll_out), 0)
    count = x.shape[0]
    if not block or block >= count:
        return _interpolate(x, f, r, interpolation_steps)
    size = count // block * block
    blocks = [signal_row[:size].reshape(-1, block) for signal_row in (x, f, r)]
    completeness = jax.vmap(partial(_interpolate, interpolation_steps=interpolation_steps))(*blocks).reshape(-1)
    if size == count:
        return completeness
    return jnp.concatenate([completeness, _interpolate(x[size:], f[size:], r[size:], interpolation_steps)])


def _interpolate(x: jax.Array, f: jax.Array, r: jax.Array, interpolation_steps: int) -> jax.Array:
    f_offset, r_offset = f - jnp.mean(f), r - jnp.mean(r)
    var_f, var_r, covariance = jnp.mean(f_offset**2), jnp.mean(r_offset**2), jnp.mean(f_offset * r_offset)

    def at_level(total: jax.Array, k: jax.Array) -> tuple[jax.Array, None]:
        a = k / (interpolation_steps - 1)
        variance = (1 - a) ** 2 * var_f + a**2 * var_r + 2 * a * (1 - a) * covariance
        beta = jnp.sqrt(6.0) / jnp.pi * (jnp.sqrt(jnp.maximum(variance, 0.0)) + 1e-9)
        return total + (k + 1) * jnp.exp(-jnp.exp(-(x - f - a * (r - f)) / beta - EULER)), None

    steps = jnp.arange(interpolation_steps - 1, dtype=x.dtype)
    total, _ = jax.lax.scan(at_level, jnp.zeros_like(x), steps)
    return jnp.clip(total / jnp.sum(steps + 1), 0.0, 1.0)
