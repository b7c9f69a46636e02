"""The audit as a user runs it: one answer, files that agree with it, every protocol, every mistake with its message.

The door for given arrays has its own file.
"""

import contextlib
import csv
import html
import io
import json
import re
import shutil

import figures
import numpy as np
import pytest

from jaxunlearn import store
from jaxunlearn.analyses.audit.verdicts.verdict_sentences import ORDER, WORDS
from jaxunlearn.analyses.evaluation import sections
from jaxunlearn.metrics.verdict.rows import CANNOT_TELL, SUPPRESSED
from jaxunlearn.records import Design
from launch import _entry, audit, shadows

CONFIG = "--config=configs/digits.py:smoke"
GIVEN = {
    "model.name": "logistic",
    "shadows.count": 4,
    "train.epochs": 2,
    "split.population": 100,
    "split.forget.count": 2,
    "targets.epochs": 4,
    "targets.shadow_origin": False,
    "targets.snapshots": 2,
    "targets.breaks": 2,
    "audit.interpolation_steps": 10,
    "audit.group_size": 2,
    "audit.counts": (2,),
    "audit.scores": ("iam_on", "iam_off", "lira_off", "confidence", "random"),
}
ROWS, SETS, GROUPS = 637, 2, 2


def arguments(flags=GIVEN, **changed):
    """Command-line settings; `__` stands for a dot."""
    options = flags | {name.replace("__", "."): value for name, value in changed.items()}
    return [CONFIG, *(f"--config.{name}={shown(value)}" for name, value in options.items())]


def shown(value):
    """A list as a user types it."""
    return ",".join(map(str, value)) + "," * (len(value) == 1) if isinstance(value, tuple) else value


def launch(*argv, workdir, verb=audit):
    extra = {"define": verb.define, "alone": verb.alone} if verb is audit else {}
    return _entry.main(verb.command, verb.__doc__, ["launch.audit", *argv, f"--workdir={workdir}"], **extra)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run nobody disturbs, and what it printed."""
    workdir = tmp_path_factory.mktemp("audit") / "run"
    with (
        figures.drawn(),
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        assert launch(*arguments(), workdir=workdir) == 0, err.getvalue()
    return workdir, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def trained(first):
    return first[0]


@pytest.fixture
def again(trained, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(trained, tmp_path / "copy")


def findings(workdir):
    return json.loads((workdir / "findings.json").read_text())


def test_the_verdict_comes_first_and_every_form_of_the_report_begins_with_it(first):
    workdir, out, _ = first
    output = " ".join(out.split())
    assert out.startswith("In short: ") and "Exact retraining is audited here as if it were a method." in output
    power = r"Of 100 requested rows in 2 requests, .* would have caught \d+ .* would have confirmed about \d+ if all"
    assert re.search(power, output).end() < output.index("Requests as a whole: ") < output.index("Rows: ")
    report = json.loads((workdir / "report" / "report.json").read_text())
    answers = {entry["question"]: entry["answer"] for entry in report["summary"]}
    short = answers["In short"]
    assert output.startswith(f"In short: {short} What was asked: ") and answers["Row by row"] in report["answer"]
    assert (workdir / "report" / "report.md").read_text().startswith(f"**In short**\n\n{short}")
    page = (workdir / "report" / "report.html").read_text()
    body = html.unescape(re.sub(r"<[^>]+>", " ", page[page.index("<body") :]))
    assert short in " ".join(body.split())[:400]
    assert str(workdir) in out and "report/report.html" in out


def test_the_page_needs_nothing_but_itself(trained):
    page = (trained / "report" / "report.html").read_text()
    assert "<svg" in page and "<table" in page
    outside = re.findall(r"""(?:src|href)\s*=\s*["'](?!#)[^"']+|@import[^;]+|url\((?!#)[^)]+\)""", page)
    assert not [reference for reference in outside if "data:" not in reference and "#" not in reference]
    assert "http" not in re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"|http-equiv', "", page)
    assert "src=" not in page and "<link" not in page.lower() and "@import" not in page


def test_scores_have_one_value_per_group_request_and_row(trained):
    arrays = np.load(trained / "scores" / "binui_retrained.npz")
    split = np.load(trained / "split.npz")
    assert set(arrays.files) == {"rows", "labels", "forgotten", *GIVEN["audit.scores"]}
    np.testing.assert_array_equal(arrays["rows"], split["rows"][split["target"]])
    np.testing.assert_array_equal(arrays["forgotten"], split["forget"][:, split["target"]])
    for name in GIVEN["audit.scores"]:
        assert arrays[name].shape == (GROUPS, SETS, ROWS) and np.isfinite(arrays[name]).all()
        assert arrays[name].min() >= 0 and arrays[name].max() <= 1 or name == "lira_off"
    np.testing.assert_array_equal(arrays["confidence"][0], arrays["confidence"][1])
    assert np.abs(arrays["iam_on"][0] - arrays["iam_on"][1]).max() > 1e-3


def test_verdicts_are_written_with_their_p_values_and_counted_in_the_answer(first):
    workdir, out, _ = first
    forgotten = np.load(workdir / "scores" / "binui_retrained.npz")["forgotten"]
    counts = {}
    for role in ("retrained", "original"):
        arrays = np.load(workdir / "scores" / f"verdicts_{role}.npz")
        assert set(arrays.files) == {"rows", "verdict", "p_high", "p_low", "p_in", "z", "trace"}
        assert ((arrays["verdict"] >= 0) == forgotten).all() and arrays["verdict"].max() <= SUPPRESSED
        split = np.load(workdir / "split.npz")
        np.testing.assert_array_equal(arrays["rows"], split["rows"][split["target"]])
        for name in ("p_high", "p_low", "p_in", "z", "trace"):
            np.testing.assert_array_equal(np.isfinite(arrays[name]), forgotten)
        for name in ("p_high", "p_low", "p_in"):
            assert arrays[name][forgotten].min() > 0 and arrays[name][forgotten].max() <= 1
        assert arrays["trace"][forgotten].min() >= 0
        counts[role] = [int((arrays["verdict"] == code).sum()) for code in ORDER]
    sentence = ", ".join(f"{count} {WORDS[code]}" for code, count in zip(ORDER, counts["retrained"], strict=True))
    assert f"Rows: {sentence}; at most about 1 in 20 verdicts of each kind is wrong." in " ".join(out.split())
    lines = {line[0]: line for line in csv.reader((workdir / "report" / "tables" / "verdicts.csv").open())}
    for role, counts_of_role in counts.items():
        assert lines[role][1:6] == ["100", *map(str, counts_of_role)]
    assert counts["original"] == [100, 0, 0, 0]  # nothing was unlearned, and this audit sees it


def test_every_requested_row_is_listed_with_its_verdict_and_the_reason(trained):
    with np.load(trained / "scores" / "verdicts_retrained.npz") as file, (trained / "verdicts.csv").open() as lines:
        verdicts, listed = dict(file), list(csv.DictReader(lines))
    is_requested = verdicts["verdict"] >= 0
    assert list(listed[0]) == [
        "sample",
        "request",
        "class",
        "verdict",
        "p_high",
        "p_low",
        "p_in",
        "left",
        "agreement",
        "why",
    ]
    sets, columns = np.nonzero(is_requested)
    assert [int(line["request"]) for line in listed] == sets.tolist()
    assert [int(line["sample"]) for line in listed] == verdicts["rows"][columns].tolist()
    assert [line["verdict"] for line in listed] == [WORDS[int(code)] for code in verdicts["verdict"][is_requested]]
    for name in ("p_high", "p_low", "p_in"):
        np.testing.assert_allclose([float(line[name]) for line in listed], verdicts[name][is_requested], rtol=1e-6)
    assert all(line["why"] for line in listed)


def test_every_finding_has_a_value_inside_its_interval(trained):
    rows = findings(trained)
    assert {finding["of"] for finding in rows} >= set(GIVEN["audit.scores"])
    assert {"AUC", "ScoreUI Spearman"} <= {finding["metric"] for finding in rows}
    for finding in rows:
        assert {"value", "low", "high", "metric", "n"} <= set(finding)
        if None not in (finding["value"], finding["low"], finding["high"]):
            assert finding["low"] - 1e-9 <= finding["value"] <= finding["high"] + 1e-9, finding


def test_tables_say_the_same_in_three_formats(trained):
    tables = trained / "report" / "tables"
    names = {path.stem for path in tables.iterdir()}
    assert {"binui_retrained", "verdicts", "requests", "rows", "scoreui", "shadow_sweep"} <= names
    for name in names:
        for suffix in ("md", "tex", "csv"):
            assert (tables / f"{name}.{suffix}").stat().st_size > 20
    auc = {
        finding["of"]: finding["value"] for finding in findings(trained) if finding["metric"].lower().startswith("auc")
    }
    for suffix in ("md", "tex", "csv"):
        text = (tables / f"binui_retrained.{suffix}").read_text().replace("\\_", "_")
        for score in GIVEN["audit.scores"]:
            (line,) = [line for line in text.splitlines() if re.search(rf"(^|\W){score}\W", line)][:1]
            assert re.search(r"0?\.\d{3}", line)
    assert len(auc) >= len(GIVEN["audit.scores"])


def test_a_second_run_trains_nothing_and_writes_the_same_bytes(first, capsys):
    workdir, out, _ = first
    before = {path: path.read_bytes() for path in (workdir / "scores").iterdir()}
    assert launch(*arguments(), workdir=workdir) == 0
    printed = capsys.readouterr()
    assert "training" not in printed.err and "4 of 4 members are finished already" in printed.err
    assert printed.out == out
    assert {path: path.read_bytes() for path in (workdir / "scores").iterdir()} == before


def test_another_question_to_the_same_models_trains_nothing(again, capsys):
    scores = ("emia_r", "lira_off")
    flags = arguments(audit__protocol="binui", audit__scores=scores, audit__fdr=0.2, audit__decision="lira_off")
    assert launch(*flags, workdir=again) == 0
    printed = capsys.readouterr()
    output = " ".join(printed.out.split())
    assert "training" not in printed.err and "at most about 1 in 5 verdicts of each kind is wrong." in output
    assert "lira_off, fixed in advance" in output and "Spearman" not in output
    assert "emia_r" in np.load(again / "scores" / "binui_retrained.npz").files


def test_what_the_progress_notes_stands_in_terminal_page_markdown_and_json(again, capsys):
    flags = arguments(audit__protocol="binui", audit__scores=("rmia_off",), audit__rmia_offline_a=-2.0)
    assert launch(*flags, workdir=again) == 0
    printed = capsys.readouterr()
    notes = [line.removeprefix("note: ") for line in printed.out.splitlines() if line.startswith("note: ")]
    assert notes[0].startswith("RMIA: offline_a = ") and notes[0] in printed.err
    assert json.loads((again / "report" / "report.json").read_text())["notes"] == notes
    page, text = ((again / "report" / f"report.{suffix}").read_text() for suffix in ("html", "md"))
    assert "<h2>Notes</h2>" in page and "## Notes" in text
    for note in notes:
        assert f"<li>{html.escape(note)}</li>" in page


def test_an_evaluation_of_the_same_run_joins_the_report(again, capsys):
    metrics = {"UA": [0.1, 0.2], "cr_test": [[0.5, 0.6], [0.5, 0.6]], "recover_ratio": [[0.3, 0.2], [0.3, 0.2]]}
    roles = {"retrained": {name: np.asarray(values) for name, values in metrics.items()}}
    stored = sections.plain(sections.Evaluation(roles, (0.1, 0.2), 0.1, 2, {}, {}, Design("per_set", 2)))
    assert "recover ratio" not in (again / "report" / "report.html").read_text()
    store.files.write_json(again / "evaluation.json", stored)
    flags = arguments(audit__protocol="binui", audit__scores=("confidence",))
    assert launch(*flags, workdir=again) == 0, capsys.readouterr().err
    assert "recover ratio" in (again / "report" / "report.html").read_text()


def test_the_score_that_is_named_first_changes_no_verdict_and_strict_confirms_no_more(again, capsys):
    before = {path.name: path.read_bytes() for path in (again / "scores").glob("verdicts_*")}
    assert launch(*arguments(audit__protocol="binui", audit__decision="confidence"), workdir=again) == 0
    assert "confidence, fixed in advance" in " ".join(capsys.readouterr().out.split())
    assert {path.name: path.read_bytes() for path in (again / "scores").glob("verdicts_*")} == before
    plain = np.load(again / "scores" / "verdicts_retrained.npz")
    assert launch(*arguments(audit__protocol="binui", audit__strict=True), workdir=again) == 0
    strict = np.load(again / "scores" / "verdicts_retrained.npz")
    is_requested = plain["verdict"] >= 0
    assert (strict["p_in"][is_requested] >= plain["p_in"][is_requested]).all() and (strict["p_in"] > plain["p_in"])[
        is_requested
    ].any()
    for name in ("p_high", "p_low", "z", "trace"):
        np.testing.assert_array_equal(strict[name], plain[name])


def test_a_population_too_small_for_a_verdict_is_said_and_nobody_is_judged(tmp_path, capsys):
    flags = arguments(split__population=30, targets__snapshots=0, audit__protocol="binui")
    assert launch(*flags, workdir=tmp_path) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "Give at least 40 rows that no model saw (30 are there)" in output
    with np.load(tmp_path / "scores" / "verdicts_retrained.npz") as arrays:
        assert set(np.unique(arrays["verdict"])) == {-1, CANNOT_TELL}


@pytest.mark.parametrize(
    "protocol, changed, table, columns",
    [
        ("scoreui", {}, "scoreui", ["Spearman ↑", "Pearson ↑", "MSE ↓", "KL ↓"]),
        ("shadow_sweep", {}, "shadow_sweep", ["S = 2"]),
        (
            "sensitivity",
            {"audit__sweep_e1": (0.01,), "audit__sweep_e2": (1e-4,), "audit__sweep_interpolation_steps": (2, 5)},
            "sensitivity",
            ["I = 2", "I = 5"],
        ),
    ],
)
def test_every_protocol_runs_alone(again, capsys, protocol, changed, table, columns):
    shutil.rmtree(again / "report")
    assert launch(*arguments(audit__protocol=protocol, **changed), workdir=again) == 0
    printed = capsys.readouterr()
    assert "training" not in printed.err and printed.out.strip()
    rows = (again / "report" / "tables" / f"{table}.csv").read_text()
    for column in columns:
        assert column in printed.out and column in rows
    assert {path.stem for path in (again / "report" / "tables").iterdir()} == {table}
    assert findings(again)


def test_classes_that_were_forgotten_are_reported_one_by_one(tmp_path, capsys):
    classes = {"split__forget__kind": "one_class", "split__forget__classes": (3, 5), "targets__snapshots": 0}
    assert launch(*arguments(audit__protocol="class_report", **classes), workdir=tmp_path) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if line.startswith(("retrained", "random"))]
    assert [line[1] for line in lines] == ["all", "all", "3", "5"] and lines[1][0] == "random"
    # Whole classes that were never seen are told from seen ones with ease; a constant 0.5 tells nothing.
    assert float(lines[0][2]) > 0.9 and float(lines[1][2]) == 0.5
    assert "mean over 2 group(s)" in out


OTHER = {"targets__snapshots": 0}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Run folders with shadows only: another seed, another network."""
    root = tmp_path_factory.mktemp("elsewhere")
    base = {name: GIVEN[name] for name in ("train.epochs", "split.population", "split.forget.count")}
    for name, extra in (
        ("seed", {"seed": 7, "model.name": "logistic"}),
        ("net", {"model.name": "mlp", "model.hidden": "16,"}),
    ):
        assert launch(*arguments(base | {"shadows.count": 2} | extra), workdir=root / name, verb=shadows) == 0
    return root


@pytest.mark.parametrize("protocol, source", [("shift", "seed"), ("arch_shift", "net")])
def test_shadows_of_other_runs_stand_beside_the_own(again, elsewhere, capsys, protocol, source):
    flags = arguments(audit__protocol=protocol, audit__shadow_runs=f"{elsewhere / source},", audit__group_size=2)
    assert launch(*flags, workdir=again) == 0
    printed = capsys.readouterr()
    assert "querying 2 shadow models" in printed.err and "training" not in printed.err
    header = (again / "report" / "tables" / "shadow_sources.csv").read_text().splitlines()
    assert any("own" in line and source in line for line in header)
    own_scores, other = (np.load(again / "scores" / f"binui_retrained_{name}.npz") for name in ("own", source))
    np.testing.assert_array_equal(own_scores["rows"], other["rows"])
    np.testing.assert_array_equal(own_scores["confidence"][0], other["confidence"][0])  # of the audited model alone
    assert np.abs(own_scores["iam_on"][0] - other["iam_on"][0]).max() > 1e-3
    assert ("Spearman" in printed.out) == (protocol == "shift")


def test_models_trained_on_from_another_run_are_judged_by_its_shadows(trained, tmp_path, capsys):
    flags = arguments(
        audit__protocol="incremental", targets__start=trained, audit__shadow_runs=f"{trained},", **OTHER
    )  # fmt: skip
    assert launch(*flags, workdir=tmp_path) == 0
    assert {path.name for path in (tmp_path / "scores").iterdir()} == {"binui_retrained_run.npz"}
    arrays = np.load(tmp_path / "scores" / "binui_retrained_run.npz")
    assert arrays["iam_on"].shape == (GROUPS, SETS, ROWS)


def test_a_dry_run_plans_and_does_nothing(tmp_path, capsys):
    assert launch(*arguments(), "--dry_run", workdir=tmp_path / "run") == 0
    printed = capsys.readouterr().out
    for word in ("shadow  ", "retrained  ", "model-steps", "logits/retrained.npy"):
        assert word in printed
    assert not (tmp_path / "run").exists()


def test_the_plan_of_a_run_says_what_a_verdict_needs_and_trains_nothing(tmp_path, capsys):
    assert launch(*arguments(audit__plan_shadows=True), workdir=tmp_path / "run") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "shadow models 4: enough for verdicts on rows; 10 for the request as a whole" in printed
    assert "expected benefit" in printed and "retained rows" in printed and "model-steps" in printed
    assert not (tmp_path / "run").exists()


CLASSES = {"split__forget__kind": "one_class", "split__forget__classes": (1,)}


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"audit__protocol": "shift"}, "'shift' judges with the shadow models of other runs"),
        ({"audit__protocol": "arch_shift"}, "--config.audit.shadow_runs="),
        ({"audit__protocol": "shift", "audit__shadow_runs": "nowhere,"}, "'nowhere', which contains no shadow models"),
        (
            {"audit__protocol": "incremental", "audit__shadow_runs": "x,"},
            "name its run folder, e.g. --config.targets.start",
        ),
        (
            {"audit__protocol": "class_report"},
            "needs forget sets that are classes, but split.forget.kind is 'set_random'",
        ),
        ({"audit__protocol": "scoreui", "targets__snapshots": 0}, "needs targets.snapshots of at least 1"),
        ({"audit__protocol": "binuii"}, "Did you mean 'binui'"),
        ({"audit__group_size": 5}, "audit.group_size = 5, but there are 4 shadow models"),
        ({"audit__scores": "iam_onn,"}, "unknown score 'iam_onn'. Did you mean 'iam_on'"),
        ({"audit__scores": "mine:score,"}, "cannot import module 'mine'"),
        ({"audit__decision": "iamoff"}, "unknown score 'iamoff'. Did you mean 'iam_off'"),
        ({"audit__unlearned": "retraind,"}, "Did you mean 'retrained'"),
        ({"audit__decision": "none"}, "unknown score 'none'"),
        ({"audit__strict": 2}, "audit.strict"),
        ({"audit__fdr": 0.9}, "audit.fdr = 0.9"),
        ({"audit__e1": 0.01, "audit__e2": 0.5}, "e2"),
        ({"targets__snapshots": 9}, "targets.snapshots"),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_trained(changed, message, tmp_path, capsys):
    assert launch(*arguments(**changed), workdir=tmp_path) == 2
    printed = capsys.readouterr()
    assert message in printed.err and "Traceback" not in printed.err and not printed.out
    assert "model-steps" not in printed.err and not list(tmp_path.rglob("*.npz"))


def test_shadows_that_know_other_classes_are_refused(again, elsewhere, tmp_path, capsys):
    foreign = shutil.copytree(elsewhere / "seed", tmp_path / "three")
    logits = np.load(foreign / "logits" / "shadow.npy")
    np.save(foreign / "logits" / "shadow.npy", logits[..., :3])
    assert launch(*arguments(audit__protocol="shift", audit__shadow_runs=f"{foreign},"), workdir=again) == 2
    assert "have 3 classes (digits), but this run's data has 10" in capsys.readouterr().err


@pytest.mark.parametrize(
    "extra, message",
    [
        (["--probabilities"], "--probabilities belongs to --evidence. With a config, results go to --workdir"),
        (["--out=somewhere"], "--out belongs to --evidence"),
        (["--evidence=some.npz"], "--config (a run) or --evidence (arrays), not both"),
    ],
)
def test_flags_of_the_other_door_are_refused(extra, message, tmp_path, capsys):
    assert launch(*arguments(), *extra, workdir=tmp_path / "run") == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_scores_of_other_settings_are_never_overwritten_unasked(again, capsys):
    assert launch(*arguments(train__learning_rate=0.01), workdir=again) == 2
    printed = capsys.readouterr().err
    assert "train.learning_rate: stored 0.05, now 0.01" in printed and "--overwrite=shadows" in printed
