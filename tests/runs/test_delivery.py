"""Results that are kept: taken up where the facts are equal, made again where they are lost, damaged or of others."""

import numpy as np
import pytest

from jaxunlearn import progress, store
from jaxunlearn.report.section import Report
from jaxunlearn.runs.drivers import delivery


@pytest.mark.parametrize("damage", [None, b"no archive", "nothing"])
def test_what_is_kept_is_taken_up_or_made_again(damage, tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"values": np.arange(3.0)}

    with store.open_run(str(tmp_path)) as folder:
        keep = delivery.context(folder, progress.Reporter()).cached
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


def test_the_terminal_shows_the_summary_then_the_notes_and_the_files_hold_the_answer_too(tmp_path):
    summary = (("What was asked", "Forget two rows."), ("What was found", "Nothing that training left."))
    report = Report("Title", "The answer.", (), {}, summary, stem="made_up", notes=("one row is there twice",))
    with store.open_run(str(tmp_path)) as folder:
        shown = delivery.deliver(folder, report, {}, 0.0, {"arrays": "x.npz"})
        plain = delivery.deliver(folder, report._replace(summary=()), {}, 0.0, {})
    assert shown.startswith("What was asked: Forget two rows.\n\nWhat was found: Nothing that training left.\n\n")
    assert "The answer." not in shown and "\nnote: one row is there twice\n" in shown
    assert plain.startswith("The answer.\n\n")
    text = (tmp_path / "report" / "made_up.html").read_text()
    assert "The answer." in text and "<li>one row is there twice</li>" in text
