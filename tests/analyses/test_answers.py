"""The verdict in words: power before any count, the first sentence that applies, reasons row by row."""

import types

import numpy as np
import pytest

from jaxunlearn.analyses.audit.verdicts import verdict_sections, verdict_sentences
from jaxunlearn.analyses.audit.verdicts.requests import RoleVerdicts
from jaxunlearn.metrics.verdict import judge
from jaxunlearn.metrics.verdict.out_model import OutModel
from jaxunlearn.metrics.verdict.request import GroupTests
from jaxunlearn.metrics.verdict.rows import CANNOT_TELL, FORGOTTEN, NOT_FORGOTTEN, SUPPRESSED, RowTests

MODEL = OutModel(1.0, 1.0, 0.0, 0.8, np.zeros(1), np.zeros(1))
CHECKS = judge.Checks("", "", 0.5, False, 0.5, (20, 300, 400))
GROUP = GroupTests(p_high=0.5, p_low=1.0, p_narrow=1.0, p_in=0.5, mean=1.0, error=0.2, dose=2.0,
                   trace_left=(0.42, 0.2, 0.7), models=20)  # fmt: skip


def judgement(codes=(CANNOT_TELL,) * 10, **changed):
    ones = np.ones(len(codes))
    tests = RowTests(ones, ones, ones, ones, ones, ones, 2 * ones, ones > 0)
    plain = judge.Judgement(np.array(codes, np.int8), tests, GROUP, {}, False, False, (1.0, 0.5), CHECKS, MODEL, 4, 6.7,
                            0.05, False)  # fmt: skip
    return plain._replace(**changed)


def test_power_is_said_in_whole_rows_and_weak_power_with_a_warning():
    text = verdict_sentences.power(judgement())
    assert text.startswith("Of your 10 rows, this audit would have caught 4 if nothing had been forgotten, and ")
    assert "would have confirmed about 6 if" in text
    assert "says little" not in text
    assert "says little about a single row" in verdict_sentences.power(judgement(power_not=0))
    unknown = verdict_sentences.power(judgement(power_not=None, power_forgotten=None))
    assert "cannot be estimated without the original model" in unknown and "confirmed" not in unknown
    half_known = verdict_sentences.power(judgement(power_not=None))
    assert half_known.endswith("the original model; it would have confirmed about 6 if all had been forgotten exactly.")


@pytest.mark.parametrize(("changed", "text"), [
    ({"p_low": 0.001}, "unlike those of any model that never saw them (much lower)"),
    ({"p_narrow": 0.001}, "(far too evenly)"),
    ({"p_high": 0.01, "p_in": 0.01}, "Part of the request is still in the model: about 40 % (from 20 to 70)"),
    ({"p_high": 0.01}, "The request is still in the model: about 40 % (from 20 to 70)"),
    ({"p_in": 0.01}, "As a whole the request looks forgotten: about 40 %"),
    ({"p_in": 0.01, "trace_left": (-3.7, -5.5, -2.0)}, "cannot be determined: about -370 % (from -550 to -200)"),
    ({"dose": 0.5}, "so easy that a model answers the same"),
    ({}, "forgotten cannot be determined: about 40 % (from 20 to 70) of the effect of training"),
    ({"models": 1}, "needs at least two shadow models"),
])  # fmt: skip
def test_the_request_gets_the_first_sentence_that_applies(changed, text):
    assert text in verdict_sentences.request(GROUP._replace(**changed), 0.05)


def test_counts_name_all_four_verdicts_and_why_rows_have_none():
    codes = (NOT_FORGOTTEN, FORGOTTEN, FORGOTTEN, SUPPRESSED, CANNOT_TELL, CANNOT_TELL)
    verdict = judgement(codes)
    trace = np.array([2, 2, 2, 2, 0.5, 2.0])
    verdict = verdict._replace(tests=verdict.tests._replace(trace=trace))
    text = verdict_sentences.counts(verdict)
    assert "1 NOT FORGOTTEN, 2 FORGOTTEN, 1 SUPPRESSED, 2 CANNOT TELL; " in text
    assert "; at most about 1 in 20 verdicts of each kind is wrong." in text
    assert "Among the CANNOT TELL rows: 1 too easy, 1 between the two references." in text
    why = verdict_sentences.reasons(verdict)
    assert len(why) == 6 and why[1] == why[2] and len(set(why)) == 5


@pytest.mark.parametrize(("fdr", "text"), [
    (0.05, "1 in 20 verdicts of each kind is"), (0.3, "30 % of the verdicts of each kind are"),
    (0.01, "1 in 100 verdicts of each kind is"), (0.15, "15 % of the verdicts of each kind are"),
    (0.5, "1 in 2 verdicts of each kind is"),
])  # fmt: skip
def test_the_bound_on_wrong_verdicts_is_that_of_the_setting(fdr, text):
    assert verdict_sentences.error_bound(fdr) == f"at most about {text} wrong"
    assert verdict_sentences.counts(judgement(fdr=fdr)).count(f"at most about {text} wrong") == 1


def test_captions_name_the_bound_of_the_setting():
    verdicts = RoleVerdicts((judgement(),), np.ones((1, 10), bool))
    overview = verdict_sections.overview({"finetune": verdicts}, 0.1)
    assert "At most about 10 % of the verdicts of each kind are wrong per request" in overview.table.caption
    signals = types.SimpleNamespace(person_names=("ann",))
    persons = verdict_sections.persons(judgement(persons={0: (GROUP, True)}), signals, 0.1)
    assert "at most about 10 % are not" in persons.table.caption


def test_what_was_changed_is_said():
    assert "like the original to float16 precision" in verdict_sentences.changed(judgement(is_identical=True), 700)
    assert "all other 700 answers" in verdict_sentences.changed(judgement(is_edited=True), 700)
    assert "median change of log-odds 1 on requested, 0.5" in verdict_sentences.changed(judgement(), 700)
    assert verdict_sentences.changed(judgement(changes=(np.nan, np.nan)), 700) == ""


@pytest.mark.parametrize(("checks", "model", "text"), [
    ({}, {"raw_slope": 1.5}, "less certain than your model (factor 1.50)"),
    ({}, {"raw_slope": 0.5}, "more certain than your model (factor 0.50)"),
    ({"is_contaminated": True, "retained_rank": 0.7}, {}, "mean rank 0.70 instead of 0.5"),
    ({"selection_rank": 0.9}, {}, "look chosen by the original's own answers"),
    ({"forgotten_refusal": "Only 3 retained rows are there."}, {}, "Nothing can be called FORGOTTEN: Only 3"),
])  # fmt: skip
def test_doubtful_assumptions_have_a_sentence_each(checks, model, text):
    plain = verdict_sentences.trust(judgement())
    assert len(plain) == 1 and "20 shadow model(s), 300 rows given as unseen and 400 retained" in plain[0]
    verdict = judgement(checks=CHECKS._replace(**checks), model=MODEL._replace(**model))
    assert any(text in sentence for sentence in verdict_sentences.trust(verdict)[1:])


def test_a_class_that_is_removed_wholly_is_no_proof_of_forgetting():
    labels = np.array([0, 0, 1, 1, 1])
    whole, part = np.array([[True, True, False, False, False]]), np.array([[True, False, True, False, False]])
    assert verdict_sections._whole_classes(labels, whole) and not verdict_sections._whole_classes(labels, part)
