"""Sentences from findings: what a person wants to know first, in plain words and with the uncertainty in it.

Every function takes plain numbers and findings and returns one line of text. Nothing is claimed that the numbers do
not carry: a missing interval, reference or truth is said to be missing, and a difference whose interval holds zero is
called "not distinguishable".
"""

import math
from collections.abc import Mapping

from jaxunlearn.records import Design, Finding
from jaxunlearn.report import number_format

_BEFOREHAND = ", chosen beforehand,"


def best_score(findings: Mapping[str, Finding], reference: float = 0.5, chosen: str = "") -> str:
    """How well the score chosen beforehand separates retained from forgotten samples, then which score does best.

    The largest of many is a maximum and flatters, so it comes second and is called one; `random` is no candidate.

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
    if name == chosen:
        return f"{_separates(name, best, reference, _BEFOREHAND)} It is also the largest of {len(known)} scores."
    maximum = f"{largest(len(known), 'scores')}: {name}, {best.metric or 'AUC'} {number_format.bare(best)}."
    if chosen not in known:
        return maximum
    return f"{_separates(chosen, known[chosen], reference, _BEFOREHAND)} {maximum}"


def largest_correlation(findings: Mapping[str, Finding], chosen: str) -> str:
    """How well the score chosen beforehand follows the amount of training, then the largest of all but `random`.

    Args:
      findings: name of the score -> Spearman's correlation; NaN is left out.
      chosen: the score that was chosen before the numbers were seen; it may be missing.
    """
    known = {name: one for name, one in findings.items() if not math.isnan(one.value) and name != "random"}
    if not known:
        return "No score's correlation with the amount of training could be computed."
    name = max(known, key=lambda name: known[name].value)
    said = [] if chosen not in known else [
        f"{chosen}, chosen beforehand, follows the amount of training with Spearman "
        f"{number_format.bare(known[chosen])}."
    ]  # fmt: skip
    if len(known) == 1:
        return (
            said[0]
            if said
            else f"{name} follows the amount of training with Spearman {number_format.bare(known[name])}."
        )
    if name != chosen:
        said.append(f"{largest(len(known), 'scores')}: {name}, {number_format.bare(known[name])}.")
    return " ".join(said)


def largest(count: int, what: str, end: str = "largest") -> str:
    """How a maximum (or minimum) over several candidates is announced; every report uses these words."""
    return f"{end.capitalize()} of {number_format.count(count)} {what}, chosen after looking"


POINTS = "points"  # per cent points


def closest(
    gaps: Mapping[str, Finding],
    untouched: Finding | None,
    gains: Mapping[str, Finding],
    behind: Mapping[str, Finding],
    best: str,
    over: str,
    unit: str = POINTS,
) -> str:
    """Which method comes closest to exact retraining, if any comes closer than doing nothing.

    Args:
      gaps: method -> mean absolute difference to the retrained models, a fraction; lower = closer.
      untouched: the gap of the original models (doing nothing); None where they were not measured.
      gains: method -> gap of doing nothing minus its own; intervals for all methods together.
      behind: method -> its gap minus that of `best`; intervals for all pairs together.
      best: the method that may be named; "" where none is closer than doing nothing by its interval.
      over: what the gap is taken over, as a sentence names it: "UA, RA and TA".
      unit: of the gaps: "points" prints fractions as per cent points, any other as they are.
    """
    if not gaps:
        return "No unlearning method was measured, so none is compared with retraining."
    known = {name: one for name, one in gaps.items() if not math.isnan(one.value)}
    names = _together(list(gaps))
    if not known:
        return f"How close {names} comes to retraining in {over} is not known: not all of these numbers were measured."
    nothing = None if untouched is None or math.isnan(untouched.value) else _apart(untouched, unit)
    if best:
        level = number_format.rate(gaps[best].confidence_level)
        away, less = _apart(gaps[best], unit), _apart(gains[best], unit)
        shown = f"{away} {unit} away, {less} less than doing nothing ({nothing})"
        if len(known) == 1:
            return f"{best} is closer to retraining in {over} than doing nothing: {shown}, {level} intervals."
        tied = [name for name, one in behind.items() if one.low <= 0]
        others = f" Not distinguishable from it: {_together(tied)}." if tied else ""
        return (
            f"Closest to retraining in {over}: {best}, {shown}; {level} intervals, of the gain for all methods "
            f"together. {largest(len(known), 'gaps', 'smallest')}.{others}"
        )
    smallest = min(known, key=lambda name: known[name].value)
    shown = f"{smallest}, {_apart(known[smallest], unit)} {unit} away"
    which = shown if len(known) == 1 else f"{largest(len(known), 'gaps', 'smallest').lower()}: {shown}"
    if nothing is None:
        return (
            f"Doing nothing was not measured, so no method is called closest to retraining in {over} ({which})."
        )  # fmt: skip
    if all(math.isnan(gain.low) for gain in gains.values()):
        return (
            f"Too few forget sets for intervals, so no method is called closer to retraining in {over} than doing "
            f"nothing, which is {nothing} {unit} away ({which})."
        )
    subject = f"{smallest} is not" if len(known) == 1 else "No method is"
    return (
        f"{subject} closer to retraining in {over} than doing nothing, which is {nothing} {unit} away, by the "
        f"intervals ({which})."
    )


def _together(names: list[str], most: int = 5) -> str:
    """Names as a sentence lists them, those beyond `most` counted."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {number_format.count(len(names) - most)} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _apart(finding: Finding, unit: str) -> str:
    """A gap in its unit, with its interval where it has one."""

    def shown(value: float) -> str:
        return number_format.number(value, 1, percent=True) if unit == POINTS else number_format.number(value)

    if math.isnan(finding.low) or math.isnan(finding.high):
        return shown(finding.value)
    return f"{shown(finding.value)} [{shown(finding.low)}, {shown(finding.high)}]"


def units(design: Design) -> str:
    """What a mean over models, or its interval, is over: "5 forget sets, each with an original of its own"."""
    sets, repeats = design.sets, design.repeats
    each = f", {number_format.count(repeats)} unlearned models each," if repeats > 1 else ""
    if design.kind == "given":
        return f"{_number_of(sets, 'model')} given, taken as independent"
    if sets * repeats == 1:
        return "one model of one forget set"
    if design.kind == "crossed" and repeats > 1:
        if sets == 1:
            return f"{repeats} originals and ONE forget set: holds for this forget set only"
        return f"{sets} forget sets crossed with {repeats} originals"
    if sets == 1:
        return f"{repeats} unlearned models of ONE forget set and ONE trained original: holds for these only"
    if design.kind == "per_set":
        return f"{number_format.count(sets)} forget sets, each with an original of its own" + each.rstrip(",")
    return f"{number_format.count(sets)} forget sets{each} of ONE trained original: holds for this model only"


def plus_minus(design: Design, level: float = 0.95) -> str:
    """What ± is in a table of means over models, a sentence or two: what it is over, and what it cannot tell apart.

    Every table with a ± over models has this sentence once, and from here.
    """
    if design.sets * design.repeats == 1:
        return "One model: no interval."
    said = f"± {number_format.rate(level)} interval over {units(design)}."
    if design.kind == "per_set" and design.sets > 1:
        lacking = (
            "training seed and forget set" if design.repeats > 1 else "training seed, forget set and unlearning seed"
        )
        return f"{said} It holds {lacking} together, which this design does not tell apart."
    return said


def over_groups(design: Design, level: float, method: str) -> str:
    """What ± and [ ] are in a table of membership scores, whose ± is over groups of shadow models.

    Args:
      design: of the audited models.
      level: of the intervals.
      method: how they were made; "" = there are none.
    """
    said = "± deviation over groups of shadow models"
    if not method:
        return f"{said}."
    if "forget sets" in method:
        return f"{said}; [ ] {number_format.rate(level)} interval over {units(design)} ({method})."
    interval = f"[ ] {number_format.rate(level)} interval over samples ({method}) of {units(design)}"
    return f"{said}; {interval}; other models may differ."


def split(deviations: Mapping[str, float]) -> str:
    """Standard deviations by source as one cell: "[.012 | .030 | .004]"; empty where nothing is known."""
    known = [number_format.number(value, bare=True) for value in deviations.values()]
    return f"[{' | '.join(known)}]" if known else ""


def resolution(forgotten: int, retained: int) -> str:
    """Which of the rates at 1 % and 0.1 % rest on less than one sample; empty where none does."""
    said = []
    for count, kind, error, rate in ((forgotten, "forgotten", "FPR", "TPR"), (retained, "retained", "FNR", "TNR")):
        below = [level for level in ("1e-2", "1e-3") if count * float(level) < 1]
        if below:
            columns = " and ".join(f"{rate}@{error} {level}" for level in below)
            verb = "lie" if len(below) > 1 else "lies"
            step = f"1/{number_format.count(count)}"
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
    level = number_format.rate(difference.confidence_level)
    by += f" [{_signed(difference.low)}, {_signed(difference.high)}], {level} interval"
    if difference.low > 0:
        return f"{first} is significantly above {second}: {by}."
    if difference.high < 0:
        return f"{first} is significantly below {second}: {by}."
    return f"{first} is not distinguishable from {second}: {by}."


def _number_of(number: int, what: str) -> str:
    return f"{number_format.count(number)} {what}{'' if number == 1 else 's'}"


def _separates(name: str, finding: Finding, reference: float, how: str = "") -> str:
    """One score's number, and whether it is better than guessing."""
    sentence = f"{name}{how} separates retained from forgotten: {finding.metric or 'AUC'} {number_format.bare(finding)}"
    if math.isnan(finding.low) or math.isnan(finding.high):
        return f"{sentence}, without an interval."
    guessing = f"guessing ({number_format.number(reference, bare=True)})"
    if finding.high < reference:
        return f"{sentence}, below {guessing}."
    return f"{sentence}." if finding.low > reference else f"{sentence}, not distinguishable from {guessing}."


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{number_format.number(value, bare=True)}"
