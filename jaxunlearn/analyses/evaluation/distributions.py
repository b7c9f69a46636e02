"""How the forgotten samples of every model lie among the retained ones, after t-SNE: the group `distribution`.

    forgotten and retained samples (at most tsne_rows) -> logits, or a user's features -> t-SNE -> variance, silhouette,
    overlap per model, and the points for the figure

All roles are measured on the same samples of a forget set, so that what differs is the model. It takes seconds per
model, so `all` leaves it out.
"""

from typing import Any

import numpy as np

from jaxunlearn import errors
from jaxunlearn.analyses.evaluation.measures import EvaluationOptions, Subsets
from jaxunlearn.metrics import distribution

GROUP = "distribution"
NUMBERS = ("distribution_variance", "silhouette", "overlap_sum", "overlap_integral")
LEAST_FORGOTTEN = 50  # of the samples that are embedded, where there are as many


def check(parts: Subsets, choices: EvaluationOptions) -> list[str]:
    """Returns what a reader must know about the samples, as sentences.

    Raises:
      DataError: a model without forgotten or without retained samples.
    """
    if GROUP not in choices.groups:
        return []
    for name in ("forget", "retain"):
        if not getattr(parts, name).any(1).all():
            model = int(np.flatnonzero(~getattr(parts, name).any(1))[0])
            raise errors.DataError(
                f"the metrics {GROUP!r} compare forgotten with retained samples, but model {model} has no sample to "
                f"{name}. Give outputs `{name}` with `{name}_labels`, or leave {GROUP!r} out of the metrics."
            )
    fewest = int(parts.forget.sum(1).min())
    if fewest < distribution.FEWEST:
        return [f"a forget set has {fewest} sample(s): too few for an overlap of densities, which needs 3"]
    return []


def rows_of(parts: Subsets, model: int, choices: EvaluationOptions) -> np.ndarray:
    """Draws the samples that are embedded: forgotten first, then retained, [n] in their order.

    At most tsne_rows of them in their true proportion, but 50 forgotten ones where there are as many.
    """
    forgotten, retained = np.flatnonzero(parts.forget[model]), np.flatnonzero(parts.retain[model])
    most, total = choices.settings.tsne_rows, len(forgotten) + len(retained)
    if not most or total <= most:
        return np.concatenate([forgotten, retained])
    least = min(len(forgotten), LEAST_FORGOTTEN, most // 2)
    number = min(max(round(most * len(forgotten) / total), least), len(forgotten))
    rng = np.random.default_rng([choices.seed, model])
    drawn = (rng.choice(forgotten, number, replace=False), rng.choice(retained, most - number, replace=False))
    return np.concatenate([np.sort(rows) for rows in drawn])


def measure_distributions(
    features: np.ndarray, labels: np.ndarray, parts: Subsets, choices: EvaluationOptions, is_alive: np.ndarray
) -> dict[str, np.ndarray]:
    """Embeds and measures M models of one role.

    Args:
      features: [M, N, F] float logits, or features of the forgotten and retained samples.
      labels: [N] int.
      parts: who plays which part.
      choices: seed, tsne_rows.
      is_alive: [M] bool, models that did not diverge; the others' numbers are NaN.

    Returns:
      NUMBERS -> [M]; nearest [M] the nearest class; of the first model that is alive: points [n, 2], samples [n] their
      places among N, is_forgotten [n] bool.
    """
    found: dict[str, Any] = {name: np.full(len(features), np.nan) for name in NUMBERS}
    found["nearest"] = np.full(len(features), -1)
    shown: dict[str, np.ndarray] = {}
    for model in np.flatnonzero(is_alive):
        rows = rows_of(parts, int(model), choices)
        points = distribution.embed(features[model][rows]) if len(rows) >= distribution.FEWEST else None
        if points is None:
            continue
        forgotten = parts.forget[model][rows]
        numbers = distribution.measure_distribution(points, labels[rows], forgotten)
        values = (numbers.variance, numbers.silhouette.value, numbers.overlap.sum, numbers.overlap.integral)
        for name, value in zip(NUMBERS, values, strict=True):
            found[name][model] = value
        found["nearest"][model] = numbers.silhouette.nearest
        if not shown:
            shown = {"points": points, "samples": rows, "is_forgotten": forgotten}
    if not shown:
        shown = {"points": np.zeros((0, 2)), "samples": np.zeros(0, int), "is_forgotten": np.zeros(0, bool)}
    return found | shown
