"""How outputs of the classes lie among each other: is a forgotten class spread out as after retraining?

    features [n, F] (logits, as published) -> embed (t-SNE) -> points [n, 2]
    points, labels -> variance within a class, silhouette against the nearest class, overlap of densities

A model that never saw a class maps its samples to similar classes: they scatter over the other classes (large variance
and overlap, small silhouette). After approximate unlearning they often stay together. The goal is the value after
retraining, not an extreme.

NumPy in float64, except for the densities.

Source: OUR reference, feature visualisation; golden arrays.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.metrics import kernel_density

PUBLISHED_SEED, PUBLISHED_PERPLEXITY = 42, 30.0
GRID = 200
MARGIN = 1.0  # of the grid beyond the outermost points
FEWEST = 3  # points of a density in two dimensions


class Silhouette(NamedTuple):
    """Mean silhouette, in [-1, 1], of a class and its `nearest` class; NaN with a `reason`."""

    value: float
    nearest: int
    reason: str = ""


class Overlap(NamedTuple):
    """Two densities on a grid.

    Attributes:
      sum: sum of the smaller density over all nodes, as published. It depends on the grid.
      integral: the same times the area of a cell, in [0, 1] up to what lies outside the grid.
      smaller: [nodes, nodes] the smaller of the two densities.
      x, y: [nodes] coordinates along its second and first axis.
      reason: why there is no overlap (all other fields are NaN), or "".
    """

    sum: float
    integral: float
    smaller: np.ndarray
    x: np.ndarray
    y: np.ndarray
    reason: str = ""


class Distribution(NamedTuple):
    """The three metrics of the published table, with their details.

    Attributes:
      variance: mean squared distance of the forgotten samples to their centroid.
      silhouette: against the nearest class.
      overlap: with all other samples.
    """

    variance: float
    silhouette: Silhouette
    overlap: Overlap


def measure_distribution(points: Any, labels: Any, is_forgotten: Any) -> Distribution:
    """Measures how forgotten samples lie among the others.

    Args:
      points: [n, 2] float, embedded outputs (see `embed`).
      labels: [n] int, classes of the samples; those of forgotten samples are ignored.
      is_forgotten: [n] bool.

    Returns:
      `Distribution`; NaN with the reason where there are too few samples.

    Raises:
      ShapeError, DataError: arrays that do not fit, NaN, no forgotten sample or no other one.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics import distribution
      >>> points = np.array([[0, 0], [0, 1], [1, 0], [5, 5], [5, 6], [6, 5]])
      >>> labels = np.array([0, 0, 0, 1, 1, 1])
      >>> result = distribution.measure_distribution(points, labels, labels == 0)
      >>> round(result.variance, 2), result.silhouette.nearest, result.silhouette.value > 0.5
      (0.44, 1, True)
    """
    points, labels, mask = np.asarray(points, np.float64), np.asarray(labels), np.asarray(is_forgotten, bool)
    checks.shape("ND N N", points=points, labels=labels, is_forgotten=mask)
    if mask.all() or not mask.any():
        raise errors.DataError(
            f"{int(mask.sum())} of {len(mask)} samples are forgotten; give both forgotten and other samples."
        )
    # A subclass keeps its superclass's label: give the forgotten samples a label of their own.
    forgotten_class = int(labels.max()) + 1
    separated_labels = np.where(mask, forgotten_class, labels)
    return Distribution(
        float(intra_class_variance(points, separated_labels, [forgotten_class])[0]),
        silhouette(points, separated_labels, forgotten_class),
        overlap(points[mask], points[~mask]),
    )


def intra_class_variance(points: Any, labels: Any, classes: Any) -> np.ndarray:
    """Computes the mean squared distance of each class to its centroid, [C]; NaN for a class without points.

    Args:
      points: [n, F] float.
      labels: [n] int.
      classes: [C] those to measure.

    Raises:
      ShapeError, DataError: arrays that do not fit, or NaN.

    Example:
      >>> from jaxunlearn.metrics import distribution
      >>> distribution.intra_class_variance([[0.0], [2.0], [5.0]], [0, 0, 1], [0, 1]).tolist()
      [1.0, 0.0]
    """
    groups = _groups(points, labels, classes)
    return np.array([_squares(group, group.mean(0)).mean() if len(group) else np.nan for group in groups])


def distances_to_centroids(points: Any, labels: Any, of: int, classes: Any) -> np.ndarray:
    """Computes the mean distance of the points of class `of` to the centroids of other classes.

    Args:
      points: [n, F] float.
      labels: [n] int.
      of: the class whose points are measured.
      classes: [C] the other classes.

    Returns:
      [C] float64; NaN where either class has no points.

    Raises:
      As `intra_class_variance`.
    """
    (class_points,) = _groups(points, labels, [of])
    groups = _groups(points, labels, classes)
    return np.array([
        np.sqrt(_squares(class_points, group.mean(0))).mean() if len(group) and len(class_points) else np.nan
        for group in groups
    ])  # fmt: skip


def silhouette(points: Any, labels: Any, of: int) -> Silhouette:
    """Computes the mean silhouette over a class and the class whose centroid is nearest to its points.

    Small = mixed with the neighbour, as after retraining.

    Args:
      points: [n, F] float.
      labels: [n] int.
      of: the class.

    Returns:
      `Silhouette`; NaN with a reason where there is no other class, or both classes together have fewer than three
      points.

    Raises:
      As `intra_class_variance`; DataError: the class has no points.
    """
    labels = np.asarray(labels)
    if not np.any(labels == of):
        raise errors.DataError(f"class {of} has no points; there are the classes {_listed(labels)}.")
    other_classes = np.setdiff1d(labels, [of])
    if not len(other_classes):
        return Silhouette(math.nan, -1, "there is no other class")
    nearest = int(other_classes[np.argmin(distances_to_centroids(points, labels, of, other_classes))])
    mask = np.isin(labels, (of, nearest))
    if mask.sum() < FEWEST:
        return Silhouette(math.nan, nearest, f"only {int(mask.sum())} points in both classes")
    from sklearn import metrics

    return Silhouette(float(metrics.silhouette_score(np.asarray(points)[mask], labels[mask])), nearest)


def overlap(first: Any, second: Any, nodes: int = GRID) -> Overlap:
    """Computes the overlap of the densities of two samples.

    Gaussian kernels of Scott's bandwidth (covariance with ddof 1, times n^(-1/3) in two dimensions), on a grid from 1
    below the smallest to 1 above the largest coordinate.

    Args:
      first: [n, 2] float, for example the forgotten class.
      second: [m, 2] float, for example all other samples.
      nodes: grid nodes per axis.

    Returns:
      `Overlap`; NaN with a reason if either sample has fewer than three points.

    Raises:
      ShapeError, DataError: other shapes, or NaN.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics import distribution
      >>> points = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
      >>> bool(distribution.overlap(points, points + 50, nodes=20).integral < 0.01)
      True

    Source: OUR reference. Differs from it: degenerate covariances (all points on a line) get a jitter of 1e-6.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    sizes = checks.shape("ND MD", {"D": 2}, first=first, second=second)
    checks.finite("first", first)
    checks.finite("second", second)
    fewest = min(sizes["N"], sizes["M"])
    if fewest < FEWEST:
        blank = np.full((nodes, nodes), np.nan)
        return Overlap(math.nan, math.nan, blank, blank[0], blank[0], f"a density needs 3 points, there are {fewest}")
    all_points = np.concatenate([first, second])
    x, y = (np.linspace(all_points[:, i].min() - MARGIN, all_points[:, i].max() + MARGIN, nodes) for i in (0, 1))
    grid_points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    smaller = np.minimum(
        kernel_density.estimate(first, grid_points), kernel_density.estimate(second, grid_points)
    ).reshape(nodes, nodes)
    total = float(smaller.sum())
    return Overlap(total, total * float((x[1] - x[0]) * (y[1] - y[0])), smaller, x, y)


def embed(features: Any, seed: int = PUBLISHED_SEED, perplexity: float = PUBLISHED_PERPLEXITY) -> np.ndarray:
    """Embeds features in the plane by t-SNE: scikit-learn's, started from principal components.

    About 6 ms per point, measured for 1,000 and 2,000 points of 20 logits on one busy CPU core.

    Args:
      features: [n, F] float, n >= 3 (logits, or penultimate features).
      seed: of t-SNE; published 42.
      perplexity: published 30; at most (n - 1) / 3, to which it is lowered.

    Returns:
      [n, 2] float64.

    Raises:
      ShapeError, DataError: other shapes, fewer than three points, or NaN.
    """
    features = np.asarray(features, np.float32)
    count = checks.shape("NF", features=features)["N"]
    checks.finite("features", features)
    if count < FEWEST:
        raise errors.DataError(f"features has shape {features.shape}; an embedding needs at least {FEWEST} samples.")
    from sklearn import manifold

    if features.shape[1] < 2:
        features = np.pad(features, ((0, 0), (0, 2 - features.shape[1])))
    lowered = min(perplexity, max((count - 1) / 3, 1.0))
    tsne = manifold.TSNE(2, perplexity=lowered, init="pca", learning_rate="auto", random_state=seed)
    return np.asarray(tsne.fit_transform(features), np.float64)


def _groups(points: Any, labels: Any, classes: Any) -> list[np.ndarray]:
    """Returns the points of each class, float64."""
    points, labels = np.asarray(points, np.float64), np.asarray(labels)
    checks.shape("ND N", points=points, labels=labels)
    checks.finite("points", points)
    return [points[labels == label] for label in np.atleast_1d(np.asarray(classes))]


def _squares(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return ((points - centre) ** 2).sum(-1)


def _listed(labels: np.ndarray) -> str:
    return ", ".join(map(str, np.unique(labels)[:12].tolist()))
