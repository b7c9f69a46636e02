"""What would make the numbers of an audit worthless is said before them."""

import numpy as np
import pytest

from jaxunlearn import records, scores, settings
from jaxunlearn.analyses.audit import analysis
from jaxunlearn.analyses.audit.evidence import gather, plausibility
from jaxunlearn.analyses.audit.evidence import signals as audit_signals
from jaxunlearn.analyses.base import Context

QUIET = Context(lambda line: None, lambda *step: None, lambda name, facts, compute: compute())
N, P, S, C = 90, 60, 5, 4


def logits(rng, shape, labels, up):
    values = rng.normal(size=(*shape, len(labels), C))
    values[..., np.arange(len(labels)), labels] += up
    return values.astype(np.float32)


def given(**changed):
    """An audit whose arrays belong together."""
    rng = np.random.default_rng(0)
    y, p = np.arange(N) % C, np.arange(P) % C
    arrays = dict(
        labels=y, forgotten=np.arange(N) < 30, original=logits(rng, (), y, 4), unlearned=logits(rng, (), y, 4),
        shadows=logits(rng, (S,), y, 2), population_labels=p, population_original=logits(rng, (), p, 2),
        population_unlearned=logits(rng, (), p, 2), population_shadows=logits(rng, (S,), p, 2),
    )  # fmt: skip
    return records.Evidence(**(arrays | changed))


def audited(found):
    """(the audit, its first line) of some evidence, by two scores."""
    chosen = settings.resolve({"audit": {"scores": ("confidence", "lira_off"), "decision": "lira_off"}})
    audit = analysis.analyse(gather.from_arrays(vars(scores.check(found)[0]), chosen), chosen, QUIET)
    report = analysis.compose(audit, chosen)
    return audit, report.answer, {section.name: section for section in report.sections}


def p_values(audit, name):
    return audit.decisions.verdicts[audit_signals.GIVEN].tested(name)


def test_arrays_that_belong_together_raise_no_doubt():
    audit, said, found = audited(given())
    assert audit.signals.doubts == () and audit_signals.num_shadows(audit.signals) == S
    rows = {row[0]: row for row in found["models"].table.rows}
    assert rows["shadows"][1:3] == (S, N) and rows["population_original"][2] == P
    right = given().unlearned.argmax(-1) == given().labels
    assert rows["unlearned"][3:6] == pytest.approx((right.mean(), right[30:].mean(), right[:30].mean()))
    assert rows["unlearned"][-1] == pytest.approx(1 / C, abs=0.02)


@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_copies_of_a_model_are_counted_once(noise):
    one = given()
    rng = np.random.default_rng(1)
    copies = {
        name: np.repeat(getattr(one, name)[[0, 1]], [4, 1], 0) for name in ("shadows", "population_shadows")
    }  # fmt: skip
    copies = {
        name: values + noise * rng.normal(size=values.shape).astype(np.float32) for name, values in copies.items()
    }
    audit, said, _ = audited(one.replace(**copies))
    assert said.startswith("The 5 shadow models are copies of 2 different models: copies say nothing new")
    assert audit_signals.num_shadows(audit.signals) == 2
    two = one.replace(shadows=one.shadows[:2], population_shadows=one.population_shadows[:2])
    alone = audited(two)[0]
    for name in ("p_high", "p_low", "p_in"):
        np.testing.assert_allclose(p_values(audit, name), p_values(alone, name), atol=0.02)


def test_a_model_that_answers_as_before_was_not_unlearned_and_that_is_said_first():
    one = given()
    audit, said, _ = audited(one.replace(unlearned=one.original + 1e-6))
    first = said.split(". ")[0]
    assert first.startswith("The unlearned model answers as the original does")
    assert first.endswith("nothing was unlearned")
    almost = one.original.copy()
    almost[:30] -= 0.1 * np.eye(C, dtype=np.float32)[one.labels[:30]]
    assert "nothing was unlearned" not in audited(one.replace(unlearned=almost))[1]


def test_labels_that_fit_no_model_are_questioned():
    one = given()
    wrong = (np.asarray(one.population_labels) + 1) % C
    said = audited(one.replace(population_labels=wrong))[1]
    assert said.startswith("`population_labels` fit no model: accuracy ") and "in this order?" in said
    rng = np.random.default_rng(3)
    said = audited(one.replace(labels=rng.permutation(one.labels)))[1]
    assert said.startswith("`labels` fit no model") and "population_labels" not in said
    # A model that was driven away from everything says nothing of the labels while another fits them.
    assert "fit no model" not in audited(one.replace(unlearned=-one.unlearned))[1]


def test_a_shadow_that_has_seen_the_samples_is_named():
    one = given()
    shadows = one.shadows.copy()
    shadows[3] = one.original
    assert "Shadow model 3 answers as `original` does" in audited(one.replace(shadows=shadows))[1]


def test_answers_are_compared_relative_to_their_size():
    big = scores.Signals(*(np.float32([1000.0, -3.0]) for _ in range(4)))
    near = scores.Signals(*(np.float32([1000.5, -3.001]) for _ in range(4)))
    assert plausibility.apart(big, near) < plausibility.ROUNDING
    assert plausibility.apart(big, scores.Signals(*(np.float32([1000.0, -3.1]) for _ in range(4)))) > 0.01
