"""The bench of scores of texts: all ways compute the same, and every row is complete."""

import json

import numpy as np
import pytest

from launch import bench
from launch.benches import tokens


def test_all_ways_compute_the_same_numbers():
    results = {name: way() for name, way in tokens.ways_of(tokens.QUICK).items()}
    here = results.pop("here")
    assert {"lm_iam", "lm_rmia", "lm_min_k_pp", "lm_zlib"} <= set(here)
    for name, others in results.items():
        assert set(others) == set(here)
        for score, values in here.items():
            assert np.std(values) > 0
            np.testing.assert_allclose(others[score], values, rtol=1e-4, atol=1e-5, err_msg=f"{name}: {score}")


def test_a_pass_for_each_score_reads_what_one_pass_reads():
    ways = tokens.ways_of_extraction(tokens.QUICK_MODEL)
    here, apart = ways["here"](), ways["a pass for each score"]()
    assert set(here) == set(apart)
    for name, values in here.items():
        assert values.shape == (3, 7) and np.std(values) > 0
        np.testing.assert_allclose(apart[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_rows_are_complete_and_printable():
    rows = tokens.run(quick=True)
    assert [row.get("target") for row in rows] == [tokens.LOOP_TARGET, None, None]
    for row in rows:
        assert row["ratio"] > 0 and row["texts"] in (40, 3) and bench.line(row)
        assert json.loads(bench.as_json("tokens", True, row))["name"] == row["name"]
