"""The verdict on one request in sentences for readers without statistics, in a fixed order.

Power comes first: no count of rows is ever printed without it. Source: the order and the wording are part of the
procedure (`metrics/verdict`).
"""

import math

import numpy as np

from jaxunlearn.metrics.verdict import out_model
from jaxunlearn.metrics.verdict.judge import Judgement
from jaxunlearn.metrics.verdict.request import GroupTests
from jaxunlearn.metrics.verdict.rows import CANNOT_TELL, FORGOTTEN, NOT_FORGOTTEN, SUPPRESSED, decide
from jaxunlearn.report import number_format

WORDS = {
    NOT_FORGOTTEN: "NOT FORGOTTEN", FORGOTTEN: "FORGOTTEN", SUPPRESSED: "SUPPRESSED", CANNOT_TELL: "CANNOT TELL",
}  # fmt: skip
ORDER = (NOT_FORGOTTEN, FORGOTTEN, SUPPRESSED, CANNOT_TELL)
FOOTNOTES = (
    "A row is also NOT FORGOTTEN if a near-copy of it was kept.",
    "Rows must be chosen without looking at the unlearned model.",
    "A filter that answers the requested rows as another, honestly retrained model does cannot be seen from these "
    "answers.",
)  # fmt: skip


def power(judgement: Judgement) -> str:
    """States what this audit could have detected, before what it detected."""
    count = len(judgement.codes)
    if judgement.checks.refusal:
        return ""
    num_caught, num_confirmed = judgement.power_not, judgement.power_forgotten
    rows = "your one row" if count == 1 else f"your {count:,} rows"
    if num_caught is None:
        text = (
            f"How many of {rows} this audit would have caught if nothing had been forgotten cannot be estimated "
            "without the original model"
        )
    else:
        text = f"Of {rows}, this audit would have caught {num_caught:,} if nothing had been forgotten"
    if num_confirmed is not None:
        subject = "; it" if num_caught is None else ", and"
        text += f"{subject} would have confirmed about {math.floor(num_confirmed):,} if all had been forgotten exactly"
    text += "."
    if num_caught is not None and num_caught < count / 10:
        text += ' So "not caught" says little about a single row here; the line about the request as a whole says more.'
    return text


def changed(judgement: Judgement, num_others: int) -> str:
    """States whether anything was changed at all; empty if the original is not known.

    Args:
      judgement: the verdict.
      num_others: number of retained and population rows.
    """
    if judgement.is_identical:
        return "The unlearned model answers like the original to float16 precision on every row. Nothing was forgotten."
    if judgement.is_edited:
        return (
            f"Only the answers to the requested rows differ from the original; all other {num_others:,} answers are "
            "practically unchanged. Training cannot do that: the answers were edited or filtered (a model that looks "
            "up its nearest training rows is the exception). Whether the model behind them forgot cannot be seen."
        )
    requested_change, other_change = judgement.changes
    if np.isnan(requested_change):
        return ""
    return (
        f"The model was changed (median change of log-odds {requested_change:.2g} on requested, {other_change:.2g} on "
        "other rows)."
    )


def share(group: GroupTests) -> str:
    """Returns the share of the trace that remains, to 10 %: the error of the trace itself is not in the interval."""
    value, low, high = (10 * round(10 * end) for end in group.trace_left)
    return f"{value:d} % (from {low:d} to {high:d})"


def request(group: GroupTests, fdr: float) -> str:
    """Returns the sentence about all requested rows together, the first that applies."""
    if group.models < 2:
        return "The request as a whole needs at least two shadow models that saw none of its rows."
    if group.is_suppressed:
        manner = "much lower" if group.p_low <= group.p_narrow else "far too evenly"
        return (
            f"The answers to these rows as a group are unlike those of any model that never saw them ({manner}). That "
            "is suppression, not forgetting."
        )
    is_in, is_out = group.p_high <= fdr, group.p_in <= fdr
    if np.isnan(group.dose):
        state = "The request is still in the model" if is_in else UNDETERMINED
        return f"{state}; the share that remains can only be estimated with retained rows."
    if not np.isnan(group.trace_left[0]):
        remainder = f"{share(group)} of the effect of training on these rows remains"
        if is_in and is_out:
            return f"Part of the request is still in the model: about {remainder}, less than half."
        if is_in:
            return f"The request is still in the model: about {remainder}."
        if is_out and group.is_too_low:
            return (
                f"{UNDETERMINED}: about {remainder}, far less than in models that never saw them. Either the answers "
                "were pushed down, or arrays do not belong together, or few of the kept rows are like these."
            )
        if is_out:
            return (
                f"As a whole the request looks forgotten: about {remainder}, less than half, and not more than chance "
                "explains."
            )
    if not group.is_detectable:
        return (
            "These rows are so easy that a model answers the same with or without them. No audit of answers can tell."
        )
    if np.isnan(group.trace_left[0]):
        return "The request is still in the model." if is_in else f"{UNDETERMINED}."
    return (
        f"{UNDETERMINED}: about {remainder} (100 % = as if never forgotten, 0 % = as if never seen; below 0 is normal "
        "for groups of similar rows)."
    )


def unseen(is_run: bool) -> str:
    """Returns what the rows of the population are called: a user's are unseen as far as the user knows."""
    return "rows that no model saw" if is_run else "rows given as unseen"


def error_bound(fdr: float) -> str:
    """States the bound on the share of wrong verdicts: as 1 in N if N is a whole number, else in per cent."""
    count = round(1 / fdr)
    if math.isclose(count * fdr, 1, rel_tol=1e-3):
        return f"at most about 1 in {count} verdicts of each kind is wrong"
    return f"at most about {number_format.rate(fdr)} of the verdicts of each kind are wrong"


def counts(judgement: Judgement) -> str:
    """Counts the rows by verdict, and explains those without one."""
    num_by_code = {code: int((judgement.codes == code).sum()) for code in ORDER}
    text = ", ".join(f"{num_by_code[code]:,} {WORDS[code]}" for code in ORDER)
    if judgement.is_identical or judgement.is_edited:
        return f"{text}."
    text += f"; {error_bound(judgement.fdr)}."
    num_easy = int(np.sum(reasons(judgement) == EASY))
    if num_by_code[CANNOT_TELL] and judgement.checks.forgotten_refusal and not judgement.checks.refusal:
        text += f" None can be called FORGOTTEN. {judgement.checks.forgotten_refusal}"
    elif num_by_code[CANNOT_TELL] and not judgement.checks.refusal:
        num_disputed = 0 if judgement.disputed is None else int(judgement.disputed.sum())
        num_blind = 0 if judgement.blind is None else int(judgement.blind.sum())
        num_between = num_by_code[CANNOT_TELL] - num_easy - num_disputed - num_blind
        text += f" Among the CANNOT TELL rows: {num_easy:,} too easy, {num_between:,} between the two references"
        text += f", {num_blind:,} seen by every shadow model" if num_blind else ""
        text += f", {num_disputed:,} judged differently by groups of the shadow models." if num_disputed else "."
    return text


UNDETERMINED = "Whether the request as a whole was forgotten cannot be determined"
EASY = "too easy: models answer it alike whether they saw it or not"
DISPUTED = "groups of the shadow models judge it differently"
BLIND = "every shadow model saw it: nothing shows how models answer it that did not"
TOO_LOW = "the answers to the request as a whole are far lower than those of models that never saw it"
BETWEEN = "between the answers of models that saw such rows and of models that did not"
REASONS = {
    NOT_FORGOTTEN: "answered higher than by models that never saw it",
    FORGOTTEN: "answered lower than rows like it that were trained on, nearer to models that never saw it",
    SUPPRESSED: "answered clearly lower than by any model that never saw it",
}


def reasons(judgement: Judgement) -> np.ndarray:
    """Returns the reasons in words, [F] one per requested row."""
    if judgement.is_identical:
        return np.full(len(judgement.codes), "the unlearned model answers like the original to float16 precision")
    if judgement.is_edited:
        return np.where(
            judgement.codes == SUPPRESSED,
            "only the answers to requested rows were changed",
            "its answer was not changed",
        )
    tests = judgement.tests
    is_easy = np.nan_to_num(tests.trace, nan=np.inf) < tests.deviation
    texts = np.where(is_easy, EASY, BETWEEN)
    if judgement.checks.refusal:
        texts = np.full(len(texts), judgement.checks.refusal)
    elif judgement.checks.forgotten_refusal:
        texts = np.where(is_easy, EASY, judgement.checks.forgotten_refusal)
    if judgement.blind is not None and not judgement.checks.refusal:
        texts = np.where(judgement.blind, BLIND, texts)
    if judgement.group.is_too_low:
        is_lower = (decide(tests, judgement.fdr) == FORGOTTEN) & (judgement.codes == CANNOT_TELL)
        texts = np.where(is_lower, TOO_LOW, texts)
    if judgement.disputed is not None:
        texts = np.where(judgement.disputed, DISPUTED, texts)
    for code, reason in REASONS.items():
        texts = np.where(judgement.codes == code, reason, texts)
    if judgement.group.is_suppressed:
        is_low = (judgement.codes == SUPPRESSED) & (tests.p_low > judgement.fdr)
        reason = "the answers to the request as a whole are unlike those of any model that never saw it"
        texts = np.where(is_low, reason, texts)
    if judgement.replaced is not None:
        texts = np.where(judgement.replaced, "exactly the loss of many other texts: its answer was replaced", texts)
    return texts


def trust(judgement: Judgement, is_run: bool = False) -> list[str]:
    """States what the verdict rests on, with a sentence for every doubtful assumption; `is_run`: see `unseen`."""
    shadows, population, retained = judgement.checks.sizes
    sentences = [
        f"It rests on {shadows:,} shadow model(s), {population:,} {unseen(is_run)} and {retained:,} retained "
        f"rows. The shadows follow the audited model with a slope of {judgement.model.raw_slope:.2f} and a correlation "
        f"of {judgement.model.correlation:.2f} (1 = alike)."
    ]
    if abs(judgement.model.raw_slope - 1) > out_model.ALIKE:
        direction = "more" if judgement.model.raw_slope < 1 else "less"
        sentences.append(
            f"The shadows are {direction} certain than your model (factor {judgement.model.raw_slope:.2f}); they were "
            "rescaled by the population."
        )
    if judgement.checks.is_contaminated:
        sentences.append(
            "Shadows answer retained rows differently from the population (mean rank "
            f"{judgement.checks.retained_rank:.2f} instead of 0.5): they saw some, or the population is of another "
            "kind. Rows were compared by the original's answers alone."
        )
    if judgement.checks.is_selected:
        sentences.append(
            "These rows look chosen by the original's own answers (most remembered first). A retrained model, which "
            "shares its other rows with the original, answers them a little high: read NOT FORGOTTEN with care."
        )
    if judgement.checks.forgotten_refusal and not judgement.checks.refusal:
        sentences.append(f"Nothing can be called FORGOTTEN: {judgement.checks.forgotten_refusal}")
    return sentences
