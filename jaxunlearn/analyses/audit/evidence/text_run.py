"""Signals of an audit of texts from a run folder: language models whose signals of next tokens are recorded.

Shadow models stand for OUT, originals for IN, the population rows for population texts. An audited role is a recorded
one, or `prompted:KIND`: the originals themselves, whose forgotten texts are asked for behind a prompt that is to hide
them, and all others as they are. Nothing is unlearned there; what an audit says of it shows what it can be told.

Source: "IAM", Table 7 (prompts), ScoreUI over checkpoints.
"""

import jax
import numpy as np

from jaxunlearn import errors, scores
from jaxunlearn.analyses.audit.evidence.signals import (
    ORIGINAL,
    RETRAINED,
    AuditSignals,
    Changes,
    Snapshots,
    options_of,
    repeated,
)
from jaxunlearn.analyses.audit.evidence.text_gather import PROTOCOLS
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
    settings = run.settings
    if settings.audit.protocol not in PROTOCOLS:
        raise errors.ConfigError(
            f"protocol = {settings.audit.protocol!r} is not there for texts; known: {', '.join(PROTOCOLS)}."
        )
    targets = settings.targets
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
    shared = scores.Measured(
        labels=np.zeros(len(target), np.int32),
        shadows=_signals(_losses(run, shadow, target)),
        population_shadows=_signals(_losses(run, shadow, population)),
    )
    names = tuple(dict.fromkeys((*audited, RETRAINED, ORIGINAL)))
    roles = {name: _cases(run, name, options) for name in names}
    signals = AuditSignals(
        options=options,
        names=run.names(target),
        shown=run.shown(target),
        labels=np.asarray(run.labels, np.int32)[target],
        forgotten=np.asarray(split.forget)[:, target],
        shared=shared,
        roles=roles,
        changes={name: _changes(run, name) for name in names if name != ORIGINAL},
        audited=audited,
        set_names=run.set_names,
        is_run=True,
        from_classes=settings.split.forget.kind in CLASS_KINDS,
        kind=scores.TOKENS,
        written=None if run.texts is None else run.texts[target],
    )
    if settings.audit.protocol in ("all", "scoreui") and settings.targets.snapshots:
        signals = signals._replace(snapshots=_snapshots(run, signals))
    return signals


def _tokens(run: RecordedRun, recorded: RoleLogits, line: int, rows: np.ndarray) -> TokenSignals:
    """Signals per token of one model on some rows of the data set."""
    assert run.predicted is not None
    places = np.searchsorted(recorded.rows, rows)
    return tokens.unpacked(recorded.values[line][places], run.predicted[rows])


def _answers(run: RecordedRun, name: str, rows: np.ndarray) -> list[TokenSignals]:
    """Signals per token of the R models of a role; `prompted:KIND` has forgotten texts behind a prompt."""
    count = len(np.asarray(run.split.forget))
    is_prompted = name.startswith(PROMPTED)
    recorded = run.logits(ORIGINAL if is_prompted else name)
    lines = [line if len(recorded.values) > 1 else 0 for line in range(count)]
    plain = [_tokens(run, recorded, line, rows) for line in lines]
    if not is_prompted:
        return plain
    hidden = run.logits(ORIGINAL, name.removeprefix(PROMPTED))
    found = []
    for line, one, forgotten in zip(lines, plain, np.asarray(run.split.forget)[:, rows], strict=True):
        behind = _tokens(run, hidden, line, rows)
        found.append(TokenSignals(*(
            np.where(forgotten[:, None], new, old) for new, old in zip(behind, one, strict=True)
        )))  # fmt: skip
    return found


def _losses(run: RecordedRun, recorded: RoleLogits, rows: np.ndarray) -> np.ndarray:
    """[M * K, n] losses of every recorded model."""
    read = (_tokens(run, recorded, line, rows) for line in range(len(recorded.values)))
    return np.stack([np.asarray(tokens.nll(one.logp, one.mask)) for one in read])


def _signals(losses: np.ndarray) -> scores.Signals:
    return jax.tree.map(np.asarray, texts.signals_of(losses))


def _cases(run: RecordedRun, name: str, options: scores.Options) -> scores.Cases:
    """The R models of a role, each with its original."""
    split, count = run.split, len(np.asarray(run.split.forget))
    target, population = np.asarray(split.target), np.asarray(split.population)
    summed = [
        tokens.summarise(
            one.logp, one.mask, options.tokens, entropy=one.entropy, model_std=one.model_std,
            vocab_mean=one.vocab_mean, vocab_std=one.vocab_std,
        )
        for one in _answers(run, name, target)
    ]  # fmt: skip
    after = np.stack([np.asarray(loss) for loss, _ in summed])
    statistics: TextSignals = jax.tree.map(lambda *lines: np.stack(lines), *(one for _, one in summed))
    if run.texts is not None:
        sizes = np.asarray(deflated(run.texts[target]), np.float32)
        statistics = statistics._replace(deflated=np.broadcast_to(sizes, after.shape))
    original = run.logits(ORIGINAL)
    unseen = np.stack([np.asarray(tokens.nll(one.logp, one.mask)) for one in _answers(run, name, population)])
    return scores.Cases(
        unlearned=_signals(after),
        original=repeated(_signals(_losses(run, original, target)), count),
        population_unlearned=_signals(unseen),
        population_original=repeated(_signals(_losses(run, original, population)), count),
        texts=statistics,
    )


def _changes(run: RecordedRun, name: str) -> Changes:
    """Returns how far the models moved from their originals: the largest change of a token's log-probability."""

    def moved(rows: np.ndarray) -> np.ndarray:
        pairs = zip(_answers(run, name, rows), _answers(run, ORIGINAL, rows), strict=True)
        return np.stack([np.abs(np.where(after.mask, after.logp - before.logp, 0)).max(-1) for after, before in pairs])

    return Changes(moved(np.asarray(run.split.target)), moved(np.asarray(run.split.population)))


def _snapshots(run: RecordedRun, signals: AuditSignals) -> Snapshots:
    """All snapshots as audited models [L * K, ...] against the (first) original."""
    recorded, start = run.logits("snapshots"), signals.roles[ORIGINAL]
    count = len(recorded.values)
    target, population = np.asarray(run.split.target), np.asarray(run.split.population)

    def before(role: scores.Signals | None) -> scores.Signals | None:
        return None if role is None else repeated(scores.Signals(*(field[:1] for field in role)), count)

    sizes = None if start.texts is None else start.texts.deflated
    written = None
    if sizes is not None:
        written = TextSignals(deflated=np.broadcast_to(np.asarray(sizes)[:1], (count, sizes.shape[-1])))
    cases = scores.Cases(
        unlearned=_signals(_losses(run, recorded, target)),
        original=before(start.original),
        population_unlearned=_signals(_losses(run, recorded, population)),
        population_original=before(start.population_original),
        texts=written,
    )
    return Snapshots(cases, len(recorded.snapshots))
