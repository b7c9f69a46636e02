"""What epsilon-hat says in words: a sentence of its own for every way in which there is no number.

No infinity, NaN or empty range is ever printed here: that all models are told apart without error, that no rule is of
use, that there is one sample or one approach, are said.
"""

import math
from collections.abc import Sequence

import numpy as np

from jaxunlearn.analyses.epsilon.measures import BASELINE, PLAIN, START, ApproachMetrics, EpsilonReport, ranked
from jaxunlearn.metrics.inference.intervals import Interval
from jaxunlearn.report import number_format, sentences


def in_words(found: EpsilonReport) -> str:
    """Whether an approach is hard to tell from retraining, and whether that is better than doing nothing."""
    if found.options.settings.metric == "challenge":
        return _challenge(found)
    if all(math.isnan(one.summary.median) for one in found.approaches.values()):
        return (
            f"At delta = {found.options.settings.delta:g} no rule of so many models is of use: take more models, or a "
            "smaller delta."
        )
    medians = {name: found.approaches[name].summary.median for name in found.order}
    finite = [name for name, median in medians.items() if math.isfinite(median)]
    without_error = [name for name, median in medians.items() if median == math.inf]
    unknown = [name for name, median in medians.items() if math.isnan(median)]
    said = ["There is one sample: its epsilon-hat stands for the median."] if len(found.labels) == 1 else []
    if finite:
        said += _closest(found, finite)
    if without_error:
        said.append(_without_error(found, without_error))
    if unknown:
        said.append(f"No rule of so many models is of use against {_listed(unknown)}.")
    said += _references(found)
    if len(finite) > 1 and not without_error:
        said += _others(found)
    return " ".join(said)


def _closest(found: EpsilonReport, finite: Sequence[str]) -> list[str]:
    """The approach that is hardest to tell from retraining, if it is closer to it than doing nothing."""
    best = finite[0]
    one = found.approaches[best]
    what = _what(found)
    same = ", the same on every sample" if len(one.epsilon) > 1 and np.ptp(one.epsilon) == 0 else ""
    shown = f"{what} {_shown(one)}{same}"
    which = f"{best}, {shown}"
    if len(found.order) > 1:
        which = f"{sentences.largest(len(found.order), 'approaches', 'smallest').lower()}: {which}"
    if START not in found.approaches:
        said = f"{best}: {shown}." if len(found.order) == 1 else f"{which[0].upper()}{which[1:]}."
        return [
            f"{said} Doing nothing was not measured (no approach `{START}`), so none is called closer to retraining "
            "than that."
        ]
    nothing = found.approaches[START]
    start = f"{what} {_shown(nothing)}" if math.isfinite(nothing.summary.median) else "told apart without error"
    closer = [name for name in finite if name in found.gap_to_original and found.gap_to_original[name].high < 0]
    if not found.gap_to_original:
        return [f"Without intervals no approach is called closer to retraining than doing nothing ({start}): {which}."]
    if not closer:
        return [f"No approach is closer to retraining than doing nothing ({start}), by the intervals; {which}."]
    name, gain = closer[0], found.gap_to_original[closer[0]]
    against = ", where doing nothing is told apart without error"
    if math.isfinite(nothing.summary.median):
        against = f" against {_shown(nothing)}"
    shown = f"{what} {_shown(found.approaches[name])}{against}"
    by = f" (difference {interval(gain)})" if math.isfinite(gain.value) else ""
    if len(found.order) == 1:
        return [f"{name} is harder to tell from retraining than doing nothing: {shown}{by}."]
    return [
        f"Hardest to tell from retraining, and harder than doing nothing, is {name}: {shown}{by}. "
        f"{sentences.largest(len(found.order), 'approaches', 'smallest')}."
    ]


def _without_error(found: EpsilonReport, names: Sequence[str]) -> str:
    if len(names) == len(found.order) > 1:
        return (
            f"Every approach ({_listed(names)}) is told apart from retraining without error on most samples, so there "
            "is no order among them."
        )
    return f"Told apart from retraining without error, on most samples: {_listed(names)}."


def _references(found: EpsilonReport) -> list[str]:
    """What halves of the retrained models show against each other."""
    floor = found.approaches.get(BASELINE)
    if floor is None or math.isnan(floor.summary.median):
        return []
    halves = "alves of the retrained models"
    if math.isinf(floor.summary.median):
        return [f"Even h{halves} are told apart without error on most samples: these are too few models."]
    return [f"H{halves} against each other: {_shown(floor)}."]


def _others(found: EpsilonReport) -> list[str]:
    """What chance may turn round, what beats fine-tuning, and what is easiest to tell."""
    said = []
    equal = [name for name in found.order[1:] if name in found.gap_to_best and found.gap_to_best[name].low <= 0]
    if equal:
        said.append(f"Other models might put these before {found.order[0]}: {', '.join(equal)}.")
    if found.gap_to_finetuning:
        better = [f"{name} ({interval(found.gap_to_finetuning[name])})" for name in found.order
                  if name in found.gap_to_finetuning and found.gap_to_finetuning[name].high < 0]  # fmt: skip
        said.append(f"Better than {PLAIN}, by the interval: {', '.join(better) or 'none'}.")
    last = found.order[-1]
    if math.isfinite(found.approaches[last].summary.median):
        said.append(f"Easiest to tell: {last}, {_shown(found.approaches[last])}.")
    return said


def _challenge(found: EpsilonReport) -> str:
    """The challenge score alone: higher = better."""
    told = {name: one.challenge for name, one in found.approaches.items() if one.challenge is not None}
    name = found.order[0] if found.order else BASELINE
    is_final = not math.isnan(told[name].final)
    value = number_format.number(told[name].final if is_final else told[name].forget, 4)
    what = "final score" if is_final else "forget score"
    if len(found.order) < 2:
        return f"{name} has a {what} of the challenge of {value} (higher = better)."
    return (
        f"{name} has the highest {what} of the challenge, {value}. {sentences.largest(len(found.order), 'approaches')}."
    )  # fmt: skip


def limits(found: EpsilonReport) -> str:
    """The finite-N note: what no difference shows, and the most that can be shown."""
    said: list[str] = []
    for name in reversed(ranked(found)):
        one = found.approaches[name]
        both = f"{one.sizes[0]} + {one.sizes[1]} models"
        if math.isnan(one.max_finite):
            text = f"{both} show no finite epsilon-hat at this delta"
        elif one.max_finite <= 0:
            text = (
                f"{both} are too few to show a difference at this delta: epsilon-hat is at most "
                f"{number_format.number(one.max_finite)}, or infinite where they are told apart without error"
            )
        else:
            equal = f"show a median of about {number_format.number(one.null_median, 2)} where there is no difference"
            if math.isnan(one.null_median):
                equal = "show nothing of use where there is no difference"
            elif math.isinf(one.null_median):
                equal = "are told apart without error on most samples even where there is no difference"
            text = f"{both} {equal}, and no finite epsilon-hat above {number_format.number(one.max_finite)}"
        if text not in said:
            said.append(text)
    return ". ".join(said) + "."


def interval(one: Interval) -> str:
    """A finite number with its interval; an end that is open is said, an interval that is not known left out."""
    value = number_format.number(one.value)
    low, high = (number_format.number(end) for end in (one.low, one.high))
    if math.isnan(one.low) or math.isnan(one.high) or (math.isinf(one.low) and math.isinf(one.high)):
        return value
    if math.isinf(one.high):
        return f"{value} [{low} or more]"
    return f"{value} [{high} or less]" if math.isinf(one.low) else f"{value} [{low}, {high}]"


def _shown(one: ApproachMetrics) -> str:
    return interval(one.interval._replace(value=one.summary.median))


def _what(found: EpsilonReport) -> str:
    return "epsilon-hat" if len(found.labels) == 1 else "median epsilon-hat"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
