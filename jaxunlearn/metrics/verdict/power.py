"""Computes how many rows would have been found, before any answer of the audited model to a requested row is used."""

import numpy as np

from jaxunlearn.metrics.inference import decision
from jaxunlearn.metrics.verdict import rows
from jaxunlearn.metrics.verdict.out_model import robust, soft
from jaxunlearn.metrics.verdict.rows import FORGOTTEN, Likeness, RowTests, Signal

MOST_SHADOWS = 10


def not_forgotten(original: Signal, requested: np.ndarray, fdr: float) -> np.ndarray:
    """Returns [F] bool: the requested rows that are caught when the original plays the unlearned model.

    Args:
      original: soft signal of the original model.
      requested: [N] bool.
      fdr: false discovery rate.
    """
    p_high = rows.p_high(original.z[requested], original.population_z)
    return decision.benjamini_hochberg(p_high, fdr).rejected


def forgotten(
    smooth: Signal, shadows: np.ndarray, population_shadows: np.ndarray, likeness: Likeness, fdr: float, keep: float
) -> float:
    """Returns about how many requested rows are confirmed when models that never saw them play their answers.

    Each of up to ten shadow models plays the requested rows, brought to the scale of the audited model by the
    population; the others say how hard rows are, and retained rows answer as in the audited model. An approximation:
    within 10 % on random and hard requests, up to twice too high on easy ones of forests.

    Args:
      smooth: soft signal of the audited model.
      shadows: [S, N] raw log-odds, S >= 2, of models that saw no requested row.
      population_shadows: [S, P] likewise, of the population.
      likeness: see `rows.Likeness`.
      fdr: false discovery rate.
      keep: see `rows.trained`.
    """
    asked = likeness.requested
    like = smooth.answers[~asked][rows.like_retained(likeness)]
    centre, deviation = smooth.model.centre(smooth.moments)[asked], smooth.model.deviation(smooth.moments)[asked]
    confirmed = []
    for number in range(min(len(shadows), MOST_SHADOWS)):
        others = np.arange(len(shadows)) != number
        both = soft(shadows[others]), soft(population_shadows[others])
        played = rows.signal(soft(shadows[number]), both[0], soft(population_shadows[number]), both[1])
        model = rows.signal(smooth.answers, both[0], smooth.population, both[1])
        scale = robust(smooth.population_z) / robust(played.population_z)
        z = (played.z[asked] - np.median(played.population_z)) * scale
        own = model.model.centre(model.moments)[asked] + model.model.deviation(model.moments)[asked] * z
        p_in, trace = rows.trained(own, centre, like, keep)
        never = np.ones(len(own))
        tests = RowTests(never, never, p_in, z, centre, deviation, trace, own < centre + trace / 2)
        confirmed.append(int((rows.decide(tests, fdr) == FORGOTTEN).sum()))
    return float(np.mean(confirmed))
