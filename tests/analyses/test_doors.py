"""Numbers of a user's own arrays are to be had without the code that trains and unlearns."""

import subprocess
import sys

import numpy as np

PROGRAM = """
import sys
from jaxunlearn import settings
from jaxunlearn.runs.drivers import array_input

resolved = settings.resolve({"epsilon": {"bootstrap": 0}, "evaluate": {"metrics": ("conformal",)}})
for name in ("epsilon", "evaluation"):
    array_input.run(name, f"{name}.npz", resolved, name, (), False, False)
rooms = (["jaxunlearn", room] for room in ("models", "population", "unlearn"))
print("LOADED", *(name for room in rooms for name in sys.modules if name.split(".")[:2] == room))
"""


def test_epsilon_and_evaluation_of_arrays_load_no_model_code(tmp_path):
    draw = np.random.default_rng(0)
    labels = np.arange(6) % 3
    retrained, mine = draw.normal(size=(2, 6, 5, 3)).astype("f4")
    np.savez(tmp_path / "epsilon.npz", labels=labels, retrained=retrained, mine=mine)
    subsets = {name: draw.normal(size=(30, 3)).astype("f4") for name in ("forget", "retain", "test", "calibration")}
    labels_of = {f"{name}_labels": np.arange(30) % 3 for name in subsets}
    np.savez(tmp_path / "evaluation.npz", **subsets, **labels_of)
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["LOADED"]
    for name in ("epsilon", "evaluation"):
        assert (tmp_path / name / "report" / f"{name}.html").exists()
