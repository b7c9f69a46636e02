"""Results that are kept: taken up where the facts are equal, made again where they are lost, damaged or of others."""

import numpy as np
import pytest

from jaxunlearn import progress, store
from jaxunlearn.runs.drivers import delivery


@pytest.mark.parametrize("damage", [None, b"no archive", "nothing"])
def test_what_is_kept_is_taken_up_or_made_again(damage, tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"values": np.arange(3.0)}

    with store.open_run(str(tmp_path)) as folder:
        keep = delivery.context(folder, progress.Reporter()).keep
        path = folder.path("evaluation", "sets_retrained.npz")
        first = keep("evaluation/sets_retrained.npz", {"facts": 1}, compute)
        if damage is None:
            path.unlink()
        elif damage != "nothing":
            path.write_bytes(damage)
        again = keep("evaluation/sets_retrained.npz", {"facts": 1}, compute)
        assert len(calls) == (1 if damage == "nothing" else 2)
        keep("evaluation/sets_retrained.npz", {"facts": 2}, compute)
    np.testing.assert_array_equal(first["values"], again["values"])
    assert len(calls) == (2 if damage == "nothing" else 3)
    assert np.load(path)["values"].tolist() == [0.0, 1.0, 2.0]
