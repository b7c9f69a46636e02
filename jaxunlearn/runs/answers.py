"""What recorded answers say of single rows, whether they are logits of classes or signals of next tokens.

recorded [n, K] of the rows [n] of a data set -> how much of each row is right, its log-odds; of texts their losses
"""

import numpy as np

from jaxunlearn import records
from jaxunlearn.scores import signals, tokens


def right(dataset: records.Dataset, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """How much of each row one model gets right: the class, or the share of a text's next tokens.

    Args:
      dataset: of the rows.
      values: [n, K] as recorded.
      rows: [n] of the data set.

    Returns:
      [n] bool, or [n] float32 in [0, 1] of texts.
    """
    if not dataset.vocabulary:
        return np.asarray(values).argmax(-1) == np.asarray(dataset.labels)[rows]
    found = tokens.unpacked(values, predicted(dataset, rows))
    return np.asarray(found.right.sum(-1) / found.mask.sum(-1), np.float32)


def log_odds(dataset: records.Dataset, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[n] float32 log-odds of the right class, or of a text: log(P / (1 - P)), P = e^-loss."""
    if not dataset.vocabulary:
        read = np.asarray(values, np.float32)
        return np.asarray(signals.carlini_logit(read, np.asarray(dataset.labels)[rows]))
    return np.asarray(tokens.log_odds(losses(dataset, values, rows)), np.float32)


def losses(dataset: records.Dataset, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[n] float32 mean losses of texts over their next tokens, in nats."""
    found = tokens.unpacked(values, predicted(dataset, rows))
    return np.asarray(tokens.nll(found.logp, found.mask))


def predicted(dataset: records.Dataset, rows: records.Array | slice = slice(None)) -> np.ndarray:
    """[n, T - 1] bool, which predictions of the texts count: the token after is real and behind the prompt."""
    return records.next_tokens(dataset, rows)[:, :-1] >= 0
