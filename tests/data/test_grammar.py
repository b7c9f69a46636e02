import numpy as np

from jaxunlearn import data
from jaxunlearn.data.augmentation import augment
from jaxunlearn.data.language import grammar
from jaxunlearn.data.splitting import splits
from jaxunlearn.records import next_tokens
from jaxunlearn.settings import DataSettings, ForgetSettings, SplitSettings


def load(**settings):
    return data.load(DataSettings(name="grammar", **settings))


def test_the_corpus_is_the_same_everywhere():
    dataset = load()
    assert dataset.inputs.shape == (2048, 64) and dataset.inputs.dtype == np.int32
    assert (dataset.vocabulary, dataset.num_answers, dataset.num_train, dataset.num_classes) == (64, 64, 1536, 16)
    assert dataset.texts[0] == "IpYvIsF6e1nfBc9Ol9ORvGtdXF6sF6enfsMb2qi34CVpE9sOdXF6euhJY2qb2VhS"
    assert len({row.tobytes() for row in dataset.inputs}) == 2048  # no document stands there twice
    assert [grammar.read(text) for text in dataset.texts[:3]] == dataset.inputs[:3].tolist()


def test_documents_follow_the_grammar():
    tokens, probabilities = grammar.documents(1536), grammar.transitions()
    np.testing.assert_allclose(probabilities.sum(1), 1)
    counts = np.zeros((64, 64))
    np.add.at(counts, (tokens[:, :-1].ravel(), tokens[:, 1:].ravel()), 1)
    assert counts[probabilities < 1e-12].sum() == 0
    total = counts.sum(1, keepdims=True)
    assert total.min() > 50
    expected, deviation = total * probabilities, np.sqrt(total * probabilities * (1 - probabilities))
    assert np.all(np.abs(counts - expected) <= 6 * deviation + 3)


def test_a_document_does_not_depend_on_how_many_there_are():
    np.testing.assert_array_equal(grammar.documents(5), grammar.documents(9)[:5])


def test_everything_but_the_first_token_is_learned():
    dataset = load(train_rows=10, test_rows=6)
    assert (len(dataset.labels), dataset.num_train, len(dataset.texts)) == (16, 10, 16)
    targets = next_tokens(dataset)
    np.testing.assert_array_equal(targets[:, :-1], dataset.inputs[:, 1:])
    assert np.all(targets[:, -1] == -1)
    prepare = augment.prepare(dataset)
    assert prepare(dataset.inputs, None, True) is dataset.inputs


def test_every_author_is_in_both_pools_and_can_be_forgotten():
    dataset = load()
    np.testing.assert_array_equal(np.bincount(dataset.labels[:1536]), np.full(16, 96))
    np.testing.assert_array_equal(np.bincount(dataset.labels[1536:]), np.full(16, 32))
    forget = ForgetSettings(kind="one_class", classes=(3, 5), count=2)
    split = splits.draw(dataset, SplitSettings(shadow=512, test=256, forget=forget), seed=1)
    assert (len(split.shadow), len(split.target), len(split.test), len(split.population)) == (512, 1024, 256, 256)
    for number, author in enumerate((3, 5)):
        expected = split.target[dataset.labels[split.target] == author]
        np.testing.assert_array_equal(np.flatnonzero(split.forget[number]), np.sort(expected))
