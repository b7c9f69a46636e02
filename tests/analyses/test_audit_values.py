"""What `analyses.audit` hands to a program: verdicts, shares, rows and scores as values, the same as on the page."""

import csv
import functools
import pickle

import numpy as np
import pytest

from jaxunlearn import analyses, errors
from jaxunlearn.analyses import Verdict
from tests.launch.test_audit_evidence import simulated

WORLD = simulated()
REQUESTED = WORLD["forgotten"]
SAME = {"unlearned": WORLD["original"], "population_unlearned": WORLD["population_original"]}
FEW_SHADOWS = {name: WORLD[name][:1] for name in ("shadows", "population_shadows")}


def edited():
    """The original's answers, those to requested rows replaced."""
    lowered = WORLD["original"] - 40 * np.eye(3, dtype=np.float32)[WORLD["labels"]]
    return SAME | {"unlearned": np.where(REQUESTED[:, None], lowered, WORLD["original"])}


def retrained(seed=5):
    """Another model that never saw the requested rows: a shadow, that knows the kept rows as the original does."""
    known = np.where(REQUESTED[:, None], WORLD["shadows"][0], WORLD["unlearned"])
    others = {"shadows": WORLD["shadows"][1:], "population_shadows": WORLD["population_shadows"][1:]}
    return {"unlearned": known, "population_unlearned": WORLD["population_shadows"][0], **others}


CASES = {
    "part left": {}, "untouched": SAME, "edited": edited(), "retrained": retrained(), "one shadow": FEW_SHADOWS,
    "no shadows": dict.fromkeys(("shadows", "population_shadows")),
    "untouched, no shadows": SAME | dict.fromkeys(("shadows", "population_shadows")),
    "few unseen rows": {name: WORLD[name][..., :30, :] if "labels" not in name else WORLD[name][:30]
                        for name in WORLD if name.startswith("population")},
    "no kept rows": {**{name: WORLD[name][..., :60, :] for name in ("unlearned", "original", "shadows")},
                     **{name: WORLD[name][:60] for name in ("labels", "person")}, "forgotten": None},
}  # fmt: skip
STATES = {
    "part left": "still in the model", "untouched": "not changed", "edited": "edited", "retrained": "forgotten",
    "one shadow": "undetermined", "no shadows": "no verdict", "untouched, no shadows": "not changed",
    "few unseen rows": "no verdict",
}  # fmt: skip


@functools.cache
def audited(case):
    return analyses.audit(simulated(**CASES[case]), scores=("confidence", "iam_on"))


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_is_the_headline(case):
    report = audited(case)
    assert report.in_short == dict(report.summary)["In short"]
    headline = report.in_short.replace("Some rows are NOT FORGOTTEN. ", "")
    headline = headline.removeprefix("No request was given (`forgotten`), so all rows are judged at once. ")
    if headline.startswith("The request as a whole CANNOT be judged"):
        headline = "CANNOT TELL"
    assert headline.startswith(report.verdict)
    assert report.request.verdict == report.verdict and report.request.why
    assert report.request.state == STATES.get(case, report.request.state)
    if report.verdict is Verdict.NO_VERDICT:
        assert np.isnan(report.request.p_high) and np.isnan(report.request.left.value)


def test_rows_are_the_arrays_in_words():
    report, codes = audited("part left"), audited("part left").arrays["verdicts.npz"]["verdict"]
    words = {2: "NOT FORGOTTEN", 0: "FORGOTTEN", 3: "SUPPRESSED", 1: "CANNOT TELL"}
    assert [row.sample for row in report.rows] == np.flatnonzero(REQUESTED).tolist()
    assert [row.verdict for row in report.rows] == [words[code] for code in codes[REQUESTED]]
    assert {type(value) for row in report.rows for value in (row.sample, row.request, row.label)} == {int}
    assert all(isinstance(row.verdict, Verdict) for row in report.rows)
    assert set(codes[~REQUESTED]) == {-1}


def test_names_of_samples_stay_what_the_user_gave():
    names = np.array([f"{number:03d}" for number in range(260)])
    (row, *_) = analyses.audit(simulated(ids=names), scores=("confidence",)).rows
    assert row.sample == "000"
    (row, *_) = analyses.audit(simulated(ids=np.arange(260) - 7), scores=("confidence",)).rows
    assert row.sample == -7


def test_the_share_that_is_left_is_a_finding_and_a_line_of_a_file(tmp_path):
    report = audited("part left")
    (finding,) = [finding for finding in report.findings if finding.metric == "trace left"]
    assert finding == report.request.left and finding.low < finding.value < finding.high
    assert 0 < finding.value < 0.5  # ten of sixty rows
    report.save(tmp_path)
    with (tmp_path / "requests.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert line["verdict"] == "NOT FORGOTTEN" and float(line["left"]) == finding.value
    assert float(line["left low"]) == finding.low and float(line["p_high"]) == report.request.p_high
    assert '"trace left"' in (tmp_path / "findings.json").read_text()


def test_scores_are_values_and_findings_and_say_why_others_are_missing():
    report = audited("part left")
    score = report.scores["iam_on"]
    np.testing.assert_array_equal(score.values, report.arrays["scores.npz"]["iam_on"])
    assert score.auc == score.metrics["auc"] and score.auc in report.findings and score.gain.against == "confidence"
    with pytest.raises(errors.DataError, match="'rmia_on' was not computed: it is not among the requested ones"):
        report.scores["rmia_on"]
    with pytest.raises(errors.ConfigError, match="unknown score 'iamon'. Did you mean 'iam_on'"):
        report.scores["iamon"]
    with pytest.raises(errors.DataError, match="'iam_on' was not computed: needs shadows"):
        audited("no shadows").scores["iam_on"]
    unknown = audited("no kept rows").scores["confidence"]
    assert unknown.auc is None and unknown.metrics == {} and unknown.values.shape == (60,)


def test_the_other_judged_models_are_there_and_a_report_is_one_after_changes_and_pickling():
    report = audited("part left")
    assert report.result.others["original"].verdict == "NOT FORGOTTEN"
    copy = pickle.loads(pickle.dumps(report._replace(notes=("kept",))))
    assert isinstance(copy, analyses.AuditReport) and copy.verdict == report.verdict and copy.notes == ("kept",)
