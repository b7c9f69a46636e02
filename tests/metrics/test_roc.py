import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from jaxunlearn import checks, errors
from jaxunlearn.metrics import METRICS, roc

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "iam"
CASES = ("balanced200", "imbalanced", "ties", "small")
BINUI = ("cifar10_s10", "cifar100_s2", "purchase_s4_class")
RANKING = {name: metric.compute for name, metric in METRICS.items() if metric.compute is not None}


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "auc.npz")


@st.composite
def judged(draw, largest=40):
    """Scores on a coarse grid, so that ties are common, and truth with both kinds."""
    n = draw(st.integers(2, largest))
    scores = np.array(draw(st.lists(st.integers(-5, 5), min_size=n, max_size=n)), np.float64) / 4
    truth = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    truth[:2] = True, False
    return scores, truth


def naive_points(scores, truth):
    """(fpr, tpr) of every threshold by counting, from none called a member to all."""
    points = [(0.0, 0.0)]
    for threshold in sorted(set(scores.tolist()), reverse=True):
        called = scores >= threshold
        points.append((np.mean(called[~truth]), np.mean(called[truth])))
    return np.array(points)


@pytest.mark.parametrize("case", CASES)
def test_published_roc_numbers_are_reproduced(golden, case):
    scores, truth = golden[f"{case}/scores"], golden[f"{case}/labels"]
    summary = roc.summary(scores, truth, tuple(golden["thresholds"]))
    np.testing.assert_allclose(summary.auc, golden[f"{case}/auc"], atol=1e-9)
    np.testing.assert_allclose(summary.balanced_accuracy, golden[f"{case}/acc"], atol=1e-9)
    np.testing.assert_allclose(summary.tpr_at_fpr, golden[f"{case}/tpr_at_fpr"], atol=1e-9)
    np.testing.assert_allclose(summary.tnr_at_fnr, golden[f"{case}/tnr_at_fnr_corrected"], atol=1e-9)
    assert (summary.positives, summary.negatives) == (int(truth.sum()), int((truth == 0).sum()))


@pytest.mark.parametrize("name", BINUI)
def test_published_evaluations_of_whole_audits_are_reproduced(name):
    """The golden scores are unlearn scores u; the published scripts evaluate 1 - u with retained as positive."""
    golden = np.load(GOLDEN / f"binui_{name}.npz")
    retained = golden["target_unlearn_flags"] == 0
    keys = [key.removeprefix("eval/") for key in golden if key.startswith("eval/")]
    assert len(keys) >= 10
    for key in keys:
        unlearned, expected = golden[f"score/{key}"], golden[f"eval/{key}"]
        summary = roc.summary(1 - unlearned, retained, error_rates=(0.0, 1e-5, 1e-2))
        np.testing.assert_allclose([summary.auc, summary.balanced_accuracy], expected[:2], atol=1e-9, err_msg=key)
        np.testing.assert_allclose(summary.tpr_at_fpr, expected[2:5], atol=1e-9, err_msg=key)


@trials(max_examples=60, deadline=None)
@given(judged(), st.floats(0, 1))
def test_curve_numbers_equal_their_definitions(data, level):
    scores, truth = data
    points = naive_points(scores, truth)
    curve = roc.curve(scores, truth)
    np.testing.assert_array_equal(np.stack([curve.fpr, curve.tpr], 1), points)
    wins = [np.sign(a - b) / 2 + 0.5 for a in scores[truth] for b in scores[~truth]]
    assert roc.area(curve) == pytest.approx(np.mean(wins), abs=1e-12)
    assert roc.auc(scores, truth) == pytest.approx(np.mean(wins), abs=1e-12)
    assert roc.balanced_accuracy(scores, truth) == pytest.approx((1 + (points[:, 1] - points[:, 0]).max()) / 2)
    reachable = points[points[:, 0] <= level]
    assert roc.tpr_at_fpr(scores, truth, level, "step") == reachable[:, 1].max()


@trials(max_examples=60, deadline=None)
@given(judged(), st.sampled_from([0.0, 0.001, 0.01, 0.2, 0.5, 1.0]))
def test_tnr_is_the_tpr_of_the_mirrored_question(data, level):
    scores, truth = data
    mirrored = roc.tpr_at_fpr(-scores, ~truth, level, "step")
    assert roc.tnr_at_fnr(scores, truth, level, "step") == mirrored


@trials(max_examples=40, deadline=None)
@given(judged())
def test_dropping_collinear_points_changes_nothing(data):
    from sklearn.metrics import roc_curve

    scores, truth = data
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=True)
    curve = roc.curve(scores, truth)
    for level in (0.0, 0.05, 0.3, 0.77, 1.0):
        assert roc.read(fpr, tpr, level) == pytest.approx(roc.member_rate(curve, level), abs=1e-12)


@trials(max_examples=40, deadline=None)
@given(judged(), st.randoms(use_true_random=False))
def test_order_of_samples_and_monotone_scales_do_not_matter(data, random):
    scores, truth = data
    shuffled = np.array(random.sample(range(len(scores)), len(scores)))
    for name, metric in RANKING.items():
        value = metric(scores, truth)
        assert metric(scores[shuffled], truth[shuffled]) == value, name
        assert metric(np.exp(3 * scores) - 7, truth) == value, name
        assert metric(np.asarray(scores, np.float32), truth) == value, name
        assert 0 <= value <= 1, name


@trials(max_examples=40, deadline=None)
@given(judged(), st.data())
def test_weights_stand_for_repeated_and_left_out_samples(data, more):
    scores, truth = data
    weights = np.array(more.draw(st.lists(st.integers(0, 3), min_size=len(scores), max_size=len(scores))))
    weights[:2] = 1
    weighted = roc.summarise(roc.count(roc.rank(scores, truth), weights))
    repeated = roc.summary(np.repeat(scores, weights), np.repeat(truth, weights))
    for weighted_value, other in zip(weighted, repeated, strict=True):
        np.testing.assert_array_equal(weighted_value, other)


def test_the_summary_agrees_with_every_entry_of_the_table():
    rng = np.random.default_rng(0)
    truth = rng.random(3000) < 0.8
    scores = rng.normal(size=3000) + truth
    summary = roc.summary(scores, truth)
    assert METRICS.keys() - RANKING.keys() and len(RANKING) == 6
    single = [metric(scores, truth) for metric in RANKING.values()]
    every = [summary.auc, summary.balanced_accuracy, *summary.tpr_at_fpr, *summary.tnr_at_fnr]
    np.testing.assert_allclose(every, single, rtol=0, atol=1e-12)


def test_a_step_never_promises_more_than_a_threshold_reaches():
    scores, truth = np.array([4.0, 3, 2, 1, 0]), np.array([1, 0, 1, 1, 0], bool)
    assert roc.tpr_at_fpr(scores, truth, 0.25, "step") == pytest.approx(1 / 3)
    assert roc.tpr_at_fpr(scores, truth, 0.25, "linear") == pytest.approx(1 / 3)
    tied = np.array([4.0, 3, 3, 1, 0])
    assert roc.tpr_at_fpr(tied, truth, 0.25, "step") == pytest.approx(1 / 3)
    assert roc.tpr_at_fpr(tied, truth, 0.25, "linear") == pytest.approx(1 / 2)


def test_a_false_negative_rate_exactly_on_the_level_counts_in_the_step_form():
    # 200 members, the two lowest of them below half of the forgotten: FNR = 2 / 200 is the level itself.
    scores = np.concatenate([np.full(198, 3.0), np.full(2, 1.0), np.full(50, 2.0), np.full(50, 0.0)])
    truth = np.arange(300) < 200
    assert roc.tnr_at_fnr(scores, truth, 0.01, "step") == 1.0
    assert roc.tnr_at_fnr(scores, truth, 0.0099, "step") == 0.5


def test_constant_scores_carry_no_information():
    scores, truth = np.full(10, 0.3), np.arange(10) < 4
    summary = roc.summary(scores, truth, error_rates=(0.25,))
    assert (summary.auc, summary.balanced_accuracy, roc.auc(scores, truth)) == (0.5, 0.5, 0.5)
    np.testing.assert_allclose([summary.tpr_at_fpr[0], summary.tnr_at_fnr[0]], 0.25)


def test_separated_scores_reach_one_everywhere():
    truth = np.arange(10) < 4
    summary = roc.summary(truth.astype(np.float16), truth)
    assert summary.auc == summary.balanced_accuracy == 1.0
    np.testing.assert_array_equal([summary.tpr_at_fpr, summary.tnr_at_fnr], np.ones((2, 2)))


@pytest.mark.parametrize(
    ("scores", "truth", "error", "says"),
    [
        ([0.1, np.nan, 0.3], [1, 0, 1], errors.DataError, "NaN or infinite"),
        ([0.1, np.inf, 0.3], [1, 0, 1], errors.DataError, "NaN or infinite"),
        ([0.1, 0.2, 0.3], [1, 1, 1], errors.DataError, "only members"),
        ([0.1, 0.2, 0.3], [0, 0, 0], errors.DataError, "no member"),
        ([], [], errors.DataError, "no sample"),
        ([0.1, 0.2, 0.3], [0, 1, 2], errors.DataError, "True/1"),
        ([0.1, 0.2, 0.3], [0, 1], errors.ShapeError, "axis N"),
        ([[0.1], [0.2]], [0, 1], errors.ShapeError, "1 axes"),
    ],
)
def test_the_border_says_what_is_wrong(scores, truth, error, says):
    for call in (roc.check, roc.summary, roc.balanced_accuracy, RANKING["tpr_at_fpr_1e-2"]):
        with pytest.raises(error, match=says):
            call(np.array(scores), np.array(truth))


def test_impossible_levels_and_interpolations_are_refused():
    scores, truth = np.arange(4.0), np.array([0, 1, 0, 1])
    with pytest.raises(errors.ConfigError, match="error_rate = 1.5"):
        roc.tpr_at_fpr(scores, truth, 1.5)
    with pytest.raises(errors.ConfigError, match="'steps'. Did you mean 'step'"):
        roc.tnr_at_fnr(scores, truth, 0.1, "steps")


def test_auc_of_one_kind_is_undefined_not_an_error():
    assert np.isnan(roc.auc(np.arange(3.0), np.ones(3, bool)))


def test_a_metric_of_ones_own_is_reached_by_its_module():
    assert checks.lookup("metric", "jaxunlearn.metrics.roc:auc", RANKING) is roc.auc
    with pytest.raises(errors.ConfigError, match="Did you mean 'auc'"):
        checks.lookup("metric", "aucc", RANKING)
