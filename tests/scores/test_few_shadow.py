"""Scores for few shadow models against the published code, and what must hold for any input."""

from pathlib import Path

import numpy as np
import pytest

from jaxunlearn.metrics import roc
from jaxunlearn.scores.families import few_shadow

FILE = np.load(Path(__file__).parents[1] / "golden" / "populations" / "few_shadow.npz")
CASES = ("real_k2", "real_k8", "k1", "k2_one_side", "k64", "constant", "saturated", "ties")


def case(name):
    target, shadows, member = (FILE[f"{name}/{field}"] for field in ("target", "shadows", "member"))
    return target, shadows.T, member.T


@pytest.mark.parametrize("density", ["t", "n"])
@pytest.mark.parametrize("name", CASES)
def test_bavaria_is_the_published_one(name, density):
    target, shadows, member = case(name)
    inner, outer = (few_shadow.fit_prior(shadows, side, density) for side in (member, ~member))
    np.testing.assert_allclose(
        [inner.mean, outer.mean, inner.scale, outer.scale], FILE[f"{name}/prior_{density}"], rtol=2e-6, atol=1e-10
    )
    online = few_shadow.bavaria(target, shadows, member, density, compat="faithful")
    offline = few_shadow.bavaria(target, shadows, member, density, inner, "faithful")
    for actual, side in ((online, "online"), (offline, "offline")):
        expected = FILE[f"{name}/bavaria_{density}_{side}"]
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_base_is_the_published_one_and_goes_on_where_that_stops(name):
    target, shadows, member = case(name)
    actual = few_shadow.base(target, shadows, "faithful")
    np.testing.assert_allclose(actual, FILE[f"{name}/base1_online"], rtol=1e-5, atol=2e-6)
    corrected = few_shadow.base(target, shadows)
    is_plain = target > -20
    np.testing.assert_allclose(corrected[is_plain], actual[is_plain], rtol=1e-5, atol=2e-6)
    assert np.isfinite(corrected).all() and (np.diff(np.sort(corrected[~is_plain])) > 0).all()


def test_informia_is_that_of_its_formulas():
    names = ("target", "shadows", "population_target", "population_shadows")
    odds = [np.log(p) - np.log1p(-p) for p in (FILE[f"info/{name}"].astype(np.float64) for name in names)]
    odds = [np.asarray(array, np.float32) for array in odds]
    for side, offline_a in (("online", None), ("offline", 0.33)):
        actual = few_shadow.informia(*odds, offline_a)
        np.testing.assert_allclose(actual, FILE[f"info/score_{side}"], atol=1e-5)


def test_with_two_shadows_bavaria_ranks_rows_better_than_chance_alone_would():
    target, shadows, member = case("real_k2")
    truth = FILE["real_truth"]
    assert roc.auc(np.asarray(few_shadow.bavaria(target, shadows, member, "t")), truth) > 0.6


def test_the_original_s_answers_stand_for_in():
    draw = np.random.default_rng(0)
    original, shadows = draw.normal(3, 1, 200).astype("f4"), draw.normal(0, 1, (2, 200)).astype("f4")
    for density in ("t", "n"):
        retained, forgotten = (
            few_shadow.from_original(values, original, shadows, density) for values in (original, shadows[0])
        )
        assert np.mean(retained) > 0 > np.mean(forgotten)
