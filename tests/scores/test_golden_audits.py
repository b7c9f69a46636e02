"""Whole audits, from published record files to every score, against what the published scripts computed."""

import functools
from pathlib import Path

import numpy as np
import pytest

from jaxunlearn import arrays as reader
from jaxunlearn import scores
from jaxunlearn.scores import entries, evidence

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "iam"
# file -> data set, forget type
AUDITS = {
    "binui_cifar10_s10": ("cifar10", "set_random"),
    "binui_cifar10_s1": ("cifar10", "set_random"),
    "binui_cifar100_s2": ("cifar100", "set_random"),
    "binui_purchase_s4_class": ("purchase", "class"),
    "scoring_functions_cifar100_s1": ("cifar100", "set_random"),
    "scoring_functions_purchase_s3": ("purchase", "set_random"),
}
BINUI = [name for name in AUDITS if name.startswith("binui")]
# published key -> (our name, tolerance); what lies in [0, 1] is one minus a membership score, the rest minus one.
DIFFERENCES = {
    "p_LiRA": ("lira_off", {"rtol": 1e-3}),
    "p_LiRA_Online": ("lira_on", {"rtol": 1e-3}),
    "p_update_LiRA": ("update", {"atol": 1e-6}),
    "p_SimpleDiff_conf": ("confidence_diff", {"atol": 1e-5}),
    "p_Simple_conf": ("confidence", {"atol": 1e-5}),
    "p_SimpleLoss": ("loss_diff", {"atol": 1e-5}),
    "p_SimpleCarlogi": ("carlini_diff", {"atol": 1e-5}),
    "p_SimpleLogloss": ("logloss_diff", {"atol": 5e-5}),
    "p_proby_of_pure": ("confidence", {"atol": 1e-4}),
    "p_tsm_of_pure": ("margin", {"atol": 1e-4}),
    "p_lossy_of_pure": ("loss", {"atol": 1e-4}),
}
COMPLETENESS = {
    "p_EMIA": ("emia_r", {"atol": 1e-5}),
    "p_EMIA_p": ("emia_p", {"atol": 1e-5}),
    "p_old_LnDl": ("ldiff", {"atol": 1e-5}),
    "p_IPapprox_proby_simp": ("iam_confidence", {"atol": 2e-5}),
    "p_IPapprox_tsm_simp": ("iam_tsm", {"atol": 2e-5}),
    "p_IPapprox_carlogi_simp": ("iam_carlini", {"atol": 2e-5}),
    "p_IPapprox_losy_simp": ("iam_loss", {"atol": 2e-5}),
    "p_IPapprox_simp_online": ("iam_on", {"atol": 1e-4}),
    "p_IPapprox_simp_offline": ("iam_off", {"atol": 1e-4}),
    "p_IPapprox_simp_online_wo_norm": ("iam_raw", {"atol": 1e-4}),
    "p_IPapprox_proby_of_ecdf": ("iam_ecdf_off", {"atol": 1e-4}),
    "p_IPapprox_proby_of_kde": ("iam_kde_off", {"atol": 1e-4}),
    "p_IPapprox_proby_of_beta": ("iam_beta_off", {"atol": 1e-4}),
    "p_IPapprox_carlogi_of_norm": ("iam_carlini_off", {"atol": 1e-4}),
    "p_IPapprox_proby_ol_ecdf": ("iam_ecdf_on", {"atol": 1e-4}),
    "p_IPapprox_proby_ol_kde": ("iam_kde_on", {"atol": 1e-4}),
    "p_IPapprox_proby_ol_beta": ("iam_beta_on", {"atol": 1e-4}),
    "p_IPapprox_carlogi_ol_norm": ("iam_carlini", {"atol": 1e-4}),
    "p_IPapprox_IAM_ol_gumbel": ("iam_on", {"atol": 1e-4}),
    "p_IPapprox_IAM_of_gumbelf": ("iam_off", {"atol": 1e-4}),
}
RMIA = {"p_RMIA": "rmia_off", "p_RMIA_online": "rmia_on"}


@functools.cache
def audit(name):
    """Arrays of the file, the faithful options, and the pass over the logits."""
    dataset, forget_type = AUDITS[name]
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = dict(file)
    named = evidence.from_arrays(reader.read(
        {name: array for name, array in arrays.items() if "/" not in name and name != "INTERAPPROX"},
        evidence.FIELDS, "",
    ))  # fmt: skip
    scores.check(named)
    options = scores.Options(
        constants=scores.published(dataset), interpolation_steps=int(arrays.get("INTERAPPROX", 100)), compat="faithful",
        forget_type=forget_type,
        dataset=dataset,
    )  # fmt: skip
    return arrays, options, scores.signals_pass(named, options)


def scored(name, measured, options):
    """One score by its entry alone, which shares compiled kernels with others; test_every_score goes the whole way."""
    return np.asarray(scores.SCORES[name].entry(measured, options))


def keys():
    for name in AUDITS:
        with np.load(GOLDEN / f"{name}.npz") as file:
            yield from ((name, key.partition("/")[2]) for key in file.files if key.startswith("score/"))


@pytest.mark.parametrize("name, key", list(keys()))
def test_scores_are_the_published_ones(name, key):
    arrays, options, measured = audit(name)
    published = arrays[f"score/{key}"]
    if key in RMIA:
        differences = np.abs(scored(RMIA[key], measured, options) - (1 - published))
        population = len(arrays["ref_labels"])
        assert differences.max() * population < 1.001 and np.mean(differences > 1e-6) <= 0.02
        return
    ours, tolerance = {**DIFFERENCES, **COMPLETENESS}[key]
    if key == "p_IPapprox_IAM_of_gumbelf":
        # This script uses the stale constants on both sides, which is no quirk: the affine map drops out.
        options = options._replace(compat="corrected")
    actual = scored(ours, measured, options)
    expected = -published if key in DIFFERENCES else 1 - published
    np.testing.assert_allclose(actual, expected, **{"rtol": 0, "atol": 0, **tolerance})


@pytest.mark.parametrize("name", BINUI)
def test_the_offline_level_is_the_published_one(name):
    arrays, options, measured = audit(name)
    level = entries.offline_level(measured, entries._log_log(options, offline=True))
    np.testing.assert_allclose(level, np.full(len(level), arrays["fit/target_ori_signal_off"][0]), atol=1e-5)


@pytest.mark.parametrize("name", BINUI)
def test_every_published_score_of_a_file_is_compared(name):
    arrays, _, _ = audit(name)
    compared = {*DIFFERENCES, *COMPLETENESS, *RMIA}
    assert {key.partition("/")[2] for key in arrays if key.startswith("score/")} <= compared


def test_purchase_is_normalised_by_stale_constants_only_in_the_faithful_form():
    arrays, options, measured = audit("binui_purchase_s4_class")
    published = 1 - arrays["score/p_IPapprox_simp_offline"]
    corrected = scored("iam_off", measured, options._replace(compat="corrected"))
    assert np.abs(corrected - published).max() > 0.01
    renamed = scored("iam_off", measured, options._replace(dataset="location"))
    np.testing.assert_allclose(renamed, corrected, atol=1e-6)
