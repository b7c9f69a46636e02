"""Judges one request, and takes back what other shadow models would not have said.

Disjoint groups of the shadows give each row a verdict of their own. A row on which fewer than 80 % of them agree with
the verdict of all shadows together is CANNOT TELL: another audit of the same model might have said something else.
"""

import numpy as np

from jaxunlearn.metrics.verdict import judge, rows
from jaxunlearn.metrics.verdict.judge import Answers, Judgement
from jaxunlearn.metrics.verdict.rows import CANNOT_TELL

LEAST_AGREEMENT = 0.8
MOST_GROUPS = 5
FEWEST_SHADOWS, ENOUGH_SHADOWS = 2, 10  # in a group: for verdicts on rows at all; with which they are sharp


def judged(answers: Answers, fdr: float = 0.05, is_strict: bool = False) -> Judgement:
    """Returns `judge.judge` with the agreement of groups of shadows; rows on which they disagree are CANNOT TELL.

    What does not depend on shadows stays: identical or edited answers, and a request that is suppressed as a whole.
    `power_not` counts what agreement leaves. Source: reproducibility across audits, e.g. mean Jaccard index of flagged
    sets over runs; here by row and verdict.

    Args, Raises: see `judge.judge`.
    """
    answers = judge.check(answers)
    found = judge.judge(answers, fdr, is_strict)
    parts = [_of(answers, group) for group in groups(len(answers.shadows))]
    if found.checks.refused or not parts:
        return found
    each = [codes for part in parts if (codes := judge.row_codes(part, fdr, is_strict)) is not None]
    if len(each) < 2:
        return found
    rows_alone = rows.decide(found.tests, fdr)
    share = np.mean(np.stack(each) == rows_alone, axis=0)
    found = found._replace(power_not=_caught(answers, parts, fdr), groups=len(each))
    if found.is_identical or found.is_edited:
        return found._replace(agreement=np.ones(len(share)), disputed=np.zeros(len(share), bool))
    by_rows = found.codes == rows_alone
    share = np.where(by_rows, share, 1.0)
    disputed = by_rows & (share < LEAST_AGREEMENT) & (found.codes != CANNOT_TELL)
    codes = np.where(disputed, CANNOT_TELL, found.codes)
    return found._replace(codes=codes.astype(np.int8), agreement=share, disputed=disputed)


def groups(shadows: int) -> list[np.ndarray]:
    """Returns disjoint groups of equally many of the shadows, in their order; none where two are not possible.

    Two groups, and up to five where each keeps ten shadows: small groups disagree for want of power (untouched, hardest
    rows of Location-30, 20 shadows: 122 of 300 caught by two groups of ten, 82 by five of four).
    """
    if shadows < 2 * FEWEST_SHADOWS:
        return []
    count = min(MOST_GROUPS, max(2, shadows // ENOUGH_SHADOWS))
    size = shadows // count
    return [np.arange(number * size, (number + 1) * size) for number in range(count)]


def _of(answers: Answers, group: np.ndarray) -> Answers:
    saw = answers.shadow_saw
    return answers._replace(
        shadows=answers.shadows[group],
        population_shadows=answers.population_shadows[group],
        shadow_saw=None if saw is None else saw[group],
    )


def _caught(answers: Answers, parts: list[Answers], fdr: float) -> int | None:
    """Returns how many rows are caught when nothing was forgotten, by all shadows and by enough of the groups."""
    whole = judge.caught_untouched(answers, fdr)
    each = [judge.caught_untouched(part, fdr) for part in parts]
    if whole is None:
        return None
    share = np.mean([flags for flags in each if flags is not None], axis=0)
    return int((whole & (share >= LEAST_AGREEMENT)).sum())
