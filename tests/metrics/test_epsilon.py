"""epsilon-hat: published models and code, the definition as a loop, what must hold, odd groups, bad input."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxunlearn import errors
from jaxunlearn.metrics.epsilon import attack_rules, epsilon

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "forget_precision"
APPROACHES = ("finetune", "prune", "poison", "activation_reset")


def golden(name):
    return np.load(GOLDEN / f"{name}.npz")


def drawn(shift, models=40, samples=200, seed=0):
    """Statistics of two groups whose means lie `shift` standard deviations apart."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=(samples, models)), generator.normal(shift, 1, (samples, models))


def by_definition(retrained, unlearned, delta, smoothing=epsilon.SMOOTHING):
    """One sample as the paper says it: every observed score as a threshold, both one-sided formulas."""
    is_positive = np.median(retrained) > np.median(unlearned)
    positive, negative = (retrained, unlearned) if is_positive else (unlearned, retrained)
    result = []
    for threshold in np.unique(np.concatenate([retrained, unlearned])):
        fpr, fnr = np.mean(negative >= threshold), np.mean(positive < threshold)
        if fpr == 0 and fnr == 0:
            return np.inf
        if fpr == 0 or fnr == 0:
            continue
        for group, other in ((fpr, fnr), (fnr, fpr)):
            if 1 - delta - group + smoothing > 0:
                result.append(np.log(1 - delta - group + smoothing) - np.log(other + smoothing))
    return max(result) if result else np.nan


@pytest.mark.parametrize("approach", APPROACHES)
def test_every_sample_of_the_published_models(approach):
    margins, published = golden("real_margins"), golden("real_epsilon")
    counts = epsilon.count(margins["retain"], margins[approach])
    epsilons = epsilon.epsilon_from_counts(counts)
    np.testing.assert_allclose(epsilons, published[f"{approach}__eps"], atol=1e-9, rtol=0)
    np.testing.assert_array_equal(counts.retrained_is_positive, published[f"{approach}__retain_median_larger"])
    medians = [epsilon.summarise(line).median for line in epsilon.epsilon_sweep(counts, published["delta_grid"])]
    np.testing.assert_allclose(medians, published[f"{approach}__sweep_median"], atol=1e-9, rtol=0)
    summary = epsilon.summarise(epsilons)
    numbers = summary.median, summary.mean, summary.half_width, summary.nan, summary.inf, summary.negative
    np.testing.assert_allclose(numbers, published[f"{approach}__summary"], atol=1e-5)
    for group, name in (("retain", "retain"), (approach, "unlearn")):
        fitted = attack_rules.fit(margins[group])
        np.testing.assert_allclose(fitted.mean[:, 0], published[f"{approach}__margin_mean_{name}"], atol=1e-5)
        np.testing.assert_allclose(fitted.std[:, 0], published[f"{approach}__margin_std_{name}"], atol=1e-5)


@pytest.mark.parametrize("approach", APPROACHES)
def test_published_logits_under_every_score(approach):
    file, published, margins = golden("real_rows"), golden("real_epsilon"), golden("real_margins")
    rows, labels = file["rows"], file["labels"][file["rows"]]
    np.testing.assert_array_equal(attack_rules.margins(file[approach], labels), margins[approach][rows])
    cases = {
        "eps": {},
        "eps_loss": {"score": "loss", "compat": "faithful"},
        "eps_loss_without_label_column": {"score": "loss"},
    }
    for name, options in cases.items():
        epsilons = epsilon.epsilon_hat(file["retain"], file[approach], labels, **options)
        np.testing.assert_allclose(epsilons, published[f"{approach}__{name}"][rows], atol=1e-6, rtol=0)


def test_the_published_floor_of_retrained_models_against_each_other():
    counts = epsilon.count(*epsilon.halves(golden("real_margins")["retain"]))
    summary = epsilon.summarise(epsilon.epsilon_from_counts(counts))
    assert counts.sizes == (40, 40)
    np.testing.assert_allclose(
        [summary.median, summary.finite_mean, summary.half_width], [0.875469, 0.9374, 0.0325], atol=5e-5
    )
    assert (summary.nan, summary.inf, summary.negative) == (0, 0, 5)
    at_99 = epsilon.epsilon_sweep(counts, np.array([0.0, 0.05, 0.1, 0.3, 0.9, 0.98]))
    medians = [epsilon.summarise(line).median for line in at_99]
    np.testing.assert_allclose(medians, [1.3863, 0.8755, 0.4855, -0.1892, -2.4849, np.nan], atol=5e-5)


@pytest.mark.parametrize("score", ["gaussian", "loss"])
@pytest.mark.parametrize("case", ["basic", "binary", "grid", "close"])
def test_small_logits_of_the_published_code(case, score):
    file = golden("epsilon_synthetic")
    retrained, unlearned = file[f"{case}__retain"], file[f"{case}__unlearn"]
    labels = retrained[:, 0].argmax(-1)
    np.testing.assert_allclose(
        attack_rules.margins(retrained[:, 1:], labels), file[f"{case}__margin_retain"], atol=1e-6
    )
    for delta in ("0", "0.05", "0.3"):
        epsilons = epsilon.epsilon_hat(
            retrained[:, 1:], unlearned[:, 1:], labels, float(delta), score=score, compat="faithful"
        )
        name = f"{case}__eps_{score}_d{delta}"
        kept = file[f"{name}_robust"].astype(bool) if f"{name}_robust" in file else np.ones(len(epsilons), bool)
        assert kept.mean() > 0.5
        np.testing.assert_allclose(epsilons[kept], file[name][kept], atol=1e-6, rtol=0)


def test_scores_to_rates_to_epsilon_of_the_published_code():
    file = golden("epsilon_synthetic")
    cases = sorted({name.split("__")[0] for name in file if name.startswith("ge")})
    assert len(cases) > 1
    for case in cases:
        negative, positive = file[f"{case}__scores_neg"], file[f"{case}__scores_pos"]
        assert np.median(positive) >= np.median(negative)  # what decides here who is positive
        counts = epsilon.count(negative[None], positive[None], "margin")
        for name, smoothing in (("eps", epsilon.SMOOTHING), ("eps_agedb", 0.0)):
            epsilons = epsilon.epsilon_sweep(counts, np.array([0, 0.05, 0.5, 0.9]), smoothing)[:, 0]
            np.testing.assert_allclose(epsilons, file[f"{case}__{name}"], atol=1e-6, err_msg=f"{case} {name}")


@pytest.mark.parametrize("case", ["age0", "age1"])
def test_regression_of_the_published_code(case):
    file = golden("agedb_regression_epsilon")
    given_arrays = file[f"{case}__preds_retrain"], file[f"{case}__preds_unlearn"], file[f"{case}__labels"]
    epsilons = epsilon.regression_epsilon(*given_arrays)
    np.testing.assert_allclose(epsilons, file[f"{case}__per_sample_d0.05"], atol=1e-5)
    medians = [epsilon.summarise(epsilon.regression_epsilon(*given_arrays, delta)).median for delta in (0, 0.05, 0.2)]
    np.testing.assert_allclose(medians, file[f"{case}__forget_quality"], atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([(1, 1), (2, 3), (5, 5), (8, 4)]), st.sampled_from([0.0, 0.05, 0.4]))
def test_counting_equals_the_definition_with_ties_and_unequal_groups(seed, sizes, delta):
    generator = np.random.default_rng(seed)
    groups = [
        np.round(generator.normal(shift, 1, (4, size)) * 2) / 2 for shift, size in zip((0, 0.7), sizes, strict=True)
    ]
    counts = epsilon.count(*groups, "margin")
    expected = [
        0.0 if len(np.unique(np.concatenate(pair))) == 1 else by_definition(*pair, delta)
        for pair in zip(*groups, strict=True)
    ]
    np.testing.assert_allclose(epsilon.epsilon_from_counts(counts, delta), expected, atol=1e-12)


@pytest.mark.parametrize("score", ["gaussian", "margin"])
def test_order_of_models_plays_no_part(score):
    retrained, unlearned = drawn(0.8)
    generator = np.random.default_rng(1)
    mixed = (generator.permutation(group, axis=1) for group in (retrained, unlearned))
    epsilons = [epsilon.epsilon_from_counts(epsilon.count(*pair, score)) for pair in ((retrained, unlearned), mixed)]
    # Sums of the fit round by order: nearly tied ratios may change places.
    assert np.mean(epsilons[0] != epsilons[1]) <= 0.01
    np.testing.assert_allclose(np.median(epsilons[0]), np.median(epsilons[1]), atol=1e-6)


@pytest.mark.parametrize("score", ["gaussian", "margin"])
def test_samples_keep_their_order(score):
    retrained, unlearned = drawn(0.8)
    backwards = epsilon.count(retrained[::-1], unlearned[::-1], score)
    epsilons = epsilon.epsilon_from_counts(epsilon.count(retrained, unlearned, score))
    np.testing.assert_array_equal(epsilon.epsilon_from_counts(backwards)[::-1], epsilons)


def test_a_growing_shift_raises_epsilon_up_to_the_ceiling_of_so_many_models():
    medians = []
    for shift in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0):
        epsilons = epsilon.epsilon_from_counts(epsilon.count(*drawn(shift)))
        assert epsilons[np.isfinite(epsilons)].max() <= epsilon.max_finite((40, 40)) + 1e-9
        medians.append(epsilon.summarise(epsilons).median)
    assert (np.diff(medians) > 0.1).all()
    assert medians[-1] > 0.9 * epsilon.max_finite((40, 40))
    assert np.isposinf(epsilon.epsilon_from_counts(epsilon.count(*drawn(12.0)))).all()


def test_equal_distributions_give_the_floor_that_splitting_one_group_gives():
    retrained, unlearned = drawn(0.0, models=80, samples=400)
    summary = epsilon.summarise(epsilon.epsilon_from_counts(epsilon.count(retrained[:, :40], unlearned[:, :40])))
    floor = epsilon.summarise(epsilon.epsilon_from_counts(epsilon.count(*epsilon.halves(retrained))))
    assert abs(summary.median - floor.median) < 0.15
    assert 0.5 < floor.median < 1.3
    # A floor of the estimate, not a property of the models: it sinks with their number.
    more = epsilon.summarise(epsilon.epsilon_from_counts(epsilon.count(retrained, unlearned)))
    assert more.median < floor.median - 0.2


@pytest.mark.parametrize(
    ("sizes", "delta", "expected"),
    [((80, 80), 0.05, 4.317488), ((40, 40), 0.05, 3.610918), ((16, 16), 0.05, 2.653242), ((512, 512), 0.0, 6.236364)],
)
def test_the_ceiling_of_so_many_models(sizes, delta, expected):
    assert epsilon.max_finite(sizes, delta) == pytest.approx(expected, abs=1e-5)
    assert np.isnan(epsilon.max_finite((1, 1), 0.05))


def test_one_model_per_group_and_groups_without_spread():
    same, other = np.zeros((1, 1)), np.ones((1, 1))
    for score in ("gaussian", "margin"):
        assert epsilon.epsilon_from_counts(epsilon.count(same, same, score)) == [0.0]
        assert np.isposinf(epsilon.epsilon_from_counts(epsilon.count(same, other, score)))
    constant, spread = np.full((3, 10), [[2.0], [0.0], [-5.0]]), np.random.default_rng(0).normal(size=(3, 10))
    epsilons = epsilon.epsilon_from_counts(epsilon.count(constant, spread))
    # All models of one group agree to the last digit: that alone tells them apart.
    assert np.isposinf(epsilons).all()
    np.testing.assert_array_equal(epsilon.epsilon_from_counts(epsilon.count(constant, constant)), 0.0)
    assert np.isposinf(epsilon.epsilon_from_counts(epsilon.count(constant, constant + 1e-3))).all()


def test_the_same_models_on_both_sides_are_no_evidence():
    retrained, _ = drawn(0.0)
    epsilons = epsilon.epsilon_from_counts(epsilon.count(retrained, retrained))
    assert (np.isnan(epsilons) | (epsilons <= 0)).all()


def test_masked_classes_make_no_infinite_margins():
    generator = np.random.default_rng(0)
    retrained, unlearned = generator.normal(size=(2, 5, 12, 4)).astype(np.float32)
    labels = np.array([0, 1, 2, 3, 0])
    masked = retrained.copy()
    masked[..., 3] = -np.inf
    epsilons = epsilon.epsilon_hat(masked, unlearned, labels)
    assert not np.isnan(epsilons).any()
    assert np.isposinf(epsilons[3])  # the true class was masked in one group only
    margins = attack_rules.margins(masked, labels)
    assert np.isfinite(margins).all()
    assert margins[3].max() < -0.9 * attack_rules.LARGEST_LOGIT


@pytest.mark.parametrize("score", ["gaussian", "loss", "margin"])
def test_a_common_shift_of_all_logits_changes_nothing(score):
    """Softmax does not see it; in float32 logits of 2e6 keep an eighth."""
    generator = np.random.default_rng(0)
    retrained, unlearned = (np.round(generator.normal(mean, 4, (6, 20, 3)) * 4) / 4 for mean in (0, 1))
    labels = np.arange(6) % 3
    epsilons = epsilon.epsilon_hat(retrained, unlearned, labels, score=score)
    far = epsilon.epsilon_hat(retrained + 2**21, unlearned + 2**21, labels, score=score)
    np.testing.assert_array_equal(far, epsilons)


def test_errors_of_a_regression_survive_beside_large_values():
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 0.01, (4, 30)), generator.normal(0, 0.2, (4, 30))
    expected = epsilon.regression_epsilon(*noise, np.zeros(4))
    prices = np.full(4, 450_000.0)
    epsilons = epsilon.regression_epsilon(*(prices[:, None] + group for group in noise), prices)
    np.testing.assert_allclose(epsilons, expected, atol=1e-6)


def test_ratios_beyond_float32_keep_their_order():
    generator = np.random.default_rng(0)
    retrained = generator.normal(0, 0.01, (3, 20))
    epsilons = epsilon.epsilon_from_counts(epsilon.count(retrained, retrained + 5.0))
    assert np.isposinf(epsilons).all()  # 500 deviations apart: the published quotient of densities is 0 / 0


def test_a_summary_of_infinite_and_undefined_samples():
    values = np.array([np.nan, np.inf, 1.0, -0.5, np.inf, np.inf])
    summary = epsilon.summarise(values)
    assert (summary.median, summary.nan, summary.inf, summary.negative) == (np.inf, 1, 3, 1)
    assert summary.mean == np.inf and np.isnan(summary.half_width) and summary.finite_mean == 0.25
    assert summary.low_quartile == 1.0
    assert np.isnan(epsilon.summarise(np.full(3, np.nan)).median)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([0, 4])}, "labels must lie in"),
        ({"labels": np.array([0, 1, 1])}, "axis S"),
        ({"unlearned": np.zeros((2, 3, 5), np.float32)}, "axis C"),
        ({"unlearned": np.full((2, 3, 4), np.nan, np.float32)}, "unlearned contains 24 NaN"),
        ({"retrained": np.zeros((2, 0, 4), np.float32)}, "at least one sample"),
        ({"score": "gausian"}, "gaussian"),
        ({"compat": "exact"}, "compat"),
        ({"delta": 1.0}, "delta"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_name(change, message):
    generator = np.random.default_rng(0)
    good = {"retrained": generator.normal(size=(2, 3, 4)), "unlearned": generator.normal(size=(2, 3, 4)),
            "labels": np.array([0, 3])}  # fmt: skip
    with pytest.raises(errors.UserError, match=message):
        epsilon.epsilon_hat(**{**good, **change})


def test_bad_predictions_are_refused_by_name():
    with pytest.raises(errors.DataError, match="targets"):
        epsilon.regression_epsilon(np.zeros((2, 3)), np.zeros((2, 3)), np.array([0.0, np.inf]))
    with pytest.raises(errors.ShapeError, match="two retrained"):
        epsilon.halves(np.zeros((4, 1)))
