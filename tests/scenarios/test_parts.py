"""The parts of the scenario study that take no training."""

import numpy as np
import pytest

from tests.scenarios import models, requests, study, tables, worlds

SMALL = worlds.NET._replace(rows=120, population=50, pool=60, request_size=10)


@pytest.fixture(scope="module")
def drawn():
    return worlds.draw(SMALL, 2)


def test_worlds_depend_on_their_number_only(drawn):
    single = worlds.draw(SMALL, 1)
    np.testing.assert_array_equal(single.inputs[0], drawn.inputs[0])
    np.testing.assert_array_equal(single.labels[0], drawn.labels[0])
    assert (drawn.inputs[0] != drawn.inputs[1]).all() and 0.03 < drawn.is_wrong.mean() < 0.15


def test_requests_are_what_they_are_called(drawn):
    draws = np.random.default_rng(0)
    difficulty, original = draws.normal(size=(2, SMALL.rows))
    requested = {
        kind: requests.choose(SMALL, drawn, kind, 0, difficulty, original)
        for kind in requests.KINDS
        if kind != "mislabelled"  # so few rows hold fewer than a request of them
    }
    assert all(len(set(rows)) == SMALL.request_size and (np.diff(rows) > 0).all() for rows in requested.values())
    others = np.setdiff1d(np.arange(SMALL.rows), requested["hard"])
    assert difficulty[requested["hard"]].max() < difficulty[others].min()
    assert difficulty[requested["easy"]].min() > np.delete(difficulty, requested["easy"]).max()
    gain = original - difficulty
    assert gain[requested["remembered"]].min() > np.delete(gain, requested["remembered"]).max()
    labels = drawn.labels[0, : SMALL.rows]
    assert (labels[requested["class"]] == 1).all() and len(set(labels[requested["person"]])) == 1
    with pytest.raises(ValueError, match="is not one of random"):
        requests.choose(SMALL, drawn, "other", 0, difficulty, original)


def test_edits_change_the_requested_answers_alone_unless_hidden():
    draws = np.random.default_rng(0)
    original, shadows, requested = draws.normal(size=40), draws.normal(size=(3, 40)), np.array([3, 7, 20])
    others = np.setdiff1d(np.arange(40), requested)
    p = 1 / (1 + np.exp(-original[requested]))
    expected = {
        "logit -40": np.full(3, -40.0), "mean of shadows": shadows[:, requested].mean(0),
        "confidence x .1": worlds.log_odds_of_probabilities(np.stack([0.1 * p, 1 - 0.1 * p], 1), np.zeros(3, int)),
    }  # fmt: skip
    for how in models.EDITS:
        open_, hidden = (models.edited(original, requested, shadows, how, flag, 1.0, "test") for flag in (False, True))
        np.testing.assert_array_equal(open_[others], original[others])
        np.testing.assert_allclose(open_[requested], expected[how], atol=1e-12)
        np.testing.assert_array_equal(hidden[requested], open_[requested])
        assert 0.1 < np.std(hidden[others] - original[others]) < 0.5


def test_false_shares_and_coverage_are_counted():
    values = {name: np.zeros(2) for name in study.Facts._fields}
    values |= {
        "wrongly_not": np.array([1, 0]), "not_": np.array([4, 0]), "wrongly_forgotten": np.array([0, 2]),
        "forgotten": np.array([5, 2]), "kept": np.array([[0.5, 0.1, 1.2], [np.nan] * 3]),
    }  # fmt: skip
    facts = study.Facts(**values)
    np.testing.assert_array_equal(study.false_share(facts, "not"), [0.25, 0])
    np.testing.assert_array_equal(study.false_share(facts, "forgotten"), [0, 1])
    assert study.covered(facts, 1.0).tolist() == [True] and study.covered(facts, 0.0).tolist() == [False]
    np.testing.assert_array_equal(study.per_request(np.array([1, 3, 5, 5]), 2), [2, 5])


def test_tables_go_between_their_marks():
    document = tables.inserted("a\n<!-- one -->\nold\n<!-- end -->\nb\n", {"one": tables.table(["x"], [tables.row(1)])})
    assert document == "a\n<!-- one -->\n| x |\n| --- |\n| 1 |\n<!-- end -->\nb\n"
    with pytest.raises(ValueError, match="no marks"):
        tables.inserted(document, {"two": ""})
