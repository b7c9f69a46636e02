"""The bench of epsilon-hat: both sides compute the same, and every row is complete."""

import json

import numpy as np
import pytest

from launch import bench
from launch.benches import epsilon


def test_the_plain_ways_give_the_same_numbers():
    sizes = epsilon.QUICK._replace(plain_samples=12, rule_samples=3, models=12)
    for name, (here, plain) in epsilon.ways_of(sizes).items():
        results = here()
        assert len(np.unique(results)) > 1, name
        np.testing.assert_allclose(plain(), results, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_rows_are_complete_and_printable():
    rows = epsilon.run(quick=True)
    assert len(rows) == 11 and [row["target"] for row in rows if "target" in row] == [epsilon.ALL_SECONDS] * 2
    for row in rows:
        assert row["samples"] == 12 and bench.line(row)
        assert row.get("ratio", row.get("value")) >= (0 if "coverage" in row["name"] else 1e-9)
        assert json.loads(bench.as_json("epsilon", True, row))["name"] == row["name"]
