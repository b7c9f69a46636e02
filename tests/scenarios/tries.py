"""Two attempts at problems that the procedure does not solve; study code, not part of the procedure.

`with_other_retrains`: requests chosen by the original's own answers. Exact retrains of OTHER requests of the same
original share its remaining rows, so they show how high a retrained model answers a row that the original answers
high: answer = alpha + beta * (the original's answer), both standardised by the OUT model. Residuals of the audited
model are compared with those of these retrains.

`with_references`: models trained with and without each row show the effect of training on that row itself, instead of
on similar retained rows.
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
    signal = rows.signal(soft(audited[:n]), soft(shadows[:, :n]), soft(audited[n:]), soft(shadows[:, n:]))
    return signal.z / robust(signal.population_z)


def with_other_retrains(family: Family, arrays: Arrays, kind: str, shadows: int = 20) -> dict[str, OtherRetrains]:
    """Audits requests of one kind with the null of other requests' exact retrains, and with the usual one."""
    line, audits_of = Line(kind, shadows), {}
    for world in range(len(arrays["original"])):
        shadow_answers = arrays["shadow"][world][:shadows].astype(np.float64)
        original = arrays["original"][world, 0].astype(np.float64)
        requested = arrays[f"{kind}/requested"][world]
        before = _standardised(family, original, shadow_answers)
        other_requests = arrays["others/requested"][world]
        retrains = (
            _standardised(family, retrain.astype(np.float64), shadow_answers) for retrain in arrays["others"][world]
        )
        pairs = [(before[indices], after[indices]) for indices, after in zip(other_requests, retrains, strict=True)]
        coefficients = _line(pairs)
        for name, audited in study.audited_models(family, arrays, world, line).items():
            for answers, contained in audited:
                usual = judge.judge(study.answers_of(family, arrays, world, line, answers, original), LEVEL)
                after = _standardised(family, answers, shadow_answers)[requested]
                residual = after - coefficients[0] - coefficients[1] * before[requested]
                p_high = _group(pairs, before[requested], after, usual)
                null = np.concatenate([y - coefficients[0] - coefficients[1] * x for x, y in pairs])
                p = (1 + (null >= residual[:, None]).sum(1)) / (len(null) + 1)
                is_not = decision.benjamini_hochberg(p, LEVEL).rejected
                group, was_not = usual.group, usual.codes == rows.NOT_FORGOTTEN
                t = stats.t(shadows - 1).sf((group.mean - request.MARGIN_HIGH) / group.error)
                audits_of.setdefault(name, []).append([
                    group.p_high <= LEVEL, group.is_detectable and t <= LEVEL, p_high <= LEVEL,
                    (was_not & ~contained).sum(), was_not.sum(), (is_not & ~contained).sum(), is_not.sum(),
                ])  # fmt: skip
    return {name: OtherRetrains(*map(np.asarray, zip(*audits, strict=True))) for name, audits in audits_of.items()}


def _line(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Returns alpha and beta by least squares."""
    x, y = (np.concatenate(values) for values in zip(*pairs, strict=True))
    beta = float(np.mean((x - x.mean()) * (y - y.mean())) / max(x.var(), 1e-12))
    return float(y.mean() - beta * x.mean()), beta


def _group(pairs: list, before: np.ndarray, after: np.ndarray, usual: judge.Judgement) -> float:
    """Returns the p-value of "not higher than exact retrains of other requests", with the margin of the usual test."""
    count = len(pairs)
    left_out_lines = [_line(pairs[:i] + pairs[i + 1 :]) for i in range(count)]
    null = np.array([np.mean(y - a - b * x) for (x, y), (a, b) in zip(pairs, left_out_lines, strict=True)])
    alpha, beta = _line(pairs)
    excess = np.mean(after - alpha - beta * before) - null.mean()
    predicted = np.array([a + b * before.mean() for a, b in left_out_lines])
    extrapolation = (count - 1) / count * np.sum((predicted - predicted.mean()) ** 2)
    min_error = request.LEAST_ERROR[0] / np.sqrt(len(before))
    error = np.sqrt(max(null.std(ddof=1), min_error) ** 2 * (1 + 1 / count) + extrapolation)
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


def with_references(family: Family, arrays: Arrays, kind: str, shadows: int = 20) -> dict[str, References]:
    """Audits requests of one kind with p_in from models that were trained with and without each row."""
    line, audits_of, n = Line(kind, shadows, edits=True, moved=True), {}, family.rows
    for world in range(len(arrays["original"])):
        original = arrays["original"][world, 0].astype(np.float64)
        reference, is_member = arrays["reference"][world].astype(np.float64), arrays["reference/saw"][world]
        inside, outside = moments(soft(reference[:, :n]), is_member), moments(soft(reference[:, :n]), ~is_member)
        requested = arrays[f"{kind}/requested"][world]
        retained = np.setdiff1d(np.arange(n), requested)
        deviation = _shrunk(inside, retained)
        for name, audited in study.audited_models(family, arrays, world, line).items():
            for answers, contained in audited:
                usual = judge.judge(study.answers_of(family, arrays, world, line, answers, original), LEVEL)
                z = (soft(answers[:n]) - inside.mean) / deviation
                p_in = (1 + (z[retained] <= z[requested, None]).sum(1)) / (len(retained) + 1)
                nearer = soft(answers[requested]) < (inside.mean + outside.mean)[requested] / 2
                codes = rows.decide(usual.tests._replace(p_in=p_in, nearer=nearer), LEVEL)
                if usual.group.is_suppressed:
                    codes = np.where(codes == FORGOTTEN, SUPPRESSED, codes)
                if usual.is_edited or usual.is_identical:
                    codes = usual.codes
                counts = []
                for verdicts in (usual.codes, codes):
                    forgotten = verdicts == FORGOTTEN
                    counts += [forgotten.sum(), (forgotten & contained).sum(), (verdicts == SUPPRESSED).sum()]
                audits_of.setdefault(name, []).append(counts)
    return {name: References(*map(np.asarray, zip(*audits, strict=True))) for name, audits in audits_of.items()}


def _shrunk(inside: Moments, retained: np.ndarray) -> np.ndarray:
    """Returns the [N] deviation between models that saw a row, a third of it the typical variance."""
    typical = max(float(inside.variance[retained].mean()), 1e-12)
    return np.sqrt((8 * typical + inside.models * inside.variance) / (8 + inside.models))
