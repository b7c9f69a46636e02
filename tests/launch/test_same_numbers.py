"""One folder through unlearn, study, evaluate and audit: numbers of the same name are the same numbers."""

import csv
import json
import shutil

import finished
import numpy as np
import pytest

from launch import audit, evaluate, study, unlearn

METHODS = "finetune,ssd"
GIVEN = [*finished.FLAGS, finished.TWO_EPOCHS, "--config.evaluate.svc_rows=100", f"--config.unlearn.methods={METHODS}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run folder that every verb has worked in."""
    path = shutil.copytree(finished.folder(), tmp_path_factory.mktemp("same") / "run")
    audited = ("--unlearned=unlearned:finetune", "--scores=iam_on,confidence", "--protocol=binui")
    for verb, *more in ((study, "--config.study.kind=methods"), (evaluate,), (audit, *audited)):
        code, _, err = finished.launch(verb, *GIVEN, *more, workdir=path)
        assert code == 0, err
    return path


def findings(path, name):
    """(of, metric) -> the finding."""
    findings = json.loads((path / name).read_text())
    return {(finding["of"].removeprefix("unlearned:"), finding["metric"]): finding for finding in findings}


def test_utility_is_the_same_whoever_prints_it(folder):
    facts = json.loads((folder / "unlearned.json").read_text())["roles"]
    evaluation = json.loads((folder / "evaluation.json").read_text())["roles"]
    methods = findings(folder, "report/methods_findings.json")
    evaluated = findings(folder, "report/evaluation_findings.json")
    compared = 0
    for role, facts_of_role in facts.items():
        title = role.removeprefix("unlearned:")
        for metric, values in facts_of_role["numbers"].items():
            assert values == pytest.approx(evaluation[title][metric], abs=1e-12), (role, metric)
            mean = pytest.approx(np.mean(values), abs=1e-12)
            assert methods[title, metric]["value"] == mean and evaluated[title, metric]["value"] == mean
            assert methods[title, metric]["low"] == evaluated[title, metric]["low"]
            compared += 1
    assert compared == 4 * 3  # original, retrained and two methods: UA, RA, TA


def test_the_gap_to_retraining_is_the_same(folder):
    code, out, err = finished.launch(unlearn, *GIVEN, workdir=folder)
    assert code == 0, err
    lines = [line.split() for line in out.splitlines()]
    printed = {line[0]: float(line[-3]) for line in lines if line and line[0] in METHODS.split(",")}
    with open(folder / "report" / "tables" / "utility.csv") as file:
        rows = {row["role"]: row for row in csv.DictReader(file)}
    for method, gap in printed.items():
        assert gap == pytest.approx(100 * float(rows[method]["gap ↓"]), abs=0.051), method
        assert float(rows[method]["gap with MIA ↓"]) != pytest.approx(float(rows[method]["gap ↓"]), abs=1e-6)
    assert len(printed) == 2


def test_an_audit_sees_what_the_study_saw(folder):
    finding = findings(folder, "report/methods_findings.json")["finetune", "AUC"]
    audited = findings(folder, "findings.json")["iam_on", "AUC"]
    assert finding["value"] == audited["value"] and finding["std"] == audited["std"]
    with np.load(folder / "scores" / "binui_unlearned:finetune.npz") as file:
        scores, forgotten = file["iam_on"].mean(0), file["forgotten"]
    means = [line[mask].mean() for line, mask in zip(scores, forgotten, strict=True)]
    forgotten_score = findings(folder, "report/methods_findings.json")["finetune", "iam_on forgotten"]
    assert forgotten_score["value"] == pytest.approx(np.mean(means), abs=1e-9)


def test_seconds_and_epochs_are_told_alike(folder):
    facts = json.loads((folder / "unlearned.json").read_text())["roles"]
    costs = json.loads((folder / "evaluation.json").read_text())["costs"]
    for role, facts_of_role in facts.items():
        assert costs[role.removeprefix("unlearned:")] == [facts_of_role["seconds"], facts_of_role["retain_epochs"]]
