"""Intervals of epsilon-hat over models, and its lower bound: coverage in simulations, pairing, known epsilon."""

import numpy as np
import pytest
import scipy.stats

from jaxunlearn import errors
from jaxunlearn.metrics.epsilon import epsilon, epsilon_bounds
from jaxunlearn.metrics.inference import intervals


def drawn(generator, shift, models=24, samples=16):
    """Margins of two groups of models; half of what differs between models is common to all samples.

    Sixteen samples are what the kernels compare together: no second program for a rest.
    """
    groups = []
    for mean in (0.0, shift):
        common, values = generator.normal(size=(1, models)), generator.normal(size=(samples, models))
        groups.append((mean + np.sqrt(0.5) * (common + values)).astype(np.float32))
    return tuple(groups)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_interval_covers_what_other_models_would_show(shift):
    generator = np.random.default_rng(int(10 * shift))
    repetitions = [drawn(generator, shift) for _ in range(80)]
    medians = [epsilon.summarise(epsilon.epsilon_from_counts(epsilon.count(*pair))).median for pair in repetitions]
    # The first half says what is true, the second is put to the test.
    truth = np.mean(medians[:40])
    resamples = [epsilon_bounds.bootstrap({"a": pair}, iterations=60) for pair in repetitions[40:]]
    inside = [
        bounds.low <= truth <= bounds.high for bounds in (epsilon_bounds.interval(each, "a") for each in resamples)
    ]
    assert np.mean(inside) >= 0.85  # of 40 at level .95: below that by chance once in 100
    widths = [epsilon_bounds.interval(each, "a").high - epsilon_bounds.interval(each, "a").low for each in resamples]
    assert 0.5 < np.mean(widths) / (2 * 1.96 * np.std(medians)) < 2


def test_differences_are_paired_by_the_retrained_models():
    generator = np.random.default_rng(0)
    retrained, near = drawn(generator, 0.5)
    _, far = drawn(generator, 2.0)
    resamples = epsilon_bounds.bootstrap({"near": (retrained, near), "far": (retrained, far)})
    apart = epsilon_bounds.differences(resamples, ("near", "far"), "far")
    assert apart["near"].value == resamples.values["near"] - resamples.values["far"] and apart["near"].high < 0
    assert tuple(apart["far"]) == (0.0, 0.0, 0.0)
    single = epsilon_bounds.bootstrap({"far": (retrained, far)})
    np.testing.assert_array_equal(single.medians["far"], resamples.medians["far"])
    # With the retrained models drawn independently of each other the difference would be less certain.
    other, _ = drawn(generator, 0.0)
    shared = np.concatenate([retrained, other])  # samples of one approach are those of the other
    both = {"a": (shared, np.concatenate([near, far])), "b": (shared, np.concatenate([far, near]))}
    resampled = epsilon_bounds.bootstrap(both)
    independent = np.hypot(*(resampled.medians[name].std() for name in both))
    assert (resampled.medians["a"] - resampled.medians["b"]).std() < independent


def test_of_many_equal_approaches_the_best_is_rarely_said_to_be_better():
    generator = np.random.default_rng(0)
    names, wrong, singly = tuple("abcdef"), 0, 0
    for number in range(40):
        retrained = drawn(generator, 0.0)[0]
        pairs = {name: (retrained, drawn(generator, 0.8)[1]) for name in names}
        resamples = epsilon_bounds.bootstrap(pairs, iterations=60, seed=number)
        best = min(names, key=resamples.values.get)
        wrong += any(bounds.low > 0 for bounds in epsilon_bounds.differences(resamples, names, best).values())
        singly += any(epsilon_bounds.differences(resamples, (best, name), best)[name].low > 0 for name in names)
    assert wrong <= 8 and wrong < singly  # 15 pairs at .95 each are wrong somewhere nearly half of the time


def test_equal_groups_show_what_the_baseline_of_so_many_models_shows():
    generator = np.random.default_rng(0)
    result = {sizes: epsilon_bounds.simulate_null_median(sizes) for sizes in ((40, 40), (80, 80), (20, 60))}
    for sizes, simulated in result.items():
        groups = (generator.normal(3, 2, (512, size)) for size in sizes)
        shown = epsilon.summarise(epsilon.epsilon_from_counts(epsilon.count(*groups))).median
        assert simulated == pytest.approx(shown, abs=0.12)
    assert result[80, 80] < result[40, 40] - 0.2


def test_separated_groups_have_an_open_interval_from_the_ceiling_on():
    generator = np.random.default_rng(0)
    retrained, far = drawn(generator, 30.0)
    _, near = drawn(generator, 0.5)
    resamples = epsilon_bounds.bootstrap({"far": (retrained, far), "near": (retrained, near)}, iterations=20)
    bounds = epsilon_bounds.interval(resamples, "far")
    assert (bounds.value, bounds.high) == (np.inf, np.inf) and bounds.low == pytest.approx(epsilon.max_finite((24, 24)))
    apart = epsilon_bounds.differences(resamples, ("far", "near"), "near")["far"]
    assert apart.value == np.inf and apart.high == np.inf and 0 < apart.low < np.inf
    other = epsilon_bounds.differences(resamples, ("far", "near"), "far")["near"]
    assert other.low == -np.inf and other.high == pytest.approx(-apart.low)


def test_half_separated_groups_have_an_honest_lower_end():
    generator = np.random.default_rng(1)
    repetitions = [drawn(generator, 3.8) for _ in range(80)]
    medians = [epsilon.summarise(epsilon.epsilon_from_counts(epsilon.count(*pair))).median for pair in repetitions]
    assert 0.02 < np.mean(np.isinf(medians)) < 0.98
    truth = np.median(medians[:40])
    result = [epsilon_bounds.interval(epsilon_bounds.bootstrap({"a": pair}, iterations=60), "a")
             for pair in repetitions[40:]]  # fmt: skip
    assert np.mean([bounds.low <= truth for bounds in result]) >= 0.85


def test_the_table_is_made_of_clopper_pearson_limits():
    table = epsilon_bounds.bound_table((20, 30), 0.05, 0.9)
    assert table.shape == (21, 31) and np.isfinite(table).all() and (table >= 0).all()
    first, second = (intervals.clopper_pearson(2, 20, 0.9).high, intervals.clopper_pearson(5, 30, 0.9).high)
    expected = max(np.log((0.95 - first) / second), np.log((0.95 - second) / first), 0)
    assert table[2, 5] == pytest.approx(expected, abs=1e-12)
    assert table[20, 30] == 0 and table[0, 0] == table.max() == epsilon_bounds.max_bound((40, 60), 0.05, 0.9)
    assert (np.diff(table, axis=0) <= 1e-12).all() and (np.diff(table, axis=1) <= 1e-12).all()


@pytest.mark.parametrize("score", ["gaussian", "margin"])
def test_nothing_is_proven_of_equal_groups(score):
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 4000, 40))
    assert np.mean(epsilon_bounds.lower_bound(first, second, score=score) > 0) <= 0.05


def test_the_bound_stays_below_a_known_epsilon():
    # Laplace noise of scale 1 and a shift of epsilon are epsilon-indistinguishable, with delta 0, and no less.
    generator = np.random.default_rng(0)
    true = np.repeat([0.5, 1.5], 48)
    first, second = generator.laplace(size=(2, len(true), 1000))
    bounds = epsilon_bounds.lower_bound(first, second + true[:, None], 0.0, score="margin")
    for epsilon_of_all in (0.5, 1.5):
        proved = bounds[true == epsilon_of_all]
        assert np.mean(proved > epsilon_of_all) <= 0.05
        assert np.median(proved) > 0.3 * epsilon_of_all


def test_more_models_prove_more_and_separation_is_never_infinity():
    generator = np.random.default_rng(0)
    proved = []
    for models in (8, 40, 200):
        first, second = generator.normal(size=(2, 16, models))
        bounds = epsilon_bounds.lower_bound(first, second + 40)
        np.testing.assert_allclose(bounds, epsilon_bounds.max_bound((models, models)))
        proved.append(bounds[0])
    assert np.isfinite(proved).all() and (np.diff(proved) > 1).all()
    limit = scipy.stats.beta.ppf(0.975, 1, 100)
    assert proved[-1] == pytest.approx(np.log((0.95 - limit) / limit), abs=1e-9)


def test_bad_input_of_the_bounds_is_refused():
    with pytest.raises(errors.ShapeError, match="at least two"):
        epsilon_bounds.lower_bound(np.zeros((3, 1)), np.zeros((3, 4)))
    with pytest.raises(errors.ConfigError, match="iterations"):
        epsilon_bounds.bootstrap({}, iterations=1)
    with pytest.raises(errors.ConfigError, match="delta"):
        epsilon_bounds.bound_table((3, 3), 1.0)
