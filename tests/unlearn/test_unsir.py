"""UNSIR against the published noise, and what impairing and repairing do."""

from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from sklearn import datasets

from jaxunlearn import trees
from jaxunlearn.unlearn.base.method import MemberRows
from jaxunlearn.unlearn.engine import running
from jaxunlearn.unlearn.methods import descent, unsir

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DENSE = {"fc1": "Dense_0", "fc2": "Dense_1"}


def test_the_noise_equals_the_published_one():
    file = np.load(GOLDEN / "our" / "unsir.npz")
    net = nets.network(nets.Tiny(4, 5, activation="tanh"), (3, 4, 4))
    params = nets.variables(file, "model", DENSE, "__")["params"]
    start = jnp.asarray(file["noise_init"], jnp.float32)
    classes = jnp.full(len(start), int(file["forget_class"]))
    loss = unsir.noise_loss(net, params, {}, start, classes)
    np.testing.assert_allclose(loss, file["loss_init"], rtol=0, atol=5e-6)
    actual = unsir.learned_noise(net, params, {}, start, classes, int(file["epochs"]))
    np.testing.assert_allclose(actual, file["noise_after"], rtol=0, atol=5e-6)


def test_classes_that_occur_take_turns():
    present = jnp.asarray([False, True, False, True, True])
    np.testing.assert_array_equal(unsir.classes_in_turn(present, 7), [1, 3, 4, 1, 3, 4, 1])
    np.testing.assert_array_equal(unsir.classes_in_turn(jnp.arange(3) == 2, 2), [2, 2])
    np.testing.assert_array_equal(unsir.classes_in_turn(jnp.zeros(3, bool), 2), [0, 0])


def test_at_most_so_many_rows_of_every_class_are_read():
    labels = np.array([0, 1, 0, 0, 2, 1, 0, 1])
    nobody = np.zeros(0, np.int32)
    member_rows = MemberRows(nobody, np.array([0, 1, 2, 3, 5, 6, 7]), nobody, labels, 0, np.random.default_rng(0))
    np.testing.assert_array_equal(unsir.first_of_each_class(2)(member_rows), [0, 1, 2, 5])
    assert len(unsir.first_of_each_class(2)(member_rows._replace(retain=nobody))) == 0


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "batchnorm"])
def trained(request):
    """A dense network trained on digits."""
    x, y = datasets.load_digits(return_X_y=True)
    x, y = ((x - x.mean()) / x.std()).astype(np.float32)[:640], y[:640].astype(np.int32)
    net = nets.network(nets.Tiny(10, 32, request.param), (64,))
    start = net.module.init(jax.random.key(1), jnp.zeros((1, 64)))
    method = descent.finetune(0.05, 10, batch=64)
    return net, nets.outcome(nets.make_job(net, method, start, (x, y), (x[:1], y[:1]))), (x, y)


def test_a_class_is_impaired_and_the_others_are_kept(trained):
    net, start, (x, y) = trained
    gone = y == 3
    method = unsir.unsir(lr=0.02, lr_repair=0.01, batch=64)
    actual = nets.outcome(nets.make_job(net, method, start, (x[~gone], y[~gone]), (x[gone], y[gone])))
    assert nets.accuracy(net, start, x[gone], y[gone]) > 0.9
    assert nets.accuracy(net, actual, x[gone], y[gone]) < 0.3
    assert nets.accuracy(net, actual, x[~gone], y[~gone]) > 0.9


def test_odd_members_stay_finite_and_the_noise_of_a_single_row_becomes_its_class(trained):
    net, start, (x, y) = trained
    job = nets.make_job(net, unsir.unsir(lr=0.01, batch=64), start, (x, y), (x[:1], y[:1]), members=3)
    rows = np.arange(641, dtype=np.int32)
    job = job._replace(forget=[rows[:20], rows[640:], rows], retain=[rows[20:640], rows[:640], rows[:0]])
    first, *_, last = running.run(job)
    leaves = jax.tree.leaves(last.outcome.variables["params"])
    assert all(np.all(np.isfinite(leaf)) for leaf in leaves)
    pairs = list(zip(leaves, jax.tree.leaves(start["params"]), strict=True))
    # Without retained rows there is no batch to take a step with.
    assert [any(np.any(new[i] != old) for new, old in pairs) for i in range(3)] == [True, True, False]
    tree = first.checkpoint()
    noise, state = trees.take(tree["estimates"]["noise"], 1), trees.take(tree["carry"].state, 1)
    np.testing.assert_array_equal(noise["labels"], [y[0]] * 32)
    impaired = {"params": state.params, **noise["statistics"]}
    assert nets.accuracy(net, start, noise["inputs"], noise["labels"]) == 0.0
    assert nets.accuracy(net, impaired, noise["inputs"], noise["labels"]) > 0.6
