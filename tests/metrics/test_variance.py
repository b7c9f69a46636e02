"""Components of variance and intervals of means: golden values, properties, coverage by simulation."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from jaxunlearn.metrics.inference import intervals
from jaxunlearn.metrics.populations import variance
from jaxunlearn.records import Design

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "populations" / "variance.npz")
TABLES, LISTS = ("plain", "no_train", "one_forget"), ("unbalanced", "per_set")


def golden(case, name):
    return GOLDEN[f"{case}/{name}"]


def listed(case):
    """Values, original and forget set of every model."""
    y = golden(case, "y")
    if y.ndim == 1:
        return y, golden(case, "original"), golden(case, "forget_set")
    original, forget_set, _ = np.indices(y.shape)
    return y.ravel(), original.ravel(), forget_set.ravel()


@pytest.mark.parametrize("case", TABLES)
def test_the_analysis_of_variance_has_the_golden_numbers(case):
    estimate = variance.anova(golden(case, "y"))
    for name in ("mean", "mean_squares", "components", "se_mean", "df_mean"):
        np.testing.assert_allclose(getattr(estimate, name), golden(case, name), rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("case", (*TABLES, *LISTS))
def test_reml_has_the_golden_numbers(case):
    y, original, forget_set = listed(case)
    estimate = variance.reml(y, original, forget_set)
    tolerance = 2e-3 * np.nansum(golden(case, "reml_components"))
    np.testing.assert_allclose(estimate.components, golden(case, "reml_components"), atol=tolerance)
    np.testing.assert_allclose(estimate.mean, golden(case, "reml_mean"), atol=2e-3)
    np.testing.assert_allclose(estimate.se_mean, golden(case, "reml_se_mean"), atol=2e-3)
    theta = estimate.components[~np.isnan(estimate.components)]
    kernels = variance._kernels(*(np.unique(labels, return_inverse=True)[1] for labels in (original, forget_set)))
    matrices = np.stack([*kernels.values(), np.eye(len(y))])
    value = variance._minus_log_likelihood(np.maximum(theta, 1e-12), y - y.mean(), matrices)[0]
    assert value == pytest.approx(float(golden(case, "reml_minus_log_likelihood")), abs=1e-6)


@pytest.mark.parametrize("case", ("plain", "one_forget"))
def test_reml_of_a_whole_table_is_the_analysis_of_variance_where_all_components_are_positive(case):
    y, original, forget_set = listed(case)
    estimate, likely = variance.fit_levels(y, original, forget_set), variance.reml(y, original, forget_set)
    assert estimate.method == "analysis of variance"
    np.testing.assert_allclose(likely.components, estimate.components, rtol=1e-4)
    assert likely.df_mean == pytest.approx(estimate.df_mean, rel=1e-4)


def test_a_golden_one_to_one_design_is_fitted_as_one_factor():
    estimate = variance.fit_levels(*listed("per_set"))
    np.testing.assert_allclose(estimate.components, golden("per_set", "reml_components"), rtol=1e-6)
    assert estimate.df_mean == 7 and np.isnan(estimate.components[1:3]).all()


@pytest.mark.parametrize("shape", [(4, 5, 2), (1, 5, 2), (5, 1, 2), (4, 5, 1), (6, 1, 1), (1, 1, 6)])
def test_constants_scales_and_orders_do_what_they_must(shape):
    y = np.random.default_rng(0).normal(size=shape)
    estimate = variance.anova(y)
    moved, scaled = variance.anova(y + 7), variance.anova(-3 * y)
    mixed = variance.anova(y[np.random.default_rng(1).permutation(shape[0])][:, ::-1, ::-1])
    for other, factor in ((moved, 1), (scaled, 9), (mixed, 1)):
        np.testing.assert_allclose(other.components, factor * estimate.components, atol=1e-9)
        assert other.se_mean == pytest.approx(factor**0.5 * estimate.se_mean)
        assert other.df_mean == pytest.approx(estimate.df_mean)
    assert moved.mean == pytest.approx(estimate.mean + 7) and scaled.mean == pytest.approx(-3 * estimate.mean)
    assert np.isnan(estimate.components[0]) == (shape[0] == 1 or shape[1:] == (1, 1))
    assert np.isnan(estimate.components[1]) == (shape[1] == 1 or 1 == shape[0] == shape[2])


@pytest.mark.parametrize("kind", ["per_set", "shared", "given"])
def test_one_model_per_forget_set_gives_students_interval(kind):
    values = np.random.default_rng(2).normal(size=9)
    values[4] = np.nan
    finding = variance.mean(values, Design(kind, 9), metric="UA", of="m")
    plain = intervals.mean(values, metric="UA", of="m")
    np.testing.assert_allclose([finding.value, finding.low, finding.high], [plain.value, plain.low, plain.high])
    assert finding.n == 8 and finding.std == pytest.approx(np.nanstd(values))
    assert intervals.with_half_width(finding).std == pytest.approx(finding.high - finding.value)
    assert variance.component_findings(values, Design(kind, 9), metric="UA", of="m") == ()


def test_no_model_one_model_and_equal_models_have_no_false_interval():
    nothing = variance.mean(np.full(3, np.nan), Design("per_set", 3), metric="UA", of="m")
    assert np.isnan([nothing.value, nothing.low]).all() and nothing.n == 0
    finding = variance.mean(np.asarray([0.5]), Design("shared", 1), metric="UA", of="m")
    assert finding.value == 0.5 and np.isnan(finding.low)
    equal = variance.mean(np.full(6, 0.5), Design("crossed", 3, 2), metric="UA", of="m")
    assert equal.low == equal.high == 0.5 == equal.value


@pytest.mark.parametrize(
    ("kind", "named"),
    [("per_set", ["train and set", "unlearn"]), ("shared", ["set", "unlearn"]), ("crossed", ["train", "set", "rest"]),
     ("given", [])],
)  # fmt: skip
def test_only_what_a_design_tells_apart_gets_a_number(kind, named):
    design = Design(kind, 4, 3)
    original, forget_set = variance.design_factors(design)
    assert len(original) == 12 and forget_set[:4].tolist() == [0, 0, 0, 1]
    assert len(set(original)) == {"per_set": 4, "shared": 1, "crossed": 3, "given": 4}[kind]
    generator = np.random.default_rng(3)
    values = generator.normal(size=5)[original] + 2 * generator.normal(size=4)[forget_set] + generator.normal(size=12)
    findings = variance.component_findings(values, design, metric="UA", of="m")
    assert [finding.metric.removeprefix("variance of UA: ") for finding in findings] == named
    assert all(finding.low < finding.high for finding in findings)
    assert findings == variance.component_findings(values, design, metric="UA", of="m")  # an explicit seed
    again = variance.deviations(variance.fit(values, design), design)
    assert list(again) == named and all(value >= 0 for value in again.values())
    values[5] = np.nan
    holes = variance.component_findings(values, design, metric="UA", of="m")
    assert [np.isfinite(finding.value) for finding in holes] == [True] * len(named)
    assert all(np.isnan(finding.low) for finding in holes)


def test_a_negative_estimate_keeps_its_sign_in_the_files_and_is_printed_as_zero():
    y = golden("no_train", "y")[:, :, 0].T.ravel()  # forget set by forget set
    design = Design("crossed", 6, 4)
    estimate = variance.fit(y, design)
    assert estimate.components[0] < 0
    assert variance.component_findings(y, design, metric="UA", of="m")[0].value == pytest.approx(estimate.components[0])
    assert variance.deviations(estimate, design)["train"] == 0


def test_the_bootstrap_of_components_covers_them():
    """95 % intervals of the variance of 20 forget sets x 10 originals, 300 draws: measured .927."""
    generator, inside = np.random.default_rng(4), 0
    design = Design("crossed", 20, 10)
    for _ in range(300):
        y = (
            generator.normal(size=(20, 1))
            + 0.3 * generator.normal(size=(1, 10))
            + 0.5 * generator.normal(size=(20, 10))
        )
        values = y.ravel()
        low, high = variance.bootstrap(variance.fit(values, design), values, design, draws=400)[1]
        inside += low <= 1 <= high
    assert 0.85 <= inside / 300 <= 0.98


def covered(generator, originals, sets, repeats, shared=False, crossed=True, draws=800):
    """How often a 95 % interval holds the mean: sd of training 1, set .5, interaction .2, rest .4."""
    inside = 0
    for _ in range(draws):
        shape = (originals, sets, repeats)
        training, forget = generator.normal(size=(originals, 1, 1)), 0.5 * generator.normal(size=(1, sets, 1))
        both = 0.2 * generator.normal(size=(originals, sets, 1))
        y = training + forget + both + 0.4 * generator.normal(size=shape)
        y = y if crossed else y[np.arange(sets), np.arange(sets)][None]
        estimate = variance.anova(y)
        inside += abs(estimate.mean) <= scipy.stats.t.ppf(0.975, estimate.df_mean) * estimate.se_mean
    return inside / draws


def test_intervals_cover_where_every_source_is_drawn_and_not_for_one_original():
    generator = np.random.default_rng(5)
    assert 0.925 <= covered(generator, 5, 5, 2) <= 0.985  # measured .944; .955 expected
    assert 0.92 <= covered(generator, 10, 10, 1, crossed=False) <= 0.975  # an original per forget set: measured .953
    assert covered(generator, 1, 10, 1) < 0.5  # ONE original: measured .339, which is why it is no default
