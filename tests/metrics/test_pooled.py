import numpy as np
import pytest
import scipy.stats

from jaxunlearn import errors
from jaxunlearn.metrics import METRICS, roc
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.metrics.ranking import pooled


def judged(rng, groups=3, sets=4, size=60, distance=1.0, share=0.7, spread=0.0):
    """Scores [G, R, N] and truth [R, N]; members of each set are raised by their own amount."""
    truth = rng.random((sets, size)) < share
    truth[:, :2] = True, False
    raised = distance + spread * rng.normal(size=(sets, 1))
    shared = rng.normal(size=(sets, size)) + raised * truth
    return shared + 0.1 * rng.normal(size=(groups, sets, size)), truth


def test_values_spread_and_intervals_equal_a_plain_loop():
    scores, truth = judged(np.random.default_rng(0))
    scores = np.round(scores, 1)
    findings = pooled.table(scores, truth, 0.9, "iam_on")
    ranking = {name: metric.compute for name, metric in METRICS.items() if metric.compute is not None}
    assert list(findings) == list(ranking)
    for name, metric in ranking.items():
        per_group = [metric(group.ravel(), truth.ravel()) for group in scores]
        deleted = [
            np.mean([metric(np.delete(group, r, 0).ravel(), np.delete(truth, r, 0).ravel()) for group in scores])
            for r in range(4)
        ]
        expected = intervals.clip(intervals.jackknife(np.mean(per_group), np.array(deleted), 0.9))
        finding = findings[name]
        np.testing.assert_allclose([finding.value, finding.low, finding.high], expected, atol=1e-12, err_msg=name)
        assert finding.std == pytest.approx(np.std(per_group), abs=1e-12)
        assert (finding.n, finding.confidence_level, finding.of) == (240, 0.9, "iam_on")
        assert finding.method == "jackknife over 4 forget sets"
    assert findings["auc"].metric == "AUC"


def test_the_step_form_reaches_the_table():
    scores, truth = judged(np.random.default_rng(1))
    findings = pooled.table(scores, truth, interpolation="step")["tpr_at_fpr_1e-2"].value
    assert findings == np.mean([roc.tpr_at_fpr(group.ravel(), truth.ravel(), 1e-2, "step") for group in scores])


def test_few_forget_sets_get_intervals_over_samples():
    scores, truth = judged(np.random.default_rng(2), groups=1, sets=2)
    findings = pooled.table(scores, truth)
    flat = scores[0].ravel(), truth.ravel()
    delong = intervals.delong(*flat)
    finding = findings["auc"]
    np.testing.assert_allclose([finding.value, finding.low, finding.high], delong, atol=1e-12)
    assert np.isnan(finding.std)
    assert finding.method == "DeLong"
    for name, kind in (("tpr_at_fpr_1e-2", True), ("tnr_at_fnr_1e-2", False)):
        n, finding = int((truth == kind).sum()), findings[name]
        expected = intervals.clopper_pearson(finding.value * n, n)
        assert finding.method == "Clopper-Pearson"
        np.testing.assert_allclose([finding.low, finding.high], expected[1:], atol=1e-12)
    finding = findings["balanced_accuracy"]
    assert finding.method == "bootstrap"
    assert 0.5 < finding.low < finding.high <= 1.0
    again, other = (pooled.table(scores, truth, seed=seed)["balanced_accuracy"].low for seed in (0, 1))
    assert again == finding.low != other


def test_groups_that_judge_the_same_samples_do_not_shrink_the_interval_as_if_independent():
    rng = np.random.default_rng(3)
    scores, truth = judged(rng, groups=1, sets=2)
    pooled_interval = pooled.table(scores, truth)["auc"]
    copies = pooled.table(np.repeat(scores, 8, 0), truth)["auc"]
    np.testing.assert_allclose([copies.low, copies.high], [pooled_interval.low, pooled_interval.high], atol=1e-12)
    assert copies.std == 0.0


def test_perfect_separation_keeps_an_honest_interval():
    truth = np.tile(np.arange(50) < 40, (5, 1))
    findings = pooled.table(np.stack([truth, 2.0 * truth]), truth)
    for name, finding in findings.items():
        assert finding.value == finding.high == 1.0, name
        assert 0.9 < finding.low < 0.999, name
        assert finding.method in ("DeLong", "Clopper-Pearson"), name


def test_constant_scores_have_auc_one_half_and_no_error():
    truth = np.tile(np.arange(50) < 40, (5, 1))
    findings = pooled.table(np.zeros((2, 5, 50)), truth)
    assert (findings["auc"].value, findings["auc"].low, findings["auc"].high) == (0.5, 0.5, 0.5)


def test_a_deletion_that_leaves_one_kind_falls_back_to_samples():
    rng = np.random.default_rng(4)
    scores, truth = judged(rng, sets=4)
    truth[1:] = True
    assert pooled.table(scores, truth)["auc"].method == "DeLong"
    assert pooled.paired_auc(scores, -scores, truth).method == "DeLong"


def test_the_jackknife_covers_the_true_auc_where_models_differ():
    """Each forget set's model separates by its own amount; intervals over samples do not know that."""
    rng = np.random.default_rng(5)
    true = scipy.stats.norm.cdf(1.0 / np.sqrt(2 + 0.1**2 * 2 + 0.4**2))
    covered, naive = [], []
    for _ in range(300):
        scores, truth = judged(rng, groups=1, sets=10, size=100, distance=1.0, share=0.5, spread=0.4)
        finding = pooled.table(scores, truth)["auc"]
        pooled_interval = intervals.delong(scores[0].ravel(), truth.ravel())
        covered.append(finding.low <= true <= finding.high)
        naive.append(pooled_interval.low <= true <= pooled_interval.high)
    # Nominal 0.95, standard error 0.013; measured for samples taken as independent: 0.65.
    assert 0.90 <= np.mean(covered) <= 0.985
    assert np.mean(naive) < 0.8


def test_clopper_pearson_covers_the_rate_at_a_given_threshold():
    """With many forgotten samples the threshold hardly moves, and the interval must cover the true TPR."""
    rng = np.random.default_rng(6)
    true = scipy.stats.norm.sf(scipy.stats.norm.isf(1e-2) - 1.5)
    covered = []
    for _ in range(150):
        truth = np.concatenate([np.ones(60, bool), np.zeros(20000, bool)])
        scores = rng.normal(size=len(truth)) + 1.5 * truth
        value = roc.tpr_at_fpr(scores, truth, 1e-2, "step")
        interval = intervals.clopper_pearson(value * 60, 60)
        covered.append(interval.low <= true <= interval.high)
    assert np.mean(covered) >= 0.92


def test_the_bootstrap_of_balanced_accuracy_covers_it():
    rng = np.random.default_rng(7)
    true = scipy.stats.norm.cdf(0.5)
    covered = []
    for _ in range(60):
        truth = np.arange(500) < 300
        scores = rng.normal(size=500) + truth
        finding = pooled.table(scores[None, None], truth[None])["balanced_accuracy"]
        covered.append(finding.low <= true <= finding.high)
    # A maximum has no exact interval: measured coverage is 0.88 at nominal 0.95.
    assert np.mean(covered) >= 0.8


def test_metrics_of_ones_own_join_the_table():
    scores, truth = judged(np.random.default_rng(8))

    def gap(scores, truth):
        return scores[truth].mean() - scores[~truth].mean()

    finding = pooled.table(scores, truth, extra={"gap": gap})["gap"]
    per_group = [gap(group.ravel(), truth.ravel()) for group in scores]
    assert finding.value == pytest.approx(np.mean(per_group))
    assert finding.low < finding.value < finding.high
    assert finding.method == "jackknife over 4 forget sets"
    few = pooled.table(scores[:, :2], truth[:2], extra={"gap": gap})["gap"]
    assert np.isnan([few.low, few.high]).all()
    assert few.method.startswith("none")


def test_a_paired_difference_of_samples_is_delongs():
    rng = np.random.default_rng(9)
    truth = np.arange(120) < 80
    a = rng.normal(size=120) + truth
    b = a + rng.normal(size=120)
    result = pooled.paired_auc(a, b, truth, of="a", against="b")
    kernels = [np.sign(s[truth][:, None] - s[~truth][None]) / 2 + 0.5 for s in (a, b)]
    difference = kernels[0] - kernels[1]
    error = np.sqrt(difference.mean(1).var(ddof=1) / 80 + difference.mean(0).var(ddof=1) / 40)
    assert result.value == pytest.approx(roc.auc(a, truth) - roc.auc(b, truth))
    assert result.high - result.value == pytest.approx(scipy.stats.norm.ppf(0.975) * error)
    assert (result.of, result.against, result.n, result.method) == ("a", "b", 120, "DeLong")


def test_a_paired_difference_of_forget_sets_is_the_jackknifes():
    rng = np.random.default_rng(10)
    a, truth = judged(rng)
    b = a + rng.normal(size=a.shape)
    result = pooled.paired_auc(a, b, truth)

    def difference(rows):
        pairs = [(x[rows].ravel(), y[rows].ravel()) for x, y in zip(a, b, strict=True)]
        return np.mean([roc.auc(x, truth[rows].ravel()) - roc.auc(y, truth[rows].ravel()) for x, y in pairs])

    deleted = np.array([difference(np.arange(4) != r) for r in range(4)])
    expected = intervals.jackknife(difference(np.arange(4)), deleted)
    np.testing.assert_allclose([result.value, result.low, result.high], expected, atol=1e-12)
    mirrored = pooled.paired_auc(b, a, truth)
    np.testing.assert_allclose([mirrored.value, mirrored.low], [-result.value, -result.high], atol=1e-12)


def test_pairing_is_sharper_than_two_separate_intervals_and_calibrated_under_equality():
    rng = np.random.default_rng(11)
    truth = np.arange(150) < 100
    significant, widths = [], []
    for _ in range(300):
        common = rng.normal(size=150) + truth
        a, b = (common + 0.5 * rng.normal(size=150) for _ in range(2))
        difference = pooled.paired_auc(a, b, truth)
        significant.append(not difference.low <= 0 <= difference.high)
        single = intervals.delong(a, truth)
        widths.append((difference.high - difference.low) / (single.high - single.low))
    assert 0.01 <= np.mean(significant) <= 0.1
    assert np.mean(widths) < 1


@pytest.mark.parametrize(
    ("scores", "truth", "error", "says"),
    [
        (np.zeros((2, 3, 4)), np.ones((3, 4)), errors.DataError, "only members"),
        (np.zeros((2, 3, 4)), np.ones((3, 5)), errors.ShapeError, "axis N"),
        (np.zeros((3, 4)), np.ones((3, 4)), errors.ShapeError, "3 axes"),
        (np.full((1, 1, 4), np.nan), np.array([[0, 1, 0, 1]]), errors.DataError, "NaN"),
    ],
)
def test_the_border_says_what_is_wrong(scores, truth, error, says):
    with pytest.raises(error, match=says):
        pooled.table(scores, truth)


def test_pairs_of_different_shapes_are_refused():
    with pytest.raises(errors.ShapeError, match="scores_b"):
        pooled.paired_auc(np.zeros(4), np.zeros(5), np.array([0, 1, 0, 1]))
