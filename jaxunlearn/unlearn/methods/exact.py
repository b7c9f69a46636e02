"""Exact unlearning: networks that never saw the forget set.

    retrain   a new network on the retained samples
    sisa      one network per shard of the data, each trained on a growing number of slices; their answers are averaged

Source: SISA is Bourtoule et al., "Machine unlearning", 2021.
"""

from collections.abc import Callable

import numpy as np

from jaxunlearn import checks
from jaxunlearn.unlearn.base.method import GradientStep, MemberRows, Method, Phase, Scalar, StreamSpec
from jaxunlearn.unlearn.blocks import schedules, transforms
from jaxunlearn.unlearn.methods import descent

SHARD_SEED = 20211  # fixed, so that every forget set finds the same shards


def _trained(lr: Scalar, epochs: int, momentum: Scalar, weight_decay: Scalar, reads: StreamSpec, start: str) -> Phase:
    """Ordinary training; the rate falls as a cosine, once per epoch. BatchNorm learns as in any training."""
    step = transforms.sgd(lr, momentum, weight_decay, schedule=schedules.cosine(max(epochs, 1)))
    return Phase(step, (GradientStep(descent.retain_loss),), {"retain": reads}, epochs, start=start, mode="train")


def retrain(
    lr: float = 0.05, epochs: int = 20, momentum: float = 0.9, weight_decay: float = 5e-4, batch: int = 0
) -> Method:
    """Trains a new network on the retained samples alone: the answer that all other methods approximate."""
    return Method((_trained(lr, epochs, momentum, weight_decay, StreamSpec("retain", batch), "fresh"),), "faithful")


def assignment(member_rows: MemberRows, shards: int, slices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The training rows in ascending order, the shard and the slice of each (within its shard).

    By the places of the rows in a permutation that does not depend on what is forgotten: sizes differ by one at most,
    and every forget set of one original model finds the same shards.
    """
    rows = np.sort(np.concatenate([member_rows.retain, member_rows.forget]))
    order = np.random.default_rng(SHARD_SEED).permutation(len(member_rows.labels))
    place = np.argsort(np.argsort(order[rows]))
    shard, within = place % shards, place // shards
    size = np.bincount(shard, minlength=shards)[shard]
    return rows, shard, within * slices // np.maximum(size, 1)


def slices_up_to(last: int, shards: int, slices: int) -> Callable[[MemberRows], np.ndarray]:
    """Rows: what is retained of slices 0..last of the member's shard."""

    def rows(member_rows: MemberRows) -> np.ndarray:
        every, shard, number = assignment(member_rows, shards, slices)
        own = every[(shard == member_rows.submodel) & (number <= last)]
        return own[np.isin(own, member_rows.retain)]

    return rows


def sisa(lr: float = 0.05, epochs: int = 40, shards: int = 4, slices: int = 2, momentum: float = 0.9,
         weight_decay: float = 5e-4, batch: int = 0) -> Method:  # fmt: skip
    """Trains one new network per shard on its retained samples, slice by slice, and averages their probabilities.

    `epochs` are passes over a whole shard; each of the R slices gets 2 / (R + 1) of them over the slices so far, which
    is the same number of steps. All shards are trained here, whether they lost samples or not; the saving of SISA is
    that a deployed one would only retrain from the first slice that lost any.

    Raises:
      ConfigError: shards or slices below 1.
    """
    checks.in_range("shards", shards, 1)
    checks.in_range("slices", slices, 1)
    each = max(round(2 * epochs / (slices + 1)), min(epochs, 1))

    def slice_of(number: int) -> Phase:
        reads = StreamSpec(slices_up_to(number, shards, slices), batch)
        return _trained(lr, each, momentum, weight_decay, reads, "current" if number else "fresh")

    return Method(tuple(slice_of(number) for number in range(slices)), "faithful", shards)
