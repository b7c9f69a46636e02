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


BATCHES = pytest.mark.parametrize("golden", ["tokens_right_pad", "tokens_left_pad", "tokens_long"])


def statistics(golden, is_faithful):
    read = tokens.from_logits(golden["logits"], golden["token_ids"], golden["attention_mask"], pad_target=is_faithful)
    moments = {name: getattr(read, name) for name in ("entropy", "model_std", "vocab_mean", "vocab_std")}
    nll, actual = tokens.summarise(read.logp, read.mask, tokens.TokenOptions(is_faithful=is_faithful), **moments)
    return read, nll, actual


@BATCHES
def test_statistics_of_tokens_as_published(golden):
    golden = load(golden)
    read, nll, actual = statistics(golden, True)
    np.testing.assert_allclose(nll, golden["nlloss"], rtol=1e-5)
    np.testing.assert_allclose(actual.min_k, golden["minkprob"], rtol=1e-5)
    np.testing.assert_allclose(actual.min_k_pp_vocab, golden["minkplusplus"], rtol=1e-5)
    np.testing.assert_allclose(actual.surp, golden["surp"], rtol=1e-5)
    np.testing.assert_allclose(actual.pac_distance, golden["polarized_distance"], rtol=1e-5)
    if "ignore_prefix" in golden:
        prompted = tokens.nll(read.logp, read.mask, golden["ignore_prefix"])
        np.testing.assert_allclose(prompted, golden["nlloss_prefix"], rtol=1e-5)


@BATCHES
def test_corrected_statistics_of_tokens(golden):
    golden = load(golden)
    read, nll, actual = statistics(golden, False)
    np.testing.assert_allclose(nll, golden["nll_corrected"], rtol=1e-5)
    np.testing.assert_allclose(actual.min_k, golden["minkprob_corrected"], rtol=1e-5)
    np.testing.assert_allclose(actual.min_k_pp, golden["minkplusplus_corrected"], rtol=1e-5)
    is_counted = np.asarray(read.mask)
    np.testing.assert_array_equal(is_counted, golden["input_mask"] & golden["target_mask"] > 0)
    np.testing.assert_allclose(
        np.asarray(read.logp)[is_counted], golden["token_logp"][is_counted], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", ["signals_a", "signals_b"])
@pytest.mark.parametrize("is_double, tolerance", [(True, 1e-12), (False, 2e-6)])
def test_scores_from_three_losses(name, is_double, tolerance):
    golden = load(name)
    with jax.enable_x64(is_double):
        nll, inside, out = golden["nll"], golden["nll_fit"], golden["nll_ref"][None]
        pops = golden["pop_nll"], golden["pop_nll_fit"], golden["pop_nll_ref"][None]
        actual = {
            "iam": 1 - references.iam_unlearned(nll, inside, out),
            "iam_steps10": 1 - references.iam_unlearned(nll, inside, out, interpolation_steps=10),
            "iam_eps": 1 - references.iam_unlearned(nll, inside, out, interpolation_steps=100, eps1=0.01),
            "iam_batched": 1 - references.iam_unlearned(nll, inside, out, block=int(golden["batch"])),
            "lira_scaled": references.lira(*map(references.log_odds, (nll, inside, out))),
            "ratio": references.ratio(nll, out),
        }
        for key, values in actual.items():
            assert values.dtype == (np.float64 if is_double else np.float32)
            np.testing.assert_allclose(values, golden[key], rtol=tolerance, atol=tolerance, err_msg=key)
        counted = np.asarray(references.rmia(nll, inside, out, *pops)) * len(golden["pop_nll"])
        np.testing.assert_array_equal(counted.round(4), (golden["rmia"] * len(golden["pop_nll"])).round(4))


def test_the_logged_scores_follow_from_the_logged_losses():
    """Table 6: 7,753 texts of MUSE-News; IAM in blocks of 64 as logged."""
    golden, names = load("muse_news_retrain"), ("nll", "nll_fit", "nll_ref")
    truth = golden["label"] == 1
    with jax.enable_x64(True):
        nll, inside, out = (golden[name].astype(np.float64) for name in names)
        logged = 1 - np.asarray(references.iam_unlearned(nll, inside, out[None], block=64))
        np.testing.assert_allclose(logged, golden["iam_batch64"], rtol=0, atol=1e-12)
        whole = 1 - np.asarray(references.iam_unlearned(nll, inside, out[None]))
        np.testing.assert_allclose(whole, golden["iam_full"], rtol=0, atol=1e-12)
        lira = np.asarray(references.lira(*map(references.log_odds, (nll, inside, out[None]))))
        np.testing.assert_allclose(lira, golden["lira_scaled"], rtol=1e-6)
    for key, values in {"auc_iam_batch64": logged, "auc_lira": lira, "auc_loss": -nll, "auc_ratio": -nll / out}.items():
        np.testing.assert_allclose(roc.auc(values, truth), golden[key], atol=1e-6, err_msg=key)
    plain = {"nll_target": golden["nll"], "nll_fit": golden["nll_fit"], "nll_ref": golden["nll_ref"]}
    actual = texts.run(("lm_iam", "lm_lira"), plain).scores
    np.testing.assert_allclose(actual["lm_iam"].values, golden["iam_full"], atol=2e-6)
    np.testing.assert_allclose(roc.auc(actual["lm_lira"].values, truth), golden["auc_lira"], atol=1e-6)


def test_the_published_spearman_over_checkpoints():
    golden = load("muse_news_steps")
    steps = np.repeat(golden["steps"] / golden["steps"].max(), golden["nll_by_step"].shape[1])
    inside, out = golden["nll_fit"], golden["nll_ref"][None]
    for key, block in (("spearman_iam64", 64), ("spearman_iam_full", 0)):
        each = [references.iam_unlearned(nll, inside, out, block=block) for nll in golden["nll_by_step"]]
        actual = scipy.stats.spearmanr(1 - np.ravel(each).astype(np.float64), steps)[0]
        np.testing.assert_allclose(actual, golden[key], atol=1e-5, err_msg=key)


def test_zlib_of_bytes_by_characters():
    golden = load("zlib")
    written = [bytes(row[:count]).decode() for row, count in zip(golden["text_bytes"], golden["n_bytes"], strict=True)]
    assert [len(text) for text in written] == golden["n_chars"].tolist() and golden["n_chars"][2] < golden["n_bytes"][2]
    for arrays in (
        {"texts": np.array(written)},
        {"compressed_len": golden["compressed_len"], "n_chars": golden["n_chars"]},
    ):
        actual = texts.run(("lm_zlib",), {"nll": golden["nll"], **arrays}).scores["lm_zlib"]
        np.testing.assert_allclose(actual.values, golden["score"], rtol=1e-6)


def test_the_published_bootstrap():
    golden = load("bootstrap")
    truth = golden["y_true"] == 1
    index = bootstrap.legacy_index(truth, int(golden["seed"]), int(golden["n_bootstraps"]))
    np.testing.assert_array_equal(index, golden["index"])
    draws = bootstrap.legacy(golden["score"], truth, index)
    np.testing.assert_allclose(draws.auc, golden["auc_each"], rtol=1e-12)
    np.testing.assert_allclose(draws.tpr, golden["tpr_each"], rtol=1e-12)
    rows = bootstrap.table({"s": golden["score"]}, truth, mode="legacy", seed=21, iterations=50)["s"]
    reported = [[round(rows[name].value, 4), round(rows[name].std, 4)] for name in bootstrap.COLUMNS]
    np.testing.assert_array_equal(reported, golden["reported"])


def test_a_separated_score_is_not_sure_because_few_draws_disagree():
    truth = np.arange(30) < 20
    (row,) = bootstrap.table({"s": truth.astype(float)}, truth, iterations=50).values()
    for name in bootstrap.COLUMNS:
        assert row[name].value == 1 == row[name].high and row[name].low < 0.9
    assert row["auc"].low < row["tpr_at_fpr_1e-1"].low  # 10 pairs, 20 kept texts


def test_every_score_of_texts_is_in_the_one_table():
    actual = scores.names_of(("all",), scores.TOKENS)
    assert {"lm_loss", "lm_iam", "lm_min_k_pp", "random"} <= set(actual) and "iam_on" not in actual
