"""Influence unlearning and the tangent-kernel scrub against the published implementations and dense algebra."""

import dataclasses
import functools
import inspect
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxunlearn import errors
from jaxunlearn.models.layers import blocks
from jaxunlearn.unlearn.base.method import Estimate, MemberRows, Method, Phase, StreamSpec
from jaxunlearn.unlearn.blocks import passes, transforms
from jaxunlearn.unlearn.methods.importance import influence

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DENSE = {"fc1": "Dense_0", "fc2": "Dense_1"}


class Pooled(nn.Module):
    """Dense on every pixel, max pool (which has a backward pass of its own), dense."""

    num_classes: int

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        maps = blocks.max_pool(blocks.Dense(3)(blocks.hide(inputs, mask)))
        return blocks.Dense(self.num_classes)(blocks.features(maps, None))


def golden(topic, name):
    return np.load(GOLDEN / topic / f"{name}.npz")


def our():
    """(file, network, variables, retain, forget) of the Over-Unlearning and Replay file."""
    file = golden("our", "fisher")
    sets = ((file[f"X_{name}"], file[f"y_{name}"]) for name in ("retain", "forget"))
    return (
        file,
        nets.network(nets.Tiny(4, 3, activation="tanh"), (4,)),
        nets.variables(file, "init", DENSE, "__"),
        *sets,
    )


def optml():
    """(file, network, variables, retain, forget) of the Unlearn-Saliency file."""
    file = golden("conformal", "optml_methods")
    sets = ((file[f"x_{name}"], file[f"y_{name}"]) for name in ("retain", "forget"))
    return file, nets.network(nets.Tiny(4, 8), (6,)), nets.variables(file, "init", DENSE), *sets


def torch_tree(vector, params):
    """A flat vector in PyTorch's order of parameters (weight [out, in], bias, layer by layer) as a flax tree."""
    actual, start = {}, 0
    for layer in ("Dense_0", "Dense_1"):
        rows, columns = params[layer]["kernel"].shape
        kernel, start = vector[start : start + rows * columns].reshape(columns, rows).T, start + rows * columns
        actual[layer] = {"kernel": kernel, "bias": vector[start : start + columns]}
        start += columns
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), actual)


def estimate_of(compute, reads, net, start, retain, forget):
    """The tree that `compute(member)` makes from streams; for member 0, without an edit."""
    actual = Estimate(lambda member: (compute(member), member.model_state), reads)
    method = Method(
        (Phase(transforms.one_shot(lambda params, **extras: params), estimates={"own": actual}, mode="eval"),)
    )
    return nets.estimated(nets.make_job(net, method, start, retain, forget))["own"]


@pytest.mark.parametrize("source, prefix", [(our, "wood"), (optml, "woodfisher")])
def test_the_published_recursion(source, prefix):
    file, net, start, retain, forget = source()
    target = torch_tree(file[f"{prefix}_v"], start["params"])
    reads = {"chosen": StreamSpec("retain", 4, shuffle=False)}
    actual = estimate_of(lambda member: influence.rank_one(member, "chosen", target), reads, net, start, retain, forget)
    nets.assert_close({"params": actual}, {"params": torch_tree(file[f"{prefix}_k"], start["params"])}, 1e-5)


def test_influence_equals_over_unlearning_and_replay():
    file, net, start, retain, forget = our()
    method = influence.influence(float(file["alpha"]), batch=4, compat="faithful")
    actual = nets.outcome(nets.make_job(net, method, start, retain, forget))
    for version in ("v1", "v2", "v1_zero_mask"):
        nets.assert_close(actual, nets.variables(file, f"wfisher_{version}", DENSE, "__"), 1e-5)


def test_influence_equals_optml_with_and_without_a_mask():
    file, net, start, retain, forget = optml()
    method = influence.influence(2.0, batch=8, compat="faithful")
    actual = nets.outcome(nets.make_job(net, method, start, retain, forget))
    nets.assert_close(actual, nets.variables(file, "IU_final", DENSE), 1e-5)
    mask = nets.variables(file, "mask", DENSE)["params"]
    phase = method.phases[0]
    estimates = {**phase.estimates, "mask": Estimate(lambda member: (mask, member.model_state))}
    transform = optax.chain(phase.transform, transforms.masked_gradients())
    masked = Method((dataclasses.replace(phase, transform=transform, estimates=estimates),))
    actual = nets.outcome(nets.make_job(net, masked, start, retain, forget))
    nets.assert_close(actual, nets.variables(file, "IU_mask_final", DENSE), 1e-5)
    for layer, leaves in mask.items():
        for name, keep in leaves.items():
            frozen = keep == 0
            np.testing.assert_array_equal(actual["params"][layer][name][frozen], start["params"][layer][name][frozen])


def row_gradients(net, params, x, y):
    """[N, P] gradient of the cross entropy of every row, one by one."""
    flat, restore = ravel_pytree(params)

    def loss(vector, row, label):
        logits = net.module.apply({"params": restore(vector)}, row[None])[0]
        return -jax.nn.log_softmax(logits)[label]

    return jax.vmap(jax.grad(loss), (None, 0, 0))(flat, jnp.asarray(x), jnp.asarray(y))


def test_the_exact_step_solves_the_dense_system():
    _, net, start, retain, forget = optml()
    retain_gradients, forget_gradients = (row_gradients(net, start["params"], *pool) for pool in (retain, forget))
    share = len(forget_gradients) / (len(forget_gradients) + len(retain_gradients))
    target = share * (forget_gradients.mean(0) - retain_gradients.mean(0))
    matrix = jnp.eye(retain_gradients.shape[1]) + retain_gradients.T @ retain_gradients / len(retain_gradients)
    expected = np.linalg.solve(np.asarray(matrix, np.float64), target)
    actual = nets.outcome(nets.make_job(net, influence.influence(1.0, samples=0, batch=7), start, retain, forget))
    moved = ravel_pytree(jax.tree.map(jnp.subtract, actual["params"], start["params"]))[0]
    np.testing.assert_allclose(moved, expected, rtol=0, atol=2e-6 + 1e-3 * np.abs(expected).max())
    assert np.abs(expected - target).max() > 20e-3 * np.abs(expected).max()


def test_solutions_are_not_rounded():
    _, net, start, retain, forget = our()
    products = []

    def compute(member):
        member = member._replace(estimates={"target": member.params})
        for method in (influence.influence(), influence.ntk()):
            estimate = method.phases[0].estimates["step"]
            products.append(nets.rounded_products(lambda estimate=estimate: estimate.compute(member)))
        return member.params

    estimate_of(compute, {"chosen": StreamSpec("retain", 4, shuffle=False)}, net, start, retain, forget)
    assert all(count > 0 and rounded == 0 for count, rounded in products)


def test_row_products_pass_through_layers_with_their_own_backward_pass():
    rng = np.random.default_rng(1)
    net = nets.network(Pooled(3), (4, 4, 1))
    x, y = rng.normal(size=(5, 4, 4, 1)).astype(np.float32), np.asarray([0, 1, 2, 1, 0], np.int32)
    start = {"params": net.module.init(jax.random.key(1), x[:1])["params"]}
    direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), start["params"])

    def products(member):
        stream = member.streams["retain"]
        samples = passes.samples_of(member, member.stream_specs["retain"], stream.rows, stream.weights, member.key)
        samples = samples._replace(weights=samples.weights.at[3].set(0.0))
        return influence.row_products(member, samples, direction)[0]

    actual = estimate_of(
        products, {"retain": StreamSpec("retain", 5, shuffle=False)}, net, start, (x, y), (x[:1], y[:1])
    )
    expected = row_gradients(net, start["params"], x, y) @ ravel_pytree(direction)[0]
    np.testing.assert_allclose(actual, expected.at[3].set(0.0), rtol=1e-4, atol=1e-5)


def test_rows_are_drawn_at_random_or_are_the_first():
    member_rows = MemberRows(
        np.arange(3), np.arange(100, 140), np.arange(0), np.zeros(140), 0, np.random.default_rng(0)
    )
    first, drawn = influence.pool_rows("retain", 10, True)(member_rows), influence.pool_rows("retain", 10)(member_rows)
    np.testing.assert_array_equal(first, np.arange(100, 110))
    assert len(set(drawn)) == 10
    assert set(drawn) <= set(range(100, 140))
    assert list(drawn) != list(first)
    assert sorted(influence.pool_rows("retain", 0)(member_rows)) == list(range(100, 140))


def test_at_most_so_many_rows_enter_the_recursion():
    _, net, start, retain, forget = optml()
    method = influence.influence(2.0, samples=1, batch=8, compat="faithful")
    actual = nets.outcome(nets.make_job(net, method, start, retain, forget))
    retain_gradient, forget_gradient = (row_gradients(net, start["params"], *pool).mean(0) for pool in (retain, forget))
    moved = ravel_pytree(jax.tree.map(jnp.subtract, actual["params"], start["params"]))[0]
    # With one row the recursion has not begun: k = v.
    np.testing.assert_allclose(moved, 2.0 * 10 / 40 * (forget_gradient - retain_gradient), rtol=0, atol=1e-6)


def test_ntk_equals_over_unlearning_and_replay():
    file, net, start, retain, forget = our()
    actual = nets.outcome(nets.make_job(net, influence.ntk(1.0, 0.1, samples=0), start, retain, forget))
    nets.assert_close(actual, nets.variables(file, "ntk", DENSE, "__"), 1e-5)


@pytest.mark.parametrize("block", [1, 3, 7, 100])
def test_the_kernel_does_not_depend_on_its_blocks(block, monkeypatch):
    _, net, start, retain, forget = our()
    size = sum(leaf.size for leaf in jax.tree.leaves(start["params"])) * 4
    monkeypatch.setattr(influence, "BLOCK", block * size)

    def kernel(member):
        stream = member.streams["retain"]
        samples = passes.samples_of(member, member.stream_specs["retain"], stream.rows, stream.weights, member.key)
        padded = samples._replace(weights=samples.weights.at[2].set(0.0))
        return influence.tangent_kernel(member, padded)

    actual = estimate_of(kernel, {"retain": StreamSpec("retain", 4, shuffle=False)}, net, start, retain, forget)
    flat, restore = ravel_pytree(start["params"])
    jacobian = jax.jacrev(
        lambda vector: net.module.apply({"params": restore(vector)}, jnp.asarray(retain[0], jnp.float32))
    )(flat)
    jacobian = np.asarray(jacobian.at[2].set(0.0)).reshape(-1, len(flat))
    np.testing.assert_allclose(actual, jacobian @ jacobian.T, rtol=1e-5, atol=1e-5)


def test_the_step_of_ntk_is_the_dense_formula_on_the_rows_it_reads():
    _, net, start, retain, forget = our()
    flat, restore = ravel_pytree(start["params"])
    x, y = (np.concatenate(pair) for pair in zip(retain, forget, strict=True))

    def logits(vector):
        return net.module.apply({"params": restore(vector)}, jnp.asarray(x, jnp.float32))

    jacobian = np.asarray(jax.jacrev(logits)(flat), np.float64)
    residual = np.asarray(jax.nn.softmax(logits(flat)), np.float64) - np.eye(4)[y]

    def trained(n):
        J, r = jacobian[:n].reshape(-1, len(flat)), residual[:n].ravel()
        return -J.T @ np.linalg.solve(J @ J.T + n * 0.3 * np.eye(len(r)), r)

    whole, kept = trained(len(y)), trained(len(retain[1]))
    change, error = kept - whole, -kept
    cosine = change @ error / np.linalg.norm(change) / np.linalg.norm(error)
    angle = np.sin(np.arccos(cosine) - np.pi / 2) if cosine < 0 else cosine
    length = np.linalg.norm(change) + 2 * angle * np.linalg.norm(error)
    actual = nets.outcome(nets.make_job(net, influence.ntk(0.5, 0.3), start, retain, forget))
    moved = ravel_pytree(jax.tree.map(jnp.subtract, actual["params"], start["params"]))[0]
    np.testing.assert_allclose(moved, 0.5 * change * length / np.linalg.norm(change), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def fitted():
    """A net that fits two noisy clouds per class: (network, variables, retain, forget)."""
    rng = np.random.default_rng(0)
    y = (np.arange(90) % 3).astype(np.int32)
    x = (rng.normal(size=(3, 6))[y] + 0.8 * rng.normal(size=(90, 6))).astype(np.float32)
    net = nets.network(nets.Tiny(3, 16), (6,))
    params = net.module.init(jax.random.key(0), x[:1])["params"]

    @jax.jit
    def fit(params):
        def step(params, _):
            def loss(params):
                logits = net.module.apply({"params": params}, x)
                return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

            return jax.tree.map(lambda p, g: p - 0.3 * g, params, jax.grad(loss)(params)), None

        return jax.lax.scan(step, params, None, length=400)[0]

    return net, {"params": fit(params)}, (x[12:], y[12:]), (x[:12], y[:12])


def loss(net, variables, x, y):
    return float(optax.softmax_cross_entropy_with_integer_labels(net.module.apply(variables, x), y).mean())


METHODS = {
    "exact": influence.influence,
    "rank_one": functools.partial(influence.influence, recursion="rank_one"),
    "faithful": functools.partial(influence.influence, compat="faithful"),
    "ntk": influence.ntk,
}


@pytest.mark.parametrize("name", METHODS)
def test_forget_sets_lose_more_small_sets_stay_finite_and_alpha_scales_the_step_of_every_member(name, fitted):
    net, start, retain, forget = fitted
    build = METHODS[name]
    alpha = inspect.signature(build).parameters["alpha"].default
    # The request as it is, nothing retained, one sample to forget, and the request with a step of 0.
    job = nets.make_job(net, lambda hyper: build(**hyper), start, retain, forget, members=4, mapping="vmap",
                          hyper={"alpha": np.asarray([alpha, alpha, alpha, 0.0])})  # fmt: skip
    retain_rows, forget_rows = job.retain[0], job.forget[0]
    job = job._replace(
        retain=[retain_rows, retain_rows[:0], retain_rows, retain_rows],
        forget=[forget_rows, forget_rows, forget_rows[:1], forget_rows],
    )
    *_, last = nets.running.run(job)
    assert (last.outcome.diverged_at == nets.running.NOT_DIVERGED).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(last.outcome.variables))
    actual = nets.trees.take(last.outcome.variables, 0)
    assert all(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (actual, start)), strict=True))
    nets.assert_close(nets.trees.take(last.outcome.variables, 3), start, 0.0)
    if name != "faithful":  # it reads the first rows, whatever they are
        lost = [loss(net, actual, *pool) - loss(net, start, *pool) for pool in (forget, retain)]
        assert lost[0] > 0.01
        assert lost[0] > 2 * lost[1]


def test_misspelt_recursions_are_refused():
    with pytest.raises(errors.ConfigError):
        influence.influence(recursion="rank_two")
