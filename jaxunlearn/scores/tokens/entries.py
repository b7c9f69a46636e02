"""Scores of texts as functions (measured, options) -> [N]; higher = the text still looks trained on.

`measured` holds the losses of every model (minus `true_logit`) and their log-odds, and `texts`, the statistics of the
audited model's tokens. Published keys: loss, ratio, zlib, lowercase, minkprob, minkplusplus, surp, pac, recall,
conrecall, neighborhood, ip_fit (IAM-On), ratio_online (LiRA-On), rmia_online.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxunlearn.records import Array
from jaxunlearn.scores.tokens import references

Given = Any
Options = Any


def _nll(read: Any) -> Array:
    return -read.true_logit


def loss(measured: Given, options: Options) -> Array:
    """Minus the mean loss."""
    return -_nll(measured.unlearned)


def ratio(measured: Given, options: Options) -> Array:
    """Minus the loss over that of the OUT models."""
    return references.ratio(_nll(measured.unlearned), _nll(measured.shadows))


def zlib(measured: Given, options: Options) -> Array:
    """Minus the loss over the compressed bytes per character."""
    return -_nll(measured.unlearned) / measured.texts.deflated


def lowercase(measured: Given, options: Options) -> Array:
    """Minus the loss over that of the text in lower case."""
    return -_nll(measured.unlearned) / measured.texts.nll_lower


def min_k(measured: Given, options: Options) -> Array:
    """Min-K %: mean of the least likely log-probabilities; faithful: 0 (surely a member) for texts of few tokens."""
    return _published(measured.texts.min_k, options)


def min_k_pp(measured: Given, options: Options) -> Array:
    """Min-K++ with moments under the model, as its paper has it."""
    return _published(measured.texts.min_k_pp, options)


def min_k_pp_vocab(measured: Given, options: Options) -> Array:
    """Min-K++ with plain moments over the vocabulary, as the benchmark's code has it."""
    return _published(measured.texts.min_k_pp_vocab, options)


def _published(values: Array, options: Options) -> Array:
    return jnp.nan_to_num(values, nan=0.0) if options.tokens.is_faithful else values


def surp(measured: Given, options: Options) -> Array:
    """SURP: mean log-probability of unlikely tokens where the model was sure; -100 where there is none."""
    return measured.texts.surp


def pac(measured: Given, options: Options) -> Array:
    """PAC: minus the polarised distance of the text, against that of edited copies."""
    return -(measured.texts.pac_distance - measured.texts.pac_augmented)


def pac_distance(measured: Given, options: Options) -> Array:
    """Minus the polarised distance of the text alone."""
    return -measured.texts.pac_distance


def recall(measured: Given, options: Options) -> Array:
    """ReCaLL: loss behind a prefix of non-members over the loss alone."""
    return measured.texts.nll_recall / _away_from_zero(_nll(measured.unlearned))


def conrecall(measured: Given, options: Options) -> Array:
    """CON-ReCaLL: the same, less the loss behind a prefix of members."""
    gained = measured.texts.nll_recall - measured.texts.nll_recall_member
    return gained / _away_from_zero(_nll(measured.unlearned))


def neighborhood(measured: Given, options: Options) -> Array:
    """Mean loss of neighbours minus the loss."""
    return measured.texts.nll_neighbours - _nll(measured.unlearned)


def lira(measured: Given, options: Options) -> Array:
    """LiRA-On with one IN model."""
    return references.lira(measured.unlearned.log_odds, measured.original.log_odds, measured.shadows.log_odds)


def rmia(measured: Given, options: Options) -> Array:
    """RMIA-On."""
    return references.rmia(
        _nll(measured.unlearned), _nll(measured.original), _nll(measured.shadows),
        _nll(measured.population_unlearned), _nll(measured.population_original), _nll(measured.population_shadows),
        options.tokens.gamma,
    )  # fmt: skip


def iam(measured: Given, options: Options) -> np.ndarray:
    """IAM-On of texts, float64 on the host: one minus a float32 that has all its digits where scores are near 1."""
    return 1.0 - np.asarray(_iam_unlearned(measured, options), np.float64)


def iam_traced(measured: Given, options: Options) -> Array:
    """IAM-On of texts in float32, for programs."""
    return 1 - _iam_unlearned(measured, options)


def _iam_unlearned(measured: Given, options: Options) -> Array:
    o = options.tokens
    return references.iam_unlearned(
        _nll(measured.unlearned), _nll(measured.original), _nll(measured.shadows),
        levels=o.levels, eps1=o.eps1, eps2=o.eps2, block=o.block,
    )  # fmt: skip


def _away_from_zero(values: Array) -> Array:
    return jnp.maximum(values, 1e-6)
