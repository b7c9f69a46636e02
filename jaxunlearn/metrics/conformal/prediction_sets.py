"""What prediction sets are worth: coverage, set size, CR, recover ratio, on any groups of samples of any models.

    conformal.predict(...) -> Sets (per sample) -> summarise(sets, groups) -> Quality

Source: "Redefining Machine Unlearning: A Conformal Prediction-Motivated Approach" (CR, fake forgetting).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import checks


class Sets(NamedTuple):
    """What prediction sets say of every sample.

    Attributes:
      covered: [..., A, N] bool, the sample's own label is in its set.
      size: [..., A, N] int32, labels in the set.
      correct: [..., N] bool, the most probable label is the sample's own.
    """

    covered: jax.Array
    size: jax.Array
    correct: jax.Array


class Quality(NamedTuple):
    """What prediction sets are worth on a set of samples; NaN where there is no sample.

    Attributes:
      n: [...] samples; `accuracy`: [...] share whose most probable label is right.
      coverage: [..., A] share whose label is in its set: about 1 - alpha on data like the calibration data.
      set_size: [..., A] mean labels per set.
      cr: [..., A] coverage / set size in [0, 1]; NaN where all sets are empty. Forgotten samples: lower = better
        forgotten; retained and test samples: higher = more useful.
      empty: [..., A] number of empty sets.
      recover_ratio: [..., A] of the misclassified samples, the share whose label is in the set ("fake forgetting":
        lower = better forgotten); NaN where none is misclassified. `mistaken`: [...] how many are.
    """

    n: Any
    accuracy: Any
    coverage: Any
    set_size: Any
    cr: Any
    empty: Any
    recover_ratio: Any
    mistaken: Any


def summarise(sets: Sets, groups: Any = None) -> Quality:
    """Coverage, set size, CR and recover ratio.

    Args:
      sets: of one model or many.
      groups: None = all samples; [N] or [..., N] bool = some of them; [..., K, N] bool with one axis more than
        `sets.correct` = K groups (classes, say), an axis K before A in the result.
    """
    axes = np.ndim(sets.correct)
    chosen = np.ones(np.shape(sets.correct)[-1], bool) if groups is None else np.asarray(groups, bool)
    grouped = chosen.ndim == axes + 1
    full = (*np.shape(sets.correct)[:-1], *((chosen.shape[-2],) if grouped else (1,)), chosen.shape[-1])
    if not grouped and chosen.ndim:
        chosen = chosen[..., None, :]
    found = quality(count(sets, np.broadcast_to(chosen, full)))
    return found if grouped else Quality(*(np.take(leaf, 0, axes - 1) for leaf in found))


def of_classes(labels: Any, num_classes: int) -> np.ndarray:
    """[C, N] bool: the samples of each class, as `groups` of `summarise`."""
    checks.labels("labels", labels, num_classes)
    return np.asarray(labels)[None] == np.arange(num_classes)[:, None]


class Counts(NamedTuple):
    """Numbers of samples [..., K] and [..., K, A]; `size` is labels in all sets together."""

    n: Any
    correct: Any
    covered: Any
    size: Any
    empty: Any
    recovered: Any


@jax.jit
def count(sets: Sets, groups: Any) -> Counts:
    """What is to be counted of `groups` [..., K, N] bool; jitted."""
    chosen = jnp.asarray(groups, jnp.float32)  # counts below 2^24 are exact

    def total(values: jax.Array) -> jax.Array:
        """[..., K, A] sums of [..., A, N] over each group."""
        return jnp.einsum("...kn,...an->...ka", chosen, values.astype(jnp.float32), precision="highest")

    correct = jnp.einsum("...kn,...n->...k", chosen, sets.correct.astype(jnp.float32), precision="highest")
    recovered = total(sets.covered & ~sets.correct[..., None, :])
    return Counts(jnp.sum(chosen, -1), correct, total(sets.covered), total(sets.size), total(sets.size == 0), recovered)


def quality(counts: Counts) -> Quality:
    """Divided on the host: a coverage of all samples is 1, not a rounding above."""
    n, correct, covered, size, empty, recovered = (np.asarray(leaf, np.float64) for leaf in counts)
    mistaken = n - correct
    with np.errstate(divide="ignore", invalid="ignore"):
        each = n[..., None]
        return Quality(n, correct / n, covered / each, size / each, covered / size, empty,
                       recovered / mistaken[..., None], mistaken)  # fmt: skip
