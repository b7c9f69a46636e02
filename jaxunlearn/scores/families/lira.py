"""LiRA and the update attack: likelihoods of the unlearned model's carlini logit under Gaussians fitted to shadows.

There are two forms of each. `corrected` gives every Gaussian a usable deviation (see `deviation`) and the offline score
one tail. `faithful` repeats the published audit, whose IN deviation is always 1e-30: with two or more shadows its
online score is just -(c_u - c_o)^2, the same for every number of shadows; offline it is a two-sided density for random
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
# With fewer models a deviation per sample is mostly noise: published LiRA-Off falls from 77.7 to 69.9 from S = 1 to 2,
# and on Location-30 it costs LiRA-On 4 to 6 points of AUC at 8 to 64 shadows.
FEW = 128
FLOOR = 1e-6


def deviation(values: jax.Array, member: jax.Array | None = None, variance: str = "auto") -> jax.Array:
    """Computes standard deviations (ddof 0) of [S, N] signals: one number for all ("global"), or [N] over models.

    Args:
      values: [S, N] float32.
      member: [S, N] bool, which values are included; None = all.
      variance: global, per_sample, or auto (global below 128 models).
    """
    weights = jnp.ones(values.shape) if member is None else member.astype(jnp.float32)
    per_sample = variance == "per_sample" or (variance == "auto" and values.shape[0] >= FEW)
    axis = 0 if per_sample else None
    mean = jnp.sum(values * weights, axis) / jnp.maximum(jnp.sum(weights, axis), 1.0)
    squares = jnp.sum(weights * (values - mean) ** 2, axis) / jnp.maximum(jnp.sum(weights, axis), 1.0)
    return jnp.maximum(jnp.sqrt(squares), FLOOR)


@partial(jax.jit, static_argnames=("variance",))
def offline(unlearned: jax.Array, shadows: jax.Array, *, variance: str = "auto") -> jax.Array:
    """Computes the membership score Phi((c_u - mean) / deviation) in [0, 1]; higher = further above OUT models.

    Args:
      unlearned: [N] float32 carlini logits of the audited model.
      shadows: [S, N] float32, OUT.
      variance: of the OUT Gaussian, see `deviation`.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.scores.families import lira
      >>> lira.offline(np.array([1.0, 2.0]), np.array([[0.0, 1.0], [2.0, 3.0]])).tolist()
      [0.5, 0.5]
    """
    return jax.scipy.stats.norm.cdf((unlearned - jnp.mean(shadows, 0)) / deviation(shadows, None, variance))


@partial(jax.jit, static_argnames=("variance",))
def online(unlearned: jax.Array, original: jax.Array, shadows: jax.Array, *, variance: str = "auto") -> jax.Array:
    """Computes the log-likelihood ratio of IN (one original model) against OUT (shadows); higher = member.

    It is unbounded. The IN Gaussian is centred at the original model's logit of the sample; its deviation is that of
    all the original model's logits, because one model allows no other estimate.

    Args:
      unlearned: [N] float32 carlini logits of the audited model.
      original: [N] of the original model.
      shadows: [S, N] float32, OUT.
      variance: of the OUT Gaussian.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.scores.families import lira
      >>> original, shadows = np.array([4.0, 6.0]), np.array([[0.0, 1.0], [2.0, 3.0]])
      >>> (lira.online(np.array([4.0, 2.0]), original, shadows) > 0).tolist()
      [True, False]
    """
    inside = jnp.maximum(jnp.std(original), FLOOR)
    return _log_ratio(unlearned, original, inside, jnp.mean(shadows, 0), deviation(shadows, None, variance))


@partial(jax.jit, static_argnames=("variance",))
def standard(unlearned: jax.Array, reference: jax.Array, member: jax.Array, *, variance: str = "auto") -> jax.Array:
    """Computes the standard online LiRA: the log-likelihood ratio of real IN and OUT models per sample, unbounded.

    Args:
      unlearned: [N] float32 carlini logits.
      reference: [K, N] float32 of models that trained on subsets of the samples.
      member: [K, N] bool; every sample needs a model that trained on it and one that did not.
      variance: of both Gaussians; auto depends on the models per side, K / 2.

    Returns:
      [N] float32; higher = more like a member.
    """
    if variance == "auto":
        variance = "per_sample" if reference.shape[0] // 2 >= FEW else "global"

    def side(mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        weights = mask.astype(jnp.float32)
        mean = jnp.sum(reference * weights, 0) / jnp.maximum(jnp.sum(weights, 0), 1.0)
        # A global deviation is taken around each sample's own mean: IN and OUT means differ between samples.
        residual = reference - mean
        return mean, deviation(residual, mask, variance)

    return _log_ratio(unlearned, *side(member), *side(~member))


def update(unlearned: Array, original: Array, shadows: Array, *, variance: str = "auto") -> jax.Array:
    """Computes the update attack, Phi((c_u - m) / d) - Phi((c_o - m) / d), in [-1, 1].

    Args:
      unlearned: [N] float32 carlini logits of the audited model.
      original: [N] of the original model.
      shadows: [S, N] float32, OUT.
      variance: of the OUT Gaussian, see `deviation`.

    Returns:
      [N] float32; higher = the sample's logit fell less.
    """
    return offline(unlearned, shadows, variance=variance) - offline(original, shadows, variance=variance)


def faithful_offline(unlearned: Array, shadows: Array, forget_type: str) -> np.ndarray:
    """Computes the published offline score as membership, float64.

    It is minus a two-sided log density, or for classes one tail.
    """
    mean, scale = _published_fit(shadows)
    if forget_type == "set_random":
        return -scipy.stats.norm.logpdf(_f64(unlearned), mean, scale)
    return scipy.stats.norm.cdf(_f64(unlearned), mean, scale)


def faithful_online(unlearned: Array, original: Array, shadows: Array) -> np.ndarray:
    """Computes the published online score as membership, float64, with its IN deviation of 1e-30."""
    mean, scale = _published_fit(shadows)
    outside = scipy.stats.norm.logpdf(_f64(unlearned), mean, scale)
    return scipy.stats.norm.logpdf(_f64(unlearned), _f64(original), 1e-30) - outside


def faithful_update(unlearned: Array, original: Array, shadows: Array) -> np.ndarray:
    """Computes the published update attack as membership, float64, in [-1, 1]; three-valued with one shadow."""
    mean, scale = _published_fit(shadows)
    after = scipy.stats.norm.cdf(_f64(unlearned), mean, scale)
    return after - scipy.stats.norm.cdf(_f64(original), mean, scale)


def median_online(
    target: Array, reference: Array, member: Array, *, variance: str = "global"
) -> np.ndarray:  # fmt: skip
    """Computes online LiRA by medians over several views of each sample, as in the reminiscence attack; float64.

    Args:
      target: [N, K] carlini logits of the audited model, K augmented views of every sample.
      reference: [S, N, K] of shadow models.
      member: [S, N] bool, which of them trained on which sample. Each side uses its first n models, n being the number
        for the sample with the fewest.
      variance: "global" (one deviation of all samples and views, published) or "per_sample".

    Returns:
      [N] mean over views of the log-likelihood ratio of IN against OUT, finite; higher = more like a member.

    Raises:
      DataError: a sample that all shadow models trained on, or none.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.scores.families import lira
      >>> reference, member = np.array([[[3.0], [0.0]], [[0.0], [3.0]]]), np.array([[True, False], [False, True]])
      >>> (lira.median_online(np.array([[3.0], [0.0]]), reference, member) > 0).tolist()
      [True, False]
    """
    inside, outside = _sides(target, reference, member)
    return (_median_log(target, inside, variance) - _median_log(target, outside, variance)).mean(-1)


def _sides(target: Array, reference: Array, member: Array) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits [n, N, K] of the first n models that trained on each sample, and of the first that did not."""
    values, trained = _f64(reference), np.asarray(member, bool)
    checks.shape("NK SNK SN", target=target, reference=values, member=trained)
    sides = []
    for name, side in (("trained", trained), ("did not train", ~trained)):
        minimum = int(side.sum(0).min(initial=len(side)))
        if not minimum:
            raise errors.DataError(f"there is a sample that no shadow model {name} on; LiRA needs both kinds.")
        order = np.argsort(~side, axis=0, kind="stable")[:minimum]
        sides.append(np.take_along_axis(values, order[..., None], 0))
    return sides[0], sides[1]


def _median_log(target: Array, values: np.ndarray, variance: str) -> np.ndarray:
    """Computes the log density [N, K] at the median of models [n, N, K]; the deviation has a floor."""
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
    """Computes the log-likelihood ratio of two Gaussians that does not rise again as a logit falls.

    Far enough below both means the wider Gaussian has the higher density. Where that is IN, a sample that the model was
    driven away from would look like a member: below the minimum of the ratio (or the OUT mean, if that is lower) the
    ratio is constant.
    """
    curvature = 1 / outside_std**2 - 1 / inside_std**2
    minimum = (outside / outside_std**2 - inside / inside_std**2) / jnp.where(curvature > 0, curvature, 1.0)
    values = jnp.where(curvature > 0, jnp.maximum(values, jnp.minimum(minimum, outside)), values)
    return _log_density(values, inside, inside_std) - _log_density(values, outside, outside_std)


def _log_density(values: jax.Array, mean: jax.Array, deviation: jax.Array) -> jax.Array:
    z = (values - mean) / deviation
    return -0.5 * z * z - jnp.log(deviation)
