"""epsilon-hat in words, with a separate sentence for every case without a finite number.

No infinity, NaN or empty range is ever printed: there are sentences for models that are told apart without error, for
uninformative rules, for a single sample and for a single approach.
"""

import math
from collections.abc import Sequence

import numpy as np

from jaxunlearn.analyses.epsilon.measures import BASELINE, PLAIN, START, ApproachMetrics, EpsilonReport, ranked
from jaxunlearn.metrics.inference.intervals import Interval
from jaxunlearn.report import number_format, sentences


def answer_text(report: EpsilonReport) -> str:
    """Names the approach that is hardest to tell from retraining, and compares it with the original model."""
    if report.options.settings.metric == "challenge":
        return _challenge(report)
    if all(math.isnan(metrics.summary.median) for metrics in report.approaches.values()):
        return (
            f"At delta = {report.options.settings.delta:g} no rule is informative with this number of models: use more "
            "models or a smaller delta."
        )
    medians = {name: report.approaches[name].summary.median for name in report.order}
    finite = [name for name, median in medians.items() if math.isfinite(median)]
    without_error = [name for name, median in medians.items() if median == math.inf]
    unknown = [name for name, median in medians.items() if math.isnan(median)]
    words = ["There is one sample: its epsilon-hat stands for the median."] if len(report.labels) == 1 else []
    if finite:
        words += _closest(report, finite)
    if without_error:
        words.append(_without_error(report, without_error))
    if unknown:
        words.append(f"With this number of models no rule is informative against {_listed(unknown)}.")
    words += _references(report)
    if len(finite) > 1 and not without_error:
        words += _others(report)
    return " ".join(words)


def _closest(report: EpsilonReport, finite: Sequence[str]) -> list[str]:
    """Names the approach that is hardest to tell from retraining, if it is closer to it than the original model."""
    best = finite[0]
    metrics = report.approaches[best]
    statistic = _what(report)
    constant = ", the same on every sample" if len(metrics.epsilon) > 1 and np.ptp(metrics.epsilon) == 0 else ""
    value = f"{statistic} {_shown(metrics)}{constant}"
    best_sentence = f"{best}: {value}."
    if len(report.order) > 1:
        best_sentence = f"{sentences.largest(len(report.order), 'approaches', 'smallest')}: {best}, {value}."
    if START not in report.approaches:
        return [
            f"{best_sentence} The original model was not measured (no approach `{START}`), so no approach is called "
            "closer to retraining than it."
        ]
    original = report.approaches[START]
    original_in_words = "told apart without error"
    if math.isfinite(original.summary.median):
        original_in_words = f"{statistic} {_shown(original)}"
    closer_names = [name for name in finite if name in report.gap_to_original and report.gap_to_original[name].high < 0]
    if not report.gap_to_original:
        return [
            "Without intervals no approach is called closer to retraining than the original model "
            f"({original_in_words}). {best_sentence}"
        ]
    if not closer_names:
        return [
            f"By the intervals, no approach is closer to retraining than the original model ({original_in_words}). "
            f"{best_sentence}"
        ]
    name, gain = closer_names[0], report.gap_to_original[closer_names[0]]
    against = ", where the original model is told apart without error"
    if math.isfinite(original.summary.median):
        against = f" against {_shown(original)}"
    value = f"{statistic} {_shown(report.approaches[name])}{against}"
    difference = f" (difference {interval(gain)})" if math.isfinite(gain.value) else ""
    if len(report.order) == 1:
        return [f"{name} is harder to tell from retraining than the original model: {value}{difference}."]
    return [
        f"{name} is the hardest to tell from retraining, and harder than the original model: {value}{difference}. "
        f"{sentences.largest(len(report.order), 'approaches', 'smallest')}."
    ]


def _without_error(report: EpsilonReport, names: Sequence[str]) -> str:
    if len(names) == len(report.order) > 1:
        return (
            f"Every approach ({_listed(names)}) is told apart from retraining without error on most samples, so they "
            "cannot be ranked."
        )
    return f"Told apart from retraining without error, on most samples: {_listed(names)}."


def _references(report: EpsilonReport) -> list[str]:
    """States how well halves of the retrained models can be told apart."""
    baseline = report.approaches.get(BASELINE)
    if baseline is None or math.isnan(baseline.summary.median):
        return []
    halves = "halves of the retrained models"
    if math.isinf(baseline.summary.median):
        return [f"Even {halves} are told apart without error on most samples: these are too few models."]
    return [f"{halves.capitalize()} against each other: {_shown(baseline)}."]


def _others(report: EpsilonReport) -> list[str]:
    """Names the approaches not proven worse than the best, those better than fine-tuning, and the easiest to tell."""
    words = []
    interchangeable = [
        name for name in report.order[1:] if name in report.gap_to_best and report.gap_to_best[name].low <= 0
    ]
    if interchangeable:
        words.append(f"Other models might put these before {report.order[0]}: {', '.join(interchangeable)}.")
    if report.gap_to_finetuning:
        better = [f"{name} ({interval(report.gap_to_finetuning[name])})" for name in report.order
                  if name in report.gap_to_finetuning and report.gap_to_finetuning[name].high < 0]  # fmt: skip
        words.append(f"Better than {PLAIN}, by the interval: {', '.join(better) or 'none'}.")
    worst = report.order[-1]
    if math.isfinite(report.approaches[worst].summary.median):
        words.append(f"Easiest to tell apart: {worst}, {_shown(report.approaches[worst])}.")
    return words


def _challenge(report: EpsilonReport) -> str:
    """States the best challenge score, where nothing else is measured: higher = better."""
    scores = {name: metrics.challenge for name, metrics in report.approaches.items() if metrics.challenge is not None}
    name = report.order[0] if report.order else BASELINE
    is_final = not math.isnan(scores[name].final)
    value = number_format.number(scores[name].final if is_final else scores[name].forget, 4)
    kind = "final score" if is_final else "forget score"
    if len(report.order) < 2:
        return f"{name} has a {kind} of the challenge of {value} (higher = better)."
    return (
        f"{name} has the highest {kind} of the challenge, {value}. "
        f"{sentences.largest(len(report.order), 'approaches')}."
    )  # fmt: skip


def limits(report: EpsilonReport) -> str:
    """States epsilon-hat without any difference, and the largest finite value, at these numbers of models."""
    texts: list[str] = []
    for name in reversed(ranked(report)):
        metrics = report.approaches[name]
        sizes = f"{metrics.sizes[0]} + {metrics.sizes[1]} models"
        if math.isnan(metrics.max_finite):
            text = f"With {sizes} no finite epsilon-hat is possible at this delta"
        elif metrics.max_finite <= 0:
            text = (
                f"{sizes} are too few to show a difference at this delta: epsilon-hat is at most "
                f"{number_format.number(metrics.max_finite)}, or infinite where they are told apart without error"
            )
        else:
            median = number_format.number(metrics.null_median, 2)
            null_in_words = f"the median is about {median} if there is no difference"
            if math.isnan(metrics.null_median):
                null_in_words = "the median is undefined if there is no difference"
            elif math.isinf(metrics.null_median):
                null_in_words = "most samples are told apart without error even if there is no difference"
            text = (
                f"With {sizes} {null_in_words}, and the largest finite epsilon-hat is "
                f"{number_format.number(metrics.max_finite)}"
            )
        if text not in texts:
            texts.append(text)
    return ". ".join(texts) + "."


def interval(estimate: Interval) -> str:
    """Formats a finite number with its interval; an infinite end reads "or more", an unknown interval is left out."""
    value = number_format.number(estimate.value)
    low, high = (number_format.number(end) for end in (estimate.low, estimate.high))
    if (
        math.isnan(estimate.low)
        or math.isnan(estimate.high)
        or (math.isinf(estimate.low) and math.isinf(estimate.high))
    ):
        return value
    if math.isinf(estimate.high):
        return f"{value} [{low} or more]"
    return f"{value} [{high} or less]" if math.isinf(estimate.low) else f"{value} [{low}, {high}]"


def _shown(metrics: ApproachMetrics) -> str:
    return interval(metrics.interval._replace(value=metrics.summary.median))


def _what(report: EpsilonReport) -> str:
    return "epsilon-hat" if len(report.labels) == 1 else "median epsilon-hat"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
