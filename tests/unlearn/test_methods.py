"""Trials over every line of METHODS: what must hold for any unlearning method, whatever it does."""

import dataclasses
import functools
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from jaxunlearn import errors, keys, population, trees, unlearn
from jaxunlearn.models import blocks
from jaxunlearn.unlearn import costs, running, table, transforms
from jaxunlearn.unlearn import network as networks

IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = (IMAGES.reshape(-1, 8, 8, 1) / 16).astype(np.float32)[:80]
LABELS = LABELS.astype(np.int32)[:80] % 4
VALIDATION = np.arange(60, 80)
# Small enough for every method to run in a second or two; what is left out keeps its default.
SMALL = {
    "epochs": 2, "batch": 16, "overfit_epochs": 2, "perturbations": 24, "samples": 6, "steps": 3, "iterations": 6,
    "noise_steps": 2, "shards": 2, "slices": 2, "max_samples": 12, "n_iters": 6,
}  # fmt: skip
ALL = sorted(table.METHODS)


class Net(nn.Module):
    """A convolution or a dense layer, BatchNorm, a dense head.

    No bias stands in front of BatchNorm, as it is or behind a ReLU that is always open: its gradient would be rounding
    alone, which Adam makes whole steps of.
    """

    num_classes: int = 4
    is_convolved: bool = False

    @nn.compact
    def __call__(self, inputs, train=False, mask=None):
        if self.is_convolved:
            rows = blocks.Conv(3, stride=2, use_bias=False, conv="cpu")(blocks.pictures(inputs, mask))
        else:
            rows = jnp.tanh(blocks.Dense(6)(inputs.reshape(len(inputs), -1)))
        rows = nn.relu(blocks.BatchNorm()(rows, train, mask))
        return blocks.Dense(self.num_classes)(rows.reshape(len(rows), -1))


CONVOLVED = nets.network(Net(is_convolved=True), (8, 8, 1))
DENSE = nets.network(Net(), (8, 8, 1))
# The methods that look at convolutions; for the others a dense network compiles twice as fast.
NEED_CONVOLUTIONS = ("activation_reset",)
FORGET = [np.arange(0, 9), np.arange(9, 14), np.arange(14, 26)]


@functools.cache
def originals(net, count):
    """Random networks with statistics that are not those of a fresh one."""
    found = []
    for number in range(count):
        params, statistics = networks.init(net, keys.root(number))
        statistics = jax.tree.map(lambda leaf, n=number: leaf + 0.1 * (n + 1), statistics)
        found.append({"params": params, **statistics})
    return trees.to_host(trees.stack(found))


def chosen(name):
    """The hyperparameters of a line of the table, small."""
    entry = table.METHODS[name]
    given = {key: value for key, value in SMALL.items() if key in inspect.signature(entry.build).parameters}
    return {**table.hyperparameters(entry), **given}


def build(name):
    return table.METHODS[name].build(**chosen(name))


def setup(method, forget=FORGET, mapping="map", numbers=None, retain=None, name=""):
    net = CONVOLVED if name in NEED_CONVOLUTIONS else DENSE
    numbers = np.arange(len(forget)) if numbers is None else np.asarray(numbers)
    retain = [np.setdiff1d(np.arange(60), rows) for rows in forget] if retain is None else retain
    parts = method.ensemble
    return running.Setup(
        net, population.Resident(IMAGES, LABELS), lambda hyper: method, {},
        trees.take(originals(net, 3), np.repeat(numbers, parts)), [rows for rows in forget for _ in range(parts)],
        [rows for rows in retain for _ in range(parts)], VALIDATION,
        (np.repeat(numbers, parts) * parts + np.tile(np.arange(parts), len(numbers))).astype(np.int32),
        np.tile(np.arange(parts), len(numbers)).astype(np.int32), keys.root(5),
        population.make(mapping, devices=1), "auto", 16, False,
    )  # fmt: skip


def outcome(prepared):
    *_, last = running.run(prepared)
    return last.outcome


def close(one, other, tolerance=2e-4):
    for (path, a), (_, b) in zip(trees.named_leaves(one), trees.named_leaves(other), strict=True):
        scale = max(float(np.abs(b).max()), 0.1)
        assert float(np.abs(a - b).max()) / scale < tolerance, path


def members(variables, method, number):
    return trees.take(variables, slice(number * method.ensemble, (number + 1) * method.ensemble))


@pytest.mark.parametrize("name", ALL)
def test_a_population_equals_its_members_alone_and_nothing_leaks_between_rows(name):
    entry, given, method = table.METHODS[name], chosen(name), build(name)
    # Together, every hyperparameter that is a float comes as each member's own traced number.
    floats = {one: np.full(3 * method.ensemble, given[one]) for one in table.swept(entry, given)}
    traced = {"build": table.binder(entry, given), "hyper": floats}
    together = outcome(setup(method, name=name)._replace(**traced)).variables
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(together))
    # Alone, with plain numbers, side by side instead of one after another: the same to rounding.
    alone = outcome(setup(method, [FORGET[1]], "vmap", [1], name=name)).variables
    close(members(together, method, 1), alone)
    # Another request in row 1 (as many rows): its neighbours must not notice by a single bit.
    other = [FORGET[0], np.arange(40, 45), FORGET[2]]
    changed = outcome(setup(method, other, name=name)._replace(**traced)).variables
    for number in (0, 2):
        for a, b in zip(jax.tree.leaves(members(together, method, number)),
                        jax.tree.leaves(members(changed, method, number)), strict=True):  # fmt: skip
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ALL)
def test_extreme_requests_end_in_finite_models(name):
    method = build(name)
    vanished = np.flatnonzero(LABELS[:60] == 2)
    everything = np.arange(60)
    forget = [np.array([7]), vanished, everything]  # one sample; a whole class; nothing is retained
    retain = [np.setdiff1d(everything, forget[0]), np.setdiff1d(everything, vanished), np.zeros(0, int)]
    try:
        found = outcome(setup(method, forget, retain=retain, name=name))
    except errors.ConfigError as error:
        pytest.fail(f"{name} refuses: {error}")
    for path, leaf in trees.named_leaves(found.variables):
        assert np.isfinite(leaf).all(), path


@pytest.mark.parametrize("name", ALL)
def test_no_steps_and_no_edits_change_nothing(name):
    method = build(name)
    idle = tuple(
        dataclasses.replace(phase, epochs=0, start="current", same_optimizer=False, estimates={}, widen=False)
        for phase in method.phases if phase.moves
    )  # fmt: skip
    if not idle:
        pytest.skip("an edit has no steps")
    still = dataclasses.replace(method, phases=idle, ensemble=1)
    prepared = setup(still, name=name)
    for a, b in zip(jax.tree.leaves(outcome(prepared).variables), jax.tree.leaves(prepared.originals), strict=True):
        np.testing.assert_array_equal(a, b)


def half_mask(params):
    """1 on every second entry of every leaf."""
    return jax.tree.map(lambda leaf: jnp.arange(leaf.size).reshape(leaf.shape) % 2, params)


@pytest.mark.parametrize("name", ALL)
def test_parameters_that_a_mask_protects_stay_bit_for_bit(name):
    method = build(name)
    mask = unlearn.Estimate(lambda member: (half_mask(member.params), member.statistics))
    guarded = []
    for phase in method.phases:
        if phase.widen or phase.start == "fresh":
            continue  # another shape, or another start: nothing of the original is there to be kept
        inner = phase.transform
        safe = transforms.protected(inner) if phase.moves else optax.chain(inner, transforms.masked_gradients())
        # Everything a phase remembers stays; its own mask, if it has one, gives way to this one.
        guarded.append(dataclasses.replace(phase, transform=safe, estimates={**phase.estimates, "mask": mask},
                                           same_optimizer=False))  # fmt: skip
    if len(guarded) < len(method.phases):
        pytest.skip("a phase starts from other parameters")
    prepared = setup(dataclasses.replace(method, phases=tuple(guarded)), name=name)
    after, before = outcome(prepared).variables["params"], prepared.originals["params"]
    keep = half_mask(trees.take(before, 0))
    for a, b, m in zip(jax.tree.leaves(after), jax.tree.leaves(before), jax.tree.leaves(keep), strict=True):
        still = np.broadcast_to(np.asarray(m) == 0, a.shape)
        np.testing.assert_array_equal(a[still], b[still])


@pytest.mark.parametrize("name", [name for name in ALL if not build(name).phases[-1].moves])
def test_an_edit_composes_with_chain(name):
    method = build(name)
    last = method.phases[-1]

    def scaled(factor):
        phase = dataclasses.replace(last, transform=optax.chain(last.transform, optax.scale(factor)))
        prepared = setup(dataclasses.replace(method, phases=(*method.phases[:-1], phase)), name=name)
        return outcome(prepared).variables["params"]

    is_first = len(method.phases) == 1 or last.start == "original"
    nothing = setup(method, name=name).originals["params"] if is_first else scaled(0.0)
    half, whole = scaled(0.5), scaled(1.0)
    for a, b, c in zip(*map(jax.tree.leaves, (nothing, half, whole)), strict=True):
        np.testing.assert_allclose(b, (a + c) / 2, atol=1e-5 * max(1.0, float(np.abs(c).max())))


@pytest.mark.parametrize("name", ALL)
def test_every_line_of_the_table_tells_the_truth(name):
    entry = table.METHODS[name]
    assert entry.about and entry.source and set(entry.needs) <= set(table.NEEDS) and entry.needs
    known = table.hyperparameters(entry)
    for dataset, given in entry.published.items():
        assert set(given) <= set(known), dataset
        entry.build(**{**known, **given})
    assert inspect.getdoc(entry.build)
    cost = costs.retain_epochs(entry.build(), costs.Sizes(50, 590, 4, 64))
    assert 0 < cost < 100
    method = entry.build()
    used = {
        one for phase in method.phases
        for reads in (phase.reads, *(e.reads for e in (*phase.estimates.values(), *phase.every_epoch.values())))
        for read in reads.values() for segment in (read.rows if isinstance(read.rows, tuple) else (read.rows,))
        if isinstance(segment, str) for one in segment.split("+")
    }  # fmt: skip
    assert used <= set(entry.needs), f"reads {used}"
    estimates = [one for phase in method.phases for one in (*phase.estimates.values(), *phase.every_epoch.values())]
    assert ("statistics" in entry.needs) == any(one.reads for one in estimates)


def test_a_checkpoint_in_any_phase_leads_to_the_same_end():
    method = unlearn.lookup("finetune").build(epochs=3, batch=16)
    longer = dataclasses.replace(method, phases=(dataclasses.replace(method.phases[0], keep="first"), *method.phases))
    prepared = setup(longer)
    kept, straight = [], None
    for number, event in enumerate(running.run(prepared)):
        straight = event.outcome
        if number in (1, 4):
            kept.append((event, jax.tree.map(np.asarray, event.checkpoint())))
    for event, tree in kept:
        shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
        wanted = running.templates(prepared, event.phase)
        assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), wanted)
        *_, last = running.run(prepared, running.Checkpoint(event.phase, event.epoch, tree))
        found, wanted = jax.tree.leaves(last.outcome.variables), jax.tree.leaves(straight.variables)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_member_that_diverges_is_frozen_alone():
    build_one = unlearn.lookup("finetune").build
    prepared = setup(build_one(epochs=2, batch=16))
    hyper = {"lr": np.asarray([0.01, 1e20, 0.01], np.float32)}
    wild = prepared._replace(build=lambda hyper: build_one(epochs=2, batch=16, **hyper), hyper=hyper)
    found = outcome(wild)
    assert (found.diverged_at >= 0).tolist() == [False, True, False]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trees.take(found.variables, np.array([0, 2]))))


def test_recalibrated_statistics_are_means_over_the_retained_rows():
    method = build("finetune")
    prepared = setup(method, name="activation_reset")._replace(bn="recalibrate", batch=64)
    found = trees.take(outcome(prepared).variables, 0)
    retained = prepared.retain[0]
    maps, _ = networks.activations(
        CONVOLVED, found["params"], {"batch_stats": found["batch_stats"]}, IMAGES[retained], None
    )  # fmt: skip
    convolved = np.asarray(maps[("Conv_0",)])
    own = found["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(own["mean"], convolved.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(own["var"], convolved.var((0, 1, 2), ddof=1), rtol=1e-4)


def test_layers_come_in_the_order_of_calls():
    found = [(layer.path[-1], layer.kind) for layer in networks.layers(CONVOLVED)]
    assert found == [("Conv_0", "conv"), ("BatchNorm_0", "norm"), ("Dense_0", "dense")]
    assert networks.head(CONVOLVED).path == ("Dense_0",)


def test_a_wider_network_answers_as_before_on_the_old_classes():
    params, statistics = networks.init(DENSE, keys.root(0))
    wide = networks.widen(DENSE, params, keys.root(1))
    narrow, _ = networks.forward(DENSE, params, statistics, IMAGES[:5])
    wider, _ = networks.forward(networks.widened(DENSE), wide, statistics, IMAGES[:5])
    assert wider.shape == (5, 5)
    np.testing.assert_allclose(wider[:, :4], narrow, atol=1e-6)
    for a, b in zip(jax.tree.leaves(networks.narrow(DENSE, wide)), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_unknown_rows_are_refused():
    method = build("finetune")
    broken = dataclasses.replace(method.phases[0], reads={"retain": unlearn.Reads("retian")})
    with pytest.raises(errors.ConfigError, match="retain"):
        outcome(setup(dataclasses.replace(method, phases=(broken,))))
