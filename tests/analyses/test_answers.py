"""The first line of an audit: what was found, beside a model that forgot nothing."""

import numpy as np
import pytest

from jaxunlearn.analyses.audit import verdict_sections, verdicts


def judged(remembered, total=100, requested=True, cleared=0):
    """Verdicts on one forget set of `total` samples: first `remembered` not forgotten, last `cleared` forgotten."""
    codes = np.where(np.arange(total) < remembered, verdicts.NOT_FORGOTTEN, verdicts.CANNOT_TELL).astype(np.int8)[None]
    codes[0, total - cleared :] = verdicts.FORGOTTEN
    counts = np.array([remembered, total - remembered - cleared, cleared])
    p = np.linspace(0.001, 1, total)[None]
    null = verdicts.Null("shadows", [np.zeros(1000)], None)
    return verdicts.Verdicts("iam_off", 0.05, 1 - p, p, p if requested else None, codes, counts, null)


@pytest.mark.parametrize(
    "caught, cleared, warned", [(0, 0, True), (4, 4, True), (5, 0, False), (80, 0, False), (0, 60, False)]
)
def test_an_audit_that_would_not_notice_the_original_model_says_so(caught, cleared, warned):
    found = judged(2, cleared=cleared)
    said = verdict_sections.answer(found, judged(1), 0.05, "", audited="unlearned:ssd", original=judged(caught))
    assert said.startswith("2 of 100 samples asked to be forgotten still look trained on (exact retraining: 1 of 100)")
    assert f"which forgot nothing, it is {caught} of 100; 0 look forgotten." in said
    assert ("would hardly notice if nothing had been forgotten" in said) == warned


def test_exact_retraining_is_announced_and_not_compared_with_itself():
    said = verdict_sections.answer(judged(0), None, 0.05, "", audited="retrained", original=judged(50))
    assert said.startswith("Exact retraining, audited as if it were a method: None of the 100 samples")
    assert "No exact retraining" not in said


def test_without_verdicts_the_reason_is_the_answer():
    said = verdict_sections.answer(None, None, 0.05, "The score iam_on needs original.")
    assert "No verdicts on single samples" in said and "needs original" in said


def test_rates_stand_beside_that_of_exact_retraining_and_have_an_interval_even_when_nothing_is_found():
    sections = verdict_sections.decisions({"retrained": judged(0), "original": judged(30)}, None)
    rate = {row[0]: row[-1] for row in sections[0].table.rows}
    assert rate["original"].retrained == 0 and rate["retrained"].retrained is None
    assert rate["retrained"].low == 0 and 0.02 < rate["retrained"].high < 0.05
    assert rate["original"].low < 0.3 < rate["original"].high


def test_the_samples_to_look_at_first_are_ordered_by_their_p_value():
    found = judged(3)
    section = verdict_sections.worst(found, np.arange(100) + 1000, np.zeros(100, int), ("cat",))
    assert [row[0] for row in section.table.rows] == [str(1000 + i) for i in range(verdict_sections.WORST)]
    assert [row[-1] for row in section.table.rows[:4]] == ["not forgotten"] * 3 + ["cannot tell"]
    assert section.table.rows[0][2] == "cat"
