import pathlib

import numpy as np
import pytest
import scipy.optimize

from jaxunlearn import errors
from jaxunlearn.metrics.membership import membership, svc

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "conformal"
NAMES = ("correctness", "confidence", "entropy", "modified_entropy", "probability")


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "svc_mia.npz")


def part(golden, name):
    """Faithful features, or None where the case has no such part."""
    if f"{name}_logits" not in golden:
        return None
    return membership.features(golden[f"{name}_logits"], golden[f"{name}_labels"], compat="faithful")


def samples(shift, n=200, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, 1.5, (n, classes)).astype(np.float32), rng.integers(0, classes, n)
    logits[np.arange(n), labels] += shift
    return logits, labels


@pytest.mark.parametrize("case", ["m0", "m1"])
def test_the_published_svc_evaluation_is_reproduced(golden, case):
    # The *_entropy and *_m_entropy arrays are compared in test_membership.py.
    parts = [part(golden, f"{case}_{name}") for name in ("shadow_train", "shadow_test", "target_train", "target_test")]
    rates = svc.svc_attack(*parts)
    assert tuple(rates) == NAMES
    expected = golden[f"{case}_acc_correctness_confidence_entropy_mentropy_prob"]
    targets = [golden[f"{case}_{name}_labels"] for name in ("target_train", "target_test")
               if f"{case}_{name}_labels" in golden]  # fmt: skip
    one_sample = 1 / (len(targets) * min(map(len, targets)))
    np.testing.assert_allclose(list(rates.values()), expected, rtol=0, atol=one_sample + 1e-9)
    assert np.mean(np.abs(np.array(list(rates.values())) - expected) < 1e-12) >= 0.8


def test_the_faithful_attack_takes_the_first_retained_samples_as_members(golden):
    names = [f"m0_{name}_{kind}" for name in ("shadow_train", "shadow_test", "target_test")
             for kind in ("logits", "labels")]  # fmt: skip
    arrays = [golden[name] for name in names]
    more = samples(9.0, 50, 10)
    retained = np.vstack([arrays[0], more[0]]), np.append(arrays[1], more[1])
    rates = svc.svc_mia(*retained, *arrays[2:], compat="faithful")
    expected = golden["m0_acc_correctness_confidence_entropy_mentropy_prob"]
    np.testing.assert_allclose(list(rates.values()), expected, rtol=0, atol=1 / 90)


def test_forgotten_samples_that_look_unseen_are_called_non_members_more_often():
    retain, test = samples(4.0, 400, seed=0), samples(1.0, 300, seed=1)
    kept = svc.svc_mia(*retain, *test, *samples(4.0, seed=2))
    forgotten = svc.svc_mia(*retain, *test, *samples(1.0, seed=3))
    assert all(forgotten[name] > kept[name] + 0.1 for name in NAMES)


def test_a_cap_on_shadows_is_drawn_and_changes_little():
    retain, test, forget = samples(4.0, 400, seed=0), samples(1.0, 400, seed=1), samples(1.0, seed=3)
    every = svc.svc_mia(*retain, *test, *forget)
    assert svc.svc_mia(*retain, *test, *forget, most=400) == every
    few = svc.svc_mia(*retain, *test, *forget, most=200)
    rows = svc.draw_rows(400, 200, 0)
    assert few == svc.svc_mia(*(array[rows] for array in (*retain, *test)), *forget)
    assert few != svc.svc_mia(*retain, *test, *forget, most=200, seed=1)
    assert all(few[name] == pytest.approx(every[name], abs=0.15) for name in NAMES)


@pytest.mark.parametrize("most", [0, 300])
def test_the_attack_does_not_depend_on_the_order_of_the_samples(most):
    # Class 0 is hard, members or not; the others are remembered. In order of the classes it stands first.
    def by_class(per_class, shift):
        logits, labels = samples(0.0, 4 * per_class, seed=per_class)
        labels = np.repeat(np.arange(4), per_class)
        logits /= 5
        logits[np.arange(len(labels)), labels] += np.where(labels == 0, 1.4, shift)
        return logits, labels

    retain, test, forget = by_class(300, 5.0), by_class(100, 2.0), by_class(60, 5.0)
    shuffled = [array[np.random.default_rng(0).permutation(1200)] for array in retain]
    in_order, mixed = (svc.svc_mia(*members, *test, *forget, most=most) for members in (retain, shuffled))
    assert all(in_order[name] == pytest.approx(mixed[name], abs=0.1) for name in NAMES)
    first = svc.svc_mia(*retain, *test, *forget, most=most, compat="faithful")
    assert first["modified_entropy"] > mixed["modified_entropy"] + 0.5


def test_arrays_of_the_caller_stay_as_they_are():
    arrays = [*samples(4.0, 60, seed=0), *samples(1.0, 50, seed=1), *samples(1.0, 40, seed=2)]
    for array in arrays:
        array.setflags(write=False)
    before = svc.svc_mia(*arrays)
    assert svc.svc_mia(*arrays) == before


def test_platt_scaling_minimises_the_regularised_loss():
    rng = np.random.default_rng(0)
    is_member = rng.uniform(size=300) < 0.3
    decisions = rng.normal(is_member * 1.5, 1.0)
    sigmoid = svc.platt(decisions, is_member)
    members = is_member.sum()
    targets = np.where(is_member, (members + 1) / (members + 2), 1 / (300 - members + 2))

    def loss(theta):
        line = theta[0] * decisions + theta[1]
        return np.sum(np.logaddexp(0, line) - targets * line)

    expected = scipy.optimize.minimize(loss, [0.0, 0.0], tol=1e-10)
    np.testing.assert_allclose(sigmoid, expected.x, rtol=1e-3)
    assert loss(sigmoid) <= expected.fun + 1e-9


@pytest.mark.parametrize("gap", [1e-6, 1.0, 1e4])
def test_platt_scaling_stays_finite_where_decisions_separate_members(gap):
    decisions = np.r_[np.full(40, gap), np.full(60, -gap)]
    slope, intercept = svc.platt(decisions, decisions > 0)
    p = 1 / (1 + np.exp(-slope * decisions[[0, -1]] - intercept))
    # The targets themselves: (40 + 1) / (40 + 2) and 1 / (60 + 2).
    np.testing.assert_allclose(p, [41 / 42, 1 / 62], rtol=1e-3)
    flat = svc.platt(np.zeros(100), np.arange(100) < 50)
    assert flat.slope == 0 and flat.intercept == pytest.approx(0)


def test_probabilities_are_calibrated_repeat_by_seed_and_leave_numpy_alone():
    rng = np.random.default_rng(0)
    sides = rng.normal(0.7, 0.2, 300), rng.normal(0.4, 0.2, 300)
    state = np.random.get_state()[1].copy()
    decide, sigmoid = svc.platt_svc(*sides, seed=3)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert svc.platt_svc(*sides, seed=3)[1] == sigmoid != svc.platt_svc(*sides, seed=4)[1]
    fresh = rng.normal(0.7, 0.2, 4000), rng.normal(0.4, 0.2, 4000)
    p = 1 / (1 + np.exp(-sigmoid.slope * decide(np.concatenate(fresh)) - sigmoid.intercept))
    is_member = np.arange(8000) < 4000
    for low in (0.0, 0.25, 0.5, 0.75):
        mask = (p >= low) & (p < low + 0.25)
        # Half a thousand samples or more per bin (standard error 0.02), and a sigmoid fitted to 600.
        assert is_member[mask].mean() == pytest.approx(p[mask].mean(), abs=0.1)


def test_two_shadows_of_a_kind_are_enough():
    decide, sigmoid = svc.platt_svc(np.array([0.9, 0.8]), np.array([0.1, 0.2, 0.3]))
    assert np.isfinite(sigmoid).all() and decide(np.array([0.9]))[0] > 0 > decide(np.array([0.1]))[0]


def test_wrong_input_gets_one_clear_error():
    good, empty = samples(1.0, 20), (np.zeros((0, 4)), np.zeros(0, int))
    broken = good[0].copy()
    broken[3, 2] = np.inf
    with pytest.raises(errors.DataError, match=r"test_logits contains 1 value.*\(3, 2\)"):
        svc.svc_mia(*good, broken, good[1], *good)
    with pytest.raises(errors.ShapeError, match="forget_logits.*axis C"):
        svc.svc_mia(*good, *good, *samples(1.0, 20, 5))
    with pytest.raises(errors.ShapeError, match="retain_labels.*axis R"):
        svc.svc_mia(good[0], good[1][:-1], *good, *good)
    with pytest.raises(errors.ShapeError, match="forget_labels.*axis N"):
        svc.svc_mia(*good, *good, good[0], good[1][:-1])
    for position in range(3):
        sets = [good, good, good]
        sets[position] = empty
        with pytest.raises(errors.DataError, match="at least 1 sample"):
            svc.svc_mia(*(array for subset in sets for array in subset))
    with pytest.raises(errors.ConfigError, match="most = -1"):
        svc.svc_mia(*good, *good, *good, most=-1)
    features = membership.features(*good)
    with pytest.raises(errors.DataError, match="has no target"):
        svc.svc_attack(features, features, None, None)
    with pytest.raises(errors.ShapeError, match="member.*axis F"):
        svc.fit_svc(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(errors.DataError, match="needs both kinds, but has 3 members, 0"):
        svc.platt(np.zeros(3), np.ones(3, bool))
    with pytest.raises(errors.DataError, match="at least 2 of each kind"):
        svc.platt_svc(np.zeros(1), np.ones(5))
