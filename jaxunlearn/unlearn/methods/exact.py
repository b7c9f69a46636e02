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


def _training(
    lr: Scalar, epochs: int, momentum: Scalar, weight_decay: Scalar, stream_spec: StreamSpec, start: str
) -> Phase:
    """Returns a phase of ordinary training, BatchNorm included; the rate falls as a cosine, once per epoch."""
    step = transforms.sgd(lr, momentum, weight_decay, schedule=schedules.cosine(max(epochs, 1)))
    return Phase(step, (GradientStep(descent.retain_loss),), {"retain": stream_spec}, epochs, start=start, mode="train")


def retrain(
    lr: float = 0.05, epochs: int = 20, momentum: float = 0.9, weight_decay: float = 5e-4, batch: int = 0
) -> Method:
    """Trains a new network on the retained samples alone: the answer that all other methods approximate.

    Args:
      lr, momentum, weight_decay: of SGD; the rate falls as a cosine, once per epoch.
      epochs: passes over the retained set.
      batch: rows per step, 0 = the run's.
    """
    return Method((_training(lr, epochs, momentum, weight_decay, StreamSpec("retain", batch), "fresh"),), "faithful")


def assignment(member_rows: MemberRows, shards: int, slices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the training rows in ascending order, the shard of each, and its slice within the shard.

    They follow from a permutation that does not depend on what is forgotten: sizes differ by one at most, and every
    forget set of one original model finds the same shards.
    """
    rows = np.sort(np.concatenate([member_rows.retain, member_rows.forget]))
    order = np.random.default_rng(SHARD_SEED).permutation(len(member_rows.labels))
    positions = np.argsort(np.argsort(order[rows]))
    shard_ids, offsets = positions % shards, positions // shards
    sizes = np.bincount(shard_ids, minlength=shards)[shard_ids]
    return rows, shard_ids, offsets * slices // np.maximum(sizes, 1)


def slices_up_to(last: int, shards: int, slices: int) -> Callable[[MemberRows], np.ndarray]:
    """Returns a function for `StreamSpec.rows`: retained rows of slices 0..last of the member's shard."""

    def rows(member_rows: MemberRows) -> np.ndarray:
        all_rows, shard_ids, slice_ids = assignment(member_rows, shards, slices)
        shard_rows = all_rows[(shard_ids == member_rows.submodel) & (slice_ids <= last)]
        return shard_rows[np.isin(shard_rows, member_rows.retain)]

    return rows


def sisa(lr: float = 0.05, epochs: int = 40, shards: int = 4, slices: int = 2, momentum: float = 0.9,
         weight_decay: float = 5e-4, batch: int = 0) -> Method:  # fmt: skip
    """Trains one new network per shard on its retained samples, slice by slice, and averages their probabilities.

    All shards are trained here, whether they lost samples or not; a deployed SISA would only retrain from the first
    slice that lost any.

    Args:
      lr, momentum, weight_decay: of SGD; the rate falls as a cosine within each slice.
      epochs: passes over a whole shard; each of the R slices gets 2 / (R + 1) of them over the slices so far, which is
        the same number of steps.
      shards: networks of the ensemble.
      slices: R, per shard.
      batch: rows per step, 0 = the run's.

    Raises:
      ConfigError: shards or slices below 1.

    Example:
      >>> from jaxunlearn import unlearn
      >>> method = unlearn.exact.sisa(epochs=12, shards=4, slices=2)
      >>> method.ensemble, [phase.epochs for phase in method.phases]
      (4, [8, 8])
    """
    checks.in_range("shards", shards, 1)
    checks.in_range("slices", slices, 1)
    slice_epochs = max(round(2 * epochs / (slices + 1)), min(epochs, 1))

    def slice_phase(index: int) -> Phase:
        stream_spec = StreamSpec(slices_up_to(index, shards, slices), batch)
        return _training(lr, slice_epochs, momentum, weight_decay, stream_spec, "current" if index else "fresh")

    return Method(tuple(slice_phase(number) for number in range(slices)), "faithful", shards)
