"""Inputs of a network: normalised rows, flips, crops, AutoAugment."""

from jaxunlearn.data.augmentation import augment

__all__ = ["augment"]
