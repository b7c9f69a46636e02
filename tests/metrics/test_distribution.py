"""Distribution metrics: against the published code, naive references, and properties by construction."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from jaxunlearn import errors
from jaxunlearn.metrics import distribution, kernel_density

GOLDEN = Path(__file__).parents[1] / "golden" / "our" / "dist_metrics.npz"


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN))


def blobs(seed=0, n=60, centres=((0, 0), (6, 0), (0, 9))):
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.normal(centre, 1, (n, 2)) for centre in centres])
    return points, np.repeat(np.arange(len(centres)), n)


def test_geometry_is_as_published(golden):
    points, labels, classes, forgotten = (golden[key] for key in ("Y", "labels", "classes", "forget_class"))
    close = {"rtol": 1e-12}
    variance = distribution.intra_class_variance(points, labels, classes)
    np.testing.assert_allclose(variance, golden["intra_class_variance"], **close)
    others = distribution.distances_to_centroids(points, labels, int(forgotten), golden["class_distance_ids"])
    np.testing.assert_allclose(others, golden["class_distance_from_forget"], **close)
    result = distribution.silhouette(points, labels, int(forgotten))
    np.testing.assert_allclose(result.value, golden["silhouette"], **close)
    assert result.nearest == golden["nearest_class"]


def test_overlaps_are_as_published(golden):
    points, labels, forgotten = golden["Y"], golden["labels"], golden["labels"] == golden["forget_class"]
    overlap = distribution.overlap(points[forgotten], points[~forgotten])
    np.testing.assert_allclose(overlap.sum, golden["overlap_sum"], rtol=1e-6)
    np.testing.assert_allclose(overlap.integral, golden["overlap_integral"], rtol=1e-6)
    assert overlap.smaller.shape == (200, 200) and overlap.smaller.sum() == overlap.sum
    distribution_of_class = distribution.measure_distribution(points, labels, forgotten)
    assert (distribution_of_class.overlap.sum, distribution_of_class.silhouette.value) == (
        overlap.sum,
        golden["silhouette"],
    )
    np.testing.assert_allclose(
        distribution_of_class.variance, golden["intra_class_variance"][int(golden["forget_class"])]
    )


@pytest.mark.parametrize(("count", "dimensions"), [(5, 2), (1024, 2), (1500, 1), (40, 3)])
def test_densities_are_scipys(count, dimensions):
    rng = np.random.default_rng(count)
    points = rng.normal(size=(count, dimensions)) @ rng.normal(size=(dimensions, dimensions)) + 100
    places = points[:1].repeat(33, 0) + rng.normal(size=(33, dimensions))
    reference = scipy.stats.gaussian_kde(points.T)(places.T)
    np.testing.assert_allclose(kernel_density.estimate(points, places), reference, rtol=2e-4)  # far tails


def test_density_in_blocks_is_density_at_once(monkeypatch):
    points, _ = blobs()
    places = np.random.default_rng(1).normal(size=(77, 2))
    densities = kernel_density.estimate(points, places)
    monkeypatch.setattr(kernel_density, "_KERNELS", 4096)
    np.testing.assert_allclose(kernel_density.estimate(points, places), densities, rtol=1e-6)
    # A point far from the mean (where padding lies) is not lost in it.
    far = np.concatenate([points, [[500.0, 500.0]]])
    reference = scipy.stats.gaussian_kde(far.T)([[500.0], [500.0]])
    np.testing.assert_allclose(kernel_density.estimate(far, [[500.0, 500.0]]), reference, rtol=1e-5)


def test_overlap_is_1_for_one_cloud_and_0_for_two_far_ones():
    points, _ = blobs(n=400)
    same = distribution.overlap(points[::2], points[1::2])
    assert 0.9 < same.integral <= 1.0001
    apart = distribution.overlap(points[:400], points[:400] + 100)
    assert apart.integral < 1e-9
    swapped = distribution.overlap(points[1::2], points[::2])
    np.testing.assert_allclose(swapped.sum, same.sum, rtol=1e-9)


def test_scattering_a_class_moves_all_numbers_towards_retraining():
    points, labels = blobs()
    rng = np.random.default_rng(5)
    scattered = points.copy()
    scattered[labels == 2] = rng.permutation(points[labels != 2])[:60] + rng.normal(size=(60, 2))
    clump, spread = (distribution.measure_distribution(some, labels, labels == 2) for some in (points, scattered))
    assert spread.variance > clump.variance and spread.silhouette.value < clump.silhouette.value
    assert spread.overlap.integral > clump.overlap.integral


def test_a_forgotten_subclass_is_told_apart_from_its_own_class():
    points, labels = blobs()
    forgotten = labels == 2
    np.testing.assert_allclose(
        distribution.measure_distribution(points, np.where(forgotten, 1, labels), forgotten).silhouette.value,
        distribution.measure_distribution(points, labels, forgotten).silhouette.value,
    )


def test_points_on_a_line_or_in_one_place_have_a_density():
    line = np.stack([np.arange(10.0), np.arange(10.0)], 1)
    for points in (line, np.ones((5, 2))):
        overlap = distribution.overlap(points, line + 0.5, nodes=50)
        assert math.isfinite(overlap.sum) and overlap.sum >= 0


def test_too_few_points_are_nan_with_a_reason():
    points, labels = blobs()
    overlap = distribution.overlap(points[:2], points)
    assert math.isnan(overlap.sum) and overlap.reason == "a density needs 3 points, there are 2"
    result = distribution.silhouette(points[:3], np.zeros(3, int), 0)
    assert math.isnan(result.value) and result.reason == "there is no other class"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(distribution.intra_class_variance(points, labels, [7])).all()


def test_impossible_input_is_refused():
    points, labels = blobs()
    with pytest.raises(errors.DataError, match="class 9 has no points; there are the classes 0, 1, 2"):
        distribution.silhouette(points, labels, 9)
    with pytest.raises(errors.DataError, match="0 of 180 samples are forgotten"):
        distribution.measure_distribution(points, labels, labels == 9)
    with pytest.raises(errors.ShapeError):
        distribution.measure_distribution(points, labels[:-1], labels == 1)
    with pytest.raises(errors.DataError, match="points"):
        distribution.intra_class_variance(np.where(points > 1, np.nan, points), labels, [0])


def test_embedding_keeps_clumps_together_and_repeats_itself():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5)) + 20 * (np.arange(60) % 2)[:, None]
    points = distribution.embed(features)
    assert distribution.silhouette(points, np.arange(60) % 2, 0).value > 0.5
    np.testing.assert_array_equal(points, distribution.embed(features))
    assert distribution.embed(features[:4, :1]).shape == (4, 2)
    with pytest.raises(errors.DataError, match="at least 3 samples"):
        distribution.embed(features[:2])
