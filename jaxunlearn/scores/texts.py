"""Scores of texts under language models, from arrays: what `scores.run` is for logits of classifiers.

arrays by the names of tokens.FIELDS -> tokens.from_arrays (checks, one pass) -> measured -> any `lm_*` of SCORES
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

# Which number of a text a name of tokens.FIELDS becomes.
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
    """Losses [..., N] as Signals: their log-odds for verdicts and LiRA, minus the loss itself in place of the logit."""
    if nll is None:
        return None
    nll = jnp.asarray(nll)
    probability = jnp.exp(-nll)
    return Signals(-nll, tokens.log_odds(nll), probability, probability)


def measured_of(evidence: tokens.TokenEvidence) -> AuditSignals:
    """What scores and verdicts read, as of logits; IN stands for the original, OUT models for the shadows."""
    answers = jax.tree.map(np.asarray, {
        "unlearned": signals_of(evidence.target), "original": signals_of(evidence.fit),
        "shadows": signals_of(evidence.ref), "population_unlearned": signals_of(evidence.pop_target),
        "population_original": signals_of(evidence.pop_fit), "population_shadows": signals_of(evidence.pop_ref),
    })  # fmt: skip
    return AuditSignals(np.zeros(len(evidence.target), np.int32), texts=evidence.signals, **answers)


def available(audit_signals: Any) -> dict[str, bool]:
    """Which names of tokens.FIELDS stand behind AuditSignals, or a case of one."""
    there = {name: getattr(audit_signals, model) is not None for name, model in _MODELS.items()}
    for name, statistic in _STATISTICS.items():
        there[name] = audit_signals.texts is not None and getattr(audit_signals.texts, statistic) is not None
    return there


def run(
    wanted: Iterable[str], values: Mapping[str, np.ndarray], options: Options = scores.DEFAULT_OPTIONS
) -> scores.Result:
    """Scores of texts from arrays.

    Args:
      wanted: names of SCORES that read tokens, or `all`.
      values: arrays by the names of tokens.FIELDS, or published ones.
      options: see `options.Options`; its `tokens` are those of texts.

    Raises:
      UserError: bad arrays, options or names.

    Example:
      >>> import numpy as np
      >>> logp = np.log(np.array([[0.9, 0.8, 0.5], [0.2, 0.4, 1.0]], np.float32))
      >>> found = run(["lm_loss"], {"token_logp_target": logp, "mask": np.array([[1, 1, 1], [1, 1, 0]])})
      >>> found.scores["lm_loss"].values.astype(float).round(2).tolist()
      [-0.34, -1.26]
    """
    names = scores.names_of(wanted, scores.TOKENS)
    scores.check_options(options)
    read = arrays.read(values, tokens.FIELDS, tokens.EXPECTED)
    audit_signals = measured_of(tokens.from_arrays(read, options.tokens))
    skipped = scores.skipped_for(names, available(audit_signals), kind=scores.TOKENS)
    computed = {name: scores.compute(name, audit_signals, options) for name in names if name not in skipped}
    return scores.Result(computed, skipped)


@partial(jax.jit, static_argnames=("options",))
def score_arrays(values: Mapping[str, jax.Array], options: Options = scores.DEFAULT_OPTIONS) -> dict[str, jax.Array]:
    """Computes every score of texts whose arrays are there, in ONE program; arrays are not checked.

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
    there = available(audit_signals)
    traced: dict[str, Any] = {
        name: score.entry for name, score in scores.SCORES.items() if score.kinds == (scores.TOKENS,)
    }
    traced["lm_iam"] = entries.iam_traced
    names = [name for name in scores.names_of(("all",), scores.TOKENS) if not scores.find(name).on_host(options)]
    return {
        name: traced[name](audit_signals, options) for name in (*names, "lm_iam") if not scores.missing(name, there)
    }
