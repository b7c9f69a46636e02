"""Unlearning as a user runs it: roles, sweeps, own methods, resumed, audited, studied, refused."""

import collections
import csv
import json
import re
import shutil
from pathlib import Path

import figures
import finished
import numpy as np
import pytest

from jaxunlearn import unlearn
from jaxunlearn.population import capacity
from jaxunlearn.runs.execution import recording
from jaxunlearn.unlearn.engine import running
from launch import _entry
from launch import audit as audit_verb
from launch import study as study_verb
from launch import unlearn as verb

CONFIG = finished.FLAGS[0]
GIVEN = [*finished.FLAGS, finished.TWO_EPOCHS]


def launch(*argv, workdir, module=verb):
    command = [f"launch.{module.__name__}", *argv, f"--workdir={workdir}"]
    return _entry.main(module.command, module.__doc__, command, getattr(module, "define", None),
                       getattr(module, "alone", None))  # fmt: skip


def values(workdir, role):
    return np.load(Path(workdir) / "logits" / f"{role}.npy")


@pytest.fixture(scope="module")
def finished_run():
    return finished.folder()


@pytest.fixture
def again(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "copy")


def test_methods_become_roles_beside_the_original_and_exact_retraining(finished_run):
    facts = json.loads((finished_run / "unlearned.json").read_text())["roles"]
    assert list(facts) == ["original", "retrained", "unlearned:finetune", "unlearned:ssd"]
    original = values(finished_run, "original")
    for name in ("finetune", "ssd"):
        logits = values(finished_run, f"unlearned:{name}")
        assert logits.shape == (3, *original.shape[1:]) and np.isfinite(logits).all()
        assert not np.array_equal(logits[0], original[0])
        assert facts[f"unlearned:{name}"]["moved"] > 0
        assert facts[f"unlearned:{name}"]["seconds"] > 0
    assert facts["unlearned:finetune"]["retain_epochs"] == pytest.approx(2.0, rel=0.05)
    assert facts["unlearned:finetune"]["chosen"]["epochs"] == 2
    assert facts["retrained"]["retain_epochs"] == 3


def test_a_second_command_reuses_everything(again, capsys):
    before = values(again, "unlearned:ssd")
    assert launch(*GIVEN, "--methods=finetune,ssd", workdir=again) == 0
    printed = capsys.readouterr()
    assert "unlearned:ssd: 3 of 3 members are finished already" in printed.err
    assert "unlearning by" not in printed.err
    assert re.search(r"^ssd +\d", printed.out, re.M)
    np.testing.assert_array_equal(values(again, "unlearned:ssd"), before)


def test_models_made_from_other_originals_are_refused_before_anything_is_trained(again, capsys):
    shared = "--config.targets.originals=shared"
    assert launch(*GIVEN, "--methods=finetune", shared, workdir=again) == 2
    output = capsys.readouterr().err
    assert "targets.originals: stored 'per_set', now None" in output and "--overwrite=unlearned:finetune" in output
    # The other way round: a folder that was made when ONE original was the default.
    for path in (*(again / "populations").glob("unlearned:*"), again / "populations" / "original"):
        shutil.rmtree(path)
    for path in (*(again / "logits").glob("unlearned:*"), *(again / "logits").glob("original*")):
        path.unlink()
    assert launch(*GIVEN, "--methods=finetune", shared, workdir=again) == 0
    printed = capsys.readouterr()
    assert "3 forget sets of ONE trained original: holds for this model only" in " ".join(printed.out.split())
    assert len(values(again, "original")) == 1
    for module in (verb, study_verb):
        flags = ["--methods=finetune"] if module is verb else ["--config.unlearn.methods=finetune"]
        assert launch(*GIVEN, *flags, workdir=again, module=module) == 2
        output = capsys.readouterr().err
        assert "targets.originals: stored None, now 'per_set'" in output and "training original" not in output
    assert len(values(again, "original")) == 1


def test_killed_between_epochs_it_ends_with_the_same_numbers(finished_run, again, monkeypatch, capsys):
    shutil.rmtree(again / "populations" / "unlearned:finetune")
    for path in (again / "logits").glob("unlearned:finetune*"):
        path.unlink()
    real, calls = running.run, []

    def interrupted(setup, checkpoint=None):
        for event in real(setup, checkpoint):
            calls.append(event)
            yield event
            if len(calls) == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(running, "run", interrupted)
    command = [*GIVEN, "--methods=finetune", "--config.engine.checkpoint_seconds=0"]
    assert launch(*command, workdir=again) == 130
    monkeypatch.setattr(running, "run", real)
    assert launch(*command, workdir=again) == 0
    assert "continuing in phase 1 after epoch 1" in capsys.readouterr().err
    np.testing.assert_array_equal(values(again, "unlearned:finetune"), values(finished_run, "unlearned:finetune"))
    assert not list((again / "populations").glob("*.work"))


@pytest.mark.parametrize("events", [1, 4])  # in the first half, in the second half
def test_killed_after_its_members_did_not_fit_at_once_it_goes_on_with_the_same_half(
    events, finished_run, again, monkeypatch, capsys
):
    shutil.rmtree(again / "populations" / "unlearned:finetune")
    for path in (again / "logits").glob("unlearned:finetune*"):
        path.unlink()
    real, calls = running.run, []

    def interrupted(setup, checkpoint=None):
        if len(setup.member_ids) > 2:
            raise capacity.DoesNotFit("3 members need more than there is")
        for event in real(setup, checkpoint):
            calls.append(event)
            yield event
            if len(calls) == events:
                raise KeyboardInterrupt

    monkeypatch.setattr(running, "run", interrupted)
    command = [*GIVEN, "--methods=finetune", "--config.engine.checkpoint_seconds=0"]
    assert launch(*command, workdir=again) == 130
    halves = {1: ["partial_00000_00001"], 4: ["partial_00002_00002"]}
    folder = again / "populations" / "unlearned:finetune.work"
    assert [path.name for path in folder.iterdir()] == halves[events]
    monkeypatch.setattr(running, "run", real)
    assert launch(*command, workdir=again) == 0
    printed = capsys.readouterr().err
    assert "continuing in phase 1 after epoch 1" in printed and "damaged" not in printed
    np.testing.assert_array_equal(values(again, "unlearned:finetune"), values(finished_run, "unlearned:finetune"))
    assert not folder.exists()


def test_killed_between_training_and_recording_a_role_later_stages_go_on(finished_run, again, monkeypatch, capsys):
    shutil.rmtree(again / "populations" / "retrained")
    for path in (again / "logits").glob("retrained*"):
        path.unlink()
    real = recording.record

    def interrupted(run, reporter, spec, *rest):
        if spec.name == "retrained":
            raise KeyboardInterrupt
        return real(run, reporter, spec, *rest)

    monkeypatch.setattr(recording, "record", interrupted)
    assert launch(*GIVEN, "--methods=finetune,ssd", workdir=again) == 130
    monkeypatch.setattr(recording, "record", real)
    assert launch(*GIVEN, "--methods=finetune,ssd", workdir=again) == 0
    assert "retrained: 3 of 3 members are finished already" in capsys.readouterr().err
    role_facts = json.loads((again / "unlearned.json").read_text())["roles"]["retrained"]
    assert role_facts["seconds"] > 0  # what it cost stands in its chunks
    np.testing.assert_array_equal(values(again, "retrained"), values(finished_run, "retrained"))


def test_a_damaged_original_is_trained_again_before_it_is_unlearned(finished_run, again, capsys):
    shutil.rmtree(again / "populations" / "unlearned:ssd")
    [chunk] = (again / "populations" / "original").glob("chunk_*")
    damaged_file = max((path for path in chunk.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(damaged_file.read_bytes())
    content[len(content) // 2] ^= 1
    damaged_file.write_bytes(content)
    assert launch(*GIVEN, "--methods=finetune,ssd", workdir=again) == 0
    output = capsys.readouterr().err
    assert f"{chunk} is damaged" in output and "training original" in output
    np.testing.assert_array_equal(values(again, "unlearned:ssd"), values(finished_run, "unlearned:ssd"))


def test_other_stages_leave_the_findings_of_an_audit_alone(again):
    (again / "findings.json").write_text("[]\n")
    assert launch(*GIVEN, "--methods=finetune,ssd", workdir=again) == 0
    assert (again / "findings.json").read_text() == "[]\n"
    assert len(json.loads((again / "report" / "shadows_findings.json").read_text())) == 4


def test_a_damaged_chunk_is_made_again(finished_run, again, capsys):
    [chunk] = (again / "populations" / "unlearned:finetune").glob("chunk_*")
    (chunk / "manifest.json").write_text("{}")
    (again / "logits" / "unlearned:finetune.json").unlink()
    assert launch(*GIVEN, "--methods=finetune", workdir=again) == 0
    assert "is damaged" in capsys.readouterr().err
    np.testing.assert_array_equal(values(again, "unlearned:finetune"), values(finished_run, "unlearned:finetune"))


def test_a_sweep_gives_every_value_a_role_and_the_numbers_it_has_alone(again, capsys):
    assert launch(*GIVEN, "--methods=finetune", "--config.unlearn.sweep.lr=0.001,0.1", workdir=again) == 0
    assert re.search(r"^finetune@lr=0.001 +\d", capsys.readouterr().out, re.M)
    low, high = (values(again, f"unlearned:finetune@lr={value}") for value in ("0.001", "0.1"))
    assert np.abs(low - high).max() > 0.01
    options = [option for option in GIVEN if "options" not in option]
    options += ["--config.unlearn.options=epochs=2,finetune.lr=0.001", "--overwrite=unlearned:finetune"]
    assert launch(*options, "--methods=finetune", workdir=again) == 0
    np.testing.assert_allclose(values(again, "unlearned:finetune"), low, atol=2e-4)
    assert (again / "logits" / "unlearned:ssd.npy").exists()  # --overwrite of one method leaves the others


def test_over_unlearning_records_the_model_before_replay_too_and_finds_it_again_where_it_is_lost(again, capsys):
    few = [*finished.FLAGS, "--config.unlearn.sweeps=lam=0.1;0.4,our_lr=0.01;0.02",
           "--config.unlearn.options=our_epochs=1"]  # fmt: skip
    assert launch(*few, "--methods=ssd+our", workdir=again) == 0
    printed = capsys.readouterr()
    assert printed.err.count("members, ") == 1  # one run makes both halves
    roles = json.loads((again / "unlearned.json").read_text())["roles"]
    halves = [f"unlearned:ssd+our@mid@lam={lam}" for lam in (0.1, 0.4)]
    wholes = [f"unlearned:ssd+our@lam={lam},our_lr={lr}" for lam in (0.1, 0.4) for lr in (0.01, 0.02)]
    assert [name for name in roles if "our" in name] == [*wholes, *halves]
    assert all(roles[name]["seconds"] > 0 for name in (*halves, *wholes))
    assert roles[halves[0]]["retain_epochs"] + 1 == pytest.approx(roles[wholes[0]]["retain_epochs"], rel=0.01)
    assert "our_lr" not in roles[halves[0]]["chosen"]
    before = values(again, halves[1])
    assert np.abs(before - values(again, halves[0])).max() > 0.01 < np.abs(before - values(again, wholes[2])).max()
    shutil.rmtree(again / "populations" / halves[1])
    (again / "logits" / f"{halves[1]}.json").unlink()
    assert launch(*few, "--methods=ssd+our", workdir=again) == 0
    np.testing.assert_allclose(values(again, halves[1]), before, atol=1e-5)


def test_options_of_a_method_are_none_of_its_intensified_form(capsys):
    options = "--config.unlearn.options=ssd.alpha=7,ssd+our.lam=0.3,our_lr=0.5"
    assert launch(CONFIG, options, "--methods=ssd,ssd+our,finetune+our", "--list", workdir="unused") == 0
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert printed.count("alpha=7") == 1 and printed.count("our_lr=0.5") == 2
    assert printed.count("alpha=0.005, lam=0.3") == 2  # the whole and its first half


def test_a_users_own_method_is_a_role_too(again, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    assert launch(*GIVEN[:-1], "--methods=my_methods:push_and_keep", workdir=again) == 0
    assert np.isfinite(values(again, "unlearned:my_methods:push_and_keep")).all()


def test_all_leaves_out_what_the_network_cannot_run(tmp_path, monkeypatch, capsys):
    few = {name: unlearn.METHODS[name] for name in ("prune", "activation_reset", "retrain", "npo")}  # not all: traced
    monkeypatch.setattr(unlearn, "METHODS", few)
    options = ["--config.model.name=mlp", "--config.unlearn.options=activation_reset.reset_mlp=false"]
    assert launch(CONFIG, *options, "--methods=all", "--dry_run", workdir=tmp_path / "run") == 0
    printed = capsys.readouterr()
    assert "activation_reset is left out" in printed.err and "no convolution" in printed.err
    assert re.findall(r"unlearned:(\w+) ", printed.out) == ["prune"]
    assert "npo" not in printed.err  # `all` are the methods for this kind of data


def test_an_audit_sees_unlearned_roles_and_makes_what_is_missing(again, capsys):
    flag = "--config.audit.unlearned=unlearned:ssd,unlearned:random_label"
    assert launch(*GIVEN, flag, "--config.audit.scores=iam_on,confidence", workdir=again, module=audit_verb) == 0
    printed = capsys.readouterr()
    assert "unlearned:ssd" in printed.out and "unlearned:random_label" in printed.out
    assert (again / "scores" / "binui_unlearned:random_label.npz").exists()
    first_lines = " ".join(printed.out.split())
    assert (
        "In short: unlearned:ssd: " in first_lines
        and "The other audited models: unlearned:random_label: " in first_lines
    )
    for name in ("verdicts.csv", "requests.csv"):  # of both, not of the first alone
        lines = list(csv.DictReader((again / name).read_text().splitlines()))
        counts = collections.Counter(line["model"] for line in lines)
        assert set(counts) == {"unlearned:ssd", "unlearned:random_label"} and len(set(counts.values())) == 1


def test_a_study_puts_methods_beside_exact_retraining(again, capsys):
    with figures.drawn():
        assert launch(*GIVEN, "--config.unlearn.methods=finetune,ssd", workdir=again, module=study_verb) == 0
    printed = capsys.readouterr().out
    for name in ("original", "retrained", "finetune", "ssd"):
        assert re.search(rf"^{name} +\d", printed, re.M)
    findings = json.loads((again / "report" / "methods_findings.json").read_text())
    measurements = {(finding["of"], finding["metric"]) for finding in findings}
    assert ("unlearned:ssd", "iam_on forgotten") in measurements and ("retrained", "UA") in measurements
    assert (again / "report" / "methods.html").exists()


def test_models_that_diverge_are_reported_and_left_out(again, capsys):
    options = [option for option in GIVEN if "options" not in option]
    options += ["--config.unlearn.options=finetune.epochs=2,finetune.lr=1e20", "--overwrite=unlearned:finetune"]
    assert launch(*options, "--config.unlearn.methods=finetune,ssd", workdir=again, module=study_verb) == 0
    printed = capsys.readouterr()
    assert "unlearned:finetune: forget set 0 diverged and was frozen at step" in printed.err
    assert re.search(r"^ssd +\d", printed.out, re.M) and re.search(r"^finetune", printed.out, re.M)
    both = "--config.audit.unlearned=unlearned:finetune,unlearned:ssd"
    few = "--config.audit.scores=iam_on,confidence"
    assert launch(*options[:-1], both, few, workdir=again, module=audit_verb) == 0
    assert "unlearned:finetune is left out of the audit" in capsys.readouterr().err
    alone = "--config.audit.unlearned=unlearned:finetune"
    assert launch(*options[:-1], alone, few, workdir=again, module=audit_verb) == 2
    assert "every audited role has diverged models: unlearned:finetune" in capsys.readouterr().err


def test_the_list_needs_no_config_and_names_every_method(capsys):
    assert launch("--list", workdir="unused") == 0
    printed = capsys.readouterr().out
    for name, entry in unlearn.METHODS.items():
        assert re.search(rf"^{name}$", printed, re.M)
        assert entry.about.split()[0] in printed
    assert "cost" in printed and not Path("unused").exists()


def test_a_dry_run_trains_nothing(tmp_path, capsys):
    assert launch(*GIVEN, "--methods=finetune,sisa", "--dry_run", workdir=tmp_path / "none") == 0
    printed = capsys.readouterr().out
    assert re.search(r"unlearned:sisa +\d+ member\(s\) of [\d.]+ epochs, [\d,]+ model-steps, about", printed)
    assert "memory" in printed and "disk" in printed
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--methods=fintune"], "unknown unlearning method 'fintune'. Did you mean 'finetune'"),
        (["--methods=finetune", "--config.unlearn.options=finetune.rate=1"], "hyperparameter of finetune 'rate'"),
        (["--methods=finetune", "--config.unlearn.options=finetune"], "is not of the form"),
        (["--methods=finetune", "--config.unlearn.options=epochs=two"], "expected int"),
        (["--methods=finetune", "--config.unlearn.sweep.quantile=0.1,0.2"], "none of the methods finetune"),
        (["--methods=my_methods:not_a_method"], "returned float, expected an unlearn.Method"),
        (["--methods=my_methods:missing"], "has no function 'missing'"),
        (["--methods=finetune", "--overwrite=unlernt"], "unknown stage"),
        (["--methods=my_methods:misspelt"], "my_methods:misspelt does not run: KeyError: 'retian'"),
        (["--methods=activation_reset", "--config.model.name=mlp",
          "--config.unlearn.options=activation_reset.reset_mlp=false"], "no convolution"),
        (["--methods=finetune", "--config.unlearn.sweeps=lr"], "is not of the form"),
        (["--methods=finetune,npo"], "npo is for texts, and this data set has rows with class labels"),
        (["--methods=finetune", "--config.unlearn.options=lr=-1"], "lr = -1.0: must be at least 0"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_before_any_work(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    assert launch(CONFIG, *argv, workdir=tmp_path / "run") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "populations").exists()


def test_an_audit_of_an_unknown_role_is_refused(tmp_path, capsys):
    flag = "--config.audit.unlearned=unlearned:sdd"
    assert launch(*GIVEN, flag, workdir=tmp_path / "run", module=audit_verb) == 2
    assert "Did you mean 'ssd'" in capsys.readouterr().err
