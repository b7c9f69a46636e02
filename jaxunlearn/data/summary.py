"""Facts about a data set: counts, balance, ranges, repeated rows, and examples to look at."""

import hashlib
from typing import NamedTuple

import numpy as np

from jaxunlearn import checks
from jaxunlearn.data import naming
from jaxunlearn.data.language import texts
from jaxunlearn.records import Dataset

SHOWN_CHARACTERS = 80


class TextFacts(NamedTuple):
    """Facts about a data set of texts.

    Attributes:
      vocabulary: number of token ids; `used`: number of them that occur.
      tokens: total of all texts; `learned`: number of them that a language model is trained to predict.
      lengths: tokens of the shortest, the median and the longest text.
      example_name, example: the user's name of the first text of the train pool, and its characters (else its token
        ids), shortened.
    """

    vocabulary: int
    used: int
    tokens: int
    learned: int
    lengths: tuple[int, int, int]
    example_name: str
    example: str


class Summary(NamedTuple):
    """Facts about a data set.

    Attributes:
      name: the source's name.
      num_train, num_held_out: rows per pool.
      shape, dtype: of one raw row.
      num_classes, class_names, class_values: as in the data set.
      train_counts, held_out_counts: rows per class, one number for each class.
      low, high: smallest and largest raw value.
      constant_fraction: fraction of pixels or features that have one value in the whole train pool.
      shared: number of held-out rows whose inputs also occur in the train pool, byte by byte.
      repeated: number of train rows that repeat an earlier train row's inputs.
      is_normalised: whether mean and std are set.
      notes: sentences of the source about itself.
      texts: facts that only texts have, else None.
    """

    name: str
    num_train: int
    num_held_out: int
    shape: tuple[int, ...]
    dtype: str
    num_classes: int
    class_names: tuple[str, ...]
    train_counts: tuple[int, ...]
    held_out_counts: tuple[int, ...]
    low: float
    high: float
    constant_fraction: float
    shared: int
    repeated: int
    is_normalised: bool
    notes: tuple[str, ...] = ()
    class_values: tuple[int, ...] = ()
    texts: TextFacts | None = None


def describe(dataset: Dataset) -> Summary:
    """Summarises a data set in one pass over its rows (about a second for CIFAR-10).

    Rows in both pools matter for every audit: the model has seen them although they count as held out.

    Example:
      >>> from jaxunlearn import data, settings
      >>> from jaxunlearn.data import summary
      >>> facts = summary.describe(data.load(settings.DataSettings(name="digits")))
      >>> facts.num_train, facts.num_held_out, facts.shared
      (1437, 360, 0)
    """
    inputs, labels = np.asarray(dataset.inputs), np.asarray(dataset.labels)
    num_train = dataset.num_train
    train = inputs[:num_train]
    hashes = [_row_hash(row) for row in inputs]
    train_hashes = set(hashes[:num_train])
    return Summary(
        name=dataset.name,
        num_train=num_train,
        num_held_out=len(labels) - num_train,
        shape=tuple(inputs.shape[1:]),
        dtype=str(inputs.dtype),
        num_classes=dataset.num_classes,
        class_names=dataset.class_names,
        train_counts=tuple(np.bincount(labels[:num_train], minlength=dataset.num_classes).tolist()),
        held_out_counts=tuple(np.bincount(labels[num_train:], minlength=dataset.num_classes).tolist()),
        low=float(inputs.min()),
        high=float(inputs.max()),
        constant_fraction=float(np.mean(train.min(axis=0) == train.max(axis=0))),
        shared=sum(row_hash in train_hashes for row_hash in hashes[num_train:]),
        repeated=num_train - len(train_hashes),
        is_normalised=bool(dataset.mean),
        notes=dataset.notes,
        class_values=dataset.class_values,
        texts=_text_facts(dataset) if dataset.vocabulary else None,
    )


def _text_facts(dataset: Dataset) -> TextFacts:
    tokens = np.asarray(dataset.inputs)
    is_token = tokens != texts.PADDING
    lengths = is_token.sum(1)
    example = str(dataset.texts[0]) if dataset.texts is not None else " ".join(map(str, tokens[0][is_token[0]]))
    return TextFacts(
        vocabulary=dataset.vocabulary,
        used=len(np.unique(tokens[is_token])),
        tokens=int(lengths.sum()),
        learned=texts.learned_tokens(dataset),
        lengths=(int(lengths.min()), int(np.median(lengths)), int(lengths.max())),
        example_name=str(naming.display_names(dataset, [0])[0]),
        example=example if len(example) <= SHOWN_CHARACTERS else example[: SHOWN_CHARACTERS - 3] + "...",
    )


def _row_hash(row: np.ndarray) -> bytes:
    # Adding 0 turns -0.0 into 0.0, which is the same value in other bytes.
    values = row + 0.0 if row.dtype.kind == "f" else row
    return hashlib.blake2b(values.tobytes(), digest_size=16).digest()


def examples(dataset: Dataset, per_class: int) -> np.ndarray:
    """Returns rows for a contact sheet: the first `per_class` train rows of each class.

    Returns:
      [C, per_class] int64 rows of the data set; -1 where a class has fewer.

    Raises:
      ConfigError: per_class below 1.
    """
    checks.in_range("per_class", per_class, 1)
    labels = np.asarray(dataset.labels)[: dataset.num_train]
    rows = np.full((dataset.num_classes, per_class), -1, np.int64)
    for label in range(dataset.num_classes):
        first = np.flatnonzero(labels == label)[:per_class]
        rows[label, : len(first)] = first
    return rows
