"""The pooled protocol: R forget sets and G shadow groups give one number per metric, with spread and interval.

    scores [G, R, N], truth [R, N]  ->  per group one ROC of R * N samples  ->  mean over groups

NumPy on the host. `spread` is the published "±", the population standard deviation over shadow groups: groups audit
the same models, so it says how much the choice of shadows matters, not how sure the number is. The interval says that:
its unit is the forget set, because all samples of one forget set were judged by one unlearned model. Each group is
sorted once; leaving out a forget set sets its weights to 0 along that order.
Source: IAM, section on BinUI (pooling and spread); the interval is this package's.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxunlearn import checks
from jaxunlearn.metrics import roc
from jaxunlearn.metrics.inference import intervals
from jaxunlearn.records import Finding

AGAINST = "retained against forgotten"
# From this many forget sets on the interval is the jackknife's.
FEWEST_SETS = 3
RESAMPLES = 400


class PooledCurve(NamedTuple):
    """One row of the table: how a number is read from a curve and what is known about its sampling.

    Attributes:
      title: the metric's name in reports.
      read: curve -> number in [0, 1], higher = separates members better.
      trials: which samples the rate is a fraction of: "positive", "negative", or "" where it is no rate.
    """

    title: str
    read: Callable[[roc.Curve], float]
    trials: str = ""


def readings(interpolation: str) -> dict[str, PooledCurve]:
    """The published columns, by their names in METRICS."""
    return {
        "auc": PooledCurve("AUC", roc.area),
        "balanced_accuracy": PooledCurve("balanced accuracy", roc.best_balanced),
        "tpr_at_fpr_1e-2": PooledCurve(
            "TPR at FPR 1e-2", lambda c: roc.member_rate(c, 1e-2, interpolation), "positive"
        ),
        "tpr_at_fpr_1e-3": PooledCurve(
            "TPR at FPR 1e-3", lambda c: roc.member_rate(c, 1e-3, interpolation), "positive"
        ),
        "tnr_at_fnr_1e-2": PooledCurve(
            "TNR at FNR 1e-2", lambda c: roc.forgotten_rate(c, 1e-2, interpolation), "negative"
        ),
        "tnr_at_fnr_1e-3": PooledCurve(
            "TNR at FNR 1e-3", lambda c: roc.forgotten_rate(c, 1e-3, interpolation), "negative"
        ),
    }


def table(
    scores: np.ndarray,
    truth: np.ndarray,
    confidence_level: float = 0.95,
    of: str = "",
    *,
    interpolation: str = "linear",
    seed: int = 0,
    extra: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] | None = None,
) -> dict[str, Finding]:
    """AUC, balanced accuracy, TPR and TNR at low levels over pooled forget sets; every one: higher = separates better.

    From 3 forget sets on, the interval is the delete-one-forget-set jackknife on the mean over groups. Below that, or
    where a deletion leaves only one kind of sample or a perfect separation leaves no variance, it treats samples as
    independent: DeLong for the AUC (components averaged over groups, which share samples), Clopper-Pearson with the
    threshold taken as given for TPR and TNR, a stratified basic bootstrap for balanced accuracy. Such an interval knows
    nothing of the variation between unlearned models and is too short as a statement about the method.

    Args:
      scores: [G, R, N] of G shadow groups on R forget sets of N samples, higher = member.
      truth: [R, N] bool, True = member (retained), False = forgotten.
      confidence_level: of the intervals, in [0, 1].
      of: whose scores these are.
      interpolation: see `roc.tpr_at_fpr`.
      seed: of the bootstrap.
      extra: further metrics name -> function(scores [n], truth [n]) -> number; they get an interval by the jackknife
        only, not clipped.

    Returns:
      name -> Finding with n = R * N and `method` naming the interval; `spread` is NaN for one group.

    Raises:
      ShapeError: arrays do not fit together. DataError: non-finite scores, truth with one kind only.
      ConfigError: level or interpolation.
    """
    scores, truth = check(scores, truth, confidence_level)
    checks.choice("interpolation", interpolation, roc.INTERPOLATIONS)
    columns, extra = readings(interpolation), dict(extra or {})
    groups, sets, _ = scores.shape
    deletable = sets >= FEWEST_SETS and _every_deletion_keeps_both_kinds(truth)
    whole = np.empty((len(columns) + len(extra), groups))
    deleted = np.full((len(columns) + len(extra), groups, sets), np.nan)
    keep = np.repeat(~np.eye(sets, dtype=bool), truth.shape[1], axis=1)
    flat_truth = truth.ravel()
    for group in range(groups):
        flat = scores[group].ravel()
        ranked = roc.rank(flat, flat_truth)
        whole[:, group] = _numbers(columns, extra, roc.count(ranked), flat, flat_truth)
        for left_out in range(sets if deletable else 0):
            kept = keep[left_out]
            deleted[:, group, left_out] = _numbers(
                columns, extra, roc.count(ranked, kept), flat[kept], flat_truth[kept]
            )
    found = {}
    for row, name in enumerate([*columns, *extra]):
        interval = intervals.jackknife(whole[row].mean(), deleted[row].mean(0), confidence_level)
        method = f"jackknife over {sets} forget sets"
        separated = interval.value in (0.0, 1.0) and interval.low == interval.high
        if name in columns:
            if not deletable or separated:
                interval, method = _within(name, columns[name], interval.value, scores, truth, confidence_level, seed)
            interval = intervals.clip(interval)
        elif not deletable:
            method = f"none: fewer than {FEWEST_SETS} forget sets of both kinds"
        found[name] = Finding(
            *interval,
            std=intervals.std(whole[row]),
            metric=columns[name].title if name in columns else name,
            n=truth.size,
            confidence_level=confidence_level,
            of=of,
            against=AGAINST,
            method=method,
        )
    return found


def paired_auc(
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    truth: np.ndarray,
    confidence_level: float = 0.95,
    of: str = "",
    against: str = "",
) -> Finding:
    """AUC of scores a minus AUC of scores b on the same samples, in [-1, 1]; above 0 = a separates members better.

    Jackknife over forget sets from 3 sets on, otherwise DeLong for correlated curves (samples taken as independent).
    A difference is significant at 1 - level where the interval leaves out 0.

    Args:
      scores_a: [n], or [G, R, N] as in `table`.
      scores_b: the same shape.
      truth: [n], or [R, N].
      confidence_level: of the interval, in [0, 1].
      of: name of a.
      against: name of b.

    Returns:
      A Finding with metric "AUC difference" and n samples.

    Raises:
      ShapeError, DataError, ConfigError: as `table`.

    Source: DeLong, DeLong and Clarke-Pearson 1988.
    """
    if np.ndim(truth) == 1:
        checks.shape("N", scores_a=scores_a, scores_b=scores_b, truth=truth)
        scores_a, scores_b, truth = (
            np.asarray(scores_a)[None, None],
            np.asarray(scores_b)[None, None],
            np.asarray(truth)[None],
        )
    checks.shape("GRN", scores_a=scores_a, scores_b=scores_b)
    scores_a, truth = check(scores_a, truth, confidence_level)
    scores_b, _ = check(scores_b, truth, confidence_level)
    groups, sets, size = scores_a.shape
    flat_truth = truth.ravel()
    differences = np.empty(groups)
    deleted = np.full((groups, sets), np.nan)
    deletable = sets >= FEWEST_SETS and _every_deletion_keeps_both_kinds(truth)
    for group in range(groups):
        pair = [roc.rank(scores[group].ravel(), flat_truth) for scores in (scores_a, scores_b)]
        differences[group] = roc.area(roc.count(pair[0])) - roc.area(roc.count(pair[1]))
        for left_out in range(sets if deletable else 0):
            kept = np.repeat(np.arange(sets) != left_out, size)
            deleted[group, left_out] = roc.area(roc.count(pair[0], kept)) - roc.area(roc.count(pair[1], kept))
    if deletable:
        interval = intervals.jackknife(differences.mean(), deleted.mean(0), confidence_level)
        method = f"jackknife over {sets} forget sets"
    else:
        a, b = mean_placements(scores_a, flat_truth), mean_placements(scores_b, flat_truth)
        parts = intervals.Placements(a.positive - b.positive, a.negative - b.negative)
        interval, method = intervals.delong_from(parts, confidence_level), "DeLong"
    return Finding(
        *intervals.clip(interval, -1.0, 1.0),
        std=intervals.std(differences),
        metric="AUC difference",
        n=truth.size,
        confidence_level=confidence_level,
        of=of,
        against=against,
        method=method,
    )


def check(scores: np.ndarray, truth: np.ndarray, confidence_level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Scores [G, R, N] and truth [R, N] as arrays that can be pooled; raises as `table` does."""
    checks.in_range("confidence_level", confidence_level, 0, 1)
    checks.shape("GRN RN", scores=scores, truth=truth)
    return roc.finite_scores(scores), roc.both_kinds(truth)


def mean_placements(scores: np.ndarray, truth: np.ndarray) -> intervals.Placements:
    """DeLong components of the mean AUC over groups: scores [G, ...], truth flat.

    Groups share samples: components are averaged sample by sample, which carries their correlation.
    """
    each = [intervals.placements(group.ravel(), truth) for group in scores]
    return intervals.Placements(*(np.mean(parts, 0) for parts in zip(*each, strict=True)))


def _every_deletion_keeps_both_kinds(truth: np.ndarray) -> bool:
    members = truth.sum(1)
    others = truth.shape[1] - members
    return bool(((members.sum() - members > 0) & (others.sum() - others > 0)).all())


def _numbers(
    columns: Mapping[str, PooledCurve],
    extra: Mapping[str, Callable],
    curve: roc.Curve,
    scores: np.ndarray,
    truth: np.ndarray,
) -> list[float]:
    """All metrics of one pooled group, in the order of the table."""
    return [column.read(curve) for column in columns.values()] + [float(f(scores, truth)) for f in extra.values()]


def _within(
    name: str,
    column: PooledCurve,
    value: float,
    scores: np.ndarray,
    truth: np.ndarray,
    confidence_level: float,
    seed: int,
) -> tuple[intervals.Interval, str]:
    """The interval of a mean over groups when samples are taken as independent, and its name."""
    flat = truth.ravel()
    trials = {"positive": int(flat.sum()), "negative": int((~flat).sum())}
    if column.trials:
        n = trials[column.trials]
        return intervals.clopper_pearson(value * n, n, confidence_level)._replace(value=value), "Clopper-Pearson"
    if name == "auc":
        parts = mean_placements(scores, flat)
        return intervals.proportion_delong(parts, confidence_level)._replace(value=value), "DeLong"
    if value == 1.0:
        # A resampled perfect separation stays perfect: bound both rates instead, each at half the error.
        ends = [intervals.clopper_pearson(n, n, (1 + confidence_level) / 2) for n in trials.values()]
        return intervals.Interval(1.0, float(np.mean([end.low for end in ends])), 1.0), "Clopper-Pearson"
    return _bootstrap(column, value, scores, flat, confidence_level, seed), "bootstrap"


def _bootstrap(
    column: PooledCurve, value: float, scores: np.ndarray, truth: np.ndarray, confidence_level: float, seed: int
) -> intervals.Interval:
    """Stratified basic bootstrap; every group meets the same draws, because groups share samples."""
    generator = np.random.default_rng(seed)
    ranked = [roc.rank(group.ravel(), truth) for group in scores]
    kinds = np.flatnonzero(truth), np.flatnonzero(~truth)
    drawn = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        rows = np.concatenate([generator.choice(kind, len(kind)) for kind in kinds])
        weights = np.bincount(rows, minlength=len(truth))
        drawn[i] = np.mean([column.read(roc.count(one, weights)) for one in ranked])
    return intervals.resampled(value, drawn, confidence_level, "basic")
