"""The convolution bench: every form and mapping gives one complete row."""

import pytest

from launch.benches import conv


def test_rows_are_complete_and_relative_to_the_baseline(monkeypatch):
    tiny = conv.BenchProblem("tiny", 4, (1, 2), (1,), 2, (2,))
    monkeypatch.setattr(conv, "_QUICK", (tiny, tiny._replace(name="tiny scan", in_scan=True)))
    kept = [v for v in conv._VARIANTS if v.form in ("canonical", "native", "grouped")]
    monkeypatch.setattr(conv, "_VARIANTS", kept)
    rows = conv.run(quick=True)
    assert {(row["mapping"], row["form"]) for row in rows} == {tuple(variant) for variant in kept}
    for row in rows:
        assert row["seconds"] > 0 and row["members"] == 2 and row["case"] in row["name"]
    baselines = [row for row in rows if (row["mapping"], row["form"]) == ("map", "canonical")]
    assert len(baselines) == 2
    for row in baselines:
        assert row["ratio"] == pytest.approx(1) and row["cpu_ratio"] == pytest.approx(1)
