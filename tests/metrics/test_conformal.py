"""Conformal prediction: golden arrays of the published code, the guarantee on real logits, bad input."""

import functools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from jaxunlearn import errors
from jaxunlearn.metrics.conformal import conformal, prediction_sets
from jaxunlearn.metrics.conformal.conformal import Options

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "conformal"
ALPHAS = (0.05, 0.1, 0.2)


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def golden(name):
    return np.load(GOLDEN / f"{name}.npz")


def test_the_published_rank_for_every_size_and_level():
    file = golden("cr_quantile")
    for n, alpha, place in zip(file["n"], file["alpha"], file["rank0"], strict=True):
        assert conformal.rank_of(int(n), float(alpha)) == (place if place >= 0 else n)  # -1: the published code raises


def test_the_published_threshold_of_scores():
    file = golden("cr_quantile")
    result = [conformal.threshold(file["scores"], alpha) for alpha in file["scores_alpha"]]
    np.testing.assert_array_equal(result, file["scores_qhat"])


@pytest.mark.parametrize("case", ["c0_", "c1_"])
def test_sets_coverage_size_and_cr_of_the_published_code(case):
    file = {name.removeprefix(case): array for name, array in golden("cr_sets").items() if name.startswith(case)}
    alphas = file["alphas"]
    q_hat = conformal.calibrate(file["cal_logits"], file["cal_labels"], alphas)
    np.testing.assert_allclose(q_hat, file["q_hat"], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(conformal.prediction_sets(file["logits"], q_hat), file["pred_sets"])
    report = conformal.evaluate(file["cal_logits"], file["cal_labels"], file["logits"], file["labels"], alphas)
    np.testing.assert_array_equal(report.q_hat, q_hat)
    quality = report.quality
    for ours, theirs in ((quality.coverage, "coverage"), (quality.set_size, "set_size"), (quality.cr, "cr")):
        np.testing.assert_allclose(ours, file[theirs], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.full(len(alphas), quality.accuracy), file["acc"], rtol=1e-6, atol=1e-6)
    assert quality.mistaken == file["fake_n_mislabel"]
    np.testing.assert_allclose(quality.recover_ratio * quality.mistaken, file["fake_n_inset"], atol=1e-4)


def test_data_wise_and_class_wise_reports_of_the_published_code():
    file = golden("cr_pipeline")

    def subset_of(name):
        return file[f"{name}_logits"], file[f"{name}_labels"]

    alpha = [float(file["alpha"])]
    q_hat = conformal.calibrate(*subset_of("cal_retain"), alpha)
    np.testing.assert_allclose(q_hat, file["data_wise_qhat"], rtol=1e-6)
    data = [subset_of("train_retain"), subset_of("train_forget"), subset_of("test_retain")]
    summaries = [prediction_sets.summarise(conformal.predict(*subset, q_hat)) for subset in data]
    compare(summaries, file, "data_wise", ("cov", "size", "cr", "acc"))

    thresholds = {name: conformal.calibrate(*subset_of(f"cal_{name}"), alpha) for name in ("retain", "forget")}
    np.testing.assert_allclose(
        np.ravel([thresholds["retain"], thresholds["forget"]]), file["class_wise_qhat"], rtol=1e-6
    )
    names = ["train_retain", "train_forget", "test_forget", "test_retain"]
    summaries = [
        prediction_sets.summarise(conformal.predict(*subset_of(name), thresholds[name.split("_")[1]])) for name in names
    ]
    compare(summaries, file, "class_wise", ("acc",))
    compare(summaries[1:], file, "class_wise", ("cov", "size", "cr"))


def compare(result, file, kind, names):
    fields = {"cov": "coverage", "size": "set_size", "cr": "cr", "acc": "accuracy"}
    for name in names:
        ours = np.ravel([getattr(subset, fields[name]) for subset in result])
        np.testing.assert_allclose(ours, file[f"{kind}_{name}"], rtol=1e-6, atol=1e-6)


def naive_scores(logits, options):
    """The scores of `conformal.label_scores`, label by label, in float64."""
    probabilities = softmax(np.asarray(logits, np.float64))
    if options.score in ("lac", "log"):
        return 1 - probabilities if options.score == "lac" else -np.log(probabilities)
    scores = np.empty_like(probabilities)
    for line, out in zip(probabilities, scores, strict=True):
        for label in range(len(line)):
            before = [c for c in range(len(line)) if line[c] > line[label] or (line[c] == line[label] and c <= label)]
            penalty = options.lam * max(0, len(before) - options.k_reg) if options.score == "raps" else 0.0
            out[label] = line[before].sum() + penalty
    return scores


@pytest.mark.parametrize("score", conformal.SCORES)
@pytest.mark.parametrize("quantile_rule", conformal.QUANTILE_RULES)
def test_a_population_equals_the_naive_loop_over_models_and_alphas(score, quantile_rule):
    rng = np.random.default_rng(3)
    options = Options(score, quantile_rule, lam=0.05, k_reg=2)
    known, logits = rng.normal(0, 2, (3, 57, 6)).astype("f4"), rng.normal(0, 2, (3, 40, 6)).astype("f4")
    known_labels, labels = rng.integers(0, 6, 57), rng.integers(0, 6, 40)
    report = conformal.evaluate(known, known_labels, logits, labels, ALPHAS, options)
    for model in range(3):
        scores, every = naive_scores(known[model], options), naive_scores(logits[model], options)
        true_scores = np.sort(scores[np.arange(57), known_labels])
        for place, alpha in enumerate(ALPHAS):
            k = math.ceil(58 * (1 - alpha))
            q_hat = true_scores[k - 1] if quantile_rule == "textbook" else true_scores[min(k, 56)]
            assert report.q_hat[model, place] == pytest.approx(q_hat, abs=1e-6)
            inside = every <= q_hat + 1e-9
            right = inside[np.arange(40), labels]
            wrong = logits[model].argmax(-1) != labels
            quality = [leaf[model] if np.ndim(leaf) == 1 else leaf[model, place] for leaf in report.quality]
            expected = [40, 1 - wrong.mean(), right.mean(), inside.sum(1).mean(), right.mean() / inside.sum(1).mean(),
                        (inside.sum(1) == 0).sum(), right[wrong].mean(), wrong.sum()]  # fmt: skip
            np.testing.assert_allclose(quality, expected, rtol=1e-5)


def test_one_model_equals_its_line_of_a_population_and_groups_equal_their_samples():
    rng = np.random.default_rng(4)
    logits, labels = rng.normal(0, 2, (2, 90, 5)).astype("f4"), rng.integers(0, 5, 90)
    q_hat = conformal.calibrate(logits[:, :40], labels[:40], ALPHAS)
    sets = conformal.predict(logits[:, 40:], labels[40:], q_hat)
    single = conformal.predict(logits[1, 40:], labels[40:], conformal.calibrate(logits[1, :40], labels[:40], ALPHAS))
    for ours, subset in zip(sets, single, strict=True):
        np.testing.assert_array_equal(ours[1], subset)
    classes = prediction_sets.summarise(sets, np.stack([prediction_sets.of_classes(labels[40:], 5)] * 2))
    assert classes.coverage.shape == (2, 5, 3)
    picked = prediction_sets.summarise(sets, labels[40:] == 3)
    np.testing.assert_allclose(classes.coverage[:, 3], picked.coverage)
    third = labels[40:] == 3
    only = prediction_sets.summarise(conformal.predict(logits[:, 40:][:, third], labels[40:][third], q_hat))
    np.testing.assert_allclose(only.coverage, picked.coverage)


def test_calibration_rows_that_do_not_count_change_nothing():
    rng = np.random.default_rng(5)
    logits, labels = rng.normal(0, 2, (2, 80, 4)).astype("f4"), rng.integers(0, 4, 80)
    where = rng.random((2, 80)) < 0.6
    thresholds = conformal.calibrate(logits, labels, ALPHAS, where=where)
    for model in range(2):
        single = conformal.calibrate(logits[model][where[model]], labels[where[model]], ALPHAS)
        np.testing.assert_array_equal(thresholds[model], single)


@functools.cache
def real_logits(name):
    """(logits, labels) of real samples that the network was not trained on."""
    if name == "location30":  # held-out records of a network of configs/location.py, recorded once
        file = np.load(Path(__file__).with_name("location30_logits.npz"))
        return file["logits"].astype("f4"), file["labels"]
    inputs, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    model = LogisticRegression(C=1e-4, max_iter=300).fit(inputs[order[:400]], labels[order[:400]])
    return model.decision_function(inputs[order[400:]]).astype("f4"), labels[order[400:]]


@pytest.mark.parametrize("name", ["digits", "location30"])
@pytest.mark.parametrize("score", conformal.SCORES)
@pytest.mark.parametrize("alpha", [0.1, 0.2])
def test_the_guarantee_on_real_logits(name, score, alpha):
    """Over random splits, covered test samples are beta-binomial: mean k / (n + 1), one rank more by "published"."""
    logits, labels = real_logits(name)
    true_scores = np.asarray(conformal.true_label_scores(logits, labels, Options(score)), np.float64)
    true_scores = true_scores + np.random.default_rng(1).uniform(
        0, 1e-9, len(true_scores)
    )  # ties would only add coverage
    splits, n = 200, 50
    m = len(true_scores) - n
    rng = np.random.default_rng(2)
    orders = [rng.permutation(len(true_scores)) for _ in range(splits)]
    for quantile_rule, extra in (("textbook", 0), ("published", 1)):
        covered = np.array(
            [
                (true_scores[order[n:]] <= conformal.threshold(true_scores[order[:n]], alpha, quantile_rule)).sum()
                for order in orders
            ]
        )
        k = math.ceil((n + 1) * (1 - alpha)) + extra
        law = stats.betabinom(m, k, n + 1 - k)
        # 3.5 standard errors are about a third of what one rank makes.
        assert abs(covered.mean() - law.mean()) < 3.5 * law.std() / math.sqrt(splits)
        low, high = law.ppf([0.005, 0.995])
        outside = int(((covered < low) | (covered > high)).sum())
        assert outside <= stats.binom(splits, 0.01).ppf(0.999)
        if quantile_rule == "textbook":
            assert law.mean() / m >= 1 - alpha


def test_the_jitted_sets_keep_the_guarantee_too():
    logits, labels = real_logits("digits")
    rng = np.random.default_rng(7)
    orders = [rng.permutation(len(labels)) for _ in range(40)]
    coverages = [
        conformal.evaluate(logits[o[:100]], labels[o[:100]], logits[o[100:]], labels[o[100:]], [0.1],
                           Options(quantile_rule="textbook")).quality.coverage[0]
        for o in orders
    ]  # fmt: skip
    law = stats.betabinom(len(labels) - 100, 91, 10)
    assert abs(np.mean(coverages) - law.mean() / law.args[0]) < 4 * law.std() / law.args[0] / math.sqrt(40)


@given(st.integers(1, 400), st.floats(0.001, 0.999))
@settings(max_examples=200, deadline=None)
def test_ranks_are_the_textbook_order_statistic_or_one_more(n, alpha):
    textbook, published = (conformal.rank_of(n, alpha, rule) for rule in ("textbook", "published"))
    assert textbook <= published <= textbook + 1
    if textbook < n:
        assert textbook + 1 >= (n + 1) * (1 - alpha) and published < n
    else:
        assert math.ceil((n + 1) * (1 - alpha)) > n
    assert conformal.rank_of(conformal.smallest_calibration(alpha), alpha) < conformal.smallest_calibration(alpha)
    assert conformal.smallest_calibration(alpha) == 1 or (
        conformal.rank_of(conformal.smallest_calibration(alpha) - 1, alpha) == conformal.smallest_calibration(alpha) - 1
    )


@given(st.integers(0, 10**6), st.sampled_from(conformal.SCORES))
@settings(max_examples=25, deadline=None)
def test_smaller_alphas_give_larger_sets_and_cr_stays_below_1(seed, score):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, rng.uniform(0.1, 30), (120, 7)).astype("f4"), rng.integers(0, 7, 120)
    quality = conformal.evaluate(logits[:60], labels[:60], logits[60:], labels[60:], ALPHAS, Options(score)).quality
    assert np.all(np.diff(quality.set_size) <= 0) and np.all(np.diff(quality.coverage) <= 0)
    assert np.all((quality.cr <= 1) | np.isnan(quality.cr)) and np.all(quality.coverage <= 1)


def test_too_few_calibration_samples_make_full_sets():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(30, 4)).astype("f4"), rng.integers(0, 4, 30)
    report = conformal.evaluate(logits[:10], labels[:10], logits[10:], labels[10:], [0.05, 0.2])
    assert report.q_hat[0] == np.inf and np.isfinite(report.q_hat[1])
    assert report.quality.coverage[0] == 1 and report.quality.set_size[0] == 4 and report.quality.cr[0] == 0.25
    assert conformal.smallest_calibration(0.05) == 19


def test_constant_and_saturated_logits():
    labels = np.arange(40) % 10
    flat = np.zeros((40, 10), np.float32)
    report = conformal.evaluate(flat[:20], labels[:20], flat[20:], labels[20:], [0.1])
    assert report.quality.set_size[0] == 10 and report.quality.cr[0] == pytest.approx(0.1)
    sure = (80 * np.eye(10, dtype=np.float32))[labels]
    turned = conformal.evaluate(sure, labels, np.roll(sure, 1, 1), labels, [0.1])  # sure, and always wrong
    assert turned.quality.coverage[0] == 0 and turned.quality.set_size[0] == 1 and turned.quality.recover_ratio[0] == 0
    unsure = conformal.evaluate(sure, labels, flat, labels, [0.1])  # threshold 0: no set holds anything
    assert np.isnan(unsure.quality.cr[0]) and unsure.quality.empty[0] == 40


def test_the_log_score_tells_confidences_apart_that_float32_rounds_to_one():
    """Confidences of 1e-12: 1 - p is 1 for every label, so lac gives full sets and the logarithm does not."""
    labels = np.zeros(40, np.int64)
    forgotten = np.tile(np.float32([-28, 0, -35]), (40, 1))
    lac, log = (
        conformal.evaluate(forgotten, labels, forgotten, labels, [0.1], Options(score)).quality.set_size[0]
        for score in ("lac", "log")
    )
    assert (lac, log) == (3, 2)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"alphas": [1.0]}, errors.ConfigError, "alpha = 1.0"),
        ({"alphas": [0.0]}, errors.ConfigError, "alpha = 0.0"),
        ({"alphas": []}, errors.ConfigError, "no alpha"),
        ({"options": Options("lacc")}, errors.ConfigError, "Did you mean 'lac'"),
        ({"options": Options(quantile_rule="higher")}, errors.ConfigError, "unknown quantile rule"),
        ({"logits": np.full((5, 3), np.nan, "f4")}, errors.DataError, "15 value"),
        ({"labels": np.array([0, 1, 2, 3, 0])}, errors.DataError, r"must lie in \[0, 2\]"),
        ({"labels": np.zeros(4, int)}, errors.ShapeError, "axis N"),
        ({"logits": np.zeros((5, 4), "f4")}, errors.ShapeError, "same models and classes"),
        ({"calibration_logits": np.zeros((0, 3), "f4"), "calibration_labels": np.zeros(0, int)}, errors.DataError,
         "no sample"),
    ],
)  # fmt: skip
def test_bad_input(change, error, message):
    good = {
        "calibration_logits": np.zeros((30, 3), "f4"), "calibration_labels": np.arange(30) % 3,
        "logits": np.zeros((5, 3), "f4"), "labels": np.arange(5) % 3, "alphas": [0.1],
    }  # fmt: skip
    with pytest.raises(error, match=message):
        conformal.evaluate(**{**good, **change})
