"""epsilon-hat: how well N retrained and N unlearned models can be told apart, per forgotten sample. HIGHER = WORSE.

    logits [S, N, C] of both groups --margins--> [S, N] --gaussian_log_ratio--> attack scores [S, N]
      --count--> errors of every threshold rule, whole numbers --epsilon_from_counts--> [S] for any delta

A threshold rule that takes FPR of one group and misses FNR of the other says, as in differential privacy,
epsilon >= log((1 - delta - FPR) / FNR), and the same with FPR and FNR exchanged. epsilon-hat is the largest of these
over all thresholds: +inf where the groups are separated, NaN where no rule is of use, negative (never clipped) where
there is no evidence at all. It is an estimate without guarantee: models are fitted and attacked in the same sample, and
N models per side cannot show more than `ceiling`, log(N (1 - delta) - 1). `epsilon_bounds` has intervals, and the
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
# Added to all four numbers inside the logarithms; the regression form has none.
SLACK = 1e-8
# Below so many models per group the numbers mean little: a warning, not an error.
FEW_MODELS = 8


class Counts(NamedTuple):
    """Errors of the rules `score >= threshold`, one threshold per observed score (Nr + Nu of them).

    Attributes:
      retrained: [S, T] int32, how many of the retrained models rule t takes for unlearned ones.
      unlearned: [S, T] int32, how many of the unlearned models it takes for retrained ones.
      sizes: (Nr, Nu).
      retrained_is_positive: [S] bool, whether a high score means retrained; else it means unlearned.
      is_same: [S] bool, both groups hold one and the same value everywhere: epsilon is 0 by definition.
    """

    retrained: np.ndarray
    unlearned: np.ndarray
    sizes: tuple[int, int]
    retrained_is_positive: np.ndarray
    is_same: np.ndarray


class Summary(NamedTuple):
    """epsilon-hat of one approach over S samples.

    Attributes:
      median: without NaN samples: the headline. LOWER = better unlearning.
      mean: without NaN samples; inf as soon as one sample is separated.
      half_width: 1.96 standard deviations (ddof 0) / sqrt(S); NaN with an infinite sample. It takes samples for
        independent, which they are not: they share the models.
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
    """Errors of all rules on a statistic that a model has for a sample (margin, loss, squared error).

    The group with the larger median score is the positive one (ties: unlearned).

    Args:
      retrained: [S, Nr] float.
      unlearned: [S, Nu] float.
      score: "gaussian": rules on the fitted log ratio of densities; anything else: on the statistic itself.
    """
    first, second = jnp.asarray(retrained, jnp.float32), jnp.asarray(unlearned, jnp.float32)
    wrong, wrong_too, is_positive, is_same = map(np.asarray, attack_rules.error_counts(first, second, score))
    return Counts(wrong, wrong_too, (first.shape[1], second.shape[1]), is_positive, is_same)


def statistics_of(
    retrained: np.ndarray, unlearned: np.ndarray, labels: np.ndarray, score: str = "gaussian",
    compat: str = "corrected",
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """What `count` takes, from logits: margins, or cross entropies for score "loss".

    Args:
      retrained: [S, Nr, C] float logits.
      unlearned: [S, Nu, C] float logits.
      labels: [S] int.
      score: one of SCORES.
      compat: "faithful" makes the published loss score: the one-hot label row of its files stays in as one more
        model on both sides, so that no sample is ever separated. Other scores are the same in both.

    Raises:
      ShapeError, DataError: shapes that do not fit, NaN, labels that are no classes. ConfigError: score or compat.
    """
    checks.choice("score", score, SCORES)
    checks.choice("compat", compat, COMPAT)
    sizes = checks.shape("SNC SMC S", retrained=retrained, unlearned=unlearned, labels=labels)
    if min(sizes.values()) < 1 or sizes["C"] < 2:
        raise errors.ShapeError(
            f"retrained {np.shape(retrained)} and unlearned {np.shape(unlearned)} must hold at least one sample, one "
            "model and two classes."
        )
    checks.labels("labels", labels, sizes["C"])
    for name, values in (("retrained", retrained), ("unlearned", unlearned)):
        checks.not_nan(name, values, "SNC")
    given = jnp.asarray(labels)
    if score != "loss":
        return np.asarray(attack_rules.margins(retrained, given)), np.asarray(attack_rules.margins(unlearned, given))
    found = np.asarray(attack_rules.losses(retrained, given)), np.asarray(attack_rules.losses(unlearned, given))
    if compat == "corrected":
        return found
    of_label = np.float32(np.log1p((sizes["C"] - 1) / np.e))
    first, second = (np.insert(one, 0, of_label, axis=1) for one in found)
    return first, second


def epsilon_table(sizes: tuple[int, int], delta: float, slack: float = SLACK) -> np.ndarray:
    """Epsilon of a rule by its two error counts.

    Args:
      sizes: (Nr, Nu).
      delta: in [0, 1).
      slack: added inside the logarithms.

    Returns:
      [Nr + 1, Nu + 1] float64; inf at [0, 0]; NaN where exactly one count is 0 (too few models to say) or where both
      logarithms are undefined.
    """
    checks.in_range("delta", delta, 0, np.nextafter(1.0, 0.0))
    rates = np.arange(sizes[0] + 1)[:, None] / sizes[0], np.arange(sizes[1] + 1)[None] / sizes[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        forms = [
            np.log(1 - delta - one + slack) - np.log(other + slack) for one, other in (rates, rates[::-1])
        ]  # fmt: skip
    found = np.fmax(*forms)
    found[0], found[:, 0] = np.nan, np.nan
    found[0, 0] = np.inf
    return found


def epsilon_from_counts(counts: Counts, delta: float = DELTA, slack: float = SLACK) -> np.ndarray:
    """[S] float64 epsilon-hat at one delta; +inf = separated, NaN = no usable rule, negative = no evidence.

    Raises:
      ConfigError: delta outside [0, 1).
    """
    found = np.fmax.reduce(epsilon_table(counts.sizes, delta, slack)[counts.retrained, counts.unlearned], axis=-1)
    return np.where(counts.is_same, 0.0, found)


def epsilon_sweep(counts: Counts, deltas: np.ndarray, slack: float = SLACK) -> np.ndarray:
    """[D, S] float64 epsilon-hat at D values of delta, from the same counts."""
    return np.stack([epsilon_from_counts(counts, float(delta), slack) for delta in deltas])


def epsilon_hat(
    retrained: np.ndarray, unlearned: np.ndarray, labels: np.ndarray, delta: float = DELTA, *,
    score: str = "gaussian", compat: str = "corrected",
) -> np.ndarray:  # fmt: skip
    """epsilon-hat of every forgotten sample, in the order given. HIGHER = easier to tell apart = worse unlearning.

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
    """
    return epsilon_from_counts(count(*statistics_of(retrained, unlearned, labels, score, compat), score), delta)


def regression_epsilon(
    retrained: np.ndarray, unlearned: np.ndarray, targets: np.ndarray, delta: float = DELTA
) -> np.ndarray:
    """[S] float64 epsilon-hat of a regression: threshold rules on the squared error. HIGHER = worse unlearning.

    Args:
      retrained: [S, Nr] float predictions.
      unlearned: [S, Nu] float predictions.
      targets: [S] float true values.
      delta: in [0, 1).

    Raises:
      ShapeError, DataError, ConfigError: shapes, values that are not finite, delta.

    Source: Forget with Precision, the age regression on AgeDB (its logarithms have no slack).
    """
    return epsilon_from_counts(count(*squared_errors(retrained, unlearned, targets), "error"), delta, 0.0)


def squared_errors(retrained: np.ndarray, unlearned: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `count` takes of a regression; raises as `regression_epsilon`."""
    sizes = checks.shape("SN SM S", retrained=retrained, unlearned=unlearned, targets=targets)
    if min(sizes.values()) < 1:
        raise errors.ShapeError(
            f"retrained {np.shape(retrained)} and unlearned {np.shape(unlearned)} must hold at least one sample and "
            "one model."
        )
    for name, values in (("retrained", retrained), ("unlearned", unlearned), ("targets", targets)):
        checks.finite(name, values)
    # In float64: float32 predictions of large numbers have lost their errors.
    first, second = (np.asarray(one, np.float64) - np.asarray(targets, np.float64)[:, None]
                     for one in (retrained, unlearned))  # fmt: skip
    return (first**2).astype(np.float32), (second**2).astype(np.float32)


def halves(retrained: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The baseline's two groups: the first half of the retrained models [S, N, ...] and the second.

    What epsilon-hat shows between models that do not differ: not 0, because the best of many rules is taken. Half as
    many models have a lower ceiling, and overfit more: `epsilon_bounds.equal_groups` says what all of them would show.

    Raises:
      ShapeError: fewer than two models.
    """
    half = np.shape(retrained)[1] // 2
    if half < 1:
        raise errors.ShapeError("the baseline needs at least two retrained models to split.")
    return retrained[:, :half], retrained[:, half : 2 * half]


def max_finite(sizes: tuple[int, int], delta: float = DELTA, slack: float = SLACK) -> float:
    """The largest finite epsilon-hat that (Nr, Nu) models can show; NaN where they can show none."""
    table = epsilon_table(sizes, delta, slack)
    finite = table[np.isfinite(table)]
    return float(finite.max()) if len(finite) else float("nan")


def summarise(epsilon: np.ndarray) -> Summary:
    """Medians and the like of [S] values; NaN where every sample is NaN."""
    known = epsilon[~np.isnan(epsilon)]
    finite = epsilon[np.isfinite(epsilon)]
    nothing = float("nan")
    low, median, high = quantiles(known)
    with np.errstate(invalid="ignore"):
        half_width = 1.96 * np.std(known) / np.sqrt(len(epsilon)) if len(known) else nothing
    return Summary(
        median, float(known.mean()) if len(known) else nothing, float(half_width), low, high,
        float(finite.mean()) if len(finite) else nothing,
        len(epsilon) - len(known), int(np.isposinf(epsilon).sum()), int((epsilon < 0).sum()),
    )  # fmt: skip


def quantiles(known: np.ndarray) -> tuple[float, float, float]:
    """Quartiles of values that may be infinite: between a finite and an infinite one lies infinity, not NaN."""
    if not len(known):
        return float("nan"), float("nan"), float("nan")
    ordered = np.sort(known)
    found = []
    for part in (0.25, 0.5, 0.75):
        place = part * (len(ordered) - 1)
        low, high = ordered[int(np.floor(place))], ordered[int(np.ceil(place))]
        found.append(float(low if low == high else low + (place - np.floor(place)) * (high - low)))
    return found[0], found[1], found[2]
