"""Random orders of rows: the published permutations, and numpy generators by name.

Splits are drawn with numpy on the host, never with JAX: which rows a model trains on must not change with a JAX version
or with a device. `published` repeats the permutations of the reference code bit for bit; everything else draws from
`generator`.

Source: the split section of the IAM reference (MT19937 driven Fisher-Yates pass), pinned by golden arrays.
"""

import numpy as np

from jaxunlearn import keys

FIXED_SEED = 42

# Published constants: numbers of positions at the end of a list that no permutation moves.
TARGET_TAIL = 100
SHADOW_TAIL = 200


def published_stream(seed: int) -> np.random.RandomState:
    """Returns the MT19937 stream of published code with this seed; repeated use of one stream continues it."""
    return np.random.RandomState(seed % 2**32)


def published(count: int, stream: np.random.RandomState) -> np.ndarray:
    """Computes the published permutation of `count` rows: one Fisher-Yates pass over raw 32-bit outputs.

    Position i is swapped with i + (r_i mod (count - i)), i = 0 .. count-2, r_i the next output of the stream.

    Args:
      count: number of rows, at least 0.
      stream: from `published_stream`; it is advanced by count - 1 outputs.

    Returns:
      [count] int64 permutation of 0 .. count-1.

    Example:
      >>> from jaxunlearn.data.formats import published_permutations
      >>> published_permutations.published(5, published_permutations.published_stream(42))
      array([2, 4, 3, 0, 1])
    """
    steps = max(count - 1, 0)
    # `bytes` is the public access to the raw outputs; four bytes are one 32-bit number. A call for zero bytes would
    # still use up one number.
    raw = np.frombuffer(stream.bytes(4 * steps) if steps else b"", "<u4").astype(np.int64)
    positions = np.arange(steps, dtype=np.int64)
    partners = (positions + raw % (count - positions)).tolist()
    # Python lists: element access to a numpy array is ten times slower in such a loop.
    order = list(range(count))
    for i, j in enumerate(partners):
        order[i], order[j] = order[j], order[i]
    return np.asarray(order, np.int64)


def fixed(count: int) -> np.ndarray:
    """Returns the published permutation [count] of seed 42, which cuts a data set into train and held-out pool."""
    return published(count, published_stream(FIXED_SEED))


def generator(seed: int, name: str, *numbers: int) -> np.random.Generator:
    """Returns a numpy generator for one purpose, a function of seed, stream name and further numbers only."""
    return np.random.default_rng([seed, keys.name_hash(name), *numbers])
