"""Forget score of the NeurIPS 2023 machine unlearning challenge: epsilon per sample, points, final score.

    logits [S, N, C] of both groups --scaled_confidence--> [S, N] --challenge_epsilon--> [S]     higher = WORSE
      --challenge_score--> mean of the points of bins, in [0, 1] --final_score--> times utility   higher = BETTER

epsilon is the largest over some 160,000 rules: one-sided thresholds on a grid, and windows with both ends on grids that
take the narrower group. Many rules overfit: two halves of the same retrained models have epsilon 1.6 (N = 40), not 0.
Compare a score with that of the halves.

The published scorer evaluates every rule on every model. Here a rule is the indices of its ends among the sorted values
of a sample: one pass over (right ends) x (values) finds the indices that occur, and cumulative counts and a table over
pairs of counts give epsilon. Most right ends cannot exceed the best epsilon of a few and are skipped.

NumPy in float64, not a jitted program: whether a value that equals an end of a window counts as inside depends on the
last bit (the smallest value of the narrower group lies on the grid of left ends by construction), and compilers may
fuse the products and sums that make the ends. float32 gives another epsilon for about 1 sample in 80 of published
models.

Source: the NeurIPS 2023 machine unlearning challenge and its public scorer (google-deepmind/unlearning_evaluation).
Differs from it: as published, an assertion on an array fails for every sample that is not peaky; groups that allow no
rule, such as equal constants, have epsilon 0 here (published: an assertion); logits are not overwritten.
"""

import math
from typing import Any

import numpy as np

from jaxunlearn import checks, errors

DELTA = 1e-5
# epsilon of groups that a rule separates, and of groups where one is narrower than PEAKY times the other.
CAP = 50.0
PEAKY = 0.01
# Width of the bins that get points.
BIN = 0.5
# Grids: points per unit, how far the ends of windows reach beyond the narrower group, left ends per right end.
PER_UNIT = 100
REACH = 2.0
LEFT_ENDS = 400
# Log-odds; the grid of thresholds grows with the largest, and float64 must resolve a thousandth of its pitch.
LARGEST_CONFIDENCE = 1e4
# Added inside both logarithms; bounds the confidence to +-103.62.
SMOOTHING = 1e-45
# Values this close to a left end (in pitches) are compared with it exactly.
_NEAR = 1e-6


def scaled_confidence(logits: Any, labels: Any) -> np.ndarray:
    """Computes log-odds of the true class, log p_y - log(sum of the other probabilities); higher = more confident.

    Args:
      logits: [..., C] float, C >= 2: [S, N, C] of N models or [S, C] of one; -inf is allowed.
        float64 keeps its precision, everything else is float32 as published.
      labels: int, over the leading axes of the logits: [S] for both.

    Returns:
      [...] float64 within +-103.62, where the softmax has saturated.

    Raises:
      ShapeError, DataError: shapes that do not fit, fewer than two classes, NaN, labels that are not classes.

    Source: `compute_logit_scaled_confidence`: exp in the precision of the logits, all else in float64. This keeps the
    published ties of confident models, unlike the unbounded log-odds of the membership scores.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.metrics.epsilon import challenge
      >>> challenge.scaled_confidence(np.zeros((1, 2)), np.array([0])).tolist()
      [0.0]
    """
    outputs, index = np.asarray(logits), np.asarray(labels)
    if outputs.ndim <= index.ndim or outputs.shape[: index.ndim] != index.shape or outputs.shape[-1] < 2:
        raise errors.ShapeError(
            f"logits have shape {outputs.shape} and labels {index.shape}: expected logits [S, ..., C] of at least two "
            "classes and labels [S]."
        )
    checks.labels("labels", index, outputs.shape[-1])
    values = outputs if outputs.dtype == np.float64 else outputs.astype(np.float32)
    checks.not_nan("logits", values, "S" + "N" * (outputs.ndim - 2) + "C")
    largest = values.max(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        # The largest are 0 by definition: infinity minus infinity is not. Masked classes (-inf) have probability 0.
        values = np.where(values == largest, values.dtype.type(0), values - largest)
    probabilities = np.exp(values, out=values).astype(np.float64)
    probabilities /= probabilities.sum(-1, keepdims=True)
    index = index.reshape(index.shape + (1,) * (outputs.ndim - index.ndim))
    index = np.broadcast_to(index, (*outputs.shape[:-1], 1))
    true_probability = np.take_along_axis(probabilities, index, -1)[..., 0]
    np.put_along_axis(probabilities, index, 0.0, -1)
    return np.log(true_probability + SMOOTHING) - np.log(probabilities.sum(-1) + SMOOTHING)


def challenge_epsilon(retrained: Any, unlearned: Any, delta: float = DELTA) -> np.ndarray:
    """Computes epsilon of every forgotten sample. HIGHER = easier to tell apart = worse unlearning.

    A rule with false positive rate FPR and false negative rate FNR gives
    max(0, log(1 - delta - FPR) - log FNR, log(1 - delta - FNR) - log FPR); CAP where both are 0; nothing where only
    one is. Rules are
      confidence >= threshold: it means the group with the larger median (ties: unlearned);
      left <= confidence <= right: it means the group with the smaller range (ties: the other one).

    Args:
      retrained: [S, Nr] float confidences (`scaled_confidence`) of models retrained without the samples.
      unlearned: [S, Nu] float, of unlearned models. Taken as float64, whatever the type.
      delta: in [0, 1).

    Returns:
      [S] float64 in [0, 50], rates and logarithms in float32 as published. 50 where a rule separates the groups and
      where the range of one is below 1 % of the other's; 0 where no rule is usable. With N models per group the
      largest value below 50 is about log(N - 1). A single model is no evidence: against several that differ it gives
      50 (no range), against another single one 50 or, if they differ by less than the grids resolve (0.01), perhaps 0.

    Raises:
      ShapeError: not [S, Nr] and [S, Nu], or empty. DataError: values that are not finite, or beyond
        LARGEST_CONFIDENCE. ConfigError: delta.

    Source: `_get_epsilons` of the public scorer (whose axes are [N, S]); equal to the last bit on published models.

    Example:
      >>> from jaxunlearn.metrics.epsilon import challenge
      >>> challenge.challenge_epsilon([[0.0, 1.0, 2.0]], [[7.0, 8.0, 9.0]]).tolist()
      [50.0]
    """
    first, second = groups = _checked(retrained, unlearned)
    checks.in_range("delta", delta, 0, np.nextafter(1.0, 0.0))
    sizes = first.shape[1], second.shape[1]

    lows, highs = np.stack([group.min(1) for group in groups]), np.stack([group.max(1) for group in groups])
    ranges = highs - lows
    # Groups by number, 0 = retrained, 1 = unlearned: the group of high confidences, and the group inside windows.
    upper = np.where(np.median(first, 1) > np.median(second, 1), 0, 1)
    narrow = np.where(ranges[0] == ranges[1], 1 - upper, ranges.argmin(0))
    wide = ranges.max(0)
    is_peaky = (wide > 0) & (ranges.min(0) / np.where(wide > 0, wide, 1) < PEAKY)

    pooled = np.concatenate(groups, 1)
    order = np.argsort(pooled, 1)
    ordered = np.take_along_axis(pooled, order, 1)
    # How many of each group come before an index of the sorted values, both in one number: an entry of the tables.
    codes = np.zeros((len(pooled), pooled.shape[1] + 1), np.int64)
    np.cumsum(np.where(order < sizes[0], sizes[1] + 1, 1), 1, out=codes[:, 1:])
    tables = _table(*sizes, delta).ravel(), _table(*sizes[::-1], delta).T.ravel()

    epsilons = np.full(len(pooled), CAP)
    for sample in np.flatnonzero(~is_peaky):
        # Equal values share an index: confident models leave few different ones.
        is_new = np.diff(ordered[sample], prepend=-np.inf) > 0
        values, before = ordered[sample][is_new], codes[sample][np.append(is_new, True)]
        best = _best_threshold(values, before, tables[upper[sample]])
        inner = narrow[sample]
        ends = float(lows[inner, sample]), float(highs[inner, sample])
        epsilons[sample] = _best_window(values, before, ends, tables[inner], best)
    return epsilons


def _checked(retrained: Any, unlearned: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns both groups as float64; raises as `challenge_epsilon`."""
    sizes = checks.shape("SN SM", retrained=retrained, unlearned=unlearned)
    if min(sizes.values()) < 1:
        raise errors.ShapeError(
            f"retrained {np.shape(retrained)} and unlearned {np.shape(unlearned)} must contain at least one sample and "
            "one model."
        )
    first, second = np.asarray(retrained, np.float64), np.asarray(unlearned, np.float64)
    for name, values in (("retrained", first), ("unlearned", second)):
        checks.finite(name, values, "SN")
        largest = float(np.abs(values).max())
        if largest > LARGEST_CONFIDENCE:
            raise errors.DataError(
                f"{name} contains {largest:.4g}, but a confidence is a log-odds and at most {LARGEST_CONFIDENCE:.0f} "
                "in size; `scaled_confidence` makes them from logits."
            )
    return first, second


def bins(epsilon: Any, n_models: int) -> np.ndarray:
    """Returns points of samples: 1 for epsilon in [0, 0.5), 1/2 in [0.5, 1), halving with every bin; higher = better.

    Args:
      epsilon: [...] float, >= 0 or inf.
      n_models: N models per group (of unequal groups the smaller). The bins end at ceil(log(N - 1)), beyond the
        largest finite epsilon of N models; there is none for N <= 2.

    Returns:
      [...] float64, 0 beyond the last bin.

    Raises:
      DataError: NaN or negative epsilon. ConfigError: n_models below 1.
    """
    checks.in_range("n_models", n_models, 1)
    values = np.asarray(epsilon, np.float64)
    if not np.all(values >= 0):
        raise errors.DataError("epsilon must be at least 0 and no NaN; `challenge_epsilon` makes it.")
    ends = math.ceil(math.log(max(n_models - 1, 1)))
    return np.where(values < ends, 0.5 ** np.floor(values / BIN), 0.0)


def challenge_score(epsilon: Any, n_models: int) -> float:
    """Computes the forget score: mean of the points (`bins`) of epsilon [S], in [0, 1]; HIGHER = better unlearning.

    Raises:
      DataError: no sample, and as `bins`. ConfigError: n_models.

    Example:
      >>> from jaxunlearn.metrics.epsilon import challenge
      >>> challenge.challenge_score([0.2, 0.7, 50.0, 50.0], n_models=16)
      0.375
    """
    points = bins(epsilon, n_models)
    if not points.size:
        raise errors.DataError("epsilon contains no sample.")
    return float(points.mean())


def final_score(
    forget_score: float, *, unlearned_retain: Any, retrained_retain: Any, unlearned_test: Any, retrained_test: Any
) -> float:
    """Computes the challenge's score: forget score times relative accuracies; HIGHER = better.

    Args:
      forget_score: of `challenge_score`.
      unlearned_retain: [N] accuracies of unlearned models on retained samples; means are compared.
      retrained_retain: [N], of retrained models.
      unlearned_test: [N] accuracies of unlearned models on test samples.
      retrained_test: [N], of retrained models.

    Returns:
      forget_score times unlearned over retrained accuracy, both on retained and on test samples; a ratio may exceed 1.

    Raises:
      DataError: no accuracy, one that is not finite, or a retrained mean of 0.

    Example:
      >>> from jaxunlearn.metrics.epsilon import challenge
      >>> retain, test = {"unlearned_retain": [0.9], "retrained_retain": [0.9]}, {"retrained_test": [0.8]}
      >>> challenge.final_score(0.5, **retain, **test, unlearned_test=[0.4])
      0.25
    """
    pairs = (("retain", unlearned_retain, retrained_retain), ("test", unlearned_test, retrained_test))
    score = float(forget_score)
    for name, unlearned, retrained in pairs:
        means = []
        for role, accuracies in (("unlearned", unlearned), ("retrained", retrained)):
            values = np.asarray(accuracies, np.float64)
            checks.finite(f"{role}_{name}", values)
            if not values.size:
                raise errors.DataError(f"{role}_{name} contains no accuracy.")
            means.append(values.mean())
        if means[1] == 0:
            raise errors.DataError(f"retrained_{name} is 0 everywhere: there is no accuracy to compare with.")
        score *= float(means[0] / means[1])
    return score


def _table(n_inside: int, n_outside: int, delta: float) -> np.ndarray:
    """Returns epsilon of a rule by the number of models inside it, of its own group and of the other group.

    Returns:
      [n_inside + 1, n_outside + 1] float32; 0 where the rule does not count, so that it may take part in a maximum.
    """
    miss_rates = ((n_inside - np.arange(n_inside + 1)) / n_inside).astype(np.float32)[:, None]
    false_rates = (np.arange(n_outside + 1) / n_outside).astype(np.float32)[None]
    remainder = np.float32(1 - delta)
    with np.errstate(divide="ignore", invalid="ignore"):
        epsilons = np.fmax(
            np.log(remainder - false_rates) - np.log(miss_rates), np.log(remainder - miss_rates) - np.log(false_rates)
        )
    is_counted = (miss_rates > 0) & (false_rates > 0)
    epsilons = np.where(is_counted, np.fmax(epsilons, 0), 0)  # fmax: both logarithms may be undefined
    epsilons[-1, 0] = CAP
    return np.minimum(epsilons, np.float32(CAP))


def _thresholds(low: float, high: float) -> np.ndarray:
    """Returns the published grid of thresholds: float32, from the nearer end; [ceil(100 (high - low))] as float64."""
    size = math.ceil((high - low) * PER_UNIT)
    start, stop = np.float32(low), np.float32(high)
    if size < 2:
        return np.full(size, start, np.float64)
    step = (stop - start) / np.float32(size - 1)
    upwards = np.arange(size, dtype=np.float32)
    return np.where(upwards < size // 2, start + step * upwards, stop - step * upwards[::-1]).astype(np.float64)


def _best_threshold(values: np.ndarray, codes: np.ndarray, table: np.ndarray) -> float:
    """Returns the largest epsilon of the rules value >= threshold; values [n] as `_best_window`, codes [n + 1]."""
    below = np.searchsorted(_thresholds(float(values[0]), float(values[-1])), values, "right")
    is_first = np.diff(below, prepend=0) > 0  # some threshold lies between this value and the one before
    return float(table[codes[-1] - codes[:-1][is_first]].max(initial=0.0))


def _best_window(
    values: np.ndarray, codes: np.ndarray, ends: tuple[float, float], table: np.ndarray, best: float
) -> float:
    """Returns the largest of `best` and the epsilons of the rules left <= value <= right.

    Args:
      values: [n] distinct values of both groups, ascending.
      codes: [n + 1] codes of the models before each index.
      ends: smallest and largest value of the narrower group.
      table: float32, epsilon by difference of codes.
      best: largest epsilon so far.
    """
    low, high = ends
    width = high - low
    start, stop = low + width - REACH, high + REACH
    rights = np.linspace(start, stop, num=math.ceil((stop - start) * PER_UNIT))
    end_index = np.searchsorted(values, rights, "right")
    # Right ends between the same two values form a run: they take the same values. The epsilons of each run, for any
    # left end; a window whose left end lies beyond its right end (negative difference) counts as empty, entry 0.
    is_new = np.diff(end_index, prepend=-1) > 0
    window_epsilons = table[np.maximum(codes[end_index[is_new]][:, None] - codes[None, :-1], 0)]
    run_maxima = window_epsilons.max(1)
    run = np.cumsum(is_new) - 1
    # One right end per run mostly attains the maximum; then few of the others could exceed it.
    for candidates in (is_new, ~is_new):
        rows = np.flatnonzero(candidates & (run_maxima[run] > best))
        if len(rows):
            occurs = _first_inside(values, rights[rows], width)
            best = max(best, float((window_epsilons[run[rows]] * occurs).max()))
    return best


def _first_inside(values: np.ndarray, rights: np.ndarray, width: float) -> np.ndarray:
    """Returns [R, n] bool: whether some left end of right end r makes value k the first one inside."""
    starts, stops = rights - width - REACH, rights - width + REACH
    last = LEFT_ENDS - 1
    scale = last / (stops[0] - starts[0])
    # Number of left ends up to each value: one more than its position on the grid, rounded down.
    grid_index = values[None] * scale - (starts * scale - 1)[:, None]
    count = np.floor(grid_index + _NEAR)
    rows, columns = np.nonzero(count != np.floor(grid_index - _NEAR))
    np.clip(count, 0, LEFT_ENDS, out=count)
    if len(rows):  # the value lies on a left end within _NEAR
        nearest = np.rint(grid_index[rows, columns]) - 1
        is_on_grid = (nearest >= 0) & (nearest <= last)
        rows, columns, nearest = rows[is_on_grid], columns[is_on_grid], nearest[is_on_grid]
        steps = (stops - starts) / last
        ends = np.where(nearest == last, stops[rows], nearest * steps[rows] + starts[rows])  # as np.linspace has them
        count[rows, columns] = nearest + (ends <= values[columns])
    return np.diff(count, axis=1, prepend=0) > 0
