"""Scores that do well with few shadow models: BaVarIA, the BASE hierarchy and InfoRMIA.

LiRA's per-row variances need dozens of models. BaVarIA shrinks them to a normal-inverse-gamma prior fitted to all rows;
BASE compares with the mean answer of models; InfoRMIA shifts BASE so that one threshold serves several models.

Functions of [N] and [K, N] log-odds of the true class return [N] float32, higher = more like a member, finite for any
finite input and K >= 1. Sources: BaVarIA and BASE (exponential-family MIA), `methods.py`; InfoRMIA.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.stats as stats
from jax.scipy.special import logsumexp

from jaxunlearn.records import Array

LEAST_VARIANCE = 1e-10
STUDENT, GAUSSIAN = "t", "n"
NEAREST, FARTHEST = -6.0, 12.0  # log of OUT deviations between which the ratio is searched
SHAPES = {STUDENT: 2.0, GAUSSIAN: 1.0}  # of the inverse gamma
PUBLISHED_LEAST = 1e-10  # probability below which the published BASE looks no further


class Prior(NamedTuple):
    """Normal-inverse-gamma prior of one side (IN or OUT), worth one pseudo-observation.

    Attributes:
      mean: scalar; scale: scalar > 0, of the inverse gamma.
    """

    mean: Array
    scale: Array


def fit_prior(values: Array, member: Array, density: str) -> Prior:
    """Fits the prior of one side to all its values, over rows and models; mean 0 and scale 1 where there are none.

    Args:
      values: [K, N] log-odds.
      member: [K, N] bool, which of them belong to the side.
      density: "t" or "n".
    """
    count = jnp.sum(member)
    mean = jnp.sum(jnp.where(member, values, 0.0)) / jnp.maximum(count, 1)
    variance = jnp.sum(jnp.where(member, (values - mean) ** 2, 0.0)) / jnp.maximum(count, 1)
    scale = jnp.maximum(variance * max(SHAPES[density] - 1, 1.0), LEAST_VARIANCE)
    return Prior(jnp.where(count > 0, mean, 0.0), jnp.where(count > 0, scale, 1.0))


class Side(NamedTuple):
    """The [N] distributions of answers on one side, with variances shrunk to the prior.

    Attributes:
      mean, deviation: [N]; freedom: [N] degrees of freedom of Student's t, infinite for a Gaussian.
    """

    mean: jax.Array
    deviation: jax.Array
    freedom: jax.Array

    def log_density(self, values: Array) -> jax.Array:
        """Returns the [N] log densities."""
        z = (values - self.mean) / self.deviation
        t = stats.t.logpdf(z, jnp.minimum(self.freedom, 1e6))
        return jnp.where(jnp.isinf(self.freedom), stats.norm.logpdf(z), t) - jnp.log(self.deviation)

    def slope(self, values: Array) -> jax.Array:
        """Returns the [N] derivatives of the log density."""
        z = (values - self.mean) / self.deviation
        finite = jnp.minimum(self.freedom, 1e6)
        t = (finite + 1) / (finite + z * z)
        return jnp.where(jnp.isinf(self.freedom), -z, -z * t) / self.deviation


def side_of(values: Array, member: Array, prior: Prior, density: str) -> Side:
    """Returns the distributions of one side.

    Args:
      values: [K, N] log-odds of other models.
      member: [K, N] bool, which of them belong to the side; a row without any gets the prior.
      prior: see `fit_prior`.
      density: "t": posterior predictive, Student's t; "n": Gaussian with the row's mean and the shrunk variance.
    """
    count = jnp.sum(member, 0)
    row_mean = jnp.sum(jnp.where(member, values, 0.0), 0) / jnp.maximum(count, 1)
    squares = jnp.sum(jnp.where(member, (values - row_mean) ** 2, 0.0), 0)
    precision, shape = 1 + count, SHAPES[density] + count / 2
    scale = prior.scale + squares / 2 + count * (row_mean - prior.mean) ** 2 / (2 * precision)
    if density == STUDENT:
        mean, freedom = (prior.mean + count * row_mean) / precision, 2 * shape
        variance = scale * (precision + 1) / (shape * precision)
    else:
        mean, freedom = jnp.where(count > 0, row_mean, prior.mean), jnp.full(row_mean.shape, jnp.inf)
        variance = jnp.where(shape > 1, scale / jnp.maximum(shape - 1, 0.5), scale)
    return Side(jnp.asarray(mean), jnp.sqrt(jnp.maximum(variance, LEAST_VARIANCE)), jnp.asarray(freedom))


def bavaria(
    unlearned: Array, values: Array, member: Array, density: str, inside: Prior | None = None,
    compat: str = "corrected",
) -> jax.Array:  # fmt: skip
    """Returns the [N] log likelihood ratio of IN against OUT.

    Args:
      unlearned: [N] log-odds of the audited model.
      values: [K, N] of other models.
      member: [K, N] bool, which of them trained on the row.
      density: "t" or "n".
      inside: the prior used for IN if there is no IN model (offline); None = fitted to the IN models.
      compat: "faithful" returns the plain ratio; "corrected" keeps it from rising as a logit falls far below OUT.
    """
    inner = fit_prior(values, member, density) if inside is None else inside
    high = side_of(values, member if inside is None else jnp.zeros_like(member), inner, density)
    low = side_of(values, ~member, fit_prior(values, ~member, density), density)
    if compat != "faithful":
        unlearned = jnp.maximum(unlearned, _turning_point(high, low))
    return high.log_density(unlearned) - low.log_density(unlearned)


def _turning_point(high: Side, low: Side) -> jax.Array:
    """Returns where, left of the OUT mean, the ratio stops falling; -inf if it never does or the IN mean is lower.

    Beyond that point the wider density dominates: a sample that the model was driven away from would look like a
      member.
    """

    def at(exponent: jax.Array) -> jax.Array:
        return low.mean - low.deviation * jnp.exp(exponent)

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        near, far = ends
        middle = (near + far) / 2
        rises = high.slope(at(middle)) > low.slope(at(middle))  # to the right, as it should
        return jnp.where(rises, middle, near), jnp.where(rises, far, middle)

    start = jnp.full(low.mean.shape, NEAREST), jnp.full(low.mean.shape, FARTHEST)
    near, _ = jax.lax.fori_loop(0, 40, halve, start)
    has_minimum = (high.mean > low.mean) & (high.slope(at(start[1])) < low.slope(at(start[1])))
    return jnp.where(has_minimum, at(near), -jnp.inf)


def from_original(
    unlearned: Array, original: Array, shadows: Array, density: str, compat: str = "corrected"
) -> jax.Array:
    """Returns BaVarIA [N] with an IN prior fitted to the original's own answers, which are all IN.

    Args:
      unlearned: [N] log-odds of the audited model.
      original: [N] of the original.
      shadows: [S, N] of models that did not see the rows.
      density: "t" or "n".
      compat: see `bavaria`.
    """
    inside = fit_prior(original[None], jnp.ones((1, *original.shape), bool), density)
    return bavaria(unlearned, shadows, jnp.zeros(shadows.shape, bool), density, inside, compat)


def log_mean_probability(values: Array) -> jax.Array:
    """Returns the log of the mean probability [N] of the true class over models, from log-odds [K, N]."""
    return logsumexp(jax.nn.log_sigmoid(values), axis=0) - jnp.log(values.shape[0])


def base(unlearned: Array, shadows: Array, compat: str = "corrected") -> jax.Array:
    """Returns BASE1 [N]: log p - log mean_k p_k; ranks as RMIA with gamma = 1 does, without its steps.

    Args:
      unlearned: [N] log-odds of the audited model.
      shadows: [K, N] of models that did not see the row (online: of all).
      compat: "faithful" clips p at 1e-10; "corrected" follows the log-odds, however low.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.scores.families import few_shadow
      >>> few_shadow.base(np.array([0.0, 0.0]), np.array([[0.0, -200.0], [0.0, -200.0]])).round(2).tolist()
      [0.0, 199.30999755859375]
    """
    floor = jnp.log(PUBLISHED_LEAST) if compat == "faithful" else -jnp.inf
    log_p, log_mean_p = jax.nn.log_sigmoid(unlearned), log_mean_probability(shadows)
    return jnp.maximum(log_p, floor) - jnp.maximum(log_mean_p, floor)


def informia(
    unlearned: Array, shadows: Array, population: Array, population_shadows: Array, offline_a: Array | float | None
) -> jax.Array:
    """Returns InfoRMIA [N]: BASE plus the divergence of the population's answers from their mean over models.

    Within one model it ranks as BASE does; the shift matters where one threshold serves several models.

    Args:
      unlearned: [N] log-odds of the audited model.
      shadows: [K, N] of other models.
      population: [P] of the audited model on rows that no model saw.
      population_shadows: [K, P].
      offline_a: in [0, 1]: estimates the mean over all models from OUT models, p = ((1 + a) p_out + 1 - a) / 2; None =
        the models are of both kinds.
    """
    means = [log_mean_probability(values) for values in (shadows, population_shadows)]
    if offline_a is not None:
        means = [jnp.log(((1 + offline_a) * jnp.exp(mean) + 1 - offline_a) / 2) for mean in means]
    shift = jnp.mean(means[1] - jax.nn.log_sigmoid(population))
    return jax.nn.log_sigmoid(unlearned) - means[0] + shift
