"""Texts that need no download: documents of one fixed random bigram grammar.

    64 tokens; row v of the grammar ~ Dirichlet(0.03): what may follow token v (about six tokens, 1.4 nats)
    1,536 documents to train on + 512 held out, 64 tokens each

The corpus is the same for every run and machine. A language model learns the grammar from a few hundred documents, and
beyond it only what single documents happen to say: that is what remains to be forgotten.

512 documents are meant for the original, 1,024 others for OUT models (each takes half of them), 256 for the
population; the rest is tested on.
"""

import numpy as np

from jaxunlearn.data.language import texts
from jaxunlearn.records import Dataset
from jaxunlearn.settings import DataSettings

VOCABULARY, LENGTH, CONCENTRATION = 64, 64, 0.03
TRAIN_DOCUMENTS, HELD_OUT_DOCUMENTS = 1536, 512
AUTHORS = 16
SEED = 0

# One character per token, so that scores that read characters (compressed length, lower case) have a text to read.
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def grammar(settings: DataSettings) -> Dataset:
    """The corpus: inputs [2048, 64] int32, vocabulary 64, texts of 64 characters.

    Labels are 16 authors: document n is by author n % 16, so that every author has 96 documents in the train pool and
    32 in the held-out pool, and `split.forget.kind=one_class` asks for all documents of an author. All authors write by
    the same grammar: nothing but their documents tells them apart.
    """
    count = TRAIN_DOCUMENTS + HELD_OUT_DOCUMENTS
    tokens = documents(count)
    return texts.build(
        "grammar",
        tokens,
        np.arange(count) % AUTHORS,
        VOCABULARY,
        num_train=TRAIN_DOCUMENTS,
        class_names=[f"author {author}" for author in range(AUTHORS)],
        texts=[written(row) for row in tokens],
    )


def transitions() -> np.ndarray:
    """[64, 64] probabilities: row v is the distribution of the token after token v."""
    return _stream().dirichlet(np.full(VOCABULARY, CONCENTRATION), VOCABULARY)


def documents(count: int) -> np.ndarray:
    """Draws the first `count` documents of the corpus, [count, 64] int32; a first token is any of the 64."""
    stream = _stream()
    cumulative = stream.dirichlet(np.full(VOCABULARY, CONCENTRATION), VOCABULARY).cumsum(1)
    # One row of draws per document: a document does not depend on how many there are.
    draws = stream.random_sample((count, LENGTH))
    tokens = np.empty((count, LENGTH), np.int32)
    tokens[:, 0] = draws[:, 0] * VOCABULARY
    for place in range(1, LENGTH):
        below = cumulative[tokens[:, place - 1]] <= draws[:, place, None]
        tokens[:, place] = np.minimum(below.sum(1), VOCABULARY - 1)  # a sum of 64 probabilities may end below 1
    return tokens


def written(tokens: np.ndarray) -> str:
    """Returns the characters of token ids [n]."""
    return "".join(CHARACTERS[token] for token in tokens.tolist())


def read(text: str) -> list[int]:
    """Returns the token ids of characters of the corpus, the inverse of `written`."""
    return [CHARACTERS.index(character) for character in text]


def _stream() -> np.random.RandomState:
    # This generator's numbers never change between versions of NumPy; those of newer ones may.
    return np.random.RandomState(SEED)
