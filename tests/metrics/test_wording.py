"""A bag of words tells different kinds of texts apart, and says nothing of texts of one kind."""

import numpy as np
import pytest

from jaxunlearn.metrics.ranking import wording

WORDS = np.array([f"word{number}" for number in range(200)])


def written(shift, seed, kept=90, forgotten=40):
    """Texts of words by Zipf's law; those of the second kind have the first 20 words `shift` times as often."""
    generator = np.random.default_rng(seed)
    common = 1 / np.arange(1, 201)
    other = np.where(np.arange(200) < 20, 1 + shift, 1) * common
    texts = [[" ".join(generator.choice(WORDS, 40, p=weight / weight.sum())) for _ in range(count)]
            for weight, count in ((common, kept), (other, forgotten))]  # fmt: skip
    return [*texts[0], *texts[1]], np.arange(kept + forgotten) < kept


def test_texts_of_one_kind_are_not_called_different():
    findings = [wording.shift(*written(0.0, seed), seed=seed) for seed in range(10)]
    assert (
        sum(map(wording.is_different, findings)) <= 1 and 0.4 < np.mean([finding.value for finding in findings]) < 0.6
    )


def test_shifted_texts_are_called_different_and_seeds_repeat():
    texts, truth = written(2.0, 0)
    finding = wording.shift(texts, truth, seed=3)
    assert wording.is_different(finding) and finding.value > 0.8 and finding.n == 130
    assert wording.shift(texts, truth, seed=3) == finding
    again = wording.out_of_fold(texts, truth, 3)
    assert again.shape == (130,) and ((again >= 0) & (again <= 1)).all()


@pytest.mark.parametrize("texts", [["..."] * 60, ["", "ab"] * 30, [f"only{number}" for number in range(60)]])
def test_without_shared_words_nothing_is_said(texts):
    finding = wording.shift(texts, np.arange(60) < 30)
    assert finding is None or abs(finding.value - 0.5) < 0.2
    assert not wording.is_different(finding)


def test_too_few_texts_say_nothing():
    texts, truth = written(2.0, 0, 60, wording.FEWEST - 1)
    assert wording.shift(texts, truth) is None


def test_many_texts_are_a_random_part(monkeypatch):
    monkeypatch.setattr(wording, "MOST", 100)
    assert wording.shift(*written(2.0, 1)).n == 100
