"""Signals of an audit of texts, from log-probabilities per token or losses per text.

The log-odds of a text, log(P / (1 - P)) of P = e^-loss, take the place of those of a class: with several OUT models and
population texts the verdicts of the one audit follow from them. OUT models stand for the shadows, IN for the original.
"""

from collections.abc import Mapping

import jax
import numpy as np

from jaxunlearn import errors, scores
from jaxunlearn.analyses.audit.evidence import plausibility
from jaxunlearn.analyses.audit.evidence.signals import (
    GIVEN,
    ORIGINAL,
    RETRAINED,
    AuditSignals,
    Changes,
    Snapshots,
    options_of,
    repeated,
)
from jaxunlearn.report import number_format
from jaxunlearn.scores import texts, tokens
from jaxunlearn.settings import Settings

PROTOCOLS = ("all", "binui", "scoreui", "shadow_sweep")


def check_protocol(settings: Settings) -> None:
    """Raises a ConfigError for a protocol that texts do not have."""
    protocol = settings.audit.protocol
    if protocol not in PROTOCOLS:
        raise errors.ConfigError(f"protocol = {protocol!r} is not there for texts; known: {', '.join(PROTOCOLS)}.")


def from_arrays(values: Mapping[str, np.ndarray], settings: Settings) -> AuditSignals:
    """Signals of one audited language model, from arrays that `arrays.read` has checked by `tokens.FIELDS`.

    Raises:
      DataError, ShapeError: arrays that cannot be used. ConfigError: a protocol that texts do not have.
    """
    check_protocol(settings)
    protocol = settings.audit.protocol
    if protocol == "scoreui" and "nll_steps" not in values:
        raise errors.ConfigError("protocol = 'scoreui' needs `nll_steps` [l, n]: the losses at l steps of a training.")
    if protocol == "shadow_sweep" and "nll_ref" not in values and "token_logp_ref" not in values:
        raise errors.ConfigError("protocol = 'shadow_sweep' needs OUT models: give `nll_ref` [s, n].")
    options = options_of(settings)
    evidence = tokens.from_arrays(values, options.tokens)
    whole = texts.measured_of(evidence)
    assert whole.unlearned is not None
    doubts = [plausibility.unchanged(whole.unlearned, whole.original), plausibility.foreign(whole, "OUT")]
    if whole.shadows is not None:
        different = plausibility.distinct(whole.shadows, whole.population_shadows)
        doubts.append(plausibility.copied(len(whole.shadows.log_odds), len(different), "OUT"))
        doubts.append(plausibility.same_losses(whole, evidence.forgotten))
        if len(different) < len(whole.shadows.log_odds):
            whole = scores.choose_shadows(whole, different)
    audited = scores.single_model(whole)
    roles = {GIVEN: audited}
    if evidence.retrained is not None:
        population = None if evidence.pop_retrained is None else _one(evidence.pop_retrained)
        after = _one(evidence.retrained)
        roles[RETRAINED] = audited._replace(unlearned=after, population_unlearned=population, texts=None)
    if audited.original is not None:
        before, population = audited.original, audited.population_original
        roles[ORIGINAL] = scores.AuditedModels(before, before, population, population)
    person_names, person = np.unique(values["person"], return_inverse=True) if "person" in values else ((), None)
    ids = np.asarray(values.get("ids", np.arange(len(evidence.target))))
    return AuditSignals(
        options=options,
        names={"ids": ids},
        shown=np.array([errors.printable(str(name)) for name in ids]),
        labels=whole.labels,
        forgotten=None if evidence.forgotten is None else evidence.forgotten[None],
        shared=whole,
        roles=roles,
        changes=_changes(values, evidence),
        audited=(GIVEN,),
        snapshots=_snapshots(evidence, audited),
        class_names=(number_format.MISSING,),  # texts have no class
        set_names=("forgotten",),
        person=person,
        person_names=tuple(errors.printable(str(name)) for name in person_names),
        doubts=tuple(filter(None, doubts)),
        kind=scores.TOKENS,
        written=values.get("texts"),
    )


def _one(losses: np.ndarray) -> scores.Signals:
    """Losses [n] of one model as the Signals [1, n] of a role."""
    return jax.tree.map(lambda line: np.asarray(line)[None], texts.signals_of(losses))


def _changes(values: Mapping[str, np.ndarray], evidence: tokens.TokenEvidence) -> dict[str, Changes]:
    """Returns how far the audited and the retrained model moved from IN."""
    if evidence.fit is None:
        return {}
    pairs = {GIVEN: ("target", evidence.target, evidence.pop_target)}
    if evidence.retrained is not None:
        pairs[RETRAINED] = ("retrained", evidence.retrained, evidence.pop_retrained)
    made = {}
    for role, (model, losses, others) in pairs.items():
        population = None
        if others is not None and evidence.pop_fit is not None:
            population = _moved(values, "pop_", model, others, evidence.pop_fit)[None]
        made[role] = Changes(_moved(values, "", model, losses, evidence.fit)[None], population)
    return made


def _moved(
    values: Mapping[str, np.ndarray], prefix: str, model: str, losses: np.ndarray, fit: np.ndarray
) -> np.ndarray:
    """[N] largest change of a log-probability where both models have the same tokens, at least that of the loss."""
    moved = np.abs(losses - fit)
    one, other = (values.get(f"{prefix}token_logp_{name}") for name in (model, "fit"))
    own_masks = any(f"{prefix}mask_{name}" in values for name in (model, "fit"))
    if one is None or other is None or own_masks or np.shape(one) != np.shape(other):
        return moved
    mask = values[f"{prefix}mask"]
    for row in range(len(moved)):  # a text at a time: arrays may be memory maps
        real = np.asarray(mask[row], bool)
        change = np.asarray(one[row], np.float32)[real] - np.asarray(other[row], np.float32)[real]
        moved[row] = max(moved[row], np.abs(change).max())
    return moved


def _snapshots(evidence: tokens.TokenEvidence, audited: scores.AuditedModels) -> Snapshots | None:
    """The steps of one training as audited models, against the one IN model."""
    if evidence.steps is None:
        return None
    count = len(evidence.steps)
    after = jax.tree.map(np.asarray, texts.signals_of(evidence.steps))
    before = None if audited.original is None else repeated(audited.original, count)
    sizes = evidence.signals.deflated
    written = None if sizes is None else tokens.TextSignals(deflated=np.broadcast_to(sizes, (count, len(sizes))))
    return Snapshots(scores.AuditedModels(after, before, texts=written), count, evidence.degrees)
