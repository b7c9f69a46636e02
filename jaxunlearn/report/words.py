"""Sentences from findings: what a person wants to know first, in plain words and with the uncertainty in it.

Every function takes plain numbers and findings and returns one line of text. Nothing is claimed that the numbers do
not carry: a missing interval, reference or truth is said to be missing, and a difference whose interval holds zero is
called "not distinguishable".
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from jaxunlearn import errors
from jaxunlearn.records import Finding
from jaxunlearn.report import formats

# A test with a p-value below this contradicts what it tests.
UNLIKELY = 0.05


class Verdicts(NamedTuple):
    """How many samples got which verdict.

    Attributes:
      remembered: still look trained on ("never seen" was rejected).
      unclear: cannot be told apart (neither was rejected).
      forgotten: look forgotten ("still trained on" was rejected); None where that was not tested.
    """

    remembered: int
    unclear: int
    forgotten: int | None

    @property
    def total(self) -> int:
        """All samples that got a verdict."""
        return self.remembered + self.unclear + (self.forgotten or 0)


def answer(
    verdicts: Verdicts | None,
    *,
    level: float,
    retrained: Verdicts | None = None,
    requested: bool = True,
    exact: bool = False,
    obstacle: str = "",
) -> str:
    """The first line of a report: was it forgotten, for each single sample?

    Args:
      verdicts: of the samples asked to be forgotten, or of all audited samples where nobody knows which ones were
        asked for; None where verdicts are not possible.
      level: false discovery rate of the verdicts, in (0, 1).
      retrained: verdicts of the same samples when the audited model is an exact retraining: what perfect unlearning
        would be charged with. None = there is none, and the sentence says so.
      exact: whether the audited model is itself an exact retraining, so that none is missing for comparison.
      requested: whether `verdicts` are of samples known to have been asked to be forgotten.
      obstacle: why there are no verdicts, a full sentence (see `too_few`); read where `verdicts` is None.

    Raises:
      ConfigError: level outside (0, 1). DataError: negative counts.
    """
    _check_level(level)
    for one in (verdicts, retrained):
        if one is not None and min(count or 0 for count in one) < 0:
            raise errors.DataError(f"{one}: expected counts of at least 0. Count every sample under one verdict.")
    if verdicts is None or not verdicts.total:
        reason = obstacle.strip() or "No samples were judged."
        return f"No verdicts on single samples. {reason}"
    reference = ""
    if retrained is not None:
        reference = f" (exact retraining: {formats.count(retrained.remembered)} of {formats.count(retrained.total)})"
    found = f"{_subject(verdicts, requested)} trained on{reference}, at a false discovery rate of {formats.rate(level)}"
    rest = _rest(verdicts)
    sentences = [f"{found}; {rest}." if rest else f"{found}."]
    if not requested:
        sentences.append("Which samples were asked to be forgotten is not known.")
    if retrained is None and not exact:
        sentences.append("No exact retraining was audited for comparison.")
    return " ".join(sentences)


def too_few(available: int, needed: int, level: float, what: str = "shadow model") -> str:
    """Why no verdicts are possible when the calibration is too coarse: what there is and what is needed.

    Args:
      available: number of calibration values: no p-value is smaller than 1 / (available + 1).
      needed: smallest number of values with which any sample could be told apart at `level`.
      level: false discovery rate asked for, in (0, 1).
      what: singular name of what supplies the values.

    Raises:
      ConfigError: level outside (0, 1).
    """
    _check_level(level)
    if not available:
        reach = f"There is no {what} to calibrate on"
    else:
        reach = f"{_number_of(available, what)} can show no p-value below 1/{formats.count(available + 1)}"
    return (
        f"{reach}: a false discovery rate of {formats.rate(level)} needs at least {_number_of(needed, what)}. "
        "Raise their number, or accept a higher rate (audit.level)."
    )


def best_score(findings: Mapping[str, Finding], reference: float = 0.5, chosen: str = "") -> str:
    """How well the score chosen beforehand separates retained from forgotten samples, then which score does best.

    The best of many is a maximum and flatters, so it comes second and is called one; `random` is no candidate.

    Args:
      findings: name of the score -> AUC (or another metric, the same for all, higher = separates better); NaN is left
        out, ties go to the first.
      reference: the metric of a score that knows nothing.
      chosen: the score that was chosen before the numbers were seen; empty = none was.
    """
    known = {name: one for name, one in findings.items() if not math.isnan(one.value) and name != "random"}
    if not known:
        return "No score could be computed: nothing can be said of how well retained and forgotten separate."
    name = max(known, key=lambda name: known[name].value)
    if len(known) == 1:
        return _separates(name, known[name], reference)
    best = known[name]
    maximum = f"the best of {len(known)} scores, a maximum"
    if name == chosen:
        return f"{_separates(name, best, reference, ', chosen beforehand,')} It is also {maximum}."
    shown = f"{name}, {best.metric or 'AUC'} {_bare(best)}"
    if chosen not in known:
        return f"{maximum.capitalize()} that flatters: {shown}."
    return f"{_separates(chosen, known[chosen], reference, ', chosen beforehand,')} {maximum.capitalize()}: {shown}."


def resolution(forgotten: int, retained: int) -> str:
    """Which of the rates at 1 % and 0.1 % rest on less than one sample; empty where none does."""
    said = []
    for count, kind, error, rate in ((forgotten, "forgotten", "FPR", "TPR"), (retained, "retained", "FNR", "TNR")):
        below = [level for level in ("1e-2", "1e-3") if count * float(level) < 1]
        if below:
            columns = " and ".join(f"{rate}@{error} {level}" for level in below)
            verb = "lie" if len(below) > 1 else "lies"
            step = f"1/{formats.count(count)}"
            said.append(
                f"with {_number_of(count, f'{kind} sample')} the {error} has steps of {step}, and {columns} {verb} "
                "below the first"
            )
    return f"Read with care: {'; '.join(said)}." if said else ""


def compare(first: str, second: str, difference: Finding) -> str:
    """Whether one score is better than another, from the difference of their AUC on the same samples.

    Args:
      first: name of the score.
      second: name of the score it is compared with.
      difference: AUC of `first` minus AUC of `second`, with the interval of the paired difference.
    """
    if math.isnan(difference.value):
        return f"{first} and {second} could not be compared."
    metric = (difference.metric or "AUC").removesuffix(" difference")
    by = f"{metric} difference {_signed(difference.value)}"
    if math.isnan(difference.low) or math.isnan(difference.high):
        return f"{first} against {second}: {by}, without an interval."
    by += f" [{_signed(difference.low)}, {_signed(difference.high)}], {formats.rate(difference.level)} interval"
    if difference.low > 0:
        return f"{first} is significantly above {second}: {by}."
    if difference.high < 0:
        return f"{first} is significantly below {second}: {by}."
    return f"{first} is not distinguishable from {second}: {by}."


def calibration_sentence(rate: Finding, level: float, samples: str = "", uniform: float = math.nan) -> str:
    """How far the calibration drifts: the measured rejection rate on samples that truly were forgotten.

    Args:
      rate: fraction of those samples rejected at `level`, with its interval; `n` samples.
      level: the promised rate, in (0, 1).
      samples: what the samples are, if they are not samples that truly were forgotten.
      uniform: p-value of the test whether all their p-values are uniform; NaN = not tested.

    Raises:
      ConfigError: level outside (0, 1).
    """
    _check_level(level)
    if math.isnan(rate.value) or not rate.n:
        return "The calibration could not be checked: no samples are known to have been truly forgotten."
    whose = "the one sample" if rate.n == 1 else f"{formats.count(rate.n)} samples"
    kind = (
        f"{formats.count(rate.n)} {samples}"
        if samples
        else f"{whose} that truly {'was' if rate.n == 1 else 'were'} forgotten"
    )
    measured = f"Of {kind}, {formats.rate(rate.value)}"
    verb = "is" if rate.n == 1 else "are"
    if math.isnan(rate.low) or math.isnan(rate.high):
        return f"{measured} {verb} rejected at level {formats.rate(level)}; how certain that is, is not known."
    interval = f" [{formats.rate(rate.low)}, {formats.rate(rate.high)}]"
    sentence = f"{measured}{interval} {verb} rejected at level {formats.rate(level)}: "
    drift = f"{abs(rate.value - level) * 100:.2g} percentage points"
    if rate.low > level:
        return f"{sentence}{drift} more than promised, the verdicts are too eager."
    if rate.high < level:
        return f"{sentence}{drift} fewer than promised, the verdicts are cautious."
    if uniform < UNLIKELY:
        return (
            f"{sentence}the rate there is as promised, but the p-values as a whole are not uniform (Kolmogorov-Smirnov "
            f"p = {uniform:.2g})."
        )
    return f"{sentence}no drift from the promised rate can be shown."


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise errors.ConfigError(f"level = {level}: must lie between 0 and 1, ends excluded. A usual one is 0.05.")


def _number_of(number: int, what: str) -> str:
    return f"{formats.count(number)} {what}{'' if number == 1 else 's'}"


def _subject(verdicts: Verdicts, requested: bool) -> str:
    """`37 of 500 samples asked to be forgotten still look`, for any two numbers."""
    found, total = verdicts.remembered, verdicts.total
    before, after = ("", " asked to be forgotten") if requested else ("audited ", "")
    if total == 1:
        return f"The one {before}sample{after} {'still looks' if found else 'does not look'}"
    samples = f"{formats.count(total)} {before}samples{after}"
    if found == 0:
        return f"None of the {samples} still looks"
    if found == total:
        return f"All {samples} still look"
    return f"{formats.count(found)} of {samples} still {'looks' if found == 1 else 'look'}"


def _rest(verdicts: Verdicts) -> str:
    """What became of the samples that do not look trained on; empty when there are none."""
    rest = verdicts.total - verdicts.remembered
    if not rest:
        return ""
    every = not verdicts.remembered and rest > 1
    if rest == 1 and verdicts.total == 1:
        return "it looks forgotten" if verdicts.forgotten else "it cannot be told apart"
    if verdicts.forgotten == rest:
        return f"all {formats.count(rest)} look forgotten" if every else _look(rest)
    unclear = f"{'all ' if every and verdicts.unclear == rest else ''}{formats.count(verdicts.unclear)}"
    apart = f"{unclear} cannot be told apart"
    if verdicts.forgotten is None:
        return apart
    return f"{_look(verdicts.forgotten)}, {apart}"


def _look(number: int) -> str:
    if not number:
        return "none looks forgotten"
    return f"{formats.count(number)} {'looks' if number == 1 else 'look'} forgotten"


def _separates(name: str, finding: Finding, reference: float, how: str = "") -> str:
    """One score's number, and whether it is better than guessing."""
    sentence = f"{name}{how} separates retained from forgotten: {finding.metric or 'AUC'} {_bare(finding)}"
    if math.isnan(finding.low) or math.isnan(finding.high):
        return f"{sentence}, without an interval."
    guessing = f"guessing ({formats.number(reference, bare=True)})"
    if finding.high < reference:
        return f"{sentence}, below {guessing}."
    return f"{sentence}." if finding.low > reference else f"{sentence}, not distinguishable from {guessing}."


def _bare(finding: Finding) -> str:
    shown = formats.parts(finding)
    value = formats.number(finding.value, bare=True)
    return f"{value} {shown.interval}" if shown.interval else value


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{formats.number(value, bare=True)}"
