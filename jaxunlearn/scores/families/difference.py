"""Plain differences between the original and the unlearned model, and what the unlearned model shows by itself.

Source: IAM, section on differences. Published as unlearning scores (high = unlearned); here minus those.
"""

import jax
import jax.numpy as jnp


@jax.jit
def ldiff(
    unlearned: jax.Array, original: jax.Array, population_unlearned: jax.Array, population_original: jax.Array
) -> jax.Array:
    """LDiff membership in [0, 1]: how unusual the sample's carlini logit and its fall are among population samples.

    Half of it is the change of the Gaussian tail between the two models, half the Laplace tail of c_u - c_o, both
    fitted to population samples.

    Args:
      unlearned: [N] float32 carlini logits of the audited model.
      original: [N] of the original model.
      population_unlearned: [P] float32 of the audited model, P >= 2.
      population_original: [P] of the original model.
    """
    mean, deviation = jnp.mean(population_unlearned), jnp.maximum(jnp.std(population_unlearned, ddof=1), 1e-10)
    change = population_unlearned - population_original
    middle = jnp.median(change)
    scale = jnp.maximum(jnp.mean(jnp.abs(change - middle)), 1e-10)

    def tail(values: jax.Array) -> jax.Array:
        return 1.0 - jax.scipy.stats.norm.cdf((values - mean) / deviation)

    first = (tail(unlearned) - tail(original) + 1.0) / 2.0
    second = 1.0 - jax.scipy.stats.laplace.cdf((unlearned - original - middle) / scale)
    return 1.0 - (first + second) / 2.0
