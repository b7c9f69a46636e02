"""Trials over every line of METHODS: what must hold for any unlearning method, whatever it does."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common_checks import (
    ALL,
    FORGET,
    LABELS,
    assert_close,
    build,
    make_job,
    members,
    network_of,
    originals,
    outcome,
    small_hyperparameters,
)

from jaxunlearn import trees, unlearn
from jaxunlearn.unlearn import registry
from jaxunlearn.unlearn.base.entries import NEEDS
from jaxunlearn.unlearn.blocks import transforms
from jaxunlearn.unlearn.engine import costs, running

# Nine requests to three models: A, B, C; A, another B of as many rows, C; one sample, a whole class, everything.
REQUESTS = [
    *FORGET, FORGET[0], np.arange(40, 45), FORGET[2], np.array([7]), np.flatnonzero(LABELS[:60] == 2), np.arange(60),
]  # fmt: skip
# Beside them A, B, C under a mask, and A with half and with nothing of the last edit: all rows share one program.
MASKED, HALF, NOTHING = slice(9, 12), 12, 13
ROWS = [*REQUESTS, *FORGET, FORGET[0], FORGET[0]]
NUMBERS = [0, 1, 2] * 4 + [0, 0]


def half_mask(params):
    """1 on every second entry of every leaf."""
    return jax.tree.map(lambda leaf: jnp.arange(leaf.size).reshape(leaf.shape) % 2, params)


def can_be_masked(method):
    """Not where a phase has another shape, or another start: nothing of the original is there to be kept."""
    return not any(phase.widen or phase.start == "fresh" for phase in method.phases)


def guarded(phase, is_masked):
    """A phase's transform, protected by its mask where `is_masked` is 1; it sees the mask itself as it is."""
    inner = optax.with_extra_args_support(phase.transform)

    def inside(updates, state, params=None, *, mask, own, **extras):
        return inner.update(updates, state, params, mask=own, **extras)

    def outside(updates, state, params=None, *, mask, **extras):
        keep = jax.tree.map(lambda leaf: jnp.where(is_masked, leaf, 1), mask)
        return safe.update(updates, state, params, mask=keep, own=mask, **extras)

    guard = optax.GradientTransformationExtraArgs(inner.init, inside)
    safe = transforms.protected(guard) if phase.gradient_steps else optax.chain(guard, transforms.masked_gradients())
    return optax.GradientTransformationExtraArgs(safe.init, outside)


def masked(phase, is_masked):
    """The phase under half a mask where `is_masked` is 1, under its own or none where it is 0; may be traced."""
    is_continued = phase.same_optimizer and not phase.estimates  # it keeps the mask of the phase before
    estimate = phase.estimates.get("mask", unlearn.Estimate(lambda member: (None, member.model_state)))

    def compute(member):
        mask, model_state = estimate.compute(member)
        mask = jax.tree.map(jnp.ones_like, member.params) if mask is None else mask
        half = half_mask(member.params)
        return jax.tree.map(
            lambda masked_leaf, other: jnp.where(is_masked, masked_leaf, other), half, mask
        ), model_state

    mask = {} if is_continued else {"mask": estimate._replace(compute=compute)}
    return dataclasses.replace(phase, transform=guarded(phase, is_masked), estimates={**phase.estimates, **mask})


def varied(method, is_masked, factor):
    """The method where `is_masked` is 0 and `factor` 1; see `masked`, and `factor` times its last edit."""
    *first, last = [masked(phase, is_masked) for phase in method.phases] if can_be_masked(method) else method.phases
    if not last.gradient_steps:
        last = dataclasses.replace(last, transform=optax.chain(last.transform, optax.scale(factor)))
    return dataclasses.replace(method, phases=(*first, last))


@functools.cache
def together(name):
    """What a method makes of all rows side by side, every hyperparameter that is a float as a traced number of each."""
    entry, values, method = registry.METHODS[name], small_hyperparameters(name), build(name)
    plain = registry.bind_hyperparameters(entry, values)
    hyper = {key: np.full(len(ROWS), values[key]) for key in registry.swept(entry, values)}
    hyper |= {"is_masked": np.zeros(len(ROWS)), "factor": np.ones(len(ROWS))}
    hyper["is_masked"][MASKED], hyper["factor"][HALF], hyper["factor"][NOTHING] = 1, 0.5, 0

    def bind(hyper):
        floats = dict(hyper)
        return varied(is_masked=floats.pop("is_masked"), factor=floats.pop("factor"), method=plain(floats))

    hyper = {key: np.repeat(values, method.ensemble) for key, values in hyper.items()}
    job = make_job(method, ROWS, "vmap", NUMBERS, name=name)
    return outcome(job._replace(build=bind, hyper=hyper))


@pytest.mark.parametrize("name", ALL)
def test_a_population_equals_its_members_alone(name):
    """Alone, as it is, with plain numbers, in a map instead of side by side: the same to rounding."""
    method = build(name)
    alone = outcome(make_job(method, [FORGET[1]], member_ids=[1], name=name)).variables
    assert_close(members(together(name).variables, method, 1), alone)


@pytest.mark.parametrize("name", ALL)
def test_nothing_leaks_between_rows(name):
    """Rows 0 and 3, and 2 and 5, ask the same beside another neighbour: they must not notice by a single bit."""
    method = build(name)
    for first, second in ((0, 3), (2, 5)):
        for a, b in zip(jax.tree.leaves(members(together(name).variables, method, first)),
                        jax.tree.leaves(members(together(name).variables, method, second)), strict=True):  # fmt: skip
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ALL)
def test_extreme_requests_end_in_finite_models(name):
    """Rows 6 to 8 among all: one sample, a whole class, nothing is retained; an undone step counts as divergence."""
    np.testing.assert_array_equal(together(name).diverged_at, running.NOT_DIVERGED)
    for path, leaf in trees.named_leaves(together(name).variables):
        assert np.isfinite(leaf).all(), path


@pytest.mark.parametrize("name", ALL)
def test_no_steps_and_no_edits_change_nothing(name):
    method = build(name)
    idle = tuple(
        dataclasses.replace(phase, epochs=0, start="current", same_optimizer=False, estimates={}, widen=False)
        for phase in method.phases if phase.gradient_steps
    )  # fmt: skip
    if not idle:
        pytest.skip("an edit has no steps")
    still = dataclasses.replace(method, phases=idle, ensemble=1)
    job = make_job(still, name=name)
    for a, b in zip(jax.tree.leaves(outcome(job).variables), jax.tree.leaves(job.originals), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", [name for name in ALL if can_be_masked(build(name))])
def test_parameters_that_a_mask_protects_stay_bit_for_bit(name):
    after, before = trees.take(together(name).variables, MASKED)["params"], originals(network_of(name), 3)["params"]
    keep = half_mask(trees.take(before, 0))
    for a, b, m in zip(jax.tree.leaves(after), jax.tree.leaves(before), jax.tree.leaves(keep), strict=True):
        still = np.broadcast_to(np.asarray(m) == 0, a.shape)
        np.testing.assert_array_equal(a[still], b[still])
    whole = trees.take(together(name).variables, slice(0, 3))["params"]
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(whole), strict=True))


@pytest.mark.parametrize("name", [name for name in ALL if not build(name).phases[-1].gradient_steps])
def test_an_edit_composes_with_chain(name):
    method, actual = build(name), together(name).variables["params"]
    is_first = len(method.phases) == 1 or method.phases[-1].start == "original"
    nothing = trees.take(originals(network_of(name), 3)["params"] if is_first else actual, 0 if is_first else NOTHING)
    half, whole = (trees.take(actual, row) for row in (HALF, 0))
    for a, b, c in zip(*map(jax.tree.leaves, (nothing, half, whole)), strict=True):
        np.testing.assert_allclose(b, (a + c) / 2, atol=1e-5 * max(1.0, float(np.abs(c).max())))


@pytest.mark.parametrize("name", ALL)
def test_every_line_of_the_table_tells_the_truth(name):
    entry = registry.METHODS[name]
    assert entry.about and entry.source and set(entry.needs) <= set(NEEDS)
    assert not {"tokens", "classes"} <= set(entry.needs)
    known = registry.hyperparameters(entry)
    for dataset, values in entry.published.items():
        assert set(values) <= set(known), dataset
        entry.build(**{**known, **values})
    assert inspect.getdoc(entry.build)
    cost = costs.retain_epochs(entry.build(), costs.Sizes(50, 590, 4, 64))
    assert 0 <= cost < 100 and (cost > 0) == bool(entry.needs)
    method = entry.build()
    used = {
        pool for phase in method.phases
        for reads in (
            phase.stream_specs, *(e.stream_specs for e in (*phase.estimates.values(), *phase.every_epoch.values()))
        )
        for read in reads.values() for segment in (read.rows if isinstance(read.rows, tuple) else (read.rows,))
        if isinstance(segment, str) for pool in segment.split("+")
    }  # fmt: skip
    assert used <= set(entry.needs), f"reads {used}"
    estimates = [
        estimate for phase in method.phases for estimate in (*phase.estimates.values(), *phase.every_epoch.values())
    ]
    assert ("statistics" in entry.needs) == any(estimate.stream_specs for estimate in estimates)
