"""Runs of launch.leaks: who trains on what, every family of models, a kill in the middle, later attacks, refusals."""

import json

import numpy as np
import pytest

from jaxunlearn.attacks.leaks import plan
from jaxunlearn.metrics.epsilon import privacy
from jaxunlearn.runs import experiments
from jaxunlearn.runs.execution import scratch
from jaxunlearn.runs.roles import leaks as leak_roles
from jaxunlearn.store import chunks
from launch import _entry, leaks

SMOKE = ("--config=configs/leaks_digits.py:smoke",)
CHOSEN = ("--feature=l2_distance", "--features=l2_distance")


@pytest.fixture
def launch(capsys):
    def run(*flags):
        argv = ["x", *map(str, flags)]
        code = _entry.main(leaks.command, leaks.__doc__, argv, define=leaks.define, alone=leaks.alone)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of exact logistic regressions."""
    folder = tmp_path_factory.mktemp("leaks") / "run"
    argv = ["x", *SMOKE, *CHOSEN, f"--workdir={folder}"]
    assert _entry.main(leaks.command, leaks.__doc__, argv, define=leaks.define, alone=leaks.alone) == 0
    return folder


def resolved(*flags):
    request = _entry.parse(["x", *SMOKE, *flags], "", leaks.define, leaks.alone)
    return leaks._analysis.with_flags(leaks.VERB, request)


def role(*flags):
    return leak_roles.describe(experiments.prepare(leak_roles.narrow(resolved(*flags))))


def results(folder):
    with np.load(folder / "leaks.npz") as kept:
        return dict(kept)


def test_recorded_answers_say_which_rows_of_the_users_they_are(finished):
    spec, logits = role().spec, finished / "logits"
    about = json.loads((logits / "index.json").read_text())["leaks.npy"]
    ids, labels = np.asarray(spec.experiment.dataset.ids), np.asarray(spec.experiment.dataset.labels)
    np.testing.assert_array_equal(np.load(logits / about["file_rows"]), ids[spec.rows])
    np.testing.assert_array_equal(np.load(logits / about["labels"]), labels[spec.rows])
    np.testing.assert_array_equal(np.load(logits / about["trained"]), spec.membership[:, spec.rows])


def test_the_population_is_the_plan(finished):
    leak_role = role()
    spec, plans = leak_role
    assert spec.membership.shape == (2 * 2 * (1 + 3), 1797) and len(plans) == 1
    file_rows = np.asarray(spec.experiment.dataset.ids)
    drawn = plan.draw_all(1797, plan.Sizes(2, 60, 3), spec.experiment.settings.seed)[0]
    shadow, target = drawn
    np.testing.assert_array_equal(np.sort(file_rows[spec.membership[0]]), np.sort(shadow.sets[0]))
    gone = spec.membership[8] & ~spec.membership[10]  # the target side: two originals, then deletions of the first
    np.testing.assert_array_equal(file_rows[gone], target.deleted[0, 0])
    kept = results(finished)
    assert kept["deleted"].tolist() == [True, False] * 6 and kept["set"].tolist() == [0] * 6 + [1] * 6
    assert kept["ids"][0] == str(target.deleted[0, 0, 0]) and kept["ids"][1] == str(target.negative[0, 0, 0])


def test_answers_are_those_of_the_members_alone(finished):
    """The pair of a record: its set's original and the model without it, fitted by themselves."""
    from sklearn.linear_model import LogisticRegression

    spec, plans = role()
    data = spec.experiment.dataset
    inputs, labels = np.asarray(data.inputs, np.float64).reshape(len(data.labels), -1), np.asarray(data.labels)
    with np.load(finished / "leaks" / "posteriors.npz") as kept:
        for name, member in (("target_original", 8), ("target_unlearned", 10)):
            member_inputs = inputs[spec.membership[member]]
            deviation = member_inputs.std(0)
            scale = np.where(deviation > 0, deviation, 1.0)
            record = (inputs[plans[0][1].positive[0, 0, 0]] - member_inputs.mean(0)) / scale
            answer = np.zeros(10)
            for number in range(10):
                truth = labels[spec.membership[member]] == number
                model = LogisticRegression(tol=1e-10, max_iter=5000).fit(
                    (member_inputs - member_inputs.mean(0)) / scale, truth
                )
                answer[number] = model.predict_proba(record[None])[0, 1]
            np.testing.assert_allclose(kept[name][0], answer / answer.sum(), atol=2e-4)


def test_the_report_knows_how_overfitted_the_originals_are(finished):
    utility = json.loads((finished / "leaks.json").read_text())["utility"]["target"]
    assert len(utility["train"]) == 2 and min(utility["train"]) > 0.95 > max(utility["test"])
    assert "How overfitted are the original models?" in (finished / "report" / "leaks.html").read_text()
    assert "16: 2 + 2 sets of 60, 3 deletions of 1 each" in (finished / "report" / "leaks.html").read_text()


def test_kept_posteriors_are_attacked_again_with_equal_results(finished, launch, tmp_path):
    path = finished / "leaks" / "posteriors.npz"
    code, _ = launch(f"--posteriors={path}", f"--out={tmp_path / 'out'}", "--seed=42", *CHOSEN)
    assert code == 0
    first, again = results(finished), results(tmp_path / "out")
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])


def test_another_attack_and_another_case_train_nothing(finished, launch, monkeypatch):
    monkeypatch.setattr(scratch.population, "train", lambda *arguments, **options: pytest.fail("trained again"))
    before = results(finished)
    for flags in (("--attack=rf",), ("--attacked_records=in_in",), ()):
        code, output = launch(*SMOKE, *CHOSEN, f"--workdir={finished}", *flags)
        assert code == 0, output
    for name, values in results(finished).items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.parametrize("model", ["lr", "dt"])
def test_killed_and_resumed_it_ends_with_equal_results(model, launch, tmp_path, monkeypatch):
    flags = (*SMOKE, *CHOSEN, f"--model={model}", "--config.engine.chunk=6")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    monkeypatch.setattr("jaxunlearn.runs.execution.host.BLOCK", 6)
    assert launch(*flags, f"--workdir={whole}")[0] == 0
    calls = []

    def stop_at_second(real):
        def call(*arguments, **options):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        return call

    where, name = (chunks, "save") if model == "lr" else (leak_roles_logits(), "commit")
    with monkeypatch.context() as patched:
        patched.setattr(where, name, stop_at_second(getattr(where, name)))
        assert launch(*flags, f"--workdir={broken}")[0] == 130
    assert not (broken / "leaks.npz").exists()
    code, output = launch(*flags, f"--workdir={broken}")
    assert code == 0 and ("6 of 16 members are finished already" in output or model == "dt")
    expected, other = results(whole), results(broken)
    for name in expected:
        np.testing.assert_array_equal(expected[name], other[name])


def leak_roles_logits():
    from jaxunlearn.runs.execution import host

    return host.logits


@pytest.mark.parametrize("flags, members, rows", [
    (("--unlearning=sisa", "--shards=5"), 4 * (5 + 3), {12, 11}),
    (("--group=4", "--update=online"), 16, {60}),
    (("--group=4",), 16, {60, 56}),
    (("--repeats=2",), 32, {60, 59}),
])  # fmt: skip
def test_every_way_to_unlearn_is_a_membership(flags, members, rows):
    spec = role(*flags).spec
    assert len(spec.membership) == members and set(spec.membership.sum(1).tolist()) == rows


def test_shards_groups_and_repeats_run_to_the_end(launch, tmp_path):
    for flags in (
        ("--unlearning=sisa", "--shards=5"),
        ("--group=3", "--attacked_records=multi_version", "--repeats=2"),
    ):
        code, output = launch(*SMOKE, *CHOSEN, "--model=dt", *flags, f"--workdir={tmp_path / flags[0][2:7]}")
        assert code == 0 and "from both versions" in output, output
    assert results(tmp_path / "group")["repeat"].tolist() == [0] * 12 + [1] * 12


def test_repeats_grow_and_keep_what_is_there(launch, tmp_path):
    folder = tmp_path / "run"
    for repeats in (1, 2):
        assert launch(*SMOKE, *CHOSEN, "--model=dt", f"--repeats={repeats}", f"--workdir={folder}")[0] == 0
        moved = results(folder)["distance"]
        assert len(moved) == 12 * repeats
        first = moved if repeats == 1 else first  # noqa: F821 - bound in the first round
    np.testing.assert_array_equal(moved[:12], first)


def test_coupled_networks_differ_by_the_deleted_record_alone(launch, tmp_path):
    moved = {}
    for coupling in ("shared", "independent"):
        folder = tmp_path / coupling
        code, output = launch(*SMOKE, *CHOSEN, "--model=network", f"--coupling={coupling}", f"--workdir={folder}")
        assert code == 0, output
        moved[coupling] = results(folder)["distance"]
    assert np.median(moved["shared"]) < 0.5 * np.median(moved["independent"])


REFUSED = {
    "a set larger than its pool": (("--set_size=719",), "set_size = 719, but the shadow side has 718 records"),
    "nothing left": (("--group=60",), "nothing is left to train on"),
    "uneven shards": (("--unlearning=sisa", "--shards=7"), "does not split into 7 equal shards"),
    "top_k": (("--defence=top_k", "--top_k=11"), "top_k = 11: a posterior over 10 classes"),
    "arrays only": (("--out=x",), "--out belongs to --posteriors"),
    "a case": (("--attacked_records=out_in",), "leaks.attacked_records"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_runs_are_refused_before_a_folder_is_made(case, launch, tmp_path):
    flags, message = REFUSED[case]
    code, output = launch(*SMOKE, *flags, f"--workdir={tmp_path / 'run'}")
    assert code == 2 and message in output and "Traceback" not in output, output
    assert not (tmp_path / "run").exists()


def test_dry_runs_say_what_would_be_trained(launch, tmp_path):
    for flags in ((), ("--model=network",)):
        code, output = launch(*SMOKE, *flags, "--dry_run", f"--workdir={tmp_path / 'run'}")
        assert code == 0 and "16: 2 + 2 sets of 60, 3 deletions of 1 each" in output and "12 records" in output
    assert "model-steps" in output and not (tmp_path / "run").exists()


def test_models_of_other_settings_are_not_mixed(finished, launch):
    code, output = launch(*SMOKE, *CHOSEN, "--deletions=4", f"--workdir={finished}")
    assert code == 2 and "--overwrite=leaks" in output


def test_private_networks_say_what_is_guaranteed(launch, tmp_path):
    flags = (*SMOKE, *CHOSEN, "--model=network", "--private", "--noise=4", f"--workdir={tmp_path / 'run'}")
    code, output = launch(*flags)
    assert code == 0, output
    page = (tmp_path / "run" / "report" / "leaks.html").read_text()
    guaranteed = privacy.epsilon(2, 1.0, 4.0)  # batches of 64 hold all 60 records
    assert f"epsilon {guaranteed:.3g} at delta 1e-05 for one version (DP-SGD, noise 4, clip 1, 2 steps" in page
    code, output = launch(*flags, "--noise=5")
    assert code == 2 and "--overwrite=leaks" in output  # other models
    for more, message in (("--coupling=shared", "share their noise"), ("--model=lr", "trains networks by DP-SGD")):
        code, output = launch(*flags, more)
        assert code == 2 and message in output


def test_an_attack_carries_over_from_other_models(finished, launch, tmp_path):
    flags = (*SMOKE, *CHOSEN, "--model=dt", f"--workdir={tmp_path / 'run'}")
    assert launch(*flags)[0] == 0
    own_results = results(tmp_path / "run")
    code, output = launch(*flags, f"--shadow_from={finished}")
    assert code == 0, output
    assert f"of {finished}" in (tmp_path / "run" / "report" / "leaks.html").read_text()
    carried = results(tmp_path / "run")
    np.testing.assert_array_equal(own_results["distance"], carried["distance"])
    assert (own_results["l2_distance__probability"] != carried["l2_distance__probability"]).any()
    few = {name: np.full((4, 3), 1 / 3) if name.endswith(("original", "unlearned")) else np.arange(4) % 2 > 0
           for name in (f"{side}_{part}" for side in ("shadow", "target")
                        for part in ("original", "unlearned", "deleted"))}  # fmt: skip
    np.savez(tmp_path / "other.npz", **few)
    code, output = launch(*flags, f"--shadow_from={tmp_path / 'other.npz'}")
    assert code == 2 and "answer over 3 classes, the target models over 10" in output
