import numpy as np
import pytest

from jaxunlearn import errors
from jaxunlearn.data import load, summary
from jaxunlearn.records import Dataset
from jaxunlearn.settings import DataSettings


def small():
    inputs = np.array([[0, 1, 2], [0, 3, 4], [0, 1, 2], [0, 1, 2], [5, 5, 5], [0, 3, 4]], np.uint8)
    return Dataset(
        inputs=inputs, labels=np.array([0, 1, 0, 1, 2, 0], np.int32), ids=np.arange(6), name="made", num_train=4,
        num_classes=3,
    )  # fmt: skip


def test_a_summary_counts_rows_classes_and_repetitions():
    facts = summary.describe(small())
    assert (facts.num_train, facts.num_held_out, facts.shape, facts.dtype) == (4, 2, (3,), "uint8")
    assert facts.train_counts == (2, 2, 0) and facts.held_out_counts == (1, 0, 1)
    assert (facts.low, facts.high, facts.is_normalised) == (0.0, 5.0, False)
    assert facts.constant_fraction == pytest.approx(1 / 3)
    assert facts.shared == 1 and facts.repeated == 2


def test_minus_zero_counts_as_zero():
    dataset = small().replace(inputs=np.array([[0.0]] * 5 + [[-0.0]], np.float32))
    assert summary.describe(dataset).shared == 2


def test_digits_have_no_row_in_both_pools():
    facts = summary.describe(load(DataSettings()))
    assert facts.shared == 0 and sum(facts.train_counts) == 1437 and facts.is_normalised


def test_examples_are_train_rows_of_each_class():
    rows = summary.examples(small(), 3)
    assert rows.tolist() == [[0, 2, -1], [1, 3, -1], [-1, -1, -1]]
    with pytest.raises(errors.ConfigError, match="per_class = 0"):
        summary.examples(small(), 0)
