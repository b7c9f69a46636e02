"""Scores of texts as functions (audit_signals, options) -> [N]; higher = the text still looks trained on.

`audit_signals` holds the losses of every model (minus `true_logit`) and their log-odds, and `texts`, the statistics of
the audited model's tokens. Published keys: loss, ratio, zlib, lowercase, minkprob, minkplusplus, surp, pac, recall,
conrecall, neighborhood, ip_fit (IAM-On), ratio_online (LiRA-On), rmia_online.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxunlearn.records import Array
from jaxunlearn.scores.tokens import references

Inputs = Any
Options = Any


def _nll(answers: Any) -> Array:
    return -answers.true_logit


def loss(audit_signals: Inputs, options: Options) -> Array:
    """Returns minus the mean loss."""
    return -_nll(audit_signals.unlearned)


def ratio(audit_signals: Inputs, options: Options) -> Array:
    """Returns minus the loss over that of the OUT models."""
    return references.ratio(_nll(audit_signals.unlearned), _nll(audit_signals.shadows))


def zlib(audit_signals: Inputs, options: Options) -> Array:
    """Returns minus the loss over the compressed bytes per character."""
    return -_nll(audit_signals.unlearned) / audit_signals.texts.deflated


def lowercase(audit_signals: Inputs, options: Options) -> Array:
    """Returns minus the loss over that of the text in lower case."""
    return -_nll(audit_signals.unlearned) / audit_signals.texts.nll_lower


def min_k(audit_signals: Inputs, options: Options) -> Array:
    """Returns Min-K %, the mean of the smallest log-probabilities.

    Faithful: 0 (certainly a member) for texts of few tokens.
    """
    return _published(audit_signals.texts.min_k, options)


def min_k_pp(audit_signals: Inputs, options: Options) -> Array:
    """Returns Min-K++ with moments under the model, as in its paper."""
    return _published(audit_signals.texts.min_k_pp, options)


def min_k_pp_vocab(audit_signals: Inputs, options: Options) -> Array:
    """Returns Min-K++ with plain moments over the vocabulary, as in the benchmark's code."""
    return _published(audit_signals.texts.min_k_pp_vocab, options)


def _published(values: Array, options: Options) -> Array:
    return jnp.nan_to_num(values, nan=0.0) if options.tokens.is_faithful else values


def surp(audit_signals: Inputs, options: Options) -> Array:
    """Returns SURP, the mean log-probability of unlikely tokens where the model was sure; -100 if there is none."""
    return audit_signals.texts.surp


def pac(audit_signals: Inputs, options: Options) -> Array:
    """Returns PAC: minus the polarised distance of the text, relative to that of edited copies."""
    return -(audit_signals.texts.pac_distance - audit_signals.texts.pac_augmented)


def pac_distance(audit_signals: Inputs, options: Options) -> Array:
    """Returns minus the polarised distance of the text alone."""
    return -audit_signals.texts.pac_distance


def recall(audit_signals: Inputs, options: Options) -> Array:
    """Returns ReCaLL: the loss after a prefix of non-members over the loss alone."""
    return audit_signals.texts.nll_recall / _floored(_nll(audit_signals.unlearned))


def conrecall(audit_signals: Inputs, options: Options) -> Array:
    """Returns CON-ReCaLL: as `recall`, but minus the loss after a prefix of members."""
    difference = audit_signals.texts.nll_recall - audit_signals.texts.nll_recall_member
    return difference / _floored(_nll(audit_signals.unlearned))


def neighborhood(audit_signals: Inputs, options: Options) -> Array:
    """Returns the mean loss of neighbours minus the loss."""
    return audit_signals.texts.nll_neighbours - _nll(audit_signals.unlearned)


def lira(audit_signals: Inputs, options: Options) -> Array:
    """Computes LiRA-On with one IN model."""
    return references.lira(
        audit_signals.unlearned.log_odds, audit_signals.original.log_odds, audit_signals.shadows.log_odds
    )


def rmia(audit_signals: Inputs, options: Options) -> Array:
    """Computes RMIA-On."""
    return references.rmia(
        _nll(audit_signals.unlearned), _nll(audit_signals.original), _nll(audit_signals.shadows),
        _nll(audit_signals.population_unlearned), _nll(audit_signals.population_original),
        _nll(audit_signals.population_shadows),
        options.tokens.gamma,
    )  # fmt: skip


def iam(audit_signals: Inputs, options: Options) -> np.ndarray:
    """Computes IAM-On in float64 on the host: one minus a float32 that keeps all its digits where scores are near 1."""
    return 1.0 - np.asarray(_iam_unlearned(audit_signals, options), np.float64)


def iam_traced(audit_signals: Inputs, options: Options) -> Array:
    """Computes IAM-On in float32, for use inside programs."""
    return 1 - _iam_unlearned(audit_signals, options)


def _iam_unlearned(audit_signals: Inputs, options: Options) -> Array:
    o = options.tokens
    return references.iam_unlearned(
        _nll(audit_signals.unlearned), _nll(audit_signals.original), _nll(audit_signals.shadows),
        interpolation_steps=o.interpolation_steps, eps1=o.eps1, eps2=o.eps2, block=o.block,
    )  # fmt: skip


def _floored(losses: Array) -> Array:
    """Raises losses, which are never negative, to 1e-6, to divide by them."""
    return jnp.maximum(losses, 1e-6)
