"""Trials over every line of METHODS: what must hold for any unlearning method, whatever it does."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trial import ALL, FORGET, LABELS, build, chosen, close, members, outcome, setup

from jaxunlearn import trees, unlearn
from jaxunlearn.unlearn import costs, table, transforms

# Nine requests to three models: A, B, C; A, another B of as many rows, C; one sample, a whole class, everything.
REQUESTS = [
    *FORGET, FORGET[0], np.arange(40, 45), FORGET[2], np.array([7]), np.flatnonzero(LABELS[:60] == 2), np.arange(60),
]  # fmt: skip


@functools.cache
def together(name):
    """What a method makes of all requests at once, every hyperparameter that is a float as a traced number of each."""
    entry, given, method = table.METHODS[name], chosen(name), build(name)
    floats = {one: np.full(len(REQUESTS) * method.ensemble, given[one]) for one in table.swept(entry, given)}
    prepared = setup(method, REQUESTS, numbers=[0, 1, 2] * 3, name=name)
    return outcome(prepared._replace(build=table.binder(entry, given), hyper=floats)).variables


@pytest.mark.parametrize("name", ALL)
def test_a_population_equals_its_members_alone(name):
    """Alone, with plain numbers, side by side instead of one after another: the same to rounding."""
    method = build(name)
    alone = outcome(setup(method, [FORGET[1]], "vmap", [1], name=name)).variables
    close(members(together(name), method, 1), alone)


@pytest.mark.parametrize("name", ALL)
def test_nothing_leaks_between_rows(name):
    """Rows 0 and 3, and 2 and 5, ask the same beside another neighbour: they must not notice by a single bit."""
    method = build(name)
    for one, other in ((0, 3), (2, 5)):
        for a, b in zip(jax.tree.leaves(members(together(name), method, one)),
                        jax.tree.leaves(members(together(name), method, other)), strict=True):  # fmt: skip
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ALL)
def test_extreme_requests_end_in_finite_models(name):
    """The last three rows: one sample, a whole class, nothing is retained."""
    for path, leaf in trees.named_leaves(together(name)):
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
    assert entry.about and entry.source and set(entry.needs) <= set(table.NEEDS)
    known = table.hyperparameters(entry)
    for dataset, given in entry.published.items():
        assert set(given) <= set(known), dataset
        entry.build(**{**known, **given})
    assert inspect.getdoc(entry.build)
    cost = costs.retain_epochs(entry.build(), costs.Sizes(50, 590, 4, 64))
    assert 0 <= cost < 100 and (cost > 0) == bool(entry.needs)
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
