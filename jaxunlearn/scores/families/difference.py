"""LDiff: how unusual the difference between the original and the unlearned model is among population samples.

Source: IAM, section on differences. Published as unlearning scores (high = unlearned); here minus those.
"""

import jax
import jax.numpy as jnp


@jax.jit
def ldiff(
    unlearned: jax.Array, original: jax.Array, population_unlearned: jax.Array, population_original: jax.Array
) -> jax.Array:
    """Computes LDiff membership in [0, 1]: how unusual a sample's carlini logit and its fall are in the population.

    It is the mean of the change of the Gaussian tail between the two models and of the Laplace tail of c_u - c_o, both
    fitted to population samples.

    Args:
      unlearned: [N] float32 carlini logits of the audited model.
      original: [N] of the original model.
      population_unlearned: [P] float32 of the audited model, P >= 2.
      population_original: [P] of the original model.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.scores.families import difference
      >>> population = np.array([-1.0, 0.0, 1.0])
      >>> score = difference.ldiff(np.array([0.0, 0.0]), np.array([0.0, 5.0]), population, population)
      >>> [round(value, 2) for value in score.tolist()]  # the second sample's logit fell
      [0.5, 0.13]
    """
    mean, deviation = jnp.mean(population_unlearned), jnp.maximum(jnp.std(population_unlearned, ddof=1), 1e-10)
    change = population_unlearned - population_original
    median = jnp.median(change)
    scale = jnp.maximum(jnp.mean(jnp.abs(change - median)), 1e-10)

    def tail(values: jax.Array) -> jax.Array:
        return 1.0 - jax.scipy.stats.norm.cdf((values - mean) / deviation)

    gaussian = (tail(unlearned) - tail(original) + 1.0) / 2.0
    laplace = 1.0 - jax.scipy.stats.laplace.cdf((unlearned - original - median) / scale)
    return 1.0 - (gaussian + laplace) / 2.0
