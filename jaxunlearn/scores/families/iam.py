"""IAM: where does the unlearned model's signal lie on the way from "never seen" to "trained on"?

Between the OUT signals s of the shadows and the IN level o, I - 1 interpolated distributions are placed: at level a the
observation of shadow i is x = (1 - a) s_i + a o. The membership score is the weighted mean over levels of the CDF value
of the unlearned model's signal u under the distribution of x:

    membership = sum_k w_k F_k(u) / sum_k w_k,    a_k = k / (I - 1),  w_k = a_{k+1},  k = 0 .. I - 2

(the published weight belongs to the next level, so level 0 counts least and the fully IN level is left out).

x is affine in a, so mean and variance at every level follow from three moments; no [S, I, N] array exists. The sum runs
in a scan. ecdf and kde need the shadows at each level: [S, N] at a time.

A pooled standard deviation includes the variation between samples, so a score depends on the other audited samples:
score the whole set in one call (subsets have other moments).

Source: IAM, section on interpolated approximate measurement (reference: interpolate_appro; `fix_variance` True is
std="pooled"). Differs: a pooled deviation of 0 counts as 1e-10 (published: NaN), more than 128 shadows are all used.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.scipy.special import erf

from jaxunlearn.records import Array

FAMILIES = ("gumbel", "norm", "ecdf", "beta", "kde")
STDS = ("pooled", "per_sample")
EULER = 0.5772  # four digits, as published
SMALL = 1e-10


def interpolate(
    fitting: Array,
    unlearned: Array,
    shadows: Array,
    *,
    interpolation_steps: int = 100,
    family: str = "gumbel",
    std: str = "pooled",
) -> Array:
    """Computes the membership score in [0, 1]; higher = the sample still looks trained on.

    Completeness of unlearning = 1 - score.

    Args:
      fitting: [N] float32 IN level o: the original model's signal (IAM-On), or a repeated constant (IAM-Off).
      unlearned: [N] float32 signal u of the audited model.
      shadows: [S, N] float32 OUT signals.
      interpolation_steps: I >= 2; 2 means no interpolation.
      family: gumbel, norm, ecdf, beta (signals in [0, 1]) or kde.
      std: pooled = one standard deviation per level over shadows and samples; per_sample = over shadows. Always pooled
        if there is one shadow.

    Returns:
      [N] float32. All families but beta are one jitted kernel; beta's incomplete integrals, with parameters up to 1e9
      where a deviation vanishes, need float64 and run in SciPy on the host.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.scores.families import iam
      >>> original, shadows = np.array([0.9, 0.8]), np.array([[0.3, 0.2], [0.4, 0.1]])
      >>> score = iam.interpolate(original, np.array([0.9, 0.15]), shadows, interpolation_steps=20)
      >>> bool(score[0] > score[1])  # the first sample still looks trained on
      True
    """
    std = "pooled" if shadows.shape[0] == 1 else std
    if family == "beta":
        return _interpolate_beta(
            np.asarray(fitting), np.asarray(unlearned), np.asarray(shadows), interpolation_steps, std
        )
    return _interpolate(
        jnp.asarray(fitting), jnp.asarray(unlearned), jnp.asarray(shadows), interpolation_steps, family, std
    )


@partial(jax.jit, static_argnames=("interpolation_steps", "family", "std"))
def _interpolate(
    fitting: jax.Array, unlearned: jax.Array, shadows: jax.Array, interpolation_steps: int, family: str, std: str
) -> jax.Array:
    shadows = shadows.astype(jnp.float32)
    fitting, unlearned = fitting.astype(jnp.float32), unlearned.astype(jnp.float32)
    # Only differences to the shadows' centre matter; centring keeps float32 variances exact.
    center = jnp.mean(shadows)
    shadows, fitting, unlearned = shadows - center, fitting - center, unlearned - center
    mean = jnp.mean(shadows, 0)
    shadow_std = jnp.std(shadows, 0)
    fitting_offset = fitting - jnp.mean(fitting)
    mean_offset = mean - jnp.mean(mean)
    var_shadow = jnp.mean(shadow_std**2) + jnp.mean(mean_offset**2)
    var_fitting, covariance = jnp.mean(fitting_offset**2), jnp.mean(fitting_offset * mean_offset)

    def at_level(total: jax.Array, k: jax.Array) -> tuple[jax.Array, None]:
        a, weight = k / (interpolation_steps - 1), (k + 1) / (interpolation_steps - 1)
        variance = (1 - a) ** 2 * var_shadow + a**2 * var_fitting + 2 * a * (1 - a) * covariance
        # float32 moments may leave a variance slightly below zero.
        pooled = jnp.sqrt(jnp.maximum(variance, 0.0))
        deviation = jnp.maximum((1 - a) * shadow_std, 0.0) if std == "per_sample" else pooled
        center_k = (1 - a) * mean + a * fitting
        if family == "gumbel":
            value = _gumbel(unlearned, center_k, jnp.maximum(deviation, SMALL))
        elif family == "norm":
            value = _normal((unlearned - center_k) / jnp.maximum(deviation, SMALL))
        else:
            interpolated = shadows + a * (fitting - shadows)
            if family == "ecdf":
                value = jnp.mean(interpolated <= unlearned, 0, dtype=jnp.float32)
            else:
                value = jnp.mean(_normal((unlearned - interpolated) / jnp.maximum(deviation, SMALL)), 0)
        return total + weight * value, None

    steps = jnp.arange(interpolation_steps - 1, dtype=jnp.float32)
    start = jnp.zeros_like(unlearned)
    # Nine steps per kernel save launches on a GPU; on a CPU they only lengthen compiling.
    unroll = 1 if jax.default_backend() == "cpu" else min(9, interpolation_steps - 1)
    total, _ = jax.lax.scan(at_level, start, steps, unroll=unroll)
    return jnp.clip(total / jnp.sum((steps + 1) / (interpolation_steps - 1)), 0.0, 1.0)


def _gumbel(u: jax.Array, mean: jax.Array, deviation: jax.Array) -> jax.Array:
    scale = jnp.sqrt(jnp.float32(6.0)) / jnp.pi * deviation
    return jnp.exp(-jnp.exp(-(u - mean) / scale - EULER))


def _normal(z: jax.Array) -> jax.Array:
    return 0.5 * (1.0 + erf(z / jnp.sqrt(jnp.float32(2.0))))


def _interpolate_beta(
    fitting: np.ndarray, unlearned: np.ndarray, shadows: np.ndarray, interpolation_steps: int, std: str
) -> np.ndarray:
    """Computes the score in float64 with Beta distributions matched to mean and variance; [N] at a time."""
    fitting, unlearned, shadows = (values.astype(np.float64) for values in (fitting, unlearned, shadows))
    mean, shadow_std = shadows.mean(0), shadows.std(0)
    covariance = np.cov(mean, fitting, ddof=0) if len(mean) > 1 else np.zeros((2, 2))
    total, weights = np.zeros_like(unlearned), 0.0
    for k in range(interpolation_steps - 1):
        a, weight = k / (interpolation_steps - 1), (k + 1) / (interpolation_steps - 1)
        variance = (1 - a) ** 2 * (np.mean(shadow_std**2) + covariance[0, 0]) + a**2 * covariance[1, 1]
        variance = np.maximum(variance + 2 * a * (1 - a) * covariance[0, 1], 0.0)
        variance = variance if std == "pooled" else ((1 - a) * shadow_std) ** 2
        value = _beta(unlearned, (1 - a) * mean + a * fitting, variance)
        total, weights = total + weight * value, weights + weight
    return np.clip(total / weights, 0.0, 1.0).astype(np.float32)


def _beta(u: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    mean = np.clip(mean, SMALL, 1 - SMALL)
    total = np.maximum(mean * (1 - mean) / np.where(variance == 0, SMALL, variance) - 1, SMALL)
    a, b = np.maximum(mean * total, SMALL), np.maximum((1 - mean) * total, SMALL)
    return np.where(u >= 1, 1.0, scipy.special.betainc(a, b, np.clip(u, 0.0, 1.0)))
