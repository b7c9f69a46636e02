"""The bench of scores: both sides compute the same, and every row is complete."""

import json
import time

import numpy as np
import pytest

from jaxunlearn import scores
from launch import bench
from launch.benches import scores as bench_scores

SIZES = bench_scores.Sizes(9, 40, 10, 30, 12, 20, 500, 1, 0.001)
NAMES = [
    "IAM gumbel pooled", "IAM gumbel per sample", "IAM norm pooled", "IAM norm per sample", "IAM ecdf pooled",
    "IAM kde pooled", "RMIA offline with the signals of 9 models on targets and population",
    "RMIA offline from signals", "LiRA offline, online and update attack", "EMIA-R", "EMIA-P", "signals of 9 models",
]  # fmt: skip


@pytest.fixture(scope="module")
def compared():
    return bench_scores.pairs(bench_scores.draw(SIZES), scores.Options(interpolation_steps=SIZES.levels))


def test_every_comparison_is_there(compared):
    assert list(compared) == NAMES
    goals = {name: target for name, (_, _, target) in compared.items() if target is not None}
    assert goals == {NAMES[0]: 100.0, NAMES[6]: 20.0}


@pytest.mark.parametrize("name", NAMES)
def test_the_baseline_computes_the_same_numbers(compared, name):
    here, plain, _ = compared[name]
    results, expected = here(), plain()
    if name.startswith("signals"):  # the published audit takes the confidence, which follows from the log-odds
        odds, _, margin = results
        np.testing.assert_allclose(odds, expected[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(1 / (1 + np.exp(-odds)), expected[1], atol=1e-5)
        np.testing.assert_allclose(margin, expected[2], rtol=1e-4, atol=1e-5)
        return
    many = isinstance(results, list)
    for ours, theirs in zip(results if many else [results], expected if many else [expected], strict=True):
        assert np.std(theirs) > 0
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1.01 / SIZES.population if "RMIA" in name else 1e-5)
        assert np.mean(np.abs(np.asarray(ours) - theirs) > 1e-4 * (1 + np.abs(theirs))) <= 0.05


def test_rows_are_complete_and_printable(monkeypatch):
    row_settings = {"IAM gumbel pooled": (lambda: np.zeros(3), lambda: np.zeros(3), 100.0)}
    monkeypatch.setattr(bench_scores, "pairs", lambda evidence, options: row_settings)
    monkeypatch.setattr(bench_scores, "_all", lambda evidence, options: {"a": np.zeros(2), "b": np.ones(2)})
    rows = bench_scores.time_rows(SIZES, print) + bench_scores.memory_rows(SIZES, print)
    assert [row.get("target") for row in rows] == [100.0, 1.0, 0.5]
    assert rows[0]["seconds"] > 0 and rows[0]["baseline_seconds"] > 0 and "rate" not in rows[0]
    assert "all 2 scores" in rows[1]["name"]
    assert rows[2]["input_bytes"] == 9 * 500 * 10 * 4
    for row in rows:
        assert row["samples"] in (40, 500) and bench.line(row)
        assert json.loads(bench.as_json("scores", True, row))["name"] == row["name"]


def test_memory_that_is_used_and_let_go_is_seen():
    def work():
        block = np.ones(2**26, np.uint8)  # every page written
        time.sleep(0.1)
        del block

    assert 2**25 < bench_scores.peak_anonymous_bytes(work, every_seconds=0.001) < 2**28


def test_all_scores_are_timed_but_those_that_need_reference_models_pairs_or_views():
    evidence = bench_scores.draw(SIZES)
    names = scores.names_of(("all",))
    left_out = {name for name in names if scores.missing(name, evidence)}
    assert left_out == {"lira", "unleak"} | {name for name in names if name.endswith("_views")}


@pytest.mark.slow
def test_the_quick_bench_runs_in_its_own_processes():
    rows = bench_scores.run(quick=True)
    assert len(rows) == len(NAMES) + 2
    assert all(row.get("ratio", row.get("value")) > 0 for row in rows)
