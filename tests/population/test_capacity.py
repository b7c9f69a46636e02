"""How many members fit."""

import jax
import problem
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxunlearn import errors, population
from jaxunlearn.population import capacity, training


def linear(shared, per_member, calls):
    def need(members):
        calls.append(members)
        return shared + per_member * members

    return need


def test_everything_that_fits_is_one_chunk_and_compiles_once():
    calls = []
    assert capacity.fit(linear(100, 10, calls), 64, 2, 1000).chunk == 64
    assert calls == [64]


@given(
    members=st.integers(2, 500), multiple=st.integers(1, 8), per_member=st.integers(1, 50), spare=st.integers(0, 5000)
)
def test_a_chunk_never_exceeds_the_budget_and_wastes_little(members, multiple, per_member, spare):
    budget = 100 + per_member * multiple + spare
    fit = capacity.fit(linear(100, per_member, []), members, multiple, budget)
    padded = -(-fit.chunk // multiple) * multiple
    if fit.chunk < members:
        assert 100 + per_member * padded <= budget
    chunks = -(-members // fit.chunk)
    largest = max(multiple, (budget - 100) // per_member // multiple * multiple)
    assert fit.chunk == members or chunks == -(-members // largest)  # as few chunks as possible
    assert chunks * fit.chunk - members < chunks  # nearly equal ones


def test_a_member_that_does_not_fit_is_a_clear_error():
    with pytest.raises(errors.DeviceError, match=r"smallest chunk \(2 member\(s\)\) needs 2.0 GiB, but 1.0 GiB"):
        capacity.fit(linear(0, 2**30, []), 64, 2, 2**30)


def test_the_memory_of_a_program_grows_with_the_members():
    data = population.DeviceDataset(problem.IMAGES, problem.LABELS)
    mapping = population.make_mapping("vmap", 1, 1)

    def need(members):
        program = training.compile_epoch(problem.make_job(range(members)), data, mapping)
        return capacity.program_bytes(program.memory)

    needs = {members: need(members) for members in (1, 2, 8)}
    assert 0 < needs[1] < needs[2] < needs[8]
    assert needs[8] - needs[2] == pytest.approx(6 * (needs[2] - needs[1]), rel=0.5)


def test_the_cpu_budget_is_a_part_of_the_ram_shared_by_its_devices():
    single = capacity.budget(jax.local_devices()[:1], 1.0)
    assert capacity.budget(jax.local_devices()[:2], 0.5) == pytest.approx(single / 4, rel=0.01)
