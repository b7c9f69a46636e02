"""LiRA and the update attack: likelihoods of the unlearned model's carlini logit under Gaussians fitted to shadows.

Two forms of each. `corrected` gives every Gaussian a usable deviation (see `deviation`) and the offline score one
tail. `faithful` repeats the published audit, whose IN deviation is always 1e-30: with two or more shadows its online
score is just -(c_u - c_o)^2, the same for every number of shadows; offline it is a two-sided density for random
forgetting and one tail for class forgetting. It needs float64 (densities reach 1e59) and runs in NumPy on the host.

Source: Carlini et al., Membership Inference Attacks From First Principles; IAM, section on LiRA and the update attack.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from jaxunlearn import checks, errors
from jaxunlearn.records import Array

VARIANCES = ("auto", "global", "per_sample")
# Below so many models a deviation per sample is mostly noise: published LiRA-Off falls from 77.7 to 69.9 from S = 1 to
# 2, and on Location-30 it costs LiRA-On 4 to 6 points of AUC at 8 to 64 shadows.
FEW = 128
FLOOR = 1e-6


def deviation(values: jax.Array, member: jax.Array | None = None, variance: str = "auto") -> jax.Array:
    """Standard deviation (ddof 0) of [S, N] signals: one number for all ("global"), or [N] over models.

    Args:
      values: [S, N] float32.
      member: [S, N] bool, which values count; None = all.
      variance: global, per_sample, or auto (global below 128 models).
    """
    counted = jnp.ones(values.shape) if member is None else member.astype(jnp.float32)
    per_sample = variance == "per_sample" or (variance == "auto" and values.shape[0] >= FEW)
    axis = 0 if per_sample else None
    mean = jnp.sum(values * counted, axis) / jnp.maximum(jnp.sum(counted, axis), 1.0)
    squares = jnp.sum(counted * (values - mean) ** 2, axis) / jnp.maximum(jnp.sum(counted, axis), 1.0)
    return jnp.maximum(jnp.sqrt(squares), FLOOR)


@partial(jax.jit, static_argnames=("variance",))
def offline(unlearned: jax.Array, shadows: jax.Array, *, variance: str = "auto") -> jax.Array:
    """Membership score Phi((c_u - mean) / deviation) in [0, 1]; higher = further above what OUT models answer.

    Args:
      unlearned: [N] float32 carlini logits of the audited model.
      shadows: [S, N] float32, OUT.
      variance: of the OUT Gaussian, see `deviation`.
    """
    return jax.scipy.stats.norm.cdf((unlearned - jnp.mean(shadows, 0)) / deviation(shadows, None, variance))


@partial(jax.jit, static_argnames=("variance",))
def online(unlearned: jax.Array, original: jax.Array, shadows: jax.Array, *, variance: str = "auto") -> jax.Array:
    """Log-likelihood ratio of IN (one original model) against OUT (shadows), unbounded; higher = more like a member.

    The IN Gaussian is centred at the original model's own logit of the sample; its deviation is that of all the
    original model's logits, because one model gives no other.

    Args:
      unlearned: [N] float32 carlini logits of the audited model.
      original: [N] of the original model.
      shadows: [S, N] float32, OUT.
      variance: of the OUT Gaussian.
    """
    inside = jnp.maximum(jnp.std(original), FLOOR)
    return _log_ratio(unlearned, original, inside, jnp.mean(shadows, 0), deviation(shadows, None, variance))


@partial(jax.jit, static_argnames=("variance",))
def standard(unlearned: jax.Array, reference: jax.Array, member: jax.Array, *, variance: str = "auto") -> jax.Array:
    """The standard online LiRA: log-likelihood ratio of real IN and OUT models per sample, unbounded.

    Args:
      unlearned: [N] float32 carlini logits.
      reference: [K, N] float32 of models that trained on parts of the samples.
      member: [K, N] bool; every sample needs a model with it and one without.
      variance: of both Gaussians; auto looks at the models per side, K / 2.

    Returns:
      [N] float32; higher = more like a member.
    """
    if variance == "auto":
        variance = "per_sample" if reference.shape[0] // 2 >= FEW else "global"

    def side(chosen: jax.Array) -> tuple[jax.Array, jax.Array]:
        counted = chosen.astype(jnp.float32)
        mean = jnp.sum(reference * counted, 0) / jnp.maximum(jnp.sum(counted, 0), 1.0)
        # A global deviation is that around each sample's own mean: IN and OUT means differ between samples.
        residual = reference - mean
        return mean, deviation(residual, chosen, variance)

    return _log_ratio(unlearned, *side(member), *side(~member))


def update(unlearned: Array, original: Array, shadows: Array, *, variance: str = "auto") -> jax.Array:
    """Update attack: Phi((c_u - m) / d) - Phi((c_o - m) / d) in [-1, 1]; higher = the sample's logit fell less."""
    return offline(unlearned, shadows, variance=variance) - offline(original, shadows, variance=variance)


def faithful_offline(unlearned: Array, shadows: Array, forget_type: str) -> np.ndarray:
    """The published offline score as membership, float64: minus a two-sided log density, or for classes one tail."""
    mean, scale = _published_fit(shadows)
    if forget_type == "set_random":
        return -scipy.stats.norm.logpdf(_f64(unlearned), mean, scale)
    return scipy.stats.norm.cdf(_f64(unlearned), mean, scale)


def faithful_online(unlearned: Array, original: Array, shadows: Array) -> np.ndarray:
    """The published online score as membership, float64, with its IN deviation of 1e-30."""
    mean, scale = _published_fit(shadows)
    outside = scipy.stats.norm.logpdf(_f64(unlearned), mean, scale)
    return scipy.stats.norm.logpdf(_f64(unlearned), _f64(original), 1e-30) - outside


def faithful_update(unlearned: Array, original: Array, shadows: Array) -> np.ndarray:
    """The published update attack as membership, float64, in [-1, 1]; three-valued with one shadow."""
    mean, scale = _published_fit(shadows)
    after = scipy.stats.norm.cdf(_f64(unlearned), mean, scale)
    return after - scipy.stats.norm.cdf(_f64(original), mean, scale)


def median_online(
    target: Array, reference: Array, member: Array, *, variance: str = "global"
) -> np.ndarray:  # fmt: skip
    """Online LiRA by medians over several views of each sample, as the reminiscence attack asks it; float64.

    Args:
      target: [N, K] carlini logits of the audited model, K augmented views of every sample.
      reference: [S, N, K] of shadow models.
      member: [S, N] bool, which of them trained on which sample. Of both sides as many models count, in their order, as
        the sample with the fewest has.
      variance: "global" (one deviation of all samples and views, published) or "per_sample".

    Returns:
      [N] mean over views of the log-likelihood ratio of IN against OUT, finite; higher = more like a member.

    Raises:
      DataError: a sample that all shadow models trained on, or none.
    """
    inside, outside = _sides(target, reference, member)
    return (_median_log(target, inside, variance) - _median_log(target, outside, variance)).mean(-1)


def median_offline(
    target: Array, reference: Array, member: Array, *, variance: str = "global"
) -> np.ndarray:  # fmt: skip
    """The offline form of `median_online`: minus the log density of the OUT models, large for any deviation."""
    return -_median_log(target, _sides(target, reference, member)[1], variance).mean(-1)


def _sides(target: Array, reference: Array, member: Array) -> tuple[np.ndarray, np.ndarray]:
    """Logits [n, N, K] of the first n models that trained on each sample, and of the first that did not."""
    values, trained = _f64(reference), np.asarray(member, bool)
    checks.shape("NK SNK SN", target=target, reference=values, member=trained)
    found = []
    for name, side in (("trained", trained), ("did not train", ~trained)):
        least = int(side.sum(0).min(initial=len(side)))
        if not least:
            raise errors.DataError(f"there is a sample that no shadow model {name} on; LiRA needs both kinds.")
        order = np.argsort(~side, axis=0, kind="stable")[:least]
        found.append(np.take_along_axis(values, order[..., None], 0))
    return found[0], found[1]


def _median_log(target: Array, values: np.ndarray, variance: str) -> np.ndarray:
    """[N, K] log density at the median of models [n, N, K]. A deviation of 0 (one model) counts as the floor."""
    checks.choice("variance", variance, VARIANCES[1:])
    scale = values.std() if variance == "global" else values.std(0)
    return scipy.stats.norm.logpdf(_f64(target), np.median(values, 0), np.maximum(scale, FLOOR))


def _published_fit(shadows: Array) -> tuple[np.ndarray, np.ndarray]:
    values = _f64(shadows)
    return values.mean(0), values.std(0) + 1e-30


def _f64(values: Array) -> np.ndarray:
    return np.asarray(values, np.float64)


def _log_ratio(
    values: jax.Array, inside: jax.Array, inside_std: jax.Array, outside: jax.Array, outside_std: jax.Array
) -> jax.Array:
    """Log-likelihood ratio of two Gaussians that does not rise again as a logit falls.

    Far enough below both means the wider Gaussian has the higher density. Where that is IN, a sample that the model was
    driven away from would look like a member: below the minimum of the ratio (or the OUT mean, if that is lower) the
    value there counts.
    """
    curvature = 1 / outside_std**2 - 1 / inside_std**2
    minimum = (outside / outside_std**2 - inside / inside_std**2) / jnp.where(curvature > 0, curvature, 1.0)
    values = jnp.where(curvature > 0, jnp.maximum(values, jnp.minimum(minimum, outside)), values)
    return _log_density(values, inside, inside_std) - _log_density(values, outside, outside_std)


def _log_density(values: jax.Array, mean: jax.Array, deviation: jax.Array) -> jax.Array:
    z = (values - mean) / deviation
    return -0.5 * z * z - jnp.log(deviation)
