"""Texts that need no download: documents from one fixed random bigram grammar.

    64 tokens; row v of the grammar ~ Dirichlet(0.03): distribution of the token after v (about six tokens, 1.4 nats)
    1,536 documents to train on + 512 held out, 64 tokens each

The corpus is the same for every run and machine. A language model learns the grammar from a few hundred documents;
everything else it learns is the content of single documents, which is what can be forgotten.

Intended use: 512 documents for the original, 1,024 others for OUT models (half of them each), 256 for the population,
the rest for tests.
"""

import numpy as np

from jaxunlearn.data.language import texts
from jaxunlearn.records import Dataset
from jaxunlearn.settings import DataSettings

VOCABULARY, LENGTH, CONCENTRATION = 64, 64, 0.03
TRAIN_DOCUMENTS, HELD_OUT_DOCUMENTS = 1536, 512
AUTHORS = 16
SEED = 0

# One character per token, for scores that read characters (compressed length, lower case).
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def grammar(settings: DataSettings) -> Dataset:
    """Builds the corpus: inputs [2048, 64] int32, vocabulary 64, texts of 64 characters.

    Labels are 16 authors: document n is by author n % 16, so that every author has 96 documents in the train pool and
    32 in the held-out pool, and `split.forget.kind=one_class` forgets all documents of an author. All authors use the
    same grammar: only their documents tell them apart.
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
    """Returns the probabilities [64, 64] of the grammar: row v is the distribution of the token after token v."""
    return _stream().dirichlet(np.full(VOCABULARY, CONCENTRATION), VOCABULARY)


def documents(count: int) -> np.ndarray:
    """Draws the first `count` documents of the corpus, [count, 64] int32; first tokens are uniform over the 64."""
    stream = _stream()
    cumulative = stream.dirichlet(np.full(VOCABULARY, CONCENTRATION), VOCABULARY).cumsum(1)
    # One row of draws per document: a document does not depend on `count`.
    draws = stream.random_sample((count, LENGTH))
    tokens = np.empty((count, LENGTH), np.int32)
    tokens[:, 0] = draws[:, 0] * VOCABULARY
    for position in range(1, LENGTH):
        below = cumulative[tokens[:, position - 1]] <= draws[:, position, None]
        tokens[:, position] = np.minimum(below.sum(1), VOCABULARY - 1)  # a sum of 64 probabilities may end below 1
    return tokens


def written(tokens: np.ndarray) -> str:
    """Returns the characters of token ids [n].

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.data.language import grammar
      >>> grammar.written(np.array([0, 1, 26])), grammar.read("ABa")
      ('ABa', [0, 1, 26])
    """
    return "".join(CHARACTERS[token] for token in tokens.tolist())


def read(text: str) -> list[int]:
    """Returns the token ids of characters of the corpus, the inverse of `written`."""
    return [CHARACTERS.index(character) for character in text]


def _stream() -> np.random.RandomState:
    # This generator's numbers never change between versions of NumPy; those of newer ones may.
    return np.random.RandomState(SEED)
