"""Scores of texts under language models, from arrays: the counterpart of `scores.run` for logits of classifiers.

arrays by the names of tokens.FIELDS -> tokens.from_arrays (checks, one pass) -> AuditSignals -> any `lm_*` of SCORES
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import arrays, scores
from jaxunlearn.records import Array
from jaxunlearn.scores import tokens
from jaxunlearn.scores.audit_signals import AuditSignals, Signals
from jaxunlearn.scores.options import Options
from jaxunlearn.scores.tokens import entries

# Names of tokens.FIELDS -> fields of TextSignals and of AuditSignals that are computed from them.
_STATISTICS = {
    "token_logp_target": "min_k", "token_logp_pac": "pac_augmented", "texts": "deflated", "nll_lower": "nll_lower",
    "nll_recall": "nll_recall", "nll_recall_member": "nll_recall_member", "nll_neighbours": "nll_neighbours",
    "entropy": "surp", "model_std": "min_k_pp", "vocab_mean": "min_k_pp_vocab", "vocab_std": "min_k_pp_vocab",
}  # fmt: skip
_MODELS = {
    "nll_fit": "original", "nll_ref": "shadows", "pop_nll_target": "population_unlearned",
    "pop_nll_fit": "population_original", "pop_nll_ref": "population_shadows",
}  # fmt: skip


def signals_of(nll: Array | None) -> Any:
    """Returns losses [..., N] as Signals: with log-odds for verdicts and LiRA, and minus the loss as the logit."""
    if nll is None:
        return None
    nll = jnp.asarray(nll)
    probability = jnp.exp(-nll)
    return Signals(-nll, tokens.log_odds(nll), probability, probability)


def audit_signals_of(evidence: tokens.TokenEvidence) -> AuditSignals:
    """Returns the losses of texts as AuditSignals; IN stands for the original, OUT models for the shadows."""
    answers = jax.tree.map(np.asarray, {
        "unlearned": signals_of(evidence.target), "original": signals_of(evidence.fit),
        "shadows": signals_of(evidence.ref), "population_unlearned": signals_of(evidence.pop_target),
        "population_original": signals_of(evidence.pop_fit), "population_shadows": signals_of(evidence.pop_ref),
    })  # fmt: skip
    return AuditSignals(np.zeros(len(evidence.target), np.int32), texts=evidence.signals, **answers)


def available(audit_signals: Any) -> dict[str, bool]:
    """Returns name of tokens.FIELDS -> whether AuditSignals, or one selected model of it, hold it."""
    flags = {name: getattr(audit_signals, model) is not None for name, model in _MODELS.items()}
    for name, statistic in _STATISTICS.items():
        flags[name] = audit_signals.texts is not None and getattr(audit_signals.texts, statistic) is not None
    return flags


def run(
    names: Iterable[str], values: Mapping[str, np.ndarray], options: Options = scores.DEFAULT_OPTIONS
) -> scores.Result:
    """Computes scores of texts from arrays.

    Args:
      names: scores of SCORES that read tokens, or `all`.
      values: arrays by the names of tokens.FIELDS, or published names.
      options: see `options.Options`; its `tokens` are those of texts.

    Raises:
      UserError: bad arrays, options or names.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.scores import texts
      >>> logp = np.log(np.array([[0.9, 0.8, 0.5], [0.2, 0.4, 1.0]], np.float32))
      >>> result = texts.run(["lm_loss"], {"token_logp_target": logp, "mask": np.array([[1, 1, 1], [1, 1, 0]])})
      >>> result.scores["lm_loss"].values.astype(float).round(2).tolist()
      [-0.34, -1.26]
    """
    names = scores.names_of(names, scores.TOKENS)
    scores.check_options(options)
    inputs = arrays.read(values, tokens.FIELDS, tokens.EXPECTED)
    audit_signals = audit_signals_of(tokens.from_arrays(inputs, options.tokens))
    skipped = scores.skipped_for(names, available(audit_signals), kind=scores.TOKENS)
    computed = {name: scores.compute(name, audit_signals, options) for name in names if name not in skipped}
    return scores.Result(computed, skipped)


@partial(jax.jit, static_argnames=("options",))
def score_arrays(values: Mapping[str, jax.Array], options: Options = scores.DEFAULT_OPTIONS) -> dict[str, jax.Array]:
    """Computes every score of texts whose arrays are given, in ONE program; the arrays are not checked.

    Args:
      values: `token_logp_target`, `mask` [N, T]; `entropy` and the other moments; losses `nll_fit` [N], `nll_ref`
        [S, N], `pop_nll_*`, and those of edited texts; `deflated` [N] instead of `texts`.
      options: static.

    Returns:
      name -> [N].
    """
    moments = {name: values[name] for name in ("entropy", "model_std", "vocab_mean", "vocab_std") if name in values}
    nll, statistics = tokens.summarise(values["token_logp_target"], values["mask"], options.tokens, **moments)
    edited = ("deflated", "nll_lower", "nll_recall", "nll_recall_member")
    statistics = statistics._replace(**{name: values[name] for name in edited if name in values})
    if "nll_neighbours" in values:
        statistics = statistics._replace(nll_neighbours=jnp.mean(values["nll_neighbours"], 0))
    answers = {model: signals_of(values.get(name)) for name, model in _MODELS.items()}
    labels: Any = jnp.zeros(nll.shape, jnp.int32)
    audit_signals: Any = AuditSignals(labels, signals_of(nll), texts=statistics, **answers)
    flags = available(audit_signals)
    entry_of: dict[str, Any] = {
        name: score.entry for name, score in scores.SCORES.items() if score.kinds == (scores.TOKENS,)
    }
    entry_of["lm_iam"] = entries.iam_traced
    names = [name for name in scores.names_of(("all",), scores.TOKENS) if not scores.find(name).on_host(options)]
    return {
        name: entry_of[name](audit_signals, options) for name in (*names, "lm_iam") if not scores.missing(name, flags)
    }
