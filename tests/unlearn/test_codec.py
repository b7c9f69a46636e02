"""L-CODEC: its kernels against the published implementation and naive references, and the whole method."""

from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

from jaxunlearn import errors, keys
from jaxunlearn.population import DeviceDataset, from_rows
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import EstimateContext, SavedState, StreamSpec
from jaxunlearn.unlearn.methods.importance import codec

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "iam_methods" / "lcodec.npz"


@pytest.fixture(scope="module")
def file():
    return dict(np.load(GOLDEN))


def neighbours(*columns):
    return codec.nearest(sum(codec.distances(jnp.asarray(column)) for column in columns))


def test_dependence_coefficients_equal_the_published_ones(file):
    rank, x = codec.ranks(file["Y"]), file["X"].T
    actual = [codec.codec2(neighbours(column), rank) for column in x]
    np.testing.assert_allclose(actual, file["codec2"], rtol=0, atol=1e-6)
    neighbours_x = neighbours(x[0])
    actual = [codec.codec3(neighbours_x, neighbours(x[0], column), rank) for column in x[1:]]
    np.testing.assert_allclose(actual, file["codec3_given0"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("suffix, stop", [("", True), ("_full", False)])
def test_selection_equals_the_published_one(file, suffix, stop):
    expected, values = file[f"foci_order{suffix}"], file[f"foci_vals{suffix}"]
    order, actual = jax.jit(lambda x, y: codec.foci(x, y, 6, stop))(file["X"], file["Y"])
    np.testing.assert_array_equal(order, [*expected, *[-1] * (6 - len(expected))])
    np.testing.assert_allclose(actual[: len(values)], values, rtol=0, atol=1e-6)
    limited, _ = codec.foci(jnp.asarray(file["X"]), jnp.asarray(file["Y"]), 2, stop)
    np.testing.assert_array_equal(limited, expected[:2])


def test_selection_finds_what_a_response_depends_on():
    x = np.random.default_rng(0).normal(size=(150, 8)).astype(np.float32)
    order, values = codec.foci(jnp.asarray(x), jnp.asarray(np.sin(x[:, 5]) + x[:, 2] ** 2), 4)
    assert set(np.asarray(order)[:2]) == {2, 5} and float(values[0]) > 0.2


def test_constant_and_explained_responses_stay_finite():
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    for y in (np.zeros(20, np.float32), x[:, 1]):
        order, values = codec.foci(jnp.asarray(x), jnp.asarray(y), 4)
        assert int(order[0]) >= 0 and np.isfinite(values).all()


def test_curvature_and_steps_equal_the_published_ones(file):
    w_1, w_2, g_1, g_2 = (jnp.asarray(file[name]) for name in ("w1", "w2", "g1", "g2"))
    u = codec.secant(w_1, w_2, g_1, g_2)
    np.testing.assert_allclose(jnp.outer(u, u), file["H_fd"], rtol=1e-5)
    still = codec.secant(w_1, w_1, g_1, g_2)
    np.testing.assert_allclose(jnp.outer(still, still), file["H_fd_same_w"], rtol=1e-5)
    n, l2 = int(file["n_forget"]), float(file["l2"])
    combined = n / (n - 1) * jnp.outer(u, u)
    np.testing.assert_allclose(combined, file["H_combined"], rtol=1e-5)
    step = codec.newton_step(g_1, u, jnp.zeros(9), n, 1.0, l2)
    np.testing.assert_allclose(w_1 + step, file["newton_step"], rtol=0, atol=2e-4)
    # The same solve without the factors of removal: all rows and no curvature to take out.
    plain = codec.newton_step(g_1, u * jnp.sqrt(0.5), jnp.zeros(9), 2.0, 1.0, l2)
    np.testing.assert_allclose(w_1 + plain, file["cr_newton"], rtol=0, atol=2e-4)
    np.testing.assert_allclose(codec.removal_sigma(float(n)), file["noise_sigma"], rtol=1e-5)
    gamma = codec.removal_sigma(float(n), epsilon=1.0, delta=1.25 * np.exp(-0.5))  # where the deviation is gamma itself
    np.testing.assert_allclose(gamma, file["noise_gamma"], rtol=1e-5)
    # The file's H_fisher = g1 g1^T is another estimate of the curvature, which the package does not offer.


@pytest.mark.parametrize("scale", [0.3, 30.0])
def test_low_rank_step_equals_the_dense_solve(scale):
    rng = np.random.default_rng(1)
    g, u, s = rng.normal(size=(3, 12))
    s = scale * s
    n, m, l2 = 100.0, 7.0, 0.5
    with jax.enable_x64(True):
        full, sample = np.outer(u, u), np.outer(s, s)
        dense = (n * full - m * sample) / (n - m)
        actual = np.asarray(codec.newton_step(jnp.asarray(g), jnp.asarray(u), jnp.asarray(s), n, m, l2))
    if np.linalg.eigvalsh(dense + l2 * np.eye(12)).min() <= 0:
        assert scale > 1
        dense = n / (n - m) * full
    expected = m / (n - m) * np.linalg.solve(dense + l2 * np.eye(12), g)
    np.testing.assert_allclose(actual, expected, rtol=1e-9)


@pytest.fixture(scope="module")
def trained():
    """A small network fitted to four blobs, and its data."""
    rng = np.random.default_rng(0)
    y = np.arange(80).astype(np.int32) % 4
    x = (3 * np.eye(4)[y] + rng.normal(size=(80, 4))).astype(np.float32)
    net = nets.network(nets.Tiny(4, 12), (4,))
    params, _ = network.init(net, keys.root(1))

    def loss(params):
        logits, _ = network.forward(net, params, {}, x)
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(80), y])

    def step(params, _):
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, jax.grad(loss)(params)), None

    return net, {"params": jax.lax.scan(step, params, None, 150)[0]}, x, y


def forget_loss(net, actual, x, y):
    logits, _ = network.forward(net, actual["params"], {}, x)
    return float(-jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(y)), y]))


def test_removal_raises_the_forget_loss_in_few_slices(trained):
    net, start, x, y = trained
    method = codec.l_codec(l2=0.01, perturbations=40, columns=3, rows=8)
    actual = nets.outcome(nets.make_job(net, method, start, (x[8:], y[8:]), (x[:8], y[:8]), batch=16))
    assert forget_loss(net, actual, x[:8], y[:8]) > forget_loss(net, start, x[:8], y[:8]) + 1e-3
    channels = 0
    for layer in ("Dense_0", "Dense_1"):
        new, old = (variables["params"][layer] for variables in (actual, start))
        differs = np.asarray(new["kernel"] != old["kernel"]).any(0)
        np.testing.assert_array_equal(np.asarray(new["bias"] != old["bias"]) & ~differs, False)
        channels += differs.sum()
    assert 1 <= channels <= 3


def member_of(net, start, x, y, batch):
    stream = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], from_rows([[np.arange(len(y))]], batch))
    data = DeviceDataset(jnp.asarray(x), jnp.asarray(y))
    return EstimateContext(net, start["params"], {}, start, {}, {}, data, {"first": stream},
                  {"first": StreamSpec("forget", batch, shuffle=False)}, jnp.ones(len(y), bool), "eval", keys.root(0),
                  keys.root(1), False)  # fmt: skip


def test_small_differences_are_not_rounded(trained):
    net, start, x, y = trained
    member = member_of(net, start, x[:5], y[:5], batch=3)
    member = member._replace(saved_states={"copy": SavedState(start["params"], {}, ())})
    vectors = jnp.ones((3, 9))
    for fn in (
        lambda: codec._at_both(member, "first"),
        lambda: codec.newton_step(*vectors, n=9.0, m=1.0, l2=0.01),
    ):
        count, rounded = nets.rounded_products(fn)
        assert count > 0 and rounded == 0


def test_columns_follow_the_layers_and_losses_are_means(trained):
    net, start, x, y = trained
    member = member_of(net, start, x[:5], y[:5], batch=3)
    means, loss = codec.activations_and_losses(member, "first", 3, 0.0)
    hidden = x[:5] @ start["params"]["Dense_0"]["kernel"] + start["params"]["Dense_0"]["bias"]
    np.testing.assert_allclose(means[0][:12], hidden.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(loss, forget_loss(net, start, x[:5], y[:5]), rtol=1e-5)
    mask = codec.slices(member, jnp.asarray([12, 3, -1]))
    np.testing.assert_array_equal(np.flatnonzero(mask["Dense_0"]["kernel"][0]), [3])
    np.testing.assert_array_equal(np.flatnonzero(mask["Dense_1"]["bias"]), [0])


@pytest.mark.parametrize("forget, retain", [(1, 10), (4, 0)])
def test_one_forget_row_and_no_retained_row_stay_finite(trained, forget, retain):
    net, start, x, y = trained
    method = codec.l_codec(perturbations=5, columns=2, noise=True)
    data = (x[:retain], y[:retain]), (x[70 : 70 + forget], y[70 : 70 + forget])
    actual = nets.outcome(nets.make_job(net, method, start, *data, batch=16))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(actual))


def test_too_few_perturbations_are_refused():
    with pytest.raises(errors.ConfigError, match="perturbations"):
        codec.l_codec(perturbations=2)
