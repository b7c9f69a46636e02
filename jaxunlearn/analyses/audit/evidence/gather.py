"""Signals of an audit, from a user's arrays or from the recorded logits of a run folder."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

from jaxunlearn import errors, records, scores
from jaxunlearn.analyses.audit.evidence import belonging, text_run
from jaxunlearn.analyses.audit.evidence.signals import (
    GIVEN,
    ORIGINAL,
    RETRAINED,
    AuditInputs,
    Changes,
    Snapshots,
    of_first,
    options_of,
    repeated,
)
from jaxunlearn.analyses.base import PROMPTED, Context, RecordedRun, RoleLogits
from jaxunlearn.arrays import ArrayField
from jaxunlearn.metrics import distances
from jaxunlearn.records import Evidence
from jaxunlearn.scores import evidence
from jaxunlearn.scores.families import rmia, unleak
from jaxunlearn.settings import CLASS_KINDS, Settings

Signals = scores.Signals
ELSEWHERE = ("shift", "arch_shift", "incremental")  # protocols whose shadow models come from other run folders
TUNED = -2  # audit.rmia_offline_a

# What a file of arrays may hold besides the evidence of the scores.
FIELDS = {
    **evidence.FIELDS,
    **evidence.AUDIT_FIELDS,
    # Groups of the published record files that hold results, not evidence.
    **{f"{group}/*": ArrayField("", "ignored") for group in ("score", "eval", "fit")},
}
EXPECTED = (
    "Evidence contains `unlearned` [n, c] logits, `labels` [n] and as many of `original` [n, c], `shadows` [s, n, c], "
    "`forgotten` [n], `retrained` [n, c] as you have (docs/own_outputs.md)."
)


def from_arrays(values: Mapping[str, np.ndarray], settings: Settings) -> AuditInputs:
    """Computes the signals of one audited model from arrays that `arrays.read` has checked.

    Raises:
      DataError, ConfigError: arrays or settings that cannot be used.
    """
    if settings.audit.protocol in ELSEWHERE:
        raise errors.ConfigError(
            f"protocol = {settings.audit.protocol!r} reads the shadow models of other run folders; here, pass their "
            "outputs as `shadows`."
        )
    user_evidence = evidence.from_arrays(values)
    options = options_of(settings)
    if not settings.audit.interpolation_steps and "levels" in values:
        options = options._replace(interpolation_steps=int(values["levels"]))
        scores.check_options(options)
    names = scores.names_of(settings.audit.scores)
    all_signals = scores.signals_pass(user_evidence, options, pairs=scores.needs_pairs(names))
    examined = belonging.examine(user_evidence, values, all_signals)
    distinct_ids = examined.distinct_ids
    shadow_saw = np.asarray(values["shadow_saw"], bool) if "shadow_saw" in values else None
    if all_signals.shadows is not None and len(distinct_ids) < len(all_signals.shadows.log_odds):
        all_signals = scores.choose_shadows(all_signals, distinct_ids)
        shadow_saw = None if shadow_saw is None else shadow_saw[distinct_ids]
    person_names, person = np.unique(values["person"], return_inverse=True) if "person" in values else ((), None)
    audited = scores.single_model(all_signals)
    roles = {GIVEN: audited}
    labels, population_labels = np.asarray(user_evidence.labels), user_evidence.population_labels
    if "retrained" in values:
        population = None
        if "population_retrained" in values and population_labels is not None:
            population = _single(scores.signals_of(values["population_retrained"], population_labels, options))
        after = _single(scores.signals_of(values["retrained"], labels, options))
        roles[RETRAINED] = audited._replace(
            unlearned=after, population_unlearned=population, posterior_pairs=None, views=()
        )
    if audited.original is not None:
        views = tuple(view._replace(unlearned=view.original) for view in audited.views if view.original is not None)
        before, population = audited.original, audited.population_original
        roles[ORIGINAL] = scores.AuditedModels(before, before, population, population, views=views)
    ids = np.asarray(values.get("ids", np.arange(len(labels))))
    forgotten = None if user_evidence.forgotten is None else np.asarray(user_evidence.forgotten, bool)[None]
    return AuditInputs(
        options=options,
        names={"ids": ids},
        display_names=np.array([errors.printable(str(name)) for name in ids]),
        labels=labels,
        forgotten=forgotten,
        shared=all_signals,
        roles=roles,
        changes=_given_changes(user_evidence, values),
        audited=(GIVEN,),
        snapshots=_given_snapshots(values, labels, options, audited),
        num_classes=np.shape(user_evidence.unlearned)[-1],
        set_names=("forgotten",),
        from_classes=options.forget_type == "class",
        shadow_saw=shadow_saw,
        person=person,
        person_names=tuple(errors.printable(str(name)) for name in person_names),
        accuracies=examined.accuracies,
        doubts=examined.doubts,
        refusal=examined.refusal,
        twins=examined.twins,
    )


def _given_changes(user_evidence: Evidence, values: Mapping[str, np.ndarray]) -> dict[str, Changes]:
    """Returns how far the audited and the retrained model moved from the original."""
    if user_evidence.original is None:
        return {}
    pairs = {GIVEN: (user_evidence.unlearned, user_evidence.population_unlearned)}
    if "retrained" in values:
        pairs[RETRAINED] = (values["retrained"], values.get("population_retrained"))
    changes = {}
    for name, (target, population) in pairs.items():
        population_change = None
        if population is not None and user_evidence.population_original is not None:
            population_change = distances.largest_change(population, user_evidence.population_original)[None]
        changes[name] = Changes(distances.largest_change(target, user_evidence.original)[None], population_change)
    return changes


def _single(signals: Signals) -> Signals:
    return Signals(*(field[None] for field in signals))


def _given_snapshots(
    values: Mapping[str, np.ndarray], labels: np.ndarray, options: scores.Options, audited: scores.AuditedModels
) -> Snapshots | None:  # fmt: skip
    if "snapshots" not in values:
        return None
    trainings, per_training, *_ = np.shape(values["snapshots"])
    models = np.reshape(values["snapshots"], (trainings * per_training, *np.shape(values["snapshots"])[2:]))
    after = scores.signals_of(models, labels, options)
    before = None if audited.original is None else repeated(audited.original, len(models))
    return Snapshots(scores.AuditedModels(after, before), per_training)


# ---------------------------------------------------------------------------------------------------------------------
# a run folder


def gather_whole(run: RecordedRun, context: Context) -> AuditInputs:
    """Gathers the signals of a run without the audited roles that contain diverged models.

    Raises:
      ConfigError: no role is left.
    """
    audit = run.settings.audit
    models = {name: ORIGINAL if name.startswith(PROMPTED) else name for name in audit.unlearned}
    diverged_roles = {name: run.logits(role).diverged for name, role in models.items() if run.logits(role).diverged}
    for name, diverged in diverged_roles.items():
        sets = ", ".join(map(str, diverged))
        context.note(f"{name} is left out of the audit: the model of forget set(s) {sets} diverged; lower its rate")
    kept_roles = tuple(name for name in audit.unlearned if name not in diverged_roles)
    if not kept_roles:
        raise errors.ConfigError(
            f"every audited role has diverged models: {', '.join(diverged_roles)}. Lower the rates by unlearn.options, "
            "e.g. --config.unlearn.options=lr=1e-3, and delete the role by --overwrite=unlearned:METHOD."
        )
    settings = dataclasses.replace(run.settings, audit=dataclasses.replace(audit, unlearned=kept_roles))
    return gather(run._replace(settings=settings), context)


def gather(run: RecordedRun, context: Context) -> AuditInputs:
    """Computes the signals of a run from its recorded logits; samples are the target rows in the split's order."""
    if run.predicted is not None:
        return text_run.gather(run, context)
    settings, split = run.settings, run.split
    audit = settings.audit
    options = options_of(settings, settings.data.name)
    shadow = run.logits("shadow")
    if audit.rmia_offline_a == TUNED:
        tuned = tuned_offline_a(shadow, split, options)
        context.note(f"RMIA: offline_a = {tuned:g}, tuned on shadow 0 as pseudo-target")
        options = options_of(settings, settings.data.name, tuned)
    wants_pairs = scores.needs_pairs(scores.names_of(audit.scores))
    known_features = None
    if settings.targets.shadow_origin and wants_pairs:
        known_features = known_pairs(run.logits("shadow_origin"), shadow, split.shadow)
    views = tuple(f"augmented_{view}" for view in range(min(settings.targets.views, settings.shadows.views)))
    labels = np.asarray(run.labels, np.int32)[split.target]
    reference, member = _reference(run, context, options) if settings.targets.reference else (None, None)
    population_in = None
    if settings.targets.population_in:
        population_in = _model(_signals(run.logits("population_in"), split.population, options), 0)
    shared = scores.AuditSignals(
        labels=labels,
        shadows=_signals(shadow, split.target, options),
        population_shadows=_signals(shadow, split.population, options),
        population_in=population_in,
        shadow_train=own_signals(shadow, options),
        reference=reference,
        reference_member=member,
        posterior_pairs_known=None if known_features is None else known_features[0],
        posterior_pairs_forgotten=None if known_features is None else known_features[1],
        views=tuple(
            scores.AuditSignals(labels, shadows=_signals(run.logits("shadow", view), split.target, options))
            for view in views
        ),
    )
    audited = tuple(audit.unlearned)
    original = run.logits(ORIGINAL)
    roles = {}
    for name in dict.fromkeys((*audited, RETRAINED, ORIGINAL)):
        pairs = known_features is not None and name != ORIGINAL
        roles[name] = _models(run, name, views, options, original if pairs else None)
    signals = AuditInputs(
        options=options,
        names=run.names(np.asarray(split.target)),
        display_names=run.display_names(np.asarray(split.target)),
        labels=labels,
        forgotten=np.asarray(split.forget)[:, split.target],
        shared=shared,
        roles=roles,
        changes={name: _changes(run, name) for name in roles if name != ORIGINAL},
        audited=audited,
        num_classes=shadow.values.shape[-1],
        class_names=run.class_names,
        set_names=run.set_names,
        is_run=True,
        from_classes=settings.split.forget.kind in CLASS_KINDS,
    )
    if audit.protocol in ("all", "scoreui", "shift") and settings.targets.snapshots:
        signals = signals._replace(snapshots=_snapshots(run, signals))
    if audit.protocol in ELSEWHERE:
        signals = signals._replace(external={
            name: shared._replace(shadows=target, population_shadows=population, shadow_train=train,
                                  posterior_pairs_known=None, posterior_pairs_forgotten=None, views=())
            for name, (target, population, train) in (run.external_shadows(folder, options)
                                                    for folder in audit.shadow_runs)
        })  # fmt: skip
    return signals


def _models(
    run: RecordedRun, name: str, views: tuple[str, ...], options: scores.Options, original: RoleLogits | None
) -> scores.AuditedModels:
    """Returns the R models of a role, each with its original; `original`: logits for UnLeak's features, or None."""
    split, count = run.split, len(np.asarray(run.split.forget))
    recorded, original_logits = run.logits(name), run.logits(ORIGINAL)

    def pair(rows: records.Array, view: str = "clean") -> tuple[Signals, Signals]:
        roles = (recorded, original_logits) if view == "clean" else (run.logits(name, view), run.logits(ORIGINAL, view))
        after, before = (repeated(_signals(role_logits, rows, options), count) for role_logits in roles)
        return after, before

    after, before = pair(split.target)
    population, population_before = pair(split.population)
    return scores.AuditedModels(
        unlearned=after,
        original=before,
        population_unlearned=population,
        population_original=population_before,
        posterior_pairs=None if original is None else _pairs(original, recorded, split),
        views=tuple(scores.AuditedModels(*pair(split.target, view)) for view in views),
    )


def _changes(run: RecordedRun, name: str) -> Changes:
    """Returns how far every model of a role moved from its original."""
    recorded, original_logits = run.logits(name), run.logits(ORIGINAL)
    changes = []
    for rows in (run.split.target, run.split.population):
        after, before = recorded.positions(rows), original_logits.positions(rows)
        pairs = zip(recorded.values, _originals(original_logits, recorded), strict=True)
        changes.append(np.stack([distances.largest_change(values[after], start[before]) for values, start in pairs]))
    return Changes(*changes)


def _originals(original: RoleLogits, recorded: RoleLogits) -> np.ndarray:
    """Returns the logits [R, n, C] of each model's original: there is one each, or one for all."""
    return np.broadcast_to(original.values, (len(recorded.values), *original.values.shape[1:]))


def _snapshots(run: RecordedRun, signals: AuditInputs) -> Snapshots:
    """Returns all snapshots as audited models [L * K, ...] against the (first) original."""
    recorded = run.logits("snapshots")
    after, population = (_signals(recorded, rows, signals.options) for rows in (run.split.target, run.split.population))
    originals, count = signals.roles[ORIGINAL], len(recorded.values)
    before, population_before = of_first(originals.original, count), of_first(originals.population_original, count)
    return Snapshots(scores.AuditedModels(after, before, population, population_before), len(recorded.snapshots))


def _reference(run: RecordedRun, context: Context, options: scores.Options) -> tuple[Signals | None, np.ndarray | None]:
    """Returns reference models on the target rows and their membership; None if a row lacks an IN or an OUT model."""
    recorded = run.logits("reference")
    member = recorded.member[:, recorded.positions(run.split.target)]
    num_unusable = int((member.all(0) | ~member.any(0)).sum())
    if num_unusable:
        # A mean over no model is undefined.
        context.note(
            f"score lira is left out: {num_unusable} target row(s) are known to all or to none of the {len(member)} "
            "reference models; raise targets.reference"
        )
        return None, None
    return _signals(recorded, run.split.target, options), member


def _signals(recorded: RoleLogits, rows: records.Array, options: scores.Options) -> Signals:
    positions = recorded.positions(rows)
    return scores.signals_of(recorded.values, recorded.labels[positions], options, rows=positions)


def _model(signals: Signals, model: int) -> Signals:
    return Signals(*(field[model] for field in signals))


def own_signals(recorded: RoleLogits, options: scores.Options) -> Signals:
    """Computes the signals [S, m] of each shadow on its first m training rows, m the smallest number of any shadow."""
    num_rows = int(recorded.member.sum(1).min())
    signals = []
    for values, member in zip(recorded.values, recorded.member, strict=False):
        rows = np.flatnonzero(member)[:num_rows]
        signals.append(scores.signals_of(values, recorded.labels[rows], options, rows=rows))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *signals)


def known_pairs(origin: RoleLogits, recorded: RoleLogits, pool: records.Array) -> tuple[np.ndarray, np.ndarray] | None:
    """Computes UnLeak's training pairs: the shadow-origin model against each shadow.

    The rows are those that the shadow did not see, and as many that it did, or all of them if they are fewer.

    Returns:
      ([S, q, C] features, [S, q] bool forgotten), or None where a shadow sees the whole pool or none of it, or classes
      are too few.
    """
    inside = np.isin(recorded.rows, pool)
    # The same numbers for all shadows, whose sizes may differ.
    num_unseen = (inside & ~recorded.member).sum(1).min()
    num_seen = min(num_unseen, (inside & recorded.member).sum(1).min())
    if num_seen == 0 or recorded.values.shape[-1] <= unleak.KEPT:
        return None
    features = []
    for values, member in zip(recorded.values, recorded.member, strict=False):
        unseen_rows = np.flatnonzero(inside & ~member)[:num_unseen]
        seen_rows = np.flatnonzero(inside & member)[:num_seen]
        rows = np.concatenate([unseen_rows, seen_rows])
        features.append(np.asarray(unleak.features(np.asarray(origin.values[0][rows]), np.asarray(values[rows]))))
    forgotten = np.repeat([True, False], [num_unseen, num_seen])
    return np.stack(features), np.repeat(forgotten[None], len(features), 0)


def _pairs(original: RoleLogits, audited: RoleLogits, split: records.Split) -> np.ndarray:
    """Computes [R, N, C] UnLeak features of every audited model against its original."""
    before, after = original.positions(split.target), audited.positions(split.target)
    pairs = zip(_originals(original, audited), audited.values, strict=True)
    return np.stack([np.asarray(unleak.features(start[before], values[after])) for start, values in pairs])


def tuned_offline_a(recorded: RoleLogits, split: records.Split, options: scores.Options) -> float:
    """Tunes RMIA's offline_a on shadow 0 as pseudo-target, with the others as its references.

    Raises:
      ConfigError: every row of the pool was seen by all other shadows.
    """
    offline_a = rmia.tune_offline_a(
        np.asarray(_signals(recorded, split.shadow, options).ratio),
        recorded.member[:, recorded.positions(split.shadow)],
        np.asarray(_signals(recorded, split.population, options).ratio),
        options.gamma,
    )
    if not np.isfinite(offline_a):
        raise errors.ConfigError(
            "audit.rmia_offline_a = -2 tunes on shadow models, but no row of the shadow set is unknown to another "
            "shadow. Train more shadows or lower shadows.ratio, or give a value in [0, 1]."
        )
    return offline_a
