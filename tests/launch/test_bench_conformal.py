"""The bench of prediction sets: all sides compute the same, and every row is complete."""

import json

import numpy as np
import pytest

from launch import bench
from launch.benches import conformal


def test_all_ways_compute_the_same_numbers():
    results = {name: call() for name, call in conformal.ways_of(conformal.QUICK).items()}
    assert results["here"].shape == (4, 3, 3) and np.std(results["here"][3]) > 0
    for name in ("numpy", "jax"):
        np.testing.assert_allclose(results[name], results["here"], rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_rows_are_complete_and_printable():
    rows = conformal.run(quick=True)
    assert [row.get("target") for row in rows] == [conformal.TARGET, None]
    for row in rows:
        assert row["ratio"] > 0 and row["models"] == 3 and bench.line(row)
        assert json.loads(bench.as_json("conformal", True, row))["name"] == row["name"]
