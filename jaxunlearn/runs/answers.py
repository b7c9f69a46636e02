"""Correctness, log-odds and losses of single rows, from recorded logits or signals of next tokens.

recorded values [n, K] of the rows [n] of a data set -> correctness and log-odds of each row; losses of texts
"""

import numpy as np

from jaxunlearn import records
from jaxunlearn.scores import signals, tokens


def correctness(dataset: records.Dataset, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Computes the correctness of one model on each row: of the class, or the share of a text's next tokens.

    Args:
      dataset: of the rows.
      values: [n, K] as recorded.
      rows: [n] of the data set.

    Returns:
      [n] bool; for texts [n] float32 in [0, 1].
    """
    if not dataset.vocabulary:
        return np.asarray(values).argmax(-1) == np.asarray(dataset.labels)[rows]
    recorded_signals = tokens.unpacked(values, prediction_mask(dataset, rows))
    return np.asarray(recorded_signals.right.sum(-1) / recorded_signals.mask.sum(-1), np.float32)


def log_odds(dataset: records.Dataset, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Computes [n] float32 log-odds of the true class, or of a text: log(P / (1 - P)), P = e^-loss."""
    if not dataset.vocabulary:
        logits = np.asarray(values, np.float32)
        return np.asarray(signals.carlini_logit(logits, np.asarray(dataset.labels)[rows]))
    return np.asarray(tokens.log_odds(losses(dataset, values, rows)), np.float32)


def losses(dataset: records.Dataset, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Computes [n] float32 mean losses of texts over their next tokens, in nats."""
    recorded_signals = tokens.unpacked(values, prediction_mask(dataset, rows))
    return np.asarray(tokens.nll(recorded_signals.logp, recorded_signals.mask))


def prediction_mask(dataset: records.Dataset, rows: records.Array | slice = slice(None)) -> np.ndarray:
    """Returns [n, T - 1] bool: which predictions of the texts count (the next token is real and not in the prompt)."""
    return records.next_tokens(dataset, rows)[:, :-1] >= 0
