"""epsilon-hat of given logits: published folders and .npz files in, the published table out; bad files."""

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from jaxunlearn import arrays, errors, settings, store
from jaxunlearn.analyses import ANALYSES
from jaxunlearn.analyses.base import Context
from jaxunlearn.analyses.epsilon import measures, sections, wording
from jaxunlearn.metrics.epsilon import epsilon, epsilon_bounds
from jaxunlearn.runs.drivers import array_input
from launch import _entry
from launch import epsilon as verb

EPSILON = ANALYSES["epsilon"]
QUIET = Context(lambda line: None, lambda *step: None, lambda name, facts, compute: compute())
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "forget_precision"
APPROACHES = ("finetune", "prune", "poison", "activation_reset")
QUICK = {"bootstrap": 0, "sweep": False, "metric": "epsilon"}


def published():
    """Logits of every sixteenth published sample, and all accuracies."""
    rows, metrics = np.load(GOLDEN / "real_rows.npz"), np.load(GOLDEN / "real_metrics.npz")
    accuracies = {
        name: {
            subset: metrics[f"{name or 'retain_models'}__{subset}_accuracy"]
            for subset in store.published_layout.SUBSETS
        }
        for name in ("", *APPROACHES)
    }
    return rows, rows["labels"][rows["rows"]].astype(int), accuracies


@pytest.fixture(autouse=True, scope="module")
def simulated_once():
    """What groups of so many models show of no difference depends on nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(epsilon_bounds, "simulate_null_median", functools.cache(epsilon_bounds.simulate_null_median))
        yield


@pytest.fixture
def folder(tmp_path):
    rows, labels, accuracies = published()
    path = tmp_path / "data"
    store.published_layout.write(path, labels, rows["retain"], {name: rows[name] for name in APPROACHES}, accuracies)
    return path


def small(models=10, samples=6, classes=3, seed=0):
    """A consistent set of arrays for an .npz."""
    generator = np.random.default_rng(seed)
    shape = (samples, models, classes)
    return {"labels": np.arange(samples) % classes, "retrained": generator.normal(size=shape).astype("f4"),
            "mine": generator.normal(size=shape).astype("f4")}  # fmt: skip


def saved(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def opened(path, compat="corrected", seed=0, **epsilon_settings):
    """What epsilon-hat of a file or folder is measured of."""
    config = settings.resolve({"epsilon": epsilon_settings, "compat": {"evaluate": compat}, "seed": seed})
    named, notes = array_input.read(Path(path), EPSILON)
    epsilon_inputs = EPSILON.from_arrays(arrays.read(named, EPSILON.fields, EPSILON.expected), config)
    return epsilon_inputs._replace(notes=(*notes, *epsilon_inputs.notes))


def approaches(epsilon_inputs):
    return epsilon_inputs.modes["running"].approaches


def measured(epsilon_inputs):
    return EPSILON.analyse(epsilon_inputs, settings.resolve({}), QUIET).modes["running"]


def test_the_published_layout_is_what_the_published_scripts_read(folder):
    rows, labels, accuracies = published()
    stored = np.load(folder / "finetune" / "logits_unlearn.npy")
    assert stored.dtype == np.float32 and stored.shape == (63, 81, 10)
    np.testing.assert_array_equal(stored[:, 0], np.eye(10)[labels])
    np.testing.assert_array_equal(stored[:, 1:], rows["finetune"])
    assert np.load(folder / "logits_retain.npy").shape == (63, 81, 10)
    lines = (folder / "finetune" / "metrics.csv").read_text().splitlines()
    assert lines[0] == "seed,retain_accuracy,forget_accuracy,test_accuracy" and len(lines) == 81
    results = store.published_layout.read(folder)
    assert tuple(results.unlearned) == tuple(sorted(APPROACHES))
    np.testing.assert_array_equal(results.accuracies["prune"]["test"], accuracies["prune"]["test"])


def test_a_published_folder_gives_the_published_numbers_in_order(folder):
    rows, labels, accuracies = published()
    reference = np.load(GOLDEN / "real_epsilon.npz")
    epsilon_inputs = opened(str(folder), bootstrap=20)
    results = measured(epsilon_inputs)
    assert list(results.approaches) == ["baseline", *sorted(APPROACHES)]
    for name in APPROACHES:
        metrics = results.approaches[name]
        np.testing.assert_allclose(metrics.epsilon, reference[f"{name}__eps"][rows["rows"]], atol=1e-9)
        np.testing.assert_allclose(
            metrics.challenge.epsilon, reference[f"{name}__challenge_eps"][rows["rows"]], atol=1e-5
        )
        ratio = reference[f"{name}__challenge_final_score"] / reference[f"{name}__challenge_forget_score"]
        np.testing.assert_allclose(metrics.challenge.final, metrics.challenge.forget * ratio, rtol=1e-9)
        assert metrics.interval.low < metrics.summary.median < metrics.interval.high
        np.testing.assert_allclose(metrics.curve[5], metrics.summary.median)
        assert (metrics.bound <= metrics.max_bound).all() and np.median(metrics.bound) <= metrics.summary.median
    assert results.order == ("prune", "activation_reset", "finetune", "poison")
    main = sections.sections(results)[0]
    for name in ("baseline", *APPROACHES):
        for part, metric in (("retain", "RA (%)"), ("test", "TA (%)")):
            mean, half = np.load(GOLDEN / "real_metrics.npz")[
                f"{'retain_models' if name == 'baseline' else name}__{part}_accuracy__mean_ci"
            ]
            cell = next(finding for finding in main.findings if (finding.of, finding.metric) == (name, metric))
            np.testing.assert_allclose(
                [cell.value, cell.low, cell.high], 100 * np.array([mean, mean - half, mean + half])
            )
    assert results.gap_to_finetuning["prune"].high < 0 < results.gap_to_finetuning["poison"].low
    assert results.approaches["baseline"].sizes == (40, 40)
    saved_arrays = sections.arrays(results, {"ids": rows["rows"]})
    np.testing.assert_array_equal(saved_arrays["prune__epsilon"], results.approaches["prune"].epsilon)
    assert {"labels", "deltas", "prune__proved", "prune__challenge", "prune__median_by_delta"} <= set(saved_arrays)


def test_modes_of_batch_norm_that_differ_are_pointed_out(folder):
    notes = " ".join(opened(str(folder)).notes)
    # Known of these logits: they were recorded in training mode, the accuracies were not.
    assert (
        "prune: the accuracy of the logits on the forget set differs from the given accuracy by " in notes
        and "training mode" in notes
    )


def test_an_archive_gives_the_same_as_a_folder(folder, tmp_path):
    rows, labels, accuracies = published()
    named = {f"{name or 'retrained'}__{part}_accuracy": values
             for name, by_subset in accuracies.items() for part, values in by_subset.items()}  # fmt: skip
    path = saved(tmp_path / "a.npz", labels=labels, retain=rows["retain"],
                 **{name: rows[name] for name in APPROACHES}, **named)  # fmt: skip
    first, second = (opened(str(source), **QUICK) for source in (folder, path))
    assert first.options == second.options
    first, second = first.modes["running"], second.modes["running"]
    np.testing.assert_array_equal(first.retrained, second.retrained)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert sorted(first.approaches) == sorted(second.approaches) == sorted(APPROACHES)
    for name, values in first.approaches.items():
        np.testing.assert_array_equal(second.approaches[name], values)
    assert sorted(first.accuracies) == sorted(second.accuracies) == sorted(("baseline", *APPROACHES))
    for name, by_subset in first.accuracies.items():
        assert len(by_subset) == 3
        for part, values in by_subset.items():
            np.testing.assert_allclose(second.accuracies[name][part], values)


def test_a_baseline_that_is_given_is_ignored_and_the_real_one_can_be_had_alone(folder, tmp_path):
    (folder / "baseline").mkdir()
    content = (folder / "logits_retain.npy").read_bytes()
    (folder / "baseline" / "logits_unlearn.npy").write_bytes(content)
    epsilon_inputs = opened(str(folder))
    assert "baseline" not in approaches(epsilon_inputs)
    assert any("splitting the retrained models" in note for note in epsilon_inputs.notes)
    path = saved(tmp_path / "a.npz", **small(), baseline=np.zeros((6, 10, 3), "f4"))
    assert approaches(opened(path)).keys() == {"mine"}
    alone = opened(str(folder), approach=("baseline",), **QUICK)
    results = measured(alone)
    assert list(results.approaches) == ["baseline"] and np.isfinite(results.approaches["baseline"].summary.median)
    assert wording.answer_text(results).startswith("Halves of the retrained models")
    assert "sample" in sections.sections(results, (3,))[-1].figure.axes[0].get_title(loc="left")


def test_a_regression_is_judged_by_its_squared_error(tmp_path):
    golden = np.load(GOLDEN / "agedb_regression_epsilon.npz")
    path = saved(tmp_path / "ages.npz", labels=golden["age0__labels"], retrained=golden["age0__preds_retrain"],
                 mine=golden["age0__preds_unlearn"])  # fmt: skip
    epsilon_inputs = opened(path, bootstrap=5)
    results = measured(epsilon_inputs)
    mine = results.approaches["mine"]
    np.testing.assert_allclose(mine.epsilon, golden["age0__per_sample_d0.05"], atol=1e-5)
    assert mine.challenge is None and results.is_regression
    errors_made = np.abs(golden["age0__preds_unlearn"] - golden["age0__labels"][:, None])
    assert mine.own_accuracy.mean() == pytest.approx(errors_made.mean(), rel=1e-6)
    table = sections.sections(results)[0].table
    assert table.header[-1] == "MAE" and table.rows[-1][-1] == pytest.approx(errors_made.mean(), rel=1e-6)


def test_a_chosen_score_and_samples_reach_table_and_figure(tmp_path):
    user_arrays = small(models=5)
    path = saved(tmp_path / "a.npz", **user_arrays)
    epsilon_inputs = opened(path, samples=(4, 1), **QUICK | {"score": "margin", "delta": 0.2})
    results = measured(epsilon_inputs)
    expected = epsilon.epsilon_hat(
        user_arrays["retrained"], user_arrays["mine"], user_arrays["labels"], 0.2, score="margin"
    )
    np.testing.assert_array_equal(results.approaches["mine"].epsilon, expected)
    figure = sections.sections(results, epsilon_inputs.samples)[-1].figure
    assert [axes.get_title(loc="left").split(",")[0] for axes in figure.axes] == ["sample 4", "sample 1"]
    assert len(figure.axes[0].patches) == 4  # each group filled and outlined


def test_the_loss_with_the_label_row_is_the_published_one(tmp_path):
    rows, labels, _ = published()
    path = saved(tmp_path / "a.npz", labels=labels, retrained=rows["retain"], poison=rows["poison"])
    epsilon_inputs = opened(path, compat="faithful", **QUICK | {"score": "loss"})
    results = measured(epsilon_inputs)
    reference = np.load(GOLDEN / "real_epsilon.npz")["poison__eps_loss"][rows["rows"]]
    np.testing.assert_allclose(results.approaches["poison"].epsilon, reference, atol=1e-6)
    assert results.margins["poison"][0].shape == (63, 80)  # figures show margins, of real models only


def test_equal_approaches_are_said_to_be_equal_and_few_models_are_noted(tmp_path):
    user_arrays = small(models=5)
    path = saved(tmp_path / "a.npz", **user_arrays, copy=user_arrays["mine"])
    epsilon_inputs = opened(path, bootstrap=20, metric="epsilon")
    results = measured(epsilon_inputs)
    assert any("the baseline's halves: 2 + 2 models" in note for note in measures.notes(results))
    assert any("mine: 5 + 5 models" in note for note in measures.notes(results))
    assert results.gap_to_best["copy"].value == 0 == results.gap_to_best["mine"].value
    assert "might put these before" in wording.answer_text(results)


def test_a_delta_at_which_no_rule_is_of_use_is_said(tmp_path):
    path = saved(tmp_path / "a.npz", **small())
    results = measured(opened(path, **QUICK | {"delta": 0.999}))
    assert wording.answer_text(results).startswith("At delta = 0.999 no rule is informative with this number of models")
    assert "models no finite epsilon-hat is possible at this delta" in sections.sections(results)[0].text


def test_models_that_are_told_apart_without_error_are_not_called_hard_to_tell(tmp_path):
    user_arrays = small(models=5)
    far = user_arrays["retrained"] + 50 * np.eye(3, dtype="f4")[user_arrays["labels"]][:, None]
    results = measured(opened(saved(tmp_path / "a.npz", **user_arrays | {"mine": far}), **QUICK))
    answer = wording.answer_text(results)
    assert "hardest" not in answer and "Easiest" not in answer
    assert answer.startswith("Told apart from retraining without error, on most samples: mine.")
    only = {"mine": far, "mine2": user_arrays["mine"]}
    results = measured(opened(saved(tmp_path / "b.npz", **user_arrays | only), **QUICK))
    assert wording.answer_text(results).startswith(
        "Smallest of 2 approaches (selected post hoc): mine2, median epsilon-hat "
    )
    main = sections.sections(results)[0].table
    assert main.baselines[0] == "baseline" and main.rows[0][0] == "baseline"


def test_what_has_no_finite_number_gets_no_plot_and_no_empty_promise(tmp_path):
    user_arrays = small(models=2)
    user_arrays["mine"] = user_arrays["retrained"] + 50 * np.eye(3, dtype="f4")[user_arrays["labels"]][:, None]
    results = measured(opened(saved(tmp_path / "a.npz", **user_arrays), **QUICK | {"sweep": True, "delta": 0.55}))
    infinite = {
        name: approach._replace(curve=np.full_like(approach.curve, np.inf), max_finite=-0.105)
        for name, approach in results.approaches.items()
    }
    by_name = {section.name: section for section in sections.sections(results._replace(approaches=infinite))}
    assert "epsilon_delta" not in by_name and "above -" not in by_name["epsilon"].text
    assert by_name["epsilon"].text.startswith(
        "2 + 2 models are too few to show a difference at this delta: epsilon-hat is at most -0.105, or infinite"
    )


@pytest.mark.parametrize(
    ("change", "request_", "error", "message"),
    [
        ({"retrained": None}, {}, errors.DataError, "there is no array 'retrained'"),
        ({"labels": None}, {}, errors.DataError, "there is no array 'labels'"),
        ({"mine": None}, {}, errors.DataError, "there is no approach"),
        ({"extra": np.zeros(3)}, {}, errors.DataError, "'extra' of shape .3,. is not known here"),
        ({"labels": np.arange(6) / 2}, {}, errors.DataError, "whole numbers"),
        ({"labels": np.arange(6)}, {}, errors.DataError, "must lie in"),
        ({"labels": np.zeros(7, int)}, {}, errors.ShapeError, "axis S"),
        ({"mine": np.zeros((6, 10, 4), "f4")}, {}, errors.ShapeError, "axis C"),
        ({"mine": np.full((6, 10, 3), np.nan, "f4")}, {}, errors.DataError, r"mine\[0\] contains 30 NaN.*axes \?, C"),
        ({"mine": np.zeros((6, 10, 3), "V2")}, {}, errors.DataError, "bfloat16"),
        ({"retrained": np.zeros((6, 10, 3, 1), "f4")}, {}, errors.ShapeError, r"expected 3 axes \[S, N, C\]"),
        ({"mine__test_accuracy": np.full(10, 97.0)}, {}, errors.DataError, "fractions between 0 and 1"),
        ({"mine__test_accuracy": np.full(9, 0.9)}, {}, errors.DataError, "one fraction for each of the 10 models"),
        ({"mine__test_accuracy": np.full(10, "high")}, {}, errors.DataError, "mine__test_accuracy has dtype <U4"),
        ({"retained": np.zeros((5, 10, 3), "f4")}, {}, errors.ShapeError, "axis S"),
        ({"retrained": np.zeros((6, 0, 3), "f4")}, {}, errors.DataError, "contains no value"),
        ({"retrained__test_accuracy": np.zeros(10)}, {}, errors.DataError, "nothing to compare with"),
        ({"retrained": np.zeros((6, 10)), "mine": np.zeros((6, 0))}, {}, errors.DataError, "contains no value"),
        ({"retrained": np.zeros((6, 10)), "mine": np.zeros((6, 9)), "labels": np.full(6, "a")}, {}, errors.DataError,
         "labels has dtype <U1"),
        ({}, {"seed": -1}, errors.ConfigError, "seed = -1"),
        ({}, {"bootstrap": 1}, errors.ConfigError, "no interval"),
        ({}, {"approach": ("mien",)}, errors.ConfigError, "Did you mean 'mine'"),
        ({}, {"samples": (6,)}, errors.ConfigError, "6 is not a sample number; they go from 0 to 5"),
        ({}, {"delta": 1.5}, errors.ConfigError, "epsilon.delta"),
        ({}, {"metric": "chalenge"}, errors.ConfigError, "Did you mean 'challenge'"),
        ({}, {"compat": "exact"}, errors.ConfigError, "compat.evaluate"),
    ],
)  # fmt: skip
def test_bad_archives_and_choices_are_one_message(tmp_path, change, request_, error, message):
    user_arrays = {name: values for name, values in {**small(), **change}.items() if values is not None}
    path = saved(tmp_path / "a.npz", **user_arrays)
    with pytest.raises(error, match=message):
        opened(path, **request_)


def test_bad_folders_are_one_message(folder, tmp_path):
    def refused(message):
        with pytest.raises(errors.DataError, match=message):
            opened(str(folder))

    metrics, logits = folder / "prune" / "metrics.csv", folder / "prune" / "logits_unlearn.npy"
    text, content = metrics.read_text(), np.load(logits)
    metrics.write_text(text.replace("retain_accuracy", "train_accuracy"))
    refused("prune/metrics.csv lacks retain_accuracy")
    metrics.write_text("seed,retain_accuracy,forget_accuracy,test_accuracy\n0,99.9,0.5,0.5\n")
    refused("line 1 is 99.9")
    metrics.write_text("seed,retain_accuracy,forget_accuracy,test_accuracy\n0,high,0.5,0.5\n")
    refused("not a number")
    metrics.write_text("\n".join(text.splitlines()[:5]) + "\n")
    refused("accuracies of prune have shape")
    metrics.write_text(text)
    np.save(logits, content[:, 1:])
    refused("slot 0 of axis 1 must contain the one-hot label")
    np.save(logits, content[::-1])
    refused("other labels than")
    logits.write_bytes(b"nothing")
    refused("cannot be read as a plain array")
    with pytest.raises(errors.DataError, match="does not exist"):
        opened(str(tmp_path / "nowhere"))
    (tmp_path / "lonely").mkdir()
    (tmp_path / "lonely" / "logits_retain.npy").write_bytes((folder / "logits_retain.npy").read_bytes())
    with pytest.raises(errors.DataError, match="no subfolder with logits_unlearn.npy"):
        opened(str(tmp_path / "lonely"))


def launched(capsys, *arguments):
    code = _entry.main(verb.command, verb.__doc__, ["launch", *arguments], define=verb.define, alone=verb.alone)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_the_command_prints_the_table_and_writes_every_file(folder, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = (f"--data={folder}", "--all", f"--out={out}", "--bootstrap=10")
    code, planned, _ = launched(capsys, *arguments, "--dry_run")
    assert code == 0 and "80 models" in planned and not out.exists()
    code, shown, _ = launched(capsys, *arguments)
    assert code == 0
    assert shown.startswith("Smallest of 4 approaches (selected post hoc): prune, ") and "The challenge score" in shown
    stored = np.load(out / "epsilon.npz")
    reference = np.load(GOLDEN / "real_epsilon.npz")["poison__eps"][::16]
    np.testing.assert_allclose(stored["poison__epsilon"], reference, atol=1e-9)
    record = json.loads((out / "epsilon.json").read_text())
    assert record["approaches"]["poison"]["inf"] == int(np.isinf(reference).sum())
    for name in ("epsilon.html", "epsilon.md", "epsilon_delta.svg", "epsilon_margins.svg", "tables/epsilon.csv",
                 "tables/epsilon_challenge.tex", "epsilon_findings.json"):  # fmt: skip
        assert (out / "report" / name).stat().st_size > 200, name
    # Again, with other choices: nothing of the first ones is left. Another folder is refused with the two ways out.
    assert launched(capsys, *arguments, "--metric=epsilon", "--nosweep")[0] == 0
    assert not (out / "report" / "tables" / "epsilon_challenge.tex").exists()
    assert not (out / "report" / "epsilon_delta.svg").exists()
    other = saved(tmp_path / "b.npz", **small(models=5))
    code, _, err = launched(capsys, f"--data={other}", f"--out={out}", "--bootstrap=0")
    assert code == 2 and "--overwrite=epsilon" in err
    assert launched(capsys, f"--data={other}", f"--out={out}", "--bootstrap=0", "--overwrite=epsilon")[0] == 0


def test_the_challenge_alone_ranks_by_its_own_score(folder, tmp_path, capsys):
    code, shown, _ = launched(capsys, f"--data={folder}", f"--out={tmp_path / 'out'}", "--metric=challenge")
    assert code == 0 and "has the highest final score" in shown and "epsilon-hat ↓" not in shown
    record = json.loads((tmp_path / "out" / "epsilon.json").read_text())
    scores = [record["approaches"][name]["challenge"]["final"] for name in record["order"]]
    assert scores == sorted(scores, reverse=True) and len(scores) == 4


def test_results_lie_in_a_folder_of_their_own_name(tmp_path, monkeypatch):
    (tmp_path / "study" / "epsilon" / "running").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    names = {path: _entry.folder_of(path, "") for path in ("a.npz", ".", "study/epsilon/running", "x/data/")}
    assert names == {"a.npz": "runs/a", ".": f"runs/{tmp_path.name}", "x/data/": "runs/data",
                     "study/epsilon/running": "runs/study-epsilon-running"}  # fmt: skip
    assert _entry.folder_of("a.npz", "here") == "here" and _entry.folder_of("", "here") == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no --config given|give --data"),
        (("--data=x.npz", "--all", "--approach=a"), "--all or --approach"),
        (("--data=x.npz", "--samples=a"), "--samples=a: expected numbers"),
        (("--data=x.npz",), "does not exist"),
        # One method: all are traced before the request is looked at.
        (("--config=configs/digits.py:smoke", "--config.unlearn.methods=finetune"), "split.forget.repeats = 1. Set"),
    ],
)
def test_bad_command_lines_exit_with_two(arguments, message, capsys):
    code, _, err = launched(capsys, *arguments)
    assert code == 2 and any(fragment in err for fragment in message.split("|")), err


def test_every_setting_is_a_flag():
    values = flags.FlagValues()
    verb.define(values)
    assert {field.name for field in dataclasses.fields(settings.EpsilonSettings)} <= set(values)
