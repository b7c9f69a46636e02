"""One pass over the logits: from [..., N, C] to three numbers per model and sample, which serve every score.

The pass streams: one model and a block of samples at a time, so that memory beyond the input is a few megabytes however
large the input is (a memory-mapped file included).
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.records import Array, Evidence
from jaxunlearn.scores import signals
from jaxunlearn.scores.families import unleak
from jaxunlearn.scores.options import Options
from jaxunlearn.scores.tokens.statistics import TextSignals

BLOCK_BYTES = 32 * 2**20


class Signals(NamedTuple):
    """What scores need to know of a model's answers; every field [..., N] float32.

    Attributes:
      true_logit: raw logit of the true class.
      log_odds: unclipped log-odds of the true class; confidence and cross entropy follow from it.
      margin: Taylor soft-margin signal at the data set's temperature; faithful: by the published polynomial.
      ratio: the RMIA signal chosen (the same array as `margin` by default).
    """

    true_logit: Array
    log_odds: Array
    margin: Array
    ratio: Array


class AuditSignals(NamedTuple):
    """The evidence of one audit after the pass; None where the evidence has no such array.

    Attributes:
      labels: [N].
      unlearned, original: Signals [N]; shadows: Signals [S, N].
      population_original, population_unlearned, population_in: Signals [P]; population_shadows: Signals [S, P].
      own: Signals [S, m] of every shadow on its own training rows.
      reference: Signals [K, N]; reference_member: [K, N] bool.
      posterior_pairs: [N, C] UnLeak features of the audited pair; posterior_pairs_known: [S, q, C];
        posterior_pairs_forgotten: [S, q] bool.
      texts: statistics of the audited model's tokens, where samples are texts.
      views: AuditSignals per augmented view (original, unlearned and shadows only).
    """

    labels: np.ndarray
    unlearned: Signals | None = None
    original: Signals | None = None
    shadows: Signals | None = None
    population_original: Signals | None = None
    population_unlearned: Signals | None = None
    population_in: Signals | None = None
    population_shadows: Signals | None = None
    own: Signals | None = None
    reference: Signals | None = None
    reference_member: np.ndarray | None = None
    posterior_pairs: np.ndarray | None = None
    posterior_pairs_known: np.ndarray | None = None
    posterior_pairs_forgotten: np.ndarray | None = None
    texts: TextSignals | None = None
    views: tuple["AuditSignals", ...] = ()


@partial(jax.jit, static_argnames=("signal", "compat"))
def _block(logits: jax.Array, labels: jax.Array, temperature: jax.Array, signal: str, compat: str) -> Signals:
    table = signals.PUBLISHED_RMIA_SIGNALS if compat == "faithful" else signals.RMIA_SIGNALS
    margin = table["taylor_soft_margin"](logits, labels, temperature)
    chosen = margin if signal == "taylor_soft_margin" else table[signal](logits, labels, temperature)
    return Signals(signals.true_logit(logits, labels), signals.log_odds(logits, labels), margin, chosen)


def signals_of(values: Array, labels: Array, options: Options, rows: np.ndarray | None = None) -> Signals:
    """The signals of one or more models, streamed.

    Args:
      values: [N, C], or [M, N, C] with labels [N] or [M, N]; any float type; may be a memory map.
      labels: whole numbers, those of the chosen rows.
      options: RMIA signal, temperature and compat.
      rows: [n] positions along N to look at, in this order; None = all.

    Returns:
      Signals of [N] or [M, N] NumPy float32 arrays.
    """
    shape = (*values.shape[:-2], values.shape[-2] if rows is None else len(rows))
    true_logit, odds, margin = (np.empty(shape, np.float32) for _ in range(3))
    same = options.rmia_signal == "taylor_soft_margin"
    out = Signals(true_logit, odds, margin, margin if same else np.empty(shape, np.float32))
    labels = np.broadcast_to(np.asarray(labels, np.int32), shape)
    temperature = jnp.float32(options.constants.temperature)
    before: tuple[tuple, Signals] | None = None
    for place in _places(shape, values.shape[-1]):
        where = place if rows is None else (*place[:-1], rows[place[-1]])
        block = _block(np.asarray(values[where]), labels[place], temperature, options.rmia_signal, options.compat)
        # The previous block is fetched while this one is computed, so that two blocks at most are in flight.
        _fetch(out, before)
        before = (place, block)
    _fetch(out, before)
    return out


def _places(shape: tuple[int, ...], num_classes: int) -> Iterator[tuple]:
    rows = max(1, BLOCK_BYTES // (4 * num_classes))
    for start in range(0, shape[-1], rows):
        part = slice(start, min(start + rows, shape[-1]))
        if len(shape) == 1:
            yield (part,)
        else:
            yield from ((model, part) for model in range(shape[0]))


def _fetch(out: Signals, done: tuple[tuple, Signals] | None) -> None:
    if done is not None:
        place, block = done
        for target, value in zip(out, block, strict=True):
            assert isinstance(target, np.ndarray)
            target[place] = np.asarray(value)


def signals_pass(evidence: Evidence, options: Options, *, pairs: bool = True) -> AuditSignals:
    """The one pass: signals of every array of the evidence, and UnLeak's features where `pairs`.

    The evidence must have been checked (`scores.check`). Nothing of [.., C] is kept but UnLeak's features.
    """

    def of(values: Array | None, labels: Array | None) -> Signals | None:
        return None if values is None or labels is None else signals_of(values, labels, options)

    labels, others = np.asarray(evidence.labels), evidence.population_labels
    known = None
    if pairs and evidence.posterior_pairs_original is not None and evidence.posterior_pairs_unlearned is not None:
        known = np.asarray(
            unleak.features(
                np.asarray(evidence.posterior_pairs_original), np.asarray(evidence.posterior_pairs_unlearned)
            )
        )
    audited = None
    if known is not None and evidence.original is not None:
        audited = np.asarray(unleak.features(np.asarray(evidence.original), np.asarray(evidence.unlearned)))
    return AuditSignals(
        labels=labels,
        unlearned=of(evidence.unlearned, labels),
        original=of(evidence.original, labels),
        shadows=of(evidence.shadows, labels),
        population_original=of(evidence.population_original, others),
        population_unlearned=of(evidence.population_unlearned, others),
        population_in=of(evidence.population_in, others),
        population_shadows=of(evidence.population_shadows, others),
        own=of(evidence.shadow_train_logits, evidence.shadow_train_labels),
        reference=of(evidence.reference, labels),
        reference_member=None if evidence.reference_member is None else np.asarray(evidence.reference_member, bool),
        posterior_pairs=audited,
        posterior_pairs_known=known,
        posterior_pairs_forgotten=None
        if evidence.posterior_pairs_forgotten is None
        else np.asarray(evidence.posterior_pairs_forgotten, bool),
        views=_views(evidence, labels, options),
    )


def _views(evidence: Evidence, labels: np.ndarray, options: Options) -> tuple[AuditSignals, ...]:
    wanted = evidence.unlearned_views
    if wanted is None:
        return ()

    def of(values: Array | None, view: int) -> Signals | None:
        return None if values is None else signals_of(values[view], labels, options)

    return tuple(
        AuditSignals(
            labels,
            unlearned=of(wanted, view),
            original=of(evidence.original_views, view),
            shadows=of(evidence.shadows_views, view),
        )
        for view in range(wanted.shape[0])
    )


class AuditedModels(NamedTuple):
    """The parts of AuditSignals that differ between K audited models scored together; every field with a leading K.

    Attributes:
      unlearned, original: Signals [K, N]; population_unlearned, population_original: Signals [K, P].
      posterior_pairs: [K, N, C] UnLeak features.
      texts: TextSignals [K, N].
      views: one AuditedModels per augmented view.
    """

    unlearned: Signals
    original: Signals | None = None
    population_unlearned: Signals | None = None
    population_original: Signals | None = None
    posterior_pairs: np.ndarray | None = None
    texts: TextSignals | None = None
    views: tuple["AuditedModels", ...] = ()


def single_model(audit_signals: AuditSignals) -> AuditedModels:
    """The audited model of AuditSignals as a single case."""
    own = AuditedModels(*(getattr(audit_signals, name) for name in AuditedModels._fields[:-1]))
    views = tuple(single_model(view) for view in audit_signals.views)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], own)._replace(views=views)


def select_model(audit_signals: AuditSignals, chosen: AuditedModels) -> AuditSignals:
    """AuditSignals with the parts of one case (leaves without the leading K)."""
    views = tuple(select_model(view, part) for view, part in zip(audit_signals.views, chosen.views, strict=True))
    return audit_signals._replace(**{**chosen._asdict(), "views": views})


def choose_shadows(audit_signals: AuditSignals, shadows: np.ndarray | list[int]) -> AuditSignals:
    """The same evidence with some of its shadows only."""
    index = np.asarray(shadows)

    def pick(value: Signals | None) -> Signals | None:
        return None if value is None else Signals(*(field[index] for field in value))

    return audit_signals._replace(
        shadows=pick(audit_signals.shadows),
        population_shadows=pick(audit_signals.population_shadows),
        own=pick(audit_signals.own),
        posterior_pairs_known=None
        if audit_signals.posterior_pairs_known is None
        else audit_signals.posterior_pairs_known[index],
        posterior_pairs_forgotten=None
        if audit_signals.posterior_pairs_forgotten is None
        else audit_signals.posterior_pairs_forgotten[index],
        views=tuple(view._replace(shadows=pick(view.shadows)) for view in audit_signals.views),
    )
