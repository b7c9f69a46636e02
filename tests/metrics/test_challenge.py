"""The challenge's forget score: golden arrays of the published scorer, a reference that tries all rules, bad input."""

import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxunlearn import errors
from jaxunlearn.metrics.epsilon import challenge

FILE = np.load(Path(__file__).resolve().parents[1] / "golden" / "forget_precision" / "deepmind_metric.npz")


def shown(missed, taken, delta):
    """Largest epsilon of rules with these numbers of (wrong, of how many) models of either group; NaN: no rule."""
    fnr, fpr = (np.asarray(wrong / total, np.float32) for wrong, total in (missed, taken))
    keep = np.float32(1 - delta)
    with np.errstate(divide="ignore", invalid="ignore"):
        forms = np.stack([np.log(keep - fpr) - np.log(fnr), np.log(keep - fnr) - np.log(fpr), np.zeros_like(fnr)])
    largest = np.nanmax(forms, 0)
    largest[(fnr == 0) | (fpr == 0)] = np.nan
    largest[(fnr == 0) & (fpr == 0)] = np.inf
    return np.nanmax(largest, initial=-1)


def naive_epsilon(retrained, unlearned, delta=1e-5):
    """One sample, [Nr] and [Nu]: all rules written out, every one applied to every model."""
    ranges = np.ptp(retrained), np.ptp(unlearned)
    if max(ranges) > 0 and min(ranges) / max(ranges) < 0.01:
        return 50.0
    positive, negative = (
        (retrained, unlearned) if np.median(retrained) > np.median(unlearned) else (unlearned, retrained)
    )
    every = np.concatenate([retrained, unlearned])
    size = math.ceil((every.max() - every.min()) * 100)
    low, high = np.float32(every.min()), np.float32(every.max())
    step = (high - low) / np.float32(max(size - 1, 1))
    upwards = np.arange(size, dtype=np.float32)
    tau = np.where(upwards < max(size // 2, size == 1), low + step * upwards, high - step * upwards[::-1])
    tau = tau.astype(np.float64)[:, None]
    missed, taken = (positive < tau).sum(1), (negative >= tau).sum(1)
    result = [shown((missed, len(positive)), (taken, len(negative)), delta)]

    inside, outside = (positive, negative) if np.ptp(positive) < np.ptp(negative) else (negative, positive)
    width = np.ptp(inside)
    start, stop = inside.min() + width - 2, inside.max() + 2
    rules = []
    for right in np.linspace(start, stop, num=math.ceil((stop - start) * 100)):
        left = np.linspace(right - width - 2, right - width + 2, num=400)[:, None]
        rules.append([((left <= group) & (group <= right)).sum(1) for group in (inside, outside)])
    hits, taken = np.stack(rules, 1)
    result.append(shown((len(inside) - hits, len(inside)), (taken, len(outside)), delta))
    return min(max(*result, 0.0), 50.0)


def naive(retrained, unlearned, delta=1e-5):
    return np.array([naive_epsilon(*pair, delta) for pair in zip(retrained, unlearned, strict=True)])


@pytest.mark.parametrize("case", ["conf0", "conf1"])
def test_the_published_confidence(case):
    logits, labels = FILE[f"{case}__logits"], FILE[f"{case}__y"]
    kept = logits.copy()
    np.testing.assert_allclose(challenge.scaled_confidence(logits, labels), FILE[f"{case}__conf"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(logits, kept)  # the published function overwrites it
    of_float64 = challenge.scaled_confidence(logits.astype(np.float64), labels)
    np.testing.assert_allclose(of_float64, FILE[f"{case}__conf_from_float64"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["dm0", "dm1", "dm2"])
def test_the_published_epsilons_and_score(case):
    retrained, unlearned = FILE[f"{case}__retrained"].T, FILE[f"{case}__unlearned"].T
    epsilons = challenge.challenge_epsilon(retrained, unlearned)
    np.testing.assert_allclose(epsilons, FILE[f"{case}__eps"], rtol=0, atol=1e-5)
    score = challenge.challenge_score(epsilons, retrained.shape[1])
    assert score == pytest.approx(float(FILE[f"{case}__forget_score"]), abs=1e-6)
    np.testing.assert_array_equal(epsilons, naive(retrained, unlearned))  # so the reference equals the published scorer


def test_the_published_points():
    for n_models, points in zip(FILE["bucket__num_models"], FILE["bucket__points"], strict=True):
        np.testing.assert_array_equal(challenge.bins(FILE["bucket__eps"], int(n_models)), points)


def test_confidence_over_models_is_that_of_each_model_and_bounded():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 4, (5, 3, 6)).astype("f4"), rng.integers(0, 6, 5)
    together = challenge.scaled_confidence(logits, labels)
    for model in range(3):
        np.testing.assert_array_equal(together[:, model], challenge.scaled_confidence(logits[:, model], labels))
    odds = np.log(np.exp(logits[2, 1, labels[2]]) / (np.exp(logits[2, 1]).sum() - np.exp(logits[2, 1, labels[2]])))
    assert together[2, 1] == pytest.approx(odds, rel=1e-4)
    sure = challenge.scaled_confidence(np.float32([[1000, 0, 0], [0, 1000, 0], [np.inf, 0, -np.inf]]), np.zeros(3, int))
    limit = -math.log(1e-45)
    np.testing.assert_allclose(sure, [limit, -limit, limit], rtol=1e-12)
    half = logits.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(
        challenge.scaled_confidence(half, labels), challenge.scaled_confidence(half.astype("f4"), labels)
    )


@st.composite
def groups(draw):
    """Two groups of a few samples: continuous, tied, or on the very grid of the rules; shifted, scaled, constant."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["continuous", "ties", "grid", "tight", "sure"]))
    sizes = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    scale = draw(st.sampled_from([0.0, 0.02, 0.8, 1.0, 3.0]))
    shift = draw(st.sampled_from([0.0, 0.01, 1.0, 7.0, 200.0]))
    pairs = []
    for size in sizes:
        values = rng.normal(0, 1, (2, size))
        if kind == "ties":
            values = np.round(values)
        elif kind == "grid":
            values = np.round(values, 2)
        elif kind == "tight":
            values = 0.003 * values
        elif kind == "sure":
            values = np.clip(40 * values, -50, 50)
        pairs.append(values)
    return pairs[0], pairs[1] * scale + shift


@given(groups(), st.sampled_from([0.0, 1e-5, 0.05]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_epsilon_is_the_largest_of_all_rules(pair, delta, swap):
    retrained, unlearned = pair[::-1] if swap else pair
    epsilons = challenge.challenge_epsilon(retrained, unlearned, delta)
    np.testing.assert_array_equal(epsilons, naive(retrained, unlearned, delta))
    assert np.all((epsilons >= 0) & (epsilons <= 50))


def test_every_rule_counts_with_more_models_too():
    """Groups of the size and shape that published models have, where most rules never need to be looked at."""
    rng = np.random.default_rng(1)
    retrained, unlearned = rng.normal(4, 1.5, (4, 40)), rng.normal(5, 1.2, (4, 50))
    np.testing.assert_array_equal(challenge.challenge_epsilon(retrained, unlearned), naive(retrained, unlearned))


@pytest.mark.parametrize(("retrained", "unlearned"), [
    ([-6, -5, -6, 2, 0, 2, -3], [-4, -3, -8, -7, 0, -2, 0]), ([-5, -1, -3, 3, 3, 3, 6], [6, -4, -5, -5, 3, 6, 6]),
])  # fmt: skip
def test_of_equal_medians_a_high_confidence_means_the_unlearned_group(retrained, unlearned):
    groups = np.array([retrained], float), np.array([unlearned], float)
    assert np.median(retrained) == np.median(unlearned)
    epsilons, swapped = challenge.challenge_epsilon(*groups), challenge.challenge_epsilon(*groups[::-1])
    np.testing.assert_array_equal(epsilons, naive_epsilon(*map(np.ravel, groups)))
    assert swapped != epsilons  # so that it matters


def test_the_order_of_models_changes_nothing_and_samples_keep_theirs():
    rng = np.random.default_rng(2)
    retrained, unlearned = rng.normal(0, 1, (6, 20)), rng.normal(rng.uniform(0, 2, (6, 1)), 1, (6, 16))
    epsilons = challenge.challenge_epsilon(retrained, unlearned)
    mixed = challenge.challenge_epsilon(retrained[:, rng.permutation(20)], unlearned[:, rng.permutation(16)])
    np.testing.assert_array_equal(epsilons, mixed)
    order = rng.permutation(6)
    np.testing.assert_array_equal(challenge.challenge_epsilon(retrained[order], unlearned[order]), epsilons[order])
    np.testing.assert_array_equal(challenge.challenge_epsilon(unlearned, retrained), epsilons)  # without ties


def test_epsilon_grows_with_the_distance_and_stays_below_what_the_models_can_show():
    rng = np.random.default_rng(3)
    retrained, noise = rng.normal(0, 1, (30, 24)), rng.normal(0, 1, (30, 24))
    medians = [np.median(challenge.challenge_epsilon(retrained, noise + shift)) for shift in (0, 1, 2, 4, 20)]
    assert medians == sorted(medians) and medians[-1] == 50 and 0 < medians[0] < 2
    epsilons = challenge.challenge_epsilon(retrained, noise + 1)
    assert epsilons[epsilons < 50].max() <= math.log(23)


def test_groups_that_say_nothing_that_are_separate_or_peaky():
    constant = np.full((1, 5), 2.5)
    spread = np.linspace(0, 5, 7)[None]
    assert challenge.challenge_epsilon(constant, constant) == 0  # the published scorer asserts
    assert challenge.challenge_epsilon(constant, constant + 3) == 50
    assert challenge.challenge_epsilon(spread, spread + 20) == 50
    assert challenge.challenge_epsilon(constant, spread) == 50  # in the midst of the others, but peaky
    assert challenge.challenge_epsilon(spread, 2.5 + spread * 0.0099) == 50
    assert challenge.challenge_epsilon(spread, spread) < 1
    assert challenge.challenge_epsilon([[1.0]], [[2.0]]) == 50 and challenge.challenge_epsilon([[1.0]], [[1.0]]) == 0


@given(st.lists(st.floats(0, 60), min_size=2, max_size=30), st.integers(1, 600))
@settings(max_examples=50, deadline=None)
def test_points_fall_with_epsilon_and_more_models_never_take_any(epsilon, n_models):
    points = challenge.bins(np.sort(epsilon), n_models)
    assert np.all(np.diff(points) <= 0) and np.all((points >= 0) & (points <= 1))
    assert np.all(challenge.bins(np.sort(epsilon), n_models + 1) >= points)
    assert challenge.challenge_score(epsilon, n_models) == pytest.approx(points.mean())


def test_the_final_score_is_times_both_ratios_of_means():
    score = challenge.final_score(
        0.2, unlearned_retain=[0.8, 1.0], retrained_retain=[1.0], unlearned_test=0.5, retrained_test=[0.4, 0.4]
    )
    assert score == pytest.approx(0.2 * 0.9 * 1.25)


@pytest.mark.parametrize(
    "retrained, unlearned, delta, error, message",
    [
        (np.zeros((2, 3)), np.zeros((3, 3)), 0, errors.ShapeError, "axis S"),
        (np.zeros(3), np.zeros((1, 3)), 0, errors.ShapeError, "expected 2 axes"),
        (np.zeros((2, 0)), np.zeros((2, 3)), 0, errors.ShapeError, "at least one"),
        (np.zeros((1, 2)), np.array([[0, np.nan]]), 0, errors.DataError, "unlearned contains 1 value"),
        (np.zeros((1, 2)), np.array([[0, 1e6]]), 0, errors.DataError, "log-odds"),
        (np.zeros((1, 2)), np.zeros((1, 2)), 1.0, errors.ConfigError, "delta"),
    ],
)
def test_bad_confidences(retrained, unlearned, delta, error, message):
    with pytest.raises(error, match=message):
        challenge.challenge_epsilon(retrained, unlearned, delta)


@pytest.mark.parametrize(
    "logits, labels, error, message",
    [
        (np.zeros((4, 3)), np.zeros(3, int), errors.ShapeError, "logits have shape"),
        (np.zeros((4, 1)), np.zeros(4, int), errors.ShapeError, "two classes"),
        (np.zeros((4,)), np.zeros(4, int), errors.ShapeError, "logits have shape"),
        (np.zeros((2, 5, 3)), np.array([0, 3]), errors.DataError, r"\[0, 2\]"),
        (np.full((1, 2, 3), np.nan), np.zeros(1, int), errors.DataError, "NaN"),
    ],
)
def test_bad_logits(logits, labels, error, message):
    with pytest.raises(error, match=message):
        challenge.scaled_confidence(logits, labels)


def test_bad_scores():
    for epsilon in ([np.nan], [-0.1]):
        with pytest.raises(errors.DataError, match="at least 0"):
            challenge.bins(epsilon, 8)
    with pytest.raises(errors.DataError, match="no sample"):
        challenge.challenge_score([], 8)
    with pytest.raises(errors.ConfigError, match="n_models"):
        challenge.bins([1.0], 0)
    good = dict.fromkeys(("unlearned_retain", "retrained_retain", "unlearned_test", "retrained_test"), [0.5])
    for name, value, message in (
        ("retrained_test", [0.0], "0 everywhere"),
        ("unlearned_retain", [], "contains no accuracy"),
        ("unlearned_test", [np.nan], "unlearned_test contains 1"),
    ):
        with pytest.raises(errors.DataError, match=message):
            challenge.final_score(0.1, **{**good, name: value})
