import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from jaxunlearn import errors
from jaxunlearn.metrics import distances

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "conformal"
METRICS = {
    "js_corrected": lambda p, q: distances.js_divergence(p, q),
    "js_faithful": lambda p, q: distances.js_divergence(p, q, compat="faithful"),
    "activation": distances.activation_distance,
}


def outputs(seed, *shape):
    return np.random.default_rng(seed).normal(0, 3, shape).astype(np.float32)


@pytest.mark.parametrize("case", ["z0", "z1"])
def test_published_distances_are_reproduced(case):
    # z*_entropy is compared in test_membership.py.
    golden = np.load(GOLDEN / "ssd_metrics.npz")
    pair = golden[f"{case}_logits_model"], golden[f"{case}_logits_gold"]
    result = distances.js_divergence(*pair, compat="faithful"), distances.zrf(*pair, compat="faithful")
    np.testing.assert_allclose(result[0], golden[f"{case}_jsdiv"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(result[1], golden[f"{case}_zrf"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(result[1], golden[f"{case}_zrf_func"], rtol=1e-6, atol=1e-6)
    actual = distances.activation_distance(*pair)
    np.testing.assert_allclose(actual, golden[f"{case}_actv_dist"], rtol=1e-6, atol=1e-6)


@trials(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 10**6))
def test_distances_equal_their_definitions(n, classes, seed):
    first, second = outputs(seed, n, classes), outputs(seed + 1, n, classes)
    softmax = [np.exp(z.astype(float)) / np.exp(z.astype(float)).sum(1, keepdims=True) for z in (first, second)]
    corrected, faithful, distance = [], [], []
    for p, q in zip(*softmax, strict=True):
        m = (p + q) / 2
        corrected.append(
            sum(a * np.log2(a / b) for probabilities in (p, q) for a, b in zip(probabilities, m, strict=True)) / 2
        )
        faithful += [b * np.log(b / a) / 2 + b * np.log(b / c) / 2 for a, b, c in zip(p, m, q, strict=True)]
        distance.append(np.sqrt(((p - q) ** 2).sum()))
    expected = {"js_corrected": corrected, "js_faithful": faithful, "activation": distance}
    for name, metric in METRICS.items():
        assert metric(first, second) == pytest.approx(np.mean(expected[name]), rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("name", METRICS)
def test_distances_are_symmetric_zero_for_equal_models_and_the_same_in_a_population(name):
    metric = METRICS[name]
    models, other = outputs(0, 3, 20, 4), outputs(1, 20, 4)
    together = metric(models, other)
    assert together.shape == (3,)
    for number, logits in enumerate(models):
        assert together[number] == metric(logits, other) > 0
        assert metric(other, logits) == pytest.approx(metric(logits, other), rel=1e-6)
        assert metric(logits, logits + 1) == pytest.approx(0, abs=1e-6)
    np.testing.assert_array_equal(metric(models, np.stack([other] * 3)), together)
    shuffled = np.random.default_rng(2).permutation(20)
    np.testing.assert_allclose(metric(models[:, shuffled], other[shuffled]), together, rtol=1e-6)


def test_saturated_probabilities_are_infinite_as_published_and_finite_corrected():
    sure, unsure = np.array([[200.0, -200, 0], [0, 0, 0]]), np.array([[-200.0, 200, 0], [0, 0, 0]])
    assert distances.js_divergence(sure, unsure, compat="faithful") == np.inf
    assert distances.zrf(sure, unsure, compat="faithful") == -np.inf
    assert distances.js_divergence(sure, unsure) == pytest.approx(0.5)
    assert distances.zrf(sure, unsure) == pytest.approx(0.5)
    assert distances.activation_distance(sure, unsure) == pytest.approx(np.sqrt(2) / 2)
    # Impossible for both models alike: adds nothing.
    assert distances.js_divergence(sure, sure, compat="faithful") == 0
    # The smallest float32 probability, which half of is 0; and logits beyond float32.
    edge = np.array([[0.0, -103.2]], np.float32)
    assert 0 < distances.js_divergence(edge, np.array([[0.0, -200]], np.float32)) < 1e-40
    assert distances.js_divergence(sure * 1e300, unsure) == pytest.approx(0.5)


def test_zrf_rises_as_a_model_approaches_the_untrained_one():
    trained, untrained = 5 * outputs(0, 50, 10), 0.1 * outputs(1, 50, 10)
    values = [distances.zrf(trained * share, untrained) for share in (1.0, 0.3, 0.0)]
    assert 0 <= values[0] < values[1] < values[2] <= 1
    # Divided by the number of classes as well, so that 100 idle ones seem to make a model forget.
    wide = [np.pad(logits, ((0, 0), (0, 90)), constant_values=-20.0) for logits in (trained * 0.3, untrained)]
    narrow = distances.zrf(trained * 0.3, untrained, compat="faithful")
    assert distances.zrf(*wide, compat="faithful") > (9 + narrow) / 10 - 1e-3
    assert distances.zrf(*wide) == pytest.approx(values[1], abs=1e-3)


@pytest.mark.parametrize("name", METRICS)
def test_wrong_input_gets_one_clear_error(name):
    metric, good = METRICS[name], outputs(0, 6, 3)
    with pytest.raises(errors.ShapeError, match="second_logits.*axis C"):
        metric(good, good[:, :2])
    with pytest.raises(errors.ShapeError, match="second_logits.*axis M"):
        metric(np.stack([good] * 3), np.stack([good] * 2))
    with pytest.raises(errors.ShapeError, match="first_logits has shape"):
        metric(good[0], good)
    with pytest.raises(errors.DataError, match="first_logits contains 1 value"):
        metric(np.where(np.arange(18).reshape(6, 3) == 4, np.inf, good), good)
    with pytest.raises(errors.DataError, match="at least 1 sample and 2 classes"):
        metric(good[:0], good[:0])
    with pytest.raises(errors.DataError, match="at least 1 sample and 2 classes"):
        metric(good[:, :1], good[:, :1])


def test_an_unknown_form_and_bad_logits_are_named():
    good = outputs(0, 6, 3)
    with pytest.raises(errors.ConfigError, match="corected.*Did you mean 'corrected'"):
        distances.zrf(good, good, compat="corected")
    with pytest.raises(errors.ShapeError, match="untrained_logits"):
        distances.zrf(good, good[:, :2])
