"""Signals of an audit of texts, from log-probabilities per token or losses per text.

The log-odds of a text, log(P / (1 - P)) with P = e^-loss, replace those of a class: with several OUT models and
population texts the verdicts of the audit follow from them. OUT models serve as shadows, IN as the original.
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
    AuditInputs,
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
        raise errors.ConfigError(f"protocol = {protocol!r} is not available for texts; known: {', '.join(PROTOCOLS)}.")


def from_arrays(values: Mapping[str, np.ndarray], settings: Settings) -> AuditInputs:
    """Computes the signals of one audited language model from arrays checked against `tokens.FIELDS`.

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
    all_signals = texts.audit_signals_of(evidence)
    assert all_signals.unlearned is not None
    refusal = plausibility.seen_shadow_warning(all_signals, "OUT")
    doubts = [plausibility.unchanged_warning(all_signals.unlearned, all_signals.original), refusal]
    if all_signals.shadows is not None:
        distinct_ids = plausibility.distinct_models(all_signals.shadows, all_signals.population_shadows)
        doubts.append(plausibility.copies_warning(len(all_signals.shadows.log_odds), len(distinct_ids), "OUT"))
        doubts.append(plausibility.same_losses(all_signals, evidence.forgotten))
        if len(distinct_ids) < len(all_signals.shadows.log_odds):
            all_signals = scores.choose_shadows(all_signals, distinct_ids)
    audited = scores.single_model(all_signals)
    roles = {GIVEN: audited}
    if evidence.retrained is not None:
        population = None if evidence.pop_retrained is None else _single(evidence.pop_retrained)
        after = _single(evidence.retrained)
        roles[RETRAINED] = audited._replace(unlearned=after, population_unlearned=population, texts=None)
    if audited.original is not None:
        before, population = audited.original, audited.population_original
        roles[ORIGINAL] = scores.AuditedModels(before, before, population, population)
    person_names, person = np.unique(values["person"], return_inverse=True) if "person" in values else ((), None)
    ids = np.asarray(values.get("ids", np.arange(len(evidence.target))))
    return AuditInputs(
        options=options,
        names={"ids": ids},
        display_names=np.array([errors.printable(str(name)) for name in ids]),
        labels=all_signals.labels,
        forgotten=None if evidence.forgotten is None else evidence.forgotten[None],
        shared=all_signals,
        roles=roles,
        changes=_changes(values, evidence),
        audited=(GIVEN,),
        snapshots=_snapshots(evidence, audited),
        class_names=(number_format.MISSING,),  # texts have no class
        set_names=("forgotten",),
        person=person,
        person_names=tuple(errors.printable(str(name)) for name in person_names),
        doubts=tuple(filter(None, doubts)),
        refusal=refusal,
        kind=scores.TOKENS,
        written=values.get("texts"),
    )


def _single(losses: np.ndarray) -> scores.Signals:
    """Converts the losses [n] of one model to the Signals [1, n] of a role."""
    return jax.tree.map(lambda line: np.asarray(line)[None], texts.signals_of(losses))


def _changes(values: Mapping[str, np.ndarray], evidence: tokens.TokenEvidence) -> dict[str, Changes]:
    """Returns how far the audited and the retrained model moved from IN."""
    if evidence.fit is None:
        return {}
    pairs = {GIVEN: ("target", evidence.target, evidence.pop_target)}
    if evidence.retrained is not None:
        pairs[RETRAINED] = ("retrained", evidence.retrained, evidence.pop_retrained)
    changes = {}
    for role, (model, losses, population_losses) in pairs.items():
        population = None
        if population_losses is not None and evidence.pop_fit is not None:
            population = _largest_change(values, "pop_", model, population_losses, evidence.pop_fit)[None]
        changes[role] = Changes(_largest_change(values, "", model, losses, evidence.fit)[None], population)
    return changes


def _largest_change(
    values: Mapping[str, np.ndarray], prefix: str, model: str, losses: np.ndarray, fit: np.ndarray
) -> np.ndarray:
    """Computes [N] the largest change of a token's log-probability, at least that of the loss.

    Without log-probabilities of the same tokens from both models it is that of the loss.
    """
    largest = np.abs(losses - fit)
    model_logp, fit_logp = (values.get(f"{prefix}token_logp_{name}") for name in (model, "fit"))
    has_own_masks = any(f"{prefix}mask_{name}" in values for name in (model, "fit"))
    if model_logp is None or fit_logp is None or has_own_masks or np.shape(model_logp) != np.shape(fit_logp):
        return largest
    mask = values[f"{prefix}mask"]
    for row in range(len(largest)):  # a text at a time: arrays may be memory maps
        is_token = np.asarray(mask[row], bool)
        token_change = (
            np.asarray(model_logp[row], np.float32)[is_token] - np.asarray(fit_logp[row], np.float32)[is_token]
        )
        largest[row] = max(largest[row], np.abs(token_change).max())
    return largest


def _snapshots(evidence: tokens.TokenEvidence, audited: scores.AuditedModels) -> Snapshots | None:
    """Returns the steps of one training as audited models, against the single IN model."""
    if evidence.steps is None:
        return None
    count = len(evidence.steps)
    after = jax.tree.map(np.asarray, texts.signals_of(evidence.steps))
    before = None if audited.original is None else repeated(audited.original, count)
    sizes = evidence.signals.deflated
    text_signals = None if sizes is None else tokens.TextSignals(deflated=np.broadcast_to(sizes, (count, len(sizes))))
    return Snapshots(scores.AuditedModels(after, before, texts=text_signals), count, evidence.degrees)
