"""Scores of texts under language models, from per-token log-probabilities or per-text losses. Higher = member.

    logits, ids, mask -> `extraction`: signals per token, one forward pass -> `statistics`: one pass over the tokens
    -> statistics per text -> `references` (losses of IN and OUT models) and `entries`: (audit_signals, options) -> [N]

This package does not import the other scores; its lines of the table are `lm_*` in `scores.SCORES`.
"""

from jaxunlearn.scores.tokens.evidence import EXPECTED, FIELDS, TokenEvidence, from_arrays
from jaxunlearn.scores.tokens.extraction import TokenSignals, extract, from_logits, recorded, unpacked, width
from jaxunlearn.scores.tokens.options import TokenOptions
from jaxunlearn.scores.tokens.options import check as check_options
from jaxunlearn.scores.tokens.references import log_odds
from jaxunlearn.scores.tokens.statistics import TextSignals, nll, summarise

__all__ = [
    "EXPECTED",
    "FIELDS",
    "TextSignals",
    "TokenEvidence",
    "TokenOptions",
    "TokenSignals",
    "check_options",
    "extract",
    "from_arrays",
    "from_logits",
    "log_odds",
    "nll",
    "recorded",
    "summarise",
    "unpacked",
    "width",
]
