"""epsilon-hat: how well N retrained and N unlearned models can be told apart, per forgotten sample. HIGHER = WORSE.

    logits [S, N, C] of both groups --margins--> [S, N] --gaussian_log_ratio--> attack scores [S, N]
      --count--> errors of every threshold rule, whole numbers --epsilon_from_counts--> [S] for any delta

As in differential privacy, a threshold rule with error rates FPR and FNR implies
epsilon >= log((1 - delta - FPR) / FNR), and the same with FPR and FNR exchanged. epsilon-hat is the largest of these
over all thresholds: +inf where the groups are separated, NaN where no rule is usable, negative (never clipped) where
there is no evidence at all. It is an estimate without guarantee: the attack is fitted and evaluated on the same models,
and N models per group attain at most `max_finite`, log(N (1 - delta) - 1). `epsilon_bounds` has intervals, and the
lower bound of the auditing literature.

Counts come from jitted kernels (`attack_rules`); the few formulas over whole numbers run in float64 on the host, as a
table over all pairs of counts, so that a sweep over delta costs lookups only.

Source: Forget with Precision, section on the metric (published code: attack.py, plots_eps.py, get_results_AgeDB.py).
Differs from it: samples keep their order; the log of the density ratio replaces a quotient that underflows; groups may
differ in size (published: labels misaligned); groups without spread have a defined value (published: error).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.metrics.epsilon import attack_rules

SCORES = ("gaussian", "loss", "margin")
COMPAT = ("corrected", "faithful")
DELTA = 0.05
# Added to all four terms inside the logarithms; the regression form has none.
SMOOTHING = 1e-8
# With fewer models per group epsilon-hat means little: a warning, not an error.
FEW_MODELS = 8


class Counts(NamedTuple):
    """Errors of the rules `score >= threshold`, one threshold per observed score (Nr + Nu of them).

    Attributes:
      retrained: [S, T] int32, number of retrained models that rule t classifies as unlearned.
      unlearned: [S, T] int32, number of unlearned models that it classifies as retrained.
      sizes: (Nr, Nu).
      retrained_is_positive: [S] bool, whether a high score means retrained; else it means unlearned.
      is_same: [S] bool, all models of both groups have the same value: epsilon is 0 by definition.
    """

    retrained: np.ndarray
    unlearned: np.ndarray
    sizes: tuple[int, int]
    retrained_is_positive: np.ndarray
    is_same: np.ndarray


class Summary(NamedTuple):
    """epsilon-hat of one approach over S samples.

    Attributes:
      median: without NaN samples; the headline. LOWER = better unlearning.
      mean: without NaN samples; inf as soon as one sample is separated.
      half_width: 1.96 standard deviations (ddof 0) / sqrt(S); NaN with an infinite sample. It treats samples as
        independent, although they share the models.
      low_quartile, high_quartile: without NaN samples.
      finite_mean: over finite samples.
      nan, inf, negative: numbers of samples.
    """

    median: float
    mean: float
    half_width: float
    low_quartile: float
    high_quartile: float
    finite_mean: float
    nan: int
    inf: int
    negative: int


def count(retrained: np.ndarray, unlearned: np.ndarray, score: str = "gaussian") -> Counts:
    """Counts the errors of all rules on a statistic of models and samples (margin, loss, squared error).

    The group with the larger median score is the positive one (ties: unlearned).

    Args:
      retrained: [S, Nr] float.
      unlearned: [S, Nu] float.
      score: "gaussian": rules on the fitted log ratio of densities; anything else: on the statistic itself.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.epsilon import count
      >>> counts = count(np.array([[1.0, 2.0]]), np.array([[5.0, 6.0]]), score="margin")
      >>> counts.sizes, int((counts.retrained + counts.unlearned).min())
      ((2, 2), 0)
    """
    first, second = jnp.asarray(retrained, jnp.float32), jnp.asarray(unlearned, jnp.float32)
    retrained_errors, unlearned_errors, is_positive, is_same = map(
        np.asarray, attack_rules.error_counts(first, second, score)
    )
    return Counts(retrained_errors, unlearned_errors, (first.shape[1], second.shape[1]), is_positive, is_same)


def statistics_of(
    retrained: np.ndarray, unlearned: np.ndarray, labels: np.ndarray, score: str = "gaussian",
    compat: str = "corrected",
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Computes the statistics for `count` from logits: margins, or cross entropies for score "loss".

    Args:
      retrained: [S, Nr, C] float logits.
      unlearned: [S, Nu, C] float logits.
      labels: [S] int.
      score: one of SCORES.
      compat: "faithful" gives the published loss score: the one-hot label row of its files stays in as one more
        model on both sides, so that no sample is ever separated. Other scores are the same in both.

    Raises:
      ShapeError, DataError: shapes that do not fit, NaN, labels that are not classes. ConfigError: score or compat.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.epsilon import statistics_of
      >>> retrained, unlearned = statistics_of(np.array([[[3.0, 1.0]]]), np.array([[[0.0, 2.0]]]), np.array([0]))
      >>> retrained.tolist(), unlearned.tolist()
      ([[2.0]], [[-2.0]])
    """
    checks.choice("score", score, SCORES)
    checks.choice("compat", compat, COMPAT)
    sizes = checks.shape("SNC SMC S", retrained=retrained, unlearned=unlearned, labels=labels)
    if min(sizes.values()) < 1 or sizes["C"] < 2:
        raise errors.ShapeError(
            f"retrained {np.shape(retrained)} and unlearned {np.shape(unlearned)} must contain at least one sample, "
            "one model and two classes."
        )
    checks.labels("labels", labels, sizes["C"])
    for name, values in (("retrained", retrained), ("unlearned", unlearned)):
        checks.not_nan(name, values, "SNC")
    label_array = jnp.asarray(labels)
    if score != "loss":
        return np.asarray(attack_rules.margins(retrained, label_array)), np.asarray(
            attack_rules.margins(unlearned, label_array)
        )
    losses = (
        np.asarray(attack_rules.losses(retrained, label_array)),
        np.asarray(attack_rules.losses(unlearned, label_array)),
    )
    if compat == "corrected":
        return losses
    of_label = np.float32(np.log1p((sizes["C"] - 1) / np.e))
    first, second = (np.insert(group, 0, of_label, axis=1) for group in losses)
    return first, second


def epsilon_table(sizes: tuple[int, int], delta: float, smoothing: float = SMOOTHING) -> np.ndarray:
    """Computes epsilon of a rule by its two error counts.

    Args:
      sizes: (Nr, Nu).
      delta: in [0, 1).
      smoothing: added inside the logarithms.

    Returns:
      [Nr + 1, Nu + 1] float64; inf at [0, 0]; NaN where exactly one count is 0 (too few models to tell) or where both
      logarithms are undefined.

    Example:
      >>> from jaxunlearn.metrics.epsilon import epsilon_table
      >>> epsilon_table((2, 2), delta=0.0).round(2)[:2].tolist()
      [[inf, nan, nan], [nan, 0.0, -0.69]]
    """
    checks.in_range("delta", delta, 0, np.nextafter(1.0, 0.0))
    rates = np.arange(sizes[0] + 1)[:, None] / sizes[0], np.arange(sizes[1] + 1)[None] / sizes[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        forms = [
            np.log(1 - delta - rate + smoothing) - np.log(other_rate + smoothing)
            for rate, other_rate in (rates, rates[::-1])
        ]  # fmt: skip
    table = np.fmax(*forms)
    table[0], table[:, 0] = np.nan, np.nan
    table[0, 0] = np.inf
    return table


def epsilon_from_counts(counts: Counts, delta: float = DELTA, smoothing: float = SMOOTHING) -> np.ndarray:
    """Computes epsilon-hat [S] float64 at one delta; +inf = separated, NaN = no usable rule, negative = no evidence.

    Raises:
      ConfigError: delta outside [0, 1).

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.epsilon import count, epsilon_from_counts
      >>> epsilon_from_counts(count(np.array([[1.0, 2.0]]), np.array([[5.0, 6.0]]))).tolist()
      [inf]
    """
    epsilons = np.fmax.reduce(
        epsilon_table(counts.sizes, delta, smoothing)[counts.retrained, counts.unlearned], axis=-1
    )
    return np.where(counts.is_same, 0.0, epsilons)


def epsilon_sweep(counts: Counts, deltas: np.ndarray, smoothing: float = SMOOTHING) -> np.ndarray:
    """Computes epsilon-hat [D, S] float64 at D values of delta, from the same counts.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.epsilon import count, epsilon_sweep
      >>> epsilon_sweep(count(np.array([[1.0, 1.0]]), np.array([[1.0, 1.0]])), [0.0, 0.1]).tolist()
      [[0.0], [0.0]]
    """
    return np.stack([epsilon_from_counts(counts, float(delta), smoothing) for delta in deltas])


def epsilon_hat(
    retrained: np.ndarray, unlearned: np.ndarray, labels: np.ndarray, delta: float = DELTA, *,
    score: str = "gaussian", compat: str = "corrected",
) -> np.ndarray:  # fmt: skip
    """Computes epsilon-hat of every forgotten sample. HIGHER = easier to tell apart = worse unlearning.

    Args:
      retrained: [S, Nr, C] float logits of models retrained without the samples.
      unlearned: [S, Nu, C] float logits of unlearned models.
      labels: [S] int true classes.
      delta: in [0, 1).
      score: "gaussian" (the paper's), "loss", or "margin" (one-sided threshold on the raw margin).
      compat: see `statistics_of`.

    Returns:
      [S] float64. With one model per group: 0 where both have the same statistic, else inf.

    Raises:
      ShapeError, DataError, ConfigError: see `statistics_of`, and delta.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.epsilon import epsilon_hat
      >>> retrained = np.array([[[1.0, 0.0], [2.0, 0.0]]])
      >>> epsilon_hat(retrained, retrained + [9.0, 0.0], labels=np.array([0])).tolist()
      [inf]
    """
    return epsilon_from_counts(count(*statistics_of(retrained, unlearned, labels, score, compat), score), delta)


def regression_epsilon(
    retrained: np.ndarray, unlearned: np.ndarray, targets: np.ndarray, delta: float = DELTA
) -> np.ndarray:
    """Computes epsilon-hat [S] float64 of a regression by rules on the squared error. HIGHER = worse unlearning.

    Args:
      retrained: [S, Nr] float predictions.
      unlearned: [S, Nu] float predictions.
      targets: [S] float true values.
      delta: in [0, 1).

    Raises:
      ShapeError, DataError, ConfigError: shapes, values that are not finite, delta.

    Source: Forget with Precision, the age regression on AgeDB (its logarithms have no smoothing term).

    Example:
      >>> from jaxunlearn.metrics.epsilon import regression_epsilon
      >>> regression_epsilon([[30.0, 31.0]], [[40.0, 41.0]], targets=[30.0]).tolist()
      [inf]
    """
    return epsilon_from_counts(count(*squared_errors(retrained, unlearned, targets), "error"), delta, 0.0)


def squared_errors(retrained: np.ndarray, unlearned: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the statistics [S, Nr], [S, Nu] of a regression for `count`; raises as `regression_epsilon`.

    Example:
      >>> from jaxunlearn.metrics.epsilon import squared_errors
      >>> [errors.tolist() for errors in squared_errors([[30.0, 31.0]], [[40.0, 41.0]], targets=[30.0])]
      [[[0.0, 1.0]], [[100.0, 121.0]]]
    """
    sizes = checks.shape("SN SM S", retrained=retrained, unlearned=unlearned, targets=targets)
    if min(sizes.values()) < 1:
        raise errors.ShapeError(
            f"retrained {np.shape(retrained)} and unlearned {np.shape(unlearned)} must contain at least one sample and "
            "one model."
        )
    for name, values in (("retrained", retrained), ("unlearned", unlearned), ("targets", targets)):
        checks.finite(name, values)
    # In float64: float32 predictions of large numbers have lost their errors.
    first, second = (np.asarray(predictions, np.float64) - np.asarray(targets, np.float64)[:, None]
                     for predictions in (retrained, unlearned))  # fmt: skip
    return (first**2).astype(np.float32), (second**2).astype(np.float32)


def halves(retrained: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits the retrained models [S, N, ...] into the two groups of the baseline, the first half and the second.

    Their epsilon-hat is that of models that do not differ; it is not 0, because it is the best of many rules. Half as
    many models attain less, and overfit more: `epsilon_bounds.equal_groups` gives the value for groups of full size.

    Raises:
      ShapeError: fewer than two models.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.epsilon import halves
      >>> [half.tolist() for half in halves(np.arange(5)[None])]
      [[[0, 1]], [[2, 3]]]
    """
    size = np.shape(retrained)[1] // 2
    if size < 1:
        raise errors.ShapeError("the baseline needs at least two retrained models to split.")
    return retrained[:, :size], retrained[:, size : 2 * size]


def max_finite(sizes: tuple[int, int], delta: float = DELTA, smoothing: float = SMOOTHING) -> float:
    """Computes the largest finite epsilon-hat attainable with (Nr, Nu) models; NaN if there is none.

    Example:
      >>> from jaxunlearn.metrics.epsilon import max_finite
      >>> round(max_finite((32, 32)), 2), max_finite((1, 1))
      (3.38, nan)
    """
    table = epsilon_table(sizes, delta, smoothing)
    finite = table[np.isfinite(table)]
    return float(finite.max()) if len(finite) else float("nan")


def summarise(epsilon: np.ndarray) -> Summary:
    """Summarises epsilon-hat [S] of one approach: median, mean, quartiles; NaN if every sample is NaN.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.epsilon import summarise
      >>> summary = summarise(np.array([0.5, 1.0, np.inf, np.nan]))
      >>> summary.median, summary.finite_mean, summary.nan, summary.inf
      (1.0, 0.75, 1, 1)
    """
    defined = epsilon[~np.isnan(epsilon)]
    finite = epsilon[np.isfinite(epsilon)]
    nan = float("nan")
    low, median, high = quantiles(defined)
    with np.errstate(invalid="ignore"):
        half_width = 1.96 * np.std(defined) / np.sqrt(len(epsilon)) if len(defined) else nan
    return Summary(
        median, float(defined.mean()) if len(defined) else nan, float(half_width), low, high,
        float(finite.mean()) if len(finite) else nan,
        len(epsilon) - len(defined), int(np.isposinf(epsilon).sum()), int((epsilon < 0).sum()),
    )  # fmt: skip


def quantiles(values: np.ndarray) -> tuple[float, float, float]:
    """Returns the quartiles of values that may be infinite; between a finite and an infinite one lies infinity.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.epsilon import quantiles
      >>> [float(value) for value in quantiles(np.array([1.0, 2.0, 3.0, np.inf]))]
      [1.75, 2.5, inf]
    """
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    ordered = np.sort(values)
    quartiles = []
    for fraction in (0.25, 0.5, 0.75):
        position = fraction * (len(ordered) - 1)
        low, high = ordered[int(np.floor(position))], ordered[int(np.ceil(position))]
        quartiles.append(float(low if low == high else low + (position - np.floor(position)) * (high - low)))
    return quartiles[0], quartiles[1], quartiles[2]
