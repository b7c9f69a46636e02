"""Runs of launch.reminisce and its study: what is kept, a kill in the middle, every kind of forget set, refusals."""

import json
import shutil

import numpy as np
import pytest

from jaxunlearn.analyses import ANALYSES
from jaxunlearn.runs import experiments, splits
from jaxunlearn.runs.execution import members, relearning
from launch import _entry, reminisce, study

BASE = ("--config=configs/our_digits.py:smoke", "--config.model.hidden=16,", "--config.train.epochs=2",
        "--config.unlearn.methods=finetune", "--config.unlearn.options=epochs=1", "--probe_fraction=0.05",
        "--retained=4", "--learning_rates=0.05", "--trials=2", "--recovery_epochs=1")  # fmt: skip


def launched(*flags):
    argv = ["x", *BASE, *map(str, flags)]
    return _entry.main(reminisce.command, reminisce.__doc__, argv, define=reminisce.define, alone=reminisce.alone)


@pytest.fixture
def launch(capsys):
    def run(*flags):
        code = launched(*flags)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two forget sets."""
    folder = tmp_path_factory.mktemp("reminiscence") / "run"
    assert launched(f"--workdir={folder}") == 0
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def relearned(monkeypatch):
    """(trials, chunks left out) of every call of the engine."""
    calls = []
    real = relearning.running.relearn_by_chunk

    def counted(module, prepare, variables, data, trials, mapping, **more):
        calls.append((len(trials.victim), list(more["skip"])))
        return real(module, prepare, variables, data, trials, mapping, **more)

    monkeypatch.setattr(relearning.running, "relearn_by_chunk", counted)
    return calls


def results(folder):
    with np.load(folder / "reminiscence.npz") as kept:
        return dict(kept)


def equal(first, other, tolerance=0.0):
    assert first.keys() == other.keys()
    for name, values in first.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(other[name], values, rtol=0, atol=tolerance)
        else:
            np.testing.assert_array_equal(other[name], values)


def prepared(*flags):
    request = _entry.parse(["x", *BASE, *flags], "", reminisce.define, reminisce.alone)
    settings = reminisce._analysis.with_flags(reminisce.VERB, request)
    experiment = experiments.prepare(ANALYSES["reminiscence"].narrow(settings))
    return experiment, splits.draw(experiment)


def test_from_nothing_to_a_report(finished):
    kept = results(finished)
    models = ["original", "retrained", "finetune"]
    assert list(dict.fromkeys(kept["model"])) == models
    assert len(kept["accuracy"]) == 3 * 2 * 2 * 4  # models, sets, repeats, the class and three unseen ones
    assert kept["accuracy"].shape[1] == round(0.05 * 130)  # a step per probe
    assert set(np.round(kept["accuracy"] * kept["accuracy"].shape[1], 4).ravel() % 1) == {0.0}
    assert set(kept["rate"]) == {0.05}
    for name in models:
        assert kept[f"recovery__{name}"].shape[0] == 2
    numbers = json.loads((finished / "reminiscence.json").read_text())
    assert numbers["control"] == "retrained" and list(numbers["roles"]) == models
    page = (finished / "report" / "reminiscence.html").read_text()
    assert "What comes back from retained rows alone?" in page


def test_the_plan_draws_probes_of_the_forgotten_class_and_of_classes_nobody_saw():
    experiment, split = prepared()
    plan = relearning.make_plan(experiment, split)
    labels, known = np.asarray(experiment.dataset.labels), len(experiment.dataset.labels)
    for number, trials in enumerate(plan.trials):
        probes = trials.probes
        forgotten_rows = np.flatnonzero(np.asarray(split.forget)[number])
        assert np.isin(probes[trials.is_forgotten], forgotten_rows).all()
        assert (probes[~trials.is_forgotten] >= known).all()
        assert (trials.label == labels[forgotten_rows[0]]).all()
        along = np.unique(trials.retained)
        assert np.isin(along, np.asarray(split.target)).all() and not np.isin(along, forgotten_rows).any()
    assert (plan.trials[0].probes[0] != plan.trials[1].probes[0]).any()


def test_nothing_is_relearned_twice(copied, launch, relearned):
    before = results(copied)
    code, output = launch(f"--workdir={copied}", "--threshold=0.8", "--break_ties=false")
    assert code == 0 and not relearned, output
    assert "relearning" not in output.split("What was asked")[0]
    np.testing.assert_array_equal(results(copied)["accuracy"], before["accuracy"])


def test_other_trials_are_relearned_and_the_first_ones_are_the_same(copied, launch, relearned):
    before = results(copied)
    code, output = launch(f"--workdir={copied}", "--trials=3")
    assert code == 0 and len(relearned) == 3, output
    after = results(copied)
    assert len(after["accuracy"]) == len(before["accuracy"]) * 3 // 2
    repeats = after["accuracy"].reshape(3, 2, 3, 4, -1)[:, :, :2].reshape(before["accuracy"].shape)
    np.testing.assert_allclose(repeats, before["accuracy"], atol=0.35)  # other members are other programs, near ties
    for name in ("original", "retrained", "finetune"):  # its settings are the same
        np.testing.assert_array_equal(after[f"recovery__{name}"], before[f"recovery__{name}"])


def test_killed_after_the_first_set_it_goes_on_there(finished, copied, launch, relearned, monkeypatch):
    shutil.rmtree(copied / "relearned")
    real = relearning.store.files.write_npz

    def stop(path, **content):
        if path.name == "set_1.npz":
            raise KeyboardInterrupt
        return real(path, **content)

    with monkeypatch.context() as patched:
        patched.setattr(relearning.store.files, "write_npz", stop)
        code, output = launch(f"--workdir={copied}")
    assert code == 130 and "Traceback" not in output, output
    assert [path.name for path in sorted((copied / "relearned").glob("*/*"))] == ["set_0.npz"]
    code, output = launch(f"--workdir={copied}")
    assert code == 0, output
    assert [skip for _, skip in relearned[1:]] == [[0], [], []]
    equal(results(finished), results(copied))


def test_a_damaged_piece_is_relearned(finished, copied, launch, relearned):
    (copied / "relearned" / "original" / "set_1.npz").write_bytes(b"nothing")
    assert launch(f"--workdir={copied}")[0] == 0
    assert [skip for _, skip in relearned] == [[0]]
    equal(results(finished), results(copied))


def test_chunks_change_nothing(finished, copied, launch, relearned):
    shutil.rmtree(copied / "relearned")
    code, output = launch(f"--workdir={copied}", "--config.engine.chunk=3", "--recovery_epochs=0")
    assert code == 0, output
    assert relearned[0][0] == 2 * 3 * 3  # eight trials of a set in three chunks of three
    whole, chunked = results(finished), results(copied)
    equal({name: array for name, array in whole.items() if not name.startswith("recovery")}, chunked, 1e-5)
    assert "What comes back" not in (copied / "report" / "reminiscence.html").read_text()


@pytest.mark.parametrize("carried", ["optimizer", "everything"])
def test_momentum_and_weights_can_go_on_from_trial_to_trial(carried, finished, copied, launch):
    code, output = launch(f"--workdir={copied}", f"--inherited_state={carried}", "--roles=retrained")
    assert code == 0, output
    fresh, kept = results(finished), results(copied)
    fresh_accuracy = fresh["accuracy"][fresh["model"] == "retrained"]
    assert set(kept["model"]) == {"retrained"} and kept["accuracy"].shape == fresh_accuracy.shape
    assert (kept["accuracy"] != fresh_accuracy).any()
    np.testing.assert_allclose(
        kept["accuracy"][[0, 8]], fresh_accuracy[[0, 8]], atol=1e-5
    )  # nothing comes before the first


def test_diverged_models_are_left_out_with_a_note(copied, launch, monkeypatch):
    real = members.divergence_steps
    monkeypatch.setattr(
        members, "divergence_steps", lambda run, spec: {1: 3} if "finetune" in spec.name else real(run, spec)
    )
    code, output = launch(f"--workdir={copied}")
    assert code == 0 and "1 model(s) diverged and are not attacked" in output, output
    kept = results(copied)
    assert set(kept["set"][kept["model"] == "finetune"]) == {0}
    assert set(kept["set"][kept["model"] == "retrained"]) == {0, 1}
    assert kept["recovery__finetune"].shape[0] == 1
    monkeypatch.setattr(members, "divergence_steps", lambda run, spec: {0: 3, 1: 3} if "finetune" in spec.name else {})
    code, output = launch(f"--workdir={copied}")
    assert code == 0 and "2 model(s) diverged" in output, output
    assert "finetune" not in results(copied)["model"]


def test_ensembles_are_left_out_with_a_note(copied, launch):
    flags = ("--config.unlearn.methods=finetune,sisa", "--config.unlearn.options=finetune.epochs=1,sisa.epochs=1")
    code, output = launch(f"--workdir={copied}", *flags)
    assert code == 0 and "sisa is an ensemble of models: it is not relearned" in output, output
    assert "sisa" not in results(copied)["model"]


def test_forget_sets_of_rows_are_followed_on_retained_rows(launch, tmp_path):
    flags = ("--config.split.forget.kind=set_random", "--config.split.forget.size=12", f"--workdir={tmp_path / 'run'}")
    code, output = launch(*flags)
    assert code == 0 and "Traceback" not in output, output
    page = (tmp_path / "run" / "report" / "reminiscence.html").read_text()
    assert "What comes back from retained rows alone?" in page
    assert "A class was to be forgotten" not in output


def test_fine_classes_of_a_users_file(launch, tmp_path):
    flags = (*users_file(tmp_path, np.arange(600) % 6), "--config.data.ood_classes=", "--config.data.ood_subclasses=5",
             "--config.split.forget.kind=subclass", "--config.split.forget.classes=0,2")  # fmt: skip
    code, output = launch(*flags, f"--workdir={tmp_path / 'run'}")
    assert code == 0, output
    kept = results(tmp_path / "run")
    assert kept["forgotten"].sum() == 3 * 2 * 2 and (~kept["forgotten"]).sum() == 3 * 2 * 2  # one unseen fine class


def users_file(folder, fine):
    """Flags for a file of three classes of two fine ones each."""
    inputs = np.eye(6)[fine] + 0.3 * np.random.default_rng(0).normal(size=(len(fine), 6))
    np.savez(folder / "data.npz", x=inputs.astype(np.float32), y=fine // 2, fine=fine)
    return ("--config.data.name=npz", f"--config.data.path={folder / 'data.npz'}", "--config.split.shadow=40",
            "--config.split.target=0")  # fmt: skip


def test_an_unseen_class_of_too_few_rows_is_named(launch, tmp_path):
    few = users_file(tmp_path, np.concatenate([np.arange(400) % 4, [4, 5, 4]]))
    flags = (*few, "--config.split.forget.classes=0,1", "--config.data.ood_classes=2", "--probe_fraction=0.5")
    code, output = launch(*flags, f"--workdir={tmp_path / 'run'}")
    assert code == 2 and "rows of each excluded class, but class 2 has 3" in output and "Traceback" not in output, (
        output
    )
    assert not (tmp_path / "run").exists()


def test_the_study_compares_every_method_with_its_wrapped_form(tmp_path, capsys):
    study_flags = [flag if flag.startswith("--config") else flag.replace("--", "--config.reminisce.") for flag in BASE]
    argv = ["x", *study_flags, "--config.unlearn.methods=ssd", "--config.unlearn.options=ssd+our.our_epochs=1",
            "--config.evaluate.tsne_rows=40", f"--workdir={tmp_path / 'run'}"]  # fmt: skip
    code = _entry.main(study.command, study.__doc__, argv)
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "ssd+our" in printed.out and "too few forget sets to compare" in " ".join(printed.out.split())
    assert (tmp_path / "run" / "report" / "over_unlearning.html").exists()


REFUSED = {
    "no unseen classes": (("--config.data.ood_classes=",), "launch.reminisce compares with at least 1 class(es)"),
    "an unseen class": (
        ("--config.split.forget.classes=7",),
        "split.forget.classes contains class 7, whose rows are excluded",
    ),
    "too few retained": (("--retained=800",), "Lower reminisce.probe_fraction or reminisce.retained"),
    "parts of classes": (("--config.split.forget.kind=class_percentage",), "works on forget sets of whole classes"),
    "a rate of 0": (("--learning_rates=0",), "at least one rate above 0"),
    "a rate twice": (("--learning_rates=0.05,0.05",), "none twice"),
    "a rate that is none": (("--learning_rates=nan",), "must be a number"),
    "no rates": (("--learning_rates=",), "learning_rates"),
    "a word": (("--inherited_state=weights",), "inherited_state"),
    "no roles": (("--roles=",), "reminisce.roles names nothing"),
    "a role": (("--roles=retained",), "retained"),
    "a method": (("--roles=unlearned:scrubb",), "scrubb"),
    "arrays only": (("--out=x",), "--out belongs to --trajectories"),
    "both": (("--trajectories=x.npz",), "not both"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_runs_are_refused_before_a_folder_is_made(case, launch, tmp_path):
    flags, message = REFUSED[case]
    code, output = launch(*flags, f"--workdir={tmp_path / 'run'}")
    assert code == 2 and message in output and "Traceback" not in output, output
    assert not (tmp_path / "run").exists()


def test_a_dry_run_trains_nothing(launch, tmp_path):
    code, output = launch("--dry_run", f"--workdir={tmp_path / 'run'}")
    assert code == 0 and "finetune" in output and not (tmp_path / "run").exists()


def test_overwriting_it_keeps_the_models(copied, launch, relearned):
    models = {path: path.stat().st_mtime_ns for path in (copied / "populations").rglob("*") if path.is_file()}
    code, output = launch(f"--workdir={copied}", "--overwrite=reminiscence")
    assert code == 0 and len(relearned) == 3, output
    assert models.keys() == {path for path in (copied / "populations").rglob("*") if path.is_file()}
    assert all(path.stat().st_mtime_ns == when for path, when in models.items())
