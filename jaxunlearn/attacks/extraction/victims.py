"""Victims: (constants of the member, network inputs [B, ...]) -> log-probabilities [B, C]. Nothing else is known.

Victims are queried inside the engine's program, so that the clones of many victims are trained together; what differs
between victims (their weights) is in `constants` with a leading axis.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import errors

Victim = Callable[[Any, jax.Array], jax.Array]


def network(module: nn.Module) -> Victim:
    """Returns the victim of a flax network whose variables are `constants["victim"]`.

    Args:
      module: called as `module.apply(variables, inputs, train=False)` on network inputs.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxunlearn.attacks.extraction import victims
      >>> from jaxunlearn.models.architectures import dense
      >>> variables = {"params": {"Dense_0": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}}}
      >>> answers = victims.network(dense.Mlp(2))({"victim": variables}, jnp.ones((1, 3)))
      >>> jnp.exp(answers).tolist()
      [[0.5, 0.5]]
    """

    def ask(constants: Any, inputs: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(jnp.asarray(module.apply(constants["victim"], inputs, train=False)))

    return ask


def host(answer: Callable[[np.ndarray], np.ndarray], num_classes: int) -> Victim:
    """Returns a victim that is any Python function: a model of another framework, or a remote service.

    It is called back from within the compiled program, one batch at a time.

    Args:
      answer: inputs [B, ...] float32 -> log-probabilities [B, C].
      num_classes: C.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.extraction import victims
      >>> victim = victims.host(lambda inputs: np.log(np.full((len(inputs), 2), 0.5)), 2)
      >>> np.exp(victim((), np.ones((1, 3), np.float32))).tolist()
      [[0.5, 0.5]]
    """

    def query(inputs: jax.Array) -> np.ndarray:
        values = np.asarray(answer(np.asarray(inputs)), np.float32)
        if values.shape != (len(inputs), num_classes):
            raise errors.ShapeError(
                f"the victim answers with shape {values.shape}, expected {(len(inputs), num_classes)}."
            )
        return values

    def ask(constants: Any, inputs: jax.Array) -> jax.Array:
        shape = jax.ShapeDtypeStruct((inputs.shape[0], num_classes), jnp.float32)
        return jax.pure_callback(query, shape, inputs, vmap_method="sequential")

    return ask
