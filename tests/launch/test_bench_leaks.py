"""The bench of Unlearning-Leaks: both sides compute the same, and every row is complete."""

import json

import numpy as np
import pytest

from launch import bench
from launch.benches import leaks


def test_the_plain_way_finds_the_same_regressions():
    case = leaks.draw(leaks.QUICK)
    assert case.membership.sum(1).tolist() == [40, 40, 39, 39, 39, 39]
    here, plain = (way() for way in leaks.regression_ways(case))
    assert np.ptp(here, axis=0).max() > 0.05
    np.testing.assert_allclose(here, plain, atol=2e-3)


@pytest.mark.slow
def test_rows_are_complete_and_printable():
    rows = leaks.run(quick=True)
    assert [row.get("target") for row in rows] == [1.0, 5.0, None, 5.0][: len(rows)] and len(rows) >= 3
    for row in rows:
        assert bench.line(row) and row["members"] == 6 and row.get("ratio", row.get("value")) > 0
        assert json.loads(bench.as_json("leaks", True, row))["name"] == row["name"]
