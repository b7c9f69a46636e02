"""Uncertainty of epsilon-hat: intervals over models, and the lower bound of the auditing literature. HIGHER = WORSE.

Three different questions:

* `bootstrap`: how much would the median epsilon-hat change with the same number of other models of the same kind? The
  models are resampled, never the samples, which share them. A resampled group holds duplicates, which the best rule
  exploits, so resampled medians are higher than the estimate (by .4 of 1.0 for two equal groups of 32) and intervals
  from their quantiles do not cover. Intervals from their standard deviation do (`launch.bench epsilon` measures how
  often). "Same kind" means: unlearned models of one original model are no evidence about another original.
* `equal_groups`: what is epsilon-hat of groups that do not differ at all? Not 0: it is the best of many rules.
* `lower_bound`: which epsilon is proven, at some confidence, by models that the attack has not seen? One half of the
  models fits the Gaussians and chooses the rule, the other half counts its errors, and Clopper and Pearson bound both
  rates. It is valid for each sample by itself, for finite N, and never confuses separation with infinity. It is more
  conservative than epsilon-hat and not comparable with published epsilon-hat values.

Source: Efron and Tibshirani, An introduction to the bootstrap, chapters 6 and 13; Jagielski, Ullman and Oprea 2020 and
Nasr et al. 2021 (lower bounds on epsilon from Clopper-Pearson limits of an attack's error rates).
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from jaxunlearn import checks, errors
from jaxunlearn.metrics.epsilon import attack_rules, epsilon
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.metrics.inference.intervals import Interval

# Simulated samples of `equal_groups`: its median is then accurate to about .01.
_SIMULATED = 4000


class Bootstrap(NamedTuple):
    """Medians of epsilon-hat over samples, of resampled models.

    Attributes:
      medians: approach -> [B] float64, the retrained models resampled alike for all approaches.
      values: approach -> the median of the models themselves.
      max_finite: approach -> the largest finite epsilon-hat attainable with its group sizes.
      confidence_level: of the intervals.
    """

    medians: dict[str, np.ndarray]
    values: dict[str, float]
    max_finite: dict[str, float]
    confidence_level: float


def bootstrap(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], delta: float = epsilon.DELTA, *, score: str = "gaussian",
    smoothing: float = epsilon.SMOOTHING, iterations: int = 200, confidence_level: float = 0.95, seed: int = 0,
) -> Bootstrap:  # fmt: skip
    """Resamples the models of every approach.

    Args:
      pairs: approach -> statistics [S, Nr] and [S, Nu], as `epsilon.count` takes them. Groups of one side and size are
        resampled alike, so that differences between approaches with the same retrained models are paired.
      delta: in [0, 1).
      score: as for `epsilon.count`.
      smoothing: as for `epsilon.epsilon_from_counts`.
      iterations: B, at least 2.
      confidence_level: of the intervals, in [0, 1].
      seed: of the draws.

    Raises:
      ConfigError: iterations, level or delta out of range.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.epsilon import epsilon_bounds
      >>> statistics = np.random.default_rng(0).normal(size=(2, 5, 8))  # retrained and unlearned models of 5 samples
      >>> resamples = epsilon_bounds.bootstrap({"ours": tuple(statistics)}, iterations=8)
      >>> interval = epsilon_bounds.interval(resamples, "ours")
      >>> interval.low < interval.value < interval.high
      True
    """
    checks.in_range("iterations", iterations, 2)
    checks.in_range("confidence_level", confidence_level, 0, 1)
    medians, values, max_finite = {}, {}, {}
    for name, (retrained, unlearned) in pairs.items():
        sizes = retrained.shape[1], unlearned.shape[1]
        # One stream per side and size: neither the order nor the choice of approaches changes a draw.
        draws = [np.random.default_rng((seed, side, size)).integers(size, size=(iterations, size))
                  for side, size in enumerate(sizes)]  # fmt: skip
        table = epsilon.epsilon_table(sizes, delta, smoothing)
        lookup = jnp.asarray(np.where(np.isnan(table), -np.inf, table), jnp.float32)
        resampled_medians = _medians(
            jnp.asarray(retrained), jnp.asarray(unlearned), *map(jnp.asarray, draws), lookup, score
        )
        medians[name] = np.asarray(resampled_medians, np.float64)
        counts = epsilon.count(retrained, unlearned, score)
        values[name] = epsilon.summarise(epsilon.epsilon_from_counts(counts, delta, smoothing)).median
        max_finite[name] = epsilon.max_finite(sizes, delta, smoothing)
    return Bootstrap(medians, values, max_finite, confidence_level)


@partial(jax.jit, static_argnames="score")
def _medians(
    retrained: jax.Array, unlearned: jax.Array, first: jax.Array, second: jax.Array, table: jax.Array, score: str
) -> jax.Array:
    def median_of_draw(draw: tuple[jax.Array, jax.Array]) -> jax.Array:
        retrained_errors, unlearned_errors, _, is_same = attack_rules.error_counts(
            retrained[:, draw[0]], unlearned[:, draw[1]], score
        )
        epsilons = jnp.max(table[retrained_errors, unlearned_errors], -1)
        epsilons = jnp.where(is_same, 0.0, jnp.where(jnp.isneginf(epsilons), jnp.nan, epsilons))
        return jnp.nanmedian(epsilons)

    return jax.lax.map(median_of_draw, (first, second))


def interval(resamples: Bootstrap, name: str) -> Interval:
    """Computes the interval of the median epsilon-hat of an approach.

    An infinite median, of the models or of resampled ones, counts as the largest finite value for the deviation and
    the lower end; the upper end is then inf. The ends are NaN if resampled medians are undefined.
    """
    value, medians = _capped(resamples, name)
    half_width = float(scipy.stats.norm.ppf((1 + resamples.confidence_level) / 2) * np.std(medians, ddof=1))
    if math.isnan(half_width):
        return Interval(resamples.values[name], half_width, half_width)
    return Interval(
        resamples.values[name], value - half_width, value + half_width if _is_finite(resamples, name) else float("inf")
    )


def differences(resamples: Bootstrap, names: Sequence[str], against: str) -> dict[str, Interval]:
    """Computes the median epsilon-hat of every approach minus that of `against`; negative = better than `against`.

    The intervals hold simultaneously for all pairs of `names`, and so also for the best approach: each is at
    Bonferroni's level. Simulated with 8 equal approaches (100 repetitions each of 32 models shifted by .8, 64 by .8 and
    64 by 1.8 deviations, .3 of the variance common to all samples), at least one of the 28 pairs was wrongly declared
    different at level .95 in 12, 11 and 0 %; with intervals of single comparisons some approach was declared worse than
    the best in 45 %.

    Infinite medians count as in `interval`, and open the end on their side; the difference of two infinite ones is 0.

    Args:
      resamples: of `bootstrap`.
      names: the approaches, including `against`.
      against: the approach that the others are compared with.
    """
    capped_medians = {name: _capped(resamples, name) for name in names}
    pairs = max(1, len(names) * (len(names) - 1) // 2)
    critical = float(scipy.stats.norm.ppf(1 - (1 - resamples.confidence_level) / (2 * pairs)))
    comparisons = {}
    for name, (value, medians) in capped_medians.items():
        other, other_medians = capped_medians[against]
        half_width = float(critical * np.std(medians - other_medians, ddof=1))
        is_same = name == against
        low = value - other - half_width if is_same or _is_finite(resamples, against) else float("-inf")
        high = value - other + half_width if is_same or _is_finite(resamples, name) else float("inf")
        if math.isnan(half_width):
            low = high = half_width
        are_infinite = np.isinf(resamples.values[name]) and np.isinf(resamples.values[against])
        comparisons[name] = Interval(
            0.0 if are_infinite else resamples.values[name] - resamples.values[against], low, high
        )
    return comparisons


def simulate_null_median(
    sizes: tuple[int, int], delta: float = epsilon.DELTA, *, score: str = "gaussian",
    smoothing: float = epsilon.SMOOTHING, seed: int = 0,
) -> float:  # fmt: skip
    """Simulates the median epsilon-hat of groups (Nr, Nu) that do not differ.

    Statistics are standard normal. Rules on the statistic itself do not depend on its distribution; the fitted ratio
    depends on its shape, but not on mean and deviation.

    Args:
      sizes: (Nr, Nu).
      delta: in [0, 1).
      score: as for `epsilon.count`.
      smoothing: as for `epsilon.epsilon_from_counts`.
      seed: of the simulation.
    """
    generator = np.random.default_rng((seed, *sizes))
    first, second = (generator.standard_normal((_SIMULATED, size), np.float32) for size in sizes)
    return epsilon.summarise(epsilon.epsilon_from_counts(epsilon.count(first, second, score), delta, smoothing)).median


def _capped(resamples: Bootstrap, name: str) -> tuple[float, np.ndarray]:
    """Returns the median and the resampled medians, infinite ones replaced by the largest finite value."""
    max_finite = resamples.max_finite[name]
    return float(np.minimum(resamples.values[name], max_finite)), np.minimum(resamples.medians[name], max_finite)


def _is_finite(resamples: Bootstrap, name: str) -> bool:
    return bool(np.isfinite(resamples.values[name]) and np.isfinite(resamples.medians[name]).all())


def bound_table(sizes: tuple[int, int], delta: float, confidence_level: float = 0.95) -> np.ndarray:
    """Computes the lower bound on epsilon of a rule by its two error counts; other models must have chosen the rule.

    Args:
      sizes: (Nr, Nu).
      delta: in [0, 1).
      confidence_level: of the bound; each rate gets half of 1 - confidence_level.

    Returns:
      [Nr + 1, Nu + 1] float64 >= 0, finite: log((1 - delta - FPR) / FNR) or the other way round, whichever is larger,
      with both rates at their upper Clopper-Pearson limits.
    """
    checks.in_range("delta", delta, 0, np.nextafter(1.0, 0.0))
    checks.in_range("confidence_level", confidence_level, 0, np.nextafter(1.0, 0.0))
    first, second = (
        np.asarray([intervals.clopper_pearson(wrong, size, confidence_level).high for wrong in range(size + 1)])
        for size in sizes
    )
    return _bound(first[:, None], second[None], delta)


def _bound(first: np.ndarray, second: np.ndarray, delta: float) -> np.ndarray:
    """Computes the lower bound on epsilon, >= 0, from upper limits of both error rates."""
    rates = first, second
    with np.errstate(divide="ignore", invalid="ignore"):
        forms = [np.log((1 - delta - rate) / other_rate) for rate, other_rate in (rates, rates[::-1])]
    return np.fmax(np.fmax(*forms), 0.0)


def lower_bound(
    retrained: np.ndarray, unlearned: np.ndarray, delta: float = epsilon.DELTA, *, score: str = "gaussian",
    confidence_level: float = 0.95,
) -> np.ndarray:  # fmt: skip
    """Computes a lower bound on epsilon per sample, valid with probability `confidence_level`; HIGHER = proven worse.

    It depends on which models have even and odd indices; their order must not depend on the statistics.

    Args:
      retrained: [S, Nr] statistics as `epsilon.count` takes them; even models choose the rule (with the largest bound
        on them), odd models count its errors.
      unlearned: [S, Nu] likewise.
      delta: in [0, 1).
      score: as for `epsilon.count`.
      confidence_level: for each sample by itself: of S samples without any difference at most (1 - level) S are
        expected above 0.

    Returns:
      [S] float64 >= 0, at most `max_bound`.

    Raises:
      ShapeError: fewer than two models in a group. ConfigError: delta or level.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.epsilon import epsilon_bounds
      >>> retrained = np.linspace(0, 1, 40)[None]
      >>> epsilon_bounds.lower_bound(retrained, retrained + 5).round(1).tolist()
      [1.5]
    """
    if min(retrained.shape[1], unlearned.shape[1]) < 2:
        raise errors.ShapeError(
            f"the lower bound halves {retrained.shape[1]} retrained and {unlearned.shape[1]} unlearned models; it "
            "needs at least two of each."
        )
    even_counts, odd_counts = _split_counts(
        jnp.asarray(retrained, jnp.float32), jnp.asarray(unlearned, jnp.float32), score
    )  # fmt: skip
    even, odd = _half_sizes(retrained.shape[1], unlearned.shape[1])
    best = np.argmax(bound_table(even, delta, confidence_level)[even_counts], axis=-1)[:, None]
    retrained_errors, unlearned_errors = (
        np.take_along_axis(np.asarray(counts), best, -1)[:, 0] for counts in odd_counts
    )
    return bound_table(odd, delta, confidence_level)[retrained_errors, unlearned_errors]


def _half_sizes(*sizes: int) -> tuple[tuple[int, int], tuple[int, int]]:
    first, second = sizes
    return ((first + 1) // 2, (second + 1) // 2), (first // 2, second // 2)


def max_bound(sizes: tuple[int, int], delta: float = epsilon.DELTA, confidence_level: float = 0.95) -> float:
    """Computes the largest lower bound attainable with (Nr, Nu) models, half of which choose the rule."""
    first, second = (
        np.asarray(intervals.clopper_pearson(0, size, confidence_level).high) for size in _half_sizes(*sizes)[1]
    )
    return float(_bound(first, second, delta))


@partial(jax.jit, static_argnames="score")
def _split_counts(
    retrained: jax.Array, unlearned: jax.Array, score: str
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Counts the errors of the rules of the even models, on these and on the odd models; [S, T] each."""
    even, odd = (retrained[:, ::2], unlearned[:, ::2]), (retrained[:, 1::2], unlearned[:, 1::2])
    is_log = score == "gaussian"
    if is_log:
        first, second = attack_rules.fit(even[0]), attack_rules.fit(even[1])
        even, odd = (
            (attack_rules.log_ratio(groups[0], first, second), attack_rules.log_ratio(groups[1], first, second))
            for groups in (even, odd)
        )
    thresholds, _, _, is_positive = attack_rules.rules(even[0], even[1], is_log)
    # Halfway to the next lower score: the same rule for the even models, a better one for the odd models.
    ordered = jnp.sort(thresholds, -1)
    midpoints = jnp.concatenate([ordered[:, :1], (ordered[:, 1:] + ordered[:, :-1]) / 2], -1)

    def errors_of_half(groups: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        retrained_counts, unlearned_counts = attack_rules.count_at_least(midpoints, *groups)
        return attack_rules.errors_of(
            retrained_counts, unlearned_counts, (groups[0].shape[1], groups[1].shape[1]), is_positive
        )

    return errors_of_half(even), errors_of_half(odd)
