"""Groups of shadow models judge every row for themselves: what they do not agree on is not told."""

import numpy as np
import pytest

from jaxunlearn.metrics.verdict import agreement, judge
from jaxunlearn.metrics.verdict.judge import Answers
from jaxunlearn.metrics.verdict.rows import CANNOT_TELL, FORGOTTEN, NOT_FORGOTTEN, SUPPRESSED

N, P, S, F = 300, 400, 12, 30
NAMES = ("shadows", "population_shadows")


def world(seed, forgets=True, trained=3.0):
    """Rows of differing difficulty; shadows that saw none of them; a model that forgot, or not."""
    draw = np.random.default_rng(seed)
    hard = draw.normal(scale=2, size=N + P)
    requested = np.arange(N + P) < F
    answers = hard + 0.7 * draw.normal(size=(S + 2, N + P))
    answers[:2, F:N] += trained
    answers[1, :F] += trained
    if not forgets:
        answers[0, :F] += trained
    return Answers(answers[0, :N], requested[:N], answers[2:, :N], answers[0, N:], answers[2:, N:], answers[1, :N],
                   answers[1, N:])  # fmt: skip


@pytest.mark.parametrize(("shadows", "sizes"), [
    (1, []), (2, []), (3, []), (4, [2, 2]), (5, [2, 2]), (10, [5, 5]), (20, [10, 10]), (30, [10] * 3), (64, [12] * 5),
])  # fmt: skip
def test_groups_are_disjoint_equal_and_of_two_shadows_at_least(shadows, sizes):
    shadow_groups = agreement.groups(shadows)
    assert [len(group) for group in shadow_groups] == sizes
    assert len(set(np.concatenate([*shadow_groups, []]).tolist())) == sum(sizes) <= shadows


def test_agreement_is_the_share_of_groups_with_the_same_verdict():
    answers = judge.check(world(0))
    judgement = agreement.judge_with_agreement(answers)
    full_judgement = judge.judge(answers)
    each = []
    for group in (range(6), range(6, 12)):
        subset = {name: getattr(answers, name)[group] for name in NAMES}
        each.append(judge.judge(answers._replace(**subset)).codes)
    np.testing.assert_allclose(judgement.agreement, (np.stack(each) == full_judgement.codes).mean(0))
    disputed = (full_judgement.codes != CANNOT_TELL) & (judgement.agreement < 0.8)
    np.testing.assert_array_equal(judgement.disputed, disputed)
    np.testing.assert_array_equal(judgement.codes, np.where(disputed, CANNOT_TELL, full_judgement.codes))
    assert judgement.groups == 2 and judgement.power_not <= full_judgement.power_not


def test_groups_take_verdicts_back_and_never_give_one():
    counts = np.zeros(2, int)
    for seed in range(8):
        for forgets in (True, False):
            answers = world(seed, forgets, trained=1.5)  # near the limit of what can be told
            full_judgement, judgement = judge.judge(answers), agreement.judge_with_agreement(answers)
            changed = full_judgement.codes != judgement.codes
            assert (judgement.codes[changed] == CANNOT_TELL).all()
            counts += changed.sum(), (judgement.codes != CANNOT_TELL).sum()
    assert counts.min() > 10


def test_too_few_shadows_for_two_groups_change_nothing():
    answers = world(1)
    few = answers._replace(shadows=answers.shadows[:3], population_shadows=answers.population_shadows[:3])
    full_judgement, judgement = judge.judge(few), agreement.judge_with_agreement(few)
    np.testing.assert_array_equal(judgement.codes, full_judgement.codes)
    assert judgement.agreement is None and judgement.groups == 0 and judgement.power_not == full_judgement.power_not


def test_what_does_not_rest_on_shadows_is_not_taken_back():
    answers = world(2, forgets=False)
    same = answers._replace(unlearned=answers.original, population=answers.population_original)
    edited = same._replace(unlearned=np.where(answers.requested, answers.original - 6, answers.original))
    for changed_answers, code in ((same, NOT_FORGOTTEN), (edited, SUPPRESSED)):
        judgement = agreement.judge_with_agreement(changed_answers)
        assert (judgement.codes == code).all() and (judgement.agreement == 1).all() and not judgement.disputed.any()


def test_rows_of_a_suppressed_request_stay_suppressed():
    answers = world(3)
    expected = np.where(answers.requested, answers.shadows.mean(0), answers.unlearned)
    evenly = judge.check(answers._replace(unlearned=expected))
    full_judgement, judgement = judge.judge(evenly), agreement.judge_with_agreement(evenly)
    assert full_judgement.group.is_suppressed and not (judgement.codes == FORGOTTEN).any()
    forced = (full_judgement.codes == SUPPRESSED) & (judge.row_codes(evenly, 0.05) == FORGOTTEN)
    assert forced.any() and (judgement.codes[forced] == SUPPRESSED).all()


def test_groups_that_cannot_judge_are_not_asked():
    answers = world(4)
    saw = np.zeros((S, N), bool)
    saw[:6, 0] = True  # the first group knows no model that did not see row 0
    judgement = agreement.judge_with_agreement(answers._replace(shadow_saw=saw))
    assert judgement.groups == 2 and not judgement.checks.refusal and not judgement.blind.any()
    assert judgement.agreement[0] in (0, 1)  # the other group alone judges it
    many = answers._replace(**{name: np.tile(getattr(answers, name), (3, 1)) for name in NAMES})
    judgement = agreement.judge_with_agreement(
        many._replace(shadow_saw=np.concatenate([np.ones((12, N), bool), np.zeros((24, N), bool)]))
    )
    assert judgement.groups == 2 and len(agreement.groups(36)) == 3
