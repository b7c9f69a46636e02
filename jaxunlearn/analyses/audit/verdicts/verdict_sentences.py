"""The verdict on one request in sentences that a reader without statistics can act on, in a fixed order.

Power comes first: no count of rows is ever printed without it. Source: the order and the wording are part of the
procedure (`metrics/verdict`).
"""

import math

import numpy as np

from jaxunlearn.metrics.verdict import out_model
from jaxunlearn.metrics.verdict.judge import Judgement
from jaxunlearn.metrics.verdict.request import GroupTests
from jaxunlearn.metrics.verdict.rows import CANNOT_TELL, FORGOTTEN, NOT_FORGOTTEN, SUPPRESSED

WORDS = {
    NOT_FORGOTTEN: "NOT FORGOTTEN", FORGOTTEN: "FORGOTTEN", SUPPRESSED: "SUPPRESSED", CANNOT_TELL: "CANNOT TELL",
}  # fmt: skip
ORDER = (NOT_FORGOTTEN, FORGOTTEN, SUPPRESSED, CANNOT_TELL)
FOOTNOTES = (
    "NOT FORGOTTEN is also said when a near-copy of the row was kept.",
    "Rows must be chosen without looking at the unlearned model.",
    "A filter that answers the requested rows as another, honestly retrained model does cannot be seen from these "
    "answers.",
)  # fmt: skip


def power(found: Judgement) -> str:
    """Returns what this audit can notice, before what it noticed."""
    count = len(found.codes)
    if found.checks.refused:
        return ""
    caught, confirmed = found.power_not, found.power_forgotten
    would = "would have been caught if nothing had been forgotten"
    if caught is None:
        first = f"how many {would} cannot be estimated without the original model"
    else:
        rows = "your one row" if count == 1 else f"your {count:,} rows"
        first = f"of {rows}, {caught:,} {would}"
    second = ""
    if confirmed is not None:
        second = f", and about {math.floor(confirmed):,} would have been confirmed if all had been forgotten exactly"
    text = f"This audit can notice: {first}{second}."
    if caught is not None and caught < count / 10:
        text += ' So "not caught" says little about a single row here; the line about the request as a whole says more.'
    return text


def changed(found: Judgement, others: int) -> str:
    """Returns whether anything was changed at all; empty where the original is not known.

    Args:
      found: the verdict.
      others: number of retained and population rows.
    """
    if found.is_identical:
        return "The unlearned model answers exactly as the original, on every row. Nothing was forgotten."
    if found.is_edited:
        return (
            f"Only the answers to the requested rows differ from the original; all other {others:,} answers are "
            "practically unchanged. Training cannot do that: the answers were edited or filtered (a model that looks "
            "up its nearest training rows is the exception). Whether the model behind them forgot cannot be seen."
        )
    asked, rest = found.changes
    if np.isnan(asked):
        return ""
    return f"The model was changed (median change of log-odds {asked:.2g} on requested, {rest:.2g} on other rows)."


def share(group: GroupTests) -> str:
    """Returns the share of the trace that is left, to 10 %: the error of the trace itself is not in the interval."""
    value, low, high = (10 * round(10 * one) for one in group.kept)
    return f"{value:d} % (from {low:d} to {high:d})"


def request(group: GroupTests, fdr: float) -> str:
    """Returns the sentence about all requested rows together, the first that applies."""
    if group.models < 2:
        return "The request as a whole needs at least two shadow models that saw none of its rows."
    if group.is_suppressed:
        how = "much lower" if group.p_low <= group.p_narrow else "far too evenly"
        return (
            f"As a group these rows are answered unlike any model that never saw them ({how}). That is suppression, "
            "not forgetting."
        )
    is_in, is_out = group.p_high <= fdr, group.p_in <= fdr
    if np.isnan(group.dose):
        state = "The request is still in the model" if is_in else "As a whole it cannot be told"
        return f"{state}; how much of it is left shows only beside retained rows."
    if not np.isnan(group.kept[0]):
        kept = f"{share(group)} of what training left on these rows is still there"
        if is_in and is_out:
            return f"Part of the request is still in the model: about {kept}, less than half."
        if is_in:
            return f"The request is still in the model: about {kept}."
        if is_out:
            return (
                f"As a whole the request looks forgotten: about {kept}, less than half, and not more than chance "
                "explains."
            )
    if not group.can_be_told:
        return (
            "These rows are so easy that a model answers the same with or without them. No audit of answers can tell."
        )
    if np.isnan(group.kept[0]):
        return "The request is still in the model." if is_in else "As a whole it cannot be told."
    return (
        f"As a whole it cannot be told: about {kept} (100 % = as if never forgotten, 0 % = as if never seen; below 0 "
        "is normal for groups of similar rows)."
    )


def counts(found: Judgement) -> str:
    """Returns how many rows have which verdict, and why the rest has none."""
    numbers = {code: int((found.codes == code).sum()) for code in ORDER}
    text = ", ".join(f"{numbers[code]:,} {WORDS[code]}" for code in ORDER)
    if found.is_identical or found.is_edited:
        return f"{text}."
    text += f"; of each kind at most about 1 in {round(1 / found.fdr)} is wrong."
    easy = int(np.sum(reasons(found) == EASY))
    if numbers[CANNOT_TELL] and found.checks.refused_in and not found.checks.refused:
        text += f" None can be called FORGOTTEN. {found.checks.refused_in}"
    elif numbers[CANNOT_TELL] and not found.checks.refused:
        disputed = 0 if found.disputed is None else int(found.disputed.sum())
        rest = numbers[CANNOT_TELL] - easy - disputed
        text += f" Of {numbers[CANNOT_TELL]:,} that cannot be told: {easy:,} too easy, {rest:,} between the two"
        text += f", {disputed:,} judged differently by groups of the shadow models." if disputed else "."
    return text


EASY = "too easy: models answer it alike whether they saw it or not"
DISPUTED = "groups of the shadow models judge it differently"
BETWEEN = "between what models answer that saw such rows and those that did not"
REASONS = {
    NOT_FORGOTTEN: "answered higher than by models that never saw it",
    FORGOTTEN: "answered lower than rows like it that were trained on, nearer to models that never saw it",
    SUPPRESSED: "answered clearly lower than by any model that never saw it",
}


def reasons(found: Judgement) -> np.ndarray:
    """Returns [F] plain reasons, one per requested row."""
    if found.is_identical:
        return np.full(len(found.codes), "the unlearned model answers exactly as the original")
    if found.is_edited:
        return np.where(
            found.codes == SUPPRESSED, "only the answers to requested rows were changed", "its answer was not changed"
        )
    tests = found.tests
    easy = np.nan_to_num(tests.trace, nan=np.inf) < tests.deviation
    made = np.where(easy, EASY, BETWEEN)
    if found.checks.refused:
        made = np.full(len(made), found.checks.refused)
    elif found.checks.refused_in:
        made = np.where(easy, EASY, found.checks.refused_in)
    if found.disputed is not None:
        made = np.where(found.disputed, DISPUTED, made)
    for code, reason in REASONS.items():
        made = np.where(found.codes == code, reason, made)
    if found.group.is_suppressed:
        low = (found.codes == SUPPRESSED) & (tests.p_low > found.fdr)
        made = np.where(low, "the request as a whole is answered unlike by any model that never saw it", made)
    if found.replaced is not None:
        made = np.where(found.replaced, "exactly the loss of many other texts: its answer was replaced", made)
    return made


def trust(found: Judgement) -> list[str]:
    """Returns what the verdict rests on, and a sentence for every assumption that looks doubtful."""
    shadows, population, retained = found.checks.sizes
    said = [
        f"It rests on {shadows:,} shadow model(s), {population:,} rows that no model saw and {retained:,} retained "
        f"rows. The shadows follow the audited model with a slope of {found.model.raw_slope:.2f} and a correlation of "
        f"{found.model.correlation:.2f} (1 = alike)."
    ]
    if abs(found.model.raw_slope - 1) > out_model.ALIKE:
        which = "more" if found.model.raw_slope < 1 else "less"
        said.append(
            f"The shadows are {which} certain than your model (factor {found.model.raw_slope:.2f}); they were rescaled "
            "by the population."
        )
    if found.checks.is_contaminated:
        said.append(
            "Shadows answer retained rows otherwise than the population (mean place "
            f"{found.checks.retained_place:.2f} instead of 0.5): they saw some, or the population is of another kind. "
            "Rows were compared by the original's answers alone."
        )
    if found.checks.is_chosen:
        said.append(
            "These rows look chosen by the original's own answers (most remembered first). A retrained model, which "
            "shares its other rows with the original, answers them a little high: read NOT FORGOTTEN with care."
        )
    if found.checks.refused_in and not found.checks.refused:
        said.append(f"Nothing can be called FORGOTTEN: {found.checks.refused_in}")
    return said
