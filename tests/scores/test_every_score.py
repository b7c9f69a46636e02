"""Checks that every score of the table must pass, whatever it is; the names come from the table itself."""

import functools
import logging

import audit_case
import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest
import scipy.special

from jaxunlearn import errors, records, scores
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.scores import audit_signals as pass_of

NAMES = list(scores.names_of(("all",)))
# Five levels of IAM instead of 100, to compile shorter programs. Golden arrays have the full number.
OPTIONS = scores.Options(interpolation_steps=naive.LEVELS)
OF_SAMPLES = {"unlearned": 0, "labels": 0, "original": 0, "shadows": 1, "forgotten": 0, "reference": 1,
              "reference_member": 1, "unlearned_views": 1, "original_views": 1, "shadows_views": 2}  # fmt: skip
OF_SHADOWS = {"shadows": 0, "population_shadows": 0, "shadow_train_logits": 0, "shadow_train_labels": 0,
              "shadows_views": 1}  # fmt: skip
# Ranges of scores that can leave [0, 1].
RANGES = {
    "bavaria_t": (-np.inf, np.inf),
    "bavaria_n": (-np.inf, np.inf),
    "base": (-np.inf, np.inf),
    "informia": (-np.inf, np.inf),
    "lira": (-np.inf, np.inf),
    "lira_on": (-np.inf, np.inf),
    "lira_on_views": (-np.inf, np.inf),
    "loss": (-np.inf, 0),
    "loss_diff": (-np.inf, np.inf),
    "carlini_diff": (-207, 207),
    "confidence_diff": (-1, 1),
    "logloss_diff": (-1, 1),
    "update": (-1, 1),
}
# Tolerances of float32 against the naive reference, if not 2e-5: the log-log signal is steep near p = 1.
COARSE = {name: 1e-4 for name in ("iam_on", "iam_off", "iam_raw", "logloss_diff")}
# Scores that are float64 for their resolution; all others are float32.
FLOAT64 = {"confidence", "loss"}


def reordered(evidence, order, axes):
    """Evidence with the entries of some arrays in another order."""
    return evidence.replace(**{name: np.take(getattr(evidence, name), order, axis) for name, axis in axes.items()})


@functools.cache
def base():
    return audit_case.make()


def rounded(dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.dtype == np.float32 else leaf, base())


def with_ties(evidence):
    """Every sample twice, all logits whole numbers, so that signals tie within and between models."""
    pairs = np.arange(len(evidence.labels)) // 2
    return jax.tree.map(lambda x: np.round(x) if x.dtype == np.float32 else x, reordered(evidence, pairs, OF_SAMPLES))


def saturated(evidence):
    """Logits of -80 and 80 only: every confidence is 0, 1 or a fraction."""
    return jax.tree.map(lambda x: np.where(x > 0.5, 80, -80).astype(x.dtype) if x.dtype == np.float32 else x, evidence)


def exploded(evidence, size):
    """Ascent that went too far: on forgotten samples the true class is at -size, another one at +size."""
    logits, forgotten_rows = np.array(evidence.unlearned), np.flatnonzero(evidence.forgotten)
    labels = evidence.labels[forgotten_rows]
    logits[forgotten_rows, labels] = -size * (1 + np.linspace(0, 1, len(forgotten_rows)))
    logits[forgotten_rows, (labels + 1) % logits.shape[-1]] = size
    return evidence.replace(unlearned=logits)


SAMPLE_ORDER = np.random.default_rng(1).permutation(60)
SHADOW_ORDER = np.array([2, 0, 3, 1])
VARIANTS = {
    "base": base,
    "other": lambda: audit_case.make(seed=5),
    "samples permuted": lambda: reordered(base(), SAMPLE_ORDER, OF_SAMPLES),
    "shadows permuted": lambda: reordered(base(), SHADOW_ORDER, OF_SHADOWS),
    "references permuted": lambda: reordered(base(), np.arange(6)[::-1], {"reference": 0, "reference_member": 0}),
    "float16": lambda: rounded(np.float16),
    "float16 as float32": lambda: jax.tree.map(
        lambda x: x.astype(np.float32) if x.dtype == np.float16 else x, rounded(np.float16)
    ),
    "bfloat16": lambda: rounded(jnp.bfloat16),
    "bfloat16 as float32": lambda: jax.tree.map(
        lambda x: x.astype(np.float32) if x.dtype == jnp.bfloat16 else x, rounded(jnp.bfloat16)
    ),
    "ties": lambda: with_ties(base()),
    "saturated": lambda: saturated(base()),
    "saturated ties": lambda: saturated(with_ties(base())),
    "exploded 50": lambda: exploded(base(), 50.0),
    "exploded 1e10": lambda: exploded(base(), 1e10),
    "exploded 1e15": lambda: exploded(base(), 1e15),
    "constant": lambda: jax.tree.map(lambda x: np.zeros_like(x) if x.dtype == np.float32 else x, base()),
    "two classes": lambda: audit_case.make(classes=2),
    "one shadow": lambda: audit_case.make(shadows=1, references=2),
    "one sample": lambda: audit_case.make(samples=1).replace(forgotten=None),
    "128 shadows": lambda: audit_case.make(
        shadows=128, samples=20, population=17, pairs=4, train_rows=5, views=1, references=20
    ),
}


@functools.cache
def measured(variant, pairs=False):
    evidence = VARIANTS[variant]()
    _, sizes = scores.check(evidence)
    assert sizes["N"] == len(evidence.labels)
    return scores.signals_pass(evidence, OPTIONS, pairs=pairs)


@functools.cache
def values(name, variant):
    if variant == "one sample":  # the entry alone, to share kernels: nothing else compiles these shapes
        return np.asarray(scores.SCORES[name].entry(measured(variant, pairs=name == "unleak"), OPTIONS), np.float32)
    return scores.compute(name, measured(variant, pairs=name == "unleak"), OPTIONS).values


def assert_sound(name, variant):
    actual = values(name, variant)
    low, high = RANGES.get(name, (0, 1))
    dtype = np.float64 if name in FLOAT64 and variant != "one sample" else np.float32
    assert actual.shape == (len(measured(variant).labels),) and actual.dtype == dtype
    assert np.isfinite(actual).all() and actual.min() >= low and actual.max() <= high


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"random", "unleak"}))
@pytest.mark.parametrize("variant", ["base", "one shadow", "two classes"])
def test_float32_follows_the_naive_float64_reference(name, variant):
    expected, actual = naive.SCORES[name](VARIANTS[variant]()), values(name, variant)
    if name.startswith("rmia"):  # fractions of the population; a product within rounding of gamma may fall either way
        differences = np.abs(actual - expected) * 31
        assert differences.max() < 1.001 and np.mean(differences > 1e-4) <= 0.02
    else:
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=COARSE.get(name, 2e-5))


@pytest.mark.parametrize(
    "name", ["rmia_on", "rmia_off", "iam_on", "iam_kde_off", "lira_on", "lira", "emia_r", "update"]
)
def test_128_shadows_follow_the_naive_reference(name):
    test_float32_follows_the_naive_float64_reference(name, "128 shadows")


def test_every_score_that_does_not_draw_has_a_naive_reference():
    assert set(naive.SCORES) == set(NAMES) - {"random", "unleak"}


@pytest.mark.parametrize("name", NAMES)
def test_permuting_the_samples_permutes_the_scores(name):
    actual, expected = values(name, "samples permuted"), values(name, "base")[SAMPLE_ORDER]
    if name == "random":  # noise of its own for every order of the samples: a sample must not find its number again
        assert np.mean(actual == expected) < 0.05
    else:
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_permuting_the_models_changes_nothing(name):
    # unleak's classifier meets its pairs in the order of the shadows, so there the order is kept (OF_SHADOWS).
    variant = "references permuted" if name == "lira" else "shadows permuted"
    np.testing.assert_allclose(values(name, variant), values(name, "base"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in ("two classes", "128 shadows")])
@pytest.mark.parametrize("name", NAMES)
def test_scores_are_finite_and_in_range_for(name, variant):
    assert_sound(name, variant)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"unleak"}))
def test_two_classes_are_enough(name):
    assert_sound(name, "two classes")


def test_two_classes_are_too_few_for_unleak():
    result = scores.run(("all",), VARIANTS["two classes"](), OPTIONS)
    assert result.skipped == {"unleak": "needs more than 3 classes, not 2"} and len(result.scores) == len(NAMES) - 1


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"random"}))
@pytest.mark.parametrize("variant", ["ties", "saturated ties"])
def test_equal_samples_get_equal_scores(name, variant):
    # The same sample twice, next to each other; lira's reference models hold one of the two.
    actual = values(name, variant)
    np.testing.assert_allclose(actual[::2], actual[1::2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_short_floats_are_computed_in_float32(name, dtype):
    np.testing.assert_array_equal(values(name, dtype), values(name, f"{dtype} as float32"))


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"random"}))
def test_float16_logits_rank_as_float32_ones(name):
    actual, expected = values(name, "float16"), values(name, "base")
    assert np.corrcoef(actual, expected)[0, 1] > 0.99


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"random"}))
def test_what_was_not_forgotten_looks_more_like_a_member(name):
    # The direction of every score; AUC above chance at its own 99 % interval.
    truth = ~base().forgotten
    assert intervals.delong(values(name, "base"), truth, 0.99).low > 0.5


@pytest.mark.parametrize("size", ["50", "1e10", "1e15"])
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"random", "unleak"}))
def test_a_sample_that_the_model_was_driven_away_from_is_no_member(name, size):
    actual, forgotten = values(name, f"exploded {size}"), base().forgotten
    assert intervals.delong(actual, ~forgotten, 0.95).value > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_a_shuffled_truth_gives_an_auc_of_one_half(name):
    shuffled = np.random.default_rng(3).permutation(~base().forgotten)
    actual = intervals.delong(values(name, "base"), shuffled, 0.999)
    assert actual.low < 0.5 < actual.high


def test_confidence_and_loss_rank_alike_where_both_saturate():
    rng = np.random.default_rng(2)
    odds = np.sort(np.concatenate([rng.uniform(-2000, 2000, 400), rng.uniform(14, 40, 400)]).astype(np.float32))
    logits = np.stack([odds, np.zeros_like(odds)], 1)
    actual = scores.run(("confidence", "loss"), records.Evidence(logits, np.zeros(len(odds), np.int32))).scores
    for name in ("confidence", "loss"):
        assert (np.diff(actual[name].values)[np.diff(odds) > 0] > 0).all()
    np.testing.assert_allclose(actual["confidence"].values, scipy.special.expit(odds.astype(float)), atol=2e-7)
    np.testing.assert_allclose(-actual["loss"].values, np.logaddexp(0, -odds.astype(float)), rtol=1e-6, atol=1e-300)


def test_a_score_without_finite_numbers_is_left_out_and_names_the_array():
    evidence = exploded(base(), 1.6e38)
    result = scores.run(("loss_diff", "confidence", "rmia_off"), evidence, OPTIONS)
    assert set(result.scores) == {"confidence", "rmia_off"}
    assert "the log-odds of `unlearned` reach inf" in result.skipped["loss_diff"]
    with pytest.raises(errors.DataError, match="no score could be computed: loss_diff: .* `unlearned`"):
        scores.run(("loss_diff",), evidence, OPTIONS)


def test_the_pass_in_small_blocks_equals_the_whole(monkeypatch):
    whole = measured("base", pairs=True)
    monkeypatch.setattr(pass_of, "BLOCK_BYTES", 4 * 6 * 7)  # seven rows of six classes
    assert len(list(pass_of._block_indices((4, 60), 6))) == 4 * 9
    short = scores.signals_pass(base(), OPTIONS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), short, whole)


def test_memory_maps_are_read_as_arrays_are(tmp_path):
    mapped = {}
    for name, array in audit_case.fields(base()).items():
        np.save(tmp_path / f"{name}.npy", array)
        mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")  # read-only: writing would fail
    evidence = base().replace(**mapped)
    for name in NAMES:
        np.testing.assert_array_equal(scores.run((name,), evidence, OPTIONS).scores[name].values, values(name, "base"))


def test_chosen_rows_are_those_of_the_whole_in_that_order():
    evidence, rows = base(), np.array([5, 59, 0, 7])
    selection = scores.signals_of(evidence.shadows, evidence.labels[rows], OPTIONS, rows=rows)
    for actual, whole in zip(selection, measured("base").shadows, strict=True):
        np.testing.assert_allclose(actual, whole[:, rows], rtol=1e-6)


def test_inputs_stay_as_they_were():
    evidence = audit_case.make(seed=5)
    before = {name: np.array(array) for name, array in audit_case.fields(evidence).items()}
    result = scores.run(("all",), evidence, OPTIONS)
    assert len(result.scores) == len(NAMES)
    for name, array in audit_case.fields(evidence).items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_second_audit_of_the_same_shapes_compiles_nothing(name, caplog):
    """Whatever its numbers, seed and data set: only options that decide a program are static."""
    values(name, "base")
    constants = scores.Constants(0.6, 1.0, 2e-2, 2e-5, 3e-2, 3e-5)
    options = OPTIONS._replace(constants=constants, gamma=1.5, seed=3, dataset="cifar100")
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        caplog.clear()
        scores.compute(name, scores.signals_pass(VARIANTS["other"](), options, pairs=name == "unleak"), options)
        assert not [record for record in caplog.records if "ompiling" in record.getMessage()]
        jax.block_until_ready(jax.jit(lambda x: x + len(name))(1.0))  # the log does show a compilation
        assert any("ompiling" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_audit_gives_the_same_scores(name):
    fresh = scores.signals_pass(audit_case.make(), OPTIONS, pairs=name == "unleak")
    np.testing.assert_array_equal(scores.compute(name, fresh, OPTIONS).values, values(name, "base"))
