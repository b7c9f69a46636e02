"""One pass over the logits: from [..., N, C] to the few numbers per model and sample that all scores read.

The pass streams one model and a block of samples at a time, so that memory beyond the input is a few megabytes, however
large the input is (it may be a memory-mapped file).
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
    """Signals of a model's answers that scores read; every field [..., N] float32.

    Attributes:
      true_logit: raw logit of the true class.
      log_odds: unclipped log-odds of the true class; confidence and cross entropy follow from it.
      margin: Taylor soft-margin signal at the data set's temperature; faithful: by the published polynomial.
      ratio: the RMIA signal of the options (by default the same array as `margin`).
    """

    true_logit: Array
    log_odds: Array
    margin: Array
    ratio: Array


class AuditSignals(NamedTuple):
    """Evidence of one audit after the pass; None where the evidence has no such array.

    Attributes:
      labels: [N].
      unlearned, original: Signals [N]; shadows: Signals [S, N].
      population_original, population_unlearned, population_in: Signals [P]; population_shadows: Signals [S, P].
      shadow_train: Signals [S, m] of every shadow on its own training rows.
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
    shadow_train: Signals | None = None
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
    ratio = margin if signal == "taylor_soft_margin" else table[signal](logits, labels, temperature)
    return Signals(signals.true_logit(logits, labels), signals.log_odds(logits, labels), margin, ratio)


def signals_of(values: Array, labels: Array, options: Options, rows: np.ndarray | None = None) -> Signals:
    """Computes the signals of one or more models, streamed.

    Args:
      values: [N, C], or [M, N, C] with labels [N] or [M, N]; any float type; may be a memory map.
      labels: integers, of the selected rows.
      options: RMIA signal, temperature and compat.
      rows: [n] indices along N, in the order of the result; None = all.

    Returns:
      Signals of [N] or [M, N] NumPy float32 arrays.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import scores
      >>> signals = scores.signals_of(np.array([[3.0, 1.0], [0.0, 0.0]]), np.array([0, 1]), scores.Options())
      >>> signals.log_odds.tolist()
      [2.0, 0.0]
    """
    shape = (*values.shape[:-2], values.shape[-2] if rows is None else len(rows))
    true_logit, odds, margin = (np.empty(shape, np.float32) for _ in range(3))
    is_margin = options.rmia_signal == "taylor_soft_margin"
    out = Signals(true_logit, odds, margin, margin if is_margin else np.empty(shape, np.float32))
    labels = np.broadcast_to(np.asarray(labels, np.int32), shape)
    temperature = jnp.float32(options.constants.temperature)
    pending: tuple[tuple, Signals] | None = None
    for index in _block_indices(shape, values.shape[-1]):
        source = index if rows is None else (*index[:-1], rows[index[-1]])
        block = _block(np.asarray(values[source]), labels[index], temperature, options.rmia_signal, options.compat)
        # The previous block is fetched while this one is computed, so that at most two blocks are in flight.
        _fetch(out, pending)
        pending = (index, block)
    _fetch(out, pending)
    return out


def _block_indices(shape: tuple[int, ...], num_classes: int) -> Iterator[tuple]:
    rows = max(1, BLOCK_BYTES // (4 * num_classes))
    for start in range(0, shape[-1], rows):
        samples = slice(start, min(start + rows, shape[-1]))
        if len(shape) == 1:
            yield (samples,)
        else:
            yield from ((model, samples) for model in range(shape[0]))


def _fetch(out: Signals, pending: tuple[tuple, Signals] | None) -> None:
    if pending is not None:
        index, block = pending
        for target, value in zip(out, block, strict=True):
            assert isinstance(target, np.ndarray)
            target[index] = np.asarray(value)


def signals_pass(evidence: Evidence, options: Options, *, pairs: bool = True) -> AuditSignals:
    """Computes the signals of every array of the evidence in one pass, and UnLeak's features if `pairs`.

    The evidence must have been checked (`scores.check`). Of arrays [..., C] only UnLeak's features are kept.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import scores
      >>> evidence = scores.Evidence(np.array([[3.0, 1.0]]), np.array([0]), shadows=np.zeros((4, 1, 2)))
      >>> scores.signals_pass(evidence, scores.Options()).shadows.log_odds.shape
      (4, 1)
    """

    def signals_or_none(values: Array | None, labels: Array | None) -> Signals | None:
        return None if values is None or labels is None else signals_of(values, labels, options)

    labels, population_labels = np.asarray(evidence.labels), evidence.population_labels
    known_pairs = None
    if pairs and evidence.posterior_pairs_original is not None and evidence.posterior_pairs_unlearned is not None:
        known_pairs = np.asarray(
            unleak.features(
                np.asarray(evidence.posterior_pairs_original), np.asarray(evidence.posterior_pairs_unlearned)
            )
        )
    audited_pairs = None
    if known_pairs is not None and evidence.original is not None:
        audited_pairs = np.asarray(unleak.features(np.asarray(evidence.original), np.asarray(evidence.unlearned)))
    return AuditSignals(
        labels=labels,
        unlearned=signals_or_none(evidence.unlearned, labels),
        original=signals_or_none(evidence.original, labels),
        shadows=signals_or_none(evidence.shadows, labels),
        population_original=signals_or_none(evidence.population_original, population_labels),
        population_unlearned=signals_or_none(evidence.population_unlearned, population_labels),
        population_in=signals_or_none(evidence.population_in, population_labels),
        population_shadows=signals_or_none(evidence.population_shadows, population_labels),
        shadow_train=signals_or_none(evidence.shadow_train_logits, evidence.shadow_train_labels),
        reference=signals_or_none(evidence.reference, labels),
        reference_member=None if evidence.reference_member is None else np.asarray(evidence.reference_member, bool),
        posterior_pairs=audited_pairs,
        posterior_pairs_known=known_pairs,
        posterior_pairs_forgotten=None
        if evidence.posterior_pairs_forgotten is None
        else np.asarray(evidence.posterior_pairs_forgotten, bool),
        views=_views(evidence, labels, options),
    )


def _views(evidence: Evidence, labels: np.ndarray, options: Options) -> tuple[AuditSignals, ...]:
    unlearned = evidence.unlearned_views
    if unlearned is None:
        return ()

    def signals_or_none(values: Array | None, view: int) -> Signals | None:
        return None if values is None else signals_of(values[view], labels, options)

    return tuple(
        AuditSignals(
            labels,
            unlearned=signals_or_none(unlearned, view),
            original=signals_or_none(evidence.original_views, view),
            shadows=signals_or_none(evidence.shadows_views, view),
        )
        for view in range(unlearned.shape[0])
    )


class AuditedModels(NamedTuple):
    """Fields of AuditSignals that differ between K audited models scored together; every field has a leading K.

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
    """Returns the audited model of AuditSignals as AuditedModels with K = 1.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import scores
      >>> audit_signals = scores.signals_pass(scores.Evidence(np.array([[3.0, 1.0]]), np.array([0])), scores.Options())
      >>> scores.single_model(audit_signals).unlearned.log_odds.tolist()
      [[2.0]]
    """
    model = AuditedModels(*(getattr(audit_signals, name) for name in AuditedModels._fields[:-1]))
    views = tuple(single_model(view) for view in audit_signals.views)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], model)._replace(views=views)


def select_model(audit_signals: AuditSignals, model: AuditedModels) -> AuditSignals:
    """Returns AuditSignals with the signals of one audited model, whose leaves have no leading K.

    Example:
      >>> import jax, numpy as np
      >>> from jaxunlearn import scores
      >>> audit_signals = scores.signals_pass(scores.Evidence(np.array([[3.0, 1.0]]), np.array([0])), scores.Options())
      >>> model = jax.tree.map(lambda leaf: leaf[0] + 1, scores.single_model(audit_signals))
      >>> scores.select_model(audit_signals, model).unlearned.log_odds.tolist()
      [3.0]
    """
    views = tuple(select_model(*pair) for pair in zip(audit_signals.views, model.views, strict=True))
    return audit_signals._replace(**{**model._asdict(), "views": views})


def choose_shadows(audit_signals: AuditSignals, shadows: np.ndarray | list[int]) -> AuditSignals:
    """Returns the signals with these shadows only, by index.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import scores
      >>> evidence = scores.Evidence(np.array([[3.0, 1.0]]), np.array([0]), shadows=np.zeros((4, 1, 2)))
      >>> scores.choose_shadows(scores.signals_pass(evidence, scores.Options()), [0, 2]).shadows.log_odds.shape
      (2, 1)
    """
    index = np.asarray(shadows)

    def pick(value: Signals | None) -> Signals | None:
        return None if value is None else Signals(*(field[index] for field in value))

    return audit_signals._replace(
        shadows=pick(audit_signals.shadows),
        population_shadows=pick(audit_signals.population_shadows),
        shadow_train=pick(audit_signals.shadow_train),
        posterior_pairs_known=None
        if audit_signals.posterior_pairs_known is None
        else audit_signals.posterior_pairs_known[index],
        posterior_pairs_forgotten=None
        if audit_signals.posterior_pairs_forgotten is None
        else audit_signals.posterior_pairs_forgotten[index],
        views=tuple(view._replace(shadows=pick(view.shadows)) for view in audit_signals.views),
    )
