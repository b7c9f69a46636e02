"""Signals of an audit of texts from a run folder: language models whose signals of next tokens are recorded.

Shadow models serve as OUT, originals as IN, the population rows as population texts. An audited role is a recorded
one, or `prompted:KIND`: the originals themselves, queried for forgotten texts behind a prompt that is meant to hide
them, and for all other texts without it. Nothing is unlearned there: it shows whether prompts deceive an audit.

Source: "IAM", Table 7 (prompts), ScoreUI over checkpoints.
"""

from typing import NamedTuple

import jax
import numpy as np

from jaxunlearn import errors, scores
from jaxunlearn.analyses.audit.evidence.signals import (
    ORIGINAL,
    RETRAINED,
    AuditInputs,
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
    """Refuses settings that an audit of language models does not support, before anything is trained.

    Raises:
      ConfigError: a protocol or models that texts do not have.
    """
    check_protocol(run.settings)
    targets = run.settings.targets
    for name, required in {"reference": 0, "population_in": False, "shadow_origin": False, "views": 0}.items():
        if getattr(targets, name):
            raise errors.ConfigError(
                f"targets.{name} serves scores of classifiers; for texts set --config.targets.{name}={required}."
            )


def gather(run: RecordedRun, context: Context) -> AuditInputs:
    """Gathers the recorded signals of a run; samples are the target rows in the split's order."""
    settings, split = run.settings, run.split
    target, population = np.asarray(split.target), np.asarray(split.population)
    options = options_of(settings)
    shadow = run.logits("shadow")
    audited = tuple(settings.audit.unlearned)
    context.log("passing over the tokens of every model")
    shared = scores.AuditSignals(
        labels=np.zeros(len(target), np.int32),
        shadows=_signals(_losses(run, shadow, target)),
        population_shadows=_signals(_losses(run, shadow, population)),
    )
    passes = {name: _read_role(run, name, options) for name in dict.fromkeys((*audited, RETRAINED, ORIGINAL))}
    original, population_start = _signals(passes[ORIGINAL].losses), _signals(passes[ORIGINAL].unseen)
    sizes = None if run.texts is None else np.asarray(deflated(run.texts[target]), np.float32)
    roles = {
        name: scores.AuditedModels(
            unlearned=_signals(role_pass.losses),
            original=original,
            population_unlearned=_signals(role_pass.unseen),
            population_original=population_start,
            texts=role_pass.statistics._replace(
                deflated=None if sizes is None else np.broadcast_to(sizes, role_pass.losses.shape)
            ),
        )
        for name, role_pass in passes.items()
    }
    signals = AuditInputs(
        options=options,
        names=run.names(target),
        display_names=run.display_names(target),
        labels=np.asarray(run.labels, np.int32)[target],
        forgotten=np.asarray(split.forget)[:, target],
        shared=shared,
        roles=roles,
        changes={name: role_pass.changes for name, role_pass in passes.items() if name != ORIGINAL},
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


def _tokens(run: RecordedRun, recorded: RoleLogits, model: int, rows: np.ndarray) -> TokenSignals:
    """Returns the signals per token of one model on some rows of the data set."""
    assert run.predicted is not None
    positions = recorded.positions(rows)
    return tokens.unpacked(recorded.values[model][positions], run.predicted[rows])


def _answer(run: RecordedRun, name: str, set_index: int, rows: np.ndarray) -> TokenSignals:
    """Returns the signals per token of a role's model of one forget set; `prompted:KIND` hides its forgotten texts."""
    is_prompted = name.startswith(PROMPTED)
    recorded = run.logits(ORIGINAL if is_prompted else name)
    model = set_index if len(recorded.values) > 1 else 0
    tokens_of_role = _tokens(run, recorded, model, rows)
    if not is_prompted:
        return tokens_of_role
    prompted = _tokens(run, run.logits(ORIGINAL, name.removeprefix(PROMPTED)), model, rows)
    forgotten = np.asarray(run.split.forget)[set_index, rows, None]
    return TokenSignals(*(np.where(forgotten, new, old) for new, old in zip(prompted, tokens_of_role, strict=True)))


def _losses(run: RecordedRun, recorded: RoleLogits, rows: np.ndarray) -> np.ndarray:
    """Computes [M * K, n] losses of all recorded models."""
    token_signals = (_tokens(run, recorded, model, rows) for model in range(len(recorded.values)))
    return np.stack([np.asarray(tokens.nll(model_tokens.logp, model_tokens.mask)) for model_tokens in token_signals])


def _signals(losses: np.ndarray) -> scores.Signals:
    return jax.tree.map(np.asarray, texts.signals_of(losses))


class _RoleTokenSignals(NamedTuple):
    """Results of one pass over the tokens of the R models of a role.

    Attributes:
      losses: [R, N] of the target rows; unseen: [R, P] of the population rows.
      statistics: TextSignals [R, N].
      changes: from the originals.
    """

    losses: np.ndarray
    unseen: np.ndarray
    statistics: TextSignals
    changes: Changes


def _read_role(run: RecordedRun, name: str, options: scores.Options) -> _RoleTokenSignals:
    """Passes once over the tokens of a role, model by model, next to those of its originals."""
    target, population = np.asarray(run.split.target), np.asarray(run.split.population)
    losses, unseen, statistics, changes, population_changes = [], [], [], [], []
    for set_index in range(len(np.asarray(run.split.forget))):
        after, unseen_tokens = (_answer(run, name, set_index, rows) for rows in (target, population))
        loss, text_signals = tokens.summarise(
            after.logp, after.mask, options.tokens, entropy=after.entropy, model_std=after.model_std,
            vocab_mean=after.vocab_mean, vocab_std=after.vocab_std,
        )  # fmt: skip
        losses.append(np.asarray(loss))
        statistics.append(text_signals)
        unseen.append(np.asarray(tokens.nll(unseen_tokens.logp, unseen_tokens.mask)))
        changes.append(_change(after, _answer(run, ORIGINAL, set_index, target)))
        population_changes.append(_change(unseen_tokens, _answer(run, ORIGINAL, set_index, population)))
    return _RoleTokenSignals(
        np.stack(losses), np.stack(unseen), jax.tree.map(lambda *leaves: np.stack(leaves), *statistics),
        Changes(np.stack(changes), np.stack(population_changes)),
    )  # fmt: skip


def _change(after: TokenSignals, before: TokenSignals) -> np.ndarray:
    """Computes [n] the largest change of a log-probability over a text's tokens."""
    return np.abs(np.where(after.mask, after.logp - before.logp, 0)).max(-1)


def _snapshots(run: RecordedRun, start: scores.AuditedModels) -> Snapshots:
    """Returns all snapshots as audited models [L * K, ...] against the (first) original."""
    recorded = run.logits("snapshots")
    count = len(recorded.values)
    target, population = np.asarray(run.split.target), np.asarray(run.split.population)
    text_signals = None
    if start.texts is not None and start.texts.deflated is not None:
        sizes = start.texts.deflated[0]
        text_signals = TextSignals(deflated=np.broadcast_to(sizes, (count, len(sizes))))
    models = scores.AuditedModels(
        unlearned=_signals(_losses(run, recorded, target)),
        original=of_first(start.original, count),
        population_unlearned=_signals(_losses(run, recorded, population)),
        population_original=of_first(start.population_original, count),
        texts=text_signals,
    )
    return Snapshots(models, len(recorded.snapshots))
