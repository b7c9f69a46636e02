"""What would make the numbers of an audit worthless is said before them."""

import numpy as np
import pytest

from jaxunlearn import records, scores, settings
from jaxunlearn.analyses.audit import analysis
from jaxunlearn.analyses.audit.evidence import gather, plausibility
from jaxunlearn.analyses.audit.evidence import signals as audit_signals
from jaxunlearn.analyses.base import Context
from jaxunlearn.scores.evidence import as_arrays

QUIET = Context(lambda line: None, lambda *step: None, lambda name, facts, compute: compute())
N, P, S, C = 90, 60, 5, 4


def logits(rng, shape, labels, up):
    values = rng.normal(size=(*shape, len(labels), C))
    values[..., np.arange(len(labels)), labels] += up
    return values.astype(np.float32)


def evidence(**changed):
    """An audit whose arrays belong together."""
    rng = np.random.default_rng(0)
    y, p = np.arange(N) % C, np.arange(P) % C
    arrays = dict(
        labels=y, forgotten=np.arange(N) < 30, original=logits(rng, (), y, 4), unlearned=logits(rng, (), y, 4),
        shadows=logits(rng, (S,), y, 2), population_labels=p, population_original=logits(rng, (), p, 2),
        population_unlearned=logits(rng, (), p, 2), population_shadows=logits(rng, (S,), p, 2),
    )  # fmt: skip
    return records.Evidence(**(arrays | changed))


def audited(user_evidence):
    """(the audit, its answer behind the headline) of some evidence, by two scores."""
    resolved = settings.resolve({"audit": {"scores": ("confidence", "lira_off"), "decision": "lira_off"}})
    audit = analysis.analyse(gather.from_arrays(as_arrays(scores.check(user_evidence)[0]), resolved), resolved, QUIET)
    composed = analysis.compose(audit, resolved)
    answer = composed.answer.removeprefix(composed.in_short).lstrip()
    return audit, answer, {section.name: section for section in composed.sections}


def p_values(audit, name):
    return audit.decisions.verdicts[audit_signals.GIVEN].tested(name)


def test_arrays_that_belong_together_raise_no_doubt():
    audit, answer, report_sections = audited(evidence())
    assert audit.signals.doubts == () and audit_signals.num_shadows(audit.signals) == S
    rows = {row[0]: row for row in report_sections["models"].table.rows}
    assert rows["shadows"][1:3] == (S, N) and rows["population_original"][2] == P
    right = evidence().unlearned.argmax(-1) == evidence().labels
    assert rows["unlearned"][3:6] == pytest.approx((right.mean(), right[30:].mean(), right[:30].mean()))
    assert rows["unlearned"][-1] == pytest.approx(1 / C, abs=0.02)


@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_copies_of_a_model_are_counted_once(noise):
    honest = evidence()
    rng = np.random.default_rng(1)
    copies = {
        name: np.repeat(getattr(honest, name)[[0, 1]], [4, 1], 0) for name in ("shadows", "population_shadows")
    }  # fmt: skip
    copies = {
        name: values + noise * rng.normal(size=values.shape).astype(np.float32) for name, values in copies.items()
    }
    audit, answer, _ = audited(honest.replace(**copies))
    assert answer.startswith("The 5 shadow models are copies of 2 different models: copies add nothing")
    assert audit_signals.num_shadows(audit.signals) == 2
    two = honest.replace(shadows=honest.shadows[:2], population_shadows=honest.population_shadows[:2])
    alone = audited(two)[0]
    for name in ("p_high", "p_low", "p_in"):
        np.testing.assert_allclose(p_values(audit, name), p_values(alone, name), atol=0.02)


def test_a_model_that_answers_as_before_was_not_unlearned_and_that_is_said_first():
    honest = evidence()
    audit, answer, _ = audited(honest.replace(unlearned=honest.original + 1e-6))
    first = answer.split(". ")[0]
    assert first.startswith("The unlearned model answers like the original")
    assert first.endswith("nothing was unlearned")
    almost = honest.original.copy()
    almost[:30] -= 0.1 * np.eye(C, dtype=np.float32)[honest.labels[:30]]
    assert "nothing was unlearned" not in audited(honest.replace(unlearned=almost))[1]


def test_labels_that_fit_no_model_are_questioned():
    honest = evidence()
    shifted = (np.asarray(honest.population_labels) + 1) % C
    answer = audited(honest.replace(population_labels=shifted))[1]
    assert answer.startswith("`population_labels` fit no model: accuracy ") and "in this order?" in answer
    rng = np.random.default_rng(3)
    answer = audited(honest.replace(labels=rng.permutation(honest.labels)))[1]
    assert answer.startswith("`labels` fit no model") and "population_labels" not in answer
    # A model that was driven away from everything says nothing of the labels while another fits them.
    assert "fit no model" not in audited(honest.replace(unlearned=-honest.unlearned))[1]


def test_a_shadow_that_has_seen_the_samples_is_named():
    honest = evidence()
    shadows = honest.shadows.copy()
    shadows[3] = honest.original
    assert "Shadow model 3 answers like `original`" in audited(honest.replace(shadows=shadows))[1]


def test_answers_are_compared_relative_to_their_size():
    big = scores.Signals(*(np.float32([1000.0, -3.0]) for _ in range(4)))
    near = scores.Signals(*(np.float32([1000.5, -3.001]) for _ in range(4)))
    assert plausibility.max_relative_difference(big, near) < plausibility.ROUNDING
    far = scores.Signals(*(np.float32([1000.0, -3.1]) for _ in range(4)))
    assert plausibility.max_relative_difference(big, far) > 0.01
