"""LiRA on single rows, before and after fine-tuning: who is found, by which form."""

import numpy as np
import pytest

from jaxunlearn.analyses.reminiscence import measures, rows
from jaxunlearn.scores import signals
from jaxunlearn.scores.families import lira

ROWS, SETS, SHADOWS = 200, 3, 8


def world(is_seen, back=0.0):
    """Logits of two classes: rows differ in difficulty; `back` = how far fine-tuning lifts forgotten rows."""
    draw = np.random.default_rng(0)
    difficulty = draw.normal(size=ROWS)
    labels = draw.integers(2, size=ROWS)
    forget = np.zeros((SETS, ROWS), bool)
    for set_index in range(SETS):
        forget[set_index, set_index * 30 : (set_index + 1) * 30] = True
    held_out = np.arange(ROWS) >= 100
    is_member = draw.random((SHADOWS, ROWS)) < 0.5 if is_seen else np.zeros((SHADOWS, ROWS), bool)
    is_member[0], is_member[1] = is_seen, False  # a row with and one without everywhere

    def logits(lift):
        odds = difficulty + lift + 0.3 * draw.normal(size=np.shape(lift))
        answers = np.zeros((*odds.shape, 2), np.float32)
        np.put_along_axis(answers, np.broadcast_to(labels[:, None], (*odds.shape, 1)), odds[..., None], -1)
        return answers

    before, after = logits(np.zeros((SETS, ROWS))), logits(back * forget)
    return before, after, labels, logits(2.0 * is_member), is_member, forget, held_out


@pytest.mark.parametrize("is_seen", [False, True])
def test_rows_that_fine_tuning_brings_back_are_found_after_it_and_not_before(is_seen):
    membership = rows.membership(*world(is_seen, back=2.0))
    numbers = measures.membership(membership, "ssd", 0.95)
    assert numbers["auc_before"].low < 0.5 < numbers["auc_before"].high and numbers["auc_after"].low > 0.9
    assert membership.forgotten.sum() == 90 and (~membership.forgotten).sum() == 3 * 100
    np.testing.assert_array_equal(np.bincount(membership.unit), [130] * 3)


def test_shadows_that_saw_the_rows_are_asked_online_by_medians_others_offline():
    for is_seen in (True, False):
        before, after, labels, shadows, is_member, forget, held_out = arguments = world(is_seen, back=1.0)
        membership = rows.membership(*arguments)
        is_used = forget[1] | held_out
        odds = [
            np.asarray(signals.carlini_logit(logits_of, labels), np.float64)[..., is_used]
            for logits_of in (after[1], shadows)
        ]
        if is_seen:
            expected = lira.median_online(odds[0][:, None], odds[1][..., None], is_member[:, is_used])
        else:
            expected = lira.offline(odds[0], odds[1])
        np.testing.assert_allclose(membership.after[membership.unit == 1], expected, rtol=1e-6)
