"""Cost of one sample in a network: parameters, arithmetic, and output sizes of the convolutions.

The forward pass is traced over abstract values (nothing is computed) and the convolutions and matrix products of the
trace are counted, each multiply-add as 2 operations and border positions like all others; element-wise work is not
counted. Forward pass and both gradients together cost about 3 times the forward figure.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxunlearn import trees


class Cost(NamedTuple):
    """Cost of one sample in one network, as integers."""

    parameters: int  # scalars in `params`
    forward_flops: int  # operations per sample, multiply-add = 2
    largest_conv_flops: int  # operations per sample of the most expensive convolution, 0 without any
    activations: int  # output elements of all convolutions per sample


def describe(module: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """Counts parameters, operations and convolution outputs of `module` for one sample.

    Args:
      module: a network; its convolutions are counted in native form, whatever form it was built with.
      input_shape: shape of one sample without the batch axis, e.g. (32, 32, 3).

    Returns:
      The `Cost`.

    Example:
      >>> from jaxunlearn import models, settings
      >>> network = models.build(settings.ModelSettings("cnn", width=4), num_classes=10)
      >>> cost = models.describe(network, (8, 8, 1))
      >>> cost.parameters, cost.forward_flops
      (2570, 45888)
    """
    native = module.clone(conv="native") if hasattr(module, "conv") else module
    inputs = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    variables = jax.eval_shape(native.init, jax.random.key(0), inputs)
    program = jax.make_jaxpr(native.apply)(variables, inputs)
    products = _products(program.jaxpr)
    convolutions = [(flops, size) for is_convolution, flops, size in products if is_convolution]
    return Cost(
        parameters=trees.count(variables["params"]),
        forward_flops=sum(flops for _, flops, _ in products),
        largest_conv_flops=max((flops for flops, _ in convolutions), default=0),
        activations=sum(size for _, size in convolutions),
    )


def _products(jaxpr: Any, times: int = 1) -> list[tuple[bool, int, int]]:
    """Returns (is convolution, operations, output elements) of every product, including those of inner programs."""
    products = []
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs = parameters["dimension_numbers"].rhs_spec[0]
            size = times * int(np.prod(equation.outvars[0].aval.shape))
            # The kernel's own channel axis is already divided by the number of groups.
            products.append((True, 2 * size * int(np.prod(kernel)) // kernel[outputs], size))
        elif name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            terms = int(np.prod([equation.invars[0].aval.shape[axis] for axis in contracted]))
            size = times * int(np.prod(equation.outvars[0].aval.shape))
            products.append((False, 2 * size * terms, size))
        inner_times = times * parameters["length"] if name == "scan" else times
        for value in jax.tree.leaves(list(parameters.values()), is_leaf=_is_program):
            if _is_program(value):
                products += _products(getattr(value, "jaxpr", value), inner_times)
    return products


def _is_program(value: Any) -> bool:
    return isinstance(value, (core.Jaxpr, core.ClosedJaxpr))
