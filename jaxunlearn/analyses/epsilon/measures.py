"""epsilon-hat and the challenge score of several approaches: arrays in, numbers out; no settings file, no folder.

approach -> (retrained, unlearned) logits [S, N, C] (or predictions [S, N]) -> `ApproachMetrics` per approach
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
START = "original"  # the approach of this name does nothing
PLAIN = "finetune"  # every other approach is compared with it, if it is present
DELTAS = np.round(np.arange(99) / 100, 2)  # the published grid; values up to 1 / N need many models
UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))
Pair = tuple[np.ndarray, np.ndarray]


class EpsilonOptions(NamedTuple):
    """Options of a measurement.

    Attributes:
      settings: delta, score, metric and others.
      compat: corrected or faithful (of the loss score).
      seed: of the bootstrap.
      design: which originals the unlearned models start from; `given` = not known.
    """

    settings: EpsilonSettings
    compat: str = "corrected"
    seed: int = 0
    design: Design = Design("given", 1)


class Challenge(NamedTuple):
    """The score of the NeurIPS-2023 challenge.

    Attributes:
      epsilon: [S] in [0, 50]; `capped`: the number of samples at 50.
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
    """Metrics of one approach.

    Attributes:
      sizes: (Nr, Nu) numbers of retrained and unlearned models.
      epsilon: [S] epsilon-hat, HIGHER = worse. This and all fields up to `curve` are empty or NaN where only the
        challenge score is requested. summary: of `epsilon`; interval: of its median, over models.
      max_finite: largest finite epsilon-hat attainable with these group sizes.
      null_median: median epsilon-hat of two groups of these sizes without any difference (simulated).
      bound: [S] proven lower bounds, or empty; max_bound: the largest attainable one.
      curve: [D] median epsilon-hat at DELTAS, or empty.
      challenge: None if it is not requested.
      accuracies: "retain", "forget", "test" -> [Nu], as recorded with the logits; empty where unknown.
      own_accuracy: [Nu] accuracy of these logits on the forget set (baseline: of all retrained models); mean absolute
        error for a regression.
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
    """Metrics of all approaches; the first is the baseline: one half of the retrained models against the other.

    Attributes:
      approaches: approach -> its metrics.
      order: approaches that may be called the best, best first: by median epsilon-hat, or by the challenge's final
        score (without accuracies its forget score) if only that is requested. Excludes the baseline, doing nothing and
        controls.
      gap_to_best: approach -> its median epsilon-hat minus that of the best one, paired.
      gap_to_finetuning: likewise minus that of PLAIN, if measured: negative = better than fine-tuning.
      gap_to_original: likewise minus that of START, if measured: negative = closer to retraining than doing nothing.
      margins: approach -> margins ([S, Nr], [S, Nu]); squared errors for a regression.
      labels: [S]; `is_regression`.
      options: of the measurement.
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
    retrained: np.ndarray, approaches: Mapping[str, np.ndarray], labels: np.ndarray, options: EpsilonOptions,
    accuracies: Mapping[str, Mapping[str, np.ndarray]],
) -> EpsilonReport:  # fmt: skip
    """Measures every approach, and the retrained models against each other.

    Args:
      retrained: [S, Nr, C] logits, or [S, Nr] predictions of a regression.
      approaches: name -> [S, Nu, C] or [S, Nu] of its unlearned models; may be empty: only the baseline is measured.
      labels: [S] classes, or true values.
      options: of the measurement.
      accuracies: approach, or BASELINE for the retrained models -> "retain", "forget", "test" -> [N] fractions.

    Raises:
      ShapeError, DataError, ConfigError: as `metrics.epsilon` and `metrics.challenge`.
    """
    pairs = {name: (retrained, values) for name, values in approaches.items()}
    if retrained.shape[1] > 1:
        pairs = {BASELINE: epsilon.halves(retrained), **pairs}
    statistic = statistic_of(options, retrained.ndim == 2)
    statistics = {name: _statistics(pair, labels, statistic) for name, pair in pairs.items()}
    settings = options.settings
    resampled = None
    if settings.metric != "challenge" and settings.bootstrap and not statistic.has_label_row:
        resampled = epsilon_bounds.bootstrap(
            statistics,
            settings.delta,
            score=statistic.score,
            smoothing=statistic.smoothing,
            iterations=settings.bootstrap,
            confidence_level=settings.confidence_level,
            seed=options.seed,
        )
    metrics, confidences = {}, {}
    if statistic.is_challenged:
        retrained_confidence = challenge.scaled_confidence(retrained, labels)
        confidences = {
            name: (retrained_confidence, challenge.scaled_confidence(values, labels))
            for name, values in approaches.items()
        }
        if BASELINE in pairs:
            confidences[BASELINE] = epsilon.halves(retrained_confidence)
    sizes_of = {name: (first.shape[1], second.shape[1]) for name, (first, second) in statistics.items()}
    null_medians = {}  # medians without any difference, by group sizes
    if settings.metric != "challenge":
        for sizes in set(sizes_of.values()):
            null_medians[sizes] = epsilon_bounds.simulate_null_median(
                sizes, settings.delta, score=statistic.score, smoothing=statistic.smoothing
            )
    for name, pair in pairs.items():
        subset_accuracies = {subset: np.asarray(values) for subset, values in accuracies.get(name, {}).items()}
        retrained_accuracies = subset_accuracies if name == BASELINE else accuracies.get(BASELINE, {})
        approach_metrics = _metrics_of(statistics[name], options, statistic)
        metrics[name] = approach_metrics._replace(
            sizes=(pair[0].shape[1], pair[1].shape[1]),
            null_median=null_medians.get(sizes_of[name], float("nan")),
            interval=UNKNOWN if resampled is None else epsilon_bounds.interval(resampled, name),
            challenge=_challenge(confidences[name], subset_accuracies, retrained_accuracies)
            if statistic.is_challenged
            else None,
            accuracies=subset_accuracies,
            own_accuracy=_accuracy_or_error(retrained if name == BASELINE else pair[1], labels),
        )
    candidates = [name for name in approaches if name != START and closeness.is_candidate(name)]
    order = tuple(sorted(candidates, key=lambda name: _rank(metrics[name])))
    gap_to_best: dict[str, Interval] = {}
    gap_to_finetuning: dict[str, Interval] = {}
    gap_to_original: dict[str, Interval] = {}
    if resampled is not None and order:
        gap_to_best = epsilon_bounds.differences(resampled, order, order[0])
        if PLAIN in order:
            gap_to_finetuning = epsilon_bounds.differences(resampled, order, PLAIN)
            del gap_to_finetuning[PLAIN]
        if START in approaches:
            gap_to_original = epsilon_bounds.differences(resampled, (START, *order), START)
            del gap_to_original[START]
    margins = statistics
    if statistic.score == "loss":
        margins = {name: epsilon.statistics_of(*pair, labels) for name, pair in pairs.items()}
    return EpsilonReport(
        metrics,
        order,
        gap_to_best,
        gap_to_finetuning,
        gap_to_original,
        margins,
        labels,
        statistic.is_regression,
        options,
    )


def ranked(report: EpsilonReport) -> list[str]:
    """Returns all names in the order of tables: baselines and controls first, then the approaches, best first."""
    return [*(name for name in report.approaches if name not in report.order), *report.order]


class Statistic(NamedTuple):
    """The per-sample statistic by which models are compared.

    Attributes:
      score, smoothing: of `epsilon.count`; compat: of `epsilon.statistics_of`.
      is_regression: squared errors of predictions; is_challenged: the challenge score is computed too.
      has_label_row: the published loss score, whose extra model allows neither an interval nor a bound.
    """

    score: str
    compat: str
    smoothing: float
    is_regression: bool
    is_challenged: bool
    has_label_row: bool


def statistic_of(options: EpsilonOptions, is_regression: bool) -> Statistic:
    """Returns the statistic that the options select."""
    if is_regression:
        return Statistic("error", options.compat, 0.0, True, False, False)
    score = options.settings.score
    has_label_row = score == "loss" and options.compat == "faithful"
    return Statistic(
        score, options.compat, epsilon.SMOOTHING, False, options.settings.metric != "epsilon", has_label_row
    )


def _rank(metrics: ApproachMetrics) -> tuple[float, float]:
    """Returns the sort key of an approach, best = smallest: median and mean epsilon-hat, or the challenge's score."""
    if not len(metrics.epsilon) and metrics.challenge is not None:
        score = metrics.challenge
        return (-score.forget if np.isnan(score.final) else -score.final), 0.0
    # Undefined ones come last, after infinite ones.
    key = np.nan_to_num([metrics.summary.median, metrics.summary.finite_mean], nan=np.inf)
    return float(key[0]), float(key[1])


def _statistics(pair: Pair, labels: np.ndarray, statistic: Statistic) -> Pair:
    if statistic.is_regression:
        return epsilon.squared_errors(*pair, labels)
    return epsilon.statistics_of(*pair, labels, statistic.score, statistic.compat)


def _accuracy_or_error(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if values.ndim == 2:
        return np.abs(values - labels[:, None]).mean(0)
    return (np.argmax(values, -1) == labels[:, None]).mean(0)


def _metrics_of(statistics: Pair, options: EpsilonOptions, statistic: Statistic) -> ApproachMetrics:
    """Computes the metrics of one approach that depend on its statistics alone."""
    settings, nan = options.settings, float("nan")
    sizes = statistics[0].shape[1], statistics[1].shape[1]
    empty = np.zeros(0)
    metrics = ApproachMetrics(
        sizes, empty, epsilon.summarise(empty), UNKNOWN, nan, nan, empty, nan, empty, None, {}, empty
    )
    if settings.metric == "challenge":
        return metrics
    counts = epsilon.count(*statistics, statistic.score)
    values = epsilon.epsilon_from_counts(counts, settings.delta, statistic.smoothing)
    metrics = metrics._replace(
        epsilon=values,
        summary=epsilon.summarise(values),
        max_finite=epsilon.max_finite(sizes, settings.delta, statistic.smoothing),
    )
    if min(sizes) > 1 and not statistic.has_label_row:
        bound = epsilon_bounds.lower_bound(
            *statistics, settings.delta, score=statistic.score, confidence_level=settings.confidence_level
        )
        metrics = metrics._replace(
            bound=bound, max_bound=epsilon_bounds.max_bound(sizes, settings.delta, settings.confidence_level)
        )
    if settings.sweep:
        epsilons = epsilon.epsilon_sweep(counts, DELTAS, statistic.smoothing)
        metrics = metrics._replace(curve=np.asarray([epsilon.summarise(by_sample).median for by_sample in epsilons]))
    return metrics


def _challenge(
    confidences: Pair, accuracies: Mapping[str, np.ndarray], retrained_accuracies: Mapping[str, np.ndarray]
) -> Challenge:  # fmt: skip
    values = challenge.challenge_epsilon(*confidences)
    forget = challenge.challenge_score(values, min(confidence.shape[1] for confidence in confidences))
    is_known = accuracies.keys() & retrained_accuracies.keys() >= {"retain", "test"}
    ratios = [
        float(np.mean(accuracies[subset]) / np.mean(retrained_accuracies[subset])) if is_known else float("nan")
        for subset in ("retain", "test")
    ]
    final = float("nan")
    if is_known:
        final = challenge.final_score(
            forget,
            unlearned_retain=accuracies["retain"],
            retrained_retain=retrained_accuracies["retain"],
            unlearned_test=accuracies["test"],
            retrained_test=retrained_accuracies["test"],
        )
    return Challenge(values, int((values >= challenge.CAP).sum()), forget, ratios[0], ratios[1], final)


def notes(report: EpsilonReport) -> list[str]:
    """Returns warnings about small or unequal numbers of models."""
    sentences = []
    for name, metrics in report.approaches.items():
        if min(metrics.sizes) < epsilon.FEW_MODELS:
            owner = "the baseline's halves" if name == BASELINE else name
            sentences.append(
                f"{owner}: {metrics.sizes[0]} + {metrics.sizes[1]} models; with fewer than "
                f"{epsilon.FEW_MODELS} models per group epsilon-hat is unreliable"
            )
    if len({report.approaches[name].sizes for name in ranked(report) if name != BASELINE}) > 1:
        sentences.append(
            "approaches have different numbers of models: epsilon-hat grows as these fall, so their values are not "
            "comparable"
        )
    return sentences
