"""Judges one request, and withdraws verdicts that other shadow models would not have given.

Disjoint groups of the shadows each judge every row. A row is CANNOT TELL if fewer than 80 % of them agree with the
verdict of all shadows together: another audit of the same model might have given another verdict.
"""

import numpy as np

from jaxunlearn.metrics.verdict import judge, rows
from jaxunlearn.metrics.verdict.judge import Answers, Judgement
from jaxunlearn.metrics.verdict.rows import CANNOT_TELL

LEAST_AGREEMENT = 0.8
MOST_GROUPS = 5
FEWEST_SHADOWS, ENOUGH_SHADOWS = 2, 10  # per group: minimum for verdicts on rows; sufficient for full power


def judge_with_agreement(answers: Answers, fdr: float = 0.05, is_strict: bool = False) -> Judgement:
    """Returns `judge.judge` with the agreement of groups of shadows; rows on which they disagree are CANNOT TELL.

    Verdicts that do not depend on shadows stay: identical or edited answers, and a request suppressed as a whole.
    `power_not` counts the rows left after agreement. Source: reproducibility across audits, e.g. mean Jaccard index of
    flagged sets over runs; here by row and verdict.

    Args, Raises: see `judge.judge`.
    """
    answers = judge.check(answers)
    judgement = judge.judge(answers, fdr, is_strict)
    subsets = [_of(answers, group) for group in groups(len(answers.shadows))]
    if judgement.checks.refusal or not subsets:
        return judgement
    judging = [
        (codes, ~judge.blind(subset))
        for subset in subsets
        if (codes := judge.row_codes(subset, fdr, is_strict)) is not None
    ]
    if len(judging) < 2:
        return judgement
    group_codes, can_judge = (np.stack(arrays) for arrays in zip(*judging, strict=True))
    row_codes = rows.decide(judgement.tests, fdr)
    share = _mean(group_codes == row_codes, can_judge)
    judgement = judgement._replace(power_not=_caught(answers, subsets, fdr), groups=len(judging))
    if judgement.is_identical or judgement.is_edited:
        return judgement._replace(agreement=np.ones(len(share)), disputed=np.zeros(len(share), bool))
    by_rows = judgement.codes == row_codes
    share = np.where(by_rows, share, 1.0)
    disputed = by_rows & (share < LEAST_AGREEMENT) & (judgement.codes != CANNOT_TELL)
    codes = np.where(disputed, CANNOT_TELL, judgement.codes)
    return judgement._replace(codes=codes.astype(np.int8), agreement=share, disputed=disputed)


def groups(shadows: int) -> list[np.ndarray]:
    """Returns disjoint groups of shadows of equal size, in their order; none if there are too few for two.

    Two groups, and up to five of at least ten shadows each: small groups disagree because they lack power (untouched,
    hardest rows of Location-30, 20 shadows: 122 of 300 caught by two groups of ten, 82 by five of four).

    Example:
      >>> from jaxunlearn.metrics.verdict import agreement
      >>> [group.tolist() for group in agreement.groups(5)]
      [[0, 1], [2, 3]]
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


def _caught(answers: Answers, subsets: list[Answers], fdr: float) -> int | None:
    """Counts the rows that all shadows and enough of the groups catch if nothing was forgotten."""
    flags_of_all = judge.caught_untouched(answers, fdr)
    group_flags = [judge.caught_untouched(subset, fdr) for subset in subsets]
    if flags_of_all is None:
        return None
    can_judge = np.stack([~judge.blind(subset) for subset in subsets])
    share = _mean(np.stack([flags for flags in group_flags if flags is not None]), can_judge)
    return int((flags_of_all & (share >= LEAST_AGREEMENT)).sum())


def _mean(flags: np.ndarray, can_judge: np.ndarray) -> np.ndarray:
    """Returns [F] the mean of flags [G, F] over the groups that can judge a row; 1 where none can."""
    count = can_judge.sum(0)
    return np.where(count > 0, (flags & can_judge).sum(0) / np.maximum(count, 1), 1.0)
