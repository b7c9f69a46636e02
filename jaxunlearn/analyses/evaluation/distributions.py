"""The group of metrics `distribution`: how forgotten samples lie among the retained ones after t-SNE.

    forgotten and retained samples (at most tsne_rows) -> logits, or a user's features -> t-SNE -> variance, silhouette,
    overlap per model, and the points for the figure

All roles are measured on the same samples of a forget set, so that only the models differ. It takes seconds per
model, so `all` leaves it out.
"""

from typing import Any

import numpy as np

from jaxunlearn import errors
from jaxunlearn.analyses.evaluation.measures import EvaluationOptions, Subsets
from jaxunlearn.metrics import distribution

GROUP = "distribution"
NUMBERS = ("distribution_variance", "silhouette", "overlap_sum", "overlap_integral")
LEAST_FORGOTTEN = 50  # of the embedded samples, if there are as many


def check(subsets: Subsets, options: EvaluationOptions) -> list[str]:
    """Returns warnings about the samples.

    Raises:
      DataError: a model without forgotten or without retained samples.
    """
    if GROUP not in options.groups:
        return []
    for name in ("forget", "retain"):
        if not getattr(subsets, name).any(1).all():
            model = int(np.flatnonzero(~getattr(subsets, name).any(1))[0])
            raise errors.DataError(
                f"the metrics {GROUP!r} compare forgotten with retained samples, but model {model} has no sample to "
                f"{name}. Give outputs `{name}` with `{name}_labels`, or leave {GROUP!r} out of the metrics."
            )
    num_forgotten = int(subsets.forget.sum(1).min())
    if num_forgotten < distribution.FEWEST:
        return [f"a forget set has {num_forgotten} sample(s): too few for an overlap of densities, which needs 3"]
    return []


def rows_of(subsets: Subsets, model: int, options: EvaluationOptions) -> np.ndarray:
    """Draws the samples that are embedded: forgotten ones first, then retained ones, [n] sorted within each.

    At most tsne_rows of them in their true proportion, but at least 50 forgotten ones if there are as many.
    """
    forgotten, retained = np.flatnonzero(subsets.forget[model]), np.flatnonzero(subsets.retain[model])
    max_rows, total = options.settings.tsne_rows, len(forgotten) + len(retained)
    if not max_rows or total <= max_rows:
        return np.concatenate([forgotten, retained])
    min_forgotten = min(len(forgotten), LEAST_FORGOTTEN, max_rows // 2)
    num_forgotten = min(max(round(max_rows * len(forgotten) / total), min_forgotten), len(forgotten))
    rng = np.random.default_rng([options.seed, model])
    drawn = (
        rng.choice(forgotten, num_forgotten, replace=False),
        rng.choice(retained, max_rows - num_forgotten, replace=False),
    )
    return np.concatenate([np.sort(rows) for rows in drawn])


def measure_distributions(
    features: np.ndarray, labels: np.ndarray, subsets: Subsets, options: EvaluationOptions, is_alive: np.ndarray
) -> dict[str, np.ndarray]:
    """Embeds and measures M models of one role.

    Args:
      features: [M, N, F] float logits, or features of the forgotten and retained samples.
      labels: [N] int.
      subsets: masks of the samples.
      options: seed, tsne_rows.
      is_alive: [M] bool, models that did not diverge; the others' metrics are NaN.

    Returns:
      NUMBERS -> [M]; nearest [M] the nearest class; of the first model that is alive: points [n, 2], samples [n] their
      positions among N, is_forgotten [n] bool.
    """
    metrics: dict[str, Any] = {name: np.full(len(features), np.nan) for name in NUMBERS}
    metrics["nearest"] = np.full(len(features), -1)
    embedding: dict[str, np.ndarray] = {}
    for model in np.flatnonzero(is_alive):
        rows = rows_of(subsets, int(model), options)
        points = distribution.embed(features[model][rows]) if len(rows) >= distribution.FEWEST else None
        if points is None:
            continue
        forgotten = subsets.forget[model][rows]
        model_metrics = distribution.measure_distribution(points, labels[rows], forgotten)
        values = (
            model_metrics.variance,
            model_metrics.silhouette.value,
            model_metrics.overlap.sum,
            model_metrics.overlap.integral,
        )
        for name, value in zip(NUMBERS, values, strict=True):
            metrics[name][model] = value
        metrics["nearest"][model] = model_metrics.silhouette.nearest
        if not embedding:
            embedding = {"points": points, "samples": rows, "is_forgotten": forgotten}
    if not embedding:
        embedding = {"points": np.zeros((0, 2)), "samples": np.zeros(0, int), "is_forgotten": np.zeros(0, bool)}
    return metrics | embedding
