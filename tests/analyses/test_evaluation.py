"""Evaluation: numbers against naive ones, and of arrays from any framework."""

from pathlib import Path

import numpy as np
import pytest

from jaxunlearn import arrays, errors, settings, store
from jaxunlearn.analyses import ANALYSES
from jaxunlearn.analyses.base import Context
from jaxunlearn.analyses.evaluation import measures, sections
from jaxunlearn.analyses.evaluation.measures import EvaluationOptions, Subsets
from jaxunlearn.metrics import utility
from jaxunlearn.metrics.conformal import conformal
from jaxunlearn.records import Design
from jaxunlearn.runs.drivers import array_input
from jaxunlearn.settings import EvaluateSettings
from launch import _entry, evaluate

EVALUATION = ANALYSES["evaluation"]
QUIET = Context(lambda line: None, lambda *step: None, lambda name, facts, compute: compute())
CHOICES = EvaluationOptions(EvaluateSettings(), measures.GROUPS)
SIZES = {"forget": 60, "retain": 300, "test": 120, "calibration": 80}


def outputs(seed, boosts, classes=5):
    """Logits and labels of each part; a boost makes the true label likelier."""
    rng = np.random.default_rng(seed)
    by_subset = {}
    for name, size in SIZES.items():
        labels = rng.integers(0, classes, size)
        logits = rng.normal(0, 1.5, (size, classes)).astype("f4")
        logits[np.arange(size), labels] += boosts.get(name, 1.5)
        by_subset[name] = (logits, labels)
    return by_subset


def whole(models):
    """(values [M, N, C], labels, parts) of several models on the same samples."""
    names = list(SIZES)
    values = np.stack([np.concatenate([model_outputs[name][0] for name in names]) for model_outputs in models])
    labels = np.concatenate([models[0][name][1] for name in names])
    owner = np.repeat(names, [SIZES[name] for name in names])
    masks = {name: np.repeat((owner == name)[None], len(models), 0) for name in names}
    nothing = np.zeros_like(masks["forget"])
    return values, labels, Subsets(**masks, test_forget=nothing, calibration_forget=nothing)


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
    values, labels, subsets = whole([trained, retrained])
    goal = np.stack([values[1], values[1]])
    metrics = measures.measure_models(values, labels, subsets, CHOICES, goal, np.zeros_like(values[0]))
    for model, model_outputs in enumerate((trained, retrained)):
        accuracy = {name: (logits.argmax(-1) == known).mean() for name, (logits, known) in model_outputs.items()}
        values_of_metric = metrics["UA"][model], metrics["RA"][model], metrics["TA"][model]
        np.testing.assert_allclose(values_of_metric, [1 - accuracy["forget"], accuracy["retain"], accuracy["test"]])
        single_model = conformal.evaluate(
            *model_outputs["calibration"], *model_outputs["forget"], CHOICES.settings.alphas
        )
        np.testing.assert_allclose(metrics["q_hat"][model], single_model.q_hat)
        np.testing.assert_allclose(metrics["cr_forget"][model], single_model.quality.cr, rtol=1e-6)
        np.testing.assert_allclose(metrics["recover_ratio"][model], single_model.quality.recover_ratio, rtol=1e-6)
        classes = metrics["class_coverage_test"][model], metrics["class_size_test"][model]
        logits, known = model_outputs["test"]
        sets = conformal.prediction_sets(logits, single_model.q_hat)
        for number in range(5):
            class_sets = sets[:, known == number]
            np.testing.assert_allclose(classes[0][number], class_sets[:, :, number].mean(1), rtol=1e-6)
            np.testing.assert_allclose(classes[1][number], class_sets.sum(-1).mean(1), rtol=1e-6)
    # Attacks tell the model that was trained on these samples from the one that was not.
    for name in ("svc_confidence", "svc_entropy", "threshold_confidence", "threshold_modified_entropy", "UA"):
        assert metrics[name][0] < metrics[name][1] - 0.15, name
    assert metrics["entropy_mia"][0] > metrics["entropy_mia"][1] + 0.15
    assert metrics["miacr"][0] <= 0.03 < metrics["miacr"][1] + 0.03 and metrics["miacr"][1] < 0.2
    assert metrics["activation_distance"][1] == 0 < metrics["activation_distance"][0]
    assert metrics["zrf"][0] < metrics["zrf"][1]  # the less sure model is the more like one that answers nothing


def test_a_diverged_model_has_no_numbers_and_changes_no_others():
    trained, retrained = trained_and_retrained()
    values, labels, subsets = whole([trained, retrained])
    broken = values.copy()
    broken[0] = np.nan
    choices = CHOICES._replace(groups=("conformal", "thresholds"))
    single_model = measures.measure_models(values[1:], labels, Subsets(*(subset[1:] for subset in subsets)), choices)
    metrics = measures.measure_models(broken, labels, subsets, choices, is_alive=np.array([False, True]))
    for name, values_of_metric in single_model.items():
        assert np.isnan(metrics[name][0]).all()
        np.testing.assert_allclose(metrics[name][1], values_of_metric[0])


def test_what_only_some_forget_sets_have_is_missing_for_the_others():
    trained, retrained = trained_and_retrained()
    values, labels, subsets = whole([trained, retrained, trained])
    test, gone = subsets.test.copy(), np.zeros_like(subsets.test)
    for model in (0, 2):  # for these, class 0 is a class that vanished
        gone[model] = test[model] & (labels == 0)
    metrics = measures.measure_models(values, labels, subsets._replace(test=test & ~gone, test_forget=gone), CHOICES)
    for name in ("UA_test", "miacr_test_excluded", "cr_test_forget"):
        is_there = np.isfinite(metrics[name]).reshape(3, -1).all(1)
        np.testing.assert_array_equal(is_there, [True, False, True], err_msg=name)
    assert np.isfinite(metrics["cr_test"]).all()


def test_thresholds_of_a_forgotten_class_from_its_own_or_from_retained_classes():
    """The published choice promises the forgotten class its coverage whatever the model answers."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 200)
    logits = rng.normal(0, 1, (600, 3)).astype("f4")
    logits[np.arange(600), labels] += np.where(labels == 2, -8, 4)  # class 2 is never recognised
    place = np.arange(600) % 4
    masks = [(labels == 2) & (place == 0), (labels != 2) & (place == 0), (labels != 2) & (place == 1),
             (labels != 2) & (place > 1), (labels == 2) & (place == 1), (labels == 2) & (place > 1)]  # fmt: skip
    subsets = Subsets(*(mask[None] for mask in masks))
    metrics = {}
    for source in ("retain", "own"):
        choices = EvaluationOptions(EvaluateSettings(qhat=source), ("conformal",))
        metrics[source] = measures.measure_models(logits[None], labels, subsets, choices)
        sets = measures.sets_of(logits[None], labels, subsets, choices, metrics[source])
        for subset in ("forget", "test", "test_forget"):
            inside = getattr(subsets, subset)[0]
            for mine, theirs in ((sets["covered"], "coverage"), (sets["size"], "size")):
                np.testing.assert_allclose(mine[0][:, inside].mean(-1), metrics[source][f"{theirs}_{subset}"][0])
    assert metrics["retain"]["coverage_test_forget"][0, 1] == 0 and "q_hat_forget" not in metrics["retain"]
    assert metrics["own"]["coverage_test_forget"][0, 1] > 0.8 and metrics["own"]["size_test_forget"][0, 1] > 2.5
    np.testing.assert_array_equal(metrics["own"]["cr_test"], metrics["retain"]["cr_test"])


def test_sizes_of_sets_of_many_classes_are_counted_in_full():
    values, labels = np.zeros((1, 2, 40_000), "f4"), np.zeros(2, int)
    subsets = Subsets(*np.zeros((len(Subsets._fields), 1, 2), bool))
    choices = EvaluationOptions(EvaluateSettings(alphas=(0.1,)), ("conformal",))
    sets = measures.sets_of(values, labels, subsets, choices, {"q_hat": np.array([[1.0]])})
    assert sets["size"].tolist() == [[[40_000, 40_000]]]


def test_the_gap_is_the_mean_distance_to_retraining_over_four_numbers():
    roles = {
        "retrained": {"UA": [0.1, 0.3], "RA": [1.0, 1.0], "TA": [0.9, 0.9], "svc_confidence": [0.2, 0.2]},
        "mine": {"UA": [0.0, 0.0], "RA": [0.9, 0.9], "TA": [0.9, 0.8], "svc_confidence": [0.5, np.nan]},
    }
    user_arrays = {
        role: {name: np.asarray(model_outputs) for name, model_outputs in values_of_metric.items()}
        for role, values_of_metric in roles.items()
    }
    metrics = sections.Evaluation(user_arrays, (0.1,), 0.1, 2, {}, {}, Design("given", 2))
    assert sections.gap(metrics, "mine") == pytest.approx((0.2 + 0.1 + 0.05 + 0.3) / 4)
    assert sections.gap(metrics, "mine", utility.GAP) == pytest.approx((0.2 + 0.1 + 0.05) / 3)
    user_arrays["mine"].pop("svc_confidence")
    assert np.isnan(sections.gap(metrics, "mine"))  # three of four are another number
    assert np.isnan(sections.gap(metrics, "retrained"))


def write(path, changes=(), drop=()):
    trained, retrained = trained_and_retrained()
    user_arrays = {}
    for name, (logits, labels) in trained.items():
        user_arrays |= {name: logits, f"{name}_labels": labels, f"retrained_{name}": retrained[name][0]}
    user_arrays["untrained_forget"] = np.zeros_like(user_arrays["forget"])
    user_arrays |= dict(changes)
    np.savez(path, **{name: array for name, array in user_arrays.items() if name not in drop})
    return str(path)


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def opened(path, probabilities=False, compat="corrected", **evaluate_settings):
    """What an evaluation of a file reads."""
    config = settings.resolve({"evaluate": evaluate_settings, "compat": {"evaluate": compat}, "seed": 0})
    EVALUATION.check(config)
    named, _ = array_input.read(Path(path), EVALUATION)
    values = arrays.read(named, EVALUATION.fields, EVALUATION.expected, probabilities=probabilities)
    return EVALUATION.from_arrays(values, config)


def evaluated(user_arrays):
    return EVALUATION.analyse(user_arrays, settings.resolve({}), QUIET)


def test_the_door_gives_the_numbers_of_the_arrays_logits_or_probabilities(tmp_path):
    trained, retrained = trained_and_retrained()
    metrics = evaluated(opened(write(tmp_path / "a.npz")))
    values, labels, subsets = whole([trained])
    goal = whole([retrained])[0]
    expected = measures.measure_models(values, labels, subsets, CHOICES, goal, np.zeros_like(values[0]))
    for name in ("UA", "TA", "cr_forget", "coverage_test", "activation_distance", "zrf", "entropy_mia"):
        np.testing.assert_allclose(metrics.roles["unlearned"][name], expected[name], err_msg=name)
    outputs_only = [name for subset in SIZES for name in (subset, f"retrained_{subset}")] + ["untrained_forget"]
    user_arrays = np.load(tmp_path / "a.npz")
    path = write(tmp_path / "b.npz", {name: softmax(user_arrays[name]) for name in outputs_only})
    again = evaluated(opened(path, probabilities=True))
    for role, values_of_metric in metrics.roles.items():
        np.testing.assert_allclose(again.roles[role]["cr_forget"], values_of_metric["cr_forget"], rtol=0.02)
    store.files.write_json(tmp_path / "found.json", sections.plain(metrics))
    assert sections.from_plain(store.files.read_json(tmp_path / "found.json")).sets == 1


def test_several_models_in_a_folder_of_arrays_equal_each_of_them(tmp_path):
    trained, retrained = trained_and_retrained()
    folder = tmp_path / "arrays"
    folder.mkdir()
    for name, (logits, labels) in trained.items():
        np.save(folder / f"{name}.npy", np.stack([logits, retrained[name][0]]).astype(np.float16))
        np.save(folder / f"{name}_labels.npy", labels)
    metrics = evaluated(opened(folder))
    assert metrics.sets == 2
    for model, model_outputs in enumerate((trained, retrained)):
        path = tmp_path / f"{model}.npz"
        halves = {name: logits.astype(np.float16) for name, (logits, _) in model_outputs.items()}
        np.savez(path, **halves, **{f"{name}_labels": labels for name, (_, labels) in model_outputs.items()})
        single_model = evaluated(opened(path)).roles["unlearned"]
        for name in ("UA", "cr_forget", "svc_confidence", "threshold_entropy"):
            np.testing.assert_allclose(metrics.roles["unlearned"][name][model], single_model[name][0], err_msg=name)


def test_a_model_that_answers_for_one_class_more_is_evaluated_without_distances(tmp_path):
    user_arrays = dict(np.load(write(tmp_path / "a.npz")))
    for subset in SIZES:
        user_arrays[subset] = np.concatenate([user_arrays[subset], np.full((SIZES[subset], 1), -9, "f4")], 1)
    np.savez(tmp_path / "b.npz", **user_arrays)
    wider = opened(tmp_path / "b.npz")
    metrics = evaluated(wider).roles["unlearned"]
    assert "no activation distance" in wider.notes[-1] and "zrf" not in metrics
    assert np.isnan(metrics["activation_distance"]).all() and np.isfinite(metrics["cr_forget"]).all()


def few(subset, size):
    logits, labels = trained_and_retrained()[0][subset]
    return {subset: logits[:size], f"{subset}_labels": labels[:size], f"retrained_{subset}": logits[:size]}


def without_class(subset):
    logits, labels = trained_and_retrained()[0][subset]
    kept = labels != 2
    return {subset: logits[kept], f"{subset}_labels": labels[kept], f"retrained_{subset}": logits[kept]}


@pytest.mark.parametrize(
    "changes, drop, request_, error, message",
    [
        ({}, ("test", "test_labels"), {}, errors.DataError, "there is no array 'test'"),
        ({}, ("retrained_test",), {}, errors.DataError, "retrained_calibration is given, but not retrained_test"),
        ({}, (), {"probabilities": True}, errors.DataError, "are not probabilities.*sums to"),
        ({"test": np.full((120, 5), 0.2, "f4")}, (), {}, errors.DataError, "looks like prob.*Pass --probabilities"),
        ({"forget": np.full((60, 5), np.nan, "f4")}, (), {}, errors.DataError, "forget contains 300 value"),
        ({"forget": np.zeros((60, 4), "f4")}, (), {}, errors.ShapeError, "forget has .* axis C is 4"),
        ({"untrained_forget": np.zeros((60, 4), "f4")}, (), {}, errors.DataError, "forget_labels must lie in .0, 3."),
        ({"test_labels": np.zeros(7, int)}, (), {}, errors.ShapeError, "test_labels has shape"),
        ({"retain": np.zeros((2, 300, 5), "f4")}, (), {}, errors.ShapeError, "outputs of the same models"),
        ({"tset": np.zeros(3)}, (), {}, errors.DataError, "'tset' .* is not known here. Did you mean 'test'"),
        (few("calibration", 12), (), {}, errors.DataError, "12 calibration sample.s. are too few for alpha = 0.05"),
        (without_class("calibration"), (), {}, errors.DataError, "class 2 has test samples but no calibration"),
        ({}, (), {"alphas": (1.0,)}, errors.ConfigError, "alpha = 1.0"),
        ({}, (), {"metrics": ("crr",)}, errors.ConfigError, "unknown group of metrics 'crr'"),
        ({}, (), {"score": "laac"}, errors.ConfigError, "Did you mean 'lac'"),
        ({}, (), {"report_alpha": 0.3}, errors.ConfigError, "is not one of evaluate.alphas"),
        ({"forget": np.zeros((60, 5), "V2")}, (), {}, errors.DataError, "dtype .V2, .*do not keep bfloat16"),
        ({"retain_labels": np.full(300, 0.5)}, (), {}, errors.DataError, "retain_labels has dtype float64"),
        ({}, (), {"compat": "faithfull"}, errors.ConfigError, "Did you mean 'faithful'"),
    ],
)  # fmt: skip
def test_bad_files_and_choices(tmp_path, changes, drop, request_, error, message):
    path = write(tmp_path / "a.npz", changes, drop)
    with pytest.raises(error, match=message):
        opened(path, **request_)


def test_levels_that_are_no_numbers_are_refused(tmp_path, capsys):
    argv = ["launch", f"--logits={write(tmp_path / 'a.npz')}", f"--out={tmp_path / 'out'}", "--alphas=0.1,much"]
    assert _entry.main(evaluate.command, "", argv, define=evaluate.define, alone=evaluate.alone) == 2
    assert "--alphas=0.1,much: expected numbers" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_calibration_that_does_not_do_is_a_note_where_that_is_accepted(tmp_path):
    path = write(tmp_path / "a.npz", few("calibration", 12))
    user_arrays = opened(path, strict=False, alphas=(0.05, 0.2))
    assert "too few" in user_arrays.notes[0]
    metrics = evaluated(user_arrays).roles["unlearned"]
    assert metrics["q_hat"][0, 0] == np.inf and metrics["size_test"][0, 0] == 5 and np.isfinite(metrics["q_hat"][0, 1])
