"""Headlines on made-up arrays whose truth is known: a winner, doing nothing wins, ties, one of a kind, no number."""

import functools
import math

import numpy as np
import pytest

from jaxunlearn import settings
from jaxunlearn.analyses.epsilon import measures, wording
from jaxunlearn.analyses.epsilon import sections as epsilon_sections
from jaxunlearn.analyses.evaluation import sections
from jaxunlearn.metrics.epsilon import epsilon_bounds
from jaxunlearn.records import Design
from jaxunlearn.runs.studies import conformal_loss, methods
from jaxunlearn.runs.verbs import unlearn

FORBIDDEN = ("inf ", "inf.", "inf,", "nan", "∞", "– ", "from inf")


def clean(said):
    """No number that is none reaches a sentence."""
    assert not any(word in said for word in FORBIDDEN), said
    return said


def numbers(ua, sets=6, seed=0, noise=0.002):
    generator = np.random.default_rng(seed)
    return {"UA": ua + noise * generator.normal(size=sets), "RA": np.full(sets, 0.99), "TA": np.full(sets, 0.9)}


def evaluation(sets=6, **roles):
    """`retrained` has UA .2, the original 0, unless given."""
    known = {"original": numbers(0.0, sets, 1), "retrained": numbers(0.2, sets, 2)}
    return sections.Evaluation({**known, **roles}, (0.1,), 0.1, sets, {}, {}, Design("per_set", sets))


def test_a_method_that_is_closer_than_doing_nothing_is_named_with_those_that_equal_it():
    near, same, far = numbers(0.19, seed=3), numbers(0.19, seed=4), numbers(0.1, seed=5)
    said = clean(sections.in_words(evaluation(near=near, same=same, far=far)))
    assert "Closest to retraining in UA, RA and TA: " in said and "less than doing nothing (6." in said
    assert "Smallest of 3 gaps, chosen after looking." in said
    winner, other = ("near", "same") if "TA: near" in said else ("same", "near")
    assert f"TA: {winner}, " in said and f"Not distinguishable from it: {other}." in said


def test_doing_nothing_can_win():
    said = clean(sections.in_words(evaluation(away=numbers(0.7, seed=3), still=numbers(0.0, seed=1))))
    assert "No method is closer to retraining in UA, RA and TA than doing nothing, which is 6." in said
    assert "smallest of 2 gaps, chosen after looking: still" in said and "Closest" not in said


def test_controls_and_the_exact_answer_never_win():
    roles = {name: numbers(0.2, seed=3) for name in ("random_perturb", "retrain", "retrain@lr=0.1")}
    said = clean(sections.in_words(evaluation(**roles)))
    assert said.endswith("No unlearning method was measured, so none is compared with retraining.")
    assert " near is closer to retraining " in sections.in_words(evaluation(near=numbers(0.1, seed=5), **roles))


def test_one_method_one_forget_set_and_no_numbers_have_sentences_of_their_own():
    alone = clean(sections.in_words(evaluation(mine=numbers(0.19, seed=3))))
    assert "mine is closer to retraining in UA, RA and TA than doing nothing: " in alone and "of 1" not in alone
    alone = clean(sections.in_words(evaluation(mine=numbers(0.0, seed=1))))
    assert "mine is not closer to retraining" in alone and "of 1" not in alone
    one_set = clean(sections.in_words(evaluation(1, a=numbers(0.19, 1), b=numbers(0.1, 1))))
    assert "Too few forget sets for intervals, so no method is called closer" in one_set
    nothing = {name: np.full(6, np.nan) for name in ("UA", "RA", "TA")}
    said = clean(sections.in_words(evaluation(a=nothing)))
    assert "How close a comes to retraining in UA, RA and TA is not known" in said
    said = clean(sections.in_words(evaluation(a=numbers(0.1), retrained=nothing)))
    assert "Exact retraining has no numbers here" in said and "is not known" in said
    assert "No unlearning method was measured" in clean(sections.in_words(evaluation()))


def test_without_retrained_or_original_models_nothing_is_called_closest():
    roles = {"unlearned": numbers(0.1, 1), "b": {"UA": np.full(1, np.nan)}}
    alone = sections.Evaluation(roles, (0.1,), 0.1, 1, {}, {}, Design("given", 1))
    said = clean(sections.in_words(alone))
    assert said.startswith("No retrained models were given") and "b: nothing could be measured." in said
    found = evaluation(a=numbers(0.19), b=numbers(0.1))
    del found.roles["original"]
    said = clean(sections.in_words(found))
    assert "Doing nothing was not measured, so no method is called closest" in said


def test_the_study_of_methods_speaks_of_the_same_comparison():
    def role(ua, seed):
        return unlearn.Utility(numbers(ua, seed=seed))

    nothing = methods.records.Finding(math.nan)
    known = [methods.records.Finding(value) for value in (0.6, 0.6, 0.5)]
    named = {"original": role(0.0, 1), "retrained": role(0.2, 2), "unlearned:near": role(0.19, 3)}
    seen = {name: methods.MembershipSummary(*known) for name in named}
    said = clean(methods.in_words(unlearn.Summary(named, 0.0, Design("per_set", 6)), seen))
    assert "near is closer to retraining in UA, RA and TA than doing nothing" in said
    seen["retrained"] = methods.MembershipSummary(nothing, nothing, nothing)
    said = clean(methods.in_words(unlearn.Summary(named, 0.0, Design("per_set", 6)), seen))
    assert said.startswith("The retrained models diverged")


def test_a_weight_whose_members_diverged_is_said():
    roles = {"m": {"UA": np.full(3, 0.1), "TA": np.full(3, 0.9)}, "m2": {name: np.full(3, np.nan) for name in "UA"}}
    lines = [conformal_loss.Line("m", "m", 0.0), conformal_loss.Line("m2", "m", 1.0)]
    found = sections.Evaluation(roles, (0.1,), 0.1, 3, {}, {}, Design("per_set", 3))
    said = clean(conformal_loss.present(found, lines).text)
    assert said.startswith("What lambda 1 changes could not be measured")


# ---------------------------------------------------------------------------------------------------------------------
# epsilon-hat

LABELS = np.arange(12) % 3


@pytest.fixture(autouse=True, scope="module")
def simulated_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(epsilon_bounds, "equal_groups", functools.cache(epsilon_bounds.equal_groups))
        yield


def models(shift, seed, count=24, samples=12):
    """Logits [S, N, 3] whose true class is `shift` higher than a retrained model's."""
    values = np.random.default_rng(seed).normal(size=(samples, count, 3)).astype("f4")
    values[np.arange(samples), :, LABELS[:samples]] += shift
    return values


def told(samples=12, count=24, bootstrap=40, **shifts):
    chosen = settings.resolve({"epsilon": {"metric": "epsilon", "sweep": False, "bootstrap": bootstrap}}).epsilon
    approaches = {name: models(shift, seed, count, samples) for seed, (name, shift) in enumerate(shifts.items(), 1)}
    retrained = models(0.0, 0, count, samples)
    return measures.measure_approaches(retrained, approaches, LABELS[:samples], measures.EpsilonOptions(chosen), {})


def test_an_approach_is_named_only_where_it_beats_doing_nothing():
    said = clean(wording.in_words(told(original=2.0, near=0.1, far=1.9)))
    assert said.startswith(
        "Hardest to tell from retraining, and harder than doing nothing, is near: median epsilon-hat"
    )
    assert "Smallest of 2 approaches, chosen after looking." in said
    said = clean(wording.in_words(told(original=0.1, a=1.8, b=1.9)))
    assert said.startswith("No approach is closer to retraining than doing nothing (median epsilon-hat ")
    tie = clean(wording.in_words(told(original=1.0, a=1.0, b=1.0)))
    assert tie.startswith("No approach is closer") and "might put these before" in tie
    said = clean(wording.in_words(told(bootstrap=0, original=2.0, near=0.1)))
    assert said.startswith("Without intervals no approach is called closer")


def test_doing_nothing_and_the_baseline_are_never_the_best():
    found = told(original=0.0, a=1.0, b=2.0)
    assert found.order == ("a", "b") and measures.ranked(found) == ["baseline", "original", "a", "b"]
    table = epsilon_sections.sections(found)[0].table
    assert {"baseline", "original"} <= set(table.baselines) and [row[0] for row in table.rows][1] == "original"
    unknown = clean(wording.in_words(told(a=1.0, b=2.0)))
    assert unknown.startswith("Smallest of 2 approaches, chosen after looking: a, median epsilon-hat ")
    assert "Doing nothing was not measured" in unknown


def test_infinite_medians_have_sentences_instead_of_numbers():
    every = clean(wording.in_words(told(a=60.0, b=70.0)))
    assert every.startswith("Every approach (a, b) is told apart from retraining without error on most samples")
    one = clean(wording.in_words(told(a=60.0)))
    assert one.startswith("Told apart from retraining without error, on most samples: a.")
    mixed = clean(wording.in_words(told(original=60.0, a=0.1, b=70.0)))
    assert "where doing nothing is told apart without error" in mixed and "samples: b." in mixed
    few = clean(wording.in_words(told(count=2, bootstrap=0, a=60.0)))
    assert "Even halves of the retrained models are told apart without error" in few


def test_one_approach_one_sample_and_equal_samples_have_sentences():
    alone = clean(wording.in_words(told(original=2.0, mine=0.1)))
    assert alone.startswith("mine is harder to tell from retraining than doing nothing: ") and "of 1" not in alone
    single = clean(wording.in_words(told(samples=1, a=1.0)))
    assert single.startswith("There is one sample: its epsilon-hat stands for the median. a: epsilon-hat ")
    found = told(a=1.0)
    equal = found.approaches["a"]._replace(epsilon=np.zeros(12))
    said = clean(wording.in_words(found._replace(approaches={**found.approaches, "a": equal})))
    assert "the same on every sample" in said


def test_what_no_difference_shows_is_said_without_infinity():
    found = told(a=1.0)
    infinite = {name: one._replace(null_median=math.inf) for name, one in found.approaches.items()}
    said = clean(wording.limits(found._replace(approaches=infinite)))
    assert "told apart without error on most samples even where there is no difference" in said
