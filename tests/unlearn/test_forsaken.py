"""Forsaken as published, the mask that is learned instead, and plain noise."""

from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest

from jaxunlearn import keys, trees
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.engine import running
from jaxunlearn.unlearn.methods import forsaken

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "iam_methods"
KINDS = [("mlp", "tanh"), ("bn", "relu")]


def loaded(kind, activation):
    """File, network, variables at the start, and the recorded generator output as a tree."""
    file = dict(np.load(GOLDEN / f"forsaken_{kind}.npz"))
    names = nets.LAYERS[f"iam_{kind}"]
    start = nets.variables(file, "init", names)
    hidden, classes = len(start["params"]["Dense_0"]["bias"]), len(start["params"]["Dense_1"]["bias"])
    net = nets.network(nets.Tiny(classes, hidden, kind == "bn", activation), file["forget_x"].shape[1:])
    cut, named = 0, {}
    for key, value in file.items():
        if key.startswith("init.") and "running" not in key:
            named["u" + key[4:]] = file["gen_out"][cut : cut + value.size].reshape(value.shape)
            np.testing.assert_array_equal(file["gen_params_in"][cut : cut + value.size], value.ravel())
            cut += value.size
    assert cut == file["gen_out"].size
    return file, net, start, nets.variables(named, "u", names)["params"], nets.variables(file, "after", names)


def published_target(logits, labels, num_classes):
    """P [C]: the mean largest logit per label; labels in order of first appearance take the places of classes."""
    means = [np.max(logits, -1)[labels == label].mean() for label in dict.fromkeys(labels.tolist())]
    target = np.zeros(num_classes, np.float32)
    target[np.unique(labels)] = means
    return target / target.sum()


@pytest.mark.parametrize("kind, activation", KINDS)
def test_kernels_equal_the_published_ones(kind, activation):
    file, net, start, u, after = loaded(kind, activation)
    logits, model_state = network.forward(net, *trees.split_variables(start), file["nonmem_x"], mode="train")
    target = published_target(np.asarray(logits), file["nonmem_y"], net.num_classes)
    np.testing.assert_allclose(target, file["P"], rtol=0, atol=1e-5)
    _, model_state = network.forward(net, start["params"], model_state, file["forget_x"], mode="train")
    params = forsaken.apply_mask(start["params"], u, 0.01)
    nets.assert_close({"params": params}, {"params": after["params"]}, 1e-6)
    logits, _ = network.forward(net, params, model_state, file["forget_x"], mode="train")
    mean = logits.mean(0)
    np.testing.assert_allclose(jax.nn.log_softmax(mean), file["log_V"], rtol=0, atol=1e-5)
    divergence = forsaken.divergence(target, mean) / net.num_classes
    np.testing.assert_allclose(divergence, file["kl"], rtol=0, atol=1e-6)
    # The file's loss decides nothing, its generator being called once and never trained: it is not computed here.


@pytest.mark.parametrize("kind, activation", KINDS)
def test_whole_method_with_the_recorded_generator_equals_the_seed(kind, activation):
    file, net, start, u, after = loaded(kind, activation)
    method = forsaken.published_step(0.01, 64, lambda params, logits, key: u)
    forget, retain, held_out = ((file[f"{name}_x"], file[f"{name}_y"]) for name in ("forget", "retain", "nonmem"))
    job = nets.make_job(net, method, start, retain, forget, validation=held_out, bn="faithful")
    logits = nets.estimated(job)["logits"]
    np.testing.assert_allclose(logits, file["gen_probs_in"], rtol=0, atol=1e-5)
    nets.assert_close(nets.outcome(job), after, 1e-5)


def test_untrained_generator_is_uniform_noise():
    params = {"a": {"kernel": jnp.full((60, 40), 0.05)}, "b": {"kernel": jnp.zeros((60, 40))}}
    u = jax.jit(forsaken.generated_mask)(params, jnp.ones(10), keys.root(0))
    for leaf in jax.tree.leaves(u):
        assert abs(float(leaf.std()) - 0.125 / 3**0.5) < 0.02
    assert abs(np.corrcoef(u["a"]["kernel"].ravel(), u["b"]["kernel"].ravel())[0, 1]) < 0.1
    other = jax.jit(forsaken.generated_mask)(params, jnp.ones(10), keys.root(1))
    assert float(jnp.abs(other["a"]["kernel"] - u["a"]["kernel"]).max()) > 0.05


def test_learned_mask_is_adam_on_the_mask():
    target = jnp.asarray([1.0, -2.0, 0.0])
    params = start = jnp.asarray([0.5, 0.5, 0.0])
    transform, u, moments = forsaken.learned_mask(0.1, 0.5, 0.01), jnp.zeros(3), optax.adam(0.1).init(jnp.zeros(3))
    state = transform.init(params)
    for _ in range(5):
        gradient = jax.grad(lambda u: jnp.sum((start - 0.5 * u - target) ** 2) + 0.01 * jnp.sum(jnp.abs(u)))(u)
        gradient = jnp.where(u == 0, gradient - 0.01 * (u >= 0), gradient)  # jax takes |0|' = 1, a subgradient is 0
        change, moments = optax.adam(0.1).update(gradient, moments)
        u = u + change
        updates, state = transform.update(2 * (params - target), state, params)
        params = params + updates
    np.testing.assert_allclose(params, start - 0.5 * u, atol=1e-6)


def blobs():
    rng = np.random.default_rng(0)
    y = np.arange(120).astype(np.int32) % 3
    return (3 * np.eye(3)[y] + rng.normal(size=(120, 3))).astype(np.float32), y


@pytest.fixture(scope="module")
def trained():
    x, y = blobs()
    net = nets.network(nets.Tiny(3, 16), (3,))
    params, _ = network.init(net, keys.root(1))

    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(network.forward(net, params, {}, x)[0], y).mean()

    def step(params, _):
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, jax.grad(loss)(params)), None

    return net, {"params": jax.lax.scan(step, params, None, 200)[0]}


def test_a_class_is_made_to_look_like_held_out_samples(trained):
    net, start = trained
    x, y = blobs()
    is_forget, held_out = (y == 0) & (np.arange(120) < 80), np.arange(120) >= 80
    retain, forget = ~is_forget & ~held_out, is_forget
    method = forsaken.forsaken(eta=0.1)
    data = [(x[part], y[part]) for part in (retain, forget)]
    actual = nets.outcome(nets.make_job(net, method, start, *data, validation=(x[held_out], y[held_out]), batch=32))

    def confidence(model, part):
        probabilities = jax.nn.softmax(network.forward(net, model["params"], {}, x[part])[0])
        return float(probabilities[jnp.arange(part.sum()), y[part]].mean())

    assert confidence(actual, forget) < confidence(start, forget) - 0.3
    assert confidence(actual, retain) > 0.8


@pytest.mark.parametrize("compat", ["corrected", "faithful"])
def test_one_forget_row_without_retained_and_held_out_rows_stays_finite(trained, compat):
    net, start = trained
    x, y = blobs()
    actual = nets.outcome(
        nets.make_job(net, forsaken.forsaken(compat=compat), start, (x[:0], y[:0]), (x[:1], y[:1]), batch=4)
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(actual))
    assert (actual["params"]["Dense_0"]["kernel"] != start["params"]["Dense_0"]["kernel"]).any()


def test_no_epochs_change_nothing(trained):
    net, start = trained
    x, y = blobs()
    actual = nets.outcome(nets.make_job(net, forsaken.forsaken(epochs=0), start, (x[9:], y[9:]), (x[:9], y[:9])))
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(start), strict=True):
        np.testing.assert_array_equal(a, b)


def test_random_noise_has_its_scale_and_differs_between_members(trained):
    net, start = trained
    x, y = blobs()
    job = nets.make_job(net, forsaken.random_perturb(scale=0.5), start, (x[9:], y[9:]), (x[:9], y[:9]), members=2)
    *_, last = running.run(job)
    change = last.outcome.variables["params"]["Dense_0"]["kernel"] - start["params"]["Dense_0"]["kernel"]
    assert 0.4 < np.abs(change).max() <= 0.5001 and (change[0] != change[1]).all()
