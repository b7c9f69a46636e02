"""Streams: orders and batches of one member."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jaxunlearn import errors, keys
from jaxunlearn.population import streams


@hypothesis_settings(deadline=None, max_examples=25)
@given(count=st.integers(1, 64), seed=st.integers(0, 2**31))
def test_an_order_permutes_the_own_rows_first_and_ignores_the_padding(count, seed):
    key = keys.root(seed)
    short = np.asarray(streams.order(key, count, 64))
    long = np.asarray(streams.order(key, count, 100))
    assert sorted(short[:count]) == list(range(count))
    np.testing.assert_array_equal(short[:count], long[:count])


def test_orders_are_uniform():
    firsts = [int(streams.order(keys.root(seed), 8, 8)[0]) for seed in range(800)]
    counts = np.bincount(firsts, minlength=8)
    assert ((counts - 100) ** 2 / 100).sum() < 24.3  # chi-square, 7 degrees of freedom, level 0.001


def test_an_epoch_reads_every_own_row_once_and_nothing_else():
    member = np.zeros((2, 50), bool)
    member[0, 3:40:3] = True
    member[1, :] = True
    stream = streams.from_membership(member)
    member_stream = jax.tree.map(lambda leaf: leaf[0], stream)
    rows, weights = streams.epoch_batches(member_stream, keys.root(1), 8, 7)
    rows, weights = np.asarray(rows), np.asarray(weights)
    assert sorted(rows[weights > 0]) == list(range(3, 40, 3))
    assert set(rows.ravel()) <= set(range(3, 40, 3))  # padding too: no foreign row is ever gathered


def test_a_cycling_stream_repeats_its_rows_at_full_weight():
    member = np.zeros((1, 50), bool)
    member[0, :5] = True
    member_stream = jax.tree.map(lambda leaf: leaf[0], streams.from_membership(member))
    rows, weights = map(np.asarray, streams.epoch_batches(member_stream, keys.root(1), 3, 5, cycle=True))
    assert weights.sum(1).tolist() == [3, 2, 3, 2, 3]  # the short last batch is kept, and comes again
    assert sorted(rows[:2][weights[:2] > 0]) == list(range(5))
    np.testing.assert_array_equal(rows[2:4], rows[:2])


def test_a_stream_carried_on_goes_on_where_it_stopped():
    member_stream = jax.tree.map(lambda leaf: leaf[0], streams.from_rows([[np.arange(5)]], 2))
    first, _ = streams.epoch_batches(member_stream, keys.root(0), 2, 2, shuffle=False, cycle=True)
    second, weights = streams.epoch_batches(member_stream, keys.root(0), 2, 2, shuffle=False, cycle=True, done=2)
    assert np.asarray(first).tolist() == [[0, 1], [2, 3]]
    assert np.asarray(second)[np.asarray(weights) > 0].tolist() == [4, 0, 1]


@pytest.mark.parametrize("shuffle", [True, False])
def test_segments_follow_each_other_and_share_no_batch(shuffle):
    segments = [[np.arange(10, 15), np.arange(20, 27)], [np.arange(30, 32), np.arange(40, 41)]]
    stream = streams.from_rows(segments, 4)
    for i, (first, second) in enumerate(segments):
        member_stream = jax.tree.map(lambda leaf, i=i: leaf[i], stream)
        rows, weights = map(np.asarray, streams.epoch_batches(member_stream, keys.root(3), 4, 5, shuffle=shuffle))
        cut = -(-len(first) // 4)
        assert sorted(rows[:cut][weights[:cut] > 0]) == list(first)
        assert sorted(rows[cut:][weights[cut:] > 0]) == list(second)
        if not shuffle:
            assert rows[cut:][weights[cut:] > 0].tolist() == list(second)


def test_a_member_without_rows_reads_nothing():
    stream = streams.from_rows([[np.zeros(0, int)], [np.arange(3)]], 2)
    member_stream = jax.tree.map(lambda leaf: leaf[0], stream)
    for cycle in (False, True):
        assert not np.asarray(streams.epoch_batches(member_stream, keys.root(0), 2, 3, cycle=cycle)[1]).any()


@pytest.mark.parametrize(
    "member, message",
    [
        (np.zeros((2, 5), bool), "member 0 has no row to train on"),
        (np.full((1, 5), -1.0), "negative weights"),
        (np.full((1, 5), np.nan), r"member contains 5 value\(s\) that are NaN"),
        (np.ones(5, bool), r"member has shape \(5,\), expected 2 axes \[M, N\]"),
    ],
)
def test_bad_memberships_are_refused(member, message):
    with pytest.raises(errors.UserError, match=message):
        streams.from_membership(member)


def test_coupled_members_read_the_batches_of_their_source_but_for_their_rows():
    source = np.zeros((3, 30), bool)
    source[:, 5:25] = True
    member = source.copy()
    member[1, 9] = False  # one row less
    member[2, 9] = False
    member[2, 28] = True  # and another one instead
    stream = streams.from_coupled(member, source)
    batches = []
    for i in range(3):
        member_stream = jax.tree.map(lambda leaf, i=i: leaf[i], stream)
        batches.append([np.asarray(array) for array in streams.epoch_batches(member_stream, keys.root(4), 8, 3)])
    (rows, weights), (fewer, lost), (swapped, same) = batches
    is_changed = (rows == 9) & (weights > 0)
    assert is_changed.sum() == 1 and lost[is_changed] == 0 and same[is_changed] == 1 and swapped[is_changed] == 28
    is_shared = (weights > 0) & ~is_changed
    for member_rows, weight in ((fewer, lost), (swapped, same)):
        np.testing.assert_array_equal(member_rows[is_shared], rows[is_shared])
        np.testing.assert_array_equal(weight[~is_changed], weights[~is_changed])
    assert not np.isin(fewer, [9, 28]).any()  # a row of somebody else is never even read
    larger = source.copy()
    larger[0, :5] = True
    longer = streams.from_coupled(larger, source)
    np.testing.assert_array_equal(longer.num_rows, [25, 20, 20])
    with pytest.raises(errors.DataError, match="member 1 has no row to train on"):
        streams.from_coupled(np.array([[1, 0], [0, 0]], bool), np.ones((2, 2), bool))
