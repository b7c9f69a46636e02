"""Tokenizers: from characters to token ids, and back if possible.

    of(settings) -> Tokenizer      `bytes`, the alphabet of the grammar, or a user's `my_module:my_tokenizer`

A user's tokenizer is a function from a string to a list of ids from 0. It may have two attributes: `vocabulary`, the
number of ids (else the largest one that occurs, plus 1), and `decode`, from a list of ids to a string (without it,
scores that read characters are not available for texts that are cut into blocks).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn import checks, errors
from jaxunlearn.data.language import grammar, texts
from jaxunlearn.settings import DataSettings


class Tokenizer(NamedTuple):
    """A mapping from texts to token ids.

    Attributes:
      name: as in the settings, for messages.
      encode: string -> the tokenizer's unchecked result; `encoded` checks it.
      decode: list of ids -> string, or None where that is not known.
      vocabulary: number of ids; 0 = not known.
    """

    name: str
    encode: Callable[[str], Any]
    decode: Callable[[list[int]], str] | None
    vocabulary: int


BYTES = Tokenizer(
    "bytes",
    lambda text: np.frombuffer(text.encode(), np.uint8),
    lambda ids: bytes(ids).decode(errors="replace"),  # ids that a file gives need be no UTF-8
    256,
)
ALPHABET = Tokenizer(
    "grammar", grammar.read, lambda ids: "".join(grammar.CHARACTERS[index] for index in ids), grammar.VOCABULARY
)


def of(settings: DataSettings) -> Tokenizer:
    """Returns the tokenizer of a data set of texts.

    Raises:
      ConfigError: neither `bytes` nor an importable function, or attributes that are not a vocabulary and a function.
    """
    if settings.name == "grammar":
        return ALPHABET
    name = settings.tokenizer
    if ":" not in name and name != BYTES.name:
        raise errors.ConfigError(f"data.tokenizer = {name!r}: expected 'bytes', or my_module:my_tokenizer.")
    if name == BYTES.name:
        return BYTES
    encode = checks.lookup("data.tokenizer", name, {})
    vocabulary, decode = getattr(encode, "vocabulary", 0), getattr(encode, "decode", None)
    if vocabulary != 0:
        is_whole = isinstance(vocabulary, (int, np.integer)) and not isinstance(vocabulary, bool)
        if not is_whole or not 2 <= vocabulary <= texts.MAX_VOCABULARY:
            raise errors.ConfigError(
                f"data.tokenizer = {name!r}: its attribute vocabulary is {vocabulary!r}, expected the number of token "
                f"ids, 2 to {texts.MAX_VOCABULARY:,}."
            )
    if decode is not None and not callable(decode):
        raise errors.ConfigError(f"data.tokenizer = {name!r}: its attribute decode is not a function from ids to text.")
    return Tokenizer(name, encode, decode, int(vocabulary))


def encoded(tokenizer: Tokenizer, text: str, where: str) -> np.ndarray:
    """Returns the token ids of a text, [n] int32.

    Args:
      tokenizer: from `of`.
      text: any string.
      where: source of the text, for messages.

    Raises:
      ConfigError: the tokenizer fails, or does not return whole numbers from 0 within its vocabulary.
    """
    what = f"data.tokenizer {tokenizer.name}, on {where},"
    with checks.users_code(what, tokenizer.encode if ":" in tokenizer.name else None):
        ids = tokenizer.encode(text)
    try:
        token_ids = np.asarray(ids)
    except (ValueError, TypeError, OverflowError) as error:
        raise errors.ConfigError(f"{what} returned no list of token ids ({error}).") from error
    if token_ids.ndim == 1 and token_ids.size == 0:
        return np.zeros(0, np.int32)
    if token_ids.ndim != 1 or token_ids.dtype.kind not in "iu":
        raise errors.ConfigError(
            f"{what} returned {type(ids).__name__} of shape {token_ids.shape} and dtype {token_ids.dtype}, expected "
            "a list of whole numbers: wrap it in a function that returns the ids alone."
        )
    complaint = wrong_id(token_ids, tokenizer.vocabulary)
    if complaint:
        raise errors.ConfigError(f"{what} returned {complaint}.")
    return token_ids.astype(np.int32)


def wrong_id(ids: np.ndarray, vocabulary: int) -> str:
    """Returns a phrase about an id of [n], n > 0, that is not a token of the vocabulary (0 = not known); "" if none."""
    low, high = int(ids.min()), int(ids.max())
    if low < 0:
        return f"the token id {low}; ids start at 0, and padding is added here"
    if vocabulary and high >= vocabulary:
        return f"the token id {high}, but the vocabulary has {vocabulary:,} tokens (ids 0 to {vocabulary - 1})"
    if high >= texts.MAX_VOCABULARY:
        return f"the token id {high}; no vocabulary has more than {texts.MAX_VOCABULARY:,} tokens"
    return ""


def decoded(tokenizer: Tokenizer, ids: np.ndarray, where: str) -> str | None:
    """Returns the characters of token ids [n], or None if the tokenizer cannot decode.

    Raises:
      ConfigError: the user's `decode` fails or returns no string.
    """
    if tokenizer.decode is None:
        return None
    what = f"the attribute decode of data.tokenizer {tokenizer.name}, on {where},"
    with checks.users_code(what, tokenizer.decode if ":" in tokenizer.name else None):
        text = tokenizer.decode(ids.tolist())
    if not isinstance(text, str):
        raise errors.ConfigError(f"{what} returned {type(text).__name__}, expected a string.")
    return text
