"""launch.reminisce from arrays: what counts as relearned too soon, how sure that is, what is said, what is refused."""

import json

import numpy as np
import pytest

from jaxunlearn import arrays, settings
from jaxunlearn.analyses import ANALYSES, in_memory
from jaxunlearn.analyses.base import Context
from jaxunlearn.analyses.reminiscence import measures, sections
from jaxunlearn.attacks import relearning
from jaxunlearn.metrics import roc
from launch import _entry, reminisce

REA = ANALYSES["reminiscence"]
QUIET = Context(lambda text: None, lambda *now: None, lambda name, facts, compute: compute())
STEPS = 20


def trajectories(first):
    """[T, STEPS] accuracies over 20 probes that are 0.9 or more from step `first` on; STEPS = never."""
    step = np.arange(STEPS)[None]
    rising = np.minimum(0.85, 0.9 * (step + 1) / (first[:, None] + 1))
    return np.floor(np.where(step < first[:, None], rising, 0.95) * 20) / 20


def trials(
    generator, models, *, sets=8, repeats=4, unseen=2, ease=3.0, model_noise=1.5, speed=0.2, noise=1.5, rates=(0.1,)
):
    """Arrays of trials; what every set's class is like, its probes and the unseen classes are common to all models.

    Args:
      generator: of all draws.
      models: name -> (sooner, faster): steps by which its forgotten classes come back sooner than they would, and a
        factor of all of its steps.
      sets, repeats, unseen: forget sets, trials per class, unseen classes.
      ease: deviation of a class' steps; own: of what one model makes of one class; noise: of a trial.
      speed: deviation of the logarithm of a model's pace.
      rates: learning rates.
    """
    columns = {name: [] for name in ("first", "forgotten", "set", "rate", "model")}
    classes = generator.normal(8, ease, (sets, 1)), generator.normal(8, ease, unseen)
    base = np.concatenate([classes[0], np.broadcast_to(classes[1], (sets, unseen))], 1)
    probes = generator.normal(0, 1, (sets, repeats, 1 + unseen))
    forgotten = np.arange(1 + unseen) == 0
    for name, (sooner, faster) in models.items():
        pace = faster * np.exp(generator.normal(0, speed, (sets, 1, 1)))
        taken = base + generator.normal(0, model_noise, base.shape) - sooner * forgotten
        for rate in rates:
            first = pace * (taken[:, None] + probes + generator.normal(0, noise, probes.shape))
            shape = first.shape
            columns["first"].append(np.clip(np.rint(first), 0, STEPS).ravel())
            columns["forgotten"].append(np.broadcast_to(forgotten, shape).ravel())
            columns["set"].append(np.broadcast_to(np.arange(sets)[:, None, None], shape).ravel())
            columns["rate"].append(np.full(first.size, rate))
            columns["model"].append(np.full(first.size, name))
    joined = {name: np.concatenate(values) for name, values in columns.items()}
    return {"accuracy": trajectories(joined.pop("first")), **joined}


def two_models(sooner=0.0, faster=1.0, seed=0, **more):
    models = {"retrained": (0.0, 1.0), "ssd": (sooner, faster)}
    return trials(np.random.default_rng(seed), models, **more)


def without(values, name):
    return {key: array[values["model"] != name] for key, array in values.items()}


def read(values):
    return REA.from_arrays(arrays.read(values, REA.fields, REA.expected), settings.resolve({"seed": 0}))


def analyse(values, **options):
    resolved = settings.resolve({"reminisce": options, "seed": 0})
    REA.check(resolved)
    checked = arrays.read(values, REA.fields, REA.expected)
    return REA.analyse(REA.from_arrays(checked, resolved), resolved, QUIET)


def report(values, **options):
    return in_memory.run(REA, values, **options)


def verdicts(values, **options):
    return {name: sections.verdict(number) for name, number in sections.judged(analyse(values, **options)).items()}


@pytest.fixture
def launch(tmp_path, capsys):
    def run(values, *flags, out="out"):
        np.savez(tmp_path / "my.npz", **values)
        argv = ["x", f"--trajectories={tmp_path / 'my.npz'}", f"--out={tmp_path / out}", *flags]
        code = _entry.main(reminisce.command, reminisce.__doc__, argv, define=reminisce.define, alone=reminisce.alone)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


# ---------------------------------------------------------------------------------------------------------------------
# what counts


def test_a_residual_is_found():
    assert verdicts(two_models(sooner=6.0)) == {"ssd": "residual"}


def test_a_class_that_is_easy_for_retrained_models_too_is_no_residual():
    values = two_models(model_noise=1.0)
    easy = values["forgotten"]
    first = relearning.first_steps(values["accuracy"], 0.9)
    values["accuracy"] = trajectories(np.where(easy, np.minimum(first, 1 + first // 10), first))
    measured = analyse(values)
    assert measured.roles["ssd"].metrics["auc"].low > 0.7  # against unseen classes it is relearned far sooner
    assert sections.verdict(measured.roles["ssd"].metrics["rea_excess"]) == "nothing shown"
    alone = verdicts(without(values, "retrained"))
    assert alone == {"ssd": "residual"}  # what the control is for


def test_a_model_that_learns_everything_sooner_is_no_residual():
    values = two_models(faster=0.4)
    first = relearning.first_steps(values["accuracy"], 0.9)
    mean = {name: first[values["forgotten"] & (values["model"] == name)].mean() for name in ("retrained", "ssd")}
    assert mean["ssd"] < 0.6 * mean["retrained"]
    assert verdicts(values) == {"ssd": "nothing shown"}


def test_against_equals_a_loop_over_pairs():
    values = two_models(sooner=1.0, sets=3, rates=(0.1, 0.2))
    measured = analyse(values)
    ssd, control = measured.roles["ssd"], measured.roles["retrained"]
    expected = []
    for unit in range(3):
        masks = []
        for name, attack in (("ssd", ssd), ("retrained", control)):
            role_trials = measured.trials[name].trials
            masks.append(
                attack.scores[
                    role_trials.forgotten & (role_trials.unit == unit) & (role_trials.rate == ssd.rates[unit])
                ]
            )
        wins = [float(a > b) + 0.5 * float(a == b) for a in masks[0] for b in masks[1]]
        expected.append(sum(wins) / len(wins))
    np.testing.assert_allclose(ssd.excess, expected, atol=1e-12)
    assert ssd.metrics["rea_excess"].value == pytest.approx(np.mean(expected), abs=1e-12)


def test_scores_are_deviations_from_the_unseen_classes_of_the_same_model_and_rate():
    values = read(two_models(rates=(0.1, 0.2), sets=3)).roles["ssd"]().trials
    scores = measures.score(values, 0.9, break_ties=False)
    for unit in range(3):
        for rate in (0.1, 0.2):
            rows = [row for row in range(len(scores)) if values.unit[row] == unit and values.rate[row] == rate]
            steps = relearning.first_steps(values.accuracy[rows], 0.9)
            unseen = [float(step) for step, row in zip(steps, rows, strict=True) if not values.forgotten[row]]
            expected = (np.mean(unseen) - steps) / max(np.std(unseen), 0.5)
            np.testing.assert_allclose(scores[rows], expected, atol=1e-12)


def test_the_decision_for_a_set_never_looks_at_its_own_trials():
    values = two_models(sooner=3.0, rates=(0.1, 0.2), sets=4)
    ssd_trials = read(values).roles["ssd"]().trials
    steps = relearning.first_steps(ssd_trials.accuracy, 0.9)
    scores = measures.score(ssd_trials, 0.9, True)
    before = measures.judge(ssd_trials, scores, steps, np.arange(4), 0.1)
    is_own = ssd_trials.unit == 2
    changed = np.where(is_own, np.random.default_rng(1).permutation(scores), scores)
    flipped = ssd_trials._replace(forgotten=np.where(is_own, ~ssd_trials.forgotten, ssd_trials.forgotten))
    after = measures.judge(flipped, changed, steps, np.arange(4), 0.1)
    assert after.rates[2] == before.rates[2]
    # The same threshold: equal scores get the same decision, whatever the truth about them.
    same = measures.judge(flipped, scores, steps, np.arange(4), 0.1)
    np.testing.assert_array_equal(same.is_called_forgotten[is_own], before.is_called_forgotten[is_own])
    assert before.is_judged[is_own].sum() == is_own.sum() // 2 and before.is_called_forgotten[is_own].any()
    assert (
        same.is_called_forgotten[~is_own] != before.is_called_forgotten[~is_own]
    ).any()  # the others' decisions do look at it


def test_ranking_numbers_are_those_of_the_metrics():
    values = two_models(sooner=2.0, sets=3)
    attack = analyse(values).roles["ssd"]
    ssd_trials = read(values).roles["ssd"]().trials
    by_set = [
        (attack.scores[ssd_trials.unit == unit], ssd_trials.forgotten[ssd_trials.unit == unit]) for unit in range(3)
    ]
    for name, number in (
        ("auc", roc.auc),
        ("tpr_at_fpr_5e-2", lambda score, truth: roc.tpr_at_fpr(score, truth, 0.05)),
        ("rea_published", roc.balanced_accuracy),
    ):
        expected = np.mean([number(*set_scores) for set_scores in by_set])
        assert attack.metrics[name].value == pytest.approx(expected, abs=1e-12), name
    steps = relearning.first_steps(ssd_trials.accuracy, 0.9)
    for name, kind in (("steps_forgotten", ssd_trials.forgotten), ("steps_unseen", ~ssd_trials.forgotten)):
        medians = [np.median(steps[kind & (ssd_trials.unit == unit)]) for unit in range(3)]
        assert attack.metrics[name].value == pytest.approx(np.mean(medians), abs=1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# how sure


@pytest.mark.parametrize("world", [
    {"sets": 6, "model_noise": 1.5}, {"sets": 3, "model_noise": 6.0, "noise": 0.5},
    {"sets": 6, "model_noise": 0.0, "noise": 0.0},
    {"sets": 9, "model_noise": 6.0, "noise": 0.5, "repeats": 2},
])  # fmt: skip
def test_models_like_the_retrained_ones_are_called_residual_in_at_most_one_case_of_twenty(world):
    """Any of two methods; 0.05 of 40 simulations is 2, and 7 or more have a chance of 0.3 %."""
    models = dict.fromkeys(("retrained", "ssd", "amnesiac"), (0.0, 1.0))
    wrong = 0
    for seed in range(40):
        values = trials(np.random.default_rng([seed, 7]), models, **{"repeats": 3, "unseen": 2, **world})
        wrong += "residual" in verdicts(values).values()
    assert wrong <= 6


def test_intervals_of_sets_whose_models_differ_by_chance_keep_their_level():
    """AUCs near 0 or 1 by a coin per set, as where models take to one class more than to another."""
    generator = np.random.default_rng(3)
    for sets, methods in ((2, 1), (3, 3), (4, 7), (6, 1), (7, 3), (9, 7)):
        level, wrong = 1 - 0.05 / methods, 0
        for _ in range(400):
            coins = generator.random((methods, sets)) < 0.5
            values = np.abs(coins - generator.uniform(0, 0.06, coins.shape))
            wrong += any(measures.excess(method_values, level, "a", "b").low > 0.5 for method_values in values)
        assert wrong <= 32, (sets, methods)  # 20 expected; sd 4.4


def test_how_many_sets_a_comparison_needs():
    for level in (0.5, 0.8, 0.9, 0.95, 0.99, 1 - 0.05 / 7):
        least = measures.least_sets(level)
        assert 2.0 ** (1 - least) <= 1 - level + 1e-9 < 2.0 ** (2 - least), level
    assert measures.least_sets(0.95) == 6
    few = measures.excess(np.asarray([0.98, 0.99, 0.97, 0.98, 0.99]), 0.95, "a", "b")
    assert np.isnan(few.low) and few.value == pytest.approx(0.982)
    enough = measures.excess(np.asarray([0.98, 0.99, 0.97, 0.98, 0.99, 0.98]), 0.95, "a", "b")
    assert enough.low > 0.9
    lost = measures.excess(np.asarray([0.98, 0.99, 0.97, 0.98, 0.99, np.nan]), 0.95, "a", "b")
    assert lost.n == 5 and np.isnan(lost.low)


@pytest.mark.parametrize("step", [0, STEPS])
def test_trials_that_all_end_alike_say_nothing(step):
    values = two_models(sets=7)
    values["accuracy"] = trajectories(np.full(len(values["set"]), float(step)))
    attack = analyse(values).roles["ssd"]
    assert attack.metrics["auc"].value == attack.metrics["rea_excess"].value == 0.5
    assert not attack.metrics["rea_accuracy"].low > 0.5
    assert "residual" not in verdicts(values).values()
    assert "no variation among them): ssd (.500)" in report(values).answer


def test_more_methods_make_every_interval_longer():
    models = {"retrained": (0.0, 1.0), "ssd": (2.0, 1.0), "amnesiac": (0.0, 1.0), "original": (9.0, 1.0)}
    values = trials(np.random.default_rng(0), models, sets=9)
    three, two = analyse(values), analyse(without(values, "amnesiac"))
    excesses = [result.roles["ssd"].metrics["rea_excess"] for result in (three, two)]
    assert excesses[0].confidence_level == pytest.approx(0.975) and excesses[1].confidence_level == pytest.approx(0.95)
    assert excesses[0].high - excesses[0].low > excesses[1].high - excesses[1].low
    assert list(sections.judged(three)) == ["ssd", "amnesiac"]  # nothing is said of originals


def test_one_set_has_nothing_to_fit_a_decision_on():
    composed = report(two_models(sooner=6.0, sets=1), learning_rates=(0.1,))
    attack = analyse(two_models(sooner=6.0, sets=1)).roles["ssd"]
    assert np.isnan(attack.metrics["rea_accuracy"].value) and attack.metrics["auc"].value > 0.9
    assert not attack.is_judged.any()
    assert "with one there is no other model to fit a decision on" in dict(composed.summary)["What could not be found"]
    assert "Attack models of several forget sets" in dict(composed.summary)["What to do"]


def test_sets_of_one_side_only_are_left_out():
    values = two_models(sooner=6.0, sets=8)
    kept = ~((values["model"] == "retrained") & (values["set"] == 3))
    attack = analyse({name: array[kept] for name, array in values.items()}).roles["ssd"]
    assert np.flatnonzero(np.isnan(attack.excess)).tolist() == [3] and attack.metrics["rea_excess"].n == 7
    models = {"retrained": (0.0, 1.0), "ssd": (6.0, 1.0), "amnesiac": (0.0, 1.0)}
    values = trials(np.random.default_rng(0), models)
    kept = (values["model"] == "amnesiac") | (values["set"] != 3)
    both = analyse({name: array[kept] for name, array in values.items()}).roles
    assert len(both["ssd"].excess) == len(both["amnesiac"].excess) == 8  # they can be compared in pairs
    none = analyse(without(values, "retrained")).roles["ssd"]
    assert "rea_excess" not in none.metrics and len(none.excess) == 0


# ---------------------------------------------------------------------------------------------------------------------
# what is said


def test_the_answer_in_words():
    models = {"original": (9.0, 1.0), "retrained": (0.0, 1.0), "finetune": (8.0, 1.0), "ssd": (0.0, 1.0)}
    composed = report(trials(np.random.default_rng(2), models, sets=9, model_noise=1.0))
    summary = dict(composed.summary)
    assert list(summary) == ["What was asked", "What was found", "What could not be found", "What to do"]
    assert "The forgotten class is relearned sooner than retrained models relearn it by finetune (" in composed.answer
    assert "No sooner than retrained models relearn it, as far as these trials can show, by ssd (" in composed.answer
    assert "for all 2 together" in composed.answer and "original" not in composed.answer
    assert summary["What to do"].startswith("Do not hand out the weights of finetune:")
    assert "Per method and rate 36 trials of the forgotten class, 72 of unseen ones" in summary["What was asked"]
    lines = " ".join(str(composed).split())
    assert composed.answer in lines and "Is the forgotten class relearned too soon?" in lines


def test_nothing_shown_is_no_proof():
    summary = dict(report(two_models(sets=9)).summary)
    assert summary["What to do"].startswith("Nothing can be concluded: by the intervals an AUC may be anything up to .")
    summary = dict(report(two_models(sets=60)).summary)
    assert summary["What to do"].startswith("This attack shows no residual.")
    assert "does not prove that anything was forgotten" in summary["What could not be found"]


def test_few_sets_are_said_to_be_few():
    summary = dict(report(two_models(sooner=6.0, sets=4)).summary)
    assert "Unknown (too few forget sets, or no variation among them): ssd (" in summary["What was found"]
    assert "At least 6 are needed" in summary["What could not be found"]
    assert summary["What to do"].startswith("Attack models of several forget sets")


def test_without_retrained_models_unseen_classes_are_the_yardstick_and_the_limit_is_named():
    values = without(two_models(sooner=6.0), "retrained")
    summary = dict(report(values).summary)
    assert "In brackets the AUC against unseen classes" in summary["What was found"]
    assert "There is no retrained model among them" in summary["What could not be found"]
    bare = {name: values[name] for name in ("accuracy", "forgotten", "set")}
    assert "given model (" in report(bare).answer


def test_a_class_that_is_relearned_later_than_unseen_ones_is_no_residual():
    values = without(two_models(sooner=-8.0, ease=1.0, sets=8), "retrained")
    metrics = analyse(values).roles["ssd"].metrics
    assert metrics["rea_accuracy"].low > 0.5 > metrics["auc"].high  # the attack is right, by calling what comes late
    assert verdicts(values) == {"ssd": "nothing shown"}


def test_the_control_is_found_by_its_name():
    for name in ("retrained", "Retrain", "RETRAINED"):
        values = two_models()
        values["model"] = np.where(values["model"] == "retrained", name, "ssd")
        assert read(values).control == name
    assert read(without(two_models(), "retrained")).control == ""


# ---------------------------------------------------------------------------------------------------------------------
# files


def test_from_a_file_to_results_and_back(launch, tmp_path):
    values = two_models(sooner=6.0, rates=(0.1, 0.2))
    code, output = launch(values, "--dry_run")
    assert code == 0 and not (tmp_path / "out").exists()
    assert "64 trials of forgotten and 128 of unseen classes, 8 forget set(s), 2 learning rate(s)" in output
    code, output = launch(values)
    assert code == 0 and "relearned sooner than retrained models" in output

    def refuse(text):
        raise ValueError(text)

    kept = json.loads((tmp_path / "out" / "reminiscence.json").read_text(), parse_constant=refuse)
    assert kept["control"] == "retrained" and kept["roles"]["ssd"]["rea_excess"][1] > 0.5
    assert kept["roles"]["ssd"]["trials"] == [32, 64]
    assert (tmp_path / "out" / "report" / "reminiscence.html").stat().st_size
    with np.load(tmp_path / "out" / "reminiscence.npz") as file:
        first = dict(file)
    assert first["score"].shape == (384,) and first["judged"].sum() == 192
    argv = ["x", f"--trajectories={tmp_path / 'out' / 'reminiscence.npz'}", f"--out={tmp_path / 'again'}"]
    assert _entry.main(reminisce.command, "", argv, define=reminisce.define, alone=reminisce.alone) == 0
    again = json.loads((tmp_path / "again" / "reminiscence.json").read_text())
    assert again == kept
    with np.load(tmp_path / "again" / "reminiscence.npz") as second:
        for name, array in first.items():
            np.testing.assert_array_equal(second[name], array)


def test_what_has_no_number_is_null_in_the_file(launch, tmp_path):
    code, output = launch(two_models(sets=1))
    assert code == 0, output
    kept = json.loads((tmp_path / "out" / "reminiscence.json").read_text(), parse_constant=pytest.fail)
    assert kept["roles"]["ssd"]["rea_accuracy"] == [None, None, None]


BARE = {"sets": 2, "repeats": 2, "unseen": 1}
COUNT = 16
REFUSED = {
    "of one kind": ({"forgotten": np.ones(COUNT, bool)}, (), "retrained: the trials of forget set 0 at learning rate"),
    "percent": ({"accuracy": np.full((COUNT, 5), 95.0)}, (), "from 95 to 95, expected fractions from 0 to 1. Divide"),
    "NaN": ({"accuracy": np.full((COUNT, 5), np.nan)}, (), "NaN"),
    "negative": ({"accuracy": np.full((COUNT, 5), -0.1)}, (), "expected fractions from 0 to 1"),
    "one accuracy": ({"accuracy": np.full(COUNT, 0.5)}, (), "accuracy"),
    "no steps": ({"accuracy": np.zeros((COUNT, 0))}, (), "accuracy'"),
    "a length": ({"forgotten": np.arange(COUNT - 1) % 2}, (), "forgotten"),
    "a rate of NaN": ({"rate": np.full(COUNT, np.nan)}, (), "rate"),
    "loss of another shape": ({"loss": np.ones((COUNT, 3))}, (), "loss"),
    "a name": ({"forgoten": np.ones(COUNT)}, (), "Did you mean 'forgotten'"),
    "no rates": ({}, ("--learning_rates=",), "learning_rates"),
    "a rate of 0": ({}, ("--learning_rates=0",), "at least one rate above 0"),
    "a threshold": ({}, ("--threshold=1.5",), "threshold"),
    "settings of runs": ({}, ("--trials=4",), "--trials belongs to --config"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_clear_message(case, launch):
    changed, flags, message = REFUSED[case]
    code, output = launch({**two_models(**BARE), **changed}, *flags, "--dry_run")
    assert code == 2 and message in output and "Traceback" not in output, output


def test_trials_that_cannot_be_compared_are_refused(launch):
    values = two_models(**BARE)
    code, output = launch({**values, "rate": np.where(values["model"] == "ssd", 0.1, 0.2)}, "--dry_run")
    assert code == 2 and "ssd shares no forget set and learning rate with retrained" in output
    names = np.asarray(["dogs", "cats"])[values["set"]]
    one_kind = values["forgotten"] | (values["set"] == 1)
    code, output = launch({**values, "set": names, "forgotten": one_kind}, "--dry_run")
    assert code == 2 and "the trials of forget set cats at learning rate 0.1 are 4 of what" in output


def test_what_is_missing_is_named(launch):
    for name in ("accuracy", "forgotten"):
        values = two_models(**BARE)
        del values[name]
        code, output = launch(values, "--dry_run")
        assert code == 2 and f"there is no array '{name}'" in output and "It contains relearning trials" in output
