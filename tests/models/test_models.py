"""Common checks of all architectures of the table, and the errors of `build`."""

import functools
import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import errors, trees
from jaxunlearn.models import LANGUAGE, MODELS, build
from jaxunlearn.models.architectures import airbench, resnet
from jaxunlearn.models.layers import blocks
from jaxunlearn.settings import ModelSettings

CLASSES, BATCH, MEMBERS = 5, 4, 3
# Smallest pictures and widths that still run every layer of an architecture.
PICTURES = {"cnn": (8, 8, 1), "cnn_bn": (8, 8, 1), "scnn": (8, 8, 1), "vit": (8, 8, 1), "vit_s16": (8, 8, 1)}
PICTURES |= {"vit_small_data": (8, 8, 1), "wrn28_2": (8, 8, 3), "wrn40_2": (8, 8, 3)}
PICTURES["airbench"] = (9, 9, 3)
PICTURES |= dict.fromkeys(("vgg11", "vgg16", "vgg16_bn", "vgg16_imagenet"), (32, 32, 3))
WIDTHS = {
    "airbench": 4,
    "cnn": 4,
    "cnn_bn": 4,
    "scnn": 4,
    "vit": 12,
    "vit_s16": 6,
    "vit_small_data": 8,
    "wrn28_2": 2,
    "wrn40_2": 2,
    "resnet18": 4,
    "resnet34": 2,
    "resnet50": 2,
}
WIDTHS |= dict.fromkeys(("vgg11", "vgg16", "vgg16_bn", "vgg16_imagenet"), 2)
# Fewer layers of the same kind; test_cost.py has the full ones.
FEWER = {"vit": {"depth": 2}, "vit_s16": {"depth": 2, "size": 64}}
FEWER["vit_small_data"] = {"depth": 2, "head_width": 4, "hidden": 8}
FEWER |= dict.fromkeys(("wrn28_2", "wrn40_2"), {"depth": 1})
FEWER |= dict.fromkeys(("resnet34", "resnet50"), {"depths": (2, 1, 1, 1)})
FEWER |= dict.fromkeys(("vgg16", "vgg16_bn", "vgg16_imagenet"), {"depths": (1, 1, 1, 1, 1)})
NAMES = sorted(set(MODELS) - set(LANGUAGE))  # language models: test_transformers.py
# Whole networks on tiny pictures: compiling takes longer than running, and half as long at the lowest level.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def shape_of(name):
    return PICTURES.get(name, (8, 8, 3) if "resnet" in name else (20,))


@functools.cache
def small(name, dtype="float32", conv="native"):
    hidden = (16, 8) if name in ("mlp", "mlp_tanh") else ()
    net = build(ModelSettings(name=name, width=WIDTHS.get(name, 0), hidden=hidden, dtype=dtype), CLASSES, conv)
    return net.clone(**FEWER.get(name, {}))


def draw_variables(net, inputs, members):
    """Variables of M members, of the size that the initialisers give; those would take longer to compile."""
    draw = np.random.default_rng(0)

    def leaf(path, abstract):
        shape = (members, *abstract.shape)
        if path[-1].key in ("scale", "var"):
            return jnp.asarray(draw.uniform(0.5, 1.5, size=shape), jnp.float32)
        fan_in = max(int(np.prod(abstract.shape[:-1])), 4)
        return jnp.asarray(draw.normal(size=shape) / fan_in**0.5, jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(net.init, jax.random.key(0), inputs))


@functools.cache
def population(name):
    """Variables of M members and one batch for each."""
    inputs = jax.random.normal(jax.random.key(1), (MEMBERS, BATCH, *shape_of(name)))
    return draw_variables(small(name), inputs[0], MEMBERS), inputs


def test_initialisation_maps_over_keys_and_starts_every_member_differently():
    inputs = population("logistic")[1]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(MEMBERS))
    variables = jax.vmap(lambda key: jax.jit(small("logistic").init)(key, inputs[0]))(keys)
    single = jax.jit(small("logistic").init)(jax.random.fold_in(jax.random.key(0), 1), inputs[0])
    for together, expected in zip(jax.tree.leaves(variables), jax.tree.leaves(single), strict=True):
        np.testing.assert_allclose(together[1], expected, rtol=1e-6)
        assert (together[0] != together[1]).any()


def forward(name, variables, inputs, train=False, mask=None, dtype="float32", conv="native"):
    """Logits, and in training the moved statistics."""
    mutable = ["batch_stats"] if train else False
    rngs = {"dropout": jax.random.key(7)} if train else {}
    return small(name, dtype, conv).apply(variables, inputs, train=train, mask=mask, mutable=mutable, rngs=rngs)


@functools.cache
def jitted(name, train=False, dtype="float32"):
    return compiled(lambda variables, inputs, mask: forward(name, variables, inputs, train, mask, dtype))


# Without jit every operation of every shape is a program of its own.
DEEP = ("airbench", "resnet34", "resnet50", "vgg16", "vgg16_bn", "vgg16_imagenet", "vit_s16")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in NAMES]
)
def test_logits_are_float32_per_class_and_the_same_with_and_without_jit(name):
    variables, inputs = population(name)
    member = trees.take(variables, 0)
    logits = jitted(name)(member, inputs[0], None)
    assert logits.shape == (BATCH, CLASSES) and logits.dtype == jnp.float32
    np.testing.assert_allclose(forward(name, member, inputs[0]), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_population_by_vmap_equals_its_members_alone(name):
    variables, inputs = population(name)
    together = compiled(jax.vmap(lambda variables, inputs: forward(name, variables, inputs)))(variables, inputs)
    for i in range(MEMBERS):
        alone = jitted(name)(trees.take(variables, i), inputs[i], None)
        np.testing.assert_allclose(together[i], alone, rtol=1e-5, atol=1e-5)


KEEP = np.array([True, True, False, True])


@pytest.mark.parametrize("name", NAMES)
def test_masked_rows_cannot_influence_logits_or_statistics(name):
    variables, inputs = population(name)
    run, member, mask = jitted(name, True), trees.take(variables, 0), jnp.asarray(KEEP)
    logits, moved = run(member, inputs[0], mask)
    poisoned, moved_poisoned = run(member, inputs[0].at[2].set(jnp.nan), mask)
    np.testing.assert_array_equal(poisoned[KEEP], logits[KEEP])
    assert np.isfinite(poisoned).all()
    for a, e in zip(jax.tree.leaves(moved_poisoned), jax.tree.leaves(moved), strict=True):
        np.testing.assert_array_equal(a, e)


@pytest.mark.parametrize("name", ["mlp", "cnn", "vit", "resnet18", "vgg11"])
def test_masked_rows_cannot_influence_gradients(name):
    variables, inputs = population(name)
    member, mask = trees.take(variables, 0), jnp.asarray(KEEP)

    def loss(params, inputs):
        logits, _ = forward(name, {**member, "params": params}, inputs, True, mask)
        return jnp.sum(jnp.where(mask[:, None], logits, 0) ** 2)

    run = compiled(jax.grad(loss))
    expected, actual = run(member["params"], inputs[0]), run(member["params"], inputs[0].at[2].set(jnp.nan))
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, e)
        assert np.isfinite(a).all()


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
def test_padding_a_batch_changes_nothing_for_its_own_rows(name):
    variables, inputs = population(name)
    member, rows = trees.take(variables, 0), inputs[0][:3]
    padded = jnp.concatenate([rows, jnp.full_like(rows, 99.0)])
    mask = jnp.arange(6) < 3
    short, moved = jitted(name, True)(member, rows, None)
    long, moved_padded = jitted(name, True)(member, padded, mask)
    np.testing.assert_allclose(long[:3], short, rtol=1e-3, atol=1e-3)
    for a, e in zip(jax.tree.leaves(moved_padded), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_pixel_sized_inputs_give_finite_logits_and_evaluation_repeats_itself(name):
    variables, inputs = population(name)
    member = trees.take(variables, 0)
    pixels = jnp.round(jnp.abs(inputs[0]) * 80) % 256
    first, second = (jitted(name)(member, pixels, None) for _ in range(2))
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)
    assert np.isfinite(jitted(name, True)(member, pixels, jnp.ones(BATCH, bool))[0]).all()


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_close_to_float32_and_keeps_float32_parameters(name):
    variables, inputs = population(name)
    member = trees.take(variables, 0)
    exact, rough = (jitted(name, False, dtype)(member, inputs[0], None) for dtype in ("float32", "bfloat16"))
    assert rough.dtype == jnp.float32
    assert np.abs(rough - exact).max() < 0.05 * max(1.0, float(np.abs(exact).max()))
    abstract = jax.eval_shape(small(name, "bfloat16").init, jax.random.key(0), inputs[0])
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(("is_bottleneck", "conv"), [(False, "unrolled"), (True, "cpu")])
def test_gradients_of_networks_do_not_depend_on_the_form_of_the_convolution(is_bottleneck, conv):
    inputs = jax.random.normal(jax.random.key(1), (2, BATCH, 8, 8, 3))
    net = resnet.ResNet(CLASSES, (1, 1), is_bottleneck, width=4)
    variables = draw_variables(net, inputs[0], 2)

    def gradient(form, params, stats, inputs):
        def loss(params):
            logits, moved = net.clone(conv=form).apply(
                {"params": params, "batch_stats": stats}, inputs, True, mutable=["batch_stats"]
            )
            return jnp.sum(jnp.sin(logits)), moved

        return jax.grad(loss, has_aux=True)(params)

    # Lifted as each form is meant to be: one member after another, or side by side.
    lift = (lambda f: lambda *rows: jax.lax.map(lambda row: f(*row), rows)) if conv == "cpu" else jax.vmap
    rows = (variables["params"], variables["batch_stats"], inputs)
    native = compiled(jax.vmap(functools.partial(gradient, "native")))(*rows)
    results = compiled(lift(functools.partial(gradient, conv)))(*rows)
    for actual, expected in zip(jax.tree.leaves(results), jax.tree.leaves(native), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-4 * max(1.0, float(jnp.abs(expected).max())))


def test_dropout_draws_from_its_stream_and_only_in_training():
    variables, inputs = population("vgg11")
    member = trees.take(variables, 0)
    net = small("vgg11")
    draws = [net.apply(member, inputs[0], train=True, rngs={"dropout": jax.random.key(i)}) for i in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.abs(draws[0] - draws[2]).max() > 0


def test_running_statistics_move_in_training_only():
    variables, inputs = population("resnet18")
    member = trees.take(variables, 0)
    _, moved = jitted("resnet18", True)(member, inputs[0], None)
    before, after = jax.tree.leaves(member["batch_stats"]), jax.tree.leaves(moved)
    assert all((a != b).any() for a, b in zip(after, before, strict=True))
    assert set(moved["batch_stats"]["norm_stem"]) == {"mean", "var"}


def test_larger_pictures_fit_the_residual_networks_and_pool_twice_in_the_small_one():
    for size in (32, 64):
        net = build(ModelSettings(name="resnet18", width=4), 10)
        out = jax.eval_shape(net.init_with_output, jax.random.key(0), jnp.ones((2, size, size, 3)))[0]
        assert out.shape == (2, 10)
    flat = {}
    for size in (8, 28):
        net = build(ModelSettings(name="cnn"), 10)
        params = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, size, size, 1)))["params"]
        flat[size] = params["Dense_0"]["kernel"].shape
    assert flat == {8: (4 * 4 * 32, 64), 28: (7 * 7 * 32, 64)}


def test_the_large_transformer_brings_every_picture_to_its_own_size():
    variables, _ = population("vit_s16")
    member, net = trees.take(variables, 0), small("vit_s16")
    run = compiled(net.apply)
    corners = jnp.asarray([[0.0, 1.0], [2.0, 3.0]]).reshape(1, 2, 2, 1)
    # Half-pixel centres: a coordinate of the large picture is a clamped one of the small picture.
    at = np.clip((np.arange(64) + 0.5) / 32 - 0.5, 0, 1)
    large = jnp.asarray(2 * at[:, None] + at[None, :], jnp.float32).reshape(1, 64, 64, 1)
    np.testing.assert_allclose(run(member, corners), run(member, large), rtol=1e-4, atol=1e-5)
    assert np.abs(run(member, corners) - run(member, large[:, ::-1])).max() > 1e-3
    tall = jax.eval_shape(net.init_with_output, jax.random.key(0), jnp.ones((2, 100, 30, 1)))[0]
    assert tall.shape == (2, CLASSES)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "resnet19"}, r"unknown model 'resnet19'. Did you mean 'resnet1?8'|resnet"),
        ({"name": "cnn", "hidden": (8,)}, r"model.hidden = \(8,\): architecture 'cnn' does not use it"),
        ({"name": "mlp", "width": 8}, "model.width = 8: architecture 'mlp' does not use it"),
        ({"name": "purchase", "hidden": (8,)}, "model.hidden .*'purchase' does not use it.*model.name = 'mlp'"),
        ({"name": "mlp", "hidden": (8, 0)}, "every width must be at least 1"),
        ({"name": "vit", "width": 64}, "multiple of 3, e.g. 66"),
        ({"name": "vit_s16", "width": 9}, "has 6 heads and needs a multiple of 6, e.g. 12"),
        ({"name": "vgg16_bn", "hidden": (8,)}, "'vgg16_bn' does not use it"),
        ({"name": "nowhere_at_all:net"}, "cannot import module 'nowhere_at_all'"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings, words):
    with pytest.raises(errors.ConfigError, match=words):
        build(ModelSettings(**settings), 10)


def test_impossible_forms_types_and_class_counts_are_refused():
    with pytest.raises(errors.ConfigError, match="unknown convolution form 'auto'"):
        build(ModelSettings(), 10, conv="auto")
    with pytest.raises(errors.ConfigError, match="unknown model.dtype 'float16'"):
        build(ModelSettings(), 10, dtype="float16")
    with pytest.raises(errors.ConfigError, match="num_classes = 0"):
        build(ModelSettings(), 0)
    assert build(ModelSettings(dtype="bfloat16"), 10).dtype == "bfloat16"
    assert build(ModelSettings(dtype="bfloat16"), 10, dtype="float32").dtype == "float32"


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("cnn", (2, 8, 8), "takes pictures .*model.name = 'mlp'"),
        ("vit", (2, 30, 30, 3), "patches of 4x4, but 30x30"),
        ("vgg11", (2, 8, 8, 3), "at least 32x32 pixels, not 8x8"),
        ("airbench", (2, 8, 8, 3), "at least 9x9 pixels, not 8x8"),
    ],
)
def test_inputs_of_the_wrong_shape_are_refused_with_advice(name, shape, words):
    with pytest.raises(errors.ShapeError, match=words):
        jax.eval_shape(small(name).init, jax.random.key(0), jnp.ones(shape))


class UsersNetwork(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        return nn.Dense(self.num_classes)(inputs)


def test_a_users_builder_is_reached_by_module_and_name(monkeypatch):
    module = types.ModuleType("my_networks")
    module.own = lambda num_classes, **options: UsersNetwork(num_classes)
    module.narrow = lambda num_classes: UsersNetwork(num_classes)
    module.wrong = lambda **options: 3
    monkeypatch.setitem(sys.modules, "my_networks", module)
    assert build(ModelSettings(name="my_networks:own", width=3), 7) == UsersNetwork(7)
    with pytest.raises(errors.ConfigError, match="cannot be called as builder.num_classes="):
        build(ModelSettings(name="my_networks:narrow"), 7)
    with pytest.raises(errors.ConfigError, match="returned int, expected a flax.linen Module"):
        build(ModelSettings(name="my_networks:wrong"), 7)


def test_the_fixed_whitening_makes_patches_of_natural_pictures_uncorrelated():
    """Pictures drawn with the covariance of natural ones: neighbours alike, colours nearly so, details faint."""
    draw = np.random.default_rng(0)
    variances = airbench._VARIANCES
    components = draw.normal(size=(20_000, 4, 3)) * np.sqrt(variances)
    patches = np.einsum("nab,ap,bc->npc", components, airbench._HAAR, airbench._COLOURS).reshape(-1, 12)
    answers = patches @ airbench.whitening(3).reshape(12, 24)
    np.testing.assert_array_equal(answers[:, :12], -answers[:, 12:])
    np.testing.assert_allclose(np.corrcoef(answers[:, :12].T), np.eye(12), atol=0.05)
    expected = (variances / (variances + 5e-4)).reshape(-1)
    np.testing.assert_allclose(answers[:, :12].var(0), expected, rtol=0.05)
    assert airbench.whitening(1).shape == (2, 2, 1, 8)


def test_convolutions_of_the_fast_network_start_as_the_identity_on_their_first_channels():
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 5, 3)), jnp.float32)
    layer = blocks.Conv(7, use_bias=False, kernel_init=airbench.identity_init)
    outputs, _ = layer.init_with_output(jax.random.key(0), inputs)
    np.testing.assert_allclose(outputs[..., :3], inputs, rtol=1e-6)
    assert np.abs(outputs[..., 3:]).min() > 0


def test_batch_norm_leaves_the_rest_of_the_small_network_as_it_was():
    """`cnn` and `cnn_bn` start alike, but for the biases that batch norm makes superfluous."""
    key, inputs = jax.random.key(3), jnp.zeros((2, 8, 8, 1))
    plain, normed = (small(name).init(key, inputs)["params"] for name in ("cnn", "cnn_bn"))
    assert set(normed) - set(plain) == {"BatchNorm_0", "BatchNorm_1"}
    for layer in ("Conv_0", "Conv_1", "Dense_0", "Dense_1"):
        np.testing.assert_array_equal(plain[layer]["kernel"], normed[layer]["kernel"])
    assert "bias" in plain["Conv_0"] and "bias" not in normed["Conv_0"]
