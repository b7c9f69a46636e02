import numpy as np
import pytest

from jaxunlearn import data, errors
from jaxunlearn.data import exclusion
from jaxunlearn.data.formats import arrays
from jaxunlearn.data.language import texts
from jaxunlearn.data.splitting import splits
from jaxunlearn.records import Dataset, next_tokens
from jaxunlearn.settings import DataSettings, ForgetSettings, SplitSettings

TOKENS = np.array([[1, 2, 3, -1], [4, 0, -1, -1], [3, 3, 3, 3], [0, 1, -1, -1]], np.int32)


def sound(**fields):
    dataset = Dataset(
        inputs=TOKENS, labels=np.array([0, 1, 0, 1], np.int32), ids=np.arange(4), name="made", num_train=2,
        num_classes=2, vocabulary=5, prompts=np.array([1, 0, 2, 1]), texts=np.array(["abc", "d", "ee", "f"]),
    )  # fmt: skip
    return dataset.replace(**fields)


def changed(row, *tokens):
    inputs = TOKENS.copy()
    inputs[row] = tokens
    return inputs


def test_what_language_models_rely_on_is_checked():
    data.validate(sound(), "made")
    data.validate(sound(num_classes=1, labels=np.zeros(4, np.int32), prompts=None, texts=None), "made")
    for expected, broken in {
        "inputs have dtype int64": {"inputs": TOKENS.astype(np.int64)},
        "shape (4, 1)": {"inputs": TOKENS[:, :1]},
        "row 1 contains the token id 4; with a vocabulary of 4": {"vocabulary": 4},
        "row 2 contains the token id -2": {"inputs": changed(2, 1, 2, -2, 1)},
        "row 0 has padding (-1) before a token": {"inputs": changed(0, 1, -1, 2, -1)},
        "row 3 has 1 token(s)": {"inputs": changed(3, 1, -1, -1, -1)},
        "row 3 has 0 token(s)": {"inputs": changed(3, -1, -1, -1, -1)},
        "row 1 has a prompt of 2 tokens but only 2 in total": {"prompts": np.array([1, 2, 0, 0])},
        "row 1 has a prompt of -1 tokens": {"prompts": np.array([1, -1, 0, 0])},
        "prompts have dtype float64": {"prompts": np.zeros(4)},
        "prompts has 3 rows": {"prompts": np.zeros(3, np.int32)},
        "texts has 2 rows": {"texts": np.array(["a", "b"])},
        "texts have dtype int64": {"texts": np.arange(4)},
        "vocabulary of 1": {"vocabulary": 1},
        "vocabulary of -3": {"vocabulary": -3},
        "texts need one group": {"num_classes": 0},
        "not normalised": {"mean": (0.0,), "std": (1.0,)},
        "but no vocabulary": {"vocabulary": 0},
        "4 of 4 rows are the train pool": {"num_train": 4},
        "must lie in [0, 1]": {"labels": np.array([0, 1, 2, 0], np.int32)},
    }.items():
        with pytest.raises(errors.DataError) as caught:
            data.validate(sound(**broken), "made")
        assert expected in str(caught.value)


def test_every_row_that_passes_has_something_to_learn():
    dataset = sound(prompts=np.array([2, 1, 3, 1]))
    data.validate(dataset, "made")
    assert np.all((next_tokens(dataset) >= 0).any(1))
    assert texts.learned_tokens(dataset) == 1 + 1 + 1 + 1


def test_rows_are_taken_with_everything_that_belongs_to_them():
    taken = arrays.take(sound(), np.array([2, 0, 3]), 1)
    assert (taken.num_train, taken.vocabulary) == (1, 5)
    np.testing.assert_array_equal(taken.inputs, TOKENS[[2, 0, 3]])
    assert taken.prompts.tolist() == [2, 1, 1] and taken.texts.tolist() == ["ee", "abc", "f"]
    assert taken.ids.tolist() == [2, 0, 3] and taken.names is None


def test_groups_of_texts_can_be_kept_from_every_model():
    kept = exclusion.exclude(sound(), ("1",))
    assert (kept.num_classes, kept.num_train, kept.vocabulary, kept.ood.vocabulary) == (1, 1, 5, 5)
    assert kept.texts.tolist() == ["abc", "ee"] and kept.ood.texts.tolist() == ["d", "f"]
    assert kept.prompts.tolist() == [1, 2] and kept.ood.prompts.tolist() == [0, 1]
    data.validate(kept, "made")
    data.validate(kept.ood, "made")
    with pytest.raises(errors.ConfigError, match="a language model needs at least 1"):
        exclusion.exclude(sound(), ("0", "1"))


def test_padding_stands_behind_the_end():
    joined = texts.padded([np.array([1, 2]), np.array([3, 4, 5]), np.array([], np.int64)])
    assert joined.dtype == np.int32 and joined.tolist() == [[1, 2, -1], [3, 4, 5], [-1, -1, -1]]


def test_texts_are_not_augmented():
    with pytest.raises(errors.ConfigError, match="data.augment = 'flip' changes pictures, but 'grammar' contains"):
        data.load(DataSettings(name="grammar", augment="flip"))
    plain = data.load(DataSettings(name="grammar", normalise=False))
    assert (plain.mean, plain.std, plain.vocabulary) == ((), (), 64)


def test_a_whole_group_cannot_be_forgotten_where_there_is_only_one():
    tokens = np.random.default_rng(0).integers(0, 5, (40, 6))
    dataset = texts.build("made", tokens, np.zeros(40, int), 5, num_train=30)
    data.validate(dataset, "made")
    for kind in ("one_class", "classes"):
        with pytest.raises(errors.ConfigError, match="'made' has one group of texts"):
            splits.draw(dataset, SplitSettings(shadow=10, forget=ForgetSettings(kind=kind)), 0)
    request = ForgetSettings(kind="class_percentage", fraction=0.5, count=1)
    assert splits.draw(dataset, SplitSettings(shadow=10, forget=request), 0).forget.sum() == 10
    with pytest.raises(errors.ConfigError, match="'subclass' needs fine classes"):
        splits.draw(dataset, SplitSettings(shadow=10, forget=ForgetSettings(kind="subclass")), 0)
    some = SplitSettings(shadow=10, forget=ForgetSettings(kind="set_random", size=3, count=2))
    assert splits.draw(dataset, some, 0).forget.sum(1).tolist() == [3, 3]
