"""What epsilon-hat is worth: intervals over models, and the lower bound of the auditing literature. HIGHER = WORSE.

Three different questions:

* `bootstrap`: how much would the median epsilon-hat change with other models of the same kind, as many of them? The
  models are resampled, never the samples, which share them. A resampled group holds duplicates, which the best rule
  exploits, so that resampled medians lie higher than the estimate (by .4 of 1.0 for two equal groups of 32); quantiles
  of them do not cover. Their standard deviation does (`launch.bench epsilon` measures how often). Of the same kind
  means: unlearned models that start from one original model say nothing about another original.
* `equal_groups`: what would groups that do not differ at all show? Not 0: the best of many rules is taken.
* `lower_bound`: which epsilon is proved, at some confidence, by models that the attack has not seen? One half of the
  models fits the Gaussians and chooses the rule, the other half counts its errors, and Clopper and Pearson bound both
  rates. It is valid for each sample by itself, for finite N, and never confuses separation with infinity. It answers
  more carefully than epsilon-hat and is not comparable with published epsilon-hat values.

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

# Simulated samples behind `equal_groups`: its median is then known to about .01.
_SIMULATED = 4000


class Bootstrap(NamedTuple):
    """Medians of epsilon-hat over samples, of resampled models.

    Attributes:
      medians: approach -> [B] float64, the retrained models resampled alike for all approaches.
      values: approach -> the median of the models themselves.
      ceilings: approach -> the largest finite epsilon-hat of so many models.
      confidence_level: of the intervals.
    """

    medians: dict[str, np.ndarray]
    values: dict[str, float]
    ceilings: dict[str, float]
    confidence_level: float


def bootstrap(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], delta: float = epsilon.DELTA, *, score: str = "gaussian",
    slack: float = epsilon.SLACK, iterations: int = 200, confidence_level: float = 0.95, seed: int = 0,
) -> Bootstrap:  # fmt: skip
    """Resamples the models of every approach.

    Args:
      pairs: approach -> statistics [S, Nr] and [S, Nu], as `epsilon.count` takes them. Groups of one side and size are
        resampled alike, so that differences between approaches with the same retrained models are paired.
      delta: in [0, 1).
      score: as for `epsilon.count`.
      slack: as for `epsilon.epsilon_from_counts`.
      iterations: B, at least 2.
      confidence_level: of the intervals, in [0, 1].
      seed: of the draws.

    Raises:
      ConfigError: iterations, level or delta out of range.
    """
    checks.in_range("iterations", iterations, 2)
    checks.in_range("confidence_level", confidence_level, 0, 1)
    medians, values, ceilings = {}, {}, {}
    for name, (retrained, unlearned) in pairs.items():
        sizes = retrained.shape[1], unlearned.shape[1]
        # One stream per side and size: neither the order nor the choice of approaches changes a draw.
        chosen = [np.random.default_rng((seed, side, size)).integers(size, size=(iterations, size))
                  for side, size in enumerate(sizes)]  # fmt: skip
        table = epsilon.epsilon_table(sizes, delta, slack)
        lookup = jnp.asarray(np.where(np.isnan(table), -np.inf, table), jnp.float32)
        found = _medians(jnp.asarray(retrained), jnp.asarray(unlearned), *map(jnp.asarray, chosen), lookup, score)
        medians[name] = np.asarray(found, np.float64)
        counts = epsilon.count(retrained, unlearned, score)
        values[name] = epsilon.summarise(epsilon.epsilon_from_counts(counts, delta, slack)).median
        ceilings[name] = epsilon.max_finite(sizes, delta, slack)
    return Bootstrap(medians, values, ceilings, confidence_level)


@partial(jax.jit, static_argnames="score")
def _medians(
    retrained: jax.Array, unlearned: jax.Array, first: jax.Array, second: jax.Array, table: jax.Array, score: str
) -> jax.Array:
    def one(chosen: tuple[jax.Array, jax.Array]) -> jax.Array:
        wrong, wrong_too, _, is_same = attack_rules.error_counts(
            retrained[:, chosen[0]], unlearned[:, chosen[1]], score
        )
        found = jnp.max(table[wrong, wrong_too], -1)
        found = jnp.where(is_same, 0.0, jnp.where(jnp.isneginf(found), jnp.nan, found))
        return jnp.nanmedian(found)

    return jax.lax.map(one, (first, second))


def interval(found: Bootstrap, name: str) -> Interval:
    """The median epsilon-hat of an approach with its interval.

    An infinite median, of the models or of resampled ones, counts as the ceiling for the deviation and the lower end;
    the upper end is then inf. NaN ends where resampled medians are undefined.
    """
    value, drawn = _limited(found, name)
    half = float(scipy.stats.norm.ppf((1 + found.confidence_level) / 2) * np.std(drawn, ddof=1))
    if math.isnan(half):
        return Interval(found.values[name], half, half)
    return Interval(found.values[name], value - half, value + half if _is_finite(found, name) else float("inf"))


def differences(found: Bootstrap, names: Sequence[str], against: str) -> dict[str, Interval]:
    """Median epsilon-hat of every approach minus that of `against`; negative = better than that one.

    The intervals are meant to hold together for all pairs of `names`, whichever are looked at, and so for the best of
    them too: each is at Bonferroni's level. Simulated with 8 equal approaches (100 repetitions each of 32 models
    shifted by .8, 64 by .8 and 64 by 1.8 deviations, .3 of the variance common to all samples), at least one of the 28
    pairs was wrongly told apart at level .95 in 12, 11 and 0 %; intervals of single comparisons put some approach
    behind the best in 45 %.

    Infinite medians count as in `interval`, and open the end on their side; of two infinite ones the difference is 0.

    Args:
      found: of `bootstrap`.
      names: the approaches, `against` among them.
      against: the one that the others are compared with.
    """
    limited = {name: _limited(found, name) for name in names}
    pairs = max(1, len(names) * (len(names) - 1) // 2)
    critical = float(scipy.stats.norm.ppf(1 - (1 - found.confidence_level) / (2 * pairs)))
    told = {}
    for name, (value, drawn) in limited.items():
        other, drawn_too = limited[against]
        half = float(critical * np.std(drawn - drawn_too, ddof=1))
        is_same = name == against
        low = value - other - half if is_same or _is_finite(found, against) else float("-inf")
        high = value - other + half if is_same or _is_finite(found, name) else float("inf")
        if math.isnan(half):
            low = high = half
        both = np.isinf(found.values[name]) and np.isinf(found.values[against])
        told[name] = Interval(0.0 if both else found.values[name] - found.values[against], low, high)
    return told


def equal_groups(
    sizes: tuple[int, int], delta: float = epsilon.DELTA, *, score: str = "gaussian", slack: float = epsilon.SLACK,
    seed: int = 0,
) -> float:  # fmt: skip
    """The median epsilon-hat of groups that do not differ, simulated: what (Nr, Nu) models show of no difference.

    Statistics are standard normal; rules on the statistic itself do not depend on its distribution, the fitted ratio
    not on mean and deviation, but on the shape.

    Args:
      sizes: (Nr, Nu).
      delta: in [0, 1).
      score: as for `epsilon.count`.
      slack: as for `epsilon.epsilon_from_counts`.
      seed: of the simulation.
    """
    generator = np.random.default_rng((seed, *sizes))
    first, second = (generator.standard_normal((_SIMULATED, size), np.float32) for size in sizes)
    return epsilon.summarise(epsilon.epsilon_from_counts(epsilon.count(first, second, score), delta, slack)).median


def _limited(found: Bootstrap, name: str) -> tuple[float, np.ndarray]:
    """The median and the resampled ones, infinite ones as the ceiling."""
    top = found.ceilings[name]
    return float(np.minimum(found.values[name], top)), np.minimum(found.medians[name], top)


def _is_finite(found: Bootstrap, name: str) -> bool:
    return bool(np.isfinite(found.values[name]) and np.isfinite(found.medians[name]).all())


def bound_table(sizes: tuple[int, int], delta: float, confidence_level: float = 0.95) -> np.ndarray:
    """Lower bound on epsilon of a rule by its two error counts, for a rule that these models did not choose.

    Args:
      sizes: (Nr, Nu).
      delta: in [0, 1).
      confidence_level: confidence; half of what is missing to 1 goes to each rate.

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
    """Lower bound on epsilon, >= 0, from upper limits of both error rates."""
    rates = first, second
    with np.errstate(divide="ignore", invalid="ignore"):
        forms = [np.log((1 - delta - one) / other) for one, other in (rates, rates[::-1])]
    return np.fmax(np.fmax(*forms), 0.0)


def lower_bound(
    retrained: np.ndarray, unlearned: np.ndarray, delta: float = epsilon.DELTA, *, score: str = "gaussian",
    confidence_level: float = 0.95,
) -> np.ndarray:  # fmt: skip
    """Computes a lower bound on epsilon per sample, valid with probability `confidence_level`; HIGHER = proved worse.

    It depends on which models are even and which odd, as every split does; the order must not come from the numbers.

    Args:
      retrained: [S, Nr] statistics as `epsilon.count` takes them; even models choose the rule (that of the largest
        bound there), odd models count its errors.
      unlearned: [S, Nu] likewise.
      delta: in [0, 1).
      score: as for `epsilon.count`.
      confidence_level: confidence, for each sample by itself: of S samples without any difference at most (1 - level)
        S are expected above 0.

    Returns:
      [S] float64 >= 0, at most `bound_ceiling`.

    Raises:
      ShapeError: fewer than two models in a group. ConfigError: delta or level.
    """
    if min(retrained.shape[1], unlearned.shape[1]) < 2:
        raise errors.ShapeError(
            f"the lower bound halves {retrained.shape[1]} retrained and {unlearned.shape[1]} unlearned models; it "
            "needs at least two of each."
        )
    chosen, counted = _split_counts(
        jnp.asarray(retrained, jnp.float32), jnp.asarray(unlearned, jnp.float32), score
    )  # fmt: skip
    even, odd = _half_sizes(retrained.shape[1], unlearned.shape[1])
    best = np.argmax(bound_table(even, delta, confidence_level)[chosen], axis=-1)[:, None]
    wrong, wrong_too = (np.take_along_axis(np.asarray(one), best, -1)[:, 0] for one in counted)
    return bound_table(odd, delta, confidence_level)[wrong, wrong_too]


def _half_sizes(*sizes: int) -> tuple[tuple[int, int], tuple[int, int]]:
    first, second = sizes
    return ((first + 1) // 2, (second + 1) // 2), (first // 2, second // 2)


def max_bound(sizes: tuple[int, int], delta: float = epsilon.DELTA, confidence_level: float = 0.95) -> float:
    """The largest lower bound that (Nr, Nu) models can show, half of them choosing the rule."""
    first, second = (
        np.asarray(intervals.clopper_pearson(0, size, confidence_level).high) for size in _half_sizes(*sizes)[1]
    )
    return float(_bound(first, second, delta))


@partial(jax.jit, static_argnames="score")
def _split_counts(
    retrained: jax.Array, unlearned: jax.Array, score: str
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Errors of the rules of the even models, on these models and on the odd ones; [S, T] each."""
    even, odd = (retrained[:, ::2], unlearned[:, ::2]), (retrained[:, 1::2], unlearned[:, 1::2])
    is_log = score == "gaussian"
    if is_log:
        first, second = attack_rules.fit(even[0]), attack_rules.fit(even[1])
        even, odd = ((attack_rules.log_ratio(half[0], first, second), attack_rules.log_ratio(half[1], first, second))
                     for half in (even, odd))  # fmt: skip
    thresholds, _, _, is_positive = attack_rules.rules(even[0], even[1], is_log)
    # Half way to the next lower score: the same rule for the even models, a better one for others.
    ordered = jnp.sort(thresholds, -1)
    between = jnp.concatenate([ordered[:, :1], (ordered[:, 1:] + ordered[:, :-1]) / 2], -1)

    def wrong(half: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        over, over_too = attack_rules.above(between, *half)
        return attack_rules.errors_of(over, over_too, (half[0].shape[1], half[1].shape[1]), is_positive)

    return wrong(even), wrong(odd)
