import pathlib

import numpy as np
import pytest

from jaxunlearn import errors
from jaxunlearn.metrics import roc
from jaxunlearn.metrics.ranking import classes

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "iam" / "class_metrics.npz"


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


def runs(seed=0, retained=0.8, forgotten=0.1, size=200):
    """Membership and truth [3, N] of three runs with beta-distributed scores around two means."""
    rng = np.random.default_rng(seed)
    truth = rng.random((3, size)) < 0.8
    mean = np.where(truth, retained, forgotten)
    return rng.beta(8 * mean, 8 * (1 - mean)), truth


@pytest.mark.parametrize("case", "ab")
@pytest.mark.parametrize("tail", ["corrected", "faithful"])
def test_published_numbers_are_reproduced(golden, case, tail):
    row = classes.row(golden[f"{case}/membership_score"], golden[f"{case}/member_flag"], tail)
    np.testing.assert_allclose(row.weighted_bce, golden[f"{case}/weighted_bce"], atol=1e-6)
    np.testing.assert_allclose(row.auc, golden[f"{case}/auc"], atol=1e-6)
    np.testing.assert_allclose(row.retained, golden[f"{case}/stats_1"], atol=1e-6)
    np.testing.assert_allclose(row.forgotten, golden[f"{case}/stats_0"], atol=1e-6)


def test_whole_audits_have_the_published_means():
    golden = np.load(GOLDEN.parent / "binui_cifar10_s10.npz")
    forgotten = golden["target_unlearn_flags"] == 1
    for key in ("p_IPapprox_simp_online_wo_norm", "p_EMIA", "p_RMIA_online"):
        row = classes.row(1 - golden[f"score/{key}"], ~forgotten)
        unlearned = [1 - row.forgotten.mean, row.forgotten.std, 1 - row.retained.mean, row.retained.std]
        np.testing.assert_allclose(unlearned, golden[f"eval/{key}"][8:], atol=1e-6, err_msg=key)


def test_rows_of_a_report_are_those_of_its_classes_and_of_all_samples():
    membership, truth = runs()
    report = classes.report(membership, truth)
    for index in range(3):
        row = classes.row(membership[index], truth[index])
        assert report.classes.auc[index] == row.auc == roc.auc(membership[index], truth[index])
        assert report.classes.weighted_bce[index] == row.weighted_bce
        np.testing.assert_array_equal([field[index] for field in report.classes.forgotten], row.forgotten)
        np.testing.assert_array_equal([field[index] for field in report.classes.retained], row.retained)
    assert report.pooled.retained.mean == pytest.approx(membership[truth].mean())
    assert report.pooled.auc == pytest.approx(roc.auc(membership.ravel(), truth.ravel()))
    assert report.std["forgotten"] == pytest.approx(np.std(report.classes.forgotten.mean))
    assert report.std["weighted_bce"] == pytest.approx(np.std(report.classes.weighted_bce))


def test_the_weighted_cross_entropy_equals_a_plain_loop_and_is_clamped():
    membership, truth = np.array([0.9, 0.2, 1.0, 0.3, 0.0]), np.array([1, 1, 0, 0, 1], bool)
    weight = {True: 2 / 3, False: 1.0}
    losses = []
    for score, member in zip(membership, truth, strict=True):
        p = score if member else 1 - score
        losses.append(-weight[bool(member)] * (np.log(p) if p > 0 else -100.0))
    assert classes.row(membership, truth).weighted_bce == pytest.approx(np.mean(losses), rel=1e-12)


def test_tails_hold_the_worst_tenth():
    values = np.random.default_rng(0).permutation(np.arange(40.0) / 40)
    assert classes.moments(values, lowest=True).tail == pytest.approx(np.mean([0, 1, 2, 3]) / 40)
    assert classes.moments(values, lowest=False).tail == pytest.approx(np.mean([36, 37, 38, 39]) / 40)


def test_tails_of_few_samples_hold_one_unless_faithful():
    values = np.array([0.5, 0.1, 0.9])
    assert classes.moments(values, lowest=True).tail == 0.1
    assert classes.moments(values, lowest=False).tail == 0.9
    assert np.isnan(classes.moments(values, lowest=True, tail="faithful").tail)
    assert classes.moments(values, lowest=False, tail="faithful").tail == pytest.approx(0.5)


def test_under_and_over_unlearning_are_told_apart():
    retrained = classes.report(*runs(0))
    under = classes.report(*runs(1, forgotten=0.5))
    over = classes.report(*runs(1, retained=0.5))
    gaps = [classes.against_retrained(row.pooled, retrained.pooled) for row in (retrained, under, over)]
    np.testing.assert_array_equal(gaps[0], np.zeros(3))
    assert gaps[1].under > 0.3
    assert abs(gaps[1].over) < 0.05
    assert gaps[2].over > 0.2
    assert gaps[2].over_tail > 0.2
    assert abs(gaps[2].under) < 0.05
    per_class = classes.against_retrained(under.classes, retrained.classes)
    assert per_class.under.shape == (3,)
    assert (per_class.under > 0.2).all()


def test_damage_to_few_retained_samples_shows_in_the_tail():
    membership, truth = runs()
    damaged = membership.copy()
    for row, kinds in zip(damaged, truth, strict=True):
        row[np.flatnonzero(kinds)[:8]] = 0.0
    gap = classes.against_retrained(classes.report(damaged, truth).pooled, classes.report(membership, truth).pooled)
    assert gap.over_tail > 4 * gap.over > 0


def test_a_random_row_of_one_half_has_auc_one_half():
    _, truth = runs()
    report = classes.report(np.full(truth.shape, 0.5), truth)
    assert report.pooled.auc == 0.5
    np.testing.assert_array_equal(report.classes.forgotten.std, np.zeros(3))


@pytest.mark.parametrize(
    ("membership", "truth", "error", "says"),
    [
        (np.array([[0.2, 1.5]]), np.array([[0, 1]]), errors.DataError, r"\[0, 1\], but entry 1 is 1.5"),
        (np.array([[0.2, 0.5]]), np.array([[1, 1]]), errors.DataError, "only members"),
        (np.array([0.2, 0.5]), np.array([0, 1]), errors.ShapeError, "2 axes"),
        (np.zeros((0, 3)), np.zeros((0, 3)), errors.DataError, "no run"),
    ],
)
def test_the_border_says_what_is_wrong(membership, truth, error, says):
    with pytest.raises(error, match=says):
        classes.report(membership, truth)


def test_unknown_tails_and_empty_kinds_are_refused():
    with pytest.raises(errors.ConfigError, match="Did you mean 'faithful'"):
        classes.moments(np.ones(3), True, "faithfull")
    with pytest.raises(errors.DataError, match="no sample"):
        classes.moments(np.empty(0), True)
