"""Runs one line of the study: the verdicts on many requests of one kind, counted against the truth."""

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
    """One line: which requests, which shadows, how much of everything.

    Attributes:
      kind: of the requests, of `requests.KINDS`.
      shadows: how many; source: which, an array's name of `models.prepare`.
      population, retained: how many rows are given; 0 = all.
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
    """What came out of n audits of one kind of model; [n] each, one per request (two: of two exact retrains).

    Attributes:
      wrongly_not, wrongly_forgotten: rows called NOT FORGOTTEN that were forgotten; FORGOTTEN that are trained on.
      not_, forgotten, suppressed: rows so called.
      rows: of the request.
      high: share of p_high <= .05 among rows that were forgotten; NaN where there are none.
      g_high, g_in: whether the group's p-values are <= .05.
      kept: [n, 3].
      power_not, power_forgotten: what was promised; NaN where it is not known.
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
    family: Family, made: Arrays, world: int, line: Line, audited: np.ndarray, original: np.ndarray
) -> Answers:  # fmt: skip
    """Returns what the procedure is given for one audited model, [A] answers, of one request."""
    asked = made[f"{line.kind}/requested"][world]
    shadows = made[line.source][world][: line.shadows]
    rest = np.setdiff1d(np.arange(family.rows), asked)
    if line.retained:
        rest = generator(family.name, "retained", world).permutation(rest)[: line.retained]
    rows = np.concatenate([asked, rest])
    population = np.arange(family.rows, family.rows + (line.population or family.population))
    saw = made[f"{line.source}_saw"][world][: line.shadows, rows] if line.knows_saw else None
    return Answers(
        audited[rows], np.arange(len(rows)) < len(asked), shadows[:, rows], audited[population],
        shadows[:, population], original[rows], original[population], saw,
    )  # fmt: skip


def audited_models(
    family: Family, made: Arrays, world: int, line: Line
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Returns name -> models of one request, each as ([A] answers, [F] bool: the rows that it is trained on)."""
    kind, asked = line.kind, made[f"{line.kind}/requested"][world]
    own = "copies/" if kind == "copies" else ""
    original = made[f"{own}original"][world, 0].astype(np.float64)
    shadows = made[line.source][world][: line.shadows].astype(np.float64)
    deviation = models.typical_deviation(made["judge"][world][:, family.rows :].astype(np.float64))
    every, none = np.ones(len(asked), bool), np.zeros(len(asked), bool)
    names = family.name, kind, world
    found = {
        "untouched": [(models.untouched(original, *names), every)],
        "again": [(made[f"{own}again"][world, 0].astype(np.float64), every)],
        "noised": [(models.noised(original, deviation, *names), every)],
        "retrained": [(one.astype(np.float64), none) for one in made[f"{kind}/retrained"][world]],
        "half": [(made[f"{kind}/half"][world, 0].astype(np.float64), made[f"{kind}/half_kept"][world])],
    }
    if line.moved:
        for name in ("finetuned", "ascended"):
            found[name] = [(made[f"{kind}/{name}"][world, 0].astype(np.float64), every)]
    if line.edits:
        found["identical"] = [(original, every)]
        for how in EDITS:
            for name, is_hidden in ((f"{how}, open", False), (f"{how}, hidden", True)):
                answers = models.edited(original, asked, shadows, how, is_hidden, deviation, *names)
                found[name] = [(answers, every)]
    return found


def run(family: Family, made: Arrays, line: Line, only: Sequence[str] = ()) -> dict[str, Facts]:
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
    own = "copies/" if line.kind == "copies" else ""
    for world in range(len(made["original"])):
        original = made[f"{own}original"][world, 0].astype(np.float64)
        for name, audited in audited_models(family, made, world, line).items():
            if only and name not in only:
                continue
            for answers, contained in audited:
                given = answers_of(family, made, world, line, answers, original)
                found = agreement.judged(given, LEVEL, line.is_strict)
                collected.setdefault(name, []).append(facts_of(found, contained))
    return {name: Facts(*map(np.asarray, zip(*audits, strict=True))) for name, audits in collected.items()}


def facts_of(found: Judgement, contained: np.ndarray) -> list:
    """Returns one line of `Facts`."""
    codes, group = found.codes, found.group
    high = np.mean(found.tests.p_high[~contained] <= LEVEL) if not contained.all() else np.nan
    return [
        int(((codes == NOT_FORGOTTEN) & ~contained).sum()), int(((codes == FORGOTTEN) & contained).sum()),
        int((codes == NOT_FORGOTTEN).sum()), int((codes == FORGOTTEN).sum()), int((codes == SUPPRESSED).sum()),
        len(codes), high, group.p_high <= LEVEL, group.p_in <= LEVEL, group.kept,
        np.nan if found.power_not is None else found.power_not,
        np.nan if found.power_forgotten is None else found.power_forgotten,
        found.checks.is_chosen, found.is_identical, found.is_edited, group.is_suppressed, bool(found.checks.refused),
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
    found = intervals.mean(values, metric="mean", of="requests")
    return Interval(found.value, found.low, found.high)


def share(flags: np.ndarray) -> Interval:
    """Returns the share of requests with Clopper and Pearson's interval."""
    return intervals.clopper_pearson(float(flags.sum()), len(flags))


def false_share(facts: Facts, name: str) -> np.ndarray:
    """Returns [n] false discovery proportions of "not" or "forgotten"; 0 where nothing is so called."""
    wrong, called = (facts.wrongly_not, facts.not_) if name == "not" else (facts.wrongly_forgotten, facts.forgotten)
    return wrong / np.maximum(called, 1)


def covered(facts: Facts, truth: float) -> np.ndarray:
    """Returns bool of the audits with an interval of `kept`: whether it holds the truth."""
    low, high = facts.kept[:, 1], facts.kept[:, 2]
    known = np.isfinite(low)
    return ((low <= truth) & (truth <= high))[known]
