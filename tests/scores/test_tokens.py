"""Properties of the scores of texts: padding, order, naive references, extreme losses, and invalid input."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import errors, scores
from jaxunlearn.scores import texts, tokens
from jaxunlearn.scores.tokens import references, statistics
from jaxunlearn.scores.tokens import texts as writing

LENGTHS = np.array([9, 30, 1, 17, 5])
OPTIONS = tokens.TokenOptions()


def drawn(seed=0, width=30):
    """Arrays of five texts of different lengths."""
    generator = np.random.default_rng(seed)
    shape = (len(LENGTHS), width)
    mask = np.arange(width) < LENGTHS[:, None]
    logp = -generator.gamma(1.0, 2.0, shape).astype(np.float32)
    entropy = generator.uniform(0.5, 4, shape).astype(np.float32)
    std = generator.uniform(0.3, 2, shape).astype(np.float32)
    mean = (-9 + entropy).astype(np.float32)
    return {"token_logp_target": logp, "mask": mask, "entropy": entropy, "model_std": std, "vocab_mean": mean,
            "vocab_std": std}  # fmt: skip


def summary(inputs, options=OPTIONS):
    moments = {name: inputs[name] for name in ("entropy", "model_std", "vocab_mean", "vocab_std")}
    return tokens.summarise(inputs["token_logp_target"], inputs["mask"], options, **moments)


def naive(logp, entropy, std):
    """Min-K, Min-K++, SURP and PAC's distance of one text without padding, by sorting."""
    n = len(logp)
    counts = [max(1, int(fraction * n)) for fraction in (0.2, 0.4, 0.3, 0.05)]
    rising = np.sort(logp)
    unlikely = np.argsort(logp, kind="stable")[: counts[1]]
    sure_tokens = [index for index in unlikely if entropy[index] < 2.0]
    return (
        rising[: counts[0]].mean(),
        np.sort((logp + entropy) / std)[: counts[0]].mean(),
        logp[sure_tokens].mean() if sure_tokens else -100.0,
        rising[-counts[3] :].mean() - rising[: counts[2]].mean(),
    )


def test_statistics_are_those_of_a_loop_over_texts():
    inputs = drawn()
    nll, actual = summary(inputs)
    for row, length in enumerate(LENGTHS):
        logp, entropy, std = (inputs[name][row, :length] for name in ("token_logp_target", "entropy", "model_std"))
        expected = naive(logp, entropy, std)
        computed = [line[row] for line in (actual.min_k, actual.min_k_pp, actual.surp, actual.pac_distance)]
        np.testing.assert_allclose(computed, expected, rtol=2e-6)
        np.testing.assert_allclose(nll[row], -logp.mean(), rtol=1e-6)


def test_a_text_does_not_depend_on_its_batch_or_its_padding():
    inputs = drawn()
    nll, actual = summary(inputs)
    padding = np.full((len(LENGTHS), 7), 1e3, np.float32)  # whatever stands there
    wide = {name: np.concatenate([array, padding.astype(array.dtype) * 0 if name == "mask" else padding], 1)
            for name, array in inputs.items()}  # fmt: skip
    for other, rows in ((wide, np.arange(5)), ({name: array[3:4] for name, array in inputs.items()}, np.array([3]))):
        again = summary(other)
        for name in statistics.TextSignals._fields[:5]:
            np.testing.assert_allclose(getattr(again[1], name), np.asarray(getattr(actual, name))[rows], rtol=1e-6)
        np.testing.assert_allclose(again[0], np.asarray(nll)[rows], rtol=1e-6)


def counting(table, ids, mask):
    """A causal model that counts its own history: logits depend on real tokens up to the position only."""
    real = jnp.asarray(mask, jnp.float32)[..., None]
    return jnp.cumsum(jnp.eye(len(table))[ids] * real, 1) @ table


def test_signals_do_not_depend_on_side_or_width_of_the_padding_or_the_batch():
    generator = np.random.default_rng(3)
    table = generator.standard_normal((12, 12)).astype(np.float32)
    written = [generator.integers(0, 12, length) for length in (9, 4, 6)]

    def padded(width, left):
        ids, mask = np.zeros((3, width), int), np.zeros((3, width), bool)
        for row, text in enumerate(written):
            columns = slice(width - len(text), width) if left else slice(0, len(text))
            ids[row, columns], mask[row, columns] = text, True
        return ids, mask

    actual = []
    for width, left, batch in ((9, False, 3), (14, False, 2), (12, True, 1)):
        read = tokens.extract(counting, table, *padded(width, left), batch=batch)
        assert read.logp.shape == (3, width - 1)
        actual.append([[np.asarray(field)[row][read.mask[row]] for field in read[:5]] for row in range(3)])
    for other in actual[1:]:
        for row in range(3):
            np.testing.assert_allclose(other[row], actual[0][row], rtol=2e-5, atol=1e-6)
    logits = np.cumsum(np.eye(12)[written[0]], 0) @ table
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    p = np.exp(logp)[:-1]
    mean = (p * logp[:-1]).sum(-1)
    reference = [
        logp[np.arange(8), written[0][1:]], -mean, np.sqrt((p * (logp[:-1] - mean[:, None]) ** 2).sum(-1)),
        logp[:-1].mean(-1), logp[:-1].std(-1, ddof=1),
    ]  # fmt: skip
    np.testing.assert_allclose(actual[0][0], reference, rtol=2e-5, atol=1e-6)


def test_signals_hold_where_logits_are_minus_infinity_or_huge():
    logits = np.array([[[0.0, -np.inf, 0.0], [1e4, 0.0, -1e4], [0.0, 0.0, 0.0]]], np.float32)
    read = tokens.from_logits(logits, np.array([[1, 2, 0]]), np.ones((1, 3), int))
    np.testing.assert_allclose(read.entropy, [[np.log(2), 0.0]], rtol=1e-6)
    np.testing.assert_allclose(read.logp, [[np.log(0.5), 0.0]], rtol=1e-6)
    np.testing.assert_allclose(read.vocab_mean[0, 0], np.log(0.5), rtol=1e-6)
    assert np.isfinite(np.asarray(read.vocab_std)).all() and np.isfinite(np.asarray(read.model_std)).all()


def test_texts_without_a_prediction_are_not_a_number_and_one_token_is_all_there_is():
    read = tokens.from_logits(np.zeros((2, 1, 4), np.float32), np.zeros((2, 1), int), np.ones((2, 1), int))
    assert read.logp.shape == (2, 0)
    logp, mask = np.array([[-1.0, -2.0], [-3.0, -9.0]], np.float32), np.array([[0, 0], [1, 0]])
    nll, actual = tokens.summarise(logp, mask, entropy=np.ones((2, 2), np.float32))
    for line in (nll, actual.min_k, actual.surp, actual.pac_distance):
        assert np.isnan(line[0]) and np.isfinite(line[1])
    assert (float(nll[1]), float(actual.min_k[1]), float(actual.surp[1]), float(actual.pac_distance[1])) == (
        3,
        -3,
        -3,
        0,
    )
    published = tokens.summarise(logp, mask, tokens.TokenOptions(is_faithful=True))[1].min_k
    assert np.isnan(published[1])


def test_the_kth_smallest_value_is_exact_with_ties_and_signs():
    generator = np.random.default_rng(1)
    values = generator.choice([-3.5, -0.0, 0.0, 2.0, 1e-38, -1e30, np.inf], (40, 23)).astype(np.float32)
    counts = generator.integers(1, 24, 40).astype(np.int32)
    actual = statistics.kth_smallest(jnp.asarray(values), jnp.asarray(counts))
    np.testing.assert_array_equal(np.asarray(actual), np.sort(values, 1)[np.arange(40), counts - 1])
    finite = np.where(np.isinf(values), 7.0, values).astype(np.float32)
    means = statistics.mean_of_smallest(jnp.asarray(finite), jnp.asarray(counts))
    expected = [np.sort(row.astype(float))[:count].mean() for row, count in zip(finite, counts, strict=True)]
    np.testing.assert_allclose(means, expected, rtol=1e-5)


def test_losses_near_zero_and_beyond_float32s_exponents_keep_their_order():
    nll = np.array([0.0, 1e-20, 1e-6, 0.1, 5.0, 90.0, 2000.0], np.float32)
    odds = np.asarray(references.log_odds(nll))
    assert np.isfinite(odds).all() and (np.diff(odds) < 0).all()
    inside, out, pop = np.full(7, 1.0, np.float32), np.full((1, 7), 3.0, np.float32), np.linspace(1, 4, 9)
    beaten = references.rmia(nll, inside, out, pop, pop * 0 + 1, pop[None] * 0 + 3)
    assert (np.diff(beaten) <= 0).all() and beaten[0] > beaten[-1] == 0
    for levels in (2, 50):
        actual = 1 - np.asarray(references.iam_unlearned(nll, inside, out, interpolation_steps=levels))
        assert ((actual >= 0) & (actual <= 1)).all() and (np.diff(actual) <= 1e-6).all()


def test_one_program_gives_what_the_audit_path_gives():
    inputs = drawn(1)
    generator = np.random.default_rng(2)
    losses = {name: generator.uniform(0.5, 4, size).astype(np.float32) for name, size in {
        "nll_fit": 5, "nll_ref": (2, 5), "nll_lower": 5, "nll_recall": 5, "nll_recall_member": 5,
        "nll_neighbours": (3, 5), "pop_nll_target": 8, "pop_nll_fit": 8, "pop_nll_ref": (2, 8),
    }.items()}  # fmt: skip
    written = np.array(["a text of words", "another one", "x", "aaaaaaaaaaaaaaaa", "bcd"])
    together = texts.score_arrays({**inputs, **losses, "deflated": writing.deflated(written).astype(np.float32)})
    actual = texts.run(("all",), {**inputs, **losses, "texts": written})
    assert set(actual.scores) == {*together, "random"} and set(actual.skipped) == {"lm_pac"}
    for name, values in together.items():
        np.testing.assert_allclose(actual.scores[name].values, values, rtol=1e-5, atol=1e-6, err_msg=name)
    copies = np.stack([inputs["token_logp_target"] - 0.5, inputs["token_logp_target"] * 1.5])
    masks = np.stack([inputs["mask"], inputs["mask"]])
    pac = texts.run(("lm_pac",), {**inputs, "token_logp_pac": copies, "mask_pac": masks}).scores["lm_pac"].values
    distance = np.asarray(summary(inputs)[1].pac_distance)
    np.testing.assert_allclose(pac, -(distance - distance * (1 + 1.5) / 2), rtol=1e-5, atol=1e-6)


class Watched(np.ndarray):
    """An array that notes the largest part that was read at once."""

    def __array_finalize__(self, parent):
        self.reads = getattr(parent, "reads", [])

    def __getitem__(self, key):
        block = super().__getitem__(key)
        self.reads.append(block.size)
        return np.asarray(block)


def test_tokens_are_read_in_blocks_with_the_same_numbers(monkeypatch):
    inputs = {**drawn(), "nll_ref": np.ones(5)}
    whole = texts.run(("all",), inputs).scores
    blocks = {name: np.asarray(array).view(Watched) for name, array in inputs.items()}
    monkeypatch.setattr(tokens.evidence, "BLOCK_BYTES", 2 * 30 * 4)  # two texts of 30 predictions
    read = tokens.from_arrays(blocks, OPTIONS)
    np.testing.assert_allclose(-read.target, whole["lm_loss"].values, rtol=1e-6)
    for field, name in (("min_k", "lm_min_k"), ("surp", "lm_surp"), ("min_k_pp", "lm_min_k_pp")):
        np.testing.assert_allclose(getattr(read.signals, field), whole[name].values, rtol=1e-6)
    for name in ("token_logp_target", "mask", "entropy", "model_std", "vocab_mean", "vocab_std"):
        assert len(blocks[name].reads) == 3 and max(blocks[name].reads) <= 60, name


def test_a_prompt_that_the_mask_leaves_out_changes_no_score():
    inputs = {name: array for name, array in drawn().items() if name != "vocab_mean"}
    inputs.pop("vocab_std")
    generator = np.random.default_rng(4)
    written = np.array(["a text of words", "another one", "x", "aaaaaaaaaaaaaaaa", "bcd"])
    beside = {"nll_fit": np.full(5, 2.0), "nll_ref": np.full(5, 3.0), "nll_lower": np.full(5, 2.5), "texts": written}
    prompted = {name: np.concatenate([generator.normal(size=(5, 7)).astype(np.float32), array], 1)
                for name, array in inputs.items() if name != "mask"}  # fmt: skip
    prompted["mask"] = np.concatenate([np.zeros((5, 7), bool), inputs["mask"]], 1)
    plain = texts.run(("all",), {**inputs, **beside}).scores
    masked = texts.run(("all",), {**prompted, **beside}).scores
    assert {"lm_zlib", "lm_lowercase", "lm_min_k", "lm_min_k_pp", "lm_surp", "lm_pac_distance"} <= set(plain)
    for name, score in plain.items():
        if name != "random":
            np.testing.assert_allclose(masked[name].values, score.values, rtol=1e-6, err_msg=name)
    whole = np.where(prompted["mask"] | (np.arange(37) < 7), 1, 0)
    kept = tokens.nll(prompted["token_logp_target"], whole, np.full(5, 7))
    np.testing.assert_allclose(kept, -plain["lm_loss"].values, rtol=1e-6)


def test_texts_that_cannot_be_encoded_have_a_size():
    actual = writing.deflated(["half \ud83d a pair", "\U0001f600\n", "a\0b", ""])
    assert np.isfinite(actual[:3]).all() and np.isnan(actual[3])


def test_swapped_words_are_the_same_words():
    text = "one two three four five six seven"
    swapped = writing.swapped_words(text, np.random.default_rng(0))
    assert sorted(swapped.split()) == sorted(text.split()) and swapped != text
    assert writing.swapped_words("one", np.random.default_rng(0)) == "one"


def changed(**change):
    inputs = {key: value for key, value in drawn().items() if key in ("token_logp_target", "mask")}
    return {key: value for key, value in {**inputs, **change}.items() if value is not None}


NAN = np.where((np.arange(5)[:, None] == 3) & (np.arange(30) == 2), np.nan, drawn()["token_logp_target"])


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"ids": np.arange(5)}, "neither `token_logp_target` .* nor `nll_target`"),
        (changed(mask=None), "needs `mask`"),
        (changed(mask=np.ones((5, 29), bool)), "mask"),
        (changed(token_logp_target=NAN), "is nan at text 3, prediction 2"),
        (changed(token_logp_target=-drawn()["token_logp_target"]), "look like losses: change their sign"),
        (changed(token_logp_target=np.full((5, 30), 0.5)), "look like probabilities"),
        (changed(mask=drawn()["mask"] & (np.arange(5) != 2)[:, None]), "text 2 has no prediction that counts"),
        (changed(nll_target=np.ones(5)), "given twice"),
        (changed(nll_ref=np.ones(4)), "nll_ref"),
        (changed(nll_fit=-np.ones(5)), "nll_fit is -1 at text 0"),
        (changed(nll_fit=np.array([1, 1, np.inf, 1, 1])), "nll_fit is inf at text 2"),
        (changed(nll_fit=np.ones((2, 5))), "IN is one model"),
        (changed(token_logp_fit=-np.ones((2, 5, 30))), "e.g. token_logp_fit\\[0\\]"),
        (changed(nll_ref=np.full(5, 1e9)), "no mean loss is so large"),
        (changed(token_logp_target=np.full((5, 30), -1e9)), "the mask must be 0"),
        (changed(token_logp_fit=-np.ones((5, 12))), "needs its own mask, `mask_fit`"),
        (changed(token_logp_ref=-np.ones((4, 30))), "token_logp_ref"),
        (changed(nll_ref=np.ones((2, 5)), pop_nll_ref=np.ones(6)), "the same models in the same order"),
        (changed(label=np.ones(5)), "marks no text as forgotten"),
        (changed(forgotten=np.ones(5)), "marks every text as forgotten"),
        (changed(forgotten=np.arange(5) < 2, label=np.arange(5) < 2), "give one of them"),
        (changed(model_std=np.ones((5, 30))), "'model_std' is given without 'entropy'"),
        (changed(entropy=-np.ones((5, 30))), "entropy is -1.0 at text 0"),
        (changed(texts=np.array(["a", "", "b", "c", "d"])), "text 1 has no characters"),
        (changed(nll_steps=np.ones((1, 5))), "contains one step"),
        (changed(nll_steps=np.ones((2, 5)), steps=np.array([2, 1])), "must grow"),
        (changed(token_logp_targt=np.ones((5, 30))), "Did you mean 'token_logp_target'"),
    ],
)
def test_bad_arrays_are_named(inputs, message):
    with pytest.raises(errors.UserError, match=message):
        texts.run(("lm_loss",), inputs)


def test_padding_may_hold_anything_and_rounding_above_zero_is_forgiven():
    inputs = changed()
    odd = np.where(inputs["mask"], inputs["token_logp_target"], np.nan)
    odd[1, 0] = 1e-4
    actual = texts.run(("lm_loss",), {**inputs, "token_logp_target": odd}).scores["lm_loss"].values
    assert np.isfinite(actual).all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"k": 0.0}, "tokens k"),
        ({"eps1": 1e-6}, "must be above"),
        ({"interpolation_steps": 1}, "IAM interpolation_steps"),
        ({"gamma": -1.0}, "gamma"),
    ],
)
def test_bad_options_are_refused(change, message):
    options = scores.Options(tokens=OPTIONS._replace(**change))
    with pytest.raises(errors.ConfigError, match=message):
        texts.run(("lm_loss",), changed(), options)


def test_a_score_of_logits_is_not_one_of_texts():
    actual = texts.run(("lm_loss", "iam_on"), changed())
    assert actual.skipped == {"iam_on": "is defined on logits, not on tokens"}
