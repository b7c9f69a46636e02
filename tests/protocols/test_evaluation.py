"""Evaluation: numbers against naive ones, parts of forgotten classes, the door for arrays, the whole verb on digits."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxunlearn import errors, progress, sections, settings, store
from jaxunlearn.metrics import conformal
from jaxunlearn.protocols import splits, workbench
from jaxunlearn.protocols.evaluation import door, guided, measures, presenting, runs
from jaxunlearn.protocols.evaluation.measures import Choices, Parts
from launch import _entry, evaluate, study

CHOICES = Choices(sections.EvaluateSettings(), measures.GROUPS)
SIZES = {"forget": 60, "retain": 300, "test": 120, "calibration": 80}


def outputs(seed, boosts, classes=5):
    """Logits and labels of each part; a boost makes the true label likelier."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, size in SIZES.items():
        labels = rng.integers(0, classes, size)
        logits = rng.normal(0, 1.5, (size, classes)).astype("f4")
        logits[np.arange(size), labels] += boosts.get(name, 1.5)
        found[name] = (logits, labels)
    return found


def whole(models):
    """(values [M, N, C], labels, parts) of several models on the same samples."""
    names = list(SIZES)
    values = np.stack([np.concatenate([one[name][0] for name in names]) for one in models])
    labels = np.concatenate([models[0][name][1] for name in names])
    owner = np.repeat(names, [SIZES[name] for name in names])
    masks = {name: np.repeat((owner == name)[None], len(models), 0) for name in names}
    nothing = np.zeros_like(masks["forget"])
    return values, labels, Parts(**masks, test_forget=nothing, calibration_forget=nothing)


def trained_and_retrained():
    trained = outputs(0, {"forget": 5, "retain": 5})
    noise = np.random.default_rng(9)
    again = {name: (logits + (noise.normal(0, 0.3, logits.shape)).astype("f4"), labels)
             for name, (logits, labels) in trained.items()}  # fmt: skip
    unseen = np.random.default_rng(3).normal(0, 1.5, again["forget"][0].shape).astype("f4")
    unseen[np.arange(60), again["forget"][1]] += 1.5
    again["forget"] = (unseen, again["forget"][1])
    return trained, again


def test_numbers_of_a_trained_and_of_a_retrained_model():
    trained, retrained = trained_and_retrained()
    values, labels, parts = whole([trained, retrained])
    goal = np.stack([values[1], values[1]])
    found = measures.measure(values, labels, parts, CHOICES, goal, np.zeros_like(values[0]))
    for model, one in enumerate((trained, retrained)):
        accuracy = {name: (logits.argmax(-1) == known).mean() for name, (logits, known) in one.items()}
        numbers = found["UA"][model], found["RA"][model], found["TA"][model]
        np.testing.assert_allclose(numbers, [1 - accuracy["forget"], accuracy["retain"], accuracy["test"]])
        alone = conformal.evaluate(*one["calibration"], *one["forget"], CHOICES.settings.alphas)
        np.testing.assert_allclose(found["q_hat"][model], alone.q_hat)
        np.testing.assert_allclose(found["cr_forget"][model], alone.quality.cr, rtol=1e-6)
        np.testing.assert_allclose(found["recover_ratio"][model], alone.quality.recover_ratio, rtol=1e-6)
        classes = found["class_coverage_test"][model], found["class_size_test"][model]
        logits, known = one["test"]
        sets = conformal.prediction_sets(logits, alone.q_hat)
        for number in range(5):
            own = sets[:, known == number]
            np.testing.assert_allclose(classes[0][number], own[:, :, number].mean(1), rtol=1e-6)
            np.testing.assert_allclose(classes[1][number], own.sum(-1).mean(1), rtol=1e-6)
    # Attacks tell the model that was trained on these samples from the one that was not.
    for name in ("svc_confidence", "svc_entropy", "threshold_confidence", "threshold_modified_entropy", "UA"):
        assert found[name][0] < found[name][1] - 0.15, name
    assert found["entropy_mia"][0] > found["entropy_mia"][1] + 0.15
    assert found["miacr"][0] <= 0.03 < found["miacr"][1] + 0.03 and found["miacr"][1] < 0.2
    assert found["activation_distance"][1] == 0 < found["activation_distance"][0]
    assert found["zrf"][0] < found["zrf"][1]  # the less sure model is the more like one that answers nothing


def test_a_diverged_model_has_no_numbers_and_changes_no_others():
    trained, retrained = trained_and_retrained()
    values, labels, parts = whole([trained, retrained])
    broken = values.copy()
    broken[0] = np.nan
    choices = CHOICES._replace(groups=("conformal", "thresholds"))
    alone = measures.measure(values[1:], labels, Parts(*(part[1:] for part in parts)), choices)
    found = measures.measure(broken, labels, parts, choices, is_alive=np.array([False, True]))
    for name, numbers in alone.items():
        assert np.isnan(found[name][0]).all()
        np.testing.assert_allclose(found[name][1], numbers[0])


def test_what_only_some_forget_sets_have_is_missing_for_the_others():
    trained, retrained = trained_and_retrained()
    values, labels, parts = whole([trained, retrained, trained])
    test, gone = parts.test.copy(), np.zeros_like(parts.test)
    for model in (0, 2):  # for these, class 0 is a class that vanished
        gone[model] = test[model] & (labels == 0)
    found = measures.measure(values, labels, parts._replace(test=test & ~gone, test_forget=gone), CHOICES)
    for name in ("UA_test", "miacr_test_excluded", "cr_test_forget"):
        is_there = np.isfinite(found[name]).reshape(3, -1).all(1)
        np.testing.assert_array_equal(is_there, [True, False, True], err_msg=name)
    assert np.isfinite(found["cr_test"]).all()


def bench(**changes):
    given = {"split": {"shadow": 800, "forget": {"kind": "one_class", "count": 2, "classes": (3, 5)}}, **changes}
    return workbench.prepare(settings.resolve(given))


def test_held_out_rows_of_a_class_that_is_forgotten_are_judged_apart():
    prepared = bench()
    split = splits.draw(prepared)
    rows = splits.recorded_rows(split)
    labels = np.asarray(prepared.dataset.labels)[rows]
    parts = runs.parts_of(prepared, split, rows)
    for number, gone in enumerate((3, 5)):
        assert set(labels[parts.forget[number]]) == {gone}
        assert set(labels[parts.test_forget[number]]) == {gone} == set(labels[parts.calibration_forget[number]])
        assert gone not in labels[parts.test[number]] and gone not in labels[parts.calibration[number]]
        assert parts.test[number].sum() + parts.test_forget[number].sum() == len(np.asarray(split.test))
    random_sets = bench(split={"shadow": 800})
    split = splits.draw(random_sets)
    parts = runs.parts_of(random_sets, split, splits.recorded_rows(split))
    assert not parts.test_forget.any() and parts.forget.sum() == 10 * 50


def test_thresholds_of_a_forgotten_class_from_its_own_or_from_retained_classes():
    """The published choice promises the forgotten class its coverage whatever the model answers."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 200)
    logits = rng.normal(0, 1, (600, 3)).astype("f4")
    logits[np.arange(600), labels] += np.where(labels == 2, -8, 4)  # class 2 is never recognised
    place = np.arange(600) % 4
    masks = [(labels == 2) & (place == 0), (labels != 2) & (place == 0), (labels != 2) & (place == 1),
             (labels != 2) & (place > 1), (labels == 2) & (place == 1), (labels == 2) & (place > 1)]  # fmt: skip
    parts = Parts(*(mask[None] for mask in masks))
    found = {}
    for source in ("retain", "own"):
        choices = Choices(sections.EvaluateSettings(qhat=source), ("conformal",))
        found[source] = measures.measure(logits[None], labels, parts, choices)
        sets = measures.sets_of(logits[None], labels, parts, choices, found[source])
        for part in ("forget", "test", "test_forget"):
            inside = getattr(parts, part)[0]
            for mine, theirs in ((sets["covered"], "coverage"), (sets["size"], "size")):
                np.testing.assert_allclose(mine[0][:, inside].mean(-1), found[source][f"{theirs}_{part}"][0])
    assert found["retain"]["coverage_test_forget"][0, 1] == 0 and "q_hat_forget" not in found["retain"]
    assert found["own"]["coverage_test_forget"][0, 1] > 0.8 and found["own"]["size_test_forget"][0, 1] > 2.5
    np.testing.assert_array_equal(found["own"]["cr_test"], found["retain"]["cr_test"])


def test_the_gap_is_the_mean_distance_to_retraining_over_four_numbers():
    roles = {
        "retrained": {"UA": [0.1, 0.3], "RA": [1.0, 1.0], "TA": [0.9, 0.9], "svc_confidence": [0.2, 0.2]},
        "mine": {"UA": [0.0, 0.0], "RA": [0.9, 0.9], "TA": [0.9, 0.8], "svc_confidence": [0.5, np.nan]},
    }
    arrays = {role: {name: np.asarray(one) for name, one in numbers.items()} for role, numbers in roles.items()}
    found = presenting.Evaluation(arrays, (0.1,), 0.1, 2, {}, {})
    assert presenting.gap(found, "mine") == pytest.approx((0.2 + 0.1 + 0.05 + 0.3) / 4)
    arrays["mine"].pop("svc_confidence")
    assert np.isnan(presenting.gap(found, "mine"))  # three of four are another number
    assert np.isnan(presenting.gap(found, "retrained"))


def write(path, changes=(), drop=()):
    trained, retrained = trained_and_retrained()
    arrays = {}
    for name, (logits, labels) in trained.items():
        arrays |= {name: logits, f"{name}_labels": labels, f"retrained_{name}": retrained[name][0]}
    arrays["untrained_forget"] = np.zeros_like(arrays["forget"])
    arrays |= dict(changes)
    np.savez(path, **{name: array for name, array in arrays.items() if name not in drop})
    return str(path)


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def test_the_door_gives_the_numbers_of_the_arrays_logits_or_probabilities(tmp_path):
    trained, retrained = trained_and_retrained()
    found = door.evaluate(door.open_file(door.Request(write(tmp_path / "a.npz"))))
    values, labels, parts = whole([trained])
    goal = whole([retrained])[0]
    wanted = measures.measure(values, labels, parts, CHOICES, goal, np.zeros_like(values[0]))
    for name in ("UA", "TA", "cr_forget", "coverage_test", "activation_distance", "zrf", "entropy_mia"):
        np.testing.assert_allclose(found.roles["unlearned"][name], wanted[name], err_msg=name)
    outputs_only = [name for part in SIZES for name in (part, f"retrained_{part}")] + ["untrained_forget"]
    arrays = np.load(tmp_path / "a.npz")
    path = write(tmp_path / "b.npz", {name: softmax(arrays[name]) for name in outputs_only})
    again = door.evaluate(door.open_file(door.Request(path, probabilities=True)))
    for role, numbers in found.roles.items():
        np.testing.assert_allclose(again.roles[role]["cr_forget"], numbers["cr_forget"], rtol=0.02)
    assert presenting.from_plain(json.loads(json.dumps(presenting.plain(found), default=np.ndarray.tolist))).sets == 1


def test_several_models_in_a_folder_of_arrays_equal_each_of_them(tmp_path):
    trained, retrained = trained_and_retrained()
    folder = tmp_path / "arrays"
    folder.mkdir()
    for name, (logits, labels) in trained.items():
        np.save(folder / f"{name}.npy", np.stack([logits, retrained[name][0]]).astype(np.float16))
        np.save(folder / f"{name}_labels.npy", labels)
    found = door.evaluate(door.open_file(door.Request(str(folder))))
    assert found.sets == 2
    for model, one in enumerate((trained, retrained)):
        path = tmp_path / f"{model}.npz"
        arrays = {name: logits.astype(np.float16) for name, (logits, _) in one.items()}
        np.savez(path, **arrays, **{f"{name}_labels": labels for name, (_, labels) in one.items()})
        alone = door.evaluate(door.open_file(door.Request(str(path)))).roles["unlearned"]
        for name in ("UA", "cr_forget", "svc_confidence", "threshold_entropy"):
            np.testing.assert_allclose(found.roles["unlearned"][name][model], alone[name][0], err_msg=name)


def test_a_model_that_answers_for_one_class_more_is_evaluated_without_distances(tmp_path):
    arrays = dict(np.load(write(tmp_path / "a.npz")))
    for part in SIZES:
        arrays[part] = np.concatenate([arrays[part], np.full((SIZES[part], 1), -9, "f4")], 1)
    np.savez(tmp_path / "b.npz", **arrays)
    opened = door.open_file(door.Request(str(tmp_path / "b.npz")))
    found = door.evaluate(opened).roles["unlearned"]
    assert "no activation distance" in opened.notes[-1] and "zrf" not in found
    assert np.isnan(found["activation_distance"]).all() and np.isfinite(found["cr_forget"]).all()


def test_gains_are_over_the_same_method_with_the_same_other_values():
    roles, lines = {}, []
    for rate, start in ((0.1, 0.1), (0.01, 0.4)):
        for weight, gain in ((0.0, 0.0), (1.0, 0.2)):
            role = f"m@lr={rate},lamda={weight}"
            roles[role] = {"UA": np.array([start + gain]), "TA": np.array([0.9 - gain / 10])}
            lines.append(guided.Line(role, f"m@lr={rate}", weight))
    piece = guided.present(presenting.Evaluation(roles, (0.1,), 0.1, 1, {}, {}), lines)
    assert piece.text == "lambda 1 changes UA by +20.0 and TA by -2.0 points, mean over 2 method(s)."


def few(part, size):
    logits, labels = trained_and_retrained()[0][part]
    return {part: logits[:size], f"{part}_labels": labels[:size], f"retrained_{part}": logits[:size]}


def without_class(part):
    logits, labels = trained_and_retrained()[0][part]
    kept = labels != 2
    return {part: logits[kept], f"{part}_labels": labels[kept], f"retrained_{part}": logits[kept]}


@pytest.mark.parametrize(
    "changes, drop, request_, error, message",
    [
        ({}, ("test", "test_labels"), {}, errors.DataError, "lacks test, test_labels"),
        ({}, ("retrained_test",), {}, errors.DataError, "holds retrained_calibration but not retrained_test"),
        ({}, (), {"probabilities": True}, errors.DataError, "are no probabilities.*sums to"),
        ({"test": np.full((120, 5), 0.2, "f4")}, (), {}, errors.DataError, "look like probabilities"),
        ({"forget": np.full((60, 5), np.nan, "f4")}, (), {}, errors.DataError, "forget holds 300 value"),
        ({"forget": np.zeros((60, 4), "f4")}, (), {}, errors.DataError, "must lie in"),
        ({"test_labels": np.zeros(7, int)}, (), {}, errors.ShapeError, "test has shape|labels of test"),
        ({"retain": np.zeros((2, 300, 5), "f4")}, (), {}, errors.ShapeError, "outputs of the same models"),
        (few("calibration", 12), (), {}, errors.DataError, "12 calibration sample.s. are too few for alpha = 0.05"),
        (without_class("calibration"), (), {}, errors.DataError, "class 2 has test samples but no calibration"),
        ({}, (), {"chosen": {"alphas": ["1.0"]}}, errors.ConfigError, "alpha = 1.0"),
        ({}, (), {"chosen": {"alphas": ["0.1", "much"]}}, errors.ConfigError, "expected numbers"),
        ({}, (), {"chosen": {"metrics": ["crr"]}}, errors.ConfigError, "unknown group of metrics 'crr'"),
        ({}, (), {"chosen": {"score": "laac"}}, errors.ConfigError, "Did you mean 'lac'"),
        ({}, (), {"chosen": {"headline": 0.3}}, errors.ConfigError, "is none of evaluate.alphas"),
        ({"forget": np.zeros((60, 5), "V2")}, (), {}, errors.DataError, "dtype .V2, expected plain numbers"),
        ({"retain_labels": np.zeros(300)}, (), {}, errors.DataError, "retain_labels has dtype float64"),
        ({}, (), {"compat": "faithfull"}, errors.ConfigError, "Did you mean 'faithful'"),
    ],
)  # fmt: skip
def test_bad_files_and_choices(tmp_path, changes, drop, request_, error, message):
    path = write(tmp_path / "a.npz", changes, drop)
    with pytest.raises(error, match=message):
        door.open_file(door.Request(path, **request_))


def test_calibration_that_does_not_do_is_a_note_where_that_is_accepted(tmp_path):
    path = write(tmp_path / "a.npz", few("calibration", 12))
    opened = door.open_file(door.Request(path, chosen={"strict": False, "alphas": ["0.05", "0.2"]}))
    assert "too few" in opened.notes[0]
    found = door.evaluate(opened).roles["unlearned"]
    assert found["q_hat"][0, 0] == np.inf and found["size_test"][0, 0] == 5 and np.isfinite(found["q_hat"][0, 1])


def run(*arguments):
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=600)


def test_the_door_loads_no_model_code(tmp_path):
    path = write(tmp_path / "a.npz")
    program = (
        "import sys; from jaxunlearn.protocols.evaluation import door; "
        f"request = door.Request({path!r}, chosen={{'metrics': ['conformal']}}); "
        f"door.evaluate_file(request, {str(tmp_path / 'out')!r}, (), False); "
        "bad = [m for m in sys.modules if m.split('.')[:2] in (['jaxunlearn', 'models'], ['jaxunlearn', 'population'], "
        "['jaxunlearn', 'unlearn'])]; assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report" / "evaluation.html").exists()


def launched(verb, workdir, *arguments):
    """What a launcher prints: stdout, stderr."""
    extra = {"define": verb.define, "alone": verb.alone} if verb is evaluate else {}
    argv = ["launch", "--config=configs/digits.py:smoke", f"--workdir={workdir}", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        assert _entry.main(verb.command, verb.__doc__, argv, **extra) == 0, err.getvalue()
    return out.getvalue(), err.getvalue()


def test_evaluating_digits_from_nothing_and_again_and_studying_the_loss(tmp_path):
    """Every role gets every number; a second run measures nothing again; the sections can be read back."""
    common = ["--config.model.name=logistic", "--config.split.forget.count=2", "--config.unlearn.options=epochs=2",
              "--config.unlearn.methods=finetune,finetune+conformal", "--config.unlearn.conformal.lamda=0,5",
              "--config.train.epochs=8"]  # fmt: skip
    first, _ = launched(evaluate, tmp_path, *common)
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    swept = [f"finetune+conformal@conformal_lamda={value}" for value in (0.0, 5.0)]
    assert list(stored["roles"]) == ["original", "retrained", "finetune", *swept]
    names = {"UA", "RA", "TA", "confidence_forget", "confidence_test", "svc_confidence", "threshold_entropy",
             "entropy_mia", "zrf", "activation_distance", "cr_forget", "cr_test", "coverage_retain", "recover_ratio",
             "miacr"}  # fmt: skip
    for role, numbers in stored["roles"].items():
        assert names <= set(numbers), role
        assert np.shape(numbers["cr_forget"]) == (2, 4) and np.shape(numbers["UA"]) == (2,)
    # Weight 0 is fine-tuning itself; a large one lowers what the model gives the true labels.
    for name in ("UA", "confidence_forget"):
        np.testing.assert_allclose(stored["roles"][swept[0]][name], stored["roles"]["finetune"][name], atol=1e-5)
    confidence = {role: np.mean(stored["roles"][role]["confidence_forget"]) for role in swept}
    assert confidence[swept[1]] < confidence[swept[0]] - 0.02
    sets = np.load(tmp_path / "evaluation" / "sets_retrained.npz")
    own = np.where(sets["forgotten"][:, None], sets["covered"], 0).sum(-1) / sets["forgotten"].sum(-1)[:, None]
    np.testing.assert_allclose(own, stored["roles"]["retrained"]["coverage_forget"], rtol=1e-6)
    second, progress = launched(evaluate, tmp_path, *common)
    assert "measuring" not in progress and "compiling" not in progress
    assert second.splitlines()[0] == first.splitlines()[0]
    assert {path.name for path in Path(tmp_path / "report" / "tables").glob("*.csv")} >= {
        "utility.csv", "attacks.csv", "conformal.csv", "alphas.csv",
    }  # fmt: skip
    told, progress = launched(study, tmp_path, *common, "--config.study.kind=conformal")
    assert "compiling" not in progress and told.startswith("lambda 5 changes UA by ")  # the same members
    rows = (tmp_path / "report" / "tables" / "conformal_loss.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [
        ["original", ""], ["retrained", ""], ["finetune", "0"], ["finetune", "5"],
    ]  # fmt: skip
    page = (tmp_path / "report" / "evaluation.html").read_text()
    assert "recover ratio" in page and "Prediction sets against alpha" in page and "by class" in page
    with store.open_run(str(tmp_path), ()) as folder:
        titles = [piece.title for piece in presenting.of_run(folder)]
    assert titles[0] == "Utility" and "Prediction sets against alpha" in titles


@pytest.mark.parametrize(
    "changes, message",
    [
        (["--config.evaluate.alphas=(0.1,0.001)"], "too few for alpha = 0.001: at least 999"),
        (["--config.evaluate.alphas=(0.1,1.5)"], "alpha = 1.5"),
        (["--config.split.forget.kind=one_class", "--config.evaluate.qhat=own", "--config.evaluate.alphas=(0.1,0.02)"],
         "too few for alpha = 0.02"),
        (["--config.unlearn.methods=ssd+conformal"], "ssd+conformal: it takes no gradient steps"),
        (["--config.unlearn.conformal.lamda=1"], "no method is wrapped"),
        (["--alphas=0.1"], "--alphas belongs to --logits"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_refused_before_anything_is_trained(tmp_path, changes, message):
    done = run("launch.evaluate", "--config=configs/digits.py:smoke", f"--workdir={tmp_path / 'w'}", *changes)
    assert done.returncode == 2 and message in done.stderr and not (tmp_path / "w").exists()


@pytest.mark.parametrize("damage", [None, b"no archive"])
def test_prediction_sets_that_are_lost_or_damaged_are_made_again(damage, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(1, 60, 4)).astype(np.float32), rng.integers(0, 4, 60)
    owner = np.repeat(np.arange(6), 10)
    parts = measures.Parts(*((owner == part)[None] for part in range(6)))
    settings_ = sections.EvaluateSettings(alphas=(0.2,), headline=0.2, metrics=("conformal",))
    choices = measures.Choices(settings_, ("conformal",), "corrected")
    monkeypatch.setattr(runs, "logits_of", lambda *_: (logits, np.ones(1, bool), "facts"))
    with store.open_run(str(tmp_path)) as folder:
        world = runs.World(
            folder, progress.Reporter(), None, choices, np.arange(60), np.arange(60), labels, parts, None, {}
        )  # fmt: skip
        goal = runs.logits_of()
        first = runs.measure_role(world, "retrained", goal)
        path = folder.path("evaluation", "sets_retrained.npz")
        sets = dict(np.load(path))
        path.unlink() if damage is None else path.write_bytes(damage)
        monkeypatch.setattr(measures, "measure", lambda *_: pytest.fail("it was measured again"))
        again = runs.measure_role(world, "retrained", goal)
    np.testing.assert_equal(again, first)
    np.testing.assert_equal(dict(np.load(path)), sets)
