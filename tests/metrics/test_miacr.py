import pathlib

import numpy as np
import pytest
import scipy.special
import scipy.stats

from jaxunlearn import errors
from jaxunlearn.metrics.conformal import conformal
from jaxunlearn.metrics.membership import membership, miacr, svc

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "conformal"
FIELDS = ("traditional", "miacr", "exact", "set_size", "q_hat")


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "miacr.npz")


def confidences(golden, case):
    names = ("shadow_train", "shadow_test", "cal", "target_train", "target_test")
    return [golden[f"{case}_{name}"][:, 0] for name in names]


def drawn(*shape, member, seed):
    """Confidences that are higher for members."""
    return np.random.default_rng(seed).beta(8.0 if member else 4.0, 2.0, shape)


def world(*models, n=200, forget="unseen"):
    """Shadow members and non-members, calibration samples, forgotten samples."""
    return (
        drawn(*models, n, member=True, seed=0),
        drawn(*models, n, member=False, seed=1),
        drawn(*models, n, member=False, seed=2),
        drawn(*models, n, member=forget == "member", seed=3),
    )


@pytest.mark.parametrize("case", ["p0", "p1"])
def test_published_sets_of_given_probabilities_are_reproduced(golden, case):
    target = golden[f"{case}_target_proba"]
    sets = miacr.attack_sets(golden[f"{case}_cal_proba"], target)
    assert sets.q_hat == golden[f"{case}_qhat"]
    np.testing.assert_array_equal(sets.sets, golden[f"{case}_pred_sets"])
    called = (target[:, 1] > target[:, 0]).mean()
    for flag, lacking in ((1, sets.excludes_member), (0, sets.excludes_non_member)):
        published = golden[f"{case}_flag{flag}_acc_cov_size"]
        np.testing.assert_allclose([called, lacking, sets.set_size], published, rtol=0, atol=1e-12)
    assert sets.exact == pytest.approx(golden[f"{case}_miacr_exact_nonmember_only"], abs=1e-12)


@pytest.mark.parametrize("case", ["s0", "s1"])
def test_the_published_attack_is_reproduced(golden, case):
    member, non_member, calibration, forget, test = confidences(golden, case)
    expected = golden[f"{case}_result"]
    result = miacr.miacr(
        member, non_member, calibration, forget, test_forget=test if len(test) else None, compat="faithful"
    )
    assert result.traditional == pytest.approx(expected[0], abs=1e-12)
    np.testing.assert_allclose([result.miacr, result.set_size], expected[1:3], rtol=0, atol=0.05)
    assert result.q_hat == pytest.approx(expected[3], abs=5e-3)
    if len(test):
        assert result.test.non_member == pytest.approx(expected[4], abs=1e-12)
        np.testing.assert_allclose([result.test.excluded, result.test.set_size], expected[5:], rtol=0, atol=0.05)
    else:
        assert result.test is None and len(expected) == 4


@pytest.mark.parametrize("case", ["s0", "s1"])
def test_the_published_machine_and_its_probabilities_are_reproduced(golden, case):
    member, non_member, calibration, forget, test = confidences(golden, case)
    decide, sigmoid = svc.platt_svc(member, non_member)
    decisions = decide(forget)
    np.testing.assert_allclose(decisions, golden[f"{case}_decision_target"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(decisions > 0, golden[f"{case}_pred_target"])
    # The published sigmoid comes from unseeded folds: a percent or so of probability.
    for values, name in ((forget, "proba_target"), (calibration, "proba_cal")):
        p = scipy.special.expit(sigmoid.slope * decide(values) + sigmoid.intercept)
        np.testing.assert_allclose(np.stack([1 - p, p], 1), golden[f"{case}_{name}"], rtol=0, atol=0.02)
    shares = [(decisions > 0).mean(), *([(decide(test) <= 0).mean()] if len(test) else [])]
    assert np.mean(shares) == pytest.approx(golden[f"{case}_traditional_acc"], abs=1e-12)


@pytest.mark.parametrize("attack", miacr.ATTACKS)
def test_the_test_side_is_of_unseen_samples_or_as_published_of_forgotten_ones(attack):
    arrays, unseen = world(forget="member"), drawn(200, member=False, seed=9)
    result = miacr.miacr(*arrays, attack=attack, test_forget=unseen)
    assert result[:5] == miacr.miacr(*arrays, attack=attack)[:5]
    single = miacr.miacr(*arrays[:3], unseen, attack=attack)
    assert result.test.non_member == pytest.approx(1 - single.traditional)
    assert result.test.set_size == single.set_size
    published = miacr.miacr(*arrays, attack=attack, test_forget=unseen, compat="faithful")
    assert published.test.non_member == pytest.approx(1 - result.traditional)
    assert published.test.set_size == result.set_size and published[:5] == result[:5]


@pytest.mark.parametrize("attack", miacr.ATTACKS)
def test_models_together_equal_models_alone(attack):
    arrays = world(3, n=80)
    together = miacr.miacr(*arrays, attack=attack, test_forget=arrays[3][:, :40])
    for number in range(3):
        result = miacr.miacr(*(a[number] for a in arrays), attack=attack, test_forget=arrays[3][number, :40])
        assert [getattr(together, name)[number] for name in FIELDS] == pytest.approx([*result[:5]], abs=1e-6)
        assert [values[number] for values in together.test] == pytest.approx([*result.test], abs=1e-6)
        assert isinstance(result.miacr, float) and together.miacr.dtype == np.float64


def naive_threshold(member, non_member, calibration, forget, alpha):
    """Hard calls and sets from their definitions: the border by search, P by Platt's targets with a slope >= 0."""
    border = membership.best_threshold(member, non_member)
    is_member = np.arange(len(member) + len(non_member)) < len(member)
    slope, intercept = svc.platt(np.concatenate([member, non_member]), is_member)
    p = [scipy.special.expit(slope * values + intercept) for values in (calibration, forget)]
    q_hat = conformal.threshold(1 - p[0], alpha)
    return forget >= border, np.stack([p[1] <= q_hat, 1 - p[1] <= q_hat], 1), q_hat


@pytest.mark.parametrize("alpha", [0.02, 0.05, 0.3])
@pytest.mark.parametrize("forget", ["unseen", "member"])
def test_the_threshold_attack_equals_its_definition(alpha, forget):
    # On a grid, so that ties with the borders occur.
    arrays = [np.round(values, 2).astype(np.float32) for values in world(forget=forget)]
    result = miacr.miacr(*arrays, alpha=alpha, attack="threshold")
    called, sets, q_hat = naive_threshold(*(values.astype(np.float64) for values in arrays), alpha)
    assert result.traditional == pytest.approx(called.mean(), abs=1e-9)
    assert result.miacr == pytest.approx((~sets[:, 1]).mean(), abs=1e-9)
    assert result.exact == pytest.approx((sets[:, 0] & ~sets[:, 1]).mean(), abs=1e-9)
    assert result.set_size == pytest.approx(sets.sum(1).mean(), abs=1e-9)
    assert result.q_hat == pytest.approx(q_hat, abs=1e-4)


@pytest.mark.parametrize("transform", [lambda x: 3 * x - 7, np.sqrt, scipy.special.logit])
def test_any_rising_function_of_the_confidence_gives_the_same_threshold_attack(transform):
    arrays = world(forget="member")
    plain = miacr.miacr(*arrays, attack="threshold", alpha=0.2)
    other = miacr.miacr(*map(transform, arrays), attack="threshold", alpha=0.2)
    assert (other.traditional, other.miacr) == pytest.approx((plain.traditional, plain.miacr), abs=1e-9)


@pytest.mark.parametrize("alpha", [0.05, 0.2])
@pytest.mark.parametrize("forget", ["unseen", "member"])
def test_both_attacks_agree_where_confidence_rises_with_membership(alpha, forget):
    """One rank of 200 calibration samples moves MIACR by 1 / 200, a bend of the SVC at its ends by a little more."""
    arrays = world(forget=forget)
    machine, fast = (miacr.miacr(*arrays, alpha=alpha, attack=attack) for attack in miacr.ATTACKS)
    assert fast.miacr == pytest.approx(machine.miacr, abs=0.02)
    assert fast.set_size == pytest.approx(machine.set_size, abs=0.1)


def test_hard_calls_of_both_attacks_are_equally_good():
    """Their borders may differ, for the best balanced accuracy is flat; what they tell apart may not."""
    telling = []
    for attack in miacr.ATTACKS:
        members, unseen = (miacr.miacr(*world(forget=kind), attack=attack) for kind in ("member", "unseen"))
        telling.append(members.traditional - unseen.traditional)
    # Standard error of a difference of two shares of 200: 0.05; the samples are the same for both attacks.
    assert telling[1] == pytest.approx(telling[0], abs=0.1) and min(telling) > 0.15


@pytest.mark.parametrize("quantile_rule", conformal.QUANTILE_RULES)
@pytest.mark.parametrize("n", [60, 500])
def test_unseen_samples_lose_the_member_label_at_the_rate_alpha(n, quantile_rule):
    """Of n + 1 exchangeable scores the new one is above the k-th with chance (n - k) / (n + 1)."""
    alpha, repetitions, judged = 0.1, 400, 200
    sizes = {"shadow_member": 50, "shadow_non_member": 50, "calibration": n, "forget": judged}
    arrays = [
        drawn(repetitions, size, member=name == "shadow_member", seed=seed)
        for seed, (name, size) in enumerate(sizes.items())
    ]
    result = miacr.miacr(*arrays, alpha=alpha, attack="threshold", quantile_rule=quantile_rule)
    above = n - conformal.rank_of(n, alpha, quantile_rule)
    law = scipy.stats.betabinom(judged, above, n + 1 - above)
    error = law.std() / judged / np.sqrt(repetitions)
    assert result.miacr.mean() == pytest.approx(above / (n + 1), abs=4 * error)
    assert law.mean() / judged <= alpha
    # The worst of 400 runs is far out in the law of one run, but not this far.
    low, high = law.ppf([1e-7, 1 - 1e-7]) / judged
    assert (result.miacr >= low).all() and (result.miacr <= high).all()


def test_the_svc_attack_keeps_the_level_too():
    arrays = world(n=250)
    result = miacr.miacr(*arrays, alpha=0.1)
    above = 250 - conformal.rank_of(250, 0.1)
    low, high = scipy.stats.betabinom(250, above, 251 - above).ppf([1e-4, 1 - 1e-4]) / 250
    assert low <= result.miacr <= high
    assert result.exact <= result.miacr
    assert miacr.miacr(*world(n=250, forget="member"), alpha=0.1).miacr < result.miacr


@pytest.mark.parametrize("attack", miacr.ATTACKS)
def test_too_few_calibration_samples_give_full_sets(attack):
    member, non_member, calibration, forget = world(n=60)
    result = miacr.miacr(member, non_member, calibration[:18], forget, attack=attack)
    assert (result.q_hat, result.miacr, result.exact, result.set_size) == (np.inf, 0, 0, 2)
    assert miacr.miacr(member, non_member, calibration[:19], forget, attack=attack).q_hat < 1


def test_confidences_without_information_give_full_sets_and_a_slope_of_zero():
    same = np.full(200, 0.5)
    for attack in miacr.ATTACKS:
        result = miacr.miacr(same, same, same, same, attack=attack)
        assert (result.miacr, result.set_size) == (0, 2) and result.q_hat == pytest.approx(0.5)
    member, non_member, calibration, forget = world()
    upside_down = miacr.miacr(non_member, member, calibration, forget, attack="threshold")
    # P must not fall with the confidence, so it is flat: "non-member" stays in every set.
    assert upside_down.set_size == pytest.approx(2 - upside_down.miacr) and upside_down.q_hat == pytest.approx(0.5)


@pytest.mark.parametrize("attack", miacr.ATTACKS)
def test_saturated_and_separable_confidences_give_finite_numbers(attack):
    ones, zeros = np.ones(200), np.zeros(200)
    result = miacr.miacr(ones, zeros, zeros, ones, attack=attack)
    assert np.isfinite(result[:5]).all() and result.traditional == 1 and result.miacr == 0
    forgotten = miacr.miacr(ones, np.r_[zeros[:100], ones[:100]], ones, zeros, attack=attack)
    assert np.isfinite(forgotten[:5]).all() and forgotten.miacr == 1


def test_a_cap_on_shadows_serves_the_svc():
    member, non_member, calibration, forget = world()
    capped = miacr.miacr(member, non_member, calibration, forget, most=50)
    sides = (side[svc.draw_rows(len(side), 50, 0)] for side in (member, non_member))
    assert capped == miacr.miacr(*sides, calibration, forget)


@pytest.mark.parametrize("attack", miacr.ATTACKS)
def test_wrong_input_gets_one_clear_error(attack):
    arrays = world(n=30)
    for position, name in enumerate(("shadow_member", "shadow_non_member", "calibration", "forget")):
        broken = [values.copy() for values in arrays]
        broken[position][4] = np.nan
        with pytest.raises(errors.DataError, match=rf"^{name} contains 1 value.*\(4,\)"):
            miacr.miacr(*broken, attack=attack)
        broken[position] = arrays[position][:0]
        with pytest.raises(errors.DataError, match=rf"^{name} has shape \(0,\)"):
            miacr.miacr(*(broken[: position + 1] + list(arrays[position + 1 :])), attack=attack)
        broken[position] = np.stack([arrays[position]] * 2)
        with pytest.raises(errors.ShapeError, match="has shape"):
            miacr.miacr(*broken, attack=attack)
    for alpha in (0, 1, -0.1, np.nan):
        with pytest.raises(errors.ConfigError, match="alpha"):
            miacr.miacr(*arrays, alpha=alpha, attack=attack)
    with pytest.raises(errors.ConfigError, match="quantile rule"):
        miacr.miacr(*arrays, quantile_rule="textbok", attack=attack)
    with pytest.raises(errors.ConfigError, match="compat"):
        miacr.miacr(*arrays, compat="exact", attack=attack)


def test_wrong_probabilities_and_attacks_are_named():
    good = np.full((20, 2), 0.5)
    with pytest.raises(errors.ShapeError, match="target has shape"):
        miacr.attack_sets(good, good[:, :1])
    with pytest.raises(errors.DataError, match="calibration must contain"):
        miacr.attack_sets(good + 0.1, good)
    with pytest.raises(errors.DataError, match="target must contain"):
        miacr.attack_sets(good, good[:0])
    with pytest.raises(errors.ConfigError, match="tresholds.*Did you mean 'threshold'"):
        miacr.miacr(*world(n=30), attack="tresholds")
    with pytest.raises(errors.DataError, match="at least 2 of each kind"):
        miacr.miacr(np.ones(1), np.zeros(9), np.zeros(30), np.zeros(3))
