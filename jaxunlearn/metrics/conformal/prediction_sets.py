"""Quality of prediction sets: coverage, set size, CR, recover ratio, on any groups of samples of any models.

    conformal.predict(...) -> Sets (per sample) -> summarise(sets, groups) -> Quality

Source: "Redefining Machine Unlearning: A Conformal Prediction-Motivated Approach" (CR, fake forgetting).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import checks


class Sets(NamedTuple):
    """Prediction sets, sample by sample.

    Attributes:
      covered: [..., A, N] bool, the sample's own label is in its set.
      size: [..., A, N] int32, labels in the set.
      correct: [..., N] bool, the most probable label is the sample's own.
    """

    covered: jax.Array
    size: jax.Array
    correct: jax.Array


class Quality(NamedTuple):
    """Quality of prediction sets on a group of samples; NaN where there is no sample.

    Attributes:
      n: [...] number of samples.
      accuracy: [...] share whose most probable label is right.
      coverage: [..., A] share whose label is in its set: about 1 - alpha on data like the calibration data.
      set_size: [..., A] mean labels per set.
      cr: [..., A] coverage / set size in [0, 1]; NaN where all sets are empty. Forgotten samples: lower = better
        forgotten; retained and test samples: higher = more useful.
      empty: [..., A] number of empty sets.
      recover_ratio: [..., A] of the misclassified samples, the share whose label is in the set ("fake forgetting":
        lower = better forgotten); NaN where none is misclassified.
      mistaken: [...] number of misclassified samples.
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
    """Computes coverage, set size, CR and recover ratio.

    Args:
      sets: of one model or many.
      groups: None = all samples; [N] or [..., N] bool = some of them; [..., K, N] bool with one axis more than
        `sets.correct` = K groups (classes, for example), an axis K before A in the result.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.conformal import prediction_sets
      >>> sets = prediction_sets.Sets(np.array([[True, False]]), np.array([[1, 1]]), np.array([True, False]))
      >>> quality = prediction_sets.summarise(sets)
      >>> quality.coverage.tolist(), quality.set_size.tolist(), quality.recover_ratio.tolist()
      ([0.5], [1.0], [0.0])
    """
    axes = np.ndim(sets.correct)
    masks = np.ones(np.shape(sets.correct)[-1], bool) if groups is None else np.asarray(groups, bool)
    is_grouped = masks.ndim == axes + 1
    shape = (*np.shape(sets.correct)[:-1], *((masks.shape[-2],) if is_grouped else (1,)), masks.shape[-1])
    if not is_grouped and masks.ndim:
        masks = masks[..., None, :]
    qualities = quality(count(sets, np.broadcast_to(masks, shape)))
    return qualities if is_grouped else Quality(*(np.take(leaf, 0, axes - 1) for leaf in qualities))


def of_classes(labels: Any, num_classes: int) -> np.ndarray:
    """Returns [C, N] bool masks of the samples of each class, as `groups` of `summarise`."""
    checks.labels("labels", labels, num_classes)
    return np.asarray(labels)[None] == np.arange(num_classes)[:, None]


class Counts(NamedTuple):
    """Numbers of samples [..., K] and [..., K, A]; `size` is the total number of labels in all sets."""

    n: Any
    correct: Any
    covered: Any
    size: Any
    empty: Any
    recovered: Any


@jax.jit
def count(sets: Sets, groups: Any) -> Counts:
    """Counts samples, covered labels and set sizes in `groups` [..., K, N] bool; jitted."""
    weights = jnp.asarray(groups, jnp.float32)  # counts below 2^24 are exact

    def total(values: jax.Array) -> jax.Array:
        """Sums [..., A, N] over each group: [..., K, A]."""
        return jnp.einsum("...kn,...an->...ka", weights, values.astype(jnp.float32), precision="highest")

    correct = jnp.einsum("...kn,...n->...k", weights, sets.correct.astype(jnp.float32), precision="highest")
    recovered = total(sets.covered & ~sets.correct[..., None, :])
    return Counts(
        jnp.sum(weights, -1), correct, total(sets.covered), total(sets.size), total(sets.size == 0), recovered
    )


def quality(counts: Counts) -> Quality:
    """Divides the counts, on the host: the coverage of all samples is exactly 1."""
    n, correct, covered, size, empty, recovered = (np.asarray(leaf, np.float64) for leaf in counts)
    mistaken = n - correct
    with np.errstate(divide="ignore", invalid="ignore"):
        samples = n[..., None]
        return Quality(n, correct / n, covered / samples, size / samples, covered / size, empty,
                       recovered / mistaken[..., None], mistaken)  # fmt: skip
