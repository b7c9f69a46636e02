"""Tries two ways out of what the procedure does not solve; study code, no part of the procedure.

`with_other_retrains`: requests chosen by the original's own answers. Exact retrains of OTHER requests of the same
original show how high such a model answers a row that the original answers so high, since both share the rest of the
rows: answer = alpha + beta * (the original's answer), both standardised by the OUT model. What is left over is compared
with what those retrains leave.

`with_references`: models trained with and without each row show what training does to that row itself, instead of what
it does to retained rows like it.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxunlearn.metrics.inference import decision
from jaxunlearn.metrics.verdict import judge, request, rows
from jaxunlearn.metrics.verdict.out_model import Moments, moments, robust, soft
from jaxunlearn.metrics.verdict.rows import FORGOTTEN, SUPPRESSED
from tests.scenarios import study
from tests.scenarios.models import Arrays
from tests.scenarios.study import LEVEL, Line
from tests.scenarios.worlds import Family


class OtherRetrains(NamedTuple):
    """[n] per audit: whether the request is found (usual test, unguarded, and new); false and all rows NOT (both)."""

    usual: np.ndarray
    unguarded: np.ndarray
    new: np.ndarray
    usual_wrong: np.ndarray
    usual_called: np.ndarray
    new_wrong: np.ndarray
    new_called: np.ndarray


def _standardised(family: Family, audited: np.ndarray, shadows: np.ndarray) -> np.ndarray:
    """Returns [N] answers on the user's rows, in deviations of the population's."""
    n = family.rows
    found = rows.signal(soft(audited[:n]), soft(shadows[:, :n]), soft(audited[n:]), soft(shadows[:, n:]))
    return found.z / robust(found.population_z)


def with_other_retrains(family: Family, made: Arrays, kind: str, shadows: int = 20) -> dict[str, OtherRetrains]:
    """Audits requests of one kind with the null of other requests' exact retrains, and with the usual one."""
    line, found = Line(kind, shadows), {}
    for world in range(len(made["original"])):
        used = made["shadow"][world][:shadows].astype(np.float64)
        original = made["original"][world, 0].astype(np.float64)
        asked = made[f"{kind}/requested"][world]
        before = _standardised(family, original, used)
        others = made["others/requested"][world]
        pairs = [(before[places], _standardised(family, one.astype(np.float64), used)[places])
                 for places, one in zip(others, made["others"][world], strict=True)]  # fmt: skip
        whole = _line(pairs)
        for name, audited in study.audited_models(family, made, world, line).items():
            for answers, contained in audited:
                usual = judge.judge(study.answers_of(family, made, world, line, answers, original), LEVEL)
                after = _standardised(family, answers, used)[asked]
                left = after - whole[0] - whole[1] * before[asked]
                p_high = _group(pairs, before[asked], after, usual)
                null = np.concatenate([y - whole[0] - whole[1] * x for x, y in pairs])
                p = (1 + (null >= left[:, None]).sum(1)) / (len(null) + 1)
                is_not = decision.benjamini_hochberg(p, LEVEL).rejected
                group, was_not = usual.group, usual.codes == rows.NOT_FORGOTTEN
                t = stats.t(shadows - 1).sf((group.mean - request.MARGIN_HIGH) / group.error)
                found.setdefault(name, []).append([
                    group.p_high <= LEVEL, group.can_be_told and t <= LEVEL, p_high <= LEVEL,
                    (was_not & ~contained).sum(), was_not.sum(), (is_not & ~contained).sum(), is_not.sum(),
                ])  # fmt: skip
    return {name: OtherRetrains(*map(np.asarray, zip(*audits, strict=True))) for name, audits in found.items()}


def _line(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Returns alpha and beta by least squares."""
    x, y = (np.concatenate(values) for values in zip(*pairs, strict=True))
    beta = float(np.mean((x - x.mean()) * (y - y.mean())) / max(x.var(), 1e-12))
    return float(y.mean() - beta * x.mean()), beta


def _group(pairs: list, before: np.ndarray, after: np.ndarray, usual: judge.Judgement) -> float:
    """Returns the p-value of "not higher than exact retrains of other requests", with the margin of the usual test."""
    count = len(pairs)
    without = [_line(pairs[:i] + pairs[i + 1 :]) for i in range(count)]
    null = np.array([np.mean(y - a - b * x) for (x, y), (a, b) in zip(pairs, without, strict=True)])
    alpha, beta = _line(pairs)
    excess = np.mean(after - alpha - beta * before) - null.mean()
    predicted = np.array([a + b * before.mean() for a, b in without])
    extrapolation = (count - 1) / count * np.sum((predicted - predicted.mean()) ** 2)
    least = request.LEAST_ERROR[0] / np.sqrt(len(before))
    error = np.sqrt(max(null.std(ddof=1), least) ** 2 * (1 + 1 / count) + extrapolation)
    if usual.group.dose < request.MARGIN_HIGH + 2 * error:
        return 1.0
    return float(stats.t(count - 1).sf((excess - request.MARGIN_HIGH) / error))


class References(NamedTuple):
    """[n] per audit: rows FORGOTTEN, wrongly so, SUPPRESSED; usual procedure, then with models that saw each row."""

    usual: np.ndarray
    usual_wrong: np.ndarray
    usual_suppressed: np.ndarray
    new: np.ndarray
    new_wrong: np.ndarray
    new_suppressed: np.ndarray


def with_references(family: Family, made: Arrays, kind: str, shadows: int = 20) -> dict[str, References]:
    """Audits requests of one kind with p_in from models that were trained with and without each row."""
    line, found, n = Line(kind, shadows, edits=True, moved=True), {}, family.rows
    for world in range(len(made["original"])):
        original = made["original"][world, 0].astype(np.float64)
        reference, saw = made["reference"][world].astype(np.float64), made["reference/saw"][world]
        inside, outside = moments(soft(reference[:, :n]), saw), moments(soft(reference[:, :n]), ~saw)
        asked = made[f"{kind}/requested"][world]
        rest = np.setdiff1d(np.arange(n), asked)
        deviation = _shrunk(inside, rest)
        for name, audited in study.audited_models(family, made, world, line).items():
            for answers, contained in audited:
                usual = judge.judge(study.answers_of(family, made, world, line, answers, original), LEVEL)
                z = (soft(answers[:n]) - inside.mean) / deviation
                p_in = (1 + (z[rest] <= z[asked, None]).sum(1)) / (len(rest) + 1)
                nearer = soft(answers[asked]) < (inside.mean + outside.mean)[asked] / 2
                codes = rows.decide(usual.tests._replace(p_in=p_in, nearer=nearer), LEVEL)
                if usual.group.is_suppressed:
                    codes = np.where(codes == FORGOTTEN, SUPPRESSED, codes)
                if usual.is_edited or usual.is_identical:
                    codes = usual.codes
                line_of = []
                for verdicts in (usual.codes, codes):
                    forgotten = verdicts == FORGOTTEN
                    line_of += [forgotten.sum(), (forgotten & contained).sum(), (verdicts == SUPPRESSED).sum()]
                found.setdefault(name, []).append(line_of)
    return {name: References(*map(np.asarray, zip(*audits, strict=True))) for name, audits in found.items()}


def _shrunk(inside: Moments, rest: np.ndarray) -> np.ndarray:
    """Returns the [N] deviation between models that saw a row, a third of it the typical variance."""
    typical = max(float(inside.variance[rest].mean()), 1e-12)
    return np.sqrt((8 * typical + inside.models * inside.variance) / (8 + inside.models))
