"""Signals of an audit of texts, from log-probabilities per token or losses per text.

The log-odds of a text, log(P / (1 - P)) of P = e^-loss, take the place of those of a class: with several OUT models and
population texts the verdicts of the one audit follow from them. OUT models stand for the shadows, IN for the original.
"""

from collections.abc import Mapping

import jax
import numpy as np

from jaxunlearn import errors, scores
from jaxunlearn.analyses.audit import plausibility
from jaxunlearn.analyses.audit.signals import (
    GIVEN,
    ORIGINAL,
    AuditSignals,
    Changes,
    Snapshots,
    options_of,
    repeated,
)
from jaxunlearn.scores import texts, tokens
from jaxunlearn.settings import Settings

PROTOCOLS = ("all", "binui", "scoreui", "shadow_sweep")


def from_arrays(values: Mapping[str, np.ndarray], settings: Settings) -> AuditSignals:
    """Signals of one audited language model, from arrays that `arrays.read` has checked by `tokens.FIELDS`.

    Raises:
      DataError, ShapeError: arrays that cannot be used. ConfigError: a protocol that texts do not have.
    """
    if settings.audit.protocol not in PROTOCOLS:
        raise errors.ConfigError(
            f"protocol = {settings.audit.protocol!r} is not there for texts; known: {', '.join(PROTOCOLS)}."
        )
    options = options_of(settings)
    evidence = tokens.from_arrays(values, options.tokens)
    whole = texts.measured_of(evidence)
    assert whole.unlearned is not None
    doubts = [plausibility.unchanged(whole.unlearned, whole.original), plausibility.foreign(whole)]
    if whole.shadows is not None:
        different = plausibility.distinct(whole.shadows, whole.population_shadows)
        doubts.append(plausibility.copied(len(whole.shadows.log_odds), len(different)))
        if len(different) < len(whole.shadows.log_odds):
            whole = scores.choose_shadows(whole, different)
    audited = scores.one_case(whole)
    roles = {GIVEN: audited}
    if audited.original is not None:
        before, population = audited.original, audited.population_original
        roles[ORIGINAL] = scores.Cases(before, before, population, population)
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
        set_names=("forgotten",),
        person=person,
        person_names=tuple(errors.printable(str(name)) for name in person_names),
        doubts=tuple(filter(None, doubts)),
        kind=scores.TOKENS,
    )


def _changes(values: Mapping[str, np.ndarray], evidence: tokens.TokenEvidence) -> dict[str, Changes]:
    """Returns how far the audited model moved from IN: by its tokens where both have the same ones, else by losses."""
    if evidence.fit is None:
        return {}
    target = _moved(values, "", evidence.target, evidence.fit)
    population = None
    if evidence.pop_target is not None and evidence.pop_fit is not None:
        population = _moved(values, "pop_", evidence.pop_target, evidence.pop_fit)[None]
    return {GIVEN: Changes(target[None], population)}


def _moved(values: Mapping[str, np.ndarray], prefix: str, target: np.ndarray, fit: np.ndarray) -> np.ndarray:
    """[N] largest change of a log-probability of a text's tokens, at least the change of its loss."""
    moved = np.abs(target - fit)
    one, other = (values.get(f"{prefix}token_logp_{name}") for name in ("target", "fit"))
    if one is None or other is None or f"{prefix}mask_fit" in values or np.shape(one) != np.shape(other):
        return moved
    mask = values[f"{prefix}mask"]
    for row in range(len(moved)):  # a text at a time: arrays may be memory maps
        real = np.asarray(mask[row], bool)
        change = np.asarray(one[row], np.float32)[real] - np.asarray(other[row], np.float32)[real]
        moved[row] = max(moved[row], np.abs(change).max())
    return moved


def _snapshots(evidence: tokens.TokenEvidence, audited: scores.Cases) -> Snapshots | None:
    """The steps of one training as audited models, against the one IN model."""
    if evidence.steps is None:
        return None
    count = len(evidence.steps)
    after = jax.tree.map(np.asarray, texts.signals_of(evidence.steps))
    before = None if audited.original is None else repeated(audited.original, count)
    sizes = evidence.signals.deflated
    written = None if sizes is None else tokens.TextSignals(deflated=np.broadcast_to(sizes, (count, len(sizes))))
    return Snapshots(scores.Cases(after, before, texts=written), count, evidence.degrees)
