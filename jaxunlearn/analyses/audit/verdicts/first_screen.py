"""The summary for readers without statistics: question, power, changes, the request, its rows, what to do.

The order is part of the procedure: power comes before any count of rows (`metrics/verdict`).
"""

from typing import NamedTuple

import numpy as np

from jaxunlearn.analyses.audit.evidence.signals import RETRAINED, AuditInputs
from jaxunlearn.analyses.audit.verdicts import planning, verdict_sentences
from jaxunlearn.analyses.audit.verdicts.requests import RoleVerdicts
from jaxunlearn.analyses.audit.verdicts.verdict_sentences import ORDER, WORDS
from jaxunlearn.metrics.verdict.judge import IDENTICAL_TO, Judgement
from jaxunlearn.metrics.verdict.rows import CANNOT_TELL, NOT_FORGOTTEN, SUPPRESSED

MAX_NAMED = 5  # rows or persons that are named in a sentence

SHORT, ASKED, POWER, CHANGED = "In short", "What was asked", "What could this audit detect?", "Was anything changed?"
DOUBTS, OTHERS = "Before anything else", "The other audited models"
REQUEST, ROWS, PERSONS, ACTION = "The request as a whole", "Row by row", "Person by person", "What to do now"
IN_THE_ANSWER = (POWER, CHANGED, REQUEST, ROWS, PERSONS)  # of the paragraph; the others are shown separately

EVERY_REQUEST = {
    "not changed": "NOT FORGOTTEN. No model was changed.",
    "edited": "SUPPRESSED, in every request.",
    "suppressed": "SUPPRESSED, in every request.",
    "still in the model": "NOT FORGOTTEN, in every request.",
    "forgotten": "FORGOTTEN as a whole, in every request, as far as a model's answers can show it.",
    "undetermined": "CANNOT TELL for any request as a whole.",
}

Summary = tuple[tuple[str, str], ...]


class RequestNames(NamedTuple):
    """Names of the rows of one request.

    Attributes:
      rows: [F] text; persons: names by index.
      is_request: whether the user marked them as requested; else every row is judged as if it were.
      is_run: whether a run folder knows what the models saw; else a user says so.
      doubts: what is said before anything else.
    """

    rows: np.ndarray
    persons: tuple[str, ...]
    is_request: bool = True
    is_run: bool = False
    doubts: tuple[str, ...] = ()


def paragraph(summary: Summary, role: str) -> str:
    """Returns the sentences of a summary about a role as one paragraph, for files and logs."""
    lead = ["Exact retraining, audited as if it were a method."] if summary and role == RETRAINED else []
    return " ".join([*lead, *(text for question, text in summary if question in IN_THE_ANSWER)])


def request_summary(judgement: Judgement, fdr: float, named: RequestNames) -> Summary:
    """Returns the summary of one request.

    Args:
      judgement: the verdict.
      fdr: of each kind of false verdict.
      named: names of its rows and persons.
    """
    shadows, population, retained = judgement.checks.sizes
    changed = verdict_sentences.changed(judgement, population + retained)
    models = (
        f"{_count(shadows, 'model')} {'that never saw them' if named.is_run else 'given as never having seen them'}"
    )
    pairs = [
        (SHORT, in_short(judgement, fdr, named.is_request)),
        (ASKED, f"{_question_text(named)} Compared with {models}, {population:,} "
                f"{verdict_sentences.unseen(named.is_run)}, and {retained:,} rows that the model was allowed to keep."),
    ]  # fmt: skip
    if judgement.checks.refusal:
        pairs += [(CHANGED, changed), *_refusal(judgement, fdr, named)]
        return tuple((question, text) for question, text in pairs if text)
    is_moved = not judgement.is_identical and not judgement.is_edited
    pairs += [
        (POWER, verdict_sentences.power(judgement)),
        (CHANGED, changed),
        (REQUEST, verdict_sentences.request(judgement.group, fdr) if is_moved else ""),
        (ROWS, verdict_sentences.counts(judgement)),
        (PERSONS, _persons(judgement, named)),
        (ACTION, action(judgement, fdr, named)),
    ]
    return tuple((question, text) for question, text in pairs if text)


def _refusal(judgement: Judgement, fdr: float, named: RequestNames) -> Summary:
    """Says why nothing is judged, unless the model was not changed, which needs no comparison with others."""
    if judgement.is_identical:
        return (ROWS, verdict_sentences.counts(judgement)), (ACTION, action(judgement, fdr, named))
    reason = judgement.checks.refusal
    is_doubt = reason in " ".join(named.doubts)
    return ((REQUEST, f"No verdict is given{', for the reason given first.' if is_doubt else f'. {reason}'}"),)


def _question_text(named: RequestNames) -> str:
    count = _count(len(named.rows), "row")
    if named.is_request:
        return f"Are these {count}, which were to be forgotten, still in the model?"
    return (
        f"Are these {count} still in the model? No request was given (`forgotten`), so every row is judged as if it "
        "had been requested."
    )


def in_short(judgement: Judgement, fdr: float, is_request: bool = True) -> str:
    """Returns the verdict on one request in one line, without any number.

    Args:
      judgement: the verdict.
      fdr: of each kind of false verdict.
      is_request: False = no request was given, and all rows are judged.
    """
    if is_request or (judgement.checks.refusal and not judgement.is_identical):
        return _short(judgement, fdr)
    lead = "No request was given (`forgotten`), so all rows are judged at once."
    if _short(judgement, fdr) == STILL_IN:
        return f"{lead} NOT FORGOTTEN: together they are in the model, as rows that were kept should be."
    return f"{lead} {_short(judgement, fdr)}"


STILL_IN = "NOT FORGOTTEN. The request is still in the model."


def _short(judgement: Judgement, fdr: float) -> str:
    group = judgement.group
    if judgement.is_identical:
        return "NOT FORGOTTEN. The model was not changed at all."
    if judgement.checks.refusal:
        return "NO VERDICT: these arrays do not allow one."
    if judgement.is_edited:
        return "SUPPRESSED. Only the requested answers were edited; nothing shows that the model forgot."
    if group.is_suppressed:
        return "SUPPRESSED. The model answers these rows unlike any model that never saw them."
    has_caught = bool((judgement.codes == NOT_FORGOTTEN).any())
    if group.models < 2:
        rows_sentence = "Some rows are NOT FORGOTTEN. " if has_caught else ""
        return (
            f"{rows_sentence}The request as a whole CANNOT be judged: at least two shadow models must be trained "
            "without any of its rows."
        )
    is_in, is_out = group.p_high <= fdr, group.p_in <= fdr
    if is_in:
        return "NOT FORGOTTEN. Part of the request is still in the model." if is_out else STILL_IN
    if is_out and not group.is_too_low:
        if has_caught:
            return "FORGOTTEN as a whole, but not every row: some are NOT FORGOTTEN."
        if judgement.blind is not None and judgement.blind.any():
            return "FORGOTTEN as a whole, but for rows that every shadow model saw, on which nobody CAN TELL."
        return "FORGOTTEN as a whole, as far as a model's answers can show it."
    return "CANNOT TELL for the request as a whole; some rows are NOT FORGOTTEN." if has_caught else "CANNOT TELL."


def action(judgement: Judgement, fdr: float, named: RequestNames) -> str:
    """Recommends what to do with which rows, and what would sharpen the audit."""
    group, sentences = judgement.group, []
    if not named.is_request:
        return "Say which of these rows were asked to be forgotten (`forgotten`), and audit again."
    is_in = judgement.is_identical or (group.models > 1 and group.p_high <= fdr)
    order = np.argsort(-judgement.tests.z, kind="stable")  # the most conspicuous first
    caught_rows = named.rows[order][judgement.codes[order] == NOT_FORGOTTEN]
    if judgement.is_identical:
        return "Have the rows unlearned, or the model retrained without them, and audit again."
    if len(caught_rows):
        sentences.append(
            f"Look first at these rows: {_list(caught_rows)}. A near-copy of such a row may have been kept. Have them "
            "unlearned again, or the model retrained without them, and audit again."
        )
    elif is_in:
        sentences.append(
            "No single row can be named, but together they are still in the model: have the request unlearned again, "
            "or the model retrained without it, and audit again."
        )
    if (judgement.codes == SUPPRESSED).any():
        sentences.append(
            "Ask the operator of the model whether answers to these rows are filtered or edited; only the weights, or "
            "answers to slightly changed copies of the rows, can show what lies behind."
        )
    num_unsure = int((judgement.codes == CANNOT_TELL).sum())
    if num_unsure and group.p_in <= fdr and not is_in and not group.is_suppressed and not group.is_too_low:
        sentences.append(
            "Rows marked CANNOT TELL are vouched for by the request as a whole only, not one by one; if one of them "
            "matters by itself, only the record of how the model was trained can tell."
        )
    elif num_unsure and group.models > 1 and not group.is_detectable:
        sentences.append(
            "Rows as easy as these leave no trace in answers: ask for the record of how the model was trained."
        )
    elif num_unsure and (additions := planning.lacking(*judgement.checks.sizes)):
        sentences.append(f"To sharpen the verdicts, add {additions} (--plan_shadows shows which).")
    return " ".join(sentences)


def role_summary(verdicts: RoleVerdicts, fdr: float, role: str) -> Summary:
    """Returns the summary of all requests of a run, each with its own unlearned model."""
    judgements = verdicts.judgements
    rows, num_requests = int(verdicts.requested.sum()), len(judgements)
    shadows, population, retained = judgements[0].checks.sizes
    retrained = " Exact retraining is audited here as if it were a method." if role == RETRAINED else ""
    request_text = (
        f"Are the {rows:,} rows of {num_requests} requests still in the {num_requests} models that `{role}` produced "
        f"for them? Compared with {_count(shadows, 'model')} that never saw them, {population:,} rows that no model "
        f"saw, and the rows that were kept.{retrained}"
    )
    states = _states(verdicts, fdr)
    state_counts = ", ".join(f"{state_count} {name}" for name, state_count in states.items() if state_count)
    code_counts = ", ".join(f"{int((verdicts.codes == code).sum()):,} {WORDS[code]}" for code in ORDER)
    pairs = [
        (SHORT, _short_of_many(states, num_requests)),
        (ASKED, request_text),
        (POWER, _power_of_many(verdicts, rows, num_requests)),
        (CHANGED, _changed_of_many(verdicts, num_requests)),
        (REQUEST, f"Requests as a whole: {state_counts}."),
        (ROWS, f"Rows: {code_counts}; {verdict_sentences.error_bound(fdr)}."),
        (
            ACTION,
            "The table of requests shows which are still in the model; verdicts.csv lists every row with its reason.",
        ),
    ]
    return tuple((question, text) for question, text in pairs if text)


def no_verdict_summary(signals: AuditInputs, obstacle: str) -> Summary:
    """Returns the summary if no row can be judged: whether the model was changed at all, and what is missing."""
    is_same, text_of_changes = _changed_alone(signals)
    short = (
        "NOT FORGOTTEN. The model was not changed."
        if is_same
        else "NO VERDICT on single rows: required arrays are missing."
    )
    return tuple((question, text) for question, text in (
        (SHORT, short), (CHANGED, text_of_changes), (REQUEST, f"No verdict on single samples: {obstacle}"),
    ) if text)  # fmt: skip


def is_unchanged(signals: AuditInputs) -> bool:
    """Returns whether every model of the first audited role answers every row exactly as its original."""
    changes = signals.changes.get(signals.audited[0])
    if changes is None:
        return False
    largest_elsewhere = 0.0 if changes.population is None else changes.population.max(initial=0)
    return bool(max(changes.target.max(initial=0), largest_elsewhere) <= IDENTICAL_TO)


def is_unchanged_request(signals: AuditInputs) -> bool:
    """Returns whether the answers to all requested rows are exactly the original's, which needs no shadow model."""
    return _changed_alone(signals)[0]


def _changed_alone(signals: AuditInputs) -> tuple[bool, str]:
    """Returns whether the answers to all requested rows are unchanged, and a sentence on the changes."""
    changes = signals.changes.get(signals.audited[0])
    if changes is None or signals.forgotten is None:
        return False, ""
    is_requested, target = signals.forgotten, changes.target
    other_changes = (
        target[~is_requested]
        if changes.population is None
        else np.concatenate([target[~is_requested], changes.population.ravel()])
    )
    requested = target[is_requested]
    if requested.max(initial=0) <= IDENTICAL_TO:
        extent = (
            "on every row"
            if other_changes.max(initial=0) <= IDENTICAL_TO
            else "on the requested rows, but not on others"
        )
        return True, (
            f"The unlearned model answers like the original to float16 precision {extent}: every requested row is NOT "
            "FORGOTTEN. That needs no shadow model."
        )
    if len(other_changes) and other_changes.max() <= IDENTICAL_TO:
        return False, (
            f"Only answers to requested rows differ from the original; all other {len(other_changes):,} answers are "
            "the same. Training cannot do that: the answers were edited or filtered."
        )
    comparison = f", {np.median(other_changes):.2g} on other rows" if len(other_changes) else ""
    return False, (
        f"The model was changed (median of the largest change of a log-probability: {np.median(requested):.2g} on "
        f"requested rows{comparison}). That does not say whether it forgot."
    )


def _persons(judgement: Judgement, named: RequestNames) -> str:
    if not judgement.persons or judgement.is_edited:
        return ""
    still_in = np.array([named.persons[index] for index, (_, is_in) in judgement.persons.items() if is_in])
    names = f": {_list(still_in)}" if len(still_in) else ""
    return f"Persons still in the model: {len(still_in):,} of {len(judgement.persons):,}{names}."


def _power_of_many(verdicts: RoleVerdicts, num_rows: int, num_requests: int) -> str:
    num_caught = [judgement.power_not for judgement in verdicts.judgements if judgement.power_not is not None]
    num_confirmed = [
        judgement.power_forgotten for judgement in verdicts.judgements if judgement.power_forgotten is not None
    ]
    if len(num_caught) < num_requests:
        return ""
    text = (
        f"Of {num_rows:,} requested rows in {num_requests} requests, this audit would have caught {sum(num_caught):,} "
        "if nothing had been forgotten"
    )
    if len(num_confirmed) == num_requests:
        text += f", and would have confirmed about {int(sum(num_confirmed)):,} if all had been forgotten exactly"
    text += "."
    if sum(num_caught) < num_rows / 10:
        text += ' So "not caught" says little about a single row; the requests as a whole say more.'
    return text


def _changed_of_many(verdicts: RoleVerdicts, num_requests: int) -> str:
    num_identical = sum(judgement.is_identical for judgement in verdicts.judgements)
    num_edited = sum(judgement.is_edited for judgement in verdicts.judgements)
    sentences = []
    if num_identical:
        sentences.append(
            f"In {num_identical} of {num_requests} requests the unlearned model answers like the original to float16 "
            "precision."
        )
    if num_edited:
        sentences.append(
            f"In {num_edited} of {num_requests} requests only the answers to the requested rows were changed: edited "
            "or filtered."
        )
    return " ".join(sentences)


def state(judgement: Judgement, fdr: float) -> str:
    """Returns the state of one request, a name of EVERY_REQUEST."""
    if judgement.is_identical:
        return "not changed"
    if judgement.is_edited:
        return "edited"
    if judgement.group.is_suppressed:
        return "suppressed"
    if judgement.group.p_high <= fdr:
        return "still in the model"
    is_forgotten = judgement.group.p_in <= fdr and not judgement.group.is_too_low
    return "forgotten" if is_forgotten else "undetermined"


def _states(verdicts: RoleVerdicts, fdr: float) -> dict[str, int]:
    """Counts the requests in each state; every request is in exactly one."""
    states = [state(judgement, fdr) for judgement in verdicts.judgements]
    return {name: states.count(name) for name in EVERY_REQUEST}


def _short_of_many(states: dict[str, int], num_requests: int) -> str:
    for name, text in EVERY_REQUEST.items():
        if states[name] == num_requests:
            return text
    return (
        "It differs by request: "
        f"{', '.join(f'{state_count} {name}' for name, state_count in states.items() if state_count)}."
    )


def _list(names: np.ndarray) -> str:
    """Lists the first names in words."""
    text = ", ".join(map(str, names[:MAX_NAMED]))
    return text if len(names) <= MAX_NAMED else f"{text} and {len(names) - MAX_NAMED:,} more"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
