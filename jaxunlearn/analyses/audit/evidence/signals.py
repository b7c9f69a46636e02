"""Inputs of an audit: three numbers per model and sample, from one pass over the logits.

    arrays of a user, or recorded logits of a run -> AuditInputs -> any group of shadows, forget set and score

One audited role has R models, one per forget set. From a user's arrays there is one model and one set.
"""

from typing import NamedTuple

import jax
import numpy as np

from jaxunlearn import checks, errors, scores
from jaxunlearn.analyses.audit.evidence import plausibility
from jaxunlearn.scores import texts
from jaxunlearn.scores.options import PUBLISHED
from jaxunlearn.scores.tokens import TokenOptions
from jaxunlearn.settings import CLASS_KINDS, Settings

GIVEN, ORIGINAL, RETRAINED = "given model", "original", "retrained"
PUBLISHED_BLOCK = 64  # texts over which the published IAM takes its standard deviation


class Snapshots(NamedTuple):
    """Models at several epochs of their training.

    Attributes:
      models: [L * K] as audited models; per_training: K = B + 1, the snapshots of each training.
      degrees: [K] progress of the training; None = b / B.
    """

    models: scores.AuditedModels
    per_training: int
    degrees: np.ndarray | None = None


class Changes(NamedTuple):
    """How far the answers of the R models of a role moved from the original's, over all classes.

    Attributes:
      target: [R, N] largest change of a log-probability; population: [R, P], or None without population.
    """

    target: np.ndarray
    population: np.ndarray | None = None


class AuditInputs(NamedTuple):
    """Everything that an audit reads.

    Attributes:
      options: constants and options of the scores.
      names: arrays [N] that name the samples in result files, at least `ids`.
      display_names: [N] text that names them in tables.
      labels: [N].
      forgotten: [R, N] bool, the requests; None if unknown.
      shared: signals that all audited models share: shadows, population, labels.
      roles: role -> its R models, audited ones first, then "original" and "retrained" if available.
      audited: the requested roles.
      changes: role -> how far its answers moved from the original's; roles without original are left out.
      external: name -> `shared` with the shadow models of another run.
      snapshots: for ScoreUI, or None.
      num_classes: C; class_names: may be empty; set_names: [R] what each forget set is.
      is_run: whether they come from a run folder, with its R sets and groups of shadows.
      from_classes: whether the forget sets are whole classes.
      shadow_saw: [S, N] bool, which shadow was trained on which sample; None: no shadow saw any.
      person: [N] indices into `person_names` that group the samples; None if unknown.
      accuracies: array -> accuracy of its models on their labels; doubts: warnings about inconsistent arrays; refusal:
        the doubts that forbid any verdict; twins: [N] bool, retained rows that are copies of requested ones, or None.
        Of a user's arrays only.
      kind: of evidence, logits or tokens; written: [N] the texts themselves, or None.
    """

    options: scores.Options
    names: dict[str, np.ndarray]
    display_names: np.ndarray
    labels: np.ndarray
    forgotten: np.ndarray | None
    shared: scores.AuditSignals
    roles: dict[str, scores.AuditedModels]
    audited: tuple[str, ...]
    changes: dict[str, Changes] = {}
    external: dict[str, scores.AuditSignals] = {}
    snapshots: Snapshots | None = None
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    set_names: tuple[str, ...] = ()
    is_run: bool = False
    from_classes: bool = False
    shadow_saw: np.ndarray | None = None
    person: np.ndarray | None = None
    person_names: tuple[str, ...] = ()
    accuracies: dict[str, plausibility.Accuracy] = {}
    doubts: tuple[str, ...] = ()
    refusal: str = ""
    twins: np.ndarray | None = None
    kind: str = scores.LOGITS
    written: np.ndarray | None = None


def options_of(settings: Settings, dataset: str = "", offline_a: float | None = None) -> scores.Options:
    """Returns the options of the scores from the settings.

    Args:
      settings: see `AuditSettings`.
      dataset: data set whose published constants apply if audit.dataset is empty.
      offline_a: tuned value that replaces the published one.

    Raises:
      ConfigError: audit.dataset has no published constants, or constants that do not fit together.
    """
    audit = settings.audit
    if audit.dataset:
        checks.choice("dataset", audit.dataset, PUBLISHED)
    dataset = audit.dataset or dataset
    constants = scores.published(dataset)
    if audit.e1 or audit.e2:
        e1, e2 = audit.e1 or constants.e1, audit.e2 or constants.e2
        constants = constants._replace(e1=e1, e2=e2, offline_e1=e1, offline_e2=e2)
    if audit.rmia_temperature:
        constants = constants._replace(temperature=audit.rmia_temperature)
    if audit.rmia_offline_a >= 0:
        constants = constants._replace(offline_a=audit.rmia_offline_a)
    if offline_a is not None:
        constants = constants._replace(offline_a=offline_a)
    kind = "class" if settings.split.forget.kind in CLASS_KINDS else "set_random"
    options = scores.Options(
        constants=constants,
        interpolation_steps=audit.interpolation_steps or 100,
        family=audit.family,
        std=audit.std,
        variance=audit.lira_variance,
        rmia_signal=audit.rmia_signal,
        gamma=audit.rmia_gamma,
        compat=settings.compat.scores,
        forget_type=kind if audit.forget_type == "auto" else audit.forget_type,
        dataset=dataset,
        seed=settings.seed,
        tokens=_token_options(settings),
    )
    scores.check_options(options)
    return options


def _token_options(settings: Settings) -> TokenOptions:
    """Returns the options of scores of texts; faithful: IAM in blocks, without a minimum of tokens, as published."""
    audit, plain = settings.audit, TokenOptions()
    is_faithful = settings.compat.scores == "faithful"
    return TokenOptions(
        k=audit.min_k,
        surp_k=audit.surp_k,
        surp_entropy=audit.surp_entropy,
        interpolation_steps=audit.interpolation_steps or plain.interpolation_steps,
        eps1=audit.e1 or plain.eps1,
        eps2=audit.e2 or plain.eps2,
        block=PUBLISHED_BLOCK if is_faithful else 0,
        gamma=audit.rmia_gamma,
        is_faithful=is_faithful,
    )


def names_of(signals: AuditInputs, settings: Settings) -> tuple[str, ...]:
    """Returns the names of the requested scores; `all` = every score of this kind of evidence."""
    return scores.names_of(settings.audit.scores, signals.kind)


def num_shadows(signals: AuditInputs) -> int:
    """Returns S, the number of shadow models."""
    return 0 if signals.shared.shadows is None else len(signals.shared.shadows.log_odds)


def groups(signals: AuditInputs, settings: Settings, size: int = 0) -> list[np.ndarray]:
    """Returns disjoint groups of shadows: group j contains shadows j * size .. (j + 1) * size - 1."""
    count = num_shadows(signals)
    if not count:
        return [np.arange(0)]
    size = size or settings.audit.group_size or (1 if signals.is_run else count)
    return group_indices(settings, count, size)


def group_indices(settings: Settings, count: int, size: int) -> list[np.ndarray]:
    """Splits `count` shadows into disjoint groups of `size`, at most audit.groups of them.

    Raises:
      ConfigError: fewer shadows than one group needs.
    """
    num_groups = min(count // size, settings.audit.groups)
    if num_groups == 0:
        raise errors.ConfigError(
            f"audit.group_size = {size}, but there are {count} shadow models. Lower it, or give more (in a run: "
            "shadows.count)."
        )
    return [np.arange(group * size, (group + 1) * size) for group in range(num_groups)]


def available(signals: AuditInputs, role: str) -> dict[str, bool]:
    """Maps the fields of an Evidence to whether these signals provide them when a role is audited."""
    shared, models = signals.shared, signals.roles[role]
    if signals.kind == scores.TOKENS:
        return texts.available(scores.select_model(shared, jax.tree.map(lambda leaf: leaf[0], models)))
    has_pairs = shared.posterior_pairs_known is not None and models.posterior_pairs is not None
    has_views = bool(shared.views and models.views)
    return {
        "original": models.original is not None,
        "shadows": shared.shadows is not None,
        "shadow_train_logits": shared.shadow_train is not None,
        "population_labels": models.population_unlearned is not None or shared.population_shadows is not None,
        "population_original": models.population_original is not None,
        "population_unlearned": models.population_unlearned is not None,
        "population_in": shared.population_in is not None,
        "population_shadows": shared.population_shadows is not None,
        **dict.fromkeys(("reference", "reference_member"), shared.reference is not None),
        **dict.fromkeys(
            ("posterior_pairs_original", "posterior_pairs_unlearned", "posterior_pairs_forgotten"), has_pairs
        ),
        "unlearned_views": has_views,
        "original_views": has_views and models.views[0].original is not None,
        "shadows_views": has_views and shared.views[0].shadows is not None,
    }


def runnable(signals: AuditInputs, names: tuple[str, ...], role: str) -> tuple[list[str], dict[str, str]]:
    """Returns the scores whose inputs are available, and the reasons for which others are skipped."""
    skipped = scores.skipped_for(names, available(signals, role), signals.num_classes, signals.kind)
    return [name for name in names if name not in skipped], skipped


def with_shadows(signals: AuditInputs, group: np.ndarray) -> scores.AuditSignals:
    """Returns the shared signals with the shadows of a group only; an empty group = all."""
    return scores.choose_shadows(signals.shared, group) if 0 < len(group) < num_shadows(signals) else signals.shared


def repeated(signals: scores.Signals, count: int) -> scores.Signals:
    """Broadcasts signals [1 or count, n] to [count, n]."""
    return scores.Signals(*(np.broadcast_to(field, (count, *field.shape[1:])) for field in signals))


def of_first(signals: scores.Signals | None, count: int) -> scores.Signals | None:
    """Repeats the first model of signals [R, n] as [count, n]; None stays None."""
    return None if signals is None else repeated(scores.Signals(*(field[:1] for field in signals)), count)


def only_sets(signals: AuditInputs, sets: list[int]) -> AuditInputs:
    """Returns the signals of some forget sets."""
    assert signals.forgotten is not None
    index = np.asarray(sets)
    roles = {name: jax.tree.map(lambda leaf: leaf[index], models) for name, models in signals.roles.items()}
    changes = {
        name: jax.tree.map(lambda leaf: leaf[index], role_changes) for name, role_changes in signals.changes.items()
    }
    return signals._replace(forgotten=signals.forgotten[index], roles=roles, changes=changes)
