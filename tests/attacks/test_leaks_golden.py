"""The kernels of Unlearning-Leaks against arrays of the published implementation."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import data, settings
from jaxunlearn.attacks.leaks import classifiers, defences, degradation, features, host_models, logistic, plan, sisa
from jaxunlearn.metrics import roc

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "unlearning_leaks"
FEATURES = ("direct_diff", "sorted_diff", "direct_concat", "sorted_concat", "l2_distance", "basic_mia")


def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as content:
        return dict(content)


def forms(values):
    """The same posteriors as float64 NumPy and as float32 JAX, with the tolerance of each."""
    return ((values, 1e-12), ({name: jnp.asarray(array, jnp.float32) for name, array in values.items()}, 1e-6))


@pytest.mark.parametrize("classes", ["K2", "K9", "K30"])
def test_features(classes):
    arrays = golden(f"features_{classes}")
    for posteriors, tolerance in forms(arrays):
        for name in FEATURES:
            actual = features.compute(posteriors["original"], posteriors["unlearning"], name)
            np.testing.assert_allclose(np.asarray(actual), arrays[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize("classes", ["K3", "K9"])
def test_defences_and_the_features_after_them(classes):
    arrays = golden(f"defences_{classes}")
    inputs = arrays if "original" in arrays else {**arrays, **golden("features_K9")}
    prefixes = sorted({name.partition("_")[0] for name in arrays if name.startswith(("top", "label"))})
    assert len(prefixes) > 2
    for posteriors, tolerance in forms({name: inputs[name] for name in ("original", "unlearning")}):
        for prefix in prefixes:
            how = {"defence": "label"} if prefix == "label" else {"defence": "top_k", "top_k": int(prefix[3:])}
            published = [defences.publish(posteriors[side], **how) for side in ("original", "unlearning")]
            for side, actual in zip(("original", "unlearning"), published, strict=True):
                expected = arrays[f"{prefix}_published_{side}"]
                np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=tolerance)
            for name in FEATURES:
                actual = features.compute(*published, name)
                np.testing.assert_allclose(np.asarray(actual), arrays[f"{prefix}_{name}"], rtol=0, atol=tolerance)


def test_degradation():
    arrays = golden("degradation_a")
    gains = degradation.gains(
        arrays["attack_posterior"][:, 1], arrays["classical_posterior"][:, 1], arrays["label"] == 1
    )
    assert degradation.rate(gains) == pytest.approx(float(arrays["deg_rate"]), abs=1e-12)
    assert degradation.count(gains) == pytest.approx(float(arrays["deg_count"]), abs=1e-12)


def test_record_split():
    arrays = golden("record_split_a")
    for count in (1000, 5010, 32561):
        for side, pool in zip(("shadow", "target"), plan.pools(count), strict=True):
            for name in plan.SideRows._fields:
                np.testing.assert_array_equal(getattr(pool, name), arrays[f"N{count}_{side}_{name}"])


def sizes(arrays, side, shards=0):
    return plan.Sizes(*(int(arrays[f"arg_{side}_{name}"]) for name in ("set_num", "set_size", "unlearning_size")),
                      int(arrays.get(f"arg_{side}_unlearning_num", 1)), shards)  # fmt: skip


@pytest.mark.parametrize("name", ["sampling_scratch_a", "sampling_scratch_group"])
def test_sampling_of_sets_and_deletions(name):
    arrays = golden(name)
    generator, later = np.random.RandomState(int(arrays["seed"])), np.random.RandomState(0)
    for side, pool in zip(("shadow", "target"), plan.pools(int(arrays["N"])), strict=True):
        drawn = plan.draw(pool, sizes(arrays, side), generator, later)
        np.testing.assert_array_equal(drawn.sets, arrays[f"{side}_set_indices"])
        np.testing.assert_array_equal(drawn.deleted, arrays[f"{side}_unlearning"])
        if side == "shadow":
            member, source = plan.membership(drawn, 0, int(arrays["N"]))
            first = len(drawn.sets)
            np.testing.assert_array_equal(np.flatnonzero(member[first]), arrays["shadow_unlearned_train_S0_U0"])
            assert source[first] == 0


def test_sampling_of_shards():
    arrays = golden("sampling_sisa_a")
    generator, later = np.random.RandomState(int(arrays["seed"])), np.random.RandomState(0)
    for side, pool in zip(("shadow", "target"), plan.pools(int(arrays["N"])), strict=True):
        shards = int(arrays[f"arg_{side}_num_shard"])
        drawn = plan.draw(pool, sizes(arrays, side, shards), generator, later)
        np.testing.assert_array_equal(drawn.sets, arrays[f"{side}_set_indices"])
        np.testing.assert_array_equal(plan.shards_of(drawn.sets, shards), arrays[f"{side}_shard_set"])
        np.testing.assert_array_equal(drawn.deleted[:, :, 0], arrays[f"{side}_unlearning"])
        np.testing.assert_array_equal(drawn.shard, arrays[f"{side}_unlearning_shard"])


def test_sisa_aggregation_corrected_and_faithful():
    arrays = golden("sisa_a")
    sets, _, deletions, _, classes = arrays["shard_posterior"].shape
    rows = sets * deletions * 2
    shards = np.moveaxis(arrays["shard_posterior"], 1, 0)  # the deletions of a set share its shard models
    shards = shards.reshape(len(shards), rows, classes)
    retrained = arrays["unlearned_shard_posterior"].reshape(rows, classes)
    shard = np.repeat(arrays["shard_of_deleted"].ravel(), 2)
    np.testing.assert_allclose(sisa.original(shards), arrays["original_aggregated"], rtol=0, atol=1e-12)
    for faithful, name in ((True, "faithful"), (False, "corrected")):
        actual = sisa.unlearned(shards, retrained, shard, faithful)
        np.testing.assert_allclose(actual, arrays[f"unlearned_aggregated_{name}"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["lr_binary", "lr_ovr5"])
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-8), ("float32", 1e-5)])
def test_logistic_regression_of_a_population_of_leave_one_out_models(name, dtype, tolerance):
    arrays = golden(name)
    classes = int(arrays["y"].max()) + 1
    weights = np.ones((1 + len(arrays["deleted"]), len(arrays["y"])), dtype)
    weights[np.arange(1, len(weights)), arrays["deleted"]] = 0
    with jax.enable_x64(dtype == "float64"):
        inputs, labels = jnp.asarray(arrays["X"], dtype), jnp.asarray(arrays["y"])
        models = jax.vmap(lambda weight: logistic.fit(inputs, labels, weight, classes))(jnp.asarray(weights))
        answers = jax.vmap(lambda model: jax.nn.softmax(logistic.logits(model, jnp.asarray(arrays["Q"], dtype))))(
            models
        )
        batch = jnp.asarray(arrays["Q"], dtype)
        for queries, name in ((batch, "posterior_reference_batch"), (batch[:1], "posterior_reference_single_row")):
            quirk = jax.vmap(
                lambda model: jax.nn.softmax(logistic.logits(logistic.standardised_by(model, queries), queries))  # noqa: B023
            )(models)
            expected = arrays[name].reshape(quirk.shape)
            np.testing.assert_allclose(np.asarray(quirk), expected, rtol=0, atol=2e-4)
        actual, coef, mean = np.asarray(answers), np.asarray(models.coef), np.asarray(models.mean)
    np.testing.assert_allclose(actual, arrays["posterior_exact_optimum"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(actual, arrays["posterior_train_scaler"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(coef, arrays["coef"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(mean, arrays["scaler_mean"], rtol=0, atol=1e-5)


def pipeline(kind, faithful=False):
    """(table [6, 6] of the published order, {feature: answers on target records})."""
    arrays = golden("pipeline_a")
    tables = [{name: features.compute(arrays[f"{side}_original"], arrays[f"{side}_unlearning"], name)
               for name in FEATURES} for side in ("train", "test")]  # fmt: skip
    truth = [arrays[f"{side}_label"] == 1 for side in ("train", "test")]
    actual = classifiers.run(kind, tables[0], truth[0], tables[1], faithful=faithful)
    rows = []
    for name in FEATURES:
        row = []
        for answers, deleted in zip(actual[name], truth, strict=True):
            row += [np.mean((answers.score > 0.5) == deleted), roc.auc(answers.score, deleted)]
        gains = degradation.gains(actual[name].target.probability, actual["basic_mia"].target.probability, truth[1])
        rows.append([*row, degradation.rate(gains), degradation.count(gains)])
    return np.asarray(rows), actual, arrays


def test_the_whole_attack_with_trees():
    table, actual, arrays = pipeline("dt")
    np.testing.assert_allclose(table, arrays["DT_table"], rtol=0, atol=1e-12)
    for name in FEATURES:
        expected = arrays[f"DT_{name}_test_attack_posterior"][:, 1]
        np.testing.assert_array_equal(actual[name].target.probability, expected)


def test_the_whole_attack_with_logistic_regressions_as_one_population():
    table, actual, arrays = pipeline("lr", faithful=True)
    np.testing.assert_allclose(table, arrays["LR_table"], rtol=0, atol=0.01)
    for name in FEATURES:
        expected = arrays[f"LR_{name}_test_attack_posterior"][:, 1]
        np.testing.assert_allclose(actual[name].target.probability, expected, rtol=0, atol=0.01)


def test_leave_one_out_models_of_adult(shared):
    arrays = golden("adult_loo_a")
    dataset = data.load(settings.DataSettings(name="adult", path=shared("adult.csv.gz")))
    order = np.argsort(dataset.ids)
    inputs, labels = np.asarray(dataset.inputs)[order], np.asarray(dataset.labels)[order]
    rows, queries = arrays["set_indices"], np.concatenate([arrays["deleted"], arrays["query"]])
    training_sets = [rows, *(rows[rows != row] for row in arrays["deleted"])]
    for index, training_set in enumerate(training_sets):
        tree = host_models.fit("dt", inputs[training_set], labels[training_set], 2)
        np.testing.assert_array_equal(tree(inputs[queries]), arrays["DT_posterior"][index])
    weights = np.stack([np.isin(rows, training_set) for training_set in training_sets])
    for dtype, tolerance in (("float64", 1e-7), ("float32", 2e-5)):
        with jax.enable_x64(dtype == "float64"):
            x, y, w = jnp.asarray(inputs[rows], dtype), jnp.asarray(labels[rows]), jnp.asarray(weights, dtype)
            models = jax.vmap(lambda weight: logistic.fit(x, y, weight, 2))(w)  # noqa: B023 - called at once
            query_inputs = jnp.asarray(inputs[queries], dtype)
            actual = jax.vmap(lambda model: jax.nn.softmax(logistic.logits(model, query_inputs)))(models)  # noqa: B023
            np.testing.assert_allclose(np.asarray(actual), arrays["LR_exact_posterior"], rtol=0, atol=tolerance)
