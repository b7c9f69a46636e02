"""What a reader without statistics sees first: one line, what was asked, what could be noticed, what to do."""

import numpy as np
import pytest

from jaxunlearn.analyses.audit.verdicts import first_screen, risk
from jaxunlearn.analyses.audit.verdicts.requests import RoleVerdicts
from jaxunlearn.metrics.verdict.rows import CANNOT_TELL, NOT_FORGOTTEN, SUPPRESSED
from tests.analyses.test_answers import CHECKS, GROUP, judgement

ROWS = np.array([f"customer {number}" for number in range(10)])
NAMED = first_screen.RequestNames(ROWS, ("ann", "bob", "eve"))
IN, OUT = GROUP._replace(p_high=0.01), GROUP._replace(p_in=0.01)
ONE_CAUGHT = (NOT_FORGOTTEN, *(CANNOT_TELL,) * 9)


def summary(**changed):
    return dict(first_screen.request_summary(judgement(**changed), 0.05, NAMED))


@pytest.mark.parametrize(("changed", "short"), [
    ({"is_identical": True, "codes": (NOT_FORGOTTEN,) * 10}, "NOT FORGOTTEN. The model was not changed at all."),
    ({"is_edited": True, "codes": (SUPPRESSED,) * 10}, "SUPPRESSED. Only the requested answers were edited"),
    ({"group": GROUP._replace(p_low=0.001)}, "SUPPRESSED. The model answers these rows unlike"),
    ({"group": IN}, "NOT FORGOTTEN. The request is still in the model."),
    ({"group": IN._replace(p_in=0.01)}, "NOT FORGOTTEN. Part of the request is still in the model."),
    ({"group": OUT}, "FORGOTTEN as a whole, as far as a model's answers can show it."),
    ({"group": OUT, "codes": ONE_CAUGHT}, "FORGOTTEN as a whole, but not every row"),
    ({"group": OUT, "blind": np.arange(10) < 2}, "FORGOTTEN as a whole, but for rows that every shadow model saw"),
    ({"group": OUT._replace(trace_left=(-3.7, -5.5, -2.0))}, "CANNOT TELL."),
    ({}, "CANNOT TELL."),
    ({"codes": ONE_CAUGHT}, "CANNOT TELL for the request as a whole; some rows are NOT FORGOTTEN."),
    ({"group": GROUP._replace(models=1)}, "The request as a whole CANNOT be judged: at least two"),
    ({"checks": CHECKS._replace(refusal="Give at least 40 rows.")}, "NO VERDICT"),
    ({"checks": CHECKS._replace(refusal="Give at least 40 rows."), "is_identical": True}, "NOT FORGOTTEN. The model"),
])  # fmt: skip
def test_the_first_line_is_the_verdict_on_the_request_and_holds_no_count(changed, short):
    pairs = summary(**changed)
    first = pairs[first_screen.SHORT]
    assert next(iter(pairs)) == first_screen.SHORT and first.startswith(short)
    assert not any(letter.isdigit() for letter in first)


@pytest.mark.parametrize("changed", [{}, {"group": IN}, {"group": OUT, "codes": ONE_CAUGHT}, {"power_not": 0}])
def test_no_count_of_rows_stands_before_what_could_have_been_noticed(changed):
    pairs = summary(**changed)
    questions = list(pairs)
    assert (
        questions.index(first_screen.POWER) < questions.index(first_screen.REQUEST) < questions.index(first_screen.ROWS)
    )
    for question in questions[: questions.index(first_screen.POWER)]:
        assert "FORGOTTEN," not in pairs[question]
    text = first_screen.paragraph(tuple(pairs.items()), "finetune")
    assert text.index("this audit would have caught") < text.index("NOT FORGOTTEN,")
    assert "none still" not in text


def test_who_should_look_at_which_rows_is_named():
    caught = summary(codes=(NOT_FORGOTTEN,) * 7 + (CANNOT_TELL,) * 3, group=IN)[first_screen.ACTION]
    assert "Look first at these rows: customer 0, customer 1, customer 2, customer 3, customer 4 and 2 more." in caught
    assert "No single row can be named" in summary(group=IN)[first_screen.ACTION]
    assert "filtered or edited" in summary(codes=(SUPPRESSED,) * 10)[first_screen.ACTION]
    assert "vouched for by the request as a whole only" in summary(group=OUT)[first_screen.ACTION]
    easy = summary(group=GROUP._replace(dose=0.01))[first_screen.ACTION]
    assert "no trace" in easy
    few = summary(checks=CHECKS._replace(sizes=(4, 100, 400)))[first_screen.ACTION]
    assert "6 more shadow models, 200 more rows that no model saw" in few and "--plan_shadows" in few
    assert "unlearned" in summary(is_identical=True)[first_screen.ACTION]


def test_persons_who_are_still_in_the_model_are_named():
    persons = {0: (GROUP, False), 2: (IN, True)}
    assert summary(persons=persons)[first_screen.PERSONS] == "Persons still in the model: 1 of 2: eve."
    assert summary(persons={0: (GROUP, False)})[first_screen.PERSONS] == "Persons still in the model: 0 of 1."


def test_a_refusal_says_why_and_counts_nothing():
    pairs = summary(checks=CHECKS._replace(refusal="Give at least 40 rows."))
    assert pairs[first_screen.REQUEST] == "No verdict is given. Give at least 40 rows."
    assert first_screen.ROWS not in pairs and first_screen.POWER not in pairs
    named = NAMED._replace(doubts=("Give at least 40 rows.",))
    refused = judgement(checks=CHECKS._replace(refusal="Give at least 40 rows."))
    pairs = dict(first_screen.request_summary(refused, 0.05, named))
    assert pairs[first_screen.REQUEST] == "No verdict is given, for the reason given first."


def test_a_run_knows_what_models_saw_and_a_user_says_so():
    given, run = (
        dict(first_screen.request_summary(judgement(), 0.05, NAMED._replace(is_run=flag))) for flag in (False, True)
    )
    assert "20 models given as never having seen them, 300 rows given as unseen" in given[first_screen.ASKED]
    assert "20 models that never saw them, 300 rows that no model saw" in run[first_screen.ASKED]


def test_without_a_request_the_first_line_says_so():
    texts = [first_screen.in_short(judgement(group=group), 0.05, is_request=False) for group in (IN, OUT, GROUP)]
    assert all(
        text.startswith("No request was given (`forgotten`), so all rows are judged at once. ") for text in texts
    )
    assert texts[0].endswith("together they are in the model, as rows that were kept should be.")


@pytest.mark.parametrize(("groups", "short", "counts"), [
    ((IN, IN), "NOT FORGOTTEN, in every request.", "2 still in the model."),
    ((OUT, OUT), "FORGOTTEN as a whole, in every request", "2 forgotten."),
    ((IN, OUT, GROUP), "It differs by request: 1 still in the model, 1 forgotten, 1 undetermined.",
     "1 still in the model, 1 forgotten, 1 undetermined."),
])  # fmt: skip
def test_requests_of_a_run_are_counted_by_their_state(groups, short, counts):
    judgements = tuple(judgement(group=group) for group in groups)
    verdicts = RoleVerdicts(judgements, np.ones((len(judgements), 10), bool))
    pairs = dict(first_screen.role_summary(verdicts, 0.05, "finetune"))
    assert pairs[first_screen.SHORT].startswith(short)
    assert pairs[first_screen.REQUEST] == f"Requests as a whole: {counts}"
    assert (
        f"Of {10 * len(judgements)} requested rows in {len(judgements)} requests, this audit would have caught "
        f"{4 * len(judgements)} if " in pairs[first_screen.POWER]
    )


def flagged(share):
    """Verdicts on 100 rows of which a share has a small p-value."""
    p_high = np.where(np.arange(100) < 100 * share, 0.01, 0.5)
    single = judgement(codes=(CANNOT_TELL,) * 100)
    return RoleVerdicts((single._replace(tests=single.tests._replace(p_high=p_high)),), np.ones((1, 100), bool))


def test_one_flag_means_little_where_few_rows_are_members():
    section = risk.section({"original": flagged(0.2), "retrained": flagged(0.01)}, 0.05)
    rare, _, even = (row[1] for row in section.table.rows)
    assert abs(rare.value - 0.168067) < 1e-5 and rare.low < rare.value < rare.high < even.value
    assert "Of 100 flagged rows, 16 would be right if 1 % of the requested rows were still in" in section.text
    assert "at least" in risk.section({"original": flagged(0.2), "retrained": flagged(0)}, 0.05).text
    nominal = risk.section({"original": flagged(0.2)}, 0.05)
    assert "5.0 % of rows that are not (by the level of the test)" in nominal.text
    assert "Nothing can be said" in risk.section({"original": flagged(0)}, 0.05).text
    assert risk.section({"given model": flagged(0.2)}, 0.05) is None
    refused = judgement(checks=CHECKS._replace(refusal="no"))
    assert risk.section({"original": RoleVerdicts((refused,), np.ones((1, 10), bool))}, 0.05) is None


def test_the_paragraph_says_that_retraining_is_audited_and_is_empty_without_verdicts():
    pairs = (("What was asked", "Are they?"), (first_screen.POWER, "It would have caught 3."))
    assert first_screen.paragraph(pairs, "finetune") == "It would have caught 3."
    lead = "Exact retraining, audited as if it were a method. It would have caught 3."
    assert first_screen.paragraph(pairs, "retrained") == lead
    assert first_screen.paragraph((), "retrained") == ""
