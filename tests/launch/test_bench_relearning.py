"""The bench of relearning: all ways find the same trajectories, and every row is complete."""

import json

import numpy as np

from launch import bench
from launch.benches import relearning


def test_all_ways_find_the_same_trajectories_and_rows_are_complete():
    case = relearning.draw(relearning.QUICK)
    results = relearning.together(case)()
    assert results.shape == (8, 8) and len(np.unique(results)) > 2
    for way in (relearning.step_by_step(case), relearning.trial_by_trial(case)):
        np.testing.assert_allclose([way(trial) for trial in range(8)], results, atol=1e-6)
    rows = relearning.run(quick=True)
    assert [row.get("target") for row in rows] == [None, 10.0, None]
    for row in rows:
        assert bench.line(row) and row["members"] == 8 and row.get("ratio", row.get("value")) > 0
        assert json.loads(bench.as_json("relearning", True, row))["name"] == row["name"]
