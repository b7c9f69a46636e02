"""Verdicts as values: one record per request, for programs that act on them instead of reading the page."""

import enum
from typing import NamedTuple

import numpy as np

from jaxunlearn.analyses.audit.evidence.signals import AuditInputs
from jaxunlearn.analyses.audit.verdicts import first_screen, verdict_sentences
from jaxunlearn.analyses.audit.verdicts.requests import RoleVerdicts
from jaxunlearn.metrics.verdict.judge import Judgement
from jaxunlearn.records import Finding

UNJUDGED = "no verdict"  # state of a request without a verdict


class Verdict(enum.StrEnum):
    """What is said of a request or a row; equal to the words of the report."""

    NOT_FORGOTTEN = "NOT FORGOTTEN"
    FORGOTTEN = "FORGOTTEN"
    SUPPRESSED = "SUPPRESSED"
    CANNOT_TELL = "CANNOT TELL"
    NO_VERDICT = "NO VERDICT"  # arrays are missing, or do not allow a verdict
    DIFFERS = "DIFFERS"  # several requests, not all with the same verdict


OF_STATE = {
    "not changed": Verdict.NOT_FORGOTTEN,
    "still in the model": Verdict.NOT_FORGOTTEN,
    "edited": Verdict.SUPPRESSED,
    "suppressed": Verdict.SUPPRESSED,
    "forgotten": Verdict.FORGOTTEN,
    "undetermined": Verdict.CANNOT_TELL,
    UNJUDGED: Verdict.NO_VERDICT,
}


class RequestVerdict(NamedTuple):
    """One request: a line of requests.csv.

    Attributes:
      request: index of its forget set; rows: number of requested rows.
      verdict: on the request as a whole. Single rows may differ from it.
      state: why, a key of OF_STATE: "not changed", "still in the model", "edited", "suppressed", "forgotten",
        "undetermined" or "no verdict".
      left: share of the effect of training on the rows that remains, with its 95 % interval: 1 = as if never
        forgotten, 0 = as if never seen; NaN where it cannot be estimated.
      p_high: small = answered higher than by models that never saw the rows; p_in: small = less than half of what
        training left is there; p_low: small = answered far lower than by models that never saw the rows; p_narrow:
        small = answers vary far too little. NaN without a verdict.
      caught_if_untouched: rows that would have been NOT FORGOTTEN if nothing had been forgotten; None: not known.
      confirmed_if_exact: rows that would have been FORGOTTEN, on average, if all had been forgotten; None: not known.
      why: the reason, as a sentence.
    """

    request: int
    rows: int
    verdict: Verdict
    state: str
    left: Finding
    p_high: float
    p_in: float
    p_low: float
    p_narrow: float
    caught_if_untouched: int | None
    confirmed_if_exact: float | None
    why: str


def judged(verdicts: RoleVerdicts, role: str, fdr: float) -> tuple[RequestVerdict, ...]:
    """Returns one record per request of a role; `fdr`: of each kind of verdict."""
    return tuple(_of(judgement, index, role, fdr) for index, judgement in enumerate(verdicts.judgements))


def _of(judgement: Judgement, index: int, role: str, fdr: float) -> RequestVerdict:
    group, refused = judgement.group, judgement.checks.refusal
    state = UNJUDGED if refused else first_screen.state(judgement, fdr)
    p_values = (np.nan,) * 4 if refused else (group.p_high, group.p_in, group.p_low, group.p_narrow)
    p_high, p_in, p_low, p_narrow = map(float, p_values)
    if not refused and (judgement.is_identical or judgement.is_edited):
        _, population, retained = judgement.checks.sizes
        why = verdict_sentences.changed(judgement, population + retained)
    else:
        why = refused or verdict_sentences.request(group, fdr)
    return RequestVerdict(
        index, len(judgement.codes), OF_STATE[state], state, share_left(judgement, role), p_high, p_in, p_low,
        p_narrow, judgement.power_not, judgement.power_forgotten, why,
    )  # fmt: skip


def unjudged(signals: AuditInputs, obstacle: str) -> tuple[RequestVerdict, ...]:
    """Returns one record per request where no row can be judged; `obstacle`: why."""
    state = "not changed" if first_screen.is_unchanged_request(signals) else UNJUDGED
    counts = [len(signals.labels)] if signals.forgotten is None else signals.forgotten.sum(1).tolist()
    nan = float("nan")
    return tuple(
        RequestVerdict(index, count, OF_STATE[state], state, Finding(nan), nan, nan, nan, nan, None, None, obstacle)
        for index, count in enumerate(counts)
    )


def together(requests: tuple[RequestVerdict, ...]) -> Verdict:
    """Returns the verdict that all requests share; DIFFERS if they share none, NO VERDICT without a request."""
    verdicts = {request.verdict for request in requests}
    if len(verdicts) > 1:
        return Verdict.DIFFERS
    return verdicts.pop() if verdicts else Verdict.NO_VERDICT


def share_left(judgement: Judgement, role: str) -> Finding:
    """Returns the share of the trace of training that is left of a request; NaN if it cannot be estimated."""
    value, low, high = judgement.group.trace_left
    return Finding(value, low, high, metric="trace left", n=len(judgement.codes), of=role,
                   against="rows like them that were trained on", method="t over shadow models")  # fmt: skip
