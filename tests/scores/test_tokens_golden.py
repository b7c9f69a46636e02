"""Scores of texts against arrays of the published implementation, the logged scores of its real losses included."""

from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.stats

from jaxunlearn import scores
from jaxunlearn.metrics import roc
from jaxunlearn.metrics.ranking import bootstrap
from jaxunlearn.scores import texts, tokens
from jaxunlearn.scores.tokens import references

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "llm"


def load(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


BATCHES = pytest.mark.parametrize("given", ["tokens_right_pad", "tokens_left_pad", "tokens_long"])


def statistics(given, is_faithful):
    read = tokens.from_logits(given["logits"], given["token_ids"], given["attention_mask"], pad_target=is_faithful)
    moments = {name: getattr(read, name) for name in ("entropy", "model_std", "vocab_mean", "vocab_std")}
    nll, found = tokens.summarise(read.logp, read.mask, tokens.TokenOptions(is_faithful=is_faithful), **moments)
    return read, nll, found


@BATCHES
def test_statistics_of_tokens_as_published(given):
    given = load(given)
    read, nll, found = statistics(given, True)
    np.testing.assert_allclose(nll, given["nlloss"], rtol=1e-5)
    np.testing.assert_allclose(found.min_k, given["minkprob"], rtol=1e-5)
    np.testing.assert_allclose(found.min_k_pp_vocab, given["minkplusplus"], rtol=1e-5)
    np.testing.assert_allclose(found.surp, given["surp"], rtol=1e-5)
    np.testing.assert_allclose(found.pac_distance, given["polarized_distance"], rtol=1e-5)
    if "ignore_prefix" in given:
        prompted = tokens.nll(read.logp, read.mask, given["ignore_prefix"])
        np.testing.assert_allclose(prompted, given["nlloss_prefix"], rtol=1e-5)


@BATCHES
def test_corrected_statistics_of_tokens(given):
    given = load(given)
    read, nll, found = statistics(given, False)
    np.testing.assert_allclose(nll, given["nll_corrected"], rtol=1e-5)
    np.testing.assert_allclose(found.min_k, given["minkprob_corrected"], rtol=1e-5)
    np.testing.assert_allclose(found.min_k_pp, given["minkplusplus_corrected"], rtol=1e-5)
    kept = np.asarray(read.mask)
    np.testing.assert_array_equal(kept, given["input_mask"] & given["target_mask"] > 0)
    np.testing.assert_allclose(np.asarray(read.logp)[kept], given["token_logp"][kept], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["signals_a", "signals_b"])
@pytest.mark.parametrize("is_double, tolerance", [(True, 1e-12), (False, 2e-6)])
def test_scores_from_three_losses(name, is_double, tolerance):
    given = load(name)
    with jax.enable_x64(is_double):
        nll, inside, out = given["nll"], given["nll_fit"], given["nll_ref"][None]
        pops = given["pop_nll"], given["pop_nll_fit"], given["pop_nll_ref"][None]
        found = {
            "iam": references.iam(nll, inside, out),
            "iam_steps10": references.iam(nll, inside, out, interpolation_steps=10),
            "iam_eps": references.iam(nll, inside, out, interpolation_steps=100, eps1=0.01),
            "iam_batched": references.iam(nll, inside, out, block=int(given["batch"])),
            "lira_scaled": references.lira(*map(references.log_odds, (nll, inside, out))),
            "ratio": references.ratio(nll, out),
        }
        for key, values in found.items():
            assert values.dtype == (np.float64 if is_double else np.float32)
            np.testing.assert_allclose(values, given[key], rtol=tolerance, atol=tolerance, err_msg=key)
        counted = np.asarray(references.rmia(nll, inside, out, *pops)) * len(given["pop_nll"])
        np.testing.assert_array_equal(counted.round(4), (given["rmia"] * len(given["pop_nll"])).round(4))


def test_the_logged_scores_follow_from_the_logged_losses():
    """Table 6: 7,753 texts of MUSE-News; IAM in blocks of 64 as logged."""
    given, names = load("muse_news_retrain"), ("nll", "nll_fit", "nll_ref")
    truth = given["label"] == 1
    with jax.enable_x64(True):
        nll, inside, out = (given[name].astype(np.float64) for name in names)
        logged = np.asarray(references.iam(nll, inside, out[None], block=64))
        np.testing.assert_allclose(logged, given["iam_batch64"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(references.iam(nll, inside, out[None]), given["iam_full"], rtol=0, atol=1e-12)
        lira = np.asarray(references.lira(*map(references.log_odds, (nll, inside, out[None]))))
        np.testing.assert_allclose(lira, given["lira_scaled"], rtol=1e-6)
    for key, values in {"auc_iam_batch64": logged, "auc_lira": lira, "auc_loss": -nll, "auc_ratio": -nll / out}.items():
        np.testing.assert_allclose(roc.auc(values, truth), given[key], atol=1e-6, err_msg=key)
    plain = {"nll_target": given["nll"], "nll_fit": given["nll_fit"], "nll_ref": given["nll_ref"]}
    found = texts.run(("lm_iam", "lm_lira"), plain).scores
    np.testing.assert_allclose(found["lm_iam"].values, given["iam_full"], atol=2e-6)
    np.testing.assert_allclose(roc.auc(found["lm_lira"].values, truth), given["auc_lira"], atol=1e-6)


def test_the_published_spearman_over_checkpoints():
    given = load("muse_news_steps")
    steps = np.repeat(given["steps"] / given["steps"].max(), given["nll_by_step"].shape[1])
    inside, out = given["nll_fit"], given["nll_ref"][None]
    for key, block in (("spearman_iam64", 64), ("spearman_iam_full", 0)):
        each = [references.iam_unlearned(nll, inside, out, block=block) for nll in given["nll_by_step"]]
        found = scipy.stats.spearmanr(1 - np.ravel(each).astype(np.float64), steps)[0]
        np.testing.assert_allclose(found, given[key], atol=1e-5, err_msg=key)


def test_zlib_of_bytes_by_characters():
    given = load("zlib")
    written = [bytes(row[:count]).decode() for row, count in zip(given["text_bytes"], given["n_bytes"], strict=True)]
    assert [len(text) for text in written] == given["n_chars"].tolist() and given["n_chars"][2] < given["n_bytes"][2]
    for arrays in (
        {"texts": np.array(written)},
        {"compressed_len": given["compressed_len"], "n_chars": given["n_chars"]},
    ):
        found = texts.run(("lm_zlib",), {"nll": given["nll"], **arrays}).scores["lm_zlib"]
        np.testing.assert_allclose(found.values, given["score"], rtol=1e-6)


def test_the_published_bootstrap():
    given = load("bootstrap")
    truth = given["y_true"] == 1
    index = bootstrap.legacy_index(truth, int(given["seed"]), int(given["n_bootstraps"]))
    np.testing.assert_array_equal(index, given["index"])
    draws = bootstrap.legacy(given["score"], truth, index)
    np.testing.assert_allclose(draws.auc, given["auc_each"], rtol=1e-12)
    np.testing.assert_allclose(draws.tpr, given["tpr_each"], rtol=1e-12)
    rows = bootstrap.table({"s": given["score"]}, truth, mode="legacy", seed=21, iterations=50)["s"]
    reported = [[round(rows[name].value, 4), round(rows[name].std, 4)] for name in bootstrap.COLUMNS]
    np.testing.assert_array_equal(reported, given["reported"])


def test_a_separated_score_is_not_sure_because_few_draws_disagree():
    truth = np.arange(30) < 20
    (row,) = bootstrap.table({"s": truth.astype(float)}, truth, iterations=50).values()
    for name in bootstrap.COLUMNS:
        assert row[name].value == 1 == row[name].high and row[name].low < 0.9
    assert row["auc"].low < row["tpr_at_fpr_1e-1"].low  # 10 pairs, 20 kept texts


def test_every_score_of_texts_is_in_the_one_table():
    found = scores.names_of(("all",), scores.TOKENS)
    assert {"lm_loss", "lm_iam", "lm_min_k_pp", "random"} <= set(found) and "iam_on" not in found
