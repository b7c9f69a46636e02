"""Inputs of a network: raw rows to normalised float32, with random flips, crops and greying during training.

    raw -> [flip] -> [black border, random crop] -> [grey] -> (raw / scale - mean) / std
    raw -> AutoAugment -> mirrored border, random crop -> flip -> (raw / scale - mean) / std      "autoaugment"

Written for ONE member, undecorated, to run inside the training step under `jit` and `vmap`. The border is added before
normalisation, so it is black and not the mean colour. Row j's draw is a function of (key, j): it does not depend on the
batch size, and rows do not affect each other (a NaN stays in its row).

Source: training transforms of the CIFAR recipes of the IAM reference (flip with p = 0.5, zero padding 4, random crop).
CINIC-10's recipe crops first and flips then, which has the same distribution. `flip_crop_gray` is the training
transform of the conformal unlearning reference: one picture in ten becomes L = 0.2989 R + 0.587 G + 0.114 B in all
three channels, cut to whole numbers for 8-bit pictures, as torchvision does with tensors (Pillow's pictures, which the
reference transforms, it rounds: a difference of at most 1 in 255). `autoaugment` is the training transform of the
"Forget with Precision" reference: the policy for CIFAR-10 (`autoaugment.py`), padding 4 by reflection, crop, flip.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.data.augmentation import autoaugment
from jaxunlearn.records import Dataset

KINDS = ("none", "flip", "crop", "flip_crop", "flip_crop_gray", "autoaugment")
GRAY_FRACTION = 0.1

Prepare = Callable[[jax.Array, jax.Array | None, bool], jax.Array]


def prepare(dataset: Dataset, augment: str = "none", pad: int = 4) -> Prepare:
    """Builds the function that turns raw rows on the device into inputs of the network.

    Args:
      dataset: its scale, mean, std and number of axes are used; its arrays are not captured.
      augment: none, flip (horizontal, p = 0.5), crop (random position in the padded picture), flip_crop,
        flip_crop_gray (then grey with p = 0.1; a picture of one channel is grey already and stays as it is), or
        autoaugment (a random pair of operations, crop, flip; 8-bit pictures of three channels).
      pad: pixels added on each side before a crop, at least 0: black, or mirrored for autoaugment.

    Returns:
      `fn(inputs [B, ...] uint8 or float32, key, train) -> [B, ...] float32`. `train` is a Python bool; without it (or
      with augment "none") the key is not read and may be None. Token ids of texts pass as they are.

    Raises:
      ConfigError: unknown kind, negative pad, augmentation of rows that are not pictures, or greying of pictures that
        have neither one nor three channels, or autoaugment of pictures that are not uint8 with three channels.

    Example:
      >>> import jax
      >>> from jaxunlearn import data, settings
      >>> from jaxunlearn.data.augmentation import augment
      >>> digits = data.load(settings.DataSettings(name="digits"))
      >>> prepare = augment.prepare(digits, "crop", pad=1)
      >>> inputs = prepare(digits.inputs[:4], jax.random.key(0), True)
      >>> inputs.shape, inputs.dtype.name
      ((4, 8, 8, 1), 'float32')
    """
    checks.choice("data.augment", augment, KINDS)
    checks.in_range("data.pad", pad, 0)
    if augment != "none" and len(dataset.inputs.shape) != 4:
        raise errors.ConfigError(
            f"data.augment = {augment!r} needs pictures, but rows of {dataset.name!r} have shape "
            f"{tuple(dataset.inputs.shape[1:])}. Set --config.data.augment=none."
        )
    channels = dataset.inputs.shape[-1]
    if "gray" in augment and channels not in (1, 3):
        raise errors.ConfigError(
            f"data.augment = {augment!r} turns red, green and blue into grey, but pictures of {dataset.name!r} have "
            f"{channels} channels. Set --config.data.augment=flip_crop."
        )
    if augment == "autoaugment" and (channels != 3 or dataset.inputs.dtype != np.uint8):
        raise errors.ConfigError(
            f"data.augment = 'autoaugment' works on red, green and blue bytes, but pictures of {dataset.name!r} have "
            f"{channels} channel(s) of {dataset.inputs.dtype}. Set --config.data.augment=flip_crop."
        )
    if dataset.vocabulary:
        return lambda inputs, key, train: inputs
    scale, mean, std = dataset.scale, dataset.mean, dataset.std

    def fn(inputs: jax.Array, key: jax.Array | None, train: bool) -> jax.Array:
        if train and augment != "none":
            inputs = _augmented(inputs, key, augment, pad)
        return normalise(inputs, scale, mean, std)

    return fn


def normalise(inputs: jax.Array, scale: float, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()) -> jax.Array:
    """Computes (inputs / scale - mean) / std in float32; with empty mean and std inputs / scale.

    Args:
      inputs: [B, ..., C] uint8 or float32.
      scale: divisor of raw inputs.
      mean: C values in scaled units, or empty.
      std: as many as mean.
    """
    values = inputs.astype(jnp.float32) / jnp.float32(scale)
    if not mean:
        return values
    return (values - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def _augmented(inputs: jax.Array, key: jax.Array | None, augment: str, pad: int) -> jax.Array:
    if key is None:
        raise errors.ConfigError(f"data.augment = {augment!r} draws at random in training, but no key was given.")
    is_auto = augment == "autoaugment"
    rows = jnp.arange(inputs.shape[0])
    # All words of a row from one call: key derivation costs more than the bits.
    words = 3 + autoaugment.WORDS if is_auto else 3
    bits = jax.vmap(lambda row: jax.random.bits(jax.random.fold_in(key, row), (words,)))(rows)
    if is_auto:
        inputs = autoaugment.transform(inputs, bits[:, 3:])
        return _flipped(_cropped(inputs, bits[:, 1:3], pad, "reflect"), bits[:, 0])
    if "flip" in augment:
        inputs = _flipped(inputs, bits[:, 0])
    if "crop" in augment:
        inputs = _cropped(inputs, bits[:, 1:], pad)
    if "gray" in augment and inputs.shape[-1] == 3:
        # The flip has used one bit of its word; the other 31 decide here, so that flips and crops stay what they are.
        is_gray = (bits[:, 0] >> 1) < jnp.uint32(int(GRAY_FRACTION * 2**31))
        inputs = jnp.where(is_gray[:, None, None, None], _gray(inputs), inputs)
    return inputs


def _flipped(inputs: jax.Array, bits: jax.Array) -> jax.Array:
    """Mirrors the rows whose word [B] ends in a one, left to right."""
    is_flipped = (bits & 1).astype(bool)[:, None, None, None]
    return jnp.where(is_flipped, inputs[:, :, ::-1, :], inputs)


def _gray(inputs: jax.Array) -> jax.Array:
    """Returns pictures [B, H, W, 3] with their luminance in every channel, in the dtype of the inputs."""
    red, green, blue = (inputs[..., channel].astype(jnp.float32) for channel in range(3))
    luminance = 0.2989 * red + 0.587 * green + 0.114 * blue
    return jnp.broadcast_to(luminance.astype(inputs.dtype)[..., None], inputs.shape)


def _cropped(inputs: jax.Array, bits: jax.Array, pad: int, border: str = "constant") -> jax.Array:
    """Cuts each row's own window out of its padded picture; 2 pad + 1 positions per axis, equally likely.

    `border` is a mode of `jnp.pad`: constant (black) or reflect (mirrored at the outermost pixels).
    """
    if pad == 0:
        return inputs
    # The remainder of a 32-bit number is uneven by 2e-9 at most.
    starts = (bits % jnp.uint32(2 * pad + 1)).astype(jnp.int32)
    padded = jnp.pad(inputs, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode=border)
    shape = inputs.shape[1:]
    return jax.vmap(lambda row, start: jax.lax.dynamic_slice(row, (start[0], start[1], 0), shape))(padded, starts)
