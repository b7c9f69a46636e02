"""Text processing for scores: compressed sizes, and edited copies to query a model with. Host only."""

import zlib
from collections.abc import Iterable

import numpy as np


def deflated(texts: Iterable[str]) -> np.ndarray:
    """Returns [N] float64 bytes of the UTF-8 text compressed by zlib (level 6) per CHARACTER; NaN for an empty text."""
    # "surrogatepass" encodes unpaired surrogates too, so that every text has a size.
    encoded = [(str(text).encode(errors="surrogatepass"), len(str(text))) for text in texts]
    sizes = [(len(zlib.compress(raw, 6)), length) for raw, length in encoded]
    return np.array([size / length if length else np.nan for size, length in sizes])


def swapped_words(text: str, generator: np.random.Generator, alpha: float = 0.3) -> str:
    """Returns a copy of a text in which max(1, int(alpha * words)) random pairs of words are swapped (PAC)."""
    words = text.split()
    for _ in range(max(1, int(alpha * len(words))) if len(words) > 1 else 0):
        first, second = generator.choice(len(words), 2, replace=False)
        words[first], words[second] = words[second], words[first]
    return " ".join(words)
