"""A new analysis is one record and one table line: launcher, arrays, run folder, dry run, report, overwrite follow."""

import json

import matplotlib.figure
import numpy as np
import pytest

from jaxunlearn.analyses import ANALYSES, base
from jaxunlearn.arrays import ArrayField
from jaxunlearn.report.cells import Table
from jaxunlearn.report.section import Report, Section
from launch import _analysis, _entry

# ---- the trial: how far the answers on every sample moved -----------------------------------------------------------


def _compose(moved, settings):
    figure = matplotlib.figure.Figure()
    figure.add_subplot().plot(np.sort(moved))
    table = Table(
        "Change of the answers", "", ("samples", "mean", "largest"), ((len(moved), moved.mean(), moved.max()),)
    )
    section = Section("trial", "Change", "", table, figure)
    return Report("Trial", f"Answers moved by {moved.mean():.3f}.", (section,), {}, stem="trial",
                  arrays={"trial.npz": {"moved": moved}}, files=(("trial.npz", "per sample"),))  # fmt: skip


def _gather(run, context):
    before, after = run.logits("original"), run.logits("retrained")
    return np.asarray(before.values[0]), np.asarray(after.values[0])


EXAMPLE = base.Analysis(
    section="", compat="", flag="pair", expected="It needs `before` and `after` [n, c].",
    fields={name: ArrayField("NC", required=True) for name in ("before", "after")},
    check=lambda settings: None, check_run=lambda run: None,
    from_arrays=lambda values, settings: (values["before"], values["after"]),
    roles=lambda settings: ("original", "retrained"), gather=_gather,
    describe=lambda pair, settings: [("samples", str(len(pair[0])))],
    analyse=lambda pair, settings, context: np.abs(pair[0] - pair[1]).mean(-1),
    compose=_compose, outputs=("trial.npz", "report/trial*"),
)  # fmt: skip
VERB = _analysis.Verb("trial", EXAMPLE.section, EXAMPLE.flag, EXAMPLE.compat, "an .npz")

# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(ANALYSES, "trial", EXAMPLE)


def launch(*argv):
    define, alone = _analysis.define(VERB), _analysis.alone(VERB)
    return _entry.main(_analysis.command(VERB), "Trial.", ["launch.trial", *map(str, argv)], define=define, alone=alone)


def pair(tmp_path, **more):
    draw = np.random.default_rng(0)
    before = draw.normal(size=(20, 3)).astype(np.float32)
    np.savez(tmp_path / "my.npz", before=before, after=before + 0.5, **more)
    return tmp_path / "my.npz"


def test_from_a_file_of_arrays(tmp_path, capsys):
    path, out = pair(tmp_path), tmp_path / "out"
    assert launch(f"--pair={path}", f"--out={out}", "--dry_run") == 0
    assert capsys.readouterr().out.split() == ["samples", "20"] and not out.exists()
    assert launch(f"--pair={path}", f"--out={out}") == 0
    assert "Answers moved by 0.500." in capsys.readouterr().out
    with np.load(out / "trial.npz") as saved:
        np.testing.assert_allclose(saved["moved"], 0.5, rtol=1e-6)
    for name in ("report/trial.html", "report/trial.svg", "report/tables/trial.csv", "report/trial_findings.json"):
        assert (out / name).stat().st_size
    assert json.loads((out / "run.json").read_text())["status"] == "done"


def test_its_arrays_are_checked_as_everyones(tmp_path, capsys):
    assert launch(f"--pair={pair(tmp_path, befor=np.zeros((2, 3)))}", f"--out={tmp_path / 'out'}") == 2
    assert "the array 'befor' of shape (2, 3) is not known here. Did you mean 'before'?" in capsys.readouterr().err
    np.savez(tmp_path / "soft.npz", before=np.full((4, 2), 0.5, np.float32), after=np.full((4, 2), 0.5, np.float32))
    assert launch(f"--pair={tmp_path / 'soft.npz'}", f"--out={tmp_path / 'out'}") == 2
    assert "Pass --probabilities" in capsys.readouterr().err
    assert launch(f"--pair={tmp_path / 'soft.npz'}", f"--out={tmp_path / 'out'}", "--probabilities") == 0


def test_overwrite_deletes_what_it_owns_and_nothing_else(tmp_path, capsys):
    out = tmp_path / "out"
    assert launch(f"--pair={pair(tmp_path)}", f"--out={out}") == 0
    other_array = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    np.savez(tmp_path / "other.npz", before=other_array, after=other_array)
    assert launch(f"--pair={tmp_path / 'other.npz'}", f"--out={out}") == 2  # results of other arrays are kept
    assert "--overwrite=trial" in capsys.readouterr().err
    assert launch(f"--pair={tmp_path / 'other.npz'}", f"--out={out}", "--overwrite=trial") == 0
    with np.load(out / "trial.npz") as saved:
        assert (saved["moved"] == 0).all()


def test_from_a_run_folder(tmp_path, capsys):
    small = [f"--config.{name}" for name in (
        "model.name=logistic", "train.epochs=1", "shadows.count=1", "split.forget.count=1", "targets.snapshots=0",
        "targets.shadow_origin=False", "targets.population_in=False",
    )]  # fmt: skip
    folder = tmp_path / "run"
    assert launch("--config=configs/digits.py", f"--workdir={folder}", *small, "--dry_run") == 0
    assert "retrained" in capsys.readouterr().out and not folder.exists()
    assert launch("--config=configs/digits.py", f"--workdir={folder}", *small) == 0
    assert "Answers moved by" in capsys.readouterr().out
    rows = np.load(folder / "logits" / "original.npy").shape[1]
    with np.load(folder / "trial.npz") as saved:
        assert saved["moved"].shape == (rows,) and (saved["moved"] > 0).any()
    assert launch("--config=configs/digits.py", f"--workdir={folder}", *small, f"--out={tmp_path}") == 2
    assert "--out belongs to --pair" in capsys.readouterr().err


def test_launchers_know_what_the_records_say():
    """Launchers answer --help without importing jax, so they repeat four names of their analysis."""
    from launch import audit, epsilon, evaluate, leaks

    for verb in (audit.VERB, evaluate.VERB, epsilon.VERB, leaks.VERB):
        record = ANALYSES[verb.name]
        assert (verb.section, verb.flag, verb.compat) == (record.section, record.flag, record.compat)
