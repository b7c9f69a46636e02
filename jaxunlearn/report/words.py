"""Sentences from findings: what a person wants to know first, in plain words and with the uncertainty in it.

Every function takes plain numbers and findings and returns one line of text. Nothing is claimed that the numbers do
not carry: a missing interval, reference or truth is said to be missing, and a difference whose interval holds zero is
called "not distinguishable".
"""

import math
from collections.abc import Mapping

from jaxunlearn.records import Finding
from jaxunlearn.report import formats


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


def _number_of(number: int, what: str) -> str:
    return f"{formats.count(number)} {what}{'' if number == 1 else 's'}"


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
