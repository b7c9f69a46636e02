"""The verdict on requests whose truth is known: simulated models, edits, refusals, and what no number may depend on."""

import numpy as np
import pytest

from jaxunlearn import errors
from jaxunlearn.metrics.verdict import judge
from jaxunlearn.metrics.verdict.judge import Answers
from jaxunlearn.metrics.verdict.rows import CANNOT_TELL, FORGOTTEN, NOT_FORGOTTEN, SUPPRESSED

N, P, S, F = 400, 500, 5, 30


def simulated(seed, hardest=False, trained=3.0, forgets=True):
    """Signals of a world: what every model makes of a row, plus heavy-tailed noise of each model.

    Rows that a model was trained on are answered `trained` higher; `forgets` says whether the requested ones are.
    """
    draw = np.random.default_rng(seed)
    truth = draw.normal(scale=2, size=N + P)
    requested = np.zeros(N + P, bool)
    requested[np.argsort(-truth[:N])[:F] if hardest else draw.permutation(N)[:F]] = True
    noise = 0.7 * draw.standard_t(5, size=(S + 2, N + P))
    answers = truth + noise
    answers[:2, :N] += trained * ~requested[:N]  # unlearned, original
    answers[1, :N] += trained * requested[:N]
    if not forgets:
        answers[0, :N] += trained * requested[:N]
    unlearned, original, shadows = answers[0], answers[1], answers[2:]
    return Answers(unlearned[:N], requested[:N], shadows[:, :N], unlearned[N:], shadows[:, N:], original[:N],
                   original[N:])  # fmt: skip


def test_p_values_of_truly_forgotten_rows_keep_their_promise():
    def p_high(seed, largest):
        world = simulated(seed, largest)
        # Without original and with known shadows no power is computed: most of the time, and no part of this.
        single = world._replace(original=None, population_original=None, shadow_saw=np.zeros((S, N), bool))
        return judge.judge(single).tests.p_high

    random, largest = (np.concatenate([p_high(seed, flag) for seed in range(100)]) for flag in (False, True))
    np.testing.assert_array_equal(random[:F], judge.judge(simulated(0)).tests.p_high)
    assert 0.03 <= np.mean(random <= 0.05) <= 0.06 and 0.005 <= np.mean(random <= 0.01) <= 0.017
    assert np.mean(largest <= 0.05) <= 0.06


def test_forgotten_rows_are_confirmed_and_contained_ones_caught():
    retrained = np.concatenate([judge.judge(simulated(seed)).codes for seed in range(8)])
    contained = np.concatenate([judge.judge(simulated(seed, forgets=False)).codes for seed in range(8)])
    assert np.mean(retrained == FORGOTTEN) > 0.6 and np.mean(retrained == NOT_FORGOTTEN) < 0.02
    assert np.mean(contained == NOT_FORGOTTEN) > 0.6 and not (contained == FORGOTTEN).any()


def test_groups_are_told_apart_and_what_is_left_is_measured():
    for seed in range(6):
        retrained, contained = (judge.judge(simulated(seed, forgets=flag)).group for flag in (True, False))
        assert contained.p_high < 0.05 < contained.p_in and retrained.p_in < 0.05 < retrained.p_high
        assert abs(retrained.trace_left[0]) < 0.35 and abs(contained.trace_left[0] - 1) < 0.35
        assert retrained.trace_left[1] < retrained.trace_left[0] < retrained.trace_left[2]


def test_a_row_does_not_depend_on_which_other_rows_are_audited():
    world_of_all = simulated(3)
    requested = np.flatnonzero(world_of_all.requested)
    draw = np.random.default_rng(0)
    kept = draw.permutation(np.concatenate([requested[:10], np.flatnonzero(~world_of_all.requested)[:200]]))
    rows = {name: getattr(world_of_all, name)[..., kept] for name in ("unlearned", "requested", "shadows", "original")}
    fewer = judge.judge(world_of_all._replace(**rows)).tests
    all_of_them = judge.judge(world_of_all).tests
    order = [int(np.flatnonzero(requested == row)[0]) for row in kept[rows["requested"]]]
    for name in ("z", "p_high", "p_low"):
        np.testing.assert_array_equal(getattr(fewer, name), getattr(all_of_them, name)[order])
    # Fewer requests, all retained rows: p_in, too.
    kept = np.concatenate([requested[:10], np.flatnonzero(~world_of_all.requested)])
    rows = {name: getattr(world_of_all, name)[..., kept] for name in rows}
    np.testing.assert_array_equal(judge.judge(world_of_all._replace(**rows)).tests.p_in, all_of_them.p_in[:10])


def test_the_untouched_model_is_recognised_exactly():
    world = simulated(5, forgets=False)
    same = world._replace(unlearned=world.original, population=world.population_original)
    judgement = judge.judge(same)
    assert judgement.is_identical and (judgement.codes == NOT_FORGOTTEN).all()
    edited = same._replace(unlearned=np.where(world.requested, -40.0, world.original))
    judgement = judge.judge(edited)
    assert judgement.is_edited and not judgement.is_identical and (judgement.codes == SUPPRESSED).all()
    assert judgement.group.is_suppressed


def test_edits_that_hide_behind_noise_are_suppressed_by_their_answers_alone():
    draw = np.random.default_rng(0)
    rates = []
    for seed in range(5):
        world = simulated(seed, forgets=False)
        jitter = 0.25 * draw.normal(size=N), 0.25 * draw.normal(size=P)
        hidden = world._replace(unlearned=np.where(world.requested, -40.0, world.original + jitter[0]),
                                population=world.population_original + jitter[1])  # fmt: skip
        judgement = judge.judge(hidden)
        assert not judgement.is_edited and not (judgement.codes == FORGOTTEN).any()
        rates.append(np.mean(judgement.codes == SUPPRESSED))
    assert np.mean(rates) >= 0.9


def test_refusals_name_what_is_missing():
    world = simulated(1)
    names = ("population", "population_shadows", "population_original")
    few = judge.judge(world._replace(**{name: getattr(world, name)[..., :39] for name in names}))
    assert "at least 40 rows that no model saw" in few.checks.refusal and few.power_not is None
    assert (few.codes == CANNOT_TELL).all() and (few.tests.p_high == 1).all()
    reversed_labels = world._replace(population_shadows=-world.population_shadows)
    assert "labels and the order of rows" in judge.judge(reversed_labels).checks.refusal
    rows = np.concatenate([np.flatnonzero(world.requested), np.flatnonzero(~world.requested)[:39]])
    single = {name: getattr(world, name)[..., rows] for name in ("unlearned", "requested", "shadows", "original")}
    lacking = judge.judge(world._replace(**single))
    assert "Only 39 retained rows" in lacking.checks.forgotten_refusal and not lacking.checks.refusal
    assert (lacking.tests.p_in == 1).all() and not (lacking.codes == FORGOTTEN).any()
    saw = np.ones((S, N), bool)
    assert "seen by every shadow" in judge.judge(world._replace(shadow_saw=saw)).checks.refusal
    known = judge.judge(world._replace(obstacle="Rows in another order."))
    assert known.checks.refusal == "Rows in another order." and (known.codes == CANNOT_TELL).all()


def test_rows_that_every_shadow_saw_cannot_be_told_and_change_no_other_row():
    for forgets in (True, False):
        world = simulated(9, forgets=forgets)
        saw = np.zeros((S, N), bool)
        saw[:, np.flatnonzero(world.requested)[:3]] = True
        plain = judge.judge(world._replace(shadow_saw=np.zeros((S, N), bool)))
        judgement = judge.judge(world._replace(shadow_saw=saw))
        np.testing.assert_array_equal(judgement.blind, np.arange(F) < 3)
        assert (judgement.codes[:3] == CANNOT_TELL).all() and (judgement.tests.p_in[:3] == 1).all()
        for name in ("p_high", "p_low", "z"):
            np.testing.assert_array_equal(getattr(judgement.tests, name)[3:], getattr(plain.tests, name)[3:])
        assert (judgement.codes[3:] != plain.codes[3:]).mean() < 0.1 and judgement.group.models == S
        assert (judgement.group.p_in <= 0.05) == forgets


def test_answers_far_below_those_of_models_that_never_saw_the_rows_are_not_forgotten():
    for seed in range(3):
        world = simulated(seed)
        pushed = judge.judge(world._replace(unlearned=world.unlearned - 2.5 * world.requested))
        assert pushed.group.is_too_low or pushed.group.is_suppressed
        assert not (pushed.codes == FORGOTTEN).any()
        assert not judge.judge(world).group.is_too_low


def test_an_untouched_model_is_recognised_without_shadows_that_can_judge():
    world = simulated(5, forgets=False)
    same = world._replace(unlearned=world.original, population=world.population_original)
    judgement = judge.judge(same._replace(shadow_saw=np.ones((S, N), bool)))
    assert judgement.checks.refusal and judgement.is_identical and (judgement.codes == NOT_FORGOTTEN).all()


def test_known_shadows_that_saw_no_requested_row_change_no_verdict_of_not_forgotten():
    world = simulated(7, forgets=False)
    saw = np.random.default_rng(0).random((S, N)) < 0.5
    saw[:, world.requested] = False
    known, unknown = judge.judge(world._replace(shadow_saw=saw)), judge.judge(world)
    np.testing.assert_array_equal(known.codes == NOT_FORGOTTEN, unknown.codes == NOT_FORGOTTEN)


def test_strict_confirms_no_row_that_the_usual_test_does_not():
    for seed in range(4):
        world = simulated(seed)
        usual, strict = judge.judge(world), judge.judge(world, is_strict=True)
        assert set(np.flatnonzero(strict.codes == FORGOTTEN)) <= set(np.flatnonzero(usual.codes == FORGOTTEN))
        assert (strict.tests.p_in >= usual.tests.p_in).all()


@pytest.mark.parametrize(("change", "message"), [
    ({"requested": np.zeros(N, bool)}, "requested names no row"),
    ({"shadows": np.zeros((0, N)), "population_shadows": np.zeros((0, P))}, "shadows contains no model"),
    ({"population_shadows": np.zeros((S, P + 1))}, "population_shadows has shape"),
    ({"unlearned": np.full(N, np.nan)}, "unlearned contains"),
    ({"person": np.zeros(F + 1, int)}, "person has shape"),
])  # fmt: skip
def test_arrays_that_do_not_fit_are_named(change, message):
    with pytest.raises(errors.UserError, match=message):
        judge.judge(simulated(0)._replace(**change))
