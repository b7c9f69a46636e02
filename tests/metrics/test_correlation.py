import pathlib

import numpy as np
import pytest
import scipy.stats

from jaxunlearn import errors
from jaxunlearn.metrics.ranking import correlation

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "iam" / "scoreui.npz"
CASES = ("n60_b20", "n40_b10", "ties")


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


@pytest.mark.parametrize("case", CASES)
def test_published_numbers_are_reproduced(golden, case):
    membership = golden[f"{case}/raw_membership"]
    scores_agreement = correlation.agreement(membership)
    np.testing.assert_allclose(correlation.normalise(membership), golden[f"{case}/normalised"], atol=1e-6)
    np.testing.assert_allclose(
        np.append(scores_agreement.mse, scores_agreement.mse_per_column), golden[f"{case}/mse"], atol=1e-6
    )
    np.testing.assert_allclose(scores_agreement.kl, golden[f"{case}/kl"], atol=1e-4)
    np.testing.assert_allclose(scores_agreement.pearson, golden[f"{case}/pearson"], atol=1e-6)
    np.testing.assert_allclose(scores_agreement.spearman, golden[f"{case}/spearman"], atol=1e-6)


def test_leading_axes_are_matrices_of_their_own(golden):
    pair = np.stack([golden["n60_b20/raw_membership"], 3 * golden["n60_b20/raw_membership"] ** 3 - 1])
    both = correlation.agreement(pair[:, None])
    assert both.mse.shape == both.kl.shape == both.spearman.shape == (2, 1)
    assert both.mse_per_column.shape == (2, 1, 21)
    for index in range(2):
        for matrix, stacked in zip(correlation.agreement(pair[index]), both, strict=True):
            np.testing.assert_allclose(stacked[index, 0], matrix, atol=1e-12)


def test_correlations_equal_scipys():
    membership = np.random.default_rng(0).normal(size=(30, 6)) + np.arange(6)
    truth = np.tile(np.arange(6) / 5, 30)
    scores_agreement = correlation.agreement(membership)
    assert scores_agreement.pearson == pytest.approx(scipy.stats.pearsonr(membership.ravel(), truth)[0])
    assert scores_agreement.spearman == pytest.approx(scipy.stats.spearmanr(membership.ravel(), truth)[0])


def test_a_perfect_score_agrees_perfectly_and_its_mirror_is_opposed():
    membership = np.tile(np.arange(11.0), (20, 1))
    scores_agreement = correlation.agreement(5 + 2 * membership)
    np.testing.assert_allclose(
        [scores_agreement.mse, scores_agreement.pearson, scores_agreement.spearman], [0, 1, 1], atol=1e-6
    )
    mirrored = correlation.agreement(-membership)
    np.testing.assert_allclose([mirrored.pearson, mirrored.spearman], [-1, -1], atol=1e-12)
    assert mirrored.mse > 0.3


def test_a_constant_matrix_is_nan_and_leaves_its_neighbours_alone():
    pair = np.stack([np.full((4, 3), 0.2), np.tile(np.arange(3.0), (4, 1))])
    scores_agreement = correlation.agreement(pair)
    for name, values in scores_agreement._asdict().items():
        assert np.isnan(values[0]).all(), name
        assert np.isfinite(values[1]).all(), name


def test_the_table_averages_as_published_and_takes_its_interval_over_starting_models():
    membership = np.random.default_rng(1).normal(size=(3, 4, 25, 6)) + 0.5 * np.arange(6)
    findings = correlation.table(membership, 0.9, of="iam_on")
    each = np.array([[correlation.agreement(m).spearman for m in group] for group in membership])
    finding = findings["spearman"]
    assert finding.value == pytest.approx(each.mean())
    assert finding.std == pytest.approx(each.mean(1).std())
    starts = each.mean(0)
    half = scipy.stats.t.ppf(0.95, 3) * starts.std(ddof=1) / 2
    np.testing.assert_allclose([finding.low, finding.high], [each.mean() - half, each.mean() + half])
    assert (finding.n, finding.of, finding.method) == (600, "iam_on", "t over 4 starting models")
    assert list(findings) == ["mse", "kl", "pearson", "spearman"]
    single = correlation.table(membership[:1, :1])["mse"]
    assert np.isnan([single.low, single.high, single.std]).all()


@pytest.mark.parametrize(
    ("membership", "error", "says"),
    [
        (np.zeros(5), errors.ShapeError, "at least the axes"),
        (np.zeros((5, 1)), errors.ShapeError, "B >= 1"),
        (np.zeros((0, 5)), errors.ShapeError, "no empty one"),
        (np.array([[0.0, np.nan]]), errors.DataError, "NaN"),
    ],
)
def test_the_border_says_what_is_wrong(membership, error, says):
    with pytest.raises(error, match=says):
        correlation.agreement(membership)


def test_the_table_wants_groups_and_starting_models():
    with pytest.raises(errors.ShapeError, match="4 axes"):
        correlation.table(np.zeros((5, 3)))
