import pathlib
import time

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from jaxunlearn import errors
from jaxunlearn.metrics.membership import membership

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "conformal"
LOG_FLOOR = np.log(1e-30)


def load(name):
    return np.load(GOLDEN / f"{name}.npz")


def outputs(n=40, classes=5, scale=4.0, seed=0):
    rng = np.random.default_rng(seed)
    return (scale * rng.normal(size=(n, classes))).astype(np.float32), rng.integers(0, classes, n)


def naive_features(logits, labels, compat):
    """Sample by sample in float64, with 1 - p as the sum of the other probabilities."""
    rows = []
    for z, y in zip(np.asarray(logits, np.float64), labels, strict=True):
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        rest = [np.delete(p, c).sum() for c in range(len(p))]
        entropy = -sum(v * np.log(v) for v in p if v > 0)
        if compat == "faithful":
            terms = [
                (1 - v if c in labels else v) * (np.log(v) if v > 0 else LOG_FLOOR) for c, v in enumerate(p)
            ]  # fmt: skip
        else:
            logs = [max(np.log(p[c] if c == y else rest[c]), LOG_FLOOR) for c in range(len(p))]
            terms = [(rest[c] if c == y else p[c]) * logs[c] for c in range(len(p))]
        rows.append((float(np.argmax(z) == y), p[y], entropy, -sum(terms)))
    return np.array(rows).T


@pytest.mark.parametrize("case", ["f0", "f1"])
def test_published_features_are_reproduced(case):
    golden = load("attack_features")
    features = membership.features(golden[f"{case}_logits"], golden[f"{case}_labels"], compat="faithful")
    np.testing.assert_allclose(features.entropy, golden[f"{case}_entropy"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(features.modified_entropy, golden[f"{case}_m_entropy"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(features.confidence, golden[f"{case}_conf"][:, 0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", ["m0", "m1"])
@pytest.mark.parametrize("subset", ["shadow_train", "shadow_test", "target_test"])
def test_published_entropies_of_the_svc_evaluation_are_reproduced(case, subset):
    golden = load("svc_mia")
    name = f"{case}_{subset}"
    features = membership.features(golden[f"{name}_logits"], golden[f"{name}_labels"], compat="faithful")
    np.testing.assert_allclose(features.entropy, golden[f"{name}_entropy"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(features.modified_entropy, golden[f"{name}_m_entropy"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", ["b0", "b1"])
def test_the_published_threshold_attack_is_reproduced_exactly(case):
    golden = load("song_mittal_mia")
    parts = [f"{case}_{subset}" for subset in ("s_tr", "s_te", "t_tr", "t_te")]
    sets = [(golden[f"{subset}_probs"], golden[f"{subset}_labels"]) for subset in parts]
    result = membership.song_mittal_probabilities(*sets)
    published = {"confidence": 0, "entropy": 1, "modified_entropy": 2}
    for name, rates in result.items():
        expected = golden[f"{case}_{name.replace('modified', 'm')}_trAcc_teAcc"]
        np.testing.assert_allclose([rates.member, rates.non_member], expected, rtol=0, atol=1e-15)
        if name in published:
            thresholds = golden[f"{case}_thresholds_conf_entr_mentr"][published[name]]
            np.testing.assert_array_equal(rates.thresholds, thresholds)
    features_of_shadows = membership.probability_features(*sets[0])
    np.testing.assert_allclose(features_of_shadows.entropy, golden[f"{case}_s_tr_entr"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        features_of_shadows.modified_entropy, golden[f"{case}_s_tr_m_entr"], rtol=1e-6, atol=1e-6
    )
    # Log-probabilities are logits of the same softmax.
    again = membership.song_mittal(*((np.log(p), labels) for p, labels in sets))
    for name, rates in result.items():
        assert again[name].member == pytest.approx(rates.member, abs=0.02)
        assert again[name].non_member == pytest.approx(rates.non_member, abs=0.03)


def test_the_published_entropy_attack_is_reproduced():
    golden = load("ssd_metrics")
    attack = membership.entropy_attack(*(golden[f"lr_{kind}_logits"] for kind in ("retain", "test", "forget")))
    assert attack.member_rate == golden["lr_member_rate"]
    # The published optimiser stops at a gradient of 1e-4; ours goes on.
    np.testing.assert_allclose(attack.sigmoid.slope, golden["lr_coef"][0, 0], rtol=5e-4)
    np.testing.assert_allclose(attack.sigmoid.intercept, golden["lr_intercept"][0], rtol=5e-4)
    entropy = membership.entropies(golden["lr_forget_logits"])
    np.testing.assert_allclose(entropy, golden["lr_entropy_forget"][:, 0], rtol=1e-6, atol=1e-6)
    for case in ("z0", "z1"):
        entropy = membership.entropies(golden[f"{case}_logits_model"])
        np.testing.assert_allclose(entropy, golden[f"{case}_entropy"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("compat", membership.COMPAT)
@pytest.mark.parametrize("scale", [0.0, 2.0, 15.0])
def test_features_equal_their_definitions_for_one_model_and_for_many(compat, scale):
    models = np.stack([outputs(classes=6, scale=scale, seed=seed)[0] for seed in range(3)])
    labels = np.random.default_rng(9).integers(0, 4, models.shape[1])
    together = membership.features(models, labels, compat=compat)
    for number, logits in enumerate(models):
        features = membership.features(logits, labels, compat=compat)
        for name in membership.Features._fields:
            np.testing.assert_array_equal(getattr(together, name)[number], getattr(features, name))
        for result, expected in zip(features, naive_features(logits, labels, compat), strict=False):
            np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-6)
        assert features.probability.dtype == features.confidence.dtype == np.float32


def test_the_corrected_modified_entropy_keeps_what_rounded_probabilities_lose():
    """A wrong class with 1 - p = 2e-11: float32 probabilities say 0, so that the floor answers instead."""
    logits, labels = np.array([[0.0, 25.0, 0.0]]), np.array([0])
    exact = naive_features(logits, labels, "corrected")[3]
    np.testing.assert_allclose(membership.features(logits, labels).modified_entropy, exact, rtol=1e-6)
    rounded = membership.probability_features(membership.features(logits, labels).probability, labels)
    assert rounded.modified_entropy[0] == pytest.approx(25 - LOG_FLOOR, rel=1e-5)
    assert exact[0] == pytest.approx(25 + 25 - np.log(2), rel=1e-3)


@pytest.mark.parametrize("compat", membership.COMPAT)
def test_saturated_logits_and_narrow_types_give_finite_features(compat):
    logits = np.array([[80.0, -80, 0], [-80, 80, 80], [300, -300, 0], [0, 0, 0]])
    for dtype in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16):
        features = membership.features(logits.astype(dtype), np.array([0, 0, 1, 2]), compat=compat)
        assert all(np.isfinite(values).all() for values in features)
        np.testing.assert_array_equal(features.correctness, [1, 0, 0, 0])


def test_the_faithful_modified_entropy_depends_on_which_labels_occur():
    logits, labels = outputs(classes=5)
    labels = labels % 4
    features = membership.features(logits, labels, compat="faithful").modified_entropy
    with_all = membership.features(np.vstack([logits, logits[:1]]), np.append(labels, 4), compat="faithful")
    assert (features != with_all.modified_entropy[:-1]).all()
    corrected = membership.features(logits, labels).modified_entropy
    np.testing.assert_array_equal(
        corrected, membership.features(np.vstack([logits, logits[:1]]), np.append(labels, 4)).modified_entropy[:-1]
    )


def naive_threshold(member, non_member):
    """The published search: every value in turn, kept only where it is strictly better."""
    best, accuracy = 0.0, 0.0
    for value in np.concatenate([member, non_member]):
        with np.errstate(invalid="ignore"):
            result = 0.5 * (np.sum(member >= value) / len(member) + np.sum(non_member < value) / len(non_member))
        if result > accuracy:
            best, accuracy = value, result
    return best


coarse = st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 3)), min_size=1, max_size=25)


@trials(max_examples=80, deadline=None)
@given(coarse, coarse, st.sampled_from(membership.COMPAT))
def test_class_thresholds_equal_the_published_search(members, others, compat):
    (member, member_labels), (non_member, other) = (np.array(rows).T for rows in (members, others))
    thresholds = membership.class_thresholds(member / 4, member_labels, non_member / 4, other, 5, compat=compat)
    for number in range(5):
        sides = member[member_labels == number] / 4, non_member[other == number] / 4
        if min(map(len, sides)):
            expected = naive_threshold(*sides)
        else:
            expected = 0.0 if compat == "faithful" else naive_threshold(member / 4, non_member / 4)
        assert thresholds[number] == expected


def test_thresholds_of_many_samples_take_no_time():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 100, 50_000)
    start = time.perf_counter()
    thresholds = membership.class_thresholds(rng.normal(1, 1, 50_000), labels, rng.normal(0, 1, 50_000), labels, 100)
    # The search of all pairs takes 100 times as long; the margin is for busy machines.
    assert time.perf_counter() - start < 2
    assert 0.2 < np.median(thresholds) < 0.8


def attacked(shift=0.0, seed=0, n=400, classes=4):
    """Logits of samples whose true class is higher by `shift`."""
    logits, labels = outputs(n, classes, 1.5, seed)
    logits[np.arange(n), labels] += shift
    return logits, labels


def test_a_leak_is_caught_and_unseen_samples_are_not_called_members_more_often_than_others():
    members, others = attacked(4.0, 0), attacked(1.0, 1)
    leaking = membership.song_mittal(members, others, attacked(4.0, 2), attacked(1.0, 3))
    for name, rates in leaking.items():
        assert (rates.member + rates.non_member) / 2 > 0.6, name
    blind = membership.song_mittal(attacked(1.0, 4), others, attacked(1.0, 5), attacked(1.0, 6))
    for name, rates in blind.items():
        # Two shares of 400 samples each: standard error of their mean at most 0.018.
        assert (rates.member + rates.non_member) / 2 == pytest.approx(0.5, abs=0.07), name
    forgotten = membership.song_mittal(members, others, None, attacked(1.0, 3))
    assert forgotten["entropy"].non_member == leaking["entropy"].non_member and np.isnan(forgotten["entropy"].member)
    retained = membership.entropy_attack(members[0], others[0], attacked(4.0, 2)[0]).member_rate
    unseen = membership.entropy_attack(members[0], others[0], attacked(1.0, 3)[0]).member_rate
    assert retained > 0.7 > 0.5 > unseen


def test_the_sigmoid_is_the_minimum_of_its_loss():
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=60), np.ones(60), np.r_[-np.ones(30), np.ones(30)] * 50):
        targets, weights = rng.uniform(size=60).round(), rng.uniform(0.5, 2, 60)
        slope, intercept = membership.fit_sigmoid(values, targets, weights, ridge=1.0)
        miss = weights * (1 / (1 + np.exp(-slope * values - intercept)) - targets)
        assert abs((miss * values).sum() + slope) < 1e-5 and abs(miss.sum()) < 1e-5


def test_wrong_input_gets_one_clear_error():
    logits, labels = outputs(8, 3)
    broken = logits.copy()
    broken[2, 1] = np.nan
    sure = (logits, labels)
    with pytest.raises(errors.DataError, match=r"logits contains 1 value.*\(2, 1\)"):
        membership.features(broken, labels)
    with pytest.raises(errors.ShapeError, match="retain_labels"):
        membership.features(logits, labels[:-1], name="retain")
    with pytest.raises(errors.DataError, match="labels must lie in"):
        membership.features(logits, labels + 1)
    with pytest.raises(errors.DataError, match="at least 1 sample and 2 classes"):
        membership.features(logits[:, :1], labels * 0)
    with pytest.raises(errors.DataError, match="at least 1 sample"):
        membership.features(logits[:0], labels[:0])
    with pytest.raises(errors.ConfigError, match="faithfull.*Did you mean"):
        membership.features(logits, labels, compat="faithfull")
    with pytest.raises(errors.DataError, match="Are these logits"):
        membership.probability_features(logits, labels)
    with pytest.raises(errors.ShapeError, match="shadow_non_member.*axis C"):
        membership.song_mittal(sure, outputs(8, 4), sure, sure)
    with pytest.raises(errors.ShapeError, match="one model at a time"):
        membership.song_mittal((logits[None], labels), sure, sure, sure)
    with pytest.raises(errors.DataError, match="target_member_logits"):
        membership.song_mittal(sure, sure, (broken, labels), None)
    with pytest.raises(errors.DataError, match="non_member contains no sample"):
        membership.class_thresholds(labels * 1.0, labels, labels[:0] * 1.0, labels[:0], 3)
    with pytest.raises(errors.ShapeError, match="forget_logits.*axis C"):
        membership.entropy_attack(logits, logits, logits[:, :2])
    with pytest.raises(errors.DataError, match="test_logits contains 1"):
        membership.entropy_attack(logits, broken, logits)
