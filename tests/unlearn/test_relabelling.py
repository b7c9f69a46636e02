"""Random labels, amnesiac unlearning and poisoning: against the published implementations, and what they promise."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
import recorded

from jaxunlearn import errors, keys, trees
from jaxunlearn.unlearn.base.method import Estimate, Samples
from jaxunlearn.unlearn.blocks import labels, transforms
from jaxunlearn.unlearn.engine import running
from jaxunlearn.unlearn.methods import relabelling

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DENSE = {"fc1": "Dense_0", "fc2": "Dense_1"}


def given(method, drawn, retained=0):
    """The method in the order of the rows, with forget labels from `drawn` [n_f], or [epochs, n_f] where they change.

    In the second case the key tells the epoch: it must be the one of that epoch, or no row of the table is found.
    """
    drawn = jnp.asarray(drawn)
    member = keys.member(keys.stream(keys.root(3), "labels"), 0)

    def rule(key, samples, num_classes):
        table = drawn
        if drawn.ndim == 2:
            epochs = jnp.stack([jax.random.key_data(keys.at(member, 1 + epoch)) for epoch in range(len(drawn))])
            matches = jnp.all(jax.random.key_data(key) == epochs, -1)
            table = jnp.where(jnp.any(matches), drawn[jnp.argmax(matches)], -1)
        return jnp.where(samples.is_forget, table[samples.rows - retained], samples.labels)

    fixed = nets.in_order(method)

    def with_rule(phase):
        reads = {
            name: spec._replace(labels=rule) if spec.labels is not None else spec
            for name, spec in phase.stream_specs.items()
        }
        return dataclasses.replace(phase, stream_specs=reads)

    return dataclasses.replace(fixed, phases=tuple(map(with_rule, fixed.phases)))


def masked(method, mask, params):
    """The method with masked-out parameters protected."""
    (phase,) = method.phases
    bools = jax.tree.map(lambda leaf, _: jnp.asarray(leaf), mask, params)
    actual = {"mask": Estimate(lambda member: (bools, member.model_state))}
    changed = dataclasses.replace(phase, transform=transforms.protected(phase.transform), estimates=actual)
    return dataclasses.replace(method, phases=(changed,))


def sets(file, forget="forget", retain="retain", x="x", y="y"):
    return tuple((file[f"{x}_{name}"], file[f"{y}_{name}"]) for name in (retain, forget))


@pytest.mark.parametrize("kind", ["mlp", "bn"])
def test_random_label_equals_conformal_unlearning(kind):
    file, *_, data = recorded.conformal(kind)
    (x, y), (forget_x, _) = data["retain"], data["forget"]
    drawn = file[f"{kind}_RL_labels"]
    lr, epochs = file[f"{kind}_RL_lr_epochs"]
    method = given(relabelling.random_label(lr=float(lr), epochs=int(epochs)), drawn, len(y))
    recorded.assert_epochs(kind, "RL", method, (np.concatenate([forget_x, x]), np.concatenate([drawn, y])))


@pytest.mark.parametrize("tag", ["RL", "RL_mask"])
def test_sequential_random_label_equals_salun_code(tag):
    file = np.load(GOLDEN / "conformal" / "optml_methods.npz")
    _, hidden, classes = (int(size) for size in file["dims"])
    net = nets.network(nets.Tiny(classes, hidden), (6,))
    retain, forget = sets(file)
    method = relabelling.random_label(lr=0.05, epochs=2, batch=int(file["batch_size"]), order="sequential", fresh=True)
    method = given(method, file[f"{tag}_labels_epoch_concat"].reshape(2, -1), len(retain[1]))
    start = nets.variables(file, "init", DENSE)
    if tag == "RL_mask":
        mask = nets.variables(file, "mask", DENSE)["params"]
        method = masked(method, mask, start["params"])
    actual = nets.outcome(nets.make_job(net, method, start, retain, forget))
    nets.assert_close(actual, nets.variables(file, f"{tag}_final", DENSE), 1e-5)
    if tag == "RL_mask":
        for new, old, keep in zip(*map(jax.tree.leaves, (actual["params"], start["params"], mask)), strict=True):
            np.testing.assert_array_equal(new[keep == 0], old[keep == 0])


@pytest.mark.parametrize("tag", ["amnesiac", "amnesiac_masked", "amnesiac_l2", "amnesiac_our_phase1"])
def test_amnesiac_equals_over_unlearning_and_replay(tag):
    file = np.load(GOLDEN / "our" / "descent.npz")
    net = nets.network(nets.Tiny(4, 5, activation="tanh"), (6,))
    retain, forget = sets(file, x="X")
    only_forget = tag.endswith("phase1")
    method = relabelling.amnesiac(
        lr=0.01, epochs=3 if only_forget else 2, l2=0.1 if tag.endswith("l2") else 0.0,
        batch=int(file["forget_batch"] if only_forget else file["retain_batch"]),
    )  # fmt: skip
    method = given(method, file["y_forget_relabel"], len(retain[1]))
    start = nets.variables(file, "init", DENSE, "__")
    if tag.endswith("masked"):
        method = masked(method, nets.variables(file, "mask", DENSE, "__")["params"], start["params"])
    if only_forget:
        (phase,) = method.phases
        reads = {name: spec._replace(rows="forget") for name, spec in phase.stream_specs.items()}
        method = dataclasses.replace(method, phases=(dataclasses.replace(phase, stream_specs=reads),))
    actual = nets.outcome(nets.make_job(net, method, start, retain, forget))
    nets.assert_close(actual, nets.variables(file, tag, DENSE, "__"), 5e-6)


def test_relabel_with_a_mask_equals_salun_of_our():
    file = np.load(GOLDEN / "our" / "salun.npz")
    start = nets.variables(file, "init", DENSE, "__")
    hidden, classes = (len(start["params"][name]["bias"]) for name in ("Dense_0", "Dense_1"))
    retain, forget = sets(file, x="X")
    net = nets.network(nets.Tiny(classes, hidden, activation="tanh"), retain[0].shape[1:])
    method = given(relabelling.relabel(lr=0.01, epochs=2, batch=3), file["salun_random_labels"], len(retain[1]))
    method = masked(method, nets.variables(file, "mask_0.5", DENSE, "__")["params"], start["params"])
    actual = nets.outcome(nets.make_job(net, method, start, retain, forget))
    nets.assert_close(actual, nets.variables(file, "salun", DENSE, "__"), 5e-6)


BUILDERS = {
    "poison": lambda: relabelling.poison(lr=7e-4),
    "poison_full": lambda: relabelling.poison_full(lr=2e-3),
    "hybrid": lambda: relabelling.hybrid(lr=1e-2, lr_repair=1e-3),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_every_step_of_poisoning_equals_the_forget_precision_code(name):
    recorded.assert_steps(name, BUILDERS[name]())


def test_the_uniform_rule_equals_published_poisoned_labels(monkeypatch):
    file = np.load(GOLDEN / "forget_precision" / "schedules_losses_misc.npz")
    y, forget = file["relabel__y"], file["relabel__forget_indices"]
    draws = jnp.asarray(file["relabel__draws"])
    monkeypatch.setattr(labels, "_draw", lambda key, samples, bound: draws[samples.rows])
    (phase,) = relabelling.poison().phases
    rows = np.arange(len(y), dtype=np.int32)
    samples = Samples(jnp.zeros((len(y), 1)), jnp.asarray(y), jnp.ones(len(y)), rows, np.isin(rows, forget))
    actual = phase.stream_specs["forget"].labels(keys.root(0), samples, int(file["relabel__num_classes"]))
    np.testing.assert_array_equal(actual, file["relabel__y_after"])


def problem():
    """Three classes around fixed centres; the rows of one are to be forgotten."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    x = (np.eye(3)[y] @ rng.normal(size=(3, 5)) * 2 + rng.normal(size=(60, 5))).astype(np.float32)
    return (x[y != 2], y[y != 2]), (x[y == 2], y[y == 2])


def learned(net, retain, forget, seed=1):
    """Variables of a network that has learned both sets."""
    params = net.module.init(jax.random.key(seed), jnp.zeros((1, 5)))
    both = tuple(np.concatenate([a, b]) for a, b in zip(retain, forget, strict=True))
    (phase,) = relabelling.random_label(lr=0.1, epochs=30).phases
    phase = dataclasses.replace(
        phase, stream_specs={"both": phase.stream_specs["both"]._replace(rows="retain", labels=None)}
    )
    method = dataclasses.replace(relabelling.random_label(), phases=(phase,))
    return nets.outcome(nets.make_job(net, method, params, both, (forget[0][:1], forget[1][:1]), batch=16))


def confidence(net, variables, rows):
    probabilities = jax.nn.softmax(net.module.apply(variables, jnp.asarray(rows[0])))
    return float(np.mean(np.asarray(probabilities)[np.arange(len(rows[1])), rows[1]]))


@pytest.fixture(scope="module")
def original():
    net = nets.network(nets.Tiny(3, 16), (5,))
    retain, forget = problem()
    return net, learned(net, retain, forget), retain, forget


METHODS = {
    "random_label": lambda: relabelling.random_label(lr=0.1),
    "random_label_sequential": lambda: relabelling.random_label(lr=0.1, order="sequential", fresh=True),
    "amnesiac": lambda: relabelling.amnesiac(lr=0.02),
    "relabel": lambda: relabelling.relabel(lr=0.02),
    "poison": lambda: relabelling.poison(lr=0.1, epochs=3),
    "poison_full": lambda: relabelling.poison_full(lr=0.1),
    "hybrid": lambda: relabelling.hybrid(lr=0.3, lr_repair=0.001, poison_epochs=3),
}


@pytest.mark.parametrize("name", METHODS)
def test_forget_samples_lose_confidence_and_the_smallest_sets_stay_finite(original, name):
    net, start, retain, forget = original
    job = nets.make_job(net, METHODS[name](), start, retain, forget, batch=16, members=3)
    rows, first = job.retain[0], len(job.retain[0])
    single_row = np.array([first])
    job = job._replace(retain=[rows, rows[:0], rows[:7]], forget=[job.forget[0], single_row, single_row])
    *_, last = running.run(job)
    actual = last.outcome.variables
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(actual))
    for member in range(3):
        pairs = zip(*map(jax.tree.leaves, (trees.take(actual, member), start)), strict=True)
        assert any((a != b).any() for a, b in pairs), member
    member = trees.take(actual, 0)
    lost = [confidence(net, start, rows) - confidence(net, member, rows) for rows in (forget, retain)]
    assert lost[0] > 0.02 and lost[0] > lost[1]


@pytest.mark.parametrize(
    "method",
    [
        relabelling.random_label(epochs=0), relabelling.amnesiac(epochs=0), relabelling.relabel(epochs=0),
        relabelling.poison(epochs=0), relabelling.poison_full(epochs=0), relabelling.hybrid(epochs=0, poison_epochs=0),
    ],
)  # fmt: skip
def test_zero_epochs_change_nothing(original, method):
    net, start, retain, forget = original
    actual = nets.outcome(nets.make_job(net, method, start, retain, forget))
    for a, b in zip(*map(jax.tree.leaves, (actual, start)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_labels_are_drawn_from_and_how_often():
    true = jnp.zeros(4000, jnp.int32)
    rows = jnp.arange(4000)
    samples = Samples(true, true, jnp.ones(4000), rows, rows < 3000)

    def drawn(method, key=0):
        (reads,) = method.phases[0].stream_specs.values()
        return reads, np.asarray(reads.labels(keys.root(key), samples, 4))

    reads, actual = drawn(relabelling.random_label())
    assert not reads.fresh_labels and (actual[:3000] > 0).all() and (actual[3000:] == 0).all()
    np.testing.assert_allclose(np.bincount(actual[:3000])[1:] / 3000, 1 / 3, atol=0.05)
    reads, actual = drawn(relabelling.random_label(fresh=True))
    assert reads.fresh_labels and (actual[3000:] == 0).all()
    np.testing.assert_allclose(np.bincount(actual[:3000]) / 3000, 1 / 4, atol=0.05)
    assert not drawn(relabelling.amnesiac())[0].fresh_labels and (drawn(relabelling.amnesiac())[1][:3000] > 0).all()
    assert drawn(relabelling.relabel())[0].fresh_labels and (drawn(relabelling.relabel())[1][:3000] == 0).any()
    assert not drawn(relabelling.poison())[0].fresh_labels and (drawn(relabelling.poison())[1][:3000] == 0).any()


def test_an_unknown_order_is_refused():
    with pytest.raises(errors.ConfigError, match=r"unknown order 'mixd'.*Did you mean 'mixed'"):
        relabelling.random_label(order="mixd")
