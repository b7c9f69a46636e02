"""Computes the power of the tests, without any answer of the audited model to a requested row."""

import numpy as np

from jaxunlearn.metrics.inference import decision
from jaxunlearn.metrics.verdict import rows
from jaxunlearn.metrics.verdict.out_model import robust, soft
from jaxunlearn.metrics.verdict.rows import FORGOTTEN, Likeness, RowTests, Signal

MOST_SHADOWS = 10


def not_forgotten(original: Signal, requested: np.ndarray, fdr: float) -> np.ndarray:
    """Returns [F] bool: the requested rows that are caught if the original takes the audited model's place.

    Args:
      original: soft signal of the original model.
      requested: [N] bool.
      fdr: false discovery rate.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.verdict import power, rows
      >>> normal = np.random.default_rng(0).normal
      >>> original = rows.signal(normal(size=4) + 50, normal(size=(5, 4)), normal(size=99), normal(size=(5, 99)))
      >>> power.not_forgotten(original, np.array([True, True, False, False]), fdr=0.05).tolist()
      [True, True]
    """
    p_high = rows.p_high(original.z[requested], original.population_z)
    return decision.benjamini_hochberg(p_high, fdr).rejected


def forgotten(
    smooth: Signal,
    shadows: np.ndarray,
    population_shadows: np.ndarray,
    likeness: Likeness,
    fdr: float,
    max_trace_left: float,
) -> float:
    """Estimates how many requested rows are confirmed if models that never saw them take the audited model's place.

    Each of up to ten shadow models answers the requested rows, brought to the scale of the audited model by the
    population; the other shadows measure how hard rows are, and retained rows keep the audited model's answers. An
    approximation: within 10 % on random and hard requests, up to twice too high on easy ones of forests.

    Args:
      smooth: soft signal of the audited model.
      shadows: [S, N] raw log-odds, S >= 2, of models that saw no requested row.
      population_shadows: [S, P] likewise, of the population.
      likeness: see `rows.Likeness`.
      fdr: false discovery rate.
      max_trace_left: see `rows.compare_with_trained`.
    """
    requested = likeness.requested
    like_answers = smooth.answers[~requested][rows.like_retained(likeness)]
    centre, deviation = (
        smooth.model.centre(smooth.moments)[requested],
        smooth.model.deviation(smooth.moments)[requested],
    )
    counts = []
    for number in range(min(len(shadows), MOST_SHADOWS)):
        other_shadows = np.arange(len(shadows)) != number
        references = soft(shadows[other_shadows]), soft(population_shadows[other_shadows])
        shadow = rows.signal(soft(shadows[number]), references[0], soft(population_shadows[number]), references[1])
        model = rows.signal(smooth.answers, references[0], smooth.population, references[1])
        scale = robust(smooth.population_z) / robust(shadow.population_z)
        z = (shadow.z[requested] - np.median(shadow.population_z)) * scale
        answers = model.model.centre(model.moments)[requested] + model.model.deviation(model.moments)[requested] * z
        p_in, trace = rows.compare_with_trained(answers, centre, like_answers, max_trace_left)
        ones = np.ones(len(answers))
        tests = RowTests(ones, ones, p_in, z, centre, deviation, trace, answers < centre + trace / 2)
        counts.append(int((rows.decide(tests, fdr) == FORGOTTEN).sum()))
    return float(np.mean(counts))
