"""epsilon-hat and the challenge score of several approaches: arrays in, numbers out; no settings file, no folder.

groups: approach -> (retrained, unlearned) logits [S, N, C] (or predictions [S, N]) -> Numbers per approach
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxunlearn.metrics import challenge, epsilon, epsilon_bounds
from jaxunlearn.metrics.intervals import Interval
from jaxunlearn.settings import EpsilonSettings

BASELINE = "baseline"
PLAIN = "finetune"  # what every other approach is compared with, where it is there
DELTAS = np.round(np.arange(99) / 100, 2)  # the published grid; at most 1 / N of it needs many models
UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))
Pair = tuple[np.ndarray, np.ndarray]


class Asked(NamedTuple):
    """What is measured.

    Attributes:
      settings: delta, score, metric and the like.
      compat: corrected or faithful (of the loss score).
      seed: of the bootstrap.
    """

    settings: EpsilonSettings
    compat: str = "corrected"
    seed: int = 0


class Challenge(NamedTuple):
    """The score of the NeurIPS-2023 challenge.

    Attributes:
      epsilon: [S] in [0, 50]; `capped`: how many are 50.
      forget: forget score; HIGHER = better.
      retain_ratio, test_ratio: accuracies, unlearned over retrained; NaN where not known.
      final: forget times both ratios; NaN where these are.
    """

    epsilon: np.ndarray
    capped: int
    forget: float
    retain_ratio: float
    test_ratio: float
    final: float


class Numbers(NamedTuple):
    """What is known of one approach.

    Attributes:
      sizes: (Nr, Nu) models.
      epsilon: [S] epsilon-hat, HIGHER = worse; empty where only the challenge score was asked for, like all up to
        `curve`. `summary` of it; `interval` of its median over models.
      ceiling: the largest finite epsilon-hat that so many models can show.
      bound: [S] proved lower bounds; `bound_ceiling`: the largest possible.
      curve: [D] median epsilon-hat at DELTAS, or empty.
      challenge: or None.
      accuracies: "retain", "forget", "test" -> [Nu], as recorded beside the logits; empty where unknown.
      own_accuracy: [Nu] accuracy of the logits themselves on the forget set; of a regression the mean absolute error.
    """

    sizes: tuple[int, int]
    epsilon: np.ndarray
    summary: epsilon.Summary
    interval: Interval
    ceiling: float
    bound: np.ndarray
    bound_ceiling: float
    curve: np.ndarray
    challenge: Challenge | None
    accuracies: dict[str, np.ndarray]
    own_accuracy: np.ndarray


class Found(NamedTuple):
    """All approaches, the baseline first.

    Attributes:
      numbers: approach -> Numbers.
      behind: approach -> its median epsilon-hat minus that of the best approach (the baseline is none), paired.
      beyond: approach -> the same minus that of PLAIN, where that was measured: negative = better than fine-tuning.
      margins: approach -> ([S, Nr], [S, Nu]) of margins (squared errors of a regression).
      labels: [S]; `is_regression`.
      asked: what was measured.
    """

    numbers: dict[str, Numbers]
    behind: dict[str, Interval]
    beyond: dict[str, Interval]
    margins: dict[str, Pair]
    labels: np.ndarray
    is_regression: bool
    asked: Asked


def measure(
    groups: Mapping[str, Pair], labels: np.ndarray, asked: Asked, accuracies: Mapping[str, Mapping[str, np.ndarray]]
) -> Found:
    """Measures every approach, and the retrained models against each other.

    Args:
      groups: approach -> (retrained [S, Nr, C], unlearned [S, Nu, C]) logits, or [S, Nr] and [S, Nu] predictions of a
        regression. The first approach's retrained models are also split into the baseline.
      labels: [S] classes, or true values.
      asked: what is measured.
      accuracies: approach, or BASELINE for the retrained models -> "retain", "forget", "test" -> [N] fractions.

    Raises:
      ShapeError, DataError, ConfigError: as `metrics.epsilon` and `metrics.challenge`.
    """
    first = next(iter(groups.values()))[0]
    is_regression = first.ndim == 2
    with_floor = {BASELINE: epsilon.halves(first), **groups} if first.shape[1] > 1 else dict(groups)
    chosen = asked.settings
    wanted = chosen.metric != "challenge"
    is_challenged = chosen.metric != "epsilon" and not is_regression
    statistics = {name: _statistics(pair, labels, asked, is_regression) for name, pair in with_floor.items()}
    resampled = None
    if wanted and chosen.bootstrap > 1:
        resampled = epsilon_bounds.bootstrap(
            statistics, chosen.delta, score=chosen.score, slack=_slack(is_regression), iterations=chosen.bootstrap,
            level=chosen.level, seed=asked.seed,
        )  # fmt: skip
    numbers = {}
    for name, pair in with_floor.items():
        known = {part: np.asarray(values) for part, values in accuracies.get(name, {}).items()}
        reference = known if name == BASELINE else accuracies.get(BASELINE, {})
        numbers[name] = _numbers(pair, statistics[name], labels, asked, is_regression)._replace(
            interval=UNKNOWN if resampled is None else epsilon_bounds.interval(resampled, name),
            challenge=_challenge(pair, labels, known, reference) if is_challenged else None,
            accuracies=known,
        )  # fmt: skip
    behind, beyond = {}, {}
    if resampled is not None:
        names = [name for name in numbers if name != BASELINE]
        best = best_of({name: numbers[name] for name in names})
        behind = {name: epsilon_bounds.difference(resampled, name, best) for name in names}
        others = [name for name in names if name != PLAIN] if PLAIN in names else []
        beyond = {name: epsilon_bounds.difference(resampled, name, PLAIN) for name in others}
    margins = statistics
    if chosen.score == "loss" and not is_regression:
        margins = {name: epsilon.statistics_of(*pair, labels) for name, pair in with_floor.items()}
    return Found(numbers, behind, beyond, margins, labels, is_regression, asked)


def best_of(numbers: Mapping[str, Numbers]) -> str:
    """The approach with the lowest median epsilon-hat; undefined ones last."""
    return min(numbers, key=lambda name: np.nan_to_num(numbers[name].summary.median, nan=np.inf))


def _slack(is_regression: bool) -> float:
    return 0.0 if is_regression else epsilon.SLACK


def _statistics(pair: Pair, labels: np.ndarray, asked: Asked, is_regression: bool) -> Pair:
    if is_regression:
        return epsilon.squared_errors(*pair, labels)
    return epsilon.statistics_of(*pair, labels, asked.settings.score, asked.compat)


def _numbers(pair: Pair, statistics: Pair, labels: np.ndarray, asked: Asked, is_regression: bool) -> Numbers:
    """All but what needs other approaches or accuracies."""
    chosen, slack = asked.settings, _slack(is_regression)
    sizes = pair[0].shape[1], pair[1].shape[1]
    score = "error" if is_regression else chosen.score
    values, bound, curve = np.zeros(0), np.zeros(0), np.zeros(0)
    bound_ceiling = float("nan")
    if chosen.metric != "challenge":
        counts = epsilon.count(*statistics, score)
        values = epsilon.epsilon_from_counts(counts, chosen.delta, slack)
        if min(sizes) > 1:
            bound = epsilon_bounds.lower_bound(*statistics, chosen.delta, score=score, level=chosen.level)
            bound_ceiling = epsilon_bounds.bound_ceiling(sizes, chosen.delta, chosen.level)
        if chosen.sweep:
            lines = epsilon.epsilon_sweep(counts, DELTAS, slack)
            curve = np.asarray([epsilon.summarise(line).median for line in lines])
    if is_regression:
        own = np.abs(pair[1] - labels[:, None]).mean(0)
    else:
        own = (np.argmax(pair[1], -1) == labels[:, None]).mean(0)
    return Numbers(
        sizes, values, epsilon.summarise(values), UNKNOWN, epsilon.ceiling(sizes, chosen.delta, slack), bound,
        bound_ceiling, curve, None, {}, own,
    )  # fmt: skip


def _challenge(
    pair: Pair, labels: np.ndarray, own: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]
) -> Challenge:
    first, second = (challenge.scaled_confidence(one, labels) for one in pair)
    values = challenge.challenge_epsilon(first, second)
    forget = challenge.challenge_score(values, min(pair[0].shape[1], pair[1].shape[1]))
    known = all(part in one for part in ("retain", "test") for one in (own, reference))
    ratios = [float(np.mean(own[part]) / np.mean(reference[part])) if known else float("nan")
              for part in ("retain", "test")]  # fmt: skip
    final = float("nan")
    if known:
        final = challenge.final_score(
            forget, unlearned_retain=own["retain"], retrained_retain=reference["retain"], unlearned_test=own["test"],
            retrained_test=reference["test"],
        )  # fmt: skip
    return Challenge(values, int((values >= challenge.CAP).sum()), forget, ratios[0], ratios[1], final)
