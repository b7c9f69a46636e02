"""Decoder-only transformers: causality, positions, padding, stacked layers, initial weights, errors of builders."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import errors, models
from jaxunlearn.models.architectures import language
from jaxunlearn.settings import ModelSettings
from jaxunlearn.unlearn.base import network

VOCABULARY, LENGTH = 11, 9
TEXTS = np.random.default_rng(0).integers(0, VOCABULARY, (3, LENGTH)).astype(np.int32)
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def make(is_rotary, is_scanned=False, layers=2):
    net = language.LanguageModel(VOCABULARY, 8, layers, 2, is_rotary, is_scanned)
    # Starts of 0.02 make a nearly linear network: larger ones make all layers matter.
    variables = jax.tree.map(lambda leaf: leaf * 10 if leaf.ndim > 1 else leaf, net.init(jax.random.key(1), TEXTS))
    return compiled(net.apply), variables


@pytest.mark.parametrize("is_rotary", [False, True])
def test_a_position_sees_itself_and_what_is_before(is_rotary):
    apply, variables = make(is_rotary)
    logits = apply(variables, TEXTS)
    assert logits.shape == (3, LENGTH, VOCABULARY) and logits.dtype == jnp.float32
    for position in range(LENGTH):
        changed_texts = TEXTS.copy()
        changed_texts[:, position] = (changed_texts[:, position] + 1) % VOCABULARY
        change = np.abs(np.asarray(apply(variables, changed_texts) - logits)).max(-1)
        assert change[:, :position].max(initial=0) == 0
        assert change[:, position:].min() > 0


@pytest.mark.parametrize("is_rotary", [False, True])
def test_padding_changes_nothing_that_counts(is_rotary):
    apply, variables = make(is_rotary)
    padded = TEXTS.copy()
    padded[:, 5:] = -1
    short, full = apply(variables, padded), apply(variables, TEXTS)
    np.testing.assert_array_equal(short[:, :5], full[:, :5])
    assert np.isfinite(short).all()


def test_rotary_positions_are_relative():
    """A product of a query and a key depends on their distance only, not on the positions themselves."""
    draws = np.random.default_rng(1)
    query, key = draws.normal(size=(2, 1, 1, 1, 6)).astype(np.float32)
    queries, keys = (language.rotated(jnp.broadcast_to(vector, (1, 12, 1, 6)))[0, :, 0] for vector in (query, key))
    products = np.asarray(queries @ keys.T)
    for distance in range(12):
        np.testing.assert_allclose(np.diagonal(products, -distance), products[distance, 0], rtol=1e-4, atol=1e-5)
    assert np.ptp(products[:, 0]) > 0.1
    np.testing.assert_allclose(np.linalg.norm(queries, axis=-1), np.linalg.norm(query), rtol=1e-5)


def test_rotary_models_take_longer_texts_and_learned_positions_do_not():
    longer = np.concatenate([TEXTS, TEXTS], 1)
    apply, variables = make(True)
    np.testing.assert_allclose(apply(variables, longer)[:, :LENGTH], apply(variables, TEXTS), rtol=1e-4, atol=1e-5)
    with pytest.raises(Exception, match="positions"):
        language.LanguageModel(VOCABULARY, 8, 2, 2).apply(make(False)[1], longer)


@pytest.mark.parametrize("is_rotary", [False, True])
def test_stacked_layers_are_the_layers_one_by_one(is_rotary):
    apply, stacked = make(is_rotary, is_scanned=True, layers=3)
    plain = {name: leaf for name, leaf in stacked["params"].items() if name != "layers"}
    for index in range(3):
        plain[f"layer_{index}"] = jax.tree.map(lambda leaf, index=index: leaf[index], stacked["params"]["layers"])
    one_by_one = make(is_rotary, layers=3)[0]
    np.testing.assert_allclose(apply(stacked, TEXTS), one_by_one({"params": plain}, TEXTS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_scanned", [False, True])
def test_hidden_streams_have_paths(is_scanned):
    net = language.LanguageModel(VOCABULARY, 8, 3, 2, True, is_scanned)
    wrapped = network.Network(net, lambda x, key, train: x, jax.ShapeDtypeStruct((LENGTH,), jnp.int32), VOCABULARY)
    variables = make(True, is_scanned, 3)[1]
    logits, _, features = network.with_features(wrapped, variables["params"], {}, jnp.asarray(TEXTS))
    assert len(features) == 3 and all(layer.shape[0] == 3 and layer.size == 3 * LENGTH * 8 for layer in features)
    last = np.asarray(features[-1]).reshape(3, LENGTH, 8)
    scale = variables["params"]["norm"]["scale"]
    normed = last / np.sqrt(np.square(last).mean(-1, keepdims=True) + 1e-5) * scale
    np.testing.assert_allclose(normed @ np.asarray(variables["params"]["tokens"]["embedding"]).T, logits, atol=1e-4)


def test_a_tied_embedding_is_no_head_even_where_the_widths_agree():
    net = models.build(ModelSettings(name="lm", width=8, hidden=(1, 2)), 8)
    wrapped = network.Network(net, lambda x, key, train: x, jax.ShapeDtypeStruct((LENGTH,), jnp.int32), 8)
    with pytest.raises(errors.ConfigError, match="does not end in one"):
        network.head(wrapped)


def test_starts_are_those_of_gpt2():
    net = language.LanguageModel(500, 64, 8, 4)
    params = net.init(jax.random.key(0), TEXTS)["params"]
    stds = {
        ("tokens", "embedding"): 0.02,
        ("layer_3", "mlp_in", "kernel"): 0.02,
        ("layer_3", "mlp_out", "kernel"): 0.005,
        ("layer_7", "mixed", "kernel"): 0.005,
    }
    for path, std in stds.items():
        leaf = functools.reduce(lambda tree, name: tree[name], path, params)
        assert abs(float(leaf.std()) / std - 1) < 0.05
    assert not np.any(params["layer_0"]["mlp_in"]["bias"])


@pytest.mark.parametrize("name", models.LANGUAGE)
def test_builders(name):
    net = models.build(ModelSettings(name=name, width=16, hidden=(12, 2), dtype="bfloat16"), VOCABULARY)
    assert (net.layers, net.heads, net.width, net.is_scanned) == (12, 2, 16, True)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), TEXTS))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))
    assert jax.eval_shape(lambda v: net.apply(v, TEXTS), shapes).dtype == jnp.float32
    small = models.build(ModelSettings(name=name), 64)
    assert (small.layers, small.heads, small.width, small.is_scanned) == (2, 4, 64, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"hidden": (2,)}, "two numbers"), ({"width": 10}, "multiple of 8"), ({"hidden": (2, 0)}, "at least 1"),
     ({"hidden": (2, 4), "width": 12}, "multiple of 8")],
)  # fmt: skip
def test_bad_options_are_named(options, message):
    with pytest.raises(errors.ConfigError, match=message):
        models.build(ModelSettings(name="lm_rotary", **options), VOCABULARY)


@pytest.mark.parametrize(("name", "of_texts"), [("cnn", True), ("lm", False), ("lm_rotary", False), ("mlp", True)])
def test_a_network_for_other_rows_is_refused(name, of_texts):
    with pytest.raises(errors.ConfigError, match="does not read"):
        models.check_kind(name, of_texts)


def test_users_own_networks_are_not_judged_by_name():
    models.check_kind("my_module:net", True)
    models.check_kind("lm", True)
    models.check_kind("cnn", False)
