"""Composes what a reader without statistics sees first: asked, noticeable, changed, the request, rows, what to do.

The order is part of the procedure: power stands before any count of rows (`metrics/verdict`).
"""

from typing import NamedTuple

import numpy as np

from jaxunlearn.analyses.audit.evidence.signals import RETRAINED, AuditSignals
from jaxunlearn.analyses.audit.verdicts import planning, verdict_sentences
from jaxunlearn.analyses.audit.verdicts.requests import RoleVerdicts
from jaxunlearn.analyses.audit.verdicts.verdict_sentences import ORDER, WORDS
from jaxunlearn.metrics.verdict.judge import IDENTICAL_TO, Judgement
from jaxunlearn.metrics.verdict.rows import CANNOT_TELL, NOT_FORGOTTEN, SUPPRESSED

NAMED = 5  # rows or persons that are named in a sentence

SHORT, ASKED, POWER, CHANGED = "In short", "What was asked", "Could this audit notice?", "Was anything changed?"
DOUBTS = "Before anything else"
REQUEST, ROWS, PERSONS, ACTION = "The request as a whole", "Row by row", "Person by person", "What to do now"
IN_THE_ANSWER = (POWER, CHANGED, REQUEST, ROWS, PERSONS)  # of the paragraph; the others stand beside it

EVERY_REQUEST = {
    "not changed": "NOT FORGOTTEN. No model was changed.",
    "edited": "SUPPRESSED, in every request.",
    "suppressed": "SUPPRESSED, in every request.",
    "still in the model": "NOT FORGOTTEN, in every request.",
    "forgotten": "FORGOTTEN as a whole, in every request, as far as a model's answers can show it.",
    "cannot be told": "CANNOT TELL, for any request as a whole.",
}

Summary = tuple[tuple[str, str], ...]


class Named(NamedTuple):
    """What the rows of one request are called.

    Attributes:
      rows: [F] text; persons: names by number.
      is_request: whether they were marked as asked to be forgotten; else every row is judged as if it were.
    """

    rows: np.ndarray
    persons: tuple[str, ...]
    is_request: bool = True


def paragraph(summary: Summary, role: str) -> str:
    """Returns the sentences of a summary about a role as one paragraph, for files and logs."""
    lead = ["Exact retraining, audited as if it were a method."] if summary and role == RETRAINED else []
    return " ".join([*lead, *(text for question, text in summary if question in IN_THE_ANSWER)])


def single(found: Judgement, fdr: float, named: Named) -> Summary:
    """Returns the summary of one request.

    Args:
      found: the verdict.
      fdr: of each kind of false verdict.
      named: what its rows and persons are called.
    """
    shadows, population, retained = found.checks.sizes
    changed = verdict_sentences.changed(found, population + retained)
    pairs = [
        (SHORT, in_short(found, fdr)),
        (ASKED, f"{_asked(named)} Compared with {_count(shadows, 'model')} that never saw them, {population:,} rows "
                f"that no model saw, and {retained:,} rows that the model was allowed to keep."),
    ]  # fmt: skip
    if found.checks.refused:
        pairs += [(CHANGED, changed), (REQUEST, f"No verdict is given. {found.checks.refused}")]
        return tuple((question, text) for question, text in pairs if text)
    is_moved = not found.is_identical and not found.is_edited
    pairs += [
        (POWER, verdict_sentences.power(found)),
        (CHANGED, changed),
        (REQUEST, verdict_sentences.request(found.group, fdr) if is_moved else ""),
        (ROWS, verdict_sentences.counts(found)),
        (PERSONS, _persons(found, named)),
        (ACTION, action(found, fdr, named)),
    ]
    return tuple((question, text) for question, text in pairs if text)


def _asked(named: Named) -> str:
    count = _count(len(named.rows), "row")
    if named.is_request:
        return f"Are these {count}, which were asked to be forgotten, still in the model?"
    return (
        f"Are these {count} still in the model? No request was given (`forgotten`), so every row is judged as if it "
        "had been asked to be forgotten."
    )


def in_short(found: Judgement, fdr: float) -> str:
    """Returns the verdict on one request in one line, without any number."""
    group = found.group
    if found.checks.refused:
        return "NO VERDICT: these arrays do not allow one."
    if found.is_identical:
        return "NOT FORGOTTEN. The model was not changed at all."
    if found.is_edited:
        return "SUPPRESSED. Only the requested answers were edited; nothing shows that the model forgot."
    if group.is_suppressed:
        return "SUPPRESSED. The model answers these rows unlike any model that never saw them."
    some = bool((found.codes == NOT_FORGOTTEN).any())
    if group.models < 2:
        first = "Some rows are NOT FORGOTTEN. " if some else ""
        return f"{first}The request as a whole CANNOT be judged: fewer than two shadow models saw none of its rows."
    is_in, is_out = group.p_high <= fdr, group.p_in <= fdr
    if is_in:
        left = "Part of the request" if is_out else "The request"
        return f"NOT FORGOTTEN. {left} is still in the model."
    if is_out:
        if some:
            return "FORGOTTEN as a whole, but not every row: some are NOT FORGOTTEN."
        return "FORGOTTEN as a whole, as far as a model's answers can show it."
    return "CANNOT TELL for the request as a whole; some rows are NOT FORGOTTEN." if some else "CANNOT TELL."


def action(found: Judgement, fdr: float, named: Named) -> str:
    """Returns who should look at which rows, and what would help."""
    group, said = found.group, []
    is_in = found.is_identical or (group.models > 1 and group.p_high <= fdr)
    order = np.argsort(-found.tests.z, kind="stable")  # those that stand out most first
    caught = named.rows[order][found.codes[order] == NOT_FORGOTTEN]
    if found.is_identical:
        return "Have the rows unlearned, or the model retrained without them, and audit again."
    if len(caught):
        said.append(
            f"Look first at these rows: {_list(caught)}. A near-copy of such a row may have been kept. Have them "
            "unlearned again, or the model retrained without them, and audit again."
        )
    elif is_in:
        said.append(
            "No single row can be named, but together they are still there: have the request unlearned again, or the "
            "model retrained without it, and audit again."
        )
    if (found.codes == SUPPRESSED).any():
        said.append(
            "Ask whoever runs the model whether answers to these rows are filtered or edited; only the weights, or "
            "answers to slightly changed copies of the rows, can show what lies behind."
        )
    unsure = int((found.codes == CANNOT_TELL).sum())
    if unsure and group.p_in <= fdr and not is_in and not group.is_suppressed:
        said.append(
            "Rows marked CANNOT TELL are vouched for by the request as a whole only, not one by one; if one of them "
            "matters by itself, only the record of how the model was trained can tell."
        )
    elif unsure and group.models > 1 and not group.can_be_told:
        said.append("Rows as easy as these leave no trace in answers: ask for the record of how the model was trained.")
    elif unsure and (wanted := planning.lacking(*found.checks.sizes)):
        said.append(f"More could be told with {wanted} (--plan_shadows says which).")
    return " ".join(said)


def several(found: RoleVerdicts, fdr: float, role: str) -> Summary:
    """Returns the summary of all requests of a run, each to a model of its own."""
    each = found.judgements
    rows, count = int(found.requested.sum()), len(each)
    shadows, population, retained = each[0].checks.sizes
    retrained = " Exact retraining is audited here as if it were a method." if role == RETRAINED else ""
    asked = (
        f"Are the {rows:,} rows of {count} requests still in the {count} models that `{role}` made of them? Compared "
        f"with {_count(shadows, 'model')} that never saw them, {population:,} rows that no model saw, and the rows "
        f"that were kept.{retrained}"
    )
    states = _states(found, fdr)
    told = ", ".join(f"{number} {name}" for name, number in states.items() if number)
    numbers = ", ".join(f"{int((found.codes == code).sum()):,} {WORDS[code]}" for code in ORDER)
    pairs = [
        (SHORT, _short_of_many(states, count)),
        (ASKED, asked),
        (POWER, _power_of_many(found, rows, count)),
        (CHANGED, _changed_of_many(found, count)),
        (REQUEST, f"Requests as a whole: {told}."),
        (ROWS, f"Rows: {numbers}; of each kind at most about 1 in {round(1 / fdr)} is wrong."),
        (ACTION, "The table of requests says which are still in; verdicts.csv lists every row with its reason."),
    ]
    return tuple((question, text) for question, text in pairs if text)


def unjudged(signals: AuditSignals, obstacle: str) -> Summary:
    """Returns what can still be said where no row can be judged: whether anything was changed at all."""
    is_same, said = _changed_alone(signals)
    short = "NOT FORGOTTEN. The model was not changed." if is_same else "NO VERDICT on single rows, for want of arrays."
    return tuple((question, text) for question, text in (
        (SHORT, short), (CHANGED, said), (REQUEST, f"No verdict on single samples: {obstacle}"),
    ) if text)  # fmt: skip


def is_unchanged(signals: AuditSignals) -> bool:
    """Returns whether every model of the first audited role answers every row exactly as its original."""
    changes = signals.changes.get(signals.audited[0])
    if changes is None:
        return False
    others = 0.0 if changes.population is None else changes.population.max(initial=0)
    return bool(max(changes.target.max(initial=0), others) <= IDENTICAL_TO)


def _changed_alone(signals: AuditSignals) -> tuple[bool, str]:
    """Returns whether no requested row is answered otherwise than before, and what the changes say by themselves."""
    changes = signals.changes.get(signals.audited[0])
    if changes is None or signals.forgotten is None:
        return False, ""
    asked, target = signals.forgotten, changes.target
    others = (
        target[~asked] if changes.population is None else np.concatenate([target[~asked], changes.population.ravel()])
    )
    requested = target[asked]
    if requested.max(initial=0) <= IDENTICAL_TO:
        where = (
            "on every row" if others.max(initial=0) <= IDENTICAL_TO else "on the requested rows, though not on others"
        )
        return True, (
            f"The unlearned model answers exactly as the original, {where}: every requested row is NOT FORGOTTEN. That "
            "needs no shadow model."
        )
    if len(others) and others.max() <= IDENTICAL_TO:
        return False, (
            f"Only answers to requested rows differ from the original; all other {len(others):,} answers are exactly "
            "the same. Training cannot do that: the answers were edited or filtered."
        )
    rest = f", {np.median(others):.2g} on other rows" if len(others) else ""
    return False, (
        f"The model was changed (median of the largest change of a log-probability: {np.median(requested):.2g} on "
        f"requested rows{rest}). That does not say whether it forgot."
    )


def _persons(found: Judgement, named: Named) -> str:
    if not found.persons or found.is_edited:
        return ""
    still_in = np.array([named.persons[number] for number, (_, is_in) in found.persons.items() if is_in])
    names = f": {_list(still_in)}" if len(still_in) else ""
    return f"Persons still in the model: {len(still_in):,} of {len(found.persons):,}{names}."


def _power_of_many(found: RoleVerdicts, rows: int, count: int) -> str:
    caught = [one.power_not for one in found.judgements if one.power_not is not None]
    confirmed = [one.power_forgotten for one in found.judgements if one.power_forgotten is not None]
    if len(caught) < count:
        return ""
    text = (
        f"This audit can notice: of {rows:,} requested rows in {count} requests, {sum(caught):,} would have been "
        "caught if nothing had been forgotten"
    )
    if len(confirmed) == count:
        text += f", and about {int(sum(confirmed)):,} would have been confirmed if all had been forgotten exactly"
    text += "."
    if sum(caught) < rows / 10:
        text += ' So "not caught" says little about a single row; the requests as a whole say more.'
    return text


def _changed_of_many(found: RoleVerdicts, count: int) -> str:
    identical = sum(one.is_identical for one in found.judgements)
    edited = sum(one.is_edited for one in found.judgements)
    said = []
    if identical:
        said.append(f"In {identical} of {count} the unlearned model answers exactly as the original.")
    if edited:
        said.append(f"In {edited} of {count} only the answers to the requested rows were changed: edited or filtered.")
    return " ".join(said)


def state(found: Judgement, fdr: float) -> str:
    """Returns the state of one request, a name of EVERY_REQUEST."""
    if found.is_identical:
        return "not changed"
    if found.is_edited:
        return "edited"
    if found.group.is_suppressed:
        return "suppressed"
    if found.group.p_high <= fdr:
        return "still in the model"
    return "forgotten" if found.group.p_in <= fdr else "cannot be told"


def _states(found: RoleVerdicts, fdr: float) -> dict[str, int]:
    """Returns how many requests are in which state; every request is in one."""
    each = [state(one, fdr) for one in found.judgements]
    return {name: each.count(name) for name in EVERY_REQUEST}


def _short_of_many(states: dict[str, int], count: int) -> str:
    for name, text in EVERY_REQUEST.items():
        if states[name] == count:
            return text
    return f"It differs by request: {', '.join(f'{number} {name}' for name, number in states.items() if number)}."


def _list(names: np.ndarray) -> str:
    """Returns the first names in words."""
    shown = ", ".join(map(str, names[:NAMED]))
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED:,} more"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
