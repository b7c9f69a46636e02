"""Verdicts on texts whose truth is known: a part of the table of docs/verdict.md, with bounds."""

import functools

import numpy as np
import pytest
from scipy import stats

from tests.scenarios import study, texts

DRAWS = 12
WORLDS = ("random", "harder, added in losses", "hard, added in losses")


@functools.cache
def measured(label, model):
    return texts.audited(texts.LINES[label], model, range(DRAWS))


def max_wrong(count, level=0.05):
    """Returns a bound on the number of errors in some audits, exceeded once in a thousand times at the level."""
    return stats.binom.ppf(0.999, count, level)


@pytest.mark.parametrize("label", WORLDS)
def test_texts_that_are_still_in_are_not_called_forgotten(label):
    """Before kept texts as hard were asked for, 2 of 60 were where the hardest texts were requested."""
    again, half = measured(label, "again"), measured(label, "half")
    assert again.forgotten.sum() == 0 and again.g_in.sum() == 0
    assert half.wrongly_forgotten.sum() <= max_wrong(half.forgotten.sum())
    assert again.g_high.all() and again.not_.mean() > 30


@pytest.mark.parametrize("label", WORLDS)
def test_forgotten_texts_are_not_called_not_forgotten(label):
    exact, half = measured(label, "retrained"), measured(label, "half")
    assert (exact.not_ > 0).sum() <= max_wrong(DRAWS) and half.wrongly_not.sum() <= max_wrong(half.not_.sum())
    assert np.mean(exact.high) <= 0.08 and exact.suppressed.sum() == 0 and exact.g_high.sum() <= max_wrong(DRAWS)


def test_exact_retraining_is_recognised_and_replaced_answers_are_not_forgotten():
    exact = measured("random", "retrained")
    assert exact.g_in.all() and exact.forgotten.mean() > 20
    for model in ("constant", "refusal"):
        replaced = measured("random", model)
        assert replaced.forgotten.sum() == 0 and replaced.group_suppressed.all() and replaced.g_in.sum() <= DRAWS
        assert (replaced.suppressed == replaced.rows).all()


def test_half_a_request_is_told_apart():
    half = measured("random", "half")
    assert half.g_high.all() and half.not_.mean() > 20 and study.false_share(half, "not").mean() < 0.05
