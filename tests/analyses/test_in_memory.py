"""An audit without a launcher, a file or a folder; and what can be said where no row can be judged."""

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.special

from jaxunlearn import analyses, errors, records
from jaxunlearn.analyses.audit.verdicts import first_screen
from jaxunlearn.metrics import distances
from tests.launch.test_audit_evidence import simulated

REQUESTED = simulated()["forgotten"]
WITHOUT_SHADOWS = dict.fromkeys(("shadows", "population_shadows"))


def audited(**changed):
    return analyses.audit(simulated(**changed), scores=("confidence",))


def test_arrays_in_memory_get_the_verdicts_of_the_launcher(tmp_path):
    from jaxunlearn.runs.drivers import array_input
    from jaxunlearn.settings import resolve

    report = audited()
    np.savez(tmp_path / "my.npz", **simulated())
    resolved = resolve({"audit": {"scores": ("confidence",)}, "seed": 0})
    array_input.run("audit", str(tmp_path / "my.npz"), resolved, str(tmp_path / "out"), (), False, False)
    with np.load(tmp_path / "out" / "verdicts.npz") as file:
        assert set(file) == set(report.arrays["verdicts.npz"])
        for name, values in file.items():
            np.testing.assert_array_equal(values, report.arrays["verdicts.npz"][name])
    assert len(report.listed["verdicts.csv"].rows) == 60
    assert dict(report.summary)[first_screen.PERSONS] == "Persons still in the model: 1 of 6: eve."


def test_evidence_and_mappings_are_the_same_and_choices_are_settings():
    arrays = {name: value for name, value in simulated().items() if name != "person"}
    first = analyses.audit(records.Evidence(**arrays), scores=("confidence",), fdr=0.2)
    second = analyses.audit(arrays, scores=("confidence",), fdr=0.2)
    assert first.answer == second.answer and "about 1 in 5 verdicts of each kind is wrong" in first.answer


def test_the_lines_of_the_docs_write_arrays_and_audit_them(tmp_path, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    text = (Path(__file__).resolve().parents[2] / "docs/own_outputs.md").read_text()
    write, audit = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    torch.manual_seed(0)
    original, unlearned, *shadows = (torch.nn.Linear(5, 3) for _ in range(6))
    batches = [[(torch.randn(20, 5), None) for _ in range(2)] for _ in range(2)]
    namespace = {
        "labels": np.arange(40) % 3, "forgotten": np.arange(40) < 10, "p_labels": np.arange(40) % 3, "device": "cpu",
        "audited": batches[0], "others": batches[1], "original": original, "unlearned": unlearned, "shadows": shadows,
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    exec(compile(write, "docs/own_outputs.md", "exec"), namespace)
    with np.load("my.npz") as file:
        evidence = dict(file)
    assert evidence["shadows"].shape == evidence["population_shadows"].shape == (4, 40, 3)
    one_score = audit.replace("fdr=0.05", "fdr=0.05, scores=('confidence',)")
    assert one_score != audit
    exec(compile(one_score, "docs/own_outputs.md", "exec"), {"evidence": evidence})
    assert "NOT FORGOTTEN" in capsys.readouterr().out and Path("runs/mine/report/report.html").is_file()


@pytest.mark.parametrize(("choices", "message"), [
    ({"levle": 0.1}, "unknown argument 'levle'"), ({"fdr": 2.0}, "^fdr = 2.0"), ({"scores": ("nope",)}, "nope"),
])  # fmt: skip
def test_bad_choices_are_named(choices, message):
    with pytest.raises(errors.ConfigError, match=message):
        analyses.audit(simulated(), **choices)


def test_without_shadows_it_is_still_said_whether_anything_was_changed():
    simulation = simulated()
    unchanged = {
        "unlearned": simulation["original"],
        "population_unlearned": simulation["population_original"],
        **WITHOUT_SHADOWS,
    }
    answers = dict(audited(**unchanged).summary)
    assert answers[first_screen.SHORT] == "NOT FORGOTTEN. The model was not changed."
    sentence = "like the original to float16 precision on every row: every requested row is NOT FORGOTTEN"
    assert sentence in answers[first_screen.CHANGED]
    edited = np.where(
        REQUESTED[:, None],
        simulation["original"] - 40 * np.eye(3, dtype=np.float32)[simulation["labels"]],
        simulation["original"],
    )
    answers = dict(audited(**unchanged | {"unlearned": edited}).summary)
    assert answers[first_screen.SHORT].startswith("NO VERDICT")
    assert "all other 400 answers are the same" in answers[first_screen.CHANGED]
    others = np.where(
        REQUESTED[:, None], simulation["original"], simulation["original"] + np.arange(3, dtype=np.float32)
    )
    answers = dict(audited(**unchanged | {"unlearned": others}).summary)
    assert "like the original to float16 precision on the requested rows, but not" in answers[first_screen.CHANGED]
    report = audited(**WITHOUT_SHADOWS)
    assert "That does not say whether it forgot" in dict(report.summary)[first_screen.CHANGED]
    assert "`plan_shadows=True`" in dict(report.summary)[first_screen.REQUEST]
    needs = next(section for section in report.sections if section.name == "needs")
    assert ("shadow models", "0: at least 2 for verdicts on rows, 10 for the request as a whole") in needs.table.rows


def test_where_no_request_was_given_it_is_said_that_every_row_is_judged():
    answers = dict(audited(forgotten=None).summary)
    assert "No request was given (`forgotten`), so every row is judged" in answers[first_screen.ASKED]
    assert "which were to be forgotten" in dict(audited().summary)[first_screen.ASKED]


def test_a_change_of_another_class_is_a_change():
    """The log-odds of the true class stay where only the other classes trade places."""
    simulation = simulated()
    traded = np.array(simulation["original"])
    for row, label in enumerate(simulation["labels"]):
        first, second = (column for column in range(3) if column != label)
        traded[row, [first, second]] += (0.5, np.log(2 - np.exp(0.5)))
    same = {"population_unlearned": simulation["population_original"]}
    report = audited(unlearned=simulation["original"], **same)
    assert "like the original to float16 precision" in report.answer
    assert "like the original to float16 precision" not in audited(unlearned=traded, **same).answer


def test_a_model_stored_in_half_precision_was_not_changed():
    simulation = simulated()
    rounded = {
        "unlearned": simulation["original"].astype(np.float16),
        "population_unlearned": simulation["population_original"].astype(np.float16),
    }
    for arrays in (rounded, rounded | WITHOUT_SHADOWS):
        assert audited(**arrays).in_short.startswith("NOT FORGOTTEN. The model was not changed")
    after = simulation["original"].copy()
    after[REQUESTED] *= 0.99  # a change that rounding does not explain
    assert "was not changed" not in audited(unlearned=after).in_short


@pytest.mark.parametrize("scale", [0.1, 3.0, 80.0])
def test_what_rounding_explains_is_no_change(scale):
    logits = (scale * np.random.default_rng(0).normal(size=(500, 6))).astype(np.float32)
    assert (distances.largest_change(logits.astype(np.float16), logits) == 0).all()
    assert (distances.largest_change(logits + scale * np.eye(6)[0] / 50, logits) > 0).all()


def test_percentages_are_recognised():
    percentages = 100 * scipy.special.softmax(simulated()["original"], -1)
    with pytest.raises(errors.DataError, match="original looks like percentages"):
        audited(original=percentages)


def test_largest_change_ignores_constants_and_finds_every_class():
    draw = np.random.default_rng(0)
    before = draw.normal(size=(50, 4)).astype(np.float32)
    shifted = before.astype(np.float64) + draw.normal(size=(50, 1))
    assert distances.largest_change(shifted, before).max() < 1e-12
    after = before.copy()
    after[7, 2] += 1
    changes = distances.largest_change(after, before)
    assert changes[7] > 0.3 and (np.delete(changes, 7) == 0).all()


def test_a_report_in_memory_prints_and_saves_what_the_launcher_writes(tmp_path):
    report = audited()
    answers = str(report)
    assert answers.startswith("In short: ") and "Verdicts on the requested rows" in answers
    report.save(tmp_path / "mine")
    assert {"verdicts.csv", "verdicts.npz", "scores.npz", "findings.json", "report"} <= {
        path.name for path in (tmp_path / "mine").iterdir()
    }
    with np.load(tmp_path / "mine" / "verdicts.npz") as file:
        np.testing.assert_array_equal(file["verdict"], report.arrays["verdicts.npz"]["verdict"])
    assert "In short" in (tmp_path / "mine" / "report" / "report.html").read_text()
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.StoreError, match="cannot write"):
        report.save(tmp_path / "file")
