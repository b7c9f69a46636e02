"""epsilon-hat and the challenge score of several approaches: arrays in, numbers out; no settings file, no folder.

groups: approach -> (retrained, unlearned) logits [S, N, C] (or predictions [S, N]) -> Numbers per approach
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxunlearn.metrics.epsilon import challenge, epsilon, epsilon_bounds
from jaxunlearn.metrics.inference.intervals import Interval
from jaxunlearn.metrics.populations import closeness
from jaxunlearn.records import Design
from jaxunlearn.settings import EpsilonSettings

BASELINE = "baseline"
START = "original"  # an approach of this name did nothing
PLAIN = "finetune"  # what every other approach is compared with, where it is there
DELTAS = np.round(np.arange(99) / 100, 2)  # the published grid; at most 1 / N of it needs many models
UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))
Pair = tuple[np.ndarray, np.ndarray]


class EpsilonOptions(NamedTuple):
    """What is measured.

    Attributes:
      settings: delta, score, metric and the like.
      compat: corrected or faithful (of the loss score).
      seed: of the bootstrap.
      design: whose originals the unlearned models come from; `given` = not known.
    """

    settings: EpsilonSettings
    compat: str = "corrected"
    seed: int = 0
    design: Design = Design("given", 1)


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


class ApproachMetrics(NamedTuple):
    """What is known of one approach.

    Attributes:
      sizes: (Nr, Nu) models.
      epsilon: [S] epsilon-hat, HIGHER = worse; empty where only the challenge score was asked for, like all up to
        `curve`. `summary` of it; `interval` of its median over models.
      ceiling: the largest finite epsilon-hat that so many models can show.
      equal: the median that so many models show of no difference (simulated).
      bound: [S] proved lower bounds, or empty; `bound_ceiling`: the largest possible.
      curve: [D] median epsilon-hat at DELTAS, or empty.
      challenge: or None.
      accuracies: "retain", "forget", "test" -> [Nu], as recorded beside the logits; empty where unknown.
      own_accuracy: [Nu] accuracy of the logits themselves on the forget set (baseline: of all retrained models); of a
        regression the mean absolute error.
    """

    sizes: tuple[int, int]
    epsilon: np.ndarray
    summary: epsilon.Summary
    interval: Interval
    max_finite: float
    null_median: float
    bound: np.ndarray
    max_bound: float
    curve: np.ndarray
    challenge: Challenge | None
    accuracies: dict[str, np.ndarray]
    own_accuracy: np.ndarray


class EpsilonReport(NamedTuple):
    """All approaches; the baseline, halves of the retrained models against each other, first.

    Attributes:
      numbers: approach -> Numbers.
      order: approaches that may be called the best, the best first: by median epsilon-hat, or by the challenge's final
        score (without accuracies its forget score) where only that was asked for. Neither the baseline, nor doing
        nothing, nor a control.
      behind: approach -> its median epsilon-hat minus that of the best one, paired.
      beyond: approach -> the same minus that of PLAIN, where that was measured: negative = better than fine-tuning.
      gains: approach -> the same minus that of START, where that was measured: negative = closer to retraining than
        doing nothing.
      margins: approach -> ([S, Nr], [S, Nu]) of margins (squared errors of a regression).
      labels: [S]; `is_regression`.
      asked: what was measured.
    """

    approaches: dict[str, ApproachMetrics]
    order: tuple[str, ...]
    gap_to_best: dict[str, Interval]
    gap_to_finetuning: dict[str, Interval]
    gap_to_original: dict[str, Interval]
    margins: dict[str, Pair]
    labels: np.ndarray
    is_regression: bool
    options: EpsilonOptions


def measure_approaches(
    retrained: np.ndarray, approaches: Mapping[str, np.ndarray], labels: np.ndarray, asked: EpsilonOptions,
    accuracies: Mapping[str, Mapping[str, np.ndarray]],
) -> EpsilonReport:  # fmt: skip
    """Measures every approach, and the retrained models against each other.

    Args:
      retrained: [S, Nr, C] logits, or [S, Nr] predictions of a regression.
      approaches: name -> [S, Nu, C] or [S, Nu] of its unlearned models; may be empty: then the baseline alone.
      labels: [S] classes, or true values.
      asked: what is measured.
      accuracies: approach, or BASELINE for the retrained models -> "retain", "forget", "test" -> [N] fractions.

    Raises:
      ShapeError, DataError, ConfigError: as `metrics.epsilon` and `metrics.challenge`.
    """
    pairs = {name: (retrained, values) for name, values in approaches.items()}
    if retrained.shape[1] > 1:
        pairs = {BASELINE: epsilon.halves(retrained), **pairs}
    form = statistic_of(asked, retrained.ndim == 2)
    statistics = {name: _statistics(pair, labels, form) for name, pair in pairs.items()}
    chosen = asked.settings
    resampled = None
    if chosen.metric != "challenge" and chosen.bootstrap and not form.has_label_row:
        resampled = epsilon_bounds.bootstrap(
            statistics, chosen.delta, score=form.score, slack=form.smoothing, iterations=chosen.bootstrap,
            confidence_level=chosen.confidence_level, seed=asked.seed,
        )  # fmt: skip
    numbers, confidences = {}, {}
    if form.is_challenged:
        own = challenge.scaled_confidence(retrained, labels)
        confidences = {name: (own, challenge.scaled_confidence(values, labels)) for name, values in approaches.items()}
        if BASELINE in pairs:
            confidences[BASELINE] = epsilon.halves(own)
    sizes_of = {name: (first.shape[1], second.shape[1]) for name, (first, second) in statistics.items()}
    equal = {}  # what no difference shows, by numbers of models
    if chosen.metric != "challenge":
        equal = {sizes: epsilon_bounds.equal_groups(sizes, chosen.delta, score=form.score, slack=form.smoothing)
                 for sizes in set(sizes_of.values())}  # fmt: skip
    for name, pair in pairs.items():
        known = {part: np.asarray(values) for part, values in accuracies.get(name, {}).items()}
        reference = known if name == BASELINE else accuracies.get(BASELINE, {})
        one = _numbers(statistics[name], asked, form)
        numbers[name] = one._replace(
            sizes=(pair[0].shape[1], pair[1].shape[1]),
            null_median=equal.get(sizes_of[name], float("nan")),
            interval=UNKNOWN if resampled is None else epsilon_bounds.interval(resampled, name),
            challenge=_challenge(confidences[name], known, reference) if form.is_challenged else None,
            accuracies=known,
            own_accuracy=_own(retrained if name == BASELINE else pair[1], labels),
        )
    candidates = [name for name in approaches if name != START and closeness.is_candidate(name)]
    order = tuple(sorted(candidates, key=lambda name: _rank(numbers[name])))
    behind: dict[str, Interval] = {}
    beyond: dict[str, Interval] = {}
    gains: dict[str, Interval] = {}
    if resampled is not None and order:
        behind = epsilon_bounds.differences(resampled, order, order[0])
        if PLAIN in order:
            beyond = epsilon_bounds.differences(resampled, order, PLAIN)
            del beyond[PLAIN]
        if START in approaches:
            gains = epsilon_bounds.differences(resampled, (START, *order), START)
            del gains[START]
    margins = statistics
    if form.score == "loss":
        margins = {name: epsilon.statistics_of(*pair, labels) for name, pair in pairs.items()}
    return EpsilonReport(numbers, order, behind, beyond, gains, margins, labels, form.is_regression, asked)


def ranked(found: EpsilonReport) -> list[str]:
    """Everything that was measured, as tables list it: what is compared with first, then the approaches, best first."""
    return [*(name for name in found.approaches if name not in found.order), *found.order]


class Statistic(NamedTuple):
    """How models are compared.

    Attributes:
      score: of `epsilon.count`; `compat` and `slack` likewise.
      is_regression, is_challenged: squared errors of predictions; the challenge score is computed too.
      has_label_row: the published loss score, whose extra model allows no interval and proves nothing.
    """

    score: str
    compat: str
    smoothing: float
    is_regression: bool
    is_challenged: bool
    has_label_row: bool


def statistic_of(asked: EpsilonOptions, is_regression: bool) -> Statistic:
    """How models are compared, as asked."""
    if is_regression:
        return Statistic("error", asked.compat, 0.0, True, False, False)
    score = asked.settings.score
    has_label_row = score == "loss" and asked.compat == "faithful"
    return Statistic(score, asked.compat, epsilon.SLACK, False, asked.settings.metric != "epsilon", has_label_row)


def _rank(one: ApproachMetrics) -> tuple[float, float]:
    """Order of approaches, smallest first: by median and mean of epsilon-hat, or by the challenge's score."""
    if not len(one.epsilon) and one.challenge is not None:
        told = one.challenge
        return (-told.forget if np.isnan(told.final) else -told.final), 0.0
    # Undefined ones come last, after infinite ones.
    found = np.nan_to_num([one.summary.median, one.summary.finite_mean], nan=np.inf)
    return float(found[0]), float(found[1])


def _statistics(pair: Pair, labels: np.ndarray, form: Statistic) -> Pair:
    if form.is_regression:
        return epsilon.squared_errors(*pair, labels)
    return epsilon.statistics_of(*pair, labels, form.score, form.compat)


def _own(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if values.ndim == 2:
        return np.abs(values - labels[:, None]).mean(0)
    return (np.argmax(values, -1) == labels[:, None]).mean(0)


def _numbers(statistics: Pair, asked: EpsilonOptions, form: Statistic) -> ApproachMetrics:
    """All that the statistics of one approach say by themselves."""
    chosen, nothing = asked.settings, float("nan")
    sizes = statistics[0].shape[1], statistics[1].shape[1]
    empty = np.zeros(0)
    found = ApproachMetrics(
        sizes, empty, epsilon.summarise(empty), UNKNOWN, nothing, nothing, empty, nothing, empty, None, {}, empty
    )
    if chosen.metric == "challenge":
        return found
    counts = epsilon.count(*statistics, form.score)
    values = epsilon.epsilon_from_counts(counts, chosen.delta, form.smoothing)
    found = found._replace(
        epsilon=values,
        summary=epsilon.summarise(values),
        max_finite=epsilon.max_finite(sizes, chosen.delta, form.smoothing),
    )
    if min(sizes) > 1 and not form.has_label_row:
        bound = epsilon_bounds.lower_bound(
            *statistics, chosen.delta, score=form.score, confidence_level=chosen.confidence_level
        )
        found = found._replace(
            bound=bound, max_bound=epsilon_bounds.max_bound(sizes, chosen.delta, chosen.confidence_level)
        )
    if chosen.sweep:
        lines = epsilon.epsilon_sweep(counts, DELTAS, form.smoothing)
        found = found._replace(curve=np.asarray([epsilon.summarise(line).median for line in lines]))
    return found


def _challenge(
    confidences: Pair, own: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]
) -> Challenge:  # fmt: skip
    values = challenge.challenge_epsilon(*confidences)
    forget = challenge.challenge_score(values, min(one.shape[1] for one in confidences))
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


def notes(found: EpsilonReport) -> list[str]:
    """What a reader should know of the numbers of models."""
    said = []
    for name, one in found.approaches.items():
        if min(one.sizes) < epsilon.FEW_MODELS:
            whose = "the baseline's halves" if name == BASELINE else name
            said.append(f"{whose}: {one.sizes[0]} + {one.sizes[1]} models; below {epsilon.FEW_MODELS} in a group "
                        "epsilon-hat hardly means anything")  # fmt: skip
    if len({found.approaches[name].sizes for name in ranked(found) if name != BASELINE}) > 1:
        said.append(
            "approaches have different numbers of models: epsilon-hat grows as they fall, so they do not compare"
        )
    return said
