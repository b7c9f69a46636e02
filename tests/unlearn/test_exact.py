"""Retraining and SISA: whom each network sees, and what comes out."""

from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest

from jaxunlearn import errors, keys
from jaxunlearn.unlearn.base import network
from jaxunlearn.unlearn.base.method import MemberRows
from jaxunlearn.unlearn.blocks import schedules
from jaxunlearn.unlearn.engine import running
from jaxunlearn.unlearn.methods import exact


def member_rows(forget, part=0, rows=41, total=60, seed=0):
    all_rows = np.random.default_rng(7).permutation(total)[:rows]
    forget_rows = np.sort(all_rows)[np.asarray(forget, int)]
    return MemberRows(forget_rows, np.setdiff1d(all_rows, forget_rows), np.arange(0), np.zeros(total, np.int32), part,
                 np.random.default_rng(seed))  # fmt: skip


def blobs(rows=60):
    rng = np.random.default_rng(0)
    y = np.arange(rows).astype(np.int32) % 3
    return (3 * np.eye(3)[y] + rng.normal(size=(rows, 3))).astype(np.float32), y


@pytest.fixture(scope="module")
def start():
    net = nets.network(nets.Tiny(3, 16, True), (3,))
    params, model_state = network.init(net, keys.root(1))
    return net, {"params": params, **model_state}


def test_shards_and_slices_are_even_and_cover_every_row():
    rows, shard, number = exact.assignment(member_rows([3]), 4, 3)
    assert len(rows) == 41 and set(zip(shard, number, strict=True)) == {(i, j) for i in range(4) for j in range(3)}
    counts = np.bincount(shard)
    assert counts.max() - counts.min() <= 1
    for shard_id in range(4):
        sizes = np.bincount(number[shard == shard_id])
        assert sizes.max() - sizes.min() <= 1


def test_every_forget_set_finds_the_same_shards():
    first, second = (
        exact.assignment(member_rows(forget, seed=seed), 4, 2) for seed, forget in ((0, [3]), (5, [1, 30, 40]))
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_slices_grow_and_hold_retained_rows_of_their_shard_only():
    forget = [0, 1, 2, 3, 4, 5, 6, 7]
    all_rows = []
    for part in range(4):
        rows_of_member = member_rows(forget, part)
        first, second = (exact.slices_up_to(last, 4, 2)(rows_of_member) for last in (0, 1))
        assert set(first) < set(second) and not set(second) & set(rows_of_member.forget)
        all_rows += list(second)
    np.testing.assert_array_equal(np.sort(all_rows), np.sort(member_rows(forget).retain))


def test_a_shard_without_forgotten_rows_reads_the_same_rows():
    rows, shard, _ = exact.assignment(member_rows([0]), 4, 2)
    gone = int(shard[0])
    for part in range(4):
        same = np.array_equal(exact.slices_up_to(1, 4, 2)(member_rows([0], part)), rows[shard == part])
        assert same == (part != gone)


def test_retraining_starts_anew_and_never_reads_the_forget_set(start):
    net, original = start
    x, y = blobs()
    method = exact.retrain(epochs=15)
    actual = nets.outcome(nets.make_job(net, method, original, (x[12:], y[12:]), (x[:12], y[:12]), batch=16))
    poisoned = x.copy()
    poisoned[:12] = np.nan
    other = jax.tree.map(lambda leaf: leaf + 1.0, original)
    again = nets.outcome(nets.make_job(net, method, other, (x[12:], y[12:]), (poisoned[:12], y[:12]), batch=16))
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    logits, _ = network.forward(net, actual["params"], {"batch_stats": actual["batch_stats"]}, x[12:])
    assert float((jnp.argmax(logits, -1) == y[12:]).mean()) > 0.9


def test_retraining_is_sgd_with_a_cosine_per_epoch():
    net = nets.network(nets.Tiny(3, 8, activation="tanh"), (3,))
    params, _ = network.init(net, keys.root(1))
    x, y = blobs(24)
    method = nets.in_order(exact.retrain(lr=0.2, epochs=3, momentum=0.8, weight_decay=0.01))
    actual = nets.outcome(nets.make_job(net, method, {"params": params}, (x[:20], y[:20]), (x[20:], y[20:]), batch=8))
    expected, _ = network.init(net, keys.member(keys.stream(keys.root(3), "init"), 0))
    trace = jax.tree.map(jnp.zeros_like, expected)

    def loss(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(network.forward(net, params, {}, x)[0], y).mean()

    for epoch in range(3):
        rate = 0.2 * (1 + np.cos(np.pi * epoch / 3)) / 2
        for low in range(0, 20, 8):
            gradients = jax.grad(loss)(expected, x[low : min(low + 8, 20)], y[low : min(low + 8, 20)])
            trace = jax.tree.map(lambda t, g, p: 0.8 * t + g + 0.01 * p, trace, gradients, expected)
            expected = jax.tree.map(lambda p, t, rate=rate: p - rate * t, expected, trace)
    nets.assert_close(actual, {"params": expected}, 1e-5)


def test_retraining_equals_the_saliency_code(monkeypatch):
    file = np.load(Path(__file__).resolve().parents[1] / "golden" / "conformal" / "optml_methods.npz")
    lr, epochs, *_ = file["retrain_hyper_lr_epochs_alpha_nol1"]
    # The file has steps where the package has a cosine (the test above), and a given network where it has a random one.
    monkeypatch.setattr(schedules, "cosine", lambda epochs: schedules.milestones((1, 2), 0.1))
    layers = {"fc1": "Dense_0", "fc2": "Dense_1"}
    start, net = nets.variables(file, "init", layers), nets.network(nets.Tiny(4, 8), (6,))
    net = net._replace(module=nets.Given(net.module, start))
    data = [(file[f"x_{name}"], file[f"y_{name}"]) for name in ("retain", "forget")]
    method = nets.in_order(exact.retrain(float(lr), int(epochs), batch=int(file["batch_size"])))
    other = jax.tree.map(lambda leaf: leaf + 1.0, start)
    actual = nets.outcome(nets.make_job(net, method, other, *data))
    nets.assert_close(actual, nets.variables(file, "retrain_final", layers), 1e-5)


def test_a_sisa_model_depends_on_its_own_shard_only(start):
    net, original = start
    x, y = blobs()
    method = exact.sisa(epochs=6, shards=2)

    def models(inputs):
        job = nets.make_job(net, method, original, (inputs[6:], y[6:]), (inputs[:6], y[:6]), batch=16, members=2)
        *_, last = running.run(job._replace(submodel=np.asarray([0, 1], np.int32)))
        return last.outcome.variables["params"]["Dense_1"]["kernel"]

    rows_of_member = MemberRows(
        np.arange(54, 60), np.arange(54), np.arange(0), np.zeros(60, np.int32), 0, np.random.default_rng(0)
    )
    mine = exact.slices_up_to(1, 2, 2)(rows_of_member)
    changed = x.copy()
    changed[np.r_[6:60, 0:6][mine]] += 1.0  # the setup puts retained rows in front
    before, after = models(x), models(changed)
    assert (before[0] != after[0]).any()
    np.testing.assert_array_equal(before[1], after[1])


def test_empty_retain_sets_give_the_random_network(start):
    net, original = start
    x, y = blobs(6)
    for method in (exact.retrain(epochs=1), exact.sisa(epochs=1, shards=2)):
        actual = nets.outcome(nets.make_job(net, method, original, (x[:0], y[:0]), (x, y), batch=4))
        fresh, _ = network.init(net, keys.member(keys.stream(keys.root(3), "init"), 0))
        nets.assert_close(actual, {"params": fresh}, 1e-6, ("params",))


def test_impossible_shards_are_refused():
    assert exact.sisa(shards=3).ensemble == 3
    with pytest.raises(errors.ConfigError, match="shards"):
        exact.sisa(shards=0)
    with pytest.raises(errors.ConfigError, match="slices"):
        exact.sisa(slices=0)
