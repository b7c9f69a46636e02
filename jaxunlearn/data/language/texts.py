"""Data sets of texts: from token ids to a checked `Dataset`.

    rows of token ids (and their characters) -> padded -> build(...) -> Dataset with `vocabulary` > 0

Inputs are [N, T] int32 with -1 behind the end of a text, T the longest row. Labels are groups (documents, authors,
topics), for which one is enough: a language model predicts tokens, not groups.
"""

from collections.abc import Callable, Sequence

import numpy as np

from jaxunlearn import errors
from jaxunlearn.data.formats import arrays, files
from jaxunlearn.records import Dataset, next_tokens

PADDING = -1

# No tokenizer has more tokens: a larger id cannot be a token.
MAX_VOCABULARY = 1 << 20


def padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Joins N rows of token ids as [N, T] int32, T the longest of them, padded with -1 at the end.

    Raises:
      DataError: more than memory holds.
    """
    longest = max(map(len, rows))
    files.require_memory(f"{len(rows):,} texts of up to {longest:,} tokens", 4 * len(rows) * longest)
    tokens = np.full((len(rows), longest), PADDING, np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return tokens


def build(
    name: str,
    tokens: np.ndarray,
    groups: np.ndarray,
    vocabulary: int,
    *,
    num_train: int = 0,
    held_out: float = 0.0,
    class_names: Sequence[str] = (),
    prompts: np.ndarray | None = None,
    texts: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> Dataset:
    """Builds a data set of texts from rows in the order of their source.

    Args:
      name: the source's name.
      tokens: [N, T] token ids, -1 behind the end of a text.
      groups: [N] the group of each text, from 0.
      vocabulary: V, the number of token ids.
      num_train: rows of the train pool, which come first; 0 = a fraction is held out.
      held_out: that fraction; rows are cut by the fixed permutation of `arrays.cut`.
      class_names: names of the groups; may be empty.
      prompts: [N] number of tokens at the start that are not learned, or None.
      texts: N strings, the characters of the rows, or None.
      names: N names of the rows in the user's files, or None.
      notes: sentences about the source that a user must know.

    Raises:
      DataError: a pool would be empty.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.data.language import texts
      >>> tokens = texts.padded([np.array([1, 2, 3]), np.array([4, 5])])
      >>> dataset = texts.build("mine", tokens, np.array([0, 1]), vocabulary=6, num_train=1)
      >>> dataset.inputs[1], dataset.num_classes
      (array([ 4,  5, -1], dtype=int32), 2)
    """
    count = len(tokens)
    dataset = Dataset(
        inputs=np.asarray(tokens, np.int32),
        labels=np.asarray(groups, np.int32),
        ids=np.arange(count, dtype=np.int64),
        names=None if names is None else np.array(names, np.str_),
        name=name,
        num_train=num_train,
        num_classes=len(class_names) or int(np.max(groups)) + 1,
        class_names=tuple(class_names),
        vocabulary=vocabulary,
        prompts=None if prompts is None else np.asarray(prompts, np.int32),
        # NumPy strings lose zeros at their end; a text of zeros would lose all characters.
        texts=None if texts is None else np.array([text.replace("\0", "\ufffd") for text in texts], np.str_),
        notes=tuple(notes),
    )
    return dataset if num_train else arrays.take(dataset, *arrays.cut(name, count, held_out))


def validate(dataset: Dataset, name: str) -> None:
    """Checks what language models and their scores rely on.

    Raises:
      DataError: inputs that are not [N, T] int32 with T >= 2, ids outside the vocabulary, padding that is not at the
        end, a text of fewer than two tokens or without a learned one, or constants of normalisation.
    """
    source, tokens = f"data source {name!r}", np.asarray(dataset.inputs)
    if tokens.dtype != np.int32 or tokens.ndim != 2 or tokens.shape[1] < 2:
        raise errors.DataError(
            f"{source}: inputs have dtype {tokens.dtype} and shape {tokens.shape}; texts are int32 token ids [N, T] "
            "with at least 2 tokens per row, padded with -1 at the end."
        )
    if dataset.vocabulary < 2:
        raise errors.DataError(f"{source} has a vocabulary of {dataset.vocabulary} token(s); at least 2 are needed.")
    if dataset.mean or dataset.std:
        raise errors.DataError(f"{source}: token ids are not normalised; leave mean and std empty.")
    _check_tokens(source, tokens, dataset.vocabulary)
    lengths = (tokens != PADDING).sum(1)
    if dataset.prompts is not None:
        prompts = np.asarray(dataset.prompts)
        if prompts.dtype.kind not in "iu" or prompts.ndim != 1:
            raise errors.DataError(
                f"{source}: prompts have dtype {prompts.dtype} and shape {prompts.shape}, expected [N] whole numbers "
                "of tokens."
            )
        _refuse_rows(source, prompts < 0, lambda row: f"has a prompt of {prompts[row]} tokens; give 0 or more")
        _refuse_rows(
            source,
            prompts >= lengths,
            lambda row: (
                f"has a prompt of {prompts[row]} tokens but only {lengths[row]} in total: nothing would be "
                "learned of it. A prompt is shorter than its text"
            ),
        )
    if dataset.texts is not None and np.asarray(dataset.texts).dtype.kind not in "UO":
        raise errors.DataError(f"{source}: texts have dtype {np.asarray(dataset.texts).dtype}, expected [N] strings.")


def _check_tokens(source: str, tokens: np.ndarray, vocabulary: int) -> None:
    """Raises a DataError for ids outside the vocabulary and padding between tokens."""
    is_outside = (tokens < PADDING) | (tokens >= vocabulary)
    _refuse_rows(
        source,
        np.any(is_outside, axis=1),
        lambda row: (
            f"contains the token id {tokens[row][is_outside[row]][0]}; with a vocabulary of {vocabulary} ids are "
            f"0 to {vocabulary - 1}, and padding is -1"
        ),
    )
    lengths = (tokens != PADDING).sum(1)
    is_gap = (tokens != PADDING) != (np.arange(tokens.shape[1]) < lengths[:, None])
    _refuse_rows(
        source, np.any(is_gap, axis=1), lambda row: "has padding (-1) before a token; it belongs behind the last one"
    )
    _refuse_rows(
        source,
        lengths < 2,
        lambda row: f"has {lengths[row]} token(s); at least 2 are needed, the second of which is predicted",
    )


def _refuse_rows(source: str, is_wrong: np.ndarray, sentence: Callable[[int], str]) -> None:
    """Raises a DataError that names the first wrong row of a mask [N] and the number of them."""
    wrong = np.flatnonzero(is_wrong)
    if len(wrong):
        raise errors.DataError(f"{source}: row {wrong[0]} {sentence(int(wrong[0]))} ({len(wrong):,} such row(s)).")


def learned_tokens(dataset: Dataset) -> int:
    """Returns the number of tokens that a language model is trained to predict in all texts."""
    return int((next_tokens(dataset) != PADDING).sum())


def require_plain(dataset: Dataset, augment: str) -> None:
    """Raises a ConfigError for augmentation of texts: there is nothing to flip or crop."""
    if augment != "none":
        raise errors.ConfigError(
            f"data.augment = {augment!r} changes pictures, but {dataset.name!r} contains texts. Set "
            "--config.data.augment=none."
        )
