"""launch.leaks from arrays: the published numbers, the answer in words, intervals, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxunlearn import arrays, settings
from jaxunlearn.analyses import ANALYSES, in_memory
from jaxunlearn.analyses.base import Context
from jaxunlearn.attacks.leaks import features
from launch import _entry, leaks

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "unlearning_leaks"
LEAKS = ANALYSES["leaks"]
ORDER = ("direct_diff", "sorted_diff", "direct_concat", "sorted_concat", "l2_distance", "basic_mia")
QUIET = Context(lambda text: None, lambda *now: None, lambda name, facts, compute: compute())


def published():
    """Posteriors by the published names."""
    with np.load(GOLDEN / "pipeline_a.npz") as content:
        return {name: content[name] for name in content.files if name.startswith(("train_", "test_"))}


def pairs(signal=0.05, number=200, classes=3, seed=0, sets=10):
    """Arrays by our names: deleted records move by `signal`, the others by a tenth of the least signal."""
    columns = {}
    for side, draw in zip(("shadow", "target"), np.random.default_rng(seed).spawn(2), strict=True):
        original = draw.dirichlet(np.ones(classes), number)
        deleted = np.arange(number) % 2 == 0
        size = np.where(deleted, signal, 0.005)[:, None]
        moved = np.clip(original + size * draw.normal(size=original.shape), 1e-6, None)
        columns |= {f"{side}_original": original, f"{side}_unlearned": moved / moved.sum(1, keepdims=True),
                  f"{side}_deleted": deleted, f"{side}_set": np.arange(number) * sets // number}  # fmt: skip
    return columns


def analyse(posteriors, **options):
    resolved = settings.resolve({"leaks": options, "seed": 0})
    LEAKS.check(resolved)
    inputs = LEAKS.from_arrays(arrays.read(posteriors, LEAKS.fields, LEAKS.expected), resolved)
    return LEAKS.analyse(inputs, resolved, QUIET)


def report(posteriors, **options):
    return in_memory.run(LEAKS, posteriors, **options)


@pytest.fixture
def launch(tmp_path, capsys):
    def run(posteriors, *flags, out="out"):
        np.savez(tmp_path / "my.npz", **posteriors)
        argv = ["x", f"--posteriors={tmp_path / 'my.npz'}", f"--out={tmp_path / out}", *flags]
        code = _entry.main(leaks.command, leaks.__doc__, argv, define=leaks.define, alone=leaks.alone)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def test_published_posteriors_under_their_published_names_give_the_published_numbers():
    with np.load(GOLDEN / "pipeline_a.npz") as content:
        table = content["DT_table"]
    measured = analyse(published())
    for name, row in zip(ORDER, table, strict=True):
        metrics = measured.features[name].metrics
        assert measured.features[name].shadow_auc == pytest.approx(row[1], abs=1e-12)
        for statistic, expected in zip(("accuracy", "auc", "deg_rate", "deg_count"), row[2:], strict=True):
            assert metrics[statistic].value == pytest.approx(expected, abs=1e-12), (name, statistic)


def test_the_answer_says_what_the_second_version_adds():
    report_of_pairs = report(pairs())
    questions = dict(report_of_pairs.summary)
    assert list(questions) == ["What was asked", "What was found", "What could not be found", "What to do"]
    assert questions["What was found"].startswith("Seeing both versions raises the attack: AUC .")
    assert "sorted_diff was fixed in advance" in questions["What was asked"]
    assert "Do not let the same people query both versions" in questions["What to do"]
    wide = dict(report(pairs(signal=0.005, sets=2)).summary)
    assert wide["What to do"].startswith("Nothing can be concluded: by its interval the AUC of this attack may be")
    nothing = dict(report(pairs(signal=0.005)).summary)
    assert "not distinguishable from seeing the original alone" in nothing["What was found"]
    assert nothing["What to do"].startswith("This attack shows no leak: its AUC is at most .")
    assert "no proof that nothing leaks" in nothing["What to do"]


def test_the_feature_named_first_is_the_one_fixed_in_advance():
    by_concatenation = report(pairs(), feature="direct_concat")
    assert (
        "both versions (direct_concat)" in by_concatenation.answer
        and "an optimistic maximum" in by_concatenation.answer
    )
    only = analyse(pairs(), features=("l2_distance",), feature="l2_distance").features
    assert list(only) == ["l2_distance", "basic_mia"]  # the classical attack is always measured
    by_distance = analyse(pairs(), attack="threshold", feature="l2_distance").features
    assert list(by_distance) == ["l2_distance", "basic_mia"] and by_distance["l2_distance"].metrics["auc"].value > 0.9


def test_records_of_one_set_are_no_independent_evidence():
    """Every record ten times in one set: the interval must not become shorter."""
    once = pairs(number=80, signal=0.012)
    often = {name: np.repeat(array, 10, axis=0) if name.startswith("target") else array for name, array in once.items()}
    intervals = [
        analyse(posteriors, feature="l2_distance").features["l2_distance"].metrics["auc"]
        for posteriors in (once, often)
    ]
    lengths = [auc.high - auc.low for auc in intervals]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.05) and intervals[0].n == 10
    del often["target_set"]
    free = analyse(often, feature="l2_distance").features["l2_distance"].metrics["auc"]
    assert free.high - free.low < 0.6 * lengths[0]
    assert "intervals treat records as independent" in dict(report(often).summary)["What could not be found"]


def test_null_data_are_called_null_in_nineteen_of_twenty_cases():
    """Sets that share an error (their own shift of all answers) and no signal."""
    covered = 0
    for seed in range(40):
        posteriors = pairs(signal=0.005, number=120, seed=seed, sets=12)
        finding = (
            analyse(posteriors, feature="l2_distance", features=("l2_distance",)).features["l2_distance"].metrics["auc"]
        )
        covered += finding.low <= 0.5 <= finding.high
    assert covered >= 34


def test_repeats_are_attacked_apart_and_their_deviation_is_shown():
    first, second = pairs(seed=1), pairs(seed=2, signal=0.02)
    joined = {name: np.concatenate([first[name], second[name]]) for name in first}
    repeats = np.repeat(["a", "b"], 200)
    both = (
        analyse({**joined, "shadow_repeat": repeats, "target_repeat": repeats}).features["sorted_diff"].metrics["auc"]
    )
    single = [analyse(half).features["sorted_diff"].metrics["auc"].value for half in (first, second)]
    assert both.value == pytest.approx(np.mean(single), abs=1e-12) and both.n == 20
    assert both.std == pytest.approx(np.std(single), abs=1e-12)


def test_what_is_published_decides_what_is_revealed():
    posteriors = pairs(classes=4)
    plain, label = analyse(posteriors), analyse(posteriors, defence="label")
    assert label.features["sorted_diff"].metrics["auc"].value < plain.features["sorted_diff"].metrics["auc"].value - 0.2
    assert np.isin(label.published.target.original, (0.0, 1.0)).all()
    same = analyse(posteriors, defence="top_k", top_k=4)
    np.testing.assert_array_equal(same.features["sorted_diff"].score, plain.features["sorted_diff"].score)


def test_sigmoid_outputs_and_half_precision_are_posteriors():
    posteriors = pairs(classes=2)
    sigmoid_outputs = {
        name: array[:, 1] if "original" in name or "unlearned" in name else array for name, array in posteriors.items()
    }
    a, b = (
        analyse(values, features=("direct_diff",)).features["direct_diff"] for values in (posteriors, sigmoid_outputs)
    )
    np.testing.assert_allclose(a.score, b.score, atol=1e-12)
    half = {
        name: array.astype(np.float16) if array.dtype == np.float64 else array for name, array in posteriors.items()
    }
    assert analyse(half).published.target.original.dtype == np.float32


def test_from_a_file_to_results_on_disk(launch, tmp_path):
    posteriors = {**pairs(), "target_ids": np.asarray([f"person {row}" for row in range(200)])}
    code, printed_text = launch(posteriors, "--dry_run")
    assert code == 0 and "100 deleted and 100 other records, 3 classes, 10 record sets" in printed_text
    assert not (tmp_path / "out").exists()
    code, printed_text = launch(posteriors, "--attack=lr", "--feature=l2_distance")
    assert code == 0 and "Seeing both versions raises the attack" in printed_text
    with np.load(tmp_path / "out" / "leaks.npz") as saved:
        assert saved["l2_distance__score"].shape == (200,) and saved["ids"][3] == "person 3"
    record = json.loads((tmp_path / "out" / "leaks.json").read_text())
    assert set(record["features"]) == set(features.FEATURES) and record["attack"] == "lr"
    lines = (tmp_path / "out" / "leaks.csv").read_text().splitlines()
    assert len(lines) == 201 and "person" in lines[1]
    for name in ("leaks.html", "leaks_features.svg", "leaks_distances.svg", "tables/leaks_features.csv"):
        assert (tmp_path / "out" / "report" / name).stat().st_size


REFUSED = {
    "a kind is missing": ({"target_deleted": np.ones(200, bool)}, (), "target_deleted holds 200 deleted and 0 other"),
    "logits": ({"shadow_original": np.random.default_rng(0).normal(size=(200, 3))}, (), "shadow_original contains no"),
    "other classes": ({"target_unlearned": np.full((200, 4), 0.25)}, (), "target_unlearned"),
    "a name": ({"target_delete": np.zeros(200)}, (), "Did you mean 'target_deleted'"),
    "NaN": ({"shadow_original": np.full((200, 3), np.nan)}, (), "shadow_original contains 600 value(s) that are NaN"),
    "a repeat alone": ({"target_repeat": np.arange(200) % 2}, (), "repeat 1 is on one side only"),
    "top_k": ({}, ("--defence=top_k", "--top_k=4"), "top_k = 4: a posterior over 3 classes"),
    "a feature": ({}, ("--features=difference",), "unknown feature 'difference'"),
    "threshold": ({}, ("--attack=threshold",), "is not what attack = 'threshold' looks at"),
    "settings of runs": ({}, ("--sets=4",), "--sets belongs to --config"),
    "a word": ({}, ("--attack=tree",), "attack"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_clear_message(case, launch):
    changed, flags, message = REFUSED[case]
    code, printed_text = launch({**pairs(), **changed}, *flags, "--dry_run")
    assert code == 2 and message in printed_text and "Traceback" not in printed_text


def test_what_is_missing_is_named(launch):
    posteriors = pairs()
    del posteriors["shadow_deleted"]
    code, printed_text = launch(posteriors, "--dry_run")
    assert (
        code == 2
        and "there is no array 'shadow_deleted'" in printed_text
        and "posteriors of both versions" in printed_text
    )
