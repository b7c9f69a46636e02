"""Signals of an audit of texts from a run folder: language models whose signals of next tokens are recorded.

Shadow models stand for OUT, originals for IN, the population rows for population texts. An audited role is a recorded
one, or `prompted:KIND`: the originals themselves, whose forgotten texts are asked for behind a prompt that is to hide
them, and all others as they are. Nothing is unlearned there; what an audit says of it shows what it can be told.

Source: "IAM", Table 7 (prompts), ScoreUI over checkpoints.
"""

from typing import NamedTuple

import jax
import numpy as np

from jaxunlearn import errors, scores
from jaxunlearn.analyses.audit.evidence.signals import (
    ORIGINAL,
    RETRAINED,
    AuditSignals,
    Changes,
    Snapshots,
    of_first,
    options_of,
)
from jaxunlearn.analyses.audit.evidence.text_gather import check_protocol
from jaxunlearn.analyses.base import PROMPTED, Context, RecordedRun, RoleLogits
from jaxunlearn.scores import texts, tokens
from jaxunlearn.scores.tokens import TextSignals, TokenSignals
from jaxunlearn.scores.tokens.texts import deflated
from jaxunlearn.settings import CLASS_KINDS


def check(run: RecordedRun) -> None:
    """Refuses what an audit of language models cannot do, before anything is trained.

    Raises:
      ConfigError: a protocol or models that texts do not have.
    """
    check_protocol(run.settings)
    targets = run.settings.targets
    for name, nothing in {"reference": 0, "population_in": False, "shadow_origin": False, "views": 0}.items():
        if getattr(targets, name):
            raise errors.ConfigError(
                f"targets.{name} serves scores of classifiers; for texts set --config.targets.{name}={nothing}."
            )


def gather(run: RecordedRun, context: Context) -> AuditSignals:
    """Passes over the recorded signals of a run; samples are the target rows in the split's order."""
    settings, split = run.settings, run.split
    target, population = np.asarray(split.target), np.asarray(split.population)
    options = options_of(settings)
    shadow = run.logits("shadow")
    audited = tuple(settings.audit.unlearned)
    context.say("passing over the tokens of every model")
    shared = scores.AuditSignals(
        labels=np.zeros(len(target), np.int32),
        shadows=_signals(_losses(run, shadow, target)),
        population_shadows=_signals(_losses(run, shadow, population)),
    )
    read = {name: _read(run, name, options) for name in dict.fromkeys((*audited, RETRAINED, ORIGINAL))}
    start, population_start = _signals(read[ORIGINAL].losses), _signals(read[ORIGINAL].unseen)
    sizes = None if run.texts is None else np.asarray(deflated(run.texts[target]), np.float32)
    roles = {
        name: scores.AuditedModels(
            unlearned=_signals(one.losses),
            original=start,
            population_unlearned=_signals(one.unseen),
            population_original=population_start,
            texts=one.statistics._replace(deflated=None if sizes is None else np.broadcast_to(sizes, one.losses.shape)),
        )
        for name, one in read.items()
    }
    signals = AuditSignals(
        options=options,
        names=run.names(target),
        shown=run.shown(target),
        labels=np.asarray(run.labels, np.int32)[target],
        forgotten=np.asarray(split.forget)[:, target],
        shared=shared,
        roles=roles,
        changes={name: one.changes for name, one in read.items() if name != ORIGINAL},
        audited=audited,
        set_names=run.set_names,
        is_run=True,
        from_classes=settings.split.forget.kind in CLASS_KINDS,
        kind=scores.TOKENS,
        written=None if run.texts is None else run.texts[target],
    )
    if settings.audit.protocol in ("all", "scoreui") and settings.targets.snapshots:
        signals = signals._replace(snapshots=_snapshots(run, roles[ORIGINAL]))
    return signals


def _tokens(run: RecordedRun, recorded: RoleLogits, line: int, rows: np.ndarray) -> TokenSignals:
    """Signals per token of one model on some rows of the data set."""
    assert run.predicted is not None
    places = np.searchsorted(recorded.rows, rows)
    return tokens.unpacked(recorded.values[line][places], run.predicted[rows])


def _answer(run: RecordedRun, name: str, number: int, rows: np.ndarray) -> TokenSignals:
    """Signals per token of the model that a role has of a forget set; `prompted:KIND` hides its forgotten texts."""
    is_prompted = name.startswith(PROMPTED)
    recorded = run.logits(ORIGINAL if is_prompted else name)
    line = number if len(recorded.values) > 1 else 0
    plain = _tokens(run, recorded, line, rows)
    if not is_prompted:
        return plain
    behind = _tokens(run, run.logits(ORIGINAL, name.removeprefix(PROMPTED)), line, rows)
    forgotten = np.asarray(run.split.forget)[number, rows, None]
    return TokenSignals(*(np.where(forgotten, new, old) for new, old in zip(behind, plain, strict=True)))


def _losses(run: RecordedRun, recorded: RoleLogits, rows: np.ndarray) -> np.ndarray:
    """[M * K, n] losses of every recorded model."""
    read = (_tokens(run, recorded, line, rows) for line in range(len(recorded.values)))
    return np.stack([np.asarray(tokens.nll(one.logp, one.mask)) for one in read])


def _signals(losses: np.ndarray) -> scores.Signals:
    return jax.tree.map(np.asarray, texts.signals_of(losses))


class _Read(NamedTuple):
    """What one pass over the tokens of the R models of a role leaves.

    Attributes:
      losses: [R, N] of the target rows; unseen: [R, P] of the population rows.
      statistics: TextSignals [R, N].
      changes: from the originals.
    """

    losses: np.ndarray
    unseen: np.ndarray
    statistics: TextSignals
    changes: Changes


def _read(run: RecordedRun, name: str, options: scores.Options) -> _Read:
    """Passes once over the tokens of a role, model by model, next to those of its originals."""
    target, population = np.asarray(run.split.target), np.asarray(run.split.population)
    losses, unseen, statistics, moved, moved_unseen = [], [], [], [], []
    for number in range(len(np.asarray(run.split.forget))):
        after, others = (_answer(run, name, number, rows) for rows in (target, population))
        loss, summed = tokens.summarise(
            after.logp, after.mask, options.tokens, entropy=after.entropy, model_std=after.model_std,
            vocab_mean=after.vocab_mean, vocab_std=after.vocab_std,
        )  # fmt: skip
        losses.append(np.asarray(loss))
        statistics.append(summed)
        unseen.append(np.asarray(tokens.nll(others.logp, others.mask)))
        moved.append(_change(after, _answer(run, ORIGINAL, number, target)))
        moved_unseen.append(_change(others, _answer(run, ORIGINAL, number, population)))
    return _Read(
        np.stack(losses), np.stack(unseen), jax.tree.map(lambda *lines: np.stack(lines), *statistics),
        Changes(np.stack(moved), np.stack(moved_unseen)),
    )  # fmt: skip


def _change(after: TokenSignals, before: TokenSignals) -> np.ndarray:
    """[n] largest change of a log-probability of a text's tokens."""
    return np.abs(np.where(after.mask, after.logp - before.logp, 0)).max(-1)


def _snapshots(run: RecordedRun, start: scores.AuditedModels) -> Snapshots:
    """All snapshots as audited models [L * K, ...] against the (first) original."""
    recorded = run.logits("snapshots")
    count = len(recorded.values)
    target, population = np.asarray(run.split.target), np.asarray(run.split.population)
    written = None
    if start.texts is not None and start.texts.deflated is not None:
        sizes = start.texts.deflated[0]
        written = TextSignals(deflated=np.broadcast_to(sizes, (count, len(sizes))))
    cases = scores.AuditedModels(
        unlearned=_signals(_losses(run, recorded, target)),
        original=of_first(start.original, count),
        population_unlearned=_signals(_losses(run, recorded, population)),
        population_original=of_first(start.population_original, count),
        texts=written,
    )
    return Snapshots(cases, len(recorded.snapshots))
