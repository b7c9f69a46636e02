"""The door for given arrays as a user runs it: published numbers, every gap in the data, every mistake."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from launch import _entry, audit

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "iam" / "binui_cifar10_s10.npz"
FEW = "--scores=iam_on,iam_off,lira_off,confidence,random"
# Our names of the published arrays.
OURS = {
    "target_ori_logits": "original",
    "target_unl_logits": "unlearned",
    "target_labels": "labels",
    "target_unlearn_flags": "forgotten",
    "target_shadow_logits": "shadows",
    "ref_ori_logits": "population_original",
    "ref_unl_logits": "population_unlearned",
    "ref_popin_logits": "population_in",
    "ref_shadow_logits": "population_shadows",
    "ref_labels": "population_labels",
    "shadow_train_logits": "shadow_train_logits",
    "shadow_train_labels": "shadow_train_labels",
}


def launch(*argv):
    command = ["launch.audit", *map(str, argv)]
    return _entry.main(audit.command, audit.__doc__, command, define=audit.define, alone=audit.alone)


def published():
    with np.load(GOLDEN) as file:
        return dict(file)


def ours(**changed):
    """The same arrays under our names, shadows first; None takes one out."""
    found = {name: array for theirs, array in published().items() if (name := OURS.get(theirs))}
    for name in ("shadows", "population_shadows"):
        found[name] = np.swapaxes(found[name], 0, 1)
    return {name: array for name, array in (found | changed).items() if array is not None}


def save(path, arrays):
    np.savez(path, **arrays)
    return path


def scores_of(out):
    with np.load(out / "scores.npz") as file:
        return {name: values for name, values in file.items() if name != "ids"}


@pytest.fixture(scope="module")
def faithful(tmp_path_factory):
    """The published record file, audited with the published formulas."""
    out = tmp_path_factory.mktemp("evidence") / "faithful"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert launch(f"--evidence={GOLDEN}", f"--out={out}", "--dataset=cifar10", "--compat=faithful") == 0
    return out, said.getvalue()


def test_scores_are_the_published_ones(faithful):
    found, known = scores_of(faithful[0]), published()
    assert all(values.shape == (120,) and np.isfinite(values).all() for values in found.values())
    for name, key, tolerance in [
        ("iam_on", "p_IPapprox_simp_online", 1e-4),
        ("iam_off", "p_IPapprox_simp_offline", 1e-4),
        ("emia_r", "p_EMIA", 1e-5),
        ("emia_p", "p_EMIA_p", 1e-5),
        ("iam_confidence", "p_IPapprox_proby_simp", 2e-5),
    ]:
        np.testing.assert_allclose(found[name], 1 - known[f"score/{key}"], atol=tolerance, err_msg=name)
    for name, key in (("rmia_off", "p_RMIA"), ("rmia_on", "p_RMIA_online")):
        apart = np.abs(found[name] - (1 - known[f"score/{key}"]))
        assert apart.max() < 1.001 / 80 and (apart > 1e-6).mean() <= 0.02


def test_the_answer_comes_first_and_all_files_are_there(faithful):
    out, said = faithful
    answer = said.splitlines()[0]
    assert "samples asked to be forgotten" in answer
    assert (out / "report" / "report.md").read_text().startswith(answer)
    for name in ("report/report.html", "findings.json", "verdicts.npz", "arrays_audit.json",
                 "report/tables/scores.csv"):  # fmt: skip
        assert (out / name).stat().st_size > 20
    assert "unleak needs pairs_original" in " ".join(said.split()) and "lira needs reference" in " ".join(said.split())
    with np.load(out / "verdicts.npz") as file:
        assert set(file.files) == {"ids", "score", "p_out", "p_in", "verdict"}
        forgotten = published()["target_unlearn_flags"].astype(bool)
        np.testing.assert_array_equal(file["verdict"] >= 0, forgotten)
    for one in json.loads((out / "findings.json").read_text()):
        assert one["low"] - 1e-9 <= one["value"] <= one["high"] + 1e-9
    page = (out / "report" / "report.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "")


def test_our_names_and_a_folder_of_arrays_give_the_same_scores(faithful, tmp_path):
    folder = tmp_path / "arrays"
    folder.mkdir()
    for name, array in ours().items():
        np.save(folder / f"{name}.npy", array)
    levels = int(published()["INTERAPPROX"])
    for path in (save(tmp_path / "ours.npz", ours()), folder):
        out = tmp_path / f"out_{path.stem}"
        chosen = (FEW, "--dataset=cifar10", "--compat=faithful", f"--levels={levels}")
        assert launch(f"--evidence={path}", f"--out={out}", *chosen) == 0
        for name, values in scores_of(out).items():
            np.testing.assert_allclose(values, scores_of(faithful[0])[name], atol=1e-6, err_msg=name)


def test_corrected_formulas_are_the_default_and_differ_where_the_published_ones_are_quirky(faithful, tmp_path):
    assert launch(f"--evidence={GOLDEN}", f"--out={tmp_path / 'out'}", "--dataset=cifar10", FEW) == 0
    found = scores_of(tmp_path / "out")
    assert np.abs(found["lira_off"] - scores_of(faithful[0])["lira_off"]).max() > 0.01
    np.testing.assert_allclose(found["confidence"], scores_of(faithful[0])["confidence"], atol=1e-6)


def run(tmp_path, capsys, arrays, *more):
    """Audits arrays with a few scores: (what was printed, the output folder)."""
    out = tmp_path / "out"
    code = launch(f"--evidence={save(tmp_path / 'my.npz', arrays)}", f"--out={out}", *(more or (FEW,)))
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return " ".join(printed.out.split()), out


def test_ids_of_samples_are_carried_into_results_and_report(tmp_path, capsys):
    count = len(published()["target_labels"])
    names = np.array([f"customer \x1b{number}" for number in range(count)])
    _, out = run(tmp_path, capsys, ours(ids=names))
    with np.load(out / "scores.npz") as scores, np.load(out / "verdicts.npz") as verdicts:
        np.testing.assert_array_equal(scores["ids"], names)
        np.testing.assert_array_equal(verdicts["ids"], names)
    worst = (out / "report" / "report.md").read_text()
    assert "customer ?" in worst and "\x1b" not in worst
    few = save(tmp_path / "few.npz", ours(ids=names[:3]))
    assert launch(f"--evidence={few}", f"--out={tmp_path / 'few'}") == 2
    assert "ids has shape (3,)" in capsys.readouterr().err


def test_without_forgotten_everyone_is_judged_and_nothing_is_compared(tmp_path, capsys):
    said, out = run(tmp_path, capsys, ours(forgotten=None))
    assert "holds no `forgotten` array" in said and "median" in said and "AUC" not in said
    with np.load(out / "verdicts.npz") as file:
        assert set(file.files) == {"ids", "score", "p_out", "verdict"} and set(np.unique(file["verdict"])) <= {1, 2}
    assert set(scores_of(out)) == {"iam_on", "iam_off", "lira_off", "confidence", "random"}


def test_without_shadows_the_scores_that_need_them_are_skipped_and_there_is_no_verdict(tmp_path, capsys):
    bare = ours(shadows=None, population_shadows=None, shadow_train_logits=None, shadow_train_labels=None)
    said, out = run(tmp_path, capsys, bare)
    assert "iam_on needs shadows" in said and "iam_off needs shadows, shadow_train_logits" in said
    assert "lira_off needs shadows" in said
    assert set(scores_of(out)) == {"confidence", "random"} and not (out / "verdicts.npz").exists()
    assert "AUC" in said  # of what is left


def test_one_shadow_is_calibrated_on_the_population_or_not_at_all(tmp_path, capsys):
    first = {name: ours()[name][:1] for name in ("shadows", "population_shadows", "shadow_train_logits",
                                                 "shadow_train_labels")}  # fmt: skip
    said, out = run(tmp_path, capsys, ours(**first))
    assert "population samples in the audited model" in said and (out / "verdicts.npz").exists()
    without = {name: None for name in ours() if name.startswith("population")}
    (tmp_path / "second").mkdir()
    said, out = run(tmp_path / "second", capsys, ours(**(first | without)))
    assert "at least 2 shadow models, not 1" in said and not (out / "verdicts.npz").exists()
    assert {"iam_on", "iam_off", "lira_off"} <= set(scores_of(out))


def test_a_score_of_the_users_own_stands_beside_the_others(tmp_path, capsys):
    said, out = run(tmp_path, capsys, ours(), "--scores=my_scores:surprise,confidence", "--decision=none")
    found = scores_of(out)
    assert set(found) == {"my_scores:surprise", "confidence"} and "my_scores:surprise" in said
    odds = np.exp(-found["my_scores:surprise"].astype(np.float64))
    np.testing.assert_allclose(1 / (1 + odds), found["confidence"], atol=1e-5)
    assert "switched off" in said


def test_a_score_of_the_users_own_that_raises_is_one_message(tmp_path, capsys):
    path = save(tmp_path / "my.npz", ours())
    assert launch(f"--evidence={path}", f"--out={tmp_path / 'out'}", "--scores=my_scores:misspelt") == 2
    said = capsys.readouterr().err
    assert "score my_scores:misspelt does not run: AttributeError" in said and "my_scores.py, line" in said


def test_equal_arrays_give_equal_bytes_and_other_arrays_are_never_mixed(tmp_path, capsys):
    _, out = run(tmp_path, capsys, ours())
    before = {name: (out / name).read_bytes() for name in ("scores.npz", "verdicts.npz")}
    run(tmp_path, capsys, ours())
    assert {name: (out / name).read_bytes() for name in before} == before
    other = save(tmp_path / "other.npz", ours(unlearned=ours()["unlearned"] + np.eye(120, 10, dtype=np.float32)))
    assert launch(f"--evidence={other}", f"--out={out}", FEW) == 2
    said = capsys.readouterr().err
    assert "arrays: stored" in said and "--overwrite=audit" in said
    assert {name: (out / name).read_bytes() for name in before} == before
    assert launch(f"--evidence={other}", f"--out={out}", FEW, "--overwrite=audit") == 0
    assert (out / "scores.npz").read_bytes() != before["scores.npz"]


def test_a_dry_run_says_what_would_be_done_and_does_nothing(tmp_path, capsys):
    path = save(tmp_path / "my.npz", ours(shadow_train_logits=None, shadow_train_labels=None))
    assert launch(f"--evidence={path}", f"--out={tmp_path / 'out'}", FEW, "--dry_run") == 0
    printed = capsys.readouterr().out
    assert "120 of 10 classes" in printed and "iam_off: needs shadow_train_logits" in printed
    assert not (tmp_path / "out").exists()


def poisoned(name, value):
    array = np.array(ours()[name], np.float32)
    array[(0,) * array.ndim] = value
    return ours(**{name: array})


def softmax(values):
    odds = np.exp(values - values.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: {"unlearned": np.array([{"a": 1}], object)}, "cannot be read as an .npz of plain arrays"),
        (lambda: poisoned("unlearned", np.nan), "unlearned holds 1 value(s)"),
        (lambda: poisoned("shadows", np.inf), "shadows[0] holds 1 value(s)"),
        (lambda: ours(original=softmax(ours()["original"])), "original looks like probabilities"),
        (lambda: ours(labels=ours()["labels"][:-1]), "labels has shape (119,): axis N is 119"),
        (lambda: ours(shadows=ours()["shadows"][..., :9]), "axis C is 9"),
        (lambda: ours(shadows=np.swapaxes(ours()["shadows"], 0, 1)), "shadows has shape (120, 10, 10)"),
        (lambda: ours(labels=ours()["labels"] + 1), "labels must lie in [0, 9]"),
        (lambda: ours(unlearned=None, unlearnd=ours()["unlearned"]), "Did you mean 'unlearnd'"),
        (lambda: ours(forgotten=np.ones(120)), "`forgotten` marks every sample"),
        (lambda: ours(population_labels=None), "without 'population_labels'"),
        (lambda: ours(notes=np.zeros(2)), "'notes' of shape (2,) is not known here"),
    ],
)
def test_bad_arrays_are_one_message_and_nothing_is_written(make, message, tmp_path, capsys):
    path = save(tmp_path / "bad.npz", make())
    assert launch(f"--evidence={path}", f"--out={tmp_path / 'out'}", FEW) == 2
    printed = capsys.readouterr()
    assert message in printed.err and "Traceback" not in printed.err and printed.err.count("error:") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "extra, message",
    [
        (["--scores=iam_onn"], "unknown score 'iam_onn'. Did you mean 'iam_on'"),
        (["--scores=nowhere:score"], "cannot import module 'nowhere'"),
        (["--scores="], "no score is named"),
        (["--decision=iamon"], "unknown score 'iamon'"),
        (["--dataset=cifar"], "unknown dataset 'cifar'. Did you mean 'cifar10'"),
        (["--compat=true"], "faithful"),
        (["--calibration=shadow"], "Did you mean 'shadows'"),
        (["--level=2"], "level = 2"),
        (["--levels=1"], "levels"),
        (["--levels=100000000"], "audit.levels = 100000000: must be between 0 and 10000"),
        (["--forget_type=random"], "set_random"),
        (["--config=configs/digits.py:smoke"], "--config (a run) or --evidence (arrays), not both"),
    ],
)
def test_bad_choices_are_one_message_and_nothing_is_written(extra, message, tmp_path, capsys):
    assert launch(f"--evidence={GOLDEN}", f"--out={tmp_path / 'out'}", *extra) == 2
    printed = capsys.readouterr()
    assert message in printed.err and "Traceback" not in printed.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content, message", [(None, "does not exist"), (b"no zip", "cannot be read as an .npz"),
                                              (b"", "cannot be read as an .npz")])  # fmt: skip
def test_files_that_are_no_archives_are_refused(content, message, tmp_path, capsys):
    path = tmp_path / "my.npz"
    if content is not None:
        path.write_bytes(content)
    assert launch(f"--evidence={path}", f"--out={tmp_path / 'out'}") == 2
    assert message in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert launch(f"--evidence={empty}", f"--out={tmp_path / 'out'}") == 2
    assert "holds no .npy files" in capsys.readouterr().err
    (empty / "labels.npy").write_bytes(b"no array")
    assert launch(f"--evidence={empty}", f"--out={tmp_path / 'out'}") == 2
    assert "labels.npy cannot be read as a plain array" in capsys.readouterr().err


LIGHT = """
import sys
sys.path.insert(0, {root!r})
from launch import _entry, audit
code = _entry.main(audit.command, "", ["x", "--evidence={path}", "--out={out}", "--scores=confidence,iam_on"],
                   define=audit.define, alone=audit.alone)
heavy = ("tensorflow", "tensorflow_datasets", "torch", "sklearn", "orbax", "optax",
         "jaxunlearn.models", "jaxunlearn.population", "jaxunlearn.data")
print("LOADED", *[name for name in heavy if name in sys.modules])
sys.exit(code)
"""


def test_no_model_code_and_no_library_of_data_sets_classifiers_or_checkpoints_is_loaded(tmp_path):
    code = LIGHT.format(root=str(ROOT), path=GOLDEN, out=tmp_path / "out")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["LOADED"]
