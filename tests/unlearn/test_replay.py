"""DeltaGrad: its kernels in double precision against the published ones, and the replay against runs by hand."""

from pathlib import Path

import jax
import jax.flatten_util
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest

from jaxunlearn import errors, keys
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.methods import replay

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "iam_methods"


@pytest.mark.parametrize("name", ["deltagrad", "deltagrad_m3"])
def test_kernels_equal_the_published_ones(name):
    file = dict(np.load(GOLDEN / f"{name}.npz"))
    with jax.enable_x64(True):
        s, y, v = jnp.asarray(file["S"]), jnp.asarray(file["Y"]), jnp.asarray(file["v"][:, 0])
        np.testing.assert_allclose(replay.scale(s[-1], y[-1]), file["sigma"], rtol=0, atol=1e-10)
        product = replay.lbfgs_product(s, y, v)  # without the M^-1 of the file: updates are unrolled here
        np.testing.assert_allclose(product, file["Bv"][:, 0], rtol=0, atol=1e-10)
        w, g, theta, removed = (file[key][0] for key in ("cached_w", "cached_g", "para", "grad_removed"))
        rows, gone, decay = (float(file[key]) for key in ("batch", "removed", "wd"))
        actual = replay.corrected_gradient(product, g, w, theta, removed, rows, gone, decay)
        np.testing.assert_allclose(actual, file["grad"][0], rtol=0, atol=1e-10)
        whole = replay.corrected_gradient(product, g, w, theta, removed, rows, 0.0, decay)
        np.testing.assert_allclose(whole, file["grad_no_removed"][0], rtol=0, atol=1e-10)
        np.testing.assert_allclose(theta - file["lr"] * actual, file["para_next"][0], rtol=0, atol=1e-10)


def test_product_maps_the_last_pair_and_equals_the_dense_update():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    s = rng.normal(size=(3, 6))
    y = s @ (root @ root.T + np.eye(6))
    with jax.enable_x64(True):
        np.testing.assert_allclose(replay.lbfgs_product(jnp.asarray(s), jnp.asarray(y), jnp.asarray(s[-1])), y[-1])
        dense = float(y[-1] @ s[-1] / (s[-1] @ s[-1])) * np.eye(6)
        for a, b in zip(s, y, strict=True):
            image = dense @ a
            dense = dense - np.outer(image, image) / (a @ image) + np.outer(b, b) / (a @ b)
        v = rng.normal(size=6)
        np.testing.assert_allclose(replay.lbfgs_product(jnp.asarray(s), jnp.asarray(y), jnp.asarray(v)), dense @ v)


@pytest.mark.parametrize("curvature", [-1.0, 0.0])
def test_pairs_without_curvature_are_left_out(curvature):
    s = jnp.asarray([[1.0, 0.0], [0.0, 0.0]])
    actual = replay.lbfgs_product(s, curvature * s, jnp.asarray([1.0, 2.0]))
    np.testing.assert_allclose(actual, 1e-3 * jnp.asarray([1.0, 2.0]), rtol=1e-6)


def data(forget=6, rows=48):
    rng = np.random.default_rng(0)
    y = np.arange(rows).astype(np.int32) % 3
    x = (2 * np.eye(3)[y] + rng.normal(size=(rows, 3))).astype(np.float32)
    y[:forget] = (y[:forget] + 1) % 3  # wrong labels, so that it matters whether they are seen
    return (x[forget:], y[forget:]), (x[:forget], y[:forget])


def network_of():
    return nets.network(nets.Tiny(3, 8, activation="tanh"), (3,))


def run(method, retain, forget, batch=12, shuffled=False):
    net = network_of()
    params, _ = network.init(net, keys.root(1))
    method = method if shuffled else nets.in_order(method)
    actual = nets.outcome(nets.make_job(net, method, {"params": params}, retain, forget, batch=batch))
    return jax.flatten_util.ravel_pytree(actual["params"])[0]


def by_hand(retain, forget, epochs, lr, decay, batch=12):
    """Plain SGD on (retain, forget) in order, without the forget rows of each batch."""
    net = network_of()
    key = keys.member(keys.stream(keys.root(3), "init"), 0)
    params, _ = network.init(net, key)
    x, y = (np.concatenate(pair) for pair in zip(retain, forget, strict=True))
    stays = np.arange(len(y)) < len(retain[1])

    def loss(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(network.forward(net, params, {}, x)[0], y).mean()

    for _ in range(epochs):
        for start in range(0, len(y), batch):
            rows = np.arange(start, min(start + batch, len(y)))
            rows = rows[stays[rows]]
            if len(rows):
                gradients = jax.grad(loss)(params, x[rows], y[rows])
                params = jax.tree.map(lambda p, g: p - lr * (g + decay * p), params, gradients)
    return jax.flatten_util.ravel_pytree(params)[0]


def test_exact_steps_are_retraining_on_what_remains_of_every_batch():
    retain, forget = data(forget=14)  # with batches of 12 the last one is all forget rows, the one before in part
    actual = run(replay.deltagrad(lr=0.2, epochs=3, period=1, weight_decay=0.01), retain, forget)
    np.testing.assert_allclose(actual, by_hand(retain, forget, 3, 0.2, 0.01), atol=2e-6)


def test_without_forget_rows_the_replay_is_the_run():
    retain, forget = data(forget=1)
    nothing = (forget[0][:0], forget[1][:0])
    actual = run(replay.deltagrad(lr=0.2, epochs=3, exact=2), retain, nothing)
    np.testing.assert_allclose(actual, by_hand(retain, nothing, 3, 0.2, 5e-4), atol=2e-6)


def test_corrected_steps_come_far_closer_to_retraining_than_the_run_on_everything():
    retain, forget = data()
    everything = tuple(np.concatenate(pair) for pair in zip(retain, forget, strict=True))
    nothing = (forget[0][:0], forget[1][:0])
    # The same key and the same number of rows: all three read the same batches.
    exact = run(replay.deltagrad(lr=0.05, epochs=10, period=1), retain, forget, shuffled=True)
    whole = run(replay.deltagrad(lr=0.05, epochs=10, period=1), everything, nothing, shuffled=True)
    actual = run(replay.deltagrad(lr=0.05, epochs=10, period=5, exact=6), retain, forget, shuffled=True)
    far, near = (float(jnp.linalg.norm(vector - exact)) for vector in (whole, actual))
    assert far > 0.1 and 0 < near < 0.2 * far


@pytest.mark.parametrize("forget, rows", [(1, 13), (5, 5)])
def test_one_forget_row_and_no_retained_row_stay_finite(forget, rows):
    actual = run(replay.deltagrad(epochs=2, exact=1), *data(forget, rows), batch=4)
    assert np.isfinite(actual).all()


def test_periods_below_one_are_refused():
    with pytest.raises(errors.ConfigError, match="period"):
        replay.deltagrad(period=0)
