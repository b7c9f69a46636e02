"""The bank of one audit: every logit of a run passed over once, kept as three numbers per model and sample.

    logits/ROLE.npy (memory maps) -> signals of shadows, originals, audited models -> any group, set and score

Rows are the target rows in the split's order. Shadows come from the run itself, or from another run (`foreign`).
"""

from typing import NamedTuple

import jax
import numpy as np

from jaxunlearn import errors, progress, records, scores, store
from jaxunlearn.data import naming
from jaxunlearn.data.forget import CLASS_KINDS
from jaxunlearn.protocols import recording, shadows, splits, targets, workbench
from jaxunlearn.scores import rmia, unleak
from jaxunlearn.settings import Settings

Signals = scores.Signals


class ShadowPart(NamedTuple):
    """What shadows give.

    Attributes:
      target: Signals [S, N]; population: Signals [S, P].
      own: Signals [S, m] on each shadow's own training rows.
      pairs_known: [S, q, C] UnLeak features of shadow rows; pairs_forgotten: [S, q]; None without shadow_origin.
      views: Signals [S, N] per augmented view.
    """

    target: Signals
    population: Signals
    own: Signals | None
    pairs_known: np.ndarray | None = None
    pairs_forgotten: np.ndarray | None = None
    views: tuple[Signals, ...] = ()


class RolePart(NamedTuple):
    """What M audited or original models give: Signals [M, N] and [M, P], and Signals [M, N] per augmented view."""

    target: Signals
    population: Signals
    views: tuple[Signals, ...] = ()


class Bank(NamedTuple):
    """One audit's evidence after the pass.

    Attributes:
      options: constants and choices of the scores.
      rows, labels: [N] the target rows; `forgotten`: [R, N] bool, the requests.
      shadow: from the shadows; `original`: one model or one per forget set; `audited`: role -> part.
      population_in: Signals [P] or None; reference: Signals [K, N] or None; reference_member: [K, N] or None.
      pairs: role -> [R, N, C] UnLeak features.
      named: what files of results call the target rows: `rows` (and `ids`) [N] of the user's own file.
    """

    options: scores.Options
    rows: np.ndarray
    labels: np.ndarray
    forgotten: np.ndarray
    shadow: ShadowPart
    original: RolePart
    audited: dict[str, RolePart]
    population_in: Signals | None = None
    reference: Signals | None = None
    reference_member: np.ndarray | None = None
    pairs: dict[str, np.ndarray] = {}
    named: dict[str, np.ndarray] = {}


def options_of(settings: Settings, offline_a: float | None = None) -> scores.Options:
    """The scores' choices of these settings; `offline_a` is a tuned one."""
    audit = settings.audit
    dataset = audit.dataset or settings.data.name
    given = scores.published(dataset)
    if audit.e1 or audit.e2:
        e1, e2 = audit.e1 or given.e1, audit.e2 or given.e2
        given = given._replace(e1=e1, e2=e2, offline_e1=e1, offline_e2=e2)
    if audit.rmia_temperature:
        given = given._replace(temperature=audit.rmia_temperature)
    if audit.rmia_offline_a >= 0:
        given = given._replace(offline_a=audit.rmia_offline_a)
    if offline_a is not None:
        given = given._replace(offline_a=offline_a)
    options = scores.Options(
        constants=given,
        levels=audit.levels,
        family=audit.family,
        spread=audit.spread,
        variance=audit.lira_variance,
        rmia_signal=audit.rmia_signal,
        gamma=audit.rmia_gamma,
        compat=settings.compat.scores,
        forget_type="class" if settings.split.forget.kind in CLASS_KINDS else "set_random",
        dataset=dataset,
        seed=settings.seed,
    )
    scores.check_options(options)
    return options


def open_bank(
    run: store.Run, reporter: progress.Reporter, bench: workbench.Workbench, shadow: ShadowPart | None = None
) -> Bank:
    """Passes over the recorded logits of a run.

    Args:
      run: where `targets.run` has worked.
      reporter: for messages.
      bench: of the same settings.
      shadow: shadows from elsewhere; None = the run's own.
    """
    settings = bench.settings
    split, _ = splits.obtain(run, bench)
    options = options_of(settings)
    if settings.audit.rmia_offline_a == -2:
        tuned = tuned_offline_a(run, bench, split, options)
        reporter.say(f"RMIA: offline_a = {tuned:g}, tuned on shadow 0 as pseudo-target")
        options = options_of(settings, tuned)
    given = shadow if shadow is not None else own_shadows(run, bench, split, options)
    wants_pairs = given.pairs_known is not None and _wants(settings, "unleak")
    audited, pairs = {}, {}
    original = targets.role_logits(run, bench, "original")
    for name in dict.fromkeys((*settings.audit.unlearned, "retrained")):
        recorded = targets.role_logits(run, bench, name)
        audited[name] = _role_part(run, bench, name, recorded, split, options)
        if wants_pairs:
            pairs[name] = _pairs(original, recorded, split)
    population_in = reference = member = None
    if settings.targets.population_in:
        recorded = targets.role_logits(run, bench, "population_in")
        population_in = _line(_signals(recorded, split.population, options), 0)
    if settings.targets.reference:
        reference, member = _reference(run, reporter, bench, split, options)
    return Bank(
        options,
        np.asarray(split.target),
        np.asarray(bench.dataset.labels, np.int32)[split.target],
        np.asarray(split.forget)[:, split.target],
        given,
        _role_part(run, bench, "original", original, split, options),
        audited,
        population_in,
        reference,
        member,
        pairs,
        naming.named(bench.dataset, split.target),
    )


def _reference(
    run: store.Run,
    reporter: progress.Reporter,
    bench: workbench.Workbench,
    split: records.Split,
    options: scores.Options,
) -> tuple[Signals | None, np.ndarray | None]:
    """Reference models on the target rows and who trained on what; nothing where a row lacks an IN or an OUT model."""
    recorded = targets.role_logits(run, bench, "reference")
    member = recorded.member[:, _places(recorded, split.target)]
    alone = int((member.all(0) | ~member.any(0)).sum())
    if alone:
        # A mean over no model would be a number that means nothing.
        reporter.say(
            f"score lira is left out: {alone} target row(s) are known to all or to none of the {len(member)} reference "
            "models; raise targets.reference"
        )
        return None, None
    return _signals(recorded, split.target, options), member


def _wants(settings: Settings, name: str) -> bool:
    return name in scores.names_of(settings.audit.scores)


def _places(recorded: targets.RoleLogits, rows: records.Array) -> np.ndarray:
    """Positions of data-set rows among the recorded rows (which are sorted)."""
    return np.searchsorted(recorded.rows, np.asarray(rows))


def _signals(recorded: targets.RoleLogits, rows: records.Array, options: scores.Options) -> Signals:
    places = _places(recorded, rows)
    return scores.signals_of(recorded.values, recorded.labels[places], options, rows=places)


def _line(signals: Signals, model: int) -> Signals:
    return Signals(*(field[model] for field in signals))


def _views(
    run: store.Run, bench: workbench.Workbench, name: str, split: records.Split, options: scores.Options
) -> tuple[Signals, ...]:
    """Signals of the target rows in every augmented view that both shadows and targets have recorded."""
    count = min(bench.settings.targets.views, bench.settings.shadows.views)
    views = recording.view_names(count)
    return tuple(_signals(targets.role_logits(run, bench, name, view), split.target, options) for view in views)


def _role_part(
    run: store.Run,
    bench: workbench.Workbench,
    name: str,
    recorded: targets.RoleLogits,
    split: records.Split,
    options: scores.Options,
) -> RolePart:
    return RolePart(
        _signals(recorded, split.target, options),
        _signals(recorded, split.population, options),
        _views(run, bench, name, split, options),
    )


def own_shadows(
    run: store.Run, bench: workbench.Workbench, split: records.Split, options: scores.Options
) -> ShadowPart:
    """The run's own shadows."""
    recorded = targets.role_logits(run, bench, shadows.ROLE)
    known: tuple[np.ndarray, np.ndarray] | None = None
    if bench.settings.targets.shadow_origin and _wants(bench.settings, "unleak"):
        origin = targets.role_logits(run, bench, "shadow_origin")
        known = known_pairs(origin, recorded, split.shadow)
    features, forgotten = known if known is not None else (None, None)
    return ShadowPart(
        _signals(recorded, split.target, options),
        _signals(recorded, split.population, options),
        own_signals(recorded, options),
        features,
        forgotten,
        _views(run, bench, shadows.ROLE, split, options),
    )


def own_signals(recorded: targets.RoleLogits, options: scores.Options) -> Signals:
    """Signals [S, m] of each shadow on its own training rows (as many for all: the least number)."""
    least = int(recorded.member.sum(1).min())
    lines = []
    for values, member in zip(recorded.values, recorded.member, strict=False):
        own = np.flatnonzero(member)[:least]
        lines.append(scores.signals_of(values, recorded.labels[own], options, rows=own))
    return jax.tree.map(lambda *parts: np.stack(parts), *lines)


def known_pairs(
    origin: targets.RoleLogits, recorded: targets.RoleLogits, pool: records.Array
) -> tuple[np.ndarray, np.ndarray] | None:
    """UnLeak's training pairs: shadow-origin model against each shadow, on rows it did not see and on as many it did.

    Returns:
      ([S, q, C] features, [S, q] bool forgotten), or None where shadows see the whole pool or classes are too few.
    """
    inside = np.isin(recorded.rows, pool)
    outside = (inside & ~recorded.member).sum(1).min()
    if outside == 0 or recorded.values.shape[-1] <= unleak.KEPT:
        return None
    found = []
    for values, member in zip(recorded.values, recorded.member, strict=False):
        left = np.flatnonzero(inside & ~member)[:outside]
        kept = np.flatnonzero(inside & member)[:outside]
        rows = np.concatenate([left, kept])
        found.append(np.asarray(unleak.features(np.asarray(origin.values[0][rows]), np.asarray(values[rows]))))
    forgotten = np.repeat([True, False], [outside, len(kept)])
    return np.stack(found), np.repeat(forgotten[None], len(found), 0)


def _pairs(original: targets.RoleLogits, audited: targets.RoleLogits, split: records.Split) -> np.ndarray:
    """[R, N, C] UnLeak features of every audited model against its original."""
    before, after = _places(original, split.target), _places(audited, split.target)
    return np.stack([
        np.asarray(unleak.features(
            np.asarray(original.values[number if len(original.values) > 1 else 0][before]), np.asarray(values[after])
        ))
        for number, values in enumerate(audited.values)
    ])  # fmt: skip


def tuned_offline_a(run: store.Run, bench: workbench.Workbench, split: records.Split, options: scores.Options) -> float:
    """RMIA's offline_a, tuned on shadow 0 as pseudo-target with the others as its references.

    Raises:
      ConfigError: every row of the pool was seen by all other shadows.
    """
    recorded = targets.role_logits(run, bench, shadows.ROLE)
    places = _places(recorded, split.shadow)
    found = rmia.tune_offline_a(
        np.asarray(_signals(recorded, split.shadow, options).ratio),
        recorded.member[:, places],
        np.asarray(_signals(recorded, split.population, options).ratio),
        options.gamma,
    )
    if not np.isfinite(found):
        raise errors.ConfigError(
            "audit.rmia_offline_a = -2 tunes on shadow models, but no row of the shadow set is unknown to another "
            "shadow. Train more shadows or lower shadows.ratio, or give a value in [0, 1]."
        )
    return found


def available(bank: Bank) -> dict[str, bool]:
    """Which fields of an Evidence this bank can stand for."""
    views = bool(bank.shadow.views)
    pairs = bank.shadow.pairs_known is not None and bool(bank.pairs)
    there = ("original", "shadows", "population_labels", "population_original", "population_unlearned")
    return {
        **dict.fromkeys((*there, "population_shadows"), True),
        "shadow_train_logits": bank.shadow.own is not None,
        "population_in": bank.population_in is not None,
        **dict.fromkeys(("reference", "reference_member"), bank.reference is not None),
        **dict.fromkeys(("pairs_original", "pairs_unlearned", "pairs_forgotten"), pairs),
        **dict.fromkeys(("original_views", "unlearned_views", "shadows_views"), views),
    }


def shared(bank: Bank, chosen: np.ndarray | list[int] | None = None) -> scores.Measured:
    """What all audited models share: chosen shadows (None = all) and the population."""
    shadow = bank.shadow
    whole = scores.Measured(
        labels=bank.labels,
        shadows=shadow.target,
        population_shadows=shadow.population,
        population_in=bank.population_in,
        own=shadow.own,
        reference=bank.reference,
        reference_member=bank.reference_member,
        pairs_known=shadow.pairs_known,
        pairs_forgotten=shadow.pairs_forgotten,
        views=tuple(scores.Measured(bank.labels, shadows=view) for view in shadow.views),
    )
    return whole if chosen is None else scores.choose_shadows(whole, chosen)


def cases(bank: Bank, role: str) -> scores.Cases:
    """The audited models of a role, each with its original: [R] cases; `original` audits the originals themselves."""
    audited = bank.original if role == "original" else bank.audited[role]
    count = len(bank.forgotten)

    def expand(signals: Signals) -> Signals:
        return Signals(*(np.broadcast_to(field, (count, *field.shape[1:])) for field in signals))

    after, before = expand(audited.target), expand(bank.original.target)
    views = zip(audited.views, bank.original.views, strict=True)
    return scores.Cases(
        unlearned=after,
        original=before,
        population_unlearned=expand(audited.population),
        population_original=expand(bank.original.population),
        pairs=bank.pairs.get(role),
        views=tuple(scores.Cases(expand(now), expand(then)) for now, then in views) if bank.shadow.views else (),
    )


def only_sets(bank: Bank, kept: list[int]) -> Bank:
    """The bank of some forget sets: audited models, originals where every set has its own, requests."""
    everything = len(bank.forgotten)

    def part(one: RolePart) -> RolePart:
        if len(one.target.log_odds) != everything:
            return one
        return jax.tree.map(lambda leaf: leaf[np.asarray(kept)], one)

    return bank._replace(
        forgotten=bank.forgotten[kept],
        original=part(bank.original),
        audited={name: part(one) for name, one in bank.audited.items()},
        pairs={name: one[kept] for name, one in bank.pairs.items()},
    )


def groups(settings: Settings, count: int, size: int = 0) -> list[np.ndarray]:
    """Disjoint groups of shadows: group j holds shadows j * size .. (j + 1) * size - 1.

    Raises:
      ConfigError: fewer shadows than one group needs.
    """
    size = size or settings.audit.group_size
    number = min(count // size, settings.audit.groups)
    if number == 0:
        raise errors.ConfigError(
            f"audit.group_size = {size}, but there are {count} shadow models. Lower it or raise shadows.count."
        )
    return [np.arange(group * size, (group + 1) * size) for group in range(number)]
