"""What an audit hands to a program: typed verdicts and scores, and the arrays and lists of its report."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxunlearn import errors
from jaxunlearn.analyses.audit.scoring.scoreboard import RoleScores, Scoreboard
from jaxunlearn.analyses.audit.verdicts import request_verdicts, verdict_sections
from jaxunlearn.analyses.audit.verdicts.request_verdicts import RequestVerdict, Verdict
from jaxunlearn.analyses.audit.verdicts.requests import RoleVerdicts
from jaxunlearn.analyses.audit.verdicts.verdict_sections import RowVerdict
from jaxunlearn.records import Finding
from jaxunlearn.report.cells import Table
from jaxunlearn.report.section import Report
from jaxunlearn.scores.results import ByScore

if TYPE_CHECKING:
    from jaxunlearn.analyses.audit.analysis import Audit

SAVED = ("p_high", "p_low", "p_in", "z", "trace")  # per row, in addition to its verdict


class ScoreResult(NamedTuple):
    """One score of the audited model.

    Attributes:
      values: [N] one number per row, higher = still looks trained on; [G, N] with G groups of shadow models, [G, R, N]
        of the R models of a run folder.
      auc: of retained against requested rows; None where no request is known.
      metrics: all metrics by name, `auc` included; empty where no request is known.
      gain: its AUC minus that of the plain confidence (of texts: the plain loss); None for that one.
    """

    values: np.ndarray
    auc: Finding | None
    metrics: Mapping[str, Finding]
    gain: Finding | None


class AuditResult(NamedTuple):
    """Everything that an audit says of one audited model, or of the models of one method, as values.

    Attributes:
      verdict: on the request; on all of them, `Verdict.DIFFERS` if they differ.
      requests: one record per request; empty if the protocol judges none.
      rows: one record per requested row.
      scores: name -> ScoreResult, best AUC first; `scores.skipped` says why others are missing.
      others: the same of other models that were judged: `retrained`, `original` (nothing unlearned), other methods.
    """

    verdict: Verdict
    requests: tuple[RequestVerdict, ...]
    rows: tuple[RowVerdict, ...]
    scores: Mapping[str, ScoreResult]
    others: "Mapping[str, AuditResult]" = {}

    def __repr__(self) -> str:
        """Returns one line: rows and values would fill pages."""
        counts = f"{len(self.requests)} request(s), {len(self.rows)} row(s)"
        return f"<AuditResult {self.verdict}: {counts}, scores {', '.join(self.scores) or 'none'}>"


class AuditReport(Report):
    """The report of an audit: all that `Report` has, and the results as values.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import analyses
      >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], np.float32)
      >>> evidence = {"unlearned": logits, "original": logits, "labels": np.array([0, 1, 0])}
      >>> report = analyses.audit(evidence, [1], scores=("confidence",))
      >>> report.verdict == "NOT FORGOTTEN", report.request.state
      (True, 'not changed')
      >>> report.scores["confidence"].values.round(2).tolist()
      [0.88, 0.73, 0.95]
    """

    __slots__ = ()

    @property
    def verdict(self) -> Verdict:
        """The verdict on the request; on several requests, the one that they share, or `Verdict.DIFFERS`."""
        verdict: Verdict = self.result.verdict
        return verdict

    @property
    def in_short(self) -> str:
        """The verdict in one line."""
        return self.summary[0][1] if self.summary else self.answer

    @property
    def requests(self) -> tuple[RequestVerdict, ...]:
        """One record per request."""
        requests: tuple[RequestVerdict, ...] = self.result.requests
        return requests

    @property
    def request(self) -> RequestVerdict:
        """The record of the only request; raises a DataError if there is none, or several."""
        if len(self.requests) != 1:
            raise errors.DataError(
                f"this audit judges {len(self.requests)} requests: report.requests has a record of each."
            )
        return self.requests[0]

    @property
    def rows(self) -> tuple[RowVerdict, ...]:
        """One record per requested row."""
        rows: tuple[RowVerdict, ...] = self.result.rows
        return rows

    @property
    def scores(self) -> Mapping[str, ScoreResult]:
        """Name -> ScoreResult."""
        scores: Mapping[str, ScoreResult] = self.result.scores
        return scores


def result(audit: "Audit", fdr: float) -> AuditResult:
    """Returns the results as values; `fdr`: of each kind of verdict."""
    signals, decisions = audit.signals, audit.decisions
    verdicts = {} if decisions is None else decisions.verdicts
    first, *others = dict.fromkeys((*signals.audited, *verdicts, *audit.scored))

    def of_role(role: str) -> AuditResult:
        if role in verdicts:
            requests = request_verdicts.judged(verdicts[role], role, fdr)
            rows = tuple(verdict_sections.listed_rows(verdicts[role], signals))
        else:
            is_obstructed = decisions is not None and role == first
            requests = request_verdicts.unjudged(signals, decisions.obstacle) if decisions and is_obstructed else ()
            rows = ()
        scores = _scores(audit.scored[role], audit.boards.get(role), signals.is_run) if role in audit.scored else {}
        return AuditResult(request_verdicts.together(requests), requests, rows, scores)

    return of_role(first)._replace(others={role: of_role(role) for role in others})


def _scores(scored: RoleScores, board: Scoreboard | None, is_run: bool) -> ByScore:
    table, gains = ({}, {}) if board is None else (board.table, board.gains)
    names = [*table, *(name for name in scored.values if name not in table)]
    results = {}
    for name in names:
        metrics = table.get(name, {})
        values = scored.values[name] if is_run else _of_arrays(scored.values[name])
        results[name] = ScoreResult(values, metrics.get("auc"), metrics, gains.get(name))
    return ByScore(results, scored.skipped)


def _of_arrays(lines: np.ndarray) -> np.ndarray:
    """Returns the values [N] of the one model of a user's arrays, [G, N] if there are several groups of shadows."""
    return lines[0, 0] if len(lines) == 1 else lines[:, 0]


def arrays(audit: "Audit") -> dict[str, dict[str, np.ndarray]]:
    """Returns per-sample results by file name."""
    signals = audit.signals
    facts = {**signals.names, "labels": signals.labels}
    files: dict[str, dict[str, np.ndarray]] = {}
    scored = {**audit.scored, **{f"{signals.audited[0]}_{source}": board.scored
                                 for source, board in audit.sources.items()}}  # fmt: skip
    for role, scored_role in scored.items():
        if signals.is_run:
            assert signals.forgotten is not None
            files[f"scores/binui_{role}.npz"] = {**facts, "forgotten": signals.forgotten, **scored_role.values}
        else:
            values = {name: _of_arrays(lines) for name, lines in scored_role.values.items()}
            files["scores.npz"] = {**signals.names, **values}
    for role, role_verdicts in _verdicts(audit).items():
        columns = {"verdict": role_verdicts.codes, **{name: role_verdicts.tested(name) for name in SAVED}}
        if signals.is_run:
            files[f"scores/verdicts_{role}.npz"] = {**signals.names, **columns}
        elif role == signals.audited[0]:
            files["verdicts.npz"] = {**signals.names, **{name: lines[0] for name, lines in columns.items()}}
    return files


def listed(audit: "Audit", values: AuditResult) -> dict[str, Table]:
    """Tabulates every request, and every requested row, with verdict and reason; by model if there are several."""
    first, *others = audit.signals.audited
    if first not in _verdicts(audit):
        return {}
    results = {first: values, **{role: values.others[role] for role in others}}
    requests, rows = [], []
    for role, role_values in results.items():
        model = (role,) if others else ()
        requests += [(*model, *("" if value is None else value for value in line)) for line in role_values.requests]
        rows += [(*model, *line) if model else line for line in role_values.rows]
    column = ("model",) if others else ()
    return {
        "requests.csv": Table("", "", (*column, *RequestVerdict._fields), tuple(requests)),
        "verdicts.csv": Table("", "", (*column, *verdict_sections.COLUMNS), tuple(rows)),
    }


def _verdicts(audit: "Audit") -> dict[str, RoleVerdicts]:
    return {} if audit.decisions is None else audit.decisions.verdicts
