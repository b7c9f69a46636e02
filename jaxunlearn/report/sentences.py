"""Findings in words: plain sentences that include the uncertainty.

Every function takes plain numbers and findings and returns one line of text. Sentences claim only what the numbers
support: a missing interval, reference or ground truth is called missing, and a difference whose interval contains zero
"not distinguishable".
"""

import math
from collections.abc import Mapping

from jaxunlearn.records import Design, Finding
from jaxunlearn.report import number_format

_IN_ADVANCE = ", fixed in advance,"


def best_score(findings: Mapping[str, Finding], reference: float = 0.5, primary: str = "") -> str:
    """Describes how well the primary score separates retained from forgotten samples, then names the best score.

    The maximum over many scores is biased upwards, so it comes second and is called a maximum; `random` is excluded.

    Args:
      findings: name of the score -> AUC (or another metric, the same for all, higher = separates better); NaN is
        ignored, ties go to the first.
      reference: the metric of random guessing.
      primary: the primary score, chosen before any number was seen; empty = none.

    Example:
      >>> from jaxunlearn.records import Finding
      >>> from jaxunlearn.report import sentences
      >>> findings = {"iam_on": Finding(0.91, 0.88, 0.94), "confidence": Finding(0.75, 0.7, 0.8)}
      >>> sentences.best_score(findings, 0.5, "iam_on")
      'iam_on, fixed in advance, separates retained from forgotten: AUC .910 [.880, .940]. It is also the largest of
      2 scores.'
    """
    candidates = {
        name: finding for name, finding in findings.items() if not math.isnan(finding.value) and name != "random"
    }
    if not candidates:
        return "No score could be computed, so the separation of retained and forgotten samples is unknown."
    name = max(candidates, key=lambda name: candidates[name].value)
    if len(candidates) == 1:
        return _separates(name, candidates[name], reference)
    largest_finding = candidates[name]
    if name == primary:
        sentence = _separates(name, largest_finding, reference, _IN_ADVANCE)
        return f"{sentence} It is also the largest of {len(candidates)} scores."
    metric = largest_finding.metric or "AUC"
    maximum = f"{largest(len(candidates), 'scores')}: {name}, {metric} {number_format.bare(largest_finding)}."
    if primary not in candidates:
        return maximum
    return f"{_separates(primary, candidates[primary], reference, _IN_ADVANCE)} {maximum}"


def largest_correlation(findings: Mapping[str, Finding], primary: str) -> str:
    """Describes how well the primary score tracks the amount of training, then the largest of all except `random`.

    Args:
      findings: name of the score -> Spearman's correlation; NaN is ignored.
      primary: the primary score, chosen before any number was seen; it may be missing in `findings`.
    """
    candidates = {
        name: finding for name, finding in findings.items() if not math.isnan(finding.value) and name != "random"
    }
    if not candidates:
        return "No score's correlation with the amount of training could be computed."
    name = max(candidates, key=lambda name: candidates[name].value)
    sentences = [] if primary not in candidates else [
        f"{primary}, fixed in advance, follows the amount of training with Spearman "
        f"{number_format.bare(candidates[primary])}."
    ]  # fmt: skip
    if len(candidates) == 1:
        return (
            sentences[0]
            if sentences
            else f"{name} follows the amount of training with Spearman {number_format.bare(candidates[name])}."
        )
    if name != primary:
        sentences.append(f"{largest(len(candidates), 'scores')}: {name}, {number_format.bare(candidates[name])}.")
    return " ".join(sentences)


def largest(count: int, what: str, end: str = "largest") -> str:
    """Returns the words that announce a maximum (or minimum) over several candidates in every report."""
    return f"{end.capitalize()} of {number_format.count(count)} {what} (selected post hoc)"


POINTS = "points"  # percentage points


def closest(
    gaps: Mapping[str, Finding],
    gap_of_original: Finding | None,
    gains: Mapping[str, Finding],
    gap_to_best: Mapping[str, Finding],
    best: str,
    quantities: str,
    unit: str = POINTS,
) -> str:
    """Names the method closest to exact retraining, if any is closer than the original model.

    Args:
      gaps: method -> mean absolute difference to the retrained models, a fraction; lower = closer.
      gap_of_original: the gap of the original models; None if not measured.
      gains: method -> gap of the original models minus its own; simultaneous intervals for all methods.
      gap_to_best: method -> its gap minus that of `best`; simultaneous intervals for all pairs.
      best: the closest method; "" if no method is closer than the original models by its interval.
      quantities: over which the gap is averaged, in words: "UA, RA and TA".
      unit: of the gaps: "points" prints fractions as percentage points, any other unit unscaled.
    """
    if not gaps:
        return "No unlearning method was measured, so none is compared with retraining."
    measured_gaps = {name: finding for name, finding in gaps.items() if not math.isnan(finding.value)}
    names = _enumerate(list(gaps))
    if not measured_gaps:
        return (
            f"How close {names} comes to retraining in {quantities} is not known: not all of these numbers were "
            "measured."
        )
    original_text = (
        None if gap_of_original is None or math.isnan(gap_of_original.value) else _gap_text(gap_of_original, unit)
    )
    if best:
        level = number_format.rate(gaps[best].confidence_level)
        gap_text, gain_text = _gap_text(gaps[best], unit), _gap_text(gains[best], unit)
        clause = f"{gap_text} {unit} away, {gain_text} less than the original model ({original_text})"
        if len(measured_gaps) == 1:
            return (
                f"{best} is closer to retraining in {quantities} than the original model: {clause}, {level} intervals."
            )
        ties = [name for name, finding in gap_to_best.items() if finding.low <= 0]
        tie_sentence = f" Not distinguishable from it: {_enumerate(ties)}." if ties else ""
        return (
            f"Closest to retraining in {quantities}: {best}, {clause}; {level} intervals, of the gain for all methods "
            f"together. {largest(len(measured_gaps), 'gaps', 'smallest')}.{tie_sentence}"
        )
    smallest = min(measured_gaps, key=lambda name: measured_gaps[name].value)
    distance = f"{_gap_text(measured_gaps[smallest], unit)} {unit} away"
    nearest = (
        f"{smallest} is {distance}."
        if len(measured_gaps) == 1
        else f"{largest(len(measured_gaps), 'gaps', 'smallest')}: {smallest}, {distance}."
    )
    if original_text is None:
        return (
            f"The original model was not measured, so no method is called closest to retraining in {quantities}. "
            f"{nearest}"
        )
    if all(math.isnan(gain.low) for gain in gains.values()):
        return (
            f"There are too few forget sets for intervals, so no method is called closer to retraining in {quantities} "
            f"than the original model, which is {original_text} {unit} away. {nearest}"
        )
    subject = f"{smallest} is not" if len(measured_gaps) == 1 else "no method is"
    return (
        f"By the intervals, {subject} closer to retraining in {quantities} than the original model, which is "
        f"{original_text} {unit} away. {nearest}"
    )


def _enumerate(names: list[str], limit: int = 5) -> str:
    """Lists names in words; those beyond `limit` are counted only."""
    if len(names) > limit:
        return f"{', '.join(names[:limit])} and {number_format.count(len(names) - limit)} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _gap_text(finding: Finding, unit: str) -> str:
    """Formats a gap in its unit, with its interval if it has one."""

    def text_of(value: float) -> str:
        return number_format.number(value, 1, percent=True) if unit == POINTS else number_format.number(value)

    if math.isnan(finding.low) or math.isnan(finding.high):
        return text_of(finding.value)
    return f"{text_of(finding.value)} [{text_of(finding.low)}, {text_of(finding.high)}]"


def units(design: Design) -> str:
    """Describes the models that a mean or interval is over: "5 forget sets, each with an original of its own".

    Example:
      >>> from jaxunlearn.records import Design
      >>> from jaxunlearn.report import sentences
      >>> sentences.units(Design("per_set", 5))
      '5 forget sets, each with an original of its own'
    """
    sets, repeats = design.sets, design.repeats
    models_per_set = f", {number_format.count(repeats)} unlearned models each," if repeats > 1 else ""
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
        return f"{number_format.count(sets)} forget sets, each with an original of its own" + models_per_set.rstrip(",")
    return f"{number_format.count(sets)} forget sets{models_per_set} of ONE trained original: holds for this model only"


def plus_minus(design: Design, level: float = 0.95) -> str:
    """Explains ± in tables of means over models: what it is over, and which sources of variance it cannot separate.

    Every table with a ± over models includes this text once.
    """
    if design.sets * design.repeats == 1:
        return "One model: no interval."
    sentence = f"± {number_format.rate(level)} interval over {units(design)}."
    if design.kind == "per_set" and design.sets > 1:
        sources = (
            "training seed and forget set" if design.repeats > 1 else "training seed, forget set and unlearning seed"
        )
        return f"{sentence} It combines variation by {sources}, which this design cannot separate."
    return sentence


def over_groups(design: Design, level: float, method: str) -> str:
    """Explains ± and [ ] in tables of membership scores, where ± is over groups of shadow models.

    Args:
      design: of the audited models.
      level: confidence level of the intervals.
      method: of the intervals; "" = there are none.
    """
    text = "± standard deviation over groups of shadow models"
    if not method:
        return f"{text}."
    if "forget sets" in method:
        return f"{text}; [ ] {number_format.rate(level)} interval over {units(design)} ({method})."
    interval = f"[ ] {number_format.rate(level)} interval over samples ({method}) of {units(design)}"
    return f"{text}; {interval}; other models may differ."


def std_cell(deviations: Mapping[str, float]) -> str:
    """Formats standard deviations by source as one cell: "[.012 | .030 | .004]"; empty if there are none."""
    texts = [number_format.number(value, bare=True) for value in deviations.values()]
    return f"[{' | '.join(texts)}]" if texts else ""


def resolution(forgotten: int, retained: int) -> str:
    """Names the rates at 1 % and 0.1 % that correspond to less than one sample; empty if none does.

    Args:
      forgotten: number of forgotten samples.
      retained: number of retained samples.
    """
    clauses = []
    for count, kind, error, rate in ((forgotten, "forgotten", "FPR", "TPR"), (retained, "retained", "FNR", "TNR")):
        levels = [level for level in ("1e-2", "1e-3") if count * float(level) < 1]
        if levels:
            columns = " and ".join(f"{rate}@{error} {level}" for level in levels)
            subject = f"the levels of {columns} are" if len(levels) > 1 else f"the level of {columns} is"
            clauses.append(
                f"with {_number_of(count, f'{kind} sample')} the {error} changes in steps of "
                f"1/{number_format.count(count)}, so {subject} below the smallest {error} above 0"
            )
    return f"Read with care: {'; '.join(clauses)}." if clauses else ""


def compare(first: str, second: str, difference: Finding) -> str:
    """States whether one score is better than another, from the difference of their AUC on the same samples.

    Args:
      first: name of the score.
      second: name of the score it is compared with.
      difference: AUC of `first` minus AUC of `second`, with the interval of the paired difference.

    Example:
      >>> from jaxunlearn.records import Finding
      >>> from jaxunlearn.report import sentences
      >>> sentences.compare("iam_on", "confidence", Finding(0.16, 0.1, 0.22))
      'iam_on is significantly above confidence: AUC difference +.160 [+.100, +.220], 95 % interval.'
    """
    if math.isnan(difference.value):
        return f"{first} and {second} could not be compared."
    metric = (difference.metric or "AUC").removesuffix(" difference")
    evidence = f"{metric} difference {_signed(difference.value)}"
    if math.isnan(difference.low) or math.isnan(difference.high):
        return f"{first} against {second}: {evidence}, without an interval."
    level = number_format.rate(difference.confidence_level)
    evidence += f" [{_signed(difference.low)}, {_signed(difference.high)}], {level} interval"
    if difference.low > 0:
        return f"{first} is significantly above {second}: {evidence}."
    if difference.high < 0:
        return f"{first} is significantly below {second}: {evidence}."
    return f"{first} is not distinguishable from {second}: {evidence}."


def _number_of(number: int, what: str) -> str:
    return f"{number_format.count(number)} {what}{'' if number == 1 else 's'}"


def _separates(name: str, finding: Finding, reference: float, qualifier: str = "") -> str:
    """States a score's metric, and whether it is better than guessing."""
    sentence = (
        f"{name}{qualifier} separates retained from forgotten: {finding.metric or 'AUC'} {number_format.bare(finding)}"
    )
    if math.isnan(finding.low) or math.isnan(finding.high):
        return f"{sentence}, without an interval."
    guessing = f"guessing ({number_format.number(reference, bare=True)})"
    if finding.high < reference:
        return f"{sentence}, below {guessing}."
    return f"{sentence}." if finding.low > reference else f"{sentence}, not distinguishable from {guessing}."


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{number_format.number(value, bare=True)}"
