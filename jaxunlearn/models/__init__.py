"""Architectures: flax linen modules, written for one model; the population engine maps them over members.

Every module is called as `module.apply(variables, inputs, train=False, mask=None) -> logits [B, C] float32`, with
normalised float32 inputs. To add one, write a builder in the file of its family and one line in `MODELS`. For methods
that read hidden features, a module has an attribute `feature_paths`: paths of submodules from shallow to deep
("stage_3_block_1", "layer_3/query_key_value"), whose outputs are the features.
"""

import inspect
import numbers
from collections.abc import Callable

import flax.linen as nn

from jaxunlearn import checks, errors
from jaxunlearn.models.architectures import airbench, cnn, dense, language, resnet, small_data_vit, vit, wide_resnet
from jaxunlearn.models.cost import Cost, describe
from jaxunlearn.models.layers import blocks
from jaxunlearn.models.layers.conv import FORMS
from jaxunlearn.settings import ModelSettings

__all__ = ["Cost", "FORMS", "LANGUAGE", "MODELS", "build", "check_kind", "describe"]

# name -> builder(num_classes=..., conv=..., dtype=..., hidden=..., width=...)
MODELS: dict[str, Callable[..., nn.Module]] = {
    "logistic": dense.logistic,
    "logistic_sigmoid": dense.logistic_sigmoid,
    "mlp": dense.mlp,
    "mlp_tanh": dense.mlp_tanh,
    "purchase": dense.purchase,
    "texas": dense.texas,
    "location": dense.location,
    "cnn": cnn.cnn,
    "cnn_bn": cnn.cnn_bn,
    "scnn": cnn.scnn,
    "airbench": airbench.airbench,
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "vgg11": cnn.vgg11,
    "vgg16": cnn.vgg16,
    "vgg16_bn": cnn.vgg16_bn,
    "vgg16_imagenet": cnn.vgg16_imagenet,
    "vit": vit.vit,
    "vit_s16": vit.vit_s16,
    "vit_small_data": small_data_vit.vit_small_data,
    "wrn28_2": wide_resnet.wrn28_2,
    "wrn40_2": wide_resnet.wrn40_2,
    "lm": language.lm,
    "lm_rotary": language.lm_rotary,
}
LANGUAGE = ("lm", "lm_rotary")  # these read tokens and return logits [B, T, V]
_OPTIONS = ("num_classes", "conv", "dtype", "hidden", "width")


def build(settings: ModelSettings | str, num_classes: int, conv: str = "native", dtype: str | None = None) -> nn.Module:
    """Builds the network of `model` settings.

    Args:
      settings: a name (in `MODELS`, or `my_module:my_builder`), or ModelSettings with name, hidden, width, dtype.
      num_classes: number of logits.
      conv: form of the convolutions, one of `FORMS`. Changes speed only.
      dtype: "float32" or "bfloat16", type of the arithmetic; None = that of the settings.

    Returns:
      A linen module with `__call__(inputs, train=False, mask=None) -> logits [B, num_classes] float32`.

    Raises:
      ConfigError: unknown architecture, form or dtype; an option that the architecture does not use; a user's builder
        that does not take the options or does not return a module.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxunlearn import models, settings
      >>> network = models.build(settings.ModelSettings("mlp", hidden=(8,)), num_classes=3)
      >>> variables = network.init(jax.random.key(0), jnp.ones((1, 4)))
      >>> network.apply(variables, jnp.ones((5, 4))).shape
      (5, 3)
    """
    if isinstance(settings, str):
        settings = ModelSettings(name=settings)
    if not isinstance(settings, ModelSettings):
        raise errors.ConfigError(f"a network is built from a name or ModelSettings, not from {settings!r}.")
    hidden = (settings.hidden,) if isinstance(settings.hidden, numbers.Integral) else tuple(settings.hidden)
    if not all(isinstance(width, numbers.Integral) for width in hidden):
        raise errors.ConfigError(f"hidden = {settings.hidden!r}: expected the widths of the hidden layers, (64, 32).")
    builder = checks.lookup("model", settings.name, MODELS)
    checks.choice("convolution form", conv, FORMS)
    dtype = settings.dtype if dtype is None else dtype
    checks.choice("model.dtype", dtype, ("float32", "bfloat16"))
    checks.in_range("num_classes", num_classes, low=1)
    _check_signature(settings.name, builder)
    with checks.users_code(f"model {settings.name}", None if settings.name in MODELS else builder):
        module = builder(num_classes=num_classes, conv=conv, dtype=dtype, hidden=hidden, width=settings.width)
    if not isinstance(module, nn.Module):
        raise errors.ConfigError(
            f"model {settings.name!r} returned {type(module).__name__}, expected a flax.linen Module."
        )
    return module


def check_kind(name: str, reads_texts: bool) -> None:
    """Refuses a language model for data that are not texts, and any other architecture of `MODELS` for texts.

    Raises:
      ConfigError: architecture and data do not fit.

    Example:
      >>> from jaxunlearn import models
      >>> models.check_kind("lm", reads_texts=True)
      >>> models.check_kind("lm", reads_texts=False)
      Traceback (most recent call last):
      ...
      jaxunlearn.errors.ConfigError: model.name = 'lm' does not read rows that are not texts; choose one of ...
    """
    if name in MODELS and (name in LANGUAGE) != reads_texts:
        kind = "texts" if reads_texts else "rows that are not texts"
        alternatives = LANGUAGE if reads_texts else ("mlp", "cnn", "resnet18")
        raise errors.ConfigError(
            f"model.name = {name!r} does not read {kind}; choose one of {', '.join(alternatives)}."
        )


def _check_signature(name: str, builder: Callable[..., nn.Module]) -> None:
    """Raises a ConfigError if a builder does not take the options; TypeErrors inside it stay what they are."""
    try:
        inspect.signature(builder).bind(**dict.fromkeys(_OPTIONS))
    except TypeError as error:
        raise errors.ConfigError(
            f"model {name!r} cannot be called as builder({', '.join(f'{option}=...' for option in _OPTIONS)}): {error}."
        ) from error
