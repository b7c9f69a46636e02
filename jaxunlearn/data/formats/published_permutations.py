"""Random orders of rows: the published permutations, and numpy generators by name.

Splits are drawn with numpy on the host, never with JAX: which rows a model trains on must not change with a JAX version
or with a device. `published` repeats the permutations of the reference code bit for bit; `generator` is what
everything else draws from.

Source: the split section of the IAM reference (MT19937 driven Fisher-Yates pass), pinned by golden arrays.
"""

import numpy as np

from jaxunlearn import keys

FIXED_SEED = 42

# Published constants: so many positions at the end of a list are touched by no permutation.
TARGET_TAIL = 100
SHADOW_TAIL = 200


def published_stream(seed: int) -> np.random.RandomState:
    """The MT19937 stream that published code calls a generator with this seed; a stream used again goes on."""
    return np.random.RandomState(seed % 2**32)


def published(count: int, stream: np.random.RandomState) -> np.ndarray:
    """The published permutation of `count` rows: one Fisher-Yates pass over raw 32-bit outputs.

    Position i is swapped with i + (r_i mod (count - i)), i = 0 .. count-2, r_i the next output of the stream.

    Args:
      count: number of rows, at least 0.
      stream: from `published_stream`; it is advanced by count - 1 outputs.

    Returns:
      [count] int64 permutation of 0 .. count-1.
    """
    steps = max(count - 1, 0)
    # `bytes` is the public way to the raw outputs; one block of four bytes is one 32-bit number. Asked for no bytes it
    # would still use up one number.
    raw = np.frombuffer(stream.bytes(4 * steps) if steps else b"", "<u4").astype(np.int64)
    here = np.arange(steps, dtype=np.int64)
    partners = (here + raw % (count - here)).tolist()
    # Python lists: element access of a numpy array is ten times slower in such a loop.
    order = list(range(count))
    for i, j in enumerate(partners):
        order[i], order[j] = order[j], order[i]
    return np.asarray(order, np.int64)


def fixed(count: int) -> np.ndarray:
    """[count] int64: the published permutation with seed 42, which cuts a data set into train and held-out pool."""
    return published(count, published_stream(FIXED_SEED))


def generator(seed: int, name: str, *numbers: int) -> np.random.Generator:
    """A numpy generator for one purpose: a function of the seed, a stream name and further numbers only."""
    return np.random.default_rng([seed, keys.name_hash(name), *numbers])
