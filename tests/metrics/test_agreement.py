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
    asked = np.arange(N + P) < F
    answers = hard + 0.7 * draw.normal(size=(S + 2, N + P))
    answers[:2, F:N] += trained
    answers[1, :F] += trained
    if not forgets:
        answers[0, :F] += trained
    return Answers(answers[0, :N], asked[:N], answers[2:, :N], answers[0, N:], answers[2:, N:], answers[1, :N],
                   answers[1, N:])  # fmt: skip


@pytest.mark.parametrize(("shadows", "sizes"), [
    (1, []), (2, []), (3, []), (4, [2, 2]), (5, [2, 2]), (10, [5, 5]), (20, [10, 10]), (30, [10] * 3), (64, [12] * 5),
])  # fmt: skip
def test_groups_are_disjoint_equal_and_of_two_shadows_at_least(shadows, sizes):
    made = agreement.groups(shadows)
    assert [len(group) for group in made] == sizes
    assert len(set(np.concatenate([*made, []]).tolist())) == sum(sizes) <= shadows


def test_agreement_is_the_share_of_groups_with_the_same_verdict():
    answers = judge.check(world(0))
    found = agreement.judged(answers)
    whole = judge.judge(answers)
    each = []
    for group in (range(6), range(6, 12)):
        own = {name: getattr(answers, name)[group] for name in NAMES}
        each.append(judge.judge(answers._replace(**own)).codes)
    np.testing.assert_allclose(found.agreement, (np.stack(each) == whole.codes).mean(0))
    disputed = (whole.codes != CANNOT_TELL) & (found.agreement < 0.8)
    np.testing.assert_array_equal(found.disputed, disputed)
    np.testing.assert_array_equal(found.codes, np.where(disputed, CANNOT_TELL, whole.codes))
    assert found.groups == 2 and found.power_not <= whole.power_not


def test_groups_take_verdicts_back_and_never_give_one():
    counts = np.zeros(2, int)
    for seed in range(8):
        for forgets in (True, False):
            answers = world(seed, forgets, trained=1.5)  # near the limit of what can be told
            whole, found = judge.judge(answers), agreement.judged(answers)
            changed = whole.codes != found.codes
            assert (found.codes[changed] == CANNOT_TELL).all()
            counts += changed.sum(), (found.codes != CANNOT_TELL).sum()
    assert counts.min() > 10


def test_too_few_shadows_for_two_groups_change_nothing():
    answers = world(1)
    few = answers._replace(shadows=answers.shadows[:3], population_shadows=answers.population_shadows[:3])
    whole, found = judge.judge(few), agreement.judged(few)
    np.testing.assert_array_equal(found.codes, whole.codes)
    assert found.agreement is None and found.groups == 0 and found.power_not == whole.power_not


def test_what_does_not_rest_on_shadows_is_not_taken_back():
    answers = world(2, forgets=False)
    same = answers._replace(unlearned=answers.original, population=answers.population_original)
    edited = same._replace(unlearned=np.where(answers.requested, answers.original - 6, answers.original))
    for one, code in ((same, NOT_FORGOTTEN), (edited, SUPPRESSED)):
        found = agreement.judged(one)
        assert (found.codes == code).all() and (found.agreement == 1).all() and not found.disputed.any()


def test_rows_of_a_suppressed_request_stay_suppressed():
    answers = world(3)
    expected = np.where(answers.requested, answers.shadows.mean(0), answers.unlearned)
    evenly = judge.check(answers._replace(unlearned=expected))
    whole, found = judge.judge(evenly), agreement.judged(evenly)
    assert whole.group.is_suppressed and not (found.codes == FORGOTTEN).any()
    forced = (whole.codes == SUPPRESSED) & (judge.row_codes(evenly, 0.05) == FORGOTTEN)
    assert forced.any() and (found.codes[forced] == SUPPRESSED).all()


def test_groups_that_cannot_judge_are_not_asked():
    answers = world(4)
    saw = np.zeros((S, N), bool)
    saw[:6, 0] = True  # the first group knows no model that did not see row 0
    found = agreement.judged(answers._replace(shadow_saw=saw))
    assert found.groups == 0 and found.agreement is None and not found.checks.refused
    many = answers._replace(**{name: np.tile(getattr(answers, name), (3, 1)) for name in NAMES})
    found = agreement.judged(
        many._replace(shadow_saw=np.concatenate([np.ones((12, N), bool), np.zeros((24, N), bool)]))
    )
    assert found.groups == 2 and len(agreement.groups(36)) == 3
