"""One line of the study: verdicts on many requests of one kind, compared with the truth."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxunlearn.metrics.inference import intervals
from jaxunlearn.metrics.inference.intervals import Interval
from jaxunlearn.metrics.verdict import agreement
from jaxunlearn.metrics.verdict.judge import Answers, Judgement
from jaxunlearn.metrics.verdict.rows import FORGOTTEN, NOT_FORGOTTEN, SUPPRESSED
from tests.scenarios import models
from tests.scenarios.models import EDITS, Arrays
from tests.scenarios.worlds import Family, generator

LEVEL = 0.05
CONTAINED = ("untouched", "again", "noised")
OPEN, HIDDEN = (tuple(f"{how}, {way}" for how in EDITS) for way in ("open", "hidden"))


class Line(NamedTuple):
    """One line: kind of requests, shadows, and numbers of rows.

    Attributes:
      kind: of the requests, of `requests.KINDS`.
      shadows: their number; source: name of their array from `models.prepare`.
      population, retained: numbers of rows that the audit may use; 0 = all.
      knows_saw: gives `shadow_saw` of own shadows.
      edits, moved: whether edits of answers, and models that were moved on, are audited, too.
      is_strict: of `agreement.judged`.
    """

    kind: str
    shadows: int = 20
    source: str = "shadow"
    population: int = 0
    retained: int = 0
    knows_saw: bool = False
    edits: bool = False
    moved: bool = False
    is_strict: bool = False


class Facts(NamedTuple):
    """Results of n audits of one kind of model; [n] each, one per request (two for two exact retrains).

    Attributes:
      wrongly_not, wrongly_forgotten: rows called NOT FORGOTTEN that were forgotten; FORGOTTEN that are trained on.
      not_, forgotten, suppressed: rows so called.
      rows: of the request.
      high: share of p_high <= .05 among rows that were forgotten; NaN if there are none.
      g_high, g_in: whether the group's p-values are <= .05.
      kept: [n, 3].
      power_not, power_forgotten: predicted power; NaN if unknown.
      is_chosen, is_identical, is_edited, group_suppressed, refused: bool.
    """

    wrongly_not: np.ndarray
    wrongly_forgotten: np.ndarray
    not_: np.ndarray
    forgotten: np.ndarray
    suppressed: np.ndarray
    rows: np.ndarray
    high: np.ndarray
    g_high: np.ndarray
    g_in: np.ndarray
    kept: np.ndarray
    power_not: np.ndarray
    power_forgotten: np.ndarray
    is_chosen: np.ndarray
    is_identical: np.ndarray
    is_edited: np.ndarray
    group_suppressed: np.ndarray
    refused: np.ndarray


def answers_of(
    family: Family, arrays: Arrays, world: int, line: Line, audited: np.ndarray, original: np.ndarray
) -> Answers:  # fmt: skip
    """Returns the inputs of the procedure for one audited model, [A] answers, of one request."""
    requested = arrays[f"{line.kind}/requested"][world]
    shadows = arrays[line.source][world][: line.shadows]
    retained = np.setdiff1d(np.arange(family.rows), requested)
    if line.retained:
        retained = generator(family.name, "retained", world).permutation(retained)[: line.retained]
    rows = np.concatenate([requested, retained])
    population = np.arange(family.rows, family.rows + (line.population or family.population))
    shadow_saw = arrays[f"{line.source}_saw"][world][: line.shadows, rows] if line.knows_saw else None
    return Answers(
        audited[rows], np.arange(len(rows)) < len(requested), shadows[:, rows], audited[population],
        shadows[:, population], original[rows], original[population], shadow_saw,
    )  # fmt: skip


def audited_models(
    family: Family, arrays: Arrays, world: int, line: Line
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Returns name -> models of one request, each as ([A] answers, [F] bool: the rows that it is trained on)."""
    kind, requested = line.kind, arrays[f"{line.kind}/requested"][world]
    prefix = "copies/" if kind == "copies" else ""
    original = arrays[f"{prefix}original"][world, 0].astype(np.float64)
    shadows = arrays[line.source][world][: line.shadows].astype(np.float64)
    deviation = models.typical_deviation(arrays["judge"][world][:, family.rows :].astype(np.float64))
    all_contained, none_contained = np.ones(len(requested), bool), np.zeros(len(requested), bool)
    names = family.name, kind, world
    models_of = {
        "untouched": [(models.untouched(original, *names), all_contained)],
        "again": [(arrays[f"{prefix}again"][world, 0].astype(np.float64), all_contained)],
        "noised": [(models.noised(original, deviation, *names), all_contained)],
        "retrained": [
            (retrained.astype(np.float64), none_contained) for retrained in arrays[f"{kind}/retrained"][world]
        ],
        "half": [(arrays[f"{kind}/half"][world, 0].astype(np.float64), arrays[f"{kind}/half_kept"][world])],
    }
    if line.moved:
        for name in ("finetuned", "ascended"):
            models_of[name] = [(arrays[f"{kind}/{name}"][world, 0].astype(np.float64), all_contained)]
    if line.edits:
        models_of["identical"] = [(original, all_contained)]
        for how in EDITS:
            for name, is_hidden in ((f"{how}, open", False), (f"{how}, hidden", True)):
                answers = models.edited(original, requested, shadows, how, is_hidden, deviation, *names)
                models_of[name] = [(answers, all_contained)]
    return models_of


def run(family: Family, arrays: Arrays, line: Line, only: Sequence[str] = ()) -> dict[str, Facts]:
    """Audits every model of every request of a line.

    Args:
      family: of the worlds.
      made: from `models.prepare`.
      line: what is audited with what.
      only: names of `audited_models`; empty = all.

    Returns:
      Name -> facts.
    """
    collected: dict[str, list[list]] = {}
    prefix = "copies/" if line.kind == "copies" else ""
    for world in range(len(arrays["original"])):
        original = arrays[f"{prefix}original"][world, 0].astype(np.float64)
        for name, audited in audited_models(family, arrays, world, line).items():
            if only and name not in only:
                continue
            for answers, contained in audited:
                request_answers = answers_of(family, arrays, world, line, answers, original)
                judgement = agreement.judge_with_agreement(request_answers, LEVEL, line.is_strict)
                collected.setdefault(name, []).append(facts_of(judgement, contained))
    return {name: Facts(*map(np.asarray, zip(*audits, strict=True))) for name, audits in collected.items()}


def facts_of(judgement: Judgement, contained: np.ndarray) -> list:
    """Returns one line of `Facts`."""
    codes, group = judgement.codes, judgement.group
    high = np.mean(judgement.tests.p_high[~contained] <= LEVEL) if not contained.all() else np.nan
    return [
        int(((codes == NOT_FORGOTTEN) & ~contained).sum()), int(((codes == FORGOTTEN) & contained).sum()),
        int((codes == NOT_FORGOTTEN).sum()), int((codes == FORGOTTEN).sum()), int((codes == SUPPRESSED).sum()),
        len(codes), high, group.p_high <= LEVEL, group.p_in <= LEVEL, group.trace_left,
        np.nan if judgement.power_not is None else judgement.power_not,
        np.nan if judgement.power_forgotten is None else judgement.power_forgotten,
        judgement.checks.is_selected, judgement.is_identical, judgement.is_edited, group.is_suppressed,
        bool(judgement.checks.refusal),
    ]  # fmt: skip


def joined(facts: dict[str, Facts], names: Sequence[str]) -> Facts:
    """Returns the facts of several kinds of models together."""
    present = [facts[name] for name in names if name in facts]
    return Facts(*(np.concatenate(arrays) for arrays in zip(*present, strict=True)))


def per_request(values: np.ndarray, requests: int) -> np.ndarray:
    """Returns [requests] means of values [k * requests], of one or several models of each request.

    `run` goes through the models of a request one after another; joined kinds follow each other.
    """
    if len(values) == requests:
        return values.astype(np.float64)
    return values.astype(np.float64).reshape(requests, -1).mean(1)


def mean(values: np.ndarray) -> Interval:
    """Returns the mean over requests with Student's t interval."""
    estimate = intervals.mean(values, metric="mean", of="requests")
    return Interval(estimate.value, estimate.low, estimate.high)


def share(flags: np.ndarray) -> Interval:
    """Returns the share of requests with Clopper and Pearson's interval."""
    return intervals.clopper_pearson(float(flags.sum()), len(flags))


def false_share(facts: Facts, name: str) -> np.ndarray:
    """Returns [n] false discovery proportions of "not" or "forgotten"; 0 where nothing is so called."""
    num_wrong, num_called = (
        (facts.wrongly_not, facts.not_) if name == "not" else (facts.wrongly_forgotten, facts.forgotten)
    )
    return num_wrong / np.maximum(num_called, 1)


def covered(facts: Facts, truth: float) -> np.ndarray:
    """Returns bool of the audits with an interval of `kept`: whether it holds the truth."""
    low, high = facts.kept[:, 1], facts.kept[:, 2]
    has_interval = np.isfinite(low)
    return ((low <= truth) & (truth <= high))[has_interval]
