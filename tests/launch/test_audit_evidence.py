"""The door for given arrays as a user runs it: published numbers, every gap in the data, every mistake."""

import contextlib
import csv
import html
import io
import json
import re
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
    arrays = {name: array for theirs, array in published().items() if (name := OURS.get(theirs))}
    for name in ("shadows", "population_shadows"):
        arrays[name] = np.swapaxes(arrays[name], 0, 1)
    return {name: array for name, array in (arrays | changed).items() if array is not None}


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
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert launch(f"--evidence={GOLDEN}", f"--out={out}", "--dataset=cifar10", "--compat=faithful") == 0
    return out, output.getvalue()


def test_scores_are_the_published_ones(faithful):
    scores, known = scores_of(faithful[0]), published()
    assert all(values.shape == (120,) and np.isfinite(values).all() for values in scores.values())
    for name, key, tolerance in [
        ("iam_on", "p_IPapprox_simp_online", 1e-4),
        ("iam_off", "p_IPapprox_simp_offline", 1e-4),
        ("emia_r", "p_EMIA", 1e-5),
        ("emia_p", "p_EMIA_p", 1e-5),
        ("iam_confidence", "p_IPapprox_proby_simp", 2e-5),
    ]:
        np.testing.assert_allclose(scores[name], 1 - known[f"score/{key}"], atol=tolerance, err_msg=name)
    for name, key in (("rmia_off", "p_RMIA"), ("rmia_on", "p_RMIA_online")):
        apart = np.abs(scores[name] - (1 - known[f"score/{key}"]))
        assert apart.max() < 1.001 / 80 and (apart > 1e-6).mean() <= 0.02


def test_the_answer_comes_first_and_all_files_are_there(faithful):
    out, output = faithful
    report = json.loads((out / "report" / "report.json").read_text())
    answer = report["answer"]
    assert output.startswith(f"In short: {report['summary'][0]['answer']}\n")
    assert answer.index("Of your 30 rows, this audit would have caught ") < answer.index(" NOT FORGOTTEN, ")
    for name in ("report/report.html", "findings.json", "verdicts.npz", "verdicts.csv", "arrays_audit.json",
                 "report/tables/scores.csv"):  # fmt: skip
        assert (out / name).stat().st_size > 20
    assert "unleak needs posterior_pairs_original" in " ".join(output.split()) and "lira needs reference" in " ".join(
        output.split()
    )
    with np.load(out / "verdicts.npz") as file:
        assert set(file.files) == {"ids", "verdict", "p_high", "p_low", "p_in", "z", "trace"}
        forgotten = published()["target_unlearn_flags"].astype(bool)
        np.testing.assert_array_equal(file["verdict"] >= 0, forgotten)
        codes = file["verdict"][forgotten]
    words = {"NOT FORGOTTEN": 2, "FORGOTTEN": 0, "SUPPRESSED": 3, "CANNOT TELL": 1}
    assert ", ".join(f"{(codes == code).sum()} {word}" for word, code in words.items()) in answer
    lines = listed(out)
    assert [int(line["sample"]) for line in lines] == np.flatnonzero(forgotten).tolist()
    assert [words[line["verdict"]] for line in lines] == codes.tolist()
    for finding in json.loads((out / "findings.json").read_text()):
        assert finding["low"] - 1e-9 <= finding["value"] <= finding["high"] + 1e-9
    page = (out / "report" / "report.html").read_text()
    assert not re.search(r"https?:", page.replace("http://www.w3.org", ""))


def test_our_names_and_a_folder_of_arrays_give_the_same_scores(faithful, tmp_path):
    folder = tmp_path / "arrays"
    folder.mkdir()
    for name, array in ours().items():
        np.save(folder / f"{name}.npy", array)
    levels = int(published()["INTERAPPROX"])
    for path in (save(tmp_path / "ours.npz", ours()), folder):
        out = tmp_path / f"out_{path.stem}"
        flags = (FEW, "--dataset=cifar10", "--compat=faithful", f"--interpolation_steps={levels}")
        assert launch(f"--evidence={path}", f"--out={out}", *flags) == 0
        for name, values in scores_of(out).items():
            np.testing.assert_allclose(values, scores_of(faithful[0])[name], atol=1e-6, err_msg=name)


def test_corrected_formulas_are_the_default_and_differ_where_the_published_ones_are_quirky(faithful, tmp_path):
    assert launch(f"--evidence={GOLDEN}", f"--out={tmp_path / 'out'}", "--dataset=cifar10", FEW) == 0
    scores = scores_of(tmp_path / "out")
    assert np.abs(scores["lira_off"] - scores_of(faithful[0])["lira_off"]).max() > 0.01
    np.testing.assert_allclose(scores["confidence"], scores_of(faithful[0])["confidence"], atol=1e-6)


def listed(out):
    """The lines of verdicts.csv."""
    with (out / "verdicts.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def page(out):
    """The words of the page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", (out / "report" / "report.html").read_text())).split())


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
    for file in ("report/report.md", "report/tables/rows.csv", "verdicts.csv"):
        output = (out / file).read_text()
        assert "customer ?" in output and "\x1b" not in output
    few = save(tmp_path / "few.npz", ours(ids=names[:3]))
    assert launch(f"--evidence={few}", f"--out={tmp_path / 'few'}") == 2
    assert "ids has shape (3,)" in capsys.readouterr().err


def test_without_forgotten_everyone_is_judged_and_nothing_is_compared(tmp_path, capsys):
    output, out = run(tmp_path, capsys, ours(forgotten=None))
    assert "contains no `forgotten` array" in output and "median" in output and "AUC" not in output
    assert (
        "Of your 120 rows, this audit would have caught" in output
        and " 0 FORGOTTEN" in output
        and "Only 0 retained rows are there" in output
    )
    assert "so easy" not in output and "between the two" not in output  # neither can be known without retained rows
    assert "Nothing can be called FORGOTTEN: Only 0 retained rows are there" in page(out)
    with np.load(out / "verdicts.npz") as file:
        assert set(np.unique(file["verdict"])) <= {1, 2, 3} and np.isnan(file["trace"]).all()
        assert (file["p_in"] == 1).all() and np.isfinite(file["p_high"]).all()
    assert set(scores_of(out)) == {"iam_on", "iam_off", "lira_off", "confidence", "random"}


def test_without_shadows_the_scores_that_need_them_are_skipped_and_there_is_no_verdict(tmp_path, capsys):
    bare = ours(shadows=None, population_shadows=None, shadow_train_logits=None, shadow_train_labels=None)
    output, out = run(tmp_path, capsys, bare)
    assert "iam_on needs shadows" in output and "iam_off needs shadows, shadow_train_logits" in output
    assert "lira_off needs shadows" in output
    assert "No verdict on single samples: A verdict on single rows needs `shadows` [s, n, c]" in " ".join(
        output.split()
    )
    assert set(scores_of(out)) == {"confidence", "random"} and not list(out.glob("verdicts*"))
    assert "AUC" in output  # of what is left


def test_one_shadow_judges_rows_but_no_request_and_without_a_population_nothing_is_judged(tmp_path, capsys):
    first = {name: ours()[name][:1] for name in ("shadows", "population_shadows", "shadow_train_logits",
                                                 "shadow_train_labels")}  # fmt: skip
    output, out = run(tmp_path, capsys, ours(**first))
    assert "needs at least two shadow models that saw none of its rows" in output
    assert "It rests on 1 shadow model(s)" in page(out)
    with np.load(out / "verdicts.npz") as file:
        is_requested = file["verdict"] >= 0
        assert (
            is_requested.sum() == 30
            and np.isfinite(file["z"][is_requested]).all()
            and len(np.unique(file["p_high"][is_requested])) > 9
        )
    without = {name: None for name in ours() if name.startswith("population")}
    (tmp_path / "second").mkdir()
    output, out = run(tmp_path / "second", capsys, ours(**(first | without)))
    output = " ".join(output.split())
    assert "No verdict on single samples: A verdict on single rows needs `population_unlearned` [p, c]" in output
    assert "`population_shadows` [s, p, c]" in output and not list(out.glob("verdicts*"))
    assert {"iam_on", "iam_off", "lira_off"} <= set(scores_of(out))


def test_a_population_that_is_too_small_is_refused_and_every_row_carries_the_reason(tmp_path, capsys):
    few = {name: ours()[name][..., :39, :] for name in ("population_original", "population_unlearned", "population_in",
                                                        "population_shadows")}  # fmt: skip
    output, out = run(tmp_path, capsys, ours(**few, population_labels=ours()["population_labels"][:39]))
    assert "No verdict is given. Give at least 40 rows that no model saw (39 are there)" in output
    assert "NOT FORGOTTEN," not in output.split("Verdicts on the requested rows")[0]
    assert {line["verdict"] for line in listed(out)} == {"CANNOT TELL"}
    assert all(line["why"].startswith("Give at least 40 rows") for line in listed(out))


def test_what_was_not_unlearned_and_what_was_only_edited_is_seen(tmp_path, capsys):
    audit_arrays = ours()
    kept = audit_arrays | {
        "unlearned": audit_arrays["original"],
        "population_unlearned": audit_arrays["population_original"],
    }
    output, out = run(tmp_path, capsys, kept)
    sentence = "The unlearned model answers like the original to float16 precision on every row. Nothing was forgotten."
    assert sentence in output
    assert {line["verdict"] for line in listed(out)} == {"NOT FORGOTTEN"}
    is_requested = audit_arrays["forgotten"].astype(bool)
    edited = np.array(audit_arrays["original"], np.float32)
    edited[is_requested, audit_arrays["labels"][is_requested]] -= 40
    (tmp_path / "edited").mkdir()
    output, out = run(tmp_path / "edited", capsys, kept | {"unlearned": edited})
    assert "Only the answers to the requested rows differ from the original; all other 170 answers are" in output
    assert {line["verdict"] for line in listed(out)} == {"SUPPRESSED"}


def test_level_and_strict_are_settings_of_the_verdicts(tmp_path, capsys):
    _, out = run(tmp_path, capsys, ours())
    plain = dict(np.load(out / "verdicts.npz"))
    (tmp_path / "strict").mkdir()
    output, out = run(tmp_path / "strict", capsys, ours(), FEW, "--strict", "--fdr=0.1")
    strict = dict(np.load(out / "verdicts.npz"))
    is_requested = plain["verdict"] >= 0
    assert "at most about 1 in 10 verdicts of each kind is wrong" in output
    assert (strict["p_in"][is_requested] >= plain["p_in"][is_requested]).all() and (strict["p_in"] > plain["p_in"])[
        is_requested
    ].any()
    np.testing.assert_array_equal(strict["p_high"], plain["p_high"])


def simulated(**changed):
    """Six people of ten rows each, 200 retained rows, 5 shadows; exactly retrained but for the rows of "eve"."""
    draw = np.random.default_rng(0)
    rows, others, shadows = 260, 200, 5
    labels, population_labels = np.arange(rows) % 3, np.arange(others) % 3
    hard, population_hard = draw.normal(0, 2, rows), draw.normal(0, 2, others)
    names = np.array(["ann", "bob", "eve", "joe", "kim", "leo"])
    people = np.where(np.arange(rows) < 60, names[np.minimum(np.arange(rows) // 10, 5)], "others")
    trained = hard + 4

    def logits(answers, of):
        return (answers[..., None] * np.eye(3)[of]).astype(np.float32)

    def noise(*shape):
        return draw.normal(0, 0.5, shape)

    kept = (np.arange(rows) >= 60) | (people == "eve")
    arrays = {
        "labels": labels, "forgotten": np.arange(rows) < 60, "person": people,
        "unlearned": logits(np.where(kept, trained, hard) + noise(rows), labels),
        "original": logits(trained + noise(rows), labels),
        "shadows": logits(hard + noise(shadows, rows), labels),
        "population_labels": population_labels,
        "population_unlearned": logits(population_hard + noise(others), population_labels),
        "population_original": logits(population_hard + noise(others), population_labels),
        "population_shadows": logits(population_hard + noise(shadows, others), population_labels),
    }  # fmt: skip
    return {name: array for name, array in (arrays | changed).items() if array is not None}


PERSONS = "--scores=confidence"


def persons_of(out):
    with (out / "report" / "tables" / "persons.csv").open(newline="") as file:
        return {line["person"]: line for line in csv.DictReader(file)}


def test_a_person_who_is_still_in_the_model_is_named(tmp_path, capsys):
    output, out = run(tmp_path, capsys, simulated(), PERSONS)
    assert "Persons still in the model: 1 of 6" in output
    persons = persons_of(out)
    assert set(persons) == {"ann", "bob", "eve", "joe", "kim", "leo"}  # of the requested rows only
    assert [name for name, line in persons.items() if line["verdict"] == "still in the model"] == ["eve"]
    assert "Whose rows are still in the model?" in (out / "report" / "report.md").read_text()
    _, out = run(tmp_path, capsys, simulated(person=None), PERSONS, "--overwrite=audit")
    assert not (out / "report" / "tables" / "persons.csv").exists()


def test_numbers_name_people_as_well_and_bad_names_are_refused(tmp_path, capsys):
    person_numbers = np.unique(simulated()["person"], return_inverse=True)[1] + 100
    _, out = run(tmp_path, capsys, simulated(person=person_numbers), PERSONS)
    persons = persons_of(out)
    assert [name for name, line in persons.items() if line["verdict"] == "still in the model"] == ["102"]
    path = save(tmp_path / "few.npz", simulated(person=person_numbers[:5]))
    assert launch(f"--evidence={path}", f"--out={tmp_path / 'few'}", PERSONS) == 2
    assert "person has shape (5,)" in capsys.readouterr().err


def test_shadows_that_saw_a_row_do_not_answer_for_it(tmp_path, capsys):
    audit_arrays = simulated()
    saw = np.zeros((5, 260), bool)
    saw[0, :30] = saw[1, 30:60] = True
    told_shadows = np.array(audit_arrays["shadows"])
    told_shadows[saw] += 8 * np.eye(3, dtype=np.float32)[np.broadcast_to(audit_arrays["labels"], saw.shape)[saw]]
    results = {}
    for name, arrays in (
        ("untouched", audit_arrays | {"shadow_saw": saw}),
        ("known", audit_arrays | {"shadows": told_shadows, "shadow_saw": saw}),
        ("unknown", audit_arrays | {"shadows": told_shadows}),
    ):
        (tmp_path / name).mkdir()
        output, out = run(tmp_path / name, capsys, arrays, PERSONS)
        with np.load(out / "verdicts.npz") as file:
            results[name] = dict(file)
        assert "It rests on 5 shadow model(s)" in page(out)
        assert ("would have confirmed" in output) == (name == "unknown")
    for name in ("verdict", "p_high", "z"):  # what the shadows answer to rows that they saw is not read
        np.testing.assert_array_equal(results["known"][name], results["untouched"][name])
    assert (results["unknown"]["z"] < results["known"]["z"])[20:30].all()  # what is left of eve stands out less
    everyone = save(tmp_path / "all.npz", audit_arrays | {"shadow_saw": saw | (np.arange(260) == 7)})
    assert launch(f"--evidence={everyone}", f"--out={tmp_path / 'all'}", PERSONS) == 0
    assert "1 seen by every shadow model" in " ".join(capsys.readouterr().out.split())


def test_copies_among_the_shadows_are_left_out_of_who_saw_what(tmp_path, capsys):
    audit_arrays = simulated()
    draw = np.random.default_rng(1)
    saw = draw.random((5, 260)) < 0.3
    saw[0] = False  # every row has a shadow that did not see it
    twice = [0, 0, 1, 2, 2, 3, 4]  # copies among them
    copied = audit_arrays | {name: audit_arrays[name][twice] for name in ("shadows", "population_shadows")}
    for name in ("plain", "copied"):
        (tmp_path / name).mkdir()
    _, plain = run(tmp_path / "plain", capsys, audit_arrays | {"shadow_saw": saw}, PERSONS)
    output, out = run(tmp_path / "copied", capsys, copied | {"shadow_saw": saw[twice]}, PERSONS)
    assert "Before anything else: The 7 shadow models are copies of 5 different models" in " ".join(output.split())
    with np.load(plain / "verdicts.npz") as expected, np.load(out / "verdicts.npz") as arrays:
        for name in expected.files:
            np.testing.assert_array_equal(arrays[name], expected[name], err_msg=name)
    path = save(tmp_path / "short.npz", copied | {"shadow_saw": saw})
    assert launch(f"--evidence={path}", f"--out={tmp_path / 'short'}", PERSONS) == 2
    assert "shadow_saw has shape (5, 260)" in capsys.readouterr().err


def test_a_score_of_the_users_own_stands_beside_the_others(tmp_path, capsys):
    output, out = run(tmp_path, capsys, ours(), "--scores=my_scores:surprise,confidence")
    scores = scores_of(out)
    assert set(scores) == {"my_scores:surprise", "confidence"} and "my_scores:surprise" in output
    odds = np.exp(-scores["my_scores:surprise"].astype(np.float64))
    np.testing.assert_allclose(1 / (1 + odds), scores["confidence"], atol=1e-5)


def test_a_score_of_the_users_own_that_raises_is_one_message(tmp_path, capsys):
    path = save(tmp_path / "my.npz", ours())
    assert launch(f"--evidence={path}", f"--out={tmp_path / 'out'}", "--scores=my_scores:misspelt") == 2
    output = capsys.readouterr().err
    assert "score my_scores:misspelt does not run: AttributeError" in output and "my_scores.py, line" in output


def test_equal_arrays_give_equal_bytes_and_other_arrays_are_never_mixed(tmp_path, capsys):
    _, out = run(tmp_path, capsys, ours())
    before = {name: (out / name).read_bytes() for name in ("scores.npz", "verdicts.npz", "verdicts.csv")}
    run(tmp_path, capsys, ours())
    assert {name: (out / name).read_bytes() for name in before} == before
    other = save(tmp_path / "other.npz", ours(unlearned=ours()["unlearned"] + np.eye(120, 10, dtype=np.float32)))
    assert launch(f"--evidence={other}", f"--out={out}", FEW) == 2
    output = capsys.readouterr().err
    assert "arrays: stored" in output and "--overwrite=audit" in output
    assert {name: (out / name).read_bytes() for name in before} == before
    assert launch(f"--evidence={other}", f"--out={out}", FEW, "--overwrite=audit") == 0
    assert (out / "scores.npz").read_bytes() != before["scores.npz"]


def test_a_dry_run_says_what_would_be_done_and_does_nothing(tmp_path, capsys):
    path = save(tmp_path / "my.npz", ours(shadow_train_logits=None, shadow_train_labels=None))
    assert launch(f"--evidence={path}", f"--out={tmp_path / 'out'}", FEW, "--dry_run") == 0
    printed = capsys.readouterr().out
    assert "120 of 10 classes" in printed and "iam_off: needs shadow_train_logits" in printed
    assert not (tmp_path / "out").exists()


def test_the_plan_of_arrays_counts_what_is_there_and_judges_nothing(tmp_path, capsys):
    path = save(tmp_path / "my.npz", ours(shadows=None, population_shadows=None, shadow_train_logits=None,
                                          shadow_train_labels=None))  # fmt: skip
    assert launch(f"--evidence={path}", f"--out={tmp_path / 'out'}", FEW, "--plan_shadows") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "shadow models 0: at least 2 for verdicts on rows, 10 for the request as a whole" in printed
    assert "retained rows 90: enough to call a row forgotten; 200 to call many rows forgotten" in printed
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
        (lambda: poisoned("unlearned", np.nan), "unlearned contains 1 value(s)"),
        (lambda: poisoned("shadows", np.inf), "shadows[0] contains 1 value(s)"),
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
        (["--decision=none"], "unknown score 'none'"),
        (["--strict=2"], "strict"),
        (["--fdr=2"], "fdr = 2"),
        (["--interpolation_steps=1"], "interpolation_steps"),
        (["--interpolation_steps=100000000"], "audit.interpolation_steps = 100000000: must be between 0 and 10000"),
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
    assert "contains no .npy files" in capsys.readouterr().err
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


def test_a_score_to_be_named_first_that_lacks_arrays_is_refused_before_any_is_computed(tmp_path, capsys):
    path = save(tmp_path / "alone.npz", ours(shadows=None, population_shadows=None, shadow_train_logits=None,
                                             shadow_train_labels=None))  # fmt: skip
    flags = (f"--evidence={path}", f"--out={tmp_path / 'out'}", "--scores=lira_off,confidence")
    assert launch(*flags, "--decision=lira_off") == 2
    printed = capsys.readouterr()
    assert "audit.decision = 'lira_off' needs shadows" in printed.err and "analysing" not in printed.err
    assert launch(*flags) == 0
    assert "verdicts.csv" not in capsys.readouterr().out  # nothing is listed that is not there
