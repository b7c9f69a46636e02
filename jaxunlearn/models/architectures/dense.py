"""Dense networks: logistic regression and the tanh and ReLU networks of the tabular audits.

    logistic    F - C; `logistic_sigmoid` with a sigmoid behind it, as Unlearning-Leaks has it
    mlp         F - hidden - C, ReLU; hidden 256, 128 by default; `mlp_tanh` with tanh
    purchase    600-1024-512-256-128-100, tanh: 1,317,348 parameters (the IAM seed's Purchase classifier)
    texas       6169-1024-512-256-128-100, tanh: the widths that public membership-inference code uses for it. The IAM
                seed ships none.
    location    446-256-128-30, tanh. The IAM seed ships none.

Pictures are flattened. The head is float32 even under bfloat16, so logits keep their digits.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxunlearn.models.layers import blocks, options

_ACTIVATIONS = {"relu": nn.relu, "tanh": jnp.tanh}


class Mlp(nn.Module):
    """Dense layers with one activation between them; without hidden layers, logistic regression."""

    num_classes: int
    hidden: tuple[int, ...] = ()
    activation: str = "relu"
    dtype: str = "float32"
    squashed: bool = False  # a sigmoid behind the head

    @property
    def feature_paths(self) -> tuple[str, ...]:
        """Returns the paths of the last three hidden layers, before their activation."""
        return tuple(f"Dense_{index}" for index in range(len(self.hidden)))[-3:]

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """Maps inputs [B, ...] float32 (flattened), mask [B] bool (False = padding), to logits [B, C] float32."""
        del train  # nothing here differs between training and evaluation
        hidden = blocks.features(inputs, mask)
        for width in self.hidden:
            hidden = _ACTIVATIONS[self.activation](blocks.Dense(width, self.dtype)(hidden))
        logits = blocks.Dense(self.num_classes)(hidden)
        return nn.sigmoid(logits) if self.squashed else logits


def logistic(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
             width: int = 0) -> nn.Module:  # fmt: skip
    """Builds logistic regression: one dense layer.

    Args:
      num_classes: number of logits.
      conv: not used: there is no convolution.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: not used; must be 0.
    """
    options.reject_unused_options("logistic", hidden=hidden, width=width)
    return Mlp(num_classes, (), dtype=dtype)


def logistic_sigmoid(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
                     width: int = 0) -> nn.Module:  # fmt: skip
    """Builds one dense layer and a sigmoid, whose outputs serve as logits (LRTorch of Unlearning-Leaks).

    Args:
      num_classes: number of logits.
      conv: not used: there is no convolution.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: not used; must be 0.
    """
    options.reject_unused_options("logistic_sigmoid", hidden=hidden, width=width)
    return Mlp(num_classes, (), dtype=dtype, squashed=True)


def mlp(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
        width: int = 0) -> nn.Module:  # fmt: skip
    """Builds a ReLU network.

    Args:
      num_classes: number of logits.
      conv: not used: there is no convolution.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: widths of the hidden layers; () = (256, 128).
      width: not used; must be 0.
    """
    options.reject_unused_options("mlp", width=width)
    return Mlp(num_classes, options.widths(hidden) or (256, 128), "relu", dtype)


def mlp_tanh(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
             width: int = 0) -> nn.Module:  # fmt: skip
    """Builds a tanh network.

    Args:
      num_classes: number of logits.
      conv: not used: there is no convolution.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: widths of the hidden layers; () = (256, 128).
      width: not used; must be 0.
    """
    options.reject_unused_options("mlp_tanh", width=width)
    return Mlp(num_classes, options.widths(hidden) or (256, 128), "tanh", dtype)


def purchase(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
             width: int = 0) -> nn.Module:  # fmt: skip
    """Builds the classifier of Purchase-100.

    Args:
      num_classes: number of logits.
      conv: not used: there is no convolution.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: not used; must be 0.
    """
    options.reject_unused_options("purchase", hidden=hidden, width=width)
    return Mlp(num_classes, (1024, 512, 256, 128), "tanh", dtype)


def texas(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
          width: int = 0) -> nn.Module:  # fmt: skip
    """Builds the classifier of Texas-100.

    Args:
      num_classes: number of logits.
      conv: not used: there is no convolution.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: not used; must be 0.
    """
    options.reject_unused_options("texas", hidden=hidden, width=width)
    return Mlp(num_classes, (1024, 512, 256, 128), "tanh", dtype)


def location(num_classes: int, conv: str = "native", dtype: str = "float32", hidden: tuple[int, ...] = (),
             width: int = 0) -> nn.Module:  # fmt: skip
    """Builds the classifier of Location-30.

    Args:
      num_classes: number of logits.
      conv: not used: there is no convolution.
      dtype: type of the arithmetic, "float32" or "bfloat16".
      hidden: not used; must be empty.
      width: not used; must be 0.
    """
    options.reject_unused_options("location", hidden=hidden, width=width)
    return Mlp(num_classes, (256, 128), "tanh", dtype)
