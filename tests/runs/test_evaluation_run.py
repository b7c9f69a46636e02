"""Evaluation of run folders: parts of forgotten classes, the whole verb on digits, the study of the conformal loss."""

import json
import shutil

import figures
import finished
import numpy as np
import pytest

from jaxunlearn import settings, store
from jaxunlearn.analyses.evaluation import inputs, sections
from jaxunlearn.records import Design
from jaxunlearn.runs import experiments, splits
from jaxunlearn.runs.drivers import delivery
from jaxunlearn.runs.studies import conformal_loss
from launch import evaluate, study


def experiment(**changes):
    overrides = {"split": {"shadow": 800, "forget": {"kind": "one_class", "count": 2, "classes": (3, 5)}}, **changes}
    return experiments.prepare(settings.resolve(overrides))


def parts_of(prepared, split, rows):
    return inputs.subsets_of(prepared.settings, split, prepared.dataset.labels, prepared.dataset.groups, rows)


def test_held_out_rows_of_a_class_that_is_forgotten_are_judged_apart():
    prepared = experiment()
    split = splits.draw(prepared)
    rows = splits.recorded_rows(split)
    labels = np.asarray(prepared.dataset.labels)[rows]
    parts = parts_of(prepared, split, rows)
    for number, gone in enumerate((3, 5)):
        assert set(labels[parts.forget[number]]) == {gone}
        assert set(labels[parts.test_forget[number]]) == {gone} == set(labels[parts.calibration_forget[number]])
        assert gone not in labels[parts.test[number]] and gone not in labels[parts.calibration[number]]
        assert parts.test[number].sum() + parts.test_forget[number].sum() == len(np.asarray(split.test))
    random_sets = experiment(split={"shadow": 800})
    split = splits.draw(random_sets)
    parts = parts_of(random_sets, split, splits.recorded_rows(split))
    assert not parts.test_forget.any() and parts.forget.sum() == 10 * 50


def test_gains_are_over_the_same_method_with_the_same_other_values():
    roles, lines = {}, []
    for rate, start in ((0.1, 0.1), (0.01, 0.4)):
        for weight, gain in ((0.0, 0.0), (1.0, 0.2)):
            role = f"m@lr={rate},lam={weight}"
            roles[role] = {"UA": np.array([start + gain]), "TA": np.array([0.9 - gain / 10])}
            lines.append(conformal_loss.MethodRow(role, f"m@lr={rate}", weight))
    section = conformal_loss.present(sections.Evaluation(roles, (0.1,), 0.1, 1, {}, {}, Design("given", 1)), lines)
    assert section.text == "lambda 1 changes UA by +20.0 and TA by -2.0 points, mean over 2 methods."


def launched(verb, workdir, *arguments):
    """What a launcher prints: stdout, stderr."""
    code, out, err = finished.launch(verb, *finished.FLAGS, *arguments, workdir=workdir)
    assert code == 0, err
    return out, err


def test_evaluating_digits_and_again_and_studying_the_loss(tmp_path):
    """Every role gets every number; a second run measures nothing again; the sections can be read back."""
    folder = shutil.copytree(finished.folder(), tmp_path / "copy")
    common = [finished.TWO_EPOCHS, "--config.unlearn.methods=finetune,finetune+conformal",
              "--config.unlearn.conformal.lam=0,5"]  # fmt: skip
    with figures.drawn():
        first, _ = launched(evaluate, folder, *common)
    stored = json.loads((folder / "evaluation.json").read_text())
    swept = [f"finetune+conformal@conformal_lam={value}" for value in (0.0, 5.0)]
    assert list(stored["roles"]) == ["original", "retrained", "finetune", *swept]
    names = {"UA", "RA", "TA", "confidence_forget", "confidence_test", "svc_confidence", "threshold_entropy",
             "entropy_mia", "zrf", "activation_distance", "cr_forget", "cr_test", "coverage_retain", "recover_ratio",
             "miacr"}  # fmt: skip
    for role, numbers in stored["roles"].items():
        assert names <= set(numbers), role
        assert np.shape(numbers["cr_forget"]) == (3, 4) and np.shape(numbers["UA"]) == (3,)
    # Weight 0 is fine-tuning itself; a large one lowers what the model gives the true labels.
    for name in ("UA", "confidence_forget"):
        np.testing.assert_allclose(stored["roles"][swept[0]][name], stored["roles"]["finetune"][name], atol=1e-5)
    confidence = {role: np.mean(stored["roles"][role]["confidence_forget"]) for role in swept}
    assert confidence[swept[1]] < confidence[swept[0]] - 0.02
    sets = np.load(folder / "evaluation" / "sets_retrained.npz")
    coverage = np.where(sets["forget"][:, None], sets["covered"], 0).sum(-1) / sets["forget"].sum(-1)[:, None]
    np.testing.assert_allclose(coverage, stored["roles"]["retrained"]["coverage_forget"], rtol=1e-6)
    written = {path: path.stat().st_mtime_ns for path in (folder / "evaluation").iterdir()}
    second, progress = launched(evaluate, folder, *common)
    assert written == {path: path.stat().st_mtime_ns for path in (folder / "evaluation").iterdir()}
    assert len(written) == 2 * len(stored["roles"]) and "compiling" not in progress
    assert second.splitlines()[0] == first.splitlines()[0]
    assert {path.name for path in (folder / "report" / "tables").glob("*.csv")} >= {
        "utility.csv", "attacks.csv", "conformal.csv", "alphas.csv",
    }  # fmt: skip
    answer, progress = launched(study, folder, *common, "--config.study.kind=conformal")
    assert "compiling" not in progress and answer.startswith("lambda 5 changes UA by ")  # the same members
    rows = (folder / "report" / "tables" / "conformal_loss.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [
        ["original", ""], ["retrained", ""], ["finetune", "0"], ["finetune", "5"],
    ]  # fmt: skip
    page = (folder / "report" / "evaluation.html").read_text()
    assert "recover ratio" in page and "Prediction sets against alpha" in page and "by class" in page
    with store.open_run(str(folder), ()) as run:
        titles = [section.title for section in delivery.joined_sections(run, ("evaluation",))]
    assert titles[0] == "Utility" and "Prediction sets against alpha" in titles


def test_crossed_originals_say_where_the_interval_comes_from(tmp_path):
    """Two originals, every one for both forget sets: four models of each kind, and three sources of variance."""
    crossed = ["--config.split.forget.count=2", "--config.split.forget.repeats=2", "--config.targets.originals=crossed",
               "--config.evaluate.metrics=distances,", "--config.unlearn.methods=ssd"]  # fmt: skip
    out, _ = launched(evaluate, tmp_path, *crossed)
    assert "2 forget sets crossed with 2 originals" in " ".join(out.split())
    logits = {name: np.load(tmp_path / "logits" / f"{name}.npy") for name in ("original", "retrained", "unlearned:ssd")}
    assert [len(values) for values in logits.values()] == [2, 4, 4]
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert stored["design"] == ["crossed", 2, 2] and np.shape(stored["roles"]["original"]["RA"]) == (4,)
    # Model r is of forget set r // 2 and comes from original r % 2, which has one accuracy on test rows.
    ta = stored["roles"]["original"]["TA"]
    assert ta[0] == ta[2] and ta[1] == ta[3]
    assert sections.from_plain(stored).design == Design("crossed", 2, 2)
    table = (tmp_path / "report" / "tables" / "sources.md").read_text()
    assert all(source in table for source in ("sd train", "sd set", "sd rest")) and "ssd" in table
    findings = json.loads((tmp_path / "report" / "evaluation_findings.json").read_text())
    assert {"variance of UA: train", "variance of UA: set"} <= {finding["metric"] for finding in findings}


@pytest.mark.parametrize(
    "changes, message",
    [
        (["--config.evaluate.alphas=(0.1,0.001)"], "too few for alpha = 0.001: at least 999"),
        (["--config.evaluate.alphas=(0.1,1.5)"], "alpha = 1.5"),
        (["--config.split.forget.kind=one_class", "--config.evaluate.qhat=own", "--config.evaluate.alphas=(0.1,0.02)"],
         "too few for alpha = 0.02"),
        (["--config.unlearn.methods=ssd+conformal"], "ssd+conformal: it takes no gradient steps"),
        (["--config.unlearn.conformal.lam=1"], "no method is wrapped"),
        (["--out=o"], "--out belongs to --logits"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_refused_before_anything_is_trained(tmp_path, changes, message):
    flags = [finished.FLAGS[0], "--config.unlearn.methods=finetune"]  # all of them would be traced
    code, _, err = finished.launch(evaluate, *flags, *changes, workdir=tmp_path / "w")
    assert code == 2 and message in err and not (tmp_path / "w").exists()
