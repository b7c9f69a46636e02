"""Headlines on made-up arrays whose truth is known: a winner, the original wins, ties, one of a kind, no number."""

import functools
import math

import numpy as np
import pytest

from jaxunlearn import settings
from jaxunlearn.analyses.epsilon import measures, wording
from jaxunlearn.analyses.epsilon import sections as epsilon_sections
from jaxunlearn.analyses.evaluation import sections
from jaxunlearn.analyses.evaluation import wording as evaluation_wording
from jaxunlearn.metrics.epsilon import epsilon_bounds
from jaxunlearn.records import Design
from jaxunlearn.runs.studies import conformal_loss, methods
from jaxunlearn.runs.verbs import unlearn

FORBIDDEN = ("inf ", "inf.", "inf,", "nan", "∞", "– ", "from inf")


def clean(text):
    """No number that is none reaches a sentence."""
    assert not any(word in text for word in FORBIDDEN), text
    return text


def metrics(ua, sets=6, seed=0, noise=0.002):
    generator = np.random.default_rng(seed)
    return {"UA": ua + noise * generator.normal(size=sets), "RA": np.full(sets, 0.99), "TA": np.full(sets, 0.9)}


def evaluation(sets=6, **roles):
    """`retrained` has UA .2, the original 0, unless given."""
    references = {"original": metrics(0.0, sets, 1), "retrained": metrics(0.2, sets, 2)}
    return sections.Evaluation({**references, **roles}, (0.1,), 0.1, sets, {}, {}, Design("per_set", sets))


def test_a_method_that_is_closer_than_the_original_is_named_with_those_that_equal_it():
    near, same, far = metrics(0.19, seed=3), metrics(0.19, seed=4), metrics(0.1, seed=5)
    text = clean(evaluation_wording.answer_text(evaluation(near=near, same=same, far=far)))
    assert "Closest to retraining in UA, RA and TA: " in text and "less than the original model (6." in text
    assert "Smallest of 3 gaps (selected post hoc)." in text
    winner, other = ("near", "same") if "TA: near" in text else ("same", "near")
    assert f"TA: {winner}, " in text and f"Not distinguishable from it: {other}." in text


def test_the_original_can_win():
    text = clean(evaluation_wording.answer_text(evaluation(away=metrics(0.7, seed=3), still=metrics(0.0, seed=1))))
    assert (
        "By the intervals, no method is closer to retraining in UA, RA and TA than the original model, which is 6."
        in text
    )
    assert "Smallest of 2 gaps (selected post hoc): still, 6." in text and "Closest" not in text


def test_controls_and_the_exact_answer_never_win():
    roles = {name: metrics(0.2, seed=3) for name in ("random_perturb", "retrain", "retrain@lr=0.1")}
    text = clean(evaluation_wording.answer_text(evaluation(**roles)))
    assert text.endswith("No unlearning method was measured, so none is compared with retraining.")
    again = evaluation_wording.answer_text(evaluation(near=metrics(0.1, seed=5), **roles))
    assert " near is closer to retraining " in again


def test_one_method_one_forget_set_and_no_numbers_have_sentences_of_their_own():
    alone = clean(evaluation_wording.answer_text(evaluation(mine=metrics(0.19, seed=3))))
    assert "mine is closer to retraining in UA, RA and TA than the original model: " in alone and "of 1" not in alone
    alone = clean(evaluation_wording.answer_text(evaluation(mine=metrics(0.0, seed=1))))
    assert "By the intervals, mine is not closer to retraining" in alone and "of 1" not in alone
    one_set = clean(evaluation_wording.answer_text(evaluation(1, a=metrics(0.19, 1), b=metrics(0.1, 1))))
    assert "There are too few forget sets for intervals, so no method is called closer" in one_set
    nothing = {name: np.full(6, np.nan) for name in ("UA", "RA", "TA")}
    text = clean(evaluation_wording.answer_text(evaluation(a=nothing)))
    assert "How close a comes to retraining in UA, RA and TA is not known" in text
    text = clean(evaluation_wording.answer_text(evaluation(a=metrics(0.1), retrained=nothing)))
    assert "Exact retraining has no numbers here" in text and "is not known" in text
    assert "No unlearning method was measured" in clean(evaluation_wording.answer_text(evaluation()))


def test_without_retrained_or_original_models_nothing_is_called_closest():
    roles = {"unlearned": metrics(0.1, 1), "b": {"UA": np.full(1, np.nan)}}
    alone = sections.Evaluation(roles, (0.1,), 0.1, 1, {}, {}, Design("given", 1))
    text = clean(evaluation_wording.answer_text(alone))
    assert text.startswith("No retrained models were given") and "b: nothing could be measured." in text
    results = evaluation(a=metrics(0.19), b=metrics(0.1))
    del results.roles["original"]
    text = clean(evaluation_wording.answer_text(results))
    assert "The original model was not measured, so no method is called closest" in text


def test_the_study_of_methods_speaks_of_the_same_comparison():
    def role(ua, seed):
        return unlearn.Utility(metrics(ua, seed=seed))

    nothing = methods.records.Finding(math.nan)
    references = [methods.records.Finding(value) for value in (0.6, 0.6, 0.5)]
    named = {"original": role(0.0, 1), "retrained": role(0.2, 2), "unlearned:near": role(0.19, 3)}
    membership = {name: methods.MembershipSummary(*references) for name in named}
    text = clean(methods.answer_text(unlearn.UnlearningSummary(named, 0.0, Design("per_set", 6)), membership))
    assert "near is closer to retraining in UA, RA and TA than the original model" in text
    membership["retrained"] = methods.MembershipSummary(nothing, nothing, nothing)
    text = clean(methods.answer_text(unlearn.UnlearningSummary(named, 0.0, Design("per_set", 6)), membership))
    assert text.startswith("The retrained models diverged")


def test_a_weight_whose_members_diverged_is_said():
    roles = {"m": {"UA": np.full(3, 0.1), "TA": np.full(3, 0.9)}, "m2": {name: np.full(3, np.nan) for name in "UA"}}
    lines = [conformal_loss.MethodRow("m", "m", 0.0), conformal_loss.MethodRow("m2", "m", 1.0)]
    results = sections.Evaluation(roles, (0.1,), 0.1, 3, {}, {}, Design("per_set", 3))
    text = clean(conformal_loss.present(results, lines).text)
    assert text.startswith("What lambda 1 changes could not be measured")


# ---------------------------------------------------------------------------------------------------------------------
# epsilon-hat

LABELS = np.arange(12) % 3


@pytest.fixture(autouse=True, scope="module")
def simulated_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(epsilon_bounds, "simulate_null_median", functools.cache(epsilon_bounds.simulate_null_median))
        yield


def models(shift, seed, count=24, samples=12):
    """Logits [S, N, 3] whose true class is `shift` higher than a retrained model's."""
    values = np.random.default_rng(seed).normal(size=(samples, count, 3)).astype("f4")
    values[np.arange(samples), :, LABELS[:samples]] += shift
    return values


def measured(samples=12, count=24, bootstrap=40, **shifts):
    epsilon_settings = settings.resolve(
        {"epsilon": {"metric": "epsilon", "sweep": False, "bootstrap": bootstrap}}
    ).epsilon
    approaches = {name: models(shift, seed, count, samples) for seed, (name, shift) in enumerate(shifts.items(), 1)}
    retrained = models(0.0, 0, count, samples)
    return measures.measure_approaches(
        retrained, approaches, LABELS[:samples], measures.EpsilonOptions(epsilon_settings), {}
    )


def test_an_approach_is_named_only_where_it_beats_the_original():
    text = clean(wording.answer_text(measured(original=2.0, near=0.1, far=1.9)))
    assert text.startswith(
        "near is the hardest to tell from retraining, and harder than the original model: median epsilon-hat"
    )
    assert "Smallest of 2 approaches (selected post hoc)." in text
    text = clean(wording.answer_text(measured(original=0.1, a=1.8, b=1.9)))
    assert text.startswith(
        "By the intervals, no approach is closer to retraining than the original model (median epsilon-hat "
    )
    tie = clean(wording.answer_text(measured(original=1.0, a=1.0, b=1.0)))
    assert tie.startswith("By the intervals, no approach is closer") and "might put these before" in tie
    text = clean(wording.answer_text(measured(bootstrap=0, original=2.0, near=0.1)))
    assert text.startswith("Without intervals no approach is called closer")


def test_the_original_and_the_baseline_are_never_the_best():
    results = measured(original=0.0, a=1.0, b=2.0)
    assert results.order == ("a", "b") and measures.ranked(results) == ["baseline", "original", "a", "b"]
    table = epsilon_sections.sections(results)[0].table
    assert {"baseline", "original"} <= set(table.baselines) and [row[0] for row in table.rows][1] == "original"
    unknown = clean(wording.answer_text(measured(a=1.0, b=2.0)))
    assert unknown.startswith("Smallest of 2 approaches (selected post hoc): a, median epsilon-hat ")
    assert "The original model was not measured" in unknown


def test_infinite_medians_have_sentences_instead_of_numbers():
    every = clean(wording.answer_text(measured(a=60.0, b=70.0)))
    assert every.startswith("Every approach (a, b) is told apart from retraining without error on most samples")
    approach = clean(wording.answer_text(measured(a=60.0)))
    assert approach.startswith("Told apart from retraining without error, on most samples: a.")
    mixed = clean(wording.answer_text(measured(original=60.0, a=0.1, b=70.0)))
    assert "where the original model is told apart without error" in mixed and "samples: b." in mixed
    few = clean(wording.answer_text(measured(count=2, bootstrap=0, a=60.0)))
    assert "Even halves of the retrained models are told apart without error" in few


def test_one_approach_one_sample_and_equal_samples_have_sentences():
    alone = clean(wording.answer_text(measured(original=2.0, mine=0.1)))
    assert alone.startswith("mine is harder to tell from retraining than the original model: ") and "of 1" not in alone
    single = clean(wording.answer_text(measured(samples=1, a=1.0)))
    assert single.startswith("There is one sample: its epsilon-hat stands for the median. a: epsilon-hat ")
    results = measured(a=1.0)
    equal = results.approaches["a"]._replace(epsilon=np.zeros(12))
    text = clean(wording.answer_text(results._replace(approaches={**results.approaches, "a": equal})))
    assert "the same on every sample" in text


def test_what_no_difference_shows_is_said_without_infinity():
    results = measured(a=1.0)
    infinite = {name: approach._replace(null_median=math.inf) for name, approach in results.approaches.items()}
    text = clean(wording.limits(results._replace(approaches=infinite)))
    assert "most samples are told apart without error even if there is no difference" in text
